//! Bars for work whose end is known.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Result;
use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressState, ProgressStyle};

/// How often a bar is drawn while nothing happens.
const TICK: Duration = Duration::from_millis(200);

/// A progress bar over `total` of something, such as tokens; hidden unless stderr is a terminal.
pub fn bar(what: &str, total: u64, quiet: bool) -> Result<ProgressBar> {
    shown(&format!("{{bar:30}} {{human_pos}}/{{human_len}} {what}{{left}}"), total, String::new(), quiet)
}

/// A progress bar over bytes; hidden unless stderr is a terminal.
pub fn bytes(total: u64, quiet: bool) -> Result<ProgressBar> {
    shown("{bar:30} {bytes}/{total_bytes}{left}", total, String::new(), quiet)
}

/// A bar over tokens, of which some take more work than others: the bar and the time left are about the work.
pub struct TokenBar {
    bar: ProgressBar,
    done: usize,
    tokens: usize,
}

impl TokenBar {
    /// A bar for this many tokens.
    pub fn new(tokens: usize, work: usize, quiet: bool) -> Result<Self> {
        let bar = shown("{bar:30} {msg} tokens{left}", work as u64, of(0, tokens), quiet)?;
        Ok(Self { bar, done: 0, tokens })
    }

    /// Tokens that are done, and the work that they took.
    pub fn add(&mut self, tokens: usize, work: usize) {
        self.done += tokens;
        self.bar.set_message(of(self.done, self.tokens));
        self.bar.inc(work as u64);
    }

    /// The end.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}

fn of(done: usize, all: usize) -> String {
    format!("{}/{}", HumanCount(done as u64), HumanCount(all as u64))
}

/// A bar that is drawn at once.
fn shown(template: &str, total: u64, message: String, quiet: bool) -> Result<ProgressBar> {
    if quiet || !std::io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let style = ProgressStyle::with_template(template)?.with_key("left", left);
    let bar = ProgressBar::new(total).with_style(style).with_message(message);
    bar.enable_steady_tick(TICK);
    Ok(bar)
}

/// The time left, once something is done from which it can be told.
pub fn left(state: &ProgressState, out: &mut dyn std::fmt::Write) {
    if state.pos() > 0 {
        // Writing to a string cannot fail.
        let _ = write!(out, ", {:#} left", HumanDuration(state.eta()));
    }
}
