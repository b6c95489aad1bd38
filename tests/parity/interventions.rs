//! Ablation and steering, against hooks over transformers.

use std::collections::BTreeMap;

use gpt2::analysis::activations::Activations;
use gpt2::analysis::interventions::{Ablation, Interventions, Steering, difference};
use gpt2::analysis::score::{ScoreOptions, Text, score};
use gpt2::decode::GenerationConfig;
use gpt2::language_model::{Input, LanguageModel};
use gpt2::model::{Gpt2, Session, to_host};
use serde::Deserialize;

use crate::decode;
use crate::golden::{self, NAMES, assert_close};

/// `tests/fixtures/inside/NAME.json`.
#[derive(Deserialize)]
struct Golden {
    ablate: Vec<Case>,
    steer: Vec<Case>,
}

/// What a model with changes does.
#[derive(Deserialize)]
struct Case {
    specs: Vec<String>,
    vector: Option<Vec<f32>>,
    layer: Option<usize>,
    directions: Option<BTreeMap<usize, Vec<f32>>>,
    scale: Option<f64>,
    ids: Vec<u32>,
    top: Vec<(usize, f32)>,
    logprobs: Vec<f32>,
    generated: Vec<u32>,
}

impl Case {
    fn interventions(&self) -> Interventions {
        let ablations: Vec<Ablation> = self.specs.iter().map(|spec| spec.parse().unwrap()).collect();
        let one = self.layer.zip(self.vector.clone());
        let vectors = self.directions.clone().into_iter().flatten().chain(one);
        let scale = self.scale.unwrap_or(1.0);
        let steering = vectors.map(|(layer, vector)| Steering::new("v".into(), layer, &vector, scale).unwrap());
        Interventions::new(&ablations, steering.collect()).unwrap()
    }
}

const TOLERANCE: f32 = 2e-4;

fn cases(name: &str) -> Vec<Case> {
    let file = golden::fixtures().join("inside").join(format!("{name}.json"));
    let Golden { ablate, steer } = serde_json::from_slice(&std::fs::read(file).expect("the fixture")).unwrap();
    ablate.into_iter().chain(steer).collect()
}

/// All that the goldens say, by a model for each checkpoint.
pub fn check(model: impl Fn(&str) -> Gpt2) {
    for name in NAMES {
        let unchanged = model(name);
        for case in cases(name) {
            let what = format!("{name}, {:?}, layer {:?}", case.specs, case.layer);
            let interventions = case.interventions();
            let model = interventions.apply(&unchanged, &case.ids).unwrap();
            let logits = Session::new(&model).forward(&[Input::logits(0, &case.ids)]).unwrap().logits;
            let (at, theirs): (Vec<usize>, Vec<f32>) = case.top.iter().copied().unzip();
            assert_close(&at.iter().map(|id| logits[*id]).collect::<Vec<_>>(), &theirs, TOLERANCE, &what);
            let best = gpt2::logits::top_k(&logits, at.len()).into_iter().map(|(id, _)| id);
            assert!(best.eq(at), "{what}");

            let text = Text { ids: &case.ids, given: 0 };
            let options = ScoreOptions { interventions: Some(&interventions), ..ScoreOptions::default() };
            let scored = score(&unchanged, &[text], &options, |_| std::ops::ControlFlow::Continue(())).unwrap();
            let logprobs: Vec<f32> = scored[0].tokens.iter().flatten().map(|token| token.logprob).collect();
            assert_close(&logprobs, &case.logprobs, TOLERANCE, &what);

            let config = GenerationConfig { max_new_tokens: 8, ..GenerationConfig::default() };
            let config = GenerationConfig { eos_token_id: unchanged.config().eos_token_id.clone(), ..config };
            assert_eq!(decode::run(&model, &case.ids, &config)[0].ids, case.generated, "{what}");
        }
    }
}

#[test]
fn ablation_and_steering_agree() {
    check(golden::model);
}

fn logits(model: &Gpt2, ids: &[u32]) -> Vec<f32> {
    let activations = Activations::record(model, ids, 0..0).unwrap();
    to_host(&activations.logits(model).unwrap()).unwrap()
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn a_vector_times_zero_changes_no_bit() {
    for name in NAMES {
        let model = golden::model(name);
        let width = model.config().n_embd;
        let vector: Vec<f32> = (0..width).map(|i| i as f32 - 7.0).collect();
        for case in cases(name).iter().take(2) {
            let steering = (0..model.config().n_layer).map(|l| Steering::new("v".into(), l, &vector, 0.0).unwrap());
            let steered = Interventions::new(&[], steering.collect()).unwrap().apply(&model, &[]).unwrap();
            assert_eq!(bits(&logits(&steered, &case.ids)), bits(&logits(&model, &case.ids)), "{name}");
        }
    }
}

/// Adding the difference of two prompts after the last block to the end of one gives what the other ends in.
#[test]
fn the_difference_of_two_texts_leads_from_one_to_the_other() {
    for name in NAMES {
        let model = golden::model(name);
        let last = model.config().n_layer - 1;
        let [one, other] = [&cases(name)[0].ids, &cases(name)[1].ids];
        let vector = difference(&model, last, one, other).unwrap();
        let steering = Steering::new("v".into(), last, &vector, 1.0).unwrap();
        let steered = Interventions::new(&[], vec![steering]).unwrap().apply(&model, &[]).unwrap();
        let end = |logits: Vec<f32>| logits[logits.len() - model.config().vocab_size..].to_vec();
        assert_close(&end(logits(&steered, other)), &end(logits(&model, one)), 1e-3, name);
        assert!(difference(&model, last + 1, one, other).is_err_and(|error| error.is_usage()));
    }
}

/// The mean over a text of one token is what is there.
#[test]
fn means_over_one_position_change_nothing_there() {
    for name in NAMES {
        let model = golden::model(name);
        let config = model.config();
        let specs = (0..config.n_layer).flat_map(|l| [format!("{l}.attn=mean"), format!("{l}.0=mean")]);
        let ablations: Vec<Ablation> = specs.map(|spec| spec.parse().unwrap()).collect();
        let interventions = Interventions::new(&ablations, vec![]).unwrap();
        for id in [3, 77] {
            let edited = interventions.apply(&model, &[id]).unwrap();
            assert_eq!(bits(&logits(&edited, &[id])), bits(&logits(&model, &[id])), "{name}");
        }
    }
}
