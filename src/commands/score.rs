//! `gpt2 score`: how likely a model finds a text.

use std::io::IsTerminal;
use std::sync::mpsc::Receiver;

use anyhow::{Context, Result, anyhow, bail};
use gpt2::Error;
use gpt2::analysis::perplexity::Sliding;
use gpt2::analysis::score::{self, Score, ScoreOptions, score};
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use serde::Deserialize;
use serde_json::Value;

use super::jsonl::{self, Line, Sink};
use super::load::Loaded;
use crate::cli::{Format, Prompt, ScoreArgs, Verbosity};
use crate::output::score::{Protocol, ScoreRecord};
use crate::output::{Stdout, check_folder, html, say};

/// How many of the most probable tokens the page shows in each place.
const ALTERNATIVES: usize = 8;

/// Texts of more tokens than this get a progress bar.
const LONG: usize = 4096;

pub fn run(args: &ScoreArgs, verbosity: Verbosity) -> Result<()> {
    check(args)?;
    let work = match &args.batch.input {
        // Open the input first: if it is missing, the output of an earlier run must survive.
        Some(input) => Work::Batch(jsonl::read_lines(input)?),
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
        Work::Batch(lines) => scorer.batch(&lines),
        Work::Single(prompt) => scorer.single(&prompt),
    }
}

/// Checks everything that can be checked from the flags alone.
fn check(args: &ScoreArgs) -> Result<()> {
    for (name, value) in [("stride", args.stride), ("context", args.context)] {
        if value == Some(0) {
            bail!(Error::parameter(name, "is 0; it takes numbers from 1"));
        }
    }
    if let (Some(context), Some(stride)) = (args.context, args.stride) {
        Sliding::new(context, stride, usize::MAX)?;
    }
    check_folder(args.html.as_deref())?;
    match &args.batch.input {
        Some(input) => jsonl::check_output(input, args.batch.output.as_deref()),
        None => Ok(()),
    }
}

/// What to score.
enum Work {
    Single(Prompt),
    Batch(Receiver<Line>),
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
        let progress = self.progress(ids.len())?;
        let scores = score(&self.loaded.model, &[&ids], &self.options, |tokens| progress.inc(tokens as u64));
        progress.finish_and_clear();
        let Some(score) = scores?.pop() else { return Ok(()) };
        let record = self.record(None, ids, context, &score);
        if record.scored_tokens == 0 && !self.verbosity.quiet {
            say("there is nothing to score: the first token has no probability without --bos");
        }
        if let Some(path) = &self.args.html {
            let alternatives = &score.alternatives[score.alternatives.len() - record.ids.len()..];
            html::score::write(path, &record, alternatives, self.loaded.tokenizer.as_ref())?;
        }
        let mut out = Stdout::lock();
        match self.args.format {
            Format::Text => {
                record.write_text(self.loaded.tokenizer.as_ref(), self.verbosity.verbose > 0, &mut out)?;
            }
            format => out.json(&record, format)?,
        }
        out.finish()
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
    fn record(&self, id: Option<Value>, mut ids: Vec<u32>, skipped: usize, score: &Score) -> ScoreRecord {
        let protocol = Protocol {
            bos: skipped > 0,
            context: self.options.sliding.map_or(self.loaded.model.config().n_positions, Sliding::context),
            stride: self.options.sliding.map(Sliding::stride),
        };
        let tokens = &score.tokens[skipped..];
        ids.drain(..skipped);
        let sum_logprob = score.sum_logprob();
        let bytes = self.loaded.tokenizer.as_ref().map(|tokenizer| tokenizer.decode_bytes(&ids, false).len());
        ScoreRecord {
            id,
            model: self.loaded.name.clone(),
            tokens: ids.iter().map(|id| self.loaded.token_text(*id)).collect(),
            logprobs: tokens.iter().map(|token| token.map(|token| token.logprob)).collect(),
            ranks: tokens.iter().map(|token| token.map(|token| token.rank)).collect(),
            ids,
            sum_logprob,
            scored_tokens: score.scored_tokens(),
            perplexity: score.perplexity,
            bits_per_byte: bytes.filter(|n| *n > 0).map(|n| -sum_logprob / std::f64::consts::LN_2 / n as f64),
            protocol,
        }
    }

