//! Tokens that were added to a vocabulary: they are found in a text before it is split into words.
//!
//! Reference: `AddedVocabulary` of Hugging Face's tokenizers 0.23, `tokenizer_st_partition` of llama.cpp.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use regex::Regex;

/// An added token, with transformers' names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AddedToken {
    /// The text that becomes the token.
    pub content: String,
    /// Found only if no letter, digit or underscore is beside it.
    pub single_word: bool,
    /// Takes the white space before it along.
    pub lstrip: bool,
    /// Takes the white space after it along.
    pub rstrip: bool,
    /// Searched for in what the others leave over, after the normalizer.
    pub normalized: bool,
    /// Left out of decoded text, and can be taken as ordinary text.
    pub special: bool,
}

impl AddedToken {
    /// A token that is found wherever its text is.
    pub fn new(content: &str, special: bool) -> Self {
        let content = content.to_owned();
        Self { content, single_word: false, lstrip: false, rstrip: false, normalized: !special, special }
    }
}

/// How added tokens that overlap are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Matching {
    /// From left to right, the longest of those that begin at the same place; normalized ones in what is left.
    HuggingFace,
    /// The longest token first, everywhere in the text, then the next one in what is left.
    LlamaCpp,
}

/// A part of a text: an added token, or text in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// The added token.
    pub token: Option<u32>,
    /// Byte offsets in the text.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

/// The added tokens of a vocabulary.
pub(super) struct AddedTokens {
    /// By id, ascending.
    tokens: Vec<(u32, AddedToken)>,
    search: Search,
}

enum Search {
    /// Those that are not normalized, and those that are.
    HuggingFace(Option<Automaton>, Option<Automaton>),
    /// Indices of the tokens, the longest first.
    LlamaCpp(Vec<usize>),
}

/// Searches for many tokens at once.
struct Automaton {
    automaton: AhoCorasick,
    /// Indices of the tokens, by pattern.
    tokens: Vec<usize>,
}

impl AddedTokens {
    /// Prepares the search for tokens with different ids and contents, none of them empty.
    pub fn new(mut tokens: Vec<(u32, AddedToken)>, matching: Matching) -> Result<Self, String> {
        Self::check_size(tokens.iter().map(|(_, token)| token))?;
        tokens.sort_by_key(|(id, _)| *id);
        let search = match matching {
            Matching::HuggingFace => {
                Search::HuggingFace(Automaton::new(&tokens, false)?, Automaton::new(&tokens, true)?)
            }
            Matching::LlamaCpp => {
                let mut order: Vec<usize> = (0..tokens.len()).collect();
                order.sort_by_key(|&index| std::cmp::Reverse(tokens[index].1.content.len()));
                Search::LlamaCpp(order)
            }
        };
        Ok(Self { tokens, search })
    }

