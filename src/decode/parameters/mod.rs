//! The decoding parameters: one table of their names, types, defaults, ranges and descriptions.
//!
//! [`GenerationConfig`] has a field for each parameter, [`PARAMETERS`] an entry. Flags, keys of JSON rows and the library
//! itself read and check parameters through that entry, so a new parameter takes one more entry in the table below, plus
//! the code that implements it.
//!
//! Reference: transformers 5.23.0, `generation/configuration_utils.py`; group beam and contrastive search 4.49.0; OpenAI's
//! `/v1/completions` for presence and frequency penalty and logit bias.

use std::sync::Arc;

mod biases;
mod constraint;
mod decay;
mod field;
mod generation_file;
mod ids;
mod json;
mod range;
mod sequence_bias;
mod texts;
mod tokens;
mod transformers;

pub use biases::{BiasedToken, LogitBias};
pub use decay::Decay;
use field::Field;
pub use field::{Takes, Word};
pub use generation_file::GenerationFile;
pub use ids::parse_ids;
pub use range::Range;
#[cfg(test)]
pub(super) use range::number;
use serde_json::Value;
pub use transformers::{Meaning, parameter_meaning};

use super::constraint::Constraint;

/// The most beams, or candidates of a contrastive search: each is a row of the model.
pub(super) const MOST_BEAMS: usize = 1024;
/// The most tokens that a second model guesses at a time.
const MOST_GUESSES: usize = 1024;
/// The most samples of one prompt.
const MOST_SAMPLES: usize = 1 << 16;
/// Lower temperatures make logits overflow, and amount to greedy search anyway.
const LEAST_TEMPERATURE: f64 = 1e-30;

/// OpenAI's limit of the two penalties for what has been generated.
const PENALTY: Range = Range::from(-2.0).to(2.0).off_at(0.0);
const BEAMS: Range = Range::from(1.0).to(MOST_BEAMS as f64);
const CUTOFF: Range = Range::from(0.0).below(1.0).off_at(0.0);
const MASS: Range = Range::above(0.0).to(1.0).off_at(1.0);
const UNIT: Range = Range::from(0.0).to(1.0);

