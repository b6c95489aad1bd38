//! `gpt2 trace --attribute` and `--heads`.

use serde_json::Value;

use crate::harness::{gpt2, id_text, tiny};

const CHECKPOINTS: [&str; 4] = ["base", "erf_inner", "inverse", "untied_f16"];

/// `tests/fixtures/inside/NAME.json` or `tests/fixtures/heads/scores.json`.
fn fixture(name: &str) -> Value {
    let path = tiny("base").ancestors().nth(2).unwrap().join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

#[track_caller]
fn assert_near(ours: &Value, theirs: &Value, tolerance: f64, what: &str) {
    let (ours, theirs) = (number(ours), number(theirs));
    assert!((ours - theirs).abs() <= tolerance, "{what}: {ours}, the reference has {theirs}");
}

#[test]
fn attribution_matches_hooks_over_transformers() {
    for name in CHECKPOINTS {
        let folder = tiny(name).display().to_string();
        for case in fixture(&format!("inside/{name}.json"))["attribution"].as_array().unwrap() {
            let flag = case["position_flag"].as_i64().map(|position| position.to_string());
            let ids = id_text(&case["ids"]);
            // A token by its text, as GPT-2's own tokenizer has it, and by its id.
            for by_id in [false, true] {
                let token = |which: &str| match by_id {
                    true => case[format!("{which}_id")].as_u64().map(|id| format!("id:{id}")),
                    false => case[which].as_str().map(ToOwned::to_owned),
                };
                let mut line: Vec<String> =
                    ["trace", "-m", &folder, "--ids", &ids, "--format", "json"].map(str::to_owned).into();
                line.extend(["--attribute".to_owned(), token("target").unwrap()]);
                line.extend(token("against").into_iter().flat_map(|token| ["--against".to_owned(), token]));
                line.extend(flag.clone().into_iter().flat_map(|flag| ["--position".to_owned(), flag]));
                if !by_id {
                    line.extend(["--tokenizer", "gpt2"].map(str::to_owned));
                }
                let json = gpt2(&line).succeeds().json();
                let found = &json["attribution"];
                for key in ["target_id", "against_id", "position"] {
                    assert_eq!(found[key], case[key], "{name}, {key}");
                }
                if !by_id {
                    assert_eq!((&found["target"], &found["against"]), (&case["target"], &case["against"]));
                }
                assert_near(&found["value"], &case["value"], 2e-4, name);
                let (ours, theirs) = (found["components"].as_array().unwrap(), case["components"].as_array().unwrap());
                assert_eq!(ours.len(), theirs.len(), "{name}");
                for (ours, theirs) in ours.iter().zip(theirs) {
                    assert_eq!(ours["name"], theirs["name"], "{name}");
                    assert_near(&ours["value"], &theirs["value"], 2e-4, &format!("{name}, {}", ours["name"]));
                }
                let sum: f64 = ours.iter().map(|part| number(&part["value"])).sum();
                let value = number(&found["value"]);
                assert!((sum - value).abs() <= 1e-3 * value.abs().max(1.0), "{name}: {sum} is not {value}");
                assert!((number(&found["sum"]) - sum).abs() < 1e-4);
                assert!(json.get("hidden").is_none() && json.get("lens").is_none());
            }
        }
    }
}

#[test]
fn heads_match_transformer_lens() {
    for case in fixture("heads/scores.json").as_array().unwrap() {
        let folder = tiny(case["checkpoint"].as_str().unwrap()).display().to_string();
        let line = ["trace", "-m", &folder, "--ids", &id_text(&case["ids"]), "--heads", "--format", "json"];
        let json = gpt2(&line).succeeds().json();
        let found = &json["heads"];
        assert_eq!(found["seed"], Value::Null);
        for head in found["scores"].as_array().unwrap() {
            let place = |value: &Value| value.as_u64().unwrap() as usize;
            let (layer, index) = (place(&head["layer"]), place(&head["head"]));
            for behaviour in ["previous_token", "duplicate_token", "induction"] {
                let theirs = &case["scores"][behaviour][layer][index];
                assert_near(&head[behaviour], theirs, 1e-5, &format!("{behaviour} of {layer}.{index}"));
            }
        }
    }
}

#[test]
fn rows_are_attributed_as_texts_are() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.jsonl");
    std::fs::write(&file, "{\"id\": 1, \"prompt\": \"Once upon a\"}\n{\"id\": 2, \"prompt\": \"The king\"}\n{\"id\": 3, \"prompt\": \"The\"}\n")
        .unwrap();
    let file = file.display().to_string();
    let view = ["--attribute", " time", "--position", "-2"];
    let line = [&["trace", "-m", "demo", "--input", &file, "--keep-going"][..], &view].concat();
    let rows = gpt2(&line).output();
    let rows = rows.json_lines();
    for (row, text) in rows.iter().zip(["Once upon a", "The king"]) {
        let alone = gpt2(&[&["trace", "-m", "demo", text, "--format", "json"][..], &view].concat()).succeeds().json();
        assert_eq!(row["attribution"], alone["attribution"], "{text}");
    }
    assert!(rows[2]["error"].to_string().contains("--position -2: the prompt has 1 token"), "{}", rows[2]);
    let rows = gpt2(&["trace", "-m", "demo", "--input", &file, "--keep-going", "--heads"]).output().json_lines();
    let alone = gpt2(&["trace", "-m", "demo", "Once upon a", "--heads", "--format", "json"]).succeeds().json();
    assert_eq!(rows[0]["heads"], alone["heads"]);
    assert!(rows[2]["error"].to_string().contains("at least 2 tokens"), "{}", rows[2]);
}

