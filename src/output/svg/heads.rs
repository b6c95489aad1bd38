//! What heads do, as heat maps: layers by heads, one map for each behaviour.

use gpt2::analysis::heads::Behaviour;

use super::{Anchor, FOOT, HEAD, MARGIN, Picture, STRONG, Ticks};
use crate::output::heads::{HeadScoreRecord, HeadsRecord, described};
use crate::output::numbers::probability;

/// Up to so many heads, the maps stand side by side.
const NARROW: usize = 16;

/// Space between maps, above a map for its name, and beside it for the layers.
const GAP: f64 = 34.0;
const NAME: f64 = 64.0;
const SIDE: f64 = 36.0;

/// A cell with at least this side length has room for its number.
const NUMBERED: f64 = 26.0;

pub fn draw(model: &str, record: &HeadsRecord, tokens: usize) -> Picture {
    let layers: Vec<&[HeadScoreRecord]> = record.layers().collect();
    let heads = layers.iter().map(|layer| layer.len()).max().unwrap_or(1);
    let cell = (480.0 / heads as f64).clamp(18.0, 44.0);
    // The name of a map, in a sans-serif font, has room above it.
    let (width, height) = ((heads as f64 * cell).max(400.0), layers.len() as f64 * cell);
    let across = if heads <= NARROW { Behaviour::ALL.len() } else { 1 };
    let down = Behaviour::ALL.len() / across;
    let (left, top) = (MARGIN + SIDE, HEAD + NAME);
    let size = (
        left + across as f64 * (width + SIDE + GAP) - SIDE - GAP + MARGIN,
        top + down as f64 * (height + NAME) - NAME + FOOT,
    );
    let subtitle = format!("{model} · over {}", record.sequence(tokens));
    let mut picture = Picture::new("What heads attend to", &subtitle, size.0, size.1);
    for (i, behaviour) in Behaviour::ALL.into_iter().enumerate() {
        let x = left + (i % across) as f64 * (width + SIDE + GAP);
        let y = top + (i / across) as f64 * (height + NAME);
        let (name, place) = described(behaviour);
        picture.words(x, y - 40.0, name, "sub ink");
        let most = probability(record.most.of(behaviour), 0);
        picture.words(x, y - 22.0, &format!("{place}; at most {most}"), "sub muted");
        let shades = |layer: &&[HeadScoreRecord]| layer.iter().map(|head| record.share(head, behaviour)).collect();
        let shades: Vec<Vec<f32>> = layers.iter().map(shades).collect();
        picture.cells("cell", (x, y), (cell, cell), &shades);
        picture.outline("frame", x, y, heads as f64 * cell, height);
        let (every, size) = (Ticks::of(cell).every, 12.0);
        for head in (0..heads).step_by(every) {
            picture.label(x + (head as f64 + 0.5) * cell, y - 8.0, &head.to_string(), "muted", size, Anchor::Middle);
        }
        for layer in (0..layers.len()).step_by(every) {
            picture.label(x - 6.0, y + (layer as f64 + 0.5) * cell, &layer.to_string(), "muted", size, Anchor::End);
        }
        if cell < NUMBERED {
            continue;
        }
        for (row, (layer, shades)) in layers.iter().zip(&shades).enumerate() {
            for (head, shade) in layer.iter().zip(shades) {
                let ink = if *shade > STRONG { "on" } else { "ink" };
                let (x, y) = (x + (head.head as f64 + 0.5) * cell, y + (row as f64 + 0.5) * cell);
                let percent = format!("{:.0}", (100.0 * head.scores.of(behaviour)).round() + 0.0);
                picture.label(x, y, &percent, ink, 12.0, Anchor::Middle);
            }
        }
    }
    let tick = |share: f32| (share, format!("{:.0}%", 100.0 * share));
    let numbers = if cell < NUMBERED { "" } else { ", numbers percent" };
    let remark = format!("of the most that it can; rows are layers, columns heads{numbers}");
    picture.key(&[0.0, 0.5, 1.0].map(tick), &remark);
    picture
}
