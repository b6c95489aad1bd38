//! The records of `gpt2 tokenize`.

use std::borrow::Cow;

use anyhow::Result;
use gpt2::error::tokens_text;
use gpt2::printable;
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use super::numbers::decimal;
use super::tokens::{Notation, padded, quoted};
use super::{Stdout, Style};

/// A text and its tokens; for `--decode`, of the tokens and their text.
#[derive(Debug, Default, Serialize)]
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
    /// Its place among them.
    pub position: usize,
    /// The token.
    #[serde(flatten)]
    pub piece: PieceRecord<'a>,
    /// The offset of its first byte in the text, in bytes of UTF-8. A token added before the text has an empty range.
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

/// How byte-pair encoding made the tokens of a word.
#[derive(Debug, Serialize)]
pub struct WordRecord {
    /// The word.
    pub text: String,
    /// The offset of its first byte in the text.
    pub start: usize,
    /// One past the offset of its last byte.
    pub end: usize,
    /// The tokens of its single bytes.
    pub bytes: Vec<u32>,
    /// The merges, in order; after the last one come the word's tokens.
    pub steps: Vec<StepRecord>,
}

/// A merge of all occurrences of a pair in a word.
#[derive(Debug, Serialize)]
pub struct StepRecord {
    /// The merge's line in `merges.txt`, from 0.
    pub rank: u32,
    /// The two tokens that became one.
    pub pair: (u32, u32),
    /// The word's tokens after it.
    pub ids: Vec<u32>,
}

/// How byte-pair encoding made the tokens of each word. With `--format jsonl`, a line for each word.
#[derive(Debug, Serialize)]
pub struct MergesRecord {
    /// The words of the text, in order.
    pub words: Vec<WordRecord>,
}

/// The widest cell that still keeps the columns of a table aligned.
const WIDEST: usize = 32;

/// Light colours, of which no two are hard to tell apart side by side, whoever looks at them. Every other token is also
/// underlined.
const GROUNDS: [u8; 4] = [153, 222, 194, 218];

impl TokenizeRecord<'_> {
    /// A table: position, id, piece, text, byte range.
    pub fn write_text(&self, notation: Notation<'_>, out: &mut Stdout) -> Result<()> {
        let texts = notation.tokens(&self.ids());
        let columns = Columns::of(self.tokens.iter().map(|token| &token.piece), &texts);
        let head = Style::new().bold();
        writeln!(out, "{head}position  {}  bytes{head:#}", columns.line("id", "piece", "text"))?;
        for (token, text) in self.tokens.iter().zip(&texts) {
            let (position, line) = (token.position, columns.piece(&token.piece, text));
            writeln!(out, "{position:>8}  {line}  {}..{}", token.start, token.end)?;
        }
        Ok(())
    }

    /// The text with its tokens in colours, or with lines between them if there are no colours; and how many there are.
    pub fn write_coloured(&self, notation: Notation<'_>, out: &mut Stdout) -> Result<()> {
        let (dim, bold, has_colour) = (Style::new().dimmed(), Style::new().bold(), Stdout::has_colour());
        let spans = notation.spans(&self.ids());
        for (i, span) in spans.iter().enumerate() {
            let style = Style::on_light(GROUNDS[i % GROUNDS.len()]);
            let style = if i % 2 == 1 { style.underlined() } else { style };
            if i > 0 && !has_colour {
                write!(out, "│")?;
            }
            for line in span.text.split_inclusive('\n') {
                write!(out, "{style}{}{style:#}", printable::line(line))?;
                if line.ends_with('\n') {
                    writeln!(out)?;
                }
            }
            if span.tokens.len() > 1 {
                write!(out, "{dim}×{}{dim:#}", span.tokens.len())?;
            }
        }
        let (tokens, characters) = (self.count, self.text.chars().count());
        let each = characters as f64 / tokens.max(1) as f64;
        let (tokens, s) = (tokens_text(tokens), if characters == 1 { "" } else { "s" });
        writeln!(out, "\n\n{bold}{tokens}{bold:#}, {characters} character{s}, {} a token", decimal(each, 1))?;
        match spans.iter().find(|span| span.tokens.len() > 1) {
            Some(_) => writeln!(out, "{dim}×2: a character of 2 tokens, and so on{dim:#}"),
            None => Ok(()),
        }
    }

    fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|token| token.piece.id).collect()
    }
}

impl MergesRecord {
    /// Each word with its merges: rank, pair, and the tokens after it.
    pub fn write_text(&self, notation: Notation<'_>, out: &mut Stdout) -> Result<()> {
        let (bold, dim) = (Style::new().bold(), Style::new().dimmed());
        for word in &self.words {
            writeln!(out, "{bold}{}{bold:#}", quoted(word.text.as_bytes()))?;
            let pairs: Vec<String> = word.steps.iter().map(|step| step.pair_text(notation)).collect();
            let widest = pairs.iter().map(|pair| pair.width()).max().unwrap_or(0).clamp(4, WIDEST);
            let pieces = |ids: &[u32]| notation.tokens(ids).join(" ");
            writeln!(out, "{dim}    rank  {}  tokens{dim:#}", padded("pair", widest))?;
            writeln!(out, "{:>8}  {}  {}", "", padded("", widest), pieces(&word.bytes))?;
            for (step, pair) in word.steps.iter().zip(&pairs) {
                writeln!(out, "{:>8}  {}  {}", step.rank, padded(pair, widest), pieces(&step.ids))?;
            }
            writeln!(out)?;
        }
        Ok(writeln!(out, "{dim}A rank is a line of merges.txt, from 0: the lowest merges first.{dim:#}")?)
    }
}

impl StepRecord {
    fn pair_text(&self, notation: Notation<'_>) -> String {
        format!("{} + {}", notation.token(self.pair.0), notation.token(self.pair.1))
    }
}

/// The vocabulary as a table: id, piece, text.
pub fn write_vocabulary(pieces: &[PieceRecord<'_>], notation: Notation<'_>, out: &mut Stdout) -> Result<()> {
    let texts: Vec<String> = pieces.iter().map(|piece| notation.token(piece.id)).collect();
    let columns = Columns::of(pieces.iter(), &texts);
    for (piece, text) in pieces.iter().zip(&texts) {
        writeln!(out, "{}", columns.piece(piece, text).trim_end())?;
    }
    Ok(())
}

/// The widths of a table's columns on a terminal.
struct Columns {
    piece: usize,
    text: usize,
}

impl Columns {
    fn of<'a>(pieces: impl Iterator<Item = &'a PieceRecord<'a>>, texts: &[String]) -> Self {
        let widest = |widths: &mut dyn Iterator<Item = usize>| widths.max().unwrap_or(0).clamp(5, WIDEST);
        Self {
            piece: widest(&mut pieces.map(|token| printable::line(token.piece).width())),
            text: widest(&mut texts.iter().map(|text| text.width())),
        }
    }

    fn piece(&self, piece: &PieceRecord<'_>, text: &str) -> String {
        self.line(&piece.id.to_string(), &printable::line(piece.piece), text)
    }

    fn line(&self, id: &str, piece: &str, text: &str) -> String {
        format!("{id:>6}  {}  {}", padded(piece, self.piece), padded(text, self.text))
    }
}
