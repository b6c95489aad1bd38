//! The keys and values of past positions on the CPU, in pages of 16 positions that rows share.

use crate::base::FloatType;
use crate::config::Config;
use crate::error::Result;
use crate::kernels::{Batch, CacheMemory, CacheShape, PAGE_POSITIONS};
use crate::model::Segment;
use crate::model::paging::PagedRows;

/// A cache for any number of rows; a row comes into being, empty, when it is first named.
#[derive(Debug)]
pub struct Cache {
    /// Pages of 16 positions of all layers.
    pub(super) rows: PagedRows<CacheMemory>,
    /// The pass for which room was made last.
    pub(super) batch: Batch,
}

impl Cache {
    /// An empty cache that keeps numbers as `dtype`, F32 or F16.
    pub fn new(config: &Config, dtype: FloatType) -> Self {
        let half = dtype == FloatType::F16;
        let shape = CacheShape { heads: config.n_head, head_dim: config.head_dim(), half };
        let memory = CacheMemory::new(shape, config.n_layer, config.n_positions.div_ceil(PAGE_POSITIONS));
        Self { rows: PagedRows::new(memory, PAGE_POSITIONS), batch: Batch::default() }
    }

    /// Positions that `row` holds.
    pub fn len(&self, row: usize) -> usize {
        self.rows.len(row)
    }

    /// Drops the positions of `row` from `len` on.
    pub fn truncate(&mut self, row: usize, len: usize) {
        self.rows.truncate(row, len);
    }

    /// Makes each `to` hold what `from` held before the call; `moves` are `(to, from)`.
    pub fn assign(&mut self, moves: &[(usize, usize)]) {
        self.rows.assign(moves);
    }

    /// Makes room for new positions that no other row shares; lengths change only with [`commit`](Self::commit).
    pub fn reserve(&mut self, segments: &[Segment]) -> Result<()> {
        self.rows.reserve(segments)?;
        let rows = &self.rows;
        self.batch.set(segments.iter().map(|s| (s.past, s.len, rows.pages(s.row))));
        Ok(())
    }

    /// The new positions are there.
    pub fn commit(&mut self, segments: &[Segment]) {
        self.rows.commit(segments);
    }
}
