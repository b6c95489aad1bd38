//! `gpt2 topk`.

use serde_json::Value;

use crate::harness::{golden, gpt2, id_text, tiny};

fn topk(checkpoint: &str, ids: &Value, more: &[String]) -> Value {
    let folder = tiny(checkpoint).display().to_string();
    let arguments = ["topk", "-m", &folder, "--ids", &id_text(ids), "--format", "json"].map(String::from);
    gpt2(&[&arguments[..], more].concat()).succeeds().json()
}

fn strings(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(ToString::to_string).collect()
}

#[test]
fn logits_and_argmax_match_transformers() {
    for checkpoint in ["base", "erf_inner", "inverse", "untied_f16"] {
        for case in golden(checkpoint)["forward"].as_array().unwrap() {
            let json = topk(checkpoint, &case["ids"], &strings(&["--all", "-k", "1000"]));
            let positions = json["positions"].as_array().unwrap();
            let argmax: Vec<&Value> = positions.iter().map(|p| &p["next"][0]["id"]).collect();
            assert_eq!(argmax, case["argmax"].as_array().unwrap().iter().collect::<Vec<_>>(), "{checkpoint}");
            let last = positions.last().unwrap();
            for candidate in last["next"].as_array().unwrap() {
                let expected = case["logits_last"][candidate["id"].as_u64().unwrap() as usize].as_f64().unwrap();
                assert!((candidate["logit"].as_f64().unwrap() - expected).abs() < 1e-4, "{checkpoint}");
            }
        }
    }
}

/// Probabilities after the processors agree within 1e-5, and exactly the same tokens remain.
#[test]
fn distributions_after_the_processors_match_transformers() {
    for checkpoint in ["base", "erf_inner", "inverse", "untied_f16"] {
        for case in golden(checkpoint)["distribution"].as_array().unwrap() {
            let mut flags = strings(&["-k", "1000"]);
            for (key, value) in case["params"].as_object().unwrap() {
                flags.extend([format!("--{}", key.replace('_', "-")), value.to_string()]);
            }
            let json = topk(checkpoint, &case["ids"], &flags);
            let next = json["positions"][0]["next"].as_array().unwrap();
            let expected = case["probs"].as_object().unwrap();
            assert_eq!(next.len(), expected.len(), "{checkpoint} {}", case["params"]);
            for candidate in next {
                let theirs = expected[&candidate["id"].to_string()].as_f64().unwrap();
                let ours = candidate["prob"].as_f64().unwrap();
                assert!((ours - theirs).abs() < 1e-5, "{checkpoint} {}: {ours} {theirs}", case["params"]);
            }
        }
    }
}

#[test]
fn the_json_has_the_keys_of_the_contract() {
    let json = gpt2(&["topk", "-m", "demo", "Once upon a", "-k", "2", "--format", "json"]).succeeds().json();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&json), ["model", "prompt_ids", "positions", "settings"]);
    let position = &json["positions"][0];
    assert_eq!(keys(position), ["position", "id", "token", "entropy", "next"]);
    assert_eq!(keys(&position["next"][0]), ["rank", "id", "token", "logit", "prob", "logprob"]);
    assert_eq!((&position["position"], &position["id"], &position["token"]), (&2.into(), &257.into(), &" a".into()));
}

#[test]
fn positions_count_from_both_ends() {
    let at = |n: &str| gpt2(&["topk", "-m", "demo", "Once upon a time", "--position", n, "--format", "json"]);
    assert_eq!(at("1").succeeds().json()["positions"][0]["id"], 2402);
    assert_eq!(at("-1").succeeds().json(), at("3").succeeds().json());
    at("4").fails(2, &["--position 4", "4 tokens"]);
    at("-5").fails(2, &["--position -5"]);
}

#[test]
fn text_reads_like_a_lesson() {
    let all = gpt2(&["topk", "-m", "demo", "Once upon a", "--all", "-k", "1"]).succeeds().stdout();
    let lines: Vec<&str> = all.lines().map(str::trim_start).collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[0].starts_with("\"Once\" => \" ") && lines[0].ends_with('%'), "{all}");
    assert!(lines[2].starts_with("\" a\" => \" time\" "), "{all}");
    let pieces = gpt2(&["topk", "-m", "demo", "Once upon a", "--all", "-k", "1", "--pieces"]).succeeds().stdout();
    assert!(pieces.lines().nth(2).unwrap().trim_start().starts_with("Ġa => Ġtime "), "{pieces}");
    let bars = gpt2(&["topk", "-m", "demo", "Once upon a", "-k", "3"]).succeeds().stdout();
    let first = bars.lines().next().unwrap();
    assert!(first.contains('█') && first.contains("\" time\"") && first.contains('%'), "{bars}");
    assert!(!bars.contains('\u{1b}'), "no colour on a pipe");
}

