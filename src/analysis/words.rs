//! Surprisal by word.
//!
//! Words are what white space separates. A word's tokens are those of its bytes, with the white space before it: tokens
//! mark where words begin and not where they end. So the sum of a word's log-probabilities lacks that it ends, and holds
//! that the word before did. The correction puts that right: Pimentel and Meister 2024, "How to Compute the Probability of
//! a Word" (arXiv 2406.14561), theorem 2; the same as in Oh and Schuler 2024 (arXiv 2406.10851).

use std::ops::Range;

use super::score::Score;
use crate::base::math;
use crate::logits::{LogNormalizer, split_weight};

/// Which tokens of a vocabulary begin a word.
#[derive(Debug, Clone, PartialEq)]
pub struct WordStarts {
    /// 1 for each token that begins with white space, else 0 (V).
    spaces: Vec<f32>,
    /// The token that ends a text.
    end: Option<u32>,
}

/// What a distribution says about where words begin: natural log-probabilities.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Border {
    /// That the next token begins a word, or the text ends.
    pub begins: f64,
    /// That it does not begin with white space.
    pub goes_on: f64,
}

impl WordStarts {
    /// For a vocabulary of `vocab_size` tokens with these bytes, of which `end` ends a text.
    pub fn new<'b>(vocab_size: usize, bytes: impl Fn(u32) -> &'b [u8], end: Option<u32>) -> Self {
        let is_space = |id: usize| begins_with_space(bytes(id as u32));
        let spaces = (0..vocab_size).map(|id| f32::from(u8::from(is_space(id)))).collect();
        Self { spaces, end: end.filter(|end| (*end as usize) < vocab_size) }
    }

    /// What a row of logits (V) says about where words begin.
    pub(super) fn border(&self, row: &[f32], normalizer: &LogNormalizer) -> Border {
        let (mut spaces, others) = split_weight(row, &self.spaces, normalizer.largest);
        if let Some(end) = self.end.filter(|end| self.spaces[*end as usize] == 0.0) {
            spaces += math::exp(f64::from(row[end as usize] - normalizer.largest));
        }
        let log = |weight: f64| math::ln(weight) - f64::from(normalizer.log_sum);
        Border { begins: log(spaces), goes_on: log(others) }
    }

    fn begins_word(&self, id: u32) -> bool {
        self.spaces.get(id as usize) == Some(&1.0)
    }
}

fn begins_with_space(bytes: &[u8]) -> bool {
    bytes.utf8_chunks().next().and_then(|chunk| chunk.valid().chars().next()).is_some_and(char::is_whitespace)
}

/// A word of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// Its bytes in the text of the tokens.
    pub bytes: Range<usize>,
    /// Its tokens, those of the white space before it among them.
    pub tokens: Range<usize>,
}

/// The words of a text, from its tokens' bytes and whether each ends a text: such a token ends a word, too, and is part of
/// none.
///
/// A token across a border, as no tokenizer makes that splits at white space, counts for the words on both sides.
pub fn words<'b>(tokens: impl IntoIterator<Item = (&'b [u8], bool)>) -> Vec<Word> {
    let mut words = vec![];
    let mut stretch = Stretch::default();
    for (i, (bytes, is_end)) in tokens.into_iter().enumerate() {
        if is_end {
            stretch.words(&mut words);
            stretch = Stretch {
                first: i + 1,
                offset: stretch.offset + stretch.text.len() + bytes.len(),
                ..Stretch::default()
            };
        } else {
            stretch.text.extend_from_slice(bytes);
            stretch.ends.push(stretch.text.len());
        }
    }
    stretch.words(&mut words);
    words
}

/// Tokens between ends of text.
#[derive(Default)]
struct Stretch {
    first: usize,
    /// Where it begins in the whole text.
    offset: usize,
    text: Vec<u8>,
    /// Where its tokens end in its text.
    ends: Vec<usize>,
}

impl Stretch {
    fn words(&self, words: &mut Vec<Word>) {
        let mut first = 0;
        for word in spans(&self.text) {
            let last = self.ends.partition_point(|end| *end < word.end);
            let bytes = self.offset + word.start..self.offset + word.end;
            words.push(Word { bytes, tokens: self.first + first.min(last)..self.first + last + 1 });
            first = last + 1;
        }
    }
}

