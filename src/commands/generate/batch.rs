//! Many prompts from a JSONL file: read as places become free, written as they finish, resumable after an interruption.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use anyhow::Result;
use gpt2::decode::{Engine, Event, Meaning, RequestId, Sequence, parameter_meaning};
use gpt2::model::{Gpt2, Session};
use serde_json::Value;

use super::lengths::IdleRows;
use super::{Full, Generator, Request, Unfinished, fills_context, rand_seed};
use crate::cli::SeedBy;
use crate::commands::rows::{self, Input, Next, Refused, Results, Row, Settings, Written};
use crate::commands::stop::Stop;
use crate::output::generate::{GenerateRecord, Timings};

/// How many results may wait for earlier ones, for each row that runs, if their order is to be that of the input.
const HELD: u64 = 4;

/// How long to wait for the rows under way after SIGTERM; what they have kept back is written then.
const GRACE: Duration = Duration::from_millis(4500);

pub fn run(generator: &Generator<'_>, rows: Input) -> Result<()> {
    let args = &generator.args.batch;
    let mut settings = settings(generator);
    let mut results = Results::open(&args.rows, false, &rows, &mut settings, generator.verbosity)?;
    results.with_records_as(&GenerateRecord::default());
    let stop = Stop::on_signals()?;
    let mut batch = Batch {
        generator,
        seed: settings.seed,
        rows,
        results,
        running: HashMap::new(),
        full: [0; 2],
        unfinished: Unfinished::default(),
        idle: IdleRows::default(),
        held: args.rows.ordered.then(BTreeMap::new),
        begun: 0,
        next: 0,
    };
    let outcome = match generator.loaded.is_changed_by_text() {
        true => batch.run_apart(&stop),
        false => with_engine(generator, &generator.loaded.model, |engine| batch.run(engine, &stop, true)),
    };
    let Batch { mut results, rows, full: [own, negative], unfinished, idle, held, .. } = batch;
    if stop.is_ending() {
        held.into_iter().flatten().try_for_each(|(_, written)| results.put(written))?;
    }
    let is_whole = outcome?;
    if !generator.verbosity.quiet {
        idle.note();
    }
    match own {
        0 => {}
        1 => generator.warn_that("the text of 1 row ends"),
        n => generator.warn_that(format_args!("the texts of {n} rows end")),
    }
    match negative {
        0 => {}
        1 => generator.warn_that("the text of 1 row ends because that after its negative prompt is"),
        n => {
            generator
                .warn_that(format_args!("the texts of {n} rows end because those after their negative prompts are"));
        }
    }
    match unfinished.count {
        0 => {}
        1 => generator.warn_of_unfinished("the text of 1 row is not complete", unfinished.by_limit),
        n => generator.warn_of_unfinished(format_args!("the texts of {n} rows are not complete"), unfinished.by_limit),
    }
    let end = if is_whole {
        results.finish(&rows)
    } else {
        results.close();
        Ok(())
    };
    if stop.is_ending() { Err(stop.reason()) } else { end }
}

/// Calls `run` with an engine for a model, which the assistant may help.
fn with_engine<T>(
    generator: &Generator<'_>,
    model: &Gpt2,
    run: impl FnOnce(&mut Engine<'_>) -> Result<T>,
) -> Result<T> {
    let mut session = Session::new(model);
    let mut assistant = generator.assistant.map(Session::new);
    let engine = Engine::new(&mut session, generator.loaded.pipeline());
    let mut engine = engine.with_batch_size(generator.args.batch.batch_size);
    if let Some(assistant) = &mut assistant {
        engine = engine.with_assistant(assistant)?;
    }
    run(&mut engine)
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
    settings.parameters.insert("seed_by".into(), args.batch.seed_by.seed_by.map(|SeedBy::Id| "id").into());
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

/// The parameters that a row gives, by our names.
fn given(row: &Row) -> Vec<&str> {
    row.parameters.iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| own_name(key)).collect()
}

struct Batch<'a> {
    generator: &'a Generator<'a>,
    seed: u64,
    rows: Input,
    results: Results,
    running: HashMap<RequestId, Running>,
    /// Rows whose text ends because the context is full: their own, or that after the negative prompt.
    full: [usize; 2],
    /// Rows with a text that is not all that the constraint asks for.
    unfinished: Unfinished,
    /// Rows with lengths that have no effect.
    idle: IdleRows,
    /// What was made of rows whose turn has not come, if the order is to be that of the input.
    held: Option<BTreeMap<u64, Written>>,
    /// How many rows have been begun, and how many have had their turn.
    begun: u64,
    next: u64,
}

