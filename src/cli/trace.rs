//! The flags of `gpt2 trace`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Format, ModelArgs, TextArgs, number};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 trace --model demo \"Once upon a time\"
  gpt2 trace --model demo \"Once upon a time\" --lens
  gpt2 trace --model demo \"Once upon a time\" --attention --layer 2 --head 1
  gpt2 trace --model demo \"Once upon a time\" --attention --layer 2 --svg heads.svg
  gpt2 trace --model demo \"Once upon a time\" --html inside.html
  gpt2 trace --model demo \"Once upon a time\" --save activations.npz")]
pub struct TraceArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub text: TextArgs,
    /// Hidden states after the embedding, every block and the final norm; the default view
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
    /// Draw the view as a picture, which is PNG if the name ends in .png
    #[arg(long, value_name = "F.svg|F.png", help_heading = "Output")]
    pub svg: Option<PathBuf>,
    /// The picture's colours: for a light background, a dark one, or as the viewer prefers (auto)
    #[arg(long, value_enum, default_value_t, requires = "svg", help_heading = "Output")]
    pub theme: Theme,
    /// Write a page for the browser to explore all views
    #[arg(long, value_name = "F.html", help_heading = "Output")]
    pub html: Option<PathBuf>,
    /// Save every activation and the logits; as .npz for NumPy
    #[arg(long, value_name = "F.safetensors|F.npz", help_heading = "Output")]
    pub save: Option<PathBuf>,
    /// How to write the result
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub format: Format,
}

/// The colours of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Theme {
    /// For slides and papers
    #[default]
    Light,
    /// For dark slides
    Dark,
    /// As the viewer prefers
    Auto,
}
