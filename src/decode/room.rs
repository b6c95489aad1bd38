//! What a request takes of the memory: what it cannot do without, and what it may come to take. The engine refuses a
//! request for the one and starts it when there is room for the other.

use super::decoding::{Beam, PromptLogprobs, Single, Strategy};
use super::parameters::OnContextLimit;
use super::prompt::MOST_SCORED;
use super::search::Task;
use super::single::MOST_ROWS;
use crate::base::memory::readable;
use crate::error::{Error, Result};
use crate::language_model::Room;

/// The size of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    /// `V`.
    vocab_size: usize,
    /// Positions of the prompt.
    prompt: usize,
    /// The most positions that a row comes to hold.
    positions: usize,
    /// Rows of the model.
    rows: usize,
    /// Rows of the second model.
    assistant_rows: usize,
    /// Whether rows have tokens of their own, or else only their newest.
    apart: bool,
    /// Positions of a row in a pass after the prompt's.
    step: usize,
    /// Rows of `V` numbers in a step.
    vocabulary_rows: usize,
    /// Tokens of the prompt that are scored.
    scored: usize,
    /// Continuations that are compared in a step.
    candidates: usize,
    /// The most tokens that are kept with their log-probabilities.
    kept: usize,
    /// How many alternatives each of them has, the model's own among them.
    logprobs: Option<usize>,
    /// Positions of the other prompt, whose rows are as many as the prompt's, if there is guidance.
    other: usize,
}

impl Work {
    pub(super) fn of(task: &Task<'_>) -> Self {
        Self::with(task, &task.decoding.strategy, task.decoding.logprobs, task.most_tokens(1))
    }

    /// The size of the same request with another strategy, other alternatives, or other `new` tokens.
    fn with(task: &Task<'_>, strategy: &Strategy, logprobs: Option<usize>, new: usize) -> Self {
        let all = task.prompt.len().saturating_add(new);
        let crops = task.decoding.on_context_limit == OnContextLimit::Crop && all > task.n_positions;
        let scored = if task.decoding.prompt == PromptLogprobs::No { 0 } else { task.prompt.len() };
        let work = Self {
            vocab_size: task.vocab_size,
            prompt: task.window(&task.prompt).len(),
            positions: all.min(task.n_positions),
            rows: 1,
            assistant_rows: 0,
            apart: true,
            // A cropped context is run anew for every token.
            step: if crops { task.n_positions } else { 1 },
            vocabulary_rows: 1,
            scored,
            candidates: 0,
            kept: new,
            logprobs: if task.decoding.raw_logprobs { logprobs.map(|k| k.saturating_mul(2)) } else { logprobs },
            other: task.decoding.other_prompt(&task.prompt).map_or(0, <[u32]>::len),
        };
        work.of_strategy(task, strategy).with_others(task)
    }

    fn of_strategy(self, task: &Task<'_>, strategy: &Strategy) -> Self {
        let work = self;
        match strategy {
            Strategy::Single(single) => work.of_sequences(single),
            Strategy::Beam(beam) | Strategy::GroupBeam { beam, .. } => work.of_beams(beam),
            Strategy::Contrastive { top_k, .. } => {
                let rows = (*top_k).min(task.vocab_size);
                Self { rows, apart: false, vocabulary_rows: rows, ..work }
            }
        }
    }

    /// With the rows of the other prompt, and the logits that are kept from before guidance.
    fn with_others(self, task: &Task<'_>) -> Self {
        let raw = if task.decoding.raw_logprobs { self.vocabulary_rows } else { 0 };
        if self.other == 0 {
            return Self { vocabulary_rows: self.vocabulary_rows + raw, ..self };
        }
        let positions = task.longest(self.positions).min(task.n_positions);
        Self { rows: 2 * self.rows, vocabulary_rows: 2 * self.vocabulary_rows + raw, positions, ..self }
    }

