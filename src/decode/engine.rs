//! Many requests over one model: each forward pass computes what all active requests need next.
//!
//! As soon as a request ends, its rows go to the next one in the queue (continuous batching). So a long request does not
//! hold up the others, and the first request is answered before the last has been read. A request starts once there is
//! memory for all that it may come to take, or alone. A request's result does not depend on the other requests.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::decoding::Decoding;
use super::plan::Plan;
use super::request::{Request, check, search};
use super::room::Work;
use super::rows::{Ended, Plans, Rows};
use super::search::{NewToken, Task};
use super::sequence::{Sequence, TokenLogprob};
use super::stop::Detokenize;
use crate::error::{Error, Result};
use crate::language_model::LanguageModel;

/// Identifies a request: a number, counted in order of submission.
pub type RequestId = usize;

/// What happened in a step.
#[derive(Debug)]
pub enum Event {
    /// A token was generated. Beam searches send none: nothing is settled before their end.
    Token {
        /// The request.
        request: RequestId,
        /// Which of its returned sequences.
        sequence: usize,
        /// The token.
        id: u32,
        /// Text that can be shown now. It may lag behind the tokens, since a possible stop string is held back.
        text: Vec<u8>,
        /// Its log-probability, if asked for.
        logprob: Option<Arc<TokenLogprob>>,
    },
    /// The prompt has been scored, of a request that asked for it ([`Decoding::with_prompt_logprobs`]).
    Prompt {
        /// The request.
        request: RequestId,
        /// The log-probabilities of the prompt's tokens from the second on.
        logprobs: Vec<Arc<TokenLogprob>>,
    },
    /// A request has ended.
    Finished {
        /// The request.
        request: RequestId,
        /// Its sequences, beams in descending order of score; or why this request failed (the others continue).
        result: Result<Vec<Sequence>>,
    },
}

/// Runs requests over a model, up to `batch_size` at the same time.
pub struct Engine<'a> {
    model: Rows<'a>,
    assistant: Option<Rows<'a>>,
    text: &'a dyn Detokenize,
    batch_size: usize,
    /// The most positions of prompts that a step begins with, unless it is one prompt.
    most_first: usize,
    /// The most positions of a pass so far, for which the model keeps room.
    widest: usize,
    submitted: usize,
    waiting: VecDeque<Request<'a>>,
    active: Vec<Request<'a>>,
    /// How many requests have been started since nothing was kept of earlier ones.
    started: usize,
}

impl<'a> Engine<'a> {
    /// An engine that runs one request at a time. `text` gives the text of tokens; [`NoText`](super::NoText) is enough
    /// if only ids are wanted.
    pub fn new(model: &'a mut dyn LanguageModel, text: &'a dyn Detokenize) -> Self {
        Self {
            model: Rows::new(model),
            assistant: None,
            text,
            batch_size: 1,
            most_first: usize::MAX,
            widest: 0,
            submitted: 0,
            waiting: VecDeque::new(),
            active: vec![],
            started: 0,
        }
    }

    /// Runs up to `batch_size` requests at the same time.
    #[must_use]
    pub fn with_batch_size(self, batch_size: usize) -> Self {
        Self { batch_size: batch_size.max(1), ..self }
    }

    /// Begins with prompts of at most this many positions in a step, or with one that is longer, so that what runs already
    /// need not wait for long.
    #[must_use]
    pub fn with_prompt_positions(self, positions: usize) -> Self {
        Self { most_first: positions, ..self }
    }

    /// Adds the second model, which guesses tokens in assisted decoding.
    ///
    /// # Errors
    /// [`Error::Usage`] if its vocabulary differs in size.
    pub fn with_assistant(self, assistant: &'a mut dyn LanguageModel) -> Result<Self> {
        let (ours, theirs) = (self.model.model.vocab_size(), assistant.vocab_size());
        if ours != theirs {
            return Err(Error::Usage(format!(
                "the assistant model has {theirs} tokens, the model {ours}; assisted decoding needs the same vocabulary"
            )));
        }
        Ok(Self { assistant: Some(Rows::new(assistant)), ..self })
    }

