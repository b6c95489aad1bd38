//! Memory: a model that cannot fit is refused before it is loaded, and the predicted use matches the measured one.

use std::fs::File;
use std::io::Write;

use serde_json::{Value, json};

use crate::harness::gpt2;

/// A checkpoint with a valid header and 700 GB of holes.
#[cfg(target_os = "linux")]
#[test]
fn a_model_too_large_for_any_memory_is_refused_before_it_is_loaded() {
    let (c, layers, vocabulary, positions) = (12288, 96, 50257, 2048);
    let folder = tempfile::tempdir().unwrap();
    let config = json!({
        "model_type": "gpt2", "vocab_size": vocabulary, "n_positions": positions, "n_embd": c, "n_layer": layers, "n_head": 96
    });
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let mut tensors =
        vec![("wte.weight".to_owned(), vec![vocabulary, c]), ("wpe.weight".to_owned(), vec![positions, c])];
    let layer = [
        ("ln_1.weight", vec![c]),
        ("ln_1.bias", vec![c]),
        ("attn.c_attn.weight", vec![c, 3 * c]),
        ("attn.c_attn.bias", vec![3 * c]),
        ("attn.c_proj.weight", vec![c, c]),
        ("attn.c_proj.bias", vec![c]),
        ("ln_2.weight", vec![c]),
        ("ln_2.bias", vec![c]),
        ("mlp.c_fc.weight", vec![c, 4 * c]),
        ("mlp.c_fc.bias", vec![4 * c]),
        ("mlp.c_proj.weight", vec![4 * c, c]),
        ("mlp.c_proj.bias", vec![c]),
    ];
    for i in 0..layers {
        tensors.extend(layer.iter().map(|(name, shape)| (format!("h.{i}.{name}"), shape.clone())));
    }
    tensors.extend(["weight", "bias"].map(|name| (format!("ln_f.{name}"), vec![c])));
    let mut end = 0u64;
    let mut header = serde_json::Map::new();
    for (name, shape) in tensors {
        let start = end;
        end += 4 * shape.iter().map(|n| *n as u64).product::<u64>();
        header.insert(name, json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]}));
    }
    let header = Value::Object(header).to_string();
    let mut file = File::create(folder.path().join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    let size = 8 + header.len() as u64 + end;
    file.set_len(size)
        .expect("a file system for temporary files (TMPDIR) that takes one of 700 GB, almost all of it holes");

    let model = folder.path().to_str().unwrap();
    let done = gpt2(&["topk", "-m", model, "--ids", "1"]).fails(1, &["takes", "GB of memory", "are available"]);
    assert_eq!(done.stderr().lines().count(), 1, "{}", done.stderr());
    let info = gpt2(&["info", "-m", model, "--format", "json"]).succeeds().json();
    let running = &info["memory"]["running"];
    assert!(running["peak_bytes"].as_u64().unwrap() > 690_000_000_000, "{running}");
}

/// The address space has room for the file, but not for a copy of its weights.
#[cfg(target_os = "linux")]
#[test]
fn a_limit_on_the_address_space_is_respected() {
    let run = |kilobytes: u64, dtype: &str| {
        let model = gpt2(&["topk", "-m", "demo", "--dtype", dtype, "--threads", "1", "--ids", "1"]).into_command();
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "ulimit -v $0; exec \"$@\"", &kilobytes.to_string()]);
        command.arg(model.get_program()).args(model.get_args()).output().unwrap()
    };
    assert_eq!(run(400_000, "bf16").status.code(), Some(0));
    let refused = run(60_000, "bf16");
    let stderr = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with("error: demo takes ") && stderr.contains("address space (ulimit -v)"), "{stderr}");
}

/// `info` predicts what `bench` measures. (Measured by hand: within 5% for each type of weights. The tolerance here leaves
/// room for other page sizes.)
#[cfg(target_os = "linux")]
#[test]
fn info_predicts_what_bench_measures() {
    for flags in [&[][..], &["--dtype", "bf16"], &["--quantize", "q8_0"]] {
        let info = [&["info", "-m", "demo", "--format", "json"], flags].concat();
        let bench = ["bench", "-m", "demo", "--prompt-tokens", "511", "-n", "1", "--repeat", "1", "--threads", "2"];
        let predicted = gpt2(&info).succeeds().json()["memory"]["running"]["peak_bytes"].as_f64().unwrap();
        let measured =
            gpt2(&[&bench[..], &["--format", "json"], flags].concat()).succeeds().json()["peak_memory_bytes"]
                .as_f64()
                .unwrap();
        let ratio = predicted / measured;
        assert!((0.9..1.1).contains(&ratio), "{flags:?}: predicted {predicted}, measured {measured}");
    }
}