    /// A progress bar for the tokens of a long text.
    fn progress(&self, tokens: usize) -> Result<ProgressBar> {
        if self.verbosity.quiet || tokens < LONG || !std::io::stderr().is_terminal() {
            return Ok(ProgressBar::hidden());
        }
        let style = ProgressStyle::with_template("{bar:30} {human_pos}/{human_len} tokens, {speed}, {eta} left")?
            .with_key("speed", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                // Writing to a string cannot fail.
                let _ = write!(out, "{:.0}/s", state.per_sec());
            });
        Ok(ProgressBar::new(tokens as u64).with_style(style))
    }

    /// Scores texts from a JSONL file, as many at a time as have arrived and fit the batch.
    fn batch(&self, lines: &Receiver<Line>) -> Result<()> {
        let args = &self.args.batch;
        let (mut sink, mut done) = Sink::open("score", args.output.as_deref(), args.resume)?;
        let progress = jsonl::progress(args.input.as_deref(), self.verbosity.quiet)?;
        let mut failed = 0;
        while let Ok(first) = lines.recv() {
            let mut rows = vec![];
            for line in std::iter::once(first).chain(lines.try_iter().take(args.batch_size - 1)) {
                match self.row(line) {
                    Ok(row) if done.get(&row.id.to_string()).is_some_and(|left| *left > 0) => {
                        done.entry(row.id.to_string()).and_modify(|left| *left -= 1);
                        progress.inc(1);
                    }
                    row => rows.push(row),
                }
            }
            let count = rows.len();
            failed += self.score_rows(rows, &mut sink)?;
            progress.inc(count as u64);
        }
        progress.finish_and_clear();
        jsonl::outcome(failed)
    }

    /// The row on a line. An error comes with the id to report it under.
    fn row(&self, line: Line) -> Result<Row, (Value, anyhow::Error)> {
        let (number, raw) = jsonl::parse::<RawRow>(line)?;
        let id = raw.id.clone().unwrap_or_else(|| number.into());
        let ids = raw.prompt().and_then(|prompt| self.ids(&prompt)).and_then(|(ids, context)| {
            score::check(&self.loaded.model, &ids, &self.options)?;
            Ok((ids, context))
        });
        match ids {
            Ok((ids, context)) => Ok(Row { id, ids, context }),
            Err(error) => Err((id, error)),
        }
    }

    /// Scores rows together and writes the results in order; returns how many failed.
    fn score_rows(&self, rows: Vec<Result<Row, (Value, anyhow::Error)>>, sink: &mut Sink) -> Result<usize> {
        let texts: Vec<&[u32]> = rows.iter().flatten().map(|row| row.ids.as_slice()).collect();
        let mut scores = self.scores(&texts).into_iter();
        let mut failed = 0;
        for row in rows {
            let scored = row.and_then(|row| match scores.next() {
                Some(Ok(score)) => Ok(self.record(Some(row.id), row.ids, row.context, &score)),
                Some(Err(error)) => Err((row.id, error)),
                None => Err((row.id, anyhow!("the text was not scored"))),
            });
            match scored {
                Ok(record) => sink.line(&record)?,
                Err((id, error)) => {
                    failed += 1;
                    sink.error(id, &error)?;
                }
            }
        }
        Ok(failed)
    }

    /// Scores texts together, or one by one if one of them fails.
    fn scores(&self, texts: &[&[u32]]) -> Vec<Result<Score>> {
        match score(&self.loaded.model, texts, &self.options, |_| ()) {
            Ok(scores) => scores.into_iter().map(Ok).collect(),
            Err(error) if texts.len() == 1 => vec![Err(error.into())],
            Err(_) => texts.chunks(1).flat_map(|text| self.scores(text)).collect(),
        }
    }
}

/// A line of the input.
#[derive(Deserialize)]
#[serde(expecting = "an object with `text` or `ids`")]
struct RawRow {
    /// Any value; the line's number (from 1) if there is none.
    id: Option<Value>,
    #[serde(alias = "prompt")]
    text: Option<String>,
    #[serde(alias = "prompt_ids")]
    ids: Option<Vec<u32>>,
}

impl RawRow {
    fn prompt(self) -> Result<Prompt> {
        match (self.text, self.ids) {
            (Some(text), None) => Ok(Prompt::Text(text)),
            (None, Some(ids)) => Ok(Prompt::Ids(ids)),
            (None, None) => bail!("the row has neither `text` nor `ids`"),
            (Some(_), Some(_)) => bail!("the row has both `text` and `ids`"),
        }
    }
}

/// A text that can be scored.
struct Row {
    id: Value,
    ids: Vec<u32>,
    /// How many ids at the start are not the text's.
    context: usize,
}
