//! JSON as Python writes it, and faults in it in plain words.
//!
//! Python's `json` writes and reads `NaN`, `Infinity` and `-Infinity`, which JSON does not have. A `config.json` may
//! hold one in a key that does not matter to us.

use std::borrow::Cow;

use serde_json::Value;

/// Names of numbers that only Python's JSON has. They are read as strings, so that a key which needs a number rejects
/// them by name.
const PYTHON_NUMBERS: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

/// The UTF-8 byte order mark, which Windows programs put at the start of files.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Parses a file's JSON text; a byte order mark at its start is skipped.
///
/// # Errors
/// Where the text stops being JSON, in words for users.
pub(crate) fn parse(text: &[u8]) -> Result<Value, String> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    serde_json::from_slice(&quoted(text)).map_err(|error| fault(&error))
}

/// What is wrong with a JSON text, without the parser's own wording.
pub(crate) fn fault(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    match error.classify() {
        serde_json::error::Category::Eof => format!("the JSON ends too early, at line {line}, column {column}"),
        _ => format!("not valid JSON at line {line}, column {column}"),
    }
}

/// A value for error messages: as JSON writes it, shortened if long.
pub(crate) fn shown(value: &Value) -> String {
    const LONGEST: usize = 40;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// The text with Python's numbers in quotes.
fn quoted(text: &[u8]) -> Cow<'_, [u8]> {
    let starts = |at: usize, name: &str| text[at..].starts_with(name.as_bytes());
    let mut quoted = Vec::new();
    let (mut copied, mut at, mut in_string) = (0, 0, false);
    while at < text.len() {
        match text[at] {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            b'N' | b'I' | b'-' if !in_string => {
                if let Some(name) = PYTHON_NUMBERS.iter().find(|name| starts(at, name)) {
                    quoted.extend_from_slice(&text[copied..at]);
                    quoted.extend([b"\"", name.as_bytes(), b"\""].concat());
                    at += name.len();
                    copied = at;
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    quoted.extend_from_slice(&text[copied..]);
    Cow::Owned(quoted)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pythons_numbers_are_read_as_their_names() {
        let text = br#"{"a": NaN, "b": [-Infinity,Infinity], "NaN \" NaN": "NaN", "c": -1}"#;
        let expected = json!({"a": "NaN", "b": ["-Infinity", "Infinity"], "NaN \" NaN": "NaN", "c": -1});
        assert_eq!(parse(text), Ok(expected));
        assert_eq!(parse(b"\xef\xbb\xbf[1]"), Ok(json!([1])));
    }

    #[test]
    fn faults_are_told_by_their_place() {
        assert_eq!(parse(b"{\n\"a\": }").unwrap_err(), "not valid JSON at line 2, column 6");
        assert_eq!(parse(b"{\"a\": ").unwrap_err(), "the JSON ends too early, at line 1, column 6");
        for text in [&b""[..], b"N", b"-I", b"\"", b"\"\\", b"NaNN", b"\xff"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        assert_eq!(shown(&json!("x".repeat(100))).chars().count(), 43);
    }
}
