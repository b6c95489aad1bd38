//! The page of `gpt2 patch`: a heat map whose cells tell their runs.

use std::borrow::Cow;
use std::path::Path;

use anyhow::Result;
use gpt2::printable;
use serde::Serialize;

use super::View;
use crate::output::patch::PatchRecord;
use crate::output::tokens::Notation;

const VIEW: View = View { style: include_str!("patch.css"), ..View::new("gpt2 patch", include_str!("patch.js")) };

#[derive(Serialize)]
struct Data<'a> {
    model: Cow<'a, str>,
    what: &'static str,
    question: String,
    /// Whether the columns are heads.
    heads: bool,
    clean: Vec<String>,
    corrupt: Vec<String>,
    values: &'a [Vec<f32>],
    /// The same from 0, as the corrupt run, to 1, as the clean one; null if those are equal.
    shares: Vec<Vec<Option<f64>>>,
}

/// Writes the page of a record.
pub fn write(path: &Path, record: &PatchRecord, notation: Notation<'_>) -> Result<()> {
    let shares = |row: &Vec<f32>| row.iter().map(|value| record.normalised(*value)).collect();
    let data = Data {
        model: printable::line(&record.model),
        what: record.what(),
        question: record.question(notation),
        heads: record.is_over_heads(),
        clean: notation.tokens(&record.clean_ids),
        corrupt: notation.tokens(&record.corrupt_ids),
        values: &record.values,
        shares: record.values.iter().map(shares).collect(),
    };
    VIEW.write(path, &data)
}
