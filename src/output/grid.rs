//! Heat maps on a terminal: a row for each layer, a column for each head or other part of it.

use anyhow::Result;

use super::{Stdout, Style};

/// The glyphs of shades, with the smallest share of the strongest that each stands for.
const SHADES: [(f64, &str); 5] = [(0.75, "█"), (0.45, "▓"), (0.2, "▒"), (0.05, "░"), (0.0, " ")];

/// Light grounds for what is for and against, weak to strong.
const FOR: [u8; 4] = [194, 157, 120, 84];
const AGAINST: [u8; 4] = [224, 217, 210, 203];

/// Columns beside the cells: with the word `layer`, or with its number alone.
const SIDES: [usize; 2] = [9, 4];

/// A grid under construction.
pub struct Grid<'a> {
    /// What the columns are, and their names.
    pub corner: &'a str,
    pub columns: &'a [String],
    /// The cells of each layer.
    pub rows: Vec<Vec<Cell>>,
    /// Whether the cells of heads touch, and only every second one is named.
    pub is_dense: bool,
}

/// A number, and how strong it is: from -1, the strongest against, to 1, the strongest for.
pub struct Cell {
    pub text: String,
    pub share: f64,
}

/// The style of a share of the strongest.
pub fn style(share: f64) -> Style {
    let strength = SHADES.iter().rev().filter(|(least, _)| *least > 0.0 && share.abs() >= *least).count();
    match (strength, share > 0.0) {
        (0, _) => Style::new().dimmed(),
        (n, true) => Style::on_light(FOR[n - 1]),
        (n, false) => Style::on_light(AGAINST[n - 1]),
    }
}

/// How wide a cell may be so that so many columns stand side by side, without the gap before it.
pub fn cell_width(columns: usize) -> usize {
    (Stdout::width().saturating_sub(SIDES[0]) / columns.max(1)).saturating_sub(1)
}

impl Grid<'_> {
    /// Writes it, in several bands if the terminal is too narrow for all columns.
    pub fn write(&self, out: &mut Stdout) -> Result<()> {
        let dim = Style::new().dimmed();
        let texts = self.rows.iter().flatten().map(|cell| cell.text.chars().count());
        let cell = texts.chain(self.columns.iter().map(|name| name.len())).max().unwrap_or(1);
        let is_head = |name: &String| name.bytes().all(|byte| byte.is_ascii_digit());
        let gap = |name: &String| usize::from(!(self.is_dense && is_head(name)));
        let whole: usize = self.columns.iter().map(|name| cell + gap(name)).sum();
        let room = |side: usize| Stdout::width().saturating_sub(side);
        let side = SIDES.into_iter().find(|side| whole <= room(*side)).unwrap_or(SIDES[0]);
        let mut from = 0;
        while from < self.columns.len() {
            let mut used = 0;
            let fitting = self.columns[from..].iter().take_while(|name| {
                used += cell + gap(name);
                used <= room(side)
            });
            let shown = from..from + fitting.count().max(1);
            let corner = if side == SIDES[0] { self.corner } else { "" };
            write!(out, "{dim}{corner:<side$}")?;
            for (column, name) in shown.clone().zip(&self.columns[shown.clone()]) {
                let named = if gap(name) == 0 && column % 2 == 1 { "" } else { name };
                write!(out, "{:gap$}{named:>cell$}", "", gap = gap(name))?;
            }
            writeln!(out, "{dim:#}")?;
            for (layer, cells) in self.rows.iter().enumerate() {
                let label = if side == SIDES[0] { format!("layer {layer}") } else { layer.to_string() };
                write!(out, "{dim}{label:<side$}{dim:#}")?;
                for (Cell { text, share }, name) in cells[shown.clone()].iter().zip(&self.columns[shown.clone()]) {
                    let style = style(*share);
                    write!(out, "{:gap$}{style}{text:>cell$}{style:#}", "", gap = gap(name))?;
                }
                writeln!(out)?;
            }
            from = shown.end;
        }
        Ok(())
    }
}

/// A number in so many columns: its sign, and as many decimals as fit, at most two. `None` if that tells too little.
pub fn number(x: f64, width: usize) -> Option<String> {
    let full = (0..=2).rev().map(|places| format!("{x:+.places$}")).find(|text| text.len() <= width)?;
    // Without the zero before the point there is room for more.
    let short = format!("{x:+.2}").replacen("0.", ".", 1);
    if x.abs() < 0.005 {
        return Some("0".to_owned());
    }
    let text = if x.abs() < 0.995 && short.len() <= width && full.len() < 5 { short } else { full };
    (text.contains('.') || x.abs() >= 9.95).then_some(text)
}

/// A share of the strongest in two columns, without its number.
pub fn glyph(share: f64) -> String {
    let shade = SHADES.iter().find(|(least, _)| share.abs() >= *least).map_or(" ", |(_, shade)| shade);
    let sign = if shade == " " {
        '·'
    } else if share > 0.0 {
        '+'
    } else {
        '-'
    };
    format!("{sign}{shade}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fit_their_cells() {
        for (x, width, shown) in [
            (1.234, 6, Some("+1.23")),
            (1.234, 4, Some("+1.2")),
            (-0.056, 5, Some("-0.06")),
            (-0.056, 4, Some("-.06")),
            (-0.003, 6, Some("0")),
            (12.34, 4, Some("+12")),
            (-12.34, 5, Some("-12.3")),
            (1.234, 3, None),
            (0.5, 2, None),
            (123.4, 3, None),
        ] {
            assert_eq!(number(x, width).as_deref(), shown, "{x} in {width}");
        }
    }

    #[test]
    fn glyphs_have_the_sign() {
        assert_eq!([0.9, -0.5, 0.01, -0.1].map(glyph), ["+█", "-▓", "· ", "-░"]);
    }
}
