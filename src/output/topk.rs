//! The records of `gpt2 topk`.

use anstyle::AnsiColor;
use anyhow::Result;
use gpt2::analysis::next_token::Candidate;
use gpt2::error::tokens_text;
use gpt2::pipeline::Pipeline;
use gpt2::printable;
use serde::{Serialize, Serializer};
use unicode_width::UnicodeWidthStr;

use super::numbers::{probability, probability_of};
use super::settings::SettingsRecord;
use super::tokens::{Notation, quoted};
use super::{Stdout, Style};

/// What `topk` shows of a text.
#[derive(Serialize)]
#[serde(untagged)]
pub enum TopkView<'a> {
    /// Distributions after positions.
    Positions(TopkRecord<'a>),
    /// `--tree`
    Tree(TreeRecord),
    /// `--append`
    Steps(StepsRecord<'a>),
}

/// The distributions of the next token after the requested positions: the last one, unless `--all` or `--position` says
/// otherwise.
#[derive(Default, Serialize)]
pub struct TopkRecord<'a> {
    /// The model's name.
    pub model: String,
    /// The ids of the prompt, including `<|endoftext|>` if it was added.
    pub prompt_ids: Vec<u32>,
    /// The requested positions, in order.
    pub positions: Vec<PositionRecord<'a>>,
    /// What it was made with.
    pub settings: SettingsRecord,
}

/// The distribution after one position.
#[derive(Serialize)]
pub struct PositionRecord<'a> {
    /// The position of the token that `next` comes after.
    pub position: usize,
    /// That token.
    pub id: u32,
    /// Its text, with U+FFFD if the token alone is not UTF-8; null without a tokenizer.
    pub token: Option<String>,
    /// The entropy of the distribution, in nats.
    pub entropy: f64,
    /// How many tokens the processors left; absent if they removed none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<usize>,
    /// The probability of the tokens that the constraint does not allow; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removed: Option<f64>,
    /// The best candidates, best first: `-k` of them.
    pub next: Candidates<'a>,
    /// The tokens asked for with `--token`, in the order given.
    #[serde(skip_serializing_if = "Candidates::is_empty")]
    pub tokens: Candidates<'a>,
}

/// Candidates whose records are made one by one: those of a whole vocabulary at every position would take gigabytes.
pub struct Candidates<'a> {
    pub candidates: Vec<Candidate>,
    /// Gives the tokens' texts.
    pub pipeline: &'a Pipeline,
}

impl Candidates<'_> {
    fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }

    fn records(&self) -> impl Iterator<Item = CandidateRecord> {
        self.candidates.iter().map(|candidate| CandidateRecord::new(candidate, self.pipeline))
    }
}

impl Serialize for Candidates<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.records())
    }
}

/// A candidate for the next token.
#[derive(Debug, Serialize)]
pub struct CandidateRecord {
    /// 1 for the most probable.
    pub rank: usize,
    /// The candidate.
    pub id: u32,
    /// Its text, with U+FFFD if the token alone is not UTF-8; null without a tokenizer.
    pub token: Option<String>,
    /// Its logit after the processors; null if they removed it.
    pub logit: Option<f32>,
    /// Its probability.
    pub prob: f64,
    /// The natural logarithm of its probability; null if that is 0.
    pub logprob: Option<f32>,
}

/// The width of the widest bar: 30 of 80 columns.
fn bar_width() -> usize {
    Stdout::width() * 3 / 8
}

