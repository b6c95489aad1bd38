//! The keys and values of past positions on the CPU.
//!
//! Positions are kept in blocks of 16, and rows hold references to blocks: a copy of a row shares all of them and pays
//! for the one it writes to next. So beams share their prompt, a row that is dropped frees what no other row uses, and
//! rows of any mixture of lengths take no more than they need. (The idea is vLLM's paged attention, arXiv 2309.06180.)

use std::sync::Arc;

use crate::config::Config;
use crate::kernels::{self, AttentionShape, BLOCK_POSITIONS};
use crate::model::Segment;

/// A cache for any number of rows; a row comes into being, empty, when it is first named.
#[derive(Debug)]
pub struct Cache {
    shape: AttentionShape,
    layers: usize,
    rows: Vec<Row>,
}

#[derive(Debug, Clone, Default)]
struct Row {
    blocks: Vec<Arc<Block>>,
    len: usize,
}

/// 16 positions of all layers.
#[derive(Debug, Clone)]
struct Block(Vec<f32>);

impl Cache {
    /// An empty cache.
    pub fn new(config: &Config) -> Self {
        let shape = AttentionShape { heads: config.n_head, head_dim: config.head_dim() };
        Self { shape, layers: config.n_layer, rows: vec![] }
    }

    /// Positions that `row` holds.
    pub fn len(&self, row: usize) -> usize {
        self.rows.get(row).map_or(0, |row| row.len)
    }

    /// Drops the positions of `row` from `len` on.
    pub fn truncate(&mut self, row: usize, len: usize) {
        if let Some(row) = self.rows.get_mut(row).filter(|row| row.len > len) {
            row.len = len;
            row.blocks.truncate(len.div_ceil(BLOCK_POSITIONS));
        }
    }

    /// Makes each `to` hold what `from` held before the call; `moves` are `(to, from)`.
    pub fn assign(&mut self, moves: &[(usize, usize)]) {
        let sources: Vec<Row> =
            moves.iter().map(|(_, from)| self.rows.get(*from).cloned().unwrap_or_default()).collect();
        for ((to, _), source) in moves.iter().zip(sources) {
            *self.row_mut(*to) = source;
        }
    }

    pub(super) fn shape(&self) -> AttentionShape {
        self.shape
    }

    fn row_mut(&mut self, row: usize) -> &mut Row {
        if row >= self.rows.len() {
            self.rows.resize_with(row + 1, Row::default);
        }
        &mut self.rows[row]
    }

    /// Makes room for new positions that no other row shares; lengths change only with [`commit`](Self::commit).
    pub fn reserve(&mut self, segments: &[Segment]) {
        let block_len = self.layers * self.shape.block_len();
        for s in segments {
            let state = self.row_mut(s.row);
            // Blocks beyond the length are left-overs of a pass that failed.
            state.blocks.truncate(state.len.div_ceil(BLOCK_POSITIONS));
            if let Some(last) = state.blocks.last_mut().filter(|_| !s.past.is_multiple_of(BLOCK_POSITIONS)) {
                Arc::make_mut(last);
            }
            let blocks = s.total().div_ceil(BLOCK_POSITIONS);
            state.blocks.resize_with(blocks, || Arc::new(Block(vec![0.0; block_len])));
        }
    }

    /// The new positions are there.
    pub fn commit(&mut self, segments: &[Segment]) {
        for s in segments {
            self.rows[s.row].len = s.total();
        }
    }

    /// Writes the keys and values of the new positions, `qkv` being (N, 3C).
    pub(super) fn append(&mut self, layer: usize, segments: &[Segment], qkv: &[f32]) {
        let (shape, part) = (self.shape, self.shape.block_len());
        let c = shape.heads * shape.head_dim;
        let mut writes = vec![];
        let mut rows: Vec<Option<&mut Row>> = self.rows.iter_mut().map(Some).collect();
        for s in segments {
            let Some(row) = rows[s.row].take() else { continue };
            for (i, block) in row.blocks.iter_mut().enumerate().skip(s.past / BLOCK_POSITIONS) {
                writes.push((*s, i, block));
            }
        }
        kernels::pool::for_each(qkv.len(), &mut writes, |(s, i, block)| {
            let block = &mut Arc::make_mut(block).0[layer * part..(layer + 1) * part];
            let (from, to) = (s.past.max(*i * BLOCK_POSITIONS), s.total().min((*i + 1) * BLOCK_POSITIONS));
            for position in from..to {
                let token = &qkv[(s.first + position - s.past) * 3 * c..][..3 * c];
                kernels::append(shape, &token[c..2 * c], &token[2 * c..], position % BLOCK_POSITIONS, block);
            }
        });
    }

    /// Layer `layer`'s part of each block of `row`.
    pub(super) fn blocks(&self, layer: usize, row: usize) -> impl Iterator<Item = &[f32]> {
        let part = self.shape.block_len();
        self.rows[row].blocks.iter().map(move |block| &block.0[layer * part..(layer + 1) * part])
    }
}
