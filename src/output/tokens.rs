//! Tokens as people read them, and as running text.
//!
//! There is one notation, in tables, messages, pictures and pages: the token's text in quotes, such as `" time"`.

use std::fmt::Write;
use std::ops::Range;

use gpt2::printable;
use gpt2::tokenizer::Tokenizer;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// How tokens are written.
#[derive(Clone, Copy)]
pub struct Notation<'a> {
    tokenizer: Option<&'a Tokenizer>,
    /// Whether as the vocabulary spells them.
    as_pieces: bool,
}

impl<'a> Notation<'a> {
    /// Tokens as quoted text, or as ids if there is no tokenizer.
    pub fn new(tokenizer: Option<&'a Tokenizer>) -> Self {
        Self { tokenizer, as_pieces: false }
    }

    /// Tokens as the vocabulary spells them (`Ġtheory`), if `is_wanted`.
    pub fn with_pieces(self, is_wanted: bool) -> Self {
        Self { as_pieces: is_wanted, ..self }
    }

    /// A token whose neighbours are not known: its text, with `\n`, `\t` and other characters that cannot be seen as
    /// escapes. The bytes of a part of a character are written as in `"\xf0\x9f"`: they tell one part from another, which
    /// U+FFFD would not, and are how Python and Rust write bytes.
    pub fn token(self, id: u32) -> String {
        let Some(tokenizer) = self.tokenizer else { return format!("#{id}") };
        let known = match self.as_pieces {
            true => tokenizer.piece(id).map(|piece| printable::line(piece).into_owned()),
            false => tokenizer.bytes(id).map(quoted),
        };
        known.unwrap_or_else(|| format!("#{id}"))
    }

    /// Each of the tokens of a text. If a character is split over two tokens, they are `"😀" 1/2` and `"😀" 2/2`.
    pub fn tokens(self, ids: &[u32]) -> Vec<String> {
        let Some(tokenizer) = self.tokenizer.filter(|_| !self.as_pieces) else {
            return ids.iter().map(|id| self.token(*id)).collect();
        };
        let bytes: Vec<&[u8]> = ids.iter().map(|id| tokenizer.bytes(*id).unwrap_or_default()).collect();
        let mut labels = Vec::with_capacity(ids.len());
        for tokens in wholes(&bytes) {
            let count = tokens.len();
            if count == 1 {
                labels.push(self.token(ids[tokens.start]));
                continue;
            }
            let whole = quoted(&bytes[tokens].concat());
            labels.extend((1..=count).map(|part| format!("{whole} {part}/{count}")));
        }
        labels
    }

    /// The running text of `ids`.
    pub fn spans(self, ids: &[u32]) -> Vec<Span> {
        let Some(tokenizer) = self.tokenizer else {
            let span = |(i, id)| Span { text: format!("{id} "), tokens: i..i + 1 };
            return ids.iter().enumerate().map(span).collect();
        };
        let bytes: Vec<&[u8]> = ids.iter().map(|id| tokenizer.bytes(*id).unwrap_or_default()).collect();
        let text = |tokens: &Range<usize>| String::from_utf8_lossy(&bytes[tokens.clone()].concat()).into_owned();
        wholes(&bytes).into_iter().map(|tokens| Span { text: text(&tokens), tokens }).collect()
    }
}

/// Groups tokens, given by their bytes, so that each group is whole characters; what never becomes one stands alone.
pub fn wholes(bytes: &[&[u8]]) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = vec![];
    // Where the group begins, and the part of a character at its end so far.
    let (mut start, mut part) = (0, vec![]);
    for (i, token) in bytes.iter().enumerate() {
        part.extend_from_slice(token);
        let mut end = std::str::from_utf8(&part).err();
        if end.is_some_and(|error| error.error_len().is_some()) && start < i {
            // The tokens before do not go on with this one.
            groups.extend((start..i).map(|i| i..i + 1));
            (start, part) = (i, token.to_vec());
            end = std::str::from_utf8(&part).err();
        }
        match end {
            Some(error) if error.error_len().is_none() => drop(part.drain(..error.valid_up_to())),
            _ => {
                groups.push(start..i + 1);
                (start, part) = (i + 1, vec![]);
            }
        }
    }
    groups.extend((start..bytes.len()).map(|i| i..i + 1));
    groups
}

/// Bytes in quotes, on one line: quotes, backslashes, and what cannot be seen are escaped.
pub fn quoted(bytes: &[u8]) -> String {
    let mut shown = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        let chars: Vec<char> = chunk.valid().chars().collect();
        let is_seen = |c: Option<&char>| c.is_some_and(|c| !c.is_whitespace() && printable::is_printable(*c));
        let mut follows_seen = false;
        for (i, &c) in chars.iter().enumerate() {
            let joins = matches!(c, '\u{200c}' | '\u{200d}');
            let is_lone = c.width() == Some(0) && (!follows_seen || (joins && !is_seen(chars.get(i + 1))));
            follows_seen = !is_lone && is_seen(Some(&c));
            match c {
                '"' | '\\' => shown.extend(['\\', c]),
                ' ' => shown.push(c),
                // It would change the quote before it, or could not be seen.
                c if is_lone => shown.extend(c.escape_unicode()),
                c if c.is_whitespace() || !printable::is_printable(c) => shown.extend(c.escape_default()),
                c => shown.push(c),
            }
        }
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    shown + "\""
}

