//! The public test suite of JSON Schema (`tests/fixtures/json_schema`).

use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::decode::Detokenize;

/// Token `i` is the byte `i`.
struct Bytes(Vec<u8>);

impl Detokenize for Bytes {
    fn token_bytes(&self, id: u32) -> &[u8] {
        &self.0[id as usize..][..1]
    }
}

fn cases() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/json_schema");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    let read = |file: std::path::PathBuf| {
        let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        cases.into_iter().map(move |case| (name.clone(), case))
    };
    files.into_iter().flat_map(read).collect()
}

/// Whether the constraint allows a text, byte by byte.
fn allows(constraint: &Constraint, text: &str) -> bool {
    let ids: Vec<u32> = text.bytes().map(u32::from).collect();
    constraint.next(&ids).unwrap().is_complete
}

/// Whether a value that the suite calls valid is one that the constraint never gives: with its properties in another order
/// than the schema's, or a whole number written with `.0`.
fn is_written_otherwise(schema: &Value, data: &Value) -> bool {
    let text = data.to_string();
    text.contains(".0")
        || (data.is_object() && schema.to_string().contains("\"properties\"") || schema["const"].is_object())
}

#[test]
fn values_are_allowed_as_the_public_test_suite_says() {
    let bytes = Bytes((0..=255).collect());
    let vocabulary = Vocabulary::new(256, &bytes).unwrap();
    let (mut followed, mut refused, mut stricter) = (0, 0, 0);
    for (file, case) in cases() {
        let schema = &case["schema"];
        let constraint = match vocabulary.compile(&Source::JsonSchema(schema.clone())) {
            Ok(constraint) => constraint,
            Err(error) => {
                let error = error.to_string();
                assert!(error.starts_with("`json_schema` is not a schema") && !error.contains('\n'), "{error}");
                for keyword in ["contains", "dependentRequired", "not", "propertyNames", "uniqueItems"] {
                    let is_named = error.contains(&format!("not supported: [\"{keyword}\"]"));
                    assert!(file != keyword || is_named, "{error}");
                }
                refused += 1;
                continue;
            }
        };
        followed += 1;
        for test in case["tests"].as_array().unwrap() {
            let (data, is_valid) = (&test["data"], test["valid"].as_bool().unwrap());
            let is_allowed = allows(&constraint, &data.to_string());
            let what = format!("{file}: {}: {} {data}", case["description"], test["description"]);
            assert!(is_valid || !is_allowed, "{what}");
            assert!(!is_valid || is_allowed || is_written_otherwise(schema, data), "{what}");
            stricter += u32::from(is_valid && !is_allowed);
        }
    }
    assert!(followed >= 130 && refused <= 95 && stricter <= 12, "{followed} {refused} {stricter}");
}

#[test]
fn white_space_of_any_amount_is_allowed_between_tokens_and_nowhere_else() {
    let bytes = Bytes((0..=255).collect());
    let vocabulary = Vocabulary::new(256, &bytes).unwrap();
    let allows = |schema: Value, text: &str| {
        let constraint = vocabulary.compile(&Source::JsonSchema(schema)).unwrap();
        allows(&constraint, text)
    };
    let schema = json!({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string"}}}});
    let blank = " \n\t\r".repeat(500);
    for (text, is_allowed) in [
        (r#"{"a":["x","y"]}"#, true),
        (r#"{"a": ["x",   "y"] }"#, true),
        (&format!("{{{blank}\"a\"{blank}:{blank}[{blank}\"x\"{blank},{blank}\"y\"{blank}]{blank}}}"), true),
        (" {}", false),
        ("{} ", false),
        (&format!(r#"{{"a": ["{}"]}}"#, "long ".repeat(1000)), true),
        (r#"{"a": ["\n \u0007 \" é"]}"#, true),
        (r#"{"a": ["\u0041"]}"#, false),
    ] {
        assert_eq!(allows(schema.clone(), text), is_allowed, "{text}");
    }
    let compact = json!({"type": "array", "x-guidance": {"whitespace_flexible": false}});
    assert!(allows(compact.clone(), "[1,[]]") && !allows(compact, "[1, []]"));
}
