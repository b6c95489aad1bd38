//! Every strategy and every processor against transformers' results, and behaviour that only shows on a real network.

use std::collections::HashMap;
use std::sync::Arc;

use gpt2::decode::{
    Decoding, EarlyStopping, Engine, Event, GenerationConfig, NoText, OnContextLimit, Sequence, generate,
};
use gpt2::language_model::{Input, LanguageModel};
use gpt2::logits;
use gpt2::model::{Gpt2, Session};
use serde::Deserialize;

use crate::golden::{self, NAMES};

/// The decoding part of `golden.json`.
#[derive(Deserialize)]
pub struct Golden {
    pub generate: Vec<Generate>,
    pub generate_4_49: Vec<Generate>,
    distribution: Vec<Distribution>,
}

#[derive(Deserialize)]
pub struct Generate {
    pub ids: Vec<u32>,
    pub max_new_tokens: usize,
    pub params: Params,
    sequences: Vec<Vec<u32>>,
    scores: Option<Vec<f32>>,
}

/// `decoding.json` (`tests/fixtures/make_decoding.py`), where common tokens end sequences.
#[derive(Deserialize)]
struct Endings {
    generate: Vec<Ending>,
}

#[derive(Deserialize)]
struct Ending {
    model: String,
    eos_token_id: Vec<u32>,
    #[serde(flatten)]
    case: Generate,
}

#[derive(Deserialize)]
pub struct Distribution {
    ids: Vec<u32>,
    params: Params,
    probs: HashMap<usize, f32>,
}

/// Arguments of transformers' `generate`.
#[derive(Deserialize, Debug, Clone, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    repetition_penalty: Option<f64>,
    no_repeat_ngram_size: Option<usize>,
    bad_words_ids: Vec<Vec<u32>>,
    min_new_tokens: usize,
    temperature: Option<f64>,
    top_k: Option<usize>,
    top_p: Option<f64>,
    min_p: Option<f64>,
    typical_p: Option<f64>,
    epsilon_cutoff: Option<f64>,
    eta_cutoff: Option<f64>,
    pub num_beams: Option<usize>,
    num_beam_groups: Option<usize>,
    diversity_penalty: Option<f64>,
    length_penalty: Option<f64>,
    early_stopping: serde_json::Value,
    num_return_sequences: Option<usize>,
    penalty_alpha: Option<f64>,
}

impl Params {
    pub fn config(&self, eos_token_id: &[u32], max_new_tokens: usize) -> GenerationConfig {
        let early_stopping = match &self.early_stopping {
            serde_json::Value::Bool(true) => Some(EarlyStopping::True),
            serde_json::Value::String(never) if never == "never" => Some(EarlyStopping::Never),
            serde_json::Value::Null => None,
            other => panic!("early_stopping is {other}"),
        };
        GenerationConfig {
            max_new_tokens,
            min_new_tokens: self.min_new_tokens,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            typical_p: self.typical_p,
            epsilon_cutoff: self.epsilon_cutoff,
            eta_cutoff: self.eta_cutoff,
            repetition_penalty: self.repetition_penalty.unwrap_or(1.0),
            no_repeat_ngram_size: self.no_repeat_ngram_size.unwrap_or(0),
            bad_words_ids: self.bad_words_ids.clone(),
            num_beams: self.num_beams.unwrap_or(1),
            num_beam_groups: self.num_beam_groups.unwrap_or(1),
            diversity_penalty: self.diversity_penalty,
            length_penalty: self.length_penalty,
            early_stopping,
            num_return_sequences: self.num_return_sequences.unwrap_or(1),
            penalty_alpha: self.penalty_alpha,
            eos_token_id: eos_token_id.to_vec(),
            ..GenerationConfig::default()
        }
    }
}

fn cases() -> impl Iterator<Item = (&'static str, Gpt2, Golden)> {
    NAMES.into_iter().map(|name| (name, golden::model(name), golden::golden(name)))
}

fn checked(config: &GenerationConfig) -> Arc<Decoding> {
    Arc::new(config.validate().expect("a valid configuration"))
}

pub fn run(model: &Gpt2, ids: &[u32], config: &GenerationConfig) -> Vec<Sequence> {
    generate(&mut Session::new(model), &NoText, ids, &checked(config), |_| ()).expect("sequences")
}

/// Runs all requests in one engine.
pub fn run_all(engine: &mut Engine<'_>, requests: &[(Vec<u32>, GenerationConfig)]) -> Vec<Vec<Sequence>> {
    for (ids, config) in requests {
        engine.submit(ids, &checked(config)).expect("a request that can run");
    }
    let mut results = vec![vec![]; requests.len()];
    while !engine.is_idle() {
        for event in engine.step().expect("a step") {
            if let Event::Finished { request, result } = event {
                results[request] = result.expect("sequences");
            }
        }
    }
    results
}

