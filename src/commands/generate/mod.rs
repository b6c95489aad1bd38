//! `gpt2 generate`: continues one text or many.

mod batch;
mod choices;
mod interactive;
mod lengths;
mod show;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Error, Result};
use gpt2::decode::{Decoding, Engine, Event, FinishReason, GenerationConfig, OnContextLimit, Sequence};
use gpt2::model::{Gpt2, Packing, Session};
use serde_json::{Map, Value};

use self::choices::Choice;
use super::interventions::Changes;
use super::load::{self, Loaded, Purpose};
use super::progress::bar;
use super::rows::Input;
use super::{Interrupted, interrupt_flag};
use crate::cli::advice::OfAssistant;
use crate::cli::{Format, GenerateArgs, Prompt, Verbosity};
use crate::output::generate::Timings;
use crate::output::{Stdout, Style, check_folder, say};

pub fn run(args: &GenerateArgs, verbosity: Verbosity) -> Result<()> {
    let assisted = |config| GenerationConfig { assistant: args.assistant_model.is_some(), ..config };
    let config = assisted(args.decoding.config.clone());
    // A row's parameters, or the model's, may complete a combination of flags that is invalid on its own.
    let is_complete = args.batch.rows.input.is_none() && !args.generation_config;
    if is_complete { config.check() } else { config.check_values() }?;
    let is_text = args.format == Format::Text && args.batch.rows.input.is_none();
    args.pieces.check(is_text && (config.logprobs.is_some() || config.raw_logprobs))?;
    check_page(args, &config)?;
    let work = match Input::open(&args.batch.rows)? {
        _ if args.interactive => Work::Interactive,
        Some(input) => Work::Batch(input),
        None if args.keep_newline => Work::Single(args.text.prompt()?),
        None => Work::Single(args.text.prompt_without_newline()?),
    };
    let changes = Changes::read(&args.interventions)?;
    let (constraint, hooks) = (config.is_constrained(), changes.are_any());
    let purpose = Purpose { constraint, hooks, ..Packing::AtOnce.into() };
    let loaded = Loaded::load_for(&args.model, purpose, verbosity)?;
    let is_said = args.format == Format::Text && args.batch.rows.input.is_none() && !verbosity.quiet;
    let loaded = loaded.with_changes(changes, &args.text, is_said)?;
    lengths::note_flags(args, verbosity);
    let defaults = loaded.generation_defaults(args.generation_config, verbosity)?;
    let mut config = assisted(args.decoding.over(defaults)?);
    if args.batch.rows.input.is_none() {
        let blame = |error: gpt2::Error| loaded.blame(error.into(), args.generation_config, &given(args));
        config.check().map_err(blame)?;
    }
    loaded.compile(&mut config).map_err(|error| loaded.blame(error.into(), args.generation_config, &given(args)))?;
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

/// Results of at least this many tokens that are shown in one piece get a progress bar.
const MANY: usize = 64;

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
    let opened = load::open(&args, verbosity).context(OfAssistant(model.clone()))?;
    Ok(Some(load::network(&args, &opened, args.device().open()?, verbosity)?))
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
    /// What continues them.
    model: Gpt2,
    /// Whether the ids may be those of another text, since they were healed.
    is_healed: bool,
    decoding: Arc<Decoding>,
    seed: u64,
    /// The parameters that are not at their defaults.
    parameters: Map<String, Value>,
    /// The most tokens that a sequence may get.
    most_steps: usize,
    /// The texts of which it is one.
    choices: Vec<Choice>,
}

/// The sequences of a request.
struct Outcome {
    /// What there is of them by the time of an interruption, if there was one.
    sequences: Vec<Sequence>,
    timings: Timings,
    /// Whether they ended by themselves.
    ended: bool,
}

