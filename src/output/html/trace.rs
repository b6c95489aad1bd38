//! The page of `gpt2 trace`: attention by layer and head, the logit lens, hidden states.

use std::borrow::Cow;
use std::path::Path;

use anyhow::Result;
use gpt2::Error;
use gpt2::printable;
use gpt2::tokenizer::Tokenizer;
use serde::Serialize;

use super::packed::packed;
use super::shades::shaded;
use super::{Text, View, rounded};
use crate::output::attribution::{AttributionRecord, ComponentRecord};
use crate::output::tokens::Notation;
use crate::output::trace::{HeadRecord, TraceRecord, strongest};

const VIEW: View = View {
    style: include_str!("trace.css"),
    ..View::new("gpt2 trace", concat!(include_str!("attention.js"), include_str!("trace.js")))
};

/// The most attention weights on a page: those of GPT-2's 144 heads over 570 tokens.
const MOST_WEIGHTS: usize = 24_000_000;

/// The most that are written exactly, which takes about 2 MB.
const MOST_EXACT: usize = 1_500_000;

#[derive(Serialize)]
struct Data<'a> {
    text: Text,
    model: Cow<'a, str>,
    attention: Vec<Layer>,
    /// How many shades the weights have; null if they are exact.
    shades: Option<u8>,
    /// The layer and the head to open at, as places in the list.
    opens: (usize, usize),
    /// The weight shown in the strongest shade.
    strongest: f32,
    lens: Vec<Lens<'a>>,
    hidden: Vec<Hidden<'a>>,
    /// What made the logit that was asked about.
    attribution: Option<Attribution>,
    /// What made each token after the first, and at the end the model's best.
    made: Vec<Attribution>,
}

/// What made a logit: the question, the sum and the logit, and the heat map.
#[derive(Serialize)]
struct Attribution {
    question: String,
    total: String,
    others: String,
    columns: Vec<String>,
    /// For each layer, the contributions in the columns; null where it has none.
    rows: Vec<Vec<Option<f64>>>,
}

impl Attribution {
    fn of(record: &AttributionRecord, notation: Notation<'_>, labels: &[String]) -> Self {
        let (columns, rows) = record.map();
        // As many decimals as a page with many tokens has room for.
        let value = |part: &Option<&ComponentRecord>| part.map(|part| (f64::from(part.value) * 1e3).round() / 1e3);
        Self {
            question: record.question(notation, labels),
            total: record.total(),
            others: record.others(),
            columns,
            rows: rows.iter().map(|row| row.iter().map(value).collect()).collect(),
        }
    }
}

#[derive(Serialize)]
struct Layer {
    layer: usize,
    heads: Vec<Head>,
    /// Those of all heads, in shades.
    #[serde(skip_serializing_if = "Option::is_none")]
    weights: Option<String>,
}

#[derive(Serialize)]
struct Head {
    head: usize,
    /// The lower triangle, packed.
    #[serde(skip_serializing_if = "Option::is_none")]
    weights: Option<String>,
}

#[derive(Serialize)]
struct Lens<'a> {
    name: &'a str,
    positions: Vec<Reading>,
}

#[derive(Serialize)]
struct Reading {
    top: Vec<(u32, f64)>,
    outcome: f64,
}

#[derive(Serialize)]
struct Hidden<'a> {
    name: &'a str,
    shape: [usize; 2],
    mean: f64,
    std: f64,
    norms: Vec<f64>,
}

/// Checks that a page has room for so many `(heads, tokens)`; `narrower` says how to ask for less.
///
/// # Errors
/// If it does not.
pub fn check((heads, n): (usize, usize), narrower: &str) -> Result<()> {
    if heads.saturating_mul(n * (n + 1) / 2) > MOST_WEIGHTS {
        return Err(Error::Usage(format!(
            "--html: {heads} heads over {n} tokens are too much for one page; {narrower}"
        ))
        .into());
    }
    Ok(())
}

