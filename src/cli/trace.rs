//! The flags of `gpt2 trace`.

use std::path::PathBuf;

use clap::builder::TypedValueParser;
use clap::{Args, ValueEnum};
use gpt2::analysis::saved::Names;

use super::model::one_of;
use super::{
    AttributionArgs, BatchSizeArg, Format, HeadsArgs, InterventionArgs, MANY, ModelArgs, PiecesArg, TextArgs,
    TextsArgs, number,
};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 trace --model demo \"Once upon a time\"
  gpt2 trace --model demo \"Once upon a time\" --lens
  gpt2 trace --model demo \"Once upon a time\" --attention --layer 2 --head 1
  gpt2 trace --model demo \"Once upon a time\" --attention --layer 2 --svg heads.svg
  gpt2 trace --model demo \"Once upon a time\" --html inside.html
  gpt2 trace --model demo \"Once upon a time\" --save activations.npz
  gpt2 trace --model demo \"Once upon\" --save a.npz --names transformer-lens
  gpt2 trace --model demo \"Once upon\" --save a.npz --keep 'blocks.*.hidden'
  gpt2 trace --model demo --lines texts.txt --shapes
  gpt2 trace --model demo \"Once upon a time\" --repeat 3
  gpt2 trace --model demo \"Once upon a\" --attribute \" time\" --against \" king\"
  gpt2 trace --model demo --heads")]
pub struct TraceArgs {
    #[command(flatten)]
    pub text: TextArgs,
    /// Hidden states: embedding, every block, the final norm
    #[arg(long, help_heading = "View")]
    pub hidden: bool,
    /// Attention: which token looks at which
    #[arg(long, help_heading = "View")]
    pub attention: bool,
    /// Logit lens: the token every layer would predict
    ///
    /// At every position, with its probability.
    #[arg(long, help_heading = "View")]
    pub lens: bool,
    /// Show only the attention of this layer, counted from 0
    #[arg(long, value_name = "L", value_parser = number::whole::<usize>(0..), help_heading = "View")]
    pub layer: Option<usize>,
    /// Show only the attention of this head, counted from 0
    #[arg(long, value_name = "H", value_parser = number::whole::<usize>(0..), help_heading = "View")]
    pub head: Option<usize>,
    /// Show only the shapes of a batch: ids, hidden states, attention, logits
    #[arg(long, help_heading = "View")]
    #[arg(conflicts_with_all = ["pieces", "hidden", "attention", "lens", "layer", "head", "svg", "html", "save", "repeat", "attribute", "output", "ablate", "steer", "steer_from"])]
    pub shapes: bool,
    /// Run N times and say whether every bit is the same
    ///
    /// Those of all activations and logits.
    #[arg(long, value_name = "N", value_parser = number::whole::<usize>(1..=1000), help_heading = "View")]
    pub repeat: Option<usize>,
    #[command(flatten)]
    pub attribution: AttributionArgs,
    #[command(flatten)]
    pub heads: HeadsArgs,
    #[command(flatten)]
    pub interventions: InterventionArgs,
    #[command(flatten)]
    pub model: ModelArgs,
    /// Draw the view as a picture, SVG or PNG
    #[arg(long, value_name = "F.svg", conflicts_with = MANY, help_heading = "Output")]
    pub svg: Option<PathBuf>,
    /// The picture's colours: light, dark or auto
    ///
    /// For a light background, a dark one, or as the viewer prefers.
    #[arg(long, value_enum, default_value_t, requires = "svg", help_heading = "Output")]
    pub theme: Theme,
    /// Write a page for the browser to explore all views
    #[arg(long, value_name = "F.html", conflicts_with = MANY, help_heading = "Output")]
    pub html: Option<PathBuf>,
    /// Save hidden states, attention and logits
    ///
    /// As safetensors, or for NumPy if the name ends in .npz. --names gives it every activation, --keep picks some. Those
    /// of rows have the row's id and a slash before their names, or its line if it has no id.
    #[arg(long, value_name = "F.safetensors", help_heading = "Output", value_parser = super::files::output())]
    pub save: Option<PathBuf>,
    /// Whose names the saved activations have: gpt2 or transformer-lens
    ///
    /// transformer-lens has every activation, attention's scores before softmax too, under the names of TransformerLens, and
    /// the logits.
    #[arg(long, value_name = "WHOSE", default_value = "gpt2", value_parser = names(), requires = "save")]
    #[arg(help_heading = "Output", hide_possible_values = true)]
    pub names: Names,
    #[command(flatten)]
    pub pieces: PiecesArg,
    /// text, json or jsonl
    ///
    /// How to write the result: text unless --input or --output is given, which take jsonl. Without a view, `text` shows
    /// the lens after the last token and where each head looks, and JSON the hidden states.
    #[arg(long, value_enum, help_heading = "Output")]
    pub format: Option<Format>,
    #[command(flatten)]
    pub texts: TextsArgs,
    #[command(flatten)]
    pub batch: BatchSizeArg,
}

impl TraceArgs {
    /// Takes out which activations --keep asks for: beside --save it is about them, and rows carry all their other keys.
    pub fn take_kept(&mut self) -> Vec<String> {
        let kept = self.save.is_some().then(|| self.texts.rows.keep.take());
        kept.flatten().unwrap_or_default()
    }
}

fn names() -> impl TypedValueParser<Value = Names> {
    let help = |names| match names {
        Names::Gpt2 => "the residual stream after every block, attention, and the logits",
        Names::TransformerLens => "every activation as TransformerLens names it",
    };
    one_of(Names::ALL.map(|names| (names.name(), help(names), names)))
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
