//! The records of `gpt2 bench`.

use anyhow::Result;
use gpt2::analysis::bench::Speed;
use gpt2::memory::readable;
use gpt2::printable::line;
use serde::Serialize;

use super::{Stdout, Style};

/// How fast a model loads, reads a prompt and decodes.
#[derive(Debug, Serialize)]
pub struct BenchRecord {
    /// The model's name.
    pub model: String,
    /// The weight matrices by type.
    pub weights: Vec<WeightsRecord>,
    /// The number of compute threads.
    pub threads: usize,
    /// The instruction set in use: `amx`, `vnni`, `avx512`, `avx2`, `neon`, `portable` or `baseline`.
    pub simd: &'static str,
    /// Seconds from the start until the model is ready. Mapped weights are read when they are first used.
    pub load_s: f64,
    /// Peak memory use, including mapped files; null if the system does not report it.
    pub peak_memory_bytes: Option<u64>,
    /// The most GPU memory in use after any measurement, without the driver's own; null on the CPU.
    pub peak_device_memory_bytes: Option<u64>,
    /// Bytes per second that all threads together read from main memory, or that a copy on the GPU reads and writes; null if there
    /// was no memory left to measure it.
    pub bandwidth_bytes_per_s: Option<f64>,
    /// Sequences that ran in parallel; all speeds count the tokens of all of them.
    pub batch_size: usize,
    /// One run for each prompt length.
    pub runs: Vec<RunRecord>,
}

/// Weights of one type.
#[derive(Debug, Serialize)]
pub struct WeightsRecord {
    /// The type.
    pub dtype: String,
    /// Their bytes.
    pub bytes: usize,
}

/// The speeds for one prompt length.
#[derive(Debug, Serialize)]
pub struct RunRecord {
    /// Tokens in the prompt.
    pub prompt_tokens: usize,
    /// Tokens decoded after it.
    pub generated_tokens: usize,
    /// Prompt tokens per second, up to the first new token.
    pub prefill_tokens_per_s: Speed,
    /// Decoded tokens per second.
    pub decode_tokens_per_s: Speed,
    /// The decoding speed if it only had to read the weights and the cache, at the measured memory bandwidth; the fastest run
    /// if that was faster, as with weights that stay in the processor's caches; null without that bandwidth.
    pub decode_limit_tokens_per_s: Option<f64>,
    /// The median speed as a fraction of that; null without it.
    pub decode_of_limit: Option<f64>,
}

impl BenchRecord {
    /// A table: median, smallest and largest speed for each prompt length.
    pub fn write_text(&self, out: &mut Stdout) -> Result<()> {
        let bold = Style::new().bold();
        let weights: Vec<String> =
            self.weights.iter().map(|w| format!("{} {}", w.dtype.to_lowercase(), readable(w.bytes as u64))).collect();
        let threads = if self.threads == 1 { "thread" } else { "threads" };
        writeln!(out, "{bold}{}{bold:#}, {} {threads}, {}", line(&self.model), self.threads, self.simd)?;
        writeln!(out, "  weights         {}", weights.join(", "))?;
        writeln!(out, "  load            {:.3} s", self.load_s)?;
        if let Some(bytes) = self.peak_memory_bytes {
            writeln!(out, "  peak memory     {}", readable(bytes))?;
        }
        if let Some(bytes) = self.peak_device_memory_bytes {
            writeln!(out, "  GPU memory      {}", readable(bytes))?;
        }
        if let Some(bandwidth) = self.bandwidth_bytes_per_s {
            writeln!(out, "  memory reads    {:.1} GB/s", bandwidth / 1e9)?;
        }
        if self.batch_size > 1 {
            writeln!(out, "  batch           {} sequences", self.batch_size)?;
        }
        writeln!(out, "\nTokens per second: median (smallest - largest)")?;
        writeln!(out, "{bold}{:>8}  {:<25}  {:<25}  of memory limit{bold:#}", "prompt", "prefill", "decode")?;
        for run in &self.runs {
            let limit = run.decode_of_limit.zip(run.decode_limit_tokens_per_s);
            writeln!(
                out,
                "{:>8}  {:<25}  {:<25}  {}",
                run.prompt_tokens,
                cell(&run.prefill_tokens_per_s),
                cell(&run.decode_tokens_per_s),
                limit.map_or("-".to_owned(), |(share, limit)| format!("{share:.2} of {}", short(limit)))
            )?;
        }
        Ok(())
    }
}

fn cell(speed: &Speed) -> String {
    format!("{:>7}  ({} - {})", short(speed.median), short(speed.min), short(speed.max))
}

/// A speed with four digits or more.
fn short(speed: f64) -> String {
    format!("{speed:.*}", usize::from(speed < 1000.0))
}
