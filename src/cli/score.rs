//! The flags of `gpt2 score`.

use std::path::PathBuf;

use clap::Args;

use super::{Format, ModelArgs, TextArgs};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 score --model demo \"Once upon a time there was a king.\"
  gpt2 score --model demo --bos --format json \"Once upon a time\"
  gpt2 score --file book.txt --stride 512
  gpt2 score --file book.txt --stride 256 --context 512 --html book.html
  gpt2 score --input texts.jsonl --output scores.jsonl --resume")]
pub struct ScoreArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub text: TextArgs,
    /// Slide a window over the text in steps of S tokens, as in transformers' perplexity guide; without it the text must
    /// fit the context
    #[arg(long, value_name = "S", help_heading = "Protocol")]
    pub stride: Option<usize>,
    /// Tokens in a window [default: the model's context]
    #[arg(long, value_name = "C", requires = "stride", help_heading = "Protocol")]
    pub context: Option<usize>,
    #[command(flatten)]
    pub batch: ScoreBatchArgs,
    /// Also write a page for the browser that shows the scores and the expected tokens over the text
    #[arg(long, value_name = "F.html", conflicts_with = "input", help_heading = "Output")]
    pub html: Option<PathBuf>,
    /// How to write the result; `text` lists every token of a short text (of a longer one with -v)
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub format: Format,
}

/// Many texts from a file.
#[derive(Debug, Args)]
#[command(next_help_heading = "Batch")]
pub struct ScoreBatchArgs {
    /// Texts, one JSON object per line: {"id", "text"} or {"id", "ids"}; - for stdin
    #[arg(long, value_name = "F.jsonl", conflicts_with_all = ["positional", "prompt", "file", "ids", "format"])]
    pub input: Option<PathBuf>,
    /// Where to write results, one JSON object per line [default: stdout]
    #[arg(long, value_name = "F.jsonl", requires = "input", conflicts_with_all = ["positional", "prompt", "file", "ids"])]
    pub output: Option<PathBuf>,
    /// Texts to process at the same time
    #[arg(long, value_name = "N", requires = "input", conflicts_with_all = ["positional", "prompt", "file", "ids"], default_value_t = 32, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=4096))]
    pub batch_size: usize,
    /// Continue the output of an earlier run: skip rows that are complete in it
    #[arg(long, requires = "output")]
    pub resume: bool,
}
