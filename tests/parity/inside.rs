//! What is recorded and changed inside a pass, against hooks over transformers under TransformerLens's names.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::Tensor;
use gpt2::analysis::activations::Activations;
use gpt2::language_model::{Input, LanguageModel};
use gpt2::model::{Change, Edit, Edits, Gpt2, Hook, HookPoint, Session, Trace, to_host};
use serde::Deserialize;

use crate::golden::{self, NAMES, assert_close};

/// `tests/fixtures/inside/NAME.json`.
#[derive(Deserialize)]
struct Golden {
    activations: Vec<Recorded>,
    patch: Vec<Patch>,
}

/// The activations of one text.
#[derive(Deserialize)]
struct Recorded {
    ids: Vec<u32>,
    names: BTreeMap<String, Numbers>,
}

/// Some numbers of an activation, at flat indices.
#[derive(Deserialize)]
struct Numbers {
    shape: Vec<usize>,
    at: Vec<usize>,
    values: Vec<f32>,
}

/// A sweep of activation patching.
#[derive(Deserialize)]
struct Patch {
    clean_ids: Vec<u32>,
    corrupt_ids: Vec<u32>,
    answer_id: usize,
    against_id: usize,
    over: String,
    clean: f32,
    corrupt: f32,
    values: Vec<Vec<f32>>,
}

const TOLERANCE: f32 = 2e-4;

fn cases() -> impl Iterator<Item = (&'static str, Golden)> {
    NAMES.into_iter().map(|name| {
        let file = golden::fixtures().join("inside").join(format!("{name}.json"));
        (name, serde_json::from_slice(&std::fs::read(file).expect("the fixture")).expect("the fixture's format"))
    })
}

fn points(model: &Gpt2) -> impl Iterator<Item = HookPoint> {
    (0..model.config().n_layer).flat_map(|layer| Hook::ALL.map(|hook| HookPoint { layer, hook }))
}

/// All activations of a text, by name.
fn record(model: &Gpt2, ids: &[u32]) -> (BTreeMap<String, Tensor>, Vec<f32>) {
    let mut trace = Trace::of(points(model));
    let x = model.forward(&[(0, ids)], &mut model.new_cache(), Some(&mut trace)).unwrap();
    let logits = to_host(&model.logits(&model.final_norm(&x).unwrap()).unwrap()).unwrap();
    let all = points(model).map(|point| (point.to_string(), trace.take(point.layer, point.hook).remove(0)));
    (all.collect(), logits)
}

fn logits(model: &Gpt2, ids: &[u32]) -> Vec<f32> {
    let input = Input { row: 0, ids, logits: gpt2::language_model::Positions::All, ..Input::default() };
    Session::new(model).forward(&[input]).unwrap().logits
}

pub fn check_activations(model: impl Fn(&str) -> Gpt2) {
    for (name, golden) in cases() {
        let model = model(name);
        for case in golden.activations {
            let (found, _) = record(&model, &case.ids);
            let [tokens, positions] = model.embeddings(&case.ids, 0).unwrap();
            let embeddings = [("hook_embed".to_owned(), tokens), ("hook_pos_embed".to_owned(), positions)];
            let mut compared = 0;
            for (point, tensor) in found.into_iter().chain(embeddings) {
                let expected = &case.names[&point];
                let what = format!("{name}, {point}");
                let (numbers, len) = (to_host(&tensor).unwrap(), expected.shape.iter().product::<usize>());
                assert_eq!(numbers.len(), len, "{what}");
                let found: Vec<f32> = expected.at.iter().map(|at| numbers[*at]).collect();
                assert_close(&found, &expected.values, TOLERANCE, &what);
                compared += 1;
            }
            assert_eq!(compared, 12 * model.config().n_layer + 2, "{name}");
        }
    }
}

#[test]
fn activations_agree() {
    check_activations(golden::model);
}

/// Looking at a pass changes no bit of it, of one text or of several at once.
#[test]
fn a_pass_that_is_looked_into_computes_the_same() {
    for (name, golden) in cases() {
        let model = golden::model(name);
        let [a, b] = [&golden.activations[0].ids, &golden.activations[1].ids];
        let (_, traced) = record(&model, a);
        assert_eq!(logits(&model, a), traced, "{name}");
        let both = Activations::record_all(&model, &[a, b], 0..1).unwrap();
        for (ids, activations) in [a, b].into_iter().zip(both) {
            let numbers = to_host(&activations.logits(&model).unwrap()).unwrap();
            assert_eq!(logits(&model, ids), numbers, "{name}");
        }
    }
}

