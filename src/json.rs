//! JSON as Python writes it, and faults in it in plain words.
//!
//! Python's `json` writes and reads `NaN`, `Infinity` and `-Infinity`, which JSON does not have. A `config.json` may
//! hold one in a key that does not matter to us.

use std::borrow::Cow;
use std::io;

use serde::Serialize;
use serde_json::Value;
use serde_json::error::Category;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

use crate::files::{is_utf16, without_byte_order_mark};
use crate::printable::is_printable;

/// Names of numbers that only Python's JSON has. They are read as strings, so that a key which needs a number rejects
/// them by name.
const PYTHON_NUMBERS: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

/// Parses a file's JSON text; a byte order mark at its start is skipped.
///
/// # Errors
/// Where the text stops being JSON, in words for users.
pub fn parse(text: &[u8]) -> Result<Value, String> {
    let text = without_byte_order_mark(text);
    serde_json::from_slice(&quoted(text)).map_err(|error| fault(text, &error))
}

/// What is wrong with a text that is not the JSON that was expected, and where, without the parser's own words; for the
/// end of a sentence that names the file.
#[must_use]
pub fn fault(text: &[u8], error: &serde_json::Error) -> String {
    if is_utf16(text) {
        return "UTF-16; save it as UTF-8".to_owned();
    }
    let (line, column) = (error.line(), error.column());
    let place = if text.trim_ascii_end().contains(&b'\n') {
        format!("line {line}, column {column}")
    } else {
        format!("column {column}")
    };
    let found = text.split(|b| *b == b'\n').nth(line.saturating_sub(1)).unwrap_or_default();
    // The column is that of the letter at fault, or of the one before or after it: the parser may have read a sign, or the
    // letter itself, before it refuses a word.
    let nearby = &found[column.saturating_sub(2).min(found.len())..(column + 1).min(found.len())];
    let found = &found[column.saturating_sub(2).min(found.len())..];
    let starts =
        |word: &str| (0..=2).any(|skip| found.get(skip..).is_some_and(|rest| rest.starts_with(word.as_bytes())));
    if PYTHON_NUMBERS.iter().any(|word| starts(word)) {
        return format!("not JSON at {place}: NaN and Infinity are no JSON numbers; write null");
    }
    if error.to_string().starts_with("recursion limit") {
        return format!("more lists and objects within each other than can be read, at {place}");
    }
    match error.classify() {
        Category::Eof if text.trim_ascii().is_empty() => "not JSON: it is empty".to_owned(),
        Category::Eof => format!("not JSON: it breaks off at {place}"),
        Category::Data => {
            let message = error.to_string();
            let message = message.rsplit_once(" at line ").map_or(&*message, |(message, _)| message);
            match message.rsplit_once(", expected ") {
                Some((_, expected)) => format!("not {expected} ({place})"),
                None => format!("{message} ({place})"),
            }
        }
        _ if nearby.iter().any(u8::is_ascii_control) => {
            format!("not JSON at {place}: a control character, which a text must escape, such as \\n or \\u0000")
        }
        _ => format!("not JSON at {place}"),
    }
}

/// A value for error messages: as JSON writes it, shortened if long.
#[must_use]
pub fn shown(value: &Value) -> String {
    const LONGEST: usize = 40;
    let text = value.to_string();
    let text = escaped(&text);
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.into_owned(),
    }
}

/// Writes a value as JSON on one line, [`escaped`].
///
/// # Errors
/// If `out` cannot be written, or the value has no JSON.
pub fn write(out: impl io::Write, value: &impl Serialize) -> io::Result<()> {
    Ok(value.serialize(&mut Serializer::with_formatter(out, Escaping(CompactFormatter)))?)
}

/// As [`write()`], on several lines.
///
/// # Errors
/// As [`write()`].
pub fn write_indented(out: impl io::Write, value: &impl Serialize) -> io::Result<()> {
    Ok(value.serialize(&mut Serializer::with_formatter(out, Escaping(PrettyFormatter::new())))?)
}

/// The same JSON with every character that is not [printable](is_printable) as an escape such as `\u009b`, so that a
/// terminal can show it. Outside of texts, JSON has no such characters but line breaks and tabs.
#[must_use]
pub fn escaped(json: &str) -> Cow<'_, str> {
    let is_shown = |c: char| matches!(c, '\n' | '\r' | '\t') || is_printable(c);
    if json.chars().all(is_shown) {
        return Cow::Borrowed(json);
    }
    let mut text = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_shown(c) {
            text.push(c);
        } else {
            text.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    Cow::Owned(text)
}

/// Writes texts [`escaped`], zeros without a sign, and all else as the formatter in it.
struct Escaping<F>(F);

