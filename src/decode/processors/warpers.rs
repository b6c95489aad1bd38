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
mod tests;
