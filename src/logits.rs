//! Arithmetic over one row of logits: maximum, softmax, the largest entries.
//!
//! A row is as long as the vocabulary, so each function is one or two passes that the compiler can vectorise; those that
//! all logits take are compiled for each instruction set. Sums run in a fixed order: a row gives the same bits wherever it
//! is in a batch. Rows hold no NaN (`check_finite`); tokens that have been ruled out are `-inf`.

use crate::base::math;
use crate::base::simd::{Kernel, LANES, Simd, dispatch};
use crate::error::{Error, Result};

/// Numbers summed in `f32` before the sum goes into an `f64`.
const BLOCK: usize = 1024;

/// `e^x` for `x <= 0`, to two units in the last place; 0 below the smallest normal number.
///
/// Range reduction by powers of two and a polynomial of degree 7 (Cephes, `expf`), without branches or calls.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LOWEST: f32 = -87.0;
    // Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let clamped = if x > LOWEST { x } else { LOWEST };
    let rounded = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = clamped - n * LN_2_HIGH - n * LN_2_LOW;
    let mut p = 1.987_569_1e-4_f32;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + c;
    }
    let power = f32::from_bits(rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23);
    let value = (p * r * r + r + 1.0) * power;
    if x > LOWEST { value } else { 0.0 }
}

/// The sum of `f` over `values`; the same bits for the same values on every machine.
#[inline(always)]
fn sum(values: &[f32], f: impl Fn(f32) -> f32) -> f64 {
    let mut total = 0.0;
    for block in values.chunks(BLOCK) {
        let mut lanes = [0.0_f32; LANES];
        let chunks = block.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            for (lane, &x) in lanes.iter_mut().zip(chunk) {
                *lane += f(x);
            }
        }
        for (lane, &x) in lanes.iter_mut().zip(rest) {
            *lane += f(x);
        }
        total += lanes.iter().map(|&lane| f64::from(lane)).sum::<f64>();
    }
    total
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// The largest value; `-inf` of an empty row.
#[inline(always)]
pub(crate) fn max(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, x);
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, larger)
}

/// The largest of finite values; none if some are not.
struct LargestFinite<'a>(&'a [f32]);

impl Kernel for LargestFinite<'_> {
    type Output = Option<f32>;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Option<f32> {
        let (mut lanes, mut zeros) = ([f32::NEG_INFINITY; LANES], [0.0_f32; LANES]);
        let (chunks, rest) = self.0.as_chunks::<LANES>();
        for chunk in chunks {
            for ((lane, zero), x) in lanes.iter_mut().zip(&mut zeros).zip(chunk) {
                *lane = larger(*lane, *x);
                // The product is NaN for an infinity and for NaN.
                *zero += *x * 0.0;
            }
        }
        let zero: f32 = zeros.iter().sum::<f32>() + rest.iter().map(|x| x * 0.0).sum::<f32>();
        (zero == 0.0).then(|| lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, larger))
    }
}

/// The sum of `e^(x - largest)` over the logits `x` of a row.
struct Weight<'a> {
    row: &'a [f32],
    largest: f32,
}

impl Kernel for Weight<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f64 {
        let Self { row, largest } = self;
        sum(row, |x| exp(x - largest))
    }
}

/// Probabilities up to a common factor.
struct Weights<'a> {
    row: &'a [f32],
    largest: f32,
    into: &'a mut [f32],
}

impl Kernel for Weights<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (weight, x) in self.into.iter_mut().zip(self.row) {
            *weight = exp(x - self.largest);
        }
    }
}

/// What leaves only some of the tokens of a row.
struct Keep<'a> {
    row: &'a mut [f32],
    bits: &'a [u32],
}

impl Kernel for Keep<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        const WORD: usize = u32::BITS as usize;
        let known = self.row.len().min(self.bits.len() * WORD);
        let (known, unknown) = self.row.split_at_mut(known);
        unknown.fill(f32::NEG_INFINITY);
        for (row, &bits) in known.chunks_mut(WORD).zip(self.bits) {
            match bits {
                u32::MAX => {}
                0 => row.fill(f32::NEG_INFINITY),
                _ => {
                    for (bit, x) in (0..).zip(row) {
                        *x = if bits >> bit & 1_u32 == 1 { *x } else { f32::NEG_INFINITY };
                    }
                }
            }
        }
    }
}

/// The rank of a token.
struct Rank<'a> {
    row: &'a [f32],
    id: usize,
}

