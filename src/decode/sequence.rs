//! What a request results in: sequences, with the log-probabilities of their tokens.

use std::sync::Arc;

use super::stop::FinishReason;
use crate::logits::{self, LogNormalizer};

/// A finished sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Sequence {
    /// The generated ids, the end-of-sequence token included.
    pub ids: Vec<u32>,
    /// Their text, without special tokens, cut before the stop string. Empty if ids have no text.
    pub text: Vec<u8>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// The score of a beam: its log-probability divided by its length to the power of `length_penalty`.
    pub score: Option<f32>,
    /// Each id's log-probability after the processors, if asked for.
    pub logprobs: Option<Vec<Arc<TokenLogprob>>>,
    /// Whether the text is all that the constraint asks for; none without a constraint.
    pub is_whole: Option<bool>,
    /// How guessing ahead went; none without guesses.
    pub guesses: Option<Guesses>,
}

/// How guessing ahead went, for a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Guesses {
    /// Passes of the model that gave at least a token, the prompt's included.
    pub passes: usize,
    /// Tokens that were guessed and checked by a pass.
    pub drafted: usize,
    /// Those that were right.
    pub accepted: usize,
}

/// The log-probability of a generated token, and the best alternatives, after the processors.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub id: u32,
    /// Its log-probability; in beam search, what it adds to the beam's log-probability.
    pub logprob: f32,
    /// The best tokens with their log-probabilities, best first, without tokens that are ruled out.
    pub top: Vec<(u32, f32)>,
    /// The model's own, before guidance and processors, if asked for.
    pub raw: Option<Box<RawLogprob>>,
}

/// What the model itself says about a generated token.
#[derive(Debug, Clone, PartialEq)]
pub struct RawLogprob {
    /// The token's log-probability.
    pub logprob: f32,
    /// The model's best tokens with their log-probabilities, best first.
    pub top: Vec<(u32, f32)>,
}

/// The `k` best tokens of a `row` (V) whose numbers become log-probabilities by `log_prob`, without those ruled out.
fn best(row: &[f32], log_prob: impl Fn(f32) -> f32, k: usize) -> Vec<(u32, f32)> {
    let finite = logits::top_k(row, k).into_iter().filter(|(_, x)| x.is_finite());
    let mut top: Vec<_> = finite.map(|(id, x)| (id as u32, log_prob(x))).collect();
    // It was collected in place of something wider.
    top.shrink_to_fit();
    top
}

impl RawLogprob {
    fn new(row: &[f32], id: usize, k: usize) -> Box<Self> {
        let normalizer = LogNormalizer::of(row);
        let log_prob = |logit| normalizer.log_prob(logit);
        Box::new(Self { logprob: log_prob(row[id]), top: best(row, log_prob, k) })
    }
}

impl TokenLogprob {
    /// From a `row` (V) whose numbers become log-probabilities by `log_prob`.
    fn new(row: &[f32], log_prob: impl Fn(f32) -> f32, id: usize, k: usize, raw: Option<&[f32]>) -> Arc<Self> {
        let raw = raw.map(|raw| RawLogprob::new(raw, id, k));
        Arc::new(Self { id: id as u32, logprob: log_prob(row[id]), top: best(row, log_prob, k), raw })
    }

    /// From the processed logits (V) by which `id` was chosen, and the model's own.
    pub(super) fn from_logits(logits: &[f32], id: usize, k: usize, raw: Option<&[f32]>) -> Arc<Self> {
        let normalizer = LogNormalizer::of(logits);
        Self::new(logits, |logit| normalizer.log_prob(logit), id, k, raw)
    }

    /// From processed log-probabilities (V), not normalised again, and the model's own logits.
    pub(super) fn from_log_probs(log_probs: &[f32], id: usize, k: usize, raw: Option<&[f32]>) -> Arc<Self> {
        Self::new(log_probs, |log_prob| log_prob, id, k, raw)
    }
}