/// The random sequence is a pure function of its seed.
#[test]
fn heads_need_no_text() {
    let heads = |more: &[&str]| gpt2(&[&["trace", "-m", "demo", "--heads"][..], more].concat()).succeeds();
    let json = heads(&["--format", "json"]).json();
    let ids = json["ids"].as_array().unwrap();
    assert_eq!((ids.len(), &ids[1..51]), (101, &ids[51..]));
    assert_eq!(heads(&["--seed", "0", "--length", "50", "--format", "json"]).json()["ids"], json["ids"]);
    assert_ne!(heads(&["--seed", "1", "--format", "json"]).json()["ids"], json["ids"]);
    assert_eq!(heads(&["--length", "3", "--format", "json"]).json()["ids"].as_array().unwrap().len(), 7);
    let text = heads(&[]).stdout();
    for words in
        ["50 random tokens, twice, after the start token (seed 0)", "Previous token", "Duplicate token", "Induction"]
    {
        assert!(text.contains(words), "{text}");
    }
}

/// The parts of a run that was changed add up to its own logit.
#[test]
fn what_was_changed_is_a_part_of_its_own() {
    let run = |more: &[&str]| {
        let line = ["trace", "-m", "demo", "Once upon a", "--attribute", " time", "--format", "json"];
        let json = gpt2(&[&line[..], more].concat()).succeeds().json();
        let made = &json["attribution"];
        let (sum, value) = (number(&made["sum"]), number(&made["value"]));
        assert!((sum - value).abs() <= 1e-3 * value.abs().max(1.0), "{more:?}: {sum} is not {value}");
        made.clone()
    };
    let value = |made: &Value, name: &str| {
        let parts = made["components"].as_array().unwrap();
        parts.iter().find(|part| part["name"] == name).map(|part| number(&part["value"]))
    };
    let plain = run(&[]);
    assert!(value(&plain, "steer.3").is_none() && value(&plain, "blocks.1.attn").is_none());
    let made = run(&["--steer-from", "king", "--steer-against", "wolf@3*0.5"]);
    assert!(value(&made, "steer.3").is_some_and(|value| value != 0.0));
    let made = run(&["--ablate", "1.attn", "--ablate", "0.0", "--ablate", "2.mlp"]);
    for name in ["blocks.0.attn.head.0", "blocks.1.attn.head.1", "blocks.1.attn.bias", "blocks.1.attn", "blocks.2.mlp"]
    {
        assert_eq!(value(&made, name), Some(0.0), "{name}");
    }
    let made = run(&["--ablate", "1.attn=mean", "--ablate", "0.0=mean"]);
    for name in ["blocks.0.attn.head.0", "blocks.1.attn"] {
        assert!(value(&made, name).is_some_and(|value| value != 0.0), "{name}");
    }
}

