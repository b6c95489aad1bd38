//! Checks that a checkpoint has the tensors that its configuration calls for.

use super::{Checkpoint, Tensor, TensorSpec};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::inventory::TensorId;

impl Checkpoint {
    /// Checks names and shapes without reading a number. The configuration must [follow](Self::settle) the tensors.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::TensorShape`] or [`Error::UnexpectedTensor`] if checkpoint and configuration
    /// disagree.
    pub fn check(&self, config: &Config) -> Result<()> {
        for id in config.tensors() {
            self.expect(id, config)?;
        }
        let misfit = self.misfit.clone().or_else(|| {
            let (_, tensor) = self.tensors().find(|(id, _)| !config.has(*id))?;
            Some(tensor.spec())
        });
        match misfit {
            None => Ok(()),
            Some(TensorSpec { name, shape, .. }) => {
                Err(Error::UnexpectedTensor { origin: self.origin.clone(), name, found: shape })
            }
        }
    }

    /// The tensor `id`, with the shape that `config` calls for.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] or [`Error::TensorShape`].
    pub(crate) fn expect(&self, id: TensorId, config: &Config) -> Result<&Tensor> {
        let (origin, expected) = (self.origin.clone(), id.shape(config));
        match self.tensor(id) {
            None => {
                Err(Error::MissingTensor { origin, name: self.name_of(id), expected, holds: self.holds(id, config) })
            }
            Some(tensor) if tensor.shape != expected => {
                Err(Error::TensorShape { origin, name: tensor.name.clone(), expected, found: tensor.shape.clone() })
            }
            Some(tensor) => Ok(tensor),
        }
    }

    /// What the file holds instead of the tensor `id`, or why it should hold it.
    fn holds(&self, id: TensorId, config: &Config) -> String {
        if id == TensorId::LM_HEAD && !config.tie_word_embeddings && self.tensor(TensorId::WTE).is_some() {
            return "the configuration has `tie_word_embeddings: false`, so the head must have its own".to_owned();
        }
        let found = self.misfit.as_ref().map(|tensor| &tensor.name).or(self.unused.first());
        match (found.or_else(|| self.listing.first().map(|tensor| &tensor.name)), self.listing.len()) {
            (None, _) => "the file holds no tensors".to_owned(),
            (Some(name), 1) => format!("the file ({}) holds only `{name}`", self.format),
            (Some(name), count) => format!("the file ({}) holds {count} tensors, `{name}` among them", self.format),
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

    type Tensors = Vec<(TensorId, Tensor)>;

    /// The tensors of `config`, modified by `change`.
    fn changed(config: &Config, change: impl FnOnce(&mut Tensors)) -> Checkpoint {
        let mut tensors = Checkpoint::random(config, WeightType::F32, 0).unwrap().tensors;
        change(&mut tensors);
        Checkpoint::new("here".into(), tensors).unwrap()
    }

    #[test]
    fn missing_misshapen_and_extra_tensors_are_named() {
        let config = config();
        changed(&config, |_| ()).check(&config).unwrap();
        let place = |tensors: &[(TensorId, Tensor)], name: &str| {
            let id = TensorId::named(name).unwrap();
            tensors.iter().position(|(known, _)| *known == id).unwrap()
        };
        let error = |change: &dyn Fn(&mut Tensors)| changed(&config, change).check(&config).unwrap_err();
        let name = "h.1.mlp.c_fc.weight";
        assert!(matches!(
            error(&|tensors| drop(tensors.remove(place(tensors, name)))),
            Error::MissingTensor { name: missing, expected, .. } if missing == name && expected == [4, 16]
        ));
        assert!(matches!(
            error(&|tensors| { let at = place(tensors, name); tensors[at].1.shape.reverse() }),
            Error::TensorShape { expected, found, .. } if expected == [4, 16] && found == [16, 4]
        ));
        assert!(matches!(
            error(&|tensors| { let at = place(tensors, "h.1.ln_1.bias"); tensors[at].0.layer = Some(2) }),
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
    fn biases_are_all_there_or_those_of_a_kind_are_all_missing() {
        let all = config();
        for (bias, qkv_bias) in [(true, true), (true, false), (false, false)] {
            let with = Config { bias, qkv_bias, ..config() };
            let mut checkpoint = changed(&with, |_| ());
            let mut settled = all.clone();
            assert!(checkpoint.settle(&mut settled).is_empty());
            assert_eq!(settled, with);
            checkpoint.check(&settled).unwrap();
        }
        for name in ["h.0.attn.c_attn.bias", "h.1.attn.c_attn.bias", "ln_f.bias"] {
            let id = TensorId::named(name).unwrap();
            let mut checkpoint = changed(&all, |tensors| tensors.retain(|(known, _)| *known != id));
            let mut settled = all.clone();
            checkpoint.settle(&mut settled);
            assert!(checkpoint.check(&settled).is_err(), "{name}");
        }
    }

    #[test]
    fn what_is_there_instead_is_named() {
        let mut checkpoint = changed(&config(), |tensors| tensors.clear());
        let error = checkpoint.check(&config()).unwrap_err().to_string();
        assert!(error.ends_with("the file holds no tensors"), "{error}");
        checkpoint.unused.push("gpt_neox.embed_in.weight".into());
        let error = checkpoint.check(&config()).unwrap_err().to_string();
        assert!(error.contains("`wte.weight` is missing") && error.contains("`gpt_neox.embed_in.weight`"), "{error}");
    }
}
