//! How far a batch is: a bar on a terminal, lines in a log.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use crate::cli::{Progress, RowArgs, Shard};
use crate::commands::progress::left;
use crate::output::say;

/// The rows so far.
#[derive(Debug)]
pub struct Tally {
    since: Instant,
    ok: AtomicU64,
    failed: AtomicU64,
    tokens: AtomicU64,
    /// How many rows there are, if that is known.
    all: Option<u64>,
    shard: Option<Shard>,
}

impl Tally {
    /// None so far. `files` are those of the input, unless it is a stream.
    fn new(files: Option<&[PathBuf]>, shard: Option<Shard>) -> Result<Self> {
        let lines = files.map(|files| files.iter().map(count_lines).sum::<Result<u64>>()).transpose()?;
        let all = lines.map(|lines| shard.map_or(lines, |shard| shard.share(lines)));
        let [ok, failed, tokens] = std::array::from_fn(|_| AtomicU64::new(0));
        Ok(Self { since: Instant::now(), ok, failed, tokens, all, shard })
    }

    pub fn ok(&self) -> u64 {
        self.ok.load(Ordering::Relaxed)
    }

    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    pub fn tokens(&self) -> u64 {
        self.tokens.load(Ordering::Relaxed)
    }

    pub fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }

    fn rows(&self) -> u64 {
        self.ok() + self.failed()
    }

    /// Tokens a second.
    fn speed(&self) -> f64 {
        let seconds = self.elapsed().as_secs_f64();
        if seconds > 0.0 { self.tokens() as f64 / seconds } else { 0.0 }
    }

    fn line(&self) -> String {
        let mut line = self.rows().to_string();
        // Writing to a string cannot fail.
        if let Some(all) = self.all {
            let _ = write!(line, " of {all}");
        }
        let _ = write!(line, " rows, {} failed, {} tokens, {:.1} tokens/s", self.failed(), self.tokens(), self.speed());
        if let Some(shard) = self.shard {
            let _ = write!(line, ", shard {shard}");
        }
        line
    }
}

/// Shows the rows so far.
pub struct Shown {
    pub tally: Arc<Tally>,
    bar: ProgressBar,
    /// Ends the thread that writes lines, when it is dropped.
    lines: Option<(Progress, Sender<()>, std::thread::JoinHandle<()>)>,
}

impl Shown {
    /// Begins. A bar appears on a terminal unless lines are asked for, or `has_bar` says no.
    pub fn new(files: Option<&[PathBuf]>, args: &RowArgs, has_bar: bool) -> Result<Self> {
        let has_bar = has_bar && args.progress.is_none() && std::io::stderr().is_terminal();
        // Counting the lines of large files takes time.
        let counted = files.filter(|_| has_bar || args.progress.is_some());
        let tally = Arc::new(Tally::new(counted, args.shard)?);
        let bar = if has_bar { bar(tally.all)? } else { ProgressBar::hidden() };
        let lines = args.progress.map(|progress| {
            let (end, ended) = channel::<()>();
            let tally = Arc::clone(&tally);
            let thread = std::thread::spawn(move || {
                while ended.recv_timeout(progress.every) == Err(RecvTimeoutError::Timeout) {
                    say_line(progress, &tally);
                }
            });
            (progress, end, thread)
        });
        let shown = Self { tally, bar, lines };
        shown.show_tokens();
        Ok(shown)
    }

    /// A row is done.
    pub fn row(&self, is_ok: bool) {
        if is_ok { &self.tally.ok } else { &self.tally.failed }.fetch_add(1, Ordering::Relaxed);
        self.bar.inc(1);
    }

    /// So many more tokens are done.
    pub fn tokens(&self, tokens: usize) {
        self.tally.tokens.fetch_add(tokens as u64, Ordering::Relaxed);
        self.show_tokens();
    }

    fn show_tokens(&self) {
        if !self.bar.is_hidden() {
            self.bar.set_message(format!("{} tokens, {:.1}/s", HumanCount(self.tally.tokens()), self.tally.speed()));
        }
    }

    /// Ends. The last line tells how the run went.
    pub fn finish(&mut self) {
        self.bar.finish_and_clear();
        if let Some((progress, end, thread)) = self.lines.take() {
            drop(end);
            // It only writes lines.
            let _ = thread.join();
            say_line(progress, &self.tally);
        }
    }
}

fn say_line(progress: Progress, tally: &Tally) {
    say(format_args!("{}{}", if progress.is_for_hadoop { "reporter:status:" } else { "progress: " }, tally.line()));
}

fn bar(all: Option<u64>) -> Result<ProgressBar> {
    let bar = match all {
        Some(all) => {
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} rows, {msg}{left}")?.with_key("left", left);
            ProgressBar::new(all).with_style(style)
        }
        None => ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {pos} rows, {msg}")?),
    };
    bar.enable_steady_tick(Duration::from_millis(200));
    Ok(bar)
}

/// The number of non-empty lines in a file.
fn count_lines(path: &PathBuf) -> Result<u64> {
    let mut reader = BufReader::new(File::open(path).with_context(|| format!("cannot read {}", path.display()))?);
    let (mut count, mut before) = (0, b'\n');
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return Ok(count);
        }
        for byte in bytes {
            count += u64::from(before == b'\n' && *byte != b'\n');
            before = *byte;
        }
        let read = bytes.len();
        reader.consume(read);
    }
}
