//! The keys and values of past positions on the CPU, in blocks of 16 positions that rows share.

use super::arena::Arena;
use crate::base::{FloatType, pool};
use crate::config::Config;
use crate::error::Result;
use crate::kernels::{BLOCK_POSITIONS, CacheShape};
use crate::model::Segment;
use crate::model::paging::PagedRows;

/// What writing a number into the cache costs, in multiplications: numbers of a key lie apart.
const WRITING: usize = 64;

/// A cache for any number of rows; a row comes into being, empty, when it is first named.
#[derive(Debug)]
pub struct Cache {
    shape: CacheShape,
    /// Blocks of 16 positions of all layers.
    rows: PagedRows<Arena>,
}

impl Cache {
    /// An empty cache that keeps numbers as `dtype`.
    pub fn new(config: &Config, dtype: FloatType) -> Self {
        let shape = CacheShape { heads: config.n_head, head_dim: config.head_dim(), dtype };
        let most = config.n_positions.div_ceil(BLOCK_POSITIONS);
        let arena = Arena::new(config.n_layer * shape.block_bytes(), most);
        Self { shape, rows: PagedRows::new(arena, BLOCK_POSITIONS) }
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

    pub(super) fn shape(&self) -> CacheShape {
        self.shape
    }

    /// Makes room for new positions that no other row shares; lengths change only with [`commit`](Self::commit).
    pub fn reserve(&mut self, segments: &[Segment]) -> Result<()> {
        self.rows.reserve(segments)
    }

    /// The new positions are there.
    pub fn commit(&mut self, segments: &[Segment]) {
        self.rows.commit(segments);
    }

    /// Writes the keys and values of the new positions, `qkv` being (N, 3C).
    pub(super) fn append(&mut self, layer: usize, segments: &[Segment], qkv: &[f32]) {
        let (shape, part) = (self.shape, self.shape.block_bytes());
        let c = shape.heads * shape.head_dim;
        let new = segments.iter().flat_map(|s| {
            let blocks = self.rows.blocks(s.row).iter().enumerate().skip(s.past / BLOCK_POSITIONS);
            blocks.map(move |(i, id)| (s, i, *id))
        });
        let new: Vec<_> = new.collect();
        let blocks = self.rows.memory.several_mut(new.iter().map(|(_, _, id)| *id));
        let d = shape.head_dim;
        let parts = new.iter().zip(blocks).flat_map(|((s, i, _), block)| {
            let heads = shape.heads_mut(&mut block[layer * part..(layer + 1) * part]).enumerate();
            heads.map(move |(h, head)| (*s, *i, h * d, head))
        });
        let mut parts: Vec<_> = parts.collect();
        // Heads are split over the threads as attention splits them, so that what a thread writes it has read before.
        pool::for_each(WRITING * qkv.len(), &mut parts, |(s, i, at, head)| {
            let (from, to) = (s.past.max(*i * BLOCK_POSITIONS), s.total().min((*i + 1) * BLOCK_POSITIONS));
            for position in from..to {
                let token = &qkv[(s.first + position - s.past) * 3 * c..][..3 * c];
                let (key, value) = (&token[c + *at..][..d], &token[2 * c + *at..][..d]);
                head.write(key, value, position % BLOCK_POSITIONS);
            }
        });
    }

    /// Layer `layer`'s part of each block of `row`.
    pub(super) fn blocks(&self, layer: usize, row: usize) -> impl Iterator<Item = &[u8]> {
        let part = self.shape.block_bytes();
        let arena = &self.rows.memory;
        self.rows.blocks(row).iter().map(move |id| &arena.get(*id)[layer * part..(layer + 1) * part])
    }
}