impl TopkRecord<'_> {
    /// After one position, rank, probability, bar and token of each candidate; or, as a lesson, a line for each position.
    /// `flags` are those that shaped the distribution.
    pub fn write_text(&self, notation: Notation<'_>, is_lesson: bool, flags: &str, out: &mut Stdout) -> Result<()> {
        if is_lesson {
            self.write_lesson(notation, out)?;
        } else {
            self.positions.iter().try_for_each(|position| position.write_table(notation, out))?;
        }
        self.write_processors(flags, out)
    }

    /// `" happy" => " to" 75.27%`. On a terminal, as many candidates as fit the line.
    fn write_lesson(&self, notation: Notation<'_>, out: &mut Stdout) -> Result<()> {
        const WIDEST: usize = 24;
        let (bold, dim, green) = (Style::new().bold(), Style::new().dimmed(), Style::colour(AnsiColor::Green).bold());
        let labels = notation.tokens(&self.prompt_ids);
        let widest = self.positions.iter().map(|position| labels[position.position].width()).max().unwrap_or(0);
        let widest = widest.min(WIDEST);
        for position in &self.positions {
            let (token, following) = (&labels[position.position], self.prompt_ids.get(position.position + 1));
            write!(
                out,
                "{:>pad$}{bold}{token}{bold:#} {dim}=>{dim:#}",
                "",
                pad = widest.saturating_sub(token.width())
            )?;
            let asked = |c: &Candidate| format!("; {} {} (rank {})", notation.token(c.id), percent(c, 2), c.rank());
            let asked: String = position.tokens.candidates.iter().map(asked).collect();
            let room = if Stdout::is_terminal() { Stdout::width().saturating_sub(asked.width()) } else { usize::MAX };
            let mut column = widest.max(token.width()) + 3;
            for (i, candidate) in position.next.candidates.iter().enumerate() {
                let follows = following == Some(&candidate.id);
                let token = if follows { labels[position.position + 1].clone() } else { notation.token(candidate.id) };
                let percent = percent(candidate, 2);
                column += token.width() + percent.len() + 3;
                if i > 0 && column > room {
                    break;
                }
                let style = if follows { green } else { Style::new() };
                let comma = if i == 0 { "" } else { "," };
                write!(out, "{dim}{comma}{dim:#} {style}{token}{style:#} {dim}{percent}{dim:#}")?;
            }
            writeln!(out, "{asked}")?;
        }
        Ok(())
    }

    /// What the processors did to the probabilities.
    fn write_processors(&self, flags: &str, out: &mut Stdout) -> Result<()> {
        let dim = Style::new().dimmed();
        let kept = || self.positions.iter().filter_map(|position| position.kept);
        let left = match (kept().min(), kept().max()) {
            (Some(least), Some(most)) if least < most => format!(": renormalised over {least} to {most} tokens"),
            (Some(all), _) => format!(": renormalised over {}", tokens_text(all)),
            _ => String::new(),
        };
        let flags = printable::line(flags);
        match &*flags {
            "" => Ok(()),
            flags => writeln!(out, "{dim}after {flags}{left}{dim:#}"),
        }?;
        let mut removed = self.positions.iter().filter_map(|position| position.removed);
        match (removed.next(), removed.next()) {
            (Some(removed), None) => {
                writeln!(out, "{dim}the constraint removed {}{dim:#}", probability(removed, 3))
            }
            _ => Ok(()),
        }
    }
}

impl PositionRecord<'_> {
    /// Rank, probability, bar and token of each candidate, and the scale of the bars.
    fn write_table(&self, notation: Notation<'_>, out: &mut Stdout) -> Result<()> {
        let longest = self.next.candidates.iter().map(Candidate::prob).fold(0.0, f64::max);
        self.next.candidates.iter().try_for_each(|candidate| write_line(candidate, longest, notation, out))?;
        if !self.tokens.is_empty() {
            writeln!(out, "asked for:")?;
        }
        self.tokens.candidates.iter().try_for_each(|candidate| write_line(candidate, longest, notation, out))?;
        let dim = Style::new().dimmed();
        writeln!(out, "{dim}the longest bar is {}{dim:#}", probability(longest, 2))
    }
}

impl CandidateRecord {
    /// `pipeline` gives the token's text.
    pub fn new(candidate: &Candidate, pipeline: &Pipeline) -> Self {
        let token = pipeline.token_text(candidate.id);
        let (rank, prob, logprob) = (candidate.rank(), candidate.prob(), candidate.logprob());
        Self { rank, id: candidate.id, token, logit: candidate.logit(), prob, logprob }
    }
}

/// Rank, probability, bar, token and id; `longest` is the probability of the longest bar.
fn write_line(candidate: &Candidate, longest: f64, notation: Notation<'_>, out: &mut Stdout) -> Result<()> {
    let (bold, blue) = (Style::new().bold(), Style::colour(AnsiColor::Blue));
    let bar = bar(candidate.prob() / longest);
    let width = bar_width();
    let padding = " ".repeat(width.saturating_sub(bar.width()));
    let (rank, percent, id) = (candidate.rank(), percent(candidate, 3), candidate.id);
    let token = notation.token(id);
    if candidate.logprob().is_none() {
        return writeln!(out, "{:>5}  {:>8}  {:<width$}  {bold}{token}{bold:#}  ({id})", "–", "0%", "removed");
    }
    writeln!(out, "{rank:>5}  {percent:>8}  {blue}{bar}{blue:#}{padding}  {bold}{token}{bold:#}  ({id})")
}

/// The best token, appended again and again.
#[derive(Default, Serialize)]
pub struct StepsRecord<'a> {
    /// The model's name.
    pub model: String,
    /// The ids of the prompt.
    pub prompt_ids: Vec<u32>,
    /// One for each appended token.
    pub steps: Vec<StepRecord<'a>>,
    /// The ids of the prompt and of the appended tokens.
    pub all_ids: Vec<u32>,
    /// The text of all of them; null without a tokenizer.
    pub text: Option<String>,
    /// What it was made with.
    pub settings: SettingsRecord,
}

/// A step of `--append`: the token that was appended, and what else there was.
#[derive(Serialize)]
pub struct StepRecord<'a> {
    /// 1 for the first.
    pub step: usize,
    /// Those of the token.
    #[serde(flatten)]
    pub chosen: CandidateRecord,
    /// The position of the token before it.
    pub position: usize,
    /// The entropy of the distribution that it was taken from, in nats.
    pub entropy: f64,
    /// The best candidates, the token first.
    pub next: Candidates<'a>,
    /// The tokens asked for with `--token`, in the order given.
    #[serde(skip_serializing_if = "Candidates::is_empty")]
    pub tokens: Candidates<'a>,
}

