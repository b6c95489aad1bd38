//! The biases of sequences of tokens.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::Range;
use super::field::{Fault, Field, Takes};
use super::ids::{ids_of_json, parse_ids};
use crate::json;

const BEYOND: &str = "takes a number from -3.4e38 to 3.4e38, or inf or -inf, as a bias";

/// Sequences of ids, none of them empty or twice, with their biases.
impl Field for Vec<(Vec<u32>, f64)> {
    fn takes(&self) -> Takes {
        Takes::Many
    }

    /// One bias, `IDS=B`. The last one of a sequence counts.
    fn read(&mut self, text: &str) -> Result<(), Fault> {
        let (ids, bias) = text
            .split_once('=')
            .ok_or_else(|| format!("`{}` is not ids and their bias, such as 12 345=-2.5", text.escape_debug()))?;
        let ids = parse_ids(ids).map_err(|error| error.to_string())?;
        let written = bias.trim();
        let bias: f64 = written.parse().map_err(|_| format!("the bias `{}` is not a number", bias.escape_debug()))?;
        if bias.is_infinite() && written.contains(|c: char| c.is_ascii_digit()) {
            return Err(BEYOND.into());
        }
        match self.iter_mut().find(|(other, _)| *other == ids) {
            Some((_, other)) => *other = bias,
            None => self.push((ids, bias)),
        }
        Ok(())
    }

    /// A list of pairs `[ids, bias]`, as transformers has it.
    fn read_json(&mut self, value: &Value) -> Result<(), Fault> {
        let pairs = value.as_array().ok_or("not a list of ids with their bias, such as [[[12, 345], -2.5]]")?;
        let mut biases: Self = vec![];
        for pair in pairs {
            let fault = || {
                format!("of which {} is not a pair of ids and their bias, such as [[12, 345], -2.5]", json::shown(pair))
            };
            let [ids, bias] = pair.as_array().ok_or_else(fault)?.as_slice() else { return Err(fault()) };
            let ids = ids_of_json(ids).ok_or_else(fault)?;
            biases.push((ids, bias.as_f64().ok_or_else(fault)?));
        }
        // The last one of a sequence counts, in the place of the first.
        let mut places: HashMap<Vec<u32>, usize> = HashMap::new();
        self.clear();
        for (ids, bias) in biases {
            match places.get(&ids) {
                Some(&place) => self[place].1 = bias,
                None => {
                    places.insert(ids.clone(), self.len());
                    self.push((ids, bias));
                }
            }
        }
        Ok(())
    }

    /// Infinite biases force and ban.
    fn check(&self, _: &Range) -> Result<(), Fault> {
        if self.iter().any(|(ids, _)| ids.is_empty()) {
            return Err("has an empty sequence; give at least one id".into());
        }
        if self.iter().any(|(_, bias)| bias.is_nan() || (bias.is_finite() && (*bias as f32).is_infinite())) {
            return Err(BEYOND.into());
        }
        let infinite = |sign: f64| self.iter().filter(move |(_, bias)| *bias == sign * f64::INFINITY);
        let banned: HashSet<_> = infinite(-1.0).map(|(ids, _)| ids.last()).collect();
        match infinite(1.0).map(|(ids, _)| ids.last()).find(|id| banned.contains(id)).flatten() {
            Some(id) => Err(format!("both forces and bans token {id}, with inf and -inf")),
            None => Ok(()),
        }
    }

    fn shown(&self) -> Option<String> {
        None
    }

    /// Infinities, which JSON does not have, become the largest numbers.
    fn json(&self) -> Value {
        let pair = |(ids, bias): &(Vec<u32>, f64)| serde_json::json!([ids, bias.clamp(f64::MIN, f64::MAX)]);
        self.iter().map(pair).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    type Biases = Vec<(Vec<u32>, f64)>;

    #[test]
    fn flags_and_json_give_the_same_biases() {
        let mut flags = Biases::new();
        for text in ["5=-1", "1, 2 = 2.5", "5=1e1", "[3,4]=-inf"] {
            flags.read(text).unwrap();
        }
        assert_eq!(flags, [(vec![5], 10.0), (vec![1, 2], 2.5), (vec![3, 4], f64::NEG_INFINITY)], "the last one counts");
        let mut keys = Biases::new();
        keys.read_json(&json!([[[5], -1], [[1, 2], 2.5], [[5], 10]])).unwrap();
        assert_eq!(keys, flags[..2]);
        assert_eq!(keys.json(), json!([[[5], 10.0], [[1, 2], 2.5]]));
        assert!(flags.check(&Range::ANY).is_ok());
    }

    #[test]
    fn what_is_no_bias_of_ids_is_refused() {
        for (text, fault) in [
            ("5", "`5` is not ids and their bias, such as 12 345=-2.5"),
            ("1 x=5", "`x` is not a token id"),
            ("-1=5", "`-1` is not a token id"),
            ("5=", "the bias `` is not a number"),
            ("5=1e400", BEYOND),
            ("5=\u{1b}", "the bias `\\u{1b}` is not a number"),
        ] {
            assert_eq!(Biases::new().read(text).unwrap_err(), fault, "{text:?}");
        }
        for value in [json!({"5": 1}), json!(5), json!("5=1")] {
            let fault = Biases::new().read_json(&value).unwrap_err();
            assert_eq!(fault, "not a list of ids with their bias, such as [[[12, 345], -2.5]]");
        }
        for pair in [json!(5), json!([[5]]), json!([[5], "1"]), json!([[-5], 1]), json!([[1.5], 1]), json!([5, 1])] {
            let fault = Biases::new().read_json(&json!([pair])).unwrap_err();
            assert_eq!(
                fault,
                format!("of which {pair} is not a pair of ids and their bias, such as [[12, 345], -2.5]")
            );
        }
        for (text, fault) in [
            (&["=5"][..], "has an empty sequence; give at least one id"),
            (&["5=nan"], "takes a number from -3.4e38 to 3.4e38, or inf or -inf, as a bias"),
            (&["5=1e300"], "takes a number from -3.4e38 to 3.4e38, or inf or -inf, as a bias"),
            (&["5=inf", "1 5=-inf"], "both forces and bans token 5, with inf and -inf"),
        ] {
            let mut biases = Biases::new();
            text.iter().for_each(|text| biases.read(text).unwrap());
            assert_eq!(biases.check(&Range::ANY).unwrap_err(), fault);
        }
    }
}
