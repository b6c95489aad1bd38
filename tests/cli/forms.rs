//! Checkpoints as other projects write them: each gives what the project that wrote it computes.
//!
//! `tests/fixtures/formats` says where the files and the expected values come from.

use std::path::PathBuf;

use serde_json::Value;

use crate::harness::{gpt2, id_text};

/// The most that a logit may differ from the reference's, which computes in f32 in another order.
const TOLERANCE: f64 = 3e-5;

/// The folders of the cases.
fn cases() -> Vec<PathBuf> {
    let formats = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats");
    let folders = std::fs::read_dir(formats).unwrap().map(|entry| entry.unwrap().path());
    folders.filter(|folder| folder.join("golden.json").is_file()).collect()
}

/// Each way to name the model of a case, with the case's expectations.
fn runs() -> impl Iterator<Item = (Vec<String>, Value)> {
    cases().into_iter().flat_map(|folder| {
        let golden: Value = serde_json::from_slice(&std::fs::read(folder.join("golden.json")).unwrap()).unwrap();
        let place = |argument: &Value| argument.as_str().unwrap().replace('@', folder.to_str().unwrap());
        let runs = golden["runs"].as_array().unwrap().iter();
        let runs: Vec<_> = runs.map(|run| run.as_array().unwrap().iter().map(place).collect()).collect();
        runs.into_iter().map(move |run| (run, golden.clone()))
    })
}

fn command(subcommand: &str, run: &[String], arguments: &[&str]) -> Vec<String> {
    let arguments = arguments.iter().map(|argument| (*argument).to_owned());
    [subcommand.to_owned()].into_iter().chain(run.iter().cloned()).chain(arguments).collect()
}

fn numbers(values: &Value) -> Vec<f64> {
    values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

#[test]
fn each_form_computes_what_its_project_computes() {
    let mut prompts = 0;
    for (run, golden) in runs() {
        for case in golden["forward"].as_array().into_iter().flatten() {
            prompts += 1;
            let (ids, vocab) = (id_text(&case["ids"]), golden["vocab"].to_string());
            let topk = command("topk", &run, &["--ids", &ids, "--all", "-k", &vocab, "--format", "json"]);
            let answer = gpt2(&topk).succeeds().json();
            let positions = answer["positions"].as_array().unwrap();
            let best: Vec<f64> = positions.iter().map(|at| at["next"][0]["id"].as_f64().unwrap()).collect();
            assert_eq!(best, numbers(&case["argmax"]), "{run:?}");
            let next = positions.last().unwrap()["next"].as_array().unwrap();
            let expected = numbers(&case["logits_last"]);
            // Padding is not listed.
            assert_eq!(next.len(), expected.len(), "{run:?}");
            for token in next {
                let (id, logit) = (token["id"].as_u64().unwrap() as usize, token["logit"].as_f64().unwrap());
                assert!((logit - expected[id]).abs() < TOLERANCE, "{run:?}, token {id}: {logit}, not {}", expected[id]);
            }
            let generate = command("generate", &run, &["--ids", &ids, "-n", "16", "--format", "json"]);
            let continuation = gpt2(&generate).succeeds().json();
            assert_eq!(continuation["sequences"][0]["ids"], case["greedy"], "{run:?}");
        }
    }
    assert!(prompts > 0, "no case was run");
}

#[test]
fn info_lists_tensors_under_their_names_in_the_file() {
    for (run, golden) in runs() {
        let Some(expected) = golden["tensors"].as_array() else { continue };
        let answer = gpt2(&command("info", &run, &["--tensors", "--format", "json"])).succeeds().json();
        let listed: Vec<&Value> = answer["tensors"].as_array().unwrap().iter().map(|tensor| &tensor["name"]).collect();
        for name in expected {
            assert!(listed.contains(&name), "{run:?}: no {name} in {listed:?}");
        }
    }
}
