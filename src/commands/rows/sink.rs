//! Writing results: each completely or not at all, and never twice.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use anyhow::{Context, Result, anyhow, bail};
use same_file::Handle;
use serde::Deserialize;
use serde_json::value::RawValue;

#[cfg(not(windows))]
use super::ledger::lock;
use super::ledger::{Ledger, Settings};
use super::row::Row;
use super::{Hash, Input, order};
use crate::cli::advice::{self, Spelling};
use crate::cli::{RowArgs, Verbosity, is_stdin};
use crate::commands::stop::whole_lines;
use crate::output::{self, Stdout, check_folder, say, say_written};

/// The output for results, one per line. Each line is written at once, so that at most the last one can be incomplete.
pub struct Sink {
    output: Output,
    /// What the rows said that an earlier run has completed, by their keys.
    done: HashMap<Hash, Hash>,
    /// How many lines this run has written.
    written: usize,
}

enum Output {
    Stdout(Box<Stdout>),
    /// A device or a pipe.
    Stream(File, PathBuf),
    File(File, PathBuf, Ledger),
}

/// Checks, without touching what is written, that it is not the input, under whatever name, and that its folder exists.
pub fn check(input: &Path, args: &RowArgs) -> Result<()> {
    for (flag, path) in [("--output", &args.output), ("--summary", &args.summary)] {
        if let Some(path) = path.as_ref().filter(|path| path.is_file()) {
            let input = if is_stdin(input) { Handle::stdin() } else { Handle::from_path(input) };
            if input.is_ok_and(|input| Handle::from_path(path).is_ok_and(|output| output == input)) {
                bail!(gpt2::Error::Usage(format!("{flag} {} is the input; give another file", path.display())));
            }
        }
        check_folder(path.as_deref())?;
    }
    match (&args.output, &args.summary) {
        (Some(output), Some(summary)) if output == summary => {
            bail!(gpt2::Error::Usage("--summary is the file of --output; give another file".into()))
        }
        _ => Ok(()),
    }
}

impl Sink {
    /// Opens the output. With `--resume`, continues that of an earlier run, whose seed becomes that of the settings.
    ///
    /// # Errors
    /// If another run is writing it, or if it was made with other settings.
    pub fn open(args: &RowArgs, input: &Input, settings: &mut Settings) -> Result<Self> {
        let Some(path) = &args.output else {
            let output = Output::Stdout(Box::new(Stdout::lock()));
            return Ok(Self { output, done: HashMap::new(), written: 0 });
        };
        let cannot_write = || format!("cannot write {}", path.display());
        if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            if args.resume {
                let what = format!("{} is no file, so there is nothing to continue in it", path.display());
                bail!(gpt2::Error::Usage(what));
            }
            let file = File::options().write(true).open(path).with_context(cannot_write)?;
            return Ok(Self { output: Output::Stream(file, path.clone()), done: HashMap::new(), written: 0 });
        }
        // Through links, so that two names of a file are one file.
        let is_link = path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
        let path = path.canonicalize().ok().filter(|_| is_link).unwrap_or_else(|| path.clone());
        let is_new = !args.resume || std::fs::metadata(&path).map_or(true, |metadata| metadata.len() == 0);
        let no_ledger = |is: &str| {
            let path = path.display();
            gpt2::Error::Usage(format!(
                "{path} cannot be continued: {path}.gpt2, which says what it was made with, {is}; give another --output"
            ))
        };
        if !is_new && !Ledger::exists(&path) {
            bail!(no_ledger("is missing"));
        }
        gpt2::files::check_output(&path)?;
        let mut ledger = Ledger::open(&path)?;
        let mut file = open(&path)?;
        let mut done = HashMap::new();
        if is_new {
            // In this order: a kill in between leaves an empty output, which means nothing.
            cut(&file, &path, 0).with_context(cannot_write)?;
            ledger.begin(settings)?;
        } else {
            let earlier = ledger.resume(&path, settings)?.ok_or_else(|| no_ledger("is damaged"))?;
            done = repair(&path, file, &earlier.contents, input.contents.as_ref())?;
            // A repair may have replaced the file.
            file = open(&path)?;
        }
        Ok(Self { output: Output::File(file, path, ledger), done, written: 0 })
    }

    /// Says which file was written and what is in it, if there is one.
    pub fn report(&self, verbosity: Verbosity) {
        if let (Output::File(_, path, ledger), false) = (&self.output, verbosity.quiet) {
            let (written, before) = (self.written, self.done.len());
            match ledger.replaced() {
                0 => {}
                1 => say("note: the result of 1 row of an earlier run was replaced; --resume would have kept it"),
                n => say(format_args!(
                    "note: the results of {n} rows of an earlier run were replaced; --resume would have kept them"
                )),
            }
            if written == 0 && before > 0 {
                let rows = if before == 1 { "the result of 1 row" } else { &*format!("the results of {before} rows") };
                return say(format_args!("note: {} had {rows} already; there were no others", path.display()));
            }
            let rows = if written == 1 { "row" } else { "rows" };
            let before = if before == 0 { String::new() } else { format!(" beside {before} of an earlier run") };
            say_written(path, format_args!("results of {written} {rows}{before}"));
        }
    }

    /// Puts the results of an earlier run and of this one in the order of the inputs, of which these are the names if there
    /// are several.
    pub fn ordered(mut self, files: &[String]) -> Result<Self> {
        if let Output::File(file, path, ledger) = self.output {
            let file = match self.written > 0 && !self.done.is_empty() {
                true => {
                    order::restore(&path, file, files)?;
                    open(&path)?
                }
                false => file,
            };
            self.output = Output::File(file, path, ledger);
        }
        Ok(self)
    }

    /// Whether an earlier run has completed the row.
    ///
    /// # Errors
    /// If it has completed another row of the same id, which can only be noticed now if the input is a stream.
    pub fn has(&self, row: &Row) -> Result<bool> {
        match self.done.get(&row.key) {
            Some(content) if *content != row.content => {
                Err(anyhow!("the row has changed since its result was written; give another --output"))
            }
            done => Ok(done.is_some()),
        }
    }

    /// Writes a line, which is the result of the row that is identified by its key and content, if that did not fail.
    pub fn line(
        &mut self,
        identity: Option<(Hash, Hash)>,
        json: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    ) -> Result<()> {
        let _whole = whole_lines().lock().unwrap_or_else(PoisonError::into_inner);
        if let (Output::File(_, _, ledger), Some((key, content))) = (&mut self.output, identity) {
            ledger.note(key, content)?;
        }
        self.written += 1;
        match &mut self.output {
            Output::Stdout(out) => out.line(json).map_err(|error| match output::is_closed(&error) {
                // Who reads less than all of it must not take that for all.
                true => anyhow!("the reader of stdout has closed it before the last row"),
                false => error,
            }),
            Output::Stream(file, path) => {
                write_line(file, json).with_context(|| format!("cannot write {}", path.display()))
            }
            Output::File(file, path, _) => {
                let whole = file.metadata().map(|metadata| metadata.len());
                write_line(file, json).with_context(|| {
                    // On a full disk part of the line may have been written.
                    let _ = whole.and_then(|len| cut(file, path, len));
                    format!("cannot write {}", path.display())
                })
            }
        }
    }
}

