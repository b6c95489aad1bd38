//! Attention over the pages of the cache.

use candle_core::{Device, Tensor};

use super::Cache;
use crate::error::Result;
use crate::kernels;
use crate::model::{Segment, with_slice};

impl Cache {
    /// Queries, keys and values (N, 3C) -> mixed values (N, C), and the weights (H, T, S) of each segment if `traced`.
    pub fn attend(
        &mut self,
        layer: usize,
        scale: f32,
        qkv: &Tensor,
        segments: &[Segment],
        traced: bool,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        let (n, width) = qkv.dims2()?;
        let Self { rows, batch } = self;
        let heads = rows.memory.shape().heads;
        let mut out = vec![0f32; n * width / 3];
        let mut weights = traced.then(|| vec![0f32; batch.weights(heads).last().map_or(0, |last| last.end)]);
        with_slice(qkv, |qkv| {
            kernels::append(&mut rows.memory, layer, batch, qkv);
            kernels::attend(&rows.memory, layer, batch, scale, qkv, weights.as_deref_mut(), &mut out);
        })?;
        let weights = segments.iter().zip(batch.weights(heads)).filter_map(|(s, part)| {
            let weights = weights.as_ref()?[part].to_vec();
            Some(Tensor::from_vec(weights, (heads, s.len, s.total()), &Device::Cpu))
        });
        let weights = weights.collect::<Result<_, _>>()?;
        Ok((Tensor::from_vec(out, (n, width / 3), &Device::Cpu)?, weights))
    }
}
