//! Attention over the blocks of the cache.

use candle_core::{Device, Tensor};

use super::Cache;
use crate::error::Result;
use crate::kernels::{self, Query};
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
        let shape = self.shape();
        let mut out = vec![0f32; n * width / 3];
        let mut weights: Vec<Option<Vec<f32>>> =
            segments.iter().map(|s| traced.then(|| vec![0f32; shape.heads * s.len * s.total()])).collect();
        with_slice(qkv, |qkv| {
            self.append(layer, segments, qkv);
            let mut queries: Vec<Query<'_>> = segments
                .iter()
                .zip(&mut weights)
                .map(|(s, weights)| Query {
                    first: s.first,
                    len: s.len,
                    past: s.past,
                    blocks: self.blocks(layer, s.row).collect(),
                    weights: weights.as_deref_mut(),
                })
                .collect();
            kernels::attend(shape, scale, qkv, width, &mut queries, &mut out);
        })?;
        let weights = segments.iter().zip(weights).filter_map(|(s, weights)| {
            let dims = (shape.heads, s.len, s.total());
            weights.map(|weights| Tensor::from_vec(weights, dims, &Device::Cpu))
        });
        let weights = weights.collect::<Result<_, _>>()?;
        Ok((Tensor::from_vec(out, (n, width / 3), &Device::Cpu)?, weights))
    }
}
