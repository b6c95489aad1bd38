//! A model's `generation_config.json`: the parameters that its authors recommend.
//!
//! Reference: transformers 5.23.0, `generation/configuration_utils.py` and `_prepare_generation_config` in
//! `generation/utils.py`.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::transformers::{ends, transformers_name};
use super::{GenerationConfig, Meaning, Parameter, parameter_meaning};
use crate::error::{Error, Result};
use crate::json;

/// transformers' default of `top_k`, which applies whenever it samples.
const DEFAULT_TOP_K: usize = 50;

/// Parameters that only some strategies use; to the others they mean nothing.
const CONDITIONAL: [&str; 16] = [
    "temperature",
    "top_h",
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
    "num_assistant_tokens",
    "assistant_confidence_threshold",
    "max_matching_ngram_size",
];

/// Those of them that change how long it takes, and nothing else.
const FOR_SPEED: [&str; 3] = ["num_assistant_tokens", "assistant_confidence_threshold", "max_matching_ngram_size"];

/// The content of a `generation_config.json`.
#[derive(Debug, Clone, Default)]
pub struct GenerationFile {
    origin: String,
    values: Map<String, Value>,
    eos_token_id: Vec<u32>,
}

impl GenerationFile {
    /// Parses the file; `origin` names it in errors.
    ///
    /// # Errors
    /// [`Error::Config`] if it is not a JSON object, or if its `eos_token_id` is no token id nor a list of them.
    pub fn parse(json: &[u8], origin: &str) -> Result<Self> {
        let fault = |fault: &str| Error::config(origin, fault);
        let Value::Object(values) = json::parse(json).map_err(|e| fault(&e))? else {
            return Err(fault("not an object with parameters of generation"));
        };
        let eos_token_id = values.get("eos_token_id").unwrap_or(&Value::Null);
        let eos_token_id = ends(eos_token_id).map_err(|e| fault(&format!("eos_token_id is {e}")))?.unwrap_or_default();
        Ok(Self { origin: origin.to_owned(), values, eos_token_id })
    }

    /// The tokens that end a text. If the file names none, nothing ends it, whatever `config.json` says.
    #[must_use]
    pub fn eos_token_id(&self) -> &[u32] {
        &self.eos_token_id
    }

    /// The parameters in it that change what is generated.
    #[must_use]
    pub fn set(&self) -> Vec<&str> {
        self.effective().map(|(key, _, _)| key).filter(|key| !FOR_SPEED.contains(key)).collect()
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
        let fail = |error| self.blame(error, &[]);
        let (mut direct, mut conditional) = (Map::new(), Map::new());
        for (key, value, meaning) in self.effective() {
            match meaning {
                Meaning::Parameter(parameter) if CONDITIONAL.contains(&parameter.name) => {
                    conditional.insert(key.to_owned(), value.clone());
                }
                Meaning::Parameter(_) | Meaning::DoSample => {
                    direct.insert(key.to_owned(), value.clone());
                }
                Meaning::EndOfText | Meaning::Missing => {}
            }
        }
        let mut suggestions = GenerationConfig::default().with_json(&conditional).map_err(fail)?;
        suggestions.top_k.get_or_insert(DEFAULT_TOP_K);
        let direct = GenerationConfig::default().with_json(&direct).map_err(fail)?;
        direct.check_values().map_err(fail)?;
        Ok(GenerationConfig { suggestions: Some(Arc::new(suggestions)), ..direct })
    }

    /// The error as it is to be told if it is about a value of this file: [`Error::Config`] with the file and the key,
    /// unless the value contradicts one of the parameters that the user has `given`; then both are named.
    #[must_use]
    pub fn blame(&self, error: Error, given: &[&str]) -> Error {
        let Error::Parameter { parameter, message } = error else { return error };
        let set = |name: &str| {
            let key = transformers_name(name);
            self.values.get(key).filter(|value| !is_neutral(key, value) && !given.contains(&name))
        };
        let names = || message.split('`').skip(1).step_by(2);
        if !names().any(|name| set(name).is_some()) {
            return Error::Parameter { parameter, message };
        }
        let contradicts = names().any(|name| given.contains(&name));
        let mut told = String::new();
        for (i, part) in message.split('`').enumerate() {
            match set(part).filter(|_| i % 2 == 1) {
                _ if i % 2 == 0 => told.push_str(part),
                Some(value) if contradicts => {
                    let key = transformers_name(part);
                    told.push_str(&format!("{key} ({} in {})", json::shown(value), self.origin));
                }
                None if contradicts => told.push_str(&format!("`{part}`")),
                _ => told.push_str(transformers_name(part)),
            }
        }
        if contradicts { Error::Parameter { parameter, message: told } } else { Error::config(&self.origin, &told) }
    }

