//! Checkpoints in practice: the same model in other formats, and damaged or hostile weights.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use gpt2::checkpoint::gguf::{self, Metadata, TokenKind, Vocabulary};
use gpt2::checkpoint::{Checkpoint, TensorSpec, WeightFiles};
use gpt2::config::Config;

use crate::harness::{Done, gpt2, tiny};

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoint").join(name)).unwrap()
}

fn weights() -> Vec<u8> {
    std::fs::read(tiny("base").join("model.safetensors")).unwrap()
}

/// A model folder with the configuration of `tiny/base` and these files.
fn model(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(tiny("base").join("config.json"), folder.path().join("config.json")).unwrap();
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

fn topk(model: &Path) -> [String; 8] {
    let model = model.to_str().unwrap();
    ["topk", "--model", model, "--ids", "1 2 3", "-k", "5", "--format=json"].map(String::from)
}

/// Asserts that a model with only this weight file is refused in one `error:` line that names the file.
#[track_caller]
fn refused(name: &str, bytes: &[u8], words: &[&str]) -> Done {
    let folder = model(&[(name, bytes)]);
    let done = gpt2(&topk(folder.path())).current_dir(folder.path()).fails(1, &[&[name], words].concat());
    assert_eq!(done.stderr().trim_end().lines().count(), 1, "more than one line:\n{}", done.stderr());
    assert!(!folder.path().join("gpt2-was-here").exists(), "code in {name} ran");
    done
}

#[test]
fn damaged_safetensors_are_refused() {
    const NAME: &str = "model.safetensors";
    let whole = weights();
    refused(NAME, &whole[..whole.len() - 1], &["tensor `", "truncated or damaged"]);
    refused(NAME, &whole[..100], &["header claims", "truncated or damaged"]);
    refused(NAME, b"", &["is empty"]);
    refused(NAME, &[&u64::MAX.to_le_bytes()[..], b"{\"a\":1}"].concat(), &["header claims 18446744073709551615 bytes"]);
    refused(NAME, b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 5\n", &["pointer", "git lfs pull"]);
    refused(NAME, b"<!doctype html><title>Not found</title>", &["a web page"]);
}

#[test]
fn damaged_and_hostile_pickles_are_refused() {
    const NAME: &str = "pytorch_model.bin";
    let whole = fixture("views.bin");
    refused(NAME, &fixture("evil.bin"), &["would run code: `posix.system`; refused"]);
    refused(NAME, &fixture("evil_legacy.bin"), &["would run code: `posix.system`; refused"]);
    refused(NAME, b"cos\nsystem\n(S'touch gpt2-was-here'\ntR.", &["would run code: `os.system`; refused"]);
    refused(NAME, &fixture("big_endian.bin"), &["little-endian"]);
    refused(NAME, &whole[..whole.len() / 2], &["truncated or damaged"]);
    refused(NAME, b"PK\x03\x04", &["zip directory cannot be read"]);
    refused(NAME, b"no checkpoint at all", &["not a PyTorch checkpoint"]);
}

#[test]
fn an_index_cannot_name_files_outside_its_folder() {
    for shard in ["../model.safetensors", "/etc/passwd"] {
        let index = format!(r#"{{"weight_map": {{"wte.weight": "{shard}"}}}}"#);
        refused("model.safetensors.index.json", index.as_bytes(), &[shard, "must be in the folder"]);
    }
}

#[test]
fn tensors_that_do_not_fit_the_configuration_are_named() {
    let folder = model(&[("pytorch_model.bin", &fixture("views.bin"))]);
    gpt2(&topk(folder.path())).fails(1, &["pytorch_model.bin: tensor `transformer.wte.weight` has shape [5, 4]"]);
}

const ALPHABET: [&str; 5] = ["a", "b", "ab", "Ġ", "<|endoftext|>"];

/// `tiny/base` as GGUF, where the matrices of the blocks are transposed, with a tokenizer of a few tokens.
fn as_gguf(folder: &Path) -> PathBuf {
    let config = Config::from_file(&tiny("base").join("config.json")).unwrap();
    let weights = Checkpoint::open(&WeightFiles::File(tiny("base").join("model.safetensors"))).unwrap();
    let weights: Vec<_> = weights.tensors().collect();
    let specs: Vec<_> = weights
        .iter()
        .map(|(id, tensor)| {
            let mut shape = tensor.shape.clone();
            if id.is_conv1d() {
                shape.reverse();
            }
            TensorSpec { name: id.gguf_name(), dtype: tensor.dtype, shape }
        })
        .collect();
    let bytes_of = |place: usize| {
        let (id, tensor) = weights[place];
        if !id.is_conv1d() {
            return Ok(Cow::Borrowed(&*tensor.bytes));
        }
        let (numbers, _) = tensor.bytes.as_chunks::<4>();
        let columns = tensor.shape[1];
        Ok((0..columns).flat_map(|column| numbers.iter().skip(column).step_by(columns).flatten().copied()).collect())
    };
    let path = folder.join("model.gguf");
    let mut metadata = Metadata::from_config(&config).unwrap();
    metadata.push_vocabulary(&Vocabulary {
        tokens: ALPHABET.map(Cow::Borrowed).to_vec(),
        kinds: [[TokenKind::Normal; 4].as_slice(), &[TokenKind::Control]].concat(),
        merges: vec!["a b".into()],
        ..Vocabulary::default()
    });
    gguf::write(&path, &metadata, &specs, bytes_of).unwrap();
    path
}

#[test]
fn a_gguf_file_gives_the_same_as_its_source() {
    let folder = tempfile::tempdir().unwrap();
    let path = as_gguf(folder.path());
    let probabilities = |model: &Path| -> Vec<(u64, f64)> {
        let answer = gpt2(&topk(model)).succeeds().json();
        let next = answer["positions"][0]["next"].as_array().unwrap().clone();
        next.iter().map(|entry| (entry["id"].as_u64().unwrap(), entry["prob"].as_f64().unwrap())).collect()
    };
    let (expected, found) = (probabilities(&tiny("base")), probabilities(&path));
    assert_eq!(expected.len(), 5);
    for ((expected_id, expected), (id, found)) in expected.into_iter().zip(found) {
        assert_eq!(id, expected_id);
        assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
    }
}

#[test]
fn the_tokenizer_in_a_gguf_file_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = as_gguf(folder.path());
    let model = path.to_str().unwrap();
    let answer = gpt2(&["topk", "--model", model, "--prompt", "abb a", "--format=json"]).succeeds().json();
    assert_eq!(answer["prompt_ids"], serde_json::json!([2, 1, 3, 0]));
}

#[test]
fn damaged_gguf_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = as_gguf(folder.path());
    let whole = std::fs::read(&path).unwrap();
    let mut huge = whole.clone();
    huge[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    for (bytes, words) in [
        (&whole[..whole.len() - 1], "ends outside the file"),
        (&whole[..100], "damaged or truncated"),
        (&huge[..], "a tensor's name has 0 bytes"),
        (b"GGUF", "damaged or truncated"),
        (b"GGML", "not a GGUF file"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        gpt2(&topk(&path)).fails(1, &["model.gguf", words]);
    }
}
