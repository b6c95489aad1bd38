//! `gpt2 decompress`: what `gpt2 compress` was given.

use std::path::Path;

use anyhow::Result;
use gpt2::compression::Codec;
use gpt2::compression::format::{Header, Reader};
use gpt2::{Error, source};

use super::coding::{self, Direction, Input, Job};
use crate::cli::{DecompressArgs, ModelArgs, Verbosity};

pub fn run(args: &DecompressArgs, verbosity: Verbosity) -> Result<()> {
    let output = args.output.as_deref();
    let mut input = Input::open(args.file.as_deref(), output, args.format)?;
    let path = input.path.clone();
    let mut reader = Reader::new(std::mem::replace(&mut input.from, Box::new(std::io::empty())), &path)?;
    let header = reader.header().clone();
    let model = model(&args.model, &header, &path)?;
    let (opened, pipeline) = coding::model(&model, verbosity).map_err(|fault| match fault.downcast() {
        // The cache has not all of what the file names.
        Ok(Error::Hub(fault) | Error::NotFound(fault) | Error::Source(fault)) if args.model.model.is_none() => {
            Error::Source(format!("{fault}, or give the model with --model NAME")).into()
        }
        Ok(fault) => fault.into(),
        Err(fault) => fault,
    })?;
    let codec = Codec::of_file(&header, &path, &opened, &pipeline, model.weights());
    let codec = codec.map_err(coding::with_tokenizer)?;
    let is_raw = args.raw_text.raw_text;
    let job = Job { input, output, is_raw, format: args.format, verbosity, direction: Direction::Decompress };
    job.run(&opened.name, &header, &mut |_, out, to, progress| codec.decompress(&mut reader, (out, to), progress))
}

/// The model that the flags or the environment name, else the one that the file names, if it is built in or in the cache:
/// a file cannot make the program download anything, or open files. What they leave open is as the file has it.
fn model(args: &ModelArgs, header: &Header, path: &Path) -> Result<ModelArgs> {
    let is_given = args.dtype.is_some() || args.quantize.is_some();
    let (name, fault) = (&header.name, |problem: String| Error::format(path, problem));
    let weights = match header.weights() {
        _ if is_given => args.weights(),
        Some(weights) => weights,
        None => return Err(fault(format!("made with weights of an unknown type, {:?}", header.weights)).into()),
    };
    let args = args.clone().with_weights(weights);
    if args.model.is_some() {
        return Ok(args);
    }
    if name == "demo" {
        return Ok(ModelArgs { model: Some(name.clone()), ..args });
    }
    if is_cached(name) {
        // By its address, since a folder may have the same name.
        return Ok(ModelArgs { model: Some(format!("https://huggingface.co/{name}")), offline: true, ..args });
    }
    let problem = match header.is_local() {
        true => format!("made with a local model, {name:?}: give it with --model"),
        false => format!("made with the model {name:?}, which is not in the cache: give it with --model NAME"),
    };
    Err(fault(problem).into())
}

/// Whether the cache has files of this model of the hub.
fn is_cached(name: &str) -> bool {
    let name = source::published(name).unwrap_or(name);
    source::cached_models().iter().any(|cached| cached == name)
}
