//! The arguments of the kernels, as declared in `kernels`. Addresses are in GPU memory, 0 for null.

use super::shape::NetworkShape;

/// Marks a type that a kernel takes as its only argument.
///
/// # Safety
/// The type must have the layout of the kernel's argument.
pub unsafe trait Arguments: Copy {}

/// `Norm`: layer norm over `width` numbers.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct NormArgs {
    pub weight: u64,
    pub bias: u64,
    pub epsilon: f32,
    pub width: i32,
}

/// `NormArgs`: rows of f32 -> normed rows. Without a weight, rows are copied unchanged.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct NormaliseArgs {
    pub x: u64,
    pub rows: u64,
    pub y: u64,
    pub exact: u64,
    pub norm: NormArgs,
    pub x_stride: i32,
    pub y_stride: i32,
    pub exact_stride: i32,
    pub count: i32,
}

/// Where a layer's keys and values are in a page of the cache; the same fields as in `MatmulArgs` and `AttentionArgs`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct CachedArgs {
    pub keys_at: i32,
    pub values_at: i32,
    pub heads: i32,
    pub head_dim: i32,
    pub key_dim: i32,
    pub value_dim: i32,
}

/// `MatmulArgs`: y = x W^T + b, and where it goes.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct MatmulArgs {
    pub weight: u64,
    pub bias: u64,
    pub x: u64,
    pub y: u64,
    pub pages: u64,
    pub positions: u64,
    pub picked: u64,
    pub best: u64,
    pub norm: NormArgs,
    pub norm_stride: i32,
    pub row_bytes: i32,
    pub rows: i32,
    pub outputs: i32,
    pub y_stride: i32,
    pub into: i32,
    pub activation: i32,
    pub cached: CachedArgs,
    pub best_from: i32,
}

/// `Into`: where a product's outputs go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Into {
    Qkv = 0,
    Residual = 1,
    Activated = 2,
    Logits = 3,
}

/// `Queries`: new positions of one row that are processed together.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Queries {
    pub first: i32,
    pub count: i32,
    pub position: i32,
    pub table: i32,
    pub weights_at: i32,
    pub weights_stride: i32,
    pub weights_head: i32,
    pub past: i32,
}

/// `AttentionArgs`: queries against the cache.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct AttentionArgs {
    pub q: u64,
    pub pages: u64,
    pub queries: u64,
    pub y: u64,
    pub partial: u64,
    pub totals: u64,
    pub done: u64,
    pub weights: u64,
    pub scale: f32,
    pub q_stride: i32,
    pub y_stride: i32,
    pub most_pages: i32,
    pub cached: CachedArgs,
}

/// `EmbedArgs`: ids and positions -> their vectors.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct EmbedArgs {
    pub wte: u64,
    pub wpe: u64,
    pub ids: u64,
    pub positions: u64,
    pub x: u64,
    pub best: u64,
    pub stride: i32,
    pub width: i32,
    pub best_count: i32,
    pub unused: i32,
}

/// `BestArgs`: logits -> ids.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct BestArgs {
    pub logits: u64,
    pub best: u64,
    pub vocabulary: i32,
    pub unused: i32,
}

/// `TopArgs`: logits -> sums and the best tokens.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct TopArgs {
    pub logits: u64,
    pub top: u64,
    pub vocabulary: i32,
    pub count: i32,
}

/// `PlaceArgs`: a matrix as stored in a file -> padded, outputs first.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct PlaceArgs {
    pub from: u64,
    pub to: u64,
    pub outputs: i32,
    pub inputs: i32,
    pub stride: i32,
    pub stored: i32,
    pub transposed: i32,
    pub unused: i32,
}

impl CachedArgs {
    /// For one layer.
    pub fn new(shape: &NetworkShape, layer: usize) -> Self {
        let (keys_at, values_at) = shape.layer_at(layer);
        let [keys_at, values_at, heads, head_dim, key_dim, value_dim] =
            [keys_at, values_at, shape.heads, shape.head_dim, shape.key_dim, shape.value_dim].map(|n| n as i32);
        Self { keys_at, values_at, heads, head_dim, key_dim, value_dim }
    }
}

// SAFETY: each has the fields of its namesake in `kernels`, in order, and both sides use C's layout.
unsafe impl Arguments for NormaliseArgs {}
// SAFETY: the same.
unsafe impl Arguments for MatmulArgs {}
// SAFETY: the same.
unsafe impl Arguments for AttentionArgs {}
// SAFETY: the same.
unsafe impl Arguments for EmbedArgs {}
// SAFETY: the same.
unsafe impl Arguments for BestArgs {}
// SAFETY: the same.
unsafe impl Arguments for TopArgs {}
// SAFETY: the same.
unsafe impl Arguments for PlaceArgs {}
