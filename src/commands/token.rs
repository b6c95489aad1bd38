//! A token and a position as flags name them.

use anyhow::{Result, bail};
use gpt2::Error;
use gpt2::error::tokens_text;

use super::load::Loaded;
use crate::output::tokens::quoted;

/// The id of the token that `flag` names: by a text that is one token, or as `id:N`.
///
/// # Errors
/// [`Error::Usage`] for a text that is not one token, with those that it is, and for an id that the model does not have.
pub fn token_id(loaded: &Loaded, flag: &str, text: &str) -> Result<u32> {
    if let Some(number) = text.strip_prefix("id:") {
        let id = number.parse().map_err(|_| Error::Usage(format!("{flag} {text:?}: {number:?} is not a token id")))?;
        loaded.check_ids(&[id]).map_err(|error| Error::Usage(format!("{flag} {text}: {error}")))?;
        return Ok(id);
    }
    if let Err(fault) = loaded.pipeline().tokenizer() {
        bail!(Error::Usage(format!(
            "{flag} {}: {fault}; give the token as id:N, or a tokenizer with --tokenizer",
            quoted(text.as_bytes())
        )));
    }
    let ids = loaded.ids(text, true)?;
    if let [id] = ids[..] {
        return Ok(id);
    }
    let text = quoted(text.as_bytes());
    if ids.is_empty() {
        bail!(Error::Usage(format!("{flag} {text} is no token; name one by its text or as id:N")));
    }
    bail!(Error::Usage(format!(
        "{flag} {text} is {}: {}; name one (a word within a sentence begins with a space: \" word\")",
        tokens_text(ids.len()),
        loaded.notation(false).tokens(&ids).join(" ")
    )))
}

/// The position that `--position` names in a prompt of `len` tokens; a negative one counts from the end.
///
/// # Errors
/// [`Error::Usage`] if the prompt does not have it.
pub fn position(position: i64, len: usize) -> Result<usize> {
    let from_start = if position < 0 { position.saturating_add_unsigned(len as u64) } else { position };
    match usize::try_from(from_start) {
        Ok(at) if at < len => Ok(at),
        _ => {
            let (tokens, last) = (tokens_text(len), len - 1);
            bail!(Error::Usage(format!("--position {position}: the prompt has {tokens}, 0 to {last}")))
        }
    }
}