/// Why a row failed, on one line; with the advice for a subcommand.
pub(super) fn error_line(error: &anyhow::Error, subcommand: &str) -> String {
    advice::line(error, subcommand, Spelling::Keys)
}

/// Writes a line at once, unless it is very long.
fn write_line(file: &mut File, json: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> std::io::Result<()> {
    let mut writer = BufWriter::with_capacity(1 << 16, file);
    json(&mut writer)?;
    writer.write_all(b"\n")?;
    writer.flush()
}

/// Opens an output, to append to it and to read it.
fn open(path: &Path) -> Result<File> {
    let file = File::options().read(true).append(true).create(true).open(path);
    let file = file.with_context(|| format!("cannot write {}", path.display()))?;
    // Two names of a file have two ledgers. On Windows, a lock would keep readers away until the run has ended.
    #[cfg(not(windows))]
    lock(&file, path)?;
    Ok(file)
}

/// Cuts the open file to this length; by its path on Windows, which cannot cut what is open to append to. Elsewhere another
/// file may have that path by now.
fn cut(file: &File, path: &Path, len: u64) -> std::io::Result<()> {
    if cfg!(windows) {
        return File::options().write(true).open(path)?.set_len(len);
    }
    file.set_len(len)
}

impl Row {
    /// What identifies the row's result.
    pub fn identity(&self) -> (Hash, Hash) {
        (self.key, self.content)
    }
}

/// Repairs the output of an earlier run: drops an incomplete last line, the lines of failed rows, and results that are not
/// in the ledger; all those rows are run again. Returns what the rows said that are left.
///
/// # Errors
/// [`gpt2::Error::Usage`] if a row that has a result says something else now; then nothing is changed.
fn repair(
    path: &Path,
    file: File,
    ledger: &HashMap<Hash, Hash>,
    input: Option<&HashMap<Hash, Hash>>,
) -> Result<HashMap<Hash, Hash>> {
    #[derive(Deserialize)]
    struct Record<'a> {
        #[serde(borrow)]
        id: Option<&'a RawValue>,
        line: usize,
        file: Option<String>,
        #[serde(borrow)]
        error: Option<&'a RawValue>,
    }
    let cannot_read = || format!("cannot read {}", path.display());
    let mut file = BufReader::new(file);
    let mut done = HashMap::new();
    // The parts of the file that stay.
    let mut kept: Vec<Range<u64>> = vec![];
    let (mut line, mut start) = (vec![], 0);
    for number in 1.. {
        line.clear();
        file.read_until(b'\n', &mut line).with_context(cannot_read)?;
        if line.pop() != Some(b'\n') {
            break;
        }
        let Ok(record) = serde_json::from_slice::<Record<'_>>(&line) else {
            bail!("{} is not the output of an earlier run: line {number} is no result", path.display());
        };
        let key = super::row::key(record.id, record.file.as_deref(), record.line);
        let content = ledger.get(&key).filter(|_| record.error.is_none());
        // A row that is no longer in the input keeps its result.
        let now = input.and_then(|input| input.get(&key));
        if let (Some(content), Some(now)) = (content, now)
            && content != now
        {
            let row = record.id.map_or_else(|| format!("line {}", record.line), |id| format!("the row {}", id.get()));
            let file = record.file.map(|file| format!(" of {file}")).unwrap_or_default();
            bail!(gpt2::Error::Usage(format!(
                "{} was made with other rows: {row}{file} has changed since; give the same rows, or another --output",
                path.display()
            )));
        }
        let end = start + line.len() as u64 + 1;
        if let Some(content) = content
            && done.insert(key, *content).is_none()
        {
            match kept.last_mut().filter(|last| last.end == start) {
                Some(last) => last.end = end,
                None => kept.push(start..end),
            }
        }
        start = end;
    }
    let cannot_write = || format!("cannot write {}", path.display());
    let whole = match kept.as_slice() {
        [] => Some(0),
        [only] if only.start == 0 => Some(only.end),
        _ => None,
    };
    if let Some(len) = whole {
        // Only the end is dropped. The file stays the same one, with its other names.
        cut(file.get_ref(), path, len).with_context(cannot_write)?;
    } else {
        order::rewrite(path, file.into_inner(), kept.iter())?;
    }
    Ok(done)
}
