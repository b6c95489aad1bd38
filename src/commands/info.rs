//! `gpt2 info`: architecture, parameters, memory.

use anyhow::Result;
use gpt2::analysis::parameters::{Costs, Parameters};
use gpt2::checkpoint::Checkpoint;
use gpt2::config::Config;

use super::load;
use crate::cli::{Format, InfoArgs, Verbosity};
use crate::output::Stdout;
use crate::output::info::{InfoRecord, TensorRecord};

pub fn run(args: &InfoArgs, verbosity: Verbosity) -> Result<()> {
    let (model, config, tensors) = match &args.config {
        Some(path) => (path.display().to_string(), Config::from_file(path)?, vec![]),
        None => of_model(args, verbosity)?,
    };
    let record = InfoRecord { model, parameters: Parameters::of(&config), memory: Costs::of(&config), config, tensors };
    let mut out = Stdout::lock();
    match args.format {
        Format::Text => record.write_text(&mut out),
        format => out.json(&record, format),
    }?;
    out.finish()
}

/// The configuration and tensors of a model; its weights stay unread.
fn of_model(args: &InfoArgs, verbosity: Verbosity) -> Result<(String, Config, Vec<TensorRecord>)> {
    let files = load::find(&args.model, verbosity)?;
    let checkpoint = Checkpoint::open(&files.weights)?;
    let mut config = files.read_config()?;
    config.qkv_bias = checkpoint.get("h.0.attn.c_attn.bias").is_some();
    let tensors = if args.tensors { checkpoint.tensors.iter().map(record).collect() } else { vec![] };
    Ok((files.name, config, tensors))
}

fn record(tensor: &gpt2::checkpoint::Tensor) -> TensorRecord {
    TensorRecord { name: tensor.name.clone(), dtype: tensor.dtype.to_string(), shape: tensor.shape.clone() }
}
