//! The flags of `gpt2 tokenize`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{MANY, RawTextArg, TextArgs, TextsArgs, TokenizerArgs};

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