/// Writes the page of a record with all views.
pub fn write(
    path: &Path,
    record: &TraceRecord,
    made: &[AttributionRecord],
    tokenizer: Option<&Tokenizer>,
) -> Result<()> {
    let attention = record.attention.as_deref().unwrap_or_default();
    let by_layer: Vec<&[HeadRecord]> = attention.chunk_by(|one, next| one.layer == next.layer).collect();
    let n = record.ids.len();
    let shaded = (attention.len() * n * (n + 1) / 2 > MOST_EXACT).then(|| shaded(&by_layer)).transpose()?;
    let weights = |head: &HeadRecord| shaded.is_none().then(|| packed(&head.weights));
    let layer = |(i, heads): (usize, &&[HeadRecord])| Layer {
        layer: heads[0].layer,
        heads: heads.iter().map(|head| Head { head: head.head, weights: weights(head) }).collect(),
        weights: shaded.as_ref().map(|shaded| shaded.layers[i].clone()),
    };
    let layers: Vec<Layer> = by_layer.iter().enumerate().map(layer).collect();
    let lens = record.lens.as_deref().unwrap_or_default();
    let notation = Notation::new(tokenizer);
    let readings = lens.iter().flat_map(|layer| &layer.positions);
    let labels = notation.tokens(&record.ids);
    let data = Data {
        text: Text::new(tokenizer, &record.ids, readings.flat_map(|reading| &reading.top).map(|best| best.id)),
        model: printable::line(&record.settings.shown_model()).into_owned().into(),
        opens: most_telling(attention, layers.first().map_or(1, |layer| layer.heads.len())),
        attention: layers,
        shades: shaded.map(|shaded| shaded.shades),
        strongest: strongest(attention),
        lens: lens
            .iter()
            .map(|layer| Lens {
                name: &layer.name,
                positions: layer
                    .positions
                    .iter()
                    .map(|reading| Reading {
                        top: reading.top.iter().map(|best| (best.id, rounded(best.prob))).collect(),
                        outcome: rounded(reading.outcome_prob),
                    })
                    .collect(),
            })
            .collect(),
        hidden: record
            .hidden
            .as_deref()
            .unwrap_or_default()
            .iter()
            .map(|state| Hidden {
                name: &state.name,
                shape: state.shape,
                mean: state.mean,
                std: state.std,
                norms: state.norms.iter().map(|norm| rounded(*norm)).collect(),
            })
            .collect(),
        attribution: record.attribution.as_ref().map(|made| Attribution::of(made, notation, &labels)),
        made: made.iter().map(|made| Attribution::of(made, notation, &labels)).collect(),
    };
    VIEW.write(path, &data)
}

/// The place (layer, head) of the head that tells most, of layers with `across` heads each: whose tokens, on average, give
/// the largest weight to a single token that is not the first, the one before, or themselves. Looking at those three is
/// what heads do that have nothing to say.
fn most_telling(heads: &[HeadRecord], across: usize) -> (usize, usize) {
    let telling = |head: &HeadRecord| -> f32 {
        let rows = head.weights.iter().enumerate().skip(3);
        rows.map(|(query, row)| row[1..query - 1].iter().copied().fold(0.0, f32::max)).sum()
    };
    let scores = heads.iter().map(telling).enumerate();
    let (place, _) = scores.fold((0, 0.0), |best, next| if next.1 > best.1 { next } else { best });
    (place / across, place % across)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_opens_at_the_head_that_looks_at_particular_tokens() {
        let head = |key: fn(usize) -> usize| {
            let row = |query| (0..6).map(|k| f32::from(u8::from(k == key(query)))).collect();
            HeadRecord { layer: 0, head: 0, weights: (0..6).map(row).collect() }
        };
        let (first, before, itself) = (head(|_| 0), head(|query| query.saturating_sub(1)), head(|query| query));
        let telling = head(|query| query.saturating_sub(2));
        assert_eq!(most_telling(&[first, before, itself, telling], 2), (1, 1));
        assert_eq!(most_telling(&[], 1), (0, 0));
    }
}
