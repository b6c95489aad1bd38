//! `gpt2 trace --save` with names, patterns and rows.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::harness::{gpt2, id_text, inside, tiny};

const CHECKPOINTS: [&str; 4] = ["base", "erf_inner", "inverse", "untied_f16"];

/// A file's tensors: shapes and numbers.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

pub fn tensors(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let numbers = |data: &[u8]| data.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    file.tensors().into_iter().map(|(name, view)| (name, (view.shape().to_vec(), numbers(view.data())))).collect()
}

/// Saves the activations of ids with these flags.
fn save(checkpoint: &str, ids: &str, path: &Path, flags: &[&str]) -> String {
    let (folder, file) = (tiny(checkpoint).display().to_string(), path.display().to_string());
    gpt2(&[&["trace", "-m", &folder, "--ids", ids, "--save", &file], flags].concat()).succeeds().stderr()
}

const LENS: [&str; 2] = ["--names", "transformer-lens"];

#[test]
fn every_activation_is_that_of_transformer_lens() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.safetensors");
    for checkpoint in CHECKPOINTS {
        for case in inside(checkpoint)["activations"].as_array().unwrap() {
            save(checkpoint, &id_text(&case["ids"]), &path, &LENS);
            let mut found = tensors(&path);
            assert!(found.remove("logits").is_some());
            let expected = case["names"].as_object().unwrap();
            assert_eq!(
                found.keys().collect::<Vec<_>>(),
                {
                    let mut names: Vec<&String> = expected.keys().collect();
                    names.sort();
                    names
                },
                "{checkpoint}"
            );
            for (name, activation) in expected {
                let (shape, numbers) = &found[name];
                assert_eq!(json!(shape), activation["shape"], "{checkpoint} {name}");
                let at = activation["at"].as_array().unwrap().iter().map(|at| at.as_u64().unwrap() as usize);
                for (at, value) in at.zip(activation["values"].as_array().unwrap()) {
                    let (ours, theirs) = (f64::from(numbers[at]), value.as_f64().unwrap());
                    assert!(
                        (ours - theirs).abs() <= 2e-4 * theirs.abs().max(1.0),
                        "{checkpoint} {name} {at}: {ours}, {theirs}"
                    );
                }
                // Scores are compared up to the query; what is masked is -∞.
                let is_masked = |at: usize| name.ends_with("attn_scores") && at % shape[2] > at / shape[2] % shape[1];
                let seen: Vec<f64> =
                    (0..numbers.len()).filter(|at| !is_masked(*at)).map(|at| f64::from(numbers[at])).collect();
                assert!((0..numbers.len()).filter(|at| is_masked(*at)).all(|at| numbers[at] == f32::NEG_INFINITY));
                let mean = seen.iter().sum::<f64>() / seen.len() as f64;
                let std = (seen.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / seen.len() as f64).sqrt();
                for (ours, key) in [(mean, "mean"), (std, "std")] {
                    let theirs = activation[key].as_f64().unwrap();
                    assert!(
                        (ours - theirs).abs() <= 2e-4 * theirs.abs().max(1.0),
                        "{checkpoint} {name} {key}: {ours}, {theirs}"
                    );
                }
            }
        }
    }
}

/// Sums of the recorded parts are the residual stream, and softmax of the scores is the pattern.
#[test]
fn activations_fit_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.safetensors");
    let file = path.display().to_string();
    gpt2(&[&["trace", "-m", "demo", "Once upon a time there was a king", "--save", &file], &LENS[..]].concat())
        .succeeds();
    let found = tensors(&path);
    let near = |sum: &[&str], whole: &str| {
        for (at, expected) in found[whole].1.iter().enumerate() {
            let sum: f32 = sum.iter().map(|name| found[*name].1[at]).sum();
            assert!((sum - expected).abs() < 1e-3, "{whole} {at}: {sum} {expected}");
        }
    };
    near(&["hook_embed", "hook_pos_embed"], "blocks.0.hook_resid_pre");
    near(&["blocks.3.hook_resid_pre", "blocks.3.hook_attn_out"], "blocks.3.hook_resid_mid");
    near(&["blocks.3.hook_resid_mid", "blocks.3.hook_mlp_out"], "blocks.3.hook_resid_post");
    near(&["blocks.3.hook_resid_post"], "blocks.4.hook_resid_pre");
    let ((shape, scores), (_, pattern)) =
        (&found["blocks.2.attn.hook_attn_scores"], &found["blocks.2.attn.hook_pattern"]);
    for (scores, pattern) in scores.chunks(shape[2]).zip(pattern.chunks(shape[2])) {
        let sum: f32 = scores.iter().map(|score| score.exp()).sum();
        assert!(scores.iter().zip(pattern).all(|(score, weight)| (score.exp() / sum - weight).abs() < 1e-4));
    }
}

