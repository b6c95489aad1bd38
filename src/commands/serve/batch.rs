//! The one batch in which the prompts of all connections run, on a thread of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use gpt2::Error;
use gpt2::decode::{Decoding, Engine, Event, RequestId};
use gpt2::model::Session;
use gpt2::pipeline::Pipeline;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::metrics::Metrics;
use crate::output::say;

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
    let batch = Batch { jobs, running: HashMap::new(), metrics };
    let thread = thread::Builder::new().name("batch".to_owned());
    Ok((sender, thread.spawn(move || batch.run(&pipeline, batch_size))?))
}

struct Batch {
    jobs: UnboundedReceiver<Job>,
    running: HashMap<RequestId, (usize, UnboundedSender<(usize, News)>)>,
    metrics: Arc<Metrics>,
}

impl Batch {
    fn run(mut self, pipeline: &Pipeline, batch_size: usize) {
        while let Some(job) = self.jobs.blocking_recv() {
            // A new one whenever there was nothing to do: it gives back the memory of the last, and looks how much there is.
            let mut session = Session::new(&pipeline.model);
            let mut engine = Engine::new(&mut session, pipeline).with_batch_size(batch_size);
            self.admit(&mut engine, job);
            if let Err(error) = self.until_idle(&mut engine) {
                say(format_args!("error: the model failed: {error}"));
                self.running.drain().for_each(|(_, (number, news))| drop(news.send((number, News::Failed))));
            }
            self.metrics.running(0);
        }
    }

    fn until_idle(&mut self, engine: &mut Engine<'_>) -> Result<(), Error> {
        while !engine.is_idle() {
            while let Ok(job) = self.jobs.try_recv() {
                self.admit(engine, job);
            }
            self.running.retain(|request, (_, news)| {
                let is_wanted = !news.is_closed();
                if !is_wanted {
                    engine.cancel(*request);
                }
                is_wanted
            });
            self.metrics.running(self.running.len());
            for event in engine.step()? {
                self.tell(event);
            }
        }
        Ok(())
    }

    fn admit(&mut self, engine: &mut Engine<'_>, Job { prompt, decoding, number, news }: Job) {
        if news.is_closed() {
            return;
        }
        let answer = match engine.submit(&prompt, &decoding) {
            Ok(request) => {
                self.running.insert(request, (number, news.clone()));
                News::Accepted
            }
            Err(error) => News::Refused(error),
        };
        // A client that has gone is noticed before the next step.
        let _ = news.send((number, answer));
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
