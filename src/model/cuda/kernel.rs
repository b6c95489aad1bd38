//! The kernels of `kernels/`, by name.

use crate::base::FloatType;
use crate::config::Activation;
pub use crate::model::cuda_shape::{PAGE_POSITIONS, TILE_OUTPUTS, TILE_ROWS, prompt_queries};

/// What a kernel does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// A matrix as stored in files -> as products need it.
    Place,
    /// Token plus position embeddings.
    Embed,
    /// Layer norm of rows, or rows unchanged.
    Normalise,
    /// A layer norm followed by a product of up to 8 rows.
    Matmul8Normed,
    /// A product of rows, 8 at a time.
    Matmul8,
    /// The same for many inputs.
    Matmul8Deep,
    /// A product of rows, 16 at a time.
    Matmul16,
    /// A product of rows, 32 at a time.
    Matmul32,
    /// A product of many rows, 64 outputs of 64 rows at a time.
    Matmul64x64,
    /// A product of many rows, 128 outputs of 64 rows at a time. Not in f32, whose sums take too many registers.
    Matmul128x64,
    /// Attention with up to 8 queries per tile, pages in parallel.
    AttentionSplit,
    /// Attention with up to 8 queries per tile, pages in sequence.
    Attention8,
    /// Attention with many queries of a row per tile ([`prompt_queries`]), pages in sequence.
    AttentionPrompt,
    /// The best token of each row.
    BestTokens,
    /// The best tokens of each row, and what their log-probabilities need.
    TopTokens,
}

/// Threads of a warp.
pub const WARP: u32 = 32;
/// Rows per thread block of `Normalise`.
pub const NORM_WARPS: usize = 4;
/// Numbers of a head that a thread block of `Attention8` or `AttentionPrompt` mixes.
pub const MIXED_NUMBERS: usize = 64;
/// The largest vocabulary that `TopTokens` can search.
pub const TOP_VOCABULARY: usize = 1 << 17;
/// The most dynamic shared memory for which `Matmul8Normed` keeps its rows there.
pub const MOST_NORMED_SHARED: usize = 72 << 10;

#[cfg(feature = "cuda")]
impl Kernel {
    const ALL: [Self; 15] = [
        Self::Place,
        Self::Embed,
        Self::Normalise,
        Self::Matmul8Normed,
        Self::Matmul8,
        Self::Matmul8Deep,
        Self::Matmul16,
        Self::Matmul32,
        Self::Matmul64x64,
        Self::Matmul128x64,
        Self::AttentionSplit,
        Self::Attention8,
        Self::AttentionPrompt,
        Self::BestTokens,
        Self::TopTokens,
    ];

    /// Every kernel in every type, in the order of [`index`](Self::index).
    pub fn all() -> impl Iterator<Item = (Self, FloatType)> {
        let types = [FloatType::F32, FloatType::F16, FloatType::BF16];
        Self::ALL.into_iter().flat_map(move |kernel| types.map(|numbers| (kernel, numbers)))
    }

    /// Its index among all.
    pub fn index(self, numbers: FloatType) -> usize {
        self as usize * 3 + numbers as usize
    }
}

impl Kernel {
    /// Its name in `kernels`; `None` if there is no such kernel.
    pub fn name(self, numbers: FloatType) -> Option<String> {
        let name = match self {
            Self::Place => "place",
            Self::Embed => "embed",
            Self::Normalise => "normalise",
            Self::Matmul8Normed => "matmul_8_normed",
            Self::Matmul8 => "matmul_8",
            Self::Matmul8Deep => "matmul_8_deep",
            Self::Matmul16 => "matmul_16",
            Self::Matmul32 => "matmul_32",
            Self::Matmul64x64 => "matmul_64x64",
            Self::Matmul128x64 if numbers != FloatType::F32 => "matmul_128x64",
            Self::AttentionSplit => "attention_split",
            Self::Attention8 => "attention_8",
            Self::AttentionPrompt => "attention_prompt",
            Self::BestTokens if numbers == FloatType::F32 => "best_tokens",
            Self::TopTokens if numbers == FloatType::F32 => "top_tokens",
            Self::Matmul128x64 | Self::BestTokens | Self::TopTokens => return None,
        };
        Some(format!("{name}_{}", numbers.name()))
    }

    /// Threads per block.
    pub fn threads(self) -> u32 {
        match self {
            Self::Place | Self::Embed | Self::BestTokens => 256,
            Self::Normalise => WARP * NORM_WARPS as u32,
            Self::TopTokens => 1024,
            Self::Matmul8Normed | Self::Matmul8 | Self::Matmul8Deep | Self::Matmul16 | Self::Matmul32 => 8 * WARP,
            Self::Matmul64x64 | Self::Matmul128x64 => 4 * WARP,
            Self::AttentionSplit | Self::Attention8 | Self::AttentionPrompt => 4 * WARP,
        }
    }

    /// The most dynamic shared memory that it is launched with.
    pub fn most_shared(self) -> usize {
        match self {
            Self::Matmul8Normed => MOST_NORMED_SHARED,
            Self::Matmul64x64 => 48 << 10,
            Self::Matmul128x64 => 72 << 10,
            _ => 0,
        }
    }
}

/// The number of an activation in `kernels`. `gelu_new` and `gelu_fast` are two spellings of the tanh form.
pub fn activation(activation: Activation) -> i32 {
    match activation {
        Activation::GeluNew | Activation::GeluFast => 0,
        Activation::Gelu => 1,
        Activation::Relu => 2,
        Activation::Silu => 3,
        Activation::Gelu10 => 4,
        Activation::QuickGelu => 5,
        Activation::Tanh => 6,
    }
}
