//! The flags of `gpt2 trace`.

use std::path::PathBuf;

use clap::Args;

use super::{Format, ModelArgs, PiecesArg, TextArgs, number};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 trace --model demo \"Once upon a time\"
  gpt2 trace --model demo \"Once upon a time\" --lens
  gpt2 trace --model demo \"Once upon a time\" --attention --layer 2 --head 1
  gpt2 trace --model demo \"Once upon a time\" --attention --layer 2 --svg heads.svg
  gpt2 trace --model demo \"Once upon a time\" --html inside.html
  gpt2 trace --model demo \"Once upon a time\" --save activations.safetensors")]
pub struct TraceArgs {
    #[command(flatten)]
    pub text: TextArgs,
    /// Hidden states after the embedding, every block and the final norm
    #[arg(long, help_heading = "View")]
    pub hidden: bool,
    /// Attention: which token looks at which
    #[arg(long, help_heading = "View")]
    pub attention: bool,
    /// Logit lens: the token that every layer would predict at every position
    #[arg(long, help_heading = "View")]
    pub lens: bool,
    /// Show only the attention of this layer, counted from 0
    #[arg(long, value_name = "L", value_parser = number::whole::<usize>(0..), help_heading = "View")]
    pub layer: Option<usize>,
    /// Show only the attention of this head, counted from 0
    #[arg(long, value_name = "H", value_parser = number::whole::<usize>(0..), help_heading = "View")]
    pub head: Option<usize>,
    #[command(flatten)]
    pub model: ModelArgs,
    /// Draw the view as a picture
    #[arg(long, value_name = "F.svg", help_heading = "Output")]
    pub svg: Option<PathBuf>,
    /// Write a page for the browser to explore all views
    #[arg(long, value_name = "F.html", help_heading = "Output")]
    pub html: Option<PathBuf>,
    /// Save every activation and the logits
    #[arg(long, value_name = "F.safetensors", help_heading = "Output")]
    pub save: Option<PathBuf>,
    #[command(flatten)]
    pub pieces: PiecesArg,
    /// text, json or jsonl
    ///
    /// How to write the result; without a view, `text` shows the lens after the last token and where each head looks, and
    /// JSON the hidden states.
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub format: Format,
}
