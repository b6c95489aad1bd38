//! The record of `gpt2 trace` and its views on a terminal.

mod records;

use anstyle::AnsiColor;
use anyhow::Result;
use gpt2::error::tokens_text;
use unicode_width::UnicodeWidthStr;

use super::numbers::probability;
use super::tokens::{Notation, cut};
use super::{Stdout, Style};
pub use records::{BestRecord, HeadRecord, HiddenRecord, LensRecord, ReadingRecord, RepeatRecord, TraceRecord};

impl TraceRecord {
    /// Every view in the record.
    pub fn write_text(&self, notation: Notation<'_>, out: &mut Stdout) -> Result<()> {
        let labels = notation.tokens(&self.ids);
        if let Some(repeat) = &self.repeat {
            repeat.write_text(out)?;
        }
        if let Some(hidden) = &self.hidden {
            write_hidden(hidden, out)?;
        }
        match self.lens.as_deref() {
            Some(lens) if lens.iter().all(|layer| layer.positions.len() == 1) => {
                write_lens_at(lens, &labels, notation, out)?;
            }
            Some(lens) => write_lens(lens, &labels, notation, out)?,
            None => {}
        }
        match self.attention.as_deref() {
            Some(heads) if heads.iter().all(|head| head.layer == heads[0].layer) => {
                let strongest = strongest(heads);
                for head in heads {
                    head.write_map(strongest, &labels, out)?;
                }
            }
            Some(heads) => write_overview(heads, out)?,
            None => {}
        }
        if let Some(attribution) = &self.attribution {
            attribution.write_text(notation, &labels, out)?;
        }
        if let Some(heads) = &self.heads {
            heads.write_text(labels.len(), out)?;
        }
        Ok(())
    }
}

impl RepeatRecord {
    fn write_text(&self, out: &mut Stdout) -> Result<()> {
        let bold = Style::new().bold();
        let runs = if self.runs == 1 { "1 run".to_owned() } else { format!("{} runs", self.runs) };
        match self.sha256.as_slice() {
            [hash, ..] if self.identical => {
                let gave = if self.runs == 1 { "" } else { " gave the same bits" };
                writeln!(out, "{bold}{runs}{gave}{bold:#}: hidden states, attention and logits have the SHA-256")?;
                Ok(writeln!(out, "{hash}\n")?)
            }
            hashes => {
                writeln!(out, "{bold}{runs} differ{bold:#}: the SHA-256 of hidden states, attention and logits")?;
                hashes.iter().enumerate().try_for_each(|(i, hash)| writeln!(out, "run {:<3} {hash}", i + 1))?;
                Ok(writeln!(out)?)
            }
        }
    }
}

/// The display name of a hidden state.
pub fn state_name(state: &str) -> String {
    match state.strip_prefix("blocks.").and_then(|rest| rest.strip_suffix(".hidden")) {
        Some(block) => format!("block {block}"),
        None if state == "final" => "final norm".to_owned(),
        None => state.to_owned(),
    }
}

/// Fits a terminal of 80 columns.
fn write_hidden(states: &[HiddenRecord], out: &mut Stdout) -> Result<()> {
    let (bold, dim) = (Style::new().bold(), Style::new().dimmed());
    let shape = states.first().map_or([0, 0], |state| state.shape);
    writeln!(out, "{bold}Hidden states{bold:#}, {} × {} numbers", tokens_text(shape[0]), shape[1])?;
    writeln!(
        out,
        "{dim}{:<10}{:>8}{:>8} {:<28} last token ends{dim:#}",
        "state", "mean", "std", " first token begins"
    )?;
    let few = |numbers: &[f32]| numbers.iter().map(|x| short(*x)).collect::<String>();
    for state in states {
        let (first, last) =
            (&state.first[..state.first.len().min(3)], &state.last[state.last.len().saturating_sub(3)..]);
        let (mean, std) = (short(state.mean as f32), short(state.std as f32));
        writeln!(out, "{:<10}{mean}{std} {} …  …{}", state_name(&state.name), few(first), few(last))?;
    }
    Ok(writeln!(out)?)
}

