//! The record of `gpt2 score`.

use anyhow::Result;
use gpt2::error::tokens_text;
use serde::Serialize;

use super::numbers::decimal;
use super::settings::SettingsRecord;
use super::tokens::Notation;
use super::{Stdout, Style};

/// The scores of one text. `ids`, `tokens`, `logprobs` and `ranks` have one entry for each token of the text. The
/// `<|endoftext|>` that `--bos` puts before the text has none, but gives the first token a log-probability.
#[derive(Debug, Default, Serialize)]
pub struct ScoreRecord {
    /// The model's name.
    pub model: String,
    /// The text's tokens.
    pub ids: Vec<u32>,
    /// Their texts, with U+FFFD if a token alone is not UTF-8; null without a tokenizer.
    pub tokens: Vec<Option<String>>,
    /// Their log-probabilities; null for a token that nothing precedes in its window.
    pub logprobs: Vec<Option<f32>>,
    /// For each, one more than the number of tokens that were more probable in its place; null where `logprobs` is.
    pub ranks: Vec<Option<usize>>,
    /// The exact sum of the log-probabilities, with any stride.
    pub sum_logprob: f64,
    /// How many tokens have a log-probability.
    pub scored_tokens: usize,
    /// `exp(-sum_logprob / scored_tokens)`; with a stride, the perplexity of transformers' guide, which weights each window
    /// by its number of labels minus one. Null if nothing was scored.
    pub perplexity: Option<f64>,
    /// `-sum_logprob / ln 2`, divided by the number of bytes of the tokens that have a log-probability; null without a
    /// tokenizer.
    pub bits_per_byte: Option<f64>,
    /// How the text was scored.
    pub protocol: Protocol,
    /// Whether Ctrl-C ended it early: what comes after the last log-probability is not scored.
    pub interrupted: bool,
    /// What it was made with.
    pub settings: SettingsRecord,
}

/// How a text was scored.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Protocol {
    /// Whether `<|endoftext|>` was put before the text.
    pub bos: bool,
    /// The most tokens that the model saw at once.
    pub context: usize,
    /// Tokens from one window to the next; null for a single pass.
    pub stride: Option<usize>,
}

/// Texts up to this many tokens are listed token by token on a terminal, too.
const SHORT: usize = 40;

/// Classes of surprisal: lower bound in bits, label, and colour on a terminal.
const CLASSES: [(f32, &str, Option<u8>); 5] = [
    (0.0, "0–1", None),
    (1.0, "1–4", Some(229)),
    (4.0, "4–7", Some(222)),
    (7.0, "7–11", Some(215)),
    (11.0, "11+", Some(203)),
];

impl ScoreRecord {
    /// The text coloured by surprisal (if colours are supported), the list of tokens, and the totals. A terminal gets the
    /// list of a long text only if `all` is set.
    pub fn write_text(&self, notation: Notation<'_>, all: bool, out: &mut Stdout) -> Result<()> {
        let reached = self.reached();
        if Stdout::has_colour() && reached > 0 {
            self.write_coloured(notation, out)?;
        }
        if all || reached <= SHORT || !Stdout::is_terminal() {
            self.write_tokens(notation, out)?;
        } else {
            let dim = Style::new().dimmed();
            writeln!(out, "{dim}{}: -v or a pipe (| less) lists each{dim:#}\n", tokens_text(reached))?;
        }
        self.write_sums(out)
    }

    /// How many tokens there are to show: of an interrupted run, those up to the last scored one.
    fn reached(&self) -> usize {
        match self.interrupted {
            true => self.logprobs.iter().rposition(Option::is_some).map_or(0, |last| last + 1),
            false => self.ids.len(),
        }
    }

    fn write_coloured(&self, notation: Notation<'_>, out: &mut Stdout) -> Result<()> {
        for span in notation.spans(&self.ids[..self.reached()]) {
            // The surprisal of a character split over several tokens is their sum.
            let bits = self.logprobs[span.tokens].iter().flatten().map(|logprob| bits(*logprob)).sum();
            write_in(out, style(bits), &span.text)?;
        }
        write!(out, "\n\nbits: ")?;
        for (from, name, _) in CLASSES {
            write_in(out, style(from), &format!(" {name} "))?;
            write!(out, " ")?;
        }
        Ok(write!(out, "\n\n")?)
    }

    fn write_tokens(&self, notation: Notation<'_>, out: &mut Stdout) -> Result<()> {
        let dim = Style::new().dimmed();
        writeln!(out, "{dim}{:>6} {:>10} {:>8} {:>7}  token{dim:#}", "", "logprob", "bits", "rank")?;
        for (i, token) in notation.tokens(&self.ids[..self.reached()]).into_iter().enumerate() {
            match (self.logprobs[i], self.ranks[i]) {
                (Some(logprob), Some(rank)) => {
                    let (nats, bits_shown) = (decimal(logprob, 4), decimal(bits(logprob), 2));
                    write!(out, "{i:>6} {nats:>10} {bits_shown:>8} {rank:>7}  ")?;
                    write_in(out, style(bits(logprob)), &token)?;
                    writeln!(out)?;
                }
                _ => writeln!(out, "{i:>6} {:>10} {:>8} {:>7}  {token}", "–", "–", "–")?,
            }
        }
        Ok(writeln!(out)?)
    }

    fn write_sums(&self, out: &mut Stdout) -> Result<()> {
        let bold = Style::new().bold();
        let (sum, scored) = (self.sum_logprob, self.scored_tokens);
        writeln!(out, "tokens         {}, {scored} scored", self.ids.len())?;
        if let Some(perplexity) = self.perplexity {
            let mean = sum / scored as f64;
            let in_bits = |nats: f64| -nats / std::f64::consts::LN_2;
            writeln!(out, "log-prob       {sum:.4} in all, {mean:.4} a token")?;
            writeln!(out, "surprisal      {:.2} bits in all, {:.4} a token", in_bits(sum), in_bits(mean))?;
            writeln!(out, "perplexity     {bold}{perplexity:.4}{bold:#}")?;
            if self.protocol.stride.is_some() {
                writeln!(out, "               {:.4} with all scored tokens weighted equally", (-mean).exp())?;
            }
        }
        if let Some(bits) = self.bits_per_byte {
            writeln!(out, "bits per byte  {bits:.4}")?;
        }
        let bos = if self.protocol.bos { "<|endoftext|> before the text" } else { "nothing before the text" };
        match (self.protocol.context, self.protocol.stride) {
            (_, None) => Ok(writeln!(out, "protocol       one pass, {bos}")?),
            (context, Some(stride)) => {
                Ok(writeln!(out, "protocol       windows of {}, stride {stride}, {bos}", tokens_text(context))?)
            }
        }
    }
}

/// Surprisal.
fn bits(logprob: f32) -> f32 {
    -logprob / std::f32::consts::LN_2
}

fn style(bits: f32) -> Style {
    let class = CLASSES.iter().rev().find(|(from, _, _)| bits >= *from);
    match class.and_then(|(_, _, colour)| *colour) {
        Some(colour) => Style::on_light(colour),
        None => Style::new(),
    }
}

/// Writes text in a style that ends before every line break.
fn write_in(out: &mut Stdout, style: Style, text: &str) -> Result<()> {
    for (i, line) in text.split('\n').enumerate() {
        if i > 0 {
            writeln!(out)?;
        }
        if !line.is_empty() {
            write!(out, "{style}{line}{style:#}")?;
        }
    }
    Ok(())
}
