//! `gpt2 tokenize`: converts text to tokens and ids to text, and lists the vocabulary.

use std::borrow::Cow;

use anyhow::{Context, Result};
use gpt2::Error;
use gpt2::error::tokens_text;
use gpt2::tokenizer::{MergedWord, Token, Tokenizer};
use regex::Regex;

use super::load::{self, LoadedTokenizer};
use super::rows::{Batch, Input, Row, Settings};
use crate::cli::{Colour, Format, Prompt, TokenizeArgs, TokenizeFormat, Verbosity, flag_ids, read_text};
use crate::output::tokenize::{
    MergesRecord, PieceRecord, StepRecord, TokenRecord, TokenizeRecord, WordRecord, write_vocabulary,
};
use crate::output::tokens::Notation;
use crate::output::{Stdout, check_folder, html, say, say_written};

/// A page with more tokens than this takes a browser seconds to draw.
const SLOW_PAGE: usize = 100_000;

/// The longest word whose merges are shown, in bytes.
const LONGEST_MERGED: usize = 200;

pub fn run(args: &TokenizeArgs, colour: Option<Colour>, verbosity: Verbosity) -> Result<()> {
    check_folder(args.html.as_deref())?;
    if args.vocab {
        let pattern = args.grep.as_deref().map(pattern).transpose()?;
        return list(&load::tokenizer(&args.tokenizer, verbosity)?.tokenizer, pattern.as_ref(), args);
    }
    let has_no_records = match args.format {
        Some(TokenizeFormat::Text) => true,
        Some(TokenizeFormat::Ids) => args.texts.rows.output.is_some(),
        _ => false,
    };
    args.texts.check_format(has_no_records)?;
    if let Some(input) = Input::of_texts(&args.texts)? {
        let tokenizer = load::tokenizer(&args.tokenizer, verbosity)?;
        return batch(args, input, tokenizer, colour, verbosity);
    }
    let prompt = match &args.decode {
        None => args.text.prompt()?,
        Some(Some(ids)) => Prompt::Ids(flag_ids(ids, "--decode")?),
        Some(None) => Prompt::Ids(flag_ids(&read_text(args.text.file.as_deref())?, "--decode")?),
    };
    let LoadedTokenizer { tokenizer, note, .. } = load::tokenizer(&args.tokenizer, verbosity)?;
    if let (Prompt::Text(_), Some(note), false) = (&prompt, note, verbosity.quiet) {
        say(note);
    }
    if let (true, Prompt::Text(text)) = (args.merges, &prompt) {
        return write_merges(args, &tokenizer, text);
    }
    let decoded = match &prompt {
        Prompt::Ids(ids) if args.decode.is_some() => Some(ids.clone()),
        _ => None,
    };
    let (text, tokens) = tokenized(args, &tokenizer, prompt)?;
    if let Some(path) = &args.html {
        html::tokenize::write(path, &tokenizer, &text, &tokens)?;
        if !verbosity.quiet {
            say_written(path, "a page with the text in the colours of its tokens");
            if tokens.len() > SLOW_PAGE {
                let tokens = tokens_text(tokens.len());
                say(format_args!("note: a browser takes long to show a page with {tokens}"));
            }
        }
    }
    let format = args.format.unwrap_or_default();
    let mut out = Stdout::lock().with_raw_text(args.raw_text.raw_text);
    // Records take far more memory than tokens.
    if args.count {
        writeln!(out, "{}", tokens.len())?;
        return out.finish();
    }
    if format == TokenizeFormat::Ids {
        write_ids(tokens.iter().map(|token| token.id), &mut out)?;
        return out.finish();
    }
    // The user asked for the page.
    if args.html.is_some() && args.format.is_none() && args.decode.is_none() {
        return Ok(());
    }
    if let (Some(ids), TokenizeFormat::Text) = (decoded, format) {
        return out.text(&tokenizer.decode_exactly(&ids)?);
    }
    let record = record(&tokenizer, &text, &tokens);
    let view = View::new(args, colour, &tokenizer);
    match format {
        TokenizeFormat::Json => out.json(&record, Format::Json)?,
        TokenizeFormat::Jsonl => out.json(&record, Format::Jsonl)?,
        format => write_text(&view, format, &record, &mut out)?,
    }
    out.finish()
}

/// How tokens are shown to people.
struct View<'a> {
    args: &'a TokenizeArgs,
    notation: Notation<'a>,
    /// Whether as coloured pieces of the text.
    is_coloured: bool,
}

impl<'a> View<'a> {
    fn new(args: &'a TokenizeArgs, colour: Option<Colour>, tokenizer: &'a Tokenizer) -> Self {
        // Who asks for colours wants to see the tokens in them.
        let is_coloured = matches!(colour, Some(Colour::Auto | Colour::Always));
        Self { args, notation: Notation::new(Some(tokenizer)), is_coloured }
    }
}

