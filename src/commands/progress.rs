//! Bars for work whose end is known.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Result;
use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};

/// How often a bar is drawn while nothing happens.
const TICK: Duration = Duration::from_millis(200);

/// A progress bar over `total` of something, such as tokens; hidden unless stderr is a terminal.
pub fn bar(what: &str, total: u64, quiet: bool) -> Result<ProgressBar> {
    let template = format!("{{bar:30}} {{human_pos}}/{{human_len}} {what}, {{speed}}, {{eta}} left");
    shown(&template, total, quiet)
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
        let bar = shown("{bar:30} {msg} tokens, {eta} left", work as u64, quiet)?;
        let bar = Self { bar, done: 0, tokens };
        bar.show();
        Ok(bar)
    }

    /// Tokens that are done, and the work that they took.
    pub fn add(&mut self, tokens: usize, work: usize) {
        self.done += tokens;
        self.bar.inc(work as u64);
        self.show();
    }

    /// The end.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }

    fn show(&self) {
        self.bar.set_message(format!("{}/{}", HumanCount(self.done as u64), HumanCount(self.tokens as u64)));
    }
}

/// A bar that is drawn at once.
fn shown(template: &str, total: u64, quiet: bool) -> Result<ProgressBar> {
    if quiet || !std::io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let speed = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        // Writing to a string cannot fail.
        let _ = write!(out, "{:.0}/s", state.per_sec());
    };
    let bar = ProgressBar::new(total).with_style(ProgressStyle::with_template(template)?.with_key("speed", speed));
    bar.enable_steady_tick(TICK);
    Ok(bar)
}
