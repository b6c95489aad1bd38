//! The page of `gpt2 generate`: each generated token with its alternatives, at any temperature and top-k.

use std::borrow::Cow;
use std::path::Path;

use anyhow::Result;
use gpt2::analysis::alternatives::Alternatives;
use gpt2::decode::{FinishReason, GenerationConfig};
use gpt2::printable;
use gpt2::tokenizer::Tokenizer;
use serde::Serialize;

use super::{Text, View, rounded};

const VIEW: View = View::new("gpt2 generate", include_str!("generate.js"));

/// The temperatures that the page offers. A page cannot compute the weight of tokens that it does not hold, so it is given
/// that weight at each of these.
pub const TEMPERATURES: [f32; 20] =
    [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0];

/// How many candidates the page holds for each of this many `tokens`: fewer if it would become larger than about 10 MB.
pub fn candidates(tokens: usize) -> usize {
    (600_000 / tokens.max(1)).clamp(20, 200)
}

/// A generated text and the alternatives to its tokens from `from` on.
pub struct Explained {
    /// The prompt's ids and the generated ones.
    pub ids: Vec<u32>,
    /// How many of them are the prompt's.
    pub from: usize,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// One for each generated token.
    pub places: Vec<Alternatives>,
}

#[derive(Serialize)]
struct Data<'a> {
    model: Cow<'a, str>,
    temperatures: Vec<f64>,
    /// The setting that the page opens with: an index of `temperatures`, and a top-k (0 for all).
    temperature: usize,
    top_k: usize,
    sequences: Vec<SequenceData>,
}

#[derive(Serialize)]
struct SequenceData {
    text: Text,
    from: usize,
    finish_reason: FinishReason,
    places: Vec<Place>,
}

#[derive(Serialize)]
struct Place {
    rank: usize,
    logit: f64,
    top: Vec<(u32, f64)>,
    rest: Vec<f64>,
}

/// Writes the page; it opens with the temperature and top-k of `config`, if it can show them.
pub fn write(
    path: &Path,
    model: &str,
    config: &GenerationConfig,
    sequences: &[Explained],
    tokenizer: Option<&Tokenizer>,
) -> Result<()> {
    let distance = |place: &usize| (f64::from(TEMPERATURES[*place]) - config.temperature.unwrap_or(1.0)).abs();
    let sequence = |explained: &Explained| SequenceData {
        text: Text::new(tokenizer, &explained.ids, explained.places.iter().flat_map(|p| &p.top).map(|(id, _)| *id)),
        from: explained.from,
        finish_reason: explained.finish_reason,
        places: explained.places.iter().map(place).collect(),
    };
    let data = Data {
        model: printable::line(model),
        temperatures: TEMPERATURES.map(rounded).into(),
        temperature: (0..TEMPERATURES.len()).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or_default(),
        top_k: config.top_k.unwrap_or_default(),
        sequences: sequences.iter().map(sequence).collect(),
    };
    VIEW.write(path, &data)
}

fn place(place: &Alternatives) -> Place {
    Place {
        rank: place.rank,
        logit: rounded(place.logit),
        top: place.top.iter().map(|(id, logit)| (*id, rounded(*logit))).collect(),
        rest: place.rest.iter().map(|weight| significant(*weight)).collect(),
    }
}

/// A number with the seven significant digits that it has.
fn significant(x: f64) -> f64 {
    format!("{x:.6e}").parse().unwrap_or(x)
}