#[cfg(unix)]
#[test]
fn the_map_fits_the_terminal() {
    use unicode_width::UnicodeWidthStr;
    let line = ["trace", "-m", "demo", "Once upon a", "--attribute", " time", "--against", " king"];
    for line in [&line[..], &["trace", "-m", "demo", "--heads"]] {
        let plain = [line, &["--color", "never"]].concat();
        let (of_pipe, (code, of_terminal)) = (gpt2(&plain).succeeds().stdout(), gpt2(&plain).on_terminal());
        assert_eq!(code, Some(0));
        for (screen, columns) in [(of_pipe, 80), (of_terminal, 100)] {
            assert!(screen.lines().any(|row| row.starts_with("layer 0")), "{screen}");
            let rows = screen.lines().filter(|row| row.starts_with("layer "));
            assert!(rows.clone().all(|row| row.trim_end().width() <= columns), "{screen}");
        }
        // Colours say the same as signs and numbers.
        let (_, coloured) = gpt2(line).on_terminal();
        assert!(coloured.contains("\u{1b}[48;5;"), "{coloured}");
    }
    let text = gpt2(&line).succeeds().stdout();
    let total = text.lines().find(|row| row.starts_with("sum / logit: ")).unwrap();
    let [sum, logit] = <[&str; 2]>::try_from(total["sum / logit: ".len()..].split(" / ").collect::<Vec<_>>()).unwrap();
    assert!((sum.parse::<f64>().unwrap() - logit.parse::<f64>().unwrap()).abs() < 1e-3, "{total}");
    assert_eq!(
        text.lines().skip_while(|row| *row != "The largest").skip(1).take_while(|row| !row.starts_with('+')).count(),
        10
    );
}

#[test]
fn pictures_and_pages_have_the_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let line = ["trace", "-m", "demo", "Once upon a", "--attribute", " time"];
    for more in [&["--theme", "dark"][..], &[]] {
        for (view, words) in [(&line[..], "sum / logit"), (&["trace", "-m", "demo", "--heads"], "Induction")] {
            gpt2(&[view, &["--svg", &at("view.svg")], more].concat()).succeeds();
            let svg = std::fs::read_to_string(at("view.svg")).unwrap();
            assert!(svg.contains(words), "{words}");
            gpt2(&[view, &["--svg", &at("view.png")], more].concat()).succeeds();
            assert!(std::fs::read(at("view.png")).unwrap().starts_with(b"\x89PNG"));
        }
    }
    gpt2(&[&line[..], &["--html", &at("page.html")]].concat()).succeeds();
    let page = std::fs::read_to_string(at("page.html")).unwrap();
    assert!(page.contains("sum / logit") && page.contains("\"columns\""));
}

#[test]
fn bad_questions_are_usage_errors() {
    let fails = |more: &[&str], words: &[&str]| {
        gpt2(&[&["trace", "-m", "demo", "Once upon a"][..], more].concat()).fails(2, words);
    };
    fails(&["--attribute", " time king"], &["--attribute", "is 2 tokens: \" time\" \" king\""]);
    fails(&["--attribute", " time", "--against", ""], &["--against \"\" is no token"]);
    fails(&["--attribute", "id:999999"], &["--attribute id:999999", "vocabulary"]);
    fails(&["--against", " king"], &["--against is compared with the token of --attribute"]);
    fails(&["--position", "1"], &["--attribute"]);
    fails(&["--attribute", " time", "--position", "9"], &["--position 9: the prompt has 3 tokens, 0 to 2"]);
    fails(&["--attribute", " time", "--position", "-4"], &["--position -4"]);
    fails(&["--attribute", " time", "--lens", "--svg", "/tmp/x.svg"], &["--svg draws one view"]);
    fails(&["--attribute", " time", "--heads"], &["--heads"]);
    fails(&["--heads", "--seed", "1"], &["leave them out"]);
    fails(&["--seed", "1"], &["--seed chooses the sequence of --heads"]);
    fails(&["--heads", "--lens"], &["--lens"]);
    gpt2(&["trace", "-m", "demo", "--heads", "--length", "100000"]).fails(2, &["--length 100000", "at most"]);
    gpt2(&["trace", "-m", "demo", "Once", "--heads"]).fails(2, &["at least 2 tokens"]);
}
