//! Whole adapters: what PEFT computes, other bases, and faults.

use std::borrow::Cow;
use std::path::PathBuf;

use super::super::{ShardIndex, TensorSpec, WeightFiles, golden, safetensors};
use super::*;
use crate::base::DType;
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::inventory::Kind;

/// A model of `tests/fixtures/tiny`.
pub(super) fn tiny(name: &str) -> (Checkpoint, Config) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny").join(name);
    let files = match ShardIndex::read(&folder.join("model.safetensors.index.json")) {
        Ok(index) => WeightFiles::Sharded(index),
        Err(_) => WeightFiles::File(folder.join("model.safetensors")),
    };
    let (mut checkpoint, mut config) =
        (Checkpoint::open(&files).unwrap(), Config::from_file(&folder.join("config.json")).unwrap());
    checkpoint.settle(&mut config);
    (checkpoint, config)
}

fn adapter(case: &str) -> Adapter {
    Adapter::in_folder(&golden::folder(case).join("adapter")).unwrap()
}

#[test]
fn adapters_give_what_peft_gives() {
    for (case, adapters) in [
        ("lora_c_attn", &["lora_c_attn"][..]),
        ("lora_rslora_all", &["lora_rslora_all"]),
        ("lora_bias", &["lora_bias"]),
        ("lora_saved_module", &["lora_saved_module"]),
        ("lora_bin_patterns", &["lora_bin_patterns"]),
        ("lora_two", &["lora_c_attn", "lora_bias"]),
    ] {
        let (mut checkpoint, mut config) = tiny("base");
        for name in adapters {
            adapter(name).merge(&mut checkpoint, &mut config).unwrap();
        }
        golden::check(case, config, &checkpoint);
    }
}

/// DoRA, embeddings and head, copies and resized embeddings, token rows, biases, and a base of 16 bits.
#[test]
fn every_kind_of_change_gives_what_peft_gives() {
    #[derive(serde::Deserialize)]
    struct Golden {
        base: String,
        tied: bool,
    }
    let mut count = 0;
    for entry in std::fs::read_dir(golden::folder("lora_more")).unwrap() {
        let folder = entry.unwrap().path();
        let golden: Golden = serde_json::from_slice(&std::fs::read(folder.join("golden.json")).unwrap()).unwrap();
        let (mut checkpoint, mut config) = tiny(&golden.base);
        Adapter::in_folder(&folder).unwrap().merge(&mut checkpoint, &mut config).unwrap();
        checkpoint.settle(&mut config);
        let case = folder.file_name().unwrap().to_str().unwrap();
        assert_eq!(config.tie_word_embeddings, golden.tied, "{case}");
        golden::check(&format!("lora_more/{case}"), config, &checkpoint);
        count += 1;
    }
    assert_eq!(count, 22);
}

/// The tensors of a checkpoint with the matrices of its blocks stored as `dtype`, (out, in), as GGUF has them.
fn as_in_gguf(checkpoint: &Checkpoint, dtype: DType) -> Checkpoint {
    let mut changed = checkpoint.clone();
    for (id, tensor) in checkpoint.tensors() {
        if id.is_conv1d() {
            let bytes = tensor.convert("", dtype, true).unwrap().into();
            changed.replace(id, Tensor { dtype, transposed: true, bytes, ..tensor.clone() });
        }
    }
    changed
}

#[test]
fn bases_with_transposed_matrices_are_merged_too() {
    for case in ["lora_rslora_all", "lora_more/dora"] {
        let folder = golden::folder(case);
        let folder = if folder.join("adapter").exists() { folder.join("adapter") } else { folder };
        let (checkpoint, mut config) = tiny("base");
        let mut checkpoint = as_in_gguf(&checkpoint, DType::F32);
        Adapter::in_folder(&folder).unwrap().merge(&mut checkpoint, &mut config).unwrap();
        assert!(checkpoint.tensor(TensorId::FIRST_MATRIX).unwrap().transposed);
        golden::check(case, config, &checkpoint);
    }
}

