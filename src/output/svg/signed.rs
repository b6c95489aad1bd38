//! A grid of numbers of both signs: a row for each layer, a column for each head or token.

use super::{Anchor, FOOT, HEAD, MARGIN, Picture, STRONG, Ticks, widest};
use crate::output::tokens::cut;

/// The longest label of a column, in columns.
const LABEL: usize = 18;

/// A cell with at least this side length has room for its number.
const NUMBERED: f64 = 36.0;

/// What the grid shows.
pub struct Signed<'a> {
    pub title: &'a str,
    pub subtitle: &'a str,
    /// The labels of the rows.
    pub rows: Vec<String>,
    /// The labels of the columns.
    pub columns: Vec<String>,
    /// The shade of each cell: 1 is the strongest for, -1 the strongest against.
    pub shades: Vec<Vec<f32>>,
    /// The number in each cell.
    pub texts: Vec<Vec<String>>,
    /// What shades of -1, 0 and 1 mean.
    pub key: [String; 3],
    /// Words beside the key.
    pub remark: &'a str,
}

impl Signed<'_> {
    /// The picture.
    pub fn draw(&self) -> Picture {
        let labels: Vec<String> = self.columns.iter().map(|label| cut(label, LABEL)).collect();
        let across = labels.len().max(1) as f64;
        let (width, height) = ((1200.0 / across).clamp(3.0, 56.0), 36.0);
        let ticks = Ticks::of(width);
        let side = widest(&self.rows) * 13.0 * 0.62 + 12.0;
        let above = ticks.room(&labels);
        let (left, top) = (MARGIN + side, HEAD + MARGIN + above);
        let size = (left + across * width + MARGIN, top + self.rows.len() as f64 * height + FOOT);
        let mut picture = Picture::new(self.title, self.subtitle, size.0, size.1);
        picture.cells("cell", (left, top), (width, height), &self.shades);
        let against: Vec<Vec<f32>> = self.shades.iter().map(|row| row.iter().map(|shade| -shade).collect()).collect();
        picture.cells("cell against", (left, top), (width, height), &against);
        let rows = Ticks { every: 1, size: 13.0 };
        picture.beside(left, top, height, &self.rows, rows);
        picture.above(left, top, width, &labels, ticks);
        picture.outline("frame", left, top, across * width, self.rows.len() as f64 * height);
        if width >= NUMBERED {
            for (y, (texts, shades)) in self.texts.iter().zip(&self.shades).enumerate() {
                for (x, (text, shade)) in texts.iter().zip(shades).enumerate() {
                    let class = if shade.abs() > STRONG { "on" } else { "ink" };
                    let (x, y) = (left + (x as f64 + 0.5) * width, top + (y as f64 + 0.5) * height);
                    picture.label(x, y, text, class, 12.0, Anchor::Middle);
                }
            }
        }
        picture.signed_key(&self.key, self.remark);
        picture
    }
}
