//! A model's `generation_config.json`: the parameters that its authors recommend.
//!
//! Reference: transformers 5.23.0, `generation/configuration_utils.py` and `_prepare_generation_config` in
//! `generation/utils.py`.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{GenerationConfig, Meaning, Parameter, parameter_meaning};
use crate::error::{Error, Result};
use crate::json;

/// transformers' default of `top_k`, which applies whenever it samples.
const DEFAULT_TOP_K: usize = 50;

/// Parameters that only some strategies use; to the others they mean nothing.
const CONDITIONAL: [&str; 12] = [
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "epsilon_cutoff",
    "eta_cutoff",
    "penalty_alpha",
    "prompt_lookup",
    "length_penalty",
    "early_stopping",
    "diversity_penalty",
];

/// The content of a `generation_config.json`.
#[derive(Debug, Clone, Default)]
pub struct GenerationFile {
    origin: String,
    values: Map<String, Value>,
}

impl GenerationFile {
    /// Parses the file; `origin` names it in errors.
    ///
    /// # Errors
    /// [`Error::Config`] if it is not a JSON object.
    pub fn parse(json: &[u8], origin: &str) -> Result<Self> {
        let value = serde_json::from_slice(json).map_err(|e| Error::config(origin, &json::fault(json, &e)))?;
        match value {
            Value::Object(values) => Ok(Self { origin: origin.to_owned(), values }),
            _ => Err(Error::config(origin, "not an object with parameters of generation")),
        }
    }

    /// The tokens that end a text; none if the file does not say.
    ///
    /// # Errors
    /// [`Error::Config`] if they are not token ids.
    pub fn eos_token_id(&self) -> Result<Option<Vec<u32>>> {
        let ids = match self.values.get("eos_token_id") {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Array(ids)) => ids.as_slice(),
            Some(id) => std::slice::from_ref(id),
        };
        // -1 is how some write that there is none.
        let ids = ids.iter().filter(|id| id.as_i64() != Some(-1));
        let ids: Option<_> = ids.map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect();
        ids.map(Some)
            .ok_or_else(|| Error::config(&self.origin, "eos_token_id is neither a token id nor a list of them"))
    }

    /// The parameters in it that change what is generated.
    #[must_use]
    pub fn set(&self) -> Vec<&str> {
        self.effective().map(|(key, _, _)| key).collect()
    }

    /// Those of [`set`](Self::set) that this program does not have.
    #[must_use]
    pub fn missing(&self) -> Vec<&str> {
        let missing = self.effective().filter(|(_, _, meaning)| matches!(meaning, Meaning::Missing));
        missing.map(|(key, _, _)| key).collect()
    }

    /// The values of [`set`](Self::set).
    #[must_use]
    pub fn values(&self) -> Map<String, Value> {
        self.effective().map(|(key, value, _)| (key.to_owned(), value.clone())).collect()
    }

    /// The defaults that transformers takes from the file: parameters that only some strategies use become
    /// [suggestions](GenerationConfig::suggestions).
    ///
    /// # Errors
    /// [`Error::Config`] with the file, the key and its value, if that is of the wrong type.
    pub fn config(&self) -> Result<GenerationConfig> {
        let fail = |error: Error| Error::config(&self.origin, &error.to_string().replace('`', ""));
        let (mut direct, mut conditional) = (Map::new(), Map::new());
        for (key, value, meaning) in self.effective() {
            match meaning {
                Meaning::Parameter(parameter) if CONDITIONAL.contains(&parameter.name) => {
                    conditional.insert(key.to_owned(), value.clone());
                }
                Meaning::Parameter(_) | Meaning::DoSample => {
                    direct.insert(key.to_owned(), value.clone());
                }
                Meaning::Missing => {}
            }
        }
        let mut suggestions = GenerationConfig::default().with_json(&conditional).map_err(fail)?;
        suggestions.top_k.get_or_insert(DEFAULT_TOP_K);
        let direct = GenerationConfig::default().with_json(&direct).map_err(fail)?;
        direct.check_values().map_err(fail)?;
        Ok(GenerationConfig { suggestions: Some(Arc::new(suggestions)), ..direct })
    }

    fn effective(&self) -> impl Iterator<Item = (&str, &Value, Meaning)> {
        self.values.iter().filter_map(|(key, value)| {
            let meaning = parameter_meaning(key).filter(|_| !is_neutral(key, value))?;
            // Parameters that transformers does not have mean nothing to it.
            Some((key.as_str(), value, meaning)).filter(|_| !is_only_ours(meaning, key))
        })
    }
}

/// Whether a parameter of this name exists here and not in transformers.
fn is_only_ours(meaning: Meaning, key: &str) -> bool {
    const OURS: [&str; 8] =
        ["bad_words", "ignore_eos", "logprobs", "on_context_limit", "prompt_lookup", "sample", "seed", "stop"];
    matches!(meaning, Meaning::Parameter(Parameter { name, .. }) if *name == key && OURS.contains(name))
}

/// Whether the value changes nothing.
fn is_neutral(key: &str, value: &Value) -> bool {
    let off = match key {
        "temperature"
        | "top_p"
        | "typical_p"
        | "repetition_penalty"
        | "length_penalty"
        | "num_beams"
        | "num_beam_groups"
        | "num_return_sequences"
        | "encoder_repetition_penalty"
        | "guidance_scale" => 1.0,
        "max_length"
        | "max_new_tokens"
        | "top_k"
        | "top_h"
        | "forced_bos_token_id"
        | "forced_eos_token_id"
        | "max_time" => f64::NAN,
        _ => 0.0,
    };
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(values) => values.is_empty(),
        value => value.as_f64() == Some(off),
    }
}