/// A number in 8 columns, with as many digits as fit; a small one does not become 0.
pub fn short(x: f32) -> String {
    if x != 0.0 && x.abs() < 5e-5 {
        return format!("{x:>8.1e}");
    }
    let decimals = [10.0, 100.0, 1e3, 1e4].iter().position(|limit| x.abs() < *limit).map_or(0, |place| 4 - place);
    format!("{x:>8.decimals$}")
}

/// The weight shown in the strongest shade, the same for all `heads` so that they can be compared: all of the attention
/// or, if at most one weight in a hundred is larger, a half, a quarter or a tenth of it. The first token does not count,
/// since it can only attend to itself.
pub fn strongest(heads: &[HeadRecord]) -> f32 {
    let rows = || heads.iter().flat_map(|head| head.weights.iter().enumerate().skip(1));
    let count: usize = rows().map(|(query, _)| query + 1).sum();
    let is_enough = |least: &f32| {
        let larger: usize =
            rows().map(|(query, row)| row[..=query].iter().filter(|weight| *weight > least).count()).sum();
        larger < count - count * 99 / 100
    };
    [0.1, 0.25, 0.5].into_iter().find(is_enough).unwrap_or(1.0)
}

/// The glyphs of a heat map, with the smallest fraction of the strongest weight that each stands for.
const SHADES: [(f32, &str); 5] = [(0.7, "█"), (0.4, "▓"), (0.2, "▒"), (0.05, "░"), (0.0, " ")];

/// Columns for the label of a row, and for that of the token with the most attention.
const LABEL: usize = 14;
const BEST: usize = 10;

impl HeadRecord {
    /// The head's weights as shades: rows are queries, columns are keys.
    fn write_map(&self, strongest: f32, labels: &[String], out: &mut Stdout) -> Result<()> {
        let (bold, dim, blue) = (Style::new().bold(), Style::new().dimmed(), Style::colour(AnsiColor::Blue));
        let (layer, head) = (self.layer, self.head);
        writeln!(out, "{bold}Attention{bold:#}, layer {layer}, head {head}: each row is a token that looks")?;
        let before = LABEL + 6;
        let columns = Stdout::width().saturating_sub(before + BEST + 6).max(16);
        let cell = if 2 * labels.len() <= columns { 2 } else { 1 };
        let from = labels.len().saturating_sub(columns / cell);
        if from > 0 {
            let (shown, all) = (labels.len() - from, labels.len());
            writeln!(out, "(the last {shown} of {all} tokens; --svg, --html and --format json have all)")?;
        }
        let numbered = from.next_multiple_of(10 / cell);
        write!(out, "{dim}{:>LABEL$}    # {:>pad$}", "token", "", pad = (numbered - from) * cell)?;
        for key in (numbered..labels.len()).step_by(10 / cell) {
            write!(out, "{key:<10}")?;
        }
        writeln!(out, "{dim:#}")?;
        for (query, row) in self.weights.iter().enumerate().skip(from) {
            write!(out, "{} {dim}{query:>4}{dim:#} {blue}", fit(&labels[query], LABEL, Side::Right))?;
            for weight in &row[from..=query] {
                let shade =
                    SHADES.iter().find(|(least, _)| *weight >= least * strongest).map_or(" ", |(_, shade)| shade);
                write!(out, "{}", shade.repeat(cell))?;
            }
            let (best, weight) = largest(row);
            let (best, pad) = (cut(&labels[best], BEST), cell * (labels.len() - 1 - query));
            writeln!(out, "{blue:#}{dim}{:>pad$}▏{best} {}{dim:#}", "", probability(weight, 0))?;
        }
        let key = |(least, shade): &(f32, &str)| {
            format!("{} {}%", shade.repeat(cell), (1000.0 * least * strongest).round() / 10.0)
        };
        let key: Vec<String> = SHADES.iter().rev().skip(1).map(key).collect();
        Ok(writeln!(out, "{dim}{:>before$}from {};  ▏ most looked at{dim:#}\n", "", key.join("  "))?)
    }

