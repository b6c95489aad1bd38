//! Reading rows: ahead of the work, so that a pipe need not be read to its end first.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};

use anyhow::{Context, Result, anyhow, bail};
use gpt2::Error;

use super::lines::{Line, Lines, Utf16, other_format};
use super::row::{self, Form, Keys, Refused, Row};
use super::{Hash, sink};
use crate::cli::{RowArgs, TextsArgs, is_stdin};

/// Lines that are read ahead, and bytes for which a long one counts as several.
const AHEAD: usize = 64;
const LONG: usize = 1 << 20;

/// The rows of an input.
pub struct Input {
    /// The lines; none for a place that a long line takes beside its own.
    lines: Receiver<Option<Line>>,
    form: Form,
    name: String,
    /// The line of each id so far, of a stream; a file's ids are checked before it is read.
    seen: Option<HashMap<Hash, usize>>,
    /// What the rows of a file say, by their keys, if an earlier run is to be continued.
    pub(super) contents: Option<HashMap<Hash, Hash>>,
    is_first: bool,
}

/// What comes next.
pub enum Next {
    Row(Box<Row>),
    Refused(Box<Refused>),
    /// Nothing has arrived yet.
    Later,
    End,
}

impl Input {
    /// Opens the rows that the flags name, if any. If that is a file, everything that is wrong with it as a whole is found
    /// now, before a model is loaded or an earlier output touched. `parameters` says whether rows may set decoding
    /// parameters.
    ///
    /// # Errors
    /// If it cannot be read, is the output, is not one JSON object a line, or has an id twice.
    pub fn open(args: &RowArgs, parameters: bool) -> Result<Option<Self>> {
        let Some(path) = &args.input else { return Ok(None) };
        let keys = Keys { parameters, own: &[], keep: args.keep.clone(), strict: args.strict };
        Self::of(path, Form::Objects(keys), args).map(Some)
    }

    /// Opens the rows or lines that the flags name, if any, as [`open`](Self::open) does.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn of_texts(args: &TextsArgs) -> Result<Option<Self>> {
        Self::of_texts_with(args, &[])
    }

    /// As [`of_texts`](Self::of_texts); rows have keys of the subcommand's `own`, too.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn of_texts_with(args: &TextsArgs, own: &'static [&'static str]) -> Result<Option<Self>> {
        let keys = || Keys { parameters: false, own, keep: args.rows.keep.clone(), strict: args.rows.strict };
        match (&args.lines, &args.rows.input) {
            (Some(path), _) => Self::of(path, Form::Texts, &args.rows).map(Some),
            (None, Some(path)) => Self::of(path, Form::Objects(keys()), &args.rows).map(Some),
            (None, None) => Ok(None),
        }
    }

    fn of(path: &Path, form: Form, args: &RowArgs) -> Result<Self> {
        sink::check(path, args.output.as_deref())?;
        let name = if is_stdin(path) { "stdin".to_owned() } else { path.display().to_string() };
        let cannot_read = || format!("cannot read {name}");
        let (mut seen, mut contents) = (None, None);
        let reader: Box<dyn BufRead + Send> = if is_stdin(path) {
            seen = Some(HashMap::new());
            Box::new(BufReader::new(std::io::stdin()))
        } else {
            let file = File::open(path).with_context(cannot_read)?;
            gpt2::files::protect(&file);
            if file.metadata().with_context(cannot_read)?.is_file() {
                contents = scan(path, &name, &form, args.resume)?;
            } else {
                seen = Some(HashMap::new());
            }
            Box::new(BufReader::new(file))
        };
        let (sender, lines) = sync_channel(AHEAD);
        std::thread::spawn(move || {
            for line in Lines::new(reader) {
                let more = line.1.as_ref().map_or(0, |text| text.len() / LONG).min(AHEAD - 1);
                let mut places = std::iter::repeat_with(|| None).take(more).chain([Some(line)]);
                if places.any(|place| sender.send(place).is_err()) {
                    break;
                }
            }
        });
        Ok(Self { lines, form, name, seen, contents, is_first: true })
    }

    /// The next row; waits for it if `wait` is set.
    ///
    /// # Errors
    /// If the input as a whole is not one JSON object a line.
    pub fn next(&mut self, wait: bool) -> Result<Next> {
        let place =
            || if wait { self.lines.recv().map_err(|_| TryRecvError::Disconnected) } else { self.lines.try_recv() };
        let line = loop {
            match place() {
                Ok(None) => {}
                Ok(Some(line)) => break Ok(line),
                Err(reason) => break Err(reason),
            }
        };
        let (number, text) = match line {
            Ok(line) => line,
            Err(TryRecvError::Empty) => return Ok(Next::Later),
            Err(TryRecvError::Disconnected) => return Ok(Next::End),
        };
        if std::mem::take(&mut self.is_first) {
            check_format(&self.name, &self.form, &text)?;
        }
        let row = match self.form.read(number, text) {
            Ok(row) => row,
            Err(refused) => return Ok(Next::Refused(refused)),
        };
        if let (Some(seen), Some(id)) = (&mut self.seen, &row.place.id) {
            let first = *seen.entry(row.key).or_insert(number);
            if first != number {
                let error = anyhow!("the id {} is that of line {first}; ids must differ", id.get());
                return Ok(Next::Refused(Box::new(Refused { place: row.place, error })));
            }
        }
        Ok(Next::Row(Box::new(row)))
    }
}

fn check_format(name: &str, form: &Form, first: &Result<String>) -> Result<()> {
    let what = match first {
        Ok(_) if matches!(form, Form::Texts) => None,
        Ok(first) => other_format(first).map(str::to_owned),
        Err(error) => error.downcast_ref::<Utf16>().map(|what| format!("is {what}")),
    };
    match what {
        Some(what) => bail!(Error::Usage(format!("{name} {what}"))),
        None => Ok(()),
    }
}

/// Checks a file as a whole; returns what its rows say, by their keys, if `wanted`.
fn scan(path: &Path, name: &str, form: &Form, wanted: bool) -> Result<Option<HashMap<Hash, Hash>>> {
    let file = File::open(path).with_context(|| format!("cannot read {name}"))?;
    let mut ids = HashMap::new();
    let mut contents = wanted.then(HashMap::new);
    for (i, (number, text)) in Lines::new(BufReader::new(file)).enumerate() {
        if i == 0 {
            check_format(name, form, &text)?;
        }
        // What is wrong with a row is reported in its turn.
        let (place, row) = match form.read(number, text) {
            Ok(row) => (row.place, Some((row.key, row.content))),
            Err(refused) => (refused.place, None),
        };
        if let Some(id) = &place.id
            && let Some(first) = ids.insert(row::key(Some(id), number), number)
        {
            let id = id.get();
            let message = format!("{name}: lines {first} and {number} have the same id, {id}; ids must differ");
            bail!(Error::Usage(message));
        }
        if let (Some(contents), Some((key, content))) = (&mut contents, row) {
            contents.insert(key, content);
        }
    }
    Ok(contents)
}
