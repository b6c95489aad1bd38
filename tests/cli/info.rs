//! `gpt2 info`.

use serde_json::{Value, json};

use crate::harness::{gpt2, tiny};

fn config(extra: Value) -> tempfile::NamedTempFile {
    let mut config = json!({"model_type": "gpt2", "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12});
    config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), config.to_string()).unwrap();
    file
}

fn info(config: &tempfile::NamedTempFile) -> Value {
    gpt2(&["info", "--config", config.path().to_str().unwrap(), "--format", "json"]).succeeds().json()
}

/// `real_gpt2.json` has the counts of the published model and of the teaching variant with an untied head.
#[test]
fn a_configuration_alone_gives_the_published_counts() {
    let real: Value = serde_json::from_slice(include_bytes!("../fixtures/real_gpt2.json")).unwrap();
    let tied = info(&config(json!({})));
    assert_eq!(tied["parameters"]["total"], real["parameters"]["gpt2"]["total"]);
    assert_eq!(tied["parameters"]["untied_total"], real["parameters"]["gpt2"]["untied_total"]);
    let untied = info(&config(json!({"tie_word_embeddings": false, "qkv_bias": false})));
    for (key, value) in real["parameters"]["gpt2_untied_without_qkv_bias"].as_object().unwrap() {
        assert_eq!(&untied["parameters"][key], value, "{key}");
    }
}

#[test]
fn a_checkpoint_is_described_without_reading_its_numbers() {
    let folder = tiny("untied_f16").display().to_string();
    let json = gpt2(&["info", "-m", &folder, "--tensors", "--format", "json"]).succeeds().json();
    let tensors = json["tensors"].as_array().unwrap();
    let counted: u64 = tensors
        .iter()
        .map(|t| t["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).product::<u64>())
        .sum();
    assert_eq!(json["parameters"]["total"], counted, "the arithmetic and the file agree");
    assert!(
        tensors.contains(&json!({"name": "transformer.h.0.attn.c_attn.weight", "dtype": "F16", "shape": [48, 144]}))
    );
    let text = gpt2(&["info", "-m", "demo"]).succeeds().stdout();
    for word in ["7,688,320", "wte", "attn.c_attn", "tied", "context"] {
        assert!(text.contains(word), "{word} is not in\n{text}");
    }
}

/// `info` needs neither a GPU nor a program built for one.
#[test]
fn gpu_memory_is_predicted_without_a_gpu() {
    let file = config(json!({}));
    let path = file.path().to_str().unwrap();
    let memory = |flags: &[&str]| {
        let json = gpt2(&[&["info", "--config", path, "--format", "json"], flags].concat()).succeeds().json();
        json["memory"].clone()
    };
    let device = |flags: &[&str]| memory(flags)["device"].clone();
    assert!(device(&["--device", "cpu"]).is_null());
    assert_eq!(device(&[]).is_null(), cfg!(not(feature = "cuda")));

    let found = device(&["--device", "cuda:1", "--dtype", "bf16"]);
    assert_eq!((&found["device"], &found["dtype"]), (&json!("cuda"), &json!("bf16")));
    let bytes = |key: &str| found[key].as_u64().unwrap_or_else(|| panic!("{key} of {found}"));
    // The vocabulary is padded to 50304.
    assert_eq!(bytes("weight_bytes"), 2 * (124_318_464 + 47 * 768) + 4 * 121_344);
    assert_eq!(bytes("kv_cache_bytes_per_token"), 2 * 12 * 2 * 768);
    assert_eq!(bytes("kv_cache_bytes"), 1024 * bytes("kv_cache_bytes_per_token"));
    let parts = ["context_bytes", "weight_bytes", "kv_cache_bytes", "scratch_bytes"].map(bytes);
    assert_eq!(bytes("peak_bytes"), parts.iter().sum::<u64>());
    assert!(parts[3] > 0 && bytes("load_peak_bytes") > bytes("weight_bytes"));

    // candle's buffers are not known.
    let quantised = device(&["--device", "cuda", "--quantize", "q4_k"]);
    assert_eq!(quantised["dtype"], "q4_k");
    assert!(quantised["weight_bytes"].as_u64().unwrap() < bytes("weight_bytes") / 3);
    assert!(quantised["scratch_bytes"].is_null() && quantised["peak_bytes"].is_null());
}

#[test]
fn a_model_is_described_for_an_absent_gpu() {
    let flags = ["info", "-m", "demo", "--device", "cuda"];
    let json = gpt2(&[&flags[..], &["--format", "json"]].concat()).succeeds().json();
    let device = &json["memory"]["device"];
    assert_eq!(device["dtype"], "f32");
    assert_eq!(device["weight_bytes"], 4 * (7_688_320 + 47 * 128));
    let text = gpt2(&flags).succeeds().stdout();
    for words in ["  on the CPU       ", "  on a GPU         ", "of weights (f32)", "of cache", "of buffers"] {
        assert!(text.contains(words), "{words} is not in\n{text}");
    }
    let quantised = gpt2(&[&flags[..], &["--quantize", "q8_0"]].concat()).succeeds().stdout();
    assert!(quantised.contains("of weights (q8_0)") && quantised.contains("buffers of unknown size"), "{quantised}");
    let on_cpu = gpt2(&["info", "-m", "demo", "--device", "cpu"]).succeeds().stdout();
    assert!(on_cpu.contains("  memory           ") && !on_cpu.contains("GPU"), "{on_cpu}");
}

#[test]
fn impossible_configurations_are_refused_by_name() {
    for (extra, words) in [
        (json!({"n_head": 7}), ["n_embd 768", "n_head 7"]),
        (json!({"n_layer": 0}), ["n_layer is 0", "from 1 to"]),
        (json!({"vocab_size": -5}), ["vocab_size is -5", "from 1 to"]),
        (json!({"n_positions": 1e15 as i64}), ["n_positions", "from 1 to"]),
        (json!({"activation_function": "mish"}), ["mish", "gelu_new"]),
        (json!({"model_type": "llama"}), ["llama", "gpt2"]),
        (json!({"n_embd": "wide"}), ["n_embd is \"wide\"", "whole number"]),
    ] {
        let file = config(extra);
        gpt2(&["info", "--config", file.path().to_str().unwrap()]).fails(1, &words);
    }
}

/// `pytorch.json` is what PyTorch prints of transformers' models: see `make_pytorch.py`.
#[test]
fn pytorchs_views_are_those_of_transformers() {
    let golden: Value = serde_json::from_slice(include_bytes!("../fixtures/pytorch.json")).unwrap();
    for case in golden.as_array().unwrap() {
        let mut keys = case["config"].clone();
        keys["model_type"] = json!("gpt2");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), keys.to_string()).unwrap();
        let path = file.path().to_str().unwrap();
        let module = gpt2(&["info", "--config", path, "--module"]).succeeds().stdout();
        assert_eq!(module, format!("{}\n", case["module"].as_str().unwrap()));
        let Some(entries) = case["state_dict"].as_array() else { continue };
        let line = |entry: &Value| {
            let shape = entry[1].to_string().replace(',', ", ");
            format!("{} torch.Size({shape})\n", entry[0].as_str().unwrap())
        };
        let expected = format!("{} tensors\n{}", entries.len(), entries.iter().map(line).collect::<String>());
        let listed = gpt2(&["info", "--config", path, "--state-dict"]).succeeds().stdout();
        assert_eq!(listed, expected);
        let json = gpt2(&["info", "--config", path, "--state-dict", "--module", "--format", "json"]).succeeds().json();
        assert_eq!((&json["module"], json["state_dict"].as_array().unwrap().len()), (&case["module"], entries.len()));
        assert_eq!(json["state_dict"][2], json!({"name": entries[2][0], "shape": entries[2][1]}));
    }
}

