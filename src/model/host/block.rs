//! One block: attention and MLP, each behind a layer norm and added to the residual stream.

use super::cache::{Cache, Pass};
use super::layers::{LayerNorm, Linear};
use crate::config::Activation;
use crate::kernels;

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
    /// Runs the residual stream of a pass, (N, C), through the block, which is layer `layer`.
    pub fn forward(&self, pass: &mut Pass<'_>, layer: usize) {
        let a = &mut pass.cache.activations;
        self.ln_1.forward(&a.x, &mut a.normed);
        self.attn.forward(pass, layer);
        let a = &mut pass.cache.activations;
        self.ln_2.forward(&a.x, &mut a.normed);
        self.mlp.forward(pass);
    }
}

impl Attention {
    fn forward(&self, pass: &mut Pass<'_>, layer: usize) {
        self.mix(pass, layer, None);
        let a = &mut pass.cache.activations;
        self.c_proj.forward_add(&a.mixed, &a.x, &mut a.next_x);
        a.step();
    }

    /// Mixes the values. If wanted, the probabilities go to `weights`, in the order of
    /// [`Batch::weights`](crate::kernels::Batch::weights).
    pub fn mix(&self, pass: &mut Pass<'_>, layer: usize, weights: Option<&mut [f32]>) {
        let Cache { rows, batch, activations: a, .. } = &mut *pass.cache;
        // Queries, keys and values of the new positions, side by side.
        self.c_attn.forward(&a.normed, &mut a.qkv);
        // The keys and values join those of the past.
        kernels::append(&mut rows.memory, layer, batch, &a.qkv);
        // scores = queries · keys * scale, for the positions up to each query's own; mixed = softmax(scores) · values.
        kernels::attend(&rows.memory, layer, batch, self.scale, &a.qkv, weights, &mut a.mixed);
    }
}

impl Mlp {
    fn forward(&self, pass: &mut Pass<'_>) {
        let a = &mut pass.cache.activations;
        self.c_fc.forward_activated(&a.normed, self.act, &mut a.inner);
        self.c_proj.forward_add(&a.inner, &a.x, &mut a.next_x);
        a.step();
    }
}
