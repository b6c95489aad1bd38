//! One block: attention and MLP, each behind a layer norm and added to the residual stream.

use candle_core::{DType, Tensor};
use candle_nn::ops;

use super::layers::{LayerNorm, Linear, activate};
use super::pass::Pass;
use crate::config::Activation;
use crate::error::Result;
use crate::model::Trace;

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
    pub fn forward(&self, x: &Tensor, layer: usize, pass: &mut Pass<'_>, trace: Option<&mut Trace>) -> Result<Tensor> {
        let traced = trace.as_ref().is_some_and(|trace| trace.attention_layers.contains(&layer));
        let (attended, weights) = self.attn.forward(&self.ln_1.forward(x)?, layer, pass, traced)?;
        let x = (x + attended)?;
        let x = (&x + self.mlp.forward(&self.ln_2.forward(&x)?)?)?;
        if let Some(trace) = trace {
            trace.attention.extend(weights);
            trace.hidden.push(x.clone());
        }
        Ok(x)
    }
}

impl Attention {
    /// (N, C) -> (N, C), and if `traced` the probabilities (H, T, S) of each segment.
    fn forward(&self, x: &Tensor, layer: usize, pass: &mut Pass<'_>, traced: bool) -> Result<(Tensor, Vec<Tensor>)> {
        // Queries, keys and values of the new positions side by side, (N, 3C).
        let qkv = pass.by_row(&self.c_attn.forward(x)?)?;
        let (mut mixed, mut weights) = (vec![], vec![]);
        for run in pass.runs() {
            let [queries, keys, values] = pass.split(run, &qkv)?;
            let (keys, values) = pass.append(run, layer, &keys, &values)?;
            let scores = (queries * f64::from(self.scale))?.matmul(&keys.t()?)?;
            let probabilities = softmax(&run.masked(scores)?)?;
            mixed.push(pass.join(&probabilities.matmul(&values)?)?);
            if traced {
                run.split_weights(&probabilities, &mut weights)?;
            }
        }
        let mixed = if mixed.len() == 1 { mixed.remove(0) } else { Tensor::cat(&mixed, 0)? };
        let (mixed, weights) = pass.by_input(mixed, weights)?;
        Ok((self.c_proj.forward(&mixed)?, weights))
    }
}

impl Mlp {
    /// (N, C) -> (N, C).
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.c_proj.forward(&activate(self.act, &self.c_fc.forward(x)?)?)
    }
}

/// Over the last axis, with sums in f32: candle does so on a GPU, but sums 16-bit numbers in 16 bits on the CPU.
fn softmax(x: &Tensor) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return Ok(ops::softmax_last_dim(x)?);
    }
    Ok(ops::softmax_last_dim(&x.to_dtype(DType::F32)?)?.to_dtype(x.dtype())?)
}
