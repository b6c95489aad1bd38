//! The keys and values of past positions on the CPU.
//!
//! Positions are kept in blocks of 16, and rows refer to blocks: a copy of a row shares all of them and pays for the one
//! it writes to next. So beams share their prompt, a row that is dropped frees what no other row uses, and rows of any
//! mixture of lengths take no more than they need. (The idea is vLLM's paged attention, arXiv 2309.06180.)

use super::arena::{Arena, BlockId};
use crate::config::Config;
use crate::error::Result;
use crate::kernels::{self, BLOCK_POSITIONS, CacheShape, FloatType};
use crate::model::Segment;

/// What writing a number into the cache costs, in multiplications: numbers of a key lie apart.
const WRITING: usize = 64;

/// A cache for any number of rows; a row comes into being, empty, when it is first named.
#[derive(Debug)]
pub struct Cache {
    shape: CacheShape,
    /// Blocks of 16 positions of all layers.
    arena: Arena,
    rows: Vec<Row>,
}

#[derive(Debug, Clone, Default)]
struct Row {
    blocks: Vec<BlockId>,
    len: usize,
}

impl Cache {
    /// An empty cache that keeps numbers as `dtype`.
    pub fn new(config: &Config, dtype: FloatType) -> Self {
        let shape = CacheShape { heads: config.n_head, head_dim: config.head_dim(), dtype };
        let most = config.n_positions.div_ceil(BLOCK_POSITIONS);
        Self { shape, arena: Arena::new(config.n_layer * shape.block_bytes(), most), rows: vec![] }
    }

    /// Positions that `row` holds.
    pub fn len(&self, row: usize) -> usize {
        self.rows.get(row).map_or(0, |row| row.len)
    }

    /// Drops the positions of `row` from `len` on.
    pub fn truncate(&mut self, row: usize, len: usize) {
        if let Some(state) = self.rows.get_mut(row).filter(|row| row.len > len) {
            state.len = len;
            self.drop_left_overs(row);
        }
    }

    /// Makes each `to` hold what `from` held before the call; `moves` are `(to, from)`.
    pub fn assign(&mut self, moves: &[(usize, usize)]) {
        let sources: Vec<Row> =
            moves.iter().map(|(_, from)| self.rows.get(*from).cloned().unwrap_or_default()).collect();
        // Shared before anything is released, lest a block get free in between.
        sources.iter().flat_map(|source| &source.blocks).for_each(|id| self.arena.share(*id));
        for ((to, _), source) in moves.iter().zip(sources) {
            let old = std::mem::replace(self.row_mut(*to), source);
            old.blocks.into_iter().for_each(|id| self.arena.release(id));
        }
    }

    pub(super) fn shape(&self) -> CacheShape {
        self.shape
    }

    fn row_mut(&mut self, row: usize) -> &mut Row {
        if row >= self.rows.len() {
            self.rows.resize_with(row + 1, Row::default);
        }
        &mut self.rows[row]
    }

    /// Releases blocks beyond the length of a row.
    fn drop_left_overs(&mut self, row: usize) {
        let Row { blocks, len } = &mut self.rows[row];
        let needed = len.div_ceil(BLOCK_POSITIONS).min(blocks.len());
        blocks.drain(needed..).for_each(|id| self.arena.release(id));
    }

    /// Makes room for new positions that no other row shares; lengths change only with [`commit`](Self::commit).
    pub fn reserve(&mut self, segments: &[Segment]) -> Result<()> {
        for s in segments {
            self.row_mut(s.row);
            // Of a pass that failed.
            self.drop_left_overs(s.row);
            let Row { blocks, .. } = &mut self.rows[s.row];
            if let Some(last) = blocks.last_mut().filter(|_| !s.past.is_multiple_of(BLOCK_POSITIONS)) {
                *last = self.arena.own(*last)?;
            }
            while blocks.len() < s.total().div_ceil(BLOCK_POSITIONS) {
                blocks.push(self.arena.take()?);
            }
        }
        Ok(())
    }

    /// The new positions are there.
    pub fn commit(&mut self, segments: &[Segment]) {
        for s in segments {
            self.rows[s.row].len = s.total();
        }
    }

    /// Writes the keys and values of the new positions, `qkv` being (N, 3C).
    pub(super) fn append(&mut self, layer: usize, segments: &[Segment], qkv: &[f32]) {
        let (shape, part) = (self.shape, self.shape.block_bytes());
        let c = shape.heads * shape.head_dim;
        let new = segments.iter().flat_map(|s| {
            let blocks = self.rows[s.row].blocks.iter().enumerate().skip(s.past / BLOCK_POSITIONS);
            blocks.map(move |(i, id)| (s, i, *id))
        });
        let new: Vec<_> = new.collect();
        let blocks = self.arena.several_mut(new.iter().map(|(_, _, id)| *id));
        let d = shape.head_dim;
        let parts = new.iter().zip(blocks).flat_map(|((s, i, _), block)| {
            let heads = shape.heads_mut(&mut block[layer * part..(layer + 1) * part]).enumerate();
            heads.map(move |(h, head)| (*s, *i, h * d, head))
        });
        let mut parts: Vec<_> = parts.collect();
        // Heads are split over the threads as attention splits them, so that what a thread writes it has read before.
        kernels::pool::for_each(WRITING * qkv.len(), &mut parts, |(s, i, at, head)| {
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
        self.rows[row].blocks.iter().map(move |id| &self.arena.get(*id)[layer * part..(layer + 1) * part])
    }
}
