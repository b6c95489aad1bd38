//! Heads that do something known: how much of each head's attention goes where a previous-token head, a duplicate-token
//! head or an induction head would look.
//!
//! The score is the share of a head's attention, over all queries, that is on the behaviour's pattern. Reference: `detect_head`
//! of TransformerLens 4.3 (`head_detector.py`) with its default `error_measure="mul"`, which excludes neither the first
//! token nor the query's own.

use std::collections::HashMap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::activations;
use crate::error::{Error, Result};
use crate::model::{Gpt2, Hook, HookPoint, Trace, with_slice};

/// What a head may do. A query at position `q` attends to `k`:
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Behaviour {
    /// `k = q - 1`.
    PreviousToken,
    /// `k < q`, and the tokens are the same.
    DuplicateToken,
    /// The token before `k` is the query's, and is not the query itself: what followed it last time.
    Induction,
}

impl Behaviour {
    /// All.
    pub const ALL: [Self; 3] = [Self::PreviousToken, Self::DuplicateToken, Self::Induction];

    /// The pattern over a text: for each query, the positions it attends to.
    #[must_use]
    pub fn pattern(self, ids: &[u32]) -> Vec<Vec<usize>> {
        let mut seen: HashMap<u32, Vec<usize>> = HashMap::new();
        let rows = ids.iter().enumerate().map(|(q, id)| {
            let before = seen.entry(*id).or_default();
            let keys = match self {
                Self::PreviousToken => q.checked_sub(1).into_iter().collect(),
                Self::DuplicateToken => before.clone(),
                Self::Induction => before.iter().map(|k| k + 1).collect(),
            };
            before.push(q);
            keys
        });
        rows.collect()
    }
}

/// How much each head does of each behaviour.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadScores {
    /// By layer and head.
    pub heads: Vec<HeadScore>,
    /// The most that a head can reach in this text, in the order of [`Behaviour::ALL`]: the share of the queries that have
    /// somewhere to look.
    pub most: [f64; 3],
}

/// One head's scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadScore {
    /// The layer, from 0.
    pub layer: usize,
    /// The head, from 0.
    pub head: usize,
    /// From 0 to 1, in the order of [`Behaviour::ALL`].
    pub scores: [f64; 3],
}

/// Bytes that it takes to score the heads over a text of `tokens` tokens.
#[must_use]
pub fn bytes(model: &Gpt2, tokens: usize) -> u64 {
    // Duplicates are pairs of positions.
    let pairs = (tokens as u64).saturating_mul(tokens as u64) * size_of::<usize>() as u64;
    activations::bytes(model, tokens, model.config().n_layer, false) + 2 * pairs
}

/// Scores every head over a text of at least two tokens.
///
/// # Errors
/// As [`Gpt2::forward`]; [`Error::Usage`] for a shorter text; [`Error::Numerics`] if attention is not finite.
pub fn head_scores(model: &Gpt2, ids: &[u32]) -> Result<HeadScores> {
    if ids.len() < 2 {
        return Err(Error::Usage("heads are scored over at least 2 tokens".into()));
    }
    let layers = 0..model.config().n_layer;
    let mut trace = Trace::of(layers.clone().map(|layer| HookPoint { layer, hook: Hook::Pattern }));
    model.forward(&[(0, ids)], &mut model.new_cache(), Some(&mut trace))?;
    let patterns = Behaviour::ALL.map(|behaviour| behaviour.pattern(ids));
    let most = patterns.each_ref().map(|rows| {
        let with_keys = rows.iter().filter(|keys| !keys.is_empty()).count();
        with_keys as f64 / ids.len() as f64
    });
    let mut heads = vec![];
    for layer in layers {
        let Some(weights) = trace.take(layer, Hook::Pattern).pop() else { continue };
        with_slice(&weights, |weights| {
            for (head, weights) in weights.chunks_exact(ids.len() * ids.len()).enumerate() {
                let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
                let scores = patterns.each_ref().map(|rows| {
                    let weights = weights.chunks_exact(ids.len()).zip(rows);
                    let on = weights.flat_map(|(row, keys)| keys.iter().map(|key| f64::from(row[*key])));
                    on.sum::<f64>() / total
                });
                heads.push(HeadScore { layer, head, scores });
            }
        })?;
    }
    match heads.iter().find(|head| head.scores.iter().any(|score| !score.is_finite())) {
        None => Ok(HeadScores { heads, most }),
        Some(HeadScore { layer, head, .. }) => Err(Error::Numerics(format!(
            "the attention of layer {layer}, head {head} is no distribution: what goes into it is not finite"
        ))),
    }
}

/// A random sequence of `length` different tokens, twice, after the start of a text if there is one: what induction heads
/// show themselves on. A pure function of its arguments.
///
/// # Errors
/// [`Error::Usage`] if the vocabulary has fewer tokens.
pub fn repeated_sequence(seed: u64, length: usize, vocab_size: usize, start: Option<u32>) -> Result<Vec<u32>> {
    let mut tokens: Vec<u32> = (0..vocab_size as u32).filter(|id| Some(*id) != start).collect();
    if length > tokens.len() {
        return Err(Error::Usage(format!(
            "{length} different tokens are more than the {} that the vocabulary has",
            tokens.len()
        )));
    }
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut generator = ChaCha8Rng::from_seed(key);
    // The first steps of a shuffle. With 64 bits, no token is noticeably more likely than another.
    for i in 0..length {
        let other = generator.next_u64() % (tokens.len() - i) as u64;
        tokens.swap(i, i + other as usize);
    }
    Ok(start.into_iter().chain(tokens[..length].iter().copied()).chain(tokens[..length].iter().copied()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_transformer_lens() {
        // get_*_detection_pattern(tensor([[7, 8, 8, 7, 8]])).nonzero()
        let pairs = |behaviour: Behaviour| -> Vec<(usize, usize)> {
            let rows = behaviour.pattern(&[7, 8, 8, 7, 8]);
            rows.into_iter().enumerate().flat_map(|(q, keys)| keys.into_iter().map(move |k| (q, k))).collect()
        };
        assert_eq!(pairs(Behaviour::PreviousToken), [(1, 0), (2, 1), (3, 2), (4, 3)]);
        assert_eq!(pairs(Behaviour::DuplicateToken), [(2, 1), (3, 0), (4, 1), (4, 2)]);
        assert_eq!(pairs(Behaviour::Induction), [(2, 2), (3, 1), (4, 2), (4, 3)]);
    }

    #[test]
    fn a_sequence_follows_from_its_seed() {
        let ids = repeated_sequence(3, 50, 1000, Some(7)).unwrap();
        assert_eq!((ids.len(), ids[0], &ids[1..51]), (101, 7, &ids[51..]));
        let mut different = ids[..51].to_vec();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), 51);
        assert_eq!(ids, repeated_sequence(3, 50, 1000, Some(7)).unwrap());
        assert_ne!(ids, repeated_sequence(4, 50, 1000, Some(7)).unwrap());
        assert_eq!(repeated_sequence(0, 4, 4, None).unwrap().len(), 8);
        assert!(repeated_sequence(0, 4, 4, Some(0)).is_err());
    }
}
