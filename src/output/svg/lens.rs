//! The logit lens as a grid: a row for each layer, a column for each token.

use std::ops::Range;

use super::{Anchor, FOOT, HEAD, MARGIN, Picture, STRONG, widest};
use crate::output::numbers::probability;
use crate::output::tokens::{Notation, cut};
use crate::output::trace::{LensRecord, says_outcome, state_name};

/// The longest label, in columns.
const LABEL: usize = 12;

/// Heights of a row and of the labels above the columns, and the width of the labels beside the rows.
const ROW: f64 = 40.0;
const NAMES: f64 = 34.0;
const SIDE: f64 = 86.0;

/// Columns that do not fit this width wrap to the next rows.
const WIDEST: f64 = 1400.0;

const SIZE: f64 = 13.0;

/// The texts to draw.
struct Grid<'a> {
    layers: &'a [LensRecord],
    /// The tokens of the text.
    labels: Vec<String>,
    /// What each layer says at each position.
    said: Vec<Vec<String>>,
    /// The width of a column.
    width: f64,
}

pub fn draw(model: &str, layers: &[LensRecord], labels: &[String], notation: Notation<'_>) -> Picture {
    let said = |layer: &LensRecord| -> Vec<String> {
        layer.positions.iter().map(|reading| cut(&notation.token(reading.top[0].id), LABEL)).collect()
    };
    let said: Vec<Vec<String>> = layers.iter().map(said).collect();
    let labels: Vec<String> = labels.iter().map(|label| cut(label, LABEL)).collect();
    let width = (widest(said.iter().flatten().chain(&labels)) * SIZE * 0.62 + 14.0).max(58.0);
    let grid = Grid { layers, labels, said, width };
    let n = grid.labels.len();
    let together = n.min((WIDEST / width) as usize).max(1);
    let band = NAMES + layers.len() as f64 * ROW + 18.0;
    let subtitle = format!("{model} · the token that the model would predict if it stopped after each layer");
    let (left, top) = (MARGIN + SIDE, HEAD + MARGIN);
    let height = top + n.div_ceil(together) as f64 * band + FOOT;
    let mut picture = Picture::new("Logit lens", &subtitle, left + together as f64 * width + MARGIN, height);
    for (i, from) in (0..n).step_by(together).enumerate() {
        grid.draw(&mut picture, left, top + i as f64 * band, from..n.min(from + together));
    }
    let tick = |percent: f32| (percent / 100.0, format!("{percent}%"));
    picture.key(&[0.0, 50.0, 100.0].map(tick), "probability; framed: the last block's prediction");
    picture
}

impl Grid<'_> {
    /// Some columns of the grid.
    fn draw(&self, picture: &mut Picture, left: f64, top: f64, positions: Range<usize>) {
        let top = top + NAMES;
        let middle = |i: usize| left + ((i - positions.start) as f64 + 0.5) * self.width;
        picture.label(left - 10.0, top - 16.0, "token", "muted", 12.0, Anchor::End);
        for i in positions.clone() {
            picture.label(middle(i), top - 16.0, &self.labels[i], "ink", SIZE, Anchor::Middle);
        }
        let probs = |layer: &LensRecord| layer.positions[positions.clone()].iter().map(|p| p.top[0].prob).collect();
        let shades: Vec<Vec<f32>> = self.layers.iter().map(probs).collect();
        picture.cells("cell", (left, top), (self.width, ROW), &shades);
        for (y, (layer, said)) in self.layers.iter().zip(&self.said).enumerate() {
            let at = top + y as f64 * ROW;
            picture.label(left - 10.0, at + ROW / 2.0, &state_name(&layer.name), "muted", 12.0, Anchor::End);
            for i in positions.clone() {
                let prob = layer.positions[i].top[0].prob;
                let ink = if prob > STRONG { "on" } else { "ink" };
                picture.outline("frame", middle(i) - self.width / 2.0, at, self.width, ROW);
                picture.label(middle(i), at + 14.0, &said[i], ink, SIZE, Anchor::Middle);
                picture.label(middle(i), at + 30.0, &probability(prob, 0), ink, 11.0, Anchor::Middle);
            }
        }
        for i in positions.clone() {
            let is_framed: Vec<bool> = self.layers.iter().map(|layer| says_outcome(self.layers, layer, i)).collect();
            let mut from = 0;
            for run in is_framed.chunk_by(|one, next| one == next) {
                if run[0] {
                    let (at, height) = (top + from as f64 * ROW + 1.0, run.len() as f64 * ROW - 2.0);
                    picture.outline("mark", middle(i) - self.width / 2.0 + 1.0, at, self.width - 2.0, height);
                }
                from += run.len();
            }
        }
    }
}
