//! Running windows through the network, and reading the distributions in the places that are scored.

use std::ops::ControlFlow;

use candle_core::Tensor;

use super::place::Place;
use super::prefixes::{Node, Tree};
use super::{Part, Progress, Score, ScoreOptions, Text};
use crate::base::pool;
use crate::error::Result;
use crate::model::{Gpt2, KvCache, select_rows};

/// The most tokens in a forward pass, unless a single input is longer: enough for full speed, few enough to keep
/// activations small compared to the weights.
const PASS_TOKENS: usize = 1024;

/// The most positions whose keys and values are held at once, unless a single input has more.
const HELD_POSITIONS: usize = 2048;

/// How many positions' logits are held at once: with more the head runs hardly faster.
const LOGIT_ROWS: usize = 128;

/// A token to score, or a border to find after a text.
#[derive(Debug, Clone, Copy)]
struct Target {
    /// The position whose distribution it is, among those of a pass.
    at: usize,
    text: usize,
    position: usize,
}

/// Windows on their way through the network.
pub(super) struct Run<'a> {
    model: &'a Gpt2,
    texts: &'a [Text<'a>],
    options: &'a ScoreOptions<'a>,
    parts: &'a [Part],
    /// What each window sees: its last token is only scored.
    inputs: Vec<&'a [u32]>,
    tree: Tree,
    /// The windows that each node is a part of.
    through: Vec<Vec<usize>>,
    cache: KvCache,
    /// The logits of a few positions; kept so that their memory is.
    logits: Vec<f32>,
    /// Positions of a page.
    page: usize,
    /// The row of each node that is held.
    rows: Vec<usize>,
    free: Vec<usize>,
    used: usize,
}

