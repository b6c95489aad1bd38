//! The seam between [`Gpt2`](super::Gpt2) and its backends: a network in the backend's own memory, and the cache that
//! goes with it. The backend is chosen once, when a model is loaded.

use std::any::Any;
use std::fmt::Debug;

use candle_core::Tensor;

use super::edits::{Edits, Hooks, Start};
use super::{select_rows, to_host, with_slice};
use crate::base::DType;
use crate::error::{Error, Result};
use crate::language_model::{Input, Output, Positions, Room};
use crate::logits::Top;

/// GPT-2's blocks, final norm and head, on some device.
pub(super) trait Network: Debug + Send + Sync {
    /// An empty cache.
    fn new_cache(&self) -> Box<dyn Cache>;

    /// Bytes of one position's keys and values.
    fn cache_bytes_per_position(&self) -> usize;

    /// What runs take of the memory; unknown unless it is main memory.
    fn room(&self) -> Room {
        Room::default()
    }

    /// Type and size of the matrices.
    fn stored(&self) -> Stored;

    /// As [`Gpt2::forward`](super::Gpt2::forward), with inputs that it has checked, from the embeddings or from `start`.
    fn forward(
        &self,
        inputs: &[(usize, &[u32])],
        cache: &mut KvCache,
        hooks: Hooks<'_>,
        start: Option<Start<'_>>,
    ) -> Result<Tensor>;

    /// As [`Gpt2::embeddings`](super::Gpt2::embeddings).
    fn embeddings(&self, ids: &[u32], first: usize) -> Result<[Tensor; 2]>;

    /// As [`Gpt2::attention_output`](super::Gpt2::attention_output).
    fn attention_output(&self, layer: usize, z: &Tensor) -> Result<Tensor>;

    /// As [`Gpt2::final_norm_weights`](super::Gpt2::final_norm_weights).
    fn final_norm_weights(&self) -> Result<[Vec<f32>; 2]>;

    /// The final norm: (N, C) -> (N, C).
    fn final_norm(&self, x: &Tensor) -> Result<Tensor>;

    /// The output head: normed hidden states (N, C) -> logits (N, V), in f32.
    fn logits(&self, hidden: &Tensor) -> Result<Tensor>;

    /// As [`Gpt2::logits_into`](super::Gpt2::logits_into).
    fn logits_into(&self, hidden: &Tensor, logits: &mut Vec<f32>) -> Result<()> {
        *logits = to_host(&self.logits(hidden)?)?;
        Ok(())
    }

    /// As [`Gpt2::head_rows`](super::Gpt2::head_rows), of ids that it has checked.
    fn head_rows(&self, ids: &[u32]) -> Result<Tensor>;

    /// As [`Gpt2::best_tokens`](super::Gpt2::best_tokens).
    fn best_tokens(&self, logits: &Tensor) -> Result<Vec<Option<u32>>>;