/// A checkpoint without biases is shown as transformers would have it, with biases.
#[test]
fn a_checkpoint_is_shown_as_pytorch_would_show_it() {
    let list = |name: &str| {
        let folder = tiny(name).display().to_string();
        gpt2(&["info", "-m", &folder, "--state-dict"]).succeeds().stdout()
    };
    for (name, dtype) in [("base", "tied"), ("untied_f16", "untied")] {
        let listed = list(name);
        let lines: Vec<&str> = listed.lines().collect();
        assert!(lines[0] == format!("{} tensors", lines.len() - 1), "{dtype}: {listed}");
        assert!(lines[1].starts_with("transformer.wte.weight torch.Size(["), "{listed}");
        assert!(lines.last().unwrap().starts_with("lm_head.weight torch.Size(["), "{listed}");
    }
}

/// `sum(p.numel() for n, p in model.named_parameters() if ".attn." in n)`, and likewise.
/// Of the largest published size, too.
#[test]
fn a_description_fits_a_terminal() {
    for model in ["demo", "gpt2-xl"] {
        let shown = gpt2(&["info", "-m", model, "--offline"]).succeeds().stdout();
        assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    }
}

#[test]
fn parameters_are_counted_by_kind() {
    let json = info(&config(json!({})));
    let counts = ["attention", "mlp", "norm", "head"].map(|kind| json["parameters"][kind].as_u64().unwrap());
    assert_eq!(counts, [28_348_416, 56_669_184, 38_400, 0]);
    let block = ["attention", "mlp", "norm"].map(|kind| json["parameters"]["block"][kind].as_u64().unwrap());
    assert_eq!(block, [2_362_368, 4_722_432, 3_072]);
    let file = config(json!({}));
    let text = gpt2(&["info", "--config", file.path().to_str().unwrap()]).succeeds().stdout();
    for words in ["attention        28,348,416", "MLP              56,669,184", "norms                38,400"] {
        assert!(text.contains(words), "{words} is not in\n{text}");
    }
}
