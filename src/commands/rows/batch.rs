//! The loop over rows that are independent of each other.

use anyhow::{Result, anyhow};
use gpt2::printable;
use serde::Serialize;

use super::{Input, Next, Refused, Results, Row, Settings};
use crate::cli::{Prompt, RowArgs, Verbosity};
use crate::commands::stop::Stop;
use crate::output::tokens::cut;
use crate::output::{RowRecord, Stdout, Style};

/// A row, if it can be run.
type ReadRow = Result<Row, Box<Refused>>;

/// A run over rows.
pub struct Batch {
    input: Input,
    results: Results,
    /// How many rows to work on together.
    size: usize,
}

impl Batch {
    /// Opens the output of the rows, of which `size` are worked on together.
    ///
    /// # Errors
    /// Those of [`Results::open`].
    pub fn open(
        args: &RowArgs,
        input: Input,
        is_text: bool,
        size: usize,
        settings: &mut Settings,
        verbosity: Verbosity,
    ) -> Result<Self> {
        let results = Results::open(args, is_text, &input, settings, verbosity)?;
        Ok(Self { input, results, size })
    }

    /// Works on the rows as [`run_then`](Self::run_then) does.
    ///
    /// # Errors
    /// Those of [`run_then`](Self::run_then).
    pub fn run<T: Serialize>(
        self,
        empty: &T,
        work: impl FnMut(&[&Row], &mut usize) -> Vec<Result<T>>,
        show: impl FnMut(&Row, &T, &mut Stdout) -> Result<()>,
    ) -> Result<()> {
        self.run_then(empty, work, show, || Ok(()))
    }

    /// Works on the rows, as many at a time as have arrived and fit, and writes the results in order. `work` gives a result
    /// for each row and counts their tokens; `show` writes one for people; an `empty` record tells the keys of all. A signal
    /// ends it after those under way. `then` is
    /// what is left to do once all rows are done, whether or not some have failed.
    ///
    /// # Errors
    /// If the input cannot be read or a result cannot be written; after a signal; and, at the end, if a row failed.
    pub fn run_then<T: Serialize>(
        mut self,
        empty: &T,
        mut work: impl FnMut(&[&Row], &mut usize) -> Vec<Result<T>>,
        mut show: impl FnMut(&Row, &T, &mut Stdout) -> Result<()>,
        then: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        self.results.with_records_as(empty);
        let stop = Stop::on_signals()?;
        let mut more = true;
        while more && !stop.is_ending() {
            let rows;
            (rows, more) = self.next_rows()?;
            let runnable: Vec<&Row> = rows.iter().flatten().collect();
            let mut tokens = 0;
            let mut found = if runnable.is_empty() { vec![] } else { work(&runnable, &mut tokens) }.into_iter();
            self.results.shown.tokens(tokens);
            for row in rows {
                let outcome = row.and_then(|row| match found.next() {
                    Some(Ok(record)) => Ok((row, record)),
                    Some(Err(error)) => Err(Box::new(Refused { place: row.place, error })),
                    None => Err(Box::new(Refused { place: row.place, error: anyhow!("the row was not run") })),
                });
                match outcome {
                    Ok((row, record)) => self.results.write(&row, &record, &mut show)?,
                    Err(refused) => self.results.refuse(*refused)?,
                }
            }
        }
        let end = if more {
            self.results.close();
            Ok(())
        } else {
            then().and_then(|()| self.results.finish(&self.input))
        };
        if stop.is_ending() { Err(stop.reason()) } else { end }
    }

    /// The next rows that an earlier run has not completed, and whether there may be more.
    fn next_rows(&mut self) -> Result<(Vec<ReadRow>, bool)> {
        let mut rows = vec![];
        while rows.len() < self.size {
            // With some at hand, do not wait for a slow writer of the input.
            match self.input.next(rows.is_empty())? {
                Next::Row(row) => match self.results.has(&row) {
                    Ok(true) => self.results.shown.row(true),
                    Ok(false) => rows.push(Ok(*row)),
                    Err(error) => rows.push(Err(Box::new(Refused { place: row.place, error }))),
                },
                Next::Refused(refused) => rows.push(Err(refused)),
                Next::Later => break,
                Next::End => return Ok((rows, false)),
            }
        }
        Ok((rows, true))
    }
}

impl Row {
    /// What tells it from others where there is room for a name only: its id, or its line if it has none, of its file if there
    /// are several.
    pub fn name(&self) -> String {
        let RowRecord { id, line, file, .. } = &self.place;
        match (id, file) {
            (Some(id), _) => serde_json::from_str(id.get()).unwrap_or_else(|_| id.get().to_owned()),
            (None, Some(file)) => format!("{file}:{line}"),
            (None, None) => line.to_string(),
        }
    }

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
