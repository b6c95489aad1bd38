//! A token as a flag names it: a text that is one token, or `id:N`.

use anyhow::{Result, bail};
use gpt2::Error;
use gpt2::error::tokens_text;

use super::load::Loaded;
use crate::output::tokens::quoted;

/// The id of the token that `flag` names.
///
/// # Errors
/// [`Error::Usage`] for a text that is not one token, with those that it is, and for an id that the model does not have.
pub fn token_id(loaded: &Loaded, flag: &str, text: &str) -> Result<u32> {
    if let Some(id) = text.strip_prefix("id:").and_then(|id| id.parse().ok()) {
        loaded.check_ids(&[id]).map_err(|error| Error::Usage(format!("{flag} {text}: {error}")))?;
        return Ok(id);
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
