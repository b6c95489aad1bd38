//! A pass: new positions on their way through the network, and how attention handles them.

use candle_core::Tensor;

use super::cache::Cache;
use super::view::{AttentionShape, Run, View};
use crate::error::Result;
use crate::model::network::{Cache as _, Segment, segments};

/// New positions, which become part of their rows with [`commit`](Self::commit). Dropping a pass before that leaves the
/// rows unchanged.
pub struct Pass<'c> {
    cache: &'c mut Cache,
    segments: Vec<Segment>,
    view: View,
}

impl<'c> Pass<'c> {
    /// Begins a pass over the new positions of `inputs`, `(row, ids)`, and makes room for them.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn begin(cache: &'c mut Cache, inputs: &[(usize, &[u32])]) -> Result<Self> {
        let segments: Vec<Segment> = segments(inputs.iter().copied(), |row| cache.len(row)).collect();
        cache.make_room(&segments)?;
        let view = View::new(&segments, cache.shape, &cache.place)?;
        Ok(Self { cache, segments, view })
    }

    /// The new positions of each row.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Makes the new positions part of their rows.
    pub fn commit(self) {
        self.cache.commit(&self.segments);
    }

    /// The runs, in the order of their rows.
    pub fn runs(&self) -> &[Run] {
        &self.view.runs
    }

    /// Reorders positions from the order of the inputs to the order of the cache's rows.
    pub fn by_row(&self, x: &Tensor) -> Result<Tensor> {
        Ok(match &self.view.order {
            Some(order) => x.index_select(&order.to_rows, 0)?,
            None => x.clone(),
        })
    }

    /// Reorders positions, and one item per segment, back to the order of the inputs.
    pub fn by_input(&self, x: Tensor, of_segments: Vec<Tensor>) -> Result<(Tensor, Vec<Tensor>)> {
        let Some(order) = &self.view.order else { return Ok((x, of_segments)) };
        let mut of_segments: Vec<_> = order.segments.iter().zip(of_segments).collect();
        of_segments.sort_by_key(|(segment, _)| **segment);
        let of_segments = of_segments.into_iter().map(|(_, tensor)| tensor).collect();
        Ok((x.index_select(&order.to_batch, 0)?, of_segments))
    }

    /// The run's queries, keys and values, (R, H, T, D) each, out of those of all rows (N, 3C).
    pub fn split(&self, run: &Run, qkv: &Tensor) -> Result<[Tensor; 3]> {
        let ((_, rows), (first, len)) = (run.rows, run.new);
        let AttentionShape { heads, head_dim } = self.cache.shape;
        let qkv = qkv.narrow(0, first, rows * len)?.reshape((rows, len, 3, heads, head_dim))?;
        let parts = qkv.permute((2, 0, 3, 1, 4))?.contiguous()?;
        Ok([parts.get(0)?, parts.get(1)?, parts.get(2)?])
    }

    /// Concatenates the heads: (R, H, T, D) -> (R * T, C).
    pub fn join(&self, x: &Tensor) -> Result<Tensor> {
        let AttentionShape { heads, head_dim } = self.cache.shape;
        Ok(x.transpose(1, 2)?.reshape(((), heads * head_dim))?)
    }

    /// Appends the run's new keys and values to the cache. Returns all that it holds for these rows, (R, H, S, D).
    pub fn append(&self, run: &Run, layer: usize, k: &Tensor, v: &Tensor) -> Result<(Tensor, Tensor)> {
        let [keys, values] = &self.cache.layers[layer];
        let append = |all: &Tensor, new: &Tensor| {
            let rows = all.narrow(0, run.rows.0, run.rows.1)?;
            rows.scatter_set(&run.index, new, 2)?;
            rows.narrow(2, 0, run.total)
        };
        Ok((append(keys, k)?, append(values, v)?))
    }
}
