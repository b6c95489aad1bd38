//! Byte-pair encoding of one word: among all adjacent pairs, merge the one that the vocabulary learned first (the
//! leftmost of equals), until no pair merges.
//!
//! Reference: Sennrich et al., <https://arxiv.org/abs/1508.07909>; `Word::merge_all` of Hugging Face's tokenizers.

use std::collections::BTreeMap;

use rustc_hash::{FxBuildHasher, FxHashMap};

/// Which pairs of tokens merge, in which order, into what.
pub(super) struct Merges {
    ranks: FxHashMap<(u32, u32), u32>,
    /// The token that each rank's merge makes.
    made: Vec<u32>,
}

/// The rank of a pair that does not merge.
const NEVER: u32 = u32::MAX;

/// The index that stands for no symbol.
const NONE: u32 = u32::MAX;

impl Merges {
    pub fn with_capacity(merges: usize) -> Self {
        Self { ranks: FxHashMap::with_capacity_and_hasher(merges, FxBuildHasher), made: Vec::with_capacity(merges) }
    }

    /// Adds the next merge, of `left` and `right` into `made`. If the pair was already there, its new rank counts.
    pub fn push(&mut self, left: u32, right: u32, made: u32) {
        self.ranks.insert((left, right), self.made.len() as u32);
        self.made.push(made);
    }

    /// The rank of a pair, if it merges.
    pub fn rank(&self, left: u32, right: u32) -> Option<u32> {
        self.ranks.get(&(left, right)).copied()
    }

    /// The token that the merge of a rank makes.
    pub fn made(&self, rank: u32) -> u32 {
        self.made[rank as usize]
    }

    /// The pairs that merge, by rank.
    pub fn pairs(&self) -> Vec<(u32, u32)> {
        let mut ranked: Vec<_> = self.ranks.iter().map(|(pair, rank)| (*rank, *pair)).collect();
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, pair)| pair).collect()
    }
}

/// A word being merged. Reused from word to word to save allocations.
///
/// Pairs are kept by rank. In learned vocabularies a merge only makes pairs of later ranks, so each rank is handled
/// once, from left to right. That takes near-linear time and is easy on the caches; a single queue of all pairs is
/// neither.
#[derive(Default)]
pub(super) struct Word {
    symbols: Vec<Symbol>,
    /// Where the pairs of each rank begin, including pairs that a merge has since broken up.
    pairs: BTreeMap<u32, Vec<u32>>,
}

/// A token of a word, in a linked list that skips those merged away. Its index is the offset of its first byte.
#[derive(Clone, Copy)]
struct Symbol {
    id: u32,
    /// The rank of the pair of this symbol and the next; [`NEVER`] if it is the last, or was merged away.
    rank: u32,
    previous: u32,
    next: u32,
}

impl Word {
    /// Merges a word, given the token of each of its bytes (fewer than 2³²).
    pub fn merge(&mut self, bytes: impl Iterator<Item = u32>, merges: &Merges) {
        self.symbols.clear();
        self.symbols.extend(bytes.zip(0_u32..).map(|(id, index)| Symbol {
            id,
            rank: NEVER,
            previous: index.checked_sub(1).unwrap_or(NONE),
            next: index + 1,
        }));
        if let Some(last) = self.symbols.last_mut() {
            last.next = NONE;
        }
        for index in 0..self.symbols.len() as u32 {
            self.rank_pair(index, merges);
        }
        while let Some((rank, mut indices)) = self.pairs.pop_first() {
            indices.sort();
            let outdated = |word: &Self, index: u32| word.symbols[index as usize].rank != rank;
            let mut rest = indices.into_iter();
            while let Some(index) = rest.next() {
                if outdated(self, index) {
                    continue;
                }
                if self.merge_pair(index, merges) < rank {
                    self.pairs.entry(rank).or_default().extend(rest);
                    break;
                }
            }
        }
    }

