//! `--shapes`: the shapes of a batch, as a course prints them. They follow from the texts and the configuration.

use anyhow::{Result, bail};
use gpt2::Error;

use super::load::Loaded;
use super::rows::{Input, Next};
use crate::cli::{Format, Prompt, TextArgs, Verbosity};
use crate::output::Stdout;
use crate::output::shapes::ShapesRecord;

/// Writes the shapes for one text.
pub fn of_text(loaded: &Loaded, prompt: &Prompt, text: &TextArgs, format: Format, verbosity: Verbosity) -> Result<()> {
    let ids = loaded.prompt_ids(prompt, None, text, verbosity)?;
    write(loaded, vec![ids.len()], format)
}

/// Writes the shapes for all texts of an input as one batch.
///
/// # Errors
/// If there is no text, or for the first one that cannot be run.
pub fn of_rows(loaded: &Loaded, mut input: Input, text: &TextArgs, format: Format, verbosity: Verbosity) -> Result<()> {
    let mut tokens = vec![];
    loop {
        match input.next(true)? {
            Next::Row(row) => {
                let ids = loaded.prompt_ids(&row.prompt, Some(row.place.line), text, verbosity);
                tokens.push(ids.map_err(|error| error.context(format!("line {}", row.place.line)))?.len());
            }
            Next::Refused(refused) => return Err(refused.error),
            Next::Later => {}
            Next::End => break,
        }
    }
    if tokens.is_empty() {
        bail!(Error::Usage("there is no text in the input".into()));
    }
    write(loaded, tokens, format)
}

fn write(loaded: &Loaded, tokens: Vec<usize>, format: Format) -> Result<()> {
    let config = loaded.model.config();
    let (longest, context) = (tokens.iter().copied().max().unwrap_or_default(), config.n_positions);
    if longest > context {
        bail!(Error::Context { tokens: longest, context });
    }
    let end = loaded.eos_token_id.first().copied();
    let record = ShapesRecord::new(&loaded.name, tokens, config, end);
    let mut out = Stdout::lock();
    match format {
        Format::Text => {
            let pad = record.pad_token_id.map_or_else(|| "nothing".to_owned(), |id| loaded.notation(false).token(id));
            record.write_text(&pad, &mut out)?;
        }
        format => out.json(&record, format)?,
    }
    out.finish()
}
