//! The page of `gpt2 topk --all`: for each token, what the model expects after it.

use std::borrow::Cow;
use std::path::Path;

use anyhow::Result;
use gpt2::printable;
use gpt2::tokenizer::Tokenizer;
use serde::Serialize;

use super::Text;
use crate::output::topk::TopkRecord;

#[derive(Serialize)]
struct Data<'a> {
    text: Text,
    model: Cow<'a, str>,
    /// How many candidates were requested.
    k: usize,
    /// Id and probability of the candidates after each token.
    next: Vec<Vec<(u32, f64)>>,
    /// The entropy in nats after each token.
    entropy: Vec<f64>,
}

/// Writes the page of a record that covers every position.
pub fn write(path: &Path, record: &TopkRecord, k: usize, tokenizer: Option<&Tokenizer>) -> Result<()> {
    let candidates = record.positions.iter().flat_map(|position| &position.next);
    let data = Data {
        text: Text::new(tokenizer, &record.prompt_ids, candidates.map(|candidate| candidate.id)),
        model: printable::line(&record.model),
        k,
        next: record.positions.iter().map(|p| p.next.iter().map(|c| (c.id, c.prob)).collect()).collect(),
        entropy: record.positions.iter().map(|position| position.entropy).collect(),
    };
    super::write(path, "gpt2 topk", include_str!("topk.js"), &data)
}
