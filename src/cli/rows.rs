//! The flags for many inputs: from a file with one JSON object a line, or one text a line.

use std::path::{Path, PathBuf};

use clap::Args;
use gpt2::Error;

use super::{Format, number};

/// The id of the group of flags that name an input of many rows.
pub const MANY: &str = "many";

/// Rows: where they come from, where their results go, and what becomes of keys that mean nothing to the program.
#[derive(Debug, Args)]
pub struct RowArgs {
    /// Many texts: {"id", "prompt"} a line; - for stdin
    ///
    /// Rows, one JSON object a line: {"id", "prompt"} or {"id", "prompt_ids"} (`text` and `ids` are the same), and, for
    /// generate, any decoding parameter in snake_case.
    #[arg(long, value_name = "F.jsonl", group = MANY, conflicts_with_all = ["positional", "prompt", "file", "ids"])]
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

/// Many texts, as rows or as lines, for a subcommand that also shows results to people.
#[derive(Debug, Args)]
#[command(next_help_heading = "Batch")]
pub struct TextsArgs {
    #[command(flatten)]
    pub rows: RowArgs,
    /// Many texts: one a line; - for stdin
    ///
    /// Each result has its text as a heading.
    #[arg(long, value_name = "F", group = MANY)]
    #[arg(conflicts_with_all = ["positional", "prompt", "file", "ids", "input", "keep", "strict"])]
    pub lines: Option<PathBuf>,
}

/// How many texts go through the network together.
#[derive(Debug, Args)]
#[command(next_help_heading = "Batch")]
pub struct BatchSizeArg {
    /// Texts to process at the same time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = number::whole::<usize>(1..=4096))]
    pub batch_size: usize,
}

impl TextsArgs {
    /// The file of the texts, if they come from one.
    pub fn path(&self) -> Option<&Path> {
        self.rows.input.as_deref().or(self.lines.as_deref())
    }

    /// Whether results are for people: those of lines are, unless `--format` asks for records.
    pub fn is_text(&self, asked: Option<bool>) -> bool {
        asked.unwrap_or(self.lines.is_some())
    }

    /// Whether this `--format` gives text for people.
    pub fn is_for_people(&self, format: Option<Format>) -> bool {
        let has_records = self.rows.input.is_some() || self.rows.output.is_some();
        format.map_or(!has_records, |format| format == Format::Text)
    }

    /// Refuses text for people in a file of records.
    ///
    /// # Errors
    /// If the format `is_text`, and an output is given.
    pub fn check_format(&self, is_text: bool) -> Result<(), Error> {
        match &self.rows.output {
            Some(_) if is_text => Err(Error::Usage(
                "--output takes one JSON object a line; for text, leave it out and redirect stdout (> F)".into(),
            )),
            _ => Ok(()),
        }
    }
}
