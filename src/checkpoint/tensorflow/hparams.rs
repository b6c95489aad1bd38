//! `hparams.json`, OpenAI's configuration of a GPT-2.
//!
//! Reference: <https://github.com/openai/gpt-2>, `src/model.py` (`default_hparams`).

use serde_json::{Map, Value};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::json::{self, shown};

/// OpenAI's keys and Hugging Face's.
const KEYS: [(&str, &str); 5] = [
    ("n_vocab", "vocab_size"),
    ("n_ctx", "n_positions"),
    ("n_embd", "n_embd"),
    ("n_head", "n_head"),
    ("n_layer", "n_layer"),
];

impl Config {
    /// Parses and checks the bytes of an `hparams.json`; `origin` names them in errors. Missing keys are those of the
    /// smallest GPT-2, except that `rows`, the rows of the token embedding, stand in for an `n_vocab` that is missing or
    /// 0. Activation, epsilon and tied head are those of OpenAI's code.
    ///
    /// # Errors
    /// [`Error::Config`], naming the key and what is allowed.
    pub fn from_hparams(text: &[u8], origin: &str, rows: Option<usize>) -> Result<Self> {
        let hparams = match json::parse(text) {
            Ok(Value::Object(hparams)) => hparams,
            Ok(_) => return Err(Error::config(origin, "not OpenAI's hparams.json: no JSON object")),
            Err(fault) => return Err(Error::config(origin, &format!("not OpenAI's hparams.json: {fault}"))),
        };
        let mut config = Map::new();
        for (key, name) in KEYS {
            match hparams.get(key) {
                None | Some(Value::Null) => {}
                Some(value) if value.is_i64() => drop(config.insert(name.into(), value.clone())),
                Some(value) => {
                    return Err(Error::config(origin, &format!("{key} is {}; it must be a number", shown(value))));
                }
            }
        }
        if let Some(rows) = rows
            && config.get("vocab_size").is_none_or(|size| *size == 0)
        {
            config.insert("vocab_size".into(), rows.into());
        }
        Ok(Self::from_json(Value::from(config).to_string().as_bytes(), origin)?.with_gpt2s_end_of_text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str, rows: Option<usize>) -> Result<Config> {
        Config::from_hparams(json.as_bytes(), "hparams.json", rows)
    }

    #[test]
    fn the_published_hparams_are_the_published_sizes() {
        let medium = r#"{"n_vocab": 50257, "n_ctx": 1024, "n_embd": 1024, "n_head": 16, "n_layer": 24}"#;
        assert_eq!(Some(read(medium, None).unwrap()), Config::named("gpt2-medium"));
        // What OpenAI's code takes for missing keys.
        assert_eq!(Some(read("{}", None).unwrap()), Config::named("gpt2"));
    }

    #[test]
    fn the_embedding_tells_the_vocabulary_if_the_file_does_not() {
        for json in [r#"{"n_vocab": 0}"#, r#"{"n_vocab": null}"#, "{}"] {
            let config = read(json, Some(300)).unwrap();
            assert_eq!((config.vocab_size, config.bos_token_id), (300, None), "{json}");
            assert!(config.eos_token_id.is_empty(), "{json}");
        }
        assert_eq!(read(r#"{"n_vocab": 50300}"#, Some(300)).unwrap().eos_token_id, [50256]);
    }

    #[test]
    fn each_fault_is_named() {
        for (json, expected) in [
            ("[]", "hparams.json: not OpenAI's hparams.json"),
            ("{", "not OpenAI's hparams.json"),
            (r#"{"n_vocab": "many"}"#, "n_vocab is \"many\"; it must be a number"),
            (r#"{"n_embd": 1.5}"#, "n_embd is 1.5; it must be a number"),
            (r#"{"n_vocab": 0}"#, "vocab_size is 0"),
            (r#"{"n_head": 7}"#, "n_embd 768 cannot be split over n_head 7 heads"),
            (r#"{"n_layer": -1}"#, "n_layer is -1"),
        ] {
            let error = read(json, None).unwrap_err().to_string();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }
}
