//! The page of `gpt2 tokenize`: the text in the colours of its tokens.

use std::path::Path;

use anyhow::Result;
use gpt2::printable;
use gpt2::tokenizer::{TextStream, Token, Tokenizer};
use serde::Serialize;

use super::Text;

#[derive(Serialize)]
struct Data {
    text: Text,
    /// Each token's spelling in the vocabulary, first byte, and end.
    tokens: Vec<(String, usize, usize)>,
    bytes: usize,
    characters: usize,
}

/// Writes the page of a `text` and its tokens.
pub fn write(path: &Path, tokenizer: &Tokenizer, text: &[u8], tokens: &[Token]) -> Result<()> {
    let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
    let piece = |id| printable::line(tokenizer.piece(id).unwrap_or_default()).into_owned();
    let data = Data {
        text: Text { spans: spans(text, tokens), ..Text::new(Some(tokenizer), &ids, std::iter::empty()) },
        tokens: tokens.iter().map(|token| (piece(token.id), token.start, token.end)).collect(),
        bytes: text.len(),
        characters: String::from_utf8_lossy(text).chars().count(),
    };
    super::write(path, "gpt2 tokenize", include_str!("tokenize.js"), &data)
}

/// The text as whole characters, and how many tokens they span. What lies between two tokens, as white space does for some
/// tokenizers, goes to the second.
fn spans(text: &[u8], tokens: &[Token]) -> Vec<(String, usize)> {
    let mut stream = TextStream::default();
    let mut spans: Vec<(String, usize)> = vec![];
    let (mut from, mut at) = (0, 0);
    for (i, token) in tokens.iter().enumerate() {
        let end = token.end.max(at);
        let whole = stream.push(&text[at..end]);
        let is_added = token.start == token.end && from == i;
        at = end;
        if !whole.is_empty() || is_added {
            spans.push((printable::lines(&whole).into_owned(), i + 1 - from));
            from = i + 1;
        }
    }
    let rest = stream.finish() + &String::from_utf8_lossy(&text[at..]);
    if from < tokens.len() || !rest.is_empty() {
        spans.push((printable::lines(&rest).into_owned(), tokens.len() - from));
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_hold_the_whole_text_and_every_token() {
        let tokenizer = Tokenizer::gpt2();
        for text in ["Hello world", "a 🦊 b", "", "naïve\n\tcafé", "日本語"] {
            let tokens = tokenizer.encode(text, false).unwrap();
            let spans = spans(text.as_bytes(), &tokens);
            assert_eq!(spans.iter().map(|(text, _)| text.as_str()).collect::<String>(), text);
            assert_eq!(spans.iter().map(|(_, tokens)| tokens).sum::<usize>(), tokens.len(), "{text}");
        }
    }
}
