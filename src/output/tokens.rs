//! Tokens for display: as a label in a table or a picture, and as running text.

use std::ops::Range;

use gpt2::printable;
use gpt2::tokenizer::{TextStream, Tokenizer};
use unicode_width::UnicodeWidthStr;

/// A single token on one line: spaces at its edges as `·`, control characters and the bytes of an incomplete character
/// as escapes; the id if there is no tokenizer.
pub fn label(tokenizer: Option<&Tokenizer>, id: u32) -> String {
    match tokenizer.and_then(|tokenizer| tokenizer.bytes(id)) {
        Some(bytes) => label_of(bytes),
        None => format!("#{id}"),
    }
}

fn label_of(bytes: &[u8]) -> String {
    let before = bytes.iter().take_while(|byte| **byte == b' ').count();
    let after = bytes[before..].iter().rev().take_while(|byte| **byte == b' ').count();
    let inner = &bytes[before..bytes.len() - after];
    let inner = std::str::from_utf8(inner).map_or_else(|_| inner.escape_ascii().to_string(), on_one_line);
    format!("{}{inner}{}", "·".repeat(before), "·".repeat(after))
}

fn on_one_line(text: &str) -> String {
    printable::line(&text.replace('\n', "↵").replace('\t', "⇥")).into_owned()
}

/// A token in quotes, with what is not printable escaped; the id if there is no tokenizer.
pub fn quoted(token: Option<&str>, id: u32) -> String {
    token.map_or_else(|| id.to_string(), |token| format!("\"{}\"", printable::line(token)))
}

/// Text with spaces after it that fill the columns.
pub fn padded(text: &str, columns: usize) -> String {
    text.to_owned() + &" ".repeat(columns.saturating_sub(text.width()))
}

/// A label cut to at most `columns` columns, with an ellipsis if something is left out.
pub fn cut(label: &str, columns: usize) -> String {
    let mut cut = label.to_owned();
    if cut.width() > columns {
        while cut.width() >= columns && cut.pop().is_some() {}
        cut.push('…');
    }
    cut
}

/// A piece of running text and its tokens: one, unless a character is split over several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Whole characters.
    pub text: String,
    /// The positions of the tokens.
    pub tokens: Range<usize>,
}

/// The running text of `ids`.
pub fn spans(tokenizer: Option<&Tokenizer>, ids: &[u32]) -> Vec<Span> {
    let bytes = |id| tokenizer.and_then(|tokenizer| tokenizer.bytes(id));
    let Some(_) = tokenizer else {
        let span = |(i, id)| Span { text: format!("{id} "), tokens: i..i + 1 };
        return ids.iter().enumerate().map(span).collect();
    };
    let mut stream = TextStream::default();
    let mut spans: Vec<Span> = vec![];
    let mut from = 0;
    for (i, id) in ids.iter().enumerate() {
        let text = stream.push(bytes(*id).unwrap_or_default());
        if !text.is_empty() {
            spans.push(Span { text, tokens: from..i + 1 });
            from = i + 1;
        }
    }
    if from < ids.len() {
        spans.push(Span { text: stream.finish(), tokens: from..ids.len() });
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_show_invisible_characters() {
        for (bytes, label) in [
            (&b" king"[..], "·king"),
            (b"  ", "··"),
            (b"a b", "a b"),
            (b"\n\n", "↵↵"),
            (b"\x1b[31m", "\\u{1b}[31m"),
            ("é".as_bytes(), "é"),
            (b" \xf0\x9f", "·\\xf0\\x9f"),
            (b"", ""),
        ] {
            assert_eq!(label_of(bytes), label);
        }
    }

    #[test]
    fn a_split_character_is_one_span() {
        let tokenizer = Tokenizer::gpt2();
        let text = "a 🦊 b";
        let ids: Vec<u32> = tokenizer.encode(text, false).unwrap().into_iter().map(|t| t.id).collect();
        let spans = spans(Some(&tokenizer), &ids);
        assert_eq!(spans.iter().map(|s| s.text.as_str()).collect::<String>(), text);
        assert!(spans.len() < ids.len());
        assert_eq!(spans.iter().flat_map(|s| s.tokens.clone()).collect::<Vec<_>>(), (0..ids.len()).collect::<Vec<_>>());
    }
}
