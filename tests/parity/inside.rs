//! What is recorded and changed inside a pass, against hooks over transformers under TransformerLens's names.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::Tensor;
use gpt2::analysis::activations::Activations;
use gpt2::analysis::patching::{Over, Question, sweep};
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
    answer_id: u32,
    against_id: u32,
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

pub fn check_patching(model: impl Fn(&str) -> Gpt2) {
    for (name, golden) in cases() {
        let model = model(name);
        for case in golden.patch {
            let over = Over::ALL.into_iter().find(|over| over.name() == case.over).expect("a known name");
            let Patch { clean_ids, corrupt_ids, answer_id, against_id, .. } = &case;
            let question =
                Question { clean: clean_ids, corrupt: corrupt_ids, answer: *answer_id, against: *against_id };
            let found = sweep(&model, &question, over, &mut |_| ()).unwrap();
            let what = format!("{name}, {}", case.over);
            assert_close(&[found.clean, found.corrupt], &[case.clean, case.corrupt], TOLERANCE, &what);
            assert_close(&found.values.concat(), &case.values.concat(), TOLERANCE, &what);
        }
    }
}

#[test]
fn patching_agrees() {
    check_patching(golden::model);
}

/// What a sweep takes from the cache and from the residual stream has the bits of a whole run.
#[test]
fn a_sweep_gives_the_bits_of_whole_runs() {
    for (name, golden) in cases() {
        let model = golden::model(name);
        let (config, width) = (model.config(), model.config().n_embd);
        for case in golden.patch.iter().filter(|case| case.over == "mlp_out") {
            let Patch { clean_ids, corrupt_ids, answer_id, against_id, .. } = case;
            let question =
                Question { clean: clean_ids, corrupt: corrupt_ids, answer: *answer_id, against: *against_id };
            let found = sweep(&model, &question, Over::MlpOut, &mut |_| ()).unwrap();
            let (clean, _) = record(&model, clean_ids);
            for (layer, values) in found.values.iter().enumerate() {
                let point = HookPoint { layer, hook: Hook::MlpOut };
                let numbers = to_host(&clean[&point.to_string()]).unwrap();
                for (position, value) in values.iter().enumerate() {
                    let change = Change::Set(numbers[position * width..][..width].into());
                    let edit = Edit { point, row: None, position: Some(position), columns: 0..width, change };
                    let all = logits(&model.with_edits(Edits::new(vec![edit], config).unwrap()), corrupt_ids);
                    let last = &all[all.len() - config.vocab_size..];
                    assert_eq!(*value, last[*answer_id as usize] - last[*against_id as usize], "{name}, {point}");
                }
            }
        }
    }
}
