//! The flags of `gpt2 convert`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::TypedValueParser;
use gpt2::base::DType;

use super::model::one_of;
use super::{Format, ModelArgs};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 convert --model gpt2 --to q8_0 gpt2-q8_0.gguf
  gpt2 convert --model ./my-gpt2 --to f16 my-gpt2-f16/model.safetensors
  gpt2 convert --model gpt2-q8_0.gguf --to f32 restored/model.safetensors
  gpt2 convert --model gpt2 --to q8_0 --packed shared/model.safetensors")]
pub struct ConvertArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Type of the weight matrices in the file; quantised types are for GGUF and --packed
    #[arg(long, value_name = "TYPE", help_heading = "Output", value_parser = target())]
    pub to: DType,
    /// Write matrices as this program reads them: starts at once, and processes share one copy
    ///
    /// The file is *.safetensors, but no other program reads it. Each program that uses a model on the CPU keeps a copy of the
    /// matrices in its own memory, laid out for its kernels; those that use a packed file share one.
    #[arg(long, help_heading = "Output")]
    pub packed: bool,
    /// The file to write: *.gguf for llama.cpp or *.safetensors for transformers
    #[arg(value_name = "OUT", help_heading = None)]
    pub output: PathBuf,
    /// text, json or jsonl
    ///
    /// How to write the report.
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub format: Format,
}

/// The types of `--to`.
fn target() -> impl TypedValueParser<Value = DType> {
    one_of([
        ("f32", "32-bit", DType::F32),
        ("f16", "16-bit IEEE", DType::F16),
        ("bf16", "16-bit brain float", DType::BF16),
        ("q8_0", "8.5 bits a weight", DType::Q8_0),
        ("q6_k", "6.6 bits a weight", DType::Q6K),
        ("q4_k", "4.5 bits a weight", DType::Q4K),
    ])
}
