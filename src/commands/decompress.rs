//! `gpt2 decompress`: what `gpt2 compress` was given.

use std::path::Path;

use anyhow::Result;
use gpt2::compression::Codec;
use gpt2::compression::format::{Header, Reader};
use gpt2::model::WeightType;
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
    let (opened, pipeline) = coding::model(&model, verbosity)?;
    let codec = Codec::of_file(&header, &path, &opened, &pipeline, model.weights())?;
    let is_raw = args.raw_text.raw_text;
    let job = Job { input, output, is_raw, format: args.format, verbosity, direction: Direction::Decompress };
    job.run(&opened.name, &header, &mut |_, out, to, progress| codec.decompress(&mut reader, (out, to), progress))
}

/// The model that the flags name, with what they leave open as the file has it.
fn model(args: &ModelArgs, header: &Header, path: &Path) -> Result<ModelArgs> {
    let is_given = args.dtype.is_some() || args.quantize.is_some();
    let fault = |problem: String| Error::format(path, problem);
    let (dtype, quantize) = match header.weights() {
        _ if is_given => (args.dtype, args.quantize),
        Some(WeightType::Stored) => (None, None),
        Some(WeightType::Float(float)) => (Some(float), None),
        Some(WeightType::Quantized(kind)) => (None, Some(kind)),
        None => return Err(fault(format!("made with weights of an unknown type, {:?}", header.weights)).into()),
    };
    let named = || Some(header.name.clone()).filter(|name| is_known(name));
    let unknown = || match header.is_local() {
        true => fault(format!("made with a local model, {:?}: give it with --model", header.name)),
        false => fault(format!("made with the model {:?}, which is not here: give it with --model", header.name)),
    };
    let model = args.given().or_else(named).ok_or_else(unknown)?;
    Ok(ModelArgs { model: Some(model), dtype, quantize, ..args.clone() })
}

/// Whether a file may choose a model of this name: one that is built in, published, or in the cache. It cannot make the
/// program download anything else, or open files.
fn is_known(name: &str) -> bool {
    name == "demo" || source::published(name).is_some() || source::cached_models().iter().any(|cached| cached == name)
}
