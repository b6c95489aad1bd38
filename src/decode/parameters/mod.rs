//! The decoding parameters: one table of their names, types, defaults, ranges and descriptions.
//!
//! [`GenerationConfig`] has a field for each, [`PARAMETERS`] an entry. Flags, keys of JSON rows and the library itself
//! all read and check them through that entry, so that a new parameter is one more entry of the table below, and what
//! it does.
//!
//! Reference: transformers 5.23.0, `generation/configuration_utils.py`; group beam and contrastive search 4.49.0.

mod field;
mod range;

use field::Field;
pub use field::{Takes, Word, parse_ids};
pub use range::Range;
#[cfg(test)]
pub(super) use range::number;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The most beams, or candidates of a contrastive search: each is a row of the model.
pub(super) const MOST_BEAMS: usize = 1024;
/// The most samples of one prompt.
const MOST_SAMPLES: usize = 1 << 16;
/// Smaller ones make logits overflow, and are greedy search anyway.
const LEAST_TEMPERATURE: f64 = 1e-30;

const BEAMS: Range = Range::from(1.0).to(MOST_BEAMS as f64);
const CUTOFF: Range = Range::from(0.0).below(1.0).off_at(0.0);
const MASS: Range = Range::above(0.0).to(1.0).off_at(1.0);
const UNIT: Range = Range::from(0.0).to(1.0);

