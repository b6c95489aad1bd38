//! Reading the values of parameters, whatever their type, from the text of a flag and from JSON.

use serde_json::Value;

use super::ids::{ids_of_json, nested, parse_ids};
use super::range::Kind;
use super::{EarlyStopping, OnContextLimit, Range};

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Takes {
    /// `true` or `false`, or nothing for `true`.
    Switch,
    /// One value.
    One,
    /// One of these words.
    OneOf(&'static [Word]),
    /// A value each time the flag is given.
    Many,
}

/// A word that a parameter accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    /// The word.
    pub name: &'static str,
    /// What it stands for.
    pub doc: &'static str,
}

/// Why a value was refused, such as `not a whole number`.
pub(super) type Fault = String;

/// A field of [`GenerationConfig`](super::GenerationConfig) that is a parameter.
pub(super) trait Field {
    /// What its flag takes.
    fn takes(&self) -> Takes;

    /// Sets the field to a flag's value; a repeatable parameter gets one value more.
    fn read(&mut self, text: &str) -> Result<(), Fault>;

    /// Replaces the value with one from JSON.
    fn read_json(&mut self, value: &Value) -> Result<(), Fault>;

    /// The numbers that it takes, if it takes any.
    fn kind(&self) -> Option<Kind> {
        None
    }

    /// Checks the value. An error is the text to follow the parameter's name: `takes a number from 1, not 0`.
    fn check(&self, range: &Range) -> Result<(), Fault>;

    /// The value as text; none if it is not set.
    fn shown(&self) -> Option<String>;

    /// The value as JSON; null if it is not set.
    fn json(&self) -> Value;
}

/// A single value.
pub(super) trait Scalar: Copy {
    const TAKES: Takes = Takes::One;
    /// The numbers that it is one of; none if it is not a number.
    const KIND: Option<Kind> = None;

    fn parse(text: &str) -> Result<Self, Fault>;

    fn from_json(value: &Value) -> Result<Self, Fault>;

    /// The number to check against the range; none if the value is not a number.
    fn number(self) -> Option<f64> {
        None
    }

    fn shown(self) -> Option<String>;

    fn json(self) -> Value;
}

impl<T: Scalar> Field for Option<T> {
    fn takes(&self) -> Takes {
        T::TAKES
    }

    fn read(&mut self, text: &str) -> Result<(), Fault> {
        *self = Some(T::parse(text)?);
        Ok(())
    }

    fn read_json(&mut self, value: &Value) -> Result<(), Fault> {
        *self = Some(T::from_json(value)?);
        Ok(())
    }

    fn kind(&self) -> Option<Kind> {
        T::KIND
    }

    fn check(&self, range: &Range) -> Result<(), Fault> {
        match (self.and_then(T::number).filter(|x| !range.contains(*x)), T::KIND) {
            (Some(x), Some(kind)) => Err(range.fault(kind, x)),
            _ => Ok(()),
        }
    }

    fn shown(&self) -> Option<String> {
        self.and_then(T::shown)
    }

    fn json(&self) -> Value {
        self.map_or(Value::Null, T::json)
    }
}

/// Parameters that always have a value.
macro_rules! always {
    ($($type:ty),+) => {$(
        impl Field for $type {
            fn takes(&self) -> Takes {
                <$type as Scalar>::TAKES
            }

            fn read(&mut self, text: &str) -> Result<(), Fault> {
                *self = Scalar::parse(text)?;
                Ok(())
            }

            fn read_json(&mut self, value: &Value) -> Result<(), Fault> {
                *self = Scalar::from_json(value)?;
                Ok(())
            }

            fn kind(&self) -> Option<Kind> {
                <$type as Scalar>::KIND
            }

            fn check(&self, range: &Range) -> Result<(), Fault> {
                Some(*self).check(range)
            }

            fn shown(&self) -> Option<String> {
                Scalar::shown(*self)
            }

            fn json(&self) -> Value {
                Scalar::json(*self)
            }
        }
    )+};
}

always!(bool, f64, usize, OnContextLimit);

impl Scalar for f64 {
    const KIND: Option<Kind> = Some(Kind::Real);

    fn parse(text: &str) -> Result<Self, Fault> {
        text.parse().map_err(|_| "not a number".into())
    }

    fn from_json(value: &Value) -> Result<Self, Fault> {
        value.as_f64().ok_or_else(|| "not a number".into())
    }

    fn number(self) -> Option<f64> {
        Some(self)
    }

    fn shown(self) -> Option<String> {
        Some(self.to_string())
    }

    fn json(self) -> Value {
        self.into()
    }
}

macro_rules! counts {
    ($($type:ident),+) => {$(
        impl Scalar for $type {
            const KIND: Option<Kind> = Some(Kind::Whole);

            fn parse(text: &str) -> Result<Self, Fault> {
                let digits = text.strip_prefix('+').unwrap_or(text);
                let is_whole = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
                text.parse().map_err(|_| if is_whole { too_large($type::MAX) } else { NOT_WHOLE.into() })
            }

            fn from_json(value: &Value) -> Result<Self, Fault> {
                let count = whole(value).and_then(|n| n.try_into().ok());
                let is_whole = value.as_f64().is_some_and(|x| x >= 0.0 && x.fract() == 0.0);
                count.ok_or_else(|| if is_whole { too_large($type::MAX) } else { NOT_WHOLE.into() })
            }

            fn number(self) -> Option<f64> {
                Some(self as f64)
            }

            fn shown(self) -> Option<String> {
                Some(self.to_string())
            }

            fn json(self) -> Value {
                self.into()
            }
        }
    )+};
}

