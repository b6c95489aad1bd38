//! What a forward pass records for inspection.

use std::ops::Range;

use candle_core::Tensor;

/// Activations recorded along the way; the numbers are those of the pass itself.
#[derive(Debug, Default)]
pub struct Trace {
    /// Layers whose attention probabilities are recorded; none by default (they take H * T * S numbers each).
    pub attention_layers: Range<usize>,
    /// Token plus position embeddings, (N, C).
    pub embed: Option<Tensor>,
    /// The residual stream after each block, (N, C).
    pub hidden: Vec<Tensor>,
    /// Attention probabilities, (H, T, S): for each of those layers, for each row of the batch.
    pub attention: Vec<Tensor>,
}