/// Defines the struct, its defaults and the table from entries of the form
/// `/// description` `field: type = default, "symbol of the value in the description", range;`.
macro_rules! parameters {
    ($($group:ident { $($(#[doc = $doc:literal])+ $name:ident: $type:ty = $default:expr, $symbol:literal, $range:expr;)+ })+) => {
        /// How to decode, with transformers' names and defaults, except for `max_new_tokens` and `top_k` (off).
        ///
        /// What transformers calls `do_sample` and `prompt_lookup_num_tokens` is called `sample` and `prompt_lookup`.
        #[derive(Debug, Clone, PartialEq)]
        pub struct GenerationConfig {
            $($($(#[doc = $doc])+ pub $name: $type,)+)+
            /// The tokens that end a sequence.
            pub eos_token_id: Vec<u32>,
            /// Whether the engine's second model guesses ahead (assisted decoding).
            pub assistant: bool,
            /// Values for parameters that are not set, each used only by a strategy that knows it: a temperature does not
            /// turn greedy search into sampling.
            pub suggestions: Option<Arc<GenerationConfig>>,
            /// `regex`, `choices`, `json_schema` or `grammar` for a vocabulary: [`compile`](Self::compile).
            pub constraint: Option<Arc<Constraint>>,
        }

        impl Default for GenerationConfig {
            fn default() -> Self {
                Self { $($($name: $default,)+)+ eos_token_id: vec![], assistant: false, suggestions: None, constraint: None }
            }
        }

        /// Every parameter, in the order of the help.
        pub static PARAMETERS: &[Parameter] = &[$($(Parameter {
            name: stringify!($name),
            group: Group::$group,
            symbol: $symbol,
            doc: concat!($($doc),+),
            range: $range,
            field: |config| &config.$name,
            field_mut: |config| &mut config.$name,
            reset: |config| config.$name = $default,
        },)+)+];
    };
}

parameters! {
    Distribution {
        /// Divide the logits by T > 0: below 1 sharper, above 1 flatter
        temperature: Option<f64> = None, "T",
            Range::from(LEAST_TEMPERATURE).remark("leave it out for greedy decoding, in topk for the model's own distribution");
        /// Keep the most probable of 100 tokens that together have at most H of their entropy, and the best in any case
        top_h: Option<f64> = None, "H", Range::above(0.0).to(1.0);
        /// Keep the K most probable tokens
        top_k: Option<usize> = None, "K", Range::ANY;
        /// Keep the most probable tokens that together reach probability P
        top_p: Option<f64> = None, "P", MASS;
        /// Remove tokens less probable than P times the best
        min_p: Option<f64> = None, "P", UNIT;
        /// Keep the tokens with surprisal closest to the average that together reach probability P
        typical_p: Option<f64> = None, "P", MASS;
        /// Remove tokens less probable than E
        epsilon_cutoff: Option<f64> = None, "E", CUTOFF;
        /// Remove tokens less probable than min(E, sqrt(E) exp(-entropy))
        eta_cutoff: Option<f64> = None, "E", CUTOFF;
        /// Make tokens that have occurred less likely (P > 1) or more likely (P < 1); the prompt counts
        repetition_penalty: f64 = 1.0, "P", Range::above(0.0).off_at(1.0);
        /// Subtract P from the logits of tokens generated so far; the prompt does not count, so topk shows no effect until
        /// it appends tokens
        presence_penalty: f64 = 0.0, "P", PENALTY;
        /// Subtract P for each time that a token has been generated; otherwise as `presence_penalty`
        frequency_penalty: f64 = 0.0, "P", PENALTY;
        /// Add B, from -100 to 100, to the logit of a token, named by its id or, if it is not a number, by its text, such as
        /// " time=5" (repeatable)
        logit_bias: LogitBias = LogitBias::default(), "ID=B", Range::from(-100.0).to(100.0);
        /// Add B to the logit of the last of these ids where the others come before it, such as "12 345=-2.5" (repeatable)
        sequence_bias: Vec<(Vec<u32>, f64)> = vec![], "IDS=B", Range::ANY;
        /// Make tokens of the prompt more likely (P > 1) or less likely (P < 1)
        encoder_repetition_penalty: f64 = 1.0, "P", Range::above(0.0).off_at(1.0);
        /// Never repeat a sequence of N tokens; the prompt counts
        no_repeat_ngram_size: usize = 0, "N", Range::ANY;
        /// Never generate a sequence of N tokens that the prompt has
        encoder_no_repeat_ngram_size: usize = 0, "N", Range::ANY;
        /// Never generate this text (repeatable)
        bad_words: Vec<String> = vec![], "TEXT", Range::ANY;
        /// Never generate these ids in a row, such as "12 345" (repeatable)
        bad_words_ids: Vec<Vec<u32>> = vec![], "IDS", Range::ANY;
        /// Generate no end-of-text token before prompt and continuation have N tokens together
        min_length: usize = 0, "N", Range::ANY;
        /// Generate at least N tokens before the end-of-text token; takes the place of `min_length`
        min_new_tokens: usize = 0, "N", Range::ANY;
        /// Never generate these tokens, such as "12 345"
        suppress_tokens: Vec<u32> = vec![], "IDS", Range::ANY;
        /// Do not begin with one of these tokens
        begin_suppress_tokens: Vec<u32> = vec![], "IDS", Range::ANY;
        /// Begin with this token if the prompt is a single token
        forced_bos_token_id: Option<u32> = None, "ID", Range::ANY;
        /// End with one of these tokens where the most tokens are reached; topk shows no effect until it appends tokens
        forced_eos_token_id: Vec<u32> = vec![], "IDS", Range::ANY;
        /// Make the end of text more likely with each token after the first START: its logit x grows by
        /// |x| (FACTOR^n - 1), n tokens after them; topk shows that only of tokens that it appends, or below 0 of START
        exponential_decay_length_penalty: Option<Decay> = None, "START,FACTOR", Range::ANY;
        /// Push the distribution away from that after another prompt, `negative_prompt` or else the prompt's last token
        /// alone: u + G (c - u), with the log-probabilities c after the prompt and u after the other; 1 is off
        guidance_scale: Option<f64> = None, "G", Range::ANY;
        /// The text that `guidance_scale` pushes away from
        negative_prompt: Option<String> = None, "TEXT", Range::ANY;
        /// The same as ids
        negative_prompt_ids: Option<Vec<u32>> = None, "IDS", Range::ANY;
        /// Log-probabilities that add up to 1 again after all others; they change the scores of beams
        renormalize_logits: bool = false, "BOOL", Range::ANY;
    }
    Decoding {
        /// Generate until prompt and continuation have N tokens together; `max_new_tokens` takes its place
        max_length: Option<usize> = None, "N", Range::from(1.0);
        /// Generate at most N tokens
        max_new_tokens: usize = 50, "N", Range::from(1.0);
        /// Generate no more tokens after S seconds, but at least one
        max_time: Option<f64> = None, "S", Range::ANY;
        /// Sample from the distribution; implied by `temperature`, `top_k`, `top_p` and the like
        sample: bool = false, "BOOL", Range::ANY;
        /// Seed for sampling
        seed: Option<u64> = None, "N", Range::ANY;
        /// Beams for beam search; with `sample`, beam sampling
        num_beams: usize = 1, "N", BEAMS;
        /// Groups for diverse beam search
        num_beam_groups: usize = 1, "N", BEAMS;
        /// How much a group avoids the tokens of earlier groups
        diversity_penalty: Option<f64> = None, "X", Range::above(0.0);
        /// Divide beam scores by the sequence length to the power X [default: 1]
        // Beyond 10, a power of the length may not fit an f32.
        length_penalty: Option<f64> = None, "X", Range::from(-10.0).to(10.0);
        /// When to end beam search: true, false or never [default: false]
        early_stopping: Option<EarlyStopping> = None, "WHEN", Range::ANY;
        /// Sequences to return
        num_return_sequences: usize = 1, "N", Range::from(1.0).to(MOST_SAMPLES as f64);
        /// Contrastive search among the `top_k` candidates: weight of the penalty for similarity to the context
        penalty_alpha: Option<f64> = None, "A", UNIT;
        /// Guess up to N tokens ahead by looking them up in the text so far; same result, faster where text repeats
        prompt_lookup: Option<usize> = None, "N", Range::from(1.0);
        /// The longest sequence of tokens that `prompt_lookup` looks for, down to a single one [default: 4, down to 2]
        max_matching_ngram_size: Option<usize> = None, "N", Range::from(1.0);
        /// How many tokens `assistant_model` guesses each time [default: 5 at first, up to 20 while it is right]
        num_assistant_tokens: Option<usize> = None, "N", Range::from(1.0).to(MOST_GUESSES as f64);
        /// End the guesses of `assistant_model` at one whose probability is below P [default: 0]
        assistant_confidence_threshold: Option<f64> = None, "P", UNIT;
        /// Let the model replace the prompt's last token by one that begins with it, for prompts that end inside a word
        token_healing: bool = false, "BOOL", Range::ANY;
        /// Stop when this text is generated, and leave it out (repeatable)
        stop: Vec<String> = vec![], "TEXT", Range::ANY;
        /// Continue past the end-of-text token
        ignore_eos: bool = false, "BOOL", Range::ANY;
        /// When the context is full: stop, or crop (continue from the last n_positions tokens)
        on_context_limit: OnContextLimit = OnContextLimit::Stop, "WHAT", Range::ANY;
        /// Report each token's log-probability and its K best alternatives, after all that shapes the distribution
        logprobs: Option<usize> = None, "K", Range::ANY;
        /// Also report the model's own log-probabilities, before all that shapes the distribution
        raw_logprobs: bool = false, "BOOL", Range::ANY;
    }
    Constraint {
        /// Generate a text that matches this regular expression as a whole
        regex: Option<String> = None, "RE", Range::ANY;
        /// Generate one of these texts (repeatable), and report the probability of each
        choices: Vec<String> = vec![], "TEXT", Range::ANY;
        /// Generate JSON of the schema in this file
        json_schema: Option<Value> = None, "F.json", Range::ANY;
        /// Generate a text of the grammar in this file, written as for Lark
        grammar: Option<String> = None, "F.lark", Range::ANY;
    }
}

/// When a beam search ends, once it has found as many sequences as it has beams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EarlyStopping {
    /// At once.
    True,
    /// When the best unfinished beam, at its present length, is no better than the worst finished one.
    #[default]
    False,
    /// When no unfinished beam can become better.
    Never,
}

/// What happens when the model's context is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnContextLimit {
    /// The sequence ends.
    #[default]
    Stop,
    /// Each step sees the last `n_positions` tokens, as if they were the prompt.
    Crop,
}

/// An entry of the table.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    /// The name of the field, of the JSON key and, with dashes, of the flag.
    pub name: &'static str,
    /// The group it belongs to.
    pub group: Group,
    /// The placeholder for its value in the description.
    pub symbol: &'static str,
    doc: &'static str,
    range: Range,
    field: fn(&GenerationConfig) -> &dyn Field,
    field_mut: fn(&mut GenerationConfig) -> &mut dyn Field,
    reset: fn(&mut GenerationConfig),
}

/// The groups of parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// The distribution of the next token, as shaped by [`Processors`](super::Processors).
    Distribution,
    /// Length, strategy, stop rules and reports.
    Decoding,
    /// What the text has to be, which shapes the distribution too.
    Constraint,
}

impl Parameter {
    /// The parameter of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        PARAMETERS.iter().find(|parameter| parameter.name == name)
    }

    /// What it does. Other parameters are named in backticks.
    #[must_use]
    pub fn doc(&self) -> &'static str {
        self.doc.trim()
    }

    /// What its flag takes.
    #[must_use]
    pub fn takes(&self) -> Takes {
        (self.field)(&GenerationConfig::default()).takes()
    }

    /// Its default as text; none if it is off.
    #[must_use]
    pub fn default_text(&self) -> Option<String> {
        (self.field)(&GenerationConfig::default()).shown()
    }

    /// Sets it to the value of a flag; a repeatable parameter gets one value more. Does not check the range:
    /// [`check`](Self::check) does.
    ///
    /// # Errors
    /// What is wrong, to follow its name: `takes a number from 0 to 1, not x`, if the text is not a value of its type.
    pub fn read(&self, text: &str, config: &mut GenerationConfig) -> Result<(), String> {
        let field = (self.field_mut)(config);
        field.read(text).map_err(|fault| match field.kind() {
            // Of a number that has too many digits, the fault names the largest.
            Some(kind) if text.is_empty() => self.range.refusal(kind, "an empty text"),
            Some(kind) if !text.bytes().all(|b| b.is_ascii_digit()) => self.range.refusal(kind, text),
            Some(_) => format!("is {text}, {fault}"),
            None => fault,
        })?;
        if self.needs_one(config) {
            return Err("is empty; give at least one id".into());
        }
        self.prevail(config);
        Ok(())
    }

    /// Whether setting it makes decoding sample. (So does `top_k`, except in contrastive search.)
    #[must_use]
    pub fn samples(&self) -> bool {
        ["temperature", "top_h", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"].contains(&self.name)
    }

    /// Whether it has been set to a list of nothing, which transformers refuses.
    fn needs_one(&self, config: &GenerationConfig) -> bool {
        match self.name {
            "forced_eos_token_id" => config.forced_eos_token_id.is_empty(),
            "sequence_bias" => config.sequence_bias.is_empty(),
            // Of no texts, none is one.
            "choices" => config.choices.is_empty(),
            _ => false,
        }
    }

    /// Checks its value on its own.
    ///
    /// # Errors
    /// What is wrong, to follow its name: `takes a number from 0 to 1, not 2`.
    pub fn check(&self, config: &GenerationConfig) -> Result<(), String> {
        (self.field)(config).check(&self.range)
    }

    /// Sets it to its default.
    pub fn reset(&self, config: &mut GenerationConfig) {
        (self.reset)(config);
    }

    /// Its value as JSON; null if it is not set.
    #[must_use]
    pub fn json(&self, config: &GenerationConfig) -> Value {
        (self.field)(config).json()
    }

    /// Resets the parameter that it prevails over, as in transformers: a number of new tokens over a number of tokens.
    fn prevail(&self, config: &mut GenerationConfig) {
        match self.name {
            "max_new_tokens" => config.max_length = None,
            "min_new_tokens" => config.min_length = 0,
            _ => {}
        }
    }

    /// Sets it to a JSON value; null leaves it as it is.
    ///
    /// # Errors
    /// What is wrong, such as `not a number`, if the value is not of its type.
    pub fn read_json(&self, value: &Value, config: &mut GenerationConfig) -> Result<(), String> {
        if !value.is_null() {
            (self.field_mut)(config).read_json(value)?;
            if self.needs_one(config) {
                return Err("an empty list; give at least one, or leave it out".into());
            }
            self.prevail(config);
        }
        Ok(())
    }
}
