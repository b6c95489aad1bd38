//! Damaged and hostile adapters: each is merged into a model that can be loaded, or refused in one line.

use std::borrow::Cow;

use proptest::prelude::*;

use super::super::fuzz::{Mutation, cases, check_line, mutate, mutation};
use super::super::{TensorSpec, golden, safetensors};
use super::tests::tiny;
use super::*;
use crate::base::DType;

/// Merges the adapter with these files into the tiny model.
fn check(config: &[u8], weights: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(Adapter::WEIGHTS[0]);
    std::fs::write(folder.path().join(Adapter::CONFIG), config).unwrap();
    std::fs::write(&path, weights).unwrap();
    let (mut checkpoint, mut model) = tiny("base");
    match Adapter::in_folder(folder.path()).and_then(|adapter| adapter.merge(&mut checkpoint, &mut model)) {
        // The base has nothing that could be missing.
        Ok(()) => {
            model.tie_word_embeddings = checkpoint.tensor(TensorId::LM_HEAD).is_none();
            checkpoint.check(&model).unwrap();
        }
        Err(error) => check_line(&error.to_string()),
    }
}

/// The files of an adapter among the fixtures.
fn files(case: &str) -> [Vec<u8>; 2] {
    let folder = golden::folder(case);
    let folder = if folder.join("adapter").exists() { folder.join("adapter") } else { folder };
    let weights = Adapter::WEIGHTS.iter().find_map(|name| std::fs::read(folder.join(name)).ok());
    [std::fs::read(folder.join(Adapter::CONFIG)).unwrap(), weights.unwrap()]
}

const CASES: [&str; 6] =
    ["lora_bias", "lora_bin_patterns", "lora_saved_module", "lora_more/dora", "lora_more/resized", "lora_more/tokens"];

fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    prop::collection::vec(mutation(), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases().cases / 3, ..cases() })]

    #[test]
    fn mutated_adapters_are_merged_or_refused(
        case in prop::sample::select(&CASES[..]),
        of_config in any::<bool>(),
        mutations in mutations(),
    ) {
        let [mut config, mut weights] = files(case);
        for mutation in &mutations {
            mutate(if of_config { &mut config } else { &mut weights }, mutation);
        }
        check(&config, &weights);
    }

    #[test]
    fn made_up_adapters_are_merged_or_refused(
        settings in prop::collection::vec(
            (
                prop::sample::select(vec![
                    "r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "modules_to_save",
                    "trainable_token_indices", "peft_type", "init_lora_weights", "target_parameters",
                    "ensure_weight_tying",
                ]),
                prop::sample::select(vec![
                    "null", "true", "1", "2", "0", "-1", "1e300", "NaN", "[]", "[3]", "[\"wte\"]", "[\"\"]", "{\"wte\": [0, 210, 0]}",
                    "{\"c_attn\": 1}", "{\"(\": 1}", "\"LORA\"", "{\"\": 2}",
                ]),
            ),
            0..4,
        ),
        tensors in prop::collection::vec(
            (
                prop::sample::select(vec!["transformer.h.0.attn.c_attn", "transformer.wte", "lm_head", "h.2.ln_1", "h.9.mlp.c_fc"]),
                prop::sample::select(vec![
                    ".lora_A.weight", ".lora_B.weight", ".lora_B.bias", ".lora_embedding_A", ".lora_embedding_B",
                    ".lora_magnitude_vector", ".token_adapter.trainable_tokens_delta", ".weight", ".base_layer.bias",
                    ".modules_to_save.weight", ".original_module.weight",
                ]),
                prop::sample::select(vec![
                    &[2, 32][..], &[96, 2], &[1, 32], &[96, 1], &[2, 211], &[32, 2], &[211, 2], &[211, 32], &[3, 32], &[32], &[96], &[],
                    &[0, 32], &[2, 0], &[4, 32],
                ]),
            ),
            0..5,
        ),
    ) {
        let settings: Vec<String> = settings.iter().map(|(key, value)| format!(", \"{key}\": {value}")).collect();
        let config = format!("{{\"peft_type\": \"LORA\", \"r\": 2{}}}", settings.concat());
        let mut specs: Vec<TensorSpec> = tensors
            .iter()
            .map(|(module, ending, shape)| TensorSpec {
                name: format!("base_model.model.{module}{ending}"),
                dtype: DType::F32,
                shape: shape.to_vec(),
            })
            .collect();
        specs.sort_by(|a, b| a.name.cmp(&b.name));
        specs.dedup_by(|a, b| a.name == b.name);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        let zeros = |place: usize| Ok(Cow::Owned(vec![0; DType::F32.byte_len(&specs[place].shape).unwrap()]));
        safetensors::write(&path, &[], &specs, zeros).unwrap();
        check(config.as_bytes(), &std::fs::read(path).unwrap());
    }
}