impl Kernel for Rank<'_> {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> usize {
        let own = self.row[self.id];
        let (before, after) = self.row.split_at(self.id);
        // In 32 bits, of which there are as many to a vector as logits.
        let before: u32 = before.iter().map(|x| u32::from(*x >= own)).sum();
        let after: u32 = after.iter().map(|x| u32::from(*x > own)).sum();
        1 + before as usize + after as usize
    }
}

/// Rules out the tokens of a row (V) whose bit is not 1; those without a bit, too.
pub(crate) fn keep(row: &mut [f32], bits: &[u32]) {
    dispatch(Keep { row, bits });
}

/// The index of the maximum, the first of equals (`torch.argmax` on a row).
pub(crate) fn argmax(row: &[f32]) -> usize {
    let mut best = (0, f32::NEG_INFINITY);
    for (start, block) in (0..).step_by(BLOCK).zip(row.chunks(BLOCK)) {
        let largest = max(block);
        if largest > best.1 {
            best = (start, largest);
        }
    }
    let (start, largest) = best;
    start + row[start..].iter().position(|&x| x == largest).unwrap_or(0)
}

/// Fails unless all logits of the model are finite.
pub(crate) fn check_finite(row: &[f32]) -> Result<()> {
    largest_finite(row).map(|_| ())
}

/// The largest of the model's logits. Fails unless all are finite.
pub(crate) fn largest_finite(row: &[f32]) -> Result<f32> {
    dispatch(LargestFinite(row)).ok_or_else(not_finite)
}

/// The error for logits that are not finite.
pub(crate) fn not_finite() -> Error {
    Error::Numerics(
        "the model's logits are not finite: its weights hold infinities or NaN, or overflow in 16 bits, where f32 would not"
            .into(),
    )
}

/// What turns the logits of a row into log-probabilities. All of them come from here, so a token has the same digits
/// wherever it is printed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogNormalizer {
    /// The largest logit.
    pub largest: f32,
    /// The logarithm of the sum of `e^(x - largest)` over all logits `x`.
    pub log_sum: f32,
}

impl LogNormalizer {
    /// Of a row of logits (V).
    #[must_use]
    pub fn of(row: &[f32]) -> Self {
        Self::with(max(row), row)
    }

    /// Of a row of the model's logits (V), which it reads no more often than [`of`](Self::of).
    ///
    /// # Errors
    /// [`Error::Numerics`] unless all are finite.
    pub fn of_finite(row: &[f32]) -> Result<Self> {
        Ok(Self::with(largest_finite(row)?, row))
    }

    fn with(largest: f32, row: &[f32]) -> Self {
        Self { largest, log_sum: math::ln(dispatch(Weight { row, largest })) as f32 }
    }

    /// The log-probability of a token with this `logit`.
    #[must_use]
    pub fn log_prob(&self, logit: f32) -> f32 {
        logit - self.largest - self.log_sum
    }
}

/// Replaces `row` by its log-probabilities.
pub fn log_softmax(row: &mut [f32]) {
    let normalizer = LogNormalizer::of(row);
    for x in row {
        *x = normalizer.log_prob(*x);
    }
}

/// Writes the probabilities of `row` to `into`, which takes the row's length.
pub fn softmax(row: &[f32], into: &mut Vec<f32>) {
    weights(row, max(row), into);
    let scale = (1.0 / sum(into, |x| x)) as f32;
    for x in into {
        *x *= scale;
    }
}

/// Probabilities up to a common factor: `e^(x - largest)`, where none is larger than `largest`.
pub(crate) fn weights(row: &[f32], largest: f32, into: &mut Vec<f32>) {
    into.resize(row.len(), 0.0);
    dispatch(Weights { row, largest, into });
}

/// The sum of `e^((x - largest) / temperature)` over the logits `x` of a row, none of which is larger than `largest`.
pub(crate) fn weight(row: &[f32], largest: f32, temperature: f32) -> f64 {
    let scale = 1.0 / temperature;
    sum(row, |x| exp((x - largest) * scale))
}

/// The entropy of the distribution whose log-probabilities are `log_probs`, in nats.
pub(crate) fn entropy(log_probs: &[f32]) -> f32 {
    -sum(log_probs, |l| if l > f32::NEG_INFINITY { l * exp(l) } else { 0.0 }) as f32
}

