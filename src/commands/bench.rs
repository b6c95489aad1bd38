//! `gpt2 bench`: how fast a model loads, reads a prompt and decodes, and how near that is to what memory allows.

use std::time::Instant;

use anyhow::Result;
use gpt2::Error;
use gpt2::base::pool;
use gpt2::checkpoint::Checkpoint;
use gpt2::device::Backend;
use gpt2::kernels;
use gpt2::language_model::{Input, LanguageModel};
use gpt2::memory::{self, Footprint};
use gpt2::model::{Gpt2, LoadOptions, Session};

use super::load;
use crate::cli::{BenchArgs, Format, Verbosity};
use crate::output::Stdout;
use crate::output::bench::{BenchRecord, RunRecord, Speed, WeightsRecord};

/// Passes over memory, of which the best counts.
const BANDWIDTH_PASSES: usize = 8;

pub fn run(args: &BenchArgs, verbosity: Verbosity) -> Result<()> {
    let start = Instant::now();
    let backend = args.model.device.open()?;
    let free_before = memory::free_on(&backend);
    let (name, model) = model(args, backend.clone(), verbosity)?;
    let load_s = start.elapsed().as_secs_f64();
    let longest = args.prompt_tokens.iter().max().copied().unwrap_or_default() + args.max_new_tokens;
    let context = model.config().n_positions;
    if longest > context {
        return Err(Error::Usage(format!(
            "--prompt-tokens and --max-new-tokens add up to {longest}; the context has {context} positions"
        ))
        .into());
    }
    let runs =
        args.prompt_tokens.iter().map(|prompt| measure(&model, *prompt, args, &backend)).collect::<Result<Vec<_>>>()?;
    // The buffer of the next measurement would count as memory of the model.
    let peak_memory_bytes = memory::peak();
    let least_free = runs.iter().filter_map(|run| run.least_free).min();
    let peak_device_memory_bytes = free_before.zip(least_free).map(|(before, least)| before.saturating_sub(least));
    let bandwidth = backend.memory_bandwidth(BANDWIDTH_PASSES)?;
    let runs = runs.into_iter().map(|run| run.record(&model, bandwidth, args)).collect();
    let weights = model.weight_bytes().into_iter();
    let record = BenchRecord {
        model: name,
        weights: weights.map(|(dtype, bytes)| WeightsRecord { dtype: dtype.to_string(), bytes }).collect(),
        threads: pool::threads(),
        simd: format!("{:?}", kernels::level()).to_lowercase(),
        load_s,
        peak_memory_bytes,
        peak_device_memory_bytes,
        bandwidth_bytes_per_s: bandwidth,
        batch_size: args.batch_size,
        runs,
    };
    let mut out = Stdout::lock();
    match args.format {
        Format::Text => record.write_text(&mut out),
        format => out.json(&record, format),
    }?;
    out.finish()
}

/// The model and its name.
fn model(args: &BenchArgs, backend: Backend, verbosity: Verbosity) -> Result<(String, Gpt2)> {
    let Some(size) = args.random else {
        return load::network(&args.model, backend, verbosity);
    };
    load::set_up(&args.model)?;
    let weights = args.model.weights();
    // Random numbers lie in memory even where those of a file would be mapped.
    memory::require(size.name(), weights, |weights| Footprint::of_config(&size.config(), weights))?;
    let checkpoint = Checkpoint::random(&size.config(), weights, 0)?;
    let model = Gpt2::load(size.config(), &checkpoint, LoadOptions { weights, backend })?;
    Ok((format!("{} (random weights)", size.name()), model))
}

/// Seconds that one prompt length took.
struct Times {
    prompt: usize,
    prefill: Vec<f64>,
    decode: Vec<f64>,
    /// Of the GPU's memory, in bytes.
    least_free: Option<u64>,
}

fn measure(model: &Gpt2, prompt: usize, args: &BenchArgs, backend: &Backend) -> Result<Times> {
    let mut times = Times { prompt, prefill: vec![], decode: vec![], least_free: None };
    // The first pass reads the weights into memory and does not count.
    for pass in 0..=args.repeat {
        let mut session = Session::new(model);
        let vocab_size = model.config().vocab_size;
        // Far apart in the embedding, and the same for every engine that is measured with such a rule.
        let ids: Vec<u32> = (0..prompt).map(|i| (i * 7919 % vocab_size) as u32).collect();
        let mut last: Vec<Vec<u32>> = vec![ids; args.batch_size];
        let start = Instant::now();
        last = step(&mut session, &last)?;
        let prefill = start.elapsed().as_secs_f64();
        let start = Instant::now();
        for _ in 0..args.max_new_tokens {
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
    fn record(self, model: &Gpt2, bandwidth: f64, args: &BenchArgs) -> RunRecord {
        let (rows, new) = (args.batch_size, args.max_new_tokens);
        let prefill = Speed::of(rows * self.prompt, self.prefill);
        let decode = Speed::of(rows * new, self.decode);
        // On average a decoded token sees the prompt and half of the tokens before it.
        let cached = self.prompt as f64 + new as f64 / 2.0;
        let cache = cached * model.cache_bytes_per_position() as f64;
        let limit = rows as f64 * bandwidth / (model.bytes_per_token() as f64 + rows as f64 * cache);
        RunRecord {
            prompt_tokens: self.prompt,
            generated_tokens: new,
            prefill_tokens_per_s: prefill,
            decode_limit_tokens_per_s: limit,
            decode_of_limit: decode.median / limit,
            decode_tokens_per_s: decode,
        }
    }
}
