//! Whether a checkpoint is what a configuration calls for.

use rustc_hash::FxHashMap;

use super::random::shapes;
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::error::{Error, Result};

impl Config {
    /// Checks that `checkpoint` holds the tensors that this configuration calls for, and no others; nothing is read of them.
    /// Queries, keys and values may have a bias or none, whatever `qkv_bias` says, and a tied head may be stored.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::TensorShape`] or [`Error::UnexpectedTensor`].
    pub fn check(&self, checkpoint: &Checkpoint) -> Result<()> {
        let all = Self { qkv_bias: true, tie_word_embeddings: false, ..self.clone() };
        let is_optional = |name: &str| match name {
            "lm_head.weight" => self.tie_word_embeddings,
            name => name.ends_with(".attn.c_attn.bias"),
        };
        let origin = || checkpoint.origin.clone();
        let mut expected: FxHashMap<String, Vec<usize>> = FxHashMap::default();
        for (name, shape) in shapes(&all) {
            match checkpoint.get(&name) {
                None if is_optional(&name) => {}
                None => return Err(Error::MissingTensor { origin: origin(), name, expected: shape }),
                // A tied head is not used, whatever it is.
                Some(tensor) if tensor.shape != shape && !(self.tie_word_embeddings && name == "lm_head.weight") => {
                    let found = tensor.shape.clone();
                    return Err(Error::TensorShape { origin: origin(), name, expected: shape, found });
                }
                Some(_) => {}
            }
            expected.insert(name, shape);
        }
        match checkpoint.tensors.iter().find(|tensor| !expected.contains_key(&tensor.name)) {
            None => Ok(()),
            Some(tensor) => {
                let (name, found) = (tensor.name.clone(), tensor.shape.clone());
                Err(Error::UnexpectedTensor { origin: origin(), name, found })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Tensor;
    use crate::model::WeightType;

    fn config() -> Config {
        let config = Config::named("gpt2").unwrap();
        Config { vocab_size: 30, n_positions: 8, n_embd: 4, n_layer: 2, n_inner: 16, n_head: 2, ..config }
    }

    /// The tensors of the configuration, changed.
    fn changed(config: &Config, change: impl FnOnce(&mut Vec<Tensor>)) -> Checkpoint {
        let mut tensors = Checkpoint::random(config, WeightType::F32, 0).unwrap().tensors;
        change(&mut tensors);
        Checkpoint::new("here".into(), tensors).unwrap()
    }

    #[test]
    fn what_is_missing_misshapen_or_too_much_is_named() {
        let config = config();
        config.check(&changed(&config, |_| ())).unwrap();
        fn find<'a>(tensors: &'a mut [Tensor], name: &str) -> &'a mut Tensor {
            tensors.iter_mut().find(|tensor| tensor.name == name).unwrap()
        }
        let error = |change: &dyn Fn(&mut Vec<Tensor>)| config.check(&changed(&config, change)).unwrap_err();
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
            matches!(config.check(&too_deep), Err(Error::UnexpectedTensor { name, .. }) if name.starts_with("h.2."))
        );
        assert!(deeper.check(&too_deep).is_ok());
    }

    #[test]
    fn biases_of_queries_keys_and_values_and_a_tied_head_may_be_there_or_not() {
        let (tied, untied) = (config(), Config { tie_word_embeddings: false, ..config() });
        let without = Config { qkv_bias: false, ..config() };
        tied.check(&changed(&without, |_| ())).unwrap();
        without.check(&changed(&tied, |_| ())).unwrap();
        tied.check(&changed(&untied, |_| ())).unwrap();
        tied.check(&changed(&untied, |tensors| tensors.last_mut().unwrap().shape.reverse())).unwrap();
        assert!(untied.check(&changed(&tied, |_| ())).is_err());
    }
}
