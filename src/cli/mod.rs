//! The command line: clap's derive structs and nothing else. Flags shared by several subcommands form groups.

pub mod advice;
mod bench;
mod convert;
mod decoding;
mod model;
mod number;
mod rows;
mod score;
mod text;
mod trace;
mod unknown;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Arg, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use gpt2::printable;

pub use bench::BenchArgs;
pub use convert::ConvertArgs;
pub use decoding::{DecodingArgs, ProcessorArgs};
pub use model::{ModelArgs, TokenizerArgs};
pub use rows::RowArgs;
pub use score::ScoreArgs;
pub use text::{Prompt, TextArgs, flag_ids, is_stdin, longest_text, read_text};
pub use trace::{Theme, TraceArgs};

/// GPT-2 on the command line: tokenize, look at the next token, score, generate.
#[derive(Debug, Parser)]
#[command(name = "gpt2", bin_name = "gpt2", version, about, max_term_width = 110, propagate_version = true, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    pub verbosity: Verbosity,
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "Examples:
  gpt2 generate --model demo --prompt \"Once upon a time\"
  gpt2 tokenize \"The theory of relativity\"
  gpt2 topk --model demo --prompt \"Once upon a\" -k 5
  echo \"The answer is\" | gpt2 generate -n 20 --completion-only

The model `demo` is built in; others are loaded from a folder or the Hugging Face hub.";

/// Parses the command line. The first of the `arguments` is the program's name.
///
/// # Errors
/// If clap refuses the arguments, or for requests for help or the version.
pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let arguments: Vec<OsString> = arguments.collect();
    let mut command = Cli::command().mut_subcommands(|subcommand| subcommand.mut_args(with_any_value));
    let mut parsed = |arguments: &[OsString]| {
        command.try_get_matches_from_mut(arguments).and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches))
    };
    // A message may quote an argument: on one line of a terminal, please.
    let quoted: Vec<OsString> = arguments.iter().map(quotable).collect();
    let outcome = parsed(&arguments).map_err(|error| match error.kind() {
        ErrorKind::InvalidUtf8 => error,
        _ => parsed(&quoted).err().unwrap_or(error),
    });
    outcome.map_err(|error| match (error.kind(), not_unicode(&arguments)) {
        (ErrorKind::InvalidUtf8, Some((place, offset))) => command
            .error(ErrorKind::InvalidUtf8, format!("argument {place} is not UTF-8: invalid byte at offset {offset}")),
        (ErrorKind::UnknownArgument, _) => unknown::advise(error, &command, &quoted).format(&mut command),
        _ => error.format(&mut command),
    })
}

/// An argument as a message can quote it: printable, and not too long.
fn quotable(argument: &OsString) -> OsString {
    const LONGEST: usize = 200;
    let text = argument.to_string_lossy();
    let text = printable::line(&text);
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]).into(),
        None => text.into_owned().into(),
    }
}

/// Lets a value begin with a hyphen where that can only be a value.
fn with_any_value(argument: Arg) -> Arg {
    if !argument.get_action().takes_values() {
        return argument;
    }
    let kind = argument.get_value_names().and_then(|names| names.first().cloned());
    let is_text = matches!(kind.as_deref(), Some("TEXT" | "IDS" | "RE"));
    let needs_value = argument.get_num_args().is_none_or(|values| values.min_values() > 0);
    if is_text && needs_value && !argument.is_positional() {
        // What follows a flag for text is text: a script with `--prompt "$X"` must not depend on what X begins with.
        argument.allow_hyphen_values(true)
    } else {
        // So that the error is a value out of range, which names the flag, and not an unknown flag.
        argument.allow_negative_numbers(true)
    }
}

/// The first argument that is not UTF-8, counted from 1, and the offset of its first invalid byte.
fn not_unicode(arguments: &[OsString]) -> Option<(usize, usize)> {
    let invalid = |argument: &OsString| Some(std::str::from_utf8(argument.as_encoded_bytes()).err()?.valid_up_to());
    arguments.iter().enumerate().find_map(|(place, argument)| Some((place, invalid(argument)?)))
}

