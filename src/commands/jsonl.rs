//! JSONL in and out, as every batch has it: lines that are read ahead, results that are whole or not there, resuming.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::{Context, Result, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::output::{ErrorRecord, Stdout};

/// A line as it was read, with its number from 1.
pub type Line = (usize, Result<String>);

/// Reads the input's lines on a thread of its own, a few ahead, so that a pipe need not be read to its end.
pub fn read_lines(input: &Path) -> Result<Receiver<Line>> {
    let reader: Box<dyn BufRead + Send> = if input == Path::new("-") {
        Box::new(BufReader::new(std::io::stdin()))
    } else {
        let file = File::open(input).with_context(|| format!("cannot read {}", input.display()))?;
        Box::new(BufReader::new(file))
    };
    let (sender, receiver) = sync_channel(64);
    std::thread::spawn(move || {
        for (i, line) in reader.split(b'\n').enumerate() {
            let failed = line.is_err();
            let line = line.context("cannot read the input").and_then(|bytes| {
                String::from_utf8(bytes)
                    .map_err(|e| anyhow!("invalid UTF-8 at offset {}", e.utf8_error().valid_up_to()))
            });
            let blank = line.as_ref().is_ok_and(|line| line.trim().is_empty());
            if !blank && sender.send((i + 1, line)).is_err() || failed {
                break;
            }
        }
    });
    Ok(receiver)
}

/// A bar over the rows on a terminal; how many there are is known of a file, not of a pipe.
pub fn progress(input: &Path, quiet: bool) -> Result<ProgressBar> {
    if quiet || !std::io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let bar = if input.is_file() {
        let file = File::open(input).with_context(|| format!("cannot read {}", input.display()))?;
        let rows = BufReader::new(file).split(b'\n').filter(|line| line.as_ref().is_ok_and(|l| !l.is_empty())).count();
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} rows, {msg}, {eta} left")?;
        ProgressBar::new(rows as u64).with_style(style)
    } else {
        ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {pos} rows, {msg}")?)
    };
    bar.enable_steady_tick(std::time::Duration::from_millis(200));
    Ok(bar)
}

/// How a batch ends of which so many rows failed.
pub fn outcome(failed: usize) -> Result<()> {
    match failed {
        0 => Ok(()),
        1 => bail!("1 row failed; its line in the output says why"),
        failed => bail!("{failed} rows failed; their lines in the output say why"),
    }
}

/// Where the results go, a line each. A line is written whole and at once, so that at most the last one can be torn.
pub enum Sink {
    Stdout(Box<Stdout>),
    File(File, PathBuf),
}

impl Sink {
    /// Opens the output, and says how many rows of each id an earlier run has completed in it.
    pub fn open(output: Option<&Path>, resume: bool) -> Result<(Self, HashMap<String, usize>)> {
        let Some(path) = output else { return Ok((Self::Stdout(Box::new(Stdout::lock())), HashMap::new())) };
        let done = if resume && path.exists() { repair(path)? } else { HashMap::new() };
        let mut options = File::options();
        let options =
            if resume { options.append(true).create(true) } else { options.write(true).create(true).truncate(true) };
        let file = options.open(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok((Self::File(file, path.to_owned()), done))
    }

    /// Writes one result.
    pub fn line<T: Serialize>(&mut self, record: &T) -> Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        match self {
            Self::Stdout(out) => {
                out.write_all(&line)?;
                out.finish()
            }
            Self::File(file, path) => file.write_all(&line).with_context(|| format!("cannot write {}", path.display())),
        }
    }

    /// Writes that a row failed, and why.
    pub fn error(&mut self, id: Value, error: &anyhow::Error) -> Result<()> {
        let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
        self.line(&ErrorRecord { id, error: causes.join(": ") })
    }
}

/// Brings the output of an earlier run into order: a torn last line and the lines of failed rows, which are to be tried
/// again, are dropped. Returns how many rows of each id are complete.
fn repair(path: &Path) -> Result<HashMap<String, usize>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
    let mut done = HashMap::new();
    let mut kept = Vec::with_capacity(bytes.len());
    for (i, line) in bytes[..whole].split_inclusive(|b| *b == b'\n').enumerate() {
        let record: Map<String, Value> = serde_json::from_slice(line).with_context(|| {
            format!("{} is not the output of an earlier run: line {} is no JSON object", path.display(), i + 1)
        })?;
        if let Some(id) = record.get("id").filter(|_| !record.contains_key("error")) {
            *done.entry(id.to_string()).or_default() += 1;
            kept.extend_from_slice(line);
        }
    }
    if kept.len() < bytes.len() {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)
            .with_context(|| format!("cannot write into {}", folder.display()))?;
        file.write_all(&kept).with_context(|| format!("cannot write into {}", folder.display()))?;
        file.persist(path).with_context(|| format!("cannot replace {}", path.display()))?;
    }
    Ok(done)
}
