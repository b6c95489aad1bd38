//! `--ablate` and `--steer` in `trace`, `topk`, `score` and `generate`.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use crate::harness::{gpt2, id_text, tiny, without_row};

const CHECKPOINTS: [&str; 4] = ["base", "erf_inner", "inverse", "untied_f16"];

/// The cases of `tests/fixtures/inside`, which TransformerLens's hooks over transformers computed.
fn cases(checkpoint: &str) -> Vec<Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/inside").join(format!("{checkpoint}.json"));
    let golden: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    ["ablate", "steer"].iter().flat_map(|key| golden[key].as_array().unwrap().clone()).collect()
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// Writes a file of one vector, as Python's safetensors does.
fn write_vector(path: &Path, numbers: &[f32]) {
    write_tensors(path, &[("steer", numbers)]);
}

fn write_tensors(path: &Path, tensors: &[(&str, &[f32])]) {
    let all: HashMap<String, Vec<u8>> =
        tensors.iter().map(|(name, numbers)| ((*name).to_owned(), bytes(numbers))).collect();
    let views = all.iter().map(|(name, bytes)| {
        (name.clone(), TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).expect("a vector"))
    });
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Writes control vectors as llama.cpp's `cvector-generator` does: GGUF 3, tensors `direction.N` of f32.
fn write_control_vectors(path: &Path, architecture: &str, vectors: &[(usize, Vec<f32>)]) {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend((vectors.len() as u64).to_le_bytes());
    file.extend(3u64.to_le_bytes());
    for (key, value) in [("general.architecture", architecture), ("controlvector.model_hint", "gpt2")] {
        file.extend([text(key), 8u32.to_le_bytes().to_vec(), text(value)].concat());
    }
    let count = (vectors.len() as i32).to_le_bytes();
    file.extend([text("controlvector.layer_count"), 5u32.to_le_bytes().to_vec(), count.to_vec()].concat());
    let mut offset = 0u64;
    for (layer, numbers) in vectors {
        file.extend([text(&format!("direction.{layer}")), 1u32.to_le_bytes().to_vec()].concat());
        file.extend((numbers.len() as u64).to_le_bytes());
        file.extend([&0u32.to_le_bytes()[..], &offset.to_le_bytes()].concat());
        offset += (4 * numbers.len() as u64).next_multiple_of(32);
    }
    for (_, numbers) in vectors {
        file.resize(file.len().next_multiple_of(32), 0);
        file.extend(bytes(numbers));
    }
    file.resize(file.len().next_multiple_of(32), 0);
    std::fs::write(path, file).unwrap();
}

/// The flags of a case, whose vectors go to files in `folder`.
fn flags(case: &Value, folder: &Path) -> Vec<String> {
    let mut flags = vec![];
    for spec in case["specs"].as_array().unwrap() {
        flags.extend(["--ablate".to_owned(), spec.as_str().unwrap().to_owned()]);
    }
    let scale = case.get("scale").and_then(Value::as_f64).map(|scale| format!("*{scale}")).unwrap_or_default();
    if let Some(vector) = case.get("vector") {
        let path = folder.join("v.safetensors");
        write_vector(&path, &numbers(vector));
        flags.extend(["--steer".to_owned(), format!("{}@{}{scale}", path.display(), case["layer"])]);
    }
    if let Some(directions) = case.get("directions").and_then(Value::as_object) {
        let path = folder.join("v.gguf");
        let vectors: Vec<_> = directions.iter().map(|(layer, v)| (layer.parse().unwrap(), numbers(v))).collect();
        write_control_vectors(&path, "controlvector", &vectors);
        flags.extend(["--steer".to_owned(), format!("{}{scale}", path.display())]);
    }
    flags
}

#[track_caller]
fn run(command: &str, checkpoint: &str, ids: &Value, flags: &[String], more: &[&str]) -> Value {
    let (folder, ids) = (tiny(checkpoint).display().to_string(), id_text(ids));
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let done = gpt2(&[&[command, "-m", &folder, "--ids", &ids, "--format", "json"], more, &flags].concat()).succeeds();
    assert_eq!(done.stderr(), "", "JSON says it in its settings");
    done.json()
}

#[track_caller]
fn assert_near(found: &[f64], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= 3e-4, "{what}: {found}, not {expected}");
    }
}

fn floats(values: impl Iterator<Item = Value>) -> Vec<f64> {
    values.map(|value| value.as_f64().unwrap()).collect()
}

