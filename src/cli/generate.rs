//! The flags of `gpt2 generate`.

use std::path::PathBuf;

use clap::Args;

use super::{
    DecodingArgs, Format, InterventionArgs, ModelArgs, PiecesArg, RawTextArg, RowArgs, SeedByArg, TextArgs, number,
};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 generate --model demo --prompt \"Once upon a time\" -n 40
  gpt2 generate \"I enjoy walking\" --temperature 0.8 --top-k 50 --seed 1
  gpt2 generate \"The theory is\" --num-beams 4 --num-return-sequences 2
  gpt2 generate \"Once upon a time\" --temperature 0.8 --html choices.html
  gpt2 generate --model demo \"The wolf\" --steer-from \"a good king\" --steer-against \"a bad king\"@3
  gpt2 generate --ids \"464 4583 286\" --format json
  gpt2 generate --input prompts.jsonl --output results.jsonl --resume
  echo \"Once upon a\" | gpt2 generate --model demo")]
pub struct GenerateArgs {
    #[command(flatten)]
    pub text: TextArgs,
    #[command(flatten)]
    pub decoding: DecodingArgs,
    /// A smaller model with the same vocabulary that guesses ahead; same result, faster
    #[arg(long, value_name = "M", help_heading = "Decoding", conflicts_with = "prompt_lookup")]
    pub assistant_model: Option<String>,
    /// Keep the line break that ends a text on stdin; without this flag one is dropped, since `echo` adds it
    #[arg(long, help_heading = "Text")]
    pub keep_newline: bool,
    /// Take the model's own generation_config.json as defaults below the flags, as transformers does (if it samples, with
    /// top_k 50 unless it says otherwise)
    #[arg(long, help_heading = "Decoding")]
    pub generation_config: bool,
    #[command(flatten)]
    pub interventions: InterventionArgs,
    #[command(flatten)]
    pub model: ModelArgs,
    /// Leave the prompt out of the output
    #[arg(long, help_heading = "Output")]
    pub completion_only: bool,
    /// text, json or jsonl
    ///
    /// How to write the result.
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub format: Format,
    /// Also write a page for the browser
    ///
    /// It shows each token with its alternatives, at any temperature and top-k.
    #[arg(long, value_name = "F.html", conflicts_with_all = ["input", "interactive"], help_heading = "Output")]
    pub html: Option<PathBuf>,
    #[command(flatten)]
    pub raw_text: RawTextArg,
    #[command(flatten)]
    pub pieces: PiecesArg,
    #[command(flatten)]
    pub batch: BatchArgs,
    /// Complete one prompt after another
    ///
    /// The model is loaded once; Ctrl-C stops a completion, Ctrl-D quits.
    #[arg(long, help_heading = "Output", conflicts_with_all = ["positional", "prompt", "file", "ids", "input", "format"])]
    pub interactive: bool,
}

/// Prompts at the same time unless asked otherwise; they start as there is memory for them. With 8, 16, 32, 64 and 128 of
/// them, 124M in f32 makes 325, 394, 461, 449 and 433 tokens a second, in q8_0 745, 872, 918, 895 and 810 (prompts of 20 to
/// 200 tokens, 32 to 64 new ones, two cores of an EPYC 9005); the demo hardly differs.
const BATCH_SIZE: usize = 32;

/// Many prompts from a file.
#[derive(Debug, Args)]
#[command(next_help_heading = "Batch")]
pub struct BatchArgs {
    #[command(flatten)]
    pub rows: RowArgs,
    #[command(flatten)]
    pub seed_by: SeedByArg,
    /// Prompts to process at the same time
    ///
    /// As many as there is memory for. More than 32 are hardly faster, and each then waits longer for its tokens.
    #[arg(long, value_name = "N", default_value_t = BATCH_SIZE, value_parser = number::whole::<usize>(1..=4096))]
    pub batch_size: usize,
}
