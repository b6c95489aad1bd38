//! The biases of single tokens.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Range;
use super::field::{Fault, Field, Takes};
use super::range::{Kind, number};
use crate::json;

/// Biases of tokens, named by their ids or, until [`GenerationConfig::encode_texts`](super::GenerationConfig::encode_texts)
/// finds their ids, by their texts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LogitBias {
    /// By id.
    pub ids: BTreeMap<u32, f64>,
    /// By text.
    pub texts: BTreeMap<String, f64>,
}

impl<const N: usize> From<[(u32, f64); N]> for LogitBias {
    fn from(ids: [(u32, f64); N]) -> Self {
        Self { ids: ids.into(), texts: BTreeMap::new() }
    }
}

impl LogitBias {
    /// Adds the bias of a token, in place of an earlier one. What is a number is an id.
    fn insert(&mut self, token: &str, bias: f64) -> Result<(), Fault> {
        let number = token.trim();
        if let Ok(id) = number.parse() {
            self.ids.insert(id, bias);
        } else if token.is_empty() || number.parse::<f64>().is_ok() {
            return Err(format!("`{}` is not a token id", token.escape_debug()));
        } else {
            self.texts.insert(token.to_owned(), bias);
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
        let ids = self.ids.iter().map(|(id, bias)| (id.to_string(), bias));
        let texts = self.texts.iter().map(|(text, bias)| (format!("{text:?}"), bias));
        match ids.chain(texts).find(|(_, bias)| !range.contains(**bias)) {
            Some((token, bias)) => Err(format!("{} (token {token})", range.refusal(Kind::Real, &number(*bias)))),
            None => Ok(()),
        }
    }

    fn shown(&self) -> Option<String> {
        None
    }

    fn json(&self) -> Value {
        let ids = self.ids.iter().map(|(id, bias)| (id.to_string(), Value::from(*bias)));
        let texts = self.texts.iter().map(|(text, bias)| (text.clone(), Value::from(*bias)));
        ids.chain(texts).collect::<Map<_, _>>().into()
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
        assert_eq!(flags.ids, BTreeMap::from([(5, 10.0), (7, 2.5)]), "the last one counts");
        assert_eq!(flags.texts, BTreeMap::from([(" time".to_owned(), 3.0), ("a=b".to_owned(), -1.0)]));
        let mut keys = LogitBias::from([(1, 1.0)]);
        keys.read_json(&json!({"7": 2.5, "5": 10, "a=b": -1, " time": 3})).unwrap();
        assert_eq!(keys, flags);
        assert_eq!(keys.json(), json!({"5": 10.0, "7": 2.5, " time": 3.0, "a=b": -1.0}));
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
