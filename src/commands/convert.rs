//! `gpt2 convert`: writes a model as GGUF or safetensors, in another number type.

use std::path::Path;

use anyhow::Result;
use gpt2::Error;
use gpt2::base::DType;
use gpt2::checkpoint::export::Export;
use gpt2::checkpoint::gguf::Vocabulary;
use gpt2::memory;
use gpt2::source::OpenedModel;
use gpt2::tokenizer::Tokenizer;

use super::load;
use crate::cli::{ConvertArgs, Format, Verbosity};
use crate::output::convert::ConvertRecord;
use crate::output::{Stdout, check_folder, say, write_file};

/// The kind of file, by its extension.
enum Kind {
    Gguf,
    Safetensors,
}

pub fn run(args: &ConvertArgs, verbosity: Verbosity) -> Result<()> {
    let dtype = args.to;
    let kind = kind(args, dtype)?;
    check_folder(Some(&args.output))?;
    load::set_up(&args.model)?;
    let opened = load::open(&args.model, verbosity)?;
    opened.checkpoint.check(&opened.config)?;
    let export = Export { checkpoint: &opened.checkpoint, config: &opened.config, dtype };
    memory::require_bytes(&format!("converting {}", opened.name), export.working_bytes())?;
    match kind {
        Kind::Gguf => gguf(export, &opened, &args.output, verbosity)?,
        Kind::Safetensors => safetensors(export, &args.output)?,
    }
    let record = ConvertRecord {
        model: opened.name,
        file: args.output.display().to_string(),
        bytes: std::fs::metadata(&args.output)?.len(),
        format: match kind {
            Kind::Gguf => "gguf",
            Kind::Safetensors => "safetensors",
        },
        dtype: dtype.to_string().to_lowercase(),
    };
    let mut out = Stdout::lock();
    match args.format {
        Format::Text => record.write_text(&mut out),
        format => out.json(&record, format),
    }?;
    out.finish()
}

/// Checks the flags and returns the kind of file to write.
fn kind(args: &ConvertArgs, dtype: DType) -> Result<Kind> {
    let usage = |message: String| Err(Error::Usage(message).into());
    if args.model.dtype.is_some() || args.model.quantize.is_some() {
        return usage("convert takes the type from --to; remove --dtype and --quantize".into());
    }
    let extension = args.output.extension().unwrap_or_default().to_ascii_lowercase();
    match extension.to_str() {
        Some("gguf") => Ok(Kind::Gguf),
        Some("safetensors") if dtype.block_len() > 1 => {
            usage(format!("safetensors has no type {dtype}; name the file *.gguf, or use --to f16"))
        }
        Some("safetensors") => Ok(Kind::Safetensors),
        _ => usage(format!("{} must end in .gguf or .safetensors", args.output.display())),
    }
}

fn gguf(export: Export<'_>, opened: &OpenedModel, path: &Path, verbosity: Verbosity) -> Result<()> {
    let tokenizer = opened.load_tokenizer()?;
    let parts = tokenizer.as_ref().map(|tokenizer| vocabulary(tokenizer, export.config.vocab_size)).transpose()?;
    if parts.is_none() && !verbosity.quiet {
        say("note: the model has no tokenizer, so llama.cpp will not load the file");
    }
    let name = Path::new(&opened.name).file_stem().and_then(|name| name.to_str()).unwrap_or(&opened.name);
    let vocabulary = parts.as_ref().map(|(tokens, merges, special)| Vocabulary {
        tokens: tokens.iter().map(String::as_str).collect(),
        merges: merges.iter().map(String::as_str).collect(),
        special: special.clone(),
    });
    Ok(export.to_gguf(path, name, vocabulary.as_ref())?)
}

/// Pieces, merges and special tokens for a model with `vocab_size` tokens.
fn vocabulary(tokenizer: &Tokenizer, vocab_size: usize) -> Result<(Vec<String>, Vec<String>, Vec<u32>)> {
    let merges = tokenizer.merges().ok_or_else(|| {
        Error::Unsupported("the model's tokenizer is not a byte-level BPE, and GGUF has no other kind for GPT-2".into())
    })?;
    if tokenizer.vocab_size() > vocab_size {
        let count = tokenizer.vocab_size();
        let message =
            format!("the tokenizer has {count} tokens but the model has {vocab_size}; GGUF needs both to be equal");
        return Err(Error::Unsupported(message).into());
    }
    let ids = 0..vocab_size as u32;
    // Rows of the embedding without a token.
    let piece = |id| tokenizer.piece(id).map_or_else(|| format!("[PAD{id}]"), str::to_owned);
    let special = ids.clone().filter(|id| tokenizer.is_special(*id)).collect();
    Ok((ids.map(piece).collect(), merges, special))
}

/// Writes the weights, and a configuration next to them if there is none.
fn safetensors(export: Export<'_>, path: &Path) -> Result<()> {
    export.to_safetensors(path)?;
    let config = path.with_file_name("config.json");
    if !config.exists() {
        let text = export.config.to_json()?;
        write_file(&config, text.as_bytes())?;
    }
    Ok(())
}