#[test]
fn every_command_gives_what_hooks_over_transformers_give() {
    let folder = tempfile::tempdir().unwrap();
    for checkpoint in CHECKPOINTS {
        for case in cases(checkpoint) {
            let (flags, ids) = (flags(&case, folder.path()), &case["ids"]);
            let what = format!("{checkpoint}, {flags:?}");
            let top = case["top"].as_array().unwrap();
            let best: Vec<&Value> = top.iter().map(|pair| &pair[0]).collect();
            let expected = floats(top.iter().map(|pair| pair[1].clone()));

            let json = run("topk", checkpoint, ids, &flags, &["-k", &top.len().to_string()]);
            let next = json["positions"][0]["next"].as_array().unwrap();
            assert_eq!(next.iter().map(|it| &it["id"]).collect::<Vec<_>>(), best, "{what}");
            assert_near(&floats(next.iter().map(|it| it["logit"].clone())), &expected, &what);
            assert!(json["settings"].get("ablate").is_some() || json["settings"].get("steer").is_some());

            let json = run("score", checkpoint, ids, &flags, &[]);
            let logprobs = json["logprobs"].as_array().unwrap()[1..].iter().cloned();
            assert_near(&floats(logprobs), &floats(case["logprobs"].as_array().unwrap().iter().cloned()), &what);

            let json = run("generate", checkpoint, ids, &flags, &["-n", "8"]);
            assert_eq!(json["sequences"][0]["ids"], case["generated"], "{what}");

            let json = run("trace", checkpoint, ids, &flags, &["--lens"]);
            let last =
                json["lens"].as_array().unwrap().last().unwrap()["positions"].as_array().unwrap().last().unwrap();
            let ids: Vec<&Value> =
                last["top"].as_array().unwrap().iter().take(best.len()).map(|it| &it["id"]).collect();
            assert_eq!(ids, best, "{what}");
        }
    }
}

/// All cases with the same flags as rows of a file: a row has the result that it has alone, however many run together.
#[test]
fn rows_have_the_results_that_they_have_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (rows, checkpoint) = (folder.path().join("rows.jsonl"), "inverse");
    let texts: Vec<Value> = cases(checkpoint).iter().map(|case| case["ids"].clone()).take(5).collect();
    let lines: String = texts.iter().map(|ids| json!({"ids": ids}).to_string() + "\n").collect();
    std::fs::write(&rows, lines).unwrap();
    let steered = cases(checkpoint).into_iter().find(|case| case.get("vector").is_some()).unwrap();
    let (rows, model) = (rows.display().to_string(), tiny(checkpoint).display().to_string());
    let specs = |specs: &[&str]| specs.iter().flat_map(|spec| ["--ablate".to_owned(), (*spec).to_owned()]).collect();
    for flags in [specs(&["1.0=mean", "2.mlp=mean", "0.attn"]), flags(&steered, folder.path())] {
        for (command, more) in [
            ("topk", &["-k", "7", "--all"][..]),
            ("topk", &["--append", "3"]),
            ("topk", &["-k", "2", "--tree", "2"]),
            ("score", &[]),
            ("score", &["--stride", "3", "--window", "5"]),
            ("score", &["--logprobs", "2", "--entropy"]),
            ("trace", &["--lens", "--hidden", "--attention"]),
            ("generate", &["-n", "5"]),
            ("generate", &["-n", "5", "--num-beams", "3", "--num-return-sequences", "2"]),
            ("generate", &["-n", "5", "--temperature", "1.3", "--seed", "3", "--num-return-sequences", "2"]),
            ("generate", &["-n", "5", "--prompt-lookup", "3"]),
        ] {
            let what = format!("{command} {more:?} {flags:?}");
            let alone: Vec<Value> =
                texts.iter().map(|ids| without_timings(run(command, checkpoint, ids, &flags, more))).collect();
            for size in ["1", "4"] {
                let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
                let call =
                    [&[command, "-m", &model, "--input", &rows, "--batch-size", size, "--ordered"], more, &flags];
                let found = gpt2(&call.concat()).succeeds().json_lines();
                let found: Vec<Value> = found.into_iter().map(|row| without_timings(without_row(row))).collect();
                assert!(found == alone, "{what}, {size} together:\n{found:#?}\n{alone:#?}");
            }
        }
    }
}

fn without_timings(mut record: Value) -> Value {
    let record_ = record.as_object_mut().unwrap();
    record_.remove("timings");
    record_.retain(|_, value| !value.is_null());
    record
}

