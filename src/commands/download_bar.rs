//! What is said of a download while it runs.

use std::cell::{Cell, RefCell};
use std::io::IsTerminal;

use gpt2::printable;
use gpt2::source::Progress;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::Verbosity;
use crate::output::say;

/// Shows the progress of a download on stderr, as a bar if that is a terminal. Where it has to wait, it says so in any
/// case.
pub struct DownloadBar {
    is_quiet: bool,
    is_terminal: bool,
    bar: RefCell<Option<ProgressBar>>,
    /// Whether it has been said what is waited for.
    is_waiting: Cell<bool>,
}

impl DownloadBar {
    pub fn new(verbosity: Verbosity) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        Self { is_quiet: verbosity.quiet, is_terminal, bar: RefCell::default(), is_waiting: Cell::default() }
    }

    pub fn show(&self, progress: Progress<'_>) {
        if self.is_quiet {
            return;
        }
        let mut bar = self.bar.borrow_mut();
        let note = |line: std::fmt::Arguments<'_>| match &*bar {
            Some(bar) => bar.suspend(|| say(line)),
            None => say(line),
        };
        match progress {
            Progress::Asking { hub, id } => note(format_args!("note: asking the hub at {hub} for {id} ...")),
            Progress::Retrying { name, reason, pause, attempt, of } => note(format_args!(
                "note: {name}: {reason}; trying again in {} s (attempt {attempt} of {of})",
                pause.as_secs_f64()
            )),
            Progress::Waiting { name } if self.is_terminal => bar
                .get_or_insert_with(download_bar)
                .set_message(format!("{}: waiting for another process to download it", printable::line(name))),
            Progress::Waiting { name } => {
                if !self.is_waiting.replace(true) {
                    say(format_args!("note: {name}: waiting for another process to download it"));
                }
            }
            Progress::Received { name, bytes, total } if self.is_terminal => {
                let (bar, name) = (bar.get_or_insert_with(download_bar), printable::line(name));
                if bar.message() != name {
                    bar.set_message(name.into_owned());
                    bar.set_length(total.unwrap_or_default());
                    // The part left by an earlier run must not count towards this run's speed.
                    bar.reset_elapsed();
                    bar.reset_eta();
                }
                bar.set_position(bytes);
            }
            Progress::Received { .. } => {}
            Progress::Ended { .. } => {
                self.is_waiting.set(false);
                drop(bar.take());
            }
        }
    }
}

fn download_bar() -> ProgressBar {
    let template = "{msg} {wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style)
}
