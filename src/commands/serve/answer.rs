//! From a request for completions to its answer, whole or streamed.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use gpt2::decode::{Event, FinishReason, Sequence, TokenLogprob};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, timeout_at};

use super::batch::{Job, News};
use super::choice::Choice;
use super::fault::Fault;
use super::http::{json, json_text};
use super::metrics::Progress;
use super::request::Asked;
use super::{Place, Server};
use crate::output::openai::{ChoiceRecord, CompletionRecord, UsageRecord};

/// How often a stream without news says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// A request under way.
pub struct Answer {
    server: Arc<Server>,
    asked: Asked,
    news: UnboundedReceiver<(usize, News)>,
    /// What came before all prompts were accepted.
    early: VecDeque<(usize, News)>,
    deadline: Instant,
    /// The prompts that are not finished.
    left: usize,
    /// What all parts of the answer begin with.
    head: CompletionRecord,
    usage: UsageRecord,
    progress: Progress,
    /// Its place among the requests that may run or wait.
    _place: Place,
}

impl Answer {
    /// Hands the prompts to the batch, and waits until it is certain that they will run.
    pub async fn begin(server: Arc<Server>, asked: Asked, place: Place, deadline: Instant) -> Result<Self, Fault> {
        let (sender, news) = unbounded_channel();
        let jobs = asked.prompts.iter().enumerate().filter(|_| asked.runs()).map(|(number, prompt)| Job {
            prompt: prompt.ids.clone(),
            decoding: Arc::clone(&prompt.decoding),
            number,
            news: sender.clone(),
        });
        let mut left = 0;
        for job in jobs {
            left += 1;
            server.jobs.send(job).map_err(|_| Fault::model())?;
        }
        let prompt_tokens = asked.prompts.iter().map(|prompt| prompt.ids.len()).sum();
        let usage = UsageRecord { prompt_tokens, completion_tokens: 0, total_tokens: prompt_tokens };
        let mut answer = Self {
            head: server.completion(),
            progress: Progress::new(&server.metrics),
            early: VecDeque::new(),
            _place: place,
            server,
            asked,
            news,
            deadline,
            left,
            usage,
        };
        let mut accepted = 0;
        while accepted < left {
            match answer.receive().await? {
                (_, News::Accepted) => accepted += 1,
                (number, News::Refused(error)) => return Err(answer.refuse(number, error)),
                news => answer.early.push_back(news),
            }
        }
        Ok(answer)
    }

    fn refuse(&mut self, number: usize, error: gpt2::Error) -> Fault {
        self.progress.over();
        match Fault::from(error) {
            fault if self.asked.prompts.len() == 1 => fault,
            fault => fault.of(format_args!("prompt {number}")),
        }
    }

    async fn receive(&mut self) -> Result<(usize, News), Fault> {
        match timeout_at(self.deadline, self.news.recv()).await {
            // Of a slow reader there may always be news.
            Ok(Some(news)) if Instant::now() < self.deadline => Ok(news),
            Ok(None) => Err(Fault::model()),
            Ok(Some(_)) | Err(_) => {
                self.progress.over();
                Err(Fault::late(self.server.timeout.as_secs()))
            }
        }
    }

    /// The next event of a prompt; none once all are finished.
    async fn next(&mut self) -> Result<Option<(usize, Event)>, Fault> {
        while self.left > 0 {
            let (number, news) = match self.early.pop_front() {
                Some(news) => news,
                None => self.receive().await?,
            };
            match news {
                News::Event(event) => {
                    self.progress.begun();
                    self.left -= usize::from(matches!(event, Event::Finished { .. }));
                    return Ok(Some((number, event)));
                }
                News::Failed => return Err(Fault::model()),
                News::Refused(error) => return Err(self.refuse(number, error)),
                News::Accepted => {}
            }
        }
        Ok(None)
    }

    fn count(&mut self, sequences: &[Sequence]) {
        let generated: usize = sequences.iter().map(|sequence| sequence.ids.len()).sum();
        self.usage.completion_tokens += generated;
        self.usage.total_tokens += generated;
    }