/// Adding nothing changes nothing, and what is set is what a later layer finds, also for a token after the cache.
#[test]
fn edits_do_what_they_say() {
    for (name, golden) in cases() {
        let model = golden::model(name);
        let config = model.config();
        let (ids, width) = (&golden.activations[1].ids, config.n_embd);
        let edit = |hook, change| {
            let point = HookPoint { layer: config.n_layer - 1, hook };
            let edit = Edit { point, row: None, position: None, columns: 0..width, change };
            model.with_edits(Edits::new(vec![edit], config).unwrap())
        };
        let zeros: Arc<[f32]> = vec![0.0; width].into();
        let expected = logits(&model, ids);
        for hook in [Hook::ResidPre, Hook::Z, Hook::AttnOut, Hook::ResidMid, Hook::MlpOut, Hook::ResidPost] {
            let edited = logits(&edit(hook, Change::Add(zeros.clone())), ids);
            assert!(edited.iter().zip(&expected).all(|(a, b)| a == b), "{name}, {hook:?}: nothing added");
            assert_ne!(logits(&edit(hook, Change::Set(zeros.clone())), ids), expected, "{name}, {hook:?}: zeros");
        }
        let vector: Arc<[f32]> = (0..width).map(|i| (i as f32).sin()).collect();
        let edited = edit(Hook::ResidPost, Change::Set(vector.clone()));
        let (found, together) = record(&edited, ids);
        let last = to_host(&found[&format!("blocks.{}.hook_resid_post", config.n_layer - 1)]).unwrap();
        assert!(last.chunks_exact(width).all(|position| position == &*vector), "{name}");
        let mut session = Session::new(&edited);
        let alone: Vec<f32> =
            ids.iter().flat_map(|id| session.forward(&[Input::logits(0, &[*id])]).unwrap().logits).collect();
        assert_eq!(alone, together, "{name}: token by token");
        for hook in [Hook::Q, Hook::K, Hook::V, Hook::Pattern] {
            let point = HookPoint { layer: 0, hook };
            let edit = Edit { point, row: None, position: None, columns: 0..1, change: Change::Set(vec![0.0].into()) };
            assert!(Edits::new(vec![edit], config).is_err());
        }
    }
}

/// Patching, run by run: each sets one activation of the corrupt run to that of the clean one.
#[test]
fn edits_of_single_positions_agree_with_patching() {
    for (name, golden) in cases() {
        let model = golden::model(name);
        let config = model.config();
        for case in golden.patch {
            let hook = match &*case.over {
                "resid_pre" => Hook::ResidPre,
                "attn_out" => Hook::AttnOut,
                "mlp_out" => Hook::MlpOut,
                _ => Hook::Z,
            };
            let difference = |logits: &[f32]| {
                let last = &logits[logits.len() - config.vocab_size..];
                last[case.answer_id] - last[case.against_id]
            };
            let (clean, clean_logits) = record(&model, &case.clean_ids);
            let (corrupt, corrupt_logits) = record(&model, &case.corrupt_ids);
            assert_close(&[difference(&clean_logits)], &[case.clean], TOLERANCE, name);
            assert_close(&[difference(&corrupt_logits)], &[case.corrupt], TOLERANCE, name);
            for (layer, expected) in case.values.iter().enumerate() {
                let point = HookPoint { layer, hook };
                let numbers = to_host(&clean[&point.to_string()]).unwrap();
                let residual = &corrupt[&HookPoint { layer, hook: Hook::ResidPre }.to_string()];
                for (column, expected) in expected.iter().enumerate() {
                    let (width, head) = (config.n_embd, config.head_dim());
                    let at = |position: usize, columns: std::ops::Range<usize>| Edit {
                        point,
                        row: Some(3),
                        position: Some(position),
                        change: Change::Set(numbers[position * width..][columns.clone()].into()),
                        columns,
                    };
                    let edits = match hook {
                        Hook::Z => {
                            (0..case.clean_ids.len()).map(|i| at(i, column * head..(column + 1) * head)).collect()
                        }
                        _ => vec![at(column, 0..width)],
                    };
                    let edits = Edits::new(edits, config).unwrap();
                    // From this layer on: those below are as they were.
                    let mut cache = model.new_cache();
                    let x = model.forward_from((layer, residual), &[(3, &case.corrupt_ids)], &mut cache, &edits);
                    let from = to_host(&model.logits(&model.final_norm(&x.unwrap()).unwrap()).unwrap()).unwrap();
                    assert_close(&[difference(&from)], &[*expected], TOLERANCE, &format!("{name}, {point}, {column}"));
                    assert_eq!(cache.len(3), 0);
                }
            }
        }
    }
}
