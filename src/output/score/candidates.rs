//! Texts compared after one context.

use std::cmp::Ordering;

use anyhow::Result;
use serde::Serialize;

use super::Protocol;
use crate::output::numbers::decimal;
use crate::output::settings::SettingsRecord;
use crate::output::tokens::{Notation, cut, quoted};
use crate::output::{Stdout, Style};

/// The scores of candidates after one context.
#[derive(Debug, Serialize)]
pub struct CandidatesRecord {
    /// The model's name.
    pub model: String,
    /// The tokens of the context alone.
    pub context_ids: Vec<u32>,
    /// The candidates, in the order given.
    pub candidates: Vec<CandidateScore>,
    /// Which of them has the largest `sum_logprob`: its index, the first of equals.
    pub best: usize,
    /// Which has the most per token.
    pub best_per_token: usize,
    /// Which has the most per byte; null without a tokenizer.
    pub best_per_byte: Option<usize>,
    /// How they were scored.
    pub protocol: Protocol,
    /// What it was made with.
    pub settings: SettingsRecord,
}

/// A candidate after the context.
#[derive(Debug, Serialize)]
pub struct CandidateScore {
    /// Its text; null if it was given as ids and there is no tokenizer.
    pub text: Option<String>,
    /// Its tokens after the context.
    pub ids: Vec<u32>,
    /// Their log-probabilities.
    pub logprobs: Vec<f32>,
    /// With `--entropy`, the entropy of the distribution in each place, in nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entropies: Option<Vec<f64>>,
    /// The sum of the log-probabilities.
    pub sum_logprob: f64,
    /// The length of the text in bytes, without white space moved from the context; null if `text` is.
    pub bytes: Option<usize>,
    /// Whether greedy decoding would give it.
    pub is_greedy: bool,
}

impl CandidateScore {
    fn per_token(&self) -> f64 {
        self.sum_logprob / self.ids.len() as f64
    }

    fn per_byte(&self) -> Option<f64> {
        self.bytes.filter(|bytes| *bytes > 0).map(|bytes| self.sum_logprob / bytes as f64)
    }

    fn label(&self, notation: Notation<'_>) -> String {
        match &self.text {
            Some(text) => quoted(text.as_bytes()),
            None => self.ids.iter().map(|id| notation.token(*id)).collect::<Vec<_>>().join(" "),
        }
    }
}

impl CandidatesRecord {
    /// Candidates in the order given, compared.
    pub fn new(
        model: String,
        context_ids: Vec<u32>,
        candidates: Vec<CandidateScore>,
        protocol: Protocol,
        settings: SettingsRecord,
    ) -> Self {
        let largest = |value: &dyn Fn(&CandidateScore) -> Option<f64>| {
            let values = candidates.iter().enumerate().filter_map(|(i, candidate)| Some((i, value(candidate)?)));
            values.reduce(|best, other| if other.1 > best.1 { other } else { best }).map(|(i, _)| i)
        };
        Self {
            best: largest(&|candidate| Some(candidate.sum_logprob)).unwrap_or(0),
            best_per_token: largest(&|candidate| Some(candidate.per_token())).unwrap_or(0),
            best_per_byte: largest(&CandidateScore::per_byte),
            model,
            context_ids,
            candidates,
            protocol,
            settings,
        }
    }

    /// A table, best first.
    pub fn write_text(&self, notation: Notation<'_>, out: &mut Stdout) -> Result<()> {
        let (dim, bold) = (Style::new().dimmed(), Style::new().bold());
        let columns = ["logprob", "a token", "a byte", "tokens", "greedy"];
        let [sum, token, byte, tokens, greedy] = columns;
        writeln!(out, "{dim}{sum:>10} {token:>9} {byte:>9} {tokens:>6}  {greedy:6}  candidate{dim:#}")?;
        let mut order: Vec<usize> = (0..self.candidates.len()).collect();
        order.sort_by(|one, other| {
            let sum = |i: &usize| self.candidates[*i].sum_logprob;
            sum(other).partial_cmp(&sum(one)).unwrap_or(Ordering::Equal)
        });
        let room = if Stdout::is_terminal() { Stdout::width().saturating_sub(48) } else { usize::MAX };
        for i in order {
            let candidate = &self.candidates[i];
            let sum = decimal(candidate.sum_logprob, 4);
            let (token, byte) = (decimal(candidate.per_token(), 4), candidate.per_byte());
            let byte = byte.map_or_else(|| "–".to_owned(), |x| decimal(x, 4));
            let style = |is_best| if is_best { bold } else { Style::new() };
            let (best, best_token) = (style(i == self.best), style(i == self.best_per_token));
            let best_byte = style(Some(i) == self.best_per_byte);
            let label = cut(&candidate.label(notation), room);
            let greedy = if candidate.is_greedy { "yes" } else { "no" };
            writeln!(
                out,
                "{best}{sum:>10}{best:#} {best_token}{token:>9}{best_token:#} {best_byte}{byte:>9}{best_byte:#} {:>6}  {greedy:6}  {label}",
                candidate.ids.len()
            )?;
        }
        let others = [("a token", Some(self.best_per_token)), ("a byte", self.best_per_byte)];
        let others = others.into_iter().filter_map(|(by, best)| Some((by, best.filter(|best| *best != self.best)?)));
        writeln!(out)?;
        for (by, best) in others {
            writeln!(out, "best {by:9} {}", cut(&self.candidates[best].label(notation), room.saturating_add(30)))?;
        }
        Ok(writeln!(out, "protocol       one pass, {}", self.protocol.before(Some(&self.context_ids)))?)
    }
}
