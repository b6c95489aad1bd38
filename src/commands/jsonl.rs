//! JSONL input and output for batches: reading lines ahead, writing each result completely or not at all, resuming.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::{Context, Result, anyhow, bail};
use gpt2::Error;
use indicatif::{ProgressBar, ProgressStyle};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::cli::advice::{self, Spelling};
use crate::output::{ErrorRecord, Stdout, check_folder};

/// The longest line in bytes, so that endless input does not fill memory.
const LONGEST_LINE: u64 = 1 << 28;

/// A line's number, counted from 1, and its text.
pub type Line = (usize, Result<String>);

/// Parses the row on a line. An error comes with the id to report it under (null if unknown).
pub fn parse<T: DeserializeOwned>((number, line): Line) -> Result<(usize, T), (Value, anyhow::Error)> {
    #[derive(Deserialize)]
    struct Identified {
        id: Value,
    }
    let line = line.map_err(|error| (Value::Null, error.context(format!("line {number}"))))?;
    serde_json::from_str(&line).map(|row| (number, row)).map_err(|error| {
        let id = serde_json::from_str(&line).map_or(Value::Null, |row: Identified| row.id);
        (id, anyhow!(error).context(format!("line {number}")))
    })
}

/// Reads the input's lines on a separate thread, a few ahead, so that a pipe need not be read to its end first.
pub fn read_lines(input: &Path) -> Result<Receiver<Line>> {
    let reader: Box<dyn BufRead + Send> = if input == Path::new("-") {
        Box::new(BufReader::new(std::io::stdin()))
    } else {
        let file = File::open(input).with_context(|| format!("cannot read {}", input.display()))?;
        Box::new(BufReader::new(file))
    };
    let (sender, receiver) = sync_channel(64);
    std::thread::spawn(move || {
        let mut reader = reader;
        for number in 1.. {
            let bytes = next_line(&mut reader);
            let last = !matches!(bytes, Ok(Some(_)));
            let Some(bytes) = bytes.transpose() else { break };
            let line = bytes.and_then(|bytes| {
                String::from_utf8(bytes)
                    .map_err(|e| anyhow!("invalid UTF-8 at offset {}", e.utf8_error().valid_up_to()))
            });
            let blank = line.as_ref().is_ok_and(|line| line.trim().is_empty());
            if !blank && sender.send((number, line)).is_err() || last {
                break;
            }
        }
    });
    Ok(receiver)
}

/// The next line without its line break; none after the last.
fn next_line(reader: &mut dyn BufRead) -> Result<Option<Vec<u8>>> {
    let mut line = vec![];
    reader.take(LONGEST_LINE).read_until(b'\n', &mut line).context("cannot read the input")?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) if line.len() as u64 + 1 == LONGEST_LINE => {
            bail!("longer than {} MiB; the rest of the input is not read", LONGEST_LINE >> 20)
        }
        Some(last) => {
            line.push(last);
            Ok(Some(line))
        }
    }
}

/// The number of non-empty lines in a file.
fn count_lines(path: &Path) -> Result<u64> {
    let mut reader = BufReader::new(File::open(path).with_context(|| format!("cannot read {}", path.display()))?);
    let (mut count, mut before) = (0, b'\n');
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return Ok(count);
        }
        for byte in bytes {
            count += u64::from(before == b'\n' && *byte != b'\n');
            before = *byte;
        }
        let read = bytes.len();
        reader.consume(read);
    }
}

/// A progress bar for the rows, on a terminal. The total is known for a file, not for a pipe.
pub fn progress(input: Option<&Path>, quiet: bool) -> Result<ProgressBar> {
    if quiet || !std::io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let bar = match input.filter(|input| input.is_file()) {
        Some(input) => {
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} rows, {msg}, {eta} left")?;
            ProgressBar::new(count_lines(input)?).with_style(style)
        }
        None => ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {pos} rows, {msg}")?),
    };
    bar.enable_steady_tick(std::time::Duration::from_millis(200));
    Ok(bar)
}

/// The outcome of a batch in which `failed` rows failed.
pub fn outcome(failed: usize) -> Result<()> {
    match failed {
        0 => Ok(()),
        1 => bail!("1 row failed; its line in the output says why"),
        failed => bail!("{failed} rows failed; their lines in the output say why"),
    }
}

/// The output for results, one per line. Each line is written at once, so that at most the last one can be incomplete.
pub struct Sink {
    /// The subcommand, for the advice that goes with an error.
    subcommand: &'static str,
    output: Output,
}

enum Output {
    Stdout(Box<Stdout>),
    File(File, PathBuf),
}

/// Checks, without touching the output, that it is not the input.
pub fn check_output(input: &Path, output: Option<&Path>) -> Result<()> {
    match output {
        Some(path) if path.is_file() && path.canonicalize().ok() == input.canonicalize().ok() => {
            bail!(Error::Usage(format!("--output {} is the input; give another file", path.display())))
        }
        output => check_folder(output),
    }
}

impl Sink {
    /// Opens the output and counts, for each id, the rows that an earlier run has completed in it.
    pub fn open(
        subcommand: &'static str,
        output: Option<&Path>,
        resume: bool,
    ) -> Result<(Self, HashMap<String, usize>)> {
        let sink = |output| Self { subcommand, output };
        let Some(path) = output else { return Ok((sink(Output::Stdout(Box::new(Stdout::lock()))), HashMap::new())) };
        let done = if resume && path.exists() { repair(path)? } else { HashMap::new() };
        let mut options = File::options();
        let options =
            if resume { options.append(true).create(true) } else { options.write(true).create(true).truncate(true) };
        let file = options.open(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok((sink(Output::File(file, path.to_owned())), done))
    }

    /// Writes one result.
    pub fn line<T: Serialize>(&mut self, record: &T) -> Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        match &mut self.output {
            Output::Stdout(out) => {
                out.write_all(&line)?;
                out.finish()
            }
            Output::File(file, path) => {
                let whole = file.metadata().map(|metadata| metadata.len());
                file.write_all(&line).with_context(|| {
                    // On a full disk part of the line may have been written. A device or a pipe cannot take it back.
                    let _ = whole.and_then(|len| file.set_len(len));
                    format!("cannot write {}", path.display())
                })
            }
        }
    }

    /// Writes why a row failed.
    pub fn error(&mut self, id: Value, error: &anyhow::Error) -> Result<()> {
        let error = advice::lines(error, self.subcommand, Spelling::Keys).join(": ");
        self.line(&ErrorRecord { id, error })
    }
}

/// Repairs the output of an earlier run by dropping an incomplete last line and the lines of failed rows, which are tried
/// again. Returns the number of complete rows for each id.
fn repair(path: &Path) -> Result<HashMap<String, usize>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
    let mut done = HashMap::new();
    let mut kept = Vec::with_capacity(bytes.len());
    for (i, line) in bytes[..whole].split_inclusive(|b| *b == b'\n').enumerate() {
        let record: Map<String, Value> = serde_json::from_slice(line).with_context(|| {
            format!("{} is not the output of an earlier run: line {} is not a JSON object", path.display(), i + 1)
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
