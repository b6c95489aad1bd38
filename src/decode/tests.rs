//! All strategies over a model without a network: their invariants and what callers rely on.

mod beams;
#[cfg(feature = "constraints")]
mod constrained;
mod guesses;

use std::sync::Arc;

use super::table::{TableModel, hash, scrambled};
use super::*;
use crate::error::Error;
use crate::language_model::{Input, LanguageModel, Positions};
use crate::logits;

const VOCAB: usize = 40;
const EOS: u32 = 7;

/// Token `i` is the letter `i`, so that stop strings can be tried.
struct Letters;

impl Detokenize for Letters {
    fn token_bytes(&self, id: u32) -> &[u8] {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopq";
        &LETTERS[id as usize..][..usize::from(id != EOS)]
    }
}

fn base() -> GenerationConfig {
    GenerationConfig { max_new_tokens: 12, eos_token_id: vec![EOS], ..GenerationConfig::default() }
}

fn checked(config: &GenerationConfig) -> Arc<Decoding> {
    Arc::new(config.validate().unwrap())
}

fn run(model: &mut dyn LanguageModel, prompt: &[u32], config: &GenerationConfig) -> Vec<Sequence> {
    generate(model, &Letters, prompt, &checked(config), |_| ()).unwrap()
}

fn ids(sequences: &[Sequence]) -> Vec<Vec<u32>> {
    sequences.iter().map(|sequence| sequence.ids.clone()).collect()
}

fn prompts() -> Vec<Vec<u32>> {
    let letters = (0..20).map(|n| (0..1 + n % 7).map(|i| (n * 5 + i * 11) % VOCAB as u32).collect());
    letters.collect()
}

/// A configuration for every strategy.
fn strategies() -> Vec<(&'static str, GenerationConfig)> {
    let penalties = GenerationConfig {
        repetition_penalty: 1.2,
        no_repeat_ngram_size: 3,
        bad_words_ids: vec![vec![1, 2], vec![9]],
        min_new_tokens: 4,
        presence_penalty: 0.4,
        frequency_penalty: 0.3,
        logit_bias: [(5, 1.5), (EOS, -0.5)].into(),
        ..base()
    };
    let sample = GenerationConfig { sample: true, temperature: Some(1.3), top_k: Some(20), seed: Some(11), ..base() };
    let beams = GenerationConfig { num_beams: 4, num_return_sequences: 3, length_penalty: Some(0.7), ..base() };
    vec![
        ("greedy", base()),
        ("greedy with penalties", penalties.clone()),
        ("sampling", GenerationConfig { num_return_sequences: 3, ..sample.clone() }),
        ("sampling with log-probabilities", GenerationConfig { logprobs: Some(3), ..sample.clone() }),
        ("prompt lookup", GenerationConfig { prompt_lookup: Some(4), ..penalties.clone() }),
        ("sampled prompt lookup", GenerationConfig { prompt_lookup: Some(4), ..sample.clone() }),
        ("beams", beams.clone()),
        ("beams, early", GenerationConfig { early_stopping: Some(EarlyStopping::True), ..beams.clone() }),
        ("beams, never early", GenerationConfig { early_stopping: Some(EarlyStopping::Never), ..beams.clone() }),
        ("beams with penalties", GenerationConfig { num_beams: 3, logprobs: Some(2), ..penalties.clone() }),
        ("beam sample", GenerationConfig { num_beams: 3, ..sample }),
        (
            "group beams",
            GenerationConfig { num_beam_groups: 2, diversity_penalty: Some(0.8), early_stopping: None, ..beams },
        ),
        (
            "group beams with penalties",
            GenerationConfig { num_beams: 4, num_beam_groups: 2, diversity_penalty: Some(0.8), ..penalties.clone() },
        ),
        (
            "contrastive with penalties",
            GenerationConfig { penalty_alpha: Some(0.3), top_k: Some(4), ..penalties.clone() },
        ),
        ("contrastive", GenerationConfig { penalty_alpha: Some(0.5), top_k: Some(4), ..base() }),
        ("stop string", GenerationConfig { stop: vec!["AB".into(), "c".into(), "XY".into()], ..penalties }),
    ]
}

#[test]
fn a_request_gives_the_same_in_a_batch_as_alone() {
    for (name, config) in strategies() {
        let decoding = checked(&config);
        let alone: Vec<_> = prompts().iter().map(|prompt| run(&mut scrambled(VOCAB, 64, 1), prompt, &config)).collect();
        for batch_size in [1, 3, 64] {
            let mut model = scrambled(VOCAB, 64, 1);
            let mut engine = Engine::new(&mut model, &Letters).with_batch_size(batch_size);
            prompts().iter().for_each(|prompt| assert!(engine.submit(prompt, &decoding).is_ok()));
            let mut together = vec![vec![]; alone.len()];
            while !engine.is_idle() {
                for event in engine.step().unwrap() {
                    if let Event::Finished { request, result } = event {
                        together[request] = result.unwrap();
                    }
                }
            }
            assert_eq!(together, alone, "{name}, {batch_size} at once");
        }
    }
}

