//! The flags for many inputs from a file, one JSON object a line.

use std::path::PathBuf;

use clap::Args;

/// Rows: where they come from, where their results go, and what becomes of keys that mean nothing to the program.
#[derive(Debug, Args)]
pub struct RowArgs {
    /// Many texts: {"id", "prompt"} a line; - for stdin
    ///
    /// Rows, one JSON object a line: {"id", "prompt"} or {"id", "prompt_ids"} (`text` and `ids` are the same), and, for
    /// generate, any decoding parameter in snake_case.
    #[arg(long, value_name = "F.jsonl", conflicts_with_all = ["positional", "prompt", "file", "ids"])]
    pub input: Option<PathBuf>,
    /// Their results, an object a line [default: stdout]
    ///
    /// They are written as they finish. F.jsonl.gpt2 beside it says what they were made with, for --resume.
    #[arg(long, value_name = "F.jsonl")]
    pub output: Option<PathBuf>,
    /// Continue the output of an earlier run: skip rows that are complete in it. Model and parameters must be the same
    #[arg(long)]
    pub resume: bool,
    /// Which of a row's other keys to carry into its result, under `input` [default: all]
    #[arg(long, value_name = "KEY,...", value_delimiter = ',', conflicts_with = "strict")]
    pub keep: Option<Vec<String>>,
    /// Refuse rows with other keys
    #[arg(long)]
    pub strict: bool,
}
