//! What the components of a tokenizer may make of a text, and how long: a file decides what they do, and some files do
//! nothing but that. The limits follow from the text, not from the machine or from what else runs on it, and are far
//! above what any honest tokenizer needs.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::base::clock::thread_time;

/// The limits for one text.
pub(super) struct Budget {
    /// The text's length in bytes.
    text: usize,
    /// The thread's processor time at which the budget is used up.
    end: Duration,
    looked: Cell<Instant>,
}

impl Budget {
    /// How many times longer a text may become. What decomposes and is then written in byte letters (Hangul after NFD)
    /// has six times its length.
    const GROWTH: usize = 8;
    /// What may be added to a text however short it is, in bytes.
    const ADDED: usize = 1 << 20;
    /// Processor time for every text, and for each of its bytes: a hundredth of the speed of usual tokenizers.
    const TIME: Duration = Duration::from_secs(5);
    const TIME_PER_BYTE: Duration = Duration::from_micros(10);

    /// The budget for a text of this many bytes, which counts from now on, on this thread.
    pub fn new(text: usize) -> Self {
        let end = thread_time() + Self::time(text);
        Self { text, end, looked: Cell::new(Instant::now()) }
    }

    fn time(text: usize) -> Duration {
        let bytes = u32::try_from(text).unwrap_or(u32::MAX);
        Self::TIME + Self::TIME_PER_BYTE.saturating_mul(bytes)
    }

    /// Whether there is time left.
    pub fn check_time(&self) -> Result<(), String> {
        // The thread's time costs a system call.
        const INTERVAL: Duration = Duration::from_millis(50);
        if self.looked.get().elapsed() < INTERVAL {
            return Ok(());
        }
        self.looked.set(Instant::now());
        if thread_time() < self.end {
            return Ok(());
        }
        let (text, seconds) = (self.text, Self::time(self.text).as_secs());
        Err(format!("it has not ended after {seconds} s of processor time on {text} bytes of text"))
    }

    /// Whether the text may have become this long.
    pub fn check_size(&self, bytes: usize) -> Result<(), String> {
        if bytes <= self.text.saturating_mul(Self::GROWTH).saturating_add(Self::ADDED) {
            return Ok(());
        }
        Err(format!("it makes {bytes} bytes or more of {} bytes of text, which is too much", self.text))
    }
}
