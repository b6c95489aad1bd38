//! What the program writes: documented records, which are the JSON contract, and their text for people.

pub mod bench;
pub mod convert;
pub mod generate;
pub mod html;
pub mod info;
pub mod score;
pub mod svg;
pub mod tokenize;
pub mod tokens;
pub mod topk;
pub mod trace;

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::cli::Format;

/// Standard output, locked and buffered. Its errors can be distinguished from those of files and sockets.
pub struct Stdout(BufWriter<anstream::AutoStream<io::StdoutLock<'static>>>);

/// An error of standard output.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to stdout: {0}")]
struct StdoutError(io::Error);

impl Stdout {
    /// Locks standard output. Colour codes are stripped if they are not supported or not wanted.
    pub fn lock() -> Self {
        Self(BufWriter::new(anstream::AutoStream::auto(io::stdout().lock())))
    }

    /// Whether standard output is a terminal.
    pub fn is_terminal() -> bool {
        io::stdout().is_terminal()
    }

    /// Writes all of the bytes unchanged, without stripping colour codes.
    pub fn write_exactly(bytes: &[u8]) -> Result<()> {
        let mut stdout = io::stdout().lock();
        Ok(stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(mark)?)
    }

    /// Flushes the buffer, then writes a model's text unchanged: escape codes in it belong to the text.
    pub fn text(&mut self, text: &str) -> Result<()> {
        self.flush()?;
        Self::write_exactly(text.as_bytes())
    }

    /// Whether colours are supported and wanted.
    pub fn has_colour() -> bool {
        anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never
    }

    /// The width of the terminal in columns; a fixed width without one, so that output to a file is always the same.
    pub fn width() -> usize {
        terminal_size::terminal_size_of(io::stdout()).map_or(100, |(width, _)| usize::from(width.0)).max(40)
    }

    /// Flushes the buffer.
    pub fn finish(&mut self) -> Result<()> {
        Ok(self.flush()?)
    }

    /// Writes one JSON value: indented for `json`, on one line for `jsonl`.
    pub fn json<T: Serialize>(&mut self, value: &T, format: Format) -> Result<()> {
        if format == Format::Json {
            serde_json::to_writer_pretty(&mut *self, value).map_err(io::Error::from)?;
        } else {
            serde_json::to_writer(&mut *self, value).map_err(io::Error::from)?;
        }
        Ok(self.write_all(b"\n")?)
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(mark)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(mark)
    }
}

fn mark(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), StdoutError(error))
}

/// Writes a line to stderr. Ignores errors, since there is nowhere to report them.
pub fn say(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Writes a file, which appears only once it is complete.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = |error| gpt2::Error::io("write", path)(error);
    Ok(gpt2::files::atomically(path, |file| file.write_all(bytes).map_err(write))?)
}

/// Checks that the folder of an output file exists, so that a mistake shows before the work is done.
pub fn check_folder(path: Option<&Path>) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let missing = |error: io::Error| {
        let what = format!("there is no folder {}", folder.display());
        Err(error).context(what).with_context(|| format!("cannot create {}", path.display()))
    };
    match std::fs::metadata(folder) {
        Ok(folder) if folder.is_dir() => Ok(()),
        Ok(_) => missing(io::ErrorKind::NotADirectory.into()),
        Err(error) => missing(error),
    }
}

/// Whether an error means that the reader of standard output is gone.
pub fn is_closed_pipe(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe && error.get_ref().is_some_and(|inner| inner.is::<StdoutError>())
}

/// What every record of a batch says about its row. Values come back as they were written.
#[derive(Debug, Serialize)]
pub struct RowRecord {
    /// The row's id; null if it has none, or if the line could not be read.
    pub id: Option<Box<RawValue>>,
    /// Its line in the input, counted from 1.
    pub line: usize,
    /// The row's keys that mean nothing to the program; null if there are none.
    pub input: Option<Carried>,
}

/// Keys with their values as written, in the order given.
#[derive(Debug)]
pub struct Carried(pub Vec<(String, Box<RawValue>)>);

impl Serialize for Carried {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

/// A failed row of a batch.
#[derive(Debug, Serialize)]
pub struct ErrorRecord {
    /// The row.
    #[serde(flatten)]
    pub row: RowRecord,
    /// Why, on one line.
    pub error: String,
}

/// A token for display: control characters are escaped, so that a token stays on one line.
pub fn visible(text: &str) -> String {
    text.chars()
        .map(|c| if tokens::is_unprintable(c) { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}
