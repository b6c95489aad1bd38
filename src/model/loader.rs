//! What networks are built from: the tensors of a checkpoint, in the types that they get in memory.

use super::weights::{MatrixData, Target, WeightType, Weights};
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::inventory::{Kind, Part, TensorId};

/// Hands out the tensors of a checkpoint that fits its configuration.
pub(super) struct Loader<'a> {
    pub config: &'a Config,
    checkpoint: &'a Checkpoint,
    weights: Weights,
}

impl<'a> Loader<'a> {
    /// Loads the matrices as `weights` for `target`.
    pub fn new(checkpoint: &'a Checkpoint, config: &'a Config, weights: WeightType, target: Target) -> Result<Self> {
        Ok(Self { config, checkpoint, weights: Weights::place(checkpoint, config, weights, target)? })
    }

    /// Whether matrices stay in the mapped file that can still be packed.
    pub fn in_place(&self) -> bool {
        self.weights.in_place
    }

    /// Weight and bias of a layer norm, (C). Adding the zeros of a missing bias changes no number.
    pub fn norm(&self, layer: Option<usize>, part: Part) -> Result<[Vec<f32>; 2]> {
        let weight = self.vector(TensorId { layer, part, kind: Kind::Weight })?;
        let bias = TensorId { layer, part, kind: Kind::Bias };
        let bias = if self.config.has(bias) { self.vector(bias)? } else { vec![0.0; weight.len()] };
        Ok([weight, bias])
    }

    /// The weight and, if there is one, the bias of a `Conv1D`.
    pub fn linear(&self, layer: usize, part: Part) -> Result<(MatrixData, Option<Vec<f32>>)> {
        let bias = TensorId::in_block(layer, part, Kind::Bias);
        let bias = self.config.has(bias).then(|| self.vector(bias)).transpose()?;
        Ok((self.matrix(TensorId::in_block(layer, part, Kind::Weight))?, bias))
    }

    /// A matrix or a table.
    pub fn matrix(&self, id: TensorId) -> Result<MatrixData> {
        let tensor = self.checkpoint.expect(id, self.config)?;
        let (bytes, placement) = self.weights.get(id).cloned().ok_or_else(|| {
            Error::format(self.checkpoint.origin(), format!("tensor `{}` is not a matrix", tensor.name))
        })?;
        let (rows, columns) = (tensor.shape[0], tensor.shape[1]);
        let (inputs, outputs) = if id.is_conv1d() { (rows, columns) } else { (columns, rows) };
        Ok(MatrixData { bytes, dtype: placement.dtype, layout: placement.layout, inputs, outputs })
    }

    fn vector(&self, id: TensorId) -> Result<Vec<f32>> {
        let tensor = self.checkpoint.expect(id, self.config)?;
        let mut out = vec![0.0; tensor.shape[0]];
        tensor.read(self.checkpoint.origin(), 0, &mut out)?;
        Ok(out)
    }
}