#[test]
fn strategies_mix_in_one_batch_and_rows_are_reused() {
    let alone: Vec<_> = strategies().iter().map(|(_, c)| run(&mut scrambled(VOCAB, 64, 1), &[3, 5], c)).collect();
    let mut model = scrambled(VOCAB, 64, 1);
    let mut engine = Engine::new(&mut model, &Letters).with_batch_size(2);
    let mut together = vec![vec![]; alone.len()];
    let mut waiting = strategies().into_iter();
    while let Some((_, config)) = waiting.next() {
        // One request at a time, as if from a pipe.
        engine.submit(&[3, 5], &checked(&config)).unwrap();
        while !engine.has_room() || (waiting.len() == 0 && !engine.is_idle()) {
            for event in engine.step().unwrap() {
                if let Event::Finished { request, result } = event {
                    together[request] = result.unwrap();
                }
            }
        }
    }
    assert_eq!(together, alone);
}

#[test]
fn log_probabilities_are_taken_after_the_processors() {
    let config = GenerationConfig { top_k: Some(3), logprobs: Some(VOCAB), temperature: Some(2.0), ..base() };
    for entry in run(&mut scrambled(VOCAB, 64, 4), &[1, 2], &config)[0].logprobs.iter().flatten() {
        assert_eq!(entry.top.len(), 3, "tokens that are ruled out are not listed");
        assert!((entry.top.iter().map(|(_, l)| l.exp()).sum::<f32>() - 1.0).abs() < 1e-5);
        assert!(entry.top.contains(&(entry.id, entry.logprob)));
        assert!(entry.top.is_sorted_by(|a, b| a.1 >= b.1));
    }
}

#[test]
fn samples_depend_only_on_seed_and_place() {
    let config = |seed, n| GenerationConfig { sample: true, seed: Some(seed), num_return_sequences: n, ..base() };
    let of = |seed, n| ids(&run(&mut scrambled(VOCAB, 64, 1), &[4, 4], &config(seed, n)));
    let many = of(5, 150);
    assert_eq!(many.len(), 150);
    assert_eq!(of(5, 10), many[..10], "more sequences do not change the first ones, although not all fit at once");
    assert_eq!(of(5, 150), many);
    assert_ne!(of(6, 10), many[..10]);
    assert!(many.iter().any(|ids| *ids != many[0]));
}

#[test]
fn shown_text_is_the_text_and_stop_strings_are_cut() {
    for (name, config) in strategies() {
        let config = GenerationConfig { stop: vec!["AB".into(), "e".into(), "Za".into()], ..config };
        for prompt in prompts() {
            let mut shown: Vec<Vec<u8>> = vec![vec![]; config.num_return_sequences];
            let mut seen = vec![vec![]; config.num_return_sequences];
            let mut model = scrambled(VOCAB, 64, 1);
            let sequences = generate(&mut model, &Letters, &prompt, &checked(&config), |event| {
                if let Event::Token { sequence, id, text, .. } = event {
                    shown[*sequence].extend(text);
                    seen[*sequence].push(*id);
                }
            });
            for (i, sequence) in sequences.unwrap().iter().enumerate() {
                let full = stop::bytes(&sequence.ids, &Letters);
                let text = String::from_utf8(sequence.text.clone()).unwrap();
                assert!(full.starts_with(&sequence.text));
                assert!(config.stop.iter().all(|stop| !text.contains(stop)), "{name}: {text}");
                match sequence.finish_reason {
                    FinishReason::Stop => assert!(full.len() > sequence.text.len(), "{name}"),
                    _ => assert_eq!(full, sequence.text, "{name}"),
                }
                assert_eq!(sequence.finish_reason == FinishReason::Eos, sequence.ids.last() == Some(&EOS), "{name}");
                if checked(&config).streams() {
                    assert_eq!(shown[i], sequence.text, "{name}");
                    assert_eq!(seen[i], sequence.ids, "{name}");
                }
            }
        }
    }
}

#[test]
fn the_context_ends_a_sequence_or_is_cropped() {
    for (name, config) in strategies() {
        let config = GenerationConfig { max_new_tokens: 20, eos_token_id: vec![], stop: vec![], ..config };
        let unseen = usize::from(config.penalty_alpha.is_none());
        for sequence in run(&mut scrambled(VOCAB, 10, 1), &[1, 2, 3], &config) {
            assert_eq!(sequence.finish_reason, FinishReason::Context, "{name}");
            assert_eq!(sequence.ids.len(), 7 + unseen, "{name}: as far as the model can see");
        }
        let full: Vec<u32> = (0..10).collect();
        assert_eq!(run(&mut scrambled(VOCAB, 10, 1), &full, &config)[0].ids.len(), unseen, "{name}");
        let config = GenerationConfig { on_context_limit: OnContextLimit::Crop, ..config };
        for sequence in run(&mut scrambled(VOCAB, 10, 1), &[1, 2, 3], &config) {
            assert_eq!((sequence.finish_reason, sequence.ids.len()), (FinishReason::Length, 20), "{name}");
        }
        let longer: Vec<u32> = (0..30).collect();
        assert_eq!(run(&mut scrambled(VOCAB, 10, 1), &longer, &config)[0].ids.len(), 20, "{name}");
    }
}

