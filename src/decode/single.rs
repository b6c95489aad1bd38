//! Greedy search and sampling, with or without guesses at the next tokens.
//!
//! The sequences of a request share the prompt and are otherwise independent. With guesses (assisted decoding) the model
//! checks several tokens in one pass: at each position the token is chosen exactly as it would be without a guess, with
//! the same variates, and the guess only decides how many positions of the pass can be used. So the result equals plain
//! decoding token for token, greedy or sampled, however bad the guesses are.
//!
//! Reference: transformers 5.23.0, `_sample` and `_assisted_decoding`; Leviathan et al. 2022, "Fast Inference from
//! Transformers via Speculative Decoding".

use std::borrow::Cow;
use std::sync::Arc;

use super::decoding::{Draft, Single};
use super::lookup::lookup;
use super::plan::{FEW_MORE, Plan, Wanted};
use super::random::Noise;
use super::scores::Scores;
use super::search::{NewToken, Search, StepOutput, Task};
use super::sequence::{Guesses, Sequence, TokenLogprob};
use super::stop::{Finish, Outflow};
use crate::base::math;
use crate::error::Result;
use crate::language_model::{MOST_TOP, Positions};
use crate::logits::{self, LogNormalizer};

/// How many sequences of one request run at the same time; the others wait.
pub(super) const MOST_ROWS: usize = 64;
/// How many tokens are tried before it is worked out what a constraint allows.
const TRIES: usize = 8;
/// How many tokens the second model guesses at first, and the maximum.
pub(super) const ASSISTANT_GUESSES: (usize, usize) = (5, 20);

/// One request.
pub(super) struct SingleSearch {
    params: Single,
    /// The scores of the first token, once the prompt has been run.
    first: Option<Scores<'static>>,
    /// The next sequence to start.
    next: usize,
    free: Vec<usize>,
    running: Vec<Line>,
    finished: Vec<Option<Sequence>>,
    /// Rows that start from the prompt in row 0, for each of the models.
    forks: Vec<usize>,
    assistant_forks: Vec<usize>,
    /// Whether the second model has run the prompt.
    assistant_ready: bool,
    /// Whether too many tokens tied to continue with only the most probable ones. Rows that could not continue are run
    /// again.
    needs_rows: bool,
}

/// An unfinished sequence.
struct Line {
    sequence: usize,
    row: usize,
    ids: Vec<u32>,
    logprobs: Vec<Arc<TokenLogprob>>,
    outflow: Outflow,
    /// How many of `ids` the model has seen.
    seen: usize,
    /// Guesses at what follows `ids`.
    guess: Vec<u32>,
    /// How many to guess next time, and the maximum.
    guesses: (usize, usize),
    /// How many of `ids` and `guess` the second model has seen.
    assistant_seen: usize,
    /// Whether the second model is still guessing in this step.
    guessing: bool,
    /// How that went so far.
    counts: Guesses,
}

impl SingleSearch {
    pub(super) fn new(params: Single) -> Self {
        let waves = params.num_return_sequences > MOST_ROWS;
        let rows = params.num_return_sequences.min(MOST_ROWS);
        Self {
            first: None,
            next: 0,
            // Row 0 keeps the prompt for sequences that wait.
            free: (usize::from(waves)..rows + usize::from(waves)).rev().collect(),
            running: vec![],
            finished: vec![None; params.num_return_sequences],
            forks: vec![],
            assistant_forks: vec![],
            assistant_ready: false,
            needs_rows: false,
            params,
        }
    }

    /// Whether the model's most probable token is always chosen and its logits are not needed for anything else.
    fn takes_best(&self, task: &Task<'_>) -> bool {
        !self.params.sample && task.decoding.processors.is_empty() && task.decoding.logprobs.is_none()
    }

    /// The probability below which guesses end.
    fn least_probable(&self) -> f32 {
        match self.params.draft {
            Draft::Assistant { least_probable, .. } => least_probable,
            _ => 0.0,
        }
    }

    /// Whether guesses may be too improbable to go on from.
    fn doubts(&self) -> bool {
        self.least_probable() > 0.0
    }

    /// How many of the most probable tokens are enough to choose from; none if all logits are needed.
    fn enough(&self, task: &Task<'_>) -> Option<usize> {
        let k = task.decoding.processors.keeps_best()? + FEW_MORE;
        let is_plain = self.params.draft == Draft::None && !self.needs_rows && !task.decoding.raw_logprobs;
        (is_plain && k <= MOST_TOP).then_some(k.min(task.vocab_size))
    }

