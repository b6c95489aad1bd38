//! Cases with a damaged checkpoint, adapter or configuration.

use fastrand::Rng;

use crate::case::Case;
use crate::random::{damage, one_in, pick};
use crate::rows::PARAMETERS;
use crate::{gguf, json, llmc, pickle, safetensors, seeds, tensorflow};

/// Names of tensors, prefixes, wrappers and settings in all forms of checkpoints.
const WORDS: &str = "\
    wte.weight wpe.weight transformer.wte.weight h.0.attn.c_attn.weight h.0.attn.c_attn.bias \
    transformer.h.0.mlp.c_fc.weight transformer.h.99.ln_1.weight transformer.h.18446744073709551616.ln_1.weight \
    ln_f.weight lm_head.weight v_head.summary.weight score.weight position_ids _orig_mod.transformer.wte.weight \
    module.module.module.wte.weight _orig_mod. base_model.model.transformer.h.0.attn.c_attn.lora_A.weight \
    base_model.model.transformer.h.0.attn.c_attn.lora_B.weight \
    base_model.model.transformer.h.0.attn.c_attn.base_layer.bias base_model.model.transformer.ln_f.weight \
    tok_emb.weight trf_blocks.0.att.W_query.weight out_head.weight token_embd.weight output.weight \
    blk.0.attn_qkv.weight model/wte model/h0/attn/c_attn/w model state_dict module model_state_dict model_args \
    n_layer n_head n_embd block_size bias vocab_size n_vocab n_ctx n_positions n_inner hidden_size \
    num_hidden_layers num_attention_heads max_position_embeddings activation_function gelu_new quick_gelu \
    layer_norm_epsilon tie_word_embeddings scale_attn_by_inverse_layer_idx eos_token_id quantization_config \
    model_type architectures llama dtype shape data_offsets __metadata__";

/// A command that reads the model at `model`.
fn command(rng: &mut Rng, case: &mut Case, model: &str) {
    let command = match rng.u32(..12) {
        0 | 1 => "info",
        2 => "info --tensors",
        3 => "convert --to f16 out.gguf",
        4 => "convert --to f32 out.safetensors",
        5 => "convert --to q8_0 out.gguf",
        6 => "topk --ids 1,2,3 -k 3",
        7 => "score --ids 1,2,3",
        8 => "trace --hidden --ids 1,2",
        9 => "generate -n 3 Once",
        10 => "generate -n 3 --ids 1 --quantize q8_0",
        _ => "generate -n 3 --ids 1,2,3",
    };
    case.args(command).arg("--model").arg(model);
    if !command.starts_with("convert") && one_in(rng, 2) {
        case.args("--format json");
    }
    match rng.u32(..24) {
        0 => drop(case.args("--n-head 4")),
        1 => drop(case.args("--tokenizer gpt2")),
        2 => drop(case.args("--dtype f16")),
        3 => drop(case.args("--generation-config")),
        _ => {}
    }
}

/// The model of `tests/fixtures/tiny/base`, as it is.
fn base(case: &mut Case) {
    for name in ["config.json", "model.safetensors"] {
        case.file(&format!("model/{name}"), seeds::read(&format!("tiny/base/{name}")));
    }
}

/// A case with the damaged file `name` beside the undamaged `others` of a folder of fixtures; now and then, one of
/// `others` is missing. The model is the file or the folder.
fn folder(rng: &mut Rng, name: &str, bytes: Vec<u8>, fixtures: &str, others: &[&str]) -> Case {
    let mut case = Case::default();
    case.file(&format!("model/{name}"), bytes);
    let missing = if one_in(rng, 12) { rng.usize(..=others.len()) } else { others.len() };
    for (at, other) in others.iter().enumerate() {
        if at != missing {
            case.file(&format!("model/{other}"), seeds::read(&format!("{fixtures}/{other}")));
        }
    }
    let model = if one_in(rng, 3) { format!("model/{name}") } else { "model".to_owned() };
    command(rng, &mut case, &model);
    case
}

pub fn safetensors(rng: &mut Rng) -> Case {
    let bytes = safetensors::mutate(rng, &seeds::read("tiny/base/model.safetensors"), WORDS);
    folder(rng, "model.safetensors", bytes, "tiny/base", &["config.json"])
}

