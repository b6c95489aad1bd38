//! What a forward pass leaves behind for those who want to look inside.

use candle_core::Tensor;

/// Activations recorded on the way; the numbers are those of the pass itself.
#[derive(Debug, Default)]
pub struct Trace {
    /// Whether attention probabilities are recorded (they take H * T * S numbers a block).
    pub wants_attention: bool,
    /// Token plus position embeddings, (N, C).
    pub embed: Option<Tensor>,
    /// The residual stream after each block, (N, C).
    pub hidden: Vec<Tensor>,
    /// Attention probabilities, (H, T, S), for each block and, within it, each row of the batch.
    pub attention: Vec<Tensor>,
}
