//! The places in the network whose activations a pass can record, and the record.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use candle_core::Tensor;

use crate::error::Result;

/// A place in a block. Names and shapes are those of TransformerLens 4.3, with `N` new positions of all rows in place of
/// its batch and positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// The residual stream before the block, (N, C).
    ResidPre,
    /// Queries, (N, H, D).
    Q,
    /// Keys, (N, H, D).
    K,
    /// Values, (N, H, D).
    V,
    /// Attention's probabilities, (H, T, S) for each row of the batch.
    Pattern,
    /// The values mixed by each head, (N, H, D).
    Z,
    /// What attention adds to the residual stream, (N, C).
    AttnOut,
    /// The residual stream between attention and MLP, (N, C).
    ResidMid,
    /// The MLP before its activation function, (N, inner).
    MlpPre,
    /// The MLP after it, (N, inner).
    MlpPost,
    /// What the MLP adds to the residual stream, (N, C).
    MlpOut,
    /// The residual stream after the block, (N, C).
    ResidPost,
}

impl Hook {
    /// All, in the order of the network.
    pub const ALL: [Self; 12] = [
        Self::ResidPre,
        Self::Q,
        Self::K,
        Self::V,
        Self::Pattern,
        Self::Z,
        Self::AttnOut,
        Self::ResidMid,
        Self::MlpPre,
        Self::MlpPost,
        Self::MlpOut,
        Self::ResidPost,
    ];

    /// Its name within a block, as in TransformerLens: `attn.hook_q`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ResidPre => "hook_resid_pre",
            Self::Q => "attn.hook_q",
            Self::K => "attn.hook_k",
            Self::V => "attn.hook_v",
            Self::Pattern => "attn.hook_pattern",
            Self::Z => "attn.hook_z",
            Self::AttnOut => "hook_attn_out",
            Self::ResidMid => "hook_resid_mid",
            Self::MlpPre => "mlp.hook_pre",
            Self::MlpPost => "mlp.hook_post",
            Self::MlpOut => "hook_mlp_out",
            Self::ResidPost => "hook_resid_post",
        }
    }
}

/// A place in the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HookPoint {
    /// The layer, from 0.
    pub layer: usize,
    /// The place in its block.
    pub hook: Hook,
}

impl fmt::Display for HookPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blocks.{}.{}", self.layer, self.hook.name())
    }
}

/// What a pass shows its activations to as it computes them; the numbers are those of the pass itself.
pub trait Recorder: fmt::Debug {
    /// Whether the point is to be recorded.
    fn wants(&self, point: HookPoint) -> bool;

    /// Takes what was computed at a point that it wants: one tensor, or for [`Hook::Pattern`] one for each row of the
    /// batch. The points of a layer come in any order.
    ///
    /// # Errors
    /// Whatever the pass is to end with.
    fn record(&mut self, point: HookPoint, tensors: Vec<Tensor>) -> Result<()>;
}

/// Activations that are kept until the pass is over.
#[derive(Debug, Default)]
pub struct Trace {
    wanted: BTreeSet<HookPoint>,
    found: BTreeMap<HookPoint, Vec<Tensor>>,
}

impl Trace {
    /// A record of these points.
    #[must_use]
    pub fn of(points: impl IntoIterator<Item = HookPoint>) -> Self {
        Self { wanted: points.into_iter().collect(), found: BTreeMap::new() }
    }

    /// Takes out what was recorded at a point; nothing if it was not wanted.
    pub fn take(&mut self, layer: usize, hook: Hook) -> Vec<Tensor> {
        self.found.remove(&HookPoint { layer, hook }).unwrap_or_default()
    }
}

impl Recorder for Trace {
    fn wants(&self, point: HookPoint) -> bool {
        self.wanted.contains(&point)
    }

    fn record(&mut self, point: HookPoint, tensors: Vec<Tensor>) -> Result<()> {
        self.found.insert(point, tensors);
        Ok(())
    }
}