pub fn sharded(rng: &mut Rng) -> Case {
    const FIXTURES: &str = "tiny/untied_f16";
    const PARTS: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let index = seeds::read(&format!("{FIXTURES}/model.safetensors.index.json"));
    let words = format!("{WORDS} {} {} weight_map metadata total_size ../x /dev/zero .", PARTS[0], PARTS[1]);
    let index = if one_in(rng, 4) { index } else { json::mutate(rng, &index, &words) };
    let others = ["config.json", PARTS[0], PARTS[1]];
    let mut case = folder(rng, "model.safetensors.index.json", index, FIXTURES, &others);
    if one_in(rng, 3) {
        let part = pick(rng, &PARTS);
        let bytes = safetensors::mutate(rng, &seeds::read(&format!("{FIXTURES}/{part}")), WORDS);
        case.file(&format!("model/{part}"), bytes);
    }
    case
}

pub fn pytorch(rng: &mut Rng) -> Case {
    let bytes = pickle::mutate(rng, &seeds::read("tiny/inverse/pytorch_model.bin"), WORDS);
    folder(rng, "pytorch_model.bin", bytes, "tiny/inverse", &["config.json"])
}

/// Small PyTorch files of all kinds, without a fitting configuration: `info --tensors` and messages.
pub fn pytorch_small(rng: &mut Rng) -> Case {
    const SEEDS: [&str; 6] =
        ["views_legacy.bin", "views_legacy.bin", "views.bin", "views_protocol4.bin", "nested.bin", "big_endian.bin"];
    let seed = seeds::read(&format!("checkpoint/{}", pick(rng, &SEEDS)));
    let bytes = pickle::mutate(rng, &seed, WORDS);
    let mut case = Case::default();
    // Fits the tensors of views.bin.
    let config = br#"{"model_type":"gpt2","vocab_size":5,"n_positions":3,"n_embd":4,"n_layer":1,"n_head":2}"#;
    case.file("model/pytorch_model.bin", bytes).file("model/config.json", config.into());
    command(rng, &mut case, "model");
    case
}

pub fn gguf(rng: &mut Rng) -> Case {
    let seed = pick(rng, &["checkpoint/tiny.gguf", "formats/gguf_user_defined/model/tiny-f32.gguf"]);
    let bytes = gguf::mutate(rng, &seeds::read(seed), WORDS);
    let mut case = Case::default();
    let name = pick(rng, &["model.gguf", "model.gguf", "model.gguf", "model.bin", "model"]);
    case.file(name, bytes);
    command(rng, &mut case, name);
    case
}

pub fn gguf_split(rng: &mut Rng) -> Case {
    const NAMES: [&str; 2] = ["model/m-00001-of-00002.gguf", "model/m-00002-of-00002.gguf"];
    let parts = gguf::split(rng, &seeds::read("formats/gguf_user_defined/model/tiny-f32.gguf"), WORDS);
    let mut case = Case::default();
    let missing = if one_in(rng, 10) { rng.usize(..2) } else { 2 };
    for (at, part) in parts.into_iter().enumerate() {
        if at != missing {
            case.file(NAMES[at], part);
        }
    }
    let model = pick(rng, &["model", NAMES[0], NAMES[1]]);
    command(rng, &mut case, model);
    case
}

pub fn llmc(rng: &mut Rng) -> Case {
    let bytes = llmc::mutate(rng, &seeds::read("formats/llmc_bf16/model/gpt2_tiny_bf16.bin"));
    folder(rng, "gpt2_tiny_bf16.bin", bytes, "", &[])
}

pub fn tensorflow(rng: &mut Rng) -> Case {
    const FILES: [&str; 6] = [
        "hparams.json",
        "model.ckpt.index",
        "model.ckpt.data-00000-of-00001",
        "encoder.json",
        "vocab.bpe",
        "checkpoint",
    ];
    const FIXTURES: &str = "formats/openai_tf/model";
    let damaged = pick(rng, &[0, 1, 1, 1, 1, 2, 3, 4]);
    let mut bytes = seeds::read(&format!("{FIXTURES}/{}", FILES[damaged]));
    match damaged {
        0 | 3 => bytes = json::mutate(rng, &bytes, WORDS),
        1 => bytes = tensorflow::mutate(rng, &bytes, WORDS),
        _ => damage(rng, &mut bytes),
    }
    let others: Vec<&str> = FILES.into_iter().filter(|&name| name != FILES[damaged]).collect();
    folder(rng, FILES[damaged], bytes, FIXTURES, &others)
}

