//! How fast a model reads a prompt and decodes, and how close that is to the limit set by memory bandwidth.

use std::time::Instant;

use serde::Serialize;

use crate::device::Backend;
use crate::error::{Error, Result};
use crate::language_model::{Input, LanguageModel};
use crate::memory;
use crate::model::{Gpt2, Session};

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// Tokens in the prompt of each row, at least one.
    pub prompt_tokens: usize,
    /// Tokens decoded after it in each row, at least one.
    pub new_tokens: usize,
    /// Rows that run side by side.
    pub rows: usize,
    /// Measurements, at least one, after a warm-up run.
    pub repeat: usize,
}

/// How long a [`Workload`] took.
#[derive(Debug, Clone, PartialEq)]
pub struct Times {
    workload: Workload,
    /// Seconds to the first new token, for each measurement.
    prefill: Vec<f64>,
    /// Seconds for the decoded tokens, for each measurement.
    decode: Vec<f64>,
    /// The least free GPU memory after any measurement, in bytes; none on the CPU.
    pub least_free: Option<u64>,
}

/// Tokens per second over several measurements.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Speed {
    /// The median; the mean of the two middle ones if their number is even.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Speed {
    /// The speeds of one or more runs over `tokens` tokens, each of which took the given `seconds`.
    fn of(tokens: usize, seconds: &[f64]) -> Self {
        let mut speeds: Vec<f64> = seconds.iter().map(|s| tokens as f64 / s).collect();
        speeds.sort_by(f64::total_cmp);
        let middle = speeds.len() / 2;
        let median = if speeds.len() % 2 == 1 { speeds[middle] } else { (speeds[middle - 1] + speeds[middle]) / 2.0 };
        Self { median, min: speeds[0], max: speeds[speeds.len() - 1] }
    }
}

impl Workload {
    /// Checks that the workload fits a model's context.
    ///
    /// # Errors
    /// [`Error::Context`] if it does not fit.
    pub fn check(&self, context: usize) -> Result<()> {
        let tokens = self.prompt_tokens.saturating_add(self.new_tokens);
        if tokens > context { Err(Error::Context { tokens, context }) } else { Ok(()) }
    }

    /// Bytes that it takes beside the weights.
    #[must_use]
    pub fn bytes(&self, model: &Gpt2) -> u64 {
        let (room, rows) = (model.room(), self.rows as u64);
        let logits = model.config().vocab_size * size_of::<f32>();
        let pass = self.prompt_tokens as u64 * room.position_bytes + logits as u64;
        rows.saturating_mul(room.cache_bytes(self.prompt_tokens + self.new_tokens) + pass)
    }
}

/// Measures a workload. `backend` holds the weights of `model`.
///
/// # Errors
/// As [`Workload::check`], and if the device fails.
pub fn measure(model: &Gpt2, workload: Workload, backend: &Backend) -> Result<Times> {
    let Workload { prompt_tokens, new_tokens, rows, repeat } = workload;
    workload.check(model.config().n_positions)?;
    let mut times = Times { workload, prefill: vec![], decode: vec![], least_free: None };
    // One session, as an engine that answers many requests has it: memory for activations and the cache comes once.
    let mut session = Session::new(model);
    // The first pass reads the weights into memory and does not count.
    for pass in 0..=repeat {
        (0..rows).for_each(|row| session.truncate(row, 0));
        let vocab_size = model.config().vocab_size;
        // Far apart in the embedding, and the same ids for every engine that is measured with this formula.
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

/// Runs the new tokens of each row and returns the most probable next token of each.
fn step(session: &mut Session<'_>, rows: &[Vec<u32>]) -> Result<Vec<Vec<u32>>> {
    let inputs: Vec<Input<'_>> = rows.iter().enumerate().map(|(row, ids)| Input::best(row, ids)).collect();
    // Weights that produce NaN take the same time as others.
    Ok(session.forward(&inputs)?.best.iter().map(|id| vec![id.unwrap_or(0)]).collect())
}

impl Times {
    /// What was measured.
    #[must_use]
    pub fn workload(&self) -> Workload {
        self.workload
    }

    /// Prompt tokens per second, all rows together.
    #[must_use]
    pub fn prefill(&self) -> Speed {
        Speed::of(self.workload.rows * self.workload.prompt_tokens, &self.prefill)
    }

    /// Decoded tokens per second, all rows together.
    #[must_use]
    pub fn decode(&self) -> Speed {
        Speed::of(self.workload.rows * self.workload.new_tokens, &self.decode)
    }

    /// Decoded tokens per second if decoding did nothing but read the weights and the cache, at `bandwidth` bytes per
    /// second.
    #[must_use]
    pub fn decode_limit(&self, model: &Gpt2, bandwidth: f64) -> f64 {
        let Workload { prompt_tokens, new_tokens, rows, .. } = self.workload;
        // On average a decoded token sees the prompt and half of the new tokens.
        let cached = prompt_tokens as f64 + new_tokens as f64 / 2.0;
        let cache = cached * model.cache_bytes_per_position() as f64;
        rows as f64 * bandwidth / (model.bytes_per_token() as f64 + rows as f64 * cache)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_the_middle_two() {
        assert_eq!(Speed::of(12, &[3.0, 1.0, 2.0]), Speed { median: 6.0, min: 4.0, max: 12.0 });
        assert_eq!(Speed::of(12, &[3.0, 1.0, 2.0, 4.0]), Speed { median: 5.0, min: 3.0, max: 12.0 });
        assert_eq!(Speed::of(12, &[2.0]), Speed { median: 6.0, min: 6.0, max: 6.0 });
    }
}
