//! `gpt2 convert`: writes a model as GGUF or safetensors, in another number type.

use std::path::{Path, PathBuf};

use anyhow::Result;
use gpt2::Error;
use gpt2::base::DType;
use gpt2::checkpoint::export::Export;
use gpt2::checkpoint::gguf::{Metadata, Vocabulary};
use gpt2::config::{Config, GPT2_END_OF_TEXT};
use gpt2::memory;
use gpt2::source::OpenedModel;
use gpt2::tokenizer::{Tokenizer, TokenizerFiles};

use super::load;
use crate::cli::{ConvertArgs, Format, Verbosity};
use crate::output::convert::ConvertRecord;
use crate::output::{Stdout, check_folder, say, say_written, write_file};

/// The kind of file, by its extension.
#[derive(Clone, Copy)]
enum Kind {
    Gguf,
    Safetensors,
    Packed,
}

pub fn run(args: &ConvertArgs, verbosity: Verbosity) -> Result<()> {
    let dtype = args.to;
    let kind = kind(args, dtype)?;
    check_folder(Some(&args.output))?;
    load::set_up(&args.model, verbosity)?;
    let opened = load::open(&args.model, verbosity)?;
    gpt2::files::check_output(&args.output)?;
    opened.checkpoint.check(&opened.config)?;
    let export = Export { checkpoint: &opened.checkpoint, config: &opened.config, dtype };
    memory::require_bytes(&format!("converting {}", opened.name), export.working_bytes())?;
    let noted = |note: &str| {
        if !verbosity.quiet {
            say(note);
        }
    };
    let beside = match kind {
        Kind::Gguf => gguf(export, &opened, &args.output, noted).map(|()| vec![])?,
        Kind::Safetensors | Kind::Packed => safetensors(export, kind, &opened, &args.output, noted)?,
    };
    let format = match kind {
        Kind::Gguf => "gguf",
        Kind::Safetensors => "safetensors",
        Kind::Packed => "packed safetensors",
    };
    let dtype = dtype.to_string().to_lowercase();
    if !verbosity.quiet {
        say_written(&args.output, format_args!("{} as {format}, {dtype}", opened.name));
        beside.iter().for_each(|(path, what)| say_written(path, what));
    }
    if args.format == Format::Text {
        return Ok(());
    }
    let record = ConvertRecord {
        model: opened.name,
        file: args.output.display().to_string(),
        bytes: std::fs::metadata(&args.output)?.len(),
        format,
        dtype,
    };
    let mut out = Stdout::lock();
    out.json(&record, args.format)?;
    out.finish()
}

/// Checks the flags and returns the kind of file to write.
fn kind(args: &ConvertArgs, dtype: DType) -> Result<Kind> {
    let usage = |message: String| Err(Error::Usage(message).into());
    let extension = args.output.extension().unwrap_or_default().to_ascii_lowercase();
    match extension.to_str() {
        Some("safetensors") if args.packed => Ok(Kind::Packed),
        _ if args.packed => usage(format!("--packed: {} must end in .safetensors", args.output.display())),
        Some("gguf") => Ok(Kind::Gguf),
        Some("safetensors") if dtype.block_len() > 1 => {
            usage(format!("safetensors has no type {dtype}; name the file *.gguf, or use --packed or --to f16"))
        }
        Some("safetensors") => Ok(Kind::Safetensors),
        _ => usage(format!("{} must end in .gguf or .safetensors", args.output.display())),
    }
}

fn gguf(export: Export<'_>, opened: &OpenedModel, path: &Path, note: impl Fn(&str)) -> Result<()> {
    Metadata::from_config(export.config)?;
    let tokenizer = opened.load_tokenizer()?;
    let vocabulary = tokenizer.as_ref().map(|tokenizer| tokenizer.to_gguf(export.config)).transpose()?;
    let lost = tokenizer.as_ref().map(Tokenizer::lost_in_gguf);
    match lost.as_deref() {
        None => note("note: the model has no tokenizer, so llama.cpp will not load the file"),
        Some([]) => {}
        Some(lost) => note(&format!(
            "note: GGUF cannot say {} of the tokenizer: from this file, some texts get other ids",
            lost.join(", ")
        )),
    }
    note_ends(export.config, tokenizer.as_ref(), vocabulary.as_ref(), &note);
    let name = Path::new(&opened.name).file_stem().and_then(|name| name.to_str()).unwrap_or(&opened.name);
    Ok(export.to_gguf(path, name, vocabulary.as_ref())?)
}

