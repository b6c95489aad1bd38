//! One block: attention and MLP, each behind a layer norm and added to the residual stream.

use candle_core::Tensor;

use super::layers::{LayerNorm, Linear};
use super::{KvCache, Segment, Trace};
use crate::config::Activation;
use crate::error::Result;

/// `x + attn(ln_1(x))`, then `x + mlp(ln_2(x))`.
#[derive(Debug)]
pub(super) struct Block {
    pub ln_1: LayerNorm,
    pub attn: Attention,
    pub ln_2: LayerNorm,
    pub mlp: Mlp,
}

/// Causal multi-head attention; `c_attn` gives queries, keys and values side by side.
#[derive(Debug)]
pub(super) struct Attention {
    pub c_attn: Linear,
    pub c_proj: Linear,
    pub scale: f32,
}

/// `c_proj(act(c_fc(x)))`.
#[derive(Debug)]
pub(super) struct Mlp {
    pub c_fc: Linear,
    pub c_proj: Linear,
    pub act: Activation,
}

impl Block {
    /// (N, C) -> (N, C); the new positions' keys and values go into layer `layer` of the cache.
    pub fn forward(
        &self,
        x: &Tensor,
        layer: usize,
        segments: &[Segment],
        cache: &mut KvCache,
        trace: Option<&mut Trace>,
    ) -> Result<Tensor> {
        let qkv = self.attn.c_attn.forward(&self.ln_1.forward(x)?)?;
        let traced = trace.as_ref().is_some_and(|trace| trace.attention_layers.contains(&layer));
        let (attended, weights) = cache.attend(layer, self.attn.scale, &qkv, segments, traced)?;
        let x = self.attn.c_proj.forward_add(&attended, x)?;
        let inner = self.mlp.c_fc.forward_activated(&self.ln_2.forward(&x)?, self.mlp.act)?;
        let x = self.mlp.c_proj.forward_add(&inner, &x)?;
        if let Some(trace) = trace {
            trace.attention.extend(weights);
            trace.hidden.push(x.clone());
        }
        Ok(x)
    }
}