/// Makes the struct, its defaults and the table of the entries
/// `/// description` `field: type = default, "symbol of the value in the description", range;`.
macro_rules! parameters {
    ($($group:ident { $($(#[doc = $doc:literal])+ $name:ident: $type:ty = $default:expr, $symbol:literal, $range:expr;)+ })+) => {
        /// How to decode, under transformers' names and with its defaults, but for `max_new_tokens` and `top_k` (off).
        ///
        /// What transformers calls `do_sample` and `prompt_lookup_num_tokens` is called `sample` and `prompt_lookup`.
        #[derive(Debug, Clone, PartialEq)]
        pub struct GenerationConfig {
            $($($(#[doc = $doc])+ pub $name: $type,)+)+
            /// The tokens that end a sequence.
            pub eos_token_id: Vec<u32>,
            /// Whether the second model of the engine guesses ahead (assisted decoding).
            pub assistant: bool,
        }

        impl Default for GenerationConfig {
            fn default() -> Self {
                Self { $($($name: $default,)+)+ eos_token_id: vec![], assistant: false }
            }
        }

        /// Every parameter, in the order in which people are told of them.
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
            Range::from(LEAST_TEMPERATURE).remark("for greedy decoding leave it out");
        /// Keep the K most probable tokens
        top_k: Option<usize> = None, "K", Range::ANY;
        /// Keep the most probable tokens that together reach probability P
        top_p: Option<f64> = None, "P", MASS;
        /// Remove tokens less probable than P times the best
        min_p: Option<f64> = None, "P", UNIT;
        /// Keep the tokens nearest to the expected information that together reach probability P
        typical_p: Option<f64> = None, "P", MASS;
        /// Remove tokens less probable than E
        epsilon_cutoff: Option<f64> = None, "E", CUTOFF;
        /// Remove tokens less probable than min(E, sqrt(E) exp(-entropy))
        eta_cutoff: Option<f64> = None, "E", CUTOFF;
        /// Make tokens that occurred less likely (P > 1) or more (P < 1); the prompt counts
        repetition_penalty: f64 = 1.0, "P", Range::above(0.0).off_at(1.0);
        /// Let no sequence of N tokens occur twice; the prompt counts
        no_repeat_ngram_size: usize = 0, "N", Range::ANY;
        /// Never generate this text (repeatable)
        bad_words: Vec<String> = vec![], "TEXT", Range::ANY;
        /// Never generate these ids in a row, such as "12 345" (repeatable)
        bad_words_ids: Vec<Vec<u32>> = vec![], "IDS", Range::ANY;
    }
    Decoding {
        /// Generate at most N tokens
        max_new_tokens: usize = 50, "N", Range::from(1.0);
        /// Generate at least N tokens before the end-of-text token
        min_new_tokens: usize = 0, "N", Range::ANY;
        /// Draw from the distribution; implied by `temperature`, `top_k`, `top_p` and the like
        sample: bool = false, "BOOL", Range::ANY;
        /// Seed of the draws
        seed: Option<u64> = None, "N", Range::ANY;
        /// Beams of beam search; with `sample`, beam sampling
        num_beams: usize = 1, "N", BEAMS;
        /// Groups of diverse beam search
        num_beam_groups: usize = 1, "N", BEAMS;
        /// How much a group avoids the tokens of earlier groups
        diversity_penalty: Option<f64> = None, "X", Range::above(0.0);
        /// Exponent of the length that beam scores are divided by [default: 1]
        // Beyond 10, the power of a length is not an f32.
        length_penalty: Option<f64> = None, "X", Range::from(-10.0).to(10.0);
        /// When beam search ends: true, false or never [default: false]
        early_stopping: Option<EarlyStopping> = None, "WHEN", Range::ANY;
        /// Sequences to return
        num_return_sequences: usize = 1, "N", Range::from(1.0).to(MOST_SAMPLES as f64);
        /// Contrastive search among the `top_k` candidates: weight of the penalty for likeness to the past
        penalty_alpha: Option<f64> = None, "A", UNIT;
        /// Assisted decoding by looking up the last N tokens in the text so far; same result, faster where text repeats
        prompt_lookup: Option<usize> = None, "N", Range::from(1.0);
        /// End when this text was generated, and leave it out (repeatable)
        stop: Vec<String> = vec![], "TEXT", Range::ANY;
        /// Go on after the end-of-text token
        ignore_eos: bool = false, "BOOL", Range::ANY;
        /// At the end of the context: stop, or crop (each step sees the last n_positions tokens)
        on_context_limit: OnContextLimit = OnContextLimit::Stop, "WHAT", Range::ANY;
        /// Report each token's log-probability and its K best alternatives
        logprobs: Option<usize> = None, "K", Range::ANY;
    }
}

/// When a beam search that has found as many sequences as it has beams ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EarlyStopping {
    /// At once.
    True,
    /// When the best unfinished beam, taken at its present length, is no better than the worst finished one.
    #[default]
    False,
    /// When no unfinished beam can become better any more.
    Never,
}

/// What happens when the model's context is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnContextLimit {
    /// The sequence ends.
    #[default]
    Stop,
    /// Each step sees the last `n_positions` tokens, as if the prompt were those.
    Crop,
}

/// An entry of the table.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    /// The name: of the field, of the key in JSON, and of the flag but for its dashes.
    pub name: &'static str,
    /// What it belongs to.
    pub group: Group,
    /// What stands for its value in the description.
    pub symbol: &'static str,
    doc: &'static str,
    range: Range,
    field: fn(&GenerationConfig) -> &dyn Field,
    field_mut: fn(&mut GenerationConfig) -> &mut dyn Field,
    reset: fn(&mut GenerationConfig),
}

/// What parameters have to do with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// The distribution of the next token: what [`Processors`](super::Processors) do.
    Distribution,
    /// Length, strategy, stop rules and reports.
    Decoding,
}

impl Parameter {
    /// The parameter of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        PARAMETERS.iter().find(|parameter| parameter.name == name)
    }

    /// What it does. Other parameters stand in backticks.
    #[must_use]
    pub fn doc(&self) -> &'static str {
        self.doc.trim()
    }

    /// What its flag takes.
    #[must_use]
    pub fn takes(&self) -> Takes {
        (self.field)(&GenerationConfig::default()).takes()
    }

    /// Its default in words; none where it is off.
    #[must_use]
    pub fn default_text(&self) -> Option<String> {
        (self.field)(&GenerationConfig::default()).shown()
    }

    /// Sets it to what the text of a flag says; what can be given several times gets one value more. Whether it is in
    /// range is a question for [`GenerationConfig::check`].
    ///
    /// # Errors
    /// If the text is not a value of its type: what is wrong, such as `not a number`.
    pub fn read(&self, text: &str, config: &mut GenerationConfig) -> Result<(), String> {
        (self.field_mut)(config).read(text)
    }

    /// Sets it to a JSON value; null is its default.
    ///
    /// # Errors
    /// [`Error::Parameter`] if the value is not of its type.
    pub fn read_json(&self, value: &Value, config: &mut GenerationConfig) -> Result<()> {
        /// The most characters of a value that a message quotes.
        const QUOTED: usize = 60;
        if value.is_null() {
            (self.reset)(config);
            return Ok(());
        }
        (self.field_mut)(config).read_json(value).map_err(|fault| {
            let mut text = value.to_string();
            if let Some((end, _)) = text.char_indices().nth(QUOTED) {
                text.replace_range(end.., "...");
            }
            Error::parameter(self.name, format!("is {text}, {fault}"))
        })
    }
}

impl GenerationConfig {
    /// This configuration with the values of a JSON object put over it.
    ///
    /// # Errors
    /// [`Error::Usage`] for a key that is not a parameter, [`Error::Parameter`] for a value of the wrong type.
    pub fn with_json(&self, values: &Map<String, Value>) -> Result<Self> {
        let mut config = self.clone();
        for (key, value) in values {
            let unknown = || Error::Usage(format!("`{key}` is not a decoding parameter"));
            Parameter::named(key).ok_or_else(unknown)?.read_json(value, &mut config)?;
        }
        Ok(config)
    }

    /// The tokens that end a sequence, if any may.
    pub(super) fn ends(&self) -> &[u32] {
        if self.ignore_eos { &[] } else { &self.eos_token_id }
    }

    /// Checks each value by itself: all that can be said while others may still change.
    ///
    /// # Errors
    /// [`Error::Parameter`]: the parameter, its value and what is allowed.
    pub fn check_values(&self) -> Result<()> {
        PARAMETERS.iter().try_for_each(|parameter| {
            let checked = (parameter.field)(self).check(&parameter.range);
            checked.map_err(|fault| Error::parameter(parameter.name, fault))
        })
    }

    /// Replaces the texts among the parameters by ids, where that is what decoding works on: a bad word is banned as it
    /// stands and after a space. `encode` is the tokenizer, if the model has one.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a text that needs a tokenizer where there is none, and what `encode` returns.
    pub fn encode_texts(&mut self, encode: Option<impl Fn(&str) -> Result<Vec<u32>>>) -> Result<()> {
        let Some(encode) = encode else {
            return if !self.bad_words.is_empty() {
                Err(Error::parameter(
                    "bad_words",
                    "needs a tokenizer, which the model does not have; use `bad_words_ids`",
                ))
            } else if !self.stop.is_empty() {
                Err(Error::parameter("stop", "needs a tokenizer, which the model does not have"))
            } else {
                Ok(())
            };
        };
        for word in std::mem::take(&mut self.bad_words) {
            self.bad_words_ids.push(encode(&word)?);
            self.bad_words_ids.push(encode(&format!(" {word}"))?);
        }
        Ok(())
    }
}
