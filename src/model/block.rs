//! One block: attention and MLP, each behind a layer norm and added to the residual stream.

use candle_core::{Device, Tensor};

use super::linear::{LayerNorm, Linear};
use super::{KvCache, Segment, Trace, with_slice};
use crate::config::Activation;
use crate::error::Result;
use crate::kernels::{self, Epilogue, Query};

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
        let mut trace = trace;
        let qkv = self.attn.c_attn.forward(&self.ln_1.forward(x)?)?;
        let attended = self.attn.attend(&qkv, layer, segments, cache, trace.as_deref_mut())?;
        let x = self.attn.c_proj.forward_add(&attended, x)?;
        let inner = self.mlp.c_fc.forward_with(&self.ln_2.forward(&x)?, Epilogue::Activate(self.mlp.act))?;
        let x = self.mlp.c_proj.forward_add(&inner, &x)?;
        if let Some(trace) = trace {
            trace.hidden.push(x.clone());
        }
        Ok(x)
    }
}

impl Attention {
    /// Queries, keys and values (N, 3C) -> mixed values (N, C).
    fn attend(
        &self,
        qkv: &Tensor,
        layer: usize,
        segments: &[Segment],
        cache: &mut KvCache,
        trace: Option<&mut Trace>,
    ) -> Result<Tensor> {
        let (n, width) = qkv.dims2()?;
        let shape = cache.shape();
        let mut out = vec![0f32; n * width / 3];
        let wanted = trace.as_ref().is_some_and(|trace| trace.attention_layers.contains(&layer));
        let mut weights: Vec<Option<Vec<f32>>> =
            segments.iter().map(|s| wanted.then(|| vec![0f32; shape.heads * s.len * s.total()])).collect();
        with_slice(qkv, |qkv| {
            cache.append(layer, segments, qkv);
            let mut queries: Vec<Query<'_>> = segments
                .iter()
                .zip(&mut weights)
                .map(|(s, weights)| Query {
                    first: s.first,
                    len: s.len,
                    past: s.past,
                    blocks: cache.blocks(layer, s.row).collect(),
                    weights: weights.as_deref_mut(),
                })
                .collect();
            kernels::attend(shape, self.scale, qkv, width, &mut queries, &mut out);
        })?;
        if let Some(trace) = trace {
            for (s, weights) in segments.iter().zip(weights) {
                if let Some(weights) = weights {
                    let dims = (shape.heads, s.len, s.total());
                    trace.attention.push(Tensor::from_vec(weights, dims, &Device::Cpu)?);
                }
            }
        }
        Ok(Tensor::from_vec(out, (n, width / 3), &Device::Cpu)?)
    }
}
