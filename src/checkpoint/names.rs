//! Which of GPT-2's tensors the tensors of a file are.
//!
//! Hugging Face's names are nanoGPT's too. Around them, programs put prefixes: `transformer.` in a model with a head,
//! `_orig_mod.` after `torch.compile`, `module.` after `DataParallel`, `base_model.model.` after PEFT, `model.` in many
//! training scripts.

use super::{Checkpoint, Format, Tensor, llms_from_scratch};
use crate::error::{Error, Result};
use crate::inventory::{Part, TensorId, is_causal_mask};

/// What programs put before the names of a model's tensors, in any order.
const PREFIXES: [&str; 5] = ["_orig_mod.", "module.", "model.", "transformer.", "base_model."];

/// Puts the tensors of a state dict in their places in `checkpoint`.
pub(super) fn identify(checkpoint: &mut Checkpoint, tensors: Vec<Tensor>) -> Result<()> {
    if let Some(tensor) = tensors.iter().find(|tensor| tensor.name.contains(".lora_")) {
        let (origin, name) = (&checkpoint.origin, &tensor.name);
        let of_base = |name: &str| TensorId::named(&plain(name).replace(".base_layer.", "."));
        let has_base = tensors.iter().any(|tensor| of_base(&tensor.name) == Some(TensorId::FIRST_MATRIX));
        return Err(Error::Usage(if has_base {
            format!(
                "{origin} holds a model with a LoRA adapter (`{name}`) that is not merged into it: merge it with PEFT's \
                 `merge_and_unload` and save the model, or save the adapter with `save_pretrained` and give its base \
                 model as `model` and its folder as `adapter`"
            )
        } else {
            format!(
                "{origin} holds a LoRA adapter (`{name}`), not a model: give its base model as `model` and its folder \
                 as `adapter`"
            )
        }));
    }
    let known = |tensor: &Tensor| plain(&tensor.name).to_owned();
    if tensors.iter().any(|tensor| known(tensor) == llms_from_scratch::TOKEN_EMBEDDING) {
        checkpoint.format = Format::LlmsFromScratch;
        return llms_from_scratch::identify(checkpoint, tensors);
    }
    if checkpoint.format == Format::TensorFlow {
        return identify_openai(checkpoint, tensors);
    }
    let matrices_are_transposed = tensors.iter().any(|tensor| {
        TensorId::named(plain(&tensor.name)) == Some(TensorId::FIRST_MATRIX)
            && matches!(tensor.shape[..], [rows, columns] if rows == 3 * columns)
    });
    for mut tensor in tensors {
        let name = plain(&tensor.name);
        match TensorId::named(name) {
            Some(id) => {
                if matrices_are_transposed && id.is_conv1d() && tensor.shape.len() == 2 {
                    tensor.shape.reverse();
                    tensor.transposed = true;
                }
                checkpoint.insert(id, tensor)?;
            }
            None if is_causal_mask(name) => {}
            None if Part::is_in_name(name) => checkpoint.misfit = Some(tensor.spec()),
            None => checkpoint.unused.push(tensor.name),
        }
    }
    Ok(())
}

/// Puts OpenAI's variables in their places. Their `Conv1D` convolves over one position, which is an axis of its own.
fn identify_openai(checkpoint: &mut Checkpoint, tensors: Vec<Tensor>) -> Result<()> {
    for mut tensor in tensors {
        match of_openai(&tensor.name) {
            Some(id) => {
                if id.is_conv1d() && tensor.shape.len() == 3 && tensor.shape[0] == 1 {
                    tensor.shape.remove(0);
                }
                checkpoint.insert(id, tensor)?;
            }
            // The moments of a fine-tuned model's optimizer have the variable's name with theirs behind it.
            None if OPENAI_KINDS.iter().any(|kind| tensor.name.ends_with(kind)) => {
                checkpoint.misfit = Some(tensor.spec())
            }
            None => checkpoint.unused.push(tensor.name),
        }
    }
    Ok(())
}

/// How OpenAI's names of a weight or bias end.
const OPENAI_KINDS: [&str; 3] = ["/w", "/b", "/g"];

/// The tensor that OpenAI's code calls `name`: `model/h0/attn/c_attn/w`.
pub(super) fn of_openai(name: &str) -> Option<TensorId> {
    let name = name.strip_prefix("model/")?;
    if let "wte" | "wpe" = name {
        return TensorId::named(&format!("{name}.weight"));
    }
    let (path, kind) = name.rsplit_once('/')?;
    let kind = match kind {
        "w" | "g" => "weight",
        "b" => "bias",
        _ => return None,
    };
    let path = path.replace('/', ".");
    let id = match path.strip_prefix('h').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit())) {
        Some(rest) => TensorId::named(&format!("h.{rest}.{kind}")),
        None => TensorId::named(&format!("{path}.{kind}")),
    };
    // OpenAI calls a norm's factors `g`, all others `w`.
    id.filter(|id| id.is_norm_weight() == name.ends_with("/g"))
}

