//! The rest of transformers' parameters, beside OpenAI's: presence and frequency penalty, logit bias.

use std::collections::HashMap;

use gpt2::decode::{Engine, GenerationConfig, NoText};
use gpt2::language_model::{Input, LanguageModel};
use gpt2::logits;
use gpt2::model::{Gpt2, Session};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::decode::{run, run_all};
use crate::golden::{self, NAMES};

/// `tests/fixtures/decode/NAME.json`.
#[derive(Deserialize)]
struct Golden {
    generate: Vec<Generate>,
    distribution: Vec<Distribution>,
}

#[derive(Deserialize)]
struct Generate {
    ids: Vec<u32>,
    max_new_tokens: Option<usize>,
    params: Map<String, Value>,
    sequences: Vec<Vec<u32>>,
    scores: Option<Vec<f32>>,
}

#[derive(Deserialize)]
struct Distribution {
    ids: Vec<u32>,
    #[serde(default)]
    generated: Vec<u32>,
    params: Map<String, Value>,
    /// The most probable tokens.
    probs: HashMap<usize, f32>,
    /// How many tokens there are.
    kept: usize,
}

fn cases() -> impl Iterator<Item = (&'static str, Gpt2, Golden)> {
    NAMES.into_iter().map(|name| {
        let file = golden::fixtures().join("decode").join(format!("{name}.json"));
        let text = std::fs::read(file).expect("the fixture");
        (name, golden::model(name), serde_json::from_slice(&text).expect("the fixture's format"))
    })
}

fn config(model: &Gpt2, params: &Map<String, Value>, max_new_tokens: Option<usize>) -> GenerationConfig {
    let eos_token_id = model.config().eos_token_id.clone();
    let mut params = params.clone();
    params.extend(max_new_tokens.map(|n| ("max_new_tokens".to_owned(), n.into())));
    GenerationConfig { eos_token_id, ..GenerationConfig::default() }.with_json(&params).expect("known parameters")
}

#[test]
fn sequences_and_scores_agree() {
    for (name, model, golden) in cases() {
        for case in &golden.generate {
            let found = run(&model, &case.ids, &config(&model, &case.params, case.max_new_tokens));
            let ids: Vec<_> = found.iter().map(|sequence| &sequence.ids).collect();
            assert_eq!(
                ids,
                case.sequences.iter().collect::<Vec<_>>(),
                "{name}: {:?} after {:?}",
                case.params,
                case.ids
            );
            let scores = found.iter().filter_map(|sequence| sequence.score);
            let theirs = case.scores.as_deref().unwrap_or_default();
            assert_eq!(scores.clone().count(), theirs.len(), "{name}: {:?}", case.params);
            for (ours, theirs) in scores.zip(theirs) {
                assert!((ours - theirs).abs() <= 1e-4 * theirs.abs().max(1.0), "{name}: {ours}, not {theirs}");
            }
        }
    }
}

#[test]
fn distributions_agree() {
    for (name, model, golden) in cases() {
        for case in &golden.distribution {
            let Distribution { ids, generated, params, probs: theirs, kept } = case;
            let all = [&ids[..], generated].concat();
            let mut session = Session::new(&model);
            let mut logits = session.forward(&[Input::logits(0, &all)]).unwrap().logits;
            let processors = config(&model, params, None).processors().unwrap();
            if let Some(guidance) = processors.guidance() {
                let other = [guidance.other(ids), generated].concat();
                let other = session.forward(&[Input::logits(1, &other)]).unwrap().logits;
                guidance.apply(&mut logits, &other);
            }
            processors.apply(&mut logits, &all, ids, generated).unwrap();
            let mut ours = vec![];
            logits::softmax(&logits, &mut ours);
            for (id, theirs) in theirs {
                let p = ours[*id];
                assert!((p - theirs).abs() <= 1e-5, "{name}: {params:?}, token {id}: {p}, not {theirs}");
            }
            // Beside a bias of 100 there are some too improbable for a number.
            let left = logits.iter().filter(|x| x.is_finite()).count();
            assert!(left == *kept || params.contains_key("logit_bias"), "{name}: {params:?} leaves {left}, not {kept}");
        }
    }
}

#[test]
fn together_they_give_the_same_as_alone() {
    for (name, model, golden) in cases() {
        let requests: Vec<_> = golden
            .generate
            .iter()
            .map(|case| (case.ids.clone(), config(&model, &case.params, case.max_new_tokens)))
            .collect();
        let mut session = Session::new(&model);
        let mut engine = Engine::new(&mut session, &NoText).with_batch_size(7);
        for (found, case) in run_all(&mut engine, &requests).iter().zip(&golden.generate) {
            let ids: Vec<_> = found.iter().map(|sequence| &sequence.ids).collect();
            assert_eq!(ids, case.sequences.iter().collect::<Vec<_>>(), "{name}: {:?}", case.params);
        }
    }
}

#[test]
fn guesses_change_nothing() {
    for (name, model, golden) in cases() {
        for case in golden.generate.iter().filter(|case| case.scores.is_none()) {
            let plain = config(&model, &case.params, case.max_new_tokens);
            let lookup = GenerationConfig { prompt_lookup: Some(4), ..plain.clone() };
            assert_eq!(run(&model, &case.ids, &lookup)[0].ids, case.sequences[0], "{name}: {:?}", case.params);
            let (mut session, mut assistant) = (Session::new(&model), Session::new(&model));
            let mut engine = Engine::new(&mut session, &NoText).with_assistant(&mut assistant).unwrap();
            let assisted = GenerationConfig { assistant: true, ..plain };
            let found = run_all(&mut engine, &[(case.ids.clone(), assisted)]);
            assert_eq!(found[0][0].ids, case.sequences[0], "{name}: {:?}, assisted", case.params);
        }
    }
}