/// What white space separates. Bytes that are not UTF-8 are no white space.
fn spans(text: &[u8]) -> Vec<Range<usize>> {
    let (mut spans, mut start, mut at) = (vec![], None, 0);
    for chunk in text.utf8_chunks() {
        for letter in chunk.valid().chars() {
            if letter.is_whitespace() {
                spans.extend(start.take().map(|start| start..at));
            } else {
                start.get_or_insert(at);
            }
            at += letter.len_utf8();
        }
        if !chunk.invalid().is_empty() {
            start.get_or_insert(at);
            at += chunk.invalid().len();
        }
    }
    spans.extend(start.map(|start| start..at));
    spans
}

/// The natural log-probability of a word, whose tokens are positions among `ids`, as they were scored; none if one of its
/// tokens has no score. Corrected if the score has borders.
#[must_use]
pub fn logprob(word: &Range<usize>, ids: &[u32], score: &Score, starts: Option<&WordStarts>) -> Option<f64> {
    let tokens = score.tokens.get(word.clone())?.iter();
    let sum = tokens.map(|token| token.map(|token| f64::from(token.logprob))).sum::<Option<f64>>()?;
    let Some(starts) = starts else { return Some(sum) };
    let border = |position: usize| score.borders.get(position).copied().flatten();
    let (before, after) = (border(word.start)?, border(word.end)?);
    let before = if starts.begins_word(ids[word.start]) { before.begins } else { before.goes_on };
    Some(sum + after.begins - before).filter(|logprob| logprob.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(tokens: &[&'static str]) -> Vec<(String, Range<usize>)> {
        let text = tokens.concat();
        words(tokens.iter().map(|token| (token.as_bytes(), *token == "|")))
            .into_iter()
            .map(|word| (text[word.bytes].to_owned(), word.tokens))
            .collect()
    }

    #[test]
    fn a_word_has_the_white_space_before_it() {
        let word = |text: &str, tokens| (text.to_owned(), tokens);
        assert_eq!(
            of(&["On", "ce", " upon", "\n", "\n", "A", " "]),
            [word("Once", 0..2), word("upon", 2..3), word("A", 3..6)]
        );
        assert_eq!(of(&[" ", " "]), []);
        assert_eq!(of(&[]), []);
        // A no-break space is white space; the end of a text is no part of a word and ends one.
        assert_eq!(of(&["a", "\u{a0}", "b"]), [word("a", 0..1), word("b", 1..3)]);
        assert_eq!(of(&["a", "|", "b", " c"]), [word("a", 0..1), word("b", 2..3), word("c", 3..4)]);
        // A token across a border counts for all of its words, except one that it begins and does not end.
        assert_eq!(of(&["a b c", "d"]), [word("a", 0..1), word("b", 0..1), word("cd", 1..2)]);
    }

    #[test]
    fn bytes_that_are_no_text_are_letters() {
        let tokens: [&[u8]; 3] = [b"a\xff", b" \xf0\x9f", b"\x8a x"];
        let words = words(tokens.map(|bytes| (bytes, false)));
        assert_eq!(words.iter().map(|word| word.bytes.clone()).collect::<Vec<_>>(), [0..2, 3..6, 7..8]);
    }

    #[test]
    fn a_border_sums_over_the_tokens_that_begin_words() {
        let vocabulary: [&[u8]; 5] = [b"a", b" a", b"\n", b"<|endoftext|>", b"\xc2"];
        let starts = WordStarts::new(5, |id| vocabulary[id as usize], Some(3));
        let row = [1.0, 2.0, -1.0, 0.5, 0.0];
        let border = starts.border(&row, &LogNormalizer::of(&row));
        let weight = |ids: &[usize]| ids.iter().map(|id| f64::from(row[*id]).exp()).sum::<f64>();
        let all = weight(&[0, 1, 2, 3, 4]);
        assert!((border.begins - (weight(&[1, 2, 3]) / all).ln()).abs() < 1e-6);
        assert!((border.goes_on - (weight(&[0, 3, 4]) / all).ln()).abs() < 1e-6);
    }
}
