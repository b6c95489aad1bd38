//! Processors that depend on the ids so far: penalties, bans and biases, and tokens that are forced.

use std::collections::HashMap;

use super::guidance::EXTREME;
use crate::base::math;

/// Makes tokens that occur in `ids` less likely (more likely if `penalty` is below 1): scores below 0 are multiplied by
/// `penalty`, others divided by it, once per token however often it occurs.
///
/// `RepetitionPenaltyLogitsProcessor`; Keskar et al. 2019, "CTRL", section 4.1.
pub fn repetition_penalty(logits: &mut [f32], ids: &[u32], penalty: f32) {
    // All scores are read before any is written, so a repeated id is penalised only once.
    let scores: Vec<Option<f32>> = ids.iter().map(|&id| logits.get(id as usize).copied()).collect();
    for (&id, score) in ids.iter().zip(scores) {
        if let Some(score) = score {
            logits[id as usize] = if score < 0.0 { score * penalty } else { score / penalty };
        }
    }
}

/// Lowers the score of each token that occurs in `generated` by `presence`, and by `frequency` times the number of its
/// occurrences.
///
/// `presence_penalty` and `frequency_penalty` of OpenAI's API.
pub fn occurrence_penalties(logits: &mut [f32], generated: &[u32], presence: f32, frequency: f32) {
    let mut ids = generated.to_vec();
    ids.sort_unstable();
    for occurrences in ids.chunk_by(|a, b| a == b) {
        if let Some(score) = logits.get_mut(occurrences[0] as usize) {
            *score -= occurrences.len() as f32 * frequency + presence;
        }
    }
}

/// Adds to the score of each token its bias.
///
/// `logit_bias` of OpenAI's API.
pub fn logit_bias(logits: &mut [f32], biases: &[(u32, f32)]) {
    for &(id, bias) in biases {
        if let Some(score) = logits.get_mut(id as usize) {
            *score += bias;
        }
    }
}

/// Adds to the score of the last id of each sequence its bias if `ids` end with its other ids. Biases of the same token are
/// summed first, in order.
///
/// `SequenceBiasLogitsProcessor`.
pub fn sequence_bias(logits: &mut [f32], ids: &[u32], biases: &[(Vec<u32>, f32)]) {
    let ending = |(sequence, bias): &(Vec<u32>, f32)| {
        let (last, prefix) = sequence.split_last()?;
        ids.ends_with(prefix).then_some((*last, *bias))
    };
    let mut found: Vec<(u32, f32)> = biases.iter().filter_map(ending).collect();
    found.sort_by_key(|(id, _)| *id);
    for same in found.chunk_by(|(a, _), (b, _)| a == b) {
        let sum = same.iter().map(|(_, bias)| *bias).fold(0.0, |sum, bias| sum + bias);
        let bias = if sum == f32::NEG_INFINITY { sum } else { sum.clamp(-EXTREME, EXTREME) };
        logit_bias(logits, &[(same[0].0, bias)]);
    }
}

/// Sequence biases in the order in which transformers sums them: single tokens first, then by length, in the order in which
/// lengths occur.
pub fn in_order(biases: &[(Vec<u32>, f64)]) -> Vec<(Vec<u32>, f32)> {
    let mut first = HashMap::new();
    for (place, (ids, _)) in biases.iter().enumerate() {
        first.entry(ids.len()).or_insert(place);
    }
    let mut sorted: Vec<_> = biases.iter().map(|(ids, bias)| (ids.clone(), *bias as f32)).collect();
    sorted.sort_by_key(|(ids, _)| (ids.len() > 1, first.get(&ids.len()).copied()));
    sorted
}

/// Bans each token that would complete an n-gram of `seen` after the last of `ids`. `n = 1` bans every token seen.
///
/// `NoRepeatNGramLogitsProcessor`, `EncoderNoRepeatNGramLogitsProcessor`.
pub fn no_repeat_ngram(logits: &mut [f32], ids: &[u32], seen: &[u32], n: usize) {
    if n == 0 || ids.len() + 1 < n || seen.len() < n {
        return;
    }
    let prefix = &ids[ids.len() + 1 - n..];
    for ngram in seen.windows(n).filter(|ngram| ngram[..n - 1] == *prefix) {
        ban(logits, &ngram[n - 1..]);
    }
}

/// Bans the last id of each sequence in `words` if `ids` end with its other ids.
///
/// `NoBadWordsLogitsProcessor`.
pub fn bad_words(logits: &mut [f32], ids: &[u32], words: &[Vec<u32>]) {
    for (last, prefix) in words.iter().filter_map(|word| word.split_last()) {
        if ids.ends_with(prefix) {
            ban(logits, &[*last]);
        }
    }
}

