//! The kernels of `kernels.cu`, by name.

use crate::config::Activation;

/// The type of weights, of the cache and of the factors of every product; sums are f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberType {
    /// 32-bit IEEE.
    F32,
    /// 16-bit IEEE.
    F16,
    /// The upper half of an f32.
    BF16,
}

impl NumberType {
    /// Bytes of a number.
    pub fn size(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }

    fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
        }
    }
}

/// What a kernel does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// A matrix as files have it -> as products want it.
    Place,
    /// Token plus position embeddings.
    Embed,
    /// Layer norm of rows, or rows as they are.
    Normalise,
    /// A layer norm, and a product of up to 8 rows.
    Matmul8Normed,
    /// A product of up to 8 rows.
    Matmul8,
    /// A product of up to 16 rows.
    Matmul16,
    /// A product of rows, 32 at a time.
    Matmul32,
    /// A product of many rows.
    MatmulWide,
    /// Attention of up to 8 queries a tile.
    Attention8,
    /// Attention of up to 32 queries a tile.
    Attention32,
    /// The largest logit of each row.
    BestTokens,
}

/// Threads of a warp.
pub const WARP: u32 = 32;
/// Rows that `Normalise` takes a block.
pub const NORM_WARPS: usize = 4;
/// Outputs are computed 16 at a time.
pub const TILE_OUTPUTS: usize = 16;
/// Rows are computed 8 at a time.
pub const TILE_ROWS: usize = 8;
/// Positions in a block of the cache.
pub const BLOCK_POSITIONS: usize = 64;

#[cfg(feature = "cuda")]
impl Kernel {
    const ALL: [Self; 11] = [
        Self::Place,
        Self::Embed,
        Self::Normalise,
        Self::Matmul8Normed,
        Self::Matmul8,
        Self::Matmul16,
        Self::Matmul32,
        Self::MatmulWide,
        Self::Attention8,
        Self::Attention32,
        Self::BestTokens,
    ];

    /// Every kernel with every type, in the order of [`index`](Self::index).
    pub fn all() -> impl Iterator<Item = (Self, NumberType)> {
        let types = [NumberType::F32, NumberType::F16, NumberType::BF16];
        Self::ALL.into_iter().flat_map(move |kernel| types.map(|numbers| (kernel, numbers)))
    }

    /// Its place among all.
    pub fn index(self, numbers: NumberType) -> usize {
        self as usize * 3 + numbers as usize
    }
}

impl Kernel {
    /// Its name in `kernels.cu`; none if there is no such kernel.
    pub fn name(self, numbers: NumberType) -> Option<String> {
        let name = match self {
            Self::Place => "place",
            Self::Embed => "embed",
            Self::Normalise => "normalise",
            Self::Matmul8Normed => "matmul_8_normed",
            Self::Matmul8 => "matmul_8",
            Self::Matmul16 => "matmul_16",
            Self::Matmul32 => "matmul_32",
            Self::MatmulWide => "matmul_wide",
            Self::Attention8 => "attention_8",
            Self::Attention32 => "attention_32",
            Self::BestTokens if numbers == NumberType::F32 => "best_tokens",
            Self::BestTokens => return None,
        };
        Some(format!("{name}_{}", numbers.name()))
    }

    /// Threads of a block.
    pub fn threads(self) -> u32 {
        match self {
            Self::Place | Self::Embed => 256,
            Self::Normalise => WARP * NORM_WARPS as u32,
            Self::Matmul8Normed | Self::Matmul8 | Self::Matmul16 | Self::Matmul32 => 8 * WARP,
            Self::MatmulWide | Self::Attention8 | Self::Attention32 => 4 * WARP,
            Self::BestTokens => 32 * WARP,
        }
    }
}

/// The number of an activation in `kernels.cu`. `gelu_new` and `gelu_fast` are two spellings of the form with tanh.
pub fn activation(activation: Activation) -> i32 {
    match activation {
        Activation::GeluNew | Activation::GeluFast => 0,
        Activation::Gelu => 1,
        Activation::Relu => 2,
        Activation::Silu => 3,
    }
}
