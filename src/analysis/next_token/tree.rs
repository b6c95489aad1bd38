//! The tree of continuations.

use super::{Candidate, Distribution, Query, check};
use crate::error::{Error, Result};
use crate::language_model::{Input, LanguageModel};
use crate::model::{Gpt2, Session};

/// The most nodes of a [`tree`], far more than a person would look through.
pub const MOST_NODES: u64 = 1_000_000;

/// A token in the tree of continuations.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The token, with its rank and probability after its parent.
    pub candidate: Candidate,
    /// The natural logarithm of the probability of the path from the prompt to this token.
    pub joint_logprob: f64,
    /// The best continuations after it.
    pub next: Vec<Node>,
}

/// The `k` best continuations of a prompt, each with its own `k` best, to a depth of `depth`, with joint probabilities.
/// Calls `grown` for each node.
///
/// # Errors
/// [`Error::Usage`] if the tree has more than [`MOST_NODES`] nodes; otherwise as [`next_tokens`](super::next_tokens).
pub fn tree(model: &Gpt2, prompt: &[u32], depth: u64, query: &Query, grown: &dyn Fn()) -> Result<Vec<Node>> {
    check(model, query, prompt, 0)?;
    let query = Query { k: query.k.min(model.config().vocab_size), ..query.clone() };
    if node_count(query.k, depth).is_none() {
        let k = query.k;
        return Err(Error::Usage(format!(
            "a tree {depth} levels deep with {k} tokens per node has more than {MOST_NODES} nodes"
        )));
    }
    let (session, path, rows) = (Session::new(model), prompt.to_vec(), depth as usize + 1);
    let mut tree = Tree { session, query: &query, prompt: prompt.len(), path, rows, grown };
    let logits = tree.logits_after(0, prompt, query.other(prompt))?;
    tree.grow(logits, 0.0, depth)
}

/// The number of nodes of a [`tree`]; none if it exceeds [`MOST_NODES`].
#[must_use]
pub fn node_count(k: usize, depth: u64) -> Option<u64> {
    // The deepest tree is a chain, with one node per level.
    let depth = u32::try_from(depth).ok().filter(|depth| u64::from(*depth) <= MOST_NODES)?;
    (1..=depth).try_fold(0u64, |sum, level| {
        (k as u64).checked_pow(level).and_then(|n| sum.checked_add(n)).filter(|n| *n <= MOST_NODES)
    })
}

/// Bytes that a [`tree`] of `nodes` takes, `depth` levels below a prompt of `tokens`.
#[must_use]
pub fn tree_bytes(model: &Gpt2, tokens: usize, depth: u64, nodes: u64) -> u64 {
    let room = model.room();
    let pass = tokens as u64 * room.position_bytes + room.cache_bytes(tokens);
    // Each level has a row, which shares its past except for one page.
    let levels = depth.min((model.config().n_positions.saturating_sub(tokens)) as u64);
    pass + levels * (room.page_bytes + 4 * model.config().vocab_size as u64) + nodes * size_of::<Node>() as u64
}

/// A tree under construction.
struct Tree<'m, 'q> {
    session: Session<'m>,
    query: &'q Query,
    grown: &'q dyn Fn(),
    /// The length of the prompt.
    prompt: usize,
    /// The prompt, then the tokens down to the current node.
    path: Vec<u32>,
    /// How many rows hold paths. As many others, for guidance, hold the other prompt and the same tokens.
    rows: usize,
}

impl Tree<'_, '_> {
    /// The nodes below the path, `depth` levels deep. `logits` (V) are for the token after the path, `joint` is the path's
    /// log-probability.
    ///
    /// Row 0 holds the prompt, row `d` a path with `d` more levels below it: a child shares its parent's past.
    fn grow(&mut self, mut logits: Vec<f32>, joint: f64, depth: u64) -> Result<Vec<Node>> {
        let generated = self.path.len() - self.prompt;
        let vocab_size = self.session.vocab_size();
        let distribution = Distribution::of_rows(&mut logits, vocab_size, self.query, &self.path, generated)?;
        let best = distribution.best(self.query.k);
        let other = self.query.other(&self.path[..self.prompt]).map_or(0, <[u32]>::len);
        let full = generated + self.prompt.max(other) >= self.session.n_positions();
        let mut nodes = Vec::with_capacity(best.len());
        for candidate in best {
            let joint_logprob = joint + candidate.logprob().map_or(f64::NEG_INFINITY, f64::from);
            let mut next = vec![];
            if depth > 1 && !full {
                let row = depth as usize;
                let parent = if self.path.len() == self.session.len(0) { 0 } else { row + 1 };
                let moves = [(row, parent), (self.rows + row, self.rows + parent)];
                self.session.assign(if other > 0 { &moves } else { &moves[..1] });
                let new = [candidate.id];
                let logits = self.logits_after(row, &new, (other > 0).then_some(&new))?;
                self.path.push(candidate.id);
                next = self.grow(logits, joint_logprob, depth - 1)?;
                self.path.pop();
            }
            nodes.push(Node { candidate, joint_logprob, next });
            (self.grown)();
        }
        Ok(nodes)
    }

    /// The logits (V) after more `ids` in `row`; with guidance, (2, V), with those after `other` in the other row.
    fn logits_after(&mut self, row: usize, ids: &[u32], other: Option<&[u32]>) -> Result<Vec<f32>> {
        let inputs = [Some(Input::logits(row, ids)), other.map(|ids| Input::logits(self.rows + row, ids))];
        let inputs: Vec<_> = inputs.into_iter().flatten().collect();
        Ok(self.session.forward(&inputs)?.logits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_counted_without_overflow() {
        assert_eq!(node_count(2, 3), Some(14));
        assert_eq!(node_count(1, 16), Some(16));
        assert_eq!(node_count(1000, 2), None);
        assert_eq!(node_count(1000, 9), None);
        assert_eq!(node_count(usize::MAX, u64::MAX), None);
    }
}
