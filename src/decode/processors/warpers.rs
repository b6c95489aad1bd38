//! Processors that shape the distribution for sampling: temperature and truncations.
//!
//! Thresholds are compared in `f32` and sums kept in `f64`, as in PyTorch on a CPU, so that the same tokens survive.
//! Each truncation leaves at least the best `keep` tokens.

use crate::base::math;
use crate::logits;

/// Divides all scores by `temperature`: below 1 the distribution gets sharper, above 1 flatter.
///
/// `TemperatureLogitsWarper`.
pub fn temperature(logits: &mut [f32], temperature: f32) {
    for x in logits {
        *x /= temperature;
    }
}

/// Keeps the most probable of the best 100 tokens that together have at most `h` of the entropy of those 100, and the best
/// in any case.
///
/// `TopHLogitsWarper`; Potraghloo et al. 2025, "Top-H Decoding".
pub fn top_h(logits: &mut [f32], h: f32) {
    /// How many tokens are looked at.
    const BEST: usize = 100;
    let best = logits::top_k(logits, BEST);
    let scores: Vec<f32> = best.iter().map(|(_, score)| *score).collect();
    let mut probs = vec![];
    logits::softmax(&scores, &mut probs);
    let shares: Vec<f32> =
        probs.iter().map(|p| if *p > 0.0 { -p * math::ln(f64::from(*p)) as f32 } else { 0.0 }).collect();
    let most = shares.iter().map(|share| f64::from(*share)).sum::<f64>() as f32 * h;
    let mut sum = 0.0;
    let mut kept = vec![];
    for (((id, _), share), prob) in best.into_iter().zip(shares).zip(probs) {
        sum += f64::from(share);
        // A probability of 0 ends it in the reference, where its share of the entropy is no number.
        if (prob == 0.0 || sum as f32 > most) && !kept.is_empty() {
            break;
        }
        kept.push(id);
    }
    keep_only(logits, &kept);
}

/// Removes tokens that score lower than the `k`-th best; ties with it stay.
///
/// `TopKLogitsWarper`; Fan et al. 2018, "Hierarchical Neural Story Generation".
pub fn top_k(logits: &mut [f32], k: usize) {
    let lowest = logits::kth_largest(logits, k);
    for x in logits {
        if *x < lowest {
            *x = f32::NEG_INFINITY;
        }
    }
}

/// Keeps the smallest set of best tokens whose probabilities reach `p`: the token that crosses `p` stays. Among ties the
/// later tokens are kept first, as when the head of an ascending stable sort is removed. (PyTorch's own sort is not
/// stable, so it leaves the order of ties open.)
///
/// `TopPLogitsWarper`; Holtzman et al. 2019, "The Curious Case of Neural Text Degeneration".
pub fn top_p(logits: &mut [f32], p: f64, keep: usize) {
    let removable = 1.0 - p;
    let mut probs = vec![];
    logits::softmax(logits, &mut probs);
    // Even together, tokens this unlikely stay below the mass to remove, so all of them go without sorting.
    let negligible = (0.5 * removable / logits.len() as f64) as f32;
    let best_first = |(i, x): (usize, &f32)| !(u64::from(logits::order_key(*x)) << 32 | i as u64);
    let candidates = logits.iter().enumerate().filter(|&(i, _)| probs[i] > negligible).map(best_first);
    let mut keys: Vec<u64> = candidates.collect();
    if keys.len() < keep {
        keys = logits.iter().enumerate().map(best_first).collect();
    }
    let mut kept = vec![];
    let mut below = 1.0;
    sorted_while(&mut keys, |key| {
        let id = !key as u32 as usize;
        if kept.len() >= keep && below as f32 <= removable as f32 {
            return false;
        }
        kept.push(id);
        below -= f64::from(probs[id]);
        true
    });
    keep_only(logits, &kept);
}

/// Removes tokens less likely than `p` times the likeliest.
///
/// `MinPLogitsWarper`; Nguyen et al. 2024, "Turning Up the Heat: Min-p Sampling".
pub fn min_p(logits: &mut [f32], p: f32, keep: usize) {
    let mut probs = vec![];
    logits::softmax(logits, &mut probs);
    let best = logits::top_k(&probs, keep);
    let lowest = p * logits::max(&probs);
    for (id, (x, prob)) in logits.iter_mut().zip(&probs).enumerate() {
        if *prob < lowest && !best.iter().any(|&(b, _)| b == id) {
            *x = f32::NEG_INFINITY;
        }
    }
}

