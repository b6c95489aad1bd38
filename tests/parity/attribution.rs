//! Direct logit attribution against hooks over transformers, and heads against TransformerLens's detector.

use std::sync::Arc;

use gpt2::analysis::attribution::{Attribution, Component, Tokens, attribute, attribute_each};
use gpt2::analysis::heads::head_scores;
use gpt2::model::{Change, Edit, Edits, Gpt2, Hook, HookPoint};
use serde::Deserialize;

use crate::golden::{self, NAMES};

/// `tests/fixtures/inside/NAME.json`.
#[derive(Deserialize)]
struct Golden {
    attribution: Vec<Attributed>,
}

#[derive(Deserialize)]
struct Attributed {
    ids: Vec<u32>,
    target_id: u32,
    against_id: Option<u32>,
    position: usize,
    value: f64,
    components: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    name: String,
    value: f64,
}

/// `tests/fixtures/heads/scores.json`.
#[derive(Deserialize)]
struct Heads {
    checkpoint: String,
    ids: Vec<u32>,
    scores: Scores,
}

/// Layers by heads.
#[derive(Deserialize)]
struct Scores {
    previous_token: Vec<Vec<f64>>,
    duplicate_token: Vec<Vec<f64>>,
    induction: Vec<Vec<f64>>,
}

const TOLERANCE: f64 = 2e-4;

/// How far the sum may be from the logit.
const SUM_TOLERANCE: f64 = 1e-4;

fn cases(name: &str) -> Vec<Attributed> {
    let file = golden::fixtures().join("inside").join(format!("{name}.json"));
    let golden: Golden = serde_json::from_slice(&std::fs::read(file).expect("the fixture")).expect("its format");
    golden.attribution
}

impl Attributed {
    fn tokens(&self) -> Tokens {
        Tokens { target: self.target_id, against: self.against_id }
    }
}

#[track_caller]
fn assert_adds_up(found: &Attribution, what: &str) {
    let (sum, value) = (found.sum(), found.value);
    assert!((sum - value).abs() <= SUM_TOLERANCE * value.abs().max(1.0), "{what}: the sum is {sum}, the logit {value}");
}

pub fn check(model: impl Fn(&str) -> Gpt2) {
    for name in NAMES {
        let model = model(name);
        for case in cases(name) {
            let found = attribute(&model, &[(&case.ids, case.position)], case.tokens()).unwrap().remove(0);
            assert!((found.value - case.value).abs() <= TOLERANCE, "{name}: {}, not {}", found.value, case.value);
            assert_eq!(found.position, case.position);
            let names: Vec<String> = found.components.iter().map(|(component, _)| component.to_string()).collect();
            assert_eq!(names, case.components.iter().map(|part| part.name.clone()).collect::<Vec<_>>(), "{name}");
            for ((component, ours), theirs) in found.components.iter().zip(&case.components) {
                let theirs = theirs.value;
                assert!((ours - theirs).abs() <= TOLERANCE, "{name}, {component}: {ours}, transformers has {theirs}");
            }
            assert_adds_up(&found, name);
        }
    }
}

#[test]
fn attribution_agrees() {
    check(golden::model);
}

