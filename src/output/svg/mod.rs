//! Pictures of `gpt2 trace` for slides and papers, as SVG or PNG: a title, the tokens, a colour key.
//!
//! All shades are one colour at different opacities, so that the same picture works on light and dark backgrounds.

mod attention;
mod attribution;
mod heads;
mod hidden;
mod lens;
mod patch;
mod png;
mod signed;
mod style;

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use gpt2::{Error, printable};
use svg::Document;
use svg::node::element;
use unicode_width::UnicodeWidthStr;

pub use self::attention::check as check_attention;
pub use self::patch::write as write_patch;
use super::tokens::Notation;
use super::trace::TraceRecord;
use crate::cli::Theme;

/// Draws the view in the record, as PNG if the file's name says so.
pub fn write(path: &Path, record: &TraceRecord, notation: Notation<'_>, theme: Theme) -> Result<()> {
    let (labels, model) = (notation.tokens(&record.ids), &record.settings.shown_model());
    let picture = match record {
        TraceRecord { heads: Some(heads), .. } => heads::draw(model, heads, labels.len()),
        TraceRecord { attribution: Some(made), .. } => attribution::draw(model, made, &labels, notation),
        TraceRecord { attention: Some(heads), .. } => attention::draw(model, heads, &labels),
        TraceRecord { lens: Some(layers), .. } => lens::draw(model, layers, &labels, notation),
        TraceRecord { hidden: Some(states), .. } => hidden::draw(model, states, &labels),
        _ => return Err(Error::Usage("--svg has no view to draw".into()).into()),
    };
    save(path, picture, theme)
}

/// Writes a picture.
fn save(path: &Path, picture: Picture, theme: Theme) -> Result<()> {
    let picture = picture.finish(theme);
    match is_png(path) {
        true => super::write_file(path, &png::rendered(&picture)?),
        false => super::write_file(path, picture.as_bytes()),
    }
}

/// Checks that the picture can have its colours.
///
/// # Errors
/// If pixels are to follow the viewer.
pub fn check_theme(path: Option<&Path>, theme: Theme) -> Result<()> {
    if theme == Theme::Auto && path.is_some_and(is_png) {
        let message = "--theme auto: a PNG cannot follow the viewer; choose light or dark, or write .svg";
        return Err(Error::Usage(message.into()).into());
    }
    Ok(())
}

/// Whether a picture of this name is made of pixels.
fn is_png(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png"))
}

/// Space around the picture.
const MARGIN: f64 = 24.0;

/// Height of title and subtitle.
const HEAD: f64 = 64.0;

/// Height of the key below a picture.
const FOOT: f64 = 84.0;

/// On shades from this one on, text takes the colour of the background. At this shade both colours have equal contrast.
const STRONG: f32 = 0.7;

/// Which point of a text its coordinates refer to.
#[derive(Clone, Copy)]
enum Anchor {
    Start,
    Middle,
    End,
}

/// A picture under construction; coordinates are in pixels from its upper left corner.
struct Picture {
    document: Document,
    width: f64,
    height: f64,
}

impl Picture {
    /// An empty picture with a title, at least wide enough for its title and subtitle.
    fn new(title: &str, subtitle: &str, width: f64, height: f64) -> Self {
        let (title, subtitle) = (&*printable::line(title), &*printable::line(subtitle));
        let words = (columns(title) * 12.0).max(columns(subtitle) * 7.9) + 2.0 * MARGIN;
        let mut picture = Self { document: Document::new(), width: width.max(words), height };
        let ground = element::Rectangle::new().set("class", "ground").set("width", "100%").set("height", "100%");
        picture.add(element::Title::new(title));
        picture.add(ground);
        picture.words(MARGIN, MARGIN + 18.0, title, "title ink");
        picture.words(MARGIN, MARGIN + 40.0, subtitle, "sub muted");
        picture
    }

    fn add(&mut self, node: impl Into<Box<dyn svg::Node>>) {
        svg::Node::append(&mut self.document, node);
    }

    /// Text in the font of the title or the subtitle.
    fn words(&mut self, x: f64, y: f64, text: &str, class: &str) {
        self.add(written(text).set("class", class).set("x", round(x)).set("y", round(y)));
    }

