//! The layers with weights: linear maps, layer norms, embeddings. Where a weight lies and what computes is hidden here.

use candle_core::Tensor;

use super::device::{self, Place};
use super::host;
use crate::base::{Bytes, DType};
use crate::config::Activation;
use crate::error::Result;

/// How the numbers of a matrix lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// (in, out): the outputs of one input lie side by side.
    InOut,
    /// (out, in): the inputs of one output lie side by side.
    OutIn,
    /// Packed as the CPU's kernels want it.
    Panels,
}

/// The numbers of a matrix (in, out), in the type that they shall have in memory.
#[derive(Debug)]
pub(super) struct MatrixData {
    pub bytes: Bytes,
    pub dtype: DType,
    pub layout: Layout,
    pub inputs: usize,
    pub outputs: usize,
}

/// `y = x W + b`.
#[derive(Debug)]
pub(super) enum Linear {
    Host(host::Linear),
    Device(device::Linear),
}

impl Linear {
    pub fn new(weight: &MatrixData, bias: Option<Vec<f32>>, place: Option<&Place>) -> Result<Self> {
        Ok(match place {
            None => Self::Host(host::Linear::new(weight, bias)),
            Some(place) => Self::Device(device::Linear::new(weight, bias, place)?),
        })
    }

    /// The type of the weights, and the bytes that they take.
    pub fn stored(&self) -> (DType, usize) {
        match self {
            Self::Host(linear) => (linear.weight.dtype(), linear.weight.size()),
            Self::Device(linear) => linear.stored,
        }
    }

    /// (N, in) -> (N, out).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Host(linear) => linear.forward(x),
            Self::Device(linear) => linear.forward(x),
        }
    }

    /// (N, in) -> (N, out), added to `residual` (N, out).
    pub fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        match self {
            Self::Host(linear) => linear.forward_add(x, residual),
            Self::Device(linear) => Ok((linear.forward(x)? + residual)?),
        }
    }

    /// (N, in) -> (N, out), the activation applied to the result.
    pub fn forward_activated(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        match self {
            Self::Host(linear) => linear.forward_activated(x, activation),
            Self::Device(linear) => device::activate(activation, &linear.forward(x)?),
        }
    }
}

/// Layer norm over the last axis.
#[derive(Debug)]
pub(super) enum LayerNorm {
    Host(host::LayerNorm),
    Device(device::LayerNorm),
}

impl LayerNorm {
    pub fn new(weight: Vec<f32>, bias: Vec<f32>, epsilon: f32, place: Option<&Place>) -> Result<Self> {
        Ok(match place {
            None => Self::Host(host::LayerNorm { weight, bias, epsilon }),
            Some(place) => Self::Device(device::LayerNorm::new(weight, bias, epsilon, place)?),
        })
    }

    /// (N, C) -> (N, C).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Host(norm) => norm.forward(x),
            Self::Device(norm) => norm.forward(x),
        }
    }
}

/// A table of vectors, (entries, C).
#[derive(Debug)]
pub(super) enum Embedding {
    Host(host::Embedding),
    Device(device::Embedding),
}

impl Embedding {
    pub fn new(table: &MatrixData, place: Option<&Place>) -> Result<Self> {
        Ok(match place {
            None => Self::Host(host::Embedding::new(table)),
            Some(place) => Self::Device(device::Embedding::new(table, place)?),
        })
    }

    /// The output head that is this table, `table` being what it was made from.
    pub fn tied_head(&self, table: &MatrixData, place: Option<&Place>) -> Result<Linear> {
        match self {
            Self::Device(device::Embedding::Table(tensor)) => Ok(Linear::Device(device::Linear::tied(tensor)?)),
            _ => Linear::new(table, None, place),
        }
    }

    /// The type of the table, and the bytes that it takes.
    pub fn stored(&self) -> (DType, usize) {
        match self {
            Self::Host(embedding) => (embedding.weight.dtype(), embedding.weight.size()),
            Self::Device(embedding) => embedding.stored(),
        }
    }

    /// Entries by index: (N) -> (N, C).
    pub fn forward(&self, indices: &[u32]) -> Result<Tensor> {
        match self {
            Self::Host(embedding) => embedding.forward(indices),
            Self::Device(embedding) => embedding.forward(indices),
        }
    }
}
