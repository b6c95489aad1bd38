//! `gpt2 score` with contexts, candidates, words, rolling windows, entropies and tables.
//!
//! `tests/fixtures/score` says where the expected values come from.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{gpt2, id_text, tiny};

const CHECKPOINTS: [&str; 4] = ["base", "erf_inner", "inverse", "untied_f16"];

fn golden(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/score").join(name).with_extension("json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn array(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("{value} is no array"))
}

/// Runs `score` with the checkpoint.
fn score(checkpoint: &str, arguments: &[&str]) -> Value {
    let folder = tiny(checkpoint).display().to_string();
    gpt2(&[&["score", "-m", &folder, "--format", "json"], arguments].concat()).succeeds().json()
}

/// Runs `score` with the built-in model in `f32`.
fn demo(arguments: &[&str]) -> Value {
    gpt2(&[&["score", "-m", "demo", "--dtype", "f32", "--format", "json"], arguments].concat()).succeeds().json()
}

fn rows(arguments: &[&str], rows: &[Value]) -> Vec<Value> {
    let input: String = rows.iter().map(|row| format!("{row}\n")).collect();
    gpt2(&[&["score", "--input", "-"], arguments].concat()).stdin(&input).succeeds().json_lines()
}

/// Compares numbers that may be null, or arrays of them.
#[track_caller]
fn assert_near(ours: &Value, theirs: &Value, tolerance: f64, what: &str) {
    match (ours, theirs) {
        (Value::Array(ours), Value::Array(theirs)) => {
            assert_eq!(ours.len(), theirs.len(), "{what}");
            ours.iter().zip(theirs).for_each(|(ours, theirs)| assert_near(ours, theirs, tolerance, what));
        }
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!((a - b).abs() <= tolerance, "{what}: {a}, expected {b}");
        }
        (ours, theirs) => assert_eq!(ours, theirs, "{what}"),
    }
}

#[track_caller]
fn assert_same(ours: &Value, theirs: &Value, keys: &[&str], what: &str) {
    for key in keys {
        assert_eq!(ours[key], theirs[key], "{what}: {key}");
    }
}

#[test]
fn texts_after_contexts_match_transformers() {
    for checkpoint in CHECKPOINTS {
        let golden = golden(checkpoint);
        let cases = array(&golden["context"]);
        let folder = tiny(checkpoint).display().to_string();
        let asked: Vec<Value> =
            cases.iter().map(|case| json!({"ids": case["ids"], "context_ids": case["context_ids"]})).collect();
        let found = rows(&["-m", &folder, "--entropy"], &asked);
        for (case, found) in cases.iter().zip(&found) {
            let what = format!("{checkpoint} {}", case["ids"]);
            assert_same(found, case, &["context_ids", "ids", "is_greedy"], &what);
            assert_near(&found["logprobs"], &case["logprobs"], 1e-4, &what);
            assert_near(&found["entropies"], &case["entropies"], 1e-4, &what);
            assert_near(&found["sum_logprob"], &case["sum_logprob"], 1e-4, &what);
            if let (Some(text), Some(context)) = (case["text"].as_str(), case["context"].as_str()) {
                let found = score(checkpoint, &["--tokenizer", "gpt2", "--context", context, "--entropy", text]);
                assert_same(&found, case, &["context_ids", "ids", "is_greedy"], &what);
                assert_near(&found["logprobs"], &case["logprobs"], 1e-4, &what);
            }
        }
    }
}

#[test]
fn rolling_windows_entropies_and_the_end_match_transformers() {
    for checkpoint in CHECKPOINTS {
        let golden = golden(checkpoint);
        for (kind, flags) in [("rolling", &["--rolling"][..]), ("entropy", &["--entropy"]), ("eos", &["--eos"])] {
            for case in array(&golden[kind]) {
                let (ids, window) = (id_text(&case["ids"]), case["context_length"].to_string());
                let mut arguments = [&["--ids", &ids][..], flags].concat();
                if case["context_length"].is_u64() {
                    arguments.extend(["--window", &window]);
                }
                if case["bos"] == true {
                    arguments.push("--bos");
                }
                let (found, what) = (score(checkpoint, &arguments), format!("{checkpoint} {arguments:?}"));
                assert_near(&found["logprobs"], &case["logprobs"], 1e-4, &what);
                if kind == "entropy" {
                    assert_near(&found["entropies"], &case["entropies"], 1e-4, &what);
                }
                if kind == "rolling" {
                    assert_near(&found["sum_logprob"], &case["sum_logprob"], 1e-3, &what);
                    assert_eq!(found["protocol"]["rolling"], true);
                }
                let own = array(&found["ids"]).len() - usize::from(kind == "eos");
                assert_eq!(array(&found["ids"])[..own], array(&case["ids"])[..], "{what}");
            }
        }
    }
}