#[test]
fn quantised_weights_are_widened_where_they_change() {
    let (checkpoint, mut config) = tiny("base");
    let mut quantised = as_in_gguf(&checkpoint, DType::Q8_0);
    let mut widened = quantised.clone();
    for (id, tensor) in quantised.tensors().filter(|(_, tensor)| tensor.dtype == DType::Q8_0) {
        let bytes = tensor.convert("", DType::F32, false).unwrap().into();
        widened.replace(id, Tensor { dtype: DType::F32, bytes, ..tensor.clone() });
    }
    let adapter = adapter("lora_c_attn");
    adapter.merge(&mut quantised, &mut config).unwrap();
    adapter.merge(&mut widened, &mut config).unwrap();
    let (merged, expected) =
        (quantised.tensor(TensorId::FIRST_MATRIX).unwrap(), widened.tensor(TensorId::FIRST_MATRIX).unwrap());
    assert_eq!((merged.dtype, &*merged.bytes), (DType::F32, &*expected.bytes));
    assert_eq!(quantised.tensor(TensorId::in_block(0, Part::CFc, Kind::Weight)).unwrap().dtype, DType::Q8_0);
}

#[test]
fn weights_that_do_not_change_stay_in_the_file() {
    let (mut checkpoint, mut config) = tiny("base");
    let before = checkpoint.clone();
    adapter("lora_c_attn").merge(&mut checkpoint, &mut config).unwrap();
    for ((id, old), (_, new)) in before.tensors().zip(checkpoint.tensors()) {
        let is_changed = (id.part, id.kind) == (Part::CAttn, Kind::Weight);
        assert_eq!(old.bytes.as_ptr() != new.bytes.as_ptr(), is_changed, "{id}");
    }
}

/// A folder with these settings and tensors of zeros.
fn made_up(settings: &str, tensors: &[(&str, &[usize])]) -> (tempfile::TempDir, Result<Adapter>) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(Adapter::CONFIG), settings).unwrap();
    let specs: Vec<TensorSpec> = tensors
        .iter()
        .map(|(name, shape)| TensorSpec { name: (*name).into(), dtype: DType::F32, shape: shape.to_vec() })
        .collect();
    let zeros = |place: usize| Ok(Cow::Owned(vec![0; DType::F32.byte_len(&specs[place].shape).unwrap()]));
    safetensors::write(&folder.path().join(Adapter::WEIGHTS[0]), &[], &specs, zeros).unwrap();
    let adapter = Adapter::in_folder(folder.path());
    (folder, adapter)
}

const SETTINGS: &str = r#"{"peft_type": "LORA", "r": 2, "base_model_name_or_path": "gpt2-medium"}"#;

#[track_caller]
fn refused(settings: &str, tensors: &[(&str, &[usize])], expected: &str) {
    let (mut checkpoint, mut config) = tiny("base");
    let adapter = made_up(settings, tensors).1;
    let error = adapter.and_then(|adapter| adapter.merge(&mut checkpoint, &mut config)).unwrap_err().to_string();
    assert!(error.contains(expected) && !error.contains('\n'), "{error:?} does not say {expected:?}");
}