/// Says where the tokens that start and end a text become others in GGUF.
fn note_ends(
    config: &Config,
    tokenizer: Option<&Tokenizer>,
    vocabulary: Option<&Vocabulary<'_>>,
    note: &impl Fn(&str),
) {
    if let Some(end) = tokenizer.and_then(|tokenizer| Some((tokenizer, tokenizer.end_of_text()?)))
        && !end.0.is_special(end.1)
    {
        note("note: <|endoftext|> is ordinary text to the tokenizer, but llama.cpp takes it as special by its name");
    }
    let (bos, eos) = vocabulary.map_or((None, None), |vocabulary| (vocabulary.bos, vocabulary.eos));
    if let (Some(given), Some(bos)) = (config.bos_token_id, bos)
        && given != bos
    {
        note(&format!(
            "note: from this file, token {bos} starts a text, as the tokenizer says, not {given}, as config.json does"
        ));
    }
    match (&*config.eos_token_id, eos) {
        ([given], Some(eos)) if *given != eos => {
            note(&format!(
                "note: from this file, token {eos} ends a text, as the tokenizer says, not {given}, as config.json does"
            ));
        }
        ([_], _) => {}
        ([], None) if config.vocab_size <= GPT2_END_OF_TEXT as usize => {}
        ([], eos) => {
            let eos = eos.unwrap_or(GPT2_END_OF_TEXT);
            note(&format!("note: GGUF cannot say that no token ends a text: from this file, token {eos} does"));
        }
        ([first, ..], eos) => {
            let eos = eos.unwrap_or(*first);
            note(&format!("note: GGUF can name only one token that ends a text: from this file, {eos} does"));
        }
    }
}

/// A file beside the weights, and what is in it.
type Beside = (PathBuf, &'static str);

/// Writes the weights, and what else a folder for transformers needs, unless it is there already; returns the other files.
fn safetensors(
    export: Export<'_>,
    kind: Kind,
    opened: &OpenedModel,
    path: &Path,
    note: impl Fn(&str),
) -> Result<Vec<Beside>> {
    let mut written: Vec<Beside> = vec![];
    let beside = |name: &str| path.with_file_name(name);
    let has_config = check_config(export.config, &beside("config.json"))?;
    let files = opened.tokenizer.to_save().unwrap_or_else(|fault| {
        note(&format!("note: continuing without a tokenizer: {fault}"));
        vec![]
    });
    if matches!(opened.tokenizer, TokenizerFiles::None) {
        note("note: the model has no tokenizer, so the folder gets none");
    }
    match kind {
        Kind::Packed => export.to_packed(path)?,
        _ => export.to_safetensors(path)?,
    }
    if !has_config {
        write_file(&beside("config.json"), export.config.to_json()?.as_bytes())?;
        written.push((beside("config.json"), "the configuration"));
    }
    // It may name other tokens that end a text than the configuration does.
    let (name, given) = ("generation_config.json", opened.generation_config_file());
    let given = given.map(|file| file.bytes()).transpose()?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match given {
        Some(bytes) if !beside(name).exists() => {
            write_file(&beside(name), bytes)?;
            written.push((beside(name), "the parameters for generation"));
        }
        given if beside(name).exists() && !given.is_some_and(|bytes| is_there(&beside(name), bytes)) => {
            note(&format!("note: {} has a {name} of its own, which stays as it is", folder.display()));
        }
        _ => {}
    }
    // Files of two tokenizers must not mix.
    if !TokenizerFiles::SAVED.into_iter().any(|name| beside(name).exists()) {
        for file in &files {
            write_file(&beside(file.name), &file.bytes)?;
            written.push((beside(file.name), "part of the tokenizer"));
        }
    } else if !files.iter().all(|file| is_there(&beside(file.name), &file.bytes)) {
        note(&format!("note: {} has tokenizer files, which stay as they are", folder.display()));
    }
    Ok(written)
}

/// Whether there is a `config.json` at `path`. It must describe the model that is written beside it.
fn check_config(written: &Config, path: &Path) -> Result<bool> {
    if !path.exists() {
        return Ok(false);
    }
    let mut found = Config::from_file(path)?;
    if !written.tie_word_embeddings {
        // A head of its own in the file counts, whatever the configuration says.
        found.tie_word_embeddings = false;
    }
    // What only PyTorch's training uses may be the user's.
    let written = Config { bias: true, qkv_bias: true, pytorch: found.pytorch.clone(), ..written.clone() };
    if found != written {
        let problem = "is the configuration of another model; write into a folder of its own";
        return Err(Error::Usage(format!("{} {problem}", path.display())).into());
    }
    Ok(true)
}

/// Whether the file at `path` has this content.
fn is_there(path: &Path, content: &[u8]) -> bool {
    gpt2::files::read_at_most(path, content.len() as u64).is_ok_and(|found| found == content)
}
