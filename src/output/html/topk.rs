//! The page of `gpt2 topk --all`: for each token, what the model expects after it.

use std::borrow::Cow;
use std::path::Path;

use anyhow::{Result, bail};
use gpt2::tokenizer::Tokenizer;
use gpt2::{Error, printable};
use serde::Serialize;

use super::{Text, View};
use crate::output::topk::TopkRecord;

const VIEW: View = View::new("gpt2 topk", include_str!("topk.js"));

/// The most candidates on a page, which take about 40 MB of it.
const MOST_CANDIDATES: usize = 2_000_000;

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

/// Checks that a page has room for the `k` best candidates at so many positions.
///
/// # Errors
/// If it does not.
pub fn check(positions: usize, k: usize) -> Result<()> {
    match positions.saturating_mul(k) > MOST_CANDIDATES {
        true => bail!(Error::Usage(format!(
            "--html: {k} candidates at {positions} positions are too much for one page; -k {} would fit",
            MOST_CANDIDATES / positions
        ))),
        false => Ok(()),
    }
}

/// Writes the page of a record that covers every position.
pub fn write(path: &Path, record: &TopkRecord<'_>, k: usize, tokenizer: Option<&Tokenizer>) -> Result<()> {
    let candidates = record.positions.iter().flat_map(|position| &position.next.candidates);
    let data = Data {
        text: Text::new(tokenizer, &record.prompt_ids, candidates.map(|candidate| candidate.id)),
        model: printable::line(&record.settings.shown_model()).into_owned().into(),
        k,
        next: record.positions.iter().map(|p| p.next.candidates.iter().map(|c| (c.id, c.prob())).collect()).collect(),
        entropy: record.positions.iter().map(|position| position.entropy).collect(),
    };
    VIEW.write(path, &data)
}
