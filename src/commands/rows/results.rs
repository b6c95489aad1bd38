//! Where the results of a batch go, and how it ends.

use std::path::PathBuf;

use anyhow::{Result, bail};
use gpt2::json;
use serde::Serialize;

use super::columns::Columns;
use super::ledger::fingerprint;
use super::progress::Shown;
use super::sink::error_line;
use super::{Hash, Input, Refused, Row, Settings, Sink};
use crate::cli::{OnRowError, RowArgs, Verbosity};
use crate::output::{ErrorKind, RowRecord, Stdout, SummaryRecord, check_folder, say, say_error, write_file};

/// Some rows failed, and everything else is done.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RowsFailed(String);

impl RowsFailed {
    pub const EXIT_CODE: u8 = 3;
}

/// The results of a batch.
pub struct Results {
    to: To,
    columns: Columns,
    pub shown: Shown,
    settings: Settings,
    on_row_error: OnRowError,
    keep_going: bool,
    is_ordered: bool,
    shard: Option<String>,
    summary: Option<PathBuf>,
    is_untimed: bool,
    verbosity: Verbosity,
}

enum To {
    /// Records, one a line.
    Records(Sink),
    /// Text for people, on stdout.
    Text(Box<Stdout>),
}

/// A record as it will be written, and what identifies its row if that was run.
pub struct Written {
    identity: Option<(Hash, Hash)>,
    json: Vec<u8>,
    /// Why the row failed, if the run is to end with it.
    ends: Option<String>,
}

impl Results {
    /// Opens the output that the flags name: text for people only if it `is_text` and no file of records is asked for. With
    /// `--resume`, the seed of the settings becomes that of the earlier run.
    ///
    /// # Errors
    /// Those of [`Sink::open`], and of flags that do not fit together.
    pub fn open(
        args: &RowArgs,
        is_text: bool,
        input: &Input,
        settings: &mut Settings,
        verbosity: Verbosity,
    ) -> Result<Self> {
        args.check()?;
        let shard = args.shard.map(|shard| shard.to_string());
        settings.parameters.insert("shard".into(), shard.clone().into());
        settings.parameters.insert("no_timings".into(), args.no_timings.into());
        check_folder(args.summary.as_deref())?;
        let to = match is_text && args.output.is_none() {
            true => To::Text(Box::new(Stdout::lock())),
            false => To::Records(Sink::open(args, input, settings)?),
        };
        // It is the proof that a run is whole: until this one is, there is none.
        if let Some(path) = &args.summary {
            gpt2::files::remove(path)?;
        }
        let has_bar = !verbosity.quiet && matches!(to, To::Records(_));
        Ok(Self {
            to,
            columns: Columns::default(),
            shown: Shown::new(input.files(), args, has_bar)?,
            settings: settings.clone(),
            on_row_error: args.on_row_error,
            keep_going: args.keep_going,
            is_ordered: args.ordered,
            shard,
            summary: args.summary.clone(),
            is_untimed: args.no_timings,
            verbosity,
        })
    }

    /// Says of what kind the records are, by an empty one.
    pub fn with_records_as(&mut self, record: &impl Serialize) {
        self.columns = Columns::of(record, self.is_untimed);
    }

    /// Whether an earlier run has completed the row.
    ///
    /// # Errors
    /// Those of [`Sink::has`].
    pub fn has(&self, row: &Row) -> Result<bool> {
        match &self.to {
            To::Records(sink) => sink.has(row),
            To::Text(_) => Ok(false),
        }
    }

    /// Writes the result of a row; `show` writes it for people.
    pub fn write<T: Serialize>(
        &mut self,
        row: &Row,
        record: &T,
        show: &mut impl FnMut(&Row, &T, &mut Stdout) -> Result<()>,
    ) -> Result<()> {
        if let To::Text(out) = &mut self.to {
            show(row, record, out)?;
            out.finish()?;
            self.shown.row(true);
            return Ok(());
        }
        self.record(row.identity(), &row.place, record)
    }

    /// Writes a record, the result of a row that is identified by its key and content.
    pub fn record(&mut self, identity: (Hash, Hash), row: &RowRecord, record: &impl Serialize) -> Result<()> {
        if let To::Records(sink) = &mut self.to {
            let record = self.columns.result(row, record);
            sink.line(Some(identity), |out| json::write(out, &record))?;
        }
        self.shown.row(true);
        Ok(())
    }

