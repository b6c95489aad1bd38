//! `gpt2 embed`: texts as vectors.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use anyhow::Result;
use gpt2::Error;
use gpt2::analysis::embedding::{self, Pool, embed};
use gpt2::analysis::tensor_file::{self, Spool, TensorSink};
use gpt2::error::tokens_text;
use gpt2::memory;
use gpt2::model::Packing;

use super::check_context;
use super::load::Loaded;
use super::rows::{self, Batch, Input, Row, together};
use crate::cli::{EmbedArgs, Format, Prompt, Verbosity};
use crate::output::embed::{EmbedRecord, Vectors};
use crate::output::{Stdout, check_folder, say_written};

/// The name of the one tensor of a text in a file of its own.
const NAME: &str = "embedding";

pub fn run(mut args: EmbedArgs, verbosity: Verbosity) -> Result<()> {
    let texts = &args.batch.texts;
    let is_file = texts.rows.output.as_deref().is_some_and(is_tensor_file);
    check(&args, is_file)?;
    let input = Input::of_texts(texts)?;
    let prompt = if input.is_none() { Some(args.text.prompt()?) } else { None };
    check_folder(texts.rows.output.as_deref())?;
    let output = args.batch.texts.rows.output.take_if(|_| is_file);
    let loaded = Loaded::load(&args.model, Packing::Later, verbosity)?;
    let layers = loaded.model.config().n_layer;
    if let Some(layer) = args.layer.filter(|layer| *layer >= layers) {
        return Err(Error::Usage(format!("--layer {layer}: the model has 0 to {}", layers - 1)).into());
    }
    let embedder = Embedder { args: &args, loaded: &loaded, output, verbosity };
    match (input, prompt) {
        (Some(input), _) => embedder.batch(input),
        (None, Some(prompt)) => embedder.single(&prompt),
        (None, None) => Ok(()),
    }
}

/// Whether a file's name is that of tensors.
fn is_tensor_file(path: &Path) -> bool {
    tensor_file::is_npz(path) || path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("safetensors"))
}

/// Checks what the flags alone tell.
fn check(args: &EmbedArgs, is_file: bool) -> Result<()> {
    let texts = &args.batch.texts;
    let has_rows = texts.rows.input.is_some() || texts.lines.is_some();
    let fault = match &texts.rows.output {
        Some(_) if is_file && args.format.is_some() => "--output takes the vectors themselves: leave out --format",
        Some(_) if is_file && texts.rows.resume => {
            "--resume continues lines of JSON, and a file of tensors is written whole: leave it out"
        }
        Some(_) if !is_file && !has_rows => {
            "--output of one text is F.safetensors or F.npz; its JSON goes to stdout (--format json > F)"
        }
        _ => return Ok(texts.check_format(args.format == Some(Format::Text))?),
    };
    Err(Error::Usage(fault.into()).into())
}

/// A loaded model and the flags that say what becomes of a text.
struct Embedder<'a> {
    args: &'a EmbedArgs,
    loaded: &'a Loaded,
    /// The file of tensors, if there is to be one.
    output: Option<PathBuf>,
    verbosity: Verbosity,
}

