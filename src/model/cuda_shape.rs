//! Sizes of the network as an NVIDIA GPU has it, in every build: what it takes there is foretold without one.

use crate::base::FloatType;
use crate::config::Config;
use crate::language_model::MOST_TOP;

/// Outputs are computed 16 at a time.
pub const TILE_OUTPUTS: usize = 16;
/// Rows are computed 8 at a time.
pub const TILE_ROWS: usize = 8;
/// Positions in a block of the cache.
pub const BLOCK_POSITIONS: usize = 64;
/// The most outputs, and rows, of a product that a block of threads computes; matrices are padded to multiples.
pub const WIDE: usize = 64;

/// Bytes of the cache that are asked for at a time, about.
const SLAB_BYTES: usize = 64 << 20;

/// Bytes, about, of what blocks leave for each other where attention is split along positions.
const PARTIAL_BYTES: usize = 64 << 20;

/// The most tokens of a pass.
const MOST_TOKENS: usize = 2048;

/// Widths are padded to multiples of this with zeros: what a warp multiplies at a time, in the narrowest type.
const PADDING: usize = 32;

/// Sizes of the network.
#[derive(Debug, Clone, Copy)]
pub struct NetworkShape {
    /// The type of weights, of the cache and of the factors of every product; sums are f32.
    pub numbers: FloatType,
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

/// Bytes of a row of a matrix with so many inputs.
pub fn row_bytes(inputs: usize, numbers: FloatType) -> usize {
    padded(inputs) * numbers.size()
}

/// Bytes of a matrix.
pub fn matrix_bytes(outputs: usize, inputs: usize, numbers: FloatType) -> usize {
    outputs.next_multiple_of(WIDE) * row_bytes(inputs, numbers)
}

/// Bytes of a vector of so many numbers: norms and biases.
pub fn vector_bytes(len: usize) -> usize {
    padded(len) * size_of::<f32>()
}

impl NetworkShape {
    /// Of a configuration, in a type.
    pub fn new(config: &Config, numbers: FloatType) -> Self {
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

    /// Blocks that the cache asks for at a time.
    pub fn slab_blocks(&self) -> usize {
        (SLAB_BYTES / self.block_bytes().max(1)).clamp(1, self.most_blocks())
    }

    /// Bytes of what the cache asks for at a time.
    pub fn slab_bytes(&self) -> usize {
        self.slab_blocks() * self.block_bytes()
    }

    /// Bytes of the cache of one row that fills the context.
    pub fn full_cache_bytes(&self) -> usize {
        self.most_blocks().div_ceil(self.slab_blocks()) * self.slab_bytes()
    }

    /// The most tokens that a pass has; fewer if attention is split along positions.
    pub fn most_tokens(&self, splits: bool) -> usize {
        let partial = self.heads * self.most_blocks() * self.value_dim * size_of::<f32>();
        if splits { (PARTIAL_BYTES / partial.max(1)).clamp(WIDE, MOST_TOKENS) } else { MOST_TOKENS }
    }
}

/// What the buffers of a pass have room for.
#[derive(Debug, Clone, Copy, Default)]
pub struct PassRoom {
    pub tokens: usize,
    /// Tokens for which attention can be split along positions.
    pub split_tokens: usize,
    /// Tiles of queries.
    pub tiles: usize,
    /// Positions of which logits are computed.
    pub projected: usize,
    /// Positions of which hidden states are wanted.
    pub hidden: usize,
}

impl PassRoom {
    /// For a pass of so many, rounded so that buffers are seldom replaced.
    pub fn new(tokens: usize, splits: bool, tiles: usize, projected: usize, hidden: usize) -> Self {
        let rounded = |n: usize| if n == 0 { 0 } else { n.next_power_of_two() };
        let tokens = tokens.next_multiple_of(WIDE);
        let [tiles, projected, hidden] = [tiles, projected, hidden].map(rounded);
        Self { tokens, split_tokens: if splits { tokens } else { 0 }, tiles, projected, hidden }
    }

    /// For the passes over a prompt of so many tokens, of which the next one is wanted.
    pub fn of_prompt(shape: &NetworkShape, tokens: usize) -> Self {
        let tokens = tokens.min(shape.most_tokens(false));
        // What is decoded after it splits.
        let split_tokens = Self::new(1, true, 1, 1, 0).split_tokens;
        Self { split_tokens, ..Self::new(tokens, false, tokens.div_ceil(4 * TILE_ROWS), 1, 0) }
    }
}

/// Bytes of the buffers of a pass, by their names in `cuda/scratch.rs`. A pass's tables, some kilobytes, are left out.
#[derive(Debug, Clone, Copy)]
pub struct PassBytes {
    pub x: usize,
    pub y: usize,
    pub q: usize,
    pub inner: usize,
    pub partial: usize,
    pub totals: usize,
    pub done: usize,
    pub picked: usize,
    pub logits: usize,
    pub best: usize,
    pub top: usize,
    pub hidden: usize,
}

impl PassBytes {
    /// Of buffers with this room.
    pub fn new(shape: &NetworkShape, room: PassRoom) -> Self {
        let (number, float) = (shape.numbers.size(), size_of::<f32>());
        let PassRoom { tokens, split_tokens, tiles, projected, hidden } = room;
        let partials = split_tokens * shape.heads * shape.most_blocks();
        Self {
            x: tokens * shape.padded * float,
            y: tokens * shape.padded * number,
            // Attention reads whole tiles of queries, from any token on.
            q: (tokens + 4 * TILE_ROWS) * shape.heads * shape.key_dim * number,
            inner: tokens * padded(shape.inner) * number,
            partial: partials * shape.value_dim * float,
            totals: partials * 2 * float,
            done: tiles * shape.heads * size_of::<u32>(),
            picked: projected.next_multiple_of(WIDE) * shape.padded * number,
            logits: projected * shape.vocabulary * float,
            best: projected * size_of::<u64>(),
            top: projected * (1 + MOST_TOP) * size_of::<u64>(),
            hidden: hidden * shape.width * float,
        }
    }

    /// All of them.
    pub fn total(&self) -> usize {
        let Self { x, y, q, inner, partial, totals, done, picked, logits, best, top, hidden } = self;
        [x, y, q, inner, partial, totals, done, picked, logits, best, top, hidden].into_iter().sum()
    }
}
