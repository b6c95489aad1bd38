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

/// `real_gpt2.json` has the counts of the published model, and of the teaching variant with an untied head.
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
    assert!(tensors.contains(&json!({"name": "h.0.attn.c_attn.weight", "dtype": "F16", "shape": [48, 144]})));
    let text = gpt2(&["info", "-m", "demo"]).succeeds().stdout();
    for word in ["7,688,320", "wte", "attn.c_attn", "tied", "context"] {
        assert!(text.contains(word), "{word} is not in\n{text}");
    }
}

#[test]
fn impossible_configurations_are_refused_by_name() {
    for (extra, words) in [
        (json!({"n_head": 7}), ["n_embd 768", "n_head 7"]),
        (json!({"n_layer": 0}), ["n_layer is 0", "allowed"]),
        (json!({"vocab_size": -5}), ["vocab_size is -5", "allowed"]),
        (json!({"n_positions": 1e15 as i64}), ["n_positions", "allowed"]),
        (json!({"activation_function": "mish"}), ["mish", "gelu_new"]),
        (json!({"model_type": "llama"}), ["llama", "gpt2"]),
        (json!({"n_embd": "wide"}), ["not a model configuration", "wide"]),
    ] {
        let file = config(extra);
        gpt2(&["info", "--config", file.path().to_str().unwrap()]).fails(1, &words);
    }
}