#[test]
fn a_cropped_step_sees_only_the_last_tokens() {
    let crop = GenerationConfig { on_context_limit: OnContextLimit::Crop, eos_token_id: vec![], ..base() };
    for config in [crop.clone(), GenerationConfig { repetition_penalty: 1.4, no_repeat_ngram_size: 2, ..crop }] {
        let mut expected: Vec<u32> = (0..14).collect();
        for _ in 0..12 {
            let one = GenerationConfig { max_new_tokens: 1, ..config.clone() };
            let next = run(&mut scrambled(VOCAB, 10, 1), &expected[expected.len() - 10..], &one);
            expected.extend(&next[0].ids);
        }
        assert_eq!(run(&mut scrambled(VOCAB, 10, 1), &expected[..14], &config)[0].ids, expected[14..]);
    }
}

#[test]
fn a_failing_request_leaves_the_others_alone() {
    // After token 1 the model is broken.
    let broken = |ids: &[u32]| vec![if ids.contains(&1) { f32::NAN } else { 0.0 }; 4];
    for config in [
        GenerationConfig::default(),
        GenerationConfig { sample: true, ..Default::default() },
        GenerationConfig { num_beams: 2, ..Default::default() },
        GenerationConfig { num_beams: 2, num_beam_groups: 2, diversity_penalty: Some(1.0), ..Default::default() },
        GenerationConfig { penalty_alpha: Some(0.5), top_k: Some(1), ..Default::default() },
    ] {
        let config = GenerationConfig { max_new_tokens: 3, bad_words_ids: vec![vec![1]], ..config };
        let mut model = TableModel::new(4, 16, broken);
        let mut engine = Engine::new(&mut model, &NoText).with_batch_size(2);
        let (bad, good) = (engine.submit(&[0, 1], &checked(&config)), engine.submit(&[0, 2], &checked(&config)));
        let mut results = std::collections::HashMap::new();
        while !engine.is_idle() {
            for event in engine.step().unwrap() {
                if let Event::Finished { request, result } = event {
                    results.insert(request, result);
                }
            }
        }
        assert!(matches!(results[&bad.unwrap()], Err(Error::Numerics(_))));
        assert_eq!(results[&good.unwrap()].as_ref().unwrap()[0].ids.len(), 3);
    }
}

#[test]
fn nothing_to_choose_from_is_an_error() {
    let all_banned = (0..4).map(|id| vec![id]).collect::<Vec<_>>();
    for config in [
        GenerationConfig::default(),
        GenerationConfig { sample: true, ..Default::default() },
        GenerationConfig { num_beams: 2, ..Default::default() },
        GenerationConfig { num_beams: 2, sample: true, ..Default::default() },
        GenerationConfig { num_beams: 2, num_beam_groups: 2, diversity_penalty: Some(1.0), ..Default::default() },
        GenerationConfig { penalty_alpha: Some(0.5), top_k: Some(3), ..Default::default() },
    ] {
        let config = GenerationConfig { bad_words_ids: all_banned.clone(), ..config };
        let result = generate(&mut scrambled(4, 16, 1), &NoText, &[0], &checked(&config), |_| ());
        assert!(matches!(result, Err(Error::Numerics(_))), "{result:?}");
    }
}

#[test]
fn requests_that_the_model_cannot_run_are_refused() {
    let mut model = scrambled(VOCAB, 8, 1);
    let mut assistant = scrambled(VOCAB + 1, 8, 1);
    assert!(matches!(Engine::new(&mut model, &NoText).with_assistant(&mut assistant), Err(Error::Usage(_))));
    let mut engine = Engine::new(&mut model, &NoText);
    let mut refused = |prompt: &[u32], config: GenerationConfig| match engine.submit(prompt, &checked(&config)) {
        Err(error) if error.is_usage() => error.to_string(),
        other => panic!("expected a usage error, got {other:?}"),
    };
    assert!(refused(&[], base()).contains("empty"));
    assert!(refused(&[VOCAB as u32], base()).contains("id 40"));
    assert!(refused(&[1; 9], base()).contains("9 tokens"));
    assert!(refused(&[1], GenerationConfig { bad_words_ids: vec![vec![1, 99]], ..base() }).contains("id 99"));
    assert!(refused(&[1], GenerationConfig { assistant: true, ..base() }).contains("assistant model"));
}

#[test]
fn a_cancelled_request_is_forgotten() {
    let mut model = scrambled(VOCAB, 64, 1);
    let mut engine = Engine::new(&mut model, &NoText);
    let config = checked(&GenerationConfig { max_new_tokens: 1000, eos_token_id: vec![], ..base() });
    let (first, second) = (engine.submit(&[1], &config).unwrap(), engine.submit(&[2], &config).unwrap());
    engine.step().unwrap();
    engine.cancel(first);
    engine.cancel(second);
    assert!(engine.is_idle());
    assert!(engine.step().unwrap().is_empty());
}
