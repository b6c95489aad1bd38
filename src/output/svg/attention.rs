//! Attention as heat maps: one head with its tokens, the heads of a layer, or all heads of all layers.

use anyhow::Result;
use gpt2::Error;

use super::{Anchor, FOOT, HEAD, MARGIN, Picture, cut, widest};
use crate::output::trace::HeadRecord;

/// Cells beyond which a picture is none any more.
const MOST_CELLS: usize = 600_000;

/// The longest label, in columns.
const LABEL: usize = 18;

pub fn draw(model: &str, heads: &[HeadRecord], labels: &[String]) -> Result<Picture> {
    let (count, n) = (heads.len(), labels.len());
    if count * n * (n + 1) / 2 > MOST_CELLS {
        return Err(Error::Usage(format!(
            "--svg: {count} heads over {n} tokens are too much for one picture; choose a --layer and a --head, or a \
             shorter text"
        ))
        .into());
    }
    let labels: Vec<String> = labels.iter().map(|label| cut(label, LABEL)).collect();
    match heads {
        [head] => Ok(one(model, head, &labels)),
        heads if heads.iter().all(|head| head.layer == heads[0].layer) => Ok(layer(model, heads, &labels)),
        heads => Ok(all(model, heads, n)),
    }
}

/// One head: rows look, columns are looked at. A token's own cell is on the diagonal, so the names beside it serve the
/// columns below.
fn one(model: &str, head: &HeadRecord, labels: &[String]) -> Picture {
    let n = labels.len() as f64;
    let cell = (640.0 / n).clamp(3.0, 30.0);
    let size = (cell * 0.78).clamp(2.0, 14.0);
    let side = widest(labels) * size * 0.62 + 10.0;
    let (left, top) = (MARGIN + side, HEAD + MARGIN + 14.0);
    let title = format!("Attention of layer {}, head {}", head.layer, head.head);
    let subtitle = format!("{model} · each row is a token that looks; the shades say at which tokens");
    let (width, height) = (left + n * cell + side + MARGIN, top + n * cell + FOOT);
    let mut picture = Picture::new(&title, &subtitle, width, height);
    picture.cells(left, top, cell, cell, &shades(head));
    for (i, label) in labels.iter().enumerate() {
        let y = top + (i as f64 + 0.5) * cell;
        picture.label(left - 7.0, y, label, "ink", size, Anchor::End);
        picture.label(left + (i as f64 + 1.0) * cell + 5.0, y, label, "muted", size, Anchor::Start);
    }
    key(&mut picture);
    picture
}

/// The heads of one layer side by side.
fn layer(model: &str, heads: &[HeadRecord], labels: &[String]) -> Picture {
    let n = labels.len() as f64;
    let across = (heads.len() as f64).sqrt().ceil().max(1.0) as usize;
    let down = heads.len().div_ceil(across);
    let cell = (220.0 / n).clamp(0.5, 16.0);
    let (panel, size) = (n * cell, (cell * 0.75).min(11.0));
    // Names that could not be read are left out.
    let side = if size >= 5.0 { widest(labels) * size * 0.62 + 8.0 } else { 0.0 };
    let (gap, caption) = (22.0, 24.0);
    let (left, top) = (MARGIN + side, HEAD + MARGIN);
    let title = format!("Attention of layer {}", heads[0].layer);
    let subtitle = format!("{model} · a map for each head: rows look, columns are looked at");
    let width = left + across as f64 * (panel + gap) - gap + MARGIN;
    let height = top + down as f64 * (panel + caption + 6.0) + FOOT;
    let mut picture = Picture::new(&title, &subtitle, width, height);
    for (i, head) in heads.iter().enumerate() {
        let x = left + (i % across) as f64 * (panel + gap);
        let y = top + (i / across) as f64 * (panel + caption + 6.0) + caption;
        picture.label(x, y - 11.0, &format!("head {}", head.head), "muted", 12.0, Anchor::Start);
        picture.outline("frame", x, y, panel, panel);
        picture.cells(x, y, cell, cell, &shades(head));
        if i % across == 0 && side > 0.0 {
            for (row, label) in labels.iter().enumerate() {
                picture.label(x - 6.0, y + (row as f64 + 0.5) * cell, label, "ink", size, Anchor::End);
            }
        }
    }
    key(&mut picture);
    picture
}

/// Every head of every layer, small.
fn all(model: &str, heads: &[HeadRecord], tokens: usize) -> Picture {
    let first = heads[0].layer;
    let across = heads.iter().filter(|head| head.layer == first).count();
    let layers = heads.len() / across.max(1);
    let panel: f64 = if across > 16 { 48.0 } else { 72.0 };
    let (gap, side) = (8.0, 66.0);
    let (left, top) = (MARGIN + side, HEAD + MARGIN + 18.0);
    let subtitle = format!("{model} · {tokens} tokens; a row of maps for each layer, a column for each head");
    let width = left + across as f64 * (panel + gap) - gap + MARGIN;
    let height = top + layers as f64 * (panel + gap) + FOOT;
    let mut picture = Picture::new("Attention of all heads", &subtitle, width, height);
    let cell = panel / tokens as f64;
    for (i, head) in heads.iter().enumerate() {
        let x = left + (i % across) as f64 * (panel + gap);
        let y = top + (i / across) as f64 * (panel + gap);
        if i < across {
            picture.label(x + panel / 2.0, top - 12.0, &head.head.to_string(), "muted", 12.0, Anchor::Middle);
        }
        if i % across == 0 {
            picture.label(left - 10.0, y + panel / 2.0, &format!("layer {}", head.layer), "muted", 12.0, Anchor::End);
        }
        picture.outline("frame", x, y, panel, panel);
        picture.cells(x, y, cell, cell, &shades(head));
    }
    key(&mut picture);
    picture
}

/// Weights as shades: their square roots, so that a tenth of the attention can still be seen.
fn shades(head: &HeadRecord) -> Vec<Vec<f32>> {
    head.weights.iter().map(|row| row.iter().map(|weight| weight.sqrt()).collect()).collect()
}

fn key(picture: &mut Picture) {
    let tick = |percent: f32| ((percent / 100.0).sqrt(), format!("{percent}%"));
    picture.key(&[0.0, 10.0, 25.0, 50.0, 100.0].map(tick), "of a token's attention");
}
