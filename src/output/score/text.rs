//! The scores of a text for people.

use anyhow::Result;
use gpt2::base::math;
use gpt2::error::tokens_text;
use unicode_width::UnicodeWidthStr;

use super::{Protocol, ScoreRecord, WordRecord};
use crate::output::numbers::{decimal, probability_of};
use crate::output::tokens::{Notation, cut, padded, quoted};
use crate::output::{Stdout, Style};

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
    /// The text coloured by surprisal (if colours are supported), the list of tokens or words, and the totals. A terminal
    /// gets a long list only if `all` is set.
    pub fn write_text(&self, notation: Notation<'_>, all: bool, out: &mut Stdout) -> Result<()> {
        let reached = self.reached();
        if Stdout::has_colour() && reached > 0 {
            self.write_coloured(notation, out)?;
        }
        let is_listed = |lines| all || lines <= SHORT || !Stdout::is_terminal();
        match &self.words {
            Some(words) if is_listed(words.len()) => write_words(words, out)?,
            None if is_listed(reached) => self.write_tokens(notation, out)?,
            words => {
                let what =
                    words.as_ref().map_or_else(|| tokens_text(reached), |words| format!("{} words", words.len()));
                let dim = Style::new().dimmed();
                writeln!(out, "{dim}{what}: -v or a pipe (| less) lists each{dim:#}\n")?;
            }
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
        /// Columns of a token before its alternatives.
        const WIDEST: usize = 14;
        let dim = Style::new().dimmed();
        let entropy = if self.entropies.is_some() { format!(" {:>8}", "entropy") } else { String::new() };
        let best =
            if self.top_logprobs.is_some() { format!("{:WIDEST$}most probable", "token") } else { "token".into() };
        writeln!(out, "{dim}{:>6} {:>10} {:>8} {:>7}{entropy}  {best}{dim:#}", "", "logprob", "bits", "rank")?;
        for (i, token) in notation.tokens(&self.ids[..self.reached()]).into_iter().enumerate() {
            let number = |shown: Option<String>| shown.unwrap_or_else(|| "–".to_owned());
            let (logprob, rank) = (self.logprobs[i], self.ranks[i]);
            let nats = number(logprob.map(|logprob| decimal(logprob, 4)));
            let in_bits = number(logprob.map(|logprob| decimal(bits(logprob), 2)));
            let rank = number(rank.map(|rank| rank.to_string()));
            write!(out, "{i:>6} {nats:>10} {in_bits:>8} {rank:>7}")?;
            if let Some(entropies) = &self.entropies {
                let bits = entropies[i].map(|entropy| decimal(entropy / std::f64::consts::LN_2, 2));
                write!(out, " {:>8}", number(bits))?;
            }
            write!(out, "  ")?;
            let style = logprob.map_or(Style::new(), |logprob| style(bits(logprob)));
            write_in(out, style, &token)?;
            if let Some(Some(top)) = self.top_logprobs.as_ref().map(|top| &top[i]) {
                let mut column = 36 + entropy.len() + token.width().max(WIDEST - 1) + 1;
                write!(out, "{}", &padded("", (WIDEST - 1).saturating_sub(token.width()) + 1))?;
                for (place, other) in top.iter().enumerate() {
                    let shown = format!("{} {}", notation.token(other.id), probability_of(f64::from(other.logprob), 1));
                    column += shown.width() + 2;
                    if place > 0 && Stdout::is_terminal() && column > Stdout::width() {
                        break;
                    }
                    write!(out, "{}{dim}{shown}{dim:#}", if place == 0 { "" } else { "  " })?;
                }
            }
            writeln!(out)?;
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
                writeln!(out, "               {:.4} with all scored tokens weighted equally", math::exp(-mean))?;
            }
        }
        if let Some(bits) = self.bits_per_byte {
            writeln!(out, "bits per byte  {bits:.4}")?;
        }
        if let Some(is_greedy) = self.is_greedy {
            writeln!(out, "greedy         {}", if is_greedy { "yes" } else { "no" })?;
        }
        let before = self.protocol.before(self.context_ids.as_deref());
        match (tokens_text(self.protocol.context), self.protocol.stride) {
            (context, None) if self.protocol.rolling => {
                Ok(writeln!(out, "protocol       rolling windows of {context}, {before}")?)
            }
            (_, None) => Ok(writeln!(out, "protocol       one pass, {before}")?),
            (context, Some(stride)) => {
                Ok(writeln!(out, "protocol       windows of {context}, stride {stride}, {before}")?)
            }
        }
    }
}

impl Protocol {
    /// What comes before the text, in words.
    pub(super) fn before(&self, context: Option<&[u32]>) -> String {
        let bos = if self.bos { "<|endoftext|>" } else { "nothing" };
        match context.map(<[u32]>::len) {
            None => format!("{bos} before the text"),
            Some(len) if self.bos => format!("{bos} and a context of {} before the text", tokens_text(len)),
            Some(len) => format!("a context of {} before the text", tokens_text(len)),
        }
    }
}

/// A line for each word.
fn write_words(words: &[WordRecord], out: &mut Stdout) -> Result<()> {
    let dim = Style::new().dimmed();
    writeln!(out, "{dim}{:>6} {:>10} {:>8} {:>7}  word{dim:#}", "", "logprob", "bits", "tokens")?;
    let room = Stdout::width().saturating_sub(36);
    for (i, word) in words.iter().enumerate() {
        let number = |x: Option<f64>, places| x.map_or_else(|| "–".to_owned(), |x| decimal(x, places));
        let (nats, in_bits) = (number(word.logprob, 4), number(word.surprisal, 2));
        write!(out, "{i:>6} {nats:>10} {in_bits:>8} {:>7}  ", word.last - word.first + 1)?;
        let style = word.surprisal.map_or(Style::new(), |bits| style(bits as f32));
        write_in(out, style, &cut(&quoted(word.word.as_bytes()), room))?;
        writeln!(out)?;
    }
    Ok(writeln!(out)?)
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