/// A token given with `--token` has the rank and probability of the full list.
#[test]
fn given_tokens_are_ranked() {
    let run = |more: &[&str]| {
        let base = ["topk", "-m", "demo", "Once upon a", "--format", "json"];
        gpt2(&[&base[..], more].concat()).succeeds().json()["positions"][0].clone()
    };
    let all = run(&["-k", "60000"]);
    let asked = run(&["-k", "1", "--token", " time", "--token", " king"]);
    for token in asked["tokens"].as_array().unwrap() {
        let rank = token["rank"].as_u64().unwrap() as usize;
        assert_eq!(&all["next"][rank - 1], token);
    }
    gpt2(&["topk", "-m", "demo", "Once", "--token", "two words"]).fails(2, &["--token", "2 tokens"]);
}

/// Joint probabilities are products along the path, and each node matches `topk` after that path.
#[test]
fn the_tree_multiplies_along_its_paths() {
    let tree =
        gpt2(&["topk", "-m", "demo", "Once upon", "--tree", "3", "-k", "2", "--format", "json"]).succeeds().json();
    let second = &tree["tree"][1];
    let third = &second["next"][0];
    let leaf = &third["next"][1];
    let product: f64 = [second, third, leaf].iter().map(|node| node["prob"].as_f64().unwrap()).product();
    assert!((leaf["joint_prob"].as_f64().unwrap() - product).abs() < 1e-9);
    let path = format!("7454 2402 {} {}", second["id"], third["id"]);
    let after = gpt2(&["topk", "-m", "demo", "--ids", &path, "-k", "2", "--format", "json"]).succeeds().json();
    let expected = &after["positions"][0]["next"][1];
    assert_eq!((&leaf["id"], &leaf["prob"]), (&expected["id"], &expected["prob"]));
    gpt2(&["topk", "-m", "demo", "Once", "--tree", "9", "-k", "1000"]).fails(2, &["--tree 9"]);
}

/// The bars' scale is that of the best token, and no probability becomes 0.
#[test]
fn bars_have_a_scale_and_small_probabilities_are_shown() {
    let run = |flags: &[&str]| gpt2(&[&["topk", "-m", "demo", "Once upon a"], flags].concat()).succeeds();
    let text = run(&["-k", "3", "--token", " x"]).stdout();
    let best = run(&["-k", "1", "--format", "json"]).json()["positions"][0]["next"][0]["prob"].as_f64().unwrap();
    assert!(text.contains(&format!("the longest bar is {:.2}%", 100.0 * best)), "{text}");
    assert_eq!(text.lines().next().unwrap().matches('█').count(), 30, "{text}");
    let cold = ["--temperature", "0.05", "-k", "2", "--token", " x"];
    let (text, json) = (run(&cold).stdout(), run(&[&cold[..], &["--format", "json"]].concat()).json());
    let logprob = json["positions"][0]["tokens"][0]["logprob"].as_f64().unwrap();
    let power = (logprob / std::f64::consts::LN_10).floor();
    let line = text.lines().find(|line| line.contains("\" x\"")).unwrap();
    assert!(power < -50.0 && line.contains(&format!("e{power} ")), "{logprob}: {line}");
}

/// `-k` is how many are shown, `--top-k` is how many are left.
#[test]
fn the_text_says_what_the_processors_did() {
    let run = |flags: &[&str]| gpt2(&[&["topk", "-m", "demo", "Once upon a", "-k", "3"], flags].concat()).succeeds();
    let text = run(&["--top-k", "40"]).stdout();
    assert!(text.contains("after --top-k 40: renormalised over 40 tokens\n"), "{text}");
    let json = run(&["--top-k", "40", "--format", "json"]).json();
    assert_eq!(json["positions"][0]["kept"], 40);
    assert!(run(&["--temperature", "0.7"]).stdout().ends_with("after --temperature 0.7\n"));
    assert!(!run(&[]).stdout().contains("after"));
    let all = run(&["--all", "--top-p", "0.9", "--temperature", "0.7"]).stdout();
    let kept = run(&["--all", "--top-p", "0.9", "--temperature", "0.7", "--format", "json"]).json();
    let kept: Vec<u64> = kept["positions"].as_array().unwrap().iter().map(|p| p["kept"].as_u64().unwrap()).collect();
    let (least, most) = (kept.iter().min().unwrap(), kept.iter().max().unwrap());
    let note = format!("after --temperature 0.7 --top-p 0.9: renormalised over {least} to {most} tokens");
    assert!(all.contains(&note), "{all}");
}

