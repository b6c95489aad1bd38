//! `gpt2 trace`.

use std::path::PathBuf;

use clap::Args;

use super::{Format, ModelArgs, TextArgs};

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
    pub model: ModelArgs,
    #[command(flatten)]
    pub text: TextArgs,
    /// Hidden states after the embedding, every block and the final norm; shown if no other view is asked for
    #[arg(long, help_heading = "View")]
    pub hidden: bool,
    /// Attention: which token looks at which
    #[arg(long, help_heading = "View")]
    pub attention: bool,
    /// Logit lens: the token that every layer would predict at every position
    #[arg(long, help_heading = "View")]
    pub lens: bool,
    /// Attention of this layer alone, counted from 0
    #[arg(long, value_name = "L", help_heading = "View")]
    pub layer: Option<usize>,
    /// Attention of this head alone, counted from 0
    #[arg(long, value_name = "H", help_heading = "View")]
    pub head: Option<usize>,
    /// Draw the view
    #[arg(long, value_name = "F.svg", help_heading = "Output")]
    pub svg: Option<PathBuf>,
    /// Write a page, to be opened in a browser, with all views to move about in
    #[arg(long, value_name = "F.html", help_heading = "Output")]
    pub html: Option<PathBuf>,
    /// Write every activation and the logits
    #[arg(long, value_name = "F.safetensors", help_heading = "Output")]
    pub save: Option<PathBuf>,
    /// How to write the result
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub format: Format,
}
