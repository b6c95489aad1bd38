//! The record of `gpt2 trace --attribute` and its heat map on a terminal.

use anyhow::Result;
use gpt2::analysis::attribution::{Attribution, Component};
use serde::{Serialize, Serializer};

use super::grid::{self, Cell, Grid};
use super::numbers::decimal;
use super::tokens::Notation;
use super::{Stdout, Style};

/// A logit, or the difference of two, and what contributed how much of it: direct logit attribution.
#[derive(Debug, Default, Serialize)]
pub struct AttributionRecord {
    /// The token whose logit it is about, with U+FFFD if it alone is not UTF-8; null without a tokenizer.
    pub target: Option<String>,
    /// Its id.
    pub target_id: u32,
    /// The token whose logit is subtracted; null without one.
    pub against: Option<String>,
    /// Its id.
    pub against_id: Option<u32>,
    /// The position after which the tokens would come, from 0.
    pub position: usize,
    /// The logit of the target, minus that of the other token if there is one.
    pub value: f32,
    /// The sum of the components: the value, but for rounding.
    pub sum: f32,
    /// What writes into the residual stream, in the order of the network.
    pub components: Vec<ComponentRecord>,
}

/// What one component contributes.
#[derive(Debug, Serialize)]
pub struct ComponentRecord {
    /// `embed`, `pos_embed`, `blocks.L.attn.head.H`, `blocks.L.attn.bias`, `blocks.L.mlp`, `ln_f.bias`; with edits also
    /// `blocks.L.attn`, if attention's output was replaced, and `steer.L`, what was added to the residual stream.
    #[serde(serialize_with = "name")]
    pub name: Component,
    /// Its share of the value.
    pub value: f32,
}

fn name<S: Serializer>(component: &Component, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(component)
}

/// How far sum and logit may be apart, relative to the logit, before it is worth a word.
const APART: f32 = 1e-3;

/// How many components are listed.
const LARGEST: usize = 10;

/// Columns of a component's name, and the most of its bar.
const NAME: usize = 24;
const BAR: usize = 40;

impl AttributionRecord {
    pub fn new(found: &Attribution, [target, against]: [Option<(u32, Option<String>)>; 2]) -> Self {
        let (target_id, target) = target.unwrap_or_default();
        let component = |(name, value): &(Component, f64)| ComponentRecord { name: *name, value: *value as f32 };
        Self {
            target,
            target_id,
            against_id: against.as_ref().map(|(id, _)| *id),
            against: against.and_then(|(_, text)| text),
            position: found.position,
            value: found.value as f32,
            sum: found.sum() as f32,
            components: found.components.iter().map(component).collect(),
        }
    }

    /// What the numbers add up to, in words.
    pub fn question(&self, notation: Notation<'_>, labels: &[String]) -> String {
        let target = notation.token(self.target_id);
        let minus = self.against_id.map(|id| format!(" minus that of {}", notation.token(id))).unwrap_or_default();
        let after = labels.get(self.position).map_or("", String::as_str);
        format!("the logit of {target}{minus}, after {after} at position {}", self.position)
    }

    /// The sum of the components, and the logit.
    pub fn total(&self) -> String {
        let apart = (self.sum - self.value).abs();
        let why = match apart > APART * self.value.abs().max(1.0) {
            true => " (the products of 16-bit and quantised numbers round)",
            false => "",
        };
        format!("sum / logit: {} / {}{why}", decimal(self.sum, 4), decimal(self.value, 4))
    }

    /// The largest contribution, whatever its sign.
    fn largest(&self) -> f64 {
        self.components.iter().map(|part| f64::from(part.value.abs())).fold(f64::MIN_POSITIVE, f64::max)
    }

