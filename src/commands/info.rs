//! `gpt2 info`: architecture, parameters, memory.

use anyhow::Result;
use gpt2::analysis::parameters::{Costs, Parameters};
use gpt2::checkpoint::Checkpoint;
use gpt2::config::Config;
use gpt2::memory::{self, Footprint};

use super::load;
use crate::cli::{Format, InfoArgs, Verbosity};
use crate::output::Stdout;
use crate::output::info::{InfoRecord, MemoryRecord, RunningRecord, TensorRecord};

pub fn run(args: &InfoArgs, verbosity: Verbosity) -> Result<()> {
    let (model, config, footprint, tensors) = match &args.config {
        Some(path) => {
            let config = Config::from_file(path)?;
            let footprint = Footprint::of_config(&config, args.model.weights());
            (path.display().to_string(), config, footprint, vec![])
        }
        None => of_model(args, verbosity)?,
    };
    let running = RunningRecord { footprint, available_bytes: memory::available().map(|available| available.bytes) };
    let memory = MemoryRecord { costs: Costs::of(&config), running };
    let record = InfoRecord { model, parameters: Parameters::of(&config), memory, config, tensors };
    let mut out = Stdout::lock();
    match args.format {
        Format::Text => record.write_text(&mut out),
        format => out.json(&record, format),
    }?;
    out.finish()
}

/// The configuration and tensors of a model; its weights stay unread.
fn of_model(args: &InfoArgs, verbosity: Verbosity) -> Result<(String, Config, Footprint, Vec<TensorRecord>)> {
    let files = load::find(&args.model, verbosity)?;
    let checkpoint = Checkpoint::open(&files.weights)?;
    let mut config = files.read_config()?;
    config.qkv_bias = checkpoint.get("h.0.attn.c_attn.bias").is_some();
    let tensors = if args.tensors { checkpoint.tensors.iter().map(record).collect() } else { vec![] };
    let footprint = Footprint::of_checkpoint(&config, &checkpoint, args.model.weights());
    Ok((files.name, config, footprint, tensors))
}

fn record(tensor: &gpt2::checkpoint::Tensor) -> TensorRecord {
    TensorRecord { name: tensor.name.clone(), dtype: tensor.dtype.to_string(), shape: tensor.shape.clone() }
}
