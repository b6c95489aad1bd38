//! The loop over rows that are independent of each other.

use std::sync::atomic::Ordering;

use anyhow::{Result, anyhow, bail};
use gpt2::printable;
use indicatif::ProgressBar;
use serde::Serialize;

use super::sink::error_line;
use super::{Input, Next, Refused, Row, Settings, Sink, outcome, show_tokens};
use crate::cli::{Prompt, RowArgs, Verbosity};
use crate::commands::{Interrupted, interrupt_flag};
use crate::output::tokens::cut;
use crate::output::{RowRecord, Stdout, Style, say_error};

/// Where the results go.
pub enum Results {
    /// Records, one a line.
    Records(Sink),
    /// Text for people, on stdout.
    Text {
        out: Box<Stdout>,
        /// For the advice that goes with an error.
        subcommand: String,
    },
}

impl Results {
    /// Opens the output that the flags name: text for people only if it `is_text` and no file of records is asked for.
    ///
    /// # Errors
    /// Those of [`Sink::open`].
    pub fn open(args: &RowArgs, is_text: bool, input: &Input, settings: &mut Settings) -> Result<Self> {
        if is_text && args.output.is_none() {
            return Ok(Self::Text { out: Box::new(Stdout::lock()), subcommand: settings.subcommand.clone() });
        }
        Sink::open(args, input, settings).map(Self::Records)
    }

    /// Whether they are for people.
    pub fn is_text(&self) -> bool {
        matches!(self, Self::Text { .. })
    }
}

/// The result of a row, with what every record says about its row.
#[derive(Serialize)]
struct RowResult<'a, T> {
    #[serde(flatten)]
    row: &'a RowRecord,
    #[serde(flatten)]
    record: &'a T,
}

/// A run over rows.
pub struct Batch {
    pub input: Input,
    pub results: Results,
    /// How many rows to work on together.
    pub size: usize,
    pub progress: ProgressBar,
    pub verbosity: Verbosity,
}

impl Batch {
    /// Works on the rows, as many at a time as have arrived and fit, and writes the results in order. `work` gives a result
    /// for each row and counts their tokens; `show` writes one for people. Ctrl-C ends it after those under way.
    ///
    /// # Errors
    /// If the input cannot be read or a result cannot be written; [`Interrupted`]; and, at the end, if a row failed.
    pub fn run<T: Serialize>(
        mut self,
        mut work: impl FnMut(&[&Row], &mut usize) -> Vec<Result<T>>,
        mut show: impl FnMut(&Row, &T, &mut Stdout) -> Result<()>,
    ) -> Result<()> {
        let interrupted = interrupt_flag()?;
        let (mut failed, mut tokens) = (0, 0);
        let mut more = true;
        while more && !interrupted.load(Ordering::Relaxed) {
            let rows;
            (rows, more) = self.next_rows()?;
            let count = rows.len() as u64;
            let runnable: Vec<&Row> = rows.iter().flatten().collect();
            let mut found = if runnable.is_empty() { vec![] } else { work(&runnable, &mut tokens) }.into_iter();
            for row in rows {
                let outcome = row.and_then(|row| match found.next() {
                    Some(Ok(record)) => Ok((row, record)),
                    Some(Err(error)) => Err(Refused { place: row.place, error }),
                    None => Err(Refused { place: row.place, error: anyhow!("the row was not run") }),
                });
                match outcome {
                    Ok((row, record)) => self.write(&row, &record, &mut show)?,
                    Err(refused) => {
                        failed += 1;
                        self.refuse(refused)?;
                    }
                }
            }
            self.progress.inc(count);
            show_tokens(&self.progress, tokens as u64);
        }
        self.progress.finish_and_clear();
        if let Results::Records(sink) = &self.results {
            sink.report(self.verbosity);
        }
        if more {
            return Err(Interrupted.into());
        }
        match (self.results, failed) {
            (Results::Text { .. }, 1..) => bail!("{failed} of the texts failed, as said above"),
            (_, failed) => outcome(failed),
        }
    }

    /// The next rows that an earlier run has not completed, and whether there may be more.
    fn next_rows(&mut self) -> Result<(Vec<Result<Row, Refused>>, bool)> {
        let mut rows = vec![];
        while rows.len() < self.size {
            // With some at hand, do not wait for a slow writer of the input.
            match self.input.next(rows.is_empty())? {
                Next::Row(row) => match self.is_done(&row) {
                    Ok(true) => self.progress.inc(1),
                    Ok(false) => rows.push(Ok(*row)),
                    Err(error) => rows.push(Err(Refused { place: row.place, error })),
                },
                Next::Refused(refused) => rows.push(Err(*refused)),
                Next::Later => break,
                Next::End => return Ok((rows, false)),
            }
        }
        Ok((rows, true))
    }

    fn is_done(&self, row: &Row) -> Result<bool> {
        match &self.results {
            Results::Records(sink) => sink.has(row),
            Results::Text { .. } => Ok(false),
        }
    }

    fn write<T: Serialize>(
        &mut self,
        row: &Row,
        record: &T,
        show: &mut impl FnMut(&Row, &T, &mut Stdout) -> Result<()>,
    ) -> Result<()> {
        match &mut self.results {
            Results::Records(sink) => sink.result(row.identity(), &RowResult { row: &row.place, record }),
            Results::Text { out, .. } => {
                show(row, record, out)?;
                out.finish()
            }
        }
    }

    fn refuse(&mut self, refused: Refused) -> Result<()> {
        match &mut self.results {
            Results::Records(sink) => sink.refused(refused),
            Results::Text { subcommand, .. } => {
                let line = error_line(&refused, subcommand);
                let place = format!("line {}", refused.place.line);
                let line = if line.starts_with(&place) { line } else { format!("{place}: {line}") };
                say_error(&[line]);
                Ok(())
            }
        }
    }
}

impl Row {
    /// A heading above the row's result, for people: its line, and its text or ids.
    pub fn write_heading(&self, out: &mut Stdout) -> Result<()> {
        /// Columns of the text.
        const WIDEST: usize = 60;
        let text = match &self.prompt {
            Prompt::Text(text) => format!("\"{}\"", printable::line(text)),
            Prompt::Ids(ids) => ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" "),
        };
        let (bold, line, text) = (Style::new().bold(), self.place.line, cut(&text, WIDEST));
        Ok(writeln!(out, "{bold}=== {line}: {text} ==={bold:#}")?)
    }
}

/// The results of running all the texts together or, if that fails, each on its own, so that one that fails leaves the
/// others alone.
pub fn together<I, T>(texts: &[I], run: &impl Fn(&[I]) -> Result<Vec<T>>) -> Vec<Result<T>> {
    match run(texts) {
        Ok(found) => found.into_iter().map(Ok).collect(),
        Err(error) if texts.len() == 1 => vec![Err(error)],
        Err(_) => texts.chunks(1).flat_map(|text| together(text, run)).collect(),
    }
}

/// The results of rows of which some may have failed before: `run` gets what the others have become.
pub fn of_those_that_can<I, T>(rows: Vec<Result<I>>, run: impl FnOnce(&[I]) -> Vec<Result<T>>) -> Vec<Result<T>> {
    let (mut ready, mut failures) = (vec![], vec![]);
    for (place, row) in rows.into_iter().enumerate() {
        match row {
            Ok(row) => ready.push(row),
            Err(error) => failures.push((place, error)),
        }
    }
    let mut results = if ready.is_empty() { vec![] } else { run(&ready) };
    // In ascending order, so that each place is that of the end.
    for (place, error) in failures {
        results.insert(place, Err(error));
    }
    results
}
