//! Flags for the model and tokenizer: which, where from, on which device.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use gpt2::base::{FloatType, QuantizedType};
use gpt2::model::WeightType;

/// The heading of the flags that choose a model.
pub(super) const HEADING: &str = "Model";
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
    #[arg(long, value_name = "H", value_parser = super::number::whole::<usize>(1..))]
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
    /// The device to compute on; `auto` is the best one that is compiled in and present.
    #[arg(long, default_value = "auto")]
    pub device: gpt2::device::DeviceChoice,
    /// Type of the weights in memory [default: f32; as stored if the file is quantised]
    #[arg(long, value_name = "TYPE", value_parser = float_type())]
    pub dtype: Option<FloatType>,
    /// Smaller and faster weights: q8_0, q6_k or q4_k
    ///
    /// Quantises the weights in memory, which makes results slightly less accurate.
    #[arg(long, value_name = "FORMAT", conflicts_with = "dtype", value_parser = quantized_type())]
    pub quantize: Option<QuantizedType>,
    /// Threads to compute with, no more than there are cores [default: all cores]
    #[arg(long, value_name = "N", value_parser = super::number::whole::<u16>(1..=1024))]
    pub threads: Option<u16>,
}

/// The tokenizer to use; GPT-2's if neither a flag nor the environment names one.
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

/// The number types of `--dtype`.
fn float_type() -> impl TypedValueParser<Value = FloatType> {
    let help = |float| match float {
        FloatType::F32 => "32-bit; 16-bit checkpoints are widened exactly when they are used",
        FloatType::F16 => "16-bit IEEE",
        FloatType::BF16 => "16-bit brain float",
    };
    one_of(FloatType::ALL.map(|float| (float.name(), help(float), float)))
}

/// The formats of `--quantize`.
fn quantized_type() -> impl TypedValueParser<Value = QuantizedType> {
    one_of([
        ("q8_0", "8.5 bits a weight", QuantizedType::Q8_0),
        ("q6_k", "6.6 bits a weight", QuantizedType::Q6K),
        ("q4_k", "4.5 bits a weight", QuantizedType::Q4K),
    ])
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
    /// The model: the flag's, else the environment's, else GPT-2.
    pub fn model(&self) -> String {
        self.given().unwrap_or_else(|| "gpt2".to_owned())
    }

    /// The model: the flag's, else the environment's, else none.
    pub fn given(&self) -> Option<String> {
        self.model.clone().or_else(model_by_environment)
    }

    /// The same with another model, of which nothing else is known.
    pub fn with_model(&self, model: &str) -> Self {
        let model = Some(model.to_owned());
        Self { model, revision: None, config: None, n_head: None, adapter: vec![], tokenizer: None, ..self.clone() }
    }

    /// The type of the weights in memory.
    pub fn weights(&self) -> WeightType {
        match (self.dtype, self.quantize) {
            (_, Some(format)) => WeightType::Quantized(format),
            (Some(float), None) => WeightType::Float(float),
            (None, None) => WeightType::Stored,
        }
    }

    /// Whether the flag or the environment forbids network access.
    pub fn is_offline(&self) -> bool {
        self.offline || is_offline_by_environment()
    }
}

impl TokenizerArgs {
    /// The model whose tokenizer it is: the flag's, else the environment's, else none.
    pub fn model(&self) -> Option<String> {
        self.model.clone().or_else(model_by_environment)
    }

    /// Whether the flag or the environment forbids network access.
    pub fn is_offline(&self) -> bool {
        self.offline || is_offline_by_environment()
    }
}

fn model_by_environment() -> Option<String> {
    std::env::var("GPT2_MODEL").ok().filter(|model| !model.is_empty())
}

/// As huggingface_hub decides it: `HF_HUB_OFFLINE`, else `TRANSFORMERS_OFFLINE`.
fn is_offline_by_environment() -> bool {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let asked = set("HF_HUB_OFFLINE").or_else(|| set("TRANSFORMERS_OFFLINE")).unwrap_or_default();
    matches!(asked.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")
}
