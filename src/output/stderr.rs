//! Messages on stderr, none of which can drive the terminal.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;

use gpt2::{memory, printable};

/// Writes a message on one line. Errors are ignored, since there is nowhere to report them.
pub fn say(message: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{}", printable::line(&message.to_string()));
}

/// Says that a file was written, what is in it, and how large it is.
pub fn say_written(path: &Path, what: impl Display) {
    let size = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file);
    let size = size.map(|file| format!(", {}", memory::readable(file.len()))).unwrap_or_default();
    say(format_args!("wrote {}: {what}{size}", path.display()));
}

/// Writes an error on one line.
pub fn say_error(error: &str) {
    let bold_red = anstyle::AnsiColor::Red.on_default().bold();
    let _ = writeln!(anstream::stderr().lock(), "{bold_red}error:{bold_red:#} {}", shortened(error));
}

/// A line for a terminal: it may quote a text of any length, of which the start and the end say enough.
fn shortened(line: &str) -> String {
    const LONGEST: usize = 1200;
    let line = printable::line(line);
    let count = line.chars().count();
    if count <= LONGEST {
        return line.into_owned();
    }
    let part = |skip: usize, take: usize| line.chars().skip(skip).take(take).collect::<String>();
    format!("{} ... {}", part(0, LONGEST / 2), part(count - LONGEST / 2, LONGEST / 2))
}
