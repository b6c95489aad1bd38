//! The layers with weights, over the kernels.

use super::block::{Attention, Block, Mlp};
use crate::base::{FloatType, QuantizedType};
use crate::config::Activation;
use crate::error::Result;
use crate::inventory::{Part, TensorId};
use crate::kernels::quantized::QuantizedMatrix;
use crate::kernels::{self, Epilogue, Matrix, Weight};
use crate::model::loader::Loader;
use crate::model::weights::MatrixData;

/// Embeddings, blocks and head. Field names are the checkpoint's.
#[derive(Debug)]
pub struct Layers {
    pub wte: Weight,
    pub wpe: Weight,
    pub h: Vec<Block>,
    pub ln_f: LayerNorm,
    pub lm_head: Weight,
}

impl Layers {
    /// The layers of a checkpoint whose matrices `loader` has placed for the kernels.
    pub fn load(loader: &Loader<'_>) -> Result<Self> {
        let config = loader.config;
        let linear = |layer, part| {
            let (data, bias) = loader.linear(layer, part)?;
            Ok::<_, crate::Error>(Linear { weight: weight(&data), bias })
        };
        let norm = |layer, part| {
            let [weight, bias] = loader.norm(layer, part)?;
            Ok::<_, crate::Error>(LayerNorm { weight, bias, epsilon: config.layer_norm_epsilon as f32 })
        };
        let block = |i| {
            Ok(Block {
                ln_1: norm(Some(i), Part::Ln1)?,
                attn: Attention {
                    c_attn: linear(i, Part::CAttn)?,
                    c_proj: linear(i, Part::AttnCProj)?,
                    scale: config.attention_scale(i),
                },
                ln_2: norm(Some(i), Part::Ln2)?,
                mlp: Mlp {
                    c_fc: linear(i, Part::CFc)?,
                    c_proj: linear(i, Part::MlpCProj)?,
                    act: config.activation_function,
                },
            })
        };
        let wte = weight(&loader.matrix(TensorId::WTE)?);
        let wpe = weight(&loader.matrix(TensorId::WPE)?);
        let h = (0..config.n_layer).map(block).collect::<Result<_>>()?;
        let ln_f = norm(None, Part::LnF)?;
        let lm_head = match config.tie_word_embeddings {
            true => wte.clone(),
            false => weight(&loader.matrix(TensorId::LM_HEAD)?),
        };
        Ok(Self { wte, wpe, h, ln_f, lm_head })
    }
}

/// The kernels' weight for `data`.
fn weight(data: &MatrixData) -> Weight {
    let (bytes, inputs, outputs) = (data.bytes.clone(), data.inputs, data.outputs);
    let dtype = FloatType::of(data.dtype).unwrap_or(FloatType::F32);
    match QuantizedType::of(data.dtype) {
        Some(kind) => Weight::Quantized(QuantizedMatrix::packed(bytes, kind, inputs, outputs)),
        None => Weight::Float(Matrix::new(bytes, dtype, data.layout, inputs, outputs)),
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