    /// The token that `sequence` gets after `ids`.
    ///
    /// With a constraint the first few tokens are tried that would be chosen without it, one after the other. What else it
    /// allows is worked out only if none of them is allowed, and changes nothing otherwise.
    fn choose(&self, task: &Task<'_>, scores: &mut Scores<'_>, sequence: usize, ids: &[u32]) -> Result<usize> {
        let step = (ids.len() - task.prompt.len()) as u64;
        let noise = Noise { seed: task.decoding.seed, row: sequence as u64, step };
        if scores.is_open {
            if !task.knows_constraint(ids)? {
                let first: Vec<usize> = match self.params.sample {
                    true => noise.first_of(&scores.logits, TRIES).collect(),
                    false => logits::top_k(&scores.logits, TRIES).into_iter().map(|(id, _)| id).collect(),
                };
                for id in first {
                    if scores.logits[id] > f32::NEG_INFINITY && task.allows(ids, id)? {
                        return Ok(id);
                    }
                }
            }
            scores.close(task, ids)?;
        }
        Ok(if self.params.sample { noise.draw_beside(&scores.logits, scores.largest) } else { scores.best })
    }

    /// Starts waiting sequences on free rows, with the token that follows the prompt.
    fn start(&mut self, task: &Task<'_>, tokens: &mut Vec<NewToken>) -> Result<()> {
        let Some(mut first) = self.first.take() else { return Ok(()) };
        while self.next < self.params.num_return_sequences
            && let Some(row) = self.free.pop()
        {
            let mut line = Line::new(task, self.params.draft, self.next, row);
            let id = self.choose(task, &mut first, line.sequence, &task.prompt)?;
            if let Some(finish) = line.push(task, &first, id, tokens) {
                self.retire(task, line, finish);
            } else {
                if row != 0 {
                    self.forks.push(row);
                    self.assistant_forks.push(row);
                }
                self.running.push(line);
            }
            self.next += 1;
        }
        if self.next < self.params.num_return_sequences {
            self.first = Some(first);
        }
        Ok(())
    }

    fn retire(&mut self, task: &Task<'_>, line: Line, finish: Finish) {
        self.free.push(line.row);
        let guesses = (self.params.draft != Draft::None).then_some(line.counts);
        self.finished[line.sequence] = Some(Sequence { guesses, ..task.sequence(&line.ids, finish, &line.logprobs) });
    }
}

impl Line {
    fn new(task: &Task<'_>, draft: Draft, sequence: usize, row: usize) -> Self {
        let prompt = task.prompt.len();
        let guesses = draft.guesses();
        Self {
            sequence,
            row,
            ids: task.prompt.clone(),
            logprobs: vec![],
            outflow: Outflow::default(),
            seen: prompt,
            guess: vec![],
            guesses,
            assistant_seen: prompt,
            guessing: true,
            counts: Guesses { passes: 1, ..Guesses::default() },
        }
    }

    /// Appends the token `id`, chosen from `scores`; returns how the sequence ends, if it ends with this token.
    fn push(&mut self, task: &Task<'_>, scores: &Scores<'_>, id: usize, tokens: &mut Vec<NewToken>) -> Option<Finish> {
        let Scores { logits, raw, .. } = scores;
        let logprob = task.decoding.logprobs.map(|k| TokenLogprob::from_logits(logits, id, k, raw.as_deref()));
        self.logprobs.extend(logprob.clone());
        let id = id as u32;
        self.ids.push(id);
        let finish = task.finish(&self.ids, 1);
        let text = self.outflow.push(task.text.token_bytes(id), &task.decoding.stop, finish);
        tokens.push(NewToken { sequence: self.sequence, id, text, logprob });
        finish
    }

    /// How many tokens may be guessed: the model has to see all of them, and one more is chosen after them.
    fn room(&self, task: &Task<'_>, positions: usize) -> usize {
        let room = positions.saturating_sub(task.longest(self.ids.len()));
        let wanted = task.most_tokens(1).saturating_sub(self.ids.len() - task.prompt.len() + 1);
        self.guesses.0.min(room).min(wanted)
    }

    /// Moves on to the next step: `accepted` tokens of the guess were right, the rest is dropped.
    fn settle(&mut self, before: usize, accepted: usize) {
        let (now, most) = &mut self.guesses;
        if !self.guess.is_empty() {
            // Wrong guesses cost time, so longer guesses have to be earned by right ones.
            *now = if accepted == self.guess.len() { (*now * 2).min(*most) } else { accepted + 1 };
        }
        self.assistant_seen = self.assistant_seen.min(before + accepted);
        self.guess.clear();
        self.seen = self.ids.len() - 1;
        self.guessing = true;
    }
}

impl Search for SingleSearch {
    fn width(&self) -> usize {
        let sequences = self.params.num_return_sequences;
        sequences.min(MOST_ROWS) + usize::from(sequences > MOST_ROWS)
    }

    fn draft(&mut self, task: &Task<'_>, plan: &mut Plan) {
        if !self.params.draft.is_assistant() || task.prompt.len() > task.assistant_positions {
            return;
        }
        if !self.assistant_ready {
            self.assistant_ready = true;
            return plan.feed(0, &task.prompt, Positions::None, Positions::None);
        }
        plan.moves.extend(self.assistant_forks.drain(..).map(|row| (row, 0)));
        let positions = task.n_positions.min(task.assistant_positions);
        for line in &mut self.running {
            line.guessing &= line.guess.len() < line.room(task, positions);
            if line.guessing {
                plan.truncations.push((line.row, line.assistant_seen));
                let all = [&line.ids[..], &line.guess].concat();
                plan.feed(line.row, &all[line.assistant_seen..], Positions::Last, Positions::None);
                line.assistant_seen = all.len();
            }
        }
        if self.takes_best(task) && !self.doubts() {
            plan.only_best();
        }
    }

