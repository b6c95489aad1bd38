//! Signals that end a batch: Ctrl-C at once, SIGTERM when the rows under way are done.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Error, Result};

use super::{Interrupted, interrupt_flag};
use crate::output::say;

/// Held while a line is written.
pub fn whole_lines() -> &'static Mutex<()> {
    static WHOLE_LINES: Mutex<()> = Mutex::new(());
    &WHOLE_LINES
}

/// SIGTERM ended the run. Everything finished by then has been written.
#[derive(Debug, thiserror::Error)]
#[error("terminated")]
pub struct Terminated;

impl Terminated {
    /// The convention of shells: 128 plus the signal's number.
    pub const EXIT_CODE: u8 = 143;
}

/// Which signal has come.
pub struct Stop {
    is_interrupted: Arc<AtomicBool>,
    is_terminated: Arc<AtomicBool>,
}

impl Stop {
    /// Waits for signals from now on. A second Ctrl-C ends the program at once.
    pub fn on_signals() -> Result<Self> {
        let stop = Self { is_interrupted: interrupt_flag()?, is_terminated: Arc::default() };
        // Windows sends nothing like it.
        #[cfg(unix)]
        {
            signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&stop.is_terminated))?;
            let is_terminated = Arc::clone(&stop.is_terminated);
            std::thread::spawn(move || last_moments(&is_terminated));
        }
        Ok(stop)
    }

    /// Whether the run is to take no further rows.
    pub fn is_ending(&self) -> bool {
        self.is_interrupted() || self.is_terminated.load(Ordering::Relaxed)
    }

    /// Whether it is to end without waiting for the rows under way.
    pub fn is_interrupted(&self) -> bool {
        self.is_interrupted.load(Ordering::Relaxed)
    }

    /// The end of a run that a signal ended.
    pub fn reason(&self) -> Error {
        if self.is_interrupted() { Interrupted.into() } else { Terminated.into() }
    }

    /// Says that rows under way took longer than they may.
    pub fn say_unfinished() {
        say("terminated: some rows under way are not finished");
    }
}

/// Ends the program if the rows under way take longer than they may after SIGTERM. A line of results is never cut.
#[cfg(unix)]
fn last_moments(is_terminated: &AtomicBool) {
    use std::time::{Duration, Instant};

    /// How long the rows under way may take: schedulers that send SIGTERM kill some seconds later.
    const GRACE: Duration = Duration::from_secs(5);
    /// How often to look whether it has come.
    const TICK: Duration = Duration::from_millis(50);
    while !is_terminated.load(Ordering::Relaxed) {
        std::thread::sleep(TICK);
    }
    std::thread::sleep(GRACE);
    // A reader that does not read is not waited for.
    let since = Instant::now();
    let mut line = whole_lines().try_lock();
    while line.is_err() && since.elapsed() < GRACE / 5 {
        std::thread::sleep(TICK);
        line = whole_lines().try_lock();
    }
    Stop::say_unfinished();
    signal_hook::low_level::exit(Terminated::EXIT_CODE.into());
}