/// Passes calls on to the formatter in it.
macro_rules! as_formatted {
    ($($name:ident($($argument:ident: $kind:ty)?);)*) => {$(
        fn $name<W: ?Sized + io::Write>(&mut self, out: &mut W $(, $argument: $kind)?) -> io::Result<()> {
            self.0.$name(out $(, $argument)?)
        }
    )*};
}

impl<F: Formatter> Formatter for Escaping<F> {
    as_formatted! {
        begin_array();
        end_array();
        begin_array_value(first: bool);
        end_array_value();
        begin_object();
        end_object();
        begin_object_key(first: bool);
        end_object_key();
        begin_object_value();
        end_object_value();
    }

    // A zero has no sign: other programs read `-0.0` in other ways.
    fn write_f32<W: ?Sized + io::Write>(&mut self, out: &mut W, value: f32) -> io::Result<()> {
        self.0.write_f32(out, value + 0.0)
    }

    fn write_f64<W: ?Sized + io::Write>(&mut self, out: &mut W, value: f64) -> io::Result<()> {
        self.0.write_f64(out, value + 0.0)
    }

    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, out: &mut W, text: &str) -> io::Result<()> {
        out.write_all(escaped(text).as_bytes())
    }

    fn write_raw_fragment<W: ?Sized + io::Write>(&mut self, out: &mut W, json: &str) -> io::Result<()> {
        out.write_all(escaped(json).as_bytes())
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
    use serde_json::value::RawValue;

    use super::*;

    #[test]
    fn pythons_numbers_are_read_as_their_names() {
        let text = br#"{"a": NaN, "b": [-Infinity,Infinity], "NaN \" NaN": "NaN", "c": -1}"#;
        let expected = json!({"a": "NaN", "b": ["-Infinity", "Infinity"], "NaN \" NaN": "NaN", "c": -1});
        assert_eq!(parse(text), Ok(expected));
        assert_eq!(parse(b"\xef\xbb\xbf[1]"), Ok(json!([1])));
    }

    #[test]
    fn what_drives_a_terminal_is_escaped_and_means_the_same() {
        let text = "\x1b]0;x\x07 \x7f\u{80}\u{9b}\u{202e}\u{2028}\u{feff}\u{e0041} é 🦊 \\u009b \"";
        let value = json!({ text: [text, 1.5, null], "b": {} });
        let raw = RawValue::from_string("{\n\t\"\u{9b}\": 1.50}".to_owned()).unwrap();
        let (mut line, mut lines) = (vec![], vec![]);
        write(&mut line, &(&value, &raw)).unwrap();
        write_indented(&mut lines, &value).unwrap();
        let (line, lines) = (String::from_utf8(line).unwrap(), String::from_utf8(lines).unwrap());
        let expected = r#"\u001b]0;x\u0007 \u007f\u0080\u009b\u202e\u2028\ufeff\udb40\udc41 é 🦊 \\u009b \""#;
        assert_eq!(
            line,
            format!("[{{\"{expected}\":[\"{expected}\",1.5,null],\"b\":{{}}}},{{\n\t\"\\u009b\": 1.50}}]")
        );
        assert_eq!(
            lines,
            serde_json::to_string_pretty(&value).unwrap().replace(&json!(text).to_string(), &format!("\"{expected}\""))
        );
        assert_eq!(serde_json::from_str::<Value>(&lines).unwrap(), value);
    }

    #[test]
    fn faults_say_where_in_plain_words() {
        for (text, words) in [
            ("", "not JSON: it is empty"),
            ("{\"a\": tru}", "not JSON at column 10"),
            ("{\"a\": 1", "not JSON: it breaks off at column 7"),
            ("{\n\"a\": 1,,\n}", "not JSON at line 2, column 8"),
            ("{\"a\": NaN}", "not JSON at column 7: NaN and Infinity are no JSON numbers; write null"),
            ("{\"a\": -Infinity}", "not JSON at column 8: NaN and Infinity are no JSON numbers; write null"),
            ("\"a\0b\"", "not JSON at column 3: a control character, which a text must escape, such as \\n or \\u0000"),
        ] {
            let error = serde_json::from_str::<Value>(text).unwrap_err();
            assert_eq!(fault(text.as_bytes(), &error), words, "{text}");
        }
        assert_eq!(parse(b"\xFF\xFE{\0}\0").unwrap_err(), "UTF-16; save it as UTF-8");
        let deep = "[".repeat(200);
        let error = serde_json::from_str::<Value>(&deep).unwrap_err();
        assert!(fault(deep.as_bytes(), &error).starts_with("more lists and objects"), "{error}");
        let error = serde_json::from_str::<Vec<u32>>("{}").unwrap_err();
        assert!(fault(b"{}", &error).starts_with("not a sequence"), "{error}");
        for text in [&b"N"[..], b"-I", b"\"", b"\"\\", b"NaNN", b"\xff"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        assert_eq!(shown(&json!("x".repeat(100))).chars().count(), 43);
    }
}