#[test]
fn each_fault_is_named() {
    let a: (&str, &[usize]) = ("base_model.model.transformer.h.0.attn.c_attn.lora_A.weight", &[2, 32]);
    let b: (&str, &[usize]) = ("base_model.model.transformer.h.0.attn.c_attn.lora_B.weight", &[96, 2]);
    let (mut checkpoint, mut config) = tiny("base");
    made_up(SETTINGS, &[a, b]).1.unwrap().merge(&mut checkpoint, &mut config).unwrap();

    refused(SETTINGS, &[a], "of the two matrices of `transformer.h.0.attn.c_attn`, one is missing");
    refused(SETTINGS, &[a, (b.0, &[96, 3])], "gives `transformer.h.0.attn.c_attn` the rank 2");
    refused(SETTINGS, &[(a.0, &[2]), b], "lora_A.weight` has shape [2], but adapter_config.json gives");
    refused(
        SETTINGS,
        &[(a.0, &[2, 1024]), b],
        "has shape [2, 1024], the model calls for [2, 32]; it was made for \"gpt2-medium\"",
    );
    refused(SETTINGS, &[a, (b.0, &[32, 2])], "has shape [32, 2], the model calls for [96, 2]");
    refused(
        SETTINGS,
        &[("base_model.model.score.weight", &[2, 32])],
        "tensor `base_model.model.score.weight` has no place",
    );
    refused(SETTINGS, &[a, b, ("h.0.attn.c_attn.lora_A.weight", &[2, 32])], "have the same place");
    let deep = ["base_model.model.transformer.h.7.attn.c_attn.lora_A.weight", "h.7.attn.c_attn.lora_B.weight"];
    refused(
        SETTINGS,
        &[(deep[0], &[2, 32]), (deep[1], &[96, 2])],
        "it changes `h.7.attn.c_attn.weight`, which the model does not have; it was made for",
    );
    refused(SETTINGS, &[("h.7.ln_1.bias", &[32])], "it changes `h.7.ln_1.bias`, which the model does not have");
    refused(SETTINGS, &[("transformer.ln_f.weight", &[31])], "has shape [31], the model calls for [32]");
    refused(SETTINGS, &[("transformer.wte.weight", &[214, 31])], "has shape [214, 31], the model calls for [211, 32]");
    let magnitude: (&str, &[usize]) = ("base_model.model.transformer.h.0.attn.c_attn.lora_magnitude_vector", &[96]);
    refused(SETTINGS, &[a, b, magnitude], "`use_dora` is not true, but there is a");
    let dora = r#"{"peft_type": "LORA", "r": 2, "use_dora": true}"#;
    refused(dora, &[a, b], "`use_dora` is true, but `transformer.h.0.attn.c_attn` has no lora_magnitude_vector");
    let saved = r#"{"peft_type": "LORA", "modules_to_save": ["wte"]}"#;
    refused(saved, &[("transformer.wte.weight", &[214, 32])], "the embedding has 214 tokens and the head 211");
    let rows: (&str, &[usize]) = ("base_model.model.transformer.wte.token_adapter.trainable_tokens_delta", &[1, 32]);
    refused(SETTINGS, &[rows], "`trainable_token_indices` does not list");
    let of_head: (&str, &[usize]) = ("base_model.model.lm_head.token_adapter.trainable_tokens_delta", &[1, 32]);
    refused(SETTINGS, &[of_head], "`trainable_token_indices` does not list");
    let only_of_head = r#"{"peft_type": "LORA", "trainable_token_indices": [1]}"#;
    refused(only_of_head, &[of_head], "it holds no weights of an adapter");
    refused(
        r#"{"peft_type": "LORA", "trainable_token_indices": [211]}"#,
        &[rows],
        "it trained token 211, but the model has 211",
    );
    refused(
        r#"{"peft_type": "LORA", "trainable_token_indices": [1, 2]}"#,
        &[rows],
        "shape [1, 32], the model calls for [2, 32]",
    );
}

/// The copy that was trained counts before the tensor as it was, where neither has the module's own name.
#[test]
fn copies_count_without_the_modules_own_tensor() {
    let names = ["lm_head.original_module.weight", "lm_head.modules_to_save.weight", "lm_head.weight"];
    let tensors = names.map(|name| (name, &[211, 32][..]));
    for (given, expected) in [(0..3, names[2]), (0..2, names[1]), (0..1, names[0])] {
        let adapter = made_up(SETTINGS, &tensors[given]).1.unwrap();
        let saved: Vec<&str> = adapter.saved.iter().map(|saved| saved.tensor.name.as_str()).collect();
        assert_eq!(saved, [expected]);
    }
}

#[test]
fn a_folder_without_an_adapter_says_what_it_lacks() {
    let (folder, adapter) = made_up(SETTINGS, &[]);
    let error = adapter.unwrap_err().to_string();
    assert!(error.ends_with("adapter_model.safetensors: it holds no weights of an adapter"), "{error}");
    drop(folder);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(Adapter::CONFIG), SETTINGS).unwrap();
    let lacks = |path: PathBuf| Adapter::in_folder(&path).unwrap_err().to_string();
    let error = lacks(folder.path().into());
    assert!(error.contains("is no PEFT adapter: it has no adapter_model.safetensors or adapter_model.bin"), "{error}");
    assert!(lacks("/nowhere".into()).contains("/nowhere is no PEFT adapter: it has no adapter_config.json"));
}
