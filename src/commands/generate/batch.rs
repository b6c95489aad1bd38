//! Many prompts from a JSONL file: read as places become free, written as they finish, resumable after an interruption.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

use anyhow::{Result, bail};
use gpt2::decode::{Engine, Event, RequestId, Sequence};
use gpt2::model::Session;
use indicatif::ProgressBar;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Generator, Request, interrupt_flag, rand_seed};
use crate::cli::Prompt;
use crate::commands::Interrupted;
use crate::commands::jsonl::{self, Line, Sink};
use crate::output::generate::Timings;

pub fn run(generator: &Generator<'_>, rows: Receiver<Line>) -> Result<()> {
    let args = &generator.args.batch;
    let (mut sink, done) = Sink::open("generate", args.output.as_deref(), args.resume)?;
    let interrupted = interrupt_flag()?;
    let progress = jsonl::progress(args.input.as_deref(), generator.verbosity.quiet)?;
    let mut session = Session::new(&generator.loaded.model);
    let mut assistant = generator.assistant.map(Session::new);
    let mut engine = Engine::new(&mut session, generator.loaded.pipeline()).with_batch_size(args.batch_size);
    if let Some(assistant) = &mut assistant {
        engine = engine.with_assistant(assistant)?;
    }
    let mut batch = Batch {
        generator,
        seed: generator.config.seed.unwrap_or_else(rand_seed),
        rows,
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
        return Err(Interrupted.into());
    }
    jsonl::outcome(batch.failed)
}

/// A line of the input.
#[derive(Deserialize)]
#[serde(expecting = "an object with `prompt` or `prompt_ids`")]
struct Row {
    /// Any value; the line's number (from 1) if there is none.
    id: Option<Value>,
    prompt: Option<String>,
    prompt_ids: Option<Vec<u32>>,
    #[serde(flatten)]
    overrides: Map<String, Value>,
}

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
                // While there is work to do, do not wait for a slow writer of the input.
                let line = if engine.is_idle() {
                    self.rows.recv().map_err(|_| TryRecvError::Disconnected)
                } else {
                    self.rows.try_recv()
                };
                match line {
                    Ok(line) => self.admit(engine, sink, line)?,
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

    /// Starts the row on a line, or reports why it cannot be started.
    fn admit(&mut self, engine: &mut Engine<'_>, sink: &mut Sink, line: Line) -> Result<()> {
        let (number, row) = match jsonl::parse::<Row>(line) {
            Ok(row) => row,
            Err((id, error)) => return self.fail(sink, id, &error),
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
        let config = self.generator.config.with_json(&row.overrides)?;
        self.generator.request(&prompt, &config, self.seed)
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
        sink.error(id, error)
    }

    fn show_speed(&self) {
        let seconds = self.progress.elapsed().as_secs_f64();
        if seconds > 0.0 {
            self.progress.set_message(format!("{:.1} tokens/s", self.tokens as f64 / seconds));
        }
    }
}
