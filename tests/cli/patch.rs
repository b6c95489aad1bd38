//! Activation patching.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::harness::{gpt2, tiny};

const NAMES: [&str; 4] = ["base", "erf_inner", "inverse", "untied_f16"];

const CLEAN: &str = "Tom had a red ball. Tom loved his";
const CORRUPT: &str = "Tom had a red car. Tom loved his";

fn demo(more: &[&str]) -> crate::harness::Run {
    let base = ["patch", "-m", "demo", "--answer", " ball", "--against", " car"];
    gpt2(&[&base, more].concat())
}

fn ids(case: &Value, key: &str) -> String {
    case[key].as_array().unwrap().iter().map(Value::to_string).collect::<Vec<_>>().join(" ")
}

/// Against hooks over transformers.
#[test]
fn sweeps_agree_with_hooks_over_transformers() {
    let mut cases = 0;
    for name in NAMES {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/inside").join(format!("{name}.json"));
        let golden: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        for case in golden["patch"].as_array().unwrap() {
            let (clean, corrupt) = (ids(case, "clean_ids"), ids(case, "corrupt_ids"));
            let token = |key: &str| format!("id:{}", case[key]);
            let model = tiny(name);
            let found = gpt2(&[
                "patch",
                "-m",
                model.to_str().unwrap(),
                "--clean-ids",
                &clean,
                "--corrupt-ids",
                &corrupt,
                "--answer",
                &token("answer_id"),
                "--against",
                &token("against_id"),
                "--over",
                case["over"].as_str().unwrap(),
                "--format",
                "json",
            ]);
            let found = found.succeeds().json();
            let close = |found: &Value, expected: &Value| {
                let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
                assert!((found - expected).abs() < 2e-4, "{name}, {}: {found}, not {expected}", case["over"]);
            };
            ["clean", "corrupt"].iter().for_each(|key| close(&found[key], &case[key]));
            let rows = |value: &Value| value["values"].as_array().unwrap().clone();
            assert_eq!(rows(&found).len(), rows(case).len());
            for (found, expected) in rows(&found).iter().zip(rows(case)) {
                let (found, expected) = (found.as_array().unwrap(), expected.as_array().unwrap());
                assert_eq!(found.len(), expected.len());
                found.iter().zip(expected).for_each(|(found, expected)| close(found, expected));
            }
            cases += 1;
        }
    }
    assert_eq!(cases, 32);
}

#[test]
fn all_of_the_difference_is_in_the_token_that_differs() {
    let found = demo(&["--clean", CLEAN, "--corrupt", CORRUPT, "--format", "json"]).succeeds().json();
    assert_eq!((&found["answer"], &found["against"]), (&" ball".into(), &" car".into()));
    let values = found["values"].as_array().unwrap();
    assert_eq!((values.len(), values[0].as_array().unwrap().len()), (6, 9));
    assert_eq!(values[0][4], found["clean"]);
    assert!((0..4).all(|at| values[0][at] == found["corrupt"]));
    // With any number of threads.
    let one = demo(&["--clean", CLEAN, "--corrupt", CORRUPT, "--format", "json", "--threads", "1"]).succeeds().json();
    assert_eq!(one["values"], found["values"]);
    // The two runs alike: nothing to normalise by.
    let same = demo(&["--clean", CLEAN, "--corrupt", CLEAN]).succeeds().stdout();
    assert!(same.contains("layer 5       2.72") && same.contains("Both runs have the same difference"), "{same}");
}

#[test]
fn files_show_the_heat_map() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (svg, html) = (path("a.svg"), path("a.html"));
    let done = demo(&["--clean", CLEAN, "--corrupt", CORRUPT, "--svg", &svg, "--html", &html]).succeeds();
    assert_eq!(done.stdout(), "");
    let svg = fs::read_to_string(svg).unwrap();
    for part in ["Patching the residual stream before each block", "\" ball\" → \" car\"", "100%", "layer 5"] {
        assert!(svg.contains(part), "{part}");
    }
    let html = fs::read_to_string(html).unwrap();
    assert!(html.contains("\"heads\":false") && html.contains("\"shares\":[[0.0,0.0,0.0,0.0,1.0,0.0"), "{html}");
    let png = path("heads.png");
    demo(&["--clean", CLEAN, "--corrupt", CORRUPT, "--over", "heads", "--svg", &png, "--theme", "dark"]).succeeds();
    assert!(fs::read(png).unwrap().starts_with(b"\x89PNG"));
}

#[test]
fn bad_input_is_one_line() {
    let both = ["--clean", CLEAN, "--corrupt", CORRUPT];
    demo(&["--clean", "Tom had a ball", "--corrupt", "Tom had a red ball"]).fails(2, &[
        "the prompts must have as many tokens; --clean has 4 tokens: \"Tom\" \" had\" \" a\" \" ball\"; --corrupt has 5 tokens: \"Tom\" \" had\" \" a\" \" red\" \" ball\"",
    ]);
    let asked =
        |answer: &str| gpt2(&[&["patch", "-m", "demo", "--answer", answer, "--against", " car"], &both[..]].concat());
    asked(" ballista").fails(2, &["--answer \" ballista\" is 2 tokens: \" ball\" \"ista\""]);
    asked("").fails(2, &["--answer \"\" is no token"]);
    asked("id:50257").fails(2, &["--answer id:50257: token id 50257 is outside the model's vocabulary"]);
    demo(&[&both[..], &["--over", "resid_post"]].concat()).fails(2, &["--over"]);
    demo(&["--clean", CLEAN]).fails(2, &["--corrupt"]);
    demo(&["--clean", CLEAN, "--corrupt-ids", "1 x"]).fails(2, &["--corrupt-ids: "]);
    demo(&[&both[..], &["--svg", "a.png", "--theme", "auto"]].concat())
        .fails(2, &["--theme auto: a PNG cannot follow"]);
    demo(&[&both[..], &["--svg", "/nowhere/a.svg"]].concat()).fails(1, &["there is no folder /nowhere"]);
    let long = "word ".repeat(1100);
    demo(&["--clean", &long, "--corrupt", &long]).fails(2, &["context"]);
}
