//! Splits text into the words within which byte pairs merge.
//!
//! Reference: the pattern in GPT-2's `encoder.py`, as the `ByteLevel` pre-tokenizer of Hugging Face's tokenizers runs it.
//! The Unicode tables are the regex crate's; `every_character_is_classified_as_by_hugging_face` (in the tests) compares them.

use std::sync::LazyLock;

use regex::Regex;

/// GPT-2's pattern without `\s+(?!\S)`, which [`words`] makes up for: that lookahead would cost us linear time.
static PATTERN: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+").expect("the pattern is valid")
});

/// The words of `text` in order; together they are the whole text.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let word = PATTERN.find_at(text, start)?.as_str();
        let end = start + word.len();
        // White space gives its last character to the next word, unless it has only that one or ends the text.
        let last = word.chars().next_back().filter(|last| last.is_whitespace() && end < text.len());
        let given = last.map_or(0, char::len_utf8);
        let kept = if given < word.len() { word.len() - given } else { word.len() };
        start += kept;
        Some(&word[..kept])
    })
}
