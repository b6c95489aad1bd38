//! What the next token of one sequence is chosen from: the logits after the processors, with the constraint last.

use std::borrow::Cow;

use super::search::{NextToken, Task};
use crate::error::Result;
use crate::logits;

/// What the next token is chosen from.
pub(super) struct Scores<'a> {
    /// Logits after the processors (V); empty if only the best token matters.
    pub(super) logits: Cow<'a, [f32]>,
    /// The model's own, if they are wanted.
    pub(super) raw: Option<Cow<'a, [f32]>>,
    pub(super) best: usize,
    /// The largest logit before the constraint.
    pub(super) largest: f32,
    /// Whether the constraint has still to rule out what may not follow.
    pub(super) is_open: bool,
}

impl<'a> Scores<'a> {
    /// The scores of the token after `ids`, from what the model says about it; none if that is not enough. If it
    /// `may_wait`, the constraint comes last, and is left out.
    pub(super) fn new(task: &Task<'_>, next: NextToken<'a>, ids: &[u32], may_wait: bool) -> Result<Option<Self>> {
        let mut raw = None;
        let comes_last = task.decoding.processors.constraint_can_wait();
        let logits = match next {
            NextToken::Best(id) => {
                let best = id.ok_or_else(logits::not_finite)? as usize;
                return Ok(Some(Self { best, ..Self::of(Cow::Borrowed(&[])) }));
            }
            NextToken::Logits(logits, own) => {
                logits::check_finite(logits)?;
                raw = own.map(Cow::Borrowed);
                if comes_last { task.process_freely(logits, ids) } else { task.process(logits, ids) }?;
                Cow::Borrowed(&*logits)
            }
            NextToken::Top(top) => {
                // The processors rule out all other tokens.
                let mut logits = vec![f32::NEG_INFINITY; task.vocab_size];
                let known = &top.as_ref().ok_or_else(logits::not_finite)?.best;
                for (id, x) in known {
                    logits[*id as usize] = *x;
                }
                task.process(&mut logits, ids)?;
                // If the last known token survives, unknown ones may tie with it.
                let last = known.last().map_or(f32::NEG_INFINITY, |(id, _)| logits[*id as usize]);
                if known.len() < logits.len() && last > f32::NEG_INFINITY {
                    return Ok(None);
                }
                Cow::Owned(logits)
            }
        };
        let mut scores = Self { raw, is_open: comes_last, ..Self::of(logits) };
        if comes_last && !(may_wait && scores.largest.is_finite()) {
            scores.close(task, ids)?;
        }
        task.check_choice(scores.logits[scores.best], ids)?;
        Ok(Some(scores))
    }

    fn of(logits: Cow<'a, [f32]>) -> Self {
        let best = logits::argmax(&logits);
        let largest = logits.get(best).copied().unwrap_or(f32::NEG_INFINITY);
        Self { raw: None, best, largest, is_open: false, logits }
    }

    /// Rules out what may not follow `ids` by the constraint.
    pub(super) fn close(&mut self, task: &Task<'_>, ids: &[u32]) -> Result<()> {
        task.constrain(self.logits.to_mut(), ids)?;
        self.is_open = false;
        self.best = logits::argmax(&self.logits);
        task.check_choice(self.logits[self.best], ids)
    }
}
