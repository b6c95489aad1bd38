//! Whether the tensors of a checkpoint are those that a configuration calls for.

use super::{Checkpoint, Tensor};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::inventory::TensorId;

impl Checkpoint {
    /// Checks names and shapes, without reading a number. A bias on queries, keys and values may be there or not; the head
    /// of a tied model may be there and is not looked at.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::TensorShape`] or [`Error::UnexpectedTensor`] where checkpoint and configuration
    /// disagree.
    pub fn check(&self, config: &Config) -> Result<()> {
        for id in config.tensors() {
            if !id.is_optional() || self.tensor(id).is_some() {
                self.expect(id, config)?;
            }
        }
        let has_place = |tensor: &&Tensor| match TensorId::named(&tensor.name) {
            Some(TensorId { layer: Some(layer), .. }) => layer < config.n_layer,
            Some(_) => true,
            None => false,
        };
        match self.tensors.iter().find(|tensor| !has_place(tensor)) {
            None => Ok(()),
            Some(tensor) => Err(Error::UnexpectedTensor {
                origin: self.origin.clone(),
                name: tensor.name.clone(),
                found: tensor.shape.clone(),
            }),
        }
    }

    /// The tensor `id`, with the shape that `config` calls for.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] or [`Error::TensorShape`].
    pub(crate) fn expect(&self, id: TensorId, config: &Config) -> Result<&Tensor> {
        let (origin, name, expected) = (self.origin.clone(), id.to_string(), id.shape(config));
        match self.get(&name) {
            None => Err(Error::MissingTensor { origin, name, expected }),
            Some(tensor) if tensor.shape != expected => {
                Err(Error::TensorShape { origin, name, expected, found: tensor.shape.clone() })
            }
            Some(tensor) => Ok(tensor),
        }
    }
}
