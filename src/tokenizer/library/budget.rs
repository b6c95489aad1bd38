//! What the components of a tokenizer may make of a text, and how long: a file decides what they do, and some files do
//! nothing but that. The limits follow from the text, not from the machine or from what else runs on it, and are far
//! above what any honest tokenizer needs.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::base::clock::thread_time;

/// The limits for one text, or for a file while it is loaded.
pub(super) struct Budget {
    /// The length in bytes.
    length: usize,
    is_file: bool,
    /// The length of the tokens in bytes, if the size is theirs alone.
    tokens: Option<usize>,
    time: Duration,
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
    /// What a token may become however short it is, in bytes. Whatever comes with each token of a text, however often it
    /// is there, must be little.
    const TOKEN: usize = 64;
    /// Processor time for every text, and for each of its bytes: a hundredth of the speed of usual tokenizers.
    const TIME: Duration = Duration::from_secs(5);
    const TIME_PER_BYTE: Duration = Duration::from_micros(10);

    /// The budget for a text of this many bytes, which counts from now on, on this thread.
    pub fn new(length: usize) -> Self {
        let bytes = u32::try_from(length).unwrap_or(u32::MAX);
        Self::of_time(length, Self::TIME + Self::TIME_PER_BYTE.saturating_mul(bytes))
    }

    /// The budget for loading a file of this many bytes.
    pub fn of_file(length: usize) -> Self {
        Self { is_file: true, ..Self::new(length) }
    }

    /// The budget for a text of this many bytes, with another limit of time.
    pub fn of_time(length: usize, time: Duration) -> Self {
        let (end, looked) = (thread_time() + time, Cell::new(Instant::now()));
        Self { length, is_file: false, tokens: None, time, end, looked }
    }

    /// The same time, but the size of what becomes of tokens of `length` bytes together.
    pub fn for_tokens(&self, length: usize) -> Self {
        Self { tokens: Some(length), looked: self.looked.clone(), ..*self }
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
        let seconds = self.time.as_secs_f64().ceil();
        Err(format!("it has not ended after {seconds} s of processor time on {}", self.subject()))
    }

    /// Whether the text may have become this long.
    pub fn check_size(&self, bytes: usize) -> Result<(), String> {
        let grown = |length: usize| length.saturating_mul(Self::GROWTH);
        let most = match self.tokens {
            Some(length) => grown(length).max(Self::TOKEN),
            None => grown(self.length).saturating_add(Self::ADDED),
        };
        if bytes <= most {
            return Ok(());
        }
        let of = self.tokens.map_or_else(|| self.subject(), |length| format!("{} of tokens", counted(length)));
        Err(format!("it makes {bytes} bytes or more of {of}, which is too much"))
    }

    fn subject(&self) -> String {
        let length = counted(self.length);
        if self.is_file { format!("the file's {length}") } else { format!("{length} of text") }
    }
}

fn counted(bytes: usize) -> String {
    if bytes == 1 { "1 byte".to_owned() } else { format!("{bytes} bytes") }
}
