//! A model's own generation_config.json. Expected values are transformers': the file stands in for the parameters of the
//! goldens, as it does for `model.generate()`.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{golden, gpt2, id_text, tiny};

/// The checkpoint `base` with this generation_config.json.
fn model(values: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(tiny("base").join(file), folder.path().join(file)).unwrap();
    }
    std::fs::write(folder.path().join("generation_config.json"), values.to_string()).unwrap();
    folder
}

fn generate<'a>(model: &'a Path, ids: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let model = model.to_str().unwrap();
    [&["generate", "-m", model, "--ids", ids, "--format", "json", "--generation-config"], more].concat()
}

fn ids_of(json: &Value) -> Vec<&Value> {
    json["sequences"].as_array().unwrap().iter().map(|sequence| &sequence["ids"]).collect()
}

/// Penalties, beams, lengths and bad words; the flags count the same in a batch.
#[test]
fn every_parameter_of_the_goldens_may_come_from_the_file() {
    for case in golden("base")["generate"].as_array().unwrap() {
        let mut values = case["params"].clone();
        values["max_new_tokens"] = case["max_new_tokens"].clone();
        // Means nothing to a greedy search.
        values["temperature"] = json!(0.5);
        let folder = model(&values);
        let ids = id_text(&case["ids"]);
        let done = gpt2(&generate(folder.path(), &ids, &[])).succeeds();
        let json = done.json();
        let expected: Vec<&Value> = case["sequences"].as_array().unwrap().iter().collect();
        assert_eq!(ids_of(&json), expected, "{values}");
        assert_eq!(done.stderr(), "", "{values}");
        let row = format!("{}\n", json!({"id": 1, "ids": case["ids"]}));
        let batch = ["generate", "-m", folder.path().to_str().unwrap(), "--input", "-", "--generation-config"];
        assert_eq!(ids_of(&gpt2(&batch).stdin(row).succeeds().json_lines()[0]), expected, "{values}");
    }
}

/// From transformers 5.23.0 (`max_length` alone, beside `max_new_tokens`, and with beams).
#[test]
fn lengths_count_the_prompt_unless_they_count_new_tokens() {
    let ids = "161 176 26 125 16";
    for (values, expected) in [
        (json!({"max_length": 12}), json!([[33, 33, 33, 33, 33, 33, 39]])),
        (json!({"max_length": 8, "max_new_tokens": 9}), json!([[33, 33, 33, 33, 33, 33, 39, 180, 39]])),
        (json!({"max_length": 12, "num_beams": 3}), json!([[33, 33, 33, 33, 33, 33, 39]])),
    ] {
        let folder = model(&values);
        let json = gpt2(&generate(folder.path(), ids, &[])).succeeds().json();
        assert_eq!(ids_of(&json), expected.as_array().unwrap().iter().collect::<Vec<_>>(), "{values}");
        let flags: Vec<String> = values
            .as_object()
            .unwrap()
            .iter()
            .map(|(key, value)| format!("--{}={value}", key.replace('_', "-")))
            .collect();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let plain = model(&json!({}));
        let json = gpt2(&generate(plain.path(), ids, &flags)).succeeds().json();
        assert_eq!(ids_of(&json), expected.as_array().unwrap().iter().collect::<Vec<_>>(), "{flags:?}");
    }
    let folder = model(&json!({"max_length": 12}));
    let shorter = gpt2(&generate(folder.path(), ids, &["-n", "2"])).succeeds().json();
    assert_eq!(shorter["sequences"][0]["ids"], json!([33, 33]), "a flag goes before the file");
    let folder = model(&json!({"max_length": 5}));
    gpt2(&generate(folder.path(), ids, &[]))
        .fails(1, &["generation_config.json: max_length is 5", "the prompt, which has 5 tokens"]);
}

/// A minimum of M new tokens after n is a minimum of n + M tokens.
#[test]
fn a_minimum_counts_the_prompt_or_new_tokens() {
    for case in golden("base")["generate"].as_array().unwrap() {
        let Some(new) = case["params"].get("min_new_tokens").and_then(Value::as_u64) else { continue };
        let mut values = case["params"].clone();
        values.as_object_mut().unwrap().remove("min_new_tokens");
        values["min_length"] = json!(new + case["ids"].as_array().unwrap().len() as u64);
        values["max_new_tokens"] = case["max_new_tokens"].clone();
        let folder = model(&values);
        let json = gpt2(&generate(folder.path(), &id_text(&case["ids"]), &[])).succeeds().json();
        assert_eq!(ids_of(&json), case["sequences"].as_array().unwrap().iter().collect::<Vec<_>>(), "{values}");
    }
}