    fn effective(&self) -> impl Iterator<Item = (&str, &Value, Meaning)> {
        self.values.iter().filter_map(|(key, value)| {
            let meaning = parameter_meaning(key).filter(|_| !is_neutral(key, value))?;
            if matches!(meaning, Meaning::EndOfText) {
                return None;
            }
            // Parameters that transformers does not have mean nothing to it.
            Some((key.as_str(), value, meaning)).filter(|_| !is_only_ours(meaning, key))
        })
    }
}

/// Whether a parameter of this name exists here and not in transformers.
fn is_only_ours(meaning: Meaning, key: &str) -> bool {
    const OURS: [&str; 14] = [
        "bad_words",
        "frequency_penalty",
        "ignore_eos",
        "logit_bias",
        "logprobs",
        "negative_prompt",
        "negative_prompt_ids",
        "on_context_limit",
        "presence_penalty",
        "prompt_lookup",
        "raw_logprobs",
        "sample",
        "seed",
        "stop",
    ];
    matches!(meaning, Meaning::Parameter(Parameter { name, .. }) if *name == key && OURS.contains(name))
}

/// Whether the value changes nothing.
fn is_neutral(key: &str, value: &Value) -> bool {
    /// Those of which transformers ignores a negative one.
    const COUNTS: [&str; 4] = ["min_length", "min_new_tokens", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size"];
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
        value if COUNTS.contains(&key) => value.as_i64().is_some_and(|n| n <= 0),
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
            config.top_h = config.top_h.or(suggested.top_h);
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
        if config.prompt_lookup.is_some() {
            config.max_matching_ngram_size = config.max_matching_ngram_size.or(suggested.max_matching_ngram_size);
        }
        if config.assistant {
            config.num_assistant_tokens = config.num_assistant_tokens.or(suggested.num_assistant_tokens);
            let suggested = suggested.assistant_confidence_threshold;
            config.assistant_confidence_threshold = config.assistant_confidence_threshold.or(suggested);
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
            "bad_words_ids": null, "suppress_tokens": [], "min_length": -1, "encoder_no_repeat_ngram_size": -3}"#;
        assert_eq!(file(published).set(), [""; 0]);
        let tuned = file(
            r#"{"do_sample": true, "top_p": 0.9, "stop": 1, "presence_penalty": 1, "guidance_scale": 1.5,
            "num_assistant_tokens": 20, "force_words_ids": [[1]], "max_length": 20}"#,
        );
        assert_eq!(tuned.set(), ["do_sample", "top_p", "guidance_scale", "force_words_ids", "max_length"]);
        assert_eq!(tuned.missing(), ["force_words_ids"]);
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
            (
                r#"{"repetition_penalty": 0}"#,
                "generation_config.json: repetition_penalty takes a number above 0 (1 is off), not 0",
            ),
        ] {
            let error = file(json).config().unwrap_err().to_string();
            assert!(error.starts_with(words), "{error}");
        }
        for (json, words) in [
            ("[]", "f: not an object with parameters of generation"),
            ("", "f: not JSON: it is empty"),
            (r#"{"eos_token_id": "x"}"#, "f: eos_token_id is \"x\", neither a token id nor a list of them"),
        ] {
            assert_eq!(GenerationFile::parse(json.as_bytes(), "f").unwrap_err().to_string(), words);
        }
    }

    /// transformers takes the file's word, and a negative id is that of no token.
    #[test]
    fn nothing_ends_a_text_unless_the_file_says_so() {
        for json in ["{}", r#"{"eos_token_id": null}"#, r#"{"eos_token_id": -1}"#, r#"{"eos_token_id": []}"#] {
            assert_eq!(file(json).eos_token_id(), [0; 0], "{json}");
        }
        for json in [r#"{"eos_token_id": [-7, 3, 4, -1]}"#, r#"{"eos_token_id": [3.0, 4], "temperature": NaN}"#] {
            assert_eq!(file(json).eos_token_id(), [3, 4], "{json}");
        }
    }

    #[test]
    fn an_error_names_the_file_if_the_value_is_from_there() {
        let file = file(r#"{"num_return_sequences": 4, "stop_strings": "x", "num_beams": 1}"#);
        let several = |given: &[&str]| {
            let error = Error::parameter("num_return_sequences", "above 1 needs `sample` or `num_beams`");
            file.blame(error, given).to_string()
        };
        let name = "generation_config.json";
        assert_eq!(several(&[]), format!("{name}: num_return_sequences above 1 needs do_sample or num_beams"));
        let both = format!("num_return_sequences (4 in {name}) above 1 needs `sample` or `num_beams`");
        assert_eq!(several(&["num_beams"]), both);
        let own = "`num_return_sequences` above 1 needs `sample` or `num_beams`";
        assert_eq!(several(&["num_return_sequences"]), own);
        let error = file.blame(Error::parameter("stop", "needs a tokenizer"), &["seed"]);
        assert_eq!((error.to_string(), error.is_usage()), (format!("{name}: stop_strings needs a tokenizer"), false));
        let other = file.blame(Error::parameter("top_k", "is 0"), &[]);
        assert_eq!((other.to_string(), other.is_usage()), ("`top_k` is 0".to_owned(), true));
    }
}