    /// Where most of the head's attention goes. The first token, which can only attend to itself, is counted as a query only
    /// if there is no other.
    fn habit(&self) -> (&'static str, f32) {
        let first = usize::from(self.weights.len() > 1);
        let queries = (self.weights.len() - first).max(1) as f32;
        let share = |key: fn(usize) -> usize| {
            let rows = self.weights.iter().enumerate().skip(first);
            rows.map(|(query, row)| row[key(query)]).sum::<f32>() / queries
        };
        let habits = [("F", share(|_| 0)), ("P", share(|query| query.saturating_sub(1))), ("S", share(|query| query))];
        habits.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or(("·", 0.0))
    }
}

/// One letter for each head: where it attends.
fn write_overview(heads: &[HeadRecord], out: &mut Stdout) -> Result<()> {
    let (bold, dim) = (Style::new().bold(), Style::new().dimmed());
    let over = match heads.first().map_or(0, |head| head.weights.len()) {
        0 | 1 => "from the only token",
        _ => "on average over the tokens after the first",
    };
    writeln!(out, "{bold}Attention{bold:#}: where each head looks, {over}")?;
    let room = ((Stdout::width() - 11) / 5).max(1);
    let across = heads.iter().take_while(|head| head.layer == heads[0].layer).count().min(room);
    write!(out, "{dim}{:>9}  ", "head")?;
    for head in &heads[..across] {
        write!(out, " {:<4}", head.head)?;
    }
    writeln!(out, "{dim:#}")?;
    let mut before: Option<&HeadRecord> = None;
    let mut across = 0;
    for head in heads {
        if before.is_none_or(|before| before.layer != head.layer) {
            across = 0;
            let end = if before.is_some() { "\n" } else { "" };
            write!(out, "{end}{dim}layer {:>3}{dim:#}  ", head.layer)?;
        } else if across % room == 0 {
            write!(out, "\n{dim}{:>9}{dim:#}  ", format!("from {}", head.head))?;
        }
        (before, across) = (Some(head), across + 1);
        let (habit, share) = head.habit();
        let style = match habit {
            _ if share < 0.5 => Style::new().dimmed(),
            "F" => Style::colour(AnsiColor::Yellow),
            "P" => Style::colour(AnsiColor::Cyan),
            _ => Style::colour(AnsiColor::Magenta),
        };
        let habit = if share < 0.5 { habit.to_lowercase() } else { habit.to_owned() };
        write!(out, " {style}{habit}{:<3}{style:#}", format!("{:.0}", 100.0 * share))?;
    }
    writeln!(
        out,
        "\n{dim}Percent of attention on F the first token, P the previous one, S itself:\n\
         the most of the three, in small letters if it is under half.\n\
         --layer L --head H draws one head, --svg all of them.{dim:#}\n"
    )?;
    Ok(())
}

/// What every layer predicts at one position: the best tokens, and the probability of the model's own prediction.
fn write_lens_at(layers: &[LensRecord], labels: &[String], notation: Notation<'_>, out: &mut Stdout) -> Result<()> {
    const WIDEST: usize = 12;
    let (bold, dim, green) = (Style::new().bold(), Style::new().dimmed(), Style::colour(AnsiColor::Green));
    let Some(answer) = layers.last().map(|layer| &layer.positions[0]) else { return Ok(()) };
    let (after, said) = (&labels[answer.position], notation.token(answer.top[0].id));
    writeln!(out, "{bold}Logit lens{bold:#} after {after}: what each layer would say next")?;
    writeln!(out, "{dim}{:<9} {:>WIDEST$}  best tokens{dim:#}", "state", cut(&said, WIDEST))?;
    let room = ((Stdout::width() - 23) / (WIDEST + 7)).max(1);
    for layer in layers {
        let reading = &layer.positions[0];
        write!(out, "{:<9} {:>WIDEST$}  ", state_name(&layer.name), probability(reading.outcome_prob, 1))?;
        for (i, best) in reading.top.iter().take(room).enumerate() {
            let style = if best.id == answer.top[0].id { green } else { Style::new() };
            let (token, gap) = (fit(&notation.token(best.id), WIDEST, Side::Left), if i == 0 { "" } else { "  " });
            write!(out, "{gap}{style}{token}{style:#} {dim}{:>4}{dim:#}", probability(best.prob, 0))?;
        }
        writeln!(out)?;
    }
    Ok(writeln!(out, "{dim}Green is what the last block says; beside the state, its probability there.{dim:#}\n")?)
}

