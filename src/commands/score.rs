//! `gpt2 score`: how likely a model finds a text.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use gpt2::analysis::perplexity::Sliding;
use gpt2::analysis::score::{self, Progress, Score, ScoreOptions, score};

use super::load::Loaded;
use super::progress::TokenBar;
use super::rows::{self, Batch, Input, together};
use super::{Interrupted, interrupt_flag};
use crate::cli::{Format, Prompt, ScoreArgs, Verbosity};
use crate::output::score::{Protocol, ScoreRecord};
use crate::output::{Stdout, check_folder, html, say, say_written};

/// How many of the most probable tokens the page shows in each place.
const ALTERNATIVES: usize = 8;

/// Texts that take at least this many tokens through the network get a progress bar.
const LONG: usize = 4096;

pub fn run(args: &ScoreArgs, verbosity: Verbosity) -> Result<()> {
    check(args)?;
    let work = match Input::open(&args.batch.rows, false)? {
        Some(input) => Work::Batch(input),
        None => Work::Single(args.text.prompt()?),
    };
    let loaded = Loaded::load(&args.model, verbosity)?;
    let n_positions = loaded.model.config().n_positions;
    let sliding = match args.stride {
        Some(stride) => Some(Sliding::new(args.context.unwrap_or(n_positions), stride, n_positions)?),
        None => None,
    };
    let alternatives = if args.html.is_some() { ALTERNATIVES } else { 0 };
    let scorer = Scorer { args, loaded: &loaded, options: ScoreOptions { sliding, alternatives }, verbosity };
    match work {
        Work::Batch(input) => scorer.batch(input),
        Work::Single(prompt) => scorer.single(&prompt),
    }
}

/// Checks everything that can be checked from the flags alone.
fn check(args: &ScoreArgs) -> Result<()> {
    if let (Some(context), Some(stride)) = (args.context, args.stride) {
        Sliding::new(context, stride, usize::MAX)?;
    }
    args.pieces.check(args.format == Format::Text && args.batch.rows.input.is_none())?;
    check_folder(args.html.as_deref())
}

/// What to score.
enum Work {
    Single(Prompt),
    Batch(Input),
}

/// A loaded model and the flags.
struct Scorer<'a> {
    args: &'a ScoreArgs,
    loaded: &'a Loaded,
    options: ScoreOptions,
    verbosity: Verbosity,
}