pub fn nanogpt(rng: &mut Rng) -> Case {
    let bytes = pickle::mutate(rng, &seeds::read("formats/nanogpt_compiled/model/ckpt.pt"), WORDS);
    folder(rng, "ckpt.pt", bytes, "", &[])
}

pub fn from_scratch(rng: &mut Rng) -> Case {
    let bytes = pickle::mutate(rng, &seeds::read("formats/lfs_plain/model/model.pth"), WORDS);
    let mut case = folder(rng, "model.pth", bytes, "", &[]);
    if !one_in(rng, 10) {
        case.args("--n-head").arg(pick(rng, &["4", "4", "4", "4", "0", "3", "4294967295"]));
    }
    case
}

pub fn bare(rng: &mut Rng) -> Case {
    let mut bytes = seeds::read("formats/bare_lightning_pt/model/epoch3.pt");
    let mut config = seeds::read("formats/bare_lightning_pt/tiny-config.json");
    if one_in(rng, 4) {
        config = json::mutate(rng, &config, WORDS);
    } else {
        bytes = pickle::mutate(rng, &bytes, WORDS);
    }
    let mut case = folder(rng, "epoch3.pt", bytes, "", &[]);
    case.file("tiny.json", config).args("--config tiny.json");
    case
}

pub fn adapter(rng: &mut Rng) -> Case {
    const SEEDS: [(&str, &str); 3] = [
        ("formats/lora_bias/adapter", "adapter_model.safetensors"),
        ("formats/lora_saved_module/adapter", "adapter_model.safetensors"),
        ("formats/lora_bin_patterns/adapter", "adapter_model.bin"),
    ];
    const SETTINGS: &str = "\
        r lora_alpha use_rslora use_dora bias fan_in_fan_out target_modules modules_to_save rank_pattern \
        alpha_pattern layers_to_transform peft_type LORA c_attn (c_attn|c_proj)+$ all-linear";
    let (folder, name) = pick(rng, &SEEDS);
    let mut config = seeds::read(&format!("{folder}/adapter_config.json"));
    let mut weights = seeds::read(&format!("{folder}/{name}"));
    if one_in(rng, 2) {
        let words = format!("{WORDS} {SETTINGS}");
        config = json::mutate(rng, &config, &words);
    } else if name.ends_with("bin") {
        weights = pickle::mutate(rng, &weights, WORDS);
    } else {
        weights = safetensors::mutate(rng, &weights, WORDS);
    }
    let mut case = Case::default();
    base(&mut case);
    case.file("adapter/adapter_config.json", config).file(&format!("adapter/{name}"), weights);
    command(rng, &mut case, "model");
    case.args("--adapter adapter");
    case
}

pub fn config(rng: &mut Rng) -> Case {
    let seed = pick(rng, &["tiny/base", "tiny/base", "formats/tok_bos/model"]);
    let config = json::mutate(rng, &seeds::read(&format!("{seed}/config.json")), WORDS);
    let mut case = Case::default();
    base(&mut case);
    case.file("model/config.json", config);
    if one_in(rng, 4) {
        case.args("info --config model/config.json --format").arg(pick(rng, &["json", "text"]));
    } else {
        command(rng, &mut case, "model");
    }
    case
}

pub fn generation_config(rng: &mut Rng) -> Case {
    const SEED: &[u8] = br#"{"_from_model_config":true,"bos_token_id":210,"eos_token_id":[210,5],"do_sample":true,
        "temperature":0.9,"top_k":50,"top_p":0.9,"max_length":9,"max_new_tokens":3,"min_length":2,"num_beams":2,
        "repetition_penalty":1.2,"no_repeat_ngram_size":2,"bad_words_ids":[[1],[2,3]],"suppress_tokens":[4],
        "sequence_bias":[[[5],1.5]],"exponential_decay_length_penalty":[2,1.5],"transformers_version":"5.23.0"}"#;
    let words = format!("{WORDS} {PARAMETERS}");
    let bytes = json::mutate(rng, SEED, &words);
    let mut case = Case::default();
    base(&mut case);
    case.file("model/generation_config.json", bytes);
    case.args("generate --model model --ids 1,2,3 -n 4");
    if one_in(rng, 2) {
        case.args("--generation-config");
    }
    if one_in(rng, 2) {
        case.args("--format json");
    }
    case
}
