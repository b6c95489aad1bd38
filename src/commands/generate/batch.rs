//! Many prompts from a JSONL file: read as places become free, written as they finish, resumable.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use gpt2::decode::{Engine, Event, RequestId, Sequence};
use gpt2::model::Session;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Generator, Request, TokenText, interrupt_flag, rand_seed};
use crate::cli::Prompt;
use crate::output::Stdout;
use crate::output::generate::{ErrorRecord, Timings};

pub fn run(generator: &Generator<'_>, input: &Path) -> Result<()> {
    let args = &generator.args.batch;
    let (mut sink, done) = Sink::open(args.output.as_deref(), args.resume)?;
    let interrupted = interrupt_flag()?;
    let progress = progress(generator, input)?;
    let mut session = Session::new(&generator.loaded.model);
    let mut assistant = generator.assistant.map(Session::new);
    let text = TokenText(generator.loaded.tokenizer.as_ref());
    let mut engine = Engine::new(&mut session, &text).with_batch_size(args.batch_size);
    if let Some(assistant) = &mut assistant {
        engine = engine.with_assistant(assistant)?;
    }
    let mut batch = Batch {
        generator,
        seed: generator.args.decoding.strategy.seed.unwrap_or_else(rand_seed),
        rows: read_rows(input)?,
        done,
        running: HashMap::new(),
        tokens: 0,
        failed: 0,
        progress,
    };
    let outcome = batch.run(&mut engine, &mut sink, &interrupted);
    batch.progress.finish_and_clear();
    outcome?;
    if interrupted.load(Ordering::Relaxed) {
        std::process::exit(super::INTERRUPTED);
    }
    match batch.failed {
        0 => Ok(()),
        1 => bail!("1 row failed; its line in the output says why"),
        failed => bail!("{failed} rows failed; their lines in the output say why"),
    }
}

/// A line of the input.
#[derive(Deserialize)]
struct Row {
    /// Any value; the line's number (from 1) if there is none.
    id: Option<Value>,
    prompt: Option<String>,
    prompt_ids: Option<Vec<u32>>,
    #[serde(flatten)]
    overrides: Map<String, Value>,
}

/// A line as it was read, with its number.
type Line = (usize, Result<String>);

struct Batch<'a> {
    generator: &'a Generator<'a>,
    seed: u64,
    rows: Receiver<Line>,
    /// How many rows of each id are complete in the output of an earlier run.
    done: HashMap<String, usize>,
    running: HashMap<RequestId, Running>,
    tokens: u64,
    failed: usize,
    progress: ProgressBar,
}

struct Running {
    id: Value,
    request: Request,
    since: Instant,
    first_token: Option<f64>,
}