/// Keeps the tokens whose surprisal is closest to the entropy, up to and including the one at which their probabilities
/// reach `mass`; ties with that one stay too.
///
/// `TypicalLogitsWarper`; Meister et al. 2022, "Locally Typical Sampling".
pub fn typical_p(logits: &mut [f32], mass: f32, keep: usize) {
    let mut log_probs = logits.to_vec();
    logits::log_softmax(&mut log_probs);
    let entropy = logits::entropy(&log_probs);
    // The distance is never negative, so its bits sort in the same order.
    let mut keys: Vec<u64> = log_probs
        .iter()
        .enumerate()
        .filter(|(_, log_prob)| log_prob.is_finite())
        .map(|(id, log_prob)| u64::from((-log_prob - entropy).abs().to_bits()) << 32 | id as u64)
        .collect();
    let mut kept = vec![];
    let mut reached = 0.0;
    let mut farthest = u64::MAX;
    sorted_while(&mut keys, |key| {
        if key >> 32 > farthest && kept.len() >= keep {
            return false;
        }
        let id = key as u32 as usize;
        kept.push(id);
        reached += math::exp(f64::from(log_probs[id]));
        if farthest == u64::MAX && reached as f32 >= mass {
            farthest = key >> 32;
        }
        true
    });
    keep_only(logits, &kept);
}

/// Removes tokens less likely than `epsilon`.
///
/// `EpsilonLogitsWarper`; Hewitt et al. 2022, "Truncation Sampling as Language Model Desmoothing".
pub fn epsilon_cutoff(logits: &mut [f32], epsilon: f32, keep: usize) {
    let mut probs = vec![];
    logits::softmax(logits, &mut probs);
    remove_below(logits, &probs, epsilon, keep);
}

/// Removes tokens less likely than `epsilon` or, if the entropy is high, less likely than `√epsilon · e^-entropy`.
///
/// `EtaLogitsWarper`; Hewitt et al. 2022, "Truncation Sampling as Language Model Desmoothing".
pub fn eta_cutoff(logits: &mut [f32], epsilon: f32, keep: usize) {
    let mut log_probs = logits.to_vec();
    logits::log_softmax(&mut log_probs);
    let eta = epsilon.min(epsilon.sqrt() * math::exp(f64::from(-logits::entropy(&log_probs))) as f32);
    let mut probs = vec![];
    logits::softmax(logits, &mut probs);
    remove_below(logits, &probs, eta, keep);
}

/// Removes tokens less likely than `threshold`, but none that score at least as high as the `keep`-th best.
fn remove_below(logits: &mut [f32], probs: &[f32], threshold: f32, keep: usize) {
    let protected = logits::kth_largest(logits, keep);
    for (x, prob) in logits.iter_mut().zip(probs) {
        if *prob < threshold && *x < protected {
            *x = f32::NEG_INFINITY;
        }
    }
}

/// Removes all tokens except `kept`.
fn keep_only(logits: &mut [f32], kept: &[usize]) {
    let scores: Vec<f32> = kept.iter().map(|&id| logits[id]).collect();
    logits.fill(f32::NEG_INFINITY);
    for (&id, score) in kept.iter().zip(scores) {
        logits[id] = score;
    }
}

