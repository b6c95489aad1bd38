//! Flags for the model and tokenizer: which, where from, on which device.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use gpt2::base::{FloatType, QuantizedType};
use gpt2::device::DeviceChoice;
use gpt2::model::WeightType;

use super::number;

/// The heading of the flags that choose a model.
pub(super) const HEADING: &str = "Model";
/// The model if nothing names one.
pub const DEFAULT_MODEL: &str = "gpt2";
/// The heading of those that choose a tokenizer.
pub(super) const TOKENIZER_HEADING: &str = "Tokenizer";

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = HEADING)]
pub struct ModelArgs {
    /// demo, gpt2, gpt2-xl, owner/name, a folder or a file
    ///
    /// `demo` is built in. A name (gpt2, gpt2-medium, gpt2-large, gpt2-xl, distilgpt2) or owner/name is a model on the
    /// Hugging Face hub. A folder or a file may have weights of any form. [env: GPT2_MODEL] [default: gpt2]
    #[arg(short, long, value_name = "M")]
    pub model: Option<String>,
    /// Branch, tag or commit on the hub
    #[arg(long, value_name = "R")]
    pub revision: Option<String>,
    /// config.json of weights that do not say how their model is built
    #[arg(long, value_name = "F.json")]
    pub config: Option<PathBuf>,
    /// Attention heads, for weights that do not say
    #[arg(long, value_name = "H", value_parser = number::whole::<usize>(1..))]
    pub n_head: Option<usize>,
    /// LoRA adapter (PEFT's) to merge into the weights: a folder or owner/name on the hub; repeatable
    #[arg(long, value_name = "DIR")]
    pub adapter: Vec<String>,
    /// `gpt2` (GPT-2's), tokenizer.json, or a folder with tokenizer files, to use instead of the model's own
    #[arg(long, value_name = "PATH")]
    pub tokenizer: Option<PathBuf>,
    /// Use only the cache and open no connection [env: HF_HUB_OFFLINE=1]
    #[arg(long)]
    pub offline: bool,
    /// auto, cpu, cuda, cuda:N or metal
    ///
    /// The device to compute on; `auto` is the best one that is compiled in and present. [env: GPT2_DEVICE] [default: auto]
    #[arg(long)]
    pub device: Option<DeviceChoice>,
    /// Type of the weights in memory [env: GPT2_DTYPE] [default: f32; as stored if the file is quantised]
    #[arg(long, value_name = "TYPE", value_parser = one_of(FLOAT_TYPES))]
    pub dtype: Option<FloatType>,
    /// Smaller and faster weights: q8_0, q6_k or q4_k
    ///
    /// Quantises the weights in memory, which makes results slightly less accurate. [env: GPT2_DTYPE]
    #[arg(long, value_name = "FORMAT", conflicts_with = "dtype", value_parser = one_of(QUANTIZED_TYPES))]
    pub quantize: Option<QuantizedType>,
    /// Threads to compute with, no more than there are cores [env: GPT2_THREADS] [default: all cores]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub threads: Option<u16>,
}

/// The tokenizer to use; GPT-2's if nothing names one.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = TOKENIZER_HEADING)]
pub struct TokenizerArgs {
    /// Whose tokenizer [default: GPT-2's, built in]
    ///
    /// A name or owner/name on the Hugging Face hub, a folder, or a file with weights. [env: GPT2_MODEL]
    #[arg(short, long, value_name = "M")]
    pub model: Option<String>,
    /// Branch, tag or commit on the hub
    #[arg(long, value_name = "R", requires = "model")]
    pub revision: Option<String>,
    /// `gpt2` (GPT-2's), tokenizer.json, or a folder with tokenizer files, to use instead of a model's
    #[arg(long, value_name = "PATH")]
    pub tokenizer: Option<PathBuf>,
    /// Use only the cache and open no connection [env: HF_HUB_OFFLINE=1]
    #[arg(long)]
    pub offline: bool,
}

/// The number types of `--dtype`, each with its help.
const FLOAT_TYPES: [(&str, &str, FloatType); 3] = [
    ("f32", "32-bit; 16-bit checkpoints are widened exactly when they are used", FloatType::F32),
    ("f16", "16-bit IEEE", FloatType::F16),
    ("bf16", "16-bit brain float", FloatType::BF16),
];

/// The formats of `--quantize`, each with its help.
const QUANTIZED_TYPES: [(&str, &str, QuantizedType); 3] = [
    ("q8_0", "8.5 bits a weight", QuantizedType::Q8_0),
    ("q6_k", "6.6 bits a weight", QuantizedType::Q6K),
    ("q4_k", "4.5 bits a weight", QuantizedType::Q4K),
];

/// Parses a type of `--dtype` or `--quantize`.
pub(super) fn weights(text: &str) -> Result<WeightType, String> {
    let floats = FLOAT_TYPES.map(|(name, _, float)| (name, WeightType::Float(float)));
    let formats = QUANTIZED_TYPES.map(|(name, _, format)| (name, WeightType::Quantized(format)));
    let found = floats.into_iter().chain(formats).find(|(name, _)| *name == text);
    found.map(|(_, weights)| weights).ok_or_else(|| {
        let names = [floats.map(|(name, _)| name), formats.map(|(name, _)| name)].concat();
        format!("takes {} or {}, not {text}", names[..names.len() - 1].join(", "), names[names.len() - 1])
    })
}

/// Parses the number of threads.
pub(super) fn threads(text: &str) -> Result<u16, String> {
    number::whole(1..=1024)(text)
}

/// Parses one of the named values, each with its help.
pub(super) fn one_of<T, const N: usize>(
    values: [(&'static str, &'static str, T); N],
) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    let names = values.map(|(name, help, _)| PossibleValue::new(name).help(help));
    PossibleValuesParser::new(names).map(move |given| {
        let value = values.iter().find(|(name, _, _)| *name == given);
        value.expect("clap only accepts listed names").2
    })
}

impl ModelArgs {
    /// The model, GPT-2 if nothing names another.
    pub fn model(&self) -> &str {
        self.model.as_deref().unwrap_or(DEFAULT_MODEL)
    }

    /// The same with another model, of which nothing else is known.
    pub fn with_model(&self, model: &str) -> Self {
        let model = Some(model.to_owned());
        Self { model, revision: None, config: None, n_head: None, adapter: vec![], tokenizer: None, ..self.clone() }
    }

    /// The device to compute on.
    pub fn device(&self) -> DeviceChoice {
        self.device.unwrap_or_default()
    }

    /// The type of the weights in memory.
    pub fn weights(&self) -> WeightType {
        match (self.dtype, self.quantize) {
            (_, Some(format)) => WeightType::Quantized(format),
            (Some(float), None) => WeightType::Float(float),
            (None, None) => WeightType::Stored,
        }
    }

    /// The same with weights of another type in memory.
    pub fn with_weights(self, weights: WeightType) -> Self {
        let (dtype, quantize) = match weights {
            WeightType::Stored => (None, None),
            WeightType::Float(float) => (Some(float), None),
            WeightType::Quantized(format) => (None, Some(format)),
        };
        Self { dtype, quantize, ..self }
    }
}