    /// Runs the whole network, from ids to the outputs that each input asks for; inputs are already checked.
    fn run(&self, inputs: &[Input<'_>], cache: &mut KvCache, edits: &Edits) -> Result<Output> {
        self.run_from_logits(inputs, cache, edits)
    }

    /// The same by way of logits as tensors, from which all other outputs are found.
    fn run_from_logits(&self, inputs: &[Input<'_>], cache: &mut KvCache, edits: &Edits) -> Result<Output> {
        let rows: Vec<(usize, &[u32])> = inputs.iter().map(|input| (input.row, input.ids)).collect();
        let x = self.forward(&rows, cache, Hooks { edits, trace: None }, None)?;
        // Norm and head only run over the wanted positions: most of a prompt's logits are never needed.
        let project = |positions: &[u32]| self.logits(&self.final_norm(&select(&x, positions)?)?);
        let mut output = Output::default();
        let logits: Vec<u32> = wanted(inputs, |input| input.logits).collect();
        if !logits.is_empty() {
            output.logits = to_host(&project(&logits)?)?;
        }
        let best: Vec<u32> = wanted(inputs, |input| input.best).collect();
        if !best.is_empty() {
            output.best = self.best_tokens(&project(&best)?)?;
        }
        let top: Vec<u32> = wanted(inputs, last_if_top).collect();
        if !top.is_empty() {
            let logits = project(&top)?;
            let (_, vocabulary) = logits.dims2()?;
            output.top = with_slice(&logits, |logits| {
                logits.chunks_exact(vocabulary).zip(tops(inputs)).map(|(row, k)| Top::of(row, k)).collect()
            })?;
        }
        let hidden: Vec<u32> = wanted(inputs, |input| input.hidden).collect();
        if !hidden.is_empty() {
            output.hidden = to_host(&self.final_norm(&select(&x, &hidden)?)?)?;
        }
        Ok(output)
    }
}

/// Type and size of the matrices: those of the blocks, the embeddings, and the head, which may be an embedding.
pub(super) struct Stored {
    pub blocks: Vec<(DType, usize)>,
    pub embeddings: Vec<(DType, usize)>,
    pub head: (DType, usize),
}

/// The indices of the wanted positions among those of the batch.
pub(super) fn wanted(inputs: &[Input<'_>], positions: impl Fn(&Input<'_>) -> Positions) -> impl Iterator<Item = u32> {
    let mut end = 0;
    inputs.iter().flat_map(move |input| {
        let first = end;
        end += input.ids.len();
        let from = match positions(input) {
            Positions::None => end,
            Positions::Last => end - 1,
            Positions::All => first,
        };
        (from..end).map(|i| i as u32)
    })
}

/// The position whose most probable tokens are wanted.
pub(super) fn last_if_top(input: &Input<'_>) -> Positions {
    if input.top > 0 { Positions::Last } else { Positions::None }
}

/// How many of the most probable tokens are asked for, by each input that asks for some.
pub(super) fn tops(inputs: &[Input<'_>]) -> impl Iterator<Item = usize> {
    inputs.iter().map(|input| input.top).filter(|k| *k > 0)
}

/// Rows of `x` (N, C) by index; `x` itself if that is all of them in order.
fn select(x: &Tensor, indices: &[u32]) -> Result<Tensor> {
    let (n, _) = x.dims2()?;
    if (0..n as u32).eq(indices.iter().copied()) {
        return Ok(x.clone());
    }
    select_rows(x, indices)
}

/// Keys and values of past positions, by row.
pub(super) trait Cache: Any + Debug {
    /// The number of positions that `row` holds.
    fn len(&self, row: usize) -> usize;

    /// Drops the positions of `row` from `len` on.
    fn truncate(&mut self, row: usize, len: usize);

    /// Makes each `to` hold what `from` held before the call; `moves` are `(to, from)`.
    fn assign(&mut self, moves: &[(usize, usize)]);
}

/// The keys and values of past positions, for any number of rows; a row is created, empty, when it is first named. A
/// cache belongs to the model that made it.
#[derive(Debug)]
pub struct KvCache(Box<dyn Cache>);

impl KvCache {
    pub(super) fn new(cache: Box<dyn Cache>) -> Self {
        Self(cache)
    }

    /// The cache in the type of the network that made it.
    ///
    /// # Errors
    /// [`Error::Usage`] if a model on another device made it.
    pub(super) fn own<C: Cache>(&mut self) -> Result<&mut C> {
        let cache: &mut dyn Any = &mut *self.0;
        cache.downcast_mut().ok_or_else(|| Error::Usage("the cache belongs to a model on another device".into()))
    }

    /// The number of positions that `row` holds.
    #[must_use]
    pub fn len(&self, row: usize) -> usize {
        self.0.len(row)
    }

    /// Drops the positions of `row` from `len` on.
    pub fn truncate(&mut self, row: usize, len: usize) {
        self.0.truncate(row, len);
    }

    /// Makes each `to` hold what `from` held before the call; `moves` are `(to, from)`.
    pub fn assign(&mut self, moves: &[(usize, usize)]) {
        self.0.assign(moves);
    }
}

/// The new positions of one row in a batch.
#[derive(Debug, Clone, Copy)]
pub struct Segment {
    /// The row.
    pub row: usize,
    /// The first of its new positions among those of the batch.
    pub first: usize,
    /// `T`, the number of new positions.
    pub len: usize,
    /// The number of positions that the row held before.
    pub past: usize,
}

impl Segment {
    /// `S`, the number of positions after the pass.
    #[must_use]
    pub fn total(&self) -> usize {
        self.past + self.len
    }
}

/// The segments of `inputs`, `(row, ids)`, given that the cache holds `past` positions of each row.
pub(super) fn segments<'i>(
    inputs: impl Iterator<Item = (usize, &'i [u32])>,
    past: impl Fn(usize) -> usize,
) -> impl Iterator<Item = Segment> {
    let mut first = 0;
    inputs.map(move |(row, ids)| {
        let segment = Segment { row, first, len: ids.len(), past: past(row) };
        first += ids.len();
        segment
    })
}