/// How much to report on stderr.
#[derive(Debug, Clone, Copy, Args)]
pub struct Verbosity {
    /// Report only errors on stderr
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Report more on stderr; twice for even more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Continue a text
    Generate(Box<GenerateArgs>),
    /// Split text into tokens, or join tokens into text
    Tokenize(TokenizeArgs),
    /// Show the distribution of the next token
    Topk(Box<TopkArgs>),
    /// Score a text: log-probabilities, ranks, perplexity
    Score(Box<ScoreArgs>),
    /// Look inside: hidden states, attention, logit lens
    Trace(Box<TraceArgs>),
    /// Show a model's architecture, parameters and memory
    Info(InfoArgs),
    /// Convert a model to GGUF or safetensors and another number type
    Convert(ConvertArgs),
    /// Measure how fast a model loads, reads a prompt and decodes
    Bench(BenchArgs),
    /// Write shell completions to stdout
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// The subcommand's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Generate(_) => "generate",
            Self::Tokenize(_) => "tokenize",
            Self::Topk(_) => "topk",
            Self::Score(_) => "score",
            Self::Trace(_) => "trace",
            Self::Info(_) => "info",
            Self::Convert(_) => "convert",
            Self::Bench(_) => "bench",
            Self::Completions { .. } => "completions",
        }
    }
}

/// A parameter's flag, without the dashes before it.
fn flag_name(parameter: &str) -> String {
    parameter.replace('_', "-")
}

/// How results are written to stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Text,
    /// One JSON document
    Json,
    /// One JSON object per line
    Jsonl,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 generate --model demo --prompt \"Once upon a time\" -n 40
  gpt2 generate \"The theory of relativity is\" --num-beams 4 --num-return-sequences 2
  gpt2 generate \"I enjoy walking with my cute dog\" --temperature 0.8 --top-k 50 --seed 1
  gpt2 generate \"Once upon a time\" --temperature 0.8 --html choices.html
  gpt2 generate --ids \"464 4583 286\" --format json
  gpt2 generate --input prompts.jsonl --output results.jsonl --batch-size 16 --resume
  echo \"Once upon a\" | gpt2 generate --model demo")]
pub struct GenerateArgs {
    #[command(flatten)]
    pub model: ModelArgs,
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
    /// Leave the prompt out of the output
    #[arg(long, help_heading = "Output")]
    pub completion_only: bool,
    /// How to write the result
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub format: Format,
    /// Also write a page for the browser: each token with its alternatives, at any temperature and top-k
    #[arg(long, value_name = "F.html", conflicts_with_all = ["input", "interactive"], help_heading = "Output")]
    pub html: Option<PathBuf>,
    #[command(flatten)]
    pub raw_text: RawTextArg,
    #[command(flatten)]
    pub batch: BatchArgs,
    /// Load once, then complete one prompt after another; Ctrl-C stops a completion, Ctrl-D quits
    #[arg(long, conflicts_with_all = ["positional", "prompt", "file", "ids", "input", "format"])]
    pub interactive: bool,
}

/// What a terminal gets of a text.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Output")]
pub struct RawTextArg {
    /// Let control characters in the text drive the terminal; without this flag, a terminal shows them as in \u{1b}. Files
    /// and pipes get the text as it is in any case
    #[arg(long)]
    pub raw_text: bool,
}

