//! The layers with weights, over the kernels.

use crate::base::{FloatType, QuantizedType};
use crate::config::Activation;
use crate::kernels::quantized::QuantizedMatrix;
use crate::kernels::{self, Epilogue, Matrix, Weight};
use crate::model::weights::{Layout, MatrixData};

/// The kernels' weight for `data`.
pub fn weight(data: &MatrixData) -> Weight {
    let (bytes, inputs, outputs) = (data.bytes.clone(), data.inputs, data.outputs);
    let dtype = FloatType::of(data.dtype).unwrap_or(FloatType::F32);
    match QuantizedType::of(data.dtype) {
        Some(kind) => Weight::Quantized(QuantizedMatrix::packed(bytes, kind, inputs, outputs)),
        None => Weight::Float(Matrix::new(bytes, dtype, data.layout == Layout::Panels, inputs, outputs)),
    }
}

/// `y = x W + b`, (N, in) -> (N, out).
#[derive(Debug)]
pub struct Linear {
    pub weight: Weight,
    pub bias: Option<Vec<f32>>,
}

impl Linear {
    pub fn forward(&self, x: &[f32], y: &mut [f32]) {
        self.weight.matmul(x, self.bias.as_deref(), Epilogue::None, y);
    }

    /// The same, added to `residual` (N, out).
    pub fn forward_add(&self, x: &[f32], residual: &[f32], y: &mut [f32]) {
        self.weight.matmul(x, self.bias.as_deref(), Epilogue::Add(residual), y);
    }

    /// The same, with the activation applied to the result.
    pub fn forward_activated(&self, x: &[f32], activation: Activation, y: &mut [f32]) {
        self.weight.matmul(x, self.bias.as_deref(), Epilogue::Activate(activation), y);
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
    pub fn forward(&self, x: &[f32], y: &mut [f32]) {
        kernels::layer_norm(x, &self.weight, &self.bias, self.epsilon, y);
    }
}
