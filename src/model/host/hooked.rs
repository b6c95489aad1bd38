//! A block that is looked into or changed on the way: the operations of [`Block::forward`] one by one, so that each
//! result can be seen. Without changes every number is the same, since what is fused there rounds in the same places.

use candle_core::{Device, Tensor};

use super::block::Block;
use super::cache::{Cache, Pass};
use crate::base::memory;
use crate::error::Result;
use crate::kernels;
use crate::model::edits::Hooks;
use crate::model::network::Segment;
use crate::model::trace::Hook;

impl Block {
    /// As [`forward`](Self::forward), with changes, and with records of what comes of them.
    ///
    /// # Errors
    /// If there is no memory for the records.
    pub fn forward_hooked(&self, pass: &mut Pass<'_>, layer: usize, heads: usize, hooks: &mut Hooks<'_>) -> Result<()> {
        let Cache { segments, activations: a, .. } = &mut *pass.cache;
        see(hooks, layer, Hook::ResidPre, segments, &mut a.x)?;
        self.ln_1.forward(&a.x, &mut a.normed);
        self.attend_hooked(pass, layer, heads, hooks)?;

        let Cache { segments, activations: a, .. } = &mut *pass.cache;
        see(hooks, layer, Hook::Z, segments, &mut a.mixed)?;
        self.attn.c_proj.forward(&a.mixed, &mut a.next_x);
        see(hooks, layer, Hook::AttnOut, segments, &mut a.next_x)?;
        kernels::add(&mut a.x, &a.next_x);
        see(hooks, layer, Hook::ResidMid, segments, &mut a.x)?;

        self.ln_2.forward(&a.x, &mut a.normed);
        self.mlp.c_fc.forward(&a.normed, &mut a.inner);
        see(hooks, layer, Hook::MlpPre, segments, &mut a.inner)?;
        kernels::activate(self.mlp.act, &mut a.inner);
        see(hooks, layer, Hook::MlpPost, segments, &mut a.inner)?;
        self.mlp.c_proj.forward(&a.inner, &mut a.next_x);
        see(hooks, layer, Hook::MlpOut, segments, &mut a.next_x)?;
        kernels::add(&mut a.x, &a.next_x);
        see(hooks, layer, Hook::ResidPost, segments, &mut a.x)
    }

    /// Mixes the values, and records queries, keys, values and probabilities.
    fn attend_hooked(&self, pass: &mut Pass<'_>, layer: usize, heads: usize, hooks: &mut Hooks<'_>) -> Result<()> {
        let wants_pattern = hooks.wants(layer, Hook::Pattern);
        let mut weights = vec![];
        let places: Vec<_> = pass.cache.batch.weights(heads).collect();
        if wants_pattern {
            memory::resize("attention's weights", &mut weights, places.last().map_or(0, |last| last.end))?;
        }
        self.attn.mix(pass, layer, wants_pattern.then_some(&mut weights));
        let Cache { segments, activations: a, .. } = &mut *pass.cache;
        if wants_pattern {
            let pattern = |(s, place): (&Segment, _)| {
                Ok(Tensor::from_slice(&weights[place], (heads, s.len, s.total()), &Device::Cpu)?)
            };
            hooks.record(layer, Hook::Pattern, segments.iter().zip(places).map(pattern).collect::<Result<_>>()?)?;
        }
        let width = a.mixed.len() / positions(segments).max(1);
        for (part, hook) in [Hook::Q, Hook::K, Hook::V].into_iter().enumerate() {
            if hooks.wants(layer, hook) {
                let mut numbers = vec![];
                memory::resize("the recorded activations", &mut numbers, a.mixed.len())?;
                for (to, from) in numbers.chunks_exact_mut(width).zip(a.qkv.chunks_exact(3 * width)) {
                    to.copy_from_slice(&from[part * width..][..width]);
                }
                hooks.record(layer, hook, vec![tensor(&numbers, segments)?])?;
            }
        }
        Ok(())
    }
}

/// Changes and records the activations `x` (N, width) at a point.
fn see(hooks: &mut Hooks<'_>, layer: usize, hook: Hook, segments: &[Segment], x: &mut [f32]) -> Result<()> {
    hooks.edits.apply(layer, hook, segments, x);
    if hooks.wants(layer, hook) {
        hooks.record(layer, hook, vec![tensor(x, segments)?])?;
    }
    Ok(())
}

/// Activations, (N, width), as a tensor.
fn tensor(x: &[f32], segments: &[Segment]) -> Result<Tensor> {
    let rows = positions(segments);
    Ok(Tensor::from_slice(x, (rows, x.len() / rows.max(1)), &Device::Cpu)?)
}

/// `N`.
fn positions(segments: &[Segment]) -> usize {
    segments.iter().map(|segment| segment.len).sum()
}