    /// Refuses a request that can never run.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], with what is needed, what is available, and what would fit.
    pub(super) fn check(&self, task: &Task<'_>, room: &Room) -> Result<()> {
        let Some(left) = room.left.filter(|left| *left < self.least(room)) else { return Ok(()) };
        let advice = match fitting(task, |work| work.alone(room, &Room::default()) <= safe(left)) {
            Some(values) => format!("{values} would fit"),
            None => "shorten the prompt, or use a smaller type of weights".to_owned(),
        };
        Err(Error::OutOfMemory(format!(
            "this takes {} of memory and {} are available ({}); {advice}",
            readable(self.least(room)),
            readable(left),
            room.limit
        )))
    }

    /// The failure of a request that came to take more than there was, with what would not.
    pub(super) fn outgrown(error: Error, task: &Task<'_>, room: &Room, assistant: &Room) -> Error {
        let values = room.left.and_then(|left| fitting(task, |work| work.alone(room, assistant) <= safe(left)));
        match values {
            Some(values) => Error::OutOfMemory(format!("{error}; {values} would fit")),
            None => error,
        }
    }

    fn of_sequences(self, single: &Single) -> Self {
        let sequences = single.num_return_sequences;
        let rows = sequences.min(MOST_ROWS) + usize::from(sequences > MOST_ROWS);
        let (_, guesses) = single.draft.guesses();
        Self {
            rows,
            assistant_rows: if single.draft.is_assistant() { rows } else { 0 },
            step: self.step.max(1 + guesses),
            vocabulary_rows: rows.saturating_mul(1 + guesses),
            kept: self.kept.saturating_mul(sequences),
            ..self
        }
    }

    fn of_beams(self, beam: &Beam) -> Self {
        // Drawing takes scores, weights and the race between them. Finished sequences are kept beside the running ones.
        let copies = if beam.sample { 4 } else { 1 };
        Self {
            rows: beam.num_beams,
            vocabulary_rows: beam.num_beams * copies,
            // Twice as many as beams, of each beam.
            candidates: 2 * beam.num_beams * beam.num_beams,
            kept: self.kept.saturating_mul(2 * beam.num_beams),
            ..self
        }
    }

    /// Positions in the pass that runs the prompt.
    pub(super) fn first_positions(&self) -> usize {
        self.prompt + self.other
    }

    /// The most positions in each of the passes after it.
    pub(super) fn later_positions(&self) -> usize {
        self.rows * self.step
    }

    /// What the request cannot do without, even if it ends early.
    pub(super) fn least(&self, room: &Room) -> u64 {
        let pages = room.cache_bytes(self.prompt) + room.cache_bytes(self.other) + self.branches() * room.page_bytes;
        let pass = self.first_positions().max(self.rows) as u64 * room.position_bytes;
        pages.saturating_add(pass).saturating_add(self.results())
    }

    /// What it may come to take, besides what all requests share in a pass.
    pub(super) fn most(&self, room: &Room, assistant: &Room) -> u64 {
        let whole = room.cache_bytes(self.positions);
        let branches = if self.apart {
            // Rows share the pages that the prompt fills.
            let shared = self.prompt / room.page_positions.max(1);
            let own = whole.saturating_sub(shared as u64 * room.page_bytes);
            self.branches().saturating_mul(own)
        } else {
            self.branches() * 2 * room.page_bytes
        };
        let guesses = (self.assistant_rows as u64).saturating_mul(assistant.cache_bytes(self.positions));
        whole.saturating_add(branches).saturating_add(guesses).saturating_add(self.results())
    }

    /// What it may come to take if it runs alone.
    fn alone(&self, room: &Room, assistant: &Room) -> u64 {
        let widest = self.first_positions().max(self.later_positions()) as u64;
        let pass = widest.saturating_mul(room.position_bytes + assistant.position_bytes);
        self.most(room, assistant).saturating_add(pass)
    }

    /// Rows besides the first, if there is more than one token to generate.
    fn branches(&self) -> u64 {
        if self.positions > self.prompt { self.rows as u64 - 1 } else { 0 }
    }