impl Scorer<'_> {
    fn single(&self, prompt: &Prompt) -> Result<()> {
        let (ids, context) = self.ids(prompt)?;
        let (total, interrupted) = (ids.len(), interrupt_flag()?);
        let work = score::work(total, &self.options);
        let mut progress = TokenBar::new(total, work, self.verbosity.quiet || work < LONG)?;
        let mut done = 0;
        let scores = score(&self.loaded.model, &[&ids], &self.options, |Progress { tokens, work }| {
            progress.add(tokens, work);
            done += tokens;
            if interrupted.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        progress.finish();
        let Some(score) = scores?.pop() else { return Ok(()) };
        let is_interrupted = done < total && interrupted.load(Ordering::Relaxed);
        if is_interrupted && !self.verbosity.quiet {
            say(format_args!("interrupted: these are the scores of the first {done} of {} tokens", total));
        }
        let mut record = self.record(ids, context, &score);
        record.interrupted = is_interrupted;
        if record.scored_tokens == 0 && !self.verbosity.quiet {
            say(match record.ids.is_empty() {
                true => "note: there is nothing to score: the text is empty",
                false => "note: there is nothing to score: the first token has no probability without --bos",
            });
        }
        if let Some(path) = &self.args.html {
            let alternatives = &score.alternatives[score.alternatives.len() - record.ids.len()..];
            html::score::write(path, &record, alternatives, self.loaded.tokenizer.as_ref())?;
            if !self.verbosity.quiet {
                say_written(path, "a page with the scores and the expected tokens over the text");
            }
        }
        let mut out = Stdout::lock();
        match self.args.format {
            Format::Text => {
                let notation = self.loaded.notation(self.args.pieces.pieces);
                record.write_text(notation, self.verbosity.verbose > 0, &mut out)?;
            }
            format => out.json(&record, format)?,
        }
        out.finish()?;
        if is_interrupted { Err(Interrupted.into()) } else { Ok(()) }
    }

    /// The ids that go through the network: the text's, after `<|endoftext|>` if requested or if the tokenizer puts it
    /// there. With them, how many at the start are not the text's.
    fn ids(&self, prompt: &Prompt) -> Result<(Vec<u32>, usize)> {
        let mut ids = self.loaded.text_ids(prompt, &self.args.text, self.verbosity)?;
        let mut context = self.loaded.added_before(prompt);
        if self.args.text.bos && context == 0 {
            ids.insert(0, self.loaded.start_token().context("--bos: the model has no start token")?);
            context = 1;
        }
        Ok((ids, context))
    }

    /// The record of a text whose first `skipped` ids are not its own.
    fn record(&self, mut ids: Vec<u32>, skipped: usize, score: &Score) -> ScoreRecord {
        let protocol = Protocol {
            bos: skipped > 0,
            context: self.options.sliding.map_or(self.loaded.model.config().n_positions, Sliding::context),
            stride: self.options.sliding.map(Sliding::stride),
        };
        let tokens = &score.tokens[skipped..];
        ids.drain(..skipped);
        let sum_logprob = score.sum_logprob();
        let scored: Vec<u32> = ids.iter().zip(tokens).filter(|(_, score)| score.is_some()).map(|(id, _)| *id).collect();
        let bytes = self.loaded.tokenizer.as_ref().map(|tokenizer| tokenizer.decode_bytes(&scored, false).len());
        ScoreRecord {
            model: self.loaded.name.clone(),
            settings: self.loaded.record_settings([]),
            tokens: ids.iter().map(|id| self.loaded.token_text(*id)).collect(),
            logprobs: tokens.iter().map(|token| token.map(|token| token.logprob)).collect(),
            ranks: tokens.iter().map(|token| token.map(|token| token.rank)).collect(),
            ids,
            sum_logprob,
            scored_tokens: score.scored_tokens(),
            perplexity: score.perplexity,
            bits_per_byte: bytes
                .filter(|n| *n > 0 && score.scored_tokens() > 0)
                .map(|n| -sum_logprob / std::f64::consts::LN_2 / n as f64),
            protocol,
            interrupted: false,
        }
    }

    /// Scores rows, as many at a time as have arrived and fit the batch.
    fn batch(&self, input: Input) -> Result<()> {
        let args = &self.args.batch;
        let mut settings = self.loaded.settings("score", &self.args.model, &self.args.text, &args.rows);
        settings.parameters.insert("stride".into(), self.args.stride.into());
        settings.parameters.insert("context".into(), self.args.context.into());
        let batch = Batch::open(&args.rows, input, false, args.batch_size, &mut settings, self.verbosity)?;
        batch.run(
            &ScoreRecord::default(),
            |rows, tokens| {
                let texts = rows.iter().map(|row| self.scorable(&row.prompt)).collect();
                rows::of_those_that_can(texts, |texts| {
                    *tokens += texts.iter().map(|(ids, _)| ids.len()).sum::<usize>();
                    together(texts, &|texts| self.records(texts))
                })
            },
            |_, record, out| {
                record.write_text(self.loaded.notation(self.args.pieces.pieces), self.verbosity.verbose > 0, out)
            },
        )
    }

    /// As [`ids`](Self::ids), if they can be scored.
    fn scorable(&self, prompt: &Prompt) -> Result<(Vec<u32>, usize)> {
        let (ids, context) = self.ids(prompt)?;
        score::check(&self.loaded.model, &ids, &self.options)?;
        Ok((ids, context))
    }

    /// The records of texts, each given by its ids and how many at their start are not its own.
    fn records(&self, texts: &[(Vec<u32>, usize)]) -> Result<Vec<ScoreRecord>> {
        let ids: Vec<&[u32]> = texts.iter().map(|(ids, _)| ids.as_slice()).collect();
        let scores = score(&self.loaded.model, &ids, &self.options, |_| ControlFlow::Continue(()))?;
        Ok(scores.iter().zip(texts).map(|(score, (ids, context))| self.record(ids.clone(), *context, score)).collect())
    }
}
