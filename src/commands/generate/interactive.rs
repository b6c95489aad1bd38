//! Prompt after prompt on a terminal: the model is loaded once, with line editing and a history.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use anyhow::{Result, bail};
use rustyline::error::ReadlineError;
use rustyline::{DefaultEditor, history::History};

use super::{Generator, interrupt_flag, rand_seed};
use crate::cli::Prompt;
use crate::cli::advice::{self, Spelling};
use crate::output::{Stdout, say};

pub fn run(generator: &Generator<'_>) -> Result<()> {
    let mut editor = DefaultEditor::new()?;
    let history = history_file();
    if let Some(history) = history.as_ref().filter(|history| history.exists()) {
        // Run even if the history cannot be read.
        let _ = editor.load_history(history);
    }
    let interrupted = interrupt_flag()?;
    if !generator.verbosity.quiet && std::io::stdin().is_terminal() {
        say(format_args!(
            "{}: type a text to continue; Ctrl-C stops a completion, Ctrl-D quits",
            generator.loaded.name
        ));
    }
    loop {
        let line = match editor.readline("> ") {
            Ok(line) if line.trim().is_empty() => continue,
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(ReadlineError::Io(error)) if error.kind() == std::io::ErrorKind::InvalidData => {
                bail!("the line on stdin is not UTF-8");
            }
            Err(error) => return Err(error.into()),
        };
        let _ = editor.add_history_entry(&line);
        interrupted.store(false, Ordering::Relaxed);
        let mut out = Stdout::lock();
        let outcome = generator
            .request(&Prompt::Text(line), &generator.config, rand_seed())
            .and_then(|request| generator.write_text(&request, &interrupted, &mut out));
        out.finish()?;
        if let Err(error) = outcome {
            // A bad prompt does not end the session.
            say(format_args!("error: {}", advice::lines(&error, "generate", Spelling::Flags).join(": ")));
        }
    }
    if let Some(history) = history.filter(|_| !editor.history().is_empty()) {
        if let Some(folder) = history.parent() {
            let _ = std::fs::create_dir_all(folder);
        }
        let _ = editor.save_history(&history);
    }
    Ok(())
}

/// `$XDG_STATE_HOME/gpt2/history`, or under `~/.local/state`.
fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    state.or_else(home).map(|state| state.join("gpt2/history"))
}
