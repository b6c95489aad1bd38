//! The tiny checkpoints and what transformers computes for them (`tests/fixtures/make_goldens.py`).

use std::path::PathBuf;

use gpt2::checkpoint::{Checkpoint, ShardIndex, WeightFiles};
use gpt2::config::Config;
use gpt2::model::{Gpt2, LoadOptions};
use serde::Deserialize;

/// Every checkpoint folder.
pub const NAMES: [&str; 4] = ["base", "erf_inner", "inverse", "untied_f16"];

/// `golden.json`.
#[derive(Deserialize)]
pub struct Golden {
    pub forward: Vec<Forward>,
    pub score: Vec<Score>,
}

/// One forward pass.
#[derive(Deserialize)]
pub struct Forward {
    pub ids: Vec<u32>,
    pub logits_last: Vec<f32>,
    pub argmax: Vec<usize>,
    pub hidden_mean: Vec<f32>,
    pub hidden_last_first8: Vec<Vec<f32>>,
    pub attention_l0_h0: Vec<Vec<f32>>,
}

/// Log-probabilities of the ids from the second on.
#[derive(Deserialize)]
pub struct Score {
    pub ids: Vec<u32>,
    pub logprobs: Vec<f32>,
}

/// `tests/fixtures` of the repository where cargo runs these tests, or of `CARGO_MANIFEST_DIR` if it is set: the
/// executable may run on another machine.
pub fn fixtures() -> PathBuf {
    let repository = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    PathBuf::from(repository).join("tests/fixtures")
}

pub fn folder(name: &str) -> PathBuf {
    fixtures().join("tiny").join(name)
}

pub fn golden<T: serde::de::DeserializeOwned>(name: &str) -> T {
    let text = std::fs::read(folder(name).join("golden.json")).expect("the fixture's golden.json");
    serde_json::from_slice(&text).expect("golden.json as the script writes it")
}

/// Loads a tiny checkpoint for the CPU.
pub fn model(name: &str) -> Gpt2 {
    load(name, LoadOptions::default())
}

/// Loads a tiny checkpoint, whatever its layout.
pub fn load(name: &str, options: LoadOptions) -> Gpt2 {
    let (config, checkpoint) = open(name);
    Gpt2::load(config, &checkpoint, options).expect("the model")
}

/// Opens a tiny checkpoint, whatever its layout.
pub fn open(name: &str) -> (Config, Checkpoint) {
    let folder = folder(name);
    let weights = match name {
        "untied_f16" => WeightFiles::Sharded(ShardIndex::read(&folder.join("model.safetensors.index.json")).unwrap()),
        "inverse" => WeightFiles::File(folder.join("pytorch_model.bin")),
        _ => WeightFiles::File(folder.join("model.safetensors")),
    };
    let config = Config::from_file(&folder.join("config.json")).expect("config.json");
    (config, Checkpoint::open(&weights).expect("the weights"))
}

/// Asserts that two rows agree within `tolerance`.
#[track_caller]
pub fn assert_close(ours: &[f32], theirs: &[f32], tolerance: f32, what: &str) {
    assert_eq!(ours.len(), theirs.len(), "{what}: length");
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!((a - b).abs() <= tolerance, "{what}, number {i}: {a}, transformers has {b}");
    }
}
