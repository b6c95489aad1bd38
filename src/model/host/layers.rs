//! The layers with weights, over the kernels. Matrices lie where the file is mapped, if their type there is the wanted one.

use candle_core::{Device, Tensor};

use crate::base::{DType, FloatType, QuantizedType};
use crate::config::Activation;
use crate::error::Result;
use crate::kernels::quantized::QuantizedMatrix;
use crate::kernels::{self, Epilogue, Matrix};
use crate::model::layers::MatrixData;
use crate::model::with_slice;

/// A weight matrix (in, out), whatever it is stored as.
#[derive(Debug)]
pub(in crate::model) enum Weight {
    Float(Matrix),
    Quantized(QuantizedMatrix),
}

impl Weight {
    fn new(data: &MatrixData) -> Self {
        let (bytes, inputs, outputs) = (data.bytes.clone(), data.inputs, data.outputs);
        let dtype = FloatType::of(data.dtype).unwrap_or(FloatType::F32);
        match QuantizedType::of(data.dtype) {
            Some(kind) => Self::Quantized(QuantizedMatrix::packed(bytes, kind, inputs, outputs)),
            None => Self::Float(Matrix::new(bytes, dtype, data.layout, inputs, outputs)),
        }
    }

    /// The type of the stored numbers, and the bytes that they take.
    pub fn stored(&self) -> (DType, usize) {
        match self {
            Self::Float(matrix) => (matrix.dtype().dtype(), matrix.size()),
            Self::Quantized(matrix) => (matrix.kind().dtype(), matrix.size()),
        }
    }

    /// The length of an input row.
    fn inputs(&self) -> usize {
        match self {
            Self::Float(matrix) => matrix.inputs(),
            Self::Quantized(matrix) => matrix.inputs(),
        }
    }

    /// The length of an output row.
    fn outputs(&self) -> usize {
        match self {
            Self::Float(matrix) => matrix.outputs(),
            Self::Quantized(matrix) => matrix.outputs(),
        }
    }

    /// Copies the weights of output `index` into `out` (in).
    fn row(&self, index: usize, out: &mut [f32]) {
        match self {
            Self::Float(matrix) => matrix.row(index, out),
            Self::Quantized(matrix) => matrix.row(index, out),
        }
    }

    /// `epilogue(x W + bias)`.
    fn matmul(&self, x: &[f32], bias: Option<&[f32]>, epilogue: Epilogue<'_>) -> Vec<f32> {
        match self {
            Self::Float(matrix) => kernels::matmul(x, matrix, bias, epilogue),
            Self::Quantized(matrix) => matrix.matmul(x, bias, epilogue),
        }
    }
}

/// `y = x W + b`.
#[derive(Debug)]
pub struct Linear {
    pub weight: Weight,
    bias: Option<Vec<f32>>,
}

impl Linear {
    pub fn new(weight: &MatrixData, bias: Option<Vec<f32>>) -> Self {
        Self { weight: Weight::new(weight), bias }
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
        let y = with_slice(x, |x| self.weight.matmul(x, self.bias.as_deref(), epilogue))?;
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
        Self { weight: Weight::new(table) }
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
