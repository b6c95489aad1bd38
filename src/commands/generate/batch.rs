//! Many prompts from a JSONL file: read as places become free, written as they finish, resumable after an interruption.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Result;
use gpt2::decode::{Engine, Event, Meaning, RequestId, Sequence, parameter_meaning};
use gpt2::model::Session;
use indicatif::ProgressBar;
use serde_json::Value;

use super::{Generator, Request, fills_context, rand_seed};
use crate::commands::rows::{self, Input, Next, Refused, Row, Settings, Sink};
use crate::commands::{Interrupted, interrupt_flag};
use crate::output::generate::Timings;

pub fn run(generator: &Generator<'_>, rows: Input) -> Result<()> {
    let args = &generator.args.batch;
    let mut settings = settings(generator);
    let mut sink = Sink::open(&args.rows, &rows, &mut settings)?;
    let interrupted = interrupt_flag()?;
    let progress = rows::progress(args.rows.input.as_deref(), generator.verbosity.quiet)?;
    let mut session = Session::new(&generator.loaded.model);
    let mut assistant = generator.assistant.map(Session::new);
    let mut engine = Engine::new(&mut session, generator.loaded.pipeline()).with_batch_size(args.batch_size);
    if let Some(assistant) = &mut assistant {
        engine = engine.with_assistant(assistant)?;
    }
    let seed = settings.seed;
    let mut batch = Batch { generator, seed, rows, running: HashMap::new(), tokens: 0, failed: 0, full: 0, progress };
    let outcome = batch.run(&mut engine, &mut sink, &interrupted);
    batch.progress.finish_and_clear();
    outcome?;
    sink.report(generator.verbosity);
    match batch.full {
        0 => {}
        1 => generator.warn_that("the text of 1 row ends"),
        full => generator.warn_that(format_args!("the texts of {full} rows end")),
    }
    if interrupted.load(Ordering::Relaxed) {
        return Err(Interrupted.into());
    }
    rows::outcome(batch.failed)
}

/// What the results depend on, besides the rows.
fn settings(generator: &Generator<'_>) -> Settings {
    let (args, config) = (generator.args, &generator.config);
    let mut settings = generator.loaded.settings("generate", &args.model, &args.text, &args.batch.rows);
    settings.seed = config.seed.unwrap_or_else(rand_seed);
    settings.parameters.extend(rows::parameters(config));
    settings.parameters.insert("eos_token_id".into(), config.eos_token_id.clone().into());
    let file = generator.loaded.generation_file.as_ref().filter(|_| args.generation_config);
    let file = file.map_or(Value::Null, |file| file.values().into());
    settings.parameters.insert("generation_config".into(), file);
    settings
}

/// Our name of a parameter that a row gives under one of its names.
fn own_name(key: &str) -> &str {
    match parameter_meaning(key) {
        Some(Meaning::Parameter(parameter)) => parameter.name,
        Some(Meaning::DoSample) => "sample",
        _ => key,
    }
}

struct Batch<'a> {
    generator: &'a Generator<'a>,
    seed: u64,
    rows: Input,
    running: HashMap<RequestId, Running>,
    tokens: u64,
    failed: usize,
    /// Rows whose text ends because the context is full.
    full: usize,
    progress: ProgressBar,
}

struct Running {
    row: Box<Row>,
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
                match self.rows.next(engine.is_idle())? {
                    Next::Row(row) => self.admit(engine, sink, row)?,
                    Next::Refused(refused) => self.fail(sink, *refused)?,
                    Next::Later => break,
                    Next::End => more = false,
                }
            }
            for event in engine.step()? {
                self.take(event, sink)?;
            }
        }
        Ok(())
    }

    /// Starts a row, or reports why it cannot be started.
    fn admit(&mut self, engine: &mut Engine<'_>, sink: &mut Sink, row: Box<Row>) -> Result<()> {
        let started = sink.has(&row).and_then(|done| {
            if done {
                return Ok(None);
            }
            let request = self.request(&row)?;
            let number = engine.submit(&request.prompt_ids, &request.decoding)?;
            Ok(Some((number, request)))
        });
        match started {
            Ok(Some((number, request))) => {
                self.running.insert(number, Running { row, request, since: Instant::now(), first_token: None });
                Ok(())
            }
            Ok(None) => {
                self.progress.inc(1);
                Ok(())
            }
            Err(error) => {
                let given = row.parameters.iter().filter(|(_, value)| !value.is_null());
                let given: Vec<&str> = given.map(|(key, _)| own_name(key)).collect();
                let error = self.generator.blame(error, &given);
                self.fail(sink, Refused { place: row.place, error })
            }
        }
    }

    fn request(&self, row: &Row) -> Result<Request> {
        let config = self.generator.config.with_json(&row.parameters)?;
        self.generator.request(&row.prompt, Some(row.place.line), &config, self.seed)
    }

    fn take(&mut self, event: Event, sink: &mut Sink) -> Result<()> {
        match event {
            Event::Token { request, .. } => {
                self.tokens += 1;
                if let Some(running) = self.running.get_mut(&request) {
                    running.first_token.get_or_insert_with(|| running.since.elapsed().as_secs_f64());
                }
                rows::show_tokens(&self.progress, self.tokens);
                Ok(())
            }
            Event::Finished { request, result } => {
                let Some(running) = self.running.remove(&request) else { return Ok(()) };
                match result {
                    Ok(sequences) => self.finish(running, &sequences, sink),
                    Err(error) => self.fail(sink, Refused { place: running.row.place, error: error.into() }),
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
        self.full += usize::from(fills_context(sequences));
        let identity = running.row.identity();
        let record = self.generator.record(Some(running.row.place), &running.request, sequences, timings);
        self.progress.inc(1);
        rows::show_tokens(&self.progress, self.tokens);
        sink.result(identity, &record)
    }

    fn fail(&mut self, sink: &mut Sink, refused: Refused) -> Result<()> {
        self.failed += 1;
        self.progress.inc(1);
        sink.refused(refused)
    }
}