/// The token that every layer predicts, with a column for each position and as many columns side by side as fit.
fn write_lens(layers: &[LensRecord], labels: &[String], notation: Notation<'_>, out: &mut Stdout) -> Result<()> {
    let (bold, dim) = (Style::new().bold(), Style::new().dimmed());
    writeln!(out, "{bold}Logit lens{bold:#}: what each layer would say next, after each token")?;
    let best = |reading: &ReadingRecord| notation.token(reading.top[0].id);
    let rows: Vec<Vec<String>> = layers.iter().map(|layer| layer.positions.iter().map(best).collect()).collect();
    let widest = rows.iter().flatten().chain(labels).map(|label| label.width()).max().unwrap_or(0);
    let column = widest.clamp(5, 10) + 6;
    let together = ((Stdout::width() - 10) / (column + 1)).max(1);
    for from in (0..labels.len()).step_by(together) {
        let to = labels.len().min(from + together);
        write!(out, "{dim}{:>9}{dim:#}", "state")?;
        for label in &labels[from..to] {
            write!(out, " {bold}{}{bold:#}", fit(label, column, Side::Left))?;
        }
        writeln!(out)?;
        for (layer, row) in layers.iter().zip(&rows) {
            write!(out, "{dim}{:>9}{dim:#}", state_name(&layer.name))?;
            for (reading, said) in layer.positions[from..to].iter().zip(&row[from..to]) {
                let style = match reading.top[0].prob {
                    _ if says_outcome(layers, layer, reading.position) => Style::colour(AnsiColor::Green),
                    p if p < 0.1 => Style::new().dimmed(),
                    _ => Style::new(),
                };
                let prob = probability(reading.top[0].prob, 0);
                write!(out, " {style}{}{dim}{prob:>5}{dim:#} {style:#}", fit(said, column - 6, Side::Left))?;
            }
            writeln!(out)?;
        }
        writeln!(out)?;
    }
    Ok(writeln!(out, "{dim}Green is what the last block says.{dim:#}\n")?)
}

/// Whether a layer predicts at a position what the last one does.
pub fn says_outcome(layers: &[LensRecord], layer: &LensRecord, position: usize) -> bool {
    let says = |layer: &LensRecord| layer.positions.get(position).map(|reading| reading.top[0].id);
    layers.last().is_some_and(|last| says(last) == says(layer))
}

fn largest(row: &[f32]) -> (usize, f32) {
    row.iter().copied().enumerate().fold((0, 0.0), |best, next| if next.1 > best.1 { next } else { best })
}

/// The alignment of text in its column.
enum Side {
    Left,
    Right,
}

/// Text in exactly `columns` columns, cut with an ellipsis if it is longer.
fn fit(text: &str, columns: usize, side: Side) -> String {
    let fitting = cut(text, columns);
    let padding = " ".repeat(columns.saturating_sub(fitting.width()));
    match side {
        Side::Left => fitting + &padding,
        Side::Right => padding + &fitting,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(weights: &[&[f32]]) -> HeadRecord {
        HeadRecord { layer: 0, head: 0, weights: weights.iter().map(|row| row.to_vec()).collect() }
    }

    #[test]
    fn the_strongest_shade_covers_the_weights() {
        for (second, strongest_shade) in [(0.55, 1.0), (0.5, 0.5), (0.8, 1.0)] {
            assert_eq!(strongest(&[head(&[&[1.0, 0.0], &[1.0 - second, second]])]), strongest_shade);
        }
        let flat: Vec<f32> = vec![0.02; 50];
        assert_eq!(strongest(&[head(&[&flat[..]; 50])]), 0.1);
        assert_eq!(strongest(&[head(&[&[1.0]])]), 1.0, "a single token");
    }

    #[test]
    fn numbers_of_any_size_fit_their_columns() {
        for (x, text) in [
            (0.5, "  0.5000"),
            (-3.14e-5, " -3.1e-5"),
            (-12.3456, " -12.346"),
            (-3021.55, " -3021.6"),
            (123_456.7, "  123457"),
        ] {
            assert_eq!(short(x), text);
        }
    }
}
