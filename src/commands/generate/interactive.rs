//! Prompt after prompt on a terminal: the model is loaded once, with line editing and a history.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, anyhow};
use rustyline::error::ReadlineError;
use rustyline::{DefaultEditor, history::History};

use super::{Generator, rand_seed};
use crate::cli::Prompt;
use crate::cli::advice::{self, Spelling};
use crate::commands::interrupt_flag;
use crate::commands::rows::Lines;
use crate::output::{Stdout, say};

pub fn run(generator: &Generator<'_>) -> Result<()> {
    let interrupted = interrupt_flag()?;
    if !std::io::stdin().is_terminal() {
        for (number, line) in Lines::new(std::io::stdin().lock()) {
            let line = line.map_err(|error| error.context(format!("line {number}")));
            // A line ends with CR LF on Windows.
            let line = line.map(|line| line.strip_suffix('\r').map(str::to_owned).unwrap_or(line));
            complete(generator, line, &interrupted)?;
        }
        return Ok(());
    }
    let mut editor = DefaultEditor::new()?;
    let history = history_file();
    if let Some(history) = history.as_ref().filter(|history| history.exists()) {
        // Run even if the history cannot be read.
        let _ = editor.load_history(history);
    }
    if !generator.verbosity.quiet {
        say(format_args!(
            "{}: type a text to continue; Ctrl-C stops a completion, Ctrl-D quits",
            generator.loaded.name
        ));
    }
    loop {
        let line = match editor.readline("> ") {
            Ok(line) if line.trim().is_empty() => continue,
            Ok(line) => Ok(line),
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(ReadlineError::Io(error)) if error.kind() == std::io::ErrorKind::InvalidData => {
                Err(anyhow!("the line is not UTF-8"))
            }
            Err(error) => return Err(error.into()),
        };
        if let Ok(line) = &line {
            let _ = editor.add_history_entry(line);
        }
        complete(generator, line, &interrupted)?;
    }
    if let Some(history) = history.filter(|_| !editor.history().is_empty()) {
        if let Some(folder) = history.parent() {
            let _ = std::fs::create_dir_all(folder);
        }
        let _ = editor.save_history(&history);
    }
    Ok(())
}

/// Continues a line. What is wrong with it does not end the session.
fn complete(generator: &Generator<'_>, line: Result<String>, interrupted: &AtomicBool) -> Result<()> {
    interrupted.store(false, Ordering::Relaxed);
    let mut out = Stdout::lock().with_raw_text(generator.args.raw_text.raw_text);
    let outcome = line.and_then(|line| {
        let request = generator.request(&Prompt::Text(line), None, &generator.config, rand_seed())?;
        generator.write_text(&request, interrupted, &mut out)
    });
    let outcome = outcome.map_err(|error| generator.blame(error, &[]));
    out.finish()?;
    match outcome {
        Err(error) => {
            say(format_args!("error: {}", advice::lines(&error, "generate", Spelling::Flags).join(": ")));
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}

/// `$XDG_STATE_HOME/gpt2/history`, or under `~/.local/state`.
fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    state.or_else(home).map(|state| state.join("gpt2/history"))
}