impl<'a> Run<'a> {
    pub fn new(model: &'a Gpt2, texts: &'a [Text<'a>], options: &'a ScoreOptions<'a>, parts: &'a [Part]) -> Self {
        let seen = |part: &Part| &texts[part.text].ids[part.window.begin..part.window.end - 1];
        let inputs: Vec<&[u32]> = parts.iter().map(seen).collect();
        // Windows from within a text have no context in common.
        let tree = Tree::of(&inputs, |input| parts[input].window.begin == 0);
        let mut through = vec![vec![]; tree.nodes.len()];
        for part in 0..parts.len() {
            tree.path(part).for_each(|node| through[node].push(part));
        }
        Self {
            model,
            texts,
            options,
            parts,
            inputs,
            through,
            cache: model.new_cache(),
            logits: vec![],
            page: model.room().page_positions.max(1),
            rows: vec![0; tree.nodes.len()],
            free: vec![],
            used: 0,
            tree,
        }
    }

    /// Runs all windows, unless `progress` breaks it off; what they tell goes to the `scores` of the texts.
    pub fn all(
        &mut self,
        scores: &mut [Score],
        progress: &mut impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let room = self.model.room();
        // Half of what is left: activations and logits need some, too.
        let pages = room.left.and_then(|left| (left / 2).checked_div(room.page_bytes));
        let most = pages.map_or(HELD_POSITIONS, |pages| (pages as usize).saturating_mul(self.page));
        let roots = std::mem::take(&mut self.tree.roots);
        self.below(&roots, most.min(HELD_POSITIONS), scores, progress)
    }

    /// Runs nodes whose parents are held, and all that is below them, holding no more than about `limit` positions.
    fn below(
        &mut self,
        mut nodes: &[usize],
        limit: usize,
        scores: &mut [Score],
        progress: &mut impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        while !nodes.is_empty() {
            let (mut left, mut held) = (limit, vec![]);
            // As many as can be held, so that what is below them runs together.
            loop {
                let count = self.next_pass(nodes, left).max(usize::from(held.is_empty()));
                let pass = nodes.split_off(..count.min(nodes.len())).unwrap_or_default();
                if pass.is_empty() {
                    break;
                }
                self.pass(pass, scores)?;
                let (inner, leaves): (Vec<usize>, Vec<usize>) =
                    pass.iter().partition(|node| !self.tree.nodes[**node].children.is_empty());
                self.release(&leaves);
                left = left.saturating_sub(inner.iter().map(|node| self.new_positions(*node)).sum());
                held.extend(inner);
                if progress(self.done(pass)).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            let children: Vec<usize> =
                held.iter().flat_map(|node| std::mem::take(&mut self.tree.nodes[*node].children)).collect();
            if self.below(&children, left.max(limit / 4), scores, progress)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            self.release(&held);
        }
        Ok(ControlFlow::Continue(()))
    }

    /// How many of the nodes fit in a pass if `left` positions may be held.
    fn next_pass(&self, nodes: &[usize], left: usize) -> usize {
        let (mut tokens, mut positions) = (0, 0);
        let fits = |node: &&usize| {
            tokens += self.tree.nodes[**node].range.len();
            positions += self.new_positions(**node);
            tokens <= PASS_TOKENS && positions <= left
        };
        nodes.iter().take_while(fits).count()
    }

    /// How many positions a node takes in pages that no other has, at most.
    fn new_positions(&self, node: usize) -> usize {
        let range = &self.tree.nodes[node].range;
        (range.end.div_ceil(self.page) - range.start / self.page) * self.page
    }

    /// What is done when these nodes are.
    fn done(&self, nodes: &[usize]) -> Progress {
        let mut done = Progress::default();
        for node in nodes {
            let ending = self.through[*node].iter().filter(|part| self.tree.ends[**part] == *node);
            for Part { text, window } in ending.map(|part| self.parts[*part]) {
                let end = window.end.min(self.texts[text].ids.len());
                done.tokens += end - if window.begin == 0 { 0 } else { window.targets };
                done.work += end - window.begin;
            }
        }
        done
    }

    fn release(&mut self, nodes: &[usize]) {
        for node in nodes {
            self.cache.truncate(self.rows[*node], 0);
            self.free.push(self.rows[*node]);
        }
    }

    /// Runs nodes through the network in one pass and records the scores of their tokens.
    fn pass(&mut self, nodes: &[usize], scores: &mut [Score]) -> Result<()> {
        let mut moves = vec![];
        for node in nodes {
            let row = self.free.pop().unwrap_or(self.used);
            self.used = self.used.max(row + 1);
            self.rows[*node] = row;
            moves.extend(self.tree.nodes[*node].parent.map(|parent| (row, self.rows[parent])));
        }
        self.cache.assign(&moves);
        let tokens = |node: &Node| &self.inputs[node.input][node.range.clone()];
        let inputs = nodes.iter().map(|node| (self.rows[*node], tokens(&self.tree.nodes[*node])));
        let x = self.model.forward(&inputs.collect::<Vec<_>>(), &mut self.cache, None)?;
        let (mut targets, mut first) = (vec![], 0);
        for node in nodes {
            let range = &self.tree.nodes[*node].range;
            for Part { text, window } in self.through[*node].iter().map(|part| self.parts[*part]) {
                // A token is scored by the distribution in the position before it.
                let scored = window.scored();
                let from = scored.start.max(window.begin + range.start + 1);
                let to = scored.end.min(window.begin + range.end + 1);
                let at = |position| first + position - (window.begin + range.start + 1);
                targets.extend((from..to).map(|position| Target { at: at(position), text, position }));
            }
            first += range.len();
        }
        // Stable: those of one distribution keep their order.
        targets.sort_by_key(|target| target.at);
        let places: Vec<&[Target]> = targets.chunk_by(|one, other| one.at == other.at).collect();
        places.chunks(LOGIT_ROWS).try_for_each(|places| self.read(&x, places, scores))
    }

    /// Reads distributions, each in a place of `x` (N, C), and records what they say.
    fn read(&mut self, x: &Tensor, places: &[&[Target]], scores: &mut [Score]) -> Result<()> {
        let rows: Vec<u32> = places.iter().map(|targets| targets[0].at as u32).collect();
        self.model.logits_into(&self.model.final_norm(&select_rows(x, &rows)?)?, &mut self.logits)?;
        let (texts, options, logits) = (self.texts, self.options, &self.logits);
        let mut found: Vec<_> = places.iter().map(|targets| (*targets, None)).collect();
        let mut rows: Vec<_> = found.iter_mut().zip(logits.chunks_exact(logits.len() / places.len())).collect();
        pool::for_each(logits.len(), &mut rows, |((targets, found), row)| {
            let ids = targets.iter().filter_map(|target| texts[target.text].ids.get(target.position));
            *found = Some(Place::read(row, ids.copied(), options));
        });
        for (targets, place) in found {
            let Some(place) = place.transpose()? else { continue };
            let mut tokens = place.tokens.into_iter();
            for Target { text, position, .. } in targets {
                let score = &mut scores[*text];
                if let Some(border) = score.borders.get_mut(*position) {
                    *border = place.border;
                }
                if *position < score.tokens.len() {
                    score.tokens[*position] = tokens.next();
                }
                if let Some(alternatives) = score.alternatives.get_mut(*position) {
                    alternatives.clone_from(&place.best);
                }
            }
        }
        Ok(())
    }
}