/// Where both neighbours are known, a part of a character is named after it; elsewhere it is its bytes.
#[test]
fn parts_of_characters_are_named() {
    let text = "a 😀";
    let all = gpt2(&["topk", "-m", "demo", text, "--all", "-k", "1"]).succeeds().stdout();
    let last: Vec<&str> = all.lines().skip(1).map(str::trim_start).collect();
    assert!(last[0].starts_with("\" 😀\" 1/2 =>") && last[1].starts_with("\" 😀\" 2/2 =>"), "{all}");
    // 222 is the byte 80, with which 😀 ends.
    let alone = gpt2(&["topk", "-m", "demo", text, "--position", "1", "-k", "50257"]).succeeds().stdout();
    assert!(alone.contains("\"\\x80\"  (222)"));
    let scores = gpt2(&["score", "-m", "demo", text]).succeeds().stdout();
    assert!(scores.contains("\" 😀\" 1/2\n") && scores.contains("\" 😀\" 2/2\n"), "{scores}");
}

/// The loop that takes the best token and runs again is greedy search: transformers' greedy sequences, with and without
/// processors.
#[test]
fn the_loop_appends_what_greedy_search_generates() {
    let mut checked = 0;
    for checkpoint in ["base", "erf_inner", "inverse", "untied_f16"] {
        for case in golden(checkpoint)["generate"].as_array().unwrap() {
            let params = case["params"].as_object().unwrap();
            let is_greedy = params.keys().all(|key| ["repetition_penalty", "no_repeat_ngram_size"].contains(&&**key));
            let expected = case["sequences"][0].as_array().unwrap();
            if !is_greedy || expected.is_empty() {
                continue;
            }
            let steps = expected.len().to_string();
            let mut flags = strings(&["--append", &steps, "-k", "2"]);
            for (key, value) in params {
                flags.extend([format!("--{}", key.replace('_', "-")), value.to_string()]);
            }
            let json = topk(checkpoint, &case["ids"], &flags);
            let ids: Vec<&Value> = json["steps"].as_array().unwrap().iter().map(|step| &step["id"]).collect();
            assert_eq!(ids, expected.iter().collect::<Vec<_>>(), "{checkpoint} {params:?}");
            let all = [case["ids"].as_array().unwrap().as_slice(), expected].concat();
            assert_eq!(json["all_ids"], Value::from(all));
            checked += 1;
        }
    }
    assert!(checked >= 4, "{checked}");
}

#[test]
fn each_step_is_the_distribution_after_the_steps_before() {
    let base = ["topk", "-m", "demo", "Once upon a", "-k", "3", "--token", " king"];
    let json = gpt2(&[&base[..], &["--append", "3", "--format", "json"]].concat()).succeeds().json();
    let mut ids = "7454 2402 257".to_owned();
    for step in json["steps"].as_array().unwrap() {
        let after = ["topk", "-m", "demo", "--ids", &ids, "-k", "3", "--token", " king", "--format", "json"];
        let position = gpt2(&after).succeeds().json()["positions"][0].clone();
        for key in ["position", "entropy", "next", "tokens"] {
            assert_eq!(step[key], position[key], "{key} after {ids}");
        }
        assert_eq!((&step["id"], &step["prob"]), (&position["next"][0]["id"], &position["next"][0]["prob"]));
        ids = format!("{ids} {}", step["id"]);
    }
    assert_eq!(json["text"], "Once upon a time there was");
    let text = gpt2(&[&base[..], &["--append", "3"]].concat()).succeeds().stdout();
    assert!(text.contains("\n640: \" time\" → 612: \" there\" → 373: \" was\"\n"), "{text}");
    assert!(text.ends_with("\"Once upon a time there was\"\n"), "{text}");
    gpt2(&[&base[..], &["--append", "511"]].concat()).fails(2, &["--append 511", "room for 510"]);
    for more in [&["--tree", "2"][..], &["--all"], &["--position", "0"]] {
        gpt2(&[&base[..], &["--append", "2"], more].concat()).fails(2, &["--append"]);
    }
}
