//! The keys and values of a row, as they are written.

use std::borrow::Cow;

use gpt2::{json, printable};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Messages quote at most this many characters of a row.
const QUOTED: usize = 60;

/// The keys and values of the object in `text`, in order. An error is the end of a sentence: `not JSON at column 5`.
pub fn entries(text: &str) -> Result<Vec<(Cow<'_, str>, &RawValue)>, String> {
    struct Entries<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

    struct Reader;

    impl<'de> Visitor<'de> for Reader {
        type Value = Entries<'de>;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = vec![];
            while let Some(key) = map.next_key::<Key<'de>>()? {
                entries.push((key.0, map.next_value()?));
            }
            Ok(Entries(entries))
        }
    }

    impl<'de> Deserialize<'de> for Entries<'de> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_map(Reader)
        }
    }

    #[derive(Deserialize)]
    struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

    match serde_json::from_str::<Entries<'_>>(text) {
        Ok(entries) => Ok(entries.0),
        Err(_) if serde_json::from_str::<IgnoredAny>(text).is_ok() && !text.trim_start().starts_with('{') => {
            let kind = match text.trim_start().as_bytes().first() {
                Some(b'[') => "an array",
                Some(b'"') => "a text",
                Some(b't' | b'f') => "true or false",
                Some(b'n') => "null",
                _ => "a number",
            };
            Err(format!("{kind}, not an object such as {{\"id\": 1, \"prompt\": \"...\"}}"))
        }
        Err(error) => Err(json::fault(text.as_bytes(), &error)),
    }
}

/// A part of a row for a message: on one line, and cut off if it is long.
pub fn quoted(text: &str) -> String {
    let text = text.trim();
    let mut shown = printable::line(&text.chars().take(QUOTED).collect::<String>()).into_owned();
    if text.chars().nth(QUOTED).is_some() {
        shown.push_str("...");
    }
    shown
}

/// A row for the record of its error, cut off if it is long.
pub fn shortened(row: &str) -> String {
    /// In characters.
    const LONGEST: usize = 200;
    match row.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &row[..end]),
        None => row.to_owned(),
    }
}

/// The JSON without white space between its tokens.
pub fn compact(json: &str) -> String {
    let (mut in_text, mut escaped) = (false, false);
    let belongs = |letter: &char| {
        let inside = in_text;
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = in_text,
            '"' => in_text = !in_text,
            _ => {}
        }
        inside || !letter.is_ascii_whitespace()
    };
    json.chars().filter(belongs).collect()
}
