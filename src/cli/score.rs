//! The flags of `gpt2 score`.

use std::path::PathBuf;

use clap::Args;

use super::{Format, ModelArgs, PiecesArg, RowArgs, TextArgs, number};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 score --model demo \"Once upon a time there was a king.\"
  gpt2 score --model demo --bos --format json \"Once upon a time\"
  gpt2 score --file book.txt --stride 512
  gpt2 score --file book.txt --stride 256 --context 512 --html book.html
  gpt2 score --input texts.jsonl --output scores.jsonl --resume")]
pub struct ScoreArgs {
    #[command(flatten)]
    pub text: TextArgs,
    /// Slide a window in steps of S tokens
    ///
    /// As in transformers' perplexity guide; without it the text must fit the context.
    #[arg(long, value_name = "S", help_heading = "Protocol", value_parser = number::whole::<usize>(1..))]
    pub stride: Option<usize>,
    /// Tokens in a window [default: the model's context]
    #[arg(long, value_name = "C", requires = "stride", help_heading = "Protocol", value_parser = number::whole::<usize>(1..))]
    pub context: Option<usize>,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub batch: ScoreBatchArgs,
    /// Also write a page for the browser
    ///
    /// It shows the scores and the expected tokens over the text.
    #[arg(long, value_name = "F.html", conflicts_with = "input", help_heading = "Output")]
    pub html: Option<PathBuf>,
    #[command(flatten)]
    pub pieces: PiecesArg,
    /// text, json or jsonl
    ///
    /// How to write the result; `text` lists every token (on a terminal, those of a long text with -v).
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub format: Format,
}

/// Many texts from a file.
#[derive(Debug, Args)]
#[command(next_help_heading = "Batch")]
pub struct ScoreBatchArgs {
    #[command(flatten)]
    pub rows: RowArgs,
    /// Texts to process at the same time
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = number::whole::<usize>(1..=4096))]
    pub batch_size: usize,
}
