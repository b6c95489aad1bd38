//! The rows of a model, and the pass that answers all active requests at once.

use super::engine::RequestId;
use super::plan::Plan;
use super::request::Request;
use super::search::StepOutput;
use super::sequence::Sequence;
use crate::base::pool;
use crate::error::Result;
use crate::language_model::{Input, LanguageModel, Output, Room};

/// A model and its free rows.
pub(super) struct Rows<'a> {
    pub model: &'a mut dyn LanguageModel,
    /// What was left when there were no rows yet.
    pub room: Room,
    free: Vec<usize>,
    /// How many rows have been used so far.
    used: usize,
}

impl<'a> Rows<'a> {
    pub fn new(model: &'a mut dyn LanguageModel) -> Self {
        Self { room: model.room(), model, free: vec![], used: 0 }
    }

    pub fn take(&mut self, n: usize) -> Vec<usize> {
        let mut fresh = || {
            self.used += 1;
            self.used - 1
        };
        (0..n).map(|_| self.free.pop().unwrap_or_else(&mut fresh)).collect()
    }

    pub fn give_back(&mut self, rows: &[usize]) {
        for &row in rows {
            self.model.truncate(row, 0);
        }
        self.free.extend(rows.iter().rev());
    }

    /// Runs the plans, each over its own rows, in one forward pass.
    fn run(&mut self, plans: &[(&[usize], &Plan)]) -> Result<Output> {
        let moves = plans.iter().flat_map(|(rows, plan)| plan.moves.iter().map(|&(to, from)| (rows[to], rows[from])));
        let moves: Vec<(usize, usize)> = moves.collect();
        if !moves.is_empty() {
            self.model.assign(&moves);
        }
        for (rows, plan) in plans {
            plan.truncations.iter().for_each(|&(row, len)| self.model.truncate(rows[row], len));
        }
        let inputs = plans.iter().flat_map(|(rows, plan)| {
            plan.inputs.iter().chain(&plan.others).map(|input| Input {
                row: rows[input.row],
                ids: &input.ids,
                logits: input.logits,
                best: input.best,
                hidden: input.hidden,
                top: input.top,
            })
        });
        let inputs: Vec<Input<'_>> = inputs.collect();
        if inputs.is_empty() { Ok(Output::default()) } else { self.model.forward(&inputs) }
    }
}

/// What the active requests need from one of the models.
pub(super) struct Plans<'p, 'a> {
    requests: &'p mut [Request<'a>],
    plans: Vec<Plan>,
    rows_of: for<'r> fn(&'r Request<'a>) -> &'r [usize],
}

/// Requests that have ended.
pub(super) type Ended = Vec<(RequestId, Result<Vec<Sequence>>)>;

impl<'p, 'a> Plans<'p, 'a> {
    pub fn new(
        requests: &'p mut [Request<'a>],
        rows_of: for<'r> fn(&'r Request<'a>) -> &'r [usize],
        new: impl Fn(&Request<'a>) -> Plan,
        ask: impl Fn(&mut Request<'a>, &mut Plan),
    ) -> Self {
        let plan = |request: &mut Request<'a>| {
            let mut plan = new(request);
            ask(request, &mut plan);
            plan
        };
        let plans = requests.iter_mut().map(plan).collect();
        Self { requests, plans, rows_of }
    }

    pub fn is_empty(&self) -> bool {
        self.plans.iter().all(Plan::is_empty)
    }

    /// Runs all plans in one forward pass and hands each request its share of the output.
    pub fn run(
        &mut self,
        rows: &mut Rows<'_>,
        mut take: impl FnMut(&mut Request<'a>, StepOutput<'_>) -> Result<Option<Vec<Sequence>>>,
    ) -> Result<Ended> {
        let planned: Vec<_> = self.requests.iter().map(self.rows_of).zip(&self.plans).collect();
        let mut output = rows.run(&planned)?;
        let vocab_size = rows.model.vocab_size();
        let states: usize = self.plans.iter().map(|plan| plan.positions(|input| input.hidden)).sum();
        let n_embd = output.hidden.len().checked_div(states).unwrap_or(0);
        let (mut logits, mut best, mut hidden) = (&mut output.logits[..], &output.best[..], &output.hidden[..]);
        let mut top = &output.top[..];
        let mut ended = vec![];
        for (request, plan) in self.requests.iter_mut().zip(&self.plans) {
            let mine = plan.positions(|input| input.logits) * vocab_size;
            let others = if plan.others.is_empty() { 0 } else { mine };
            let tokens = plan.positions(|input| input.best);
            let states = plan.positions(|input| input.hidden) * n_embd;
            let tops = plan.inputs.iter().filter(|input| input.top > 0).count();
            let mine = logits.split_off_mut(..mine).unwrap_or_default();
            let raw = if request.wants_raw() { mine.to_vec() } else { vec![] };
            if let Some(guidance) = request.guidance().filter(|_| others > 0) {
                let others = logits.split_off_mut(..others).unwrap_or_default();
                let work = others.len();
                let mut rows: Vec<_> = mine.chunks_exact_mut(vocab_size).zip(others.chunks_exact(vocab_size)).collect();
                pool::for_each(work, &mut rows, |(row, other)| guidance.apply(row, other));
            }
            let output = StepOutput {
                logits: mine,
                raw: &raw,
                best: best.split_off(..tokens).unwrap_or_default(),
                hidden: hidden.split_off(..states).unwrap_or_default(),
                top: top.split_off(..tops).unwrap_or_default(),
                vocab_size,
                n_embd,
            };
            if let Some(result) = take(request, output).transpose() {
                ended.push((request.id, result));
            }
        }
        Ok(ended)
    }
}