#[test]
fn words_match_the_reference_with_and_without_the_correction() {
    for case in array(&golden("demo")["words"]) {
        let text = case["text"].as_str().unwrap();
        for correction in ["none", "bow"] {
            for (start, flags) in [("bos", &["--bos"][..]), ("plain", &[])] {
                let found = demo(&[&["--words", "--word-correction", correction, text], flags].concat());
                assert_eq!(found["ids"], case["ids"]);
                let expected = array(&case[format!("{correction}_{start}")]);
                assert_eq!(array(&found["words"]).len(), expected.len(), "{text}");
                for (ours, theirs) in array(&found["words"]).iter().zip(expected) {
                    assert_same(ours, theirs, &["word", "start", "end", "first", "last"], text);
                    assert_near(&ours["logprob"], &theirs["logprob"], 2e-4, text);
                    assert_near(&ours["surprisal"], &theirs["surprisal"], 3e-4, text);
                }
            }
        }
        // The correction is the default.
        assert_eq!(demo(&["--words", text])["words"], demo(&["--words", "--word-correction", "bow", text])["words"]);
    }
}

#[test]
fn contexts_and_candidates_have_the_tokens_of_the_harness() {
    let golden = golden("demo");
    for case in array(&golden["context"]) {
        let (context, text) = (case["context"].as_str().unwrap(), case["text"].as_str().unwrap());
        let found = demo(&["--context", context, "--entropy", text]);
        assert_same(&found, case, &["context_ids", "ids", "is_greedy"], text);
        assert_near(&found["logprobs"], &case["logprobs"], 1e-4, text);
        assert_near(&found["entropies"], &case["entropies"], 1e-4, text);
    }
    for case in array(&golden["candidates"]) {
        let candidates = array(&case["candidates"]).iter().map(|candidate| candidate["text"].as_str().unwrap());
        let candidates: Vec<&str> = candidates.collect();
        let context = case["context"].as_str().unwrap();
        let flags: Vec<&str> = candidates.iter().flat_map(|text| ["--candidate", text]).collect();
        let of_flags = demo(&[&["--context", context], &flags[..]].concat());
        let of_rows = rows(&["-m", "demo", "--dtype", "f32"], &[json!({"context": context, "candidates": candidates})]);
        for found in [&of_flags, &of_rows[0]] {
            assert_same(found, case, &["context_ids", "best", "best_per_token", "best_per_byte"], context);
            for (ours, theirs) in array(&found["candidates"]).iter().zip(array(&case["candidates"])) {
                assert_same(ours, theirs, &["text", "ids", "bytes", "is_greedy"], context);
                assert_near(&ours["logprobs"], &theirs["logprobs"], 1e-4, context);
                assert_near(&ours["sum_logprob"], &theirs["sum_logprob"], 1e-4, context);
            }
        }
        let text = gpt2(&[&["score", "-m", "demo", "--context", context], &flags[..]].concat()).succeeds().stdout();
        let best = candidates[case["best"].as_u64().unwrap() as usize];
        assert!(text.lines().nth(1).unwrap().contains(&format!("{best:?}")), "{text}");
    }
}

