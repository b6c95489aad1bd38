//! The page of `gpt2 tokenize`: the text in the colours of its tokens.

use std::path::Path;

use anyhow::Result;
use gpt2::printable;
use gpt2::tokenizer::{Token, Tokenizer};
use serde::Serialize;

use super::{Text, View};
use crate::output::tokens::wholes;

#[derive(Serialize)]
struct Data {
    text: Text,
    /// Each token's spelling in the vocabulary, first byte, and end.
    tokens: Vec<(String, usize, usize)>,
    bytes: usize,
    characters: usize,
}

const VIEW: View =
    View { style: include_str!("tokenize.css"), ..View::new("gpt2 tokenize", include_str!("tokenize.js")) };

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
    VIEW.write(path, &data)
}

/// The text as whole characters, and how many tokens they span. What lies between two tokens, as white space does for some
/// tokenizers, goes to the second.
fn spans(text: &[u8], tokens: &[Token]) -> Vec<(String, usize)> {
    let mut at = 0;
    let part = |token: &Token| {
        let end = token.end.max(at);
        &text[std::mem::replace(&mut at, end)..end]
    };
    let parts: Vec<&[u8]> = tokens.iter().map(part).collect();
    let shown = |bytes: &[u8]| printable::lines(&String::from_utf8_lossy(bytes)).into_owned();
    let mut spans: Vec<(String, usize)> = vec![];
    for whole in wholes(&parts) {
        let (first, bytes) = (&tokens[whole.start], parts[whole.clone()].concat());
        match spans.last_mut() {
            // Some tokenizers say of each part of a character that it is the whole.
            Some((_, count)) if bytes.is_empty() && first.start < first.end => *count += whole.len(),
            _ => spans.push((shown(&bytes), whole.len())),
        }
    }
    if at < text.len() {
        spans.push((shown(&text[at..]), 0));
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

    /// The space and the first byte of the character are one token.
    #[test]
    fn a_split_character_keeps_the_space_before_it() {
        let tokenizer = Tokenizer::gpt2();
        let spans = |text: &str| spans(text.as_bytes(), &tokenizer.encode(text, false).unwrap());
        for character in ["漢", "🦊"] {
            let text = format!("a {character}!");
            assert_eq!(spans(&text), [("a".into(), 1), (format!(" {character}"), 3), ("!".into(), 1)]);
        }
    }

    #[test]
    fn tokens_of_the_same_bytes_are_one_span() {
        let token = |(start, end)| Token { id: 0, start, end };
        let tokens: Vec<Token> = [(0, 0), (0, 3), (0, 3), (3, 4)].into_iter().map(token).collect();
        let (empty, whole, next) = ((String::new(), 1), ("漢".to_owned(), 2), ("a".to_owned(), 1));
        assert_eq!(spans("漢a ".as_bytes(), &tokens), [empty, whole, next, (" ".to_owned(), 0)]);
    }
}
