//! The flags of `gpt2 topk`.

use std::path::PathBuf;

use clap::Args;

use super::{
    BatchSizeArg, Format, InterventionArgs, MANY, ModelArgs, PiecesArg, ProcessorArgs, TextArgs, TextsArgs, number,
};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 topk --model demo --prompt \"Once upon a\" -k 5
  gpt2 topk \"We are happy to\" --all -k 1
  gpt2 topk \"We are happy to\" --all --html topk.html
  gpt2 topk --model demo \"Once upon a\" -k 3 --tree 3
  gpt2 topk --model demo \"Once upon a\" --append 5
  gpt2 topk --model demo --lines texts.txt --shapes
  gpt2 topk --model demo \"The king and the queen\" --ablate 0.1 --ablate 2.mlp=mean
  gpt2 topk \"The theory of relativity is\" --temperature 0.7 --top-p 0.9
  gpt2 topk \"The capital of France is\" --token \" Paris\" --token \" London\"")]
pub struct TopkArgs {
    #[command(flatten)]
    pub text: TextArgs,
    #[command(flatten)]
    pub processors: ProcessorArgs,
    /// Keep the line break that ends a text on stdin; without this flag one is dropped, since `echo` adds it
    #[arg(long, help_heading = "Text", conflicts_with = MANY)]
    pub keep_newline: bool,
    /// Take the model's own generation_config.json as defaults below the flags, as transformers does
    #[arg(long, help_heading = "Distribution")]
    pub generation_config: bool,
    /// How many tokens to show
    #[arg(help_heading = "View", short, default_value_t = 10, value_name = "K", value_parser = number::whole::<usize>(1..))]
    pub k: usize,
    /// Show the distribution after every position
    #[arg(help_heading = "View", long, conflicts_with = "position")]
    pub all: bool,
    /// Show the distribution after this position; negative numbers count from the end
    #[arg(help_heading = "View", long, value_name = "N", allow_negative_numbers = true, value_parser = number::signed)]
    pub position: Option<i64>,
    /// Also report the rank and probability of this token (repeatable)
    #[arg(help_heading = "View", long, value_name = "TEXT")]
    pub token: Vec<String>,
    /// Expand the K best continuations D levels deep, with joint probabilities
    #[arg(help_heading = "View", long, value_name = "D", conflicts_with_all = ["all", "position"], value_parser = number::whole::<u64>(1..=16))]
    pub tree: Option<u64>,
    /// Take the best token, run again with it appended, N times, and show each step
    #[arg(help_heading = "View", long, value_name = "N", conflicts_with_all = ["all", "position", "tree"], value_parser = number::whole::<usize>(1..))]
    pub append: Option<usize>,
    /// Show only the shapes of a batch: ids, hidden states, attention, logits
    #[arg(help_heading = "View", long, conflicts_with_all = ["pieces", "all", "position", "tree", "append", "token", "html", "output", "ablate", "steer", "steer_from"])]
    pub shapes: bool,
    #[command(flatten)]
    pub interventions: InterventionArgs,
    #[command(flatten)]
    pub model: ModelArgs,
    /// Also write a page for the browser; needs --all
    ///
    /// It shows the distributions over the text.
    #[arg(help_heading = "Output", long, value_name = "F.html", conflicts_with = MANY)]
    pub html: Option<PathBuf>,
    #[command(flatten)]
    pub pieces: PiecesArg,
    /// text, json or jsonl
    ///
    /// How to write the result: text unless --input or --output is given, which take jsonl.
    #[arg(long, value_enum, help_heading = "Output")]
    pub format: Option<Format>,
    #[command(flatten)]
    pub texts: TextsArgs,
    #[command(flatten)]
    pub batch: BatchSizeArg,
}
