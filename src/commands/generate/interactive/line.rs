//! What a user types: texts, of one line or several, and commands.

use std::borrow::Cow;
use std::io::{IsTerminal, StdinLock};
use std::path::PathBuf;

use anyhow::{Result, anyhow};
use gpt2::printable::is_printable;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::history::{DefaultHistory, History};
use rustyline::validate::Validator;
use rustyline::{Editor, GraphemeClusterMode, Helper};

use crate::commands::rows::Lines;

/// What opens and closes a text of several lines.
const QUOTES: &str = "\"\"\"";

/// One thing that a user typed.
pub enum Input {
    /// A text to continue, or why it cannot be read.
    Text(Result<String>),
    /// A command without its slash, and what follows it.
    Command(String, String),
}

/// Where lines come from.
pub enum Reader {
    Terminal(Box<Editor<Drawing, DefaultHistory>>),
    /// With the number of the last line; blank lines are not read.
    Pipe(Lines<StdinLock<'static>>, usize),
}

/// A line; none if Ctrl-C took it back.
type Line = Option<Result<String>>;

impl Reader {
    /// Reads from stdin; also says whether that is a terminal.
    pub fn open() -> Result<(Self, bool)> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Ok((Self::Pipe(Lines::new(stdin.lock()), 0), false));
        }
        let mut editor = Editor::new()?;
        editor.set_helper(Some(Drawing));
        if let Some(history) = history_file().filter(|history| history.exists()) {
            // Run even if the history cannot be read.
            let _ = editor.load_history(&history);
        }
        Ok((Self::Terminal(Box::new(editor)), true))
    }

    /// Keeps the history of a terminal.
    pub fn close(self) {
        let Self::Terminal(mut editor) = self else { return };
        if let Some(history) = history_file().filter(|_| !editor.history().is_empty()) {
            if let Some(folder) = history.parent() {
                let _ = std::fs::create_dir_all(folder);
            }
            let _ = editor.save_history(&history);
        }
    }

    /// What comes next; none at the end.
    ///
    /// # Errors
    /// If the terminal fails.
    pub fn next(&mut self) -> Result<Option<Input>> {
        loop {
            let line = match self.line("> ")? {
                None => return Ok(None),
                Some(None) => continue,
                Some(Some(Err(error))) => return Ok(Some(Input::Text(Err(error)))),
                Some(Some(Ok(line))) => line,
            };
            if let Some(first) = line.strip_prefix(QUOTES) {
                match self.rest(first.to_owned())? {
                    Some(text) => return Ok(Some(Input::Text(text))),
                    None => continue,
                }
            }
            let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((&line, ""));
            // A path is a text.
            let command = word.strip_prefix('/').filter(|name| name.bytes().all(|byte| byte.is_ascii_lowercase()));
            return match command.filter(|name| !name.is_empty()) {
                Some(name) => Ok(Some(Input::Command(name.to_owned(), rest.trim().to_owned()))),
                None if line.trim().is_empty() => continue,
                None => Ok(Some(Input::Text(Ok(line)))),
            };
        }
    }

    /// The text of several lines after its opening quotes; none if it was taken back.
    fn rest(&mut self, mut text: String) -> Result<Option<Result<String>>> {
        while !text.ends_with(QUOTES) {
            let before = self.number();
            match self.line("… ")? {
                // The end closes it as well.
                None => return Ok(Some(Ok(text))),
                Some(None) => return Ok(None),
                Some(Some(Err(error))) => return Ok(Some(Err(error))),
                Some(Some(Ok(line))) => {
                    let breaks = self.number().saturating_sub(before).max(1);
                    text.push_str(&"\n".repeat(breaks));
                    text.push_str(&line);
                }
            }
        }
        text.truncate(text.len() - QUOTES.len());
        // The quotes may stand on lines of their own.
        let text = text.strip_prefix('\n').unwrap_or(&text);
        Ok(Some(Ok(text.strip_suffix('\n').unwrap_or(text).to_owned())))
    }

    fn number(&self) -> usize {
        match self {
            Self::Terminal(_) => 0,
            Self::Pipe(_, number) => *number,
        }
    }

    fn line(&mut self, prompt: &str) -> Result<Option<Line>> {
        let editor = match self {
            Self::Pipe(lines, last) => {
                let Some((number, line)) = lines.next() else { return Ok(None) };
                *last = number;
                let line = line.map_err(|error| error.context(format!("line {number}")));
                // A line ends with CR LF on Windows.
                return Ok(Some(Some(line.map(|line| line.strip_suffix('\r').map(str::to_owned).unwrap_or(line)))));
            }
            Self::Terminal(editor) => editor,
        };
        match editor.readline(prompt) {
            Ok(line) => {
                let _ = editor.add_history_entry(&line);
                Ok(Some(Some(Ok(line))))
            }
            Err(ReadlineError::Interrupted) => Ok(Some(None)),
            Err(ReadlineError::Eof) => Ok(None),
            Err(ReadlineError::Io(error)) if error.kind() == std::io::ErrorKind::InvalidData => {
                Ok(Some(Some(Err(anyhow!("the line is not UTF-8")))))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// How the line is drawn while it is edited: without what would drive the terminal, which can come with a pasted text.
pub struct Drawing;

impl Highlighter for Drawing {
    /// The editor counts columns before this, so each of these characters leaves as many as it takes in its eyes.
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        if line.chars().all(is_drawn) {
            return line.into();
        }
        let columns = |c: char| GraphemeClusterMode::from_env().width(c.encode_utf8(&mut [0; 4]));
        let mut drawn = String::with_capacity(line.len());
        for c in line.chars() {
            match is_drawn(c) {
                true => drawn.push(c),
                false => drawn.extend((0..columns(c)).map(|_| char::REPLACEMENT_CHARACTER)),
            }
        }
        drawn.into()
    }

    fn highlight_char(&self, line: &str, _: usize, _: CmdKind) -> bool {
        !line.chars().all(is_drawn)
    }
}

impl Completer for Drawing {
    type Candidate = String;
}

impl Hinter for Drawing {
    type Hint = String;
}

impl Validator for Drawing {}

impl Helper for Drawing {}

fn is_drawn(c: char) -> bool {
    is_printable(c) || matches!(c, '\n' | '\t')
}

/// `$XDG_STATE_HOME/gpt2/history`, or under `~/.local/state`.
fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    state.or_else(home).map(|state| state.join("gpt2/history"))
}
