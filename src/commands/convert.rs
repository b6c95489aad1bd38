//! `gpt2 convert`: writes a model as GGUF or safetensors, in another number type.

use std::path::Path;

use anyhow::Result;
use gpt2::Error;
use gpt2::base::DType;
use gpt2::checkpoint::export::Export;
use gpt2::memory;
use gpt2::source::OpenedModel;
use gpt2::tokenizer::{Tokenizer, TokenizerFiles};

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
        Kind::Safetensors => safetensors(export, &opened, &args.output, verbosity)?,
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
    let vocabulary = tokenizer.as_ref().map(|tokenizer| tokenizer.to_gguf(export.config.vocab_size)).transpose()?;
    if !verbosity.quiet {
        let lost = tokenizer.as_ref().map(Tokenizer::lost_in_gguf);
        match lost.as_deref() {
            None => say("note: the model has no tokenizer, so llama.cpp will not load the file"),
            Some([]) => {}
            Some(lost) => say(format_args!(
                "note: GGUF cannot say {} of the tokenizer: from this file, some texts get other ids",
                lost.join(", ")
            )),
        }
    }
    let name = Path::new(&opened.name).file_stem().and_then(|name| name.to_str()).unwrap_or(&opened.name);
    Ok(export.to_gguf(path, name, vocabulary.as_ref())?)
}

/// Writes the weights, and what else a folder for transformers needs, unless it is there already.
fn safetensors(export: Export<'_>, opened: &OpenedModel, path: &Path, verbosity: Verbosity) -> Result<()> {
    let files = opened.tokenizer.to_save().unwrap_or_else(|fault| {
        if !verbosity.quiet {
            say(format_args!("note: continuing without a tokenizer: {fault}"));
        }
        vec![]
    });
    export.to_safetensors(path)?;
    let exists = |name: &str| path.with_file_name(name).exists();
    if !exists("config.json") {
        write_file(&path.with_file_name("config.json"), export.config.to_json()?.as_bytes())?;
    }
    // It may name other tokens that end a text than the configuration does.
    if let Some(file) = opened.generation_config_file()
        && !exists("generation_config.json")
    {
        write_file(&path.with_file_name("generation_config.json"), file.bytes()?)?;
    }
    // Files of two tokenizers must not mix.
    if !TokenizerFiles::SAVED.into_iter().any(exists) {
        files.iter().try_for_each(|file| write_file(&path.with_file_name(file.name), &file.bytes))?;
    } else if !verbosity.quiet && !files.iter().all(|file| is_there(&path.with_file_name(file.name), &file.bytes)) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        say(format_args!("note: {} has tokenizer files, which stay as they are", folder.display()));
    }
    Ok(())
}

/// Whether the file at `path` has this content.
fn is_there(path: &Path, content: &[u8]) -> bool {
    gpt2::files::read_at_most(path, content.len() as u64).is_ok_and(|found| found == content)
}
