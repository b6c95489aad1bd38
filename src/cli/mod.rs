//! The command line: clap's derive structs and nothing else. Flags shared by several subcommands form groups.

pub mod advice;
mod arguments;
mod bench;
mod combinations;
pub mod completions;
mod convert;
mod decoding;
mod files;
mod help;
mod model;
mod number;
mod parse;
mod pieces;
mod rows;
mod score;
mod text;
mod trace;
mod unknown;
mod version;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

pub use bench::BenchArgs;
pub use convert::ConvertArgs;
pub use decoding::{DecodingArgs, ProcessorArgs};
pub use model::{ModelArgs, TokenizerArgs};
pub use parse::{command, parse};
pub use pieces::PiecesArg;
pub use rows::{BatchSizeArg, MANY, OnRowError, Progress, RowArgs, SeedBy, SeedByArg, Shard, TextsArgs};
pub use score::ScoreArgs;
pub use text::{Prompt, TextArgs, flag_ids, is_stdin, longest_text, read_text};
pub use trace::{Theme, TraceArgs};

/// GPT-2 on the command line: tokenize, look at the next token, score, generate.
#[derive(Debug, Parser)]
#[command(name = "gpt2", bin_name = "gpt2", version, about, max_term_width = 110, propagate_version = true, after_help = EXAMPLES)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub struct Cli {
    #[command(flatten)]
    pub verbosity: Verbosity,
    #[command(flatten)]
    pub colour: ColourArg,
    #[command(flatten)]
    about: AboutArgs,
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "Examples:
  gpt2 generate --model demo --prompt \"Once upon a time\"
  gpt2 tokenize \"The theory of relativity\"
  gpt2 topk --model demo --prompt \"Once upon a\" -k 5
  echo \"The answer is\" | gpt2 generate -n 20 --completion-only

The model `demo` is built in; others are loaded from a folder or the Hugging Face hub.";

/// The heading of the flags that every subcommand has.
const GLOBAL: &str = "Global";

/// How much to report on stderr.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = GLOBAL)]
pub struct Verbosity {
    /// Report only errors on stderr
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Report more on stderr; twice for even more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = GLOBAL)]
pub struct ColourArg {
    /// Colours: auto, always or never [default: auto]
    ///
    /// `auto` uses them on a terminal, unless NO_COLOR is set or CLICOLOR is 0, and anywhere if CLICOLOR_FORCE is set.
    /// Without WHEN: always. With always or auto, `gpt2 tokenize` shows the tokens as coloured pieces of the text.
    #[arg(long = "color", global = true, value_name = "WHEN", value_enum)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "always")]
    pub colour: Option<Colour>,
}

/// The values of `--color`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Colour {
    /// On a terminal
    #[default]
    Auto,
    /// Also in files and pipes
    Always,
    /// Nowhere
    Never,
}

