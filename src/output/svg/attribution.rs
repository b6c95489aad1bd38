//! What made a logit: layers by heads, biases and MLPs.

use super::Picture;
use super::signed::Signed;
use crate::output::attribution::{AttributionRecord, ComponentRecord};
use crate::output::grid::number;
use crate::output::numbers::decimal;
use crate::output::tokens::Notation;

pub fn draw(model: &str, record: &AttributionRecord, labels: &[String], notation: Notation<'_>) -> Picture {
    let (columns, rows) = record.map();
    let largest = record.components.iter().map(|part| part.value.abs()).fold(0.0, f32::max);
    let named = |name: String| if name.parse::<usize>().is_ok() { format!("head {name}") } else { name };
    let shade = |part: &Option<&ComponentRecord>| part.map_or(0.0, |part| record.share(part) as f32);
    let text = |part: &Option<&ComponentRecord>| part.and_then(|part| number(part.value.into(), 9)).unwrap_or_default();
    Signed {
        title: &format!("What made {}", record.question(notation, labels)),
        subtitle: &format!("{model} · {}", record.total()),
        rows: (0..rows.len()).map(|layer| format!("layer {layer}")).collect(),
        columns: columns.into_iter().map(named).collect(),
        shades: rows.iter().map(|row| row.iter().map(shade).collect()).collect(),
        texts: rows.iter().map(|row| row.iter().map(text).collect()).collect(),
        key: [decimal(-largest, 2), "0".into(), decimal(largest, 2)],
        remark: &format!("of the logit; besides: {}", record.others()),
    }
    .draw()
}