    /// Whether so many tokens can be searched for.
    pub fn check_size<'a>(tokens: impl Iterator<Item = &'a AddedToken>) -> Result<(), String> {
        const MOST_BYTES: usize = 1 << 20;
        let (count, bytes) = tokens.fold((0, 0), |(count, bytes), token| (count + 1, bytes + token.content.len()));
        if bytes <= MOST_BYTES {
            return Ok(());
        }
        Err(format!("{count} added tokens of {bytes} bytes together are too many to search for"))
    }

    /// The tokens with their ids, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &AddedToken)> {
        self.tokens.iter().map(|(id, token)| (*id, token))
    }

    /// Splits a text at the added tokens; only those that are not special if `special` is false. The parts are
    /// contiguous and cover the text, and those without a token are not empty.
    pub fn split(&self, text: &str, special: bool) -> Vec<Part> {
        let mut parts = vec![Part { token: None, start: 0, end: text.len() }];
        match &self.search {
            Search::HuggingFace(first, second) => {
                for automaton in [first, second].into_iter().flatten() {
                    let found = |part: Part| match part.token {
                        None => automaton.split(text, part, &self.tokens, special),
                        Some(_) => vec![part],
                    };
                    parts = parts.into_iter().flat_map(found).collect();
                }
            }
            Search::LlamaCpp(order) => {
                let tokens = order.iter().map(|&index| &self.tokens[index]);
                for (id, token) in tokens.filter(|(_, token)| special || !token.special) {
                    if text.contains(&token.content) {
                        parts = parts.into_iter().flat_map(|part| split_at(text, part, *id, &token.content)).collect();
                    }
                }
            }
        }
        parts.retain(|part| part.token.is_some() || part.start < part.end);
        close_ranks(&mut parts);
        parts
    }

    /// Splits a text at the tokens that are normalized, or at those that are not, in Hugging Face's way; otherwise as
    /// [`split`](Self::split).
    #[cfg(feature = "tokenizers")]
    pub fn split_once(&self, text: &str, normalized: bool, special: bool) -> Vec<Part> {
        let automaton = match &self.search {
            Search::HuggingFace(_, Some(automaton)) if normalized => Some(automaton),
            Search::HuggingFace(Some(automaton), _) if !normalized => Some(automaton),
            _ => None,
        };
        let whole = Part { token: None, start: 0, end: text.len() };
        let mut parts = match automaton {
            Some(automaton) => automaton.split(text, whole, &self.tokens, special),
            None => vec![whole],
        };
        parts.retain(|part| part.start < part.end);
        close_ranks(&mut parts);
        parts
    }
}

impl Automaton {
    /// Of the tokens that are normalized, or of those that are not; `None` if there are none.
    fn new(tokens: &[(u32, AddedToken)], normalized: bool) -> Result<Option<Self>, String> {
        let tokens_of = || tokens.iter().enumerate().filter(|(_, (_, token))| token.normalized == normalized);
        let indices: Vec<usize> = tokens_of().map(|(index, _)| index).collect();
        if indices.is_empty() {
            return Ok(None);
        }
        let contents = tokens_of().map(|(_, (_, token))| &token.content);
        // The kind that the library chooses for few tokens takes quadratic time to build if one of them is long.
        let kind = Some(AhoCorasickKind::ContiguousNFA);
        let automaton = AhoCorasick::builder().kind(kind).match_kind(MatchKind::LeftmostLongest).build(contents);
        Ok(Some(Self { automaton: automaton.map_err(|e| e.to_string())?, tokens: indices }))
    }

    /// Splits a part of `text`, which the tokens see as if it were all. As in the reference, a token that takes white
    /// space along may overlap with the next one, which may itself be white space.
    fn split(&self, text: &str, part: Part, tokens: &[(u32, AddedToken)], special: bool) -> Vec<Part> {
        let within = &text[part.start..part.end];
        let mut parts = vec![];
        let mut push = |token, start: usize, end: usize| {
            if start < end {
                parts.push(Part { token, start: part.start + start, end: part.start + end });
            }
        };
        let mut done = 0;
        // White space that was found already: tokens in it would each look for all of it.
        let mut white = 0..0;
        for found in self.automaton.find_iter(within) {
            let (id, token) = &tokens[self.tokens[found.pattern()]];
            // A token of which the normalizer left nothing is everywhere, also within characters.
            if !within.is_char_boundary(found.start()) {
                continue;
            }
            let (before, after) = (&within[..found.start()], &within[found.end()..]);
            let beside_word =
                || before.chars().next_back().is_some_and(is_word) || after.chars().next().is_some_and(is_word);
            if (token.special && !special) || (token.single_word && beside_word()) {
                continue;
            }
            let start = match before.get(done..) {
                Some(before) if token.lstrip => done + before.trim_end().len(),
                None if token.lstrip => done,
                _ => found.start(),
            };
            if token.rstrip && !white.contains(&found.end()) {
                white = found.end()..within.len() - after.trim_start().len();
            }
            let end = if token.rstrip { white.end.max(found.end()) } else { found.end() };
            push(None, done, start);
            push(Some(*id), start, end);
            done = end;
        }
        push(None, done, within.len());
        parts
    }
}

