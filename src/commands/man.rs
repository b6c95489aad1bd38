//! `gpt2 man`: writes the man pages.

use std::io::Write;
use std::path::Path;

use gpt2::{Error, files};

use crate::cli::{Verbosity, man, retyped};
use crate::output::say_written;

pub fn run(folder: &Path, verbosity: Verbosity) -> anyhow::Result<()> {
    // Of a folder that is not there, the name may be a slip: `gpt2 man generate` asks for a page to read.
    if !folder.is_dir() {
        let shown = gpt2::printable::path(folder);
        let next = match man::subcommand(folder) {
            Some(name) => format!("to read about gpt2 {name}: gpt2 {name} --help"),
            None => format!("to make it: mkdir {}", retyped::word(&folder.to_string_lossy())),
        };
        anyhow::bail!("{shown} is not a folder, and the man pages go into one; {next}");
    }
    let pages = man::pages()?;
    for page in &pages {
        let path = folder.join(&page.file);
        files::atomically(&path, |file| file.write_all(page.text.as_bytes()).map_err(Error::io("write", &path)))?;
    }
    if !verbosity.quiet {
        say_written(folder, format_args!("{} man pages", pages.len()));
    }
    Ok(())
}
