//! The layers with weights, as candle operations.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::quantized::{QMatMul, QStorage, QTensor};
use candle_core::{Device, Module, Tensor};
use candle_nn::ops;

use super::{Place, stored};
use crate::base::{self, Bytes, FloatType, QuantizedType, ggml};
use crate::config::Activation;
use crate::error::Result;
use crate::model::weights::{Layout, MatrixData};
use crate::model::{select_rows, to_host};

/// `y = x W + b`.
#[derive(Debug)]
pub struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
    /// The type of the weights and their size in bytes.
    pub stored: (base::DType, usize),
}

/// A weight matrix.
#[derive(Debug)]
enum Weight {
    /// (in, out); a view of (out, in) if the file stores that.
    Float(Tensor),
    /// Rows along the inputs.
    Quantized(QMatMul),
}

impl Linear {
    pub fn new(weight: &MatrixData, bias: Option<Vec<f32>>, place: &Place) -> Result<Self> {
        let bias = bias.map(|bias| place.vector(bias)).transpose()?;
        if let Some(kind) = QuantizedType::of(weight.dtype) {
            let stored = (weight.dtype, weight.bytes.len());
            return Ok(Self { weight: Weight::Quantized(quantized(weight, kind, &place.device)?), bias, stored });
        }
        let tensor = float(weight, place)?;
        let stored = stored(&tensor);
        let tensor = if weight.layout == Layout::OutIn { tensor.t()? } else { tensor };
        Ok(Self { weight: Weight::Float(tensor), bias, stored })
    }

    /// The output head when it is the token embedding, (V, C).
    pub fn tied(table: &Tensor) -> Result<Self> {
        Ok(Self { weight: Weight::Float(table.t()?), bias: None, stored: stored(table) })
    }

    /// (N, in) -> (N, out).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = match &self.weight {
            Weight::Float(weight) => x.matmul(weight)?,
            Weight::Quantized(weight) => weight.forward(x)?,
        };
        Ok(match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        })
    }

    /// The weights of some outputs, (N, in).
    pub fn rows(&self, outputs: &[u32]) -> Result<Tensor> {
        let matrix = match &self.weight {
            Weight::Float(weight) => weight.t()?,
            Weight::Quantized(QMatMul::QTensor(weight)) => weight.dequantize(&weight.device())?,
            Weight::Quantized(QMatMul::Tensor(weight) | QMatMul::TensorF16(weight)) => weight.clone(),
        };
        select_rows(&matrix, outputs)
    }
}

/// A matrix on the device, oriented as in the file: (in, out) or (out, in).
fn float(data: &MatrixData, place: &Place) -> Result<Tensor> {
    let dtype = FloatType::of(data.dtype).unwrap_or(FloatType::F32).candle();
    let shape = match data.layout {
        Layout::OutIn => [data.outputs, data.inputs],
        Layout::InOut | Layout::Panels => [data.inputs, data.outputs],
    };
    Ok(Tensor::from_raw_buffer(&data.bytes, dtype, &shape, &place.device)?.to_dtype(place.dtype)?)
}

fn quantized(data: &MatrixData, kind: QuantizedType, device: &Device) -> Result<QMatMul> {
    // candle reads the scales in place; in a file they may be unaligned.
    let bytes: Cow<'_, [u8]> = match data.bytes.as_ptr().cast::<u32>().is_aligned() {
        true => Cow::Borrowed(&data.bytes),
        false => Cow::Owned(data.bytes.to_vec()),
    };
    let storage = QStorage::from_data(bytes, device, ggml::candle_type(kind.dtype())?)?;
    let tensor = QTensor::new(storage, (data.outputs, data.inputs))?;
    Ok(QMatMul::from_arc(Arc::new(tensor))?)
}

/// Layer norm over the last axis.
#[derive(Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    epsilon: f32,
}

impl LayerNorm {
    pub fn new(weight: Vec<f32>, bias: Vec<f32>, epsilon: f32, place: &Place) -> Result<Self> {
        Ok(Self { weight: place.vector(weight)?, bias: place.vector(bias)?, epsilon })
    }

    /// Weight and bias, (C) each.
    pub fn weights(&self) -> Result<[Vec<f32>; 2]> {
        Ok([to_host(&self.weight)?, to_host(&self.bias)?])
    }

    /// (N, C) -> (N, C).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(ops::layer_norm(x, &self.weight, &self.bias, self.epsilon)?)
    }
}

/// A table of vectors, (entries, C).
#[derive(Debug)]
pub enum Embedding {
    /// On the device.
    Table(Tensor),
    /// Quantised: candle cannot look up rows of such tables, so the host decodes them from the rows' bytes.
    Quantized { rows: Bytes, dtype: base::DType, dims: (usize, usize), place: Place },
}

impl Embedding {
    pub fn new(table: &MatrixData, place: &Place) -> Result<Self> {
        Ok(match QuantizedType::of(table.dtype) {
            None => Self::Table(float(table, place)?),
            Some(_) => {
                let (rows, dims) = (table.bytes.clone(), (table.outputs, table.inputs));
                Self::Quantized { rows, dtype: table.dtype, dims, place: place.clone() }
            }
        })
    }

    /// The type of the table and its size in bytes.
    pub fn stored(&self) -> (base::DType, usize) {
        match self {
            Self::Table(table) => stored(table),
            Self::Quantized { rows, dtype, .. } => (*dtype, rows.len()),
        }
    }

    /// Entries by index: (N) -> (N, C).
    pub fn forward(&self, indices: &[u32]) -> Result<Tensor> {
        match self {
            Self::Table(table) => Ok(table.index_select(&Tensor::new(indices, table.device())?, 0)?),
            Self::Quantized { rows, dtype, dims: (entries, width), place } => {
                let bytes = rows.len() / entries;
                let mut x = vec![0f32; indices.len() * width];
                for (out, index) in x.chunks_exact_mut(*width).zip(indices) {
                    ggml::dequantize(*dtype, &rows[*index as usize * bytes..][..bytes], out)?;
                }
                Ok(Tensor::from_vec(x, (indices.len(), *width), &place.device)?.to_dtype(place.dtype)?)
            }
        }
    }
}

/// The activation of the MLP. candle's `gelu` is the tanh form, of which `gelu_new` and `gelu_fast` are two spellings.
pub fn activate(activation: Activation, x: &Tensor) -> Result<Tensor> {
    Ok(match activation {
        Activation::GeluNew | Activation::GeluFast => x.gelu(),
        Activation::Gelu => x.gelu_erf(),
        Activation::Gelu10 => x.gelu_erf().and_then(|y| y.clamp(-10.0, 10.0)),
        // x·sigmoid(ax) = silu(ax) / a.
        Activation::QuickGelu => x.affine(1.702, 0.0).and_then(|x| x.silu()).and_then(|y| y.affine(1.0 / 1.702, 0.0)),
        Activation::Relu => x.relu(),
        Activation::Silu => x.silu(),
        Activation::Tanh => x.tanh(),
    }?)
}
