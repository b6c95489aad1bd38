//! `gpt2 generate`: continues one text or many.

mod batch;
mod interactive;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Error, Result};
use gpt2::analysis::alternatives::alternatives;
use gpt2::decode::{Decoding, Engine, Event, FinishReason, GenerationConfig, OnContextLimit, Sequence};
use gpt2::error::tokens_text;
use gpt2::model::{Gpt2, Session};
use gpt2::tokenizer::TextStream;
use signal_hook::consts::SIGINT;
use signal_hook::flag::register_conditional_shutdown;

use super::Interrupted;
use super::load::{self, Loaded};
use super::rows::Input;
use crate::cli::{Format, GenerateArgs, Prompt, Verbosity};
use crate::output::generate::{GenerateRecord, Logprobs, SequenceRecord, Timings, write_logprobs};
use crate::output::{RowRecord, Stdout, check_folder, html, say};

pub fn run(args: &GenerateArgs, verbosity: Verbosity) -> Result<()> {
    let assisted = |config| GenerationConfig { assistant: args.assistant_model.is_some(), ..config };
    let config = assisted(args.decoding.config.clone());
    // A row's parameters, or the model's, may complete a combination of flags that is invalid on its own.
    let is_complete = args.batch.rows.input.is_none() && !args.generation_config;
    if is_complete { config.check() } else { config.check_values() }?;
    check_page(args, &config)?;
    let work = match Input::open(&args.batch.rows, true)? {
        _ if args.interactive => Work::Interactive,
        Some(input) => Work::Batch(input),
        None if args.keep_newline => Work::Single(args.text.prompt()?),
        None => Work::Single(args.text.prompt_without_newline()?),
    };
    let loaded = Loaded::load(&args.model, verbosity)?;
    let defaults = loaded.generation_defaults(args.generation_config, verbosity)?;
    let config = assisted(args.decoding.over(defaults)?);
    if args.batch.rows.input.is_none() {
        let blame = |error: gpt2::Error| loaded.blame(error.into(), args.generation_config, &given(args));
        config.check().map_err(blame)?;
    }
    if args.interactive {
        loaded.tokenizer()?;
    }
    let assistant = assistant(args, verbosity)?;
    let generator = Generator { args, config, loaded: &loaded, assistant: assistant.as_ref(), verbosity };
    match work {
        Work::Single(prompt) => generator.single(&prompt).map_err(|error| generator.blame(error, &[])),
        Work::Batch(input) => batch::run(&generator, input),
        Work::Interactive => interactive::run(&generator),
    }
}

/// The page explains a text that the model sees as a whole.
fn check_page(args: &GenerateArgs, config: &GenerationConfig) -> Result<()> {
    if args.html.is_some() && config.on_context_limit == OnContextLimit::Crop {
        let message = "--html shows what the model sees of the whole text, not of one cropped with --on-context-limit";
        return Err(gpt2::Error::Usage(message.into()).into());
    }
    check_folder(args.html.as_deref())
}

/// What to continue.
enum Work {
    Single(Prompt),
    Batch(Input),
    Interactive,
}

/// The parameters that the flags give.
fn given(args: &GenerateArgs) -> Vec<&str> {
    let assistant = args.assistant_model.as_ref().map(|_| "assistant_model");
    args.decoding.given().into_iter().chain(assistant).collect()
}

/// The model that guesses ahead.
fn assistant(args: &GenerateArgs, verbosity: Verbosity) -> Result<Option<Gpt2>> {
    let Some(model) = &args.assistant_model else { return Ok(None) };
    let args = args.model.with_model(model);
    let opened = load::open(&args, verbosity)?;
    Ok(Some(load::network(&args, &opened, args.device.open()?, verbosity)?))
}

/// A flag set by Ctrl-C: the current step is finished, then generation ends. A second Ctrl-C ends the program at once.
fn interrupt_flag() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    // Handlers run in the order of registration. The first does nothing until the second has set the flag; from then on it
    // ends the process directly from the signal handler, where little else is safe to do.
    register_conditional_shutdown(SIGINT, Interrupted::EXIT_CODE.into(), Arc::clone(&flag))?;
    signal_hook::flag::register(SIGINT, Arc::clone(&flag))?;
    Ok(flag)
}

/// A loaded model and the flags.
struct Generator<'a> {
    args: &'a GenerateArgs,
    /// The decoding parameters from the flags and the model.
    config: GenerationConfig,
    loaded: &'a Loaded,
    assistant: Option<&'a Gpt2>,
    verbosity: Verbosity,
}

/// What to continue, and how.
struct Request {
    /// The prompt as text, if known.
    prompt: Option<String>,
    prompt_ids: Vec<u32>,
    decoding: Arc<Decoding>,
    seed: u64,
}

