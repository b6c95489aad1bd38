//! The layers with weights: linear maps, layer norms, embeddings. How a weight is stored is hidden here.

use candle_core::{Device, Tensor};

use super::with_slice;
use crate::checkpoint::StorageType;
use crate::error::Result;
use crate::kernels::quantized::QuantizedMatrix;
use crate::kernels::{self, Epilogue, FloatType, Matrix};

/// A weight matrix (in, out), whatever it is stored as.
#[derive(Debug, Clone)]
pub(super) enum Weight {
    Float(Matrix),
    Quantized(QuantizedMatrix),
}

impl Weight {
    /// The length of an output row.
    pub fn outputs(&self) -> usize {
        match self {
            Self::Float(matrix) => matrix.outputs(),
            Self::Quantized(matrix) => matrix.outputs(),
        }
    }

    /// The type of the stored numbers.
    pub fn dtype(&self) -> StorageType {
        match self {
            Self::Float(matrix) => match matrix.dtype() {
                FloatType::F32 => StorageType::F32,
                FloatType::F16 => StorageType::F16,
                FloatType::BF16 => StorageType::BF16,
            },
            Self::Quantized(matrix) => matrix.kind().storage(),
        }
    }

    /// Bytes that the matrix takes.
    pub fn size(&self) -> usize {
        match self {
            Self::Float(matrix) => matrix.size(),
            Self::Quantized(matrix) => matrix.size(),
        }
    }

    /// `y = epilogue(x W + bias)`.
    fn matmul(&self, x: &[f32], bias: Option<&[f32]>, epilogue: Epilogue<'_>, y: &mut [f32]) {
        match self {
            Self::Float(matrix) => kernels::matmul(x, matrix, bias, epilogue, y),
            Self::Quantized(matrix) => matrix.matmul(x, bias, epilogue, y),
        }
    }
}

/// `y = x W + b`.
#[derive(Debug)]
pub(super) struct Linear {
    pub weight: Weight,
    pub bias: Option<Vec<f32>>,
}

impl Linear {
    /// (N, in) -> (N, out).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_with(x, Epilogue::None)
    }

    /// (N, in) -> (N, out), added to `residual` (N, out).
    pub fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        with_slice(residual, |residual| self.forward_with(x, Epilogue::Add(residual)))?
    }

    /// (N, in) -> (N, out), `epilogue` applied to the result.
    pub fn forward_with(&self, x: &Tensor, epilogue: Epilogue<'_>) -> Result<Tensor> {
        let (n, _) = x.dims2()?;
        let mut y = vec![0f32; n * self.weight.outputs()];
        with_slice(x, |x| self.weight.matmul(x, self.bias.as_deref(), epilogue, &mut y))?;
        Ok(Tensor::from_vec(y, (n, self.weight.outputs()), &Device::Cpu)?)
    }
}

/// Layer norm over the last axis.
#[derive(Debug)]
pub(super) struct LayerNorm {
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
    pub epsilon: f32,
}

impl LayerNorm {
    /// (N, C) -> (N, C).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut y = vec![0f32; x.elem_count()];
        with_slice(x, |x| kernels::layer_norm(x, &self.weight, &self.bias, self.epsilon, &mut y))?;
        Ok(Tensor::from_vec(y, x.shape(), &Device::Cpu)?)
    }
}

/// A table of vectors, (entries, C).
#[derive(Debug)]
pub(super) struct Embedding {
    pub weight: Weight,
}

impl Embedding {
    /// Copies entry `index` into `out` (C).
    pub fn row(&self, index: usize, out: &mut [f32]) {
        match &self.weight {
            Weight::Float(matrix) => matrix.row(index, out),
            Weight::Quantized(matrix) => matrix.row(index, out),
        }
    }
}
