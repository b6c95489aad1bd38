//! The page of `gpt2 score`: the text coloured by surprisal, and what was expected in each place.

use std::borrow::Cow;
use std::path::Path;

use anyhow::Result;
use gpt2::printable;
use gpt2::tokenizer::Tokenizer;
use serde::Serialize;

use super::{Text, View, rounded};
use crate::output::score::{Protocol, ScoreRecord};

#[derive(Serialize)]
struct Data<'a> {
    text: Text,
    record: Record<'a>,
    /// Id and natural log-probability of the most probable tokens in each place.
    alternatives: Vec<Vec<(u32, f64)>>,
}

const VIEW: View = View::new("gpt2 score", include_str!("score.js"));

/// What the page shows of a [`ScoreRecord`].
#[derive(Serialize)]
struct Record<'a> {
    model: Cow<'a, str>,
    logprobs: Vec<Option<f64>>,
    ranks: &'a [Option<usize>],
    sum_logprob: f64,
    scored_tokens: usize,
    perplexity: Option<f64>,
    bits_per_byte: Option<f64>,
    protocol: Protocol,
}

/// Writes the page; `alternatives` are id and natural log-probability of the most probable tokens in each place.
pub fn write(
    path: &Path,
    record: &ScoreRecord,
    alternatives: &[Vec<(u32, f32)>],
    tokenizer: Option<&Tokenizer>,
) -> Result<()> {
    let data = Data {
        text: Text::new(tokenizer, &record.ids, alternatives.iter().flatten().map(|(id, _)| *id)),
        record: Record {
            model: printable::line(&record.settings.shown_model()).into_owned().into(),
            logprobs: record.logprobs.iter().map(|logprob| logprob.map(rounded)).collect(),
            ranks: &record.ranks,
            sum_logprob: record.sum_logprob,
            scored_tokens: record.scored_tokens,
            perplexity: record.perplexity,
            bits_per_byte: record.bits_per_byte,
            protocol: record.protocol,
        },
        alternatives: alternatives
            .iter()
            .map(|place| place.iter().map(|(id, logprob)| (*id, rounded(*logprob))).collect())
            .collect(),
    };
    VIEW.write(path, &data)
}
