//! The biases of single tokens.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value};

use super::Range;
use super::field::{Fault, Field, Takes};
use super::range::{Kind, number};
use crate::error::Result;
use crate::json;

/// A token, named by its id or, until [`GenerationConfig::encode_texts`](super::GenerationConfig::encode_texts) finds that,
/// by its text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BiasedToken {
    /// By id.
    Id(u32),
    /// By text.
    Text(String),
}

/// Biases of tokens, in the order given: the last one of a token counts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LogitBias(pub Vec<(BiasedToken, f64)>);

impl<const N: usize> From<[(u32, f64); N]> for LogitBias {
    fn from(ids: [(u32, f64); N]) -> Self {
        Self(ids.map(|(id, bias)| (BiasedToken::Id(id), bias)).into())
    }
}

impl LogitBias {
    /// Adds the bias of a token. What is a number is an id, but a text may begin with white space.
    fn insert(&mut self, token: &str, bias: f64) -> Result<(), Fault> {
        let number = token.trim_end();
        let named = if let Ok(id) = number.parse() {
            BiasedToken::Id(id)
        } else if token.is_empty() || number.parse::<f64>().is_ok() {
            return Err(format!("`{}` is not a token id", token.escape_debug()));
        } else {
            BiasedToken::Text(token.to_owned())
        };
        self.0.push((named, bias));
        Ok(())
    }

    /// The biases by id.
    pub(in crate::decode) fn ids(&self) -> BTreeMap<u32, f64> {
        let id = |(token, bias): &(BiasedToken, f64)| match token {
            BiasedToken::Id(id) => Some((*id, *bias)),
            BiasedToken::Text(_) => None,
        };
        self.0.iter().filter_map(id).collect()
    }

    /// Whether a token is named by its text.
    pub(in crate::decode) fn has_texts(&self) -> bool {
        self.0.iter().any(|(token, _)| matches!(token, BiasedToken::Text(_)))
    }

    /// Names each token by its id, which `encode` finds.
    pub(super) fn encode(&mut self, encode: impl Fn(&str) -> Result<u32>) -> Result<()> {
        for (token, _) in &mut self.0 {
            if let BiasedToken::Text(text) = token {
                *token = BiasedToken::Id(encode(text)?);
            }
        }
        Ok(())
    }
}

impl Field for LogitBias {
    fn takes(&self) -> Takes {
        Takes::Many
    }

    /// One bias, `ID=B` or `TEXT=B`. The last one of a token counts.
    fn read(&mut self, text: &str) -> Result<(), Fault> {
        let (token, bias) = text
            .rsplit_once('=')
            .ok_or_else(|| format!("`{}` is not a token and its bias, such as 50256=-100", text.escape_debug()))?;
        let bias = bias.trim().parse().map_err(|_| format!("the bias `{}` is not a number", bias.escape_debug()))?;
        self.insert(token, bias)
    }

    /// An object of biases by token id, as OpenAI has it, or by text.
    fn read_json(&mut self, value: &Value) -> Result<(), Fault> {
        let biases = value.as_object().ok_or("not an object of biases by token id, such as {\"50256\": -100}")?;
        let mut read = Self::default();
        for (token, bias) in biases {
            let number = bias.as_f64().ok_or_else(|| format!("the bias {} is not a number", json::shown(bias)))?;
            read.insert(token, number)?;
        }
        *self = read;
        Ok(())
    }

    fn check(&self, range: &Range) -> Result<(), Fault> {
        let Some((token, bias)) = self.0.iter().find(|(_, bias)| !range.contains(*bias)) else { return Ok(()) };
        let token = match token {
            BiasedToken::Id(id) => id.to_string(),
            BiasedToken::Text(text) => format!("{text:?}"),
        };
        Err(format!("{} (token {token})", range.refusal(Kind::Real, &number(*bias))))
    }

    fn shown(&self) -> Option<String> {
        None
    }