/// Whatever rows run together, in whatever order, and whatever they have in common: each has the same bits as alone.
#[test]
fn rows_that_share_contexts_have_the_same_bits_alone_and_together() {
    let mut state = 12345_u64;
    let mut draw = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let contexts: Vec<Vec<usize>> =
        [0, 1, 15, 16, 17, 33, 60, 80].map(|len| (0..len).map(|_| draw(200)).collect()).into();
    let mut all = vec![];
    for id in 0..60 {
        let mut context = contexts[draw(8)].clone();
        // Some leave a common context early.
        context.truncate(context.len() - if draw(3) == 0 { draw(context.len() + 1) } else { 0 });
        let below = if draw(2) == 0 { 3 } else { 200 };
        let text: Vec<usize> = (0..=draw(12)).map(|_| draw(below)).collect();
        all.push(match draw(4) {
            0 => json!({"id": id, "context_ids": context, "candidates": [text, [1], [1, 2], text]}),
            1 => {
                let ids = [context, text].concat();
                json!({"id": id, "ids": ids})
            }
            _ => json!({"id": id, "context_ids": context, "ids": text}),
        });
    }
    let folder = tiny("base").display().to_string();
    let sorted = |mut results: Vec<Value>| {
        for result in &mut results {
            result.as_object_mut().unwrap().remove("line");
        }
        results.sort_by_key(|result| result["id"].as_u64());
        results
    };
    let alone = sorted(rows(&["-m", &folder, "--entropy", "--batch-size", "1"], &all));
    for size in ["2", "7", "32", "60"] {
        for i in (1..all.len()).rev() {
            all.swap(i, draw(i + 1));
        }
        let together = sorted(rows(&["-m", &folder, "--entropy", "--batch-size", size], &all));
        assert_eq!(together, alone, "--batch-size {size}");
    }
}

#[test]
fn a_text_may_be_one_token_longer_than_the_context() {
    let folder = tiny("base").display().to_string();
    let run = |context: usize, text: usize, more: &[&str]| {
        let row = json!({"context_ids": vec![7; context], "ids": vec![8; text]});
        rows(&[&["-m", &folder], more].concat(), &[row]).remove(0)
    };
    assert_eq!(array(&run(90, 7, &[])["logprobs"]).len(), 7);
    let input = json!({"context_ids": vec![7; 90], "ids": vec![8; 8]}).to_string();
    let failed = gpt2(&["score", "-m", &folder, "--input", "-"]).stdin(&input).output();
    assert!(failed.stdout().contains("90 tokens, the text 8, and the model's context is 96"), "{}", failed.stdout());
}

#[test]
fn rows_take_the_context_and_candidates_of_the_flags() {
    let asked = [
        json!({"id": 1, "text": " time"}),
        json!({"id": 2, "text": " time", "context": "The"}),
        json!({"id": 3, "context": "The"}),
        json!({"id": 4, "context": "Once", "candidates": [" upon", [257]]}),
    ];
    let flags =
        ["-m", "demo", "--dtype", "f32", "--context", "Once upon a", "--candidate", " king", "--candidate", " a"];
    let found = rows(&flags, &asked);
    assert_eq!(found[0]["sum_logprob"], demo(&["--context", "Once upon a", " time"])["sum_logprob"]);
    assert_eq!(found[1]["sum_logprob"], demo(&["--context", "The", " time"])["sum_logprob"]);
    let texts = |i: usize| array(&found[i]["candidates"]).iter().map(|c| c["text"].clone()).collect::<Vec<_>>();
    assert_eq!(texts(2), [" king", " a"]);
    assert_eq!(texts(3), [" upon", " a"]);
    // All rows have the same keys.
    let keys = |i: usize| {
        let mut keys: Vec<&String> = found[i].as_object().unwrap().keys().collect();
        keys.sort();
        keys
    };
    assert!((1..4).all(|i| keys(i) == keys(0)), "{:?} {:?}", keys(0), keys(2));
}