impl Request {
    /// The seed, if the result depends on it.
    fn seed(&self) -> Option<u64> {
        self.decoding.draws().then_some(self.seed)
    }
}

impl Generator<'_> {
    fn single(&self, prompt: &Prompt) -> Result<()> {
        let request = self.request(prompt, None, &self.config, rand_seed())?;
        let interrupted = interrupt_flag()?;
        let mut out = Stdout::lock().with_raw_text(self.args.raw_text.raw_text);
        let ended = match self.args.format {
            Format::Text => self.write_text(&request, &interrupted, &mut out)?,
            format => match self.generate(&request, &interrupted, |_| Ok(()))? {
                Some((sequences, timings)) => {
                    self.write_page(&request, &sequences)?;
                    let record = self.record(None, &request, &sequences, timings);
                    out.json(&record, format)?;
                    self.warn_of_context(&sequences);
                    true
                }
                None => false,
            },
        };
        out.finish()?;
        if ended { Ok(()) } else { Err(Interrupted.into()) }
    }

    /// An error as one of generation_config.json, if it is about a value of that file and not about a flag or one of the
    /// `keys` of a row.
    fn blame(&self, error: Error, keys: &[&str]) -> Error {
        let given = [&*given(self.args), keys].concat();
        self.loaded.blame(error, self.args.generation_config, &given)
    }

    /// The request for a prompt, which may be that of the row on a `line`; `seed` is used if the parameters have none.
    fn request(&self, prompt: &Prompt, line: Option<usize>, config: &GenerationConfig, seed: u64) -> Result<Request> {
        let loaded = self.loaded;
        let mut config = config.clone();
        loaded.encode_texts(&mut config)?;
        let seed = *config.seed.get_or_insert(seed);
        let prompt_ids = loaded.prompt_ids(prompt, line, &self.args.text, self.verbosity)?;
        let text = match prompt {
            Prompt::Text(text) => Some(text.clone()),
            Prompt::Ids(ids) => loaded.tokenizer.as_ref().map(|tokenizer| tokenizer.decode(ids, false)).transpose()?,
        };
        Ok(Request { prompt: text, prompt_ids, decoding: Arc::new(config.validate()?), seed })
    }

    /// Runs a request to its end; returns none if it was interrupted. `on_event` gets the events as they occur, and a
    /// `None` before them as soon as it is certain that the prompt can be run.
    fn generate(
        &self,
        request: &Request,
        interrupted: &AtomicBool,
        mut on_event: impl FnMut(Option<&Event>) -> Result<()>,
    ) -> Result<Option<(Vec<Sequence>, Timings)>> {
        let mut session = Session::new(&self.loaded.model);
        let mut assistant = self.assistant.map(Session::new);
        let mut engine = Engine::new(&mut session, self.loaded.pipeline());
        if let Some(assistant) = &mut assistant {
            engine = engine.with_assistant(assistant)?;
        }
        engine.submit(&request.prompt_ids, &request.decoding)?;
        on_event(None)?;
        let start = Instant::now();
        let mut prefill_s = None;
        while !interrupted.load(Ordering::Relaxed) {
            let events = engine.step()?;
            let prefill_s = *prefill_s.get_or_insert_with(|| start.elapsed().as_secs_f64());
            for event in events {
                on_event(Some(&event))?;
                if let Event::Finished { result, .. } = event {
                    let sequences = result?;
                    let timings = Timings {
                        load_s: self.loaded.load_s,
                        prefill_s,
                        decode_s: start.elapsed().as_secs_f64() - prefill_s,
                        prompt_tokens: request.prompt_ids.len(),
                        generated_tokens: sequences.iter().map(|sequence| sequence.ids.len()).sum(),
                    };
                    return Ok(Some((sequences, timings)));
                }
            }
        }
        Ok(None)
    }

    /// Writes prompt and continuation as text while decoding; returns false if interrupted.
    fn write_text(&self, request: &Request, interrupted: &AtomicBool, out: &mut Stdout) -> Result<bool> {
        self.announce(request);
        let prompt = match (&request.prompt, self.args.completion_only) {
            (_, true) => String::new(),
            (Some(prompt), _) => prompt.clone(),
            (None, _) => join_ids(&request.prompt_ids),
        };
        let several = self.config.num_return_sequences > 1;
        let streams = request.decoding.streams() && !several && self.loaded.tokenizer.is_some();
        let mut stream = TextStream::default();
        let outcome = self.generate(request, interrupted, |event| match event {
            None if streams => out.text(&prompt),
            Some(Event::Token { text, .. }) if streams && !text.is_empty() => out.text(stream.push(text)),
            _ => Ok(()),
        })?;
        if streams {
            out.text(&(stream.finish() + "\n"))?;
        }
        let Some((sequences, timings)) = outcome else { return Ok(false) };
        self.write_page(request, &sequences)?;
        for (i, sequence) in sequences.iter().enumerate() {
            if several {
                writeln!(out, "=== {i} ===")?;
            }
            if !streams {
                out.text(format!("{prompt}{}\n", self.text_or_ids(sequence, !prompt.is_empty())))?;
            }
            if sequence.logprobs.is_some() {
                write_logprobs(&self.sequence(i, sequence), out)?;
            }
        }
        self.report(&sequences, timings);
        Ok(true)
    }

    /// Writes the page with the alternatives to each generated token, if it is asked for.
    fn write_page(&self, request: &Request, sequences: &[Sequence]) -> Result<()> {
        let Some(path) = &self.args.html else { return Ok(()) };
        let tokens = sequences.iter().map(|sequence| sequence.ids.len()).sum();
        let explained = sequences.iter().map(|sequence| {
            let ids = [&*request.prompt_ids, &sequence.ids].concat();
            let from = request.prompt_ids.len();
            let best = html::generate::candidates(tokens);
            let places = alternatives(&self.loaded.model, &ids, from, best, &html::generate::TEMPERATURES)?;
            Ok(html::generate::Explained { ids, from, finish_reason: sequence.finish_reason, places })
        });
        let explained = explained.collect::<Result<Vec<_>>>()?;
        html::generate::write(path, &self.loaded.name, &self.config, &explained, self.loaded.tokenizer.as_ref())
    }

    /// Reports the drawn seed on stderr, since the result does not show it.
    fn announce(&self, request: &Request) {
        if let Some(seed) = request.seed().filter(|_| !self.verbosity.quiet && self.config.seed.is_none()) {
            say(format_args!("seed: {seed}"));
        }
    }

    /// Warns if a text ends where the context is full.
    fn warn_of_context(&self, sequences: &[Sequence]) {
        if fills_context(sequences) {
            self.warn_that("the text ends");
        }
    }

    /// Warns that what is said happens where the context is full.
    fn warn_that(&self, what: impl std::fmt::Display) {
        if !self.verbosity.quiet {
            let context = tokens_text(self.loaded.model.config().n_positions);
            say(format_args!(
                "warning: {what} at the full context of {context}; to continue, use --on-context-limit crop"
            ));
        }
    }

    fn report(&self, sequences: &[Sequence], timings: Timings) {
        self.warn_of_context(sequences);
        if self.verbosity.verbose > 0 {
            let decoded = timings.generated_tokens.saturating_sub(1);
            say(format_args!(
                "load {:.3} s, prompt {} in {:.3} s ({:.1} tokens/s), {decoded} more in {:.3} s ({:.1} tokens/s)",
                timings.load_s,
                tokens_text(timings.prompt_tokens),
                timings.prefill_s,
                timings.prompt_tokens as f64 / timings.prefill_s,
                timings.decode_s,
                decoded as f64 / timings.decode_s.max(1e-9),
            ));
        }
    }

    fn text_or_ids(&self, sequence: &Sequence, after_prompt: bool) -> String {
        match &self.loaded.tokenizer {
            Some(_) => String::from_utf8_lossy(&sequence.text).into_owned(),
            None if after_prompt => format!(" {}", join_ids(&sequence.ids)),
            None => join_ids(&sequence.ids),
        }
    }

    /// The record of a finished request.
    fn record<'a>(
        &'a self,
        row: Option<RowRecord>,
        request: &Request,
        sequences: &'a [Sequence],
        timings: Timings,
    ) -> GenerateRecord<'a> {
        GenerateRecord {
            row,
            model: self.loaded.name.clone(),
            prompt: request.prompt.clone(),
            prompt_ids: request.prompt_ids.clone(),
            seed: request.seed(),
            sequences: sequences.iter().enumerate().map(|(i, sequence)| self.sequence(i, sequence)).collect(),
            timings,
        }
    }

    fn sequence<'a>(&'a self, index: usize, sequence: &'a Sequence) -> SequenceRecord<'a> {
        let logprobs = sequence.logprobs.as_ref();
        SequenceRecord {
            index,
            ids: sequence.ids.clone(),
            text: self.loaded.tokenizer.as_ref().map(|_| String::from_utf8_lossy(&sequence.text).into_owned()),
            finish_reason: sequence.finish_reason,
            score: sequence.score,
            logprobs: logprobs.map(|tokens| Logprobs { tokens, pipeline: self.loaded.pipeline() }),
        }
    }
}

/// Whether one of them ends because the context is full.
fn fills_context(sequences: &[Sequence]) -> bool {
    sequences.iter().any(|sequence| sequence.finish_reason == FinishReason::Context)
}

fn join_ids(ids: &[u32]) -> String {
    ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
}

/// A random seed of 32 bits, short enough to type again and exact in every JSON reader.
fn rand_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id()) & 0xFFFF_FFFF
}
