//! `gpt2 embed`.

use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{gpt2, id_text, inside, tiny};
use crate::saved::tensors;

const CHECKPOINTS: [&str; 4] = ["base", "erf_inner", "inverse", "untied_f16"];

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

#[test]
fn vectors_match_transformers() {
    for checkpoint in CHECKPOINTS {
        let model = tiny(checkpoint).display().to_string();
        for case in inside(checkpoint)["embed"].as_array().unwrap() {
            let (ids, layer) = (id_text(&case["ids"]), case["layer"].to_string());
            let mut flags = vec!["embed", "-m", &model, "--ids", &ids, "--pool", case["pool"].as_str().unwrap()];
            flags.extend(["--format", "json"]);
            if !case["layer"].is_null() {
                flags.extend(["--layer", &layer]);
            }
            let record = gpt2(&flags).succeeds().json();
            assert_eq!(
                (&record["layer"], &record["pool"], &record["ids"]),
                (&case["layer"], &case["pool"], &case["ids"])
            );
            let (ours, theirs) = (numbers(&record["embedding"]), numbers(&case["embedding"]));
            assert_eq!(ours.len(), theirs.len());
            for (ours, theirs) in ours.iter().zip(theirs) {
                assert!((ours - theirs).abs() <= 2e-4 * theirs.abs().max(1.0), "{checkpoint} {case}: {ours}, {theirs}");
            }
        }
    }
}

/// Each way of pooling is of the same vectors, which are those that `trace` saves.
#[test]
fn pooling_is_over_the_positions() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.safetensors");
    gpt2(&["trace", "-m", "demo", "Once upon a time", "--save", path.to_str().unwrap()]).succeeds();
    let saved = tensors(&path);
    for (layer, name) in [(None, "final"), (Some("2"), "blocks.2.hidden"), (Some("5"), "blocks.5.hidden")] {
        let run = |pool: &str| {
            let layer = layer.map_or(vec![], |layer| vec!["--layer", layer]);
            gpt2(
                &[&["embed", "-m", "demo", "Once upon a time", "--format", "json", "--pool", pool], &layer[..]]
                    .concat(),
            )
            .succeeds()
            .json()["embedding"]
                .clone()
        };
        let each: Vec<Vec<f32>> = run("none").as_array().unwrap().iter().map(numbers).collect();
        assert_eq!((each.len(), each.concat()), (4, saved[name].1.clone()), "{name}");
        assert_eq!(numbers(&run("last")), each[3]);
        for (column, mean) in numbers(&run("mean")).into_iter().enumerate() {
            let expected = each.iter().map(|vector| f64::from(vector[column])).sum::<f64>() / 4.0;
            assert!((f64::from(mean) - expected).abs() < 1e-6 * expected.abs().max(1.0));
        }
    }
    let default = gpt2(&["embed", "-m", "demo", "Once upon a time", "--format", "json"]).succeeds().json();
    assert_eq!((&default["pool"], &default["layer"]), (&json!("mean"), &Value::Null));
}

/// A row's vector has the same bits alone and in any batch, on one thread and on several.
#[test]
fn rows_are_as_alone() {
    let texts = ["Once upon a time", "x", "The king had a son, and the son had a horse that could speak", "", "a b c"];
    let rows: String =
        texts.iter().enumerate().map(|(i, text)| format!("{}\n", json!({"id": i, "text": text}))).collect();
    let run = |more: &[&str]| {
        gpt2(&[&["embed", "-m", "demo", "--input", "-"], more].concat()).stdin(&rows).succeeds().json_lines()
    };
    for flags in [&[][..], &["--layer", "3"], &["--pool", "last"], &["--pool", "none", "--layer", "0"]] {
        let together = run(flags);
        assert!(
            gpt2(&["embed", "-m", "demo", "--input", "-"])
                .stdin(&rows)
                .succeeds()
                .stdout()
                .starts_with("{\"id\":0,\"line\":1,")
        );
        for more in [&["--batch-size", "1"][..], &["--batch-size", "3", "--threads", "1"]] {
            assert_eq!(run(&[flags, more].concat()), together, "{flags:?} {more:?}");
        }
        for (text, record) in texts.iter().zip(&together) {
            let alone = gpt2(&[&["embed", "-m", "demo", "--prompt", text, "--format", "json"], flags].concat());
            assert_eq!(alone.succeeds().json()["embedding"], record["embedding"], "{text:?} {flags:?}");
        }
    }
}

