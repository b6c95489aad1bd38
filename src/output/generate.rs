//! The records of `gpt2 generate`.

use std::sync::Arc;

use anyhow::Result;
use gpt2::decode::{FinishReason, Guesses, Sequence, TokenLogprob};
use gpt2::pipeline::Pipeline;
use serde::{Serialize, Serializer};

use super::Stdout;
use super::numbers::decimal;
use super::settings::SettingsRecord;
use super::tokens::{Notation, padded};

/// The result of one prompt.
#[derive(Default, Serialize)]
pub struct GenerateRecord<'a> {
    /// The model's name.
    pub model: String,
    /// The prompt as text; null if it was given as ids and there is no tokenizer.
    pub prompt: Option<String>,
    /// The prompt's ids.
    pub prompt_ids: Vec<u32>,
    /// The seed of the draws; null when nothing was drawn.
    pub seed: Option<u64>,
    /// The sequences; from beam search, best first. With a constraint there may be fewer than were asked for.
    pub sequences: Vec<SequenceRecord<'a>>,
    /// With `--choices`, each of them in the order given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub choices: Option<Vec<ChoiceRecord>>,
    /// Where the time went.
    pub timings: Timings,
    /// What it was made with.
    pub settings: SettingsRecord,
}

/// A text of `--choices`, and what the model says of it after the prompt, without the constraint: as `score --candidate`.
#[derive(Debug, Serialize)]
pub struct ChoiceRecord {
    /// The text.
    pub text: String,
    /// The sum of its tokens' log-probabilities.
    pub logprob: f64,
    /// Its probability.
    pub prob: f64,
}

/// One generated sequence.
#[derive(Serialize)]
pub struct SequenceRecord<'a> {
    /// 0 for the first.
    pub index: usize,
    /// The generated ids, without the prompt; includes the end-of-text token if it was generated.
    pub ids: Vec<u32>,
    /// The prompt's ids and the generated ones, as transformers' `generate` returns them.
    pub all_ids: Vec<u32>,
    /// The text of the generated ids without special tokens, cut before a stop string; null without a tokenizer.
    pub text: Option<String>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// The score of a beam: the sum of its log-probabilities, divided by its length to the power of the length penalty;
    /// otherwise null.
    pub score: Option<f32>,
    /// Each generated token with its log-probability and `--logprobs K` alternatives, after the processors; null unless asked
    /// for.
    pub logprobs: Option<Logprobs<'a>>,
}

/// The log-probabilities of a sequence's tokens. Their records are made one by one: with every token as an alternative,
/// all of them together would take gigabytes.
pub struct Logprobs<'a> {
    pub tokens: &'a [Arc<TokenLogprob>],
    /// Gives the tokens' texts.
    pub pipeline: &'a Pipeline,
}

impl Logprobs<'_> {
    fn records(&self) -> impl Iterator<Item = LogprobRecord> {
        self.tokens.iter().map(|token| LogprobRecord::new(token, |id| self.pipeline.token_text(id)))
    }
}

impl Serialize for Logprobs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.records())
    }
}

/// A generated token's log-probability and its alternatives.
#[derive(Debug, Serialize)]
pub struct LogprobRecord {
    /// The token.
    pub id: u32,
    /// Its text, with U+FFFD if the token alone is not UTF-8; null without a tokenizer.
    pub token: Option<String>,
    /// Its log-probability.
    pub logprob: f32,
    /// The best candidates, best first.
    pub top: Vec<AlternativeRecord>,
    /// With `--raw-logprobs`, its log-probability as the model itself has it, before guidance and processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw_logprob: Option<f32>,
    /// With `--raw-logprobs`, the model's own best candidates, best first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw_top: Option<Vec<AlternativeRecord>>,
}

/// A candidate for a generated token.
#[derive(Debug, Serialize)]
pub struct AlternativeRecord {
    /// The token.
    pub id: u32,
    /// Its text, with U+FFFD if the token alone is not UTF-8; null without a tokenizer.
    pub token: Option<String>,
    /// Its log-probability.
    pub logprob: f32,
}

/// Where the time went.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Timings {
    /// Seconds to load the model.
    pub load_s: f64,
    /// Seconds to the first token.
    pub prefill_s: f64,
    /// Seconds for the remaining tokens.
    pub decode_s: f64,
    /// Tokens in the prompt.
    pub prompt_tokens: usize,
    /// Tokens generated, in all sequences.
    pub generated_tokens: usize,
    /// With `--assistant-model` or `--prompt-lookup`, the passes of the model in which a sequence got tokens, the prompt's
    /// included, summed over the sequences.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passes: Option<usize>,
    /// With these flags, the tokens that were guessed and checked by a pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drafted_tokens: Option<usize>,
    /// With these flags, the guesses that were right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted_tokens: Option<usize>,
}

impl Timings {
    /// What there is to say of `sequences` beside the times.
    pub fn of(sequences: &[Sequence]) -> Self {
        let sum = |of: fn(&Guesses) -> usize| {
            let guesses = sequences.iter().filter_map(|sequence| sequence.guesses.as_ref());
            guesses.map(of).reduce(|sum, more| sum + more)
        };
        Self {
            generated_tokens: sequences.iter().map(|sequence| sequence.ids.len()).sum(),
            passes: sum(|guesses| guesses.passes),
            drafted_tokens: sum(|guesses| guesses.drafted),
            accepted_tokens: sum(|guesses| guesses.accepted),
            ..Self::default()
        }
    }
}

impl LogprobRecord {
    /// `text` gives a token's text.
    fn new(token: &TokenLogprob, text: impl Fn(u32) -> Option<String>) -> Self {
        let record = |(id, logprob): &(u32, f32)| AlternativeRecord { id: *id, token: text(*id), logprob: *logprob };
        Self {
            id: token.id,
            token: text(token.id),
            logprob: token.logprob,
            top: token.top.iter().map(record).collect(),
            raw_logprob: token.raw.as_ref().map(|raw| raw.logprob),
            raw_top: token.raw.as_ref().map(|raw| raw.top.iter().map(record).collect()),
        }
    }
}

/// One line per token: its log-probability and the best candidates; if they are known, a second one with the model's own.
pub fn write_logprobs(
    sequence: &SequenceRecord<'_>,
    prompt_ids: &[u32],
    notation: Notation<'_>,
    out: &mut Stdout,
) -> Result<()> {
    let labels = notation.tokens(&[prompt_ids, &sequence.ids].concat());
    let tokens = sequence.logprobs.iter().flat_map(|logprobs| logprobs.tokens);
    for (token, chosen) in tokens.zip(&labels[prompt_ids.len()..]) {
        let name = |id| if id == token.id { chosen.clone() } else { notation.token(id) };
        let named = |top: &[(u32, f32)]| {
            let named = top.iter().map(|(id, logprob)| format!("{} {}", name(*id), decimal(*logprob, 4)));
            named.collect::<Vec<_>>().join("  ")
        };
        writeln!(out, "{:>9}  {} {}", decimal(token.logprob, 4), padded(chosen, 16), named(&token.top))?;
        if let Some(raw) = &token.raw {
            writeln!(out, "{:>9}  {} {}", decimal(raw.logprob, 4), padded("  raw", 16), named(&raw.top))?;
        }
    }
    Ok(())
}
