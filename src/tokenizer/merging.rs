//! Byte-pair encoding step by step, as GPT-2's `encoder.py` does it: among all adjacent pairs of a word, the one that
//! was learned first is merged wherever it occurs, until no pair merges.

use super::bpe::Merges;

/// How the tokens of a word came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergedWord {
    /// The offset of its first byte in the text.
    pub start: usize,
    /// One past the offset of its last byte.
    pub end: usize,
    /// The tokens of its single bytes; of a special token, that token.
    pub bytes: Vec<u32>,
    /// The merges, in order. After the last one come the word's tokens.
    pub steps: Vec<MergeStep>,
}

/// A merge of all occurrences of a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeStep {
    /// The pair's place in the order in which merges were learned, from 0.
    pub rank: u32,
    /// The pair.
    pub pair: (u32, u32),
    /// The word's tokens after the merge.
    pub tokens: Vec<u32>,
}

impl MergedWord {
    /// The tokens after all merges.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        self.steps.last().map_or(&self.bytes, |step| &step.tokens)
    }
}

/// The merges of a word, given the tokens of its bytes. Takes time quadratic in their number.
pub(super) fn steps(bytes: &[u32], merges: &Merges) -> Vec<MergeStep> {
    let mut steps: Vec<MergeStep> = vec![];
    let mut tokens = bytes.to_vec();
    let ranked = |(place, pair): (usize, &[u32])| Some((merges.rank(pair[0], pair[1])?, place));
    while let Some((rank, place)) = tokens.windows(2).enumerate().filter_map(ranked).min() {
        let pair = (tokens[place], tokens.remove(place + 1));
        tokens[place] = merges.made(rank);
        // All occurrences are one step.
        match steps.last_mut().filter(|last| last.rank == rank) {
            Some(last) => last.tokens.clone_from(&tokens),
            None => steps.push(MergeStep { rank, pair, tokens: tokens.clone() }),
        }
    }
    steps
}
