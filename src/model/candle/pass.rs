//! A pass: new positions on their way through the network, and how attention takes them.

use candle_core::Tensor;

use super::cache::Cache;
use super::view::{AttentionShape, Run, View};
use crate::error::Result;
use crate::model::network::{Cache as _, Segment, segments};

/// New positions, which become part of their rows with [`commit`](Self::commit); a pass that is dropped before leaves the rows
/// as they were.
pub struct Pass<'c> {
    cache: &'c mut Cache,
    segments: Vec<Segment>,
    view: View,
}

impl<'c> Pass<'c> {
    /// Begins a pass over the new positions of `inputs`, `(row, ids)`: makes room for them.
    ///
    /// # Errors
    /// If there is no memory.
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

    /// The new positions are there, in every layer.
    pub fn commit(self) {
        self.cache.commit(&self.segments);
    }

    /// The runs, in the order of their rows.
    pub fn runs(&self) -> &[Run] {
        &self.view.runs
    }

    /// Rows of new positions in the order of the rows of the cache.
    pub fn by_row(&self, x: &Tensor) -> Result<Tensor> {
        Ok(match &self.view.order {
            Some(order) => x.index_select(&order.to_rows, 0)?,
            None => x.clone(),
        })
    }

    /// Rows of new positions, and something of each segment, back in the order of the inputs.
    pub fn by_input(&self, x: Tensor, of_segments: Vec<Tensor>) -> Result<(Tensor, Vec<Tensor>)> {
        let Some(order) = &self.view.order else { return Ok((x, of_segments)) };
        let mut of_segments: Vec<_> = order.segments.iter().zip(of_segments).collect();
        of_segments.sort_by_key(|(segment, _)| **segment);
        let of_segments = of_segments.into_iter().map(|(_, tensor)| tensor).collect();
        Ok((x.index_select(&order.to_batch, 0)?, of_segments))
    }

    /// The run's queries, keys and values, (R, H, T, D) each, from those of all rows (N, 3C).
    pub fn split(&self, run: &Run, qkv: &Tensor) -> Result<[Tensor; 3]> {
        let ((_, rows), (first, len)) = (run.rows, run.new);
        let AttentionShape { heads, head_dim } = self.cache.shape;
        let qkv = qkv.narrow(0, first, rows * len)?.reshape((rows, len, 3, heads, head_dim))?;
        let parts = qkv.permute((2, 0, 3, 1, 4))?.contiguous()?;
        Ok([parts.get(0)?, parts.get(1)?, parts.get(2)?])
    }

    /// Heads side by side again: (R, H, T, D) -> (R * T, C).
    pub fn join(&self, x: &Tensor) -> Result<Tensor> {
        let AttentionShape { heads, head_dim } = self.cache.shape;
        Ok(x.transpose(1, 2)?.reshape(((), heads * head_dim))?)
    }

    /// Puts the run's new keys and values into the cache. Returns all that it holds for these rows, (R, H, S, D).
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