/// Adds a token to a sequence that is not finished.
fn add(partial: &mut Vec<Sequence>, sequence: usize, id: u32, text: &[u8]) {
    while partial.len() <= sequence {
        let finish_reason = FinishReason::Interrupted;
        partial.push(Sequence {
            ids: vec![],
            text: vec![],
            finish_reason,
            score: None,
            logprobs: None,
            is_whole: None,
            guesses: None,
        });
    }
    partial[sequence].ids.push(id);
    partial[sequence].text.extend_from_slice(text);
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
        self.loaded.note_space(prompt, &request.prompt_ids, self.verbosity);
        let interrupted = interrupt_flag()?;
        let mut out = Stdout::lock().with_raw_text(self.args.raw_text.raw_text);
        let ended = match self.args.format {
            Format::Text => {
                let shown = self.prompt_text(&request);
                self.write_text(&request, &shown, Style::new(), &interrupted, &mut out)?.ended
            }
            format => {
                let Outcome { sequences, timings, ended } =
                    self.generate(&request, &interrupted, Stdout::is_terminal(), |_| Ok(()))?;
                // Of a beam search that was interrupted, nothing is settled.
                if !sequences.is_empty() {
                    self.write_page(&request, &sequences)?;
                    out.json(&self.record(&request, &sequences, timings)?, format)?;
                }
                self.warn_of_ends(&sequences, request.prompt_ids.len());
                ended
            }
        };
        out.finish()?;
        if ended {
            return Ok(());
        }
        if !request.decoding.streams() && !self.verbosity.quiet {
            say("interrupted: nothing of a search over beams is settled before it ends");
        }
        Err(Interrupted.into())
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
        let prompt_ids = loaded.prompt_ids(prompt, line, &self.args.text, self.verbosity)?;
        loaded.note_negative(config, line, self.verbosity);
        let text = match prompt {
            Prompt::Text(text) => Some(text.clone()),
            Prompt::Ids(ids) => loaded.tokenizer.as_ref().map(|tokenizer| tokenizer.decode(ids, false)).transpose()?,
        };
        let healed = if config.token_healing { self.healed(&prompt_ids)? } else { prompt_ids };
        let request = self.request_of(text, healed, matches!(prompt, Prompt::Text(_)), config, seed)?;
        Ok(Request { is_healed: config.token_healing, ..request })
    }

    /// The ids of a prompt after token healing.
    fn healed(&self, ids: &[u32]) -> Result<Vec<u32>> {
        let (loaded, text) = (self.loaded, &self.args.text);
        if loaded.tokenizer.is_none() {
            return Ok(ids.to_vec());
        }
        let start = if text.bos { loaded.start_token() } else { None };
        let healed = loaded.pipeline().heal_with(&loaded.model_for(ids)?, ids, start, !text.no_special)?;
        Ok(if healed.is_empty() { ids.to_vec() } else { healed })
    }

    /// The request for a prompt's ids; it `is_text` if it was given as that.
    fn request_of(
        &self,
        prompt: Option<String>,
        prompt_ids: Vec<u32>,
        is_text: bool,
        config: &GenerationConfig,
        seed: u64,
    ) -> Result<Request> {
        let mut config = config.clone();
        let mut parameters = config.changed();
        self.loaded.encode_texts(&mut config)?;
        let seed = *config.seed.get_or_insert(seed);
        let decoding = Arc::new(config.validate()?);
        match decoding.draws() {
            true => parameters.insert("seed".to_owned(), seed.into()),
            false => parameters.remove("seed"),
        };
        if let Some(assistant) = &self.args.assistant_model {
            parameters.insert("assistant_model".to_owned(), assistant.clone().into());
        }
        let most_steps = config.max_length.map_or(config.max_new_tokens, |most| most.saturating_sub(prompt_ids.len()));
        let (model, is_healed) = (self.loaded.model_for(&prompt_ids)?, false);
        let choices = self.encoded_choices(config.choices, prompt.as_deref().filter(|_| is_text), &prompt_ids)?;
        Ok(Request { prompt, prompt_ids, model, is_healed, decoding, seed, parameters, most_steps, choices })
    }

    /// Runs a request to its end, or until it is interrupted; with a bar if it `is_silent` until then. `on_event` gets the
    /// events as they occur, and a `None` before them as soon as it is certain that the prompt can be run.
    fn generate(
        &self,
        request: &Request,
        interrupted: &AtomicBool,
        is_silent: bool,
        mut on_event: impl FnMut(Option<&Event>) -> Result<()>,
    ) -> Result<Outcome> {
        let mut session = Session::new(&request.model);
        let mut assistant = self.assistant.map(Session::new);
        let mut engine = Engine::new(&mut session, self.loaded.pipeline());
        if let Some(assistant) = &mut assistant {
            engine = engine.with_assistant(assistant)?;
        }
        engine.submit(&request.prompt_ids, &request.decoding)?;
        on_event(None)?;
        let start = Instant::now();
        let is_short = request.most_steps < MANY;
        let progress =
            bar("tokens at most", request.most_steps as u64, self.verbosity.quiet || !is_silent || is_short)?;
        let mut prefill_s = None;
        let mut partial = vec![];
        let finished = 'ended: {
            while !interrupted.load(Ordering::Relaxed) {
                let events = engine.step()?;
                prefill_s.get_or_insert_with(|| start.elapsed().as_secs_f64());
                progress.inc(1);
                for event in events {
                    on_event(Some(&event))?;
                    match event {
                        Event::Token { sequence, id, text, .. } => add(&mut partial, sequence, id, &text),
                        Event::Prompt { .. } => {}
                        Event::Finished { result, .. } => break 'ended Some(result?),
                    }
                }
            }
            None
        };
        progress.finish_and_clear();
        let (ended, sequences) = (finished.is_some(), finished.unwrap_or(partial));
        let total = start.elapsed().as_secs_f64();
        let prefill_s = prefill_s.unwrap_or(total);
        let timings = Timings {
            load_s: self.loaded.load_s,
            prefill_s,
            decode_s: total - prefill_s,
            prompt_tokens: request.prompt_ids.len(),
            ..Timings::of(&sequences)
        };
        Ok(Outcome { sequences, timings, ended })
    }
}

/// Texts that end before they are all that the constraint asks for.
#[derive(Debug, Clone, Copy, Default)]
struct Unfinished {
    count: usize,
    /// Whether one of them ends at a limit that a flag sets, and not where the context is full.
    by_limit: bool,
}

impl Unfinished {
    fn of(sequences: &[Sequence]) -> Self {
        let cut = |reason| {
            let is_cut = |it: &&Sequence| it.is_whole == Some(false) && it.finish_reason == reason;
            sequences.iter().filter(is_cut).count()
        };
        let (by_limit, by_context) = (cut(FinishReason::Length), cut(FinishReason::Context));
        Self { count: by_limit + by_context, by_limit: by_limit > 0 }
    }
}

/// Where sequences end because the context is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Full {
    /// After the text.
    Own,
    /// After the negative prompt, and what was generated: that row is the longer one.
    Negative,
}

/// Whether sequences after a prompt of so many tokens end because the context is full.
fn fills_context(sequences: &[Sequence], prompt: usize, context: usize) -> Option<Full> {
    let full = sequences.iter().filter(|sequence| sequence.finish_reason == FinishReason::Context);
    let longest = full.map(|sequence| prompt + sequence.ids.len()).max()?;
    Some(if longest < context { Full::Negative } else { Full::Own })
}

fn join_ids(ids: &[u32]) -> String {
    ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
}

/// A random seed of 32 bits, short enough to type again and exact in every JSON reader.
pub fn rand_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id()) & 0xFFFF_FFFF
}