#[track_caller]
pub fn assert_case(name: &str, model: &Gpt2, eos_token_id: &[u32], case: &Generate) {
    let config = case.params.config(eos_token_id, case.max_new_tokens);
    let ours = run(model, &case.ids, &config);
    let ids: Vec<&Vec<u32>> = ours.iter().map(|sequence| &sequence.ids).collect();
    assert_eq!(ids, case.sequences.iter().collect::<Vec<_>>(), "{name}: {:?} after {:?}", case.params, case.ids);
    let scores: Option<Vec<f32>> = ours.iter().map(|sequence| sequence.score).collect();
    assert_eq!(scores.is_some(), case.scores.is_some(), "{name}: {:?}", case.params);
    for (a, b) in scores.iter().flatten().zip(case.scores.iter().flatten()) {
        // Sums of log-probabilities times the length reach the hundreds.
        assert!((a - b).abs() <= 1e-4 * b.abs().max(1.0), "{name}: score {a}, transformers has {b}: {:?}", case.params);
    }
}

#[test]
fn generate_gives_the_sequences_of_transformers_5_23() {
    for (name, model, golden) in cases() {
        golden.generate.iter().for_each(|case| assert_case(name, &model, &model.config().eos_token_id, case));
    }
}

#[test]
fn group_beams_and_contrastive_search_give_the_sequences_of_transformers_4_49() {
    for (name, model, golden) in cases() {
        golden.generate_4_49.iter().for_each(|case| assert_case(name, &model, &model.config().eos_token_id, case));
    }
}

/// Cases in which beams do end: several end-of-sequence tokens, all kinds of early stopping, both versions.
#[test]
fn sequences_end_as_in_transformers() {
    check_endings(golden::model);
}

pub fn check_endings(load: impl Fn(&str) -> Gpt2) {
    let models: HashMap<&str, Gpt2> = ["base", "inverse"].into_iter().map(|name| (name, load(name))).collect();
    let path = golden::fixtures().join("decoding.json");
    let endings: Endings = serde_json::from_slice(&std::fs::read(path).expect("the fixture")).expect("its format");
    for Ending { model: name, eos_token_id, case } in &endings.generate {
        assert_case(name, &models[name.as_str()], eos_token_id, case);
    }
}

#[test]
fn distributions_after_the_processors_agree() {
    for (name, model, golden) in cases() {
        for case in &golden.distribution {
            let input = Input::logits(0, &case.ids);
            let mut logits = Session::new(&model).forward(&[input]).unwrap().logits;
            let config = case.params.config(&model.config().eos_token_id, 1);
            config.processors().unwrap().apply(&mut logits, &case.ids, &case.ids, &[]).unwrap();
            let mut probs = vec![];
            logits::softmax(&logits, &mut probs);
            for (id, (&p, logit)) in probs.iter().zip(&logits).enumerate() {
                let theirs = case.probs.get(&id).copied();
                assert_eq!(logit.is_finite(), theirs.is_some(), "{name}: {:?}, token {id}", case.params);
                let theirs = theirs.unwrap_or(0.0);
                assert!((p - theirs).abs() <= 1e-5, "{name}: {:?}, token {id}: {p}, not {theirs}", case.params);
            }
        }
    }
}

/// All cases of a checkpoint in one batch that mixes lengths and strategies.
#[test]
fn a_batch_gives_the_same_as_each_request_alone() {
    for (name, model, golden) in cases() {
        let eos = &model.config().eos_token_id;
        let mut requests: Vec<(Vec<u32>, GenerationConfig)> = golden
            .generate
            .iter()
            .chain(&golden.generate_4_49)
            .map(|case| (case.ids.clone(), case.params.config(eos, case.max_new_tokens)))
            .collect();
        for (seed, case) in (0..).zip(golden.generate.iter().step_by(5)) {
            let sample =
                GenerationConfig { seed: Some(seed), sample: true, num_return_sequences: 2, ..Default::default() };
            requests.push((case.ids.clone(), GenerationConfig { top_p: Some(0.9), ..sample.clone() }));
            requests.push((case.ids.clone(), GenerationConfig { num_beams: 3, top_k: Some(30), ..sample }));
        }
        let alone: Vec<_> = requests.iter().map(|(ids, config)| run(&model, ids, config)).collect();
        for batch_size in [4, requests.len()] {
            let mut session = Session::new(&model);
            let mut engine = Engine::new(&mut session, &NoText).with_batch_size(batch_size);
            assert_eq!(run_all(&mut engine, &requests), alone, "{name}, {batch_size} at once");
        }
    }
}

