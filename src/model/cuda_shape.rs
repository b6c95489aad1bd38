//! Sizes of the network on an NVIDIA GPU. In every build, so that its memory use can be predicted without a GPU.

use crate::base::FloatType;
use crate::config::Config;
use crate::language_model::MOST_TOP;

/// Outputs are computed 16 at a time.
pub const TILE_OUTPUTS: usize = 16;
/// Rows are computed 8 at a time.
pub const TILE_ROWS: usize = 8;
/// Positions in a page of the cache.
pub const PAGE_POSITIONS: usize = 64;
/// The most outputs, and rows, of a product that one thread block computes; matrices are padded to multiples of it.
pub const WIDE: usize = 128;

/// Roughly how many bytes the cache allocates at a time.
const SLAB_BYTES: usize = 64 << 20;

/// Roughly how many bytes the thread blocks may leave for each other when attention is split along positions.
const PARTIAL_BYTES: usize = 64 << 20;

/// The most tokens in a pass.
const MOST_TOKENS: usize = 8192;

/// Widths are zero-padded to multiples of this: what a warp multiplies at a time in the narrowest type.
const PADDING: usize = 32;

/// Sizes of the network.
#[derive(Debug, Clone, Copy)]
pub struct NetworkShape {
    /// The type of weights, of the cache and of the factors of every product; sums are f32.
    pub numbers: FloatType,
    pub layers: usize,
    /// `C`.
    pub width: usize,
    /// `C` with padding, as stored in rows.
    pub padded: usize,
    /// Width of the MLP.
    pub inner: usize,
    /// `H`.
    pub heads: usize,
    /// `D`.
    pub head_dim: usize,
    /// `D` with the padding of queries and keys.
    pub key_dim: usize,
    /// `D` with the padding of values.
    pub value_dim: usize,
    /// `V`.
    pub vocabulary: usize,
    /// Positions of the context.
    pub positions: usize,
}

/// A width with padding, as stored in rows.
pub fn padded(width: usize) -> usize {
    width.next_multiple_of(PADDING)
}

/// How many positions of a prompt a thread block attends for: four warps, each with one or two tiles.
pub fn prompt_queries(numbers: FloatType) -> usize {
    // In f32 a score takes several sums.
    4 * TILE_ROWS * if numbers == FloatType::F32 { 1 } else { 2 }
}

/// Bytes of a matrix row with this many inputs.
pub fn row_bytes(inputs: usize, numbers: FloatType) -> usize {
    padded(inputs) * numbers.size()
}

/// Bytes of a matrix.
pub fn matrix_bytes(outputs: usize, inputs: usize, numbers: FloatType) -> usize {
    outputs.next_multiple_of(WIDE) * row_bytes(inputs, numbers)
}

/// Bytes of a vector of this length: norms and biases.
pub fn vector_bytes(len: usize) -> usize {
    padded(len) * size_of::<f32>()
}

impl NetworkShape {
    /// The sizes for a configuration, in a number type.
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

    /// The most pages that a row can have.
    pub fn most_pages(&self) -> usize {
        self.positions.div_ceil(PAGE_POSITIONS)
    }

    /// Numbers of one layer's keys in a page.
    fn keys(&self) -> usize {
        self.heads * PAGE_POSITIONS * self.key_dim
    }

    /// Numbers of one layer's values in a page.
    fn values(&self) -> usize {
        self.heads * PAGE_POSITIONS * self.value_dim
    }

    /// Where a layer's keys and values begin in a page, in numbers.
    pub fn layer_at(&self, layer: usize) -> (usize, usize) {
        let keys_at = layer * (self.keys() + self.values());
        (keys_at, keys_at + self.keys())
    }

    /// Bytes of a page.
    pub fn page_bytes(&self) -> usize {
        self.layers * (self.keys() + self.values()) * self.numbers.size()
    }

    /// Bytes of one position in the cache.
    pub fn position_bytes(&self) -> usize {
        self.page_bytes() / PAGE_POSITIONS
    }

    /// Pages that the cache allocates at a time.
    pub fn slab_pages(&self) -> usize {
        (SLAB_BYTES / self.page_bytes().max(1)).clamp(1, self.most_pages())
    }

    /// Bytes that the cache allocates at a time.
    pub fn slab_bytes(&self) -> usize {
        self.slab_pages() * self.page_bytes()
    }

    /// Bytes of the cache of one row that fills the context.
    pub fn full_cache_bytes(&self) -> usize {
        self.most_pages().div_ceil(self.slab_pages()) * self.slab_bytes()
    }

    /// The most tokens in a pass; fewer if attention is split along positions.
    pub fn most_tokens(&self, splits: bool) -> usize {
        let partial = self.heads * self.most_pages() * self.value_dim * size_of::<f32>();
        if splits { (PARTIAL_BYTES / partial.max(1)).clamp(WIDE, MOST_TOKENS) } else { MOST_TOKENS }
    }
}

/// What the buffers of a pass have room for.
#[derive(Debug, Clone, Copy, Default)]
pub struct PassRoom {
    pub tokens: usize,
    /// Tokens whose attention can be split along positions.
    pub split_tokens: usize,
    /// Tiles of queries.
    pub tiles: usize,
    /// Positions whose logits are computed.
    pub projected: usize,
    /// Positions whose hidden states are wanted.
    pub hidden: usize,
}

impl PassRoom {
    /// For a pass of these sizes, rounded up so that buffers are seldom replaced.
    pub fn new(tokens: usize, splits: bool, tiles: usize, projected: usize, hidden: usize) -> Self {
        let rounded = |n: usize| if n == 0 { 0 } else { n.next_power_of_two() };
        let tokens = tokens.next_multiple_of(WIDE);
        let [tiles, projected, hidden] = [tiles, projected, hidden].map(rounded);
        Self { tokens, split_tokens: if splits { tokens } else { 0 }, tiles, projected, hidden }
    }

    /// For the passes over a prompt of this many tokens, followed by the next token.
    pub fn of_prompt(shape: &NetworkShape, tokens: usize) -> Self {
        let tokens = tokens.min(shape.most_tokens(false));
        // Decoding after the prompt splits attention.
        let split_tokens = Self::new(1, true, 1, 1, 0).split_tokens;
        Self { split_tokens, ..Self::new(tokens, false, tokens.div_ceil(prompt_queries(shape.numbers)), 1, 0) }
    }
}

/// Bytes of the buffers of a pass, named as in `cuda/scratch.rs`. Leaves out a pass's tables, some kilobytes.
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
    /// For buffers with this room.
    pub fn new(shape: &NetworkShape, room: PassRoom) -> Self {
        let (number, float) = (shape.numbers.size(), size_of::<f32>());
        let PassRoom { tokens, split_tokens, tiles, projected, hidden } = room;
        let partials = split_tokens * shape.heads * shape.most_pages();
        Self {
            x: tokens * shape.padded * float,
            y: tokens * shape.padded * number,
            // Attention reads up to two whole tiles of queries, starting at any token.
            q: (tokens + 2 * TILE_ROWS) * shape.heads * shape.key_dim * number,
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

    /// The sum of all.
    pub fn total(&self) -> usize {
        let Self { x, y, q, inner, partial, totals, done, picked, logits, best, top, hidden } = self;
        [x, y, q, inner, partial, totals, done, picked, logits, best, top, hidden].into_iter().sum()
    }
}
