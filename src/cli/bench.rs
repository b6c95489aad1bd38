//! The flags of `gpt2 bench`.

use clap::{Args, ValueEnum};
use gpt2::config::Config;

use super::{Format, ModelArgs, number};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 bench --model gpt2 --quantize q8_0
  gpt2 bench --random gpt2-xl --dtype bf16 --prompt-tokens 128 -n 32
  gpt2 bench --random gpt2 --batch-size 16 --format json")]
pub struct BenchArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Use random weights of this size instead of --model: no files, no network
    #[arg(help_heading = "Measurement", long, value_enum, value_name = "SIZE", conflicts_with_all = ["model", "revision", "config", "n_head", "adapter", "tokenizer"])]
    pub random: Option<Size>,
    /// Prompt lengths, measured one after the other
    #[arg(help_heading = "Measurement", long, value_name = "N,...", value_delimiter = ',', default_values_t = [16, 512], value_parser = number::whole::<usize>(1..))]
    pub prompt_tokens: Vec<usize>,
    /// Tokens decoded after each prompt
    #[arg(help_heading = "Measurement", short = 'n', long, value_name = "N", default_value_t = 128, value_parser = number::whole::<usize>(1..))]
    pub max_new_tokens: usize,
    /// Measurements per prompt length, after a warm-up run
    #[arg(help_heading = "Measurement", long, value_name = "N", default_value_t = 5, value_parser = number::whole::<usize>(1..=1000))]
    pub repeat: usize,
    /// Sequences that run side by side
    #[arg(help_heading = "Measurement", long, value_name = "N", default_value_t = 1, value_parser = number::whole::<usize>(1..=4096))]
    pub batch_size: usize,
    /// text, json or jsonl
    ///
    /// How to write the result.
    #[arg(help_heading = "Output", long, value_enum, default_value_t)]
    pub format: Format,
}

/// The published sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Size {
    /// 82 million parameters
    Distilgpt2,
    /// 124 million
    Gpt2,
    /// 355 million
    Gpt2Medium,
    /// 774 million
    Gpt2Large,
    /// 1558 million
    Gpt2Xl,
}

impl Size {
    /// The name of the published model.
    pub fn name(self) -> &'static str {
        match self {
            Self::Distilgpt2 => "distilgpt2",
            Self::Gpt2 => "gpt2",
            Self::Gpt2Medium => "gpt2-medium",
            Self::Gpt2Large => "gpt2-large",
            Self::Gpt2Xl => "gpt2-xl",
        }
    }

    /// Its configuration.
    pub fn config(self) -> Config {
        Config::named(self.name()).expect("a published size")
    }
}