    /// The sequences that are wanted, of those found for a prompt.
    fn wanted(&self, mut sequences: Vec<Sequence>) -> Vec<Sequence> {
        if self.asked.is_choice {
            // OpenAI's: the highest log-probability per token.
            sequences.sort_by(|a, b| mean_logprob(b).total_cmp(&mean_logprob(a)));
            sequences.truncate(self.asked.n);
        }
        let n = self.asked.n;
        match &sequences[..] {
            [only] => vec![only.clone(); n],
            _ => sequences,
        }
    }

    /// The beginning of a completion.
    fn begin_choice(&self, number: usize, sample: usize, scored: Option<&[Arc<TokenLogprob>]>) -> Choice {
        let mut choice = Choice::new(number * self.asked.n + sample, self.asked.is_raw);
        let prompt = &self.asked.prompts[number];
        if self.asked.echo {
            choice.prompt(&prompt.text);
        }
        if let Some(scored) = scored {
            let scored = scored.iter().map(|token| &**token);
            choice.prompt_tokens(prompt.ids[0], scored, &self.server.pipeline);
        }
        choice
    }

    /// A completion of which nothing has been told.
    fn whole_choice(&self, mut choice: Choice, sequence: &Sequence) -> ChoiceRecord {
        choice.text(&sequence.text);
        let tokens = sequence.logprobs.iter().flatten().filter(|_| self.asked.logprobs.is_some());
        tokens.for_each(|token| choice.token(token, &self.server.pipeline));
        choice.record(Some(sequence.finish_reason), self.asked.logprobs.is_some())
    }

    /// The completions of a prompt, of which nothing has been told.
    fn whole_choices(
        &self,
        number: usize,
        scored: Option<&[Arc<TokenLogprob>]>,
        sequences: Vec<Sequence>,
    ) -> Vec<ChoiceRecord> {
        let nothing = Sequence {
            ids: vec![],
            text: vec![],
            finish_reason: FinishReason::Length,
            score: None,
            logprobs: None,
            is_whole: None,
            guesses: None,
        };
        let sequences = if self.asked.continues { sequences } else { vec![nothing] };
        let wanted = self.wanted(sequences);
        let choices = wanted.iter().enumerate();
        choices
            .map(|(sample, sequence)| self.whole_choice(self.begin_choice(number, sample, scored), sequence))
            .collect()
    }

    /// The whole answer.
    pub async fn whole(mut self) -> Result<Response, Fault> {
        let mut scored = BTreeMap::new();
        let mut choices = BTreeMap::new();
        while let Some((number, event)) = self.next().await? {
            match event {
                Event::Token { .. } => {}
                Event::Prompt { logprobs, .. } => {
                    scored.insert(number, logprobs);
                }
                Event::Finished { result, .. } => {
                    let sequences = result.map_err(|error| self.refuse(number, error))?;
                    self.count(&sequences);
                    let scored = scored.remove(&number);
                    choices.insert(number, self.whole_choices(number, scored.as_deref(), sequences));
                }
            }
        }
        for number in 0..self.asked.prompts.len() {
            choices.entry(number).or_insert_with(|| self.whole_choices(number, None, vec![]));
        }
        self.end();
        let choices = choices.into_values().flatten().collect();
        Ok(json(StatusCode::OK, &CompletionRecord { choices, usage: Some(self.usage), ..self.head.clone() }))
    }

    fn end(&mut self) {
        self.progress.over();
        self.server.metrics.tokens(self.usage.prompt_tokens, self.usage.completion_tokens);
    }

    /// The answer in parts, as they come.
    pub fn stream(self) -> Response {
        let parts = Parts { answer: self, choices: BTreeMap::new(), scored: BTreeMap::new(), ready: VecDeque::new() };
        let parts = stream::unfold(Some(parts), |parts| async {
            let mut parts = parts?;
            match parts.next().await {
                Ok(Some(part)) => Some((Ok::<_, Infallible>(event(part)), Some(parts))),
                Ok(None) => Some((Ok(event("[DONE]".to_owned())), None)),
                Err(fault) => Some((Ok(event(json_text(&fault.record()))), None)),
            }
        });
        Sse::new(parts).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response()
    }
}

