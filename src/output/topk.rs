//! The records of `gpt2 topk`.

use anstyle::AnsiColor;
use anyhow::Result;
use gpt2::analysis::next_token::Candidate;
use gpt2::pipeline::Pipeline;
use gpt2::printable;
use serde::{Serialize, Serializer};
use unicode_width::UnicodeWidthStr;

use super::tokens::quoted;
use super::{Stdout, Style};

/// The result of `topk`.
#[derive(Serialize)]
pub struct TopkRecord<'a> {
    /// The model's name.
    pub model: String,
    /// The ids of the prompt, including `<|endoftext|>` if it was added.
    pub prompt_ids: Vec<u32>,
    /// The requested positions, in order.
    pub positions: Vec<PositionRecord<'a>>,
}

/// The distribution after one position.
#[derive(Serialize)]
pub struct PositionRecord<'a> {
    /// The 0-based position of the token before `next`.
    pub position: usize,
    /// That token.
    pub id: u32,
    /// Its text.
    pub token: Option<String>,
    /// The distribution's entropy in nats.
    pub entropy: f64,
    /// The best candidates, best first.
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

/// One candidate for the next token.
#[derive(Debug, Serialize)]
pub struct CandidateRecord {
    /// 1 for the most probable.
    pub rank: usize,
    /// The candidate.
    pub id: u32,
    /// Its text.
    pub token: Option<String>,
    /// Its logit after the processors; null if they removed it.
    pub logit: Option<f32>,
    /// Its probability.
    pub prob: f64,
    /// The natural logarithm of its probability; null if that is 0.
    pub logprob: Option<f32>,
}

/// The width of the widest bar in columns.
const BAR_WIDTH: f64 = 30.0;

impl PositionRecord<'_> {
    /// Rank, probability, bar and token of each candidate.
    pub fn write_table(&self, out: &mut Stdout) -> Result<()> {
        for candidate in self.next.records() {
            candidate.write_line(out)?;
        }
        if !self.tokens.is_empty() {
            writeln!(out, "asked for:")?;
        }
        for candidate in self.tokens.records() {
            candidate.write_line(out)?;
        }
        Ok(())
    }

    /// `Ġhappy => Ġto 75.27%`, with tokens spelled as in the vocabulary; `following` is the next token of the text. On a
    /// terminal, as many candidates as fit the line.
    pub fn write_lesson(
        &self,
        out: &mut Stdout,
        widest: usize,
        following: Option<u32>,
        piece: impl Fn(u32) -> Option<String>,
    ) -> Result<()> {
        let (bold, dim, green) = (Style::new().bold(), Style::new().dimmed(), Style::colour(AnsiColor::Green).bold());
        let name = |id| piece(id).map_or_else(|| id.to_string(), |piece| printable::line(&piece).into_owned());
        let token = name(self.id);
        let padding = " ".repeat(widest.saturating_sub(token.width()));
        write!(out, "{padding}{bold}{token}{bold:#} {dim}=>{dim:#}")?;
        let asked = |c: &Candidate| format!("; {} {} (rank {})", name(c.id), small(c.prob()), c.rank());
        let asked: String = self.tokens.candidates.iter().map(asked).collect();
        let room = if Stdout::is_terminal() { Stdout::width().saturating_sub(asked.width()) } else { usize::MAX };
        let mut column = widest.max(token.width()) + 3;
        for (i, candidate) in self.next.candidates.iter().enumerate() {
            let (token, percent) = (name(candidate.id), format!("{:.2}%", 100.0 * candidate.prob()));
            column += token.width() + percent.len() + 3;
            if i > 0 && column > room {
                break;
            }
            let style = if Some(candidate.id) == following { green } else { Style::new() };
            let comma = if i == 0 { "" } else { "," };
            write!(out, "{dim}{comma}{dim:#} {style}{token}{style:#} {dim}{percent}{dim:#}")?;
        }
        Ok(writeln!(out, "{asked}")?)
    }
}

impl CandidateRecord {
    /// `pipeline` gives the token's text.
    pub fn new(candidate: &Candidate, pipeline: &Pipeline) -> Self {
        let token = pipeline.token_text(candidate.id);
        let (rank, prob, logprob) = (candidate.rank(), candidate.prob(), candidate.logprob());
        Self { rank, id: candidate.id, token, logit: candidate.logit(), prob, logprob }
    }

    fn write_line(&self, out: &mut Stdout) -> Result<()> {
        let bold = Style::new().bold();
        let blue = Style::colour(AnsiColor::Blue);
        let bar = bar(self.prob);
        let padding = " ".repeat((BAR_WIDTH as usize).saturating_sub(bar.width()));
        let token = quoted(self.token.as_deref(), self.id);
        let (rank, percent, id) = (self.rank, 100.0 * self.prob, self.id);
        if self.logprob.is_none() {
            return Ok(writeln!(out, "{:>5}  {:>8}  {:<30}  {bold}{token}{bold:#}  ({id})", "–", "0%", "removed")?);
        }
        Ok(writeln!(out, "{rank:>5}  {percent:>7.3}%  {blue}{bar}{blue:#}{padding}  {bold}{token}{bold:#}  ({id})")?)
    }
}

/// A probability that may be very small, in percent.
fn small(prob: f64) -> String {
    if prob > 0.0 && prob < 0.00005 { "<0.01%".to_owned() } else { format!("{:.2}%", 100.0 * prob) }
}

/// A bar proportional to a probability, to an eighth of a column.
fn bar(prob: f64) -> String {
    let eighths = (prob.clamp(0.0, 1.0) * BAR_WIDTH * 8.0).round() as usize;
    let rest = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
    "█".repeat(eighths / 8) + rest
}

/// The result of `topk --tree`.
#[derive(Debug, Serialize)]
pub struct TreeRecord {
    /// The model's name.
    pub model: String,
    /// The ids of the prompt.
    pub prompt_ids: Vec<u32>,
    /// The best continuations.
    pub tree: Vec<NodeRecord>,
}

/// A token in the tree of continuations.
#[derive(Debug, Serialize)]
pub struct NodeRecord {
    /// The token, its rank and probability after its parent.
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
    pub fn write_text(&self, out: &mut Stdout) -> Result<()> {
        write_nodes(&self.tree, "", out)
    }
}

fn write_nodes(nodes: &[NodeRecord], indent: &str, out: &mut Stdout) -> Result<()> {
    let (bold, dim) = (Style::new().bold(), Style::new().dimmed());
    for (i, node) in nodes.iter().enumerate() {
        let (branch, below) = if i + 1 == nodes.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        let candidate = &node.candidate;
        let token = quoted(candidate.token.as_deref(), candidate.id);
        let (own, joint) = (100.0 * candidate.prob, 100.0 * node.joint_prob);
        writeln!(out, "{dim}{indent}{branch}{dim:#}{bold}{token}{bold:#}  {own:.2}%  {dim}(path {joint:.3}%){dim:#}")?;
        write_nodes(&node.next, &format!("{indent}{below}"), out)?;
    }
    Ok(())
}
