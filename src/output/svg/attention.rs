//! Attention as heat maps: one head with its tokens, the heads of a layer, or all heads of all layers.

use anyhow::Result;
use gpt2::Error;
use gpt2::error::tokens_text;

use super::{Anchor, FOOT, HEAD, MARGIN, Picture, STRONG, Ticks};
use crate::output::numbers::probability;
use crate::output::tokens::cut;
use crate::output::trace::{HeadRecord, strongest};

/// The most cells of a readable picture.
const MOST_CELLS: usize = 600_000;

/// The longest label, in columns.
const LABEL: usize = 18;

/// A cell with at least this side length has room for its number.
const NUMBERED: f64 = 36.0;

/// Checks that a picture has room for so many `(heads, tokens)`; `narrower` says how to ask for less.
///
/// # Errors
/// If it does not.
pub fn check((heads, n): (usize, usize), narrower: &str) -> Result<()> {
    if heads.saturating_mul(n * (n + 1) / 2) > MOST_CELLS {
        return Err(Error::Usage(format!(
            "--svg: {heads} heads over {n} tokens are too much for one picture; {narrower}"
        ))
        .into());
    }
    Ok(())
}

pub fn draw(model: &str, heads: &[HeadRecord], labels: &[String]) -> Picture {
    let labels: Vec<String> = labels.iter().map(|label| cut(label, LABEL)).collect();
    match heads {
        [head] => one(model, head, &labels),
        heads if heads.iter().all(|head| head.layer == heads[0].layer) => layer(model, heads, &labels),
        heads => all(model, heads, &labels),
    }
}

/// One head: rows are queries, columns are keys. Few tokens get numbers in their cells; of many, only some are labelled.
fn one(model: &str, head: &HeadRecord, labels: &[String]) -> Picture {
    let n = labels.len() as f64;
    let cell = (640.0 / n).clamp(3.0, 56.0);
    let ticks = Ticks::of(cell);
    let side = ticks.room(labels);
    // Column labels are vertical unless they fit horizontally.
    let lying = side <= cell;
    let above = if lying { 14.0 } else { side };
    let (left, top) = (MARGIN + side, HEAD + MARGIN + above);
    let title = format!("Attention of layer {}, head {}", head.layer, head.head);
    let subtitle = format!("{model} · each row is a token, the columns are what it looks at");
    let mut picture = Picture::new(&title, &subtitle, left + n * cell + MARGIN, top + n * cell + FOOT);
    let scale = Scale::of(std::slice::from_ref(head));
    let shades = scale.shades(head);
    picture.cells("cell", (left, top), (cell, cell), &shades);
    picture.beside(left, top, cell, labels, ticks);
    if lying {
        for (i, label) in labels.iter().enumerate() {
            picture.label(left + (i as f64 + 0.5) * cell, top - 14.0, label, "ink", ticks.size, Anchor::Middle);
        }
    } else {
        picture.above(left, top, cell, labels, ticks);
    }
    if cell >= NUMBERED {
        for (y, (weights, shades)) in head.weights.iter().zip(&shades).enumerate() {
            for (x, (weight, shade)) in weights.iter().zip(shades).enumerate().take(y + 1) {
                let class = if *shade > STRONG { "on" } else { "ink" };
                let (x, y) = (left + (x as f64 + 0.5) * cell, top + (y as f64 + 0.5) * cell);
                picture.label(x, y, &probability(*weight, 0), class, 12.0, Anchor::Middle);
            }
        }
    }
    scale.key(&mut picture);
    picture
}