#[test]
fn patterns_choose_what_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let [all, some] = ["all.safetensors", "some.safetensors"].map(|name| folder.path().join(name));
    save("base", "1 2 3 4", &all, &LENS);
    let all = tensors(&all);
    let keep = |flags: &[&str]| {
        save("base", "1 2 3 4", &some, &[&LENS[..], flags].concat());
        tensors(&some)
    };
    let z = keep(&["--keep", "blocks.*.attn.hook_z"]);
    assert!(z.len() > 1 && z.keys().all(|name| name.ends_with("attn.hook_z")), "{:?}", z.keys());
    let several = keep(&["--keep", "blocks.0.attn.*", "--keep", "hook_embed,ln_final.*"]);
    assert_eq!(several.len(), 6 + 2);
    for (name, tensor) in z.iter().chain(&several) {
        assert_eq!(tensor, &all[name], "{name}: the same bits");
    }
    // Our own names, and NumPy's file.
    let npz = folder.path().join("some.npz");
    save("base", "1 2 3 4", &npz, &["--keep", "blocks.?.hidden", "--keep", "final"]);
    let mut archive = zip::ZipArchive::new(std::fs::File::open(&npz).unwrap()).unwrap();
    let names: Vec<String> = archive.file_names().map(|name| name.unwrap().into_owned()).collect();
    assert!(
        names.contains(&"final.npy".to_owned())
            && names.iter().all(|name| name.contains("hidden") || name == "final.npy")
    );
    let mut array = vec![];
    archive.by_name("final.npy").unwrap().read_to_end(&mut array).unwrap();
    save("base", "1 2 3 4", &some, &[]);
    let last: Vec<u8> = tensors(&some)["final"].1.iter().flat_map(|x| x.to_le_bytes()).collect();
    assert!(array.ends_with(&last));
}

#[test]
fn a_pattern_that_matches_nothing_is_refused_with_names() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.safetensors").display().to_string();
    let run = |flags: &[&str]| gpt2(&[&["trace", "-m", "demo", "Once", "--save", &file], flags].concat());
    run(&["--keep", "blocks.*.hook_z", "--names", "transformer-lens", "--keep", "nothing"])
        .fails(2, &["\"nothing\"", "blocks.5.attn.hook_z", "logits"]);
    run(&["--keep", "blocks.*.attn.hook_z"])
        .fails(2, &["\"blocks.*.attn.hook_z\" (among the names of transformer-lens there is)", "blocks.5.attention"]);
    run(&["--keep", ""]).fails(2, &["\"\""]);
    run(&["--names", "TransformerLens"]).fails(2, &["transformer-lens"]);
    gpt2(&["trace", "-m", "demo", "Once", "--names", "transformer-lens"]).fails(2, &["--save"]);
    gpt2(&["trace", "-m", "demo", "Once", "--keep", "logits"]).fails(2, &["--keep", "--save"]);
    gpt2(&["score", "-m", "demo", "Once", "--keep", "logits"]).fails(2, &["--keep is about the rows of --input"]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// Rows have the bits that each has alone, whatever the batch and the number of threads, and one that fails leaves the others.
#[test]
fn rows_are_saved_under_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny("base").display().to_string();
    let rows = "{\"id\": \"a/b\", \"ids\": [1, 2, 3], \"note\": 1}\n{\"id\": 7, \"ids\": [4]}\n{\"ids\": [99999]}\n{\"ids\": [5, 6]}\n";
    let path = folder.path().join("rows.safetensors");
    let file = path.display().to_string();
    let flags =
        ["trace", "-m", &model, "--input", "-", "--save", &file, "--keep", "blocks.*.attn.*", "--keep", "logits"];
    let run = |more: &[&str]| {
        let done = gpt2(&[&flags[..], &LENS, more].concat()).stdin(rows).fails(3, &["1 row failed"]);
        assert!(done.stderr().contains("activations of 3 texts"), "{}", done.stderr());
        (done.json_lines(), tensors(&path))
    };
    let (records, found) = run(&[]);
    assert_eq!((records.len(), &records[0]["input"], &records[2]["ok"]), (4, &json!({"note": 1}), &Value::Bool(false)));
    let one = folder.path().join("one.safetensors");
    let mut count = 0;
    for (name, ids) in [("a/b", "1 2 3"), ("7", "4"), ("4", "5 6")] {
        save("base", ids, &one, &[&LENS[..], &["--keep", "blocks.*.attn.*", "--keep", "logits"]].concat());
        for (activation, alone) in tensors(&one) {
            count += 1;
            assert_eq!(found[&format!("{name}/{activation}")], alone, "{name} {activation}");
        }
    }
    assert_eq!(found.len(), count);
    for more in [&["--batch-size", "1"][..], &["--batch-size", "2", "--threads", "1"]] {
        assert_eq!(run(more).1, found, "{more:?}");
    }
    // A name that is there already is the row's fault.
    let twice = "{\"id\": 3, \"ids\": [1]}\n{\"ids\": [2]}\n{\"ids\": [3]}\n";
    let done = gpt2(&flags).stdin(twice).fails(2, &["no activation is called"]);
    assert!(done.stdout().is_empty());
    let done = gpt2(&flags[..7]).stdin(twice).fails(3, &["1 row failed"]);
    assert!(done.json_lines()[2]["error"].as_str().unwrap().contains("\"3/embed\" is taken"), "{}", done.stdout());
    let output = folder.path().join("o.jsonl").display().to_string();
    gpt2(&[&flags[..7], &["--output", &output, "--resume"]].concat()).stdin(twice).fails(2, &["--resume", "--save"]);
    let lines =
        gpt2(&["trace", "-m", "demo", "--lines", "-", "--save", &file, "--keep", "logits"]).stdin("Once\nupon\n");
    assert!(lines.succeeds().stdout().is_empty(), "nobody asked for a view");
    assert_eq!(tensors(&path).keys().collect::<Vec<_>>(), ["1/logits", "2/logits"]);
}
