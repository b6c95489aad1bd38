//! Processors that depend on the ids so far: penalties and bans. Biases of single tokens.

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

/// Bans each token that would complete an n-gram already in `ids`. `n = 1` bans every token seen.
///
/// `NoRepeatNGramLogitsProcessor`.
pub fn no_repeat_ngram(logits: &mut [f32], ids: &[u32], n: usize) {
    if n == 0 || ids.len() < n {
        return;
    }
    let prefix = &ids[ids.len() + 1 - n..];
    for ngram in ids.windows(n).filter(|ngram| ngram[..n - 1] == *prefix) {
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
    fn an_ngram_is_banned_by_its_prefix() {
        let mut logits = [0.0; 4];
        no_repeat_ngram(&mut logits, &[1, 2, 3, 1, 0, 3, 1], 3);
        assert_eq!(logits, [OUT, 0.0, 0.0, 0.0], "3 1 was followed by 0");
        let mut logits = [0.0; 4];
        no_repeat_ngram(&mut logits, &[1, 2, 1], 1);
        assert_eq!(logits, [0.0, OUT, OUT, 0.0], "n = 1 bans every token seen");
        let mut logits = [0.0; 4];
        no_repeat_ngram(&mut logits, &[1, 1], 2);
        assert_eq!(logits, [0.0, OUT, 0.0, 0.0], "n-grams may overlap");
        let mut logits = [0.0; 4];
        no_repeat_ngram(&mut logits, &[1], 2);
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
            no_repeat_ngram(&mut once, &ids, n);
            bad_words(&mut once, &ids, &[vec![1, 2], vec![3], vec![9]]);
            let mut twice = once.clone();
            no_repeat_ngram(&mut twice, &ids, n);
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