#[test]
fn rows_that_ask_too_much_or_nothing_say_so() {
    for (row, error) in [
        (json!({"context": "a"}), "no `candidates`"),
        (json!({"text": "a", "candidates": ["b"]}), "both a text and `candidates`"),
        (json!({"context": "a", "context_ids": [1], "text": "b"}), "both `context` and `context_ids`"),
        (json!({"context": "a", "candidates": []}), "`candidates` is empty"),
        (json!({"context": "a", "candidates": "b"}), "`candidates` is \"b\"; it takes a list of texts"),
        (json!({"context": 5, "text": "b"}), "`context` is 5; it takes a text"),
        (json!({"context": "a", "text": ""}), "the text is empty"),
        (json!({"context": " beautif", "text": "ul"}), "nothing is left to score"),
        (json!({"context_ids": [50257], "ids": [1]}), "50257"),
        (json!({"text": "a", "candidate": ["b"]}), "nearly `candidates`"),
    ] {
        let done = gpt2(&["score", "-m", "demo", "--input", "-"]).stdin(row.to_string()).output();
        let found: Value = serde_json::from_str(done.stdout().trim()).unwrap();
        assert!(found["error"].as_str().is_some_and(|found| found.contains(error)), "{row}: {found}");
    }
}

#[test]
fn flags_that_do_not_go_together_are_refused() {
    for (flags, words) in [
        (&["--context", "a", "--stride", "8", "b"][..], &["--context", "--window"][..]),
        (&["--context", "a", "--rolling", "b"], &["--rolling", "--context"]),
        (&["--rolling", "--stride", "8", "b"], &["--rolling", "--stride"]),
        (&["--candidate", "a", "--stride", "8"], &["--candidate", "--stride"]),
        (&["--candidate", "a", "--words"], &["--candidate", "--words"]),
        (&["--candidate", "a", "--format", "tsv"], &["tsv", "--candidate"]),
        (&["--candidate", "a", "b"], &["--candidate"]),
        (&["--window", "8", "b"], &["--window", "--stride"]),
        (&["--word-correction", "none", "b"], &["--words"]),
        (&["--context", " beautif", "ul"], &["nothing is left"]),
    ] {
        gpt2(&[&["score", "-m", "demo"], flags].concat()).fails(2, words);
    }
}

