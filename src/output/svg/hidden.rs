//! Hidden states: the length of each token's vector, from layer to layer.

use gpt2::base::math;

use super::{Anchor, FOOT, HEAD, MARGIN, Picture, STRONG, Ticks, widest};
use crate::output::tokens::cut;
use crate::output::trace::{HiddenRecord, state_name};

/// The longest label, in columns.
const LABEL: usize = 12;

/// Columns show their numbers as long as they fit this width.
const WIDEST: f64 = 1200.0;

pub fn draw(model: &str, states: &[HiddenRecord], labels: &[String]) -> Picture {
    let labels: Vec<String> = labels.iter().map(|label| cut(label, LABEL)).collect();
    let (n, count, size) = (labels.len() as f64, states.len() as f64, 13.0);
    let roomy = (widest(&labels) * size * 0.62 + 14.0).max(60.0);
    let few = n * roomy <= WIDEST;
    let width = if few { roomy } else { (WIDEST / n).clamp(2.0, 40.0) };
    // If there are many tokens, their labels are vertical, and only some are labelled.
    let ticks = Ticks::of(width);
    let above = if few { 26.0 } else { ticks.room(&labels) };
    let height = 28.0;
    let (left, top) = (MARGIN + 86.0, HEAD + MARGIN + above);
    let subtitle = format!("{model} · the length ‖x‖ of each token's vector, from layer to layer");
    let mut picture = Picture::new("Hidden states", &subtitle, left + n * width + MARGIN, top + count * height + FOOT);
    let scale = Scale::of(states);
    let shades: Vec<Vec<f32>> =
        states.iter().map(|state| state.norms.iter().map(|norm| scale.shade(*norm)).collect()).collect();
    picture.cells("cell", (left, top), (width, height), &shades);
    if few {
        for (i, label) in labels.iter().enumerate() {
            picture.label(left + (i as f64 + 0.5) * width, top - 16.0, label, "ink", size, Anchor::Middle);
        }
    } else {
        picture.above(left, top, width, &labels, ticks);
    }
    for (y, (state, shades)) in states.iter().zip(&shades).enumerate() {
        let middle = top + (y as f64 + 0.5) * height;
        picture.label(left - 10.0, middle, &state_name(&state.name), "muted", 12.0, Anchor::End);
        picture.outline("frame", left, top + y as f64 * height, n * width, height);
        for (x, (norm, shade)) in state.norms.iter().zip(shades).enumerate().filter(|_| few) {
            let class = if *shade > STRONG { "on" } else { "ink" };
            picture.label(left + (x as f64 + 0.5) * width, middle, &number(*norm), class, 12.0, Anchor::Middle);
        }
    }
    picture
        .key(&scale.ticks(), if scale.logarithmic { "length of a vector (logarithmic)" } else { "length of a vector" });
    picture
}

/// From the shortest vector to the longest.
struct Scale {
    least: f32,
    most: f32,
    /// In GPT-2 the first token's vector is often a hundred times as long as the others; on a linear scale they would all be
    /// pale.
    logarithmic: bool,
}

impl Scale {
    fn of(states: &[HiddenRecord]) -> Self {
        let mut norms: Vec<f32> = states.iter().flat_map(|s| &s.norms).copied().filter(|norm| *norm > 0.0).collect();
        norms.sort_by(f32::total_cmp);
        let at = |i: usize| norms.get(i).copied().unwrap_or_default();
        let (least, middle, most) = (at(0), at(norms.len() / 2), at(norms.len().saturating_sub(1)));
        Self { least, most, logarithmic: most > 6.0 * middle }
    }

    /// Both ends and some round numbers between them.
    fn ticks(&self) -> Vec<(f32, String)> {
        let between: Vec<f32> = if self.logarithmic {
            (-3..=6)
                .map(|power| math::pow(10.0, f64::from(power)) as f32)
                .filter(|x| *x > 1.6 * self.least && 1.6 * *x < self.most)
                .collect()
        } else {
            [1.0, 2.0, 3.0].map(|quarter| self.least + quarter / 4.0 * (self.most - self.least)).into()
        };
        let ends = [self.least, self.most];
        ends.into_iter().chain(between).map(|norm| (self.shade(norm), number(norm))).collect()
    }

    /// A shade up to 1 and always above 0.
    fn shade(&self, norm: f32) -> f32 {
        let ln = |x: f32| math::ln(f64::from(x));
        let part = match self.logarithmic {
            true => (ln(norm / self.least) / ln(self.most / self.least)) as f32,
            false => (norm - self.least) / (self.most - self.least),
        };
        if part.is_finite() { 0.06 + 0.94 * part.clamp(0.0, 1.0) } else { 0.06 }
    }
}

fn number(x: f32) -> String {
    match x {
        x if x >= 100.0 => format!("{x:.0}"),
        x if x >= 10.0 => format!("{x:.1}"),
        x => format!("{x:.2}"),
    }
}