/// Tokenizes rows.
fn batch(
    args: &TokenizeArgs,
    input: Input,
    tokenizer: LoadedTokenizer,
    colour: Option<Colour>,
    verbosity: Verbosity,
) -> Result<()> {
    /// Rows that are tokenized before their results are written.
    const TOGETHER: usize = 64;
    let LoadedTokenizer { tokenizer, note, files } = tokenizer;
    let texts = &args.texts;
    let parameters = serde_json::json!({
        "bos": args.text.bos, "no_special": args.text.no_special, "keep": texts.rows.keep,
    });
    let mut settings = Settings {
        subcommand: "tokenize".to_owned(),
        model: args.tokenizer.model.clone().unwrap_or_default(),
        config: String::new(),
        weights: String::new(),
        tokenizer: files.fingerprint(),
        seed: 0,
        parameters: parameters.as_object().cloned().unwrap_or_default(),
    };
    if let Some(note) = note.filter(|_| !verbosity.quiet) {
        say(note);
    }
    let asked = args.format.map(|format| matches!(format, TokenizeFormat::Text | TokenizeFormat::Ids));
    let is_text = args.count || texts.is_text(asked);
    let batch = Batch::open(&texts.rows, input, is_text, TOGETHER, &mut settings, verbosity)?;
    let one = |row: &&Row| {
        let (text, tokens) = tokenized(args, &tokenizer, row.prompt.clone())?;
        Ok(record(&tokenizer, &text, &tokens))
    };
    let format = args.format.unwrap_or_default();
    let view = View::new(args, colour, &tokenizer);
    batch.run(
        &TokenizeRecord::default(),
        |rows, tokens| {
            let records: Vec<Result<_>> = rows.iter().map(one).collect();
            *tokens += records.iter().flatten().map(|record| record.count).sum::<usize>();
            records
        },
        |row, record, out| {
            let has_heading = !args.count && format == TokenizeFormat::Text;
            if has_heading {
                row.write_heading(out)?;
            }
            write_text(&view, format, record, out)?;
            if has_heading { Ok(writeln!(out)?) } else { Ok(()) }
        },
    )
}

/// The text of a prompt, and its tokens with those that the flags or the tokenizer put around it.
fn tokenized(args: &TokenizeArgs, tokenizer: &Tokenizer, prompt: Prompt) -> Result<(Vec<u8>, Vec<Token>)> {
    let (text, mut tokens, added) = match prompt {
        Prompt::Text(text) => {
            let tokens = around(tokenizer, text.len(), tokenizer.encode(&text, !args.text.no_special)?);
            (text.into_bytes(), tokens, !tokenizer.before_text().is_empty())
        }
        Prompt::Ids(ids) => {
            let (text, tokens) = side_by_side(tokenizer, &ids)?;
            (text, tokens, false)
        }
    };
    if args.text.bos && !added {
        let id = tokenizer.start_of_text().context("--bos: the tokenizer has no token that starts a text")?;
        tokens.insert(0, Token { id, start: 0, end: 0 });
    }
    Ok((text, tokens))
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

fn record<'t>(tokenizer: &'t Tokenizer, text: &[u8], tokens: &[Token]) -> TokenizeRecord<'t> {
    let token = |(position, token): (usize, &Token)| {
        let piece = piece(tokenizer, token.id);
        TokenRecord { position, piece, start: token.start, end: token.end }
    };
    TokenizeRecord {
        text: String::from_utf8_lossy(text).into_owned(),
        count: tokens.len(),
        tokens: tokens.iter().enumerate().map(token).collect(),
    }
}

/// The count, the ids, the coloured text, or the table.
fn write_text(view: &View<'_>, format: TokenizeFormat, record: &TokenizeRecord<'_>, out: &mut Stdout) -> Result<()> {
    match format {
        _ if view.args.count => Ok(writeln!(out, "{}", record.count)?),
        TokenizeFormat::Ids => write_ids(record.tokens.iter().map(|token| token.piece.id), out),
        _ if view.is_coloured => record.write_coloured(view.notation, out),
        _ => record.write_text(view.notation, out),
    }
}

/// Writes how the tokens of each word came about.
fn write_merges(args: &TokenizeArgs, tokenizer: &Tokenizer, text: &str) -> Result<()> {
    let words = tokenizer.merged_words(text, !args.text.no_special, LONGEST_MERGED)?;
    let word = |word: MergedWord| WordRecord {
        text: String::from_utf8_lossy(&tokenizer.decode_bytes(&word.bytes, false)).into_owned(),
        start: word.start,
        end: word.end,
        bytes: word.bytes,
        steps: word
            .steps
            .into_iter()
            .map(|step| StepRecord { rank: step.rank, pair: step.pair, ids: step.tokens })
            .collect(),
    };
    let record = MergesRecord { words: words.into_iter().map(word).collect() };
    let mut out = Stdout::lock();
    match args.format.unwrap_or_default() {
        TokenizeFormat::Json => out.json(&record, Format::Json)?,
        TokenizeFormat::Jsonl => record.words.iter().try_for_each(|word| out.json(word, Format::Jsonl))?,
        TokenizeFormat::Ids => {
            return Err(Error::Usage("--merges has a --format text, json and jsonl, but no ids".into()).into());
        }
        TokenizeFormat::Text => {
            record.write_text(Notation::new(Some(tokenizer)).with_pieces(args.pieces), &mut out)?;
        }
    }
    out.finish()
}

/// Writes the vocabulary, or the part that matches.
fn list(tokenizer: &Tokenizer, pattern: Option<&Regex>, args: &TokenizeArgs) -> Result<()> {
    let pieces = (0..tokenizer.vocab_size() as u32).map(|id| piece(tokenizer, id));
    let matches = |piece: &PieceRecord<'_>| pattern.is_none_or(|pattern| pattern.is_match(piece.piece));
    let pieces: Vec<_> = pieces.filter(matches).collect();
    let mut out = Stdout::lock();
    match args.format.unwrap_or_default() {
        _ if args.count => writeln!(out, "{}", pieces.len())?,
        TokenizeFormat::Text => write_vocabulary(&pieces, Notation::new(Some(tokenizer)), &mut out)?,
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