/// Rules out `tokens`; those outside the vocabulary cannot be generated anyway.
///
/// `MinNewTokensLengthLogitsProcessor` does this to the end-of-sequence tokens.
pub fn ban(logits: &mut [f32], tokens: &[u32]) {
    for &id in tokens {
        if let Some(score) = logits.get_mut(id as usize) {
            *score = f32::NEG_INFINITY;
        }
    }
}

/// Rules out all tokens but `tokens`, which get the same score.
///
/// `ForcedBOSTokenLogitsProcessor`, `ForcedEOSTokenLogitsProcessor`.
pub fn force(logits: &mut [f32], tokens: &[u32]) {
    logits.fill(f32::NEG_INFINITY);
    for &id in tokens {
        if let Some(score) = logits.get_mut(id as usize) {
            *score = 0.0;
        }
    }
}

/// Adds to the score `s` of each of the end-of-sequence `tokens` `|s| (factor^steps - 1)`, if `steps` are above 0.
///
/// `ExponentialDecayLengthPenalty`.
pub fn decay(logits: &mut [f32], tokens: &[u32], steps: i64, factor: f64) {
    if steps <= 0 {
        return;
    }
    let growth = (math::pow(factor, steps as f64) - 1.0).clamp(-f64::from(EXTREME), f64::from(EXTREME)) as f32;
    for &id in tokens {
        if let Some(score) = logits.get_mut(id as usize).filter(|score| score.is_finite()) {
            *score = (*score + score.abs() * growth).clamp(-EXTREME, EXTREME);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OUT: f32 = f32::NEG_INFINITY;

    #[test]
    fn a_repeated_id_is_penalised_once() {
        let mut logits = [2.0, -2.0, 1.0, 0.0];
        repetition_penalty(&mut logits, &[0, 1, 0, 0, 3, 99], 2.0);
        assert_eq!(logits, [1.0, -4.0, 1.0, 0.0]);
    }

    #[test]
    fn occurrences_cost_once_and_each_time() {
        let mut logits = [2.0, -2.0, 1.0, 0.0];
        occurrence_penalties(&mut logits, &[1, 0, 1, 1, 99], 0.5, 0.25);
        assert_eq!(logits, [1.25, -3.25, 1.0, 0.0]);
        occurrence_penalties(&mut logits, &[1, 0, 1, 1, 99], -0.5, -0.25);
        assert_eq!(logits, [2.0, -2.0, 1.0, 0.0], "negative penalties are rewards");
        occurrence_penalties(&mut logits, &[], 2.0, 2.0);
        assert_eq!(logits, [2.0, -2.0, 1.0, 0.0]);
    }

    #[test]
    fn biases_are_added_and_leave_alone_what_is_ruled_out() {
        let mut logits = [2.0, OUT, 1.0];
        logit_bias(&mut logits, &[(0, -100.0), (1, 100.0), (99, 1.0)]);
        assert_eq!(logits, [-98.0, OUT, 1.0]);
    }

    #[test]
    fn a_sequence_is_biased_after_its_prefix_and_biases_add_up() {
        let biases = in_order(&[(vec![1, 2], 3.0), (vec![2], 0.5), (vec![9, 1, 2], 1.0), (vec![1, 0], -1.0)]);
        assert_eq!(biases.iter().map(|(ids, _)| ids.len()).collect::<Vec<_>>(), [1, 2, 2, 3]);
        for (ids, expected) in [(&[1][..], [-1.0, 0.0, 3.5]), (&[9, 1], [-1.0, 0.0, 4.5]), (&[3], [0.0, 0.0, 0.5])] {
            let mut logits = [0.0; 3];
            sequence_bias(&mut logits, ids, &biases);
            assert_eq!(logits, expected, "{ids:?}");
        }
        let mut logits = [1.0, 2.0, 3.0];
        sequence_bias(&mut logits, &[], &[(vec![0], f32::INFINITY), (vec![1], OUT)]);
        assert_eq!(logits, [EXTREME, OUT, 3.0], "infinities force and ban");
    }

    #[test]
    fn the_end_grows_with_each_token_after_the_start() {
        for (steps, expected) in
            [(-1, [2.0, -2.0, OUT]), (0, [2.0, -2.0, OUT]), (1, [4.0, 0.0, OUT]), (2, [8.0, 4.0, OUT])]
        {
            let mut logits = [2.0, -2.0, OUT];
            decay(&mut logits, &[0, 1, 2, 99], steps, 2.0);
            assert_eq!(logits, expected, "{steps}");
        }
        let mut logits = [2.0, 0.0];
        decay(&mut logits, &[0, 1], 5000, 2.0);
        assert_eq!(logits, [EXTREME, 0.0], "no infinity");
        let mut logits = [2.0, -2.0];
        decay(&mut logits, &[0, 1], 1, 0.0);
        assert_eq!(logits, [0.0, -4.0], "a factor below 1 puts it off");
    }

    #[test]
    fn forced_tokens_come_alone() {
        let mut logits = [2.0, OUT, 3.0];
        force(&mut logits, &[1, 2, 99]);
        assert_eq!(logits, [OUT, 0.0, 0.0]);
    }

    #[test]
    fn ngrams_of_the_prompt_are_banned_after_the_row() {
        let mut logits = [0.0; 4];
        no_repeat_ngram(&mut logits, &[3, 1], &[1, 2, 1, 0], 2);
        assert_eq!(logits, [OUT, 0.0, OUT, 0.0]);
        let mut logits = [0.0; 4];
        no_repeat_ngram(&mut logits, &[1], &[1, 2], 3);
        assert_eq!(logits, [0.0; 4], "shorter than the n-gram");
    }

    #[test]
    fn an_ngram_is_banned_by_its_prefix() {
        let mut logits = [0.0; 4];
        no_repeat_ngram(&mut logits, &[1, 2, 3, 1, 0, 3, 1], &[1, 2, 3, 1, 0, 3, 1], 3);
        assert_eq!(logits, [OUT, 0.0, 0.0, 0.0], "3 1 was followed by 0");
        let mut logits = [0.0; 4];
        no_repeat_ngram(&mut logits, &[1, 2, 1], &[1, 2, 1], 1);
        assert_eq!(logits, [0.0, OUT, OUT, 0.0], "n = 1 bans every token seen");
        let mut logits = [0.0; 4];
        no_repeat_ngram(&mut logits, &[1, 1], &[1, 1], 2);
        assert_eq!(logits, [0.0, OUT, 0.0, 0.0], "n-grams may overlap");
        let mut logits = [0.0; 4];
        no_repeat_ngram(&mut logits, &[1], &[1], 2);
        assert_eq!(logits, [0.0; 4], "no bigram yet");
    }

    #[test]
    fn bad_words_need_their_whole_prefix() {
        let mut logits = [0.0; 5];
        bad_words(&mut logits, &[3, 1], &[vec![4], vec![1, 2], vec![0, 1, 0], vec![7, 7, 3, 1, 3], vec![2, 3]]);
        assert_eq!(logits, [0.0, 0.0, OUT, 0.0, OUT]);
    }

    proptest! {
        #[test]
        fn bans_are_idempotent_and_only_remove(
            row in proptest::collection::vec(-9f32..9.0, 8),
            ids in proptest::collection::vec(0u32..10, 0..20),
            n in 1usize..5,
        ) {
            let mut once = row.clone();
            no_repeat_ngram(&mut once, &ids, &ids, n);
            bad_words(&mut once, &ids, &[vec![1, 2], vec![3], vec![9]]);
            let mut twice = once.clone();
            no_repeat_ngram(&mut twice, &ids, &ids, n);
            bad_words(&mut twice, &ids, &[vec![1, 2], vec![3], vec![9]]);
            prop_assert_eq!(&once, &twice);
            prop_assert!(once.iter().zip(&row).all(|(a, b)| a == b || *a == OUT));
            let banned = |t: u32| ids.len() >= n && ids.windows(n).any(|w| {
                [&ids[ids.len() + 1 - n..], &[t]].concat() == w
            });
            for t in (0..8).filter(|t| *t != 2 && *t != 3) {
                prop_assert_eq!(once[t as usize] == OUT, banned(t));
            }
        }

        #[test]
        fn a_penalty_moves_only_what_occurred_and_a_penalty_below_one_undoes_it(
            row in proptest::collection::vec(-9f32..9.0, 8),
            ids in proptest::collection::vec(0u32..12, 0..20),
            penalty in 0.1f32..10.0,
        ) {
            let mut moved = row.clone();
            repetition_penalty(&mut moved, &ids, penalty);
            for (id, (a, b)) in moved.iter().zip(&row).enumerate() {
                if ids.contains(&(id as u32)) {
                    prop_assert_eq!(a < b, penalty > 1.0 && *b != 0.0);
                } else {
                    prop_assert_eq!(a, b);
                }
            }
            repetition_penalty(&mut moved, &ids, 1.0 / penalty);
            prop_assert!(moved.iter().zip(&row).all(|(a, b)| (a - b).abs() < 1e-4));
        }
    }
}