    fn drafted(&mut self, task: &Task<'_>, mut output: StepOutput<'_>) -> Result<()> {
        let mut next_tokens = output.next_tokens();
        for i in (0..self.running.len()).filter(|&i| self.running[i].guessing).collect::<Vec<_>>() {
            let Some(next) = next_tokens.next() else { break };
            let line = &self.running[i];
            let all = [&line.ids[..], &line.guess].concat();
            let Some(mut scores) = Scores::new(task, next, &all, !self.doubts())? else { continue };
            let id = self.choose(task, &mut scores, line.sequence, &all)?;
            let is_doubtful = self.doubts() && {
                let probability = math::exp(f64::from(LogNormalizer::of(&scores.logits).log_prob(scores.logits[id])));
                probability < f64::from(self.least_probable())
            };
            let id = id as u32;
            let line = &mut self.running[i];
            line.guess.push(id);
            line.guessing = !is_doubtful && !task.decoding.stop.eos_token_id.contains(&id);
            if line.guessing && task.is_constrained() {
                let generated = [&line.ids[task.prompt.len()..], &line.guess].concat();
                line.guessing = task.ends(&generated).is_none();
            }
        }
        Ok(())
    }

    fn plan(&mut self, task: &Task<'_>, plan: &mut Plan) {
        if self.first.is_none() && self.next == 0 {
            if self.needs_rows {
                plan.cut(task, 0, 0);
            }
            plan.extend(task, 0, &task.prompt, 0);
        }
        self.forks.drain(..).for_each(|row| plan.assign(row, 0));
        for line in &mut self.running {
            if let Draft::PromptLookup { longest, .. } = self.params.draft {
                line.guess = lookup(&line.ids, line.room(task, task.n_positions), longest).to_vec();
            }
            if self.params.draft != Draft::None || self.needs_rows {
                // The row may still hold wrong guesses of the last step, or the token after which it could not continue.
                plan.cut(task, line.row, line.seen);
            }
            if line.guess.is_empty() {
                plan.extend(task, line.row, &line.ids, line.seen);
            } else {
                let all = [&line.ids[..], &line.guess].concat();
                let (logits, hidden, room) = (Positions::All, Positions::None, task.n_positions);
                plan.run(task, line.row, &all, line.seen, Wanted { logits, hidden, room });
            }
        }
        if self.takes_best(task) {
            plan.only_best();
        } else if let Some(k) = self.enough(task) {
            plan.only_top(k);
        }
    }

    fn advance(
        &mut self,
        task: &Task<'_>,
        mut output: StepOutput<'_>,
        tokens: &mut Vec<NewToken>,
    ) -> Result<Option<Vec<Sequence>>> {
        let may_wait = task.decoding.logprobs.is_none();
        let mut next_tokens = output.next_tokens();
        if self.next == 0
            && let Some(next) = next_tokens.next()
        {
            match Scores::new(task, next, &task.prompt, may_wait)? {
                Some(Scores { logits, raw, best, largest, is_open }) => {
                    let owned = |row: Cow<'_, [f32]>| Cow::Owned(row.into_owned());
                    self.first = Some(Scores { logits: owned(logits), raw: raw.map(owned), best, largest, is_open });
                }
                None => self.needs_rows = true,
            }
        }
        for mut line in std::mem::take(&mut self.running) {
            let before = line.ids.len();
            let mut finish = None;
            let mut right = 0;
            let mut goes_on = true;
            for (checked, next) in next_tokens.by_ref().take(line.guess.len() + 1).enumerate() {
                if finish.is_some() || right < checked {
                    continue;
                }
                let Some(mut scores) = Scores::new(task, next, &line.ids, may_wait)? else {
                    (self.needs_rows, goes_on) = (true, false);
                    continue;
                };
                let id = self.choose(task, &mut scores, line.sequence, &line.ids)?;
                finish = line.push(task, &scores, id, tokens);
                right += usize::from(line.guess.get(checked) == Some(&(id as u32)));
            }
            line.counts.passes += usize::from(line.ids.len() > before);
            line.counts.drafted += line.guess.len();
            line.counts.accepted += right;
            if goes_on {
                line.settle(before, right);
            }
            match finish {
                Some(finish) => self.retire(task, line, finish),
                None => self.running.push(line),
            }
        }
        self.start(task, tokens)?;
        let done = self.running.is_empty() && self.next == self.params.num_return_sequences;
        Ok(done.then(|| self.finished.drain(..).flatten().collect()))
    }
}
