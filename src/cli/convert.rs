//! The flags of `gpt2 convert`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use gpt2::base::DType;

use super::{Format, ModelArgs};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 convert --model gpt2 --to q8_0 gpt2-q8_0.gguf
  gpt2 convert --model ./my-gpt2 --to f16 my-gpt2-f16/model.safetensors
  gpt2 convert --model gpt2-q8_0.gguf --to f32 restored/model.safetensors")]
pub struct ConvertArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Type of the weight matrices in the file; the quantised ones are for GGUF only
    #[arg(long, value_enum, value_name = "TYPE")]
    pub to: Target,
    /// The file to write: *.gguf, as llama.cpp loads it, or *.safetensors, as transformers does
    #[arg(value_name = "OUT")]
    pub output: PathBuf,
    /// How to write the report
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// The types of `--to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// 32-bit
    F32,
    /// 16-bit IEEE
    F16,
    /// 16-bit brain float
    Bf16,
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

impl From<Target> for DType {
    fn from(target: Target) -> Self {
        match target {
            Target::F32 => Self::F32,
            Target::F16 => Self::F16,
            Target::Bf16 => Self::BF16,
            Target::Q8_0 => Self::Q8_0,
            Target::Q6K => Self::Q6K,
            Target::Q4K => Self::Q4K,
        }
    }
}
