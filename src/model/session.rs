//! A model with a cache of its own, as decoding sees it.

use candle_core::Tensor;

use super::{Gpt2, KvCache, select_rows, to_host, with_slice};
use crate::error::Result;
use crate::language_model::{Input, LanguageModel, Output, Positions};
use crate::logits::Top;

/// A run of a model: rows with their past. Implements [`LanguageModel`].
#[derive(Debug)]
pub struct Session<'m> {
    model: &'m Gpt2,
    cache: KvCache,
}

impl<'m> Session<'m> {
    /// A session without rows.
    #[must_use]
    pub fn new(model: &'m Gpt2) -> Self {
        Self { model, cache: model.new_cache() }
    }
}

impl LanguageModel for Session<'_> {
    fn vocab_size(&self) -> usize {
        self.model.config.vocab_size
    }

    fn n_positions(&self) -> usize {
        self.model.config.n_positions
    }

    fn len(&self, row: usize) -> usize {
        self.cache.len(row)
    }

    fn forward(&mut self, inputs: &[Input<'_>]) -> Result<Output> {
        self.model.run(inputs, &mut self.cache)
    }

    fn truncate(&mut self, row: usize, len: usize) {
        self.cache.truncate(row, len);
    }

    fn assign(&mut self, moves: &[(usize, usize)]) {
        self.cache.assign(moves);
    }
}

/// From the residual stream after the last block, (N, C), to what is wanted of each input.
pub(super) fn ends(model: &Gpt2, inputs: &[Input<'_>], x: &Tensor) -> Result<Output> {
    // Norm and head run over the wanted positions alone: most of a prompt's logits are never looked at.
    let (logits, best) = (wanted(inputs, |input| input.logits), wanted(inputs, |input| input.best));
    let hidden = wanted(inputs, |input| input.hidden);
    let mut output = Output::default();
    if logits.len() + best.len() > 0 {
        let x = model.final_norm(&select(x, &[&logits[..], &best].concat())?)?;
        let all = model.logits(&x)?;
        if !logits.is_empty() {
            output.logits = to_host(&all.narrow(0, 0, logits.len())?)?;
        }
        if !best.is_empty() {
            output.best = model.best_tokens(&all.narrow(0, logits.len(), best.len())?)?;
        }
    }
    let top: Vec<usize> = inputs.iter().map(|input| input.top).filter(|k| *k > 0).collect();
    if !top.is_empty() {
        let rows = wanted(inputs, |input| if input.top > 0 { Positions::Last } else { Positions::None });
        let logits = model.logits(&model.final_norm(&select(x, &rows)?)?)?;
        let (_, vocabulary) = logits.dims2()?;
        let of_rows = |logits: &[f32]| {
            let rows = logits.chunks_exact(vocabulary).zip(top);
            rows.map(|(row, k)| Top::of(row, k)).collect()
        };
        output.top = with_slice(&logits, of_rows)?;
    }
    if !hidden.is_empty() {
        output.hidden = to_host(&model.final_norm(&select(x, &hidden)?)?)?;
    }
    Ok(output)
}

/// The places of the wanted positions among those of the batch.
fn wanted(inputs: &[Input<'_>], positions: fn(&Input<'_>) -> Positions) -> Vec<u32> {
    let mut first = 0;
    let mut indices = vec![];
    for input in inputs {
        let end = first + input.ids.len();
        let from = match positions(input) {
            Positions::None => end,
            Positions::Last => end - 1,
            Positions::All => first,
        };
        indices.extend((from..end).map(|i| i as u32));
        first = end;
    }
    indices
}

/// Rows of `x` (N, C) by index; `x` itself where that is all of them in their order.
fn select(x: &Tensor, indices: &[u32]) -> Result<Tensor> {
    let (n, _) = x.dims2()?;
    if (0..n as u32).eq(indices.iter().copied()) {
        return Ok(x.clone());
    }
    select_rows(x, indices)
}
