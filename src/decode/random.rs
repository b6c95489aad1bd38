//! Reproducible draws: the token drawn is a pure function of (seed, row, step) and the distribution.
//!
//! A draw is an exponential race. Each token `i` gets its own exponential variate `E_i` from a counter-based generator
//! (ChaCha8: the key is the seed, the stream the row, the position the step and the token), and the token with the
//! smallest `E_i / p_i` wins. The winner is distributed as `p`, and the first `k` to finish are `k` draws without
//! replacement, in order. PyTorch's `multinomial` is such a race too. Nothing is carried from one draw to the next, so
//! a row's sample is the same alone, in a batch and on resume. And because a token's variate does not depend on the
//! distribution, two models with similar distributions mostly draw the same token, which assisted decoding relies on.
//!
//! Reference: Kool et al. 2019, "Stochastic Beams and Where to Find Them".

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::base::math;
use crate::logits;

/// The variates of one step of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Noise {
    /// The seed of the run.
    pub seed: u64,
    /// The row: which of the returned sequences is drawn.
    pub row: u64,
    /// How many tokens have been generated before.
    pub step: u64,
}

/// How many variates are generated at once: what the generator makes in one go.
const GROUP: usize = 64;

impl Noise {
    fn generator(self) -> ChaCha8Rng {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&self.seed.to_le_bytes());
        let mut generator = ChaCha8Rng::from_seed(key);
        generator.set_stream(self.row);
        generator
    }

    /// The position of token `index`'s variate in the stream; every step has room for 2^32 variates.
    fn position(self, index: usize) -> u128 {
        u128::from(self.step) << 32 | index as u128
    }

    /// Draws a token from these `logits`; at least one of them is finite.
    #[cfg(test)]
    pub(crate) fn draw(self, logits: &[f32]) -> usize {
        self.draw_beside(logits, f32::NEG_INFINITY)
    }

    /// Draws a token from these `logits`, at least one of which is finite. What is ruled out may have been the `largest`;
    /// unless that is [far](Self::is_far) from all others, it counts, so that their weights are the same to the last bit
    /// whatever is ruled out.
    pub(crate) fn draw_beside(self, logits: &[f32], largest: f32) -> usize {
        let own = logits::max(logits);
        let mut weights = vec![];
        logits::weights(logits, if Self::is_far(own, largest) { own } else { largest.max(own) }, &mut weights);
        self.race(&weights, 1).first().copied().unwrap_or_else(|| logits::argmax(logits))
    }

    /// Draws a few tokens, in order, from the `logits` of a row without replacement: if one that is not ruled out later is
    /// among them, and not far from the largest, the first such is what [`draw_beside`](Self::draw_beside) draws then.
    pub(crate) fn first_of(self, logits: &[f32], k: usize) -> impl Iterator<Item = usize> {
        let largest = logits::max(logits);
        let mut weights = vec![];
        logits::weights(logits, largest, &mut weights);
        self.race(&weights, k).into_iter().take_while(move |id| !Self::is_far(logits[*id], largest))
    }

    /// Whether a logit is so far from the largest that 32 bits hold too little of what lies below it: of weights from 1 on,
    /// those below `e^-87` are 0.
    fn is_far(logit: f32, largest: f32) -> bool {
        logit < largest - 20.0
    }

    /// The first `k` tokens in the race over `weights` (probabilities up to a factor); fewer if fewer weights are above 0.
    pub(crate) fn race(self, weights: &[f32], k: usize) -> Vec<usize> {
        let mut leaders = Leaders { k, best: Vec::with_capacity(k + 1) };
        let mut generator = self.generator();
        let mut next = None;
        for (start, group) in (0..).step_by(GROUP).zip(weights.chunks(GROUP)) {
            // Where all are ruled out, nothing is generated.
            if !group.iter().fold(false, |any, w| any | (*w > 0.0)) {
                continue;
            }
            if next != Some(start) {
                generator.set_word_pos(self.position(start));
            }
            next = Some(start + GROUP);
            let mut bytes = [0; 4 * GROUP];
            generator.fill_bytes(&mut bytes);
            let mut uniforms = [0.0; GROUP];
            for (u, word) in uniforms.iter_mut().zip(bytes.as_chunks().0) {
                *u = uniform(u32::from_le_bytes(*word));
            }
            for (c, (chunk, us)) in group.chunks(16).zip(uniforms.chunks(16)).enumerate() {
                // E >= U, so most chunks lose the race without computing a logarithm.
                let bound = leaders.bound();
                if chunk.iter().zip(us).fold(false, |any, (&w, &u)| any | (u < bound * w)) {
                    for (i, (&w, &u)) in chunk.iter().zip(us).enumerate() {
                        leaders.enter(start + 16 * c + i, w, u);
                    }
                }
            }
        }
        leaders.places()
    }
}

/// A number in (0, 1), exact near 0, where the race is decided.
#[inline(always)]
fn uniform(word: u32) -> f32 {
    (word as f32 + 0.5) * (1.0 / 4_294_967_296.0)
}