    /// A label, vertically centred at `y`.
    fn label(&mut self, x: f64, y: f64, text: &str, class: &str, size: f64, anchor: Anchor) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = written(text)
            .set("class", class)
            .set("x", round(x))
            .set("y", round(y + 0.35 * size))
            .set("font-size", round(size))
            .set("text-anchor", anchor);
        self.add(text);
    }

    /// A vertical label that reads upwards from (x, y).
    fn upright(&mut self, x: f64, y: f64, text: &str, class: &str, size: f64) {
        let (x, y) = (round(x + 0.35 * size), round(y));
        let text = written(text)
            .set("class", class)
            .set("font-size", round(size))
            .set("transform", format!("translate({x} {y}) rotate(-90)"));
        self.add(text);
    }

    /// Vertical labels of columns that begin at `left`.
    fn above(&mut self, left: f64, top: f64, cell: f64, labels: &[String], ticks: Ticks) {
        for (i, label) in labels.iter().enumerate().step_by(ticks.every) {
            self.upright(left + (i as f64 + 0.5) * cell, top - 6.0, label, "ink", ticks.size);
        }
    }

    /// Labels of rows that begin at `top`.
    fn beside(&mut self, left: f64, top: f64, cell: f64, labels: &[String], ticks: Ticks) {
        for (i, label) in labels.iter().enumerate().step_by(ticks.every) {
            self.label(left - 6.0, top + (i as f64 + 0.5) * cell, label, "ink", ticks.size, Anchor::End);
        }
    }

    /// The outline of a rectangle.
    fn outline(&mut self, class: &str, x: f64, y: f64, width: f64, height: f64) {
        let outline = element::Rectangle::new()
            .set("class", class)
            .set("x", round(x))
            .set("y", round(y))
            .set("width", round(width))
            .set("height", round(height));
        self.add(outline);
    }

    /// Cells of equal size, each with a shade from 0 to 1. Cells of equal shade share a path, and neighbours in a row a
    /// rectangle, so that even a map of a hundred thousand cells can be opened.
    fn cells(&mut self, class: &str, (left, top): (f64, f64), (width, height): (f64, f64), rows: &[Vec<f32>]) {
        const STEPS: usize = 50;
        let step = |shade: f32| (shade.clamp(0.0, 1.0) * STEPS as f32).round() as usize;
        let mut paths = vec![String::new(); STEPS + 1];
        for (y, row) in rows.iter().enumerate() {
            let mut x = 0;
            while x < row.len() {
                let shade = step(row[x]);
                let run = row[x..].iter().take_while(|other| step(**other) == shade).count();
                let (at_x, at_y) = (round(left + x as f64 * width), round(top + y as f64 * height));
                // Writing to a string cannot fail.
                let _ = write!(
                    paths[shade],
                    "M{at_x} {at_y}h{}v{}h{}z",
                    round(run as f64 * width),
                    round(height),
                    round(-(run as f64) * width)
                );
                x += run;
            }
        }
        for (step, path) in paths.into_iter().enumerate().skip(1).filter(|(_, path)| !path.is_empty()) {
            let opacity = step as f64 / STEPS as f64;
            self.add(element::Path::new().set("class", class).set("fill-opacity", opacity).set("d", path));
        }
    }

    /// The key at the bottom of the picture: a ramp of shades with the meaning of some of them, and a remark.
    fn key(&mut self, ticks: &[(f32, String)], remark: &str) {
        self.ramp(&[("shade", 0.0, 0.0), ("shade", 1.0, 1.0)], ticks, remark);
    }

    /// The key of a grid of both signs: what shades of -1, 0 and 1 mean.
    fn signed_key(&mut self, [least, none, most]: &[String; 3], remark: &str) {
        let stops =
            [("shade against", 0.0, 1.0), ("shade against", 0.5, 0.0), ("shade", 0.5, 0.0), ("shade", 1.0, 1.0)];
        self.ramp(&stops, &[(0.0, least.clone()), (0.5, none.clone()), (1.0, most.clone())], remark);
    }

    /// A ramp of shades through `stops`: class, offset and opacity.
    fn ramp(&mut self, stops: &[(&str, f64, f64)], ticks: &[(f32, String)], remark: &str) {
        let (x, y, width, height) = (MARGIN + 14.0, self.height - MARGIN - 32.0, 240.0, 12.0);
        let ramp = stops.iter().fold(element::LinearGradient::new().set("id", "ramp"), |ramp, (class, at, opacity)| {
            ramp.add(element::Stop::new().set("class", *class).set("offset", *at).set("stop-opacity", *opacity))
        });
        self.add(element::Definitions::new().add(ramp));
        let bar = element::Rectangle::new()
            .set("fill", "url(#ramp)")
            .set("x", round(x))
            .set("y", round(y))
            .set("width", width)
            .set("height", height);
        self.add(bar);
        self.outline("frame", x, y, width, height);
        for (shade, meaning) in ticks {
            let at = x + f64::from(*shade) * width;
            let tick = element::Line::new().set("class", "frame").set("x1", round(at)).set("x2", round(at));
            self.add(tick.set("y1", round(y + height)).set("y2", round(y + height + 4.0)));
            self.label(at, y + height + 13.0, meaning, "muted", 11.0, Anchor::Middle);
        }
        let after = x + width + 40.0;
        self.words(after, y + height - 1.0, remark, "sub muted");
        self.width = self.width.max(after + 7.9 * columns(remark) + MARGIN);
    }

    fn finish(mut self, theme: Theme) -> String {
        self.add(element::Style::new(style::sheet(theme)));
        let (width, height) = (round(self.width), round(self.height));
        let document = self.document.set("width", width).set("height", height).set("viewBox", (0, 0, width, height));
        format!("{document}\n")
    }
}

/// Labels of equal cells in a row: as many as can be read.
#[derive(Clone, Copy)]
struct Ticks {
    /// Every how many cells there is a label.
    every: usize,
    /// The size of the font.
    size: f64,
}

impl Ticks {
    /// Of cells with this side length.
    fn of(cell: f64) -> Self {
        let every = (9.0 / cell).ceil().max(1.0);
        Self { every: every as usize, size: (cell * every * 0.78).min(14.0) }
    }

    /// The space that the labels take.
    fn room(self, labels: &[String]) -> f64 {
        widest(labels.iter().step_by(self.every)) * self.size * 0.62 + 8.0
    }
}

/// Text that is well-formed in XML, whatever it is. Labels arrive printable, since their width is measured.
fn written(text: &str) -> element::Text {
    element::Text::new(printable::line(text))
}

/// Rounds to a tenth of a pixel.
fn round(x: f64) -> f64 {
    (x * 10.0).round() / 10.0
}

/// The width of a text in columns of a fixed-width font.
fn columns(text: &str) -> f64 {
    text.width() as f64
}

/// The width of the widest of the `labels`, in columns.
fn widest<'a>(labels: impl IntoIterator<Item = &'a String>) -> f64 {
    labels.into_iter().map(|label| columns(label)).fold(1.0, f64::max)
}
