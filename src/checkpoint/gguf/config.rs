//! The model's configuration in the metadata of a GGUF file.

use serde_json::json;

use super::vocabulary::{BOS, EOS};
use super::{ARCHITECTURE, Gguf, Metadata, Value};
use crate::config::{Activation, Config};
use crate::error::{Error, Result};
use crate::inventory::TensorId;

/// Keys, without the leading architecture.
mod key {
    pub const CONTEXT_LENGTH: &str = "context_length";
    pub const EMBEDDING_LENGTH: &str = "embedding_length";
    pub const BLOCK_COUNT: &str = "block_count";
    pub const FEED_FORWARD_LENGTH: &str = "feed_forward_length";
    pub const HEAD_COUNT: &str = "attention.head_count";
    pub const LAYER_NORM_EPSILON: &str = "attention.layer_norm_epsilon";
}

impl Config {
    /// Reads the configuration from the metadata of a GGUF file. Settings without a GGUF key are what llama.cpp
    /// computes for `gpt2`: the activation `gelu_new`, and scores scaled by `1/√D`. The head is tied if the file has no
    /// separate one; queries, keys and values have a bias if the file has one.
    ///
    /// # Errors
    /// [`Error::Format`] or [`Error::Config`], naming the key and what is allowed.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let number = |key: &str| {
            let key = format!("{ARCHITECTURE}.{key}");
            match gguf.metadata.get(&key) {
                None => Ok(None),
                Some(value) => match value.as_u64() {
                    Some(number) => Ok(Some(number)),
                    None => Err(gguf.error(format!("`{key}` is not a non-negative integer"))),
                },
            }
        };
        let needed =
            |key: &str| number(key)?.ok_or_else(|| gguf.error(format!("its metadata lacks `{ARCHITECTURE}.{key}`")));
        let embedding = gguf.tensor(TensorId::WTE);
        let Some(&[vocab_size, _]) = embedding.map(|tensor| tensor.shape.as_slice()) else {
            return Err(gguf.error("it has no token embedding `token_embd.weight` with two dimensions"));
        };
        let mut json = json!({
            "vocab_size": vocab_size,
            "n_positions": needed(key::CONTEXT_LENGTH)?,
            "n_embd": needed(key::EMBEDDING_LENGTH)?,
            "n_layer": needed(key::BLOCK_COUNT)?,
            "n_head": needed(key::HEAD_COUNT)?,
            "n_inner": number(key::FEED_FORWARD_LENGTH)?,
            "layer_norm_epsilon": epsilon(gguf)?,
            "tie_word_embeddings": gguf.tensor(TensorId::LM_HEAD).is_none(),
            "qkv_bias": gguf.tensor(TensorId::FIRST_QKV_BIAS).is_some(),
        });
        for (name, key) in [("bos_token_id", BOS), ("eos_token_id", EOS)] {
            if let Some(id) = gguf.metadata.get(key) {
                let id = id.as_u64().ok_or_else(|| gguf.error(format!("`{key}` is not a token id")))?;
                json[name] = id.into();
            }
        }
        Self::from_json(json.to_string().as_bytes(), &gguf.path.display().to_string())
    }
}

/// The epsilon as the decimal that its f32 was rounded from: 1e-5, not 9.999999747378752e-6.
fn epsilon(gguf: &Gguf) -> Result<Option<f64>> {
    let key = format!("{ARCHITECTURE}.{}", key::LAYER_NORM_EPSILON);
    match gguf.metadata.get(&key) {
        None => Ok(None),
        Some(Value::F32(epsilon)) if epsilon.is_finite() => Ok(epsilon.to_string().parse().ok()),
        Some(_) => Err(gguf.error(format!("`{key}` is not a finite number"))),
    }
}

impl Metadata {
    /// The metadata of a model with this configuration, without its tokenizer.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the configuration has something that llama.cpp does not compute for `gpt2`.
    pub fn from_config(config: &Config) -> Result<Self> {
        let problem = if config.activation_function != Activation::GeluNew {
            format!("the activation {}, but llama.cpp computes gelu_new", config.activation_function.name())
        } else if !config.scale_attn_weights {
            "unscaled attention".to_owned()
        } else if config.scale_attn_by_inverse_layer_idx {
            "attention scaled by the inverse of the layer".to_owned()
        } else {
            return Ok(Self::of_supported(config));
        };
        Err(Error::Unsupported(format!(
            "the model has {problem}, which a GGUF of a GPT-2 cannot say; convert it to safetensors instead"
        )))
    }

    fn of_supported(config: &Config) -> Self {
        let mut metadata = Self::default();
        metadata.push("general.architecture", Value::String(ARCHITECTURE.into()));
        for (key, number) in [
            (key::CONTEXT_LENGTH, config.n_positions),
            (key::EMBEDDING_LENGTH, config.n_embd),
            (key::BLOCK_COUNT, config.n_layer),
            (key::FEED_FORWARD_LENGTH, config.n_inner),
            (key::HEAD_COUNT, config.n_head),
        ] {
            // A configuration's dimensions easily fit 32 bits.
            metadata.push(format!("{ARCHITECTURE}.{key}"), Value::U32(number as u32));
        }
        let epsilon = Value::F32(config.layer_norm_epsilon as f32);
        metadata.push(format!("{ARCHITECTURE}.{}", key::LAYER_NORM_EPSILON), epsilon);
        for (key, id) in [(BOS, config.bos_token_id), (EOS, config.eos_token_id.first().copied())] {
            if let Some(id) = id {
                metadata.push(key, Value::U32(id));
            }
        }
        metadata
    }
}
