//! What a search wants the model to do next.

use super::search::Task;
use crate::language_model::Positions;

/// Processing can turn scores that differ by a rounding error into ties, which are broken by id. With this many extra
/// tokens, a search picks the same ones as from a whole row. If even the extra ones tie with the last token needed, it
/// asks for whole rows from then on.
pub(super) const FEW_MORE: usize = 8;

/// What a search wants the model to do: first the moves, then the truncations, then the inputs.
///
/// With guidance, each row has another one, `width` rows further: it holds the other prompt and the same generated tokens,
/// and follows all that happens to the row. The search sees none of this: its logits are what guidance makes of both.
#[derive(Default)]
pub(super) struct Plan {
    /// `(to, from)`, all applied at once.
    pub moves: Vec<(usize, usize)>,
    /// `(row, positions to keep)`.
    pub truncations: Vec<(usize, usize)>,
    pub inputs: Vec<PlannedInput>,
    /// The inputs of the other rows.
    pub others: Vec<PlannedInput>,
    /// How many rows a search has, if each has another one.
    guided: Option<usize>,
}

/// A future [`Input`](crate::language_model::Input).
pub(super) struct PlannedInput {
    pub row: usize,
    pub ids: Vec<u32>,
    pub logits: Positions,
    pub best: Positions,
    pub hidden: Positions,
    pub top: usize,
}

impl Plan {
    /// The plan of a search with `width` rows.
    pub(super) fn new(task: &Task<'_>, width: usize) -> Self {
        Self { guided: task.decoding.processors.guidance().map(|_| width), ..Self::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.inputs.is_empty() && self.moves.is_empty()
    }

    /// How many positions of the output belong to this plan; `wanted` selects logits, best tokens or hidden states.
    pub(super) fn positions(&self, wanted: impl Fn(&PlannedInput) -> Positions) -> usize {
        let count = |input: &PlannedInput| match wanted(input) {
            Positions::None => 0,
            Positions::Last => 1,
            Positions::All => input.ids.len(),
        };
        self.inputs.iter().map(count).sum()
    }

    /// Makes row `to` hold what `from` holds.
    pub(super) fn assign(&mut self, to: usize, from: usize) {
        self.moves.push((to, from));
        self.moves.extend(self.guided.map(|width| (to + width, from + width)));
    }

    /// Cuts `row` back to its first `seen` positions.
    pub(super) fn cut(&mut self, task: &Task<'_>, row: usize, seen: usize) {
        self.truncations.push((row, seen));
        if let (Some(width), Some(other)) = (self.guided, task.decoding.other_prompt(&task.prompt)) {
            self.truncations.push((row + width, seen_of_other(task, other, seen)));
        }
    }

    /// Extends `row`, which has seen the first `seen` of `ids`, to the end of `ids` and asks for the logits there. If the
    /// context is cropped, the row starts over.
    pub(super) fn extend(&mut self, task: &Task<'_>, row: usize, ids: &[u32], seen: usize) {
        self.run(
            task,
            row,
            ids,
            seen,
            Wanted { logits: Positions::Last, hidden: Positions::None, room: task.n_positions },
        );
    }

    /// The same with other outputs, and another room for a row.
    pub(super) fn run(&mut self, task: &Task<'_>, row: usize, ids: &[u32], seen: usize, wanted: Wanted) {
        let Wanted { logits, hidden, room } = wanted;
        let starts_over = ids.len() > room;
        if starts_over {
            self.truncations.push((row, 0));
        }
        let new = &ids[if starts_over { ids.len() - room } else { seen }..];
        self.feed(row, new, logits, hidden);
        if let (Some(width), Some(other)) = (self.guided, task.decoding.other_prompt(&task.prompt)) {
            let seen = seen_of_other(task, other, seen);
            let ids = [other, &ids[task.prompt.len()..]].concat();
            let starts_over = ids.len() > room;
            if starts_over {
                self.truncations.push((row + width, 0));
            }
            let new = ids[if starts_over { ids.len() - room } else { seen }..].to_vec();
            let (best, hidden, top) = (Positions::None, Positions::None, 0);
            self.others.push(PlannedInput { row: row + width, ids: new, logits, best, hidden, top });
        }
    }

    /// Leaves out what row 0 holds already: the first ids, `seen`, of the prompt that a search begins with.
    pub(super) fn go_on_after(&mut self, seen: &[u32]) {
        let states = |input: &PlannedInput| input.hidden != Positions::None;
        match &mut self.inputs[..] {
            [input] if self.truncations.is_empty() && input.ids.starts_with(seen) && !states(input) => {
                input.ids.drain(..seen.len());
            }
            _ => self.truncations.push((0, 0)),
        }
    }

    /// Appends a generated token to `row` and asks for its logits and hidden state.
    pub(super) fn append(&mut self, row: usize, id: u32) {
        self.feed(row, &[id], Positions::Last, Positions::Last);
        self.others.extend(self.guided.map(|width| PlannedInput {
            row: row + width,
            ids: vec![id],
            logits: Positions::Last,
            best: Positions::None,
            hidden: Positions::None,
            top: 0,
        }));
    }

    /// Appends `ids` to `row`, without another one.
    pub(super) fn feed(&mut self, row: usize, ids: &[u32], logits: Positions, hidden: Positions) {
        self.inputs.push(PlannedInput { row, ids: ids.to_vec(), logits, best: Positions::None, hidden, top: 0 });
    }

    /// Asks for the best token only, wherever logits were asked for.
    pub(super) fn only_best(&mut self) {
        for input in &mut self.inputs {
            input.best = std::mem::replace(&mut input.logits, Positions::None);
        }
    }

    /// Asks for the `k` best tokens only, wherever the last logits were asked for. `k` should include [`FEW_MORE`] extra
    /// tokens.
    pub(super) fn only_top(&mut self, k: usize) {
        for input in &mut self.inputs {
            (input.top, input.logits) = (k, Positions::None);
        }
    }
}

/// What a row is to give, and how many positions it may hold.
pub(super) struct Wanted {
    pub logits: Positions,
    pub hidden: Positions,
    pub room: usize,
}

/// How much of the other prompt and what follows it a row has seen, when its own row has seen `seen`.
fn seen_of_other(task: &Task<'_>, other: &[u32], seen: usize) -> usize {
    seen.checked_sub(task.prompt.len()).map_or(0, |generated| other.len() + generated)
}
