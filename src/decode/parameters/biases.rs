//! The biases of single tokens, by id.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Range;
use super::field::{Fault, Field, Takes};
use super::range::{Kind, number};
use crate::json;

impl Field for BTreeMap<u32, f64> {
    fn takes(&self) -> Takes {
        Takes::Many
    }

    /// One bias, `ID=B`. The last one of a token counts.
    fn read(&mut self, text: &str) -> Result<(), Fault> {
        let entry = text
            .split_once('=')
            .ok_or_else(|| format!("`{}` is not a token id and its bias, such as 50256=-100", text.escape_debug()))?;
        let id = token_id(entry.0)?;
        let bias = entry.1.trim().parse();
        self.insert(id, bias.map_err(|_| format!("the bias `{}` is not a number", entry.1.escape_debug()))?);
        Ok(())
    }

    /// An object of biases by token id, as OpenAI has it.
    fn read_json(&mut self, value: &Value) -> Result<(), Fault> {
        let biases = value.as_object().ok_or("not an object of biases by token id, such as {\"50256\": -100}")?;
        let bias = |(id, bias): (&String, &Value)| {
            let number = bias.as_f64().ok_or_else(|| format!("the bias {} is not a number", json::shown(bias)))?;
            Ok((token_id(id)?, number))
        };
        *self = biases.iter().map(bias).collect::<Result<_, Fault>>()?;
        Ok(())
    }

    fn check(&self, range: &Range) -> Result<(), Fault> {
        match self.iter().find(|(_, bias)| !range.contains(**bias)) {
            Some((id, bias)) => Err(format!("{} (token {id})", range.refusal(Kind::Real, &number(*bias)))),
            None => Ok(()),
        }
    }

    fn shown(&self) -> Option<String> {
        None
    }

    fn json(&self) -> Value {
        self.iter().map(|(id, bias)| (id.to_string(), Value::from(*bias))).collect::<Map<_, _>>().into()
    }
}

fn token_id(text: &str) -> Result<u32, Fault> {
    text.trim().parse().map_err(|_| format!("`{}` is not a token id", text.escape_debug()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn flags_and_json_give_the_same_biases() {
        let mut flags = BTreeMap::new();
        for text in ["5=-100", "7 = 2.5", "5=1e1"] {
            flags.read(text).unwrap();
        }
        assert_eq!(flags, BTreeMap::from([(5, 10.0), (7, 2.5)]), "the last one counts");
        let mut keys = BTreeMap::from([(1, 1.0)]);
        keys.read_json(&json!({"7": 2.5, "5": 10})).unwrap();
        assert_eq!(keys, flags);
        assert_eq!(keys.json(), json!({"5": 10.0, "7": 2.5}));
    }

    #[test]
    fn what_is_no_bias_of_a_token_is_refused() {
        for (text, fault) in [
            ("5", "`5` is not a token id and its bias, such as 50256=-100"),
            ("-1=5", "`-1` is not a token id"),
            ("1.5=5", "`1.5` is not a token id"),
            ("4294967296=5", "`4294967296` is not a token id"),
            ("=5", "`` is not a token id"),
            ("5=", "the bias `` is not a number"),
            ("5=\u{1b}", "the bias `\\u{1b}` is not a number"),
        ] {
            assert_eq!(BTreeMap::new().read(text).unwrap_err(), fault, "{text:?}");
        }
        for (value, fault) in [
            (json!([[5, 1]]), "not an object of biases by token id, such as {\"50256\": -100}"),
            (json!({"x": 1}), "`x` is not a token id"),
            (json!({"5": "1"}), "the bias \"1\" is not a number"),
            (json!({"5": null}), "the bias null is not a number"),
        ] {
            assert_eq!(BTreeMap::new().read_json(&value).unwrap_err(), fault);
        }
        let range = Range::from(-100.0).to(100.0);
        assert!(BTreeMap::from([(1, -100.0), (2, 100.0)]).check(&range).is_ok());
        for (bias, shown) in [(100.5, "100.5"), (-101.0, "-101"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
            let fault = BTreeMap::from([(3, bias)]).check(&range).unwrap_err();
            assert_eq!(fault, format!("takes a number from -100 to 100, not {shown} (token 3)"));
        }
    }
}
