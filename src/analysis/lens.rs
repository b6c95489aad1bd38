//! The logit lens: what the model would predict if it stopped after each layer.
//!
//! The final norm and the output head are applied to every hidden state; the last block's result is the model's own
//! prediction.
//! Reference: nostalgebraist, "interpreting GPT: the logit lens" (2020).

use std::ops::Range;

use candle_core::Tensor;

use super::activations::{Activations, Hidden};
use crate::base::math;
use crate::base::pool;
use crate::error::Result;
use crate::logits::{self, LogNormalizer};
use crate::model::{Gpt2, with_slice};

/// How many positions' logits are held at once.
const LOGIT_ROWS: usize = 96;

/// One hidden state seen through the lens.
#[derive(Debug, Clone, PartialEq)]
pub struct LensLayer {
    /// `embed` or `blocks.{i}.hidden`.
    pub name: String,
    /// A reading for each of the positions.
    pub positions: Vec<LensReading>,
}

/// What one position's hidden state predicts.
#[derive(Debug, Clone, PartialEq)]
pub struct LensReading {
    /// The most probable tokens with their probabilities, best first.
    pub top: Vec<(u32, f32)>,
    /// The probability of the token that the whole model predicts.
    pub outcome: f32,
}

/// Reads every hidden state through the lens, with the `k` best tokens at each position, in order from the embedding to
/// the last block.
///
/// # Errors
/// [`crate::Error::Numerics`] if the model's logits are not finite.
pub fn lens(model: &Gpt2, activations: &Activations, k: usize) -> Result<Vec<LensLayer>> {
    let positions = activations.hidden.first().map_or(Ok(0), |state| state.tensor.dim(0))?;
    lens_at(model, activations, 0..positions, k)
}

/// As [`lens`], at these positions only.
///
/// # Errors
/// As [`lens`].
pub fn lens_at(model: &Gpt2, activations: &Activations, positions: Range<usize>, k: usize) -> Result<Vec<LensLayer>> {
    // The state after the final norm is left out: the norm is part of the lens.
    let states = &activations.hidden[..activations.hidden.len() - 1];
    let mut outcomes: Option<Vec<u32>> = None;
    let mut layers = vec![];
    for state in states.iter().rev() {
        let readings = read(model, state, positions.clone(), outcomes.as_deref(), k.max(1))?;
        outcomes.get_or_insert_with(|| readings.iter().map(|reading| reading.top[0].0).collect());
        layers.push(LensLayer { name: state.name.clone(), positions: readings });
    }
    layers.reverse();
    Ok(layers)
}

/// The readings of some positions of one state (T, C); `outcomes` are the whole model's predictions, none for the last state itself.
fn read(
    model: &Gpt2,
    state: &Hidden,
    positions: Range<usize>,
    outcomes: Option<&[u32]>,
    k: usize,
) -> Result<Vec<LensReading>> {
    let mut readings = Vec::with_capacity(positions.len());
    for from in positions.clone().step_by(LOGIT_ROWS) {
        let rows = LOGIT_ROWS.min(positions.end - from);
        let x = state.tensor.narrow(0, from, rows)?.contiguous()?;
        let logits = model.logits(&model.final_norm(&x)?)?;
        readings.extend(read_rows(&logits, |row| outcomes.map(|ids| ids[from - positions.start + row]), k)?);
    }
    Ok(readings)
}

fn read_rows(logits: &Tensor, outcome: impl Fn(usize) -> Option<u32> + Sync, k: usize) -> Result<Vec<LensReading>> {
    let (rows, vocabulary) = logits.dims2()?;
    let mut found: Vec<(usize, Option<Result<LensReading>>)> = (0..rows).map(|row| (row, None)).collect();
    with_slice(logits, |logits| {
        pool::for_each(logits.len(), &mut found, |(row, found)| {
            let logits = &logits[*row * vocabulary..][..vocabulary];
            *found = Some(reading(logits, outcome(*row), k));
        });
    })?;
    found.into_iter().filter_map(|(_, found)| found).collect()
}

fn reading(logits: &[f32], outcome: Option<u32>, k: usize) -> Result<LensReading> {
    let normalizer = LogNormalizer::of_finite(logits)?;
    let best = logits::top_k(logits, k);
    let prob = |logit: f32| math::exp(f64::from(normalizer.log_prob(logit))) as f32;
    let outcome = outcome.map_or(normalizer.largest, |id| logits[id as usize]);
    Ok(LensReading { top: best.iter().map(|(id, logit)| (*id as u32, prob(*logit))).collect(), outcome: prob(outcome) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_match_the_softmax() {
        let logits = [0.5f32, -1.0, 2.0, 1.5];
        let sum: f32 = logits.iter().map(|x| x.exp()).sum();
        let reading = reading(&logits, Some(1), 2).unwrap();
        assert_eq!(reading.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [2, 3]);
        for ((_, found), logit) in reading.top.iter().zip([2.0f32, 1.5]) {
            assert!((found - logit.exp() / sum).abs() < 1e-6);
        }
        assert!((reading.outcome - (-1f32).exp() / sum).abs() < 1e-6);
    }
}