    /// Writes why a row failed.
    ///
    /// # Errors
    /// If the run is to end with it.
    pub fn refuse(&mut self, refused: Refused) -> Result<()> {
        let written = self.failure(refused)?;
        self.put(written)
    }

    /// A record, as in [`record`](Self::record), to be [`put`](Self::put).
    pub fn result(&self, identity: (Hash, Hash), row: &RowRecord, record: &impl Serialize) -> Result<Written> {
        let mut bytes = vec![];
        json::write(&mut bytes, &self.columns.result(row, record))?;
        Ok(Written { identity: Some(identity), json: bytes, ends: None })
    }

    /// Why a row failed, to be [`put`](Self::put).
    pub fn failure(&self, Refused { mut place, error }: Refused) -> Result<Written> {
        let line = error_line(&error, &self.settings.subcommand);
        let at = format!("line {}", place.line);
        let said = if line.starts_with(&at) { line.clone() } else { format!("{at}: {line}") };
        let said = place.file.as_ref().map_or(said.clone(), |file| format!("{file}, {said}"));
        let ends = (self.on_row_error == OnRowError::Stop).then(|| said.clone());
        if matches!(self.to, To::Text(_)) {
            return Ok(Written { identity: None, json: said.into_bytes(), ends });
        }
        place.ok = false;
        place.error_kind = Some(place.error_kind.unwrap_or_else(|| ErrorKind::of(&error)));
        place.error = Some(line);
        let mut bytes = vec![];
        json::write(&mut bytes, &self.columns.failure(&place))?;
        Ok(Written { identity: None, json: bytes, ends })
    }

    /// Writes what was made of a row.
    ///
    /// # Errors
    /// If it cannot be written; and for a failed row, if the run is to end with it.
    pub fn put(&mut self, Written { identity, json, ends }: Written) -> Result<()> {
        match &mut self.to {
            To::Records(sink) => sink.line(identity, |out| out.write_all(&json))?,
            To::Text(_) if ends.is_none() => say_error(&String::from_utf8_lossy(&json)),
            To::Text(_) => {}
        }
        self.shown.row(identity.is_some());
        match ends {
            Some(why) => bail!(why),
            None => Ok(()),
        }
    }

    /// Says that a row was drawn with a seed that nobody gave, so that the run can be repeated.
    pub fn note_seed(&mut self, seed: u64) {
        if self.settings.parameters.insert("drawn_seed".into(), seed.into()).is_none() && !self.verbosity.quiet {
            say(format_args!("seed: {seed}, drawn for this run; a retry needs --seed {seed} to give the same texts"));
        }
    }

    /// Ends a run that came to the end of the `input`.
    ///
    /// # Errors
    /// [`RowsFailed`], unless the flags say that this is no failure.
    pub fn finish(mut self, input: &Input) -> Result<()> {
        self.to = match self.to {
            To::Records(sink) if self.is_ordered => To::Records(sink.ordered(input.names())?),
            to => to,
        };
        self.close();
        let tally = &self.shown.tally;
        let failed = tally.failed();
        if let Some(path) = &self.summary {
            let summary = SummaryRecord {
                rows: tally.ok() + failed,
                ok: tally.ok(),
                failed,
                tokens: tally.tokens(),
                seconds: tally.elapsed().as_secs_f64(),
                fingerprint: fingerprint(&self.settings, input.rows_hash()),
                shard: self.shard.clone(),
            };
            let mut bytes = vec![];
            json::write_indented(&mut bytes, &summary)?;
            bytes.push(b'\n');
            write_file(path, &bytes)?;
        }
        let what = match (&self.to, failed) {
            (_, 0) => return Ok(()),
            (To::Text(_), _) => format!("{failed} of the texts failed, as said above"),
            (_, 1) => "1 row failed; its line in the output says why".to_owned(),
            _ => format!("{failed} rows failed; their lines in the output say why"),
        };
        if !self.keep_going {
            return Err(RowsFailed(what).into());
        }
        if !self.verbosity.quiet {
            say(format_args!("note: {what}"));
        }
        Ok(())
    }

    /// Ends the progress, and says what was written.
    pub fn close(&mut self) {
        self.shown.finish();
        if let To::Records(sink) = &self.to {
            sink.report(self.verbosity);
        }
    }
}