/// The entropy in nats of the distribution with these log-probabilities, summed in `f64`: for people, who see many digits.
pub(crate) fn exact_entropy(log_probs: impl Iterator<Item = f32>) -> f64 {
    let term = |l: f32| f64::from(l) * math::exp(f64::from(l));
    // The sum of nothing is -0.
    0.0 - log_probs.filter(|l| l.is_finite()).map(term).sum::<f64>()
}

/// The sum of `e^(x - largest)` over the logits `x` of a row, none of which is larger than `largest`: over those whose
/// place in `chosen` is 1, and over those where it is 0.
pub(crate) fn split_weight(row: &[f32], chosen: &[f32], largest: f32) -> (f64, f64) {
    let (mut inside, mut outside) = (0.0, 0.0);
    for (row, chosen) in row.chunks(BLOCK).zip(chosen.chunks(BLOCK)) {
        let (mut ins, mut outs) = ([0.0_f32; LANES], [0.0_f32; LANES]);
        for (row, chosen) in row.chunks(LANES).zip(chosen.chunks(LANES)) {
            for (((x, c), i), o) in row.iter().zip(chosen).zip(&mut ins).zip(&mut outs) {
                let weight = exp(x - largest);
                *i += weight * c;
                *o += weight * (1.0 - c);
            }
        }
        let total = |lanes: [f32; LANES]| lanes.into_iter().map(f64::from).sum::<f64>();
        inside += total(ins);
        outside += total(outs);
    }
    (inside, outside)
}

/// A number that orders as `x` does, with `-0 = 0`.
pub(crate) fn order_key(x: f32) -> u32 {
    let bits = (x + 0.0).to_bits();
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}

/// The `k` largest values of `row` with their indices, in descending order, equals by index (`torch.topk`).
pub fn top_k(row: &[f32], k: usize) -> Vec<(usize, f32)> {
    /// Up to this length, keeping a short sorted list is faster than selecting from a copy of the row.
    const SHORT: usize = 256;
    let k = k.min(row.len());
    if k > SHORT {
        let mut keys: Vec<u64> =
            row.iter().enumerate().map(|(i, &x)| u64::from(!order_key(x)) << 32 | i as u64).collect();
        if k < keys.len() {
            keys.select_nth_unstable(k);
            keys.truncate(k);
        }
        keys.sort_unstable();
        return keys.into_iter().map(|key| (key as u32 as usize, row[key as u32 as usize])).collect();
    }
    let mut best: Vec<(usize, f32)> = Vec::with_capacity(k + 1);
    for (c, chunk) in row.chunks(4 * LANES).enumerate() {
        // Most chunks have nothing that could enter a full list.
        if best.len() == k && best.last().is_none_or(|&(_, worst)| max(chunk) <= worst) {
            continue;
        }
        for (i, &x) in chunk.iter().enumerate() {
            if best.len() < k || best.last().is_some_and(|&(_, worst)| x > worst) {
                let place = best.partition_point(|&(_, y)| y >= x);
                best.insert(place, (c * 4 * LANES + i, x));
                best.truncate(k);
            }
        }
    }
    best
}

/// The rank of token `id` in `row`, 1 for the best: one more than the number of tokens with a larger logit, or with an
/// equal logit and a smaller id. So the token of rank `r` is the `r`-th of [`top_k`], and greedy search takes the one
/// of rank 1.
#[must_use]
pub fn rank(row: &[f32], id: usize) -> usize {
    dispatch(Rank { row, id })
}

/// The `k`-th largest value, counting from 1; the smallest if there are fewer.
pub(crate) fn kth_largest(row: &[f32], k: usize) -> f32 {
    top_k(row, k.max(1)).last().map_or(f32::NEG_INFINITY, |&(_, x)| x)
}

/// The most probable next tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Top {
    /// Ids and logits, best first, equals by id.
    pub best: Vec<(u32, f32)>,
    /// Of the whole row.
    pub normalizer: LogNormalizer,
}

impl Top {
    /// The `k` best of a row of logits (V); `None` if the logits are not finite.
    #[must_use]
    pub fn of(logits: &[f32], k: usize) -> Option<Self> {
        let normalizer = LogNormalizer::of_finite(logits).ok()?;
        let best = top_k(logits, k).into_iter().map(|(id, x)| (id as u32, x)).collect();
        Some(Self { best, normalizer })
    }