    fn json(&self) -> Value {
        let mut seen = HashSet::new();
        let mut last: Vec<_> = self.0.iter().rev().filter(|entry| seen.insert(&entry.0)).collect();
        last.reverse();
        let entry = |(token, bias): &(BiasedToken, f64)| match token {
            BiasedToken::Id(id) => (id.to_string(), Value::from(*bias)),
            BiasedToken::Text(text) => (text.clone(), Value::from(*bias)),
        };
        last.into_iter().map(entry).collect::<Map<_, _>>().into()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn flags_and_json_give_the_same_biases() {
        let mut flags = LogitBias::default();
        for text in ["5=-100", "7 = 2.5", "5=1e1", " time=3", "a=b=-1"] {
            flags.read(text).unwrap();
        }
        assert_eq!(flags.ids(), BTreeMap::from([(5, 10.0), (7, 2.5)]), "the last one counts");
        let mut keys = LogitBias::from([(1, 1.0)]);
        keys.read_json(&json!({"7": 2.5, "5": 10, " time": 3, "a=b": -1})).unwrap();
        assert_eq!(keys.0, flags.0[1..]);
        assert_eq!(keys.json().to_string(), flags.json().to_string(), "in the same order");
    }

    /// A token may be named by its id and by its text.
    #[test]
    fn the_last_name_of_a_token_counts() {
        for (texts, bias) in [([" king=5", "5=1"], 1.0), (["5=1", " king=5"], 5.0)] {
            let mut biases = LogitBias::default();
            texts.iter().for_each(|text| biases.read(text).unwrap());
            let mut again = LogitBias::default();
            again.read_json(&biases.json()).unwrap();
            for mut biases in [biases, again] {
                biases.encode(|_| Ok(5)).unwrap();
                assert_eq!(biases.ids(), BTreeMap::from([(5, bias)]));
            }
        }
    }

    #[test]
    fn white_space_begins_a_text() {
        let mut biases = LogitBias::default();
        biases.read(" 5=1").unwrap();
        biases.read_json(&json!({" 5": 1})).unwrap();
        assert_eq!(biases.0, [(BiasedToken::Text(" 5".into()), 1.0)]);
    }

    #[test]
    fn what_is_no_bias_of_a_token_is_refused() {
        for (text, fault) in [
            ("5", "`5` is not a token and its bias, such as 50256=-100"),
            ("-1=5", "`-1` is not a token id"),
            ("1.5=5", "`1.5` is not a token id"),
            ("4294967296=5", "`4294967296` is not a token id"),
            ("=5", "`` is not a token id"),
            ("5=", "the bias `` is not a number"),
            ("5=\u{1b}", "the bias `\\u{1b}` is not a number"),
        ] {
            assert_eq!(LogitBias::default().read(text).unwrap_err(), fault, "{text:?}");
        }
        for (value, fault) in [
            (json!([[5, 1]]), "not an object of biases by token id, such as {\"50256\": -100}"),
            (json!({"-1": 1}), "`-1` is not a token id"),
            (json!({"5": "1"}), "the bias \"1\" is not a number"),
            (json!({"5": null}), "the bias null is not a number"),
        ] {
            assert_eq!(LogitBias::default().read_json(&value).unwrap_err(), fault);
        }
        let range = Range::from(-100.0).to(100.0);
        assert!(LogitBias::from([(1, -100.0), (2, 100.0)]).check(&range).is_ok());
        for (bias, shown) in [(100.5, "100.5"), (-101.0, "-101"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
            let fault = LogitBias::from([(3, bias)]).check(&range).unwrap_err();
            assert_eq!(fault, format!("takes a number from -100 to 100, not {shown} (token 3)"));
        }
        let mut text = LogitBias::default();
        text.read("\u{1b}x=101").unwrap();
        let fault = text.check(&range).unwrap_err();
        assert_eq!(fault, "takes a number from -100 to 100, not 101 (token \"\\u{1b}x\")");
    }
}
