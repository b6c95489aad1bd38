//! Reading rows: ahead of the work, so that a pipe need not be read to its end first.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use gpt2::Error;
use sha2::{Digest, Sha256};

use super::lines::{Line, Lines, Unreadable, Utf16, other_format};
use super::row::{self, Allowed, Form, Keys, Refused, Row};
use super::{Hash, short, sink};
use crate::cli::{RowArgs, Shard, TextsArgs, is_stdin};
use crate::output::RowRecord;

/// Lines that are read ahead, and bytes for which a long one counts as several.
const AHEAD: usize = 64;
const LONG: usize = 1 << 20;

/// How long to wait for a line before looking whether a signal has come.
const PATIENCE: Duration = Duration::from_millis(50);

/// The rows of an input.
pub struct Input {
    /// The lines; none for a place that a long line takes beside its own.
    lines: Receiver<Option<Placed>>,
    asked: Box<Asked>,
    /// The line of each id so far, of a stream; a file's ids are checked before it is read.
    seen: Option<HashMap<Hash, String>>,
    /// What the rows of files say, by their keys, if an earlier run is to be continued.
    pub(super) contents: Option<HashMap<Hash, Hash>>,
    /// Of the rows so far.
    hash: Box<Sha256>,
}

/// What the flags say about an input.
struct Asked {
    form: Form,
    paths: Vec<PathBuf>,
    names: Vec<String>,
    shard: Option<Shard>,
}

/// A line and where it stands.
struct Placed {
    /// Which file it is in.
    file: usize,
    /// Whether it is the first that is not blank.
    is_first: bool,
    /// Its number, which counts on from one file to the next.
    place: usize,
    line: Line,
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
    /// Opens the rows that the flags name, if any. If they are in files, everything that is wrong with those as a whole is
    /// found now, before a model is loaded or an earlier output touched. They may set all
    /// decoding parameters.
    ///
    /// # Errors
    /// If one cannot be read, is the output, is not one JSON object a line, or an id is there twice.
    pub fn open(args: &RowArgs) -> Result<Option<Self>> {
        let Some(paths) = &args.input else { return Ok(None) };
        let keys = Keys { parameters: Allowed::All, own: &[], keep: args.keep.clone(), strict: args.strict };
        Self::of(paths, Form::Objects(keys), args).map(Some)
    }

    /// Opens the rows or lines that the flags name, if any, as [`open`](Self::open) does.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn of_texts(args: &TextsArgs) -> Result<Option<Self>> {
        Self::of_texts_with(args, Allowed::None, &[])
    }

    /// As [`of_texts`](Self::of_texts); rows have these parameters and keys of the subcommand's `own`, too.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn of_texts_with(args: &TextsArgs, parameters: Allowed, own: &'static [&'static str]) -> Result<Option<Self>> {
        let TextsArgs { rows, lines } = args;
        let keys = || Keys { parameters, own, keep: rows.keep.clone(), strict: rows.strict };
        match (lines, &rows.input) {
            (Some(path), _) => Self::of(std::slice::from_ref(path), Form::Texts, rows).map(Some),
            (None, Some(paths)) => Self::of(paths, Form::Objects(keys()), rows).map(Some),
            (None, None) => Ok(None),
        }
    }

    fn of(paths: &[PathBuf], form: Form, args: &RowArgs) -> Result<Self> {
        if paths.iter().filter(|path| is_stdin(path)).count() > 1 {
            bail!(Error::Usage("--input - is there twice, and stdin can be read once".into()));
        }
        let (mut names, mut readers, mut is_stream) = (vec![], vec![], false);
        for path in paths {
            sink::check(path, args)?;
            let (name, reader, is_file) = source(path)?;
            names.push(name);
            readers.push(reader);
            is_stream |= !is_file;
        }
        let (mut seen, mut contents) = (None, None);
        if is_stream {
            seen = Some(HashMap::new());
        } else {
            contents = scan(paths, &names, &form, args.resume)?;
        }
        let (sender, lines) = sync_channel(AHEAD);
        std::thread::spawn(move || read(readers, &sender));
        let paths = paths.to_vec();
        let asked = Box::new(Asked { form, paths, names, shard: args.shard });
        Ok(Self { lines, asked, seen, contents, hash: Box::new(Sha256::new()) })
    }

    /// The files, if none of them is a stream.
    pub fn files(&self) -> Option<&[PathBuf]> {
        self.seen.is_none().then_some(&self.asked.paths)
    }

    /// The names of the inputs.
    pub fn names(&self) -> &[String] {
        &self.asked.names
    }

    /// The hash of the rows so far.
    pub fn rows_hash(&self) -> Hash {
        short(*self.hash.clone())
    }

    /// The next row; waits for it a little if `wait` is set.
    ///
    /// # Errors
    /// If the input as a whole is not one JSON object a line.
    pub fn next(&mut self, wait: bool) -> Result<Next> {
        let (number, name, text) = loop {
            let placed = match wait {
                true => self.lines.recv_timeout(PATIENCE),
                false => self.lines.try_recv().map_err(|error| match error {
                    TryRecvError::Empty => RecvTimeoutError::Timeout,
                    TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
                }),
            };
            let Placed { file, is_first, place, line: (number, text) } = match placed {
                Ok(Some(placed)) => placed,
                Ok(None) => continue,
                Err(RecvTimeoutError::Timeout) => return Ok(Next::Later),
                Err(RecvTimeoutError::Disconnected) => return Ok(Next::End),
            };
            let Asked { form, names, shard, .. } = &*self.asked;
            let name = &names[file];
            let text = readable(text, name)?;
            if is_first {
                check_format(name, form, &text)?;
            }
            if shard.is_none_or(|shard| shard.has(place)) {
                break (number, (names.len() > 1).then(|| name.clone()), text);
            }
        };
        self.hash.update(text.as_ref().map_or("", |text| text.trim()));
        self.hash.update("\n");
        let place = RowRecord { file: name, ..RowRecord::new(number) };
        let row = match self.asked.form.read(place, text) {
            Ok(row) => row,
            Err(refused) => return Ok(Next::Refused(refused)),
        };
        if let (Some(seen), Some(id)) = (&mut self.seen, &row.place.id) {
            let place = line_of(number, row.place.file.as_deref());
            let first = seen.entry(row.key).or_insert_with(|| place.clone());
            if *first != place {
                let error = anyhow!("the id {} is that of {first}; ids must differ", id.get());
                return Ok(Next::Refused(Box::new(Refused { place: row.place, error })));
            }
        }
        Ok(Next::Row(Box::new(row)))
    }
}

