//! `gpt2 score`: how likely a model finds a text.

mod asked;
mod records;

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use anyhow::{Result, bail};
use gpt2::Error;
use gpt2::analysis::perplexity::{Sliding, Windows};
use gpt2::analysis::score::{self, Progress, ScoreOptions, score};
use gpt2::analysis::words::WordStarts;
use gpt2::model::Packing;

use self::asked::{Around, Asked, Encoder, ROW_KEYS};
pub use self::asked::{Encoded, after};
use self::records::{RowScore, Shown};
use super::interventions::Changes;
use super::load::{Loaded, Purpose};
use super::progress::TokenBar;
use super::rows::{self, Allowed, Batch, Input, Row, together};
use super::{Interrupted, interrupt_flag};
use crate::cli::{Prompt, ScoreArgs, ScoreFormat, Verbosity, WordCorrection};
use crate::output::score as output;
use crate::output::{Stdout, check_folder, html, say, say_written};

/// How many of the most probable tokens the page shows in each place.
const ALTERNATIVES: usize = 8;

/// Texts that take at least this many tokens through the network get a progress bar.
const LONG: usize = 4096;

pub fn run(args: &ScoreArgs, verbosity: Verbosity) -> Result<()> {
    check(args)?;
    let work = match Input::of_texts_with(&args.batch.texts, Allowed::None, &ROW_KEYS)? {
        Some(input) => Work::Batch(Box::new(input)),
        None if args.candidate.is_empty() => Work::Single(args.text.prompt()?),
        None => Work::Single(Prompt::Ids(vec![])),
    };
    let changes = Changes::read(&args.interventions)?;
    let purpose = Purpose { hooks: changes.are_any(), ..Packing::Later.into() };
    let loaded = Loaded::load_for(&args.model, purpose, verbosity)?;
    let loaded = loaded.with_changes(changes, &args.text, is_for_people(args) && !verbosity.quiet)?;
    let encoder = Encoder { args, loaded: &loaded, verbosity };
    let starts = match args.words {
        true => Some(word_starts(&loaded, encoder.end_of_text())?),
        false => None,
    };
    let options = ScoreOptions {
        windows: windows(args, loaded.model.config().n_positions)?,
        alternatives: args.logprobs.unwrap_or(0).max(if args.html.is_some() { ALTERNATIVES } else { 0 }),
        entropy: args.entropy,
        words: starts.as_ref().filter(|_| args.correction() == WordCorrection::Bow),
        interventions: loaded.changed.by_text.as_ref(),
    };
    let scorer = Scorer { args, loaded: &loaded, encoder, options, verbosity };
    match work {
        Work::Batch(input) => scorer.batch(*input),
        Work::Single(prompt) => scorer.single(&prompt),
    }
}

/// Checks everything that can be checked from the flags alone.
fn check(args: &ScoreArgs) -> Result<()> {
    if let (Some(window), Some(stride)) = (args.window, args.stride) {
        Sliding::new(window, stride, usize::MAX)?;
    }
    args.pieces.check(is_for_people(args))?;
    args.batch.texts.check_format(matches!(args.format, Some(ScoreFormat::Text | ScoreFormat::Tsv)))?;
    check_folder(args.html.as_deref())
}

/// Whether the result is text for people.
fn is_for_people(args: &ScoreArgs) -> bool {
    args.format.map_or(args.batch.texts.is_for_people(None), |format| format == ScoreFormat::Text)
}

fn windows(args: &ScoreArgs, n_positions: usize) -> Result<Windows> {
    Ok(match args.stride {
        Some(stride) => Windows::Sliding(Sliding::new(args.window.unwrap_or(n_positions), stride, n_positions)?),
        None if args.rolling => Windows::Rolling { context: args.window.unwrap_or(n_positions).min(n_positions) },
        None => Windows::Whole,
    })
}

