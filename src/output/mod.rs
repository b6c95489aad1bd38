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

use anyhow::Result;
use serde::Serialize;

use crate::cli::Format;

/// Standard output, locked and buffered. Its errors can be told from those of files and sockets.
pub struct Stdout(BufWriter<anstream::AutoStream<io::StdoutLock<'static>>>);

/// Marks an error as one of standard output.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to stdout: {0}")]
struct StdoutError(io::Error);

impl Stdout {
    /// Locks standard output. Colour codes are left out where they would not be understood or are not wanted.
    pub fn lock() -> Self {
        Self(BufWriter::new(anstream::AutoStream::auto(io::stdout().lock())))
    }

    /// Whether a person is looking.
    pub fn is_terminal() -> bool {
        io::stdout().is_terminal()
    }

    /// Writes bytes as they are, and all of them; colour codes among them stay.
    pub fn write_exactly(bytes: &[u8]) -> Result<()> {
        let mut stdout = io::stdout().lock();
        Ok(stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(mark)?)
    }

    /// Writes a model's text as it is, after what is buffered: escape codes in it are the text's own.
    pub fn text(&mut self, text: &str) -> Result<()> {
        self.flush()?;
        Self::write_exactly(text.as_bytes())
    }

    /// Whether colours can be seen and are wanted.
    pub fn has_colour() -> bool {
        anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never
    }

    /// Columns of the terminal; a fixed width where there is none, so that what goes to a file does not depend on it.
    pub fn width() -> usize {
        terminal_size::terminal_size_of(io::stdout()).map_or(100, |(width, _)| usize::from(width.0)).max(40)
    }

    /// Writes out what is buffered.
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

/// Says something on stderr. If that is full or gone there is nobody to tell.
pub fn say(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Writes a file, which appears once it is whole.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = |error| gpt2::Error::io("write", path)(error);
    Ok(gpt2::files::atomically(path, |file| file.write_all(bytes).map_err(write))?)
}

/// Checks that there is a folder for a file to be written, so that it is not found out at the end of the work.
pub fn check_folder(path: Option<&Path>) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let missing = |error| gpt2::Error::io("create", path)(error);
    match std::fs::metadata(folder) {
        Ok(folder) if folder.is_dir() => Ok(()),
        Ok(_) => Err(missing(io::ErrorKind::NotADirectory.into()).into()),
        Err(error) => Err(missing(error).into()),
    }
}

/// Whether an error says that nobody reads standard output any more.
pub fn is_closed_pipe(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe && error.get_ref().is_some_and(|inner| inner.is::<StdoutError>())
}

/// A row of a batch that failed.
#[derive(Debug, Serialize)]
pub struct ErrorRecord {
    /// The row's id; null if the line could not be read.
    pub id: serde_json::Value,
    /// Why, on one line.
    pub error: String,
}

/// A token as people see it: control characters as escapes, so that one token stays on one line.
pub fn visible(text: &str) -> String {
    text.chars()
        .map(|c| if tokens::is_unprintable(c) { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}
