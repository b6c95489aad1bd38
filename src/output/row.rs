//! What every record of a batch says about its row, and the batch about itself.

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// What every record of a batch says about its row, before all else. Values come back as they were written. All records of a
/// batch have the same keys: those that may be absent elsewhere are null, and of a row that failed all keys of a result are.
#[derive(Debug, Serialize)]
pub struct RowRecord {
    /// The row's id; null if it has none, or if the line could not be read.
    pub id: Option<Box<RawValue>>,
    /// Its line in the input, counted from 1.
    pub line: usize,
    /// The file of the line, if there are several; else null.
    pub file: Option<String>,
    /// Whether this is a result.
    pub ok: bool,
    /// Why the row failed, on one line; null if it did not.
    pub error: Option<String>,
    /// What kind of failure that is; null if it did not fail.
    pub error_kind: Option<ErrorKind>,
    /// The line, shortened, if it could not be read; else null.
    pub row: Option<String>,
    /// The row's keys that mean nothing to the program; null if there are none.
    pub input: Option<Carried>,
}

impl RowRecord {
    /// What is known of a row before it is read.
    pub fn new(line: usize) -> Self {
        Self { id: None, line, file: None, ok: true, error: None, error_kind: None, row: None, input: None }
    }
}

/// Why a row failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorKind {
    /// The line is not a JSON object.
    Json,
    /// A key or a value is wrong.
    Usage,
    /// The tokenizer cannot handle the text or the ids.
    Tokenizer,
    /// The text is longer than the model's context.
    Context,
    /// The numbers leave no token to choose.
    Numerics,
    /// It takes more memory than there is.
    Memory,
    /// What computes failed.
    Device,
    /// A file could not be read or written.
    Io,
}

impl ErrorKind {
    /// The kind of an error of this program.
    pub fn of(error: &anyhow::Error) -> Self {
        use gpt2::Error;
        match error.chain().find_map(|cause| cause.downcast_ref::<Error>()) {
            Some(Error::Tokenizer(_)) => Self::Tokenizer,
            Some(Error::Context { .. } | Error::AfterContext { .. }) => Self::Context,
            Some(Error::Numerics(_)) => Self::Numerics,
            Some(Error::Memory { .. } | Error::OutOfMemory(_) | Error::DeviceMemory(_)) => Self::Memory,
            Some(Error::Backend(_) | Error::Device { .. }) => Self::Device,
            Some(Error::Io { .. }) => Self::Io,
            _ => Self::Usage,
        }
    }
}

/// Keys with their values as written, in the order given.
#[derive(Debug)]
pub struct Carried(pub Vec<(String, Box<RawValue>)>);

impl Serialize for Carried {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

/// How a batch went, in a file that is written once it is whole.
#[derive(Debug, Serialize)]
pub struct SummaryRecord {
    /// Rows in the input, or in its shard.
    pub rows: u64,
    /// Rows with a result, from this run or an earlier one that it continued.
    pub ok: u64,
    /// Rows that failed.
    pub failed: u64,
    /// Tokens that this run has worked on: of `generate` those it generated, else those it read.
    pub tokens: u64,
    /// Seconds that the run took, without loading the model.
    pub seconds: f64,
    /// Identifies the model, the parameters and the rows: equal if and only if all of these are.
    pub fingerprint: String,
    /// The shard, I/N; null without `--shard`.
    pub shard: Option<String>,
}