struct Running {
    row: Box<Row>,
    /// Its place among the rows.
    place: u64,
    request: Request,
    since: Instant,
    first_token: Option<f64>,
}

impl Batch<'_> {
    /// Runs what the engine has been given and, if `more` is wanted, the rows; returns whether that was all.
    fn run(&mut self, engine: &mut Engine<'_>, stop: &Stop, mut more: bool) -> Result<bool> {
        let mut ending = None;
        while more || !engine.is_idle() {
            if stop.is_interrupted() {
                return Ok(false);
            }
            if stop.is_ending() {
                let since = *ending.get_or_insert_with(Instant::now);
                if engine.is_idle() {
                    return Ok(false);
                }
                if since.elapsed() > GRACE {
                    Stop::say_unfinished();
                    return Ok(false);
                }
            }
            while more && ending.is_none() && engine.has_room() && self.may_begin() {
                // While there is work to do, do not wait for a slow writer of the input.
                match self.rows.next(engine.is_idle())? {
                    Next::Row(row) => self.admit(engine, row)?,
                    Next::Refused(refused) => {
                        let place = self.begin();
                        self.fail(place, *refused)?;
                    }
                    Next::Later => break,
                    Next::End => more = false,
                }
            }
            for event in engine.step()? {
                self.take(event)?;
            }
        }
        Ok(true)
    }

    /// Runs the rows one after the other, each with the model for its prompt; returns whether that was all of them.
    fn run_apart(&mut self, stop: &Stop) -> Result<bool> {
        while !stop.is_ending() {
            match self.rows.next(true)? {
                Next::Row(row) => {
                    let request = self.wanted(&row);
                    let generator = self.generator;
                    let own = request.as_ref().ok().and_then(|request| Some(request.as_ref()?.model.clone()));
                    let model = own.as_ref().unwrap_or(&generator.loaded.model);
                    let is_whole = with_engine(generator, model, |engine| {
                        self.start(engine, row, request)?;
                        self.run(engine, stop, false)
                    })?;
                    if !is_whole {
                        return Ok(false);
                    }
                }
                Next::Refused(refused) => {
                    let place = self.begin();
                    self.fail(place, *refused)?;
                }
                Next::Later => {}
                Next::End => return Ok(true),
            }
        }
        Ok(false)
    }

    /// Whether another row may begin: of those that are done, not too many wait for others.
    fn may_begin(&self) -> bool {
        let most = HELD * self.generator.args.batch.batch_size as u64;
        self.held.is_none() || self.begun - self.next < most
    }

    /// The place of a row that begins.
    fn begin(&mut self) -> u64 {
        self.begun += 1;
        self.begun - 1
    }

    /// Starts a row, or reports why it cannot be started.
    fn admit(&mut self, engine: &mut Engine<'_>, row: Box<Row>) -> Result<()> {
        let request = self.wanted(&row);
        self.start(engine, row, request)
    }

    /// What a row asks; nothing if it is done.
    fn wanted(&mut self, row: &Row) -> Result<Option<Request>> {
        if self.results.has(row)? { Ok(None) } else { self.request(row).map(Some) }
    }

    /// Starts a row with what it asks, or reports why it cannot be started.
    fn start(&mut self, engine: &mut Engine<'_>, row: Box<Row>, request: Result<Option<Request>>) -> Result<()> {
        let started = request.and_then(|request| {
            let Some(request) = request else { return Ok(None) };
            let number = engine.submit(&request.prompt_ids, &request.decoding)?;
            Ok(Some((number, request)))
        });
        match started {
            Ok(Some((number, request))) => {
                let is_drawn = request.seed().is_some() && self.generator.config.seed.is_none();
                if is_drawn && row.parameters.get("seed").is_none_or(Value::is_null) {
                    self.results.note_seed(self.seed);
                }
                let (place, since) = (self.begin(), Instant::now());
                self.running.insert(number, Running { row, place, request, since, first_token: None });
                Ok(())
            }
            Ok(None) => {
                self.results.shown.row(true);
                Ok(())
            }
            Err(error) => {
                let error = self.generator.blame(error, &given(&row));
                let place = self.begin();
                self.fail(place, Refused { place: row.place, error })
            }
        }
    }

    fn request(&mut self, row: &Row) -> Result<Request> {
        let (generator, seed_by) = (self.generator, self.generator.args.batch.seed_by.seed_by);
        let mut config = generator.config.with_json(&row.parameters)?;
        // A row that has a seed has its own already.
        if seed_by.is_some() && row.parameters.get("seed").is_none_or(Value::is_null) {
            config.seed = Some(row.own_seed(self.seed));
        }
        let request = generator.request(&row.prompt, Some(row.place.line), &config, self.seed)?;
        self.idle.add(&given(row), &config);
        Ok(request)
    }

    fn take(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Prompt { .. } => Ok(()),
            Event::Token { request, .. } => {
                if let Some(running) = self.running.get_mut(&request) {
                    running.first_token.get_or_insert_with(|| running.since.elapsed().as_secs_f64());
                }
                self.results.shown.tokens(1);
                Ok(())
            }
            Event::Finished { request, result } => {
                let Some(running) = self.running.remove(&request) else { return Ok(()) };
                match result {
                    Ok(sequences) => self.finish(running, &sequences),
                    Err(error) => self.fail(running.place, Refused { place: running.row.place, error: error.into() }),
                }
            }
        }
    }

    fn finish(&mut self, running: Running, sequences: &[Sequence]) -> Result<()> {
        let total = running.since.elapsed().as_secs_f64();
        let prefill_s = running.first_token.unwrap_or(total);
        let counts = Timings::of(sequences);
        if running.first_token.is_none() {
            self.results.shown.tokens(counts.generated_tokens);
        }
        let timings = Timings {
            load_s: self.generator.loaded.load_s,
            prefill_s,
            decode_s: total - prefill_s,
            prompt_tokens: running.request.prompt_ids.len(),
            ..counts
        };
        let context = self.generator.loaded.model.config().n_positions;
        match fills_context(sequences, running.request.prompt_ids.len(), context) {
            Some(Full::Own) => self.full[0] += 1,
            Some(Full::Negative) => self.full[1] += 1,
            None => {}
        }
        let Unfinished { count, by_limit } = Unfinished::of(sequences);
        self.unfinished.count += usize::from(count > 0);
        self.unfinished.by_limit |= by_limit;
        let record = match self.generator.record(&running.request, sequences, timings) {
            Ok(record) => record,
            Err(error) => return self.fail(running.place, Refused { place: running.row.place, error }),
        };
        let (identity, row) = (running.row.identity(), &running.row.place);
        if self.held.is_none() {
            return self.results.record(identity, row, &record);
        }
        let written = self.results.result(identity, row, &record)?;
        self.put(running.place, written)
    }

    fn fail(&mut self, place: u64, refused: Refused) -> Result<()> {
        let written = self.results.failure(refused)?;
        self.put(place, written)
    }

    /// Writes what was made of a row, in its turn if there is an order.
    fn put(&mut self, place: u64, written: Written) -> Result<()> {
        let Some(held) = &mut self.held else { return self.results.put(written) };
        held.insert(place, written);
        while let Some(written) = held.remove(&self.next) {
            self.next += 1;
            self.results.put(written)?;
        }
        Ok(())
    }
}