/// The tokens that remain, with their probabilities.
fn distribution(model: &Path, ids: &Value, more: &[&str]) -> Vec<(String, f64)> {
    let (model, ids) = (model.to_str().unwrap(), id_text(ids));
    let arguments = ["topk", "-m", model, "--ids", &ids, "-k", "1000", "--format", "json", "--generation-config"];
    let json = gpt2(&[&arguments[..], more].concat()).succeeds().json();
    let next = json["positions"][0]["next"].as_array().unwrap();
    next.iter().map(|token| (token["id"].to_string(), token["prob"].as_f64().unwrap())).collect()
}

#[track_caller]
fn assert_is(found: &[(String, f64)], expected: &[(String, f64)]) {
    assert_eq!(found.len(), expected.len());
    for (id, ours) in found {
        let (_, theirs) = expected.iter().find(|(other, _)| other == id).unwrap_or_else(|| panic!("{id} is removed"));
        assert!((ours - theirs).abs() < 1e-5, "{id}: {ours} {theirs}");
    }
}

#[test]
fn sampling_follows_the_file_with_top_k_50_unless_it_says_otherwise() {
    for case in golden("base")["distribution"].as_array().unwrap() {
        let expected: Vec<(String, f64)> =
            case["probs"].as_object().unwrap().iter().map(|(id, prob)| (id.clone(), prob.as_f64().unwrap())).collect();
        let mut values = case["params"].clone();
        values["do_sample"] = json!(true);
        if values == json!({"do_sample": true, "temperature": 0.7}) {
            let mut best = expected.clone();
            best.sort_by(|(_, a), (_, b)| b.total_cmp(a));
            best.truncate(50);
            let sum: f64 = best.iter().map(|(_, prob)| prob).sum();
            let best: Vec<_> = best.into_iter().map(|(id, prob)| (id, prob / sum)).collect();
            assert_is(&distribution(model(&values).path(), &case["ids"], &[]), &best);
            // Without sampling, its parameters mean nothing; a flag that samples makes them count.
            values["do_sample"] = json!(false);
            let folder = model(&values);
            assert_eq!(distribution(folder.path(), &case["ids"], &[]).len(), 211);
            assert_is(&distribution(folder.path(), &case["ids"], &["--top-p", "1"]), &best);
            values["do_sample"] = json!(true);
        }
        if values.get("top_k").is_none() {
            values["top_k"] = json!(0);
        }
        assert_is(&distribution(model(&values).path(), &case["ids"], &[]), &expected);
    }
}

#[test]
fn flags_and_rows_go_before_the_file() {
    let folder = model(&json!({"do_sample": true, "temperature": 5.0, "max_new_tokens": 3, "bad_words_ids": [[33]]}));
    let greedy = |more: &[&str]| {
        gpt2(&generate(folder.path(), "161 176 26 125 16", more)).succeeds().json()["sequences"][0]["ids"].clone()
    };
    // transformers' first tokens without any parameter.
    assert_eq!(greedy(&["--top-k", "1", "--bad-words-ids", "7"]), json!([33, 33, 33]));
    assert_eq!(greedy(&["--sample=false", "--bad-words-ids", "7", "-n", "2"]), json!([33, 33]));
    let batch = ["generate", "-m", folder.path().to_str().unwrap(), "--input", "-", "--generation-config"];
    let row =
        r#"{"id": 1, "ids": [161, 176, 26, 125, 16], "do_sample": false, "bad_words_ids": [], "max_new_tokens": 4}"#;
    let done = gpt2(&batch).stdin(row).succeeds().json_lines();
    assert_eq!(done[0]["sequences"][0]["ids"], json!([33, 33, 33, 33]));
    assert_eq!(done[0]["seed"], Value::Null);
}

