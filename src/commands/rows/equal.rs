//! When two values of JSON are the same, however they are written.

use std::collections::BTreeMap;

use gpt2::json;
use serde_json::value::RawValue;

/// The deepest value that is compared as a value; deeper ones are compared as we write them.
const DEEPEST: usize = 64;

/// The value in a form that only values equal to it have: no white space, keys in order, texts escaped in one way, numbers
/// exact.
pub fn canonical(value: &RawValue) -> String {
    if depth(value.get()) > DEEPEST {
        return json::escaped(value.get()).into_owned();
    }
    let mut text = String::new();
    write(value, &mut text);
    text
}

/// How deep the lists and objects of a JSON text are nested.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_text,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn write(value: &RawValue, out: &mut String) {
    let json = value.get();
    match json.as_bytes().first() {
        Some(b'{') => {
            if let Ok(entries) = serde_json::from_str::<BTreeMap<String, &RawValue>>(json) {
                out.push('{');
                for (key, value) in entries {
                    out.push_str(&format!("{key:?}:"));
                    write(value, out);
                    out.push(',');
                }
                out.push('}');
                return;
            }
        }
        Some(b'[') => {
            if let Ok(values) = serde_json::from_str::<Vec<&RawValue>>(json) {
                out.push('[');
                for value in values {
                    write(value, out);
                    out.push(',');
                }
                out.push(']');
                return;
            }
        }
        Some(b'"') => {
            if let Ok(text) = serde_json::from_str::<String>(json) {
                out.push_str(&format!("{text:?}"));
                return;
            }
        }
        Some(b'-' | b'0'..=b'9') => {
            if let Some(number) = number(json) {
                out.push_str(&number);
                return;
            }
        }
        _ => {}
    }
    // `true`, `false` and `null`; and what Rust cannot hold, such as half of a surrogate pair.
    out.push_str(&json::escaped(json));
}

/// A number as its digits and the power of ten that they are multiplied by, without zeros at either end; none if the
/// exponent is beyond all bounds.
fn number(json: &str) -> Option<String> {
    let (sign, json) = json.strip_prefix('-').map_or(("", json), |rest| ("-", rest));
    let (mantissa, exponent) = json.split_once(['e', 'E']).unwrap_or((json, "0"));
    let exponent: i64 = exponent.parse().ok()?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_end_matches('0');
    let dropped = digits.len() - significant.len();
    let significant = significant.trim_start_matches('0');
    if significant.is_empty() {
        return Some("0".to_owned());
    }
    let exponent =
        exponent.checked_add(i64::try_from(dropped).ok()?)?.checked_sub(i64::try_from(fraction.len()).ok()?)?;
    Some(format!("{sign}{significant}e{exponent}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> String {
        canonical(serde_json::from_str(json).unwrap_or_else(|e| panic!("{json}: {e}")))
    }

    #[test]
    fn equal_values_have_one_form() {
        for (one, other) in [
            ("1", "1.0"),
            ("100", "1e2"),
            ("-0.0", "0"),
            ("0.10", "1E-1"),
            ("12e+1", "120"),
            ("1e99999999999999999999", "1e99999999999999999999"),
            ("\"a\"", "\"\\u0061\""),
            ("[1, [2.0]]", "[1.0,[2]]"),
            ("{\"a\": 1, \"b\": {}}", "{\"b\":{},\"a\":1e0}"),
        ] {
            assert_eq!(of(one), of(other), "{one} {other}");
        }
        let deep = |open: &str, close: &str| open.repeat(100_000) + &close.repeat(100_000);
        assert_eq!(of(&deep("[", "]")), deep("[", "]"));
        assert_eq!(depth(r#"{"[[[\"[": ["]", [{}]]}"#), 4);
        let different = [
            "1",
            "-1",
            "10",
            "0.1",
            "1e400",
            "\"1\"",
            "[1]",
            "[[1]]",
            "[1,1]",
            "null",
            "true",
            "{}",
            "{\"1\":1}",
            "\"\\ud800\"",
            "12345678901234567890123",
            "12345678901234567890124",
            "\"null\"",
            "\"[1,]\"",
            "[\"1,\"]",
            "[\"1\",\"\"]",
        ];
        for (i, one) in different.iter().enumerate() {
            for other in &different[i + 1..] {
                assert_ne!(of(one), of(other), "{one} {other}");
            }
        }
    }
}