#[test]
fn what_is_said_first_is_what_was_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    write_vector(&path("v.safetensors"), &[0.5; 32]);
    write_control_vectors(&path("v.gguf"), "controlvector", &[(1, vec![0.5; 32]), (2, vec![0.1; 32])]);
    let model = tiny("base").display().to_string();
    let steer = "--steer v.safetensors@2*1.5 --steer v.gguf*-2 --steer v.gguf@1 --ablate 0.1 --ablate 1.attn=mean --ablate 2.mlp";
    let line = "changed: head 0.1 ablated (zero); attention of layer 1 ablated (mean); MLP of layer 2 ablated (zero); \
                +1.5 x v.safetensors after block 2; -2 x v.gguf after blocks 1 to 2; +1 x v.gguf after block 1\n";
    for command in ["trace", "topk", "score", "generate"] {
        let call: Vec<&str> = [command, "-m", &model, "--ids", "1 2 3"].into_iter().chain(steer.split(' ')).collect();
        let done = gpt2(&call).current_dir(folder.path()).succeeds();
        assert!(done.stderr().starts_with(line), "{command}: {}", done.stderr());
        let quiet = gpt2(&[&call[..], &["-q"]].concat()).current_dir(folder.path()).succeeds();
        assert_eq!((quiet.stderr().as_str(), quiet.stdout()), ("", done.stdout()), "{command}");
        let json = gpt2(&[&call[..], &["--format", "json"]].concat()).current_dir(folder.path()).succeeds().json();
        let settings = &json["settings"];
        assert_eq!(settings["ablate"], json!(["0.1=zero", "1.attn=mean", "2.mlp=zero"]), "{command}");
        let one = &settings["steer"][0];
        let said = (&one["file"], &one["layer"], &one["scale"]);
        assert_eq!(said, (&json!("v.safetensors"), &json!(2), &json!(1.5)), "{command}");
        assert_eq!(one["hash"].as_str().unwrap().len(), 16);
        assert_eq!(settings["steer"][1]["layer"], Value::Null);
    }
}

/// Steering from one text and against another after the last block turns the end of the one into that of the other.
#[test]
fn texts_steer_without_a_file() {
    let best = |text: &str, more: &[&str]| {
        let json =
            gpt2(&[&["topk", "-m", "demo", "-k", "3", "--format", "json", text], more].concat()).succeeds().json();
        (json["positions"][0]["next"].clone(), json["settings"]["steer"].clone())
    };
    let layers = gpt2(&["info", "-m", "demo", "--format", "json"]).succeeds().json()["config"]["n_layer"].clone();
    let last = layers.as_u64().unwrap() - 1;
    let against = format!("The little girl@{last}");
    let (steered, settings) = best("The little girl", &["--steer-from", "Once upon a", "--steer-against", &against]);
    let (expected, _) = best("Once upon a", &[]);
    for (found, expected) in steered.as_array().unwrap().iter().zip(expected.as_array().unwrap()) {
        assert_eq!(found["id"], expected["id"]);
        assert!((found["prob"].as_f64().unwrap() - expected["prob"].as_f64().unwrap()).abs() < 1e-3);
    }
    let steer = json!({"from": "Once upon a", "against": "The little girl", "layer": last, "scale": 1.0});
    assert_eq!(settings, json!([steer]));
    let text = gpt2(&["topk", "-m", "demo", "Once", "--steer-from", "Love", "--steer-against", "Hate@1*2"]).succeeds();
    assert!(text.stderr().starts_with("changed: +2 x (\"Love\" - \"Hate\") after block 1\n"), "{}", text.stderr());
}

#[test]
fn another_change_is_another_run() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rows.jsonl"), "{\"ids\": [1, 2, 3]}\n").unwrap();
    let model = tiny("base").display().to_string();
    let base = ["score", "-m", &model, "--input", "rows.jsonl", "--output", "out.jsonl", "--resume", "-q"];
    let run = |more: &[&str]| gpt2(&[&base[..], more].concat()).current_dir(folder.path());
    write_vector(&folder.path().join("v.safetensors"), &[0.5; 32]);
    let steer = ["--steer", "v.safetensors@1"];
    run(&steer).succeeds();
    run(&steer).succeeds();
    run(&[]).fails(2, &["made with --steer"]);
    run(&["--steer", "v.safetensors@1*2"]).fails(2, &["made with --steer"]);
    write_vector(&folder.path().join("v.safetensors"), &[0.25; 32]);
    run(&steer).fails(2, &["made with --steer"]);
}

