//! The records of `gpt2 bench`.

use std::io::Write;

use anyhow::Result;
use gpt2::analysis::bench::Speed;
use gpt2::memory::readable;
use serde::Serialize;

use super::Stdout;

/// The result of `bench`.
#[derive(Debug, Serialize)]
pub struct BenchRecord {
    /// The model's name.
    pub model: String,
    /// The weight matrices by type.
    pub weights: Vec<WeightsRecord>,
    /// Threads that compute.
    pub threads: usize,
    /// The instruction set in use: `amx`, `vnni`, `avx512`, `avx2`, `neon` or `portable`.
    pub simd: &'static str,
    /// Seconds from the start to a model that is ready. Mapped weights are read when they are first used.
    pub load_s: f64,
    /// The most memory in use, mapped files included; null where the system does not tell.
    pub peak_memory_bytes: Option<u64>,
    /// The most of the GPU's memory in use after a measurement, less what the driver takes by itself; null on the CPU.
    pub peak_device_memory_bytes: Option<u64>,
    /// Bytes a second that all threads together read from main memory, or that a copy on the GPU reads and writes.
    pub bandwidth_bytes_per_s: f64,
    /// Sequences that ran side by side; all speeds count the tokens of all of them.
    pub batch_size: usize,
    /// One for each length of prompt.
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

/// The speeds with one length of prompt.
#[derive(Debug, Serialize)]
pub struct RunRecord {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens decoded after it.
    pub generated_tokens: usize,
    /// Tokens of the prompt a second, up to the first new one.
    pub prefill_tokens_per_s: Speed,
    /// Decoded tokens a second.
    pub decode_tokens_per_s: Speed,
    /// How fast decoding could be if it did nothing but read the weights and the cache at the bandwidth of memory.
    pub decode_limit_tokens_per_s: f64,
    /// The median speed as a part of that.
    pub decode_of_limit: f64,
}

impl BenchRecord {
    /// A table: median, smallest and largest speed of each length of prompt.
    pub fn write_text(&self, out: &mut Stdout) -> Result<()> {
        let bold = anstyle::Style::new().bold();
        let weights: Vec<String> =
            self.weights.iter().map(|w| format!("{} {}", w.dtype, readable(w.bytes as u64))).collect();
        let threads = if self.threads == 1 { "thread" } else { "threads" };
        writeln!(out, "{bold}{}{bold:#}, {} {threads}, {}", self.model, self.threads, self.simd)?;
        writeln!(out, "  weights         {}", weights.join(", "))?;
        writeln!(out, "  load            {:.3} s", self.load_s)?;
        if let Some(bytes) = self.peak_memory_bytes {
            writeln!(out, "  peak memory     {}", readable(bytes))?;
        }
        if let Some(bytes) = self.peak_device_memory_bytes {
            writeln!(out, "  GPU memory      {}", readable(bytes))?;
        }
        writeln!(out, "  memory reads    {:.1} GB/s", self.bandwidth_bytes_per_s / 1e9)?;
        if self.batch_size > 1 {
            writeln!(out, "  batch           {} sequences", self.batch_size)?;
        }
        writeln!(out, "\nTokens a second: median (smallest - largest)")?;
        writeln!(out, "{bold}{:>8}  {:<30}  {:<30}  of what memory allows{bold:#}", "prompt", "prefill", "decode")?;
        for run in &self.runs {
            writeln!(
                out,
                "{:>8}  {:<30}  {:<30}  {:.2} of {:.1}",
                run.prompt_tokens,
                cell(&run.prefill_tokens_per_s),
                cell(&run.decode_tokens_per_s),
                run.decode_of_limit,
                run.decode_limit_tokens_per_s
            )?;
        }
        Ok(())
    }
}

fn cell(speed: &Speed) -> String {
    format!("{:>8.1}  ({:.1} - {:.1})", speed.median, speed.min, speed.max)
}