/// Guesses from the text, from the same model, and from a very different one.
#[test]
fn assisted_decoding_gives_the_same_as_plain_decoding() {
    let models: Vec<(&str, Gpt2, Golden)> = cases().collect();
    let (_, other, _) = &models[1];
    // All but the counts of guesses.
    let same = |ours: Vec<Sequence>, expected: &[Sequence], what: &str| {
        let ours: Vec<Sequence> = ours.into_iter().map(|sequence| Sequence { guesses: None, ..sequence }).collect();
        assert_eq!(ours, expected, "{what}");
    };
    for (name, model, golden) in &models {
        for case in golden.generate.iter().filter(|case| case.params.num_beams.is_none()) {
            let greedy = case.params.config(&model.config().eos_token_id, 40);
            let sampled = GenerationConfig { sample: true, temperature: Some(0.8), seed: Some(3), ..greedy.clone() };
            for plain in [greedy, sampled] {
                let expected = run(model, &case.ids, &plain);
                let lookup = GenerationConfig { prompt_lookup: Some(6), ..plain.clone() };
                same(run(model, &case.ids, &lookup), &expected, &format!("{name}: {:?}, looked up", case.params));
                let assisted = GenerationConfig { assistant: true, ..plain };
                for assistant in [model, other] {
                    let (mut session, mut assistant) = (Session::new(model), Session::new(assistant));
                    let mut engine = Engine::new(&mut session, &NoText).with_assistant(&mut assistant).unwrap();
                    let ours = run_all(&mut engine, &[(case.ids.clone(), assisted.clone())]).remove(0);
                    same(ours, &expected, &format!("{name}: {:?}, assisted", case.params));
                }
            }
        }
    }
}

/// Pearson's test of thousands of first tokens against the processed distribution.
#[test]
fn samples_follow_the_processed_distribution() {
    const DRAWS: usize = 6000;
    let (model, golden) = (golden::model("base"), golden::golden::<Golden>("base"));
    for case in &golden.distribution {
        let config = GenerationConfig {
            sample: true,
            seed: Some(20_240_229),
            num_return_sequences: DRAWS,
            ..case.params.config(&[], 1)
        };
        let mut counts: HashMap<usize, usize> = HashMap::new();
        for sequence in run(&model, &case.ids, &config) {
            *counts.entry(sequence.ids[0] as usize).or_default() += 1;
        }
        assert!(counts.keys().all(|id| case.probs.contains_key(id)), "{:?}", case.params);
        // Tokens too rare for the statistic are pooled.
        let (common, rare): (Vec<_>, Vec<_>) = case.probs.iter().partition(|(_, p)| **p * DRAWS as f32 >= 5.0);
        let count = |id: &usize| counts.get(id).copied().unwrap_or(0) as f64;
        let mut bins: Vec<(f64, f64)> = common.iter().map(|(id, p)| (count(id), f64::from(**p))).collect();
        bins.push((rare.iter().map(|(id, _)| count(id)).sum(), rare.iter().map(|(_, p)| f64::from(**p)).sum()));
        let bins = bins.iter().filter(|(_, p)| p * DRAWS as f64 >= 1.0);
        let expected = |p: &f64| p * DRAWS as f64;
        let statistic: f64 = bins.clone().map(|(n, p)| (n - expected(p)).powi(2) / expected(p)).sum();
        // The 99.9% point of the chi-square distribution (Wilson and Hilferty's approximation).
        let freedom = (bins.count() as f64 - 1.0).max(1.0);
        let limit = freedom * (1.0 - 2.0 / (9.0 * freedom) + 3.09 * (2.0 / (9.0 * freedom)).sqrt()).powi(3);
        assert!(statistic < limit, "{:?}: {statistic} at {freedom} degrees of freedom", case.params);
    }
}

#[test]
fn a_cropped_context_acts_like_a_prompt_of_the_last_tokens() {
    let (model, golden) = (golden::model("base"), golden::golden::<Golden>("base"));
    let n_positions = model.config().n_positions;
    for params in [&golden.generate[0].params, &golden.generate[1].params, &golden.generate[2].params] {
        let one = params.config(&[], 1);
        let mut ids = golden.generate[0].ids.clone();
        while ids.len() < n_positions + 20 {
            let window = &ids[ids.len().saturating_sub(n_positions)..];
            let next = run(&model, window, &one).remove(0).ids;
            ids.extend(next);
        }
        let prompt = golden.generate[0].ids.len();
        let config =
            GenerationConfig { max_new_tokens: ids.len() - prompt, on_context_limit: OnContextLimit::Crop, ..one };
        assert_eq!(run(&model, &ids[..prompt], &config)[0].ids, ids[prompt..], "{params:?}");
    }
}