/// A tensor's name without what programs put before it.
pub(super) fn plain(name: &str) -> &str {
    let mut name = name;
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)) {
        name = rest;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::DType;

    /// A checkpoint of tensors with these names and shapes.
    fn of(tensors: &[(&str, &[usize])]) -> Result<Checkpoint> {
        let mut checkpoint = Checkpoint::empty("here".into(), Format::PyTorch);
        let tensor = |(name, shape): &(&str, &[usize])| {
            let bytes = vec![0; 4 * shape.iter().product::<usize>()].into();
            Tensor {
                name: (*name).into(),
                dtype: DType::F32,
                shape: shape.to_vec(),
                transposed: false,
                packed: false,
                bytes,
            }
        };
        identify(&mut checkpoint, tensors.iter().map(tensor).collect())?;
        Ok(checkpoint)
    }

    #[test]
    fn prefixes_come_off_in_any_order() {
        for name in [
            "wte.weight",
            "transformer.wte.weight",
            "_orig_mod.transformer.wte.weight",
            "module._orig_mod.transformer.wte.weight",
            "module.model.transformer.wte.weight",
            "_orig_mod.base_model.model.transformer.wte.weight",
        ] {
            assert!(of(&[(name, &[2, 2])]).unwrap().tensor(TensorId::WTE).is_some(), "{name}");
        }
        let error = of(&[("wte.weight", &[2, 2]), ("model.wte.weight", &[2, 2])]).unwrap_err().to_string();
        assert!(error.contains("`wte.weight` and `model.wte.weight` are the same tensor"), "{error}");
    }

    #[test]
    fn the_first_projection_tells_how_matrices_are_stored() {
        let (attention, mlp) = ("h.0.attn.c_attn.weight", "h.0.mlp.c_fc.weight");
        for (shapes, transposed) in [([[2, 6], [2, 8]], false), ([[6, 2], [8, 2]], true)] {
            let checkpoint = of(&[(attention, &shapes[0]), (mlp, &shapes[1]), ("wte.weight", &[9, 2])]).unwrap();
            let tensor = |name| checkpoint.tensor(TensorId::named(name).unwrap()).unwrap();
            for (name, shape) in [(attention, [2, 6]), (mlp, [2, 8])] {
                assert_eq!((&tensor(name).shape[..], tensor(name).transposed), (&shape[..], transposed));
            }
            assert_eq!((&tensor("wte.weight").shape[..], tensor("wte.weight").transposed), (&[9, 2][..], false));
            let listed: Vec<_> = checkpoint.tensors().map(|(_, tensor)| tensor.spec().shape).collect();
            assert_eq!(listed[..2], shapes);
        }
    }

    #[test]
    fn what_gpt2_does_not_have_is_ignored_unless_it_looks_like_a_layer() {
        let harmless = ["v_head.summary.weight", "score.weight", "transformer.position_ids", "h.0.attn.masked_bias"];
        for name in harmless {
            let checkpoint = of(&[(name, &[1])]).unwrap();
            assert!(checkpoint.misfit.is_none() && checkpoint.tensors.is_empty(), "{name}");
        }
        for name in ["h.0.crossattention.c_attn.weight", "transformer.h.3.ln_3.weight", "lm_head.bias", "x.0.ln_1.bias"]
        {
            assert!(of(&[(name, &[1])]).unwrap().misfit.is_some(), "{name}");
        }
    }

    #[test]
    fn openais_names_are_understood() {
        for (name, expected) in [
            ("model/wte", "wte.weight"),
            ("model/h0/ln_1/g", "h.0.ln_1.weight"),
            ("model/h11/ln_1/b", "h.11.ln_1.bias"),
            ("model/h3/attn/c_attn/w", "h.3.attn.c_attn.weight"),
            ("model/h3/mlp/c_proj/b", "h.3.mlp.c_proj.bias"),
            ("model/ln_f/g", "ln_f.weight"),
        ] {
            assert_eq!(of_openai(name).map(|id| id.to_string()).as_deref(), Some(expected), "{name}");
        }
        for name in ["wte", "model/wte/Adam", "model/h0/ln_1/w", "model/h0/attn/c_attn/g", "model/hx/ln_1/g", "model/"]
        {
            assert_eq!(of_openai(name), None, "{name}");
        }
    }

    #[test]
    fn an_adapter_is_told_from_a_model() {
        let says = |names: &[&str], expected: &str| {
            let tensors: Vec<(&str, &[usize])> = names.iter().map(|name| (*name, &[4, 8][..])).collect();
            let Err(Error::Usage(message)) = of(&tensors) else { panic!("{names:?} are not refused") };
            assert!(message.contains(expected), "{message}");
        };
        let layer = "base_model.model.transformer.h.0.attn.c_attn.";
        let (matrix, of_base) = (format!("{layer}lora_A.weight"), format!("{layer}base_layer.weight"));
        says(&[&matrix], "a LoRA adapter (`base_model.model.transformer.h.0.attn.c_attn.lora_A.weight`), not a model");
        // With new embeddings, and with biases, an adapter has tensors of the base too.
        let embedding = "base_model.model.transformer.wte.";
        let (rows, whole) = (format!("{embedding}lora_embedding_A"), format!("{embedding}base_layer.weight"));
        says(&[&rows, &whole, &format!("{layer}base_layer.bias")], "not a model");

        says(&[&of_base, &format!("{layer}lora_A.default.weight")], "that is not merged into it: merge it with PEFT's");
        says(&[&format!("{layer}weight"), &format!("{embedding}lora_embedding_A.default")], "is not merged into it");
    }
}