/// A line, for messages.
fn line_of(line: usize, file: Option<&str>) -> String {
    file.map_or_else(|| format!("line {line}"), |file| format!("line {line} of {file}"))
}

/// The name of an input, its content, and whether it is a file.
fn source(path: &Path) -> Result<(String, Box<dyn BufRead + Send>, bool)> {
    if is_stdin(path) {
        return Ok(("stdin".to_owned(), Box::new(BufReader::new(std::io::stdin())), false));
    }
    let name = path.display().to_string();
    let cannot_read = || format!("cannot read {name}");
    let file = File::open(path).with_context(cannot_read)?;
    gpt2::files::protect(&file);
    let is_file = file.metadata().with_context(cannot_read)?.is_file();
    Ok((name, Box::new(BufReader::new(file)), is_file))
}

/// Reads the lines of all inputs, until they end or nobody wants more.
fn read(readers: Vec<Box<dyn BufRead + Send>>, sender: &SyncSender<Option<Placed>>) {
    let mut before = 0;
    for (file, reader) in readers.into_iter().enumerate() {
        let mut last = 0;
        for (i, line) in Lines::new(reader).enumerate() {
            last = line.0;
            let more = line.1.as_ref().map_or(0, |text| text.len() / LONG).min(AHEAD - 1);
            let placed = Placed { file, is_first: i == 0, place: before + last, line };
            let mut places = std::iter::repeat_with(|| None).take(more).chain([Some(placed)]);
            if places.any(|place| sender.send(place).is_err()) {
                return;
            }
        }
        before += last;
    }
}

/// A line, unless the input of this name could not be read.
fn readable(line: Result<String>, name: &str) -> Result<Result<String>> {
    match line.map_err(|error| error.downcast::<Unreadable>()) {
        Ok(line) => Ok(Ok(line)),
        Err(Ok(Unreadable(error))) => Err(error).with_context(|| format!("cannot read {name}")),
        Err(Err(error)) => Ok(Err(error)),
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

/// Checks files as a whole; returns what their rows say, by their keys, if `wanted`.
fn scan(paths: &[PathBuf], names: &[String], form: &Form, wanted: bool) -> Result<Option<HashMap<Hash, Hash>>> {
    let mut ids: HashMap<Hash, (usize, usize)> = HashMap::new();
    let mut contents = wanted.then(HashMap::new);
    for (which, (path, name)) in paths.iter().zip(names).enumerate() {
        let file = File::open(path).with_context(|| format!("cannot read {name}"))?;
        for (i, (number, text)) in Lines::new(BufReader::new(file)).enumerate() {
            let text = readable(text, name)?;
            if i == 0 {
                check_format(name, form, &text)?;
            }
            let place = RowRecord { file: (names.len() > 1).then(|| name.clone()), ..RowRecord::new(number) };
            // What is wrong with a row is reported in its turn.
            let (place, row) = match form.read(place, text) {
                Ok(row) => (row.place, Some((row.key, row.content))),
                Err(refused) => (refused.place, None),
            };
            if let Some(id) = &place.id
                && let Some((other, first)) = ids.insert(row::key(Some(id), None, number), (which, number))
            {
                let id = id.get();
                let message = match other == which {
                    true => format!("{name}: lines {first} and {number} have the same id, {id}; ids must differ"),
                    false => format!(
                        "line {first} of {} and line {number} of {name} have the same id, {id}; ids must differ",
                        names[other]
                    ),
                };
                bail!(Error::Usage(message));
            }
            if let (Some(contents), Some((key, content))) = (&mut contents, row) {
                contents.insert(key, content);
            }
        }
    }
    Ok(contents)
}
