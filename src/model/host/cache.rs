//! The keys and values of past positions on the CPU, in pages of 16 positions that rows can share, and a pass over
//! them.

use super::activations::Activations;
use crate::base::{FloatType, memory};
use crate::config::Config;
use crate::error::Result;
use crate::kernels::{Batch, CacheMemory, CacheShape, PAGE_POSITIONS, PageId};
use crate::model::network::{self, Segment, segments};
use crate::model::paging::{PageMemory, PagedRows};

/// A cache for any number of rows; a row is created, empty, when it is first named.
#[derive(Debug)]
pub struct Cache {
    pub rows: PagedRows<CacheMemory>,
    /// The new positions of the last pass, row by row, and the same with their pages. Both are kept to reuse their
    /// memory.
    pub segments: Vec<Segment>,
    pub batch: Batch,
    pub activations: Activations,
}

/// The shape of a layer's part of a page in a cache that stores numbers as `dtype`.
pub fn shape(config: &Config, dtype: FloatType) -> CacheShape {
    CacheShape { heads: config.n_head, head_dim: config.head_dim(), half: dtype == FloatType::F16 }
}

impl Cache {
    /// An empty cache that stores numbers as `dtype`, F32 or F16.
    pub fn new(config: &Config, dtype: FloatType) -> Self {
        let memory =
            CacheMemory::new(shape(config, dtype), config.n_layer, config.n_positions.div_ceil(PAGE_POSITIONS));
        Self {
            rows: PagedRows::new(memory, PAGE_POSITIONS),
            segments: vec![],
            batch: Batch::default(),
            activations: Activations::new(config),
        }
    }

    /// Begins a pass over the new positions of `inputs`, `(row, ids)`, and makes room for them that no other row
    /// shares.
    ///
    /// # Errors
    /// If there is not enough memory; the cache is then unchanged.
    pub fn begin(&mut self, inputs: &[(usize, &[u32])]) -> Result<Pass<'_>> {
        self.segments.clear();
        let rows = &self.rows;
        self.segments.extend(segments(inputs.iter().copied(), |row| rows.len(row)));
        let pass = Pass { cache: self, done: false };
        let Cache { rows, segments, batch, activations } = &mut *pass.cache;
        rows.reserve(segments)?;
        batch.set(segments.iter().map(|s| (s.past, s.len, rows.pages(s.row))));
        activations.make_room(batch.positions())?;
        Ok(pass)
    }
}

impl network::Cache for Cache {
    fn len(&self, row: usize) -> usize {
        self.rows.len(row)
    }

    fn truncate(&mut self, row: usize, len: usize) {
        self.rows.truncate(row, len);
    }

    fn assign(&mut self, moves: &[(usize, usize)]) {
        self.rows.assign(moves);
    }
}

/// New positions on their way through the network. They become part of their rows with [`commit`](Self::commit);
/// dropping a pass before that leaves the cache unchanged.
pub struct Pass<'c> {
    pub cache: &'c mut Cache,
    done: bool,
}

impl Pass<'_> {
    /// Makes the new positions part of their rows.
    pub fn commit(mut self) {
        self.done = true;
        self.cache.rows.commit(&self.cache.segments);
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.cache.rows.roll_back(&self.cache.segments);
        }
    }
}

impl PageMemory for CacheMemory {
    fn check(&self, pages: usize) -> Result<()> {
        memory::take("the cache of keys and values", (pages * self.page_bytes()) as u64)
    }

    fn grow(&mut self) -> Result<usize> {
        self.grow()
    }

    fn copy(&mut self, from: PageId, to: PageId) -> Result<()> {
        self.copy(from, to);
        Ok(())
    }
}
