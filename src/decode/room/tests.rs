use std::collections::HashMap;
use std::sync::Arc;

use super::super::table::{TableModel, scrambled};
use super::super::{Decoding, Engine, Event, GenerationConfig, NoText, Sequence, generate};
use super::*;
use crate::language_model::LanguageModel;

const VOCAB: usize = 30;

fn model() -> TableModel<impl Fn(&[u32]) -> Vec<f32>> {
    scrambled(VOCAB, 64, 1)
}

/// A byte for each position of the cache, and nothing for a pass.
fn room(left: u64) -> Room {
    Room { left: Some(left), limit: "test", page_bytes: 1, page_positions: 1, position_bytes: 0 }
}

fn requests() -> Vec<(Vec<u32>, Arc<Decoding>)> {
    let base = GenerationConfig { max_new_tokens: 6, eos_token_id: vec![7], ..GenerationConfig::default() };
    let sample = GenerationConfig { sample: true, seed: Some(3), num_return_sequences: 2, ..base.clone() };
    let beams = GenerationConfig { num_beams: 3, ..base.clone() };
    let contrastive = GenerationConfig { penalty_alpha: Some(0.5), top_k: Some(3), ..base.clone() };
    let lookup = GenerationConfig { prompt_lookup: Some(3), ..base.clone() };
    let configs = [base, sample, beams, contrastive, lookup].map(|config| Arc::new(config.validate().unwrap()));
    (0..15).map(|n| ((0..1 + n % 4).map(|i| (n + 3 * i) % 29).collect(), configs[n as usize % 5].clone())).collect()
}

/// The results of all requests together, and the number of tokens that each reported.
fn together(
    model: &mut dyn LanguageModel,
    requests: &[(Vec<u32>, Arc<Decoding>)],
) -> (Vec<Result<Vec<Sequence>>>, HashMap<usize, usize>) {
    let mut engine = Engine::new(model, &NoText).with_batch_size(requests.len());
    requests.iter().for_each(|(prompt, decoding)| assert!(engine.submit(prompt, decoding).is_ok()));
    let (mut results, mut tokens) = (HashMap::new(), HashMap::new());
    while !engine.is_idle() {
        for event in engine.step().unwrap() {
            match event {
                Event::Prompt { .. } => {}
                Event::Token { request, .. } => *tokens.entry(request).or_default() += 1,
                Event::Finished { request, result } => assert!(results.insert(request, result).is_none()),
            }
        }
    }
    ((0..requests.len()).filter_map(|request| results.remove(&request)).collect(), tokens)
}

fn alone(requests: &[(Vec<u32>, Arc<Decoding>)]) -> Vec<Vec<Sequence>> {
    requests.iter().map(|(p, d)| generate(&mut model(), &NoText, p, d, |_| ()).unwrap()).collect()
}

#[test]
fn requests_wait_until_they_fit_and_give_the_same() {
    let requests = requests();
    let free = {
        let mut model = model();
        together(&mut model, &requests);
        model.passes
    };
    // The logits of a step take 4 bytes a token, and each continuation of three beams 64.
    let (of_logits, of_continuations) = (4 * VOCAB as u64, 64 * 2 * 3 * 3);
    for rows in [1, 4, 9] {
        let mut model = model();
        model.room = room(rows * (12 + of_logits) + 3 * of_logits + of_continuations);
        // What is admitted never comes to hold more than the positions that there are bytes for.
        model.capacity = model.room.left.unwrap() as usize;
        let (results, _) = together(&mut model, &requests);
        let results: Vec<_> = results.into_iter().map(Result::unwrap).collect();
        assert_eq!(results, alone(&requests), "{rows} rows");
        assert!(model.passes > free, "{rows} rows: fewer at a time take more passes");
    }
}

#[test]
fn a_pass_that_fails_starts_its_requests_anew_fewer_at_a_time() {
    let requests = requests();
    let mut model = model();
    // One that uses three rows of up to 10 positions fits, and nothing beside it.
    model.capacity = 34;
    let (results, tokens) = together(&mut model, &requests);
    let results: Vec<_> = results.into_iter().map(Result::unwrap).collect();
    assert_eq!(results, alone(&requests));
    for (request, (_, decoding)) in requests.iter().enumerate().filter(|(_, (_, decoding))| decoding.streams()) {
        let generated: usize = results[request].iter().map(|sequence| sequence.ids.len()).sum();
        assert_eq!(tokens[&request], generated, "{decoding:?}: each token is reported once");
    }
}