/// What clap answers itself. Only as arguments of our own do they stand below the others.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = GLOBAL)]
struct AboutArgs {
    /// Print help; -h only what most people need
    #[arg(short, long, global = true, action = ArgAction::Help)]
    help: Option<bool>,
    /// Print the version
    ///
    /// With the commit, the features, and the instruction set in use.
    #[arg(short = 'V', long, global = true, action = ArgAction::Version)]
    version: Option<bool>,
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
    ///
    /// They ask this program, so they offer the demo, the models in the cache, devices and number types.
    #[command(after_help = "Examples:
  source <(gpt2 completions bash)     # in ~/.bashrc
  source <(gpt2 completions zsh)      # in ~/.zshrc
  gpt2 completions fish | source      # in ~/.config/fish/config.fish")]
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
  gpt2 generate \"I enjoy walking\" --temperature 0.8 --top-k 50 --seed 1
  gpt2 generate \"The theory is\" --num-beams 4 --num-return-sequences 2
  gpt2 generate \"Once upon a time\" --temperature 0.8 --html choices.html
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
    #[command(flatten)]
    pub seed_by: SeedByArg,
    /// Prompts to process at the same time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = number::whole::<usize>(1..=4096))]
    pub batch_size: usize,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 tokenize \"The theory of relativity\"
  gpt2 tokenize --format ids \"Hello world\"
  gpt2 tokenize --color \"The theory of relativity\"
  gpt2 tokenize --merges \"relativity\"
  gpt2 tokenize --count --file book.txt
  gpt2 tokenize --decode \"464 4583 286 44449\"
  gpt2 tokenize --lines texts.txt --format ids
  gpt2 tokenize --file book.txt --html tokens.html
  gpt2 tokenize --vocab --grep '^Ġrel'")]
pub struct TokenizeArgs {
    #[command(flatten)]
    pub text: TextArgs,
    #[command(flatten)]
    pub tokenizer: TokenizerArgs,
    /// Print the text of these ids, byte for byte
    ///
    /// Without IDS, they are read from --file or stdin. Ids are separated by spaces, commas or line breaks, or are a list of
    /// JSON.
    #[arg(long, value_name = "IDS", num_args = 0..=1, help_heading = "Output")]
    #[arg(conflicts_with_all = ["positional", "prompt", "ids", "bos", "no_special", "count", "vocab", MANY])]
    pub decode: Option<Option<String>>,
    /// List the vocabulary, sorted by id
    #[arg(long, help_heading = "Output", conflicts_with_all = ["positional", "prompt", "file", "ids", "bos", "no_special", MANY])]
    pub vocab: bool,
    /// List only tokens whose piece (such as Ġtheory) matches this regular expression
    #[arg(long, value_name = "RE", requires = "vocab", help_heading = "Output")]
    pub grep: Option<String>,
    /// Show how byte-pair encoding built each word, merge by merge
    #[arg(long, conflicts_with_all = ["decode", "vocab", "count", "ids", "bos", MANY], help_heading = "Output")]
    pub merges: bool,
    /// With --merges, write tokens as the vocabulary spells them (Ġtheory), not as quoted text (" theory")
    #[arg(long, requires = "merges", help_heading = "Output")]
    pub pieces: bool,
    #[command(flatten)]
    pub raw_text: RawTextArg,
    /// Also write a page for the browser
    ///
    /// It shows the text in the colours of its tokens.
    #[arg(long, value_name = "F.html", conflicts_with_all = ["vocab", "merges", MANY], help_heading = "Output")]
    pub html: Option<PathBuf>,
    /// Print only the number of tokens
    #[arg(long, conflicts_with_all = ["format", "output"], help_heading = "Output")]
    pub count: bool,
    /// text, ids, json or jsonl
    ///
    /// How to write the result: text unless --input or --output is given, which take jsonl.
    #[arg(long, value_enum, help_heading = "Output")]
    pub format: Option<TokenizeFormat>,
    #[command(flatten)]
    pub texts: TextsArgs,
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
  gpt2 topk --model demo \"Once upon a\" --append 5
  gpt2 topk --model demo --lines texts.txt --shapes
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
    #[arg(help_heading = "View", long, conflicts_with_all = ["pieces", "all", "position", "tree", "append", "token", "html", "output"])]
    pub shapes: bool,
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

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 info --model demo
  gpt2 info --model gpt2-xl --format json
  gpt2 info --model demo --tensors
  gpt2 info --model demo --state-dict
  gpt2 info --model demo --module
  gpt2 info --model gpt2-xl --device cuda --dtype bf16
  gpt2 info --config config.json  (without --model: needs no weights)")]
pub struct InfoArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// List the checkpoint's tensors, under their names in the file
    #[arg(long, help_heading = "View")]
    pub tensors: bool,
    /// List names and shapes as PyTorch has them
    ///
    /// Those of `model.state_dict()` of transformers' model, after how many there are.
    #[arg(long, help_heading = "View")]
    pub state_dict: bool,
    /// Show the tree of modules as PyTorch has it
    ///
    /// That of `print(model)` of transformers' model.
    #[arg(long, help_heading = "View")]
    pub module: bool,
    /// text, json or jsonl
    ///
    /// How to write the result.
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub format: Format,
}
