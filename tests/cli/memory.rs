//! Memory: a model that cannot fit is refused before it is loaded, and the predicted use matches the measured one.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::harness::gpt2;

/// GPT-2's tensors.
fn shapes(vocabulary: usize, positions: usize, c: usize, layers: usize) -> Vec<(String, Vec<usize>)> {
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
    tensors
}

/// The header of a safetensors file of these f32 tensors, and the bytes that they take.
fn header(tensors: &[(String, Vec<usize>)]) -> (String, u64) {
    let mut end = 0u64;
    let mut header = serde_json::Map::new();
    for (name, shape) in tensors {
        let start = end;
        end += 4 * shape.iter().map(|n| *n as u64).product::<u64>();
        header.insert(name.clone(), json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]}));
    }
    (Value::Object(header).to_string(), end)
}

/// Writes a safetensors file whose numbers are zeros that take no room on the disk; returns its size.
fn write_holes(path: &Path, (header, bytes): &(String, u64)) -> u64 {
    let mut file = File::create(path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    let size = 8 + header.len() as u64 + bytes;
    file.set_len(size)
        .expect("a file system for temporary files (TMPDIR) that takes one of this size, almost all holes");
    size
}

/// A checkpoint with a valid header and 700 GB of holes.
#[test]
fn a_model_too_large_for_any_memory_is_refused_before_it_is_loaded() {
    let (c, layers, vocabulary, positions) = (12288, 96, 50257, 2048);
    let folder = tempfile::tempdir().unwrap();
    let config = json!({
        "model_type": "gpt2", "vocab_size": vocabulary, "n_positions": positions, "n_embd": c, "n_layer": layers, "n_head": 96
    });
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    write_holes(&folder.path().join("model.safetensors"), &header(&shapes(vocabulary, positions, c, layers)));

    let model = folder.path().to_str().unwrap();
    let done = gpt2(&["topk", "-m", model, "--ids", "1"]).fails(1, &["takes", "GB of memory", "are available"]);
    assert_eq!(done.stderr().lines().count(), 1, "{}", done.stderr());
    let info = gpt2(&["info", "-m", model, "--format", "json"]).succeeds().json();
    let running = &info["memory"]["running"];
    assert!(running["peak_bytes"].as_u64().unwrap() > 690_000_000_000, "{running}");
}

/// The address space has room for the file, but not for a copy of its weights.
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

/// The binary with these arguments, in so much address space.
fn limited(kilobytes: u64, arguments: &[&str]) -> Output {
    let run = gpt2(&[arguments, &["--threads", "1"]].concat()).into_command();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v $0; exec \"$@\"", &kilobytes.to_string()]);
    command.arg(run.get_program()).args(run.get_args()).output().unwrap()
}

/// The one line of an error, with exit code 1.
#[track_caller]
fn refusal(output: &Output) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with("error: ") && stderr.lines().count() == 1, "{stderr}");
    assert!(output.stdout.is_empty());
    stderr
}

#[test]
fn what_never_fits_is_refused_and_what_is_advised_fits() {
    // 1000 rows of 50257 logits take 201 MB.
    let beams = |n: &str| {
        limited(250_000, &["generate", "-m", "demo", "--ids", "1 2 3", "-n", "3", "--format", "json", "--num-beams", n])
    };
    let error = refusal(&beams("1000"));
    let advised = error.trim_end().strip_suffix(" would fit").and_then(|text| text.rsplit("--num-beams ").next());
    let advised: usize = advised.expect("advice").parse().unwrap();
    assert!(error.contains(" of memory and ") && (50..1000).contains(&advised), "{error}");
    assert_eq!(beams(&advised.to_string()).status.code(), Some(0), "{advised}");

    let ids: Vec<String> = (0..300).map(|id| id.to_string()).collect();
    let ids = ids.join(" ");
    let prefix = |word: &str, arguments: &[&str]| {
        let error = refusal(&limited(130_000, arguments));
        assert!(error.contains(" of memory and ") && error.contains(word) && error.contains("would fit"), "{error}");
    };
    let logprobs = ["--sample", "--logprobs", "50257", "--num-return-sequences", "50", "-n", "20", "--format", "json"];
    prefix("--logprobs ", &[&["generate", "-m", "demo", "--ids", "1"], &logprobs[..]].concat());
    prefix("-k ", &["topk", "-m", "demo", "--ids", &ids, "--all", "-k", "50257", "--format", "json"]);
    prefix("a text of ", &["trace", "-m", "demo", "--ids", &ids, "--repeat", "1"]);
    prefix("--batch-size ", &["bench", "-m", "demo", "--batch-size", "4096", "--prompt-tokens", "100"]);
}

