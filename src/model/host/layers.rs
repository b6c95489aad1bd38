//! The layers with weights, over the kernels. Matrices lie where the file is mapped, if their type there is the wanted one.

use candle_core::{Device, Tensor};

use crate::base::{FloatType, QuantizedType};
use crate::config::Activation;
use crate::error::Result;
use crate::kernels::quantized::QuantizedMatrix;
use crate::kernels::{self, Epilogue, Matrix, Weight};
use crate::model::layers::{Layout, MatrixData};
use crate::model::with_slice;

/// The weight of the kernels that `data` becomes.
fn weight(data: &MatrixData) -> Weight {
    let (bytes, inputs, outputs) = (data.bytes.clone(), data.inputs, data.outputs);
    let dtype = FloatType::of(data.dtype).unwrap_or(FloatType::F32);
    match QuantizedType::of(data.dtype) {
        Some(kind) => Weight::Quantized(QuantizedMatrix::packed(bytes, kind, inputs, outputs)),
        None => Weight::Float(Matrix::new(bytes, dtype, data.layout == Layout::Panels, inputs, outputs)),
    }
}

/// `y = x W + b`.
#[derive(Debug)]
pub struct Linear {
    pub weight: Weight,
    bias: Option<Vec<f32>>,
}

impl Linear {
    pub fn new(data: &MatrixData, bias: Option<Vec<f32>>) -> Self {
        Self { weight: weight(data), bias }
    }

    /// (N, in) -> (N, out).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_with(x, Epilogue::None)
    }

    /// (N, in) -> (N, out), added to `residual` (N, out).
    pub fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        with_slice(residual, |residual| self.forward_with(x, Epilogue::Add(residual)))?
    }

    /// (N, in) -> (N, out), the activation applied to the result.
    pub fn forward_activated(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        self.forward_with(x, Epilogue::Activate(activation))
    }

    fn forward_with(&self, x: &Tensor, epilogue: Epilogue<'_>) -> Result<Tensor> {
        let (n, _) = x.dims2()?;
        let mut y = vec![0f32; n * self.weight.outputs()];
        with_slice(x, |x| self.weight.matmul(x, self.bias.as_deref(), epilogue, &mut y))?;
        Ok(Tensor::from_vec(y, (n, self.weight.outputs()), &Device::Cpu)?)
    }
}

/// Layer norm over the last axis.
#[derive(Debug)]
pub struct LayerNorm {
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
pub struct Embedding {
    pub weight: Weight,
}

impl Embedding {
    pub fn new(table: &MatrixData) -> Self {
        Self { weight: weight(table) }
    }

    /// Entries by index: (N) -> (N, C).
    pub fn forward(&self, indices: &[u32]) -> Result<Tensor> {
        let (n, width) = (indices.len(), self.weight.inputs());
        let mut x = vec![0f32; n * width];
        for (out, index) in x.chunks_exact_mut(width).zip(indices) {
            self.weight.row(*index as usize, out);
        }
        Ok(Tensor::from_vec(x, (n, width), &Device::Cpu)?)
    }
}