impl GenerationConfig {
    /// This configuration with the [suggestions](Self::suggestions) that its strategy uses.
    pub(in crate::decode) fn completed(&self) -> Self {
        let mut config = self.clone();
        let Some(suggested) = config.suggestions.take() else { return config };
        if config.samples() {
            config.temperature = config.temperature.or(suggested.temperature);
            config.top_k = config.top_k.or(suggested.top_k);
            config.top_p = config.top_p.or(suggested.top_p);
            config.min_p = config.min_p.or(suggested.min_p);
            config.typical_p = config.typical_p.or(suggested.typical_p);
            config.epsilon_cutoff = config.epsilon_cutoff.or(suggested.epsilon_cutoff);
            config.eta_cutoff = config.eta_cutoff.or(suggested.eta_cutoff);
        } else if config.num_beams == 1 && !config.assistant && config.prompt_lookup.is_none() {
            config.penalty_alpha =
                config.penalty_alpha.or(suggested.penalty_alpha.filter(|_| suggested.top_k > Some(1)));
            if config.penalty_alpha.is_some() {
                config.top_k = config.top_k.or(suggested.top_k);
            }
        }
        if config.num_beams > 1 {
            config.length_penalty = config.length_penalty.or(suggested.length_penalty);
            config.early_stopping = config.early_stopping.or(suggested.early_stopping);
        } else if !config.assistant && config.penalty_alpha.is_none() {
            config.prompt_lookup = config.prompt_lookup.or(suggested.prompt_lookup);
        }
        if config.num_beam_groups > 1 {
            config.diversity_penalty = config.diversity_penalty.or(suggested.diversity_penalty);
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(json: &str) -> GenerationFile {
        GenerationFile::parse(json.as_bytes(), "generation_config.json").unwrap()
    }

    /// What transformers 5.23.0 does with the file.
    fn completed(json: &str) -> GenerationConfig {
        file(json).config().unwrap().completed()
    }

    #[test]
    fn only_what_changes_something_is_set() {
        let published = r#"{"_from_model_config": true, "bos_token_id": 50256, "eos_token_id": 50256,
            "transformers_version": "4.26.0.dev0", "temperature": 1.0, "do_sample": false, "use_cache": true,
            "bad_words_ids": null, "suppress_tokens": []}"#;
        assert_eq!(file(published).set(), [""; 0]);
        let tuned = file(r#"{"do_sample": true, "top_p": 0.9, "stop": 1, "guidance_scale": 1.5, "max_length": 20}"#);
        assert_eq!(tuned.set(), ["do_sample", "top_p", "guidance_scale", "max_length"]);
        assert_eq!(tuned.missing(), ["guidance_scale"]);
    }

    #[test]
    fn a_temperature_alone_does_not_sample() {
        let greedy = completed(r#"{"temperature": 0.7, "top_k": 5, "length_penalty": 2, "early_stopping": true}"#);
        assert!(!greedy.validate().unwrap().draws());
        assert_eq!((greedy.temperature, greedy.top_k, greedy.length_penalty), (None, None, None));
    }

    #[test]
    fn sampling_takes_everything_and_top_k_50() {
        let sampled = completed(r#"{"do_sample": true, "temperature": 0.7}"#);
        assert_eq!((sampled.sample, sampled.temperature, sampled.top_k), (true, Some(0.7), Some(50)));
        let mut asked = file(r#"{"temperature": 0.7, "top_k": 0}"#).config().unwrap();
        asked.top_p = Some(0.5);
        let asked = asked.completed();
        assert_eq!((asked.temperature, asked.top_k, asked.top_p), (Some(0.7), Some(0), Some(0.5)));
    }

    #[test]
    fn each_strategy_takes_what_is_its_own() {
        let beams =
            completed(r#"{"num_beams": 4, "length_penalty": 0.5, "early_stopping": "never", "penalty_alpha": 0.6}"#);
        assert_eq!((beams.num_beams, beams.length_penalty, beams.penalty_alpha), (4, Some(0.5), None));
        beams.validate().unwrap();
        let contrastive = completed(r#"{"penalty_alpha": 0.6, "top_k": 4}"#);
        assert_eq!((contrastive.penalty_alpha, contrastive.top_k), (Some(0.6), Some(4)));
        contrastive.validate().unwrap();
        let lengths = completed(r#"{"max_length": 30, "min_length": 5, "max_new_tokens": 7}"#);
        assert_eq!((lengths.max_length, lengths.min_length, lengths.max_new_tokens), (None, 5, 7));
    }

    #[test]
    fn mistakes_name_the_file_and_the_key() {
        for (json, words) in [
            (r#"{"top_p": "x"}"#, "generation_config.json: top_p is \"x\", not a number"),
            (r#"{"do_sample": 1}"#, "generation_config.json: do_sample is 1, neither true nor false"),
            (r#"{"num_beams": -1}"#, "generation_config.json: num_beams is -1, not a whole number"),
            (r#"{"repetition_penalty": 0}"#, "generation_config.json: repetition_penalty is 0; it takes"),
        ] {
            let error = file(json).config().unwrap_err().to_string();
            assert!(error.starts_with(words), "{error}");
        }
        let error = GenerationFile::parse(b"[]", "f").unwrap_err().to_string();
        assert_eq!(error, "f: not an object with parameters of generation");
        assert!(file(r#"{"eos_token_id": "x"}"#).eos_token_id().is_err());
        assert_eq!(file(r#"{"eos_token_id": [3, 4]}"#).eos_token_id().unwrap(), Some(vec![3, 4]));
        assert_eq!(file(r#"{"eos_token_id": -1}"#).eos_token_id().unwrap(), Some(vec![]));
        assert_eq!(file("{}").eos_token_id().unwrap(), None);
    }
}
