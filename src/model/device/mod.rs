//! The network's parts as candle operations, on the devices that candle has kernels for: CUDA and Metal. They run on its
//! CPU backend as well, which is how they are tested; users of the CPU are served by the kernels of `host`.
//!
//! Activations, norms, biases and the cache have one number type, and so have matrices that are not quantised.

mod attention;
mod cache;
mod layers;

use candle_core::{DType, Device, Tensor};

use super::WeightType;
use crate::checkpoint::StorageType;
use crate::error::Result;
pub(super) use cache::Cache;
pub(super) use layers::{Embedding, LayerNorm, Linear, activate};

/// Where tensors lie, and the type of their numbers.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub device: Device,
    pub dtype: DType,
}

impl Place {
    /// On `device`, in the type that `weights` calls for.
    pub fn new(device: &Device, weights: WeightType) -> Self {
        let dtype = match weights {
            WeightType::F16 => DType::F16,
            WeightType::BF16 => DType::BF16,
            WeightType::Stored | WeightType::F32 | WeightType::Quantized(_) => DType::F32,
        };
        Self { device: device.clone(), dtype }
    }

    /// Numbers from the host: (N).
    fn vector(&self, numbers: Vec<f32>) -> Result<Tensor> {
        let len = numbers.len();
        Ok(Tensor::from_vec(numbers, len, &self.device)?.to_dtype(self.dtype)?)
    }
}

/// The bytes of a tensor, and their type by the name that files have for it.
fn stored(tensor: &Tensor) -> (StorageType, usize) {
    let dtype = match tensor.dtype() {
        DType::F16 => StorageType::F16,
        DType::BF16 => StorageType::BF16,
        _ => StorageType::F32,
    };
    (dtype, tensor.elem_count() * dtype.block_bytes())
}
