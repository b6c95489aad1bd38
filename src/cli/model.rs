//! Which model, where from, on what.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use gpt2::base::QuantizedType;
use gpt2::model::WeightType;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// `demo` (built in), a name or owner/name on the Hugging Face hub, a folder, or a .gguf file
    #[arg(short, long, env = "GPT2_MODEL", default_value = "gpt2", hide_env_values = true)]
    pub model: String,
    /// Branch, tag or commit on the hub
    #[arg(long, value_name = "R")]
    pub revision: Option<String>,
    /// tokenizer.json, or a folder with tokenizer files, in place of the model's own
    #[arg(long, value_name = "PATH")]
    pub tokenizer: Option<PathBuf>,
    /// Use the cache only, open no connection [env: HF_HUB_OFFLINE=1]
    #[arg(long)]
    pub offline: bool,
    /// Where to compute: auto, cpu, cuda, cuda:N or metal
    #[arg(long, default_value = "auto")]
    pub device: gpt2::device::DeviceChoice,
    /// Type of the weights in memory [default: f32; as stored if the file is quantised]
    #[arg(long, value_enum, value_name = "TYPE")]
    pub dtype: Option<Dtype>,
    /// Quantise the weights in memory: smaller and faster, a little less exact
    #[arg(long, value_enum, value_name = "FORMAT", conflicts_with = "dtype")]
    pub quantize: Option<Quantization>,
    /// Threads to compute with [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

/// Which tokenizer: GPT-2's if nothing is given.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Tokenizer")]
pub struct TokenizerArgs {
    /// The tokenizer of this model: a name or owner/name on the Hugging Face hub, a folder, or a .gguf file [default:
    /// GPT-2's, which is built in]
    #[arg(short, long)]
    pub model: Option<String>,
    /// Branch, tag or commit on the hub
    #[arg(long, value_name = "R", requires = "model")]
    pub revision: Option<String>,
    /// tokenizer.json, or a folder with tokenizer files, in place of a model's
    #[arg(long, value_name = "PATH")]
    pub tokenizer: Option<PathBuf>,
    /// Use the cache only, open no connection [env: HF_HUB_OFFLINE=1]
    #[arg(long)]
    pub offline: bool,
}

/// The number types of `--dtype`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// 32-bit; 16-bit checkpoints are widened on the way into the sums, exactly
    F32,
    /// 16-bit IEEE
    F16,
    /// 16-bit brain float
    Bf16,
}

impl From<Dtype> for WeightType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::Bf16 => Self::BF16,
        }
    }
}

/// The formats of `--quantize`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Quantization {
    /// 8.5 bits a weight
    #[value(name = "q8_0")]
    Q8_0,
    /// 6.6 bits a weight
    #[value(name = "q6_k")]
    Q6K,
    /// 4.5 bits a weight
    #[value(name = "q4_k")]
    Q4K,
}

impl From<Quantization> for QuantizedType {
    fn from(quantization: Quantization) -> Self {
        match quantization {
            Quantization::Q8_0 => Self::Q8_0,
            Quantization::Q6K => Self::Q6K,
            Quantization::Q4K => Self::Q4K,
        }
    }
}

impl ModelArgs {
    /// The type that the weights shall have in memory.
    pub fn weights(&self) -> WeightType {
        match (self.dtype, self.quantize) {
            (_, Some(quantization)) => WeightType::Quantized(quantization.into()),
            (Some(dtype), None) => dtype.into(),
            (None, None) => WeightType::Stored,
        }
    }

    /// Whether the network may not be used, by flag or by `HF_HUB_OFFLINE`.
    pub fn is_offline(&self) -> bool {
        self.offline || is_offline_asked()
    }
}

impl TokenizerArgs {
    /// Whether the network may not be used, by flag or by `HF_HUB_OFFLINE`.
    pub fn is_offline(&self) -> bool {
        self.offline || is_offline_asked()
    }
}

fn is_offline_asked() -> bool {
    let asked = std::env::var("HF_HUB_OFFLINE").unwrap_or_default().to_ascii_lowercase();
    matches!(asked.as_str(), "1" | "true" | "yes" | "on")
}