#[test]
fn rows_become_tensors_with_their_ids_for_names() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let rows = "{\"id\": \"é\", \"text\": \"Once\"}\n{\"id\": 5, \"text\": \"upon a\"}\nno row\n{\"text\": \"time\"}\n";
    let run = |more: &[&str]| gpt2(&[&["embed", "-m", "demo", "--input", "-"], more].concat()).stdin(rows);
    let records = run(&["--pool", "none"]).fails(3, &["1 row failed"]).json_lines();
    let summary = at("s.json");
    let done = run(&["--output", &at("v.safetensors"), "--pool", "none", "--summary", &summary]).fails(3, &["line 3"]);
    assert!(done.stdout().is_empty() && done.stderr().contains("the vectors of 3 texts"), "{}", done.stderr());
    let found = tensors(Path::new(&at("v.safetensors")));
    assert_eq!(found.keys().collect::<Vec<_>>(), ["4", "5", "é"]);
    for (name, line) in [("é", 0), ("5", 1), ("4", 3)] {
        let expected: Vec<Vec<f32>> = records[line]["embedding"].as_array().unwrap().iter().map(numbers).collect();
        assert_eq!(found[name], (vec![expected.len(), expected[0].len()], expected.concat()), "{name}");
    }
    assert_eq!(serde_json::from_slice::<Value>(&std::fs::read(&summary).unwrap()).unwrap()["ok"], 3);
    run(&["--output", &at("v.npz"), "--keep-going"]).succeeds();
    let mut archive = zip::ZipArchive::new(std::fs::File::open(at("v.npz")).unwrap()).unwrap();
    let mut array = vec![];
    archive.by_name("5.npy").unwrap().read_to_end(&mut array).unwrap();
    assert!(archive.len() == 3 && array.starts_with(b"\x93NUMPY"));
    // The texts of two files without ids are told apart by their files.
    for name in ["a.txt", "b.txt"] {
        std::fs::write(at(name), "{\"text\": \"Once\"}\n").unwrap();
    }
    let done = gpt2(&["embed", "-m", "demo", "--input", "a.txt", "b.txt", "--output", "two.safetensors"])
        .current_dir(folder.path());
    done.succeeds();
    assert_eq!(tensors(Path::new(&at("two.safetensors"))).keys().collect::<Vec<_>>(), ["a.txt:1", "b.txt:1"]);
}

#[test]
fn one_text_becomes_one_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("v.safetensors");
    let base = ["embed", "-m", "demo", "Once upon a time"];
    let record = gpt2(&[&base[..], &["--format", "json"]].concat()).succeeds().json();
    let done = gpt2(&[&base[..], &["--output", path.to_str().unwrap()]].concat()).succeeds();
    assert!(done.stdout().is_empty() && done.stderr().contains("the vector of the text"), "{}", done.stderr());
    let expected = numbers(&record["embedding"]);
    assert_eq!(tensors(&path)["embedding"], (vec![expected.len()], expected));
}

#[test]
fn lines_are_resumed_and_sharded() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("t.jsonl"), "{\"id\": 1, \"text\": \"Once\"}\n{\"id\": 2, \"text\": \"upon\"}\n")
        .unwrap();
    let run = |more: &[&str]| {
        let base = ["embed", "-m", "demo", "--input", "t.jsonl", "--output", "o.jsonl"];
        gpt2(&[&base[..], more].concat()).current_dir(folder.path())
    };
    let output = || std::fs::read_to_string(folder.path().join("o.jsonl")).unwrap();
    run(&[]).succeeds();
    let whole = output();
    std::fs::write(folder.path().join("o.jsonl"), whole.lines().next().unwrap().to_owned() + "\n{\"id\": 2, \"li")
        .unwrap();
    run(&["--resume", "--pool", "last"]).fails(2, &["pool"]);
    run(&["--resume"]).succeeds();
    assert_eq!(output(), whole);
    run(&["--shard", "0/2"]).succeeds();
    assert_eq!(output().lines().collect::<Vec<_>>(), [whole.lines().nth(1).unwrap()]);
}

#[test]
fn what_cannot_be_is_refused() {
    let run = |flags: &[&str]| gpt2(&[&["embed", "-m", "demo"], flags].concat());
    run(&["Once", "--layer", "6"]).fails(2, &["--layer 6", "0 to 5"]);
    run(&["Once", "--layer", "-1"]).fails(2, &["--layer"]);
    run(&["Once", "--pool", "max"]).fails(2, &["mean", "last", "none"]);
    run(&["Once", "--output", "v.jsonl"]).fails(2, &["--output", "F.safetensors"]);
    run(&["Once", "--output", "v.npz", "--format", "json"]).fails(2, &["--format"]);
    run(&["Once", "--output", "/nonexistent/v.npz"]).fails(1, &["/nonexistent"]);
    run(&["Once", "--resume"]).fails(2, &["--output"]);
    run(&["--lines", "-", "--output", "v.npz", "--resume"]).stdin("Once\n").fails(2, &["--resume"]);
    run(&["--lines", "-", "--output", "v.jsonl", "--format", "text"]).stdin("Once\n").fails(2, &["--output"]);
    run(&["--prompt", &"Once ".repeat(600)]).fails(2, &["512"]);
    run(&["--ids", "99999999"]).fails(2, &["99999999"]);
    run(&["Once", "--keep", "a"]).fails(2, &["--keep is about the rows"]);
}

#[test]
fn people_see_how_long_vectors_are() {
    let shown = gpt2(&["embed", "-m", "demo", "Once upon a time"]).succeeds().stdout();
    assert!(shown.starts_with("Residual stream after the final norm, mean over 4 tokens: "), "{shown}");
    let each = gpt2(&["embed", "-m", "demo", "Once upon a time", "--pool", "none", "--layer", "2"]).succeeds().stdout();
    assert!(each.contains("after block 2, at each of 4 tokens") && each.contains("\" time\""), "{each}");
    assert!((shown + &each).lines().all(|line| line.chars().count() <= 80));
}