/// Text with spaces after it that fill the columns.
pub fn padded(text: &str, columns: usize) -> String {
    text.to_owned() + &" ".repeat(columns.saturating_sub(text.width()))
}

/// A label cut to at most `columns` columns, with an ellipsis where something is left out: before what closes it.
pub fn cut(label: &str, columns: usize) -> String {
    if label.width() <= columns {
        return label.to_owned();
    }
    let (text, close) = match label.rfind('"').filter(|close| *close > 0 && label.len() - close < columns / 2) {
        Some(close) => label.split_at(close),
        None => (label, ""),
    };
    let (mut cut, room) = (text.to_owned(), columns.saturating_sub(close.width() + 1));
    while cut.width() > room && cut.pop().is_some() {}
    cut + "…" + close
}

/// A piece of running text and its tokens: one, unless a character is split over several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Whole characters.
    pub text: String,
    /// The positions of the tokens.
    pub tokens: Range<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_show_invisible_characters() {
        for (bytes, shown) in [
            (&b" king"[..], r#"" king""#),
            (b"  ", r#""  ""#),
            (b"\n\t\r", r#""\n\t\r""#),
            (b"\x1b[31m", r#""\u{1b}[31m""#),
            ("é\u{a0}\u{200b}".as_bytes(), r#""é\u{a0}\u{200b}""#),
            (b" \xf0\x9f", r#"" \xf0\x9f""#),
            (br#" "\n"#, r#"" \"\\n""#),
            ("\u{200d}".as_bytes(), r#""\u{200d}""#),
            (" \u{200c}\u{fe0f}".as_bytes(), r#"" \u{200c}\u{fe0f}""#),
            ("👩\u{200d}".as_bytes(), r#""👩\u{200d}""#),
            ("\u{301}e\u{301}".as_bytes(), "\"\\u{301}e\u{301}\""),
            ("👩\u{200d}💻❤\u{fe0f}".as_bytes(), "\"👩\u{200d}💻❤\u{fe0f}\""),
            ("می\u{200c}خواهم".as_bytes(), "\"می\u{200c}خواهم\""),
            (b"", r#""""#),
        ] {
            assert_eq!(quoted(bytes), shown);
        }
    }

    #[test]
    fn tokens_of_a_split_character_name_the_character() {
        let tokenizer = Tokenizer::gpt2();
        let notation = Notation::new(Some(&tokenizer));
        let labels = |text: &str| {
            let ids: Vec<u32> = tokenizer.encode(text, true).unwrap().into_iter().map(|token| token.id).collect();
            notation.tokens(&ids)
        };
        assert_eq!(labels("The 🦊!"), [r#""The""#, r#"" 🦊" 1/3"#, r#"" 🦊" 2/3"#, r#"" 🦊" 3/3"#, r#""!""#]);
        assert_eq!(labels("漢<|endoftext|>"), [r#""漢" 1/3"#, r#""漢" 2/3"#, r#""漢" 3/3"#, r#""<|endoftext|>""#]);
        // æ and ¼ are the bytes E6 and BC, the first two of 漢; 464 is "The".
        assert_eq!(
            notation.tokens(&[162, 120, 464, 120, 162]),
            [r#""\xe6""#, r#""\xbc""#, r#""The""#, r#""\xbc""#, r#""\xe6""#]
        );
        assert_eq!(notation.tokens(&[60000, 464]), ["#60000", r#""The""#]);
        assert_eq!(notation.with_pieces(true).tokens(&[4583, 162]), ["Ġtheory", "æ"]);
        assert_eq!(Notation::new(None).tokens(&[7]), ["#7"]);
    }

    #[test]
    fn a_cut_label_stays_closed() {
        for (columns, shown) in [(14, r#"" relativity""#), (13, r#"" relativity""#), (9, r#"" relat…""#), (2, "\"…")]
        {
            assert_eq!(cut(r#"" relativity""#, columns), shown);
        }
        assert_eq!(cut(r#"" relativity" 1/2"#, 12), r#"" rela…" 1/2"#);
        assert_eq!(cut("Ġrelativity", 5), "Ġrel…");
    }

    #[test]
    fn a_split_character_is_one_span() {
        let tokenizer = Tokenizer::gpt2();
        let text = "a 🦊 b";
        let ids: Vec<u32> = tokenizer.encode(text, false).unwrap().into_iter().map(|t| t.id).collect();
        let spans = Notation::new(Some(&tokenizer)).spans(&ids);
        assert_eq!(spans.iter().map(|s| s.text.as_str()).collect::<String>(), text);
        assert!(spans.len() < ids.len());
        assert_eq!(spans.iter().flat_map(|s| s.tokens.clone()).collect::<Vec<_>>(), (0..ids.len()).collect::<Vec<_>>());
    }
}