/// The heads of one layer side by side, with labels on the outer maps.
fn layer(model: &str, heads: &[HeadRecord], labels: &[String]) -> Picture {
    let n = labels.len() as f64;
    let across = (heads.len() as f64).sqrt().ceil().max(1.0) as usize;
    let down = heads.len().div_ceil(across);
    let cell = ((1400.0 / across as f64).clamp(220.0, 640.0) / n).clamp(0.5, 36.0);
    let (panel, ticks) = (n * cell, Ticks::of(cell));
    let side = ticks.room(labels);
    let (gap, caption) = (22.0, 24.0);
    let (left, top) = (MARGIN + side, HEAD + MARGIN + side);
    let title = format!("Attention of layer {}", heads[0].layer);
    let subtitle = format!("{model} · a map for each head: rows look, columns are looked at");
    let width = left + across as f64 * (panel + gap) - gap + MARGIN;
    let height = top + down as f64 * (panel + caption + 6.0) + FOOT;
    let mut picture = Picture::new(&title, &subtitle, width, height);
    let scale = Scale::of(heads);
    for (i, head) in heads.iter().enumerate() {
        let x = left + (i % across) as f64 * (panel + gap);
        let y = top + (i / across) as f64 * (panel + caption + 6.0) + caption;
        let above = if i < across { side } else { 0.0 };
        picture.label(x, y - above - 11.0, &format!("head {}", head.head), "muted", 12.0, Anchor::Start);
        picture.outline("frame", x, y, panel, panel);
        picture.cells("cell", (x, y), (cell, cell), &scale.shades(head));
        if i < across {
            picture.above(x, y, cell, labels, ticks);
        }
        if i % across == 0 {
            picture.beside(x, y, cell, labels, ticks);
        }
    }
    scale.key(&mut picture);
    picture
}

/// Small maps of every head of every layer, with labels on the outer ones.
fn all(model: &str, heads: &[HeadRecord], labels: &[String]) -> Picture {
    let first = heads[0].layer;
    let across = heads.iter().filter(|head| head.layer == first).count();
    let layers = heads.len() / across.max(1);
    let panel = (900.0 / across.max(layers) as f64).clamp(48.0, 120.0);
    let cell = panel / labels.len() as f64;
    let ticks = Ticks::of(cell);
    let side = ticks.room(labels);
    let (gap, name) = (8.0, 66.0);
    let (left, top) = (MARGIN + name + side, HEAD + MARGIN + 18.0 + side);
    let tokens = tokens_text(labels.len());
    let subtitle = format!("{model} · {tokens}; in each map, rows look and columns are looked at");
    let width = left + across as f64 * (panel + gap) - gap + MARGIN;
    let height = top + layers as f64 * (panel + gap) + FOOT;
    let mut picture = Picture::new("Attention of all heads", &subtitle, width, height);
    let scale = Scale::of(heads);
    for (i, head) in heads.iter().enumerate() {
        let x = left + (i % across) as f64 * (panel + gap);
        let y = top + (i / across) as f64 * (panel + gap);
        if i < across {
            let middle = x + panel / 2.0;
            picture.label(middle, top - side - 12.0, &format!("head {}", head.head), "muted", 12.0, Anchor::Middle);
            picture.above(x, y, cell, labels, ticks);
        }
        if i % across == 0 {
            let middle = y + panel / 2.0;
            let end = left - side - 10.0;
            picture.label(end, middle, &format!("layer {}", head.layer), "muted", 12.0, Anchor::End);
            picture.beside(x, y, cell, labels, ticks);
        }
        picture.outline("frame", x, y, panel, panel);
        picture.cells("cell", (x, y), (cell, cell), &scale.shades(head));
    }
    scale.key(&mut picture);
    picture
}

/// Weights as shades: their square roots, so that a tenth of the strongest can still be seen.
struct Scale {
    /// The weight shown in the strongest shade.
    strongest: f32,
}

impl Scale {
    fn of(heads: &[HeadRecord]) -> Self {
        Self { strongest: strongest(heads) }
    }

    fn shades(&self, head: &HeadRecord) -> Vec<Vec<f32>> {
        let shade = |weight: &f32| (weight / self.strongest).min(1.0).sqrt();
        head.weights.iter().map(|row| row.iter().map(shade).collect()).collect()
    }

    fn key(&self, picture: &mut Picture) {
        let tick = |part: f32| {
            let more = if part == 1.0 && self.strongest < 1.0 { "≥" } else { "" };
            (part.sqrt(), format!("{more}{}%", (1000.0 * part * self.strongest).round() / 10.0))
        };
        picture.key(&[0.0, 0.1, 0.4, 1.0].map(tick), "of a token's attention");
    }
}