    /// Queues a request.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn submit(&mut self, prompt: &[u32], decoding: &Arc<Decoding>) -> Result<RequestId> {
        let task = self.task(prompt, decoding);
        let work = self.work(&task)?;
        let search = search(&task);
        let id = self.submitted;
        self.submitted += 1;
        let (rows, assistant_rows) = (vec![], vec![]);
        let (reported, repeated, told, deadline) = (0, 0, false, None);
        let request = Request { id, task, search, work, reported, repeated, told, deadline, rows, assistant_rows };
        self.waiting.push_back(request);
        Ok(id)
    }

    /// Whether the model can run a request.
    ///
    /// # Errors
    /// [`Error::Context`] if the prompt is longer than the context; [`Error::Usage`] or [`Error::Parameter`] if the model
    /// cannot run it for another reason, such as an empty prompt, ids outside the vocabulary, or a missing assistant;
    /// [`Error::OutOfMemory`] if it can never fit into memory.
    pub fn check(&self, prompt: &[u32], decoding: &Arc<Decoding>) -> Result<()> {
        self.work(&self.task(prompt, decoding)).map(|_| ())
    }

    fn task(&self, prompt: &[u32], decoding: &Arc<Decoding>) -> Task<'a> {
        Task {
            decoding: Arc::clone(decoding),
            prompt: prompt.to_vec(),
            vocab_size: self.model.model.vocab_size(),
            n_positions: self.model.model.n_positions(),
            assistant_positions: self.assistant.as_ref().map_or(0, |assistant| assistant.model.n_positions()),
            text: self.text,
            is_late: false,
        }
    }

    fn work(&self, task: &Task<'_>) -> Result<Work> {
        check(task)?;
        if task.decoding.needs_assistant() && self.assistant.is_none() {
            return Err(Error::Usage("assisted decoding needs an assistant model".into()));
        }
        let work = Work::of(task);
        work.check(task, &self.model.room)?;
        Ok(work)
    }

    /// Whether another request could start with the next step.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let begin: usize = self.waiting.iter().map(|request| request.work.first_positions()).sum();
        self.active.len() + self.waiting.len() < self.batch_size && begin < self.most_first
    }

    /// Whether all requests have ended.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.active.is_empty() && self.waiting.is_empty()
    }

    /// Cancels a request. It causes no further events.
    pub fn cancel(&mut self, request: RequestId) {
        self.waiting.retain(|waiting| waiting.id != request);
        let ended: Vec<_> = self.active.extract_if(.., |active| active.id == request).collect();
        self.free(&ended);
    }

    /// Takes every active request one step further: one forward pass of the model, after those of the assistant.
    ///
    /// # Errors
    /// If a model fails. A failure of a single request is reported in its [`Event::Finished`].
    pub fn step(&mut self) -> Result<Vec<Event>> {
        self.admit();
        let mut events = vec![];
        match self.run(&mut events) {
            Err(error) if error.is_out_of_memory() => self.start_anew(error, &mut events),
            outcome => outcome?,
        }
        Ok(events)
    }

    fn run(&mut self, events: &mut Vec<Event>) -> Result<()> {
        while let Some(assistant) = &mut self.assistant {
            let draft = |r: &mut Request<'a>, plan: &mut Plan| r.search.draft(&r.task, plan);
            let mut plans = Plans::new(&mut self.active, |r| &r.assistant_rows, |_| Plan::default(), draft);
            if plans.is_empty() {
                break;
            }
            let ended = plans.run(assistant, |r, output| r.search.drafted(&r.task, output).map(|()| None))?;
            self.retire(ended, events);
        }
        let new = |r: &Request<'a>| Plan::new(&r.task, r.search.width());
        let mut plans = Plans::new(&mut self.active, |r| &r.rows, new, |r, plan| r.search.plan(&r.task, plan));
        let mut tokens = vec![];
        let ended = plans.run(&mut self.model, |r, output| {
            r.task.is_late = r.deadline.is_some_and(|deadline| Instant::now() >= deadline);
            let result = r.search.advance(&r.task, output, &mut tokens);
            if let Some(logprobs) = r.search.prompt_logprobs().filter(|_| !r.told) {
                r.told = true;
                events.push(Event::Prompt { request: r.id, logprobs });
            }
            for NewToken { sequence, id, text, logprob } in tokens.drain(..) {
                // A request that was started anew generates the same tokens again.
                if r.repeated < r.reported {
                    r.repeated += 1;
                } else {
                    (r.reported, r.repeated) = (r.reported + 1, r.repeated + 1);
                    events.push(Event::Token { request: r.id, sequence, id, text, logprob });
                }
            }
            result
        })?;
        self.retire(ended, events);
        Ok(())
    }

    /// Starts queued requests in the free places for which there is memory.
    fn admit(&mut self) {
        let later = |request: &Request<'_>| request.work.later_positions();
        let mut all: usize = self.active.iter().map(later).sum();
        let (mut now, mut begun) = (all, 0);
        while self.active.len() < self.batch_size
            && let Some(request) = self.waiting.front()
        {
            let (first, later) = (request.work.first_positions(), later(request));
            begun += first;
            if begun > self.most_first && begun > first {
                break;
            }
            let widest = self.widest.max(now + first).max(all + later);
            if !self.active.is_empty() && !self.fits(request, widest) {
                break;
            }
            (now, all, self.widest) = (now + first, all + later, widest);
            let Some(mut request) = self.waiting.pop_front() else { break };
            request.start_clock();
            request.rows = self.model.take(request.width());
            if let Some(assistant) = self.assistant.as_mut().filter(|_| request.task.decoding.needs_assistant()) {
                request.assistant_rows = assistant.take(request.search.width());
            }
            self.active.push(request);
            self.started += 1;
        }
    }

    /// Whether there is memory for `request` beside all that run, in passes of up to `widest` positions.
    fn fits(&self, request: &Request<'_>, widest: usize) -> bool {
        let room = &self.model.room;
        let Some(left) = room.left else { return true };
        let assistant = self.assistant.as_ref().map(|assistant| assistant.room).unwrap_or_default();
        let pass = (widest as u64).saturating_mul(room.position_bytes + assistant.position_bytes);
        let requests = self.active.iter().chain([request]);
        requests.fold(pass, |sum, request| sum.saturating_add(request.work.most(room, &assistant))) <= left
    }

    /// After a pass for which there was too little memory: the requests start again, fewer at a time, with nothing kept of
    /// others. One that was alone from such a start on has failed.
    fn start_anew(&mut self, error: Error, events: &mut Vec<Event>) {
        let failed = std::mem::take(&mut self.active);
        self.free(&failed);
        let was_alone = std::mem::take(&mut self.started) == 1;
        [Some(&mut self.model), self.assistant.as_mut()].into_iter().flatten().for_each(|rows| rows.model.release());
        self.widest = 0;
        if let ([request], true) = (failed.as_slice(), was_alone) {
            let assistant = self.assistant.as_ref().map(|assistant| assistant.room).unwrap_or_default();
            let error = Work::outgrown(error, &request.task, &self.model.room, &assistant);
            return events.push(Event::Finished { request: request.id, result: Err(error) });
        }
        self.batch_size = (failed.len() / 2).max(1);
        for request in failed.into_iter().rev() {
            let search = search(&request.task);
            let task = Task { is_late: false, ..request.task };
            self.waiting.push_front(Request { search, task, repeated: 0, ..request });
        }
    }

    /// Frees the rows of requests that have ended and reports them.
    fn retire(&mut self, ended: Ended, events: &mut Vec<Event>) {
        let gone = |request: &mut Request<'_>| ended.iter().any(|(id, _)| *id == request.id);
        let requests: Vec<_> = self.active.extract_if(.., gone).collect();
        self.free(&requests);
        events.extend(ended.into_iter().map(|(request, result)| Event::Finished { request, result }));
    }

    fn free(&mut self, ended: &[Request<'a>]) {
        for request in ended {
            self.model.give_back(&request.rows);
            if let Some(assistant) = &mut self.assistant {
                assistant.give_back(&request.assistant_rows);
            }
        }
    }
}

/// Runs one request to its end and returns its sequences; each token goes to `on_event` as it is generated.
///
/// # Errors
/// As [`Engine::submit`] if the model cannot run it, and any error of the model.
pub fn generate(
    model: &mut dyn LanguageModel,
    text: &dyn Detokenize,
    prompt: &[u32],
    decoding: &Arc<Decoding>,
    mut on_event: impl FnMut(&Event),
) -> Result<Vec<Sequence>> {
    let mut engine = Engine::new(model, text);
    engine.submit(prompt, decoding)?;
    loop {
        for event in engine.step()? {
            on_event(&event);
            if let Event::Finished { result, .. } = event {
                return result;
            }
        }
    }
}