impl StepsRecord<'_> {
    /// Each step with its token and the next best ones, the chain of tokens, and the whole text.
    pub fn write_text(&self, notation: Notation<'_>, out: &mut Stdout) -> Result<()> {
        let (bold, dim, blue) = (Style::new().bold(), Style::new().dimmed(), Style::colour(AnsiColor::Blue));
        let labels = notation.tokens(&self.all_ids).split_off(self.prompt_ids.len());
        let digits = self.steps.iter().map(|step| step.chosen.id.to_string().len()).max().unwrap_or(0);
        let name = |(step, label): (&StepRecord<'_>, &String)| format!("{:>digits$}: {label}", step.chosen.id);
        let names: Vec<String> = self.steps.iter().zip(&labels).map(name).collect();
        let widest = names.iter().map(|name| name.width()).max().unwrap_or(0).min(32);
        let room = if Stdout::is_terminal() { Stdout::width() } else { usize::MAX };
        for (step, name) in self.steps.iter().zip(&names) {
            let mut candidates = step.next.candidates.iter();
            let percentage = candidates.next().map(|chosen| percent(chosen, 2)).unwrap_or_default();
            let padding = " ".repeat(widest.saturating_sub(name.width()));
            write!(out, "{dim}{:>4}{dim:#}  {bold}{name}{bold:#}{padding}  {percentage:>7}", step.step)?;
            let mut column = 15 + widest.max(name.width());
            for (i, other) in candidates.enumerate() {
                let other = format!("{} {}", notation.token(other.id), percent(other, 2));
                column += other.width() + 2;
                if column > room {
                    break;
                }
                let before = if i == 0 { "   " } else { ", " };
                write!(out, "{dim}{before}{other}{dim:#}")?;
            }
            for asked in &step.tokens.candidates {
                write!(out, "; {} {} (rank {})", notation.token(asked.id), percent(asked, 2), asked.rank())?;
            }
            writeln!(out)?;
        }
        writeln!(out)?;
        for (i, name) in names.iter().enumerate() {
            if i > 0 {
                write!(out, " {blue}→{blue:#} ")?;
            }
            write!(out, "{}", name.trim_start())?;
        }
        writeln!(out)?;
        match &self.text {
            Some(text) => writeln!(out, "{}", quoted(text.as_bytes())),
            None => Ok(()),
        }
    }
}

/// The probability of a candidate.
fn percent(candidate: &Candidate, places: usize) -> String {
    candidate.logprob().map_or_else(|| "0%".to_owned(), |logprob| probability_of(logprob.into(), places))
}

/// A bar that is this part of the longest, to an eighth of a column.
fn bar(part: f64) -> String {
    let eighths = (part.clamp(0.0, 1.0) * bar_width() as f64 * 8.0).round() as usize;
    let rest = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
    "█".repeat(eighths / 8) + rest
}

/// The best continuations, and after each of them the best ones.
#[derive(Debug, Default, Serialize)]
pub struct TreeRecord {
    /// The model's name.
    pub model: String,
    /// The ids of the prompt.
    pub prompt_ids: Vec<u32>,
    /// The best continuations.
    pub tree: Vec<NodeRecord>,
    /// What it was made with.
    pub settings: SettingsRecord,
}

/// A token in the tree of continuations.
#[derive(Debug, Serialize)]
pub struct NodeRecord {
    /// Those of the token, its rank and probability after its parent.
    #[serde(flatten)]
    pub candidate: CandidateRecord,
    /// The probability of the whole path from the prompt.
    pub joint_prob: f64,
    /// Its natural logarithm.
    pub joint_logprob: f64,
    /// The best continuations after it.
    pub next: Vec<NodeRecord>,
}

impl TreeRecord {
    /// The tree with its branches, and after each token its probability and that of its path.
    pub fn write_text(&self, notation: Notation<'_>, out: &mut Stdout) -> Result<()> {
        write_nodes(&self.tree, "", notation, out)
    }
}

fn write_nodes(nodes: &[NodeRecord], indent: &str, notation: Notation<'_>, out: &mut Stdout) -> Result<()> {
    let (bold, dim) = (Style::new().bold(), Style::new().dimmed());
    for (i, node) in nodes.iter().enumerate() {
        let (branch, below) = if i + 1 == nodes.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        let token = notation.token(node.candidate.id);
        let own = node.candidate.logprob.map_or_else(|| "0%".to_owned(), |logprob| probability_of(logprob.into(), 2));
        let path = probability_of(node.joint_logprob, 3);
        writeln!(out, "{dim}{indent}{branch}{dim:#}{bold}{token}{bold:#}  {own}  {dim}(path {path}){dim:#}")?;
        write_nodes(&node.next, &format!("{indent}{below}"), notation, out)?;
    }
    Ok(())
}
