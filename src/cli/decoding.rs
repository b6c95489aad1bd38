//! Decoding parameters, under transformers' names. The same struct reads the flags and the per-row overrides of a batch.

use clap::Args;
use gpt2::Error;
use gpt2::decode::GenerationConfig;
use gpt2::tokenizer::Tokenizer;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// The logits processors, as `topk` and `generate` have them.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(default)]
#[command(next_help_heading = "Distribution")]
pub struct ProcessorArgs {
    /// Divide the logits by T > 0: below 1 sharper, above 1 flatter
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    pub temperature: Option<f64>,
    /// Keep the K most probable tokens
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// Keep the most probable tokens that together reach probability P
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub top_p: Option<f64>,
    /// Remove tokens less probable than P times the best
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub min_p: Option<f64>,
    /// Keep the tokens nearest to the expected information that together reach probability P
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub typical_p: Option<f64>,
    /// Remove tokens less probable than E
    #[arg(long, value_name = "E", allow_negative_numbers = true)]
    pub epsilon_cutoff: Option<f64>,
    /// Remove tokens less probable than min(E, sqrt(E) exp(-entropy))
    #[arg(long, value_name = "E", allow_negative_numbers = true)]
    pub eta_cutoff: Option<f64>,
    /// Make tokens that occurred less likely (P > 1) or more (P < 1); the prompt counts
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub repetition_penalty: Option<f64>,
    /// Let no sequence of N tokens occur twice; the prompt counts
    #[arg(long, value_name = "N")]
    pub no_repeat_ngram_size: Option<usize>,
    /// Never generate this text (repeatable)
    #[arg(long, value_name = "TEXT")]
    pub bad_words: Vec<String>,
    /// Never generate these ids in a row, such as "12 345" (repeatable)
    #[arg(long, value_name = "IDS")]
    #[serde(deserialize_with = "id_lists")]
    pub bad_words_ids: Vec<IdList>,
}

/// Everything that decides what `generate` generates.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Decoding")]
pub struct DecodingArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub processors: ProcessorArgs,
    #[command(flatten)]
    #[serde(flatten)]
    pub strategy: StrategyArgs,
}

impl DecodingArgs {
    /// These flags with those of one row of a batch put over them; `overrides` has flag names in snake case.
    ///
    /// # Errors
    /// A usage error that names the key that is no decoding parameter, or has a value of the wrong kind.
    pub fn with_overrides(&self, overrides: Map<String, Value>) -> Result<Self, Error> {
        let wrong = |e: serde_json::Error| Error::Usage(format!("decoding parameters: {e}"));
        if overrides.is_empty() {
            return Ok(self.clone());
        }
        let known = Self::augment_args(clap::Command::new("row"));
        let is_known = |key: &String| known.get_arguments().any(|argument| argument.get_id() == key.as_str());
        if let Some(key) = overrides.keys().find(|key| !is_known(key)) {
            return Err(Error::Usage(format!("`{key}` is no decoding parameter")));
        }
        let mut all = serde_json::to_value(self).map_err(wrong)?;
        if let Value::Object(all) = &mut all {
            all.extend(overrides);
        }
        serde_json::from_value(all).map_err(wrong)
    }
}

/// Length, strategy and stop rules.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(default)]
#[command(next_help_heading = "Decoding")]
pub struct StrategyArgs {
    /// Generate at most N tokens [default: 50]
    #[arg(short = 'n', long, value_name = "N")]
    pub max_new_tokens: Option<usize>,
    /// Generate at least N tokens before the end-of-text token
    #[arg(long, value_name = "N")]
    pub min_new_tokens: Option<usize>,
    /// Draw from the distribution; implied by --temperature, --top-k, --top-p and the like
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub sample: Option<bool>,
    /// Seed of the draws [default: drawn and reported]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Beams of beam search; with --sample, beam sampling
    #[arg(long, value_name = "N")]
    pub num_beams: Option<usize>,
    /// Groups of diverse beam search
    #[arg(long, value_name = "N")]
    pub num_beam_groups: Option<usize>,
    /// How much a group avoids the tokens of earlier groups
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub diversity_penalty: Option<f64>,
    /// Exponent of the length that beam scores are divided by [default: 1]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub length_penalty: Option<f64>,
    /// When beam search ends: true, false or never [default: false]
    #[arg(long, value_name = "WHEN")]
    pub early_stopping: Option<EarlyStopping>,
    /// Sequences to return
    #[arg(long, value_name = "N")]
    pub num_return_sequences: Option<usize>,
    /// Contrastive search among the --top-k candidates: weight of the penalty for likeness to the past
    #[arg(long, value_name = "A", allow_negative_numbers = true)]
    pub penalty_alpha: Option<f64>,
    /// Assisted decoding by looking up the last N tokens in the text so far; same result, faster where text repeats
    #[arg(long, value_name = "N")]
    pub prompt_lookup: Option<usize>,
    /// End when this text was generated, and leave it out (repeatable)
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Go on after the end-of-text token
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub ignore_eos: Option<bool>,
    /// At the end of the context: stop, or crop (each step sees the last n_positions tokens) [default: stop]
    #[arg(long, value_name = "WHAT")]
    pub on_context_limit: Option<OnContextLimit>,
    /// Report each token's log-probability and its K best alternatives
    #[arg(long, value_name = "K")]
    pub logprobs: Option<usize>,
}

/// `--early-stopping`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EarlyStopping {
    /// As soon as there are as many finished sequences as beams
    True,
    /// When better ones are unlikely
    False,
    /// When better ones are impossible
    Never,
}