/// Together or alone, the bits are the same.
#[test]
fn texts_attributed_together_get_what_each_gets_alone() {
    for name in NAMES {
        let model = golden::model(name);
        let cases = cases(name);
        let texts: Vec<(&[u32], usize)> = cases.iter().map(|case| (&case.ids[..], case.position)).collect();
        let tokens = cases[0].tokens();
        let together = attribute(&model, &texts, tokens).unwrap();
        let alone = texts.iter().map(|text| attribute(&model, &[*text], tokens).unwrap().remove(0));
        assert_eq!(together, alone.collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn an_attribution_of_an_edited_run_adds_up() {
    for name in NAMES {
        let model = golden::model(name);
        let (config, case) = (model.config().clone(), &cases(name)[0]);
        let (width, last) = (config.n_embd, config.n_layer - 1);
        let vector: Arc<[f32]> = (0..width).map(|i| (i as f32).cos()).collect();
        let zeros: Arc<[f32]> = vec![0.0; width].into();
        let run = |edits: &[(usize, Hook, Change)]| {
            let edit = |(layer, hook, change): &(usize, Hook, Change)| Edit {
                point: HookPoint { layer: *layer, hook: *hook },
                row: None,
                position: None,
                columns: 0..width,
                change: change.clone(),
            };
            let model = model.with_edits(Edits::new(edits.iter().map(edit).collect(), &config).unwrap());
            let found = attribute(&model, &[(&case.ids, case.position)], case.tokens()).unwrap().remove(0);
            assert_adds_up(&found, &format!("{name}, {edits:?}"));
            found
        };
        let value = |found: &Attribution, component: Component| {
            found.components.iter().find(|(other, _)| *other == component).map(|(_, value)| *value)
        };
        let plain = run(&[]);
        // Ablated: every head, all of attention, an MLP.
        let found = run(&[(0, Hook::Z, Change::Set(zeros.clone()))]);
        for head in 0..config.n_head {
            assert_eq!(value(&found, Component::Head { layer: 0, head }), Some(0.0), "{name}");
        }
        for change in [Change::Set(zeros.clone()), Change::Set(vector.clone()), Change::Add(vector.clone())] {
            let is_nothing = matches!(&change, Change::Set(x) if *x == zeros);
            let found = run(&[(last, Hook::AttnOut, change)]);
            assert_eq!(value(&found, Component::Head { layer: last, head: 0 }), Some(0.0), "{name}");
            assert_eq!(value(&found, Component::Attn { layer: last }) == Some(0.0), is_nothing, "{name}");
        }
        let found = run(&[(last, Hook::MlpOut, Change::Set(zeros.clone()))]);
        assert_eq!(value(&found, Component::Mlp { layer: last }), Some(0.0), "{name}");
        // Steered: at the end, where the vector is all that is added, and everywhere.
        let found = run(&[(last, Hook::ResidPost, Change::Add(vector.clone()))]);
        assert_eq!(found.components.len(), plain.components.len() + 1);
        assert!(value(&found, Component::Steer { layer: last }).is_some_and(|value| value.abs() > 1e-3), "{name}");
        let found = run(&[(last, Hook::ResidPost, Change::Add(zeros.clone()))]);
        assert!(value(&found, Component::Steer { layer: last }).is_some_and(|value| value.abs() < 1e-4), "{name}");
        run(&[
            (0, Hook::ResidPre, Change::Add(vector.clone())),
            (0, Hook::ResidMid, Change::Set(vector.clone())),
            (1, Hook::ResidPost, Change::Add(vector.clone())),
            (1, Hook::AttnOut, Change::Set(zeros.clone())),
        ]);
    }
}

#[test]
fn what_is_not_there_is_an_error() {
    let model = golden::model("base");
    let vocab_size = model.config().vocab_size as u32;
    let tokens = |target, against| Tokens { target, against };
    for (text, tokens) in [
        ((&[1, 2][..], 2), tokens(0, None)),
        ((&[1, 2][..], 1), tokens(vocab_size, None)),
        ((&[1, 2][..], 1), tokens(0, Some(vocab_size))),
        ((&[1, vocab_size][..], 1), tokens(0, None)),
    ] {
        assert!(matches!(attribute(&model, &[text], tokens), Err(gpt2::Error::Usage(_))));
    }
    assert!(matches!(head_scores(&model, &[1]), Err(gpt2::Error::Usage(_))));
}

#[test]
fn heads_do_what_transformer_lens_finds() {
    let file = golden::fixtures().join("heads/scores.json");
    let cases: Vec<Heads> = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    for Heads { checkpoint, ids, scores } in cases {
        let found = head_scores(&golden::model(&checkpoint), &ids).unwrap();
        assert_eq!(found.heads.len(), scores.induction.iter().map(Vec::len).sum::<usize>());
        for head in found.heads {
            let of = |scores: &[Vec<f64>]| scores[head.layer][head.head];
            let theirs = [of(&scores.previous_token), of(&scores.duplicate_token), of(&scores.induction)];
            for ((ours, theirs), most) in head.scores.into_iter().zip(theirs).zip(found.most) {
                assert!((ours - theirs).abs() < 1e-5, "{checkpoint}, {head:?}: TransformerLens has {theirs}");
                assert!(ours <= most + 1e-6, "{checkpoint}, {head:?}: at most {most}");
            }
        }
    }
}

/// All at once, each position has what it has alone.
#[test]
fn every_token_of_a_text_is_attributed_as_alone() {
    for name in NAMES {
        let model = golden::model(name);
        let ids = &cases(name)[0].ids;
        let each = attribute_each(&model, ids).unwrap();
        assert_eq!(each.len(), ids.len());
        for (position, (target, found)) in each.into_iter().enumerate() {
            assert!(ids.get(position + 1).is_none_or(|next| *next == target), "{name}");
            let tokens = Tokens { target, against: None };
            let alone = attribute(&model, &[(ids, position)], tokens).unwrap();
            assert_eq!(alone, std::slice::from_ref(&found), "{name}, {position}");
            assert_adds_up(&found, name);
        }
    }
}
