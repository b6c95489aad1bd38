//! The command line: clap's derive structs, the settings below the flags, and messages in the user's words. Flags shared by
//! several subcommands form groups.

pub mod advice;
mod arguments;
mod bench;
mod combinations;
pub mod completions;
mod compress;
mod config_file;
mod convert;
mod decoding;
mod embed;
mod files;
mod generate;
mod help;
mod info;
mod inside;
mod interventions;
pub mod man;
mod model;
mod number;
mod parse;
mod patch;
mod pieces;
pub mod retyped;
mod rows;
mod score;
#[cfg(feature = "serve")]
mod serve;
pub mod settings;
mod text;
mod tokenize;
mod topk;
mod trace;
mod unknown;
mod version;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint};

pub use bench::BenchArgs;
pub use compress::{CompressArgs, DecompressArgs};
pub use convert::ConvertArgs;
pub use decoding::{ConstraintFile, DecodingArgs, ProcessorArgs};
pub use embed::EmbedArgs;
pub use generate::GenerateArgs;
pub use info::InfoArgs;
pub use inside::{AttributionArgs, HeadsArgs};
pub use interventions::{InterventionArgs, SteerAgainst, SteerFile};
pub use model::{DEFAULT_MODEL, ModelArgs, TokenizerArgs};
pub use parse::{command, parse};
pub use patch::PatchArgs;
pub use pieces::PiecesArg;
pub use rows::{BatchSizeArg, MANY, OnRowError, Progress, RowArgs, SeedBy, SeedByArg, Shard, TextsArgs};
pub use score::{ScoreArgs, ScoreFormat, WordCorrection};
#[cfg(feature = "serve")]
pub use serve::ServeArgs;
pub use settings::Settings;
pub use text::{Prompt, TextArgs, flag_ids, is_stdin, longest_text, read_text};
pub use tokenize::{TokenizeArgs, TokenizeFormat};
pub use topk::TopkArgs;
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
    /// What is said elsewhere than on the command line.
    #[arg(skip)]
    pub settings: Settings,
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "Examples:
  gpt2 generate --model demo --prompt \"Once upon a time\"
  gpt2 tokenize \"The theory of relativity\"
  gpt2 topk --model demo --prompt \"Once upon a\" -k 5
  echo \"The answer is\" | gpt2 generate -n 20 --completion-only

The model `demo` is built in; others are loaded from a folder or the Hugging Face hub.
Defaults of your own go into a config file; gpt2 info --settings says where it is.";

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
    Tokenize(Box<TokenizeArgs>),
    /// Show the distribution of the next token
    Topk(Box<TopkArgs>),
    /// Score a text: log-probabilities, ranks, perplexity
    Score(Box<ScoreArgs>),
    /// Look inside: hidden states, attention, logit lens
    Trace(Box<TraceArgs>),
    /// Find where an answer comes from: activations of one prompt put into another
    Patch(PatchArgs),
    /// Turn texts into vectors
    Embed(Box<EmbedArgs>),
    /// Answer OpenAI's clients over HTTP
    #[cfg(feature = "serve")]
    Serve(ServeArgs),
    /// Show a model's architecture, parameters and memory
    Info(InfoArgs),
    /// Convert a model to GGUF or safetensors and another number type
    Convert(ConvertArgs),
    /// Compress a file by a model's probabilities, without loss
    Compress(CompressArgs),
    /// Get back what was compressed
    Decompress(DecompressArgs),
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
    /// Write man pages into a folder
    ///
    /// One page for the program and one for each subcommand.
    #[command(after_help = "Examples:
  gpt2 man ~/.local/share/man/man1    # then: man gpt2-generate
  gpt2 man . && man ./gpt2-topk.1")]
    Man {
        /// The folder
        #[arg(value_hint = ValueHint::DirPath)]
        folder: PathBuf,
    },
}

impl Command {
    /// Whether a run goes by settings: what only describes the program does not, and serves to mend them.
    fn takes_settings(&self) -> bool {
        !matches!(self, Self::Completions { .. } | Self::Man { .. })
    }

    /// The subcommand's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Generate(_) => "generate",
            Self::Tokenize(_) => "tokenize",
            Self::Topk(_) => "topk",
            Self::Score(_) => "score",
            Self::Trace(_) => "trace",
            Self::Patch(_) => "patch",
            Self::Embed(_) => "embed",
            #[cfg(feature = "serve")]
            Self::Serve(_) => "serve",
            Self::Info(_) => "info",
            Self::Convert(_) => "convert",
            Self::Compress(_) => "compress",
            Self::Decompress(_) => "decompress",
            Self::Bench(_) => "bench",
            Self::Completions { .. } => "completions",
            Self::Man { .. } => "man",
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

/// What a terminal gets of a text.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Output")]
pub struct RawTextArg {
    /// Let control characters in the text drive the terminal; without this flag, a terminal shows them as in \u{1b}. Files
    /// and pipes get the text as it is in any case
    #[arg(long)]
    pub raw_text: bool,
}
