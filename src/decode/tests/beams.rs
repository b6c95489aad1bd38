//! Searches over beams, and searches that ask for the best tokens alone.

use super::*;

#[test]
fn a_wide_beam_search_finds_the_best_of_all_sequences() {
    // 4 tokens and 3 steps: 64 beams see every sequence.
    let model = || scrambled(4, 16, 3);
    let config = GenerationConfig { max_new_tokens: 3, num_beams: 64, num_return_sequences: 5, ..Default::default() };
    let found = run(&mut model(), &[2, 1], &config);
    let mut all: Vec<(f32, Vec<u32>)> = (0..64)
        .map(|n| {
            let ids = vec![n / 16, n / 4 % 4, n % 4];
            let mut model = model();
            let all = [&[2, 1][..], &ids].concat();
            let input = Input { row: 0, ids: &all[..4], logits: Positions::All, ..Input::default() };
            let mut logits = model.forward(&[input]).unwrap().logits;
            let score: f32 = logits
                .chunks_mut(4)
                .skip(1)
                .zip(&ids)
                .map(|(row, &id)| {
                    logits::log_softmax(row);
                    row[id as usize]
                })
                .sum();
            (score / 3.0, ids)
        })
        .collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (sequence, (score, ids)) in found.iter().zip(&all) {
        assert_eq!(&sequence.ids, ids);
        assert!((sequence.score.unwrap() - score).abs() < 1e-5);
    }
}

#[test]
fn beams_report_log_probabilities_that_add_up_to_their_score() {
    let config = GenerationConfig { num_beams: 4, num_return_sequences: 4, logprobs: Some(2), ..base() };
    for sequence in run(&mut scrambled(VOCAB, 64, 4), &[1], &config) {
        let logprobs = sequence.logprobs.unwrap();
        assert!(logprobs.iter().map(|l| l.id).eq(sequence.ids.iter().copied()));
        let sum: f32 = logprobs.iter().map(|l| l.logprob).sum();
        assert!((sum / sequence.ids.len() as f32 - sequence.score.unwrap()).abs() < 1e-5);
    }
}

#[test]
fn few_choices_are_enough_for_many_beams() {
    // Only two tokens are left, with more beams and candidates than possible sequences.
    for sample in [false, true] {
        let config = GenerationConfig {
            num_beams: 5,
            num_return_sequences: 5,
            sample,
            max_new_tokens: 2,
            bad_words_ids: vec![vec![0], vec![1]],
            ..Default::default()
        };
        let found = run(&mut scrambled(4, 16, 1), &[0], &config);
        let mut best = ids(&found[..4]);
        best.sort();
        assert_eq!(best, [[2, 2], [2, 3], [3, 2], [3, 3]]);
    }
}

/// Logits on a coarse grid, so that many tie or are so close that their log-probabilities tie. Searching with only the
/// most probable tokens finds the same sequences as with whole rows, which the other runs ask for.
#[test]
fn ties_are_broken_as_with_whole_rows() {
    const TOKENS: usize = 200;
    for (seed, grid, scale) in [(1, 2.0, 1.0), (2, 1.0, 1.0), (3, 0.0, 1e-6), (4, 8.0, 1.0), (5, 0.0, 1.0)] {
        let model = || {
            TableModel::new(TOKENS, 40, move |ids: &[u32]| {
                let near = &ids[ids.len().saturating_sub(2)..];
                let logit = |id: u32| hash(near.iter().copied().chain([seed, id]));
                let on_grid = |x: f32| if grid > 0.0 { (x * grid).round() / grid } else { x };
                (0..TOKENS as u32).map(|id| scale * on_grid(logit(id))).collect()
            })
        };
        let found =
            |config: &GenerationConfig| ids(&generate(&mut model(), &NoText, &[3], &checked(config), |_| ()).unwrap());
        for num_beams in [2, 5] {
            let config = GenerationConfig {
                num_beams,
                num_return_sequences: num_beams,
                max_new_tokens: 7,
                ..Default::default()
            };
            let rows = GenerationConfig { logprobs: Some(1), ..config.clone() };
            assert_eq!(found(&config), found(&rows), "{seed}");
        }
        for (top_k, num_return_sequences) in [(1, 1), (4, 3), (20, 2)] {
            let config = GenerationConfig {
                sample: true,
                top_k: Some(top_k),
                temperature: Some(0.7),
                num_return_sequences,
                seed: Some(5),
                max_new_tokens: 9,
                ..Default::default()
            };
            let rows = GenerationConfig { prompt_lookup: Some(3), ..config.clone() };
            assert_eq!(found(&config), found(&rows), "{seed}");
        }
    }
}