/// Many prompts from a file.
#[derive(Debug, Args)]
#[command(next_help_heading = "Batch")]
pub struct BatchArgs {
    #[command(flatten)]
    pub rows: RowArgs,
    /// Prompts to process at the same time
    #[arg(long, value_name = "N", requires = "input", conflicts_with_all = ["positional", "prompt", "file", "ids"], default_value_t = 8, value_parser = number::whole::<usize>(1..=4096))]
    pub batch_size: usize,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 tokenize \"The theory of relativity\"
  gpt2 tokenize --format ids \"Hello world\"
  gpt2 tokenize --count --file book.txt
  gpt2 tokenize --decode \"464 4583 286 44449\"
  gpt2 tokenize --file book.txt --html tokens.html
  gpt2 tokenize --vocab --grep '^Ġrel'")]
pub struct TokenizeArgs {
    #[command(flatten)]
    pub text: TextArgs,
    #[command(flatten)]
    pub tokenizer: TokenizerArgs,
    /// Print the text of these ids, byte for byte; without IDS, read them from --file or stdin. Ids are separated by spaces,
    /// commas or line breaks, or are a list of JSON
    #[arg(long, value_name = "IDS", num_args = 0..=1, help_heading = "Output")]
    #[arg(conflicts_with_all = ["positional", "prompt", "ids", "bos", "no_special", "count", "vocab"])]
    pub decode: Option<Option<String>>,
    /// List the vocabulary, sorted by id
    #[arg(long, help_heading = "Output", conflicts_with_all = ["positional", "prompt", "file", "ids", "bos", "no_special"])]
    pub vocab: bool,
    /// List only tokens whose piece (such as Ġtheory) matches this regular expression
    #[arg(long, value_name = "RE", requires = "vocab", help_heading = "Output")]
    pub grep: Option<String>,
    #[command(flatten)]
    pub raw_text: RawTextArg,
    /// Also write a page for the browser that shows the tokens in the text
    #[arg(long, value_name = "F.html", conflicts_with = "vocab", help_heading = "Output")]
    pub html: Option<PathBuf>,
    /// Print only the number of tokens
    #[arg(long, conflicts_with = "format", help_heading = "Output")]
    pub count: bool,
    /// How to write the result
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub format: TokenizeFormat,
}

/// How `tokenize` writes its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum TokenizeFormat {
    /// A table
    #[default]
    Text,
    /// The ids on one line
    Ids,
    /// One JSON document
    Json,
    /// One JSON object per line
    Jsonl,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 topk --model demo --prompt \"Once upon a\" -k 5
  gpt2 topk \"We are happy to\" --all -k 1
  gpt2 topk \"We are happy to\" --all --html topk.html
  gpt2 topk --model demo \"Once upon a\" -k 3 --tree 3
  gpt2 topk \"The theory of relativity is\" --temperature 0.7 --top-p 0.9
  gpt2 topk \"The capital of France is\" --token \" Paris\" --token \" London\"")]
pub struct TopkArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub text: TextArgs,
    #[command(flatten)]
    pub processors: ProcessorArgs,
    /// Keep the line break that ends a text on stdin; without this flag one is dropped, since `echo` adds it
    #[arg(long, help_heading = "Text")]
    pub keep_newline: bool,
    /// Take the model's own generation_config.json as defaults below the flags, as transformers does
    #[arg(long, help_heading = "Distribution")]
    pub generation_config: bool,
    /// How many tokens to show
    #[arg(short, default_value_t = 10, value_name = "K", value_parser = number::whole::<usize>(1..))]
    pub k: usize,
    /// Show the distribution after every position
    #[arg(long, conflicts_with = "position")]
    pub all: bool,
    /// Show the distribution after this position; negative numbers count from the end
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = number::signed)]
    pub position: Option<i64>,
    /// Also report the rank and probability of this token (repeatable)
    #[arg(long, value_name = "TEXT")]
    pub token: Vec<String>,
    /// Expand the K best continuations D levels deep, with joint probabilities
    #[arg(long, value_name = "D", conflicts_with_all = ["all", "position"], value_parser = number::whole::<u64>(1..=16))]
    pub tree: Option<u64>,
    /// Also write a page for the browser that shows the distributions over the text; needs --all
    #[arg(long, value_name = "F.html")]
    pub html: Option<PathBuf>,
    /// How to write the result
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 info --model demo
  gpt2 info --model gpt2-xl --format json
  gpt2 info --model demo --tensors
  gpt2 info --model gpt2-xl --device cuda --dtype bf16
  gpt2 info --config config.json  (without --model: needs no weights)")]
pub struct InfoArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// List the checkpoint's tensors, under their names in the file
    #[arg(long)]
    pub tensors: bool,
    /// How to write the result
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}
