//! The records of `gpt2 score`.

mod candidates;
mod table;
mod text;

use serde::Serialize;

pub use self::candidates::{CandidateScore, CandidatesRecord};
pub use self::table::{header, write_table};
use super::generate::AlternativeRecord;
use super::settings::SettingsRecord;

/// The scores of one text. `ids`, `tokens`, `logprobs` and `ranks` have one entry for each token of the text. The
/// `<|endoftext|>` that `--bos` puts before the text has none, nor has a context, but they give the first token a
/// log-probability. In a batch, keys that only other rows have are null.
#[derive(Debug, Serialize)]
pub struct ScoreRecord {
    /// The model's name.
    pub model: String,
    /// The tokens of the context alone; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_ids: Option<Vec<u32>>,
    /// The text's tokens.
    pub ids: Vec<u32>,
    /// Their texts, with U+FFFD if a token alone is not UTF-8; null without a tokenizer.
    pub tokens: Vec<Option<String>>,
    /// Their log-probabilities; null for a token that nothing precedes in its window.
    pub logprobs: Vec<Option<f32>>,
    /// For each, one more than the number of tokens that were more probable in its place; null where `logprobs` is.
    pub ranks: Vec<Option<usize>>,
    /// With `--entropy`, the entropy of the distribution in each place, in nats; null where `logprobs` is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entropies: Option<Vec<Option<f64>>>,
    /// With `--logprobs K`, the most probable tokens in each place, best first; null where `logprobs` is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<Vec<Option<Vec<AlternativeRecord>>>>,
    /// With `--words`, the words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub words: Option<Vec<WordRecord>>,
    /// The exact sum of the log-probabilities, with any stride.
    pub sum_logprob: f64,
    /// How many tokens have a log-probability.
    pub scored_tokens: usize,
    /// With a context, whether greedy decoding would give the text: all its ranks are 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_greedy: Option<bool>,
    /// `exp(-sum_logprob / scored_tokens)`; with a stride, the perplexity of transformers' guide, which weights each window
    /// by its number of labels minus one. Null if nothing was scored.
    pub perplexity: Option<f64>,
    /// `-sum_logprob / ln 2`, divided by the number of bytes of the tokens that have a log-probability; null without a
    /// tokenizer.
    pub bits_per_byte: Option<f64>,
    /// How the text was scored.
    pub protocol: Protocol,
    /// Whether Ctrl-C ended it early, so that what comes after the last log-probability is not scored; absent otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub interrupted: bool,
    /// What it was made with.
    pub settings: SettingsRecord,
}

/// A word, which white space separates from others.
#[derive(Debug, Serialize)]
pub struct WordRecord {
    /// Its text.
    pub word: String,
    /// Its first byte in the text.
    pub start: usize,
    /// One past its last byte.
    pub end: usize,
    /// The first of its tokens, which may be white space before it.
    pub first: usize,
    /// The last of its tokens.
    pub last: usize,
    /// Its log-probability, corrected as `--word-correction` says; null if one of its tokens has none.
    pub logprob: Option<f64>,
    /// `-logprob / ln 2`, in bits.
    pub surprisal: Option<f64>,
}

/// How a text was scored.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Protocol {
    /// Whether `<|endoftext|>` was put before the text.
    pub bos: bool,
    /// The most tokens that the model saw at once.
    pub context: usize,
    /// Tokens from one window to the next; null for a single pass.
    pub stride: Option<usize>,
    /// True with `--rolling`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub rolling: bool,
}

impl WordRecord {
    /// Surprisal in bits.
    fn surprisal(logprob: Option<f64>) -> Option<f64> {
        // No -0.
        logprob.map(|logprob| 0.0 - logprob / std::f64::consts::LN_2)
    }

    /// A word without its surprisal, which follows from `logprob`.
    pub fn new(
        word: String,
        bytes: std::ops::Range<usize>,
        tokens: &std::ops::Range<usize>,
        logprob: Option<f64>,
    ) -> Self {
        let (first, last) = (tokens.start, tokens.end - 1);
        Self { word, start: bytes.start, end: bytes.end, first, last, logprob, surprisal: Self::surprisal(logprob) }
    }
}