/// Splits a part of `text`, unless it is a token, wherever the token with this content is.
fn split_at(text: &str, part: Part, id: u32, content: &str) -> Vec<Part> {
    if part.token.is_some() {
        return vec![part];
    }
    let mut parts = vec![];
    let mut done = part.start;
    for (start, found) in text[part.start..part.end].match_indices(content) {
        let start = part.start + start;
        let end = start + found.len();
        parts.extend([Part { token: None, start: done, end: start }, Part { token: Some(id), start, end }]);
        done = end;
    }
    parts.push(Part { token: None, start: done, end: part.end });
    parts
}

/// Makes the parts contiguous: where two overlap, the first one, which is a token that took white space along, ends
/// where the second one starts.
fn close_ranks(parts: &mut [Part]) {
    let mut next_start = usize::MAX;
    for part in parts.iter_mut().rev() {
        part.end = part.end.min(next_start);
        part.start = part.start.min(part.end);
        next_start = part.start;
    }
}

/// Whether a character is part of a word for `single_word`.
fn is_word(c: char) -> bool {
    static WORD: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\w").expect("the pattern is valid"));
    WORD.is_match(c.encode_utf8(&mut [0; 4]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(content: &str) -> AddedToken {
        AddedToken::new(content, false)
    }

    /// The parts as text, added tokens in brackets.
    fn split(tokens: &[AddedToken], matching: Matching, text: &str, special: bool) -> String {
        let added = AddedTokens::new((0..).zip(tokens.to_vec()).collect(), matching).unwrap();
        let show = |part: Part| match part.token {
            Some(_) => format!("[{}]", &text[part.start..part.end]),
            None => format!("({})", &text[part.start..part.end]),
        };
        added.split(text, special).into_iter().map(show).collect()
    }

    #[test]
    fn white_space_is_taken_along_and_words_are_whole() {
        let split = |token: AddedToken, text: &str| split(&[token], Matching::HuggingFace, text, true);
        let strips = AddedToken { lstrip: true, rstrip: true, ..token("<t>") };
        assert_eq!(split(strips, "a \n<t>\u{3000} b<t>c"), "(a)[ \n<t>\u{3000} ](b)[<t>](c)");
        let word = AddedToken { single_word: true, ..token("word") };
        assert_eq!(split(word, "word words sword wörd-word é_word"), "[word]( words sword wörd-)[word]( é_word)");
    }

    #[test]
    fn special_tokens_can_be_text_and_others_cannot() {
        let tokens = [AddedToken::new("<s>", true), token("<u>")];
        for matching in [Matching::HuggingFace, Matching::LlamaCpp] {
            assert_eq!(split(&tokens, matching, "<s><u>", true), "[<s>][<u>]");
            assert_eq!(split(&tokens, matching, "<s><u>", false), "(<s>)[<u>]");
        }
    }

    #[test]
    fn overlaps_are_settled_from_the_left_or_by_length() {
        let tokens = [token("ab"), token("bcd"), token("b"), token("abc")];
        assert_eq!(split(&tokens, Matching::HuggingFace, "abcd", true), "[abc](d)");
        assert_eq!(split(&tokens, Matching::LlamaCpp, "abcdb", true), "(a)[bcd][b]");
        // Tokens that are normalized come second.
        let tokens = [token("abc"), AddedToken { normalized: false, ..token("bc") }];
        assert_eq!(split(&tokens, Matching::HuggingFace, "abc", true), "(a)[bc]");
    }

    /// The second token is within the white space that the first one takes along.
    #[test]
    fn tokens_of_white_space_survive_their_neighbours() {
        let tokens = [AddedToken { rstrip: true, ..token("<t>") }, token("\t")];
        assert_eq!(split(&tokens, Matching::HuggingFace, "<t>\t x", true), "[<t>][\t]( x)");
    }

    fn any_token() -> impl Strategy<Value = AddedToken> {
        let content =
            prop::sample::select(vec!["a", "b", "ab", "a b", " ", "  ", "\n", " a", "b\t", "é", "_", "éa", "<a>"]);
        (content, any::<[bool; 5]>()).prop_map(|(content, [single_word, lstrip, rstrip, normalized, special])| {
            AddedToken { content: content.to_owned(), single_word, lstrip, rstrip, normalized, special }
        })
    }

    fn any_text() -> impl Strategy<Value = String> {
        let part =
            prop::sample::select(vec!["a", "b", " ", "  ", "\n", "\t", "é", "_", "1", "<", ">", "\u{3000}", "漢"]);
        prop::collection::vec(part, 0..16).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn parts_are_contiguous_and_cover_the_text(
            tokens in prop::collection::vec(any_token(), 0..8),
            text in any_text(),
            llama_cpp: bool,
            special: bool,
        ) {
            let matching = if llama_cpp { Matching::LlamaCpp } else { Matching::HuggingFace };
            let added = AddedTokens::new((0..).zip(tokens).collect(), matching).unwrap();
            let mut end = 0;
            for part in added.split(&text, special) {
                prop_assert_eq!(part.start, end);
                prop_assert!(text.is_char_boundary(part.end));
                end = part.end;
            }
            prop_assert_eq!(end, text.len());
        }

        /// The bytes are the vocabulary; what differs is what happens to the added tokens.
        #[cfg(feature = "tokenizers")]
        #[test]
        fn ids_equal_those_of_hugging_faces_library(
            tokens in prop::collection::vec(any_token(), 0..8),
            prefix_space: bool,
            text in any_text(),
        ) {
            use crate::base::foreign::guard;
            use crate::tokenizer::{alphabet, settings::Settings, tokenizer_json};
            let vocab: serde_json::Map<String, serde_json::Value> =
                (0..).zip(alphabet::in_vocabulary_order()).map(|(id, letter): (u32, _)| (letter.to_string(), id.into())).collect();
            let added = |(id, token): (u32, &AddedToken)| serde_json::json!({
                "id": id, "content": token.content, "single_word": token.single_word, "lstrip": token.lstrip,
                "rstrip": token.rstrip, "normalized": token.normalized, "special": token.special,
            });
            let json = serde_json::json!({
                "version": "1.0",
                "added_tokens": (256..).zip(&tokens).map(added).collect::<Vec<_>>(),
                "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": prefix_space, "trim_offsets": false},
                "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true},
                "model": {"type": "BPE", "vocab": vocab, "merges": []},
            });
            let json = serde_json::to_vec(&json).unwrap();
            let ours = tokenizer_json::parse(&json, &Settings::default(), std::path::Path::new("t")).unwrap();
            prop_assert!(ours.merges().is_some(), "it is a byte-level BPE");
            let mut library = tokenizers::Tokenizer::from_bytes(&json).unwrap();
            for special in [true, false] {
                library.set_encode_special_tokens(!special);
                // Some tokens of white space beside others that strip make the library panic.
                let library = std::panic::AssertUnwindSafe(&library);
                let Ok(encoding) = guard(|| library.encode(text.as_str(), false)) else { continue };
                let encoding = encoding.unwrap();
                let tokens = ours.encode(&text, special).unwrap();
                let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
                prop_assert_eq!(&ids, encoding.get_ids(), "{:?} {:?}", text, special);
                prop_assert_eq!(tokens.last().map_or(0, |token| token.end), text.len());
                let decoded = library.decode(&ids, !special).unwrap();
                if !decoded.contains(char::REPLACEMENT_CHARACTER) {
                    prop_assert_eq!(ours.decode(&ids, !special).unwrap(), decoded);
                }
            }
        }
    }
}