/// `--on-context-limit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnContextLimit {
    /// End there
    Stop,
    /// Let each step see the last n_positions tokens
    Crop,
}

/// Token ids given as one argument.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IdList(pub Vec<u32>);

impl std::str::FromStr for IdList {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        super::parse_ids(text, "--bad-words-ids").map(Self)
    }
}

/// A list of id lists: `[[1, 2], [3]]`, or strings as on the command line.
fn id_lists<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IdList>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Ids(Vec<u32>),
        Text(String),
    }
    let lists = Vec::<Either>::deserialize(deserializer)?;
    lists
        .into_iter()
        .map(|list| match list {
            Either::Ids(ids) => Ok(IdList(ids)),
            Either::Text(text) => text.parse().map_err(serde::de::Error::custom),
        })
        .collect()
}

impl<'de> Deserialize<'de> for EarlyStopping {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Bool(bool),
            Text(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Bool(true) => Ok(Self::True),
            Either::Bool(false) => Ok(Self::False),
            Either::Text(text) => clap::ValueEnum::from_str(&text, true)
                .map_err(|_| serde::de::Error::custom(format!("`{text}` is not true, false or never"))),
        }
    }
}

impl ProcessorArgs {
    /// The parameters as the library takes them.
    ///
    /// # Errors
    /// If bad words were given and there is no tokenizer, or an id lies outside the vocabulary.
    pub fn config(&self, tokenizer: Option<&Tokenizer>, vocab_size: usize) -> Result<GenerationConfig, Error> {
        Ok(GenerationConfig {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            typical_p: self.typical_p,
            epsilon_cutoff: self.epsilon_cutoff,
            eta_cutoff: self.eta_cutoff,
            repetition_penalty: self.repetition_penalty.unwrap_or(1.0),
            no_repeat_ngram_size: self.no_repeat_ngram_size.unwrap_or(0),
            bad_words_ids: self.bad_words(tokenizer, vocab_size)?,
            ..GenerationConfig::default()
        })
    }

    /// The ids of all bad words: a word given as text is banned both as it stands and after a space.
    fn bad_words(&self, tokenizer: Option<&Tokenizer>, vocab_size: usize) -> Result<Vec<Vec<u32>>, Error> {
        let mut all: Vec<Vec<u32>> = self.bad_words_ids.iter().map(|list| list.0.clone()).collect();
        for word in &self.bad_words {
            let Some(tokenizer) = tokenizer else {
                return Err(Error::Usage("--bad-words needs a tokenizer; use --bad-words-ids".into()));
            };
            for text in [word.clone(), format!(" {word}")] {
                all.push(tokenizer.encode(&text, true)?.into_iter().map(|token| token.id).collect());
            }
        }
        match all.iter().flatten().find(|id| **id as usize >= vocab_size) {
            Some(id) => Err(Error::Usage(format!("bad word id {id} lies outside the vocabulary of {vocab_size}"))),
            None if all.iter().any(Vec::is_empty) => Err(Error::Usage("a bad word is empty".into())),
            None => Ok(all),
        }
    }
}

impl DecodingArgs {
    /// The parameters as the library takes them; `eos_token_id` are the model's own, `seed` is used if none was given.
    ///
    /// # Errors
    /// As [`ProcessorArgs::config`], and if stop strings were given and there is no tokenizer.
    pub fn config(
        &self,
        tokenizer: Option<&Tokenizer>,
        vocab_size: usize,
        eos_token_id: &[u32],
        seed: u64,
    ) -> Result<GenerationConfig, Error> {
        let s = &self.strategy;
        if tokenizer.is_none() && !s.stop.is_empty() {
            return Err(Error::Usage("--stop needs a tokenizer: the model has none, give one with --tokenizer".into()));
        }
        let ignore_eos = s.ignore_eos.unwrap_or(false);
        let defaults = GenerationConfig::default();
        Ok(GenerationConfig {
            max_new_tokens: s.max_new_tokens.unwrap_or(defaults.max_new_tokens),
            min_new_tokens: s.min_new_tokens.unwrap_or(defaults.min_new_tokens),
            do_sample: s.sample.unwrap_or(false),
            num_beams: s.num_beams.unwrap_or(defaults.num_beams),
            num_beam_groups: s.num_beam_groups.unwrap_or(defaults.num_beam_groups),
            diversity_penalty: s.diversity_penalty,
            length_penalty: s.length_penalty,
            early_stopping: s.early_stopping.map(Into::into),
            num_return_sequences: s.num_return_sequences.unwrap_or(defaults.num_return_sequences),
            penalty_alpha: s.penalty_alpha,
            eos_token_id: if ignore_eos { vec![] } else { eos_token_id.to_vec() },
            seed: s.seed.unwrap_or(seed),
            prompt_lookup_num_tokens: s.prompt_lookup,
            logprobs: s.logprobs,
            stop: s.stop.clone(),
            on_context_limit: s.on_context_limit.map(Into::into).unwrap_or_default(),
            ..self.processors.config(tokenizer, vocab_size)?
        })
    }
}

impl From<EarlyStopping> for gpt2::decode::EarlyStopping {
    fn from(when: EarlyStopping) -> Self {
        match when {
            EarlyStopping::True => Self::True,
            EarlyStopping::False => Self::False,
            EarlyStopping::Never => Self::Never,
        }
    }
}

impl From<OnContextLimit> for gpt2::decode::OnContextLimit {
    fn from(what: OnContextLimit) -> Self {
        match what {
            OnContextLimit::Stop => Self::Stop,
            OnContextLimit::Crop => Self::Crop,
        }
    }
}
