//! A model's configuration: `config.json`, read, checked, and turned into numbers that the rest can rely on.
//!
//! Reference: transformers 5.23.0, `models/gpt2/configuration_gpt2.py`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files::read_at_most;

/// The largest `config.json` that is read, in bytes.
pub const LARGEST_CONFIG: u64 = 1 << 20;

/// The activation of the MLP, under transformers' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `0.5x(1 + tanh(√(2/π)(x + 0.044715x³)))`, GPT-2's own.
    #[serde(alias = "gelu_pytorch_tanh")]
    GeluNew,
    /// `0.5x(1 + erf(x/√2))`.
    Gelu,
    /// `0.5x(1 + tanh(0.7978845608x(1 + 0.044715x²)))`.
    GeluFast,
    /// `max(x, 0)`.
    Relu,
    /// `x·sigmoid(x)`.
    #[serde(alias = "swish")]
    Silu,
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
    /// Whether queries, keys and values have a bias; `qkv_bias` in the file. True if absent, as in every published
    /// GPT-2.
    pub qkv_bias: bool,
    /// The MLP's activation.
    pub activation_function: Activation,
    /// Added to the variance in every layer norm.
    pub layer_norm_epsilon: f64,
    /// Whether scores are scaled by `1/√D`.
    pub scale_attn_weights: bool,
    /// Whether scores are further divided by `layer + 1`.
    pub scale_attn_by_inverse_layer_idx: bool,
    /// Whether the output head is the token embedding.
    pub tie_word_embeddings: bool,
    /// The token that starts a text; may be outside the vocabulary.
    pub bos_token_id: Option<u32>,
    /// The tokens that end a text; empty if the file says null. May be outside the vocabulary.
    pub eos_token_id: Vec<u32>,
}

/// `config.json` as written. Missing and null keys take `GPT2Config`'s defaults, except that a null special token means
/// that the model has none.
#[derive(Deserialize)]
struct Raw {
    model_type: Option<String>,
    vocab_size: Option<i64>,
    n_positions: Option<i64>,
    n_ctx: Option<i64>,
    n_embd: Option<i64>,
    n_layer: Option<i64>,
    n_head: Option<i64>,
    n_inner: Option<i64>,
    qkv_bias: Option<bool>,
    activation_function: Option<String>,
    layer_norm_epsilon: Option<f64>,
    scale_attn_weights: Option<bool>,
    scale_attn_by_inverse_layer_idx: Option<bool>,
    tie_word_embeddings: Option<bool>,
    add_cross_attention: Option<bool>,
    #[serde(default = "end_of_text")]
    bos_token_id: Option<OneOrMany>,
    #[serde(default = "end_of_text")]
    eos_token_id: Option<OneOrMany>,
}

fn end_of_text() -> Option<OneOrMany> {
    Some(OneOrMany::One(50256))
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(i64),
    Many(Vec<i64>),
}

/// The largest allowed dimension, far beyond any GPT-2.
const LARGEST_DIMENSION: i64 = 1 << 21;

/// The most blocks: the bytes of this many of the widest still fit 64 bits.
const MOST_LAYERS: i64 = 1 << 14;