counts!(u32, u64, usize);

const NOT_WHOLE: &str = "not a whole number of 0 or more";

fn too_large(most: impl std::fmt::Display) -> Fault {
    format!("too large: the most is {most}")
}

/// A whole number of 0 or more. It may be written as `4.0`, as pandas does for a column with gaps.
pub(super) fn whole(value: &Value) -> Option<u64> {
    /// Above it, neighbours of a whole number are the same `f64`.
    const EXACT: f64 = (1_u64 << f64::MANTISSA_DIGITS) as f64;
    value.as_u64().or_else(|| {
        let number = value.as_f64().filter(|x| (0.0..EXACT).contains(x) && x.fract() == 0.0)?;
        Some(number as u64)
    })
}

impl Scalar for bool {
    const TAKES: Takes = Takes::Switch;

    fn parse(text: &str) -> Result<Self, Fault> {
        text.parse().map_err(|_| "neither true nor false".into())
    }

    fn from_json(value: &Value) -> Result<Self, Fault> {
        value.as_bool().ok_or_else(|| "neither true nor false".into())
    }

    fn shown(self) -> Option<String> {
        self.then(|| "true".into())
    }

    fn json(self) -> Value {
        self.into()
    }
}

/// An enumeration: its words, in the order of its variants.
trait Words: Copy + PartialEq + 'static {
    const WORDS: &'static [Word];
    const VARIANTS: &'static [Self];

    fn named(text: &str) -> Result<Self, Fault> {
        let named = Self::WORDS.iter().zip(Self::VARIANTS).find(|(word, _)| word.name == text);
        named.map(|(_, variant)| *variant).ok_or_else(|| {
            let words: Vec<&str> = Self::WORDS.iter().map(|word| word.name).collect();
            format!("not one of {}", words.join(", "))
        })
    }

    fn word(self) -> Option<String> {
        let named = Self::WORDS.iter().zip(Self::VARIANTS).find(|(_, variant)| **variant == self);
        named.map(|(word, _)| word.name.to_owned())
    }
}

impl Words for EarlyStopping {
    const WORDS: &'static [Word] = &[
        Word { name: "true", doc: "Once as many sequences have finished as there are beams" },
        Word { name: "false", doc: "When better ones are unlikely" },
        Word { name: "never", doc: "When better ones are impossible" },
    ];
    const VARIANTS: &'static [Self] = &[Self::True, Self::False, Self::Never];
}

impl Words for OnContextLimit {
    const WORDS: &'static [Word] = &[
        Word { name: "stop", doc: "End there" },
        Word { name: "crop", doc: "Continue from the last n_positions tokens" },
    ];
    const VARIANTS: &'static [Self] = &[Self::Stop, Self::Crop];
}

impl<T: Words> Scalar for T {
    const TAKES: Takes = Takes::OneOf(Self::WORDS);

    fn parse(text: &str) -> Result<Self, Fault> {
        Self::named(text)
    }

    /// A string, or a boolean if `true` and `false` are among the words.
    fn from_json(value: &Value) -> Result<Self, Fault> {
        Self::named(match value {
            Value::Bool(true) => "true",
            Value::Bool(false) => "false",
            value => value.as_str().unwrap_or_default(),
        })
    }

    fn shown(self) -> Option<String> {
        self.word()
    }

    fn json(self) -> Value {
        self.word().into()
    }
}

/// Texts.
impl Field for Vec<String> {
    fn takes(&self) -> Takes {
        Takes::Many
    }

    fn read(&mut self, text: &str) -> Result<(), Fault> {
        self.push(text.to_owned());
        Ok(())
    }

    /// A list of texts, or a single text.
    fn read_json(&mut self, value: &Value) -> Result<(), Fault> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let texts = match value {
            Value::Array(values) => values.iter().map(text).collect(),
            value => text(value).map(|text| vec![text]),
        };
        *self = texts.ok_or("not a text or a list of texts")?;
        Ok(())
    }

    fn check(&self, _: &Range) -> Result<(), Fault> {
        if self.iter().any(String::is_empty) { Err("is an empty text".into()) } else { Ok(()) }
    }

    fn shown(&self) -> Option<String> {
        None
    }

    fn json(&self) -> Value {
        self.clone().into()
    }
}

/// Sequences of token ids.
impl Field for Vec<Vec<u32>> {
    fn takes(&self) -> Takes {
        Takes::Many
    }

    fn read(&mut self, text: &str) -> Result<(), Fault> {
        match nested(text) {
            Some(sequences) => {
                for ids in sequences {
                    self.push(parse_ids(ids).map_err(|e| e.to_string())?);
                }
            }
            None => self.push(parse_ids(text).map_err(|e| e.to_string())?),
        }
        Ok(())
    }

    /// A list of sequences, each a list of ids or a text as a flag takes it.
    fn read_json(&mut self, value: &Value) -> Result<(), Fault> {
        let sequences = value.as_array().and_then(|sequences| sequences.iter().map(ids_of_json).collect());
        *self = sequences.ok_or("not a list of sequences of token ids")?;
        Ok(())
    }

    fn check(&self, _: &Range) -> Result<(), Fault> {
        let empty = self.iter().any(Vec::is_empty);
        if empty { Err("has an empty sequence; give at least one id".into()) } else { Ok(()) }
    }

    fn shown(&self) -> Option<String> {
        None
    }

    fn json(&self) -> Value {
        self.clone().into()
    }
}
