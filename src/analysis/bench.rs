//! How fast a model reads a prompt and decodes, and how near that is to what memory allows.

use std::time::Instant;

use serde::Serialize;

use crate::device::Backend;
use crate::error::{Error, Result};
use crate::language_model::{Input, LanguageModel};
use crate::memory;
use crate::model::{Gpt2, Session};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// Tokens of the prompt of each row, at least one.
    pub prompt_tokens: usize,
    /// Tokens decoded after it in each row, at least one.
    pub new_tokens: usize,
    /// Rows that run side by side.
    pub rows: usize,
    /// Measurements, at least one, after one that does not count.
    pub repeat: usize,
}

/// How long a [`Workload`] took.
#[derive(Debug, Clone, PartialEq)]
pub struct Times {
    workload: Workload,
    /// Seconds to the first new token, of each measurement.
    prefill: Vec<f64>,
    /// Seconds for the decoded tokens.
    decode: Vec<f64>,
    /// The fewest bytes of the GPU's memory that were free after a measurement; none on the CPU.
    pub least_free: Option<u64>,
}

/// Tokens a second over several measurements.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Speed {
    /// The one in the middle, or the mean of the two there.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Speed {
    /// The speeds of runs of `tokens` that took `seconds` each, at least one.
    fn of(tokens: usize, seconds: &[f64]) -> Self {
        let mut speeds: Vec<f64> = seconds.iter().map(|s| tokens as f64 / s).collect();
        speeds.sort_by(f64::total_cmp);
        let middle = speeds.len() / 2;
        let median = if speeds.len() % 2 == 1 { speeds[middle] } else { (speeds[middle - 1] + speeds[middle]) / 2.0 };
        Self { median, min: speeds[0], max: speeds[speeds.len() - 1] }
    }
}

impl Workload {
    /// Checks that a model's context has room for it.
    ///
    /// # Errors
    /// [`Error::Context`].
    pub fn check(&self, context: usize) -> Result<()> {
        let tokens = self.prompt_tokens.saturating_add(self.new_tokens);
        if tokens > context { Err(Error::Context { tokens, context }) } else { Ok(()) }
    }
}

/// Measures a workload, of which the weights of `model` are on `backend`.
///
/// # Errors
/// As [`Workload::check`], and if the device fails.
pub fn measure(model: &Gpt2, workload: Workload, backend: &Backend) -> Result<Times> {
    let Workload { prompt_tokens, new_tokens, rows, repeat } = workload;
    workload.check(model.config().n_positions)?;
    let mut times = Times { workload, prefill: vec![], decode: vec![], least_free: None };
    // The first pass reads the weights into memory and does not count.
    for pass in 0..=repeat {
        let mut session = Session::new(model);
        let vocab_size = model.config().vocab_size;
        // Far apart in the embedding, and the same for every engine that is measured with such a rule.
        let ids: Vec<u32> = (0..prompt_tokens).map(|i| (i * 7919 % vocab_size) as u32).collect();
        let mut last: Vec<Vec<u32>> = vec![ids; rows];
        let start = Instant::now();
        last = step(&mut session, &last)?;
        let prefill = start.elapsed().as_secs_f64();
        let start = Instant::now();
        for _ in 0..new_tokens {
            last = step(&mut session, &last)?;
        }
        if pass > 0 {
            times.prefill.push(prefill);
            times.decode.push(start.elapsed().as_secs_f64());
        }
        // While the session still holds its cache and buffers.
        times.least_free = times.least_free.into_iter().chain(memory::free_on(backend)).min();
    }
    Ok(times)
}

/// Runs new tokens of each row; returns the most probable next one of each.
fn step(session: &mut Session<'_>, rows: &[Vec<u32>]) -> Result<Vec<Vec<u32>>> {
    let inputs: Vec<Input<'_>> = rows.iter().enumerate().map(|(row, ids)| Input::best(row, ids)).collect();
    // Weights that give no finite numbers cost as much as others.
    Ok(session.forward(&inputs)?.best.iter().map(|id| vec![id.unwrap_or(0)]).collect())
}

impl Times {
    /// What was measured.
    #[must_use]
    pub fn workload(&self) -> Workload {
        self.workload
    }

    /// Tokens of prompts a second, of all rows.
    #[must_use]
    pub fn prefill(&self) -> Speed {
        Speed::of(self.workload.rows * self.workload.prompt_tokens, &self.prefill)
    }

    /// Decoded tokens a second, of all rows.
    #[must_use]
    pub fn decode(&self) -> Speed {
        Speed::of(self.workload.rows * self.workload.new_tokens, &self.decode)
    }

    /// Decoded tokens a second if nothing were done but to read the weights and the cache, with a memory that gives
    /// `bandwidth` bytes a second.
    #[must_use]
    pub fn decode_limit(&self, model: &Gpt2, bandwidth: f64) -> f64 {
        let Workload { prompt_tokens, new_tokens, rows, .. } = self.workload;
        // On average a decoded token sees the prompt and half of the tokens before it.
        let cached = prompt_tokens as f64 + new_tokens as f64 / 2.0;
        let cache = cached * model.cache_bytes_per_position() as f64;
        rows as f64 * bandwidth / (model.bytes_per_token() as f64 + rows as f64 * cache)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_the_two_there() {
        assert_eq!(Speed::of(12, &[3.0, 1.0, 2.0]), Speed { median: 6.0, min: 4.0, max: 12.0 });
        assert_eq!(Speed::of(12, &[3.0, 1.0, 2.0, 4.0]), Speed { median: 5.0, min: 3.0, max: 12.0 });
        assert_eq!(Speed::of(12, &[2.0]), Speed { median: 6.0, min: 6.0, max: 6.0 });
    }
}