#[test]
fn what_is_not_followed_is_said_once() {
    let folder = model(&json!({"do_sample": true, "top_p": 0.9, "dola_layers": "low", "eos_token_id": 210}));
    let base = ["generate", "-m", folder.path().to_str().unwrap(), "--ids", "1 2", "-n", "2"];
    let note = "note: generation_config.json sets `do_sample`, `top_p`, `dola_layers`, which are not followed: \
                --generation-config follows them\n";
    assert_eq!(gpt2(&base).succeeds().stderr(), note);
    assert_eq!(gpt2(&[&base[..], &["--quiet"]].concat()).succeeds().stderr(), "");
    let followed = gpt2(&[&base[..], &["--generation-config", "--seed", "1"]].concat()).succeeds().stderr();
    let note =
        "note: generation_config.json sets `dola_layers`, which is not followed: this program does not have it\n";
    assert_eq!(followed, note);
    let plain = model(&json!({"_from_model_config": true, "eos_token_id": 210, "transformers_version": "5.23.0"}));
    let base = ["generate", "-m", plain.path().to_str().unwrap(), "--ids", "1 2", "-n", "2"];
    assert_eq!(gpt2(&base).succeeds().stderr(), "");
}

/// The checkpoint `base` with this text as its generation_config.json (none if null) and 39 as the end of text in
/// config.json.
fn model_that_ends(text: Option<&str>) -> tempfile::TempDir {
    let folder = model(&json!({}));
    let path = folder.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["eos_token_id"] = json!(39);
    std::fs::write(&path, config.to_string()).unwrap();
    let path = folder.path().join("generation_config.json");
    match text {
        Some(text) => std::fs::write(path, text).unwrap(),
        None => std::fs::remove_file(path).unwrap(),
    }
    folder
}