    /// Log-probabilities of the tokens.
    pub(crate) fn log_probs(&self) -> impl Iterator<Item = (u32, f32)> {
        self.best.iter().map(|(id, logit)| (*id, self.normalizer.log_prob(*logit)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row() -> impl Strategy<Value = Vec<f32>> {
        proptest::collection::vec(prop_oneof![8 => -30f32..30.0, 1 => Just(2.5), 1 => Just(f32::NEG_INFINITY)], 1..700)
    }

    #[test]
    fn exp_is_accurate_to_two_units_in_the_last_place() {
        for i in 0..100_000 {
            let x = -87.0 * i as f32 / 100_000.0;
            let exact = f64::from(x).exp();
            assert!(((f64::from(exp(x)) - exact) / exact).abs() < 2.0 * f64::from(f32::EPSILON), "exp({x})");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1e9), 0.0);
    }

    #[test]
    fn argmax_takes_the_first_maximum() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), 1);
        let mut row = vec![0.0; 1000];
        row[77] = 1.0;
        row[990] = 1.0;
        assert_eq!(argmax(&row), 77);
    }

    #[test]
    fn logits_that_are_not_finite_are_refused() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut row = vec![0.5; 100];
            assert!(check_finite(&row).is_ok());
            // In the last lanes, and where there are whole vectors.
            for place in [99, 40] {
                row[place] = bad;
                assert!(check_finite(&row).is_err() && LogNormalizer::of_finite(&row).is_err(), "{bad} {place}");
                row[place] = 0.5;
            }
        }
    }

    /// What is compiled for the level in use gives the bits of plain Rust.
    #[test]
    fn every_level_gives_the_same_bits() {
        for n in [1, 15, 16, 17, 1023, 1024, 1025, 50257] {
            let row: Vec<f32> = crate::base::test_numbers(n, 5).into_iter().map(|x| 40.0 * x).collect();
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let normalizer = LogNormalizer::of_finite(&row).unwrap();
            assert_eq!(normalizer.largest, largest);
            let exact = sum(&row, |x| exp(x - largest)).ln() as f32;
            assert_eq!(normalizer.log_sum.to_bits(), exact.to_bits(), "{n}");
            assert_eq!(normalizer, LogNormalizer::of(&row));
            let close: f64 = row.iter().map(|x| f64::from(x - largest).exp()).sum();
            assert!((f64::from(normalizer.log_sum) - close.ln()).abs() < 1e-5, "{n}");
        }
    }

    proptest! {
        #[test]
        fn top_k_is_the_head_of_a_stable_sort(row in row(), k in 0usize..800) {
            let mut sorted: Vec<(usize, f32)> = row.iter().copied().enumerate().collect();
            sorted.sort_by(|a, b| b.1.total_cmp(&a.1));
            sorted.truncate(k);
            prop_assert_eq!(top_k(&row, k), sorted);
        }

        #[test]
        fn a_rank_is_the_place_in_the_list_of_the_best(row in row()) {
            for (place, (id, _)) in top_k(&row, row.len()).into_iter().enumerate() {
                prop_assert_eq!(rank(&row, id), place + 1);
            }
            prop_assert_eq!(rank(&row, argmax(&row)), 1);
        }

        #[test]
        fn weights_split_in_two_are_those_of_all(mut row in row(), every in 1usize..9) {
            row[0] = 1.0;
            let chosen: Vec<f32> = (0..row.len()).map(|i| f32::from(u8::from(i % every == 0))).collect();
            let (inside, outside) = split_weight(&row, &chosen, max(&row));
            let weight = |i: usize| f64::from(row[i] - max(&row)).exp();
            let exact: f64 = (0..row.len()).filter(|i| chosen[*i] == 1.0).map(weight).sum();
            prop_assert!((inside - exact).abs() < 1e-4 * (1.0 + exact));
            let all: f64 = (0..row.len()).map(weight).sum();
            prop_assert!((inside + outside - all).abs() < 1e-4 * all);
        }

        #[test]
        fn softmax_sums_to_one_and_agrees_with_log_softmax(mut row in row()) {
            row[0] = 1.0;
            let mut probs = vec![];
            softmax(&row, &mut probs);
            prop_assert!((probs.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            let mut logs = row.clone();
            log_softmax(&mut logs);
            for (p, l) in probs.iter().zip(&logs) {
                prop_assert!((p - l.exp()).abs() < 1e-6);
            }
            let direct: f32 = probs.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
            prop_assert!((entropy(&logs) - direct).abs() < 1e-3);
        }
    }
}
