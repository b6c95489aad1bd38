//! The record of `gpt2 embed`, and what of it a terminal shows.

use anyhow::Result;
use gpt2::error::tokens_text;
use serde::{Serialize, Serializer};

use super::settings::SettingsRecord;
use super::tokens::{Notation, cut, padded};
use super::trace::short;
use super::{Stdout, Style};

/// A text as a vector.
#[derive(Debug, Default, Serialize)]
pub struct EmbedRecord {
    /// The model's name.
    pub model: String,
    /// The ids of the tokens.
    pub ids: Vec<u32>,
    /// Their texts, with U+FFFD if a token alone is not UTF-8; null without a tokenizer.
    pub tokens: Vec<Option<String>>,
    /// The block after which the residual stream was taken, counted from 0; null for that after the final norm.
    pub layer: Option<usize>,
    /// `mean` over the positions, `last` position, or `none`: one vector for each position.
    pub pool: &'static str,
    /// The vector, C numbers; with `--pool none` a vector for each token.
    pub embedding: Vectors,
    /// What it was made with.
    pub settings: SettingsRecord,
}

/// One vector, or several.
#[derive(Debug, Default)]
pub struct Vectors {
    pub vectors: Vec<Vec<f32>>,
    pub are_several: bool,
}

impl Serialize for Vectors {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.vectors.as_slice() {
            [vector] if !self.are_several => vector.serialize(serializer),
            vectors => vectors.serialize(serializer),
        }
    }
}

impl EmbedRecord {
    /// How long the vectors are, and how they begin; fits a terminal of 80 columns.
    pub fn write_text(&self, notation: Notation<'_>, out: &mut Stdout) -> Result<()> {
        /// Columns of a token, and of a number.
        const LABEL: usize = 14;
        const NUMBER: usize = 8;
        let (bold, dim) = (Style::new().bold(), Style::new().dimmed());
        let tokens = tokens_text(self.ids.len());
        let what = match self.pool {
            "mean" => format!("mean over {tokens}"),
            "last" => format!("at the last of {tokens}"),
            _ => format!("at each of {tokens}"),
        };
        let place = self.layer.map_or("after the final norm".to_owned(), |layer| format!("after block {layer}"));
        let width = self.embedding.vectors.first().map_or(0, Vec::len);
        writeln!(out, "{bold}Residual stream{bold:#} {place}, {what}: {width} numbers")?;
        let are_several = self.embedding.are_several;
        let label = if are_several { LABEL + 2 } else { 0 };
        let shown = ((Stdout::width() - label - NUMBER - 4) / NUMBER).min(width);
        let token = if are_several { format!("{:<label$}", "token") } else { String::new() };
        writeln!(out, "{dim}{token}{:>NUMBER$}   the first {shown}{dim:#}", "norm")?;
        let labels = notation.tokens(&self.ids);
        for (vector, token) in self.embedding.vectors.iter().zip(&labels) {
            let squares = vector.iter().map(|x| f64::from(*x) * f64::from(*x));
            let norm = squares.sum::<f64>().sqrt() as f32;
            let token = if are_several { padded(&cut(token, LABEL), label) } else { String::new() };
            let numbers: String = vector[..shown].iter().map(|x| short(*x)).collect();
            let more = if shown < width { " …" } else { "" };
            writeln!(out, "{token}{}  {numbers}{more}", short(norm))?;
        }
        Ok(writeln!(out, "{dim}--format json has all numbers, --output F.safetensors or F.npz keeps them.{dim:#}\n")?)
    }
}