/// From transformers 5.23.0: a file that does not say what ends a text leaves it without an end, whatever config.json says;
/// one that is no JSON counts as none.
#[test]
fn only_without_the_file_does_a_text_end_as_the_configuration_says() {
    let ids = "161 176 26 125 16";
    let never = json!([33, 33, 33, 33, 33, 33, 39, 180, 39]);
    for (text, expected) in [
        (None, json!([33, 33, 33, 33, 33, 33, 39])),
        (Some("{}"), never.clone()),
        (Some(r#"{"eos_token_id": null}"#), never.clone()),
        (Some(r#"{"_from_model_config": true}"#), never.clone()),
        (Some(r#"{"eos_token_id": -1}"#), never.clone()),
        (Some(r#"{"eos_token_id": []}"#), never.clone()),
        (Some(r#"{"eos_token_id": [-1, -7, 180]}"#), json!([33, 33, 33, 33, 33, 33, 39, 180])),
        (Some(r#"{"eos_token_id": 39.0}"#), json!([33, 33, 33, 33, 33, 33, 39])),
    ] {
        let folder = model_that_ends(text);
        for flags in [&["-n", "9"][..], &["-n", "9", "--generation-config"]] {
            let base = ["generate", "-m", folder.path().to_str().unwrap(), "--ids", ids, "--format", "json"];
            let done = gpt2(&[&base[..], flags].concat()).succeeds();
            assert_eq!(done.json()["sequences"][0]["ids"], expected, "{text:?}");
            let is_missing = text.is_none() && flags.contains(&"--generation-config");
            let note = if is_missing { "note: the model has no generation_config.json to follow\n" } else { "" };
            assert_eq!(done.stderr(), note, "{text:?}");
        }
    }
    for (text, expected) in [
        ("", json!([33, 33, 33, 33, 33, 33, 39])),
        ("{\"top_p\": 1,}", json!([33, 33, 33, 33, 33, 33, 39])),
        ("{\"eos_token_id\": \"x\"}", json!([33, 33, 33, 33, 33, 33, 39])),
        ("{\"temperature\": NaN}", never.clone()),
        ("{\"temperature\": NaN, \"eos_token_id\": 180}", json!([33, 33, 33, 33, 33, 33, 39, 180])),
    ] {
        let folder = model_that_ends(Some(text));
        let model = folder.path().to_str().unwrap();
        let base = ["generate", "-m", model, "--ids", ids, "--format", "json", "-n", "9"];
        let done = gpt2(&base).succeeds();
        assert_eq!(done.json()["sequences"][0]["ids"], expected, "{text}");
        let stderr = done.stderr();
        assert!(stderr.lines().count() == 1 && stderr.starts_with("note: "), "{stderr}");
        assert!(stderr.contains("generation_config.json"), "{stderr}");
        assert_eq!(gpt2(&[&base[..], &["-q"]].concat()).succeeds().stderr(), "");
        assert_eq!(gpt2(&["score", "-m", model, "--ids", ids]).succeeds().stderr(), "");
    }
}

/// A value of the file is not called a flag that nobody gave.
#[test]
fn errors_about_the_file_name_it() {
    for (values, words) in [
        (json!({"do_sample": true, "temperature": 0.0}), "temperature takes a number from 1e-30, not 0"),
        (json!({"bad_words_ids": [[999]]}), "bad_words_ids has token id 999"),
        (json!({"max_length": 3}), "max_length is 3, which leaves no room"),
        (json!({"stop_strings": ["x"]}), "stop_strings needs a tokenizer"),
        (json!({"num_return_sequences": 2}), "num_return_sequences above 1 needs do_sample or num_beams"),
        (json!({"num_beams": 4, "num_beam_groups": 2}), "num_beam_groups needs diversity_penalty"),
        (json!({"num_beams": 1.5}), "num_beams is 1.5, not a whole number"),
        (json!({"do_sample": true, "top_p": 2}), "top_p takes a number above 0, up to 1 (off), not 2"),
        (json!({"do_sample": true, "typical_p": -1}), "typical_p takes a number above 0, up to 1 (off), not -1"),
        (json!({"do_sample": true, "min_p": 7}), "min_p takes a number from 0 to 1, not 7"),
    ] {
        let folder = model(&values);
        let words = format!("generation_config.json: {words}");
        let done = gpt2(&generate(folder.path(), "1 2 3", &[])).fails(1, &[&words]);
        assert!(!done.stderr().contains("--"), "{}", done.stderr());
        let batch = ["generate", "-m", folder.path().to_str().unwrap(), "--input", "-", "--generation-config"];
        let done = gpt2(&batch).stdin("{\"ids\": [1, 2, 3]}").output();
        assert!(matches!(done.output.status.code(), Some(1 | 3)), "as the file is wrong alone or beside the row");
        assert!((done.stdout() + &done.stderr()).contains(&words), "{}", done.stdout());
    }
    let folder = model(&json!({"do_sample": true, "top_p": 2}));
    let topk = ["topk", "-m", folder.path().to_str().unwrap(), "--ids", "1", "--generation-config"];
    gpt2(&topk).fails(1, &["generation_config.json: top_p takes a number above 0, up to 1 (off), not 2"]);
    let folder = model(&json!({"num_beams": 2, "num_return_sequences": 2}));
    let both = gpt2(&generate(folder.path(), "1", &["--num-return-sequences", "3"]))
        .fails(2, &["--num-return-sequences is larger than num_beams (2 in ", "generation_config.json)"]);
    assert!(!both.stderr().contains("--num-beams"), "{}", both.stderr());
    let own = gpt2(&generate(folder.path(), "1", &["--temperature", "0"]))
        .fails(2, &["--temperature takes a number from 1e-30, not 0"]);
    assert!(!own.stderr().contains("generation_config"), "{}", own.stderr());
}

/// pandas writes 2.0 in a column with gaps.
#[test]
fn whole_numbers_may_have_a_point() {
    let folder = model(&json!({"max_new_tokens": 2.0}));
    let json = gpt2(&generate(folder.path(), "161 176 26 125 16", &[])).succeeds().json();
    assert_eq!(json["sequences"][0]["ids"], json!([33, 33]));
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_its_key() {
    for (text, words) in [
        ("{\"top_p\": \"x\"}", &["generation_config.json: top_p is \"x\", not a number"][..]),
        ("{\"eos_token_id\": \"x\"}", &["generation_config.json: eos_token_id is \"x\", neither a token id nor"]),
        ("{\"top_p\": 1,}", &["generation_config.json: not JSON at column"]),
        ("", &["generation_config.json: not JSON: it is empty"]),
        ("[1]", &["generation_config.json: not an object"]),
    ] {
        let folder = model(&json!({}));
        std::fs::write(folder.path().join("generation_config.json"), text).unwrap();
        let done = gpt2(&generate(folder.path(), "1", &[])).fails(1, words);
        assert!(!done.stderr().contains("expected"), "{}", done.stderr());
    }
    let folder = model(&json!({}));
    std::fs::write(folder.path().join("generation_config.json"), "\u{feff}{\"max_new_tokens\": 2}").unwrap();
    let json = gpt2(&generate(folder.path(), "161 176 26 125 16", &[])).succeeds().json();
    assert_eq!(json["sequences"][0]["ids"], json!([33, 33]));
}
