//! The flags of `gpt2 info`.

use clap::Args;

use super::{Format, ModelArgs};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 info --model demo
  gpt2 info --model gpt2-xl --format json
  gpt2 info --model demo --tensors
  gpt2 info --model demo --state-dict
  gpt2 info --model demo --module
  gpt2 info --model gpt2-xl --device cuda --dtype bf16
  gpt2 info --settings
  gpt2 info --config config.json  (without --model: needs no weights)")]
pub struct InfoArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// List the checkpoint's tensors, under their names in the file
    #[arg(long, help_heading = "View")]
    pub tensors: bool,
    /// List names and shapes as PyTorch has them
    ///
    /// Those of `model.state_dict()` of transformers' model, after how many there are.
    #[arg(long, help_heading = "View")]
    pub state_dict: bool,
    /// Show the tree of modules as PyTorch has it
    ///
    /// That of `print(model)` of transformers' model.
    #[arg(long, help_heading = "View")]
    pub module: bool,
    /// Show what runs go by, and where it comes from
    ///
    /// Each setting with its value and the flag, the environment variable or the config file that gives it. No model is
    /// loaded.
    #[arg(long, help_heading = "View", conflicts_with_all = ["tensors", "state_dict", "module"])]
    pub settings: bool,
    /// text, json or jsonl
    ///
    /// How to write the result.
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub format: Format,
}