impl Batch<'_> {
    fn run(&mut self, engine: &mut Engine<'_>, sink: &mut Sink, interrupted: &AtomicBool) -> Result<()> {
        let mut more = true;
        while !interrupted.load(Ordering::Relaxed) && (more || !engine.is_idle()) {
            while more && engine.has_room() {
                // With work at hand nobody waits for a slow writer.
                let line = if engine.is_idle() {
                    self.rows.recv().map_err(|_| TryRecvError::Disconnected)
                } else {
                    self.rows.try_recv()
                };
                match line {
                    Ok((number, line)) => self.admit(engine, sink, number, line)?,
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => more = false,
                }
            }
            for event in engine.step()? {
                self.take(event, sink)?;
            }
        }
        Ok(())
    }

    /// Starts the row of a line, or writes why it cannot be started.
    fn admit(&mut self, engine: &mut Engine<'_>, sink: &mut Sink, number: usize, line: Result<String>) -> Result<()> {
        // A line that cannot be read has no id of its own.
        let row = match line.and_then(|line| Ok(serde_json::from_str::<Row>(&line)?)) {
            Ok(row) => row,
            Err(error) => return self.fail(sink, Value::Null, &error.context(format!("line {number}"))),
        };
        let id = row.id.clone().unwrap_or_else(|| number.into());
        if let Some(left) = self.done.get_mut(&id.to_string()).filter(|left| **left > 0) {
            *left -= 1;
            self.progress.inc(1);
            return Ok(());
        }
        let started = self.request(row).and_then(|request| {
            let number = engine.submit(&request.prompt_ids, &request.decoding)?;
            Ok((number, request))
        });
        match started {
            Ok((number, request)) => {
                self.running.insert(number, Running { id, request, since: Instant::now(), first_token: None });
                Ok(())
            }
            Err(error) => self.fail(sink, id, &error),
        }
    }

    fn request(&self, row: Row) -> Result<Request> {
        let prompt = match (row.prompt, row.prompt_ids) {
            (Some(text), None) => Prompt::Text(text),
            (None, Some(ids)) => Prompt::Ids(ids),
            (None, None) => bail!("the row has neither `prompt` nor `prompt_ids`"),
            (Some(_), Some(_)) => bail!("the row has both `prompt` and `prompt_ids`"),
        };
        let decoding = self.generator.args.decoding.with_overrides(row.overrides)?;
        self.generator.request(&prompt, &decoding, self.seed)
    }

    fn take(&mut self, event: Event, sink: &mut Sink) -> Result<()> {
        match event {
            Event::Token { request, .. } => {
                self.tokens += 1;
                if let Some(running) = self.running.get_mut(&request) {
                    running.first_token.get_or_insert_with(|| running.since.elapsed().as_secs_f64());
                }
                self.show_speed();
                Ok(())
            }
            Event::Finished { request, result } => {
                let Some(running) = self.running.remove(&request) else { return Ok(()) };
                match result {
                    Ok(sequences) => self.finish(running, &sequences, sink),
                    Err(error) => self.fail(sink, running.id, &error.into()),
                }
            }
        }
    }

    fn finish(&mut self, running: Running, sequences: &[Sequence], sink: &mut Sink) -> Result<()> {
        let total = running.since.elapsed().as_secs_f64();
        let prefill_s = running.first_token.unwrap_or(total);
        let generated_tokens = sequences.iter().map(|sequence| sequence.ids.len()).sum();
        if running.first_token.is_none() {
            self.tokens += generated_tokens as u64;
        }
        let timings = Timings {
            load_s: self.generator.loaded.load_s,
            prefill_s,
            decode_s: total - prefill_s,
            prompt_tokens: running.request.prompt_ids.len(),
            generated_tokens,
        };
        let record = self.generator.record(Some(running.id), &running.request, sequences, timings);
        self.progress.inc(1);
        self.show_speed();
        sink.line(&record)
    }

    fn fail(&mut self, sink: &mut Sink, id: Value, error: &anyhow::Error) -> Result<()> {
        self.failed += 1;
        self.progress.inc(1);
        let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
        sink.line(&ErrorRecord { id, error: causes.join(": ") })
    }

    fn show_speed(&self) {
        let seconds = self.progress.elapsed().as_secs_f64();
        if seconds > 0.0 {
            self.progress.set_message(format!("{:.1} tokens/s", self.tokens as f64 / seconds));
        }
    }
}

/// Reads the input's lines on a thread of its own, a few ahead, so that a pipe need not be read to its end.
fn read_rows(input: &Path) -> Result<Receiver<Line>> {
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
fn progress(generator: &Generator<'_>, input: &Path) -> Result<ProgressBar> {
    if generator.verbosity.quiet || !std::io::stderr().is_terminal() {
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

/// Where the results go, a line each. A line is written whole and at once, so that at most the last one can be torn.
enum Sink {
    Stdout(Box<Stdout>),
    File(File, std::path::PathBuf),
}

impl Sink {
    /// Opens the output, and says how many rows of each id an earlier run has completed in it.
    fn open(output: Option<&Path>, resume: bool) -> Result<(Self, HashMap<String, usize>)> {
        let Some(path) = output else { return Ok((Self::Stdout(Box::new(Stdout::lock())), HashMap::new())) };
        let done = if resume && path.exists() { repair(path)? } else { HashMap::new() };
        let mut options = File::options();
        let options =
            if resume { options.append(true).create(true) } else { options.write(true).create(true).truncate(true) };
        let file = options.open(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok((Self::File(file, path.to_owned()), done))
    }

    fn line<T: serde::Serialize>(&mut self, record: &T) -> Result<()> {
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
        if let Some(id) = record.get("id").filter(|_| record.contains_key("sequences")) {
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
