//! transformers' names of parameters, where they differ from ours or where we have nothing of the kind.
//!
//! Reference: transformers 5.23.0, `generation/configuration_utils.py`.

use serde_json::Value;

use super::field::{Fault, whole};
use super::{GenerationConfig, Parameter};
use crate::error::{Error, Result};
use crate::json;

/// What a name of ours or of transformers stands for.
#[derive(Debug, Clone, Copy)]
pub enum Meaning {
    /// A parameter.
    Parameter(&'static Parameter),
    /// transformers' `do_sample`: true samples; false does not, whatever the temperature.
    DoSample,
    /// transformers' `eos_token_id`: the tokens that end a text.
    EndOfText,
    /// A parameter of transformers that changes what is generated, and that we do not have.
    Missing,
}

/// What the name stands for; none if it is no parameter.
#[must_use]
pub fn parameter_meaning(name: &str) -> Option<Meaning> {
    let ours = match name {
        "stop_strings" => "stop",
        "prompt_lookup_num_tokens" => "prompt_lookup",
        name => name,
    };
    match Parameter::named(ours) {
        Some(parameter) => Some(Meaning::Parameter(parameter)),
        None if name == "do_sample" => Some(Meaning::DoSample),
        None if name == "eos_token_id" => Some(Meaning::EndOfText),
        None => MISSING.contains(&name).then_some(Meaning::Missing),
    }
}

/// transformers' name for a parameter of ours.
pub(super) fn transformers_name(name: &str) -> &str {
    match name {
        "stop" => "stop_strings",
        "prompt_lookup" => "prompt_lookup_num_tokens",
        "sample" => "do_sample",
        name => name,
    }
}

/// Parameters of transformers that change what is generated. One that has become a parameter of ours may stay here.
const MISSING: [&str; 4] = ["constraints", "dola_layers", "force_words_ids", "watermarking_config"];

/// Token ids that end a text: one, or a list of them; none if it is null. A negative id is that of no token.
pub(super) fn ends(value: &Value) -> Result<Option<Vec<u32>>, Fault> {
    let ids = match value {
        Value::Null => return Ok(None),
        Value::Array(ids) => ids.as_slice(),
        id => std::slice::from_ref(id),
    };
    let ids = ids.iter().filter(|id| id.as_f64().is_none_or(|id| id >= 0.0));
    let ids: Option<_> = ids.map(|id| u32::try_from(whole(id)?).ok()).collect();
    ids.map(Some).ok_or_else(|| format!("{}, neither a token id nor a list of them", json::shown(value)))
}

/// The boolean called `name`; none if it is null.
pub(super) fn boolean(name: &'static str, value: &Value) -> Result<Option<bool>> {
    match value {
        Value::Null => Ok(None),
        Value::Bool(value) => Ok(Some(*value)),
        value => Err(Error::parameter(name, format!("is {value}, neither true nor false"))),
    }
}

impl GenerationConfig {
    /// Unsets everything that makes it sample.
    pub(super) fn set_greedy(&mut self) {
        self.sample = false;
        for warper in [
            &mut self.temperature,
            &mut self.top_h,
            &mut self.top_p,
            &mut self.min_p,
            &mut self.typical_p,
            &mut self.epsilon_cutoff,
            &mut self.eta_cutoff,
        ] {
            *warper = None;
        }
        if self.penalty_alpha.is_none() {
            self.top_k = None;
        }
    }
}
