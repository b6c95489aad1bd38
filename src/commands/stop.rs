//! Signals that end a batch: Ctrl-C at once, SIGTERM when the rows under way are done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Error, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::{register, register_conditional_shutdown, register_usize};

use super::Interrupted;
use super::rows::whole_lines;
use crate::output::say;

/// How long the rows under way may take after SIGTERM: schedulers that send it kill some seconds later.
const GRACE: Duration = Duration::from_secs(5);

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
    signal: Arc<AtomicUsize>,
}

impl Stop {
    /// Waits for signals from now on. A second Ctrl-C ends the program at once.
    pub fn on_signals() -> Result<Self> {
        let (signal, is_interrupted) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        // In this order, as in `interrupt_flag`.
        register_conditional_shutdown(SIGINT, Interrupted::EXIT_CODE.into(), Arc::clone(&is_interrupted))?;
        register(SIGINT, is_interrupted)?;
        for number in [SIGINT, SIGTERM] {
            register_usize(number, Arc::clone(&signal), number as usize)?;
        }
        let stop = Self { signal };
        std::thread::spawn({
            let stop = Self { signal: Arc::clone(&stop.signal) };
            move || stop.watch()
        });
        Ok(stop)
    }

    /// Whether the run is to take no further rows.
    pub fn is_ending(&self) -> bool {
        self.signal.load(Ordering::Relaxed) != 0
    }

    /// Whether it is to end without waiting for the rows under way.
    pub fn is_interrupted(&self) -> bool {
        self.signal.load(Ordering::Relaxed) == SIGINT as usize
    }

    /// The end of a run that a signal ended.
    pub fn reason(&self) -> Error {
        if self.is_interrupted() { Interrupted.into() } else { Terminated.into() }
    }

    /// Says that rows under way took longer than they may.
    pub fn say_unfinished() {
        say("terminated: some rows under way are not finished");
    }

    /// Ends the program if the rows under way take longer than they may. A line of results is never cut.
    fn watch(&self) {
        /// How often to look whether a signal has come.
        const TICK: Duration = Duration::from_millis(50);
        while self.signal.load(Ordering::Relaxed) != SIGTERM as usize {
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
        Self::say_unfinished();
        signal_hook::low_level::exit(Terminated::EXIT_CODE.into());
    }
}
