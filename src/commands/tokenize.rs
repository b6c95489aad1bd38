//! `gpt2 tokenize`: converts text to tokens and ids to text, and lists the vocabulary.

use std::borrow::Cow;

use anyhow::{Context, Result};
use gpt2::Error;
use gpt2::tokenizer::{Token, Tokenizer};
use regex::Regex;

use super::load;
use crate::cli::{Format, Prompt, TokenizeArgs, TokenizeFormat, Verbosity, flag_ids, read_text};
use crate::output::tokenize::{PieceRecord, TokenRecord, TokenizeRecord, write_vocabulary};
use crate::output::{Stdout, check_folder, html, say};

pub fn run(args: &TokenizeArgs, verbosity: Verbosity) -> Result<()> {
    check_folder(args.html.as_deref())?;
    if args.vocab {
        let pattern = args.grep.as_deref().map(pattern).transpose()?;
        return list(&load::tokenizer(&args.tokenizer, verbosity)?.0, pattern.as_ref(), args);
    }
    let prompt = match &args.decode {
        None => args.text.prompt()?,
        Some(Some(ids)) => Prompt::Ids(flag_ids(ids, "--decode")?),
        Some(None) => Prompt::Ids(flag_ids(&read_text(args.text.file.as_deref())?, "--decode")?),
    };
    let (tokenizer, note) = load::tokenizer(&args.tokenizer, verbosity)?;
    let (text, mut tokens, added) = match prompt {
        Prompt::Text(text) => {
            if let Some(note) = note.filter(|_| !verbosity.quiet) {
                say(note);
            }
            let tokens = around(&tokenizer, text.len(), tokenizer.encode(&text, !args.text.no_special)?);
            (text.into_bytes(), tokens, !tokenizer.before_text().is_empty())
        }
        Prompt::Ids(ids) => {
            let (text, tokens) = side_by_side(&tokenizer, &ids)?;
            (text, tokens, false)
        }
    };
    if args.text.bos && !added {
        let id = tokenizer.start_of_text().context("--bos: the tokenizer has no token that starts a text")?;
        tokens.insert(0, Token { id, start: 0, end: 0 });
    }
    if let Some(path) = &args.html {
        html::tokenize::write(path, &tokenizer, &text, &tokens)?;
    }
    if args.decode.is_some() && args.format == TokenizeFormat::Text {
        return Stdout::lock().with_raw_text(args.raw_text.raw_text).text(&text);
    }
    write(args, &tokenizer, &text, &tokens)
}

/// The tokens of a text of `len` bytes with those that the tokenizer puts around it.
fn around(tokenizer: &Tokenizer, len: usize, tokens: Vec<Token>) -> Vec<Token> {
    let at = |offset| move |&id: &u32| Token { id, start: offset, end: offset };
    let (before, after) = (tokenizer.before_text().iter().map(at(0)), tokenizer.after_text().iter().map(at(len)));
    before.chain(tokens).chain(after).collect()
}

/// The bytes of `ids`, and the position of each token in them.
fn side_by_side(tokenizer: &Tokenizer, ids: &[u32]) -> Result<(Vec<u8>, Vec<Token>)> {
    let (mut text, mut tokens) = (vec![], vec![]);
    for &id in ids {
        let last = tokenizer.vocab_size() - 1;
        let outside = || Error::Usage(format!("token id {id} is outside the vocabulary (0 to {last})"));
        let start = text.len();
        text.extend_from_slice(tokenizer.bytes(id).ok_or_else(outside)?);
        tokens.push(Token { id, start, end: text.len() });
    }
    Ok((text, tokens))
}

fn write(args: &TokenizeArgs, tokenizer: &Tokenizer, text: &[u8], tokens: &[Token]) -> Result<()> {
    let mut out = Stdout::lock();
    let record = |(position, token): (usize, &Token)| {
        let piece = piece(tokenizer, token.id);
        TokenRecord { position, piece, start: token.start, end: token.end }
    };
    let record = || TokenizeRecord {
        text: String::from_utf8_lossy(text),
        count: tokens.len(),
        tokens: tokens.iter().enumerate().map(record).collect(),
    };
    match args.format {
        _ if args.count => writeln!(out, "{}", tokens.len())?,
        TokenizeFormat::Text => record().write_text(&mut out)?,
        TokenizeFormat::Ids => write_ids(tokens.iter().map(|token| token.id), &mut out)?,
        TokenizeFormat::Json => out.json(&record(), Format::Json)?,
        TokenizeFormat::Jsonl => out.json(&record(), Format::Jsonl)?,
    }
    out.finish()
}

/// Writes the vocabulary, or the part that matches.
fn list(tokenizer: &Tokenizer, pattern: Option<&Regex>, args: &TokenizeArgs) -> Result<()> {
    let pieces = (0..tokenizer.vocab_size() as u32).map(|id| piece(tokenizer, id));
    let matches = |piece: &PieceRecord<'_>| pattern.is_none_or(|pattern| pattern.is_match(piece.piece));
    let pieces: Vec<_> = pieces.filter(matches).collect();
    let mut out = Stdout::lock();
    match args.format {
        _ if args.count => writeln!(out, "{}", pieces.len())?,
        TokenizeFormat::Text => write_vocabulary(&pieces, &mut out)?,
        TokenizeFormat::Ids => write_ids(pieces.iter().map(|piece| piece.id), &mut out)?,
        TokenizeFormat::Json => out.json(&pieces, Format::Json)?,
        TokenizeFormat::Jsonl => pieces.iter().try_for_each(|piece| out.json(piece, Format::Jsonl))?,
    }
    out.finish()
}

fn pattern(text: &str) -> Result<Regex, Error> {
    Regex::new(text).map_err(|e| {
        let e = e.to_string();
        let reason = e.rsplit("error: ").next().unwrap_or(&e).trim();
        Error::Usage(format!("--grep: `{text}` is not a regular expression: {reason}"))
    })
}

fn piece(tokenizer: &Tokenizer, id: u32) -> PieceRecord<'_> {
    let text = tokenizer.bytes(id).map_or(Cow::Borrowed(""), String::from_utf8_lossy);
    PieceRecord { id, piece: tokenizer.piece(id).unwrap_or_default(), text }
}

fn write_ids(ids: impl Iterator<Item = u32>, out: &mut Stdout) -> Result<()> {
    for (position, id) in ids.enumerate() {
        let before = if position == 0 { "" } else { " " };
        write!(out, "{before}{id}")?;
    }
    Ok(writeln!(out)?)
}
