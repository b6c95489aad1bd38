//! A model's configuration: `config.json`, read, checked, and turned into numbers that the rest can rely on.
//!
//! Reference: transformers 5.23.0, `models/gpt2/configuration_gpt2.py`.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Number, Value};

use crate::error::{Error, Result};
use crate::files::read_at_most;
use crate::json::shown;

/// The size of GPT-2's vocabulary.
pub const GPT2_VOCABULARY: usize = 50257;

/// GPT-2's token `<|endoftext|>`, which starts and ends texts.
pub const GPT2_END_OF_TEXT: u32 = 50256;

/// The largest `config.json` that is read, in bytes.
pub const LARGEST_CONFIG: u64 = 1 << 20;

/// The activation of the MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `0.5x(1 + tanh(√(2/π)(x + 0.044715x³)))`, GPT-2's own.
    GeluNew,
    /// `0.5x(1 + erf(x/√2))`.
    Gelu,
    /// [`Gelu`](Self::Gelu), clipped to [-10, 10].
    Gelu10,
    /// `0.5x(1 + tanh(0.7978845608x(1 + 0.044715x²)))`.
    GeluFast,
    /// `x·sigmoid(1.702x)`.
    QuickGelu,
    /// `max(x, 0)`.
    Relu,
    /// `x·sigmoid(x)`.
    Silu,
    /// `tanh(x)`.
    Tanh,
}

impl Activation {
    /// transformers' names (`activations.py`); the first one of each activation is its usual name.
    const NAMES: [(&str, Self); 13] = [
        ("gelu_new", Self::GeluNew),
        ("gelu_pytorch_tanh", Self::GeluNew),
        ("gelu_python_tanh", Self::GeluNew),
        ("gelu_accurate", Self::GeluNew),
        ("gelu", Self::Gelu),
        ("gelu_python", Self::Gelu),
        ("gelu_10", Self::Gelu10),
        ("gelu_fast", Self::GeluFast),
        ("quick_gelu", Self::QuickGelu),
        ("relu", Self::Relu),
        ("silu", Self::Silu),
        ("swish", Self::Silu),
        ("tanh", Self::Tanh),
    ];

    /// transformers' name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, activation)| *activation == self).map_or("", |(name, _)| name)
    }

    fn named(name: &str) -> Option<(&'static str, Self)> {
        Self::NAMES.into_iter().find(|(known, _)| *known == name)
    }
}

impl Serialize for Activation {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A validated GPT-2 configuration: every number is in range and consistent with the others.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Config {
    /// `V`, the number of tokens in the vocabulary.
    pub vocab_size: usize,
    /// The context: the most positions the model can see.
    pub n_positions: usize,
    /// `C`, the width of the residual stream.
    pub n_embd: usize,
    /// The number of blocks.
    pub n_layer: usize,
    /// `H`, attention heads per block; divides `n_embd`.
    pub n_head: usize,
    /// The width inside the MLP (`n_inner`, or `4 * n_embd` if the file says null).
    pub n_inner: usize,
    /// Whether projections and norms have biases, as in every published GPT-2; nanoGPT's `bias`.
    pub bias: bool,
    /// Whether queries, keys and values have a bias too; LLMs-from-scratch's `qkv_bias`.
    pub qkv_bias: bool,
    /// The MLP's activation.
    pub activation_function: Activation,
    /// Added to the variance in every layer norm.
    pub layer_norm_epsilon: f64,
    /// Whether scores are scaled by `1/√D`.
    pub scale_attn_weights: bool,
    /// Whether scores are further divided by `layer + 1`.
    pub scale_attn_by_inverse_layer_idx: bool,
    /// Whether the output head is the token embedding. For a checkpoint, [its tensors
    /// decide](crate::checkpoint::Checkpoint::settle).
    pub tie_word_embeddings: bool,
    /// The token that starts a text; may be outside the vocabulary.
    pub bos_token_id: Option<u32>,
    /// The tokens that end a text; empty if the file says null. May be outside the vocabulary.
    pub eos_token_id: Vec<u32>,
    /// What matters only to PyTorch.
    #[serde(flatten)]
    pub pytorch: PyTorch,
}

/// What a configuration says that changes nothing when the model runs: it shows in PyTorch's modules, and in training.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PyTorch {
    /// The dropout after the embeddings, as the file writes it.
    pub embd_pdrop: Number,
    /// The dropout of attention's probabilities.
    pub attn_pdrop: Number,
    /// The dropout after each half of a block.
    pub resid_pdrop: Number,
    /// The activation under the name that the file gives it, which tells transformers' module.
    #[serde(skip)]
    pub activation: &'static str,
}

impl PyTorch {
    /// `GPT2Config`'s dropout.
    const DROPOUT: f64 = 0.1;

