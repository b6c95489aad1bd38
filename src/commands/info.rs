//! `gpt2 info`: architecture, parameters, memory.

mod settings;

use anyhow::Result;
use gpt2::Error;
use gpt2::analysis::parameters::{Costs, Parameters};
use gpt2::analysis::pytorch;
use gpt2::checkpoint::{Format, TensorSpec};
use gpt2::config::Config;
use gpt2::device::DeviceChoice;
use gpt2::memory::{self, DeviceFootprint, Footprint};
use gpt2::source::{self, OpenedModel};

use super::load;
use crate::cli::{self, InfoArgs, Settings, Verbosity};
use crate::output::info::{EntryRecord, InfoRecord, MemoryRecord, RunningRecord, Source, TensorRecord};
use crate::output::{Stdout, say};

pub fn run(args: &InfoArgs, settings: &Settings, verbosity: Verbosity) -> Result<()> {
    if args.settings {
        return settings::show(settings, args.format);
    }
    let on_gpu = may_be_cuda(args.model.device())?;
    let Described { model, format, config, footprint, device, tensors, source } =
        match (&args.model.config, &args.model.model) {
            (Some(_), None) if args.tensors => {
                return Err(Error::Usage(
                    "--tensors lists a checkpoint's tensors: give its --model beside --config".into(),
                )
                .into());
            }
            (Some(_), None) if !args.model.adapter.is_empty() => {
                return Err(Error::Usage("--adapter changes a model: give its --model beside --config".into()).into());
            }
            (Some(path), None) => {
                let (config, weights) = (Config::from_file(path)?, args.model.weights());
                let footprint = Footprint::of_config(&config, weights);
                let device = DeviceFootprint::of_config(&config, weights);
                Described {
                    model: path.display().to_string(),
                    format: None,
                    config,
                    footprint,
                    device,
                    tensors: vec![],
                    source: Source::Config,
                }
            }
            _ => match of_model(args, verbosity) {
                Err(error) => of_published(args, &error, verbosity).ok_or(error)?,
                described => described?,
            },
        };
    let running = RunningRecord { footprint, available_bytes: memory::available().map(|available| available.bytes) };
    let memory = MemoryRecord { costs: Costs::of(&config), running, device: on_gpu.then_some(device) };
    let entries = || pytorch::state_dict(&config).into_iter().map(EntryRecord::from).collect();
    let record = InfoRecord {
        model,
        format,
        parameters: Parameters::of(&config),
        memory,
        state_dict: args.state_dict.then(entries),
        module: args.module.then(|| pytorch::module(&config)),
        config,
        tensors,
        source,
    };
    let mut out = Stdout::lock();
    match args.format {
        cli::Format::Text => record.write_text(&mut out),
        format => out.json(&record, format),
    }?;
    out.finish()
}

/// Everything that `info` shows about a model.
struct Described {
    model: String,
    /// The form of the checkpoint, if there is one.
    format: Option<Format>,
    config: Config,
    footprint: Footprint,
    /// On an NVIDIA GPU.
    device: DeviceFootprint,
    tensors: Vec<TensorRecord>,
    source: Source,
}

/// Whether the device may be an NVIDIA GPU. Opens nothing: the memory of a run is computed without a GPU and, if the flag
/// names one, even by programs built without CUDA.
fn may_be_cuda(device: DeviceChoice) -> Result<bool> {
    Ok(match device {
        DeviceChoice::Cuda(_) => true,
        DeviceChoice::Auto => cfg!(feature = "cuda"),
        DeviceChoice::Cpu | DeviceChoice::Metal => {
            device.require()?;
            false
        }
    })
}

/// Describes a model without reading its weights.
fn of_model(args: &InfoArgs, verbosity: Verbosity) -> Result<Described> {
    let OpenedModel { name, config, checkpoint, .. } = load::open(&args.model, verbosity)?;
    let tensors = if args.tensors { checkpoint.listing().iter().map(record).collect() } else { vec![] };
    checkpoint.check(&config)?;
    let weights = args.model.weights();
    let footprint = Footprint::of_checkpoint(&config, &checkpoint, weights);
    let device = DeviceFootprint::of_checkpoint(&config, &checkpoint, weights);
    Ok(Described {
        model: name,
        format: Some(checkpoint.format()),
        config,
        footprint,
        device,
        tensors,
        source: Source::Checkpoint,
    })
}

/// Describes a published model whose files cannot be had, as far as its size tells; none if more was asked for.
fn of_published(args: &InfoArgs, error: &anyhow::Error, verbosity: Verbosity) -> Option<Described> {
    if !matches!(error.downcast_ref(), Some(Error::Hub(_))) || args.tensors || !args.model.adapter.is_empty() {
        return None;
    }
    let name = source::published(args.model.model())?;
    let (config, weights) = (Config::named(name)?, args.model.weights());
    if !verbosity.quiet {
        say(format_args!("note: {error}; this is what is known of {name}, without its files"));
    }
    let footprint = Footprint::of_config(&config, weights);
    let device = DeviceFootprint::of_config(&config, weights);
    Some(Described {
        model: name.to_owned(),
        format: None,
        config,
        footprint,
        device,
        tensors: vec![],
        source: Source::Table,
    })
}

fn record(tensor: &TensorSpec) -> TensorRecord {
    TensorRecord { name: tensor.name.clone(), dtype: tensor.dtype.to_string(), shape: tensor.shape.clone() }
}
