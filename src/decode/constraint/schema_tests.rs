//! The public test suite of JSON Schema (`tests/fixtures/json_schema`).

use std::path::Path;

use serde_json::Value;

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
    constraint.status(&ids).unwrap().is_complete
}

#[test]
fn values_are_allowed_as_the_public_test_suite_says() {
    let bytes = Bytes((0..=255).collect());
    let vocabulary = Vocabulary::new(256, &bytes).unwrap();
    let (mut followed, mut refused, mut stricter) = (0, 0, vec![]);
    for (file, case) in cases() {
        let schema = &case["schema"];
        let constraint = match vocabulary.compile(&Source::JsonSchema(schema.clone())) {
            Ok(constraint) => constraint,
            Err(error) => {
                let error = error.to_string();
                assert!(error.starts_with("`json_schema` ") && !error.contains('\n'), "{error}");
                println!("refused {file}: {error}");
                refused += 1;
                continue;
            }
        };
        followed += 1;
        for test in case["tests"].as_array().unwrap() {
            let is_allowed = allows(&constraint, &test["data"].to_string());
            let what = format!("{file}: {}: {} {}", case["description"], test["description"], test["data"]);
            match test["valid"].as_bool().unwrap() {
                true if !is_allowed => stricter.push(what),
                false => assert!(!is_allowed, "{what}"),
                true => {}
            }
        }
    }
    println!("{followed} {refused}");
    stricter.iter().for_each(|what| println!("stricter {what}"));
}