    /// Logits and continuations of a step, and the log-probabilities that are kept to the end.
    fn results(&self) -> u64 {
        /// Bytes of a token with its log-probability, of an alternative, and of a continuation while they are sorted.
        const TOKEN: u64 = 96;
        const ALTERNATIVE: u64 = 8;
        const CANDIDATE: u64 = 64;
        let rows = self.vocabulary_rows.max(self.scored.min(MOST_SCORED));
        let logits = (rows as u64).saturating_mul(4 * self.vocab_size as u64);
        let logits = logits.saturating_add(CANDIDATE * self.candidates as u64);
        let kept = self.logprobs.map_or(0, |k| {
            let token = TOKEN + ALTERNATIVE * k.min(2 * self.vocab_size) as u64;
            (self.kept.saturating_add(self.scored) as u64).saturating_mul(token)
        });
        logits.saturating_add(kept)
    }
}

/// A parameter that a request could be made smaller by.
struct Change<'t> {
    parameter: &'static str,
    /// Values are multiples of this.
    unit: usize,
    least: usize,
    now: usize,
    /// The request's size with another value.
    work: Box<dyn Fn(usize) -> Work + 't>,
}

impl Change<'_> {
    /// The largest value that fits, if there is one.
    fn largest(&self, fits: impl Fn(Work) -> bool) -> Option<usize> {
        let fits = |units: usize| fits((self.work)(units * self.unit));
        let (mut fitting, mut not) = (self.least.div_ceil(self.unit), self.now / self.unit);
        if fitting >= not || !fits(fitting) {
            return None;
        }
        while not - fitting > 1 {
            let middle = fitting + (not - fitting) / 2;
            if fits(middle) { fitting = middle } else { not = middle }
        }
        Some(fitting * self.unit)
    }
}

/// What advice may use of what is left: it should hold for what is too small to count, too.
fn safe(left: u64) -> u64 {
    left / 4 * 3
}

/// The largest values that fit, each alone: "`num_beams` 9 or `max_new_tokens` 7". None if no value does.
fn fitting(task: &Task<'_>, fits: impl Fn(Work) -> bool) -> Option<String> {
    let largest = |change: Change<'_>| Some(format!("`{}` {}", change.parameter, change.largest(&fits)?));
    let values: Vec<String> = changes(task).into_iter().filter_map(largest).collect();
    (!values.is_empty()).then(|| values.join(" or "))
}

fn changes<'t>(task: &'t Task<'_>) -> Vec<Change<'t>> {
    let (strategy, logprobs, new) = (&task.decoding.strategy, task.decoding.logprobs, task.most_tokens(1));
    let with = move |strategy| Work::with(task, &strategy, logprobs, new);
    let beams = |beam: &'t Beam, unit: usize| Change {
        parameter: "num_beams",
        unit,
        least: beam.num_return_sequences.max(2),
        now: beam.num_beams,
        work: Box::new(move |num_beams| with(Strategy::Beam(Beam { num_beams, ..beam.clone() }))),
    };
    let mut changes = vec![match strategy {
        Strategy::Single(single) => Change {
            parameter: "num_return_sequences",
            unit: 1,
            least: 1,
            now: single.num_return_sequences,
            work: Box::new(move |n| with(Strategy::Single(Single { num_return_sequences: n, ..single.clone() }))),
        },
        Strategy::Beam(beam) => beams(beam, 1),
        Strategy::GroupBeam { beam, num_beam_groups, .. } => beams(beam, *num_beam_groups),
        &Strategy::Contrastive { penalty_alpha, top_k } => Change {
            parameter: "top_k",
            unit: 1,
            least: 1,
            now: top_k.min(task.vocab_size),
            work: Box::new(move |top_k| with(Strategy::Contrastive { penalty_alpha, top_k })),
        },
    }];
    if let Some(k) = logprobs {
        let now = k.min(task.vocab_size);
        let work = Box::new(move |k| Work::with(task, strategy, Some(k), new));
        changes.push(Change { parameter: "logprobs", unit: 1, least: 0, now, work });
        let work = Box::new(move |new| Work::with(task, strategy, logprobs, new));
        changes.push(Change { parameter: "max_new_tokens", unit: 1, least: 1, now: new, work });
    }
    changes
}

#[cfg(test)]
mod tests;
