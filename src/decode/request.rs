//! A request: its search, and whether the model can run it.

use std::time::{Duration, Instant};

use super::beam::BeamSearch;
use super::contrastive::ContrastiveSearch;
use super::decoding::{PromptLogprobs, Strategy};
use super::engine::RequestId;
use super::group_beam::GroupBeamSearch;
use super::parameters::OnContextLimit;
use super::processors::Guidance;
use super::prompt::PromptSearch;
use super::room::Work;
use super::search::{Search, Task};
use super::single::SingleSearch;
use crate::error::{Error, Result, tokens_text};

/// A request with its search.
pub(super) struct Request<'a> {
    pub id: RequestId,
    pub task: Task<'a>,
    pub search: Box<dyn Search>,
    pub work: Work,
    /// How many tokens it has reported, and how many of them again since it was started anew.
    pub reported: usize,
    pub repeated: usize,
    /// Whether it has reported the log-probabilities of its prompt.
    pub told: bool,
    /// When it has to end; none if it need not, or has not been started.
    pub deadline: Option<Instant>,
    /// The rows of the model, and of the assistant, reserved for it while it is active.
    pub rows: Vec<usize>,
    pub assistant_rows: Vec<usize>,
}

impl Request<'_> {
    /// How many rows of the model it takes.
    pub fn width(&self) -> usize {
        self.search.width() * if self.guidance().is_some() { 2 } else { 1 }
    }

    pub fn guidance(&self) -> Option<&Guidance> {
        self.task.decoding.processors.guidance()
    }

    /// Whether it wants log-probabilities before guidance and processors.
    pub fn wants_raw(&self) -> bool {
        self.task.decoding.raw_logprobs
    }

    /// Its time begins.
    pub fn start_clock(&mut self) {
        let seconds = self.task.decoding.max_time.map(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)));
        // Of a time that is too long to count, there is no end.
        self.deadline = seconds.and_then(Result::ok).and_then(|time| Instant::now().checked_add(time));
    }
}

/// The search that a request asks for.
pub(super) fn search(task: &Task<'_>) -> Box<dyn Search> {
    match task.decoding.prompt {
        PromptLogprobs::No => continuing(task),
        PromptLogprobs::First => Box::new(PromptSearch::new(Some(continuing(task)))),
        PromptLogprobs::Only => Box::new(PromptSearch::new(None)),
    }
}

/// The search that continues the prompt.
fn continuing(task: &Task<'_>) -> Box<dyn Search> {
    match task.decoding.strategy.clone() {
        Strategy::Single(single) => Box::new(SingleSearch::new(single)),
        Strategy::Beam(beam) => Box::new(BeamSearch::new(beam, task)),
        Strategy::GroupBeam { beam, num_beam_groups, diversity_penalty } => {
            Box::new(GroupBeamSearch::new(beam, num_beam_groups, diversity_penalty, task))
        }
        Strategy::Contrastive { penalty_alpha, top_k } => Box::new(ContrastiveSearch::new(penalty_alpha, top_k, task)),
    }
}

/// Whether the model can run the request.
pub(super) fn check(task: &Task<'_>) -> Result<()> {
    let (len, context, vocab_size) = (task.prompt.len(), task.n_positions, task.vocab_size);
    let outside = |id: u32| id as usize >= vocab_size;
    let decoding = &task.decoding;
    if task.prompt.is_empty() {
        return Err(Error::Usage("the prompt is empty; give at least one token".into()));
    }
    if let Some(id) = task.prompt.iter().find(|&&id| outside(id)) {
        return Err(Error::Usage(format!(
            "the prompt has token id {id}, but the vocabulary ends at {}",
            vocab_size - 1
        )));
    }
    decoding.processors.check(vocab_size, len)?;
    if let Some(length) = decoding.max_length.filter(|length| *length <= len) {
        return Err(Error::parameter(
            "max_length",
            format!("is {length}, which leaves no room: it counts the prompt, which has {}", tokens_text(len)),
        ));
    }
    let crops = decoding.on_context_limit == OnContextLimit::Crop;
    let other = decoding.other_prompt(&task.prompt).map_or(0, <[u32]>::len);
    if !crops && other > context {
        let fault = format!(
            "the negative prompt has {other} tokens, more than the context of {context}; shorten it, or use `on_context_limit` crop"
        );
        return Err(Error::Usage(fault));
    }
    let fits = match decoding.prompt {
        PromptLogprobs::No => crops || len <= context,
        PromptLogprobs::First => len <= context + usize::from(crops),
        PromptLogprobs::Only => len <= context + 1,
    };
    if !fits {
        return Err(Error::Context { tokens: len, context });
    }
    if context < 2 && matches!(decoding.strategy, Strategy::Contrastive { .. }) {
        return Err(Error::parameter("penalty_alpha", "(contrastive search) needs a context of at least 2 tokens"));
    }
    Ok(())
}
