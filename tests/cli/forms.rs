//! Checkpoints as other projects write them: each gives what the project that wrote it computes.
//!
//! `tests/fixtures/formats` says where the files and the expected values come from.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::{gpt2, id_text, tiny};

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

/// Checks a model against what the project that wrote it computes from a prompt.
fn check(run: &[String], vocab: &Value, case: &Value) {
    let (ids, vocab) = (id_text(&case["ids"]), vocab.to_string());
    let topk = command("topk", run, &["--ids", &ids, "--all", "-k", &vocab, "--format", "json"]);
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
}

#[test]
fn each_form_computes_what_its_project_computes() {
    let mut prompts = 0;
    for (run, golden) in runs() {
        for case in golden["forward"].as_array().into_iter().flatten() {
            prompts += 1;
            check(&run, &golden["vocab"], case);
            let generate =
                command("generate", &run, &["--ids", &id_text(&case["ids"]), "-n", "16", "--format", "json"]);
            let continuation = gpt2(&generate).succeeds().json();
            assert_eq!(continuation["sequences"][0]["ids"], case["greedy"], "{run:?}");
        }
    }
    assert!(prompts > 0, "no case was run");
}

/// With the tied head or without, with zeros for missing biases, with adapters merged.
#[test]
fn each_form_is_converted_for_transformers() {
    for folder in cases() {
        let Some((run, golden)) =
            runs().find(|(run, _)| run.iter().any(|part| part.contains(folder.to_str().unwrap())))
        else {
            continue;
        };
        let Some(case) = golden["forward"].get(0) else { continue };
        let out = tempfile::tempdir().unwrap();
        let model = out.path().join("model.safetensors").display().to_string();
        gpt2(&command("convert", &run, &["--to", "f32", &model])).succeeds();
        check(&["--model".into(), out.path().display().to_string()], &golden["vocab"], case);
        let answer = gpt2(&["info", "--model", &model, "--tensors", "--format", "json"]).succeeds().json();
        let tensors = answer["tensors"].as_array().unwrap();
        // transformers would start a missing bias at random, or warn.
        assert!(tensors.iter().any(|tensor| tensor["name"] == "transformer.h.1.attn.c_attn.bias"), "{run:?}");
    }
}

fn format(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats").join(name)
}

/// A copy of some files of a folder.
fn copy(folder: &Path, names: &[&str]) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in names {
        std::fs::copy(folder.join(name), copy.path().join(name)).unwrap();
    }
    copy
}

#[test]
fn any_file_of_a_model_stands_for_the_whole() {
    let sharded = tiny("untied_f16");
    let shard = std::fs::read_dir(&sharded).unwrap().map(|entry| entry.unwrap().path());
    let shard = shard.filter(|path| path.to_str().unwrap().contains("-of-")).max().expect("a later shard");
    let tensorflow = format("openai_tf").join("model");
    for (part, whole) in [
        (shard.as_path(), sharded.as_path()),
        (&tensorflow.join("model.ckpt.data-00000-of-00001"), &tensorflow),
        (&tensorflow.join("model.ckpt"), &tensorflow),
        (&format("gguf_split/model/tiny-00003-of-00003.gguf"), &format("gguf_split/model")),
    ] {
        let of = |model: &Path| gpt2(&["topk", "-m", model.to_str().unwrap(), "--ids", "1 2"]).succeeds().stdout();
        assert_eq!(of(part), of(whole), "{}", part.display());
    }
}

#[test]
fn what_is_missing_or_of_another_kind_is_named() {
    let split = format("gguf_split/model");
    let lacking = copy(&split, &["tiny-00002-of-00003.gguf", "tiny-00003-of-00003.gguf"]);
    let tensorflow = format("openai_tf").join("model");
    let without_index = copy(&tensorflow, &["hparams.json", "model.ckpt.data-00000-of-00001"]);
    let without_hparams = copy(&tensorflow, &["model.ckpt.index", "model.ckpt.data-00000-of-00001"]);
    let keras = tempfile::tempdir().unwrap();
    std::fs::write(keras.path().join("tf_model.h5"), "").unwrap();
    let headless = copy(&tiny("base"), &["model.safetensors"]);
    let config = std::fs::read(tiny("base").join("config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    config["tie_word_embeddings"] = false.into();
    std::fs::write(headless.path().join("config.json"), config.to_string()).unwrap();
    for (folder, code, words) in [
        (lacking.path(), 1, &["tiny-00001-of-00003.gguf"][..]),
        (without_index.path(), 1, &["model.ckpt.data-00000-of-00001", "*.index"]),
        (without_hparams.path(), 1, &["model.ckpt.index", "hparams.json"]),
        (keras.path(), 1, &["tf_model.h5", "safetensors"]),
        (headless.path(), 1, &["lm_head.weight", "tie_word_embeddings"]),
        (&format("lfs_plain/model"), 2, &["width 28", "--n-head"]),
        (&format("lora_c_attn/adapter"), 2, &["LoRA adapter", "--adapter"]),
    ] {
        for subcommand in ["topk", "info"] {
            let ids = if subcommand == "topk" { &["--ids", "1"][..] } else { &[] };
            let arguments = [&[subcommand, "--model", folder.to_str().unwrap()], ids].concat();
            gpt2(&arguments).fails(code, words);
        }
    }
}

#[test]
fn a_folder_with_another_models_configuration_is_not_written_to() {
    let out = tempfile::tempdir().unwrap();
    let model = out.path().join("model.safetensors");
    let convert = |case: &str| {
        let source = format(case).join("model");
        gpt2(&["convert", "--model", source.to_str().unwrap(), "--to", "f32", model.to_str().unwrap()])
    };
    convert("hf_quick_gelu").succeeds();
    let before = std::fs::read(&model).unwrap();
    convert("hf_quick_gelu").succeeds();
    convert("hf_tanh").fails(2, &["config.json", "another model"]);
    assert_eq!(std::fs::read(&model).unwrap(), before);
}

/// A header of 640 or 1408 bytes gives a file the first bytes of a pickle.
#[test]
fn a_safetensors_file_may_begin_like_a_pickle() {
    let folder = copy(&tiny("base"), &["model.safetensors", "config.json"]);
    let path = folder.path().join("model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    let length = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for padded in [0x1_0280, 0x1_0580] {
        let header = [&whole[8..8 + length], &vec![b' '; padded - length]].concat();
        std::fs::write(&path, [&(padded as u64).to_le_bytes()[..], &header, &whole[8 + length..]].concat()).unwrap();
        gpt2(&["topk", "--model", path.to_str().unwrap(), "--ids", "1"]).succeeds();
    }
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