#[test]
fn tables_have_the_columns_of_the_contract() {
    let table = |flags: &[&str]| {
        let text = gpt2(&[&["score", "-m", "demo", "--format", "tsv"], flags].concat()).succeeds().stdout();
        text.lines().map(|line| line.split('\t').map(str::to_owned).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    let text = "\"Go,\" he\nsaid";
    let tokens = table(&[text, "--entropy"]);
    assert_eq!(tokens[0], ["row", "position", "id", "token", "logprob", "surprisal_bits", "rank", "entropy_bits"]);
    assert_eq!(tokens[1], ["1", "0", "1", "\"\"\"\"", "", "", "", ""]);
    assert_eq!((tokens.len(), &*tokens[5][3]), (7, "\\n"));
    let record = gpt2(&["score", "-m", "demo", text, "--entropy", "--format", "json"]).succeeds().json();
    assert_eq!(tokens[2][4], record["logprobs"][1].to_string());
    let bits: f64 = tokens[2][7].parse().unwrap();
    assert!((bits - record["entropies"][1].as_f64().unwrap() / std::f64::consts::LN_2).abs() < 1e-9);

    let words = table(&[text, "--words", "--bos"]);
    assert_eq!(words[0], ["row", "index", "word", "start", "end", "tokens", "logprob", "surprisal_bits"]);
    assert_eq!(words[1][..6], ["1", "0", "\"\"\"Go,\"\"\"", "0", "5", "3"]);
    assert_eq!(words[3][..6], ["1", "2", "said", "9", "13", "2"]);

    let input = "{\"id\": \"a\", \"text\": \"Once upon\"}\n{\"text\": \"The king\"}\n";
    let arguments = ["score", "-m", "demo", "--format", "tsv", "--words", "--input", "-"];
    let of_rows = gpt2(&arguments).stdin(input).succeeds().stdout();
    let names: Vec<&str> = of_rows.lines().map(|line| line.split('\t').next().unwrap()).collect();
    assert_eq!(names, ["row", "a", "a", "2", "2"]);
    let arguments = [&arguments[..], &["--output", "x.jsonl"]].concat();
    gpt2(&arguments).fails(2, &["--output"]);
}

#[test]
fn lines_and_alternatives_are_shown_to_people() {
    let lines = gpt2(&["score", "-m", "demo", "--lines", "-"]).stdin("Once upon\nThe king\n").succeeds().stdout();
    assert!(lines.contains("=== 1: \"Once upon\" ===") && lines.contains("\" king\""), "{lines}");
    let record = gpt2(&["score", "-m", "demo", "Once upon a", "--logprobs", "3", "--format", "json"]).succeeds().json();
    assert_eq!(record["top_logprobs"][0], Value::Null);
    assert_eq!(array(&record["top_logprobs"][2]).len(), 3);
    // A token that is the best has the number of the best, to the last digit.
    assert_eq!(record["ranks"][2], 1);
    assert_eq!(record["top_logprobs"][2][0]["logprob"], record["logprobs"][2]);
}

#[cfg(unix)]
#[test]
fn alternatives_fit_the_terminal() {
    let (_, screen) = gpt2(&["score", "-m", "demo", "Once upon a", "--logprobs", "50"]).on_terminal();
    let plain = regex::Regex::new("\x1b\\[[0-9;]*m").unwrap().replace_all(&screen, "").into_owned();
    assert!(plain.contains("\" upon\"       \" a\" 19.9%"), "{plain}");
    assert!(plain.lines().all(|line| line.chars().count() <= 100), "{plain}");
}

/// Words do not depend on `<|endoftext|>` between texts, which belongs to none.
#[test]
fn an_end_of_text_ends_a_word() {
    let words = |text: &str| {
        let record = gpt2(&["score", "-m", "demo", "--bos", "--words", "--format", "json", text]).succeeds().json();
        let words = array(&record["words"]).clone();
        words
            .iter()
            .map(|word| (word["word"].clone(), word["start"].clone(), word["first"].clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        words("Once<|endoftext|>The king"),
        [
            (json!("Once"), json!(0), json!(0)),
            (json!("The"), json!(17), json!(2)),
            (json!("king"), json!(21), json!(3))
        ]
    );
}

/// The keys of results of texts and candidates, and of failures, are the same in the same order.
#[test]
fn rows_of_all_kinds_have_their_keys_in_one_order() {
    let rows = concat!(
        "{\"text\": \"Once upon\"}\n",
        "{\"context\": \"Once\", \"text\": \" upon\"}\n",
        "{\"context\": \"Once\", \"candidates\": [\" upon\", \" a\"]}\n",
        "{\"text\": 7}\n",
        "no row\n",
    );
    for flags in [&[][..], &["--entropy"], &["--words"], &["--logprobs", "2"]] {
        let ran = gpt2(&[&["score", "-m", "demo", "--input", "-"], flags].concat()).stdin(rows);
        let keys = |row: &Value| row.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let all: Vec<_> = ran.fails(3, &[]).json_lines().iter().map(keys).collect();
        assert_eq!(all.len(), 5, "{flags:?}");
        assert!(all.iter().all(|keys| *keys == all[0]), "{flags:?} {all:?}");
        let mut sorted = all[0].clone();
        sorted.sort();
        assert_ne!(all[0], sorted, "the order of keys is that of the records");
    }
}

/// What is advised works.
#[test]
fn what_does_not_fit_after_a_context_is_advised_what_does() {
    let words = |n: usize| vec![" a"; n].concat();
    let (context, text) = (words(510), words(10));
    let advice = "error: what comes before the text has 510 tokens, the text 10, and the model's context is 512; \
                  keep no more of the former than its last 503 tokens\n";
    let score = |context: &str| gpt2(&["score", "-m", "demo", "--context", context, &text]);
    score(&context).fails(2, &[advice]);
    score(&words(503)).succeeds();
    score(&words(504)).fails(2, &["503 tokens"]);
    gpt2(&["score", "-m", "demo", "--context", &context, "--candidate", &text, "--candidate", " b"])
        .fails(2, &[advice]);
    gpt2(&["score", "-m", "demo", "--context", " a", &words(520)]).fails(2, &["; shorten the text\n"]);
    let row = json!({"context": context, "text": text}).to_string() + "\n";
    let failed = gpt2(&["score", "-m", "demo", "--input", "-"]).stdin(&row).fails(3, &[]).json_lines();
    assert_eq!(failed[0]["error_kind"], "context");
    assert!(failed[0]["error"].as_str().unwrap().ends_with("its last 503 tokens"), "{}", failed[0]);
}