    /// Reads the keys. A dropout that is no number says nothing: it would not be used.
    fn from_keys(keys: &Keys<'_>, activation: &'static str) -> Self {
        let dropout = |key: &str| match keys.get(key) {
            Some(Value::Number(number)) => number.clone(),
            _ => Number::from_f64(Self::DROPOUT).unwrap_or(0.into()),
        };
        Self {
            embd_pdrop: dropout("embd_pdrop"),
            attn_pdrop: dropout("attn_pdrop"),
            resid_pdrop: dropout("resid_pdrop"),
            activation,
        }
    }
}

/// The largest allowed dimension, far beyond any GPT-2.
const LARGEST_DIMENSION: u64 = 1 << 21;

/// The most blocks: the bytes of this many of the widest still fit 64 bits.
const MOST_LAYERS: u64 = 1 << 14;

impl Config {
    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Config`] if it is not JSON or does not describe a GPT-2.
    pub fn from_file(path: &Path) -> Result<Self> {
        let text = read_at_most(path, LARGEST_CONFIG)?;
        Self::from_json(&text, &path.display().to_string())
    }

    /// Parses and checks the bytes of a `config.json`; `origin` names them in errors. Missing and null keys take
    /// `GPT2Config`'s defaults, except that a null special token means that the model has none. Its aliases
    /// (`attribute_map`) are read too.
    ///
    /// # Errors
    /// [`Error::Architecture`] if it is of another kind of model; otherwise [`Error::Config`], naming the key and what is
    /// allowed.
    pub fn from_json(json: &[u8], origin: &str) -> Result<Self> {
        let fail = |message: String| Error::config(origin, &message);
        let json = crate::json::parse(json).map_err(fail)?;
        let keys = json.as_object().ok_or_else(|| fail("not a model configuration, which is a JSON object".into()))?;
        let keys = Keys(keys);
        let key = "model_type";
        if let Some(found) = keys.text(key).map_err(fail)?.filter(|kind| *kind != "gpt2") {
            return Err(Error::Architecture { origin: origin.to_owned(), key, found: found.to_owned() });
        }
        Self::from_keys(&keys).map_err(fail)
    }

    fn from_keys(keys: &Keys<'_>) -> Result<Self, String> {
        if keys.flag("add_cross_attention", false)? {
            return Err("add_cross_attention is true; decoder-only models are supported".into());
        }
        if let Some(quantization) = keys.get("quantization_config") {
            let method = quantization.get("quant_method").unwrap_or(quantization);
            return Err(format!(
                "quantization_config says that the weights are quantised ({}), which cannot be read; use the original model, or a GGUF file of it",
                shown(method)
            ));
        }
        let n_embd = keys.dimension(["n_embd", "hidden_size"], 768, LARGEST_DIMENSION)?;
        let n_head = keys.dimension(["n_head", "num_attention_heads"], 12, LARGEST_DIMENSION)?;
        if !n_embd.is_multiple_of(n_head) {
            return Err(format!("n_embd {n_embd} cannot be split over n_head {n_head} heads"));
        }
        let activation = keys.text("activation_function")?.unwrap_or("gelu_new");
        let (activation, activation_function) = Activation::named(activation).ok_or_else(|| {
            let supported = Activation::NAMES.map(|(name, _)| name).join(", ");
            format!("activation_function is {activation:?}; supported are {supported}")
        })?;
        let n_ctx = keys.dimension(["n_ctx", "n_ctx"], 1024, LARGEST_DIMENSION)?;
        Ok(Self {
            vocab_size: keys.dimension(["vocab_size", "vocab_size"], GPT2_VOCABULARY as u64, LARGEST_DIMENSION)?,
            n_positions: keys.dimension(["n_positions", "max_position_embeddings"], n_ctx as u64, LARGEST_DIMENSION)?,
            n_embd,
            n_layer: keys.dimension(["n_layer", "num_hidden_layers"], 12, MOST_LAYERS)?,
            n_head,
            n_inner: keys.dimension(["n_inner", "n_inner"], 4 * n_embd as u64, LARGEST_DIMENSION)?,
            bias: keys.flag("bias", true)?,
            qkv_bias: keys.flag("qkv_bias", true)?,
            activation_function,
            layer_norm_epsilon: keys.epsilon("layer_norm_epsilon")?,
            scale_attn_weights: keys.flag("scale_attn_weights", true)?,
            scale_attn_by_inverse_layer_idx: keys.flag("scale_attn_by_inverse_layer_idx", false)?,
            tie_word_embeddings: keys.flag("tie_word_embeddings", true)?,
            bos_token_id: keys.tokens("bos_token_id")?.first().copied(),
            eos_token_id: keys.tokens("eos_token_id")?,
            pytorch: PyTorch::from_keys(keys, activation),
        })
    }

    /// A `config.json` for transformers, beside weights with all biases.
    ///
    /// # Errors
    /// None for a valid configuration.
    pub fn to_json(&self) -> Result<String> {
        let error = |e: serde_json::Error| Error::Config { origin: "config.json".into(), message: e.to_string() };
        let mut json = serde_json::to_value(self).map_err(error)?;
        if let Some(keys) = json.as_object_mut() {
            keys.retain(|key, _| !matches!(key.as_str(), "bias" | "qkv_bias"));
        }
        json["model_type"] = "gpt2".into();
        json["architectures"] = ["GPT2LMHeadModel"].as_slice().into();
        json["eos_token_id"] = match self.eos_token_id.as_slice() {
            [] => serde_json::Value::Null,
            [id] => (*id).into(),
            ids => ids.into(),
        };
        Ok(format!("{json:#}\n"))
    }

    /// The published sizes: `gpt2`, `gpt2-medium`, `gpt2-large`, `gpt2-xl`, `distilgpt2`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let (n_embd, n_layer, n_head) = match name {
            "distilgpt2" => (768, 6, 12),
            "gpt2" => (768, 12, 12),
            "gpt2-medium" => (1024, 24, 16),
            "gpt2-large" => (1280, 36, 20),
            "gpt2-xl" => (1600, 48, 25),
            _ => return None,
        };
        Some(Self {
            vocab_size: GPT2_VOCABULARY,
            n_positions: 1024,
            n_embd,
            n_layer,
            n_head,
            n_inner: 4 * n_embd,
            bias: true,
            qkv_bias: true,
            activation_function: Activation::GeluNew,
            layer_norm_epsilon: 1e-5,
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
            tie_word_embeddings: true,
            bos_token_id: Some(GPT2_END_OF_TEXT),
            eos_token_id: vec![GPT2_END_OF_TEXT],
            pytorch: PyTorch::from_keys(&Keys(&Map::new()), Activation::GeluNew.name()),
        })
    }

    /// The same with `<|endoftext|>` at the start and the end of texts if the vocabulary reaches that far: for forms of
    /// checkpoints that do not say, but were made for GPT-2's tokenizer.
    #[must_use]
    pub(crate) fn with_gpt2s_end_of_text(self) -> Self {
        let id = (self.vocab_size > GPT2_END_OF_TEXT as usize).then_some(GPT2_END_OF_TEXT);
        Self { bos_token_id: id, eos_token_id: id.into_iter().collect(), ..self }
    }

    /// `D`, the width of one head.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.n_embd / self.n_head
    }

    /// The factor for the attention scores of block `layer`.
    #[must_use]
    pub fn attention_scale(&self, layer: usize) -> f32 {
        let scale = if self.scale_attn_weights { (1.0 / (self.head_dim() as f64).sqrt()) as f32 } else { 1.0 };
        if self.scale_attn_by_inverse_layer_idx { scale / (layer + 1) as f32 } else { scale }
    }
}

/// The keys of a `config.json`, read one by one so that each fault names its key.
struct Keys<'a>(&'a Map<String, Value>);

impl<'a> Keys<'a> {
    /// The value of a key that is there and not null.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn wrong<T>(key: &str, value: &Value, expected: impl std::fmt::Display) -> Result<T, String> {
        Err(format!("{key} is {}; expected {expected}", shown(value)))
    }

    /// A number from 1 to `most` under a key or its alias, which must agree if both are there.
    fn dimension(&self, [key, alias]: [&str; 2], default: u64, most: u64) -> Result<usize, String> {
        let read = |key: &str| match self.get(key) {
            None => Ok(None),
            Some(value) => match value.as_u64() {
                Some(n) if (1..=most).contains(&n) => Ok(Some(n as usize)),
                _ => Self::wrong(key, value, format_args!("a whole number from 1 to {most}")),
            },
        };
        match (read(key)?, read(alias)?) {
            (Some(n), Some(other)) if n != other => {
                Err(format!("{key} is {n}, but {alias}, its other name, is {other}"))
            }
            (n, other) => Ok(n.or(other).unwrap_or(default as usize)),
        }
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, String> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(value) => Self::wrong(key, value, "true or false"),
        }
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>, String> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(value) => Self::wrong(key, value, "a text"),
        }
    }

    fn epsilon(&self, key: &str) -> Result<f64, String> {
        let Some(value) = self.get(key) else { return Ok(1e-5) };
        match value.as_f64().filter(|epsilon| epsilon.is_finite() && *epsilon >= 0.0) {
            Some(epsilon) => Ok(epsilon),
            None => Self::wrong(key, value, "a number of at least 0"),
        }
    }

    /// A token id or a list of them; `<|endoftext|>` if the key is missing. A negative id matches no token, so it is
    /// left out.
    fn tokens(&self, key: &str) -> Result<Vec<u32>, String> {
        let Some(value) = self.0.get(key) else { return Ok(vec![GPT2_END_OF_TEXT]) };
        let ids = match value {
            Value::Null => &[][..],
            Value::Array(ids) => ids,
            id => std::slice::from_ref(id),
        };
        let id = |id: &Value| match (id.as_i64(), id.as_u64().map(u32::try_from)) {
            (Some(..0), _) => Ok(None),
            (_, Some(Ok(id))) => Ok(Some(id)),
            _ => Self::wrong(key, value, "a token id or a list of them"),
        };
        ids.iter().filter_map(|value| id(value).transpose()).collect()
    }
}
