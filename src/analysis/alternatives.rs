//! What else a text could have continued with in each place, kept so that a reader can change temperature and top-k.

use crate::base::pool;
use crate::error::{Error, Result};
use crate::logits;
use crate::model::{Gpt2, select_rows, with_slice};

/// How many positions' logits are held at once.
const LOGIT_ROWS: usize = 96;

/// A token of a text, and what the model thought of the others in its place, before any processor.
#[derive(Debug, Clone, PartialEq)]
pub struct Alternatives {
    /// The token.
    pub id: u32,
    /// Its rank, 1 for the best.
    pub rank: usize,
    /// Its logit.
    pub logit: f32,
    /// The best tokens with their logits, best first.
    pub top: Vec<(u32, f32)>,
    /// For each temperature `T`, the weight of all tokens that are not among the best: the sum of `e^((x - m) / T)` over
    /// their logits `x`, with `m` the largest logit of all.
    pub rest: Vec<f64>,
}

/// The alternatives to each token of `ids` from position `from` on, the `k` best of each place, from one pass.
///
/// # Errors
/// As [`Gpt2::forward`]; [`Error::Usage`] if `from` is 0, since nothing comes before the first token;
/// [`Error::Numerics`] if the model's logits are not finite.
pub fn alternatives(
    model: &Gpt2,
    ids: &[u32],
    from: usize,
    k: usize,
    temperatures: &[f32],
) -> Result<Vec<Alternatives>> {
    if from == 0 {
        return Err(Error::Usage("nothing comes before the first token, so it has no alternatives".into()));
    }
    if from >= ids.len() {
        return Ok(vec![]);
    }
    let x = model.forward(&[(0, &ids[..ids.len() - 1])], &mut model.new_cache(), None)?;
    let places: Vec<usize> = (from..ids.len()).collect();
    let mut all = Vec::with_capacity(places.len());
    for places in places.chunks(LOGIT_ROWS) {
        let rows: Vec<u32> = places.iter().map(|place| (place - 1) as u32).collect();
        let logits = model.logits(&model.final_norm(&select_rows(&x, &rows)?)?)?;
        let mut found: Vec<_> = places.iter().map(|place| (ids[*place], None)).collect();
        with_slice(&logits, |logits| {
            let mut rows: Vec<_> = found.iter_mut().zip(logits.chunks_exact(model.config().vocab_size)).collect();
            pool::for_each(temperatures.len() * logits.len(), &mut rows, |((id, found), row)| {
                *found = Some(read(row, *id, k, temperatures));
            });
        })?;
        for (_, found) in found {
            all.extend(found.transpose()?);
        }
    }
    Ok(all)
}

/// One place, from its logits (V).
fn read(row: &[f32], id: u32, k: usize, temperatures: &[f32]) -> Result<Alternatives> {
    logits::check_finite(row)?;
    let top = logits::top_k(row, k);
    let largest = logits::max(row);
    let mut others = row.to_vec();
    for (id, _) in &top {
        others[*id] = f32::NEG_INFINITY;
    }
    Ok(Alternatives {
        id,
        rank: logits::rank(row, id as usize),
        logit: row[id as usize],
        top: top.into_iter().map(|(id, logit)| (id as u32, logit)).collect(),
        rest: temperatures.iter().map(|temperature| logits::weight(&others, largest, *temperature)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_and_the_rest_make_the_softmax_at_every_temperature() {
        let row: Vec<f32> = (0..1000).map(|i| ((i * 7919) % 1000) as f32 / 90.0 - 4.0).collect();
        let temperatures = [0.1, 0.7, 1.0, 2.0];
        let found = read(&row, 3, 20, &temperatures).unwrap();
        let largest = f64::from(found.top[0].1);
        for (temperature, rest) in temperatures.into_iter().zip(&found.rest) {
            let weight = |logit: f32| ((f64::from(logit) - largest) / f64::from(temperature)).exp();
            let sum = found.top.iter().map(|(_, logit)| weight(*logit)).sum::<f64>() + rest;
            let exact: f64 = row.iter().map(|logit| weight(*logit)).sum();
            assert!((sum / exact - 1.0).abs() < 1e-5, "{temperature}: {sum} and not {exact}");
        }
        assert_eq!((found.id, found.logit, found.rank), (3, row[3], logits::rank(&row, 3)));
        assert_eq!(read(&row, 3, 2000, &temperatures).unwrap().rest, [0.0; 4]);
    }
}
