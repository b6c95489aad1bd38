//! The record of `gpt2 patch`, and its heat map on a terminal.

use anyhow::Result;
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use super::grid::style;
use super::numbers::decimal;
use super::settings::SettingsRecord;
use super::tokens::{Notation, cut, padded};
use super::{Stdout, Style};

/// A sweep of activation patching. Values are differences of logits, `answer` minus `against`, after the last token.
#[derive(Debug, Default, Serialize)]
pub struct PatchRecord {
    /// The model's name.
    pub model: String,
    /// What was patched: `resid_pre`, `attn_out`, `mlp_out` or `heads`.
    pub over: &'static str,
    /// The value of the clean run.
    pub clean: f32,
    /// The value of the corrupt run.
    pub corrupt: f32,
    /// The values of the corrupt run with one activation of the clean one: layers by positions, or layers by heads, which
    /// are patched at all positions. Where the two runs have the same activation, it is the corrupt run's.
    pub values: Vec<Vec<f32>>,
    /// The token that the clean prompt leads to, with U+FFFD if it alone is not UTF-8; null without a tokenizer.
    pub answer: Option<String>,
    /// Its id.
    pub answer_id: u32,
    /// The token that it is compared with.
    pub against: Option<String>,
    /// Its id.
    pub against_id: u32,
    /// The ids of the clean prompt.
    pub clean_ids: Vec<u32>,
    /// The texts of its tokens.
    pub clean_tokens: Vec<Option<String>>,
    /// The ids of the corrupt prompt.
    pub corrupt_ids: Vec<u32>,
    /// The texts of its tokens.
    pub corrupt_tokens: Vec<Option<String>>,
    /// What it was made with.
    pub settings: SettingsRecord,
}

/// Columns of a cell, and of what is beside it.
const CELL: usize = 8;
const SIDE: usize = 9;

impl PatchRecord {
    /// A value as people compare it: 0 as in the corrupt run, 1 as in the clean one; none if they are equal.
    pub fn normalised(&self, value: f32) -> Option<f64> {
        let whole = f64::from(self.clean) - f64::from(self.corrupt);
        (whole != 0.0).then(|| (f64::from(value) - f64::from(self.corrupt)) / whole)
    }

    /// Whether its columns are heads, not positions.
    pub fn is_over_heads(&self) -> bool {
        self.over == "heads"
    }

    /// What was done, in words.
    pub fn what(&self) -> &'static str {
        match self.over {
            "heads" => "the output of each head, at all positions",
            "attn_out" => "attention's output at each position",
            "mlp_out" => "the MLP's output at each position",
            _ => "the residual stream before each block",
        }
    }

    /// The question and its answers by the two runs.
    pub fn question(&self, notation: Notation<'_>) -> String {
        let [answer, against] = [self.answer_id, self.against_id].map(|id| notation.token(id));
        let [clean, corrupt] = [self.clean, self.corrupt].map(|value| decimal(value, 3));
        format!("logit of {answer} minus that of {against}: clean {clean}, corrupt {corrupt}")
    }

    /// The tokens of the positions: both where the prompts differ.
    pub fn columns(&self, notation: Notation<'_>) -> Vec<String> {
        let labels = notation.tokens(&self.clean_ids).into_iter().zip(notation.tokens(&self.corrupt_ids));
        labels.map(|(clean, corrupt)| if clean == corrupt { clean } else { format!("{clean} → {corrupt}") }).collect()
    }

    /// A value in a cell: how far towards the clean run, in percent; or as it is, where the runs do not differ.
    pub fn shown(&self, value: f32) -> String {
        match self.normalised(value) {
            // Adding 0 makes -0 positive.
            Some(share) => format!("{:.0}%", (100.0 * share).round() + 0.0),
            None => decimal(value, 2),
        }
    }

    /// A row for each layer; a column for each position, or each head.
    pub fn write_text(&self, notation: Notation<'_>, out: &mut Stdout) -> Result<()> {
        let (bold, dim) = (Style::new().bold(), Style::new().dimmed());
        writeln!(out, "{bold}Patching{bold:#} {}", self.what())?;
        writeln!(out, "{}", self.question(notation))?;
        let together = (Stdout::width().saturating_sub(SIDE) / (CELL + 1)).max(1);
        let columns = self.values.first().map_or(0, Vec::len);
        let tokens = [&self.clean_ids, &self.corrupt_ids].map(|ids| notation.tokens(ids));
        for from in (0..columns).step_by(together) {
            let shown = from..columns.min(from + together);
            writeln!(out)?;
            if self.is_over_heads() {
                write!(out, "{dim}{}", padded("head", SIDE))?;
                shown.clone().try_for_each(|head| write!(out, " {head:>CELL$}"))?;
                writeln!(out, "{dim:#}")?;
            } else {
                for (name, labels, other) in [("clean", &tokens[0], &tokens[1]), ("corrupt", &tokens[1], &tokens[0])] {
                    write!(out, "{dim}{}{dim:#}", padded(name, SIDE))?;
                    for at in shown.clone() {
                        let label = cut(&labels[at], CELL);
                        let (pad, style) =
                            (CELL - label.width().min(CELL), if labels[at] == other[at] { dim } else { bold });
                        write!(out, " {:pad$}{style}{label}{style:#}", "")?;
                    }
                    writeln!(out)?;
                }
            }
            for (layer, values) in self.values.iter().enumerate() {
                write!(out, "{dim}{}{dim:#}", padded(&format!("layer {layer}"), SIDE))?;
                for value in &values[shown.clone()] {
                    let (text, style) = self.cell(*value);
                    write!(out, " {style}{text:>CELL$}{style:#}")?;
                }
                writeln!(out)?;
            }
        }
        match self.normalised(self.corrupt) {
            Some(_) => writeln!(
                out,
                "\n{dim}The clean prompt's activations in the corrupt run: 0% as that, 100% as the clean run.{dim:#}"
            )?,
            None => writeln!(out, "\n{dim}Both runs have the same difference, so these are logits.{dim:#}")?,
        }
        Ok(())
    }

    /// A value as text, and its style.
    fn cell(&self, value: f32) -> (String, Style) {
        let share = self.normalised(value).unwrap_or(0.0);
        (self.shown(value), style(share))
    }
}
