//! What networks are built from: the tensors of a checkpoint, in the types that they get in memory.

use super::weights::{MatrixData, WeightType, Weights};
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
    /// Loads the matrices as `weights`; `packed` for the CPU's kernels.
    pub fn new(checkpoint: &'a Checkpoint, config: &'a Config, weights: WeightType, packed: bool) -> Result<Self> {
        Ok(Self { config, checkpoint, weights: Weights::place(checkpoint, config, weights, packed)? })
    }

    /// Weight and bias of a layer norm, (C).
    pub fn norm(&self, layer: Option<usize>, part: Part) -> Result<[Vec<f32>; 2]> {
        let vector = |kind| self.vector(TensorId { layer, part, kind });
        Ok([vector(Kind::Weight)?, vector(Kind::Bias)?])
    }

    /// The weight and, if there is one, the bias of a `Conv1D`.
    pub fn linear(&self, layer: usize, part: Part) -> Result<(MatrixData, Option<Vec<f32>>)> {
        let bias = TensorId::in_block(layer, part, Kind::Bias);
        let has_bias = !bias.is_optional() || self.checkpoint.tensor(bias).is_some();
        let bias = has_bias.then(|| self.vector(bias)).transpose()?;
        Ok((self.matrix(TensorId::in_block(layer, part, Kind::Weight))?, bias))
    }

    /// A matrix or a table.
    pub fn matrix(&self, id: TensorId) -> Result<MatrixData> {
        let tensor = self.checkpoint.expect(id, self.config)?;
        let (bytes, placement) = self.weights.get(id).cloned().ok_or_else(|| Error::MissingTensor {
            origin: self.checkpoint.origin().to_owned(),
            name: tensor.name.clone(),
            expected: tensor.shape.clone(),
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
