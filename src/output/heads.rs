//! The record of `gpt2 trace --heads` and its heat maps on a terminal.

use anyhow::Result;
use gpt2::analysis::heads::{Behaviour, HeadScores};
use serde::Serialize;

use super::grid::{Cell, Grid};
use super::numbers::probability;
use super::{Stdout, Style};

/// How much of its attention each head spends as a previous-token, duplicate-token or induction head does: TransformerLens's
/// head detector, `error_measure="mul"`.
#[derive(Debug, Default, Serialize)]
pub struct HeadsRecord {
    /// What chose the random sequence; null if it is a text that was given.
    pub seed: Option<u64>,
    /// The most that a head can reach: the share of the tokens that have somewhere to look.
    pub most: BehaviourRecord,
    /// Every head, by layer.
    pub scores: Vec<HeadScoreRecord>,
}

/// A number for each behaviour.
#[derive(Debug, Default, Serialize)]
pub struct BehaviourRecord {
    /// To the token before.
    pub previous_token: f32,
    /// To earlier occurrences of the same token.
    pub duplicate_token: f32,
    /// To what followed earlier occurrences of the same token.
    pub induction: f32,
}

/// One head's scores, each the share of its attention.
#[derive(Debug, Serialize)]
pub struct HeadScoreRecord {
    /// The layer, from 0.
    pub layer: usize,
    /// The head, from 0.
    pub head: usize,
    /// How it scores.
    #[serde(flatten)]
    pub scores: BehaviourRecord,
}

/// How many of the strongest heads are named, and from which share of the most on.
const NAMED: usize = 5;
const STRONG: f32 = 0.2;

impl BehaviourRecord {
    fn new([previous_token, duplicate_token, induction]: [f64; 3]) -> Self {
        let [previous_token, duplicate_token, induction] =
            [previous_token, duplicate_token, induction].map(|x| x as f32);
        Self { previous_token, duplicate_token, induction }
    }

    /// The number for a behaviour.
    pub fn of(&self, behaviour: Behaviour) -> f32 {
        match behaviour {
            Behaviour::PreviousToken => self.previous_token,
            Behaviour::DuplicateToken => self.duplicate_token,
            Behaviour::Induction => self.induction,
        }
    }
}

/// The name of a behaviour, and where such a head looks.
pub fn described(behaviour: Behaviour) -> (&'static str, &'static str) {
    match behaviour {
        Behaviour::PreviousToken => ("Previous token", "the token before"),
        Behaviour::DuplicateToken => ("Duplicate token", "the same token, earlier"),
        Behaviour::Induction => ("Induction", "what followed the same token earlier"),
    }
}

impl HeadsRecord {
    pub fn new(found: &HeadScores, seed: Option<u64>) -> Self {
        let heads = found.heads.iter();
        let scores = heads.map(|one| HeadScoreRecord {
            layer: one.layer,
            head: one.head,
            scores: BehaviourRecord::new(one.scores),
        });
        Self { seed, most: BehaviourRecord::new(found.most), scores: scores.collect() }
    }

    /// The heads of each layer.
    pub fn layers(&self) -> impl Iterator<Item = &[HeadScoreRecord]> {
        self.scores.chunk_by(|a, b| a.layer == b.layer)
    }

    /// What it was found on.
    pub fn sequence(&self, tokens: usize) -> String {
        match self.seed {
            Some(seed) => {
                let (length, start) = (tokens / 2, if tokens % 2 == 1 { ", after the start token" } else { "" });
                format!("{length} random tokens, twice{start} (seed {seed})")
            }
            None => format!("a text of {tokens} tokens"),
        }
    }

    /// A score as a share of the most, from 0 to 1.
    pub fn share(&self, head: &HeadScoreRecord, behaviour: Behaviour) -> f32 {
        let most = self.most.of(behaviour);
        if most > 0.0 { head.scores.of(behaviour) / most } else { 0.0 }
    }

    /// A heat map for each behaviour.
    pub fn write_text(&self, tokens: usize, out: &mut Stdout) -> Result<()> {
        let (bold, dim) = (Style::new().bold(), Style::new().dimmed());
        writeln!(out, "{bold}Heads{bold:#}: percent of a head's attention, over {}", self.sequence(tokens))?;
        let across = self.layers().map(<[_]>::len).max().unwrap_or(0);
        let columns: Vec<String> = (0..across).map(|head| head.to_string()).collect();
        for behaviour in Behaviour::ALL {
            let (name, place) = described(behaviour);
            if self.most.of(behaviour) == 0.0 {
                writeln!(out, "\n{bold}{name}{bold:#}: to {place}: no token has that")?;
                continue;
            }
            let most = probability(self.most.of(behaviour), 0);
            writeln!(out, "\n{bold}{name}{bold:#}: to {place}, at most {most}")?;
            let cell = |head: &HeadScoreRecord| Cell {
                // Adding 0 makes -0 positive.
                text: format!("{:.0}", (100.0 * head.scores.of(behaviour)).round() + 0.0),
                share: self.share(head, behaviour).into(),
            };
            let rows = self.layers().map(|heads| heads.iter().map(cell).collect()).collect();
            Grid { corner: "head", columns: &columns, rows, is_dense: false }.write(out)?;
            writeln!(out, "{dim}{}{dim:#}", self.strongest(behaviour))?;
        }
        Ok(writeln!(out)?)
    }

    /// The heads that do most of a behaviour, in words.
    fn strongest(&self, behaviour: Behaviour) -> String {
        let mut heads: Vec<&HeadScoreRecord> =
            self.scores.iter().filter(|head| self.share(head, behaviour) >= STRONG).collect();
        if heads.is_empty() {
            return "No head comes to a fifth of that.".to_owned();
        }
        heads.sort_by(|a, b| b.scores.of(behaviour).total_cmp(&a.scores.of(behaviour)));
        let name = |head: &&HeadScoreRecord| {
            format!("{}.{} {}", head.layer, head.head, probability(head.scores.of(behaviour), 0))
        };
        let named: Vec<String> = heads.iter().take(NAMED).map(name).collect();
        format!("Strongest (layer.head): {}", named.join(", "))
    }
}
