//! `gpt2 score`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::{golden, gpt2, id_text, tiny, without_row};

const CHECKPOINTS: [&str; 4] = ["base", "erf_inner", "inverse", "untied_f16"];

fn score(checkpoint: &str, ids: &Value, more: &[&str]) -> Value {
    let (folder, ids) = (tiny(checkpoint).display().to_string(), id_text(ids));
    gpt2(&[&["score", "-m", &folder, "--ids", &ids, "--format", "json"], more].concat()).succeeds().json()
}

fn perplexity_fixture(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/perplexity").join(file)
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn numbers(value: &Value) -> Vec<Option<f64>> {
    value.as_array().unwrap().iter().map(Value::as_f64).collect()
}

#[track_caller]
fn assert_near(ours: f64, theirs: f64, tolerance: f64, what: &str) {
    assert!((ours - theirs).abs() <= tolerance, "{what}: {ours}, expected {theirs}");
}

#[test]
fn log_probabilities_match_transformers() {
    for checkpoint in CHECKPOINTS {
        for case in golden(checkpoint)["score"].as_array().unwrap() {
            let json = score(checkpoint, &case["ids"], &[]);
            let (ours, theirs) = (numbers(&json["logprobs"]), numbers(&case["logprobs"]));
            assert_eq!((ours.len(), ours[0]), (theirs.len() + 1, None), "{checkpoint}");
            for (ours, theirs) in ours[1..].iter().zip(&theirs) {
                assert_near(ours.unwrap(), theirs.unwrap(), 1e-4, checkpoint);
            }
            let sum: f64 = theirs.iter().flatten().sum();
            assert_near(json["sum_logprob"].as_f64().unwrap(), sum, 1e-3, checkpoint);
            assert_eq!(json["scored_tokens"], theirs.len());
            match theirs.len() {
                0 => assert_eq!(json["perplexity"], Value::Null),
                n => {
                    let expected = (-sum / n as f64).exp();
                    assert_near(json["perplexity"].as_f64().unwrap() / expected, 1.0, 1e-4, checkpoint);
                }
            }
        }
    }
}

/// With `--bos` the scores are those of a text that starts with a written-out `<|endoftext|>`, which itself is left out.
#[test]
fn bos_gives_the_first_token_a_probability() {
    for checkpoint in CHECKPOINTS {
        let case = &golden(checkpoint)["score"][0];
        let config: Value =
            serde_json::from_slice(&std::fs::read(tiny(checkpoint).join("config.json")).unwrap()).unwrap();
        let written: Vec<&Value> =
            std::iter::once(&config["bos_token_id"]).chain(case["ids"].as_array().unwrap()).collect();
        let (with, written) = (score(checkpoint, &case["ids"], &["--bos"]), score(checkpoint, &json!(written), &[]));
        assert_eq!(with["ids"], case["ids"]);
        for key in ["logprobs", "ranks"] {
            assert_eq!(with[key].as_array().unwrap(), &written[key].as_array().unwrap()[1..], "{checkpoint} {key}");
        }
        assert_eq!(with["sum_logprob"], written["sum_logprob"]);
        assert_eq!(with["protocol"], json!({"bos": true, "context": 96, "stride": null}));
    }
}

/// A rank is one more than the number of tokens that `topk` lists before it, and a token's log-probability has the same
/// digits in every subcommand.
#[test]
fn ranks_and_log_probabilities_are_those_of_topk_and_generate() {
    for checkpoint in CHECKPOINTS {
        let ids = &golden(checkpoint)["score"][2]["ids"];
        let folder = tiny(checkpoint).display().to_string();
        let run =
            |arguments: &[&str]| gpt2(&[arguments, &["-m", &folder, "--format", "json"]].concat()).succeeds().json();
        let text = id_text(ids);
        let topk = run(&["topk", "--ids", &text, "--all", "-k", "1000"]);
        let scored = score(checkpoint, ids, &[]);
        let ids = ids.as_array().unwrap();
        for (i, position) in topk["positions"].as_array().unwrap().iter().enumerate().take(ids.len() - 1) {
            let next = position["next"].as_array().unwrap();
            let own = next.iter().find(|candidate| candidate["id"] == ids[i + 1]).unwrap();
            assert_eq!(scored["ranks"][i + 1], own["rank"], "{checkpoint} {i}");
            assert_eq!(scored["logprobs"][i + 1], own["logprob"], "{checkpoint} {i}");
        }
        let generated = run(&["generate", "--ids", &text, "-n", "1", "--logprobs", "5", "--ignore-eos"]);
        let next = topk["positions"].as_array().unwrap().last().unwrap()["next"].as_array().unwrap();
        let token = &generated["sequences"][0]["logprobs"][0];
        assert_eq!(token["logprob"], token["top"][0]["logprob"], "{checkpoint}");
        for (best, expected) in token["top"].as_array().unwrap().iter().zip(next) {
            assert_eq!((&best["id"], &best["logprob"]), (&expected["id"], &expected["logprob"]), "{checkpoint}");
        }
    }
}

#[test]
fn the_json_has_the_keys_of_the_contract() {
    let json = gpt2(&["score", "-m", "demo", "Once upon a 🦊", "--format", "json"]).succeeds().json();
    let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
    let expected = [
        "model",
        "ids",
        "tokens",
        "logprobs",
        "ranks",
        "sum_logprob",
        "scored_tokens",
        "perplexity",
        "bits_per_byte",
        "protocol",
        "settings",
    ];
    assert_eq!(keys, expected);
    assert_eq!(json["tokens"][1], " upon");
    assert_eq!(json["protocol"], json!({"bos": false, "context": 512, "stride": null}));
    let bits = -json["sum_logprob"].as_f64().unwrap() / std::f64::consts::LN_2;
    // The first token has no probability.
    let bytes = " upon a 🦊".len() as f64;
    assert_near(json["bits_per_byte"].as_f64().unwrap(), bits / bytes, 1e-12, "bits per byte");
}

/// The guide's loop, run by transformers on the demo model: the perplexity, and the exact sum of the scores.
#[test]
fn strided_perplexity_matches_transformers_guide() {
    let golden: Value = serde_json::from_slice(&std::fs::read(perplexity_fixture("golden.json")).unwrap()).unwrap();
    let text = perplexity_fixture("text.txt").display().to_string();
    for case in golden["cases"].as_array().unwrap() {
        let (context, stride) = (case["context"].to_string(), case["stride"].to_string());
        let flags = ["--stride", &stride, "--window", &context, "--format", "json"];
        let json = gpt2(&[&["score", "-m", "demo", "--file", &text][..], &flags].concat()).succeeds().json();
        let what = format!("context {context}, stride {stride}");
        assert_eq!(json["ids"].as_array().unwrap().len(), golden["tokens"], "{what}");
        assert_eq!(json["scored_tokens"], case["scored_tokens"], "{what}");
        for key in ["perplexity", "sum_logprob"] {
            let (ours, theirs) = (json[key].as_f64().unwrap(), case[key].as_f64().unwrap());
            assert_near(ours / theirs, 1.0, 1e-4, &format!("{what}, {key}"));
        }
        assert_eq!(json["protocol"], json!({"bos": false, "context": case["context"], "stride": case["stride"]}));
    }
}

#[test]
fn a_text_beyond_the_context_needs_a_stride() {
    // One more than the context: nothing comes after the last.
    let json = score("base", &json!(vec![7; 97]), &[]);
    assert_eq!(json["scored_tokens"], 96);
    let ids = vec!["7"; 98].join(" ");
    let folder = tiny("base").display().to_string();
    gpt2(&["score", "-m", &folder, "--ids", &ids]).fails(2, &["98 tokens", "context 96", "--stride"]);
    gpt2(&["score", "-m", &folder, "--ids", &ids, "--stride", "97"]).fails(2, &["--stride is 97", "1 to 96"]);
    gpt2(&["score", "-m", &folder, "--ids", &ids, "--stride", "0"]).fails(2, &["--stride", "from 1"]);
    gpt2(&["score", "-m", &folder, "--ids", &ids, "--stride", "8", "--window", "97"]).fails(2, &["--window is 97"]);
    gpt2(&["score", "-m", &folder, "--ids", "1 2", "--window", "8"]).fails(2, &["--stride"]);
    gpt2(&["score", "-m", &folder, "--ids", "1 211"]).fails(2, &["211", "vocabulary"]);
    let json = gpt2(&["score", "-m", &folder, "--ids", &ids, "--stride", "48", "--format", "json"]).succeeds().json();
    assert_eq!(json["scored_tokens"], 97);
}

#[test]
fn a_text_with_nothing_to_score_succeeds_with_a_note() {
    for text in ["", "Once"] {
        let done = gpt2(&["score", "-m", "demo", text, "--format", "json"]).succeeds();
        assert!(done.stderr().contains("nothing to score"), "{}", done.stderr());
        let json = done.json();
        assert_eq!((&json["scored_tokens"], &json["perplexity"]), (&json!(0), &Value::Null));
    }
    let json = gpt2(&["score", "-m", "demo", "Once", "--bos", "--format", "json"]).succeeds().json();
    assert_eq!(json["scored_tokens"], 1);
}

/// Short texts are listed, long ones only with -v; the protocol is shown; colours come with a key, and only if wanted.
#[test]
fn the_text_names_its_protocol_and_is_plain_in_a_pipe() {
    let short = gpt2(&["score", "-m", "demo", "Once upon a time\nthere was"]).succeeds().stdout();
    for words in ["\" upon\"", "\"\\n\"", "perplexity", "bits per byte", "one pass, nothing before the text", "rank"] {
        assert!(short.contains(words), "{words} is not in {short}");
    }
    assert!(!short.contains('\x1b'), "{short:?}");
    let coloured = gpt2(&["score", "-m", "demo", "Once upon a time"]).env("CLICOLOR_FORCE", "1").succeeds().stdout();
    assert!(coloured.contains("\x1b[48;5;") && coloured.contains("bits:"), "{coloured:?}");
    let long = "a ".repeat(300);
    let arguments = ["score", "-m", "demo", &long, "--stride", "100", "--window", "200"];
    let listed = gpt2(&arguments).succeeds().stdout();
    assert!(listed.contains("windows of 200 tokens, stride 100"), "{listed}");
    assert!(listed.contains("rank") && listed.lines().count() > 300, "{listed}");
}

/// A text cannot control the terminal that shows its scores.
#[test]
fn control_characters_of_the_text_are_not_passed_on() {
    let done = gpt2(&["score", "-m", "demo", "a\x1b]0;title\x07 b\x1b[2J"]).env("CLICOLOR_FORCE", "1").succeeds();
    let out = done.stdout();
    assert!(!out.contains('\x07') && !out.contains("\x1b]") && !out.contains("\x1b[2J"), "{out:?}");
}

/// Each row of a batch gets exactly the numbers that it gets alone, whatever the other rows; bad rows say why.
#[test]
fn a_batch_gives_the_same_as_each_row_alone() {
    let golden = golden("base");
    let mut rows: Vec<Value> = vec![];
    for (i, case) in golden["score"].as_array().unwrap().iter().enumerate() {
        rows.push(json!({"id": i, "ids": case["ids"]}));
    }
    let long: Vec<usize> = (0..250).map(|n| (n * 31) % 200).collect();
    rows.push(json!({"id": {"name": "long"}, "prompt_ids": long}));
    rows.push(json!({"id": "bad", "ids": [1, 2, 999]}));
    rows.push(json!({"ids": [3, 1, 4]}));
    rows.push(json!({"id": "neither"}));
    let mut input: String = rows.iter().map(|row| format!("{row}\n")).collect();
    input += "not json\n\n";
    let folder = tiny("base").display().to_string();
    let arguments = ["score", "-m", &folder, "--input", "-", "--stride", "40"];
    let together = gpt2(&arguments).stdin(&input).fails(3, &["3 rows failed"]).json_lines();
    assert_eq!(together.len(), rows.len() + 1);
    for batch_size in ["1", "3"] {
        let again =
            gpt2(&[&arguments[..], &["--batch-size", batch_size]].concat()).stdin(&input).fails(3, &[]).json_lines();
        assert_eq!(again, together);
    }
    for (i, (row, result)) in rows.iter().zip(&together).enumerate() {
        assert_eq!(result.as_object().unwrap().keys().next().unwrap(), "id");
        if let Some(ids) = row.get("ids").or(row.get("prompt_ids")).filter(|_| row["id"] != "bad") {
            let alone = score("base", ids, &["--stride", "40"]);
            assert_eq!((&result["id"], &result["line"]), (row.get("id").unwrap_or(&Value::Null), &json!(i + 1)));
            assert_eq!(without_row(alone), without_row(result.clone()));
        }
    }
    let error = |i: usize| together[i]["error"].as_str().unwrap().to_owned();
    assert!(error(4).contains("999") && together[4]["id"] == "bad", "{}", error(4));
    assert!(error(6).contains("no text (`prompt` or `text`)"), "{}", error(6));
    assert!(error(7).contains("line 8") && together[7]["id"] == Value::Null, "{}", error(7));
}

#[test]
fn an_interrupted_batch_resumes_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.jsonl"), folder.path().join("out.jsonl"));
    let rows: String =
        (0..5).map(|i| format!("{}\n", json!({"id": i, "text": "Once upon a time".repeat(i + 1)}))).collect();
    std::fs::write(&input, &rows).unwrap();
    let run = |more: &[&str]| {
        let (input, output) = (input.display().to_string(), output.display().to_string());
        gpt2(&[&["score", "-m", "demo", "--input", &input, "--output", &output], more].concat()).succeeds();
    };
    run(&[]);
    let whole = lines(&output);
    let text = std::fs::read_to_string(&output).unwrap();
    let first: Vec<&str> = text.lines().take(2).collect();
    std::fs::write(&output, format!("{}\n{{\"id\": 2, \"model\": \"de", first.join("\n"))).unwrap();
    run(&["--resume"]);
    assert_eq!(lines(&output), whole);
}
