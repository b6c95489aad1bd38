//! The record of `gpt2 trace`.

use serde::Serialize;

use crate::output::attribution::AttributionRecord;
use crate::output::heads::HeadsRecord;
use crate::output::settings::SettingsRecord;

/// The activations of a pass: the views that are asked for, `hidden` if none is.
#[derive(Debug, Default, Serialize)]
pub struct TraceRecord {
    /// The model's name.
    pub model: String,
    /// The ids of the tokens.
    pub ids: Vec<u32>,
    /// Their texts, with U+FFFD if a token alone is not UTF-8; null without a tokenizer.
    pub tokens: Vec<Option<String>>,
    /// Whether several runs gave the same bits; only with `--repeat`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeat: Option<RepeatRecord>,
    /// The residual stream: `embed`, `blocks.{i}.hidden` (after block i), `final` (after the last norm).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden: Option<Vec<HiddenRecord>>,
    /// The requested heads, by layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention: Option<Vec<HeadRecord>>,
    /// The logit lens: `embed`, then `blocks.{i}.hidden`; the last is the model's own prediction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lens: Option<Vec<LensRecord>>,
    /// What made a logit; only with `--attribute`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attribution: Option<AttributionRecord>,
    /// What each head does; only with `--heads`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heads: Option<HeadsRecord>,
    /// What it was made with.
    pub settings: SettingsRecord,
}

/// Several runs over the same text.
#[derive(Debug, Serialize)]
pub struct RepeatRecord {
    /// How many runs.
    pub runs: usize,
    /// Whether they gave the same bits.
    pub identical: bool,
    /// For each run, the SHA-256 of all hidden states, attention and logits.
    pub sha256: Vec<String>,
}

impl RepeatRecord {
    /// Compares the hashes of runs.
    pub fn new(sha256: Vec<String>) -> Self {
        let identical = sha256.windows(2).all(|pair| pair[0] == pair[1]);
        Self { runs: sha256.len(), identical, sha256 }
    }
}

/// A summary of a hidden state.
#[derive(Debug, Serialize)]
pub struct HiddenRecord {
    /// The name of the state.
    pub name: String,
    /// `[T, C]`.
    pub shape: [usize; 2],
    /// The mean of all values.
    pub mean: f64,
    /// Their standard deviation.
    pub std: f64,
    /// The first 8 values of the first position.
    pub first: Vec<f32>,
    /// The first 8 values of the last position.
    pub last_position: Vec<f32>,
    /// The last 8 values of the last position.
    pub last: Vec<f32>,
    /// The Euclidean norm of each position's vector.
    pub norms: Vec<f32>,
}

/// One head's attention probabilities.
#[derive(Debug, Serialize)]
pub struct HeadRecord {
    /// The layer, from 0.
    pub layer: usize,
    /// The head, from 0.
    pub head: usize,
    /// `[T, T]`: for each token, its attention to every token; 0 for those after it.
    pub weights: Vec<Vec<f32>>,
}

/// One hidden state through the lens.
#[derive(Debug, Serialize)]
pub struct LensRecord {
    /// The name of the state.
    pub name: String,
    /// One for each token.
    pub positions: Vec<ReadingRecord>,
}

/// What a layer predicts after a token.
#[derive(Debug, Serialize)]
pub struct ReadingRecord {
    /// The position of the token before the predicted one.
    pub position: usize,
    /// The 5 best tokens, best first.
    pub top: Vec<BestRecord>,
    /// The probability of the token that the last layer finds best.
    pub outcome_prob: f32,
}

/// A token that a layer predicts.
#[derive(Debug, Serialize)]
pub struct BestRecord {
    /// The token.
    pub id: u32,
    /// Its text, with U+FFFD if the token alone is not UTF-8; null without a tokenizer.
    pub token: Option<String>,
    /// Its probability.
    pub prob: f32,
}