/// The first `k` tokens to finish, in order.
struct Leaders {
    k: usize,
    best: Vec<(f64, usize)>,
}

impl Leaders {
    /// Only tokens that finish before this time can enter.
    fn bound(&self) -> f32 {
        match self.best.last() {
            // A little later, so that rounding excludes no one.
            Some(&(time, _)) if self.best.len() == self.k => (time * (1.0 + 1e-6)) as f32,
            _ => f32::INFINITY,
        }
    }

    fn enter(&mut self, index: usize, weight: f32, uniform: f32) {
        if weight > 0.0 {
            let time = -math::ln_1p(-f64::from(uniform)) / f64::from(weight);
            let place = self.best.partition_point(|&(t, _)| t <= time);
            if place < self.k {
                self.best.insert(place, (time, index));
                self.best.truncate(self.k);
            }
        }
    }

    fn places(self) -> Vec<usize> {
        self.best.into_iter().map(|(_, index)| index).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOISE: Noise = Noise { seed: 42, row: 3, step: 7 };

    /// Pearson's statistic of `counts` against `probs`.
    fn chi_square(counts: &[usize], probs: &[f64]) -> f64 {
        let n: usize = counts.iter().sum();
        counts.iter().zip(probs).map(|(&c, p)| (c as f64 - n as f64 * p).powi(2) / (n as f64 * p)).sum()
    }

    #[test]
    fn draws_follow_the_distribution() {
        let probs = [0.5, 0.25, 0.125, 0.0625, 0.0625];
        let logits: Vec<f32> = probs.iter().map(|p: &f64| p.ln() as f32 + 3.0).collect();
        for row in 0..4 {
            let mut counts = [0; 5];
            for step in 0..20_000 {
                counts[Noise { seed: 1, row, step }.draw(&logits)] += 1;
            }
            // The 99.9% point at 4 degrees of freedom is 18.5.
            assert!(chi_square(&counts, &probs) < 18.5, "{counts:?}");
        }
    }

    #[test]
    fn long_and_short_rows_are_drawn_alike() {
        // 5000 tokens, all of the mass on 10 of them spread over the row.
        let mut logits = vec![-60.0; 5000];
        (0..10).for_each(|i| logits[i * 500] = 0.0);
        let mut counts = [0; 10];
        for step in 0..5000 {
            let id = Noise { seed: 9, row: 0, step }.draw(&logits);
            assert_eq!(id % 500, 0);
            counts[id / 500] += 1;
            let mut few = vec![f32::NEG_INFINITY; 5000];
            (0..10).for_each(|i| few[i * 500] = 0.0);
            assert_eq!(Noise { seed: 9, row: 0, step }.draw(&few), id, "what is skipped changes nothing");
        }
        // The 99.9% point at 9 degrees of freedom is 27.9.
        assert!(chi_square(&counts, &[0.1; 10]) < 27.9, "{counts:?}");
    }

    #[test]
    fn a_race_draws_without_replacement() {
        let weights = [0.5, 0.3, 0.2];
        let mut counts = [0; 6];
        for step in 0..20_000 {
            let order = Noise { seed: 5, row: 0, step }.race(&weights, 2);
            let place = match order[..] {
                [0, 1] => 0,
                [0, 2] => 1,
                [1, 0] => 2,
                [1, 2] => 3,
                [2, 0] => 4,
                [2, 1] => 5,
                _ => panic!("{order:?}"),
            };
            counts[place] += 1;
        }
        let p = |a: f64, b: f64| a * b / (1.0 - a);
        let expected = [p(0.5, 0.3), p(0.5, 0.2), p(0.3, 0.5), p(0.3, 0.2), p(0.2, 0.5), p(0.2, 0.3)];
        // The 99.9% point at 5 degrees of freedom is 20.5.
        assert!(chi_square(&counts, &expected) < 20.5, "{counts:?}");
    }

    #[test]
    fn a_draw_depends_only_on_seed_row_and_step() {
        let logits: Vec<f32> = (0..300).map(|i| (i % 7) as f32 * 0.1).collect();
        let id = NOISE.draw(&logits);
        assert_eq!(NOISE.draw(&logits), id);
        let others = [Noise { seed: 43, ..NOISE }, Noise { row: 4, ..NOISE }, Noise { step: 8, ..NOISE }];
        assert!(others.iter().any(|other| other.draw(&logits) != id));
        assert!(others.iter().all(|other| other.race(&[1.0; 300], 300) != NOISE.race(&[1.0; 300], 300)));
    }

    #[test]
    fn impossible_tokens_are_never_drawn() {
        assert_eq!(NOISE.race(&[0.0, 1.0, 0.0, 0.5], 4).len(), 2);
        assert_eq!(NOISE.draw(&[f32::NEG_INFINITY, f32::NEG_INFINITY, -1e30]), 2);
    }
}
