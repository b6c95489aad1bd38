//! The network's parts as candle operations, on the devices that candle has kernels for: CUDA and Metal. They run on its
//! CPU backend as well, which is how they are tested; users of the CPU are served by the kernels of `host`.
//!
//! Activations, norms, biases and the cache have one number type, and so have matrices that are not quantised.

mod attention;
mod cache;
mod layers;

use candle_core::{DType, Device, Tensor};

use super::WeightType;
use crate::base::{self, FloatType};
use crate::error::Result;
pub(super) use cache::Cache;
pub(super) use layers::{Embedding, LayerNorm, Linear, activate};

/// Where tensors lie, and the type of their numbers.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub device: Device,
    pub dtype: DType,
    /// Every token id, (V).
    ids: Tensor,
}

impl Place {
    /// On `device`, in the type that `weights` calls for, for a model with so many tokens.
    pub fn new(device: &Device, weights: WeightType, vocab_size: usize) -> Result<Self> {
        let dtype = match weights {
            WeightType::Float(float) => float.candle(),
            WeightType::Stored | WeightType::Quantized(_) => DType::F32,
        };
        Ok(Self { device: device.clone(), dtype, ids: Tensor::arange(0, vocab_size as u32, device)? })
    }

    /// Numbers from the host: (N).
    fn vector(&self, numbers: Vec<f32>) -> Result<Tensor> {
        let len = numbers.len();
        Ok(Tensor::from_vec(numbers, len, &self.device)?.to_dtype(self.dtype)?)
    }

    /// The first id with the largest of each row of logits (N, V), none for a row that is not finite.
    pub fn best_tokens(&self, logits: &Tensor) -> Result<Vec<Option<u32>>> {
        // candle's `argmax` finds any one of several on a GPU, and in 16 bits there often are several.
        let is_largest = logits.broadcast_eq(&logits.max_keepdim(1)?)?;
        let beyond = Tensor::new(u32::MAX, &self.device)?.broadcast_as(logits.shape())?;
        let ids = is_largest.where_cond(&self.ids.broadcast_as(logits.shape())?, &beyond)?.min(1)?;
        // 0, but NaN where there is an infinity or NaN.
        let sums = logits.affine(0.0, 0.0)?.sum(1)?;
        let rows = ids.to_vec1::<u32>()?.into_iter().zip(sums.to_vec1::<f32>()?);
        Ok(rows.map(|(id, sum)| (sum == 0.0).then_some(id)).collect())
    }
}

/// The bytes of a tensor, and the type of its numbers.
fn stored(tensor: &Tensor) -> (base::DType, usize) {
    let float = FloatType::ALL.into_iter().find(|float| float.candle() == tensor.dtype()).unwrap_or(FloatType::F32);
    (float.dtype(), tensor.elem_count() * float.size())
}