/// The speeds need less memory than the buffer by which the bandwidth is measured.
#[test]
fn a_benchmark_reports_the_speeds_where_the_bandwidth_cannot_be_measured() {
    let arguments = ["bench", "-m", "demo", "--prompt-tokens", "4", "-n", "2", "--repeat", "1", "--format"];
    let json = limited(220_000, &[&arguments[..], &["json"]].concat());
    let stderr = String::from_utf8_lossy(&json.stderr).into_owned();
    assert_eq!(json.status.code(), Some(0), "{stderr}");
    assert!(stderr.starts_with("warning: the memory bandwidth was not measured: cannot get 268.44 MB"), "{stderr}");
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["bandwidth_bytes_per_s"], Value::Null);
    let run = &json["runs"][0];
    assert_eq!((&run["decode_limit_tokens_per_s"], &run["decode_of_limit"]), (&Value::Null, &Value::Null));
    assert!(run["decode_tokens_per_s"]["median"].as_f64().unwrap() > 0.0);

    let text = limited(220_000, &[&arguments[..], &["text"]].concat());
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(!text.contains("NaN") && !text.contains("memory reads"), "{text}");
}

/// Only the order in which rows run may depend on memory.
#[test]
fn rows_wait_for_memory_and_one_that_never_fits_is_its_own_error() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("rows.jsonl");
    let mut rows: Vec<Value> = (0..9)
        .map(|i| json!({"id": i, "prompt_ids": vec![i + 1; 3 + 40 * i], "num_beams": 30 + 10 * i, "max_new_tokens": 3}))
        .collect();
    rows.insert(5, json!({"id": "wide", "prompt_ids": [1, 2], "num_beams": 1000, "max_new_tokens": 3}));
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    std::fs::write(&input, lines.join("\n")).unwrap();
    let input = input.to_str().unwrap();
    let arguments = ["generate", "-m", "demo", "--input", input, "--batch-size", "10"];
    let results = |output: &Output| {
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        let mut results: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        results.sort_by_key(|result| result["line"].as_u64());
        results.iter_mut().for_each(|result| drop(result.as_object_mut().unwrap().remove("timings")));
        results
    };
    let free = limited(8_000_000, &arguments);
    assert_eq!(free.status.code(), Some(0), "{}", String::from_utf8_lossy(&free.stderr));
    let tight = limited(270_000, &arguments);
    assert_eq!(tight.status.code(), Some(3), "{}", String::from_utf8_lossy(&tight.stderr));
    let (free, mut tight) = (results(&free), results(&tight));
    let error = tight.remove(5)["error"].as_str().unwrap().to_owned();
    assert!(error.contains("`num_beams` ") && error.ends_with("would fit"), "{error}");
    let free: Vec<Value> = free.into_iter().filter(|result| result["id"] != "wide").collect();
    assert_eq!(tight, free);
}

