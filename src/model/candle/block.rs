//! One block: attention and MLP, each behind a layer norm and added to the residual stream.

use candle_core::{DType, Tensor};
use candle_nn::ops;

use super::layers::{LayerNorm, Linear, activate};
use super::pass::Pass;
use crate::config::Activation;
use crate::error::Result;
use crate::model::edits::Hooks;
use crate::model::to_host;
use crate::model::trace::Hook;

/// `x + attn(ln_1(x))`, then `x + mlp(ln_2(x))`. Field names are the checkpoint's.
#[derive(Debug)]
pub struct Block {
    pub ln_1: LayerNorm,
    pub attn: Attention,
    pub ln_2: LayerNorm,
    pub mlp: Mlp,
}

/// Causal multi-head attention.
#[derive(Debug)]
pub struct Attention {
    pub c_attn: Linear,
    pub c_proj: Linear,
    /// The factor for the scores.
    pub scale: f32,
}

/// `c_proj(act(c_fc(x)))`.
#[derive(Debug)]
pub struct Mlp {
    pub c_fc: Linear,
    pub c_proj: Linear,
    pub act: Activation,
}

impl Block {
    /// (N, C) -> (N, C); the keys and values of the new positions go into layer `layer` of the cache.
    pub fn forward(&self, x: &Tensor, layer: usize, pass: &mut Pass<'_>, hooks: &mut Hooks<'_>) -> Result<Tensor> {
        let x = see(hooks, layer, Hook::ResidPre, pass, x.clone())?;
        let z = self.attn.mix(&self.ln_1.forward(&x)?, layer, pass, hooks)?;
        let z = see(hooks, layer, Hook::Z, pass, z)?;
        let x = (x + see(hooks, layer, Hook::AttnOut, pass, self.attn.c_proj.forward(&z)?)?)?;
        let x = see(hooks, layer, Hook::ResidMid, pass, x)?;
        let inner = see(hooks, layer, Hook::MlpPre, pass, self.mlp.c_fc.forward(&self.ln_2.forward(&x)?)?)?;
        let inner = see(hooks, layer, Hook::MlpPost, pass, activate(self.mlp.act, &inner)?)?;
        let x = (x + see(hooks, layer, Hook::MlpOut, pass, self.mlp.c_proj.forward(&inner)?)?)?;
        see(hooks, layer, Hook::ResidPost, pass, x)
    }
}

/// Changes and records the activations `x` (N, width) at a point.
fn see(hooks: &mut Hooks<'_>, layer: usize, hook: Hook, pass: &Pass<'_>, mut x: Tensor) -> Result<Tensor> {
    if hooks.edits.at(layer, hook).next().is_some() {
        let (dtype, shape, device) = (x.dtype(), x.shape().clone(), x.device().clone());
        let mut numbers = to_host(&x)?;
        hooks.edits.apply(layer, hook, pass.segments(), &mut numbers);
        x = Tensor::from_vec(numbers, shape, &device)?.to_dtype(dtype)?;
    }
    if hooks.wants(layer, hook) {
        hooks.record(layer, hook, vec![x.clone()])?;
    }
    Ok(x)
}

impl Attention {
    /// The values mixed by each head, (N, C).
    fn mix(&self, x: &Tensor, layer: usize, pass: &mut Pass<'_>, hooks: &mut Hooks<'_>) -> Result<Tensor> {
        // Queries, keys and values of the new positions side by side, (N, 3C).
        let qkv = self.c_attn.forward(x)?;
        let width = x.dim(1)?;
        for (part, hook) in [Hook::Q, Hook::K, Hook::V].into_iter().enumerate() {
            if hooks.wants(layer, hook) {
                hooks.record(layer, hook, vec![qkv.narrow(1, part * width, width)?.contiguous()?])?;
            }
        }
        let qkv = pass.by_row(&qkv)?;
        let wants_pattern = hooks.wants(layer, Hook::Pattern);
        let (mut mixed, mut weights) = (vec![], vec![]);
        for run in pass.runs() {
            let [queries, keys, values] = pass.split(run, &qkv)?;
            let (keys, values) = pass.append(run, layer, &keys, &values)?;
            let scores = (queries * f64::from(self.scale))?.matmul(&keys.t()?)?;
            let probabilities = softmax(&run.masked(scores)?)?;
            mixed.push(pass.join(&probabilities.matmul(&values)?)?);
            if wants_pattern {
                run.split_weights(&probabilities, &mut weights)?;
            }
        }
        let mixed = if mixed.len() == 1 { mixed.remove(0) } else { Tensor::cat(&mixed, 0)? };
        let (mixed, weights) = pass.by_input(mixed, weights)?;
        if wants_pattern {
            hooks.record(layer, Hook::Pattern, weights)?;
        }
        Ok(mixed)
    }
}

/// Over the last axis, with sums in f32: candle does so on a GPU, but sums 16-bit numbers in 16 bits on the CPU.
fn softmax(x: &Tensor) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return Ok(ops::softmax_last_dim(x)?);
    }
    Ok(ops::softmax_last_dim(&x.to_dtype(DType::F32)?)?.to_dtype(x.dtype())?)
}
