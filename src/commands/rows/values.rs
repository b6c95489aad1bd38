//! What the values of a row's keys mean.

use std::path::Path;

use anyhow::{Result, anyhow, bail};
use gpt2::decode::{GenerationConfig, Meaning, parameter_meaning};
use serde_json::Value;
use serde_json::value::RawValue;

use super::entries::quoted;
use crate::cli::{ConstraintFile, Prompt};

/// Names of a row's text.
pub const TEXT_KEYS: [&str; 2] = ["prompt", "text"];
/// Names of a row's token ids.
pub const IDS_KEYS: [&str; 2] = ["prompt_ids", "ids"];
/// Every key that gives the prompt.
pub const PROMPT_KEYS: [&str; 4] = ["prompt", "text", "prompt_ids", "ids"];

/// The prompt, given once under one of its names; none if it may be absent and is.
pub fn prompt(texts: &[(&str, &RawValue)], ids: &[(&str, &RawValue)], may_be_absent: bool) -> Result<Option<Prompt>> {
    let given: Vec<_> = texts.iter().chain(ids).filter(|(_, value)| value.get() != "null").collect();
    match given[..] {
        [] if may_be_absent => Ok(None),
        [] => bail!("the row has no text (`prompt` or `text`) and no token ids (`prompt_ids` or `ids`)"),
        [(key, value)] if TEXT_KEYS.contains(key) => text(key, value).map(Prompt::Text).map(Some),
        [(key, value)] => token_ids(key, value).map(Prompt::Ids).map(Some),
        [(one, _), (other, _), ..] => bail!("the row has both `{one}` and `{other}`"),
    }
}

/// The text that a key gives.
pub fn text(key: &str, value: &RawValue) -> Result<String> {
    serde_json::from_str(value.get()).map_err(|_| match value.get().starts_with('"') {
        true => anyhow!("`{key}` has half of a surrogate pair (\\ud800 to \\udfff), which is no character"),
        false => anyhow!("`{key}` is {}; it takes a text", quoted(value.get())),
    })
}

/// The token ids that a key gives.
pub fn token_ids(key: &str, value: &RawValue) -> Result<Vec<u32>> {
    serde_json::from_str(value.get()).map_err(|_| {
        let parts: Vec<&RawValue> = serde_json::from_str(value.get()).unwrap_or_default();
        match parts.iter().find(|part| serde_json::from_str::<u32>(part.get()).is_err()) {
            Some(part) => {
                anyhow!("`{key}` has {}; token ids are whole numbers from 0 to {}", quoted(part.get()), u32::MAX)
            }
            None => anyhow!("`{key}` is {}; it takes a list of token ids", quoted(value.get())),
        }
    })
}

pub fn parameter((key, value): (&str, &RawValue)) -> Result<(String, Value)> {
    if let (Some(Meaning::Missing), false) = (parameter_meaning(key), value.get() == "null") {
        bail!(
            "`{key}` is a parameter of transformers that this program does not have; to carry it along: --keep {key}"
        );
    }
    let wrong = |fault: &str| anyhow!("`{key}` is {}, {fault}", quoted(value.get()));
    let mut read: Value = serde_json::from_str(value.get()).map_err(|_| wrong("which cannot be used"))?;
    if let (Some(file), Value::String(text)) = (ConstraintFile::named(key), &read)
        && !file.is_content(text)
    {
        // As the flag names it.
        read = file.read(Path::new(text)).map_err(|fault| anyhow!("`{key}` {fault}"))?.into();
    }
    if let Some(Meaning::Parameter(parameter)) = parameter_meaning(key) {
        // The number that was written: as an `f64`, another one might be shown.
        parameter.read_json(&read, &mut GenerationConfig::default()).map_err(|fault| wrong(&fault))?;
    }
    Ok((key.to_owned(), read))
}