/// What the others took and left must not matter, wherever the limit is.
#[test]
fn rows_that_fit_alone_do_not_fail_beside_others() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("rows.jsonl");
    let mut rows: Vec<Value> = (0..20)
        .map(|i| json!({"prompt_ids": vec![i + 1; 1 + 5 * i], "num_beams": 5 * (i % 8) + 1, "max_new_tokens": 4}))
        .collect();
    rows.insert(9, json!({"prompt_ids": [3], "num_beams": 200, "max_new_tokens": 4}));
    rows.insert(15, json!({"prompt_ids": [4, 5], "penalty_alpha": 0.6, "top_k": 200, "max_new_tokens": 4}));
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    std::fs::write(&input, lines.join("\n")).unwrap();
    let input = input.to_str().unwrap();
    let run = |batch_size: &str, kilobytes| {
        limited(kilobytes, &["generate", "-m", "demo", "--input", input, "--batch-size", batch_size])
    };
    // How much address space the rest of the program takes depends on the machine.
    let fits = |kilobytes: &u64| run("1", *kilobytes).status.code() == Some(0);
    let least = (80_000..1_000_000).step_by(20_000).find(fits).expect("a limit in which each row fits alone");
    for kilobytes in [least + 10_000, least + 40_000] {
        let together = run("40", kilobytes);
        let (results, errors) = (String::from_utf8_lossy(&together.stdout), String::from_utf8_lossy(&together.stderr));
        assert_eq!(together.status.code(), Some(0), "{kilobytes}: {errors}{results}");
    }
}

/// Rust aborts where an allocation fails.
#[test]
fn an_allocation_that_fails_is_an_error() {
    for kilobytes in (52_000..120_000).step_by(8_000) {
        let output = limited(kilobytes, &["topk", "-m", "demo", "--ids", "1"]);
        if output.status.code() != Some(0) {
            refusal(&output);
        }
    }
}

/// By itself, a program that reads a mapped file beyond its end is killed without a word.
#[test]
fn weights_that_are_cut_short_while_they_load_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let (path, width) = (folder.path().join("model.safetensors"), 1024);
    let config = json!({
        "model_type": "gpt2", "vocab_size": 50257, "n_positions": 64, "n_embd": width, "n_layer": 8, "n_head": 16
    });
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let header = header(&shapes(50257, 64, width, 8));
    for left in [4096, 100_000_001] {
        let size = write_holes(&path, &header);
        let mut child = gpt2(&["topk", "-m", folder.path().to_str().unwrap(), "--ids", "1"])
            .into_command()
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let maps = format!("/proc/{}/maps", child.id());
        while child.try_wait().unwrap().is_none()
            && !std::fs::read_to_string(&maps).is_ok_and(|maps| maps.contains("model.safetensors"))
        {}
        assert!(left < size);
        File::options().write(true).open(&path).unwrap().set_len(left).unwrap();
        let error = refusal(&child.wait_with_output().unwrap());
        assert!(error.contains("model.safetensors: "), "{error}");
        assert!(error.contains("cut short") || error.contains("changed while it was read"), "{error}");
    }
}

/// All threads may run into the missing end at once.
#[test]
fn weights_that_are_cut_short_in_use_are_an_error_on_every_thread() {
    let folder = tempfile::tempdir().unwrap();
    let (path, whole) = (folder.path().join("model.safetensors"), folder.path().join("whole"));
    // It is used where it is mapped, to the end.
    gpt2(&["convert", "-m", "demo", "--to", "f32", "--packed", path.to_str().unwrap()]).succeeds();
    std::fs::copy(&path, &whole).unwrap();
    let mut failures = 0;
    for run in 0..20 {
        std::fs::copy(&whole, &path).unwrap();
        let endless = ["--ids", "1 2", "-n", "400", "--ignore-eos", "--quiet"];
        let mut child = gpt2(&[&["generate", "-m", folder.path().to_str().unwrap()], &endless[..]].concat())
            .into_command()
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20 + 10 * run));
        File::options().write(true).open(&path).unwrap().set_len(5000).unwrap();
        let code = child.wait().unwrap().code();
        assert!(matches!(code, Some(0 | 1)), "killed by a signal");
        failures += i32::from(code == Some(1));
    }
    assert!(failures > 0, "none was cut short in use");
}