    /// The tokens of the merged word, each with its end offset.
    pub fn tokens(&self) -> impl Iterator<Item = (u32, usize)> {
        let mut index = 0;
        std::iter::from_fn(move || {
            let symbol = self.symbols.get(index as usize)?;
            index = symbol.next;
            Some((symbol.id, self.symbols.len().min(index as usize)))
        })
    }

    /// Merges the symbol at `index` with the next one. Returns the lowest rank of the new pairs.
    fn merge_pair(&mut self, index: u32, merges: &Merges) -> u32 {
        let Symbol { rank, previous, next, .. } = self.symbols[index as usize];
        let after = self.symbols[next as usize].next;
        self.symbols[next as usize].rank = NEVER;
        if let Some(after) = self.symbols.get_mut(after as usize) {
            after.previous = index;
        }
        let symbol = &mut self.symbols[index as usize];
        symbol.id = merges.made[rank as usize];
        symbol.next = after;
        self.rank_pair(previous, merges).min(self.rank_pair(index, merges))
    }

    /// Looks up the rank of the pair that begins at `index`, if there is one.
    fn rank_pair(&mut self, index: u32, merges: &Merges) -> u32 {
        let Some(&Symbol { id, next, .. }) = self.symbols.get(index as usize) else { return NEVER };
        let pair = self.symbols.get(next as usize).map(|next| (id, next.id));
        let rank = pair.and_then(|pair| merges.ranks.get(&pair)).copied().unwrap_or(NEVER);
        self.symbols[index as usize].rank = rank;
        if rank != NEVER {
            self.pairs.entry(rank).or_default().push(index);
        }
        rank
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::{FxHashMap, Merges, Word};

    /// Tokens of up to four letters of a two-letter alphabet.
    fn tokens() -> Vec<String> {
        let mut tokens = vec![String::new()];
        for i in 0..15 {
            tokens.extend(['a', 'b'].map(|letter| format!("{}{letter}", tokens[i])));
        }
        tokens
    }

    /// The algorithm as in Sennrich et al., on text.
    fn reference(word: &str, merges: &[(String, String)]) -> Vec<String> {
        let ranks: FxHashMap<_, _> = merges.iter().zip(0..).collect();
        let mut word: Vec<String> = word.chars().map(String::from).collect();
        let ranked = |word: &[String], i: usize| ranks.get(&(word[i].clone(), word[i + 1].clone())).copied();
        while let Some((_, i)) = (1..word.len()).filter_map(|i| Some((ranked(&word, i - 1)?, i))).min() {
            let right = word.remove(i);
            word[i - 1] += &right;
        }
        word
    }

    proptest! {
        /// Merges in any order, so some make pairs of earlier ranks.
        #[test]
        fn merging_equals_the_reference(
            pairs in vec((1_usize..15, 1_usize..15), 0..30),
            word in "[ab]{0,60}",
        ) {
            let tokens = tokens();
            let id = |token: &str| tokens.iter().position(|t| t == token).map(|id| id as u32);
            let pairs: Vec<_> = pairs.iter().map(|&(left, right)| (tokens[left].clone(), tokens[right].clone())).collect();
            let pairs: Vec<_> = pairs.into_iter().filter(|(left, right)| id(&format!("{left}{right}")).is_some()).collect();
            let mut merges = Merges::with_capacity(pairs.len());
            for (left, right) in &pairs {
                merges.push(id(left).unwrap(), id(right).unwrap(), id(&format!("{left}{right}")).unwrap());
            }
            let mut merged = Word::default();
            merged.merge("abba".chars().filter_map(|c| id(&c.to_string())), &merges);
            merged.merge(word.chars().filter_map(|c| id(&c.to_string())), &merges);
            let found: Vec<_> = merged.tokens().map(|(id, _)| tokens[id as usize].clone()).collect();
            let ends: Vec<_> = found.iter().scan(0, |end, token| { *end += token.len(); Some(*end) }).collect();
            prop_assert_eq!(&merged.tokens().map(|(_, end)| end).collect::<Vec<_>>(), &ends);
            prop_assert_eq!(found, reference(&word, &pairs));
        }
    }
}
