//! Texts as vectors: the residual stream, pooled over the positions of each.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::model::{Gpt2, Hook, HookPoint, KvCache, Trace, select_rows, with_slice};

/// What becomes of the vectors of a text's positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pool {
    /// Their mean.
    #[default]
    Mean,
    /// The last one alone, which has seen the whole text.
    Last,
    /// Nothing: each is kept.
    None,
}

impl Pool {
    /// All.
    pub const ALL: [Self; 3] = [Self::Mean, Self::Last, Self::None];

    /// As flags and records spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Last => "last",
            Self::None => "none",
        }
    }
}

/// The most tokens in a forward pass, unless a single text is longer: enough for full speed.
const PASS_TOKENS: usize = 1024;

/// The vectors of each text, (C) each, one or as many as it has tokens: of the residual stream after the block of a `layer`,
/// or else after the final norm. A text's are the same to the bit whatever others there are.
///
/// # Errors
/// As [`Gpt2::forward`]; [`Error::Usage`] for a layer that the model does not have; [`Error::Numerics`] if a number is not
/// finite.
pub fn embed(model: &Gpt2, texts: &[&[u32]], layer: Option<usize>, pool: Pool) -> Result<Vec<Vec<Vec<f32>>>> {
    let layers = model.config().n_layer;
    if let Some(layer) = layer.filter(|layer| *layer >= layers) {
        return Err(Error::Usage(format!("there is no layer {layer}: the model has 0 to {}", layers - 1)));
    }
    let mut cache = model.new_cache();
    let mut found = Vec::with_capacity(texts.len());
    for texts in passes(texts) {
        found.extend(pass(model, texts, &mut cache, layer, pool)?);
        (0..texts.len()).for_each(|row| cache.truncate(row, 0));
    }
    Ok(found)
}

/// Bytes of memory that texts of so many tokens take.
#[must_use]
pub fn bytes(model: &Gpt2, texts: &[&[u32]], pool: Pool) -> u64 {
    let (room, vector) = (model.room(), (model.config().n_embd * size_of::<f32>()) as u64);
    // The residual stream twice, and after the norm.
    let of_text = |ids: &&[u32]| {
        let tokens = ids.len() as u64;
        tokens * (room.position_bytes + 3 * vector) + room.cache_bytes(ids.len())
    };
    let largest = passes(texts).map(|texts| texts.iter().map(of_text).sum()).max().unwrap_or(0);
    let vectors: usize = texts.iter().map(|ids| if pool == Pool::None { ids.len() } else { 1 }).sum();
    largest + vectors as u64 * vector
}

/// The texts of each pass.
fn passes<'t, 'i>(mut texts: &'t [&'i [u32]]) -> impl Iterator<Item = &'t [&'i [u32]]> {
    std::iter::from_fn(move || {
        let mut tokens = 0;
        let fits = |ids: &&&[u32]| {
            tokens += ids.len();
            tokens <= PASS_TOKENS
        };
        let count = texts.iter().take_while(fits).count().max(1);
        texts.split_off(..count.min(texts.len())).filter(|texts| !texts.is_empty())
    })
}

fn pass(
    model: &Gpt2,
    texts: &[&[u32]],
    cache: &mut KvCache,
    layer: Option<usize>,
    pool: Pool,
) -> Result<Vec<Vec<Vec<f32>>>> {
    let inputs: Vec<(usize, &[u32])> = texts.iter().copied().enumerate().collect();
    let x = match layer.map(|layer| HookPoint { layer, hook: Hook::ResidPost }) {
        None => model.forward(&inputs, cache, None)?,
        Some(point) => {
            let mut trace = Trace::of([point]);
            model.forward(&inputs, cache, Some(&mut trace))?;
            let found = trace.take(point.layer, point.hook).pop();
            found.ok_or_else(|| candle_core::Error::msg("a pass did not record its residual stream"))?
        }
    };
    // Norms are of one position each, so those that nobody asked for are left out.
    let ends: Vec<u32> = texts
        .iter()
        .scan(0, |end, ids| {
            *end += ids.len() as u32;
            Some(*end - 1)
        })
        .collect();
    let x: Tensor = if pool == Pool::Last { select_rows(&x, &ends)? } else { x };
    let x = if layer.is_none() { model.final_norm(&x)? } else { x };
    let width = model.config().n_embd;
    with_slice(&x, |numbers| {
        let mut positions = numbers.chunks_exact(width);
        let of_text = |ids: &&[u32]| {
            let count = if pool == Pool::Last { 1 } else { ids.len() };
            let vectors: Vec<&[f32]> = positions.by_ref().take(count).collect();
            if vectors.iter().copied().flatten().any(|number| !number.is_finite()) {
                return Err(Error::Numerics("the vector has numbers that are not finite".into()));
            }
            Ok(match pool {
                Pool::Mean => vec![mean(&vectors, width)],
                Pool::Last | Pool::None => vectors.into_iter().map(<[f32]>::to_vec).collect(),
            })
        };
        texts.iter().map(of_text).collect()
    })?
}

fn mean(vectors: &[&[f32]], width: usize) -> Vec<f32> {
    let sum = |column: usize| vectors.iter().map(|vector| f64::from(vector[column])).sum::<f64>();
    (0..width).map(|column| (sum(column) / vectors.len() as f64) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_take_what_fits_and_at_least_one_text() {
        let (short, long) = (vec![0; 400], vec![0; 2000]);
        let texts: Vec<&[u32]> = vec![&short, &short, &short, &long, &short];
        let counts: Vec<usize> = passes(&texts).map(<[_]>::len).collect();
        assert_eq!(counts, [2, 1, 1, 1]);
        assert_eq!(passes(&[]).count(), 0);
    }

    #[test]
    fn the_mean_is_of_each_column() {
        assert_eq!(mean(&[&[1.0, 4.0], &[2.0, 8.0]], 2), [1.5, 6.0]);
    }
}
