//! What the program writes: documented records, which are the JSON contract, and their text for people.

pub mod attribution;
pub mod bench;
mod closed;
pub mod compress;
pub mod convert;
pub mod embed;
pub mod generate;
mod grid;
pub mod heads;
pub mod html;
pub mod info;
pub mod numbers;
#[cfg(feature = "serve")]
pub mod openai;
pub mod patch;
mod row;
pub mod score;
pub mod settings;
pub mod shapes;
mod stderr;
mod style;
pub mod svg;
pub mod tokenize;
pub mod tokens;
pub mod topk;
pub mod trace;

use std::fmt;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use anyhow::{Context, Result};
use gpt2::{json, printable};
use serde::Serialize;

pub use self::closed::{check as check_stdout, check_stdin};
pub use self::row::{Carried, ErrorKind, RowRecord, SummaryRecord};
pub use self::stderr::{say, say_error, say_written};
pub use self::style::Style;
use crate::cli::{Colour, Format};

/// Whether output and messages have colours, from now on.
pub fn set_colour(colour: Colour) {
    match colour {
        Colour::Auto => anstream::ColorChoice::Auto,
        Colour::Always => anstream::ColorChoice::Always,
        Colour::Never => anstream::ColorChoice::Never,
    }
    .write_global();
}

/// Standard output, locked and buffered. Its errors can be distinguished from those of files and sockets.
///
/// Everything that is written passes one of three borders, of which none lets others' text drive a terminal: `write!`
/// escapes, [`json`](Self::json) escapes as JSON does, and [`text`](Self::text) escapes if a terminal is to show it.
pub struct Stdout {
    out: BufWriter<anstream::AutoStream<io::StdoutLock<'static>>>,
    /// Whether text goes out as it is.
    is_raw: bool,
}

/// An error of standard output.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to stdout: {0}")]
struct StdoutError(io::Error);

impl Stdout {
    /// Locks standard output. Colour codes are stripped if they are not supported or not wanted.
    pub fn lock() -> Self {
        let out = BufWriter::new(anstream::AutoStream::auto(io::stdout().lock()));
        Self { out, is_raw: !Self::is_terminal() }
    }

    /// Lets [`text`](Self::text) reach a terminal as it is, if `is_wanted`.
    pub fn with_raw_text(self, is_wanted: bool) -> Self {
        Self { is_raw: self.is_raw || is_wanted, ..self }
    }

    /// Whether standard output is a terminal.
    pub fn is_terminal() -> bool {
        io::stdout().is_terminal()
    }

    /// Writes text of a user or a model: byte for byte, but on a terminal as [`printable::text`]. A character must not be
    /// split over two calls.
    pub fn text(&mut self, text: impl AsRef<[u8]>) -> Result<()> {
        // The stream of the buffer would strip escape codes, which belong to the text.
        self.out.flush().map_err(mark)?;
        closed::check().map_err(mark)?;
        let mut stdout = io::stdout().lock();
        let written = match self.is_raw {
            true => stdout.write_all(text.as_ref()),
            false => stdout.write_all(printable::text(text.as_ref()).as_bytes()),
        };
        Ok(written.and_then(|()| stdout.flush()).map_err(mark)?)
    }

    /// Whether colours are supported and wanted.
    pub fn has_colour() -> bool {
        anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never
    }

    /// The width of the terminal in columns, or what COLUMNS says if it does not tell; a fixed width without a terminal, so
    /// that output to a file is always the same.
    pub fn width() -> usize {
        let of_terminal =
            || Some(usize::from(terminal_size::terminal_size_of(io::stdout())?.0.0)).filter(|width| *width > 0);
        let by_environment = || std::env::var("COLUMNS").ok()?.parse().ok().filter(|_| Self::is_terminal());
        of_terminal().or_else(by_environment).unwrap_or(80).clamp(40, 1000)
    }

    /// Flushes the buffer.
    pub fn finish(&mut self) -> Result<()> {
        Ok(self.out.flush().map_err(mark)?)
    }

