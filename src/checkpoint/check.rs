//! Checks that a checkpoint has the tensors that its configuration calls for.

use super::{Checkpoint, Tensor};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::inventory::TensorId;

impl Checkpoint {
    /// Checks names and shapes without reading a number. The bias of queries, keys and values is optional. The head of
    /// a tied model is optional, and ignored.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::TensorShape`] or [`Error::UnexpectedTensor`] if checkpoint and configuration
    /// disagree.
    pub fn check(&self, config: &Config) -> Result<()> {
        let with_biases = Config { qkv_bias: true, ..config.clone() };
        for id in with_biases.tensors() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::WeightType;

    fn config() -> Config {
        let config = Config::named("gpt2").unwrap();
        Config { vocab_size: 30, n_positions: 8, n_embd: 4, n_layer: 2, n_inner: 16, n_head: 2, ..config }
    }

    /// The tensors of `config`, modified by `change`.
    fn changed(config: &Config, change: impl FnOnce(&mut Vec<Tensor>)) -> Checkpoint {
        let mut tensors = Checkpoint::random(config, WeightType::F32, 0).unwrap().tensors;
        change(&mut tensors);
        Checkpoint::new("here".into(), tensors).unwrap()
    }

    #[test]
    fn missing_misshapen_and_extra_tensors_are_named() {
        let config = config();
        changed(&config, |_| ()).check(&config).unwrap();
        fn find<'a>(tensors: &'a mut [Tensor], name: &str) -> &'a mut Tensor {
            tensors.iter_mut().find(|tensor| tensor.name == name).unwrap()
        }
        let error = |change: &dyn Fn(&mut Vec<Tensor>)| changed(&config, change).check(&config).unwrap_err();
        let name = "h.1.mlp.c_fc.weight";
        assert!(matches!(
            error(&|tensors| tensors.retain(|tensor| tensor.name != name)),
            Error::MissingTensor { name: missing, expected, .. } if missing == name && expected == [4, 16]
        ));
        assert!(matches!(
            error(&|tensors| find(tensors, name).shape.reverse()),
            Error::TensorShape { expected, found, .. } if expected == [4, 16] && found == [16, 4]
        ));
        assert!(matches!(
            error(&|tensors| find(tensors, "h.1.ln_1.bias").name = "h.2.ln_1.bias".into()),
            Error::MissingTensor { name, .. } if name == "h.1.ln_1.bias"
        ));
        let deeper = Config { n_layer: 3, ..config.clone() };
        let too_deep = changed(&deeper, |_| ());
        assert!(
            matches!(too_deep.check(&config), Err(Error::UnexpectedTensor { name, .. }) if name.starts_with("h.2."))
        );
        assert!(too_deep.check(&deeper).is_ok());
    }

    #[test]
    fn biases_of_queries_keys_and_values_and_a_tied_head_are_optional() {
        let (tied, untied) = (config(), Config { tie_word_embeddings: false, ..config() });
        let without = Config { qkv_bias: false, ..config() };
        changed(&without, |_| ()).check(&tied).unwrap();
        changed(&tied, |_| ()).check(&without).unwrap();
        changed(&untied, |_| ()).check(&tied).unwrap();
        changed(&untied, |tensors| tensors.last_mut().unwrap().shape.reverse()).check(&tied).unwrap();
        assert!(changed(&tied, |_| ()).check(&untied).is_err());
    }
}
