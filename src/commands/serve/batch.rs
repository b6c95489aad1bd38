//! The one batch in which the prompts of all connections run, on a thread of its own.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use gpt2::Error;
use gpt2::decode::{Decoding, Engine, Event, RequestId};
use gpt2::model::Session;
use gpt2::pipeline::Pipeline;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::metrics::Metrics;
use crate::output::say;

/// The most positions of prompts that a step begins with: whoever is in the midst of an answer waits for them.
const MOST_PROMPT_POSITIONS: usize = 512;

/// A prompt to run.
pub struct Job {
    pub prompt: Vec<u32>,
    pub decoding: Arc<Decoding>,
    /// Which of its client's prompts it is.
    pub number: usize,
    /// Where the news go. If nobody listens any more, it is cancelled.
    pub news: UnboundedSender<(usize, News)>,
}

/// What happens to a job.
#[derive(Debug)]
pub enum News {
    /// It will run.
    Accepted,
    /// It cannot run.
    Refused(Error),
    Event(Event),
    /// The model failed.
    Failed,
}

/// Takes jobs from now on, and runs up to `batch_size` at the same time. The thread ends when the sender is dropped and all
/// jobs are done.
pub fn start(
    pipeline: Arc<Pipeline>,
    batch_size: usize,
    metrics: Arc<Metrics>,
) -> std::io::Result<(UnboundedSender<Job>, JoinHandle<()>)> {
    let (sender, jobs) = unbounded_channel();
    let batch = Batch { jobs, waiting: BTreeMap::new(), turn: 0, jobs_so_far: 0, running: HashMap::new(), metrics };
    let thread = thread::Builder::new().name("batch".to_owned());
    Ok((sender, thread.spawn(move || batch.run(&pipeline, batch_size))?))
}

struct Batch {
    jobs: UnboundedReceiver<Job>,
    /// Jobs that are not begun, by turn. A client's first prompt has the next turn, its second the one after that, so that
    /// nobody waits for all prompts of a client who asked before.
    waiting: BTreeMap<(usize, usize), Job>,
    /// The turn of the job that was begun last.
    turn: usize,
    jobs_so_far: usize,
    running: HashMap<RequestId, (usize, UnboundedSender<(usize, News)>)>,
    metrics: Arc<Metrics>,
}

impl Batch {
    fn run(mut self, pipeline: &Pipeline, batch_size: usize) {
        while let Some(job) = self.jobs.blocking_recv() {
            // A new one whenever there was nothing to do: it gives back the memory of the last, and looks how much there is.
            let mut session = Session::new(&pipeline.model);
            let engine = Engine::new(&mut session, pipeline).with_batch_size(batch_size);
            let mut engine = engine.with_prompt_positions(MOST_PROMPT_POSITIONS);
            self.queue(&engine, job);
            if let Err(error) = self.until_idle(&mut engine) {
                say(format_args!("error: the model failed: {error}"));
                let waiting = std::mem::take(&mut self.waiting).into_values().map(|job| (job.number, job.news));
                let all = self.running.drain().map(|(_, client)| client).chain(waiting);
                all.for_each(|(number, news)| drop(news.send((number, News::Failed))));
            }
            self.metrics.running(0);
        }
    }

    fn until_idle(&mut self, engine: &mut Engine<'_>) -> Result<(), Error> {
        loop {
            while let Ok(job) = self.jobs.try_recv() {
                self.queue(engine, job);
            }
            self.waiting.retain(|_, job| !job.news.is_closed());
            self.running.retain(|request, (_, news)| {
                let is_wanted = !news.is_closed();
                if !is_wanted {
                    engine.cancel(*request);
                }
                is_wanted
            });
            while engine.has_room()
                && let Some(((turn, _), job)) = self.waiting.pop_first()
            {
                self.turn = turn;
                self.begin(engine, job);
            }
            self.metrics.running(self.running.len() + self.waiting.len());
            if engine.is_idle() {
                return Ok(());
            }
            for event in engine.step()? {
                self.tell(event);
            }
        }
    }

    fn queue(&mut self, engine: &Engine<'_>, job: Job) {
        let answer = match engine.check(&job.prompt, &job.decoding) {
            Ok(()) => News::Accepted,
            Err(error) => News::Refused(error),
        };
        let is_accepted = matches!(answer, News::Accepted);
        // A client that has gone is noticed before the next step.
        let _ = job.news.send((job.number, answer));
        if is_accepted {
            self.jobs_so_far += 1;
            self.waiting.insert((self.turn + 1 + job.number, self.jobs_so_far), job);
        }
    }

    fn begin(&mut self, engine: &mut Engine<'_>, Job { prompt, decoding, number, news }: Job) {
        match engine.submit(&prompt, &decoding) {
            Ok(request) => drop(self.running.insert(request, (number, news))),
            Err(error) => drop(news.send((number, News::Refused(error)))),
        }
    }

    fn tell(&mut self, event: Event) {
        let (Event::Token { request, .. } | Event::Prompt { request, .. } | Event::Finished { request, .. }) = &event;
        let client = match event {
            Event::Finished { .. } => self.running.remove(request),
            _ => self.running.get(request).cloned(),
        };
        if let Some((number, news)) = client {
            let _ = news.send((number, News::Event(event)));
        }
    }
}