#[test]
fn a_request_that_fails_alone_does_not_stop_the_others() {
    let requests = requests();
    let mut model = model();
    model.capacity = 15;
    let (results, _) = together(&mut model, &requests);
    assert_eq!(results.len(), requests.len());
    for (result, alone) in results.into_iter().zip(alone(&requests)) {
        match result {
            Ok(sequences) => assert_eq!(sequences, alone),
            Err(error) => assert_eq!(error.to_string(), "the table is full"),
        }
    }
}

#[test]
fn a_request_that_fits_alone_does_not_fail_for_what_others_left() {
    let requests = requests();
    let run = |requests: &[_], capacity| {
        let mut model = model();
        (model.capacity, model.keeps) = (capacity, true);
        together(&mut model, requests).0
    };
    let fits_alone = |capacity| requests.iter().all(|request| run(std::slice::from_ref(request), capacity)[0].is_ok());
    let capacity = (1..).find(|capacity| fits_alone(*capacity)).unwrap();
    let results: Vec<_> = run(&requests, capacity).into_iter().map(Result::unwrap).collect();
    assert_eq!(results, alone(&requests));
}

#[test]
fn what_never_fits_is_refused_with_what_would() {
    let config = GenerationConfig { max_new_tokens: 6, ..GenerationConfig::default() };
    let refusal = |left: u64, config: GenerationConfig| {
        let mut model = model();
        model.room = room(left);
        let mut engine = Engine::new(&mut model, &NoText);
        engine.submit(&[1, 2, 3], &Arc::new(config.validate().unwrap())).map_err(|error| error.to_string())
    };
    // The prompt's 3 positions, one more for each further beam, 120 bytes of logits for each beam, and 64 for each of its
    // continuations, which are twice as many as the beams: 2 + n + 120 n + 128 n². Advice counts all 6 new positions of
    // each beam, 3 + 6 n + 120 n + 128 n², and keeps to three quarters.
    let beams = GenerationConfig { num_beams: 10, ..config.clone() };
    assert!(refusal(14_012, beams.clone()).is_ok());
    let expected = "this takes 14.01 kB of memory and 14.01 kB are available (test); `num_beams` 8 would fit";
    assert_eq!(refusal(14_011, beams.clone()).unwrap_err(), expected);
    assert!(refusal(1024, beams.clone()).unwrap_err().ends_with("`num_beams` 2 would fit"));
    assert!(
        refusal(1023, beams).unwrap_err().ends_with("(test); shorten the prompt, or use a smaller type of weights")
    );
    // Groups of beams stay whole.
    let groups = GenerationConfig { num_beams: 9, num_beam_groups: 3, diversity_penalty: Some(0.5), ..config.clone() };
    assert!(refusal(10_000, groups).unwrap_err().ends_with("`num_beams` 6 would fit"));
    let contrastive = GenerationConfig { penalty_alpha: Some(0.5), top_k: Some(8), ..config.clone() };
    assert!(refusal(900, contrastive).unwrap_err().ends_with("`top_k` 5 would fit"));
    // 96 bytes of each token and 8 of each alternative.
    let logprobs = GenerationConfig { sample: true, logprobs: Some(20), num_return_sequences: 5, ..config };
    let needed = 7 + 5 * 120 + 5 * 6 * (96 + 20 * 8);
    assert!(refusal(needed, logprobs.clone()).is_ok());
    let error = refusal(needed - 1, logprobs).unwrap_err();
    assert!(error.ends_with("`num_return_sequences` 3 or `logprobs` 11 or `max_new_tokens` 4 would fit"), "{error}");
}

#[test]
fn nothing_is_refused_if_what_is_left_is_unknown() {
    let config = GenerationConfig { num_beams: 1000, ..GenerationConfig::default() };
    let mut model = model();
    let mut engine = Engine::new(&mut model, &NoText);
    assert!(engine.submit(&[1], &Arc::new(config.validate().unwrap())).is_ok());
}
