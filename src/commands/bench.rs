//! `gpt2 bench`: how fast a model loads, reads a prompt and decodes, and how close that is to the limit of memory
//! bandwidth.

use std::time::Instant;

use anyhow::Result;
use gpt2::Error;
use gpt2::analysis::bench::{Times, Workload, measure};
use gpt2::base::pool;
use gpt2::checkpoint::Checkpoint;
use gpt2::config::Config;
use gpt2::device::Backend;
use gpt2::kernels;
use gpt2::memory::{self, DeviceFootprint, Footprint};
use gpt2::model::{Gpt2, LoadOptions};

use super::{load, require_memory};
use crate::cli::{BenchArgs, Format, Verbosity};
use crate::output::bench::{BenchRecord, RunRecord, WeightsRecord};
use crate::output::{Stdout, say};

/// Passes over memory; the fastest counts.
const BANDWIDTH_PASSES: usize = 8;

pub fn run(args: &BenchArgs, verbosity: Verbosity) -> Result<()> {
    if let Some(size) = args.random {
        check(args, &size.config())?;
    }
    let start = Instant::now();
    let backend = args.model.device().open()?;
    let free_before = memory::free_on(&backend);
    let (name, model) = model(args, backend.clone(), verbosity)?;
    let load_s = start.elapsed().as_secs_f64();
    for workload in workloads(args) {
        let what = format!("--batch-size {} with {} tokens in each prompt", workload.rows, workload.prompt_tokens);
        let bytes = |rows| Workload { rows, ..workload }.bytes(&model);
        require_memory(&what, workload.rows, bytes, |rows| format!("--batch-size {rows}"))?;
    }
    let runs = workloads(args).map(|workload| measure(&model, workload, &backend)).collect::<Result<Vec<_>, _>>()?;
    // Before the bandwidth measurement, whose buffer would count as memory of the model.
    let peak_memory_bytes = memory::peak();
    let least_free = runs.iter().filter_map(|run| run.least_free).min();
    let peak_device_memory_bytes = free_before.zip(least_free).map(|(before, least)| before.saturating_sub(least));
    let bandwidth = match backend.memory_bandwidth(BANDWIDTH_PASSES) {
        // The speeds are known all the same.
        Err(error @ Error::OutOfMemory(_)) => {
            say(format_args!("warning: the memory bandwidth was not measured: {error}"));
            None
        }
        measured => Some(measured?),
    };
    let weights = model.weight_bytes().into_iter();
    let record = BenchRecord {
        model: name,
        weights: weights.map(|(dtype, bytes)| WeightsRecord { dtype: dtype.to_string(), bytes }).collect(),
        threads: pool::threads(),
        simd: kernels::level().name(),
        load_s,
        peak_memory_bytes,
        peak_device_memory_bytes,
        bandwidth_bytes_per_s: bandwidth,
        batch_size: args.batch_size,
        runs: runs.iter().map(|times| record(times, &model, bandwidth)).collect(),
    };
    let mut out = Stdout::lock();
    match args.format {
        Format::Text => record.write_text(&mut out),
        format => out.json(&record, format),
    }?;
    out.finish()
}

/// One workload for each prompt length.
fn workloads(args: &BenchArgs) -> impl Iterator<Item = Workload> {
    args.prompt_tokens.iter().map(|prompt_tokens| Workload {
        prompt_tokens: *prompt_tokens,
        new_tokens: args.max_new_tokens,
        rows: args.batch_size,
        repeat: args.repeat,
    })
}

/// Checks that the workloads fit the context.
fn check(args: &BenchArgs, config: &Config) -> Result<(), Error> {
    match workloads(args).try_for_each(|workload| workload.check(config.n_positions)) {
        Err(Error::Context { tokens, context }) => Err(Error::Usage(format!(
            "--prompt-tokens and --max-new-tokens add up to {tokens}; the context has {context} positions"
        ))),
        other => other,
    }
}

/// The model and its name.
fn model(args: &BenchArgs, backend: Backend, verbosity: Verbosity) -> Result<(String, Gpt2)> {
    let Some(size) = args.random else {
        load::set_up(&args.model, verbosity)?;
        let opened = load::open(&args.model, verbosity)?;
        check(args, &opened.config)?;
        let model = load::network(&args.model, &opened, backend, verbosity)?;
        return Ok((opened.name, model));
    };
    load::set_up(&args.model, verbosity)?;
    let weights = args.model.weights();
    // Random weights are held in memory, even if those of a file would be mapped.
    memory::require(size.name(), weights, |weights| Footprint::of_config(&size.config(), weights))?;
    let (config, checkpoint) = (size.config(), Checkpoint::random(&size.config(), weights, 0)?);
    memory::require_on(&backend, size.name(), weights, |weights| {
        DeviceFootprint::of_checkpoint(&config, &checkpoint, weights)
    })?;
    let model = Gpt2::load(config, &checkpoint, LoadOptions { weights, backend, ..LoadOptions::default() })?;
    Ok((format!("{} (random weights)", size.name()), model))
}

fn record(times: &Times, model: &Gpt2, bandwidth: Option<f64>) -> RunRecord {
    let (workload, decode) = (times.workload(), times.decode());
    // Weights that stay in the processor's caches are read faster than memory.
    let limit = bandwidth.map(|bandwidth| times.decode_limit(model, bandwidth).max(decode.max));
    RunRecord {
        prompt_tokens: workload.prompt_tokens,
        generated_tokens: workload.new_tokens,
        prefill_tokens_per_s: times.prefill(),
        decode_limit_tokens_per_s: limit,
        decode_of_limit: limit.map(|limit| decode.median / limit),
        decode_tokens_per_s: decode,
    }
}