/// Passes the keys to `take` in ascending order until it returns false. Sorts little more than the keys taken.
fn sorted_while(mut keys: &mut [u64], mut take: impl FnMut(u64) -> bool) {
    let mut size = 64;
    while !keys.is_empty() {
        if size < keys.len() {
            keys.select_nth_unstable(size);
        }
        let (head, rest) = keys.split_at_mut(size.min(keys.len()));
        head.sort_unstable();
        if !head.iter().all(|&key| take(key)) {
            return;
        }
        keys = rest;
        size *= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OUT: f32 = f32::NEG_INFINITY;

    /// Logits whose probabilities are `probs`.
    fn logits(probs: &[f32]) -> Vec<f32> {
        probs.iter().map(|p| p.ln()).collect()
    }

    fn survivors(logits: &[f32]) -> Vec<usize> {
        (0..logits.len()).filter(|&id| logits[id] > OUT).collect()
    }

    #[test]
    fn ties_at_k_stay() {
        let mut row = [1.0, 3.0, 2.0, 2.0, 0.0];
        top_k(&mut row, 2);
        assert_eq!(row, [OUT, 3.0, 2.0, 2.0, OUT]);
    }

    #[test]
    fn the_token_that_crosses_p_stays() {
        let probs = [0.1, 0.5, 0.4];
        for (p, expected) in [(0.4, vec![1]), (0.51, vec![1, 2]), (0.89, vec![1, 2]), (0.95, vec![0, 1, 2])] {
            let mut row = logits(&probs);
            top_p(&mut row, p, 1);
            assert_eq!(survivors(&row), expected, "{p}");
        }
        let mut row = logits(&probs);
        top_p(&mut row, 0.1, 2);
        assert_eq!(survivors(&row), [1, 2], "two are always kept");
        let mut row = logits(&[0.25; 4]);
        top_p(&mut row, 0.3, 1);
        assert_eq!(survivors(&row), [2, 3], "the later ones among ties");
    }

    #[test]
    fn the_best_tokens_share_the_entropy() {
        // Of 1.21 nats the tokens have 0.35, 0.35, 0.26 and 0.26.
        let probs = [0.125, 0.5, 0.25, 0.125];
        for (h, expected) in
            [(0.1, vec![1]), (0.3, vec![1]), (0.6, vec![1, 2]), (0.8, vec![0, 1, 2]), (1.0, vec![0, 1, 2, 3])]
        {
            let mut row = logits(&probs);
            top_h(&mut row, h);
            assert_eq!(survivors(&row), expected, "{h}");
        }
        let mut row = vec![1.0; 300];
        top_h(&mut row, 1.0);
        assert!(survivors(&row).len() <= 100, "nothing beyond the best 100");
        let mut row = [2.0, OUT, OUT];
        top_h(&mut row, 0.5);
        assert_eq!(row, [2.0, OUT, OUT], "a token that is ruled out has no share");
        let mut row = [200.0, 1.0, 0.0];
        top_h(&mut row, 0.5);
        assert_eq!(row, [200.0, OUT, OUT], "all but certain");
    }

    #[test]
    fn min_p_is_relative_to_the_best() {
        let mut row = logits(&[0.5, 0.3, 0.15, 0.05]);
        min_p(&mut row, 0.4, 1);
        assert_eq!(survivors(&row), [0, 1]);
        min_p(&mut row, 1.0, 2);
        assert_eq!(survivors(&row), [0, 1]);
    }

    #[test]
    fn typical_tokens_may_leave_out_the_likeliest() {
        // The entropy is 1.50 nats, the surprisals are 0.92 (off by 0.59) and 1.90 (off by 0.39).
        let mut row = logits(&[0.4, 0.15, 0.15, 0.15, 0.15]);
        typical_p(&mut row, 0.3, 1);
        assert_eq!(survivors(&row), [1, 2, 3, 4], "ties with the last one stay");
    }

    #[test]
    fn cutoffs_always_keep_the_best() {
        let mut row = logits(&[0.4, 0.35, 0.25]);
        epsilon_cutoff(&mut row, 0.3, 1);
        assert_eq!(survivors(&row), [0, 1]);
        epsilon_cutoff(&mut row, 0.99, 1);
        assert_eq!(survivors(&row), [0]);
        let mut row = logits(&[0.25; 4]);
        eta_cutoff(&mut row, 0.9, 1);
        assert_eq!(survivors(&row), [0, 1, 2, 3], "√0.9 · e^-ln 4 = 0.237 is below all of them");
    }

    type Truncation = Box<dyn Fn(&mut [f32])>;

    /// Every truncation, by name.
    fn truncations(a: f64, k: usize, keep: usize) -> Vec<(&'static str, Truncation)> {
        let x = a as f32;
        vec![
            ("top_k", Box::new(move |row: &mut [f32]| top_k(row, k.max(keep)))),
            ("top_p", Box::new(move |row: &mut [f32]| top_p(row, a, keep))),
            ("min_p", Box::new(move |row: &mut [f32]| min_p(row, x, keep))),
            ("typical_p", Box::new(move |row: &mut [f32]| typical_p(row, x, keep))),
            ("epsilon_cutoff", Box::new(move |row: &mut [f32]| epsilon_cutoff(row, x, keep))),
            ("eta_cutoff", Box::new(move |row: &mut [f32]| eta_cutoff(row, x, keep))),
        ]
    }

    /// A case of `decoding.json` (`tests/fixtures/make_decoding.py`): what transformers' processor leaves in a row.
    #[derive(serde::Deserialize)]
    struct Case {
        name: String,
        value: f64,
        keep: usize,
        /// Null is `-inf`.
        logits: Vec<Option<f32>>,
        survivors: Vec<usize>,
    }

    #[test]
    fn the_survivors_match_transformers() {
        #[derive(serde::Deserialize)]
        struct Fixture {
            processors: Vec<Case>,
        }
        let fixture: Fixture =
            serde_json::from_str(include_str!("../../../tests/fixtures/decoding.json")).expect("the fixture's format");
        assert!(fixture.processors.len() > 100);
        for Case { name, value, keep, logits, survivors: expected } in fixture.processors {
            let row: Vec<f32> = logits.into_iter().map(|x| x.unwrap_or(OUT)).collect();
            let mut cut = row.clone();
            let all = truncations(value, value as usize, keep);
            let (_, truncate) = all.iter().find(|(n, _)| *n == name).expect("a truncation of that name");
            truncate(&mut cut);
            // PyTorch's order of ties depends on the machine.
            let scores = |ids: &[usize]| {
                let mut scores: Vec<f32> = ids.iter().map(|&id| row[id]).collect();
                scores.sort_by(f32::total_cmp);
                scores
            };
            assert_eq!(scores(&survivors(&cut)), scores(&expected), "{name} {value}, keep {keep}");
        }
    }

    /// [`top_p`] by its definition, with a full ascending sort.
    fn top_p_by_sorting(row: &[f32], p: f64, keep: usize) -> Vec<usize> {
        let mut probs = vec![];
        logits::softmax(row, &mut probs);
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|&a, &b| row[a].total_cmp(&row[b]));
        let mut cumulative = 0.0;
        let mut kept: Vec<usize> = order
            .iter()
            .enumerate()
            .filter(|&(rank, &id)| {
                cumulative += f64::from(probs[id]);
                cumulative as f32 > (1.0 - p) as f32 || rank + keep >= row.len()
            })
            .map(|(_, &id)| id)
            .collect();
        kept.sort_unstable();
        kept
    }

    proptest! {
        #[test]
        fn truncations_only_remove_and_never_the_best(
            row in proptest::collection::vec(prop_oneof![6 => -12f32..12.0, 1 => Just(3.0), 1 => Just(OUT)], 12..300),
            a in 0.001f64..0.999,
            k in 1usize..20,
            keep in 1usize..4,
        ) {
            let finite = survivors(&row).len();
            prop_assume!(finite >= keep);
            for (name, truncate) in truncations(a, k, keep) {
                let mut cut = row.clone();
                truncate(&mut cut);
                prop_assert!(cut.iter().zip(&row).all(|(c, r)| c == r || *c == OUT), "{} changed a score", name);
                prop_assert!(survivors(&cut).len() >= keep, "{} keeps {}", name, keep);
                if name != "typical_p" {
                    let worst_kept = survivors(&cut).iter().map(|&i| row[i]).fold(f32::INFINITY, f32::min);
                    let best_cut = (0..row.len()).filter(|&i| cut[i] != row[i]).map(|i| row[i]).fold(OUT, f32::max);
                    prop_assert!(best_cut <= worst_kept, "{} removes from the bottom", name);
                }
                // Removing tokens changes the probabilities that other truncations use, but not what these two use.
                if matches!(name, "top_k" | "min_p") {
                    let mut twice = cut.clone();
                    truncate(&mut twice);
                    prop_assert_eq!(&cut, &twice, "{} is idempotent", name);
                }
                let mut probs = vec![];
                logits::softmax(&cut, &mut probs);
                prop_assert!((probs.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            }
        }

        #[test]
        fn top_p_is_what_a_whole_sort_gives(
            row in proptest::collection::vec(prop_oneof![6 => -12f32..12.0, 2 => Just(3.0)], 3..600),
            p in 0.001f64..0.999,
            keep in 1usize..3,
        ) {
            let mut cut = row.clone();
            top_p(&mut cut, p, keep);
            prop_assert_eq!(survivors(&cut), top_p_by_sorting(&row, p, keep));
        }

        #[test]
        fn a_wider_setting_keeps_a_larger_set(
            row in proptest::collection::vec(-12f32..12.0, 2..300),
            a in 0.01f64..0.99,
            b in 0.01f64..0.99,
        ) {
            let (low, high) = (a.min(b), a.max(b));
            for (name, wider) in [("top_p", high), ("typical_p", high), ("min_p", low), ("epsilon_cutoff", low), ("eta_cutoff", low)] {
                let narrower = low + high - wider;
                let of = |value| {
                    let mut cut = row.clone();
                    let all = truncations(value, 1, 1);
                    let (_, truncate) = all.iter().find(|(n, _)| *n == name).expect("it is in the list");
                    truncate(&mut cut);
                    survivors(&cut)
                };
                let (wide, narrow) = (of(wider), of(narrower));
                prop_assert!(narrow.iter().all(|id| wide.contains(id)), "{}", name);
            }
        }
    }
}