    /// The names of the columns of its map, and for each layer its components in them; none where a layer has none.
    pub fn map(&self) -> (Vec<String>, Vec<Vec<Option<&ComponentRecord>>>) {
        let column = |part: &ComponentRecord| match part.name {
            Component::Head { head, .. } => Some((0, head, head.to_string())),
            Component::AttnBias { .. } => Some((1, 0, "bias".to_owned())),
            Component::Attn { .. } => Some((2, 0, "attn".to_owned())),
            Component::Mlp { .. } => Some((3, 0, "mlp".to_owned())),
            Component::Steer { .. } => Some((4, 0, "steer".to_owned())),
            Component::Embed | Component::PosEmbed | Component::NormBias => None,
        };
        let mut columns: Vec<_> = self.components.iter().filter_map(column).collect();
        columns.sort_unstable();
        columns.dedup();
        let mut rows: Vec<Vec<Option<&ComponentRecord>>> = vec![];
        for part in &self.components {
            let (Some(layer), Some(column)) = (part.name.layer(), column(part)) else { continue };
            if rows.len() <= layer {
                rows.resize(layer + 1, vec![None; columns.len()]);
            }
            if let Ok(place) = columns.binary_search(&column) {
                rows[layer][place] = Some(part);
            }
        }
        (columns.into_iter().map(|(.., name)| name).collect(), rows)
    }

    /// What stands in no layer, in words.
    pub fn others(&self) -> String {
        let others = self.components.iter().filter(|part| part.name.layer().is_none());
        others.map(|part| format!("{} {}", part.name, signed(part.value))).collect::<Vec<_>>().join(", ")
    }

    /// A contribution as a share of the largest.
    pub fn share(&self, part: &ComponentRecord) -> f64 {
        f64::from(part.value) / self.largest()
    }

    /// The heat map, and the components that contribute most.
    pub fn write_text(&self, notation: Notation<'_>, labels: &[String], out: &mut Stdout) -> Result<()> {
        let (bold, dim) = (Style::new().bold(), Style::new().dimmed());
        writeln!(out, "{bold}Attribution{bold:#}: what made {}", self.question(notation, labels))?;
        writeln!(out, "{}\n", self.total())?;
        let (columns, rows) = self.map();
        let width = grid::cell_width(columns.len()).min(6);
        let texts = self.components.iter().map(|part| grid::number(part.value.into(), width));
        let has_numbers = width >= 4 && texts.clone().all(|text| text.is_some());
        let cell = |part: &Option<&ComponentRecord>| {
            let Some(part) = part else { return Cell { text: String::new(), share: 0.0 } };
            let share = self.share(part);
            let number = grid::number(part.value.into(), width).filter(|_| has_numbers);
            Cell { text: number.unwrap_or_else(|| grid::glyph(share)), share }
        };
        let rows = rows.iter().map(|row| row.iter().map(cell).collect()).collect();
        let columns = match has_numbers {
            true => columns,
            // Two columns for each name.
            false => columns.iter().map(|name| name.chars().take(2).collect()).collect(),
        };
        Grid { corner: "head", columns: &columns, rows, is_dense: !has_numbers }.write(out)?;
        writeln!(out, "{dim}{}{dim:#}\n", self.others())?;

        let mut parts: Vec<&ComponentRecord> = self.components.iter().collect();
        parts.sort_by(|a, b| b.value.abs().total_cmp(&a.value.abs()));
        parts.truncate(LARGEST);
        writeln!(out, "{bold}The largest{bold:#}")?;
        let room = Stdout::width().saturating_sub(NAME + 11).min(BAR) as f64;
        for part in parts {
            let (share, value) = (self.share(part), signed(part.value));
            let bar = "█".repeat(((share.abs() * room).round() as usize).max(1));
            let style = Style::colour(if share > 0.0 { anstyle::AnsiColor::Green } else { anstyle::AnsiColor::Red });
            writeln!(out, "{:<NAME$} {value:>9} {style}{bar}{style:#}", part.name.to_string())?;
        }
        let (more, less) = match self.against_id {
            Some(_) => ("for the first token", "for the second"),
            None => ("for the token", "against it"),
        };
        Ok(writeln!(out, "{dim}+ is {more}, - {less}; bias is that of attention's output.{dim:#}\n")?)
    }
}

/// A number with its sign.
pub fn signed(x: f32) -> String {
    let text = decimal(x, 3);
    if x > 0.0 { format!("+{text}") } else { text }
}