    /// Writes one JSON value: indented for `json`, on one line for `jsonl`.
    pub fn json<T: Serialize>(&mut self, value: &T, format: Format) -> Result<()> {
        closed::check().map_err(mark)?;
        match format {
            Format::Json => json::write_indented(&mut self.out, value),
            _ => json::write(&mut self.out, value),
        }
        .and_then(|()| self.out.write_all(b"\n"))
        .map_err(mark)?;
        Ok(())
    }

    /// Writes a line of JSON, which `json` gives.
    pub fn line(&mut self, json: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
        closed::check().map_err(mark)?;
        json(&mut self.out).and_then(|()| self.out.write_all(b"\n")).map_err(mark)?;
        self.finish()
    }

    /// What `write!` and `writeln!` call. Others' text among the arguments is escaped; line breaks, tabs and each [`Style`]
    /// are what they say.
    pub fn write_fmt(&mut self, arguments: fmt::Arguments<'_>) -> Result<()> {
        struct Border<'a> {
            out: &'a mut dyn Write,
            written: io::Result<()>,
        }

        impl fmt::Write for Border<'_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                let text = if Style::is_being_written() { text.into() } else { printable::lines(text) };
                self.written = self.out.write_all(text.as_bytes());
                if self.written.is_ok() { Ok(()) } else { Err(fmt::Error) }
            }
        }

        closed::check().map_err(mark)?;
        let mut border = Border { out: &mut self.out, written: Ok(()) };
        // It fails only if writing does.
        let _ = fmt::write(&mut border, arguments);
        Ok(border.written.map_err(mark)?)
    }
}

/// Standard output for bytes of any kind: see [`Stdout::text`].
pub struct BytesOut(Stdout);

impl BytesOut {
    /// Locks standard output; a terminal gets the bytes as they are if `is_raw`.
    pub fn lock(is_raw: bool) -> Self {
        Self(Stdout::lock().with_raw_text(is_raw))
    }
}

impl Write for BytesOut {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.0.text(bytes);
        written.map_err(|error| error.downcast().unwrap_or_else(io::Error::other))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lets no bytes drive a terminal: they are written as [`printable::text`]. A character must not be split over two calls.
pub struct ForTerminal<W>(pub W);

impl<W: Write> Write for ForTerminal<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_all(printable::text(bytes).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Whether an output is a terminal: stdout, or the file of one, such as `/dev/stdout` or `/dev/tty`.
pub fn is_terminal(output: Option<&Path>) -> bool {
    let Some(path) = output else { return Stdout::is_terminal() };
    // Opening something else may wait for a reader.
    #[cfg(unix)]
    let may_be =
        std::fs::metadata(path).is_ok_and(|found| std::os::unix::fs::FileTypeExt::is_char_device(&found.file_type()));
    #[cfg(not(unix))]
    let may_be = false;
    may_be && std::fs::File::options().append(true).open(path).is_ok_and(|file| file.is_terminal())
}

fn mark(error: io::Error) -> io::Error {
    let kind = if is_closed_pipe(&error) { io::ErrorKind::BrokenPipe } else { error.kind() };
    io::Error::new(kind, StdoutError(error))
}

/// Whether the reader of a pipe is gone.
pub fn is_closed_pipe(error: &io::Error) -> bool {
    /// How Windows may say it of a pipe that has a name, as those of some shells have.
    const ERROR_PIPE_NOT_CONNECTED: i32 = 233;
    error.kind() == io::ErrorKind::BrokenPipe || cfg!(windows) && error.raw_os_error() == Some(ERROR_PIPE_NOT_CONNECTED)
}

/// Writes a file, which appears only once it is complete.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    gpt2::files::check_output(path)?;
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
pub fn is_closed(error: &anyhow::Error) -> bool {
    let is_closed = |error: &io::Error| {
        error.kind() == io::ErrorKind::BrokenPipe && error.get_ref().is_some_and(|inner| inner.is::<StdoutError>())
    };
    error.chain().filter_map(|cause| cause.downcast_ref()).any(is_closed)
}