#[test]
fn what_cannot_be_changed_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    write_vector(&file("wide.safetensors"), &[0.5; 33]);
    write_vector(&file("v.safetensors"), &[0.5; 32]);
    write_tensors(&file("two.safetensors"), &[("a", &[0.5; 32]), ("b", &[0.5; 32])]);
    write_tensors(&file("none.safetensors"), &[]);
    write_vector(&file("nan.safetensors"), &[f32::NAN; 32]);
    write_vector(&file("huge.safetensors"), &[1e38; 32]);
    write_control_vectors(&file("far.gguf"), "controlvector", &[(1, vec![0.5; 32]), (3, vec![0.5; 32])]);
    write_control_vectors(&file("zero.gguf"), "controlvector", &[(0, vec![0.5; 32])]);
    write_control_vectors(&file("model.gguf"), "gpt2", &[(1, vec![0.5; 32])]);
    std::fs::write(file("text.safetensors"), "some text that is no vector").unwrap();
    let model = tiny("base").display().to_string();
    for (flags, words) in [
        (&["--ablate", "3.0"][..], &["--ablate 3.0: there is no layer 3; the model has 0 to 2"][..]),
        (&["--ablate", "0.4"], &["--ablate 0.4: a layer has heads 0 to 3"]),
        (&["--ablate", "x"], &["--ablate takes a head", "not x"]),
        (&["--ablate", "0.mlp=median"], &["--ablate takes a head"]),
        (&["--ablate", "0.1", "--ablate", "0.1=mean"], &["--ablate 0.1 is both zero and mean"]),
        (&["--ablate", "0.attn,1.attn"], &["--ablate takes a head"]),
        (&["--steer", "wide.safetensors@0"], &["wide.safetensors", "33 numbers", "32"]),
        (&["--steer", "v.safetensors"], &["which block?", "v.safetensors@3"]),
        (&["--steer", "v.safetensors@3"], &["v.safetensors: there is no layer 3"]),
        (&["--steer", "v.safetensors@0*inf"], &["--steer takes a finite number as its scale, not *inf"]),
        (&["--steer", "huge.safetensors@0*10"], &["huge.safetensors", "too large"]),
        (&["--steer", "two.safetensors@0"], &["two.safetensors", "2 tensors"]),
        (&["--steer", "none.safetensors@0"], &["none.safetensors", "no tensor"]),
        (&["--steer", "nan.safetensors@0"], &["nan.safetensors", "NaN"]),
        (&["--steer", "missing.safetensors@0"], &["--steer cannot read missing.safetensors: ", "(os error 2)"]),
        (&["--steer", "text.safetensors@0"], &["text.safetensors", "not a vector"]),
        (&["--steer", "far.gguf"], &["far.gguf: there is no layer 3"]),
        (&["--steer", "far.gguf@2"], &["far.gguf", "no control vector for block 2"]),
        (&["--steer", "zero.gguf"], &["zero.gguf", "`direction.0`"]),
        (&["--steer", "model.gguf"], &["model.gguf", "architecture is \"gpt2\""]),
        (&["--steer-from", "Love"], &["1 --steer-from and 0 --steer-against"]),
        (
            &["--steer-from", "Love", "--steer-against", "Hate"],
            &["--steer-against takes a text with its block at the end, as in Hate@3"],
        ),
        (&["--steer-from", "", "--steer-against", "Hate@1"], &["--steer-from is empty"]),
        (&["--steer-from", "Love", "--steer-against", "@1"], &["--steer-against is empty"]),
        (&["--steer-from", "Love", "--steer-against", "Hate@1"], &["--steer-from needs a tokenizer"]),
    ] {
        for command in ["topk", "generate"] {
            let call = [&[command, "-m", &model, "--ids", "1 2 3"], flags].concat();
            let done = gpt2(&call).current_dir(folder.path()).fails(2, words);
            assert_eq!(done.stderr().lines().count(), 1, "{flags:?}: {}", done.stderr());
        }
    }
    let everything = (0..3).flat_map(|layer| [format!("{layer}.attn=mean"), format!("{layer}.mlp")]);
    let flags: Vec<String> = everything.flat_map(|spec| ["--ablate".to_owned(), spec]).collect();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    for command in ["trace", "score"] {
        gpt2(&[&[command, "-m", &model, "--ids", "1 2 3"], &flags[..]].concat()).fails(2, &["takes out every block"]);
    }
}

/// A file is passed on without what was said on stderr.
#[test]
fn pictures_and_pages_name_what_was_changed() {
    let folder = tempfile::tempdir().unwrap();
    for (command, name) in [
        (&["trace", "--lens"][..], "a.svg"),
        (&["trace", "--attribute", " time"], "b.svg"),
        (&["trace", "--heads"], "c.svg"),
        (&["trace"], "d.html"),
        (&["score"], "e.html"),
        (&["topk", "--all"], "f.html"),
    ] {
        let path = folder.path().join(name);
        let flag = if name.ends_with("svg") { "--svg" } else { "--html" };
        let more = ["-m", "demo", "Once upon a", "--ablate", "0.1=mean", flag, path.to_str().unwrap()];
        gpt2(&[command, &more].concat()).succeeds();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("demo, ablated 0.1=mean"), "{name}");
    }
}