impl Embedder<'_> {
    fn single(&self, prompt: &Prompt) -> Result<()> {
        let ids = self.ids(prompt, None)?;
        let Some(record) = self.records(&[ids])?.pop() else { return Ok(()) };
        if let Some(path) = &self.output {
            let shape = self.shape(&record);
            tensor_file::write(path, &[(NAME.to_owned(), shape.clone())], |sink| put(sink, NAME, &shape, &record))?;
            let of = format!("the vectors of {}", tokens_text(record.ids.len()));
            self.say_written(path, if self.args.pool == Pool::None { of } else { "the vector of the text".to_owned() });
            return Ok(());
        }
        let mut out = Stdout::lock();
        match self.args.format.unwrap_or_default() {
            Format::Text => record.write_text(self.loaded.notation(false), &mut out)?,
            format => out.json(&record, format)?,
        }
        out.finish()
    }

    fn batch(&self, input: Input) -> Result<()> {
        let (args, texts) = (self.args, &self.args.batch.texts);
        let mut settings = self.loaded.settings("embed", &args.model, &args.text, &texts.rows);
        settings.parameters.insert("layer".to_owned(), args.layer.into());
        settings.parameters.insert("pool".to_owned(), args.pool.name().into());
        let spool = RefCell::new(self.output.as_deref().map(Spool::create).transpose()?);
        let is_text = self.output.is_some() || texts.is_text(args.format.map(|format| format == Format::Text));
        let batch = Batch::open(&texts.rows, input, is_text, args.batch.batch_size, &mut settings, self.verbosity)?;
        batch.run_then(
            &EmbedRecord::default(),
            |rows, tokens| {
                let ids = rows.iter().map(|row| self.row(row)).collect();
                let found = rows::of_those_that_can(ids, |ids| {
                    *tokens += ids.iter().map(Vec::len).sum::<usize>();
                    together(ids, &|ids| self.records(ids))
                });
                let Some(spool) = &mut *spool.borrow_mut() else { return found };
                let collect = |(found, row): (Result<EmbedRecord>, &&Row)| {
                    let record = found?;
                    put(spool, &row.name(), &self.shape(&record), &record)?;
                    Ok(record)
                };
                found.into_iter().zip(rows).map(collect).collect()
            },
            |row, record, out| {
                if self.output.is_some() {
                    return Ok(());
                }
                row.write_heading(out)?;
                record.write_text(self.loaded.notation(false), out)
            },
            || {
                let Some(spool) = spool.take() else { return Ok(()) };
                let of = if spool.len() == 1 {
                    "the vectors of 1 text".to_owned()
                } else {
                    format!("the vectors of {} texts", spool.len())
                };
                spool.finish()?;
                if let Some(path) = &self.output {
                    self.say_written(path, of);
                }
                Ok(())
            },
        )
    }

    fn row(&self, row: &Row) -> Result<Vec<u32>> {
        self.ids(&row.prompt, Some(row.place.line))
    }

    fn ids(&self, prompt: &Prompt, line: Option<usize>) -> Result<Vec<u32>> {
        self.loaded.prompt_ids(prompt, line, &self.args.text, self.verbosity)
    }

    fn records(&self, texts: &[Vec<u32>]) -> Result<Vec<EmbedRecord>> {
        let (args, loaded) = (self.args, self.loaded);
        texts.iter().try_for_each(|ids| check_context(loaded, ids.len()))?;
        let ids: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        memory::require_bytes("reading the texts", embedding::bytes(&loaded.model, &ids, args.pool))?;
        let found = embed(&loaded.model, &ids, args.layer, args.pool)?;
        let record = |(vectors, ids): (Vec<Vec<f32>>, &Vec<u32>)| EmbedRecord {
            model: loaded.name.clone(),
            ids: ids.clone(),
            tokens: ids.iter().map(|id| loaded.token_text(*id)).collect(),
            layer: args.layer,
            pool: args.pool.name(),
            embedding: Vectors { vectors, are_several: args.pool == Pool::None },
            settings: loaded.record_settings([]),
        };
        Ok(found.into_iter().zip(texts).map(record).collect())
    }

    /// The shape of a text's tensor, (C) or (T, C).
    fn shape(&self, record: &EmbedRecord) -> Vec<usize> {
        let width = self.loaded.model.config().n_embd;
        if record.embedding.are_several { vec![record.ids.len(), width] } else { vec![width] }
    }

    fn say_written(&self, path: &Path, what: String) {
        if !self.verbosity.quiet {
            say_written(path, what);
        }
    }
}

/// Writes a text's tensor.
fn put(sink: &mut dyn TensorSink, name: &str, shape: &[usize], record: &EmbedRecord) -> gpt2::Result<()> {
    sink.begin(name, shape)?;
    record.embedding.vectors.iter().try_for_each(|vector| sink.numbers(vector))
}