/// Which tokens of the model begin words.
fn word_starts(loaded: &Loaded, end: Option<u32>) -> Result<WordStarts> {
    let tokenizer = loaded.tokenizer()?;
    Ok(WordStarts::new(loaded.model.config().vocab_size, |id| tokenizer.bytes(id).unwrap_or_default(), end))
}

/// What to score.
enum Work {
    Single(Prompt),
    Batch(Box<Input>),
}

/// A loaded model and the flags.
struct Scorer<'a> {
    args: &'a ScoreArgs,
    loaded: &'a Loaded,
    encoder: Encoder<'a>,
    options: ScoreOptions<'a>,
    verbosity: Verbosity,
}

impl Scorer<'_> {
    fn single(&self, prompt: &Prompt) -> Result<()> {
        let asked = self.encoder.asked(prompt, &Around::of_flags(self.args))?;
        self.check(&asked)?;
        let texts: Vec<_> = asked.texts().map(asked::Encoded::text).collect();
        let total = texts.iter().map(|text| text.ids.len()).sum();
        let work: usize = texts.iter().map(|text| score::work(*text, &self.options)).sum();
        let interrupted = interrupt_flag()?;
        let mut progress = TokenBar::new(total, work, self.verbosity.quiet || work < LONG)?;
        let mut done = 0;
        let scores = score(&self.loaded.model, &texts, &self.options, |Progress { tokens, work }| {
            progress.add(tokens, work);
            done += tokens;
            if interrupted.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        progress.finish();
        let scores = scores?;
        let is_interrupted = done < total && interrupted.load(Ordering::Relaxed);
        if is_interrupted && matches!(asked, Asked::Candidates(_)) {
            return Err(Interrupted.into());
        }
        if is_interrupted && !self.verbosity.quiet {
            say(format_args!("interrupted: these are the scores of the first {done} of {} tokens", total));
        }
        let mut shown = self.shown(&asked, &scores);
        if let Shown::Text(record) = &mut shown {
            record.interrupted = is_interrupted;
            if record.scored_tokens == 0 && !self.verbosity.quiet {
                say(match record.ids.is_empty() {
                    true => "note: there is nothing to score: the text is empty",
                    false => "note: there is nothing to score: the first token has no probability without --bos",
                });
            }
            if let (Some(path), [score]) = (&self.args.html, &scores[..]) {
                let alternatives = &score.alternatives[score.alternatives.len() - record.ids.len()..];
                html::score::write(path, record, alternatives, self.loaded.tokenizer.as_ref())?;
                if !self.verbosity.quiet {
                    say_written(path, "a page with the scores and the expected tokens over the text");
                }
            }
        }
        let mut out = Stdout::lock();
        match self.args.record_format() {
            Some(format) => out.json(&shown, format)?,
            None => {
                self.write_header(&mut out)?;
                self.write(&shown, "1", &mut out)?;
            }
        }
        out.finish()?;
        if is_interrupted { Err(Interrupted.into()) } else { Ok(()) }
    }

    /// Scores rows, as many at a time as have arrived and fit the batch.
    fn batch(&self, input: Input) -> Result<()> {
        let (args, texts) = (self.args, &self.args.batch.texts);
        let mut settings = self.loaded.settings("score", &args.model, &args.text, &texts.rows);
        let flags = serde_json::json!({
            "stride": args.stride, "window": args.window, "rolling": args.rolling.then_some(true), "context": args.context,
            "candidate": Some(&args.candidate).filter(|candidates| !candidates.is_empty()), "eos": args.eos.then_some(true),
            "entropy": args.entropy.then_some(true), "logprobs": args.logprobs,
            "words": args.words.then(|| format!("{:?}", args.correction()).to_lowercase()),
        });
        settings.parameters.extend(flags.as_object().cloned().unwrap_or_default());
        let for_people = args.format.map(|format| matches!(format, ScoreFormat::Text | ScoreFormat::Tsv));
        let is_text = texts.is_text(for_people);
        let batch = Batch::open(&texts.rows, input, is_text, args.batch.batch_size, &mut settings, self.verbosity)?;
        let flags = Around::of_flags(args);
        if args.is_table() {
            let mut out = Stdout::lock();
            self.write_header(&mut out)?;
            out.finish()?;
        }
        batch.run(
            &self.row(None),
            |rows, tokens| {
                let asked = rows.iter().map(|row| self.scorable(row, &flags)).collect();
                rows::of_those_that_can(asked, |asked| {
                    *tokens += asked.iter().flat_map(Asked::texts).map(|text| text.ids.len()).sum::<usize>();
                    together(asked, &|asked| self.rows(asked))
                })
            },
            |row, RowScore { shown, .. }, out| {
                let Some(shown) = shown else { return Ok(()) };
                if args.is_table() {
                    return self.write(shown, &row.name(), out);
                }
                row.write_heading(out)?;
                self.write(shown, "", out)?;
                Ok(writeln!(out)?)
            },
        )
    }

    /// What a row asks, if it can be scored.
    fn scorable(&self, row: &Row, flags: &Around) -> Result<Asked> {
        let around = Around::of_row(row, flags)?;
        if self.options.windows != Windows::Whole && (around.context.is_some() || !around.candidates.is_empty()) {
            bail!(Error::Usage("--stride and --rolling score texts without a context or candidates".into()));
        }
        if !around.candidates.is_empty() && (self.args.words || self.args.logprobs.is_some()) {
            bail!(Error::Usage("--words and --logprobs are about a text, not about `candidates`".into()));
        }
        if !around.candidates.is_empty() && self.args.is_table() {
            bail!(Error::Usage("--format tsv is a table of tokens or words, without `candidates`".into()));
        }
        let asked = self.encoder.asked(&row.prompt, &around)?;
        self.check(&asked)?;
        Ok(asked)
    }

    /// Checks that what is asked fits the model. A window slides over no text after a context.
    fn check(&self, asked: &Asked) -> Result<()> {
        for text in asked.texts() {
            score::check(&self.loaded.model, text.text(), &self.options).map_err(|error| {
                match (error, &text.context) {
                    (Error::Context { context, .. }, Some(_)) => {
                        Error::AfterContext { before: text.given, text: text.own().len(), context }
                    }
                    (error, _) => error,
                }
            })?;
        }
        Ok(())
    }

    /// The results of rows. All their texts run together, so that contexts which rows share run once.
    fn rows(&self, asked: &[Asked]) -> Result<Vec<RowScore>> {
        let texts: Vec<_> = asked.iter().flat_map(Asked::texts).map(asked::Encoded::text).collect();
        let scores = score(&self.loaded.model, &texts, &self.options, |_| ControlFlow::Continue(()))?;
        let mut scores = &scores[..];
        let row = |asked: &Asked| {
            let own = scores.split_off(..asked.texts().count()).unwrap_or_default();
            self.row(Some(self.shown(asked, own)))
        };
        Ok(asked.iter().map(row).collect())
    }

    /// The first line of a table.
    fn write_header(&self, out: &mut Stdout) -> Result<()> {
        match self.args.is_table() {
            true => out.text(output::header(self.args.words)),
            false => Ok(()),
        }
    }

    /// Writes a result as text or as part of a table, in which it is the row of that name.
    fn write(&self, shown: &Shown, row: &str, out: &mut Stdout) -> Result<()> {
        let notation = self.loaded.notation(self.args.pieces.pieces);
        match shown {
            Shown::Text(record) if self.args.is_table() => {
                let mut table = String::new();
                output::write_table(record, row, &mut table);
                out.text(table)
            }
            Shown::Text(record) => record.write_text(notation, self.verbosity.verbose > 0, out),
            Shown::Candidates(record) => record.write_text(notation, out),
        }
    }
}
