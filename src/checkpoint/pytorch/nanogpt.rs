//! nanoGPT's `ckpt.pt`: the arguments of its `GPTConfig` beside the model's state dict.
//!
//! Reference: nanoGPT, `train.py` and `model.py`. Its activation is the erf form of GELU, its matrices are (out, in), and
//! with `bias=False` nothing has a bias, not even layer norms.

use super::super::Tensor;
use super::super::file::File;
use super::super::names::plain;
use super::pickle::{Object, Pickle, Value};
use crate::config::{Activation, Config};
use crate::error::Result;

/// The key of the arguments, which tells the form.
const ARGUMENTS: &str = "model_args";

/// The configuration that `model_args` gives; `None` for any other checkpoint. Tensors tell the size of a vocabulary that
/// was left at its default.
pub(super) fn config(file: &File, pickle: &Pickle<'_>, tensors: &[Tensor]) -> Result<Option<Config>> {
    let Some(arguments) = get(pickle, pickle.value, ARGUMENTS) else { return Ok(None) };
    let Some(Object::Dict(_)) = pickle.object(arguments) else { return Ok(None) };
    let number = |key: &str| match get(pickle, arguments, key) {
        None | Some(Value::None) => Ok(None),
        Some(Value::Int(number)) => Ok(Some(number)),
        Some(_) => Err(file.error(format!("`{key}` of its `{ARGUMENTS}` is not a whole number"))),
    };
    let needed = |key: &str| number(key)?.ok_or_else(|| file.error(format!("its `{ARGUMENTS}` lack `{key}`")));
    let embedding = tensors.iter().find(|tensor| plain(&tensor.name) == "wte.weight");
    let rows = embedding.and_then(|tensor| i64::try_from(*tensor.shape.first()?).ok());
    let json = serde_json::json!({
        "vocab_size": number("vocab_size")?.or(rows),
        "n_positions": needed("block_size")?,
        "n_embd": needed("n_embd")?,
        "n_layer": needed("n_layer")?,
        "n_head": needed("n_head")?,
        "activation_function": Activation::Gelu.name(),
    });
    let config = Config::from_json(json.to_string().as_bytes(), &file.path.display().to_string())?;
    Ok(Some(config.with_gpt2s_end_of_text()))
}

/// The value of a dict's entry.
fn get<'a>(pickle: &Pickle<'a>, dict: Value<'a>, key: &str) -> Option<Value<'a>> {
    let Some(Object::Dict(entries)) = pickle.object(dict) else { return None };
    entries.iter().find(|(name, _)| *name == Value::Str(key)).map(|(_, value)| *value)
}