impl Config {
    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Config`] if it is not JSON or does not describe a GPT-2.
    pub fn from_file(path: &Path) -> Result<Self> {
        let text = read_at_most(path, LARGEST_CONFIG)?;
        Self::from_json(&text, &path.display().to_string())
    }

    /// Parses and checks the bytes of a `config.json`; `origin` names them in errors.
    ///
    /// # Errors
    /// [`Error::Config`], naming the key and what is allowed.
    pub fn from_json(json: &[u8], origin: &str) -> Result<Self> {
        let fail = |message: String| Error::config(origin, &message);
        let raw: Raw = serde_json::from_slice(json).map_err(|e| fail(format!("not a model configuration: {e}")))?;
        if let Some(kind) = raw.model_type.as_deref().filter(|kind| *kind != "gpt2") {
            return Err(fail(format!("model_type is `{kind}`; this program runs `gpt2` models")));
        }
        if raw.add_cross_attention == Some(true) {
            return Err(fail("add_cross_attention is true; decoder-only models are supported".into()));
        }
        let limited = |key: &str, value: Option<i64>, default: i64, most: i64| match value.unwrap_or(default) {
            n if (1..=most).contains(&n) => Ok(n as usize),
            n => Err(fail(format!("{key} is {n}; it must be from 1 to {most}"))),
        };
        let dimension = |key: &str, value, default| limited(key, value, default, LARGEST_DIMENSION);
        let token = |key: &str, id: i64| {
            u32::try_from(id).map_err(|_| fail(format!("{key} is {id}; a token id is a number from 0 to {}", u32::MAX)))
        };
        let n_embd = dimension("n_embd", raw.n_embd, 768)?;
        let n_head = dimension("n_head", raw.n_head, 12)?;
        if !n_embd.is_multiple_of(n_head) {
            return Err(fail(format!("n_embd {n_embd} cannot be split over n_head {n_head} heads")));
        }
        let activation = raw.activation_function.as_deref().unwrap_or("gelu_new");
        let activation_function = serde_json::from_value(activation.into()).map_err(|_| {
            fail(format!(
                "activation_function is `{activation}`; supported are gelu_new, gelu_pytorch_tanh, gelu, gelu_fast, relu, silu, swish"
            ))
        })?;
        let layer_norm_epsilon = raw.layer_norm_epsilon.unwrap_or(1e-5);
        if !(layer_norm_epsilon.is_finite() && layer_norm_epsilon >= 0.0) {
            return Err(fail(format!("layer_norm_epsilon is {layer_norm_epsilon}; it must be a number of at least 0")));
        }
        let tokens = |key: &str, ids: Option<OneOrMany>| -> Result<Vec<u32>> {
            match ids {
                None => Ok(vec![]),
                Some(OneOrMany::One(id)) => Ok(vec![token(key, id)?]),
                Some(OneOrMany::Many(ids)) => ids.into_iter().map(|id| token(key, id)).collect(),
            }
        };
        Ok(Self {
            vocab_size: dimension("vocab_size", raw.vocab_size, 50257)?,
            n_positions: dimension("n_positions", raw.n_positions.or(raw.n_ctx), 1024)?,
            n_embd,
            n_layer: limited("n_layer", raw.n_layer, 12, MOST_LAYERS)?,
            n_head,
            n_inner: dimension("n_inner", raw.n_inner, 4 * n_embd as i64)?,
            qkv_bias: raw.qkv_bias.unwrap_or(true),
            activation_function,
            layer_norm_epsilon,
            scale_attn_weights: raw.scale_attn_weights.unwrap_or(true),
            scale_attn_by_inverse_layer_idx: raw.scale_attn_by_inverse_layer_idx.unwrap_or(false),
            tie_word_embeddings: raw.tie_word_embeddings.unwrap_or(true),
            bos_token_id: tokens("bos_token_id", raw.bos_token_id)?.first().copied(),
            eos_token_id: tokens("eos_token_id", raw.eos_token_id)?,
        })
    }

    /// A `config.json` for transformers.
    ///
    /// # Errors
    /// None for a valid configuration.
    pub fn to_json(&self) -> Result<String> {
        let error = |e: serde_json::Error| Error::Config { origin: "config.json".into(), message: e.to_string() };
        let mut json = serde_json::to_value(self).map_err(error)?;
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
            vocab_size: 50257,
            n_positions: 1024,
            n_embd,
            n_layer,
            n_head,
            n_inner: 4 * n_embd,
            qkv_bias: true,
            activation_function: Activation::GeluNew,
            layer_norm_epsilon: 1e-5,
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
            tie_word_embeddings: true,
            bos_token_id: Some(50256),
            eos_token_id: vec![50256],
        })
    }

    /// `D`, the width of one head.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.n_embd / self.n_head
    }

    /// The factor for the attention scores of block `layer`.
    #[must_use]
    pub fn attention_scale(&self, layer: usize) -> f32 {
        let scale = if self.scale_attn_weights { (self.head_dim() as f32).powf(-0.5) } else { 1.0 };
        if self.scale_attn_by_inverse_layer_idx { scale / (layer + 1) as f32 } else { scale }
    }
}
