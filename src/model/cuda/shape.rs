//! Sizes of the network as its buffers have them.

use super::kernel::{BLOCK_POSITIONS, NumberType, TILE_OUTPUTS};
use crate::config::Config;

/// Widths are padded to multiples of this with zeros: what a warp multiplies at a time, in the narrowest type.
const PADDING: usize = 32;

/// Sizes of the network.
#[derive(Debug, Clone, Copy)]
pub struct NetworkShape {
    pub numbers: NumberType,
    pub layers: usize,
    /// `C`.
    pub width: usize,
    /// `C` as rows have it.
    pub padded: usize,
    /// Width of the MLP.
    pub inner: usize,
    /// `H`.
    pub heads: usize,
    /// `D`.
    pub head_dim: usize,
    /// `D` as queries and keys have it.
    pub key_dim: usize,
    /// `D` as values have it.
    pub value_dim: usize,
    /// `V`.
    pub vocabulary: usize,
    /// Positions of the context.
    pub positions: usize,
}

/// A width as rows have it.
pub fn padded(width: usize) -> usize {
    width.next_multiple_of(PADDING)
}

impl NetworkShape {
    /// Of a configuration, in a type.
    pub fn new(config: &Config, numbers: NumberType) -> Self {
        let head_dim = config.head_dim();
        Self {
            numbers,
            layers: config.n_layer,
            width: config.n_embd,
            padded: padded(config.n_embd),
            inner: config.n_inner,
            heads: config.n_head,
            head_dim,
            key_dim: padded(head_dim),
            value_dim: head_dim.next_multiple_of(TILE_OUTPUTS),
            vocabulary: config.vocab_size,
            positions: config.n_positions,
        }
    }

    /// The most blocks that a row has.
    pub fn most_blocks(&self) -> usize {
        self.positions.div_ceil(BLOCK_POSITIONS)
    }

    /// Numbers of a layer's keys in a block.
    fn keys(&self) -> usize {
        self.heads * BLOCK_POSITIONS * self.key_dim
    }

    /// Numbers of a layer's values in a block.
    fn values(&self) -> usize {
        self.heads * BLOCK_POSITIONS * self.value_dim
    }

    /// Where a layer's keys and values begin in a block, in numbers.
    pub fn layer_at(&self, layer: usize) -> (usize, usize) {
        let keys_at = layer * (self.keys() + self.values());
        (keys_at, keys_at + self.keys())
    }

    /// Bytes of a block.
    pub fn block_bytes(&self) -> usize {
        self.layers * (self.keys() + self.values()) * self.numbers.size()
    }

    /// Bytes of a position in the cache.
    pub fn position_bytes(&self) -> usize {
        self.block_bytes() / BLOCK_POSITIONS
    }
}