fn event(data: String) -> axum::response::sse::Event {
    axum::response::sse::Event::default().data(data)
}

fn mean_logprob(sequence: &Sequence) -> f64 {
    let tokens = sequence.logprobs.as_deref().unwrap_or_default();
    let sum: f64 = tokens.iter().map(|token| f64::from(token.logprob)).sum();
    sum / tokens.len().max(1) as f64
}

/// An answer that is told in parts.
struct Parts {
    answer: Answer,
    /// The completions of which something has been told, by prompt and number.
    choices: BTreeMap<(usize, usize), Choice>,
    scored: BTreeMap<usize, Vec<Arc<TokenLogprob>>>,
    /// Parts that can be sent.
    ready: VecDeque<String>,
}

impl Parts {
    /// The next part; none after the last.
    async fn next(&mut self) -> Result<Option<String>, Fault> {
        loop {
            if let Some(part) = self.ready.pop_front() {
                return Ok(Some(part));
            }
            match self.answer.next().await? {
                Some((number, event)) => self.take(number, event)?,
                None if self.answer.progress.is_over() => return Ok(None),
                None => self.finish(),
            }
        }
    }

    fn take(&mut self, number: usize, event: Event) -> Result<(), Fault> {
        match event {
            Event::Prompt { logprobs, .. } => {
                self.scored.insert(number, logprobs);
            }
            Event::Token { sequence, text, logprob, .. } => {
                // All greedy completions are the one.
                let samples = if self.answer.asked.prompts[number].decoding.draws() {
                    sequence..sequence + 1
                } else {
                    0..self.answer.asked.n
                };
                for sample in samples {
                    self.token(number, sample, &text, logprob.as_deref());
                }
            }
            Event::Finished { result, .. } => {
                let sequences = result.map_err(|error| self.answer.refuse(number, error))?;
                self.answer.count(&sequences);
                let scored = self.scored.remove(&number);
                let logprobs = self.answer.asked.logprobs.is_some();
                if !self.answer.asked.continues {
                    let choices = self.answer.whole_choices(number, scored.as_deref(), sequences);
                    self.say(choices);
                    return Ok(());
                }
                for (sample, sequence) in self.answer.wanted(sequences).into_iter().enumerate() {
                    let choice = match self.choices.remove(&(number, sample)) {
                        Some(mut choice) => choice.record(Some(sequence.finish_reason), logprobs),
                        // Nothing of a search over beams is settled before its end.
                        None => {
                            let choice = self.answer.begin_choice(number, sample, scored.as_deref());
                            self.answer.whole_choice(choice, &sequence)
                        }
                    };
                    self.say(vec![choice]);
                }
            }
        }
        Ok(())
    }

    fn token(&mut self, number: usize, sample: usize, text: &[u8], logprob: Option<&TokenLogprob>) {
        let begin = || self.answer.begin_choice(number, sample, self.scored.get(&number).map(Vec::as_slice));
        let choice = self.choices.entry((number, sample)).or_insert_with(begin);
        choice.text(text);
        let logprobs = self.answer.asked.logprobs.is_some();
        if let Some(token) = logprob.filter(|_| logprobs) {
            choice.token(token, &self.answer.server.pipeline);
        }
        if choice.has_news() {
            let choice = choice.record(None, logprobs);
            self.say(vec![choice]);
        }
    }

    fn say(&mut self, choices: Vec<ChoiceRecord>) {
        for choice in choices {
            let part = CompletionRecord { choices: vec![choice], ..self.answer.head.clone() };
            self.ready.push_back(json_text(&part));
        }
    }

    /// After the last event.
    fn finish(&mut self) {
        if !self.answer.asked.runs() {
            for number in 0..self.answer.asked.prompts.len() {
                let choices = self.answer.whole_choices(number, None, vec![]);
                self.say(choices);
            }
        }
        if self.answer.asked.include_usage {
            let part = CompletionRecord { usage: Some(self.answer.usage), ..self.answer.head.clone() };
            self.ready.push_back(json_text(&part));
        }
        self.answer.end();
    }
}
