//! JSON as text with a structure: unlike a `serde_json::Value`, it can hold a key twice, `NaN`, or a number of 400 digits.

use fastrand::Rng;

use crate::random::{few, one_in, pick, text, word};

#[derive(Debug, Clone)]
pub enum Json {
    /// A scalar, or any other text, as it is written.
    Raw(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// # Panics
    /// If a seed is not JSON.
    pub fn parse(bytes: &[u8]) -> Self {
        Self::from(serde_json::from_slice::<serde_json::Value>(bytes).expect("a seed is valid JSON"))
    }

    pub fn string(text: &str) -> Self {
        Self::Raw(serde_json::Value::from(text).to_string())
    }

    /// The value of `key`, added if there is none. Replaces anything that is not an object.
    pub fn entry(&mut self, key: &str) -> &mut Self {
        if !matches!(self, Self::Object(_)) {
            *self = Self::Object(vec![]);
        }
        let Self::Object(entries) = self else { unreachable!() };
        let at = entries.iter().position(|(name, _)| name == key).unwrap_or_else(|| {
            entries.push((key.to_owned(), Self::Raw("null".into())));
            entries.len() - 1
        });
        &mut entries[at].1
    }

    pub fn write(&self) -> String {
        let list = |parts: Vec<String>| parts.join(",");
        match self {
            Self::Raw(text) => text.clone(),
            Self::Array(items) => format!("[{}]", list(items.iter().map(Self::write).collect())),
            Self::Object(entries) => {
                let entry = |(key, value): &(String, Self)| format!("{}:{}", Self::string(key).write(), value.write());
                format!("{{{}}}", list(entries.iter().map(entry).collect()))
            }
        }
    }

    /// Changes one value, key or item somewhere in it. `words` are keys and strings that mean something in this format.
    pub fn mutate(&mut self, rng: &mut Rng, words: &str) {
        // Goes down level by level: picking among all values would pick in a vocabulary nearly always.
        match self {
            Self::Array(items) if !items.is_empty() && !one_in(rng, 3) => {
                let at = rng.usize(..items.len());
                items[at].mutate(rng, words);
            }
            Self::Object(entries) if !entries.is_empty() && !one_in(rng, 3) => {
                let at = rng.usize(..entries.len());
                entries[at].1.mutate(rng, words);
            }
            _ => self.change(rng, words),
        }
    }

    fn change(&mut self, rng: &mut Rng, words: &str) {
        match self {
            Self::Array(items) if !one_in(rng, 4) => {
                let at = rng.usize(..=items.len());
                let other = rng.usize(..=items.len());
                match rng.u32(..4) {
                    0 => items.insert(at, Self::random(rng, words)),
                    1 if at < items.len() => drop(items.remove(at)),
                    2 if at < items.len() => items.insert(other, items[at].clone()),
                    3 if at.max(other) < items.len() => items.swap(at, other),
                    _ => items.truncate(at),
                }
            }
            Self::Object(entries) if !one_in(rng, 4) => {
                let at = rng.usize(..=entries.len());
                let other = rng.usize(..=entries.len());
                match rng.u32(..5) {
                    0 | 1 => entries.insert(at, (text(rng, words), Self::random(rng, words))),
                    2 if at < entries.len() => drop(entries.remove(at)),
                    3 if at < entries.len() => entries[at].0 = text(rng, words),
                    // One of the two is the same key again.
                    4 if at < entries.len() => entries.insert(other, (entries[at].0.clone(), Self::random(rng, words))),
                    _ if at.max(other) < entries.len() => {
                        let value = entries[at].1.clone();
                        entries[other].1 = value;
                    }
                    _ => {}
                }
            }
            Self::Raw(raw) if one_in(rng, 3) => match raw.parse::<i128>() {
                Ok(number) => *raw = (number + pick(rng, &[-1, 1, -number, 1 << 31, 1 << 32, 1 << 62])).to_string(),
                Err(_) => *raw = format!("[{raw}]"),
            },
            _ => *self = Self::random(rng, words),
        }
    }

    /// A value of any type.
    pub fn random(rng: &mut Rng, words: &str) -> Self {
        const RAW: &str = r#"null true false 0 1 2 -1 3.0 0.5 1e30 1e999 -0.0 5e-324 NaN -Infinity 2147483648 9007199254740993
            18446744073709551615 18446744073709551616 12345678901234567890123 "" "\ud800" "\u0000" "\u001b[2J" [] {}"#;
        match rng.u32(..40) {
            0 => {
                let depth = pick(rng, &[100, 127, 128, 10_000, 200_000]);
                Self::Raw(format!("{}1{}", "[".repeat(depth), "]".repeat(depth)))
            }
            1 => {
                let depth = pick(rng, &[100, 127, 128, 10_000]);
                Self::Raw(format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth)))
            }
            2 => Self::Raw("9".repeat(400)),
            3 => Self::Raw(text(rng, words)),
            4..8 => {
                let count = rng.usize(..4);
                Self::Array((0..count).map(|_| Self::random(rng, words)).collect())
            }
            8..12 => {
                let count = rng.usize(..4);
                Self::Object((0..count).map(|_| (text(rng, words), Self::random(rng, words))).collect())
            }
            12..24 => Self::string(&text(rng, words)),
            _ => Self::Raw(word(rng, RAW)),
        }
    }
}

impl From<serde_json::Value> for Json {
    fn from(value: serde_json::Value) -> Self {
        match value {
            serde_json::Value::Array(items) => Self::Array(items.into_iter().map(Self::from).collect()),
            serde_json::Value::Object(entries) => {
                Self::Object(entries.into_iter().map(|(key, value)| (key, Self::from(value))).collect())
            }
            scalar => Self::Raw(scalar.to_string()),
        }
    }
}

/// Mutates a JSON file once or a few times; in one of ten cases, its bytes too.
pub fn mutate(rng: &mut Rng, bytes: &[u8], words: &str) -> Vec<u8> {
    let mut json = Json::parse(bytes);
    for _ in 0..few(rng) {
        json.mutate(rng, words);
    }
    finish(rng, &json)
}

/// The bytes of a JSON file: sometimes with a byte order mark, comments, or damage.
pub fn finish(rng: &mut Rng, json: &Json) -> Vec<u8> {
    let mut bytes = json.write().into_bytes();
    match rng.u32(..30) {
        0 => drop(bytes.splice(0..0, *b"\xef\xbb\xbf")),
        1 => bytes.extend(b" // comment\n,"),
        2 => crate::random::damage(rng, &mut bytes),
        _ => {}
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_comes_back_as_it_was() {
        let text = r#"{"a":[1,1.50,null,{"b":"x\ny"}],"big":12345678901234567890123}"#;
        assert_eq!(Json::parse(text.as_bytes()).write(), text);
    }
}
