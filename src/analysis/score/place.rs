//! What one distribution says about the tokens in its place.

use super::ScoreOptions;
use crate::analysis::words::Border;
use crate::error::Result;
use crate::logits::{self, LogNormalizer};

/// A token's probability and rank, given the tokens before it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenScore {
    /// Natural log-probability.
    pub logprob: f32,
    /// Its rank in the distribution, 1 for the best, as counted by [`logits::rank`].
    pub rank: usize,
    /// The entropy of the distribution, in nats; none unless asked for.
    pub entropy: Option<f64>,
}

/// What is read from a distribution in one place.
#[derive(Debug)]
pub(super) struct Place {
    /// The scores of the tokens that were asked for, in their order.
    pub tokens: Vec<TokenScore>,
    /// The best tokens with their log-probabilities.
    pub best: Vec<(u32, f32)>,
    pub border: Option<Border>,
}

impl Place {
    /// From a row of logits (V).
    pub fn read(row: &[f32], ids: impl Iterator<Item = u32>, options: &ScoreOptions<'_>) -> Result<Self> {
        let normalizer = LogNormalizer::of_finite(row)?;
        let entropy =
            options.entropy.then(|| logits::exact_entropy(row.iter().map(|logit| normalizer.log_prob(*logit))));
        let score = |id| TokenScore {
            logprob: normalizer.log_prob(row[id as usize]),
            rank: logits::rank(row, id as usize),
            entropy,
        };
        let best = logits::top_k(row, options.alternatives).into_iter();
        Ok(Self {
            tokens: ids.map(score).collect(),
            best: best.map(|(id, logit)| (id as u32, normalizer.log_prob(logit))).collect(),
            border: options.words.map(|starts| starts.border(row, &normalizer)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn ties_rank_by_id() {
        let row = [1.0, 3.0, 2.0, 3.0, -1.0];
        let sum: f32 = row.iter().map(|x: &f32| x.exp()).sum();
        let options = ScoreOptions { alternatives: 2, entropy: true, ..ScoreOptions::default() };
        let place = Place::read(&row, 0..5, &options).unwrap();
        for (id, rank) in [(0, 4), (1, 1), (2, 3), (3, 2), (4, 5)] {
            assert_eq!(place.tokens[id].rank, rank, "{id}");
            assert!((place.tokens[id].logprob - (row[id] - sum.ln())).abs() < 1e-6, "{id}");
        }
        assert_eq!(place.best.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 3]);
        let entropy: f32 = row.iter().map(|x| x.exp() / sum).map(|p| -p * p.ln()).sum();
        assert!((place.tokens[0].entropy.unwrap() - f64::from(entropy)).abs() < 1e-6);
    }

    #[test]
    fn rows_that_are_not_finite_are_refused() {
        for bad in [f32::NAN, f32::INFINITY] {
            let outcome = Place::read(&[0.0, bad, 1.0], 0..1, &ScoreOptions::default());
            assert!(matches!(outcome, Err(Error::Numerics(_))), "{bad}");
        }
    }
}
