//! The exponential length penalty: where it begins, and how fast it grows.

use serde_json::Value;

use super::field::{Fault, Scalar, whole};
use crate::json;

/// `exponential_decay_length_penalty`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decay {
    /// How many tokens are generated before it begins.
    pub start: i64,
    /// What the penalty is multiplied by with each token.
    pub factor: f64,
}

impl Decay {
    fn new(start: i64, factor: f64) -> Result<Self, Fault> {
        if (factor as f32).is_finite() { Ok(Self { start, factor }) } else { Err("a factor that is too large".into()) }
    }
}

impl Scalar for Decay {
    fn parse(text: &str) -> Result<Self, Fault> {
        let fault = || format!("takes START,FACTOR, such as 20,1.05, not `{}`", text.escape_debug());
        let list = text.trim().trim_start_matches(['[', '(']).trim_end_matches([']', ')']);
        let (start, factor) = list.split_once(',').ok_or_else(fault)?;
        let start = start.trim().parse().map_err(|_| fault())?;
        let factor = factor.trim().parse().map_err(|_| fault())?;
        Self::new(start, factor).map_err(|_| fault())
    }

    /// `[START, FACTOR]`, as transformers has it.
    fn from_json(value: &Value) -> Result<Self, Fault> {
        let start = |value: &Value| value.as_i64().or_else(|| whole(value).and_then(|start| start.try_into().ok()));
        match value.as_array().map(Vec::as_slice) {
            Some([first, factor]) => {
                let start = start(first).ok_or_else(|| match first.as_f64() {
                    Some(x) if x.fract() == 0.0 => format!("the start has to be from {} to {}", i64::MIN, i64::MAX),
                    _ => format!("the start {} is not a whole number", json::shown(first)),
                })?;
                let factor =
                    factor.as_f64().ok_or_else(|| format!("the factor {} is not a number", json::shown(factor)))?;
                Self::new(start, factor)
            }
            _ => Err("not a list of a start and a factor, such as [20, 1.05]".into()),
        }
    }

    fn shown(self) -> Option<String> {
        Some(format!("{},{}", self.start, self.factor))
    }

    fn json(self) -> Value {
        serde_json::json!([self.start, self.factor])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_start_and_a_factor() {
        let decay = |start, factor| Ok(Decay { start, factor });
        for text in ["3,1.5", " 3 , 1.5", "[3, 1.5]", "(3, 1.5)"] {
            assert_eq!(Decay::parse(text), decay(3, 1.5), "{text}");
        }
        assert_eq!(Decay::parse("-2,-0.5"), decay(-2, -0.5));
        assert_eq!(Decay::from_json(&json!([3, 2])), decay(3, 2.0));
        assert_eq!(Decay::from_json(&json!([3.0, 1.5])), decay(3, 1.5));
        assert_eq!(Decay::from_json(&Decay { start: -1, factor: 1.5 }.json()), decay(-1, 1.5));
        for text in ["", "3", "3,", ",2", "1.5,2", "3,x", "3,nan", "3,inf", "3,1e300", "3,1,2"] {
            let fault = format!("takes START,FACTOR, such as 20,1.05, not `{text}`");
            assert_eq!(Decay::parse(text), Err(fault), "{text}");
        }
        for value in [json!(3), json!([3]), json!([1, 2, 3]), json!({"start": 3}), json!("3,2")] {
            let fault = Decay::from_json(&value).unwrap_err();
            assert_eq!(fault, "not a list of a start and a factor, such as [20, 1.05]");
        }
        assert_eq!(Decay::from_json(&json!([1.5, 2])).unwrap_err(), "the start 1.5 is not a whole number");
        assert_eq!(Decay::from_json(&json!([1, "2"])).unwrap_err(), "the factor \"2\" is not a number");
        assert_eq!(Decay::from_json(&json!([1, 1e300])).unwrap_err(), "a factor that is too large");
    }
}
