//! The records of `gpt2 tokenize`.

use std::borrow::Cow;

use anyhow::Result;
use gpt2::printable;
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use super::tokens::padded;
use super::{Stdout, Style};

/// The result of `tokenize`.
#[derive(Debug, Serialize)]
pub struct TokenizeRecord<'a> {
    /// The text.
    pub text: String,
    /// The number of tokens.
    pub count: usize,
    /// The tokens, in order.
    pub tokens: Vec<TokenRecord<'a>>,
}

/// A token of a text.
#[derive(Debug, Serialize)]
pub struct TokenRecord<'a> {
    /// 0-based.
    pub position: usize,
    /// The token.
    #[serde(flatten)]
    pub piece: PieceRecord<'a>,
    /// The offset of its first byte in the text. A token added before the text has an empty range.
    pub start: usize,
    /// One past the offset of its last byte.
    pub end: usize,
}

/// A token of the vocabulary.
#[derive(Debug, Serialize)]
pub struct PieceRecord<'a> {
    /// The id.
    pub id: u32,
    /// Its spelling in the vocabulary, such as `Ġtheory`.
    pub piece: &'a str,
    /// Its text, with U+FFFD if the token alone is not UTF-8.
    pub text: Cow<'a, str>,
}

/// The widest cell that still keeps the columns of a table aligned.
const WIDEST: usize = 32;

impl TokenizeRecord<'_> {
    /// A table: position, id, piece, text, byte range.
    pub fn write_text(&self, out: &mut Stdout) -> Result<()> {
        let columns = Columns::of(self.tokens.iter().map(|token| &token.piece));
        let head = Style::new().bold();
        writeln!(out, "{head}position  {}  bytes{head:#}", columns.line("id", "piece", "text"))?;
        for token in &self.tokens {
            let (position, line) = (token.position, columns.piece(&token.piece));
            writeln!(out, "{position:>8}  {line}  {}..{}", token.start, token.end)?;
        }
        Ok(())
    }
}

/// The vocabulary as a table: id, piece, text.
pub fn write_vocabulary(pieces: &[PieceRecord<'_>], out: &mut Stdout) -> Result<()> {
    let columns = Columns::of(pieces.iter());
    for piece in pieces {
        writeln!(out, "{}", columns.piece(piece).trim_end())?;
    }
    Ok(())
}

/// The widths of a table's columns on a terminal.
struct Columns {
    piece: usize,
    text: usize,
}

impl Columns {
    fn of<'a>(pieces: impl Iterator<Item = &'a PieceRecord<'a>> + Clone) -> Self {
        let widest = |widths: &mut dyn Iterator<Item = usize>| widths.max().unwrap_or(0).clamp(5, WIDEST);
        Self {
            piece: widest(&mut pieces.clone().map(|token| printable::line(token.piece).width())),
            text: widest(&mut pieces.map(|token| quoted(&token.text).width())),
        }
    }

    fn piece(&self, piece: &PieceRecord<'_>) -> String {
        self.line(&piece.id.to_string(), &printable::line(piece.piece), &quoted(&piece.text))
    }

    fn line(&self, id: &str, piece: &str, text: &str) -> String {
        format!("{id:>6}  {}  {}", padded(piece, self.piece), padded(text, self.text))
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", printable::line(text))
}
