//! The flags of `gpt2 embed`.

use clap::Args;
use clap::builder::TypedValueParser;
use gpt2::analysis::embedding::Pool;

use super::model::one_of;
use super::{Format, ModelArgs, TextArgs, TextsArgs, number};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 embed --model demo \"Once upon a time\"
  gpt2 embed --model demo \"Once upon a time\" --layer 3 --pool last --format json
  gpt2 embed --model demo --lines texts.txt --output vectors.safetensors
  gpt2 embed --model demo \"Once upon a time\" --pool none --output tokens.npz
  gpt2 embed --input texts.jsonl --output vectors.jsonl --resume")]
pub struct EmbedArgs {
    #[command(flatten)]
    pub text: TextArgs,
    /// After this block, counted from 0 [default: after the final norm]
    #[arg(long, value_name = "L", value_parser = number::whole::<usize>(0..), help_heading = "Vectors")]
    pub layer: Option<usize>,
    /// One vector for the text, its mean or its last, or one for each token: mean, last or none
    #[arg(long, value_name = "HOW", default_value = "mean", value_parser = pool(), help_heading = "Vectors")]
    #[arg(hide_possible_values = true)]
    pub pool: Pool,
    #[command(flatten)]
    pub model: ModelArgs,
    /// text, json or jsonl
    ///
    /// How to write the result: text unless --input or --output is given, which take jsonl. `text` shows how long a vector is
    /// and its first numbers, JSON has all.
    #[arg(long, value_enum, help_heading = "Output")]
    pub format: Option<Format>,
    #[command(flatten)]
    pub batch: EmbedBatchArgs,
}

/// Many texts from a file.
#[derive(Debug, Args)]
#[command(next_help_heading = "Batch")]
pub struct EmbedBatchArgs {
    #[command(flatten)]
    pub texts: TextsArgs,
    /// Texts to process at the same time
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = number::whole::<usize>(1..=4096))]
    pub batch_size: usize,
}

fn pool() -> impl TypedValueParser<Value = Pool> {
    let help = |pool| match pool {
        Pool::Mean => "the mean over its positions",
        Pool::Last => "that of its last position, which has seen all of it",
        Pool::None => "that of every position",
    };
    one_of(Pool::ALL.map(|pool| (pool.name(), help(pool), pool)))
}
