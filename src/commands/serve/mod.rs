//! `gpt2 serve`: completions over HTTP, for OpenAI's clients.
//!
//! | module | holds |
//! |---|---|
//! | `http` | connections, their limits, the end |
//! | `routes` | addresses, and who may ask |
//! | `body`, `request`, `structured`, `prompt` | what a client asks for |
//! | `batch` | the one batch in which all prompts run |
//! | `answer`, `choice` | from what happens in it to the answer, whole or streamed |
//! | `fault` | what goes wrong, in OpenAI's shape |
//! | `metrics` | counts for Prometheus |
//!
//! Reference: OpenAI's API reference, "Completions"; vLLM's `/tokenize`, `/detokenize` and `/tokenizer_info`.

mod answer;
mod batch;
mod body;
mod choice;
mod fault;
mod http;
mod metrics;
mod prompt;
mod request;
mod routes;
mod structured;

use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use axum::http::StatusCode;
use gpt2::model::Packing;
use gpt2::pipeline::Pipeline;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedSender;

use self::batch::Job;
use self::body::Bodies;
use self::fault::Fault;
use self::metrics::Metrics;
use super::generate::rand_seed;
use super::load::Loaded;
use crate::cli::{ServeArgs, Verbosity};
use crate::output::openai::{CompletionRecord, ModelRecord};
use crate::output::say;

/// What all connections share.
struct Server {
    pipeline: Arc<Pipeline>,
    /// The names of the model: the one that it is shown under, and others that it answers to.
    names: Vec<String>,
    /// When it was loaded, in seconds since 1970.
    created: u64,
    jobs: UnboundedSender<Job>,
    metrics: Arc<Metrics>,
    key: Option<String>,
    /// Whether only errors are said.
    is_quiet: bool,
    /// Whether only this machine can reach it.
    is_local: bool,
    timeout: Duration,
    bodies: Bodies,
    /// How many prompts may run or wait, and how many do.
    queue: usize,
    taken: Arc<AtomicUsize>,
    /// The number of the next answer.
    next: AtomicU64,
}

/// The place of a request's prompts among those that may run or wait.
struct Place {
    prompts: usize,
    /// The room that its body takes, which what became of it takes up in turn.
    _room: Option<OwnedSemaphorePermit>,
    taken: Arc<AtomicUsize>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.prompts, Ordering::Relaxed);
    }
}

impl Server {
    /// # Errors
    /// If it is not a name of the model that is served.
    fn check_model(&self, name: &str) -> Result<(), Fault> {
        if self.names.iter().any(|known| known == name) {
            return Ok(());
        }
        let message = format!("there is no model {name:?}, only {:?}", self.names[0]);
        Err(Fault::new(StatusCode::NOT_FOUND, message).about("model").with_code("model_not_found"))
    }

    fn model(&self) -> ModelRecord {
        ModelRecord {
            id: self.names[0].clone(),
            object: "model",
            created: self.created,
            owned_by: "gpt2",
            max_model_len: self.pipeline.model.config().n_positions,
        }
    }

    /// An answer without choices.
    fn completion(&self) -> CompletionRecord {
        CompletionRecord {
            id: format!("cmpl-{:016x}", self.next.fetch_add(1, Ordering::Relaxed)),
            object: "text_completion",
            created: now(),
            model: self.names[0].clone(),
            choices: vec![],
            usage: None,
        }
    }

    /// Whether no prompt runs or waits.
    fn is_idle(&self) -> bool {
        self.taken.load(Ordering::Relaxed) == 0
    }

    /// A place for so many prompts.
    ///
    /// # Errors
    /// If too many run or wait.
    fn place(&self, prompts: usize, room: Option<OwnedSemaphorePermit>) -> Result<Place, Fault> {
        if prompts > self.queue {
            let message = format!("{prompts} prompts are more than may wait (--queue {})", self.queue);
            return Err(Fault::parameter("prompt", message));
        }
        let taken = Arc::clone(&self.taken);
        if taken.fetch_add(prompts, Ordering::Relaxed) + prompts > self.queue {
            taken.fetch_sub(prompts, Ordering::Relaxed);
            let message = format!("too many prompts wait (--queue {}): try again later", self.queue);
            return Err(Fault::new(StatusCode::TOO_MANY_REQUESTS, message));
        }
        Ok(Place { prompts, _room: room, taken })
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

pub fn run(args: &ServeArgs, verbosity: Verbosity) -> Result<()> {
    let (host, port) = (args.host.trim_start_matches('[').trim_end_matches(']'), args.port);
    // Before the model is loaded, which takes longer than to see that the port is taken.
    let listener = TcpListener::bind((host, port))
        .with_context(|| format!("cannot listen on {host}, port {port}: choose another with --host and --port"))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let (key, is_local) = (args.api_key()?, is_local(address.ip()));
    if !is_local && key.is_none() && !verbosity.quiet {
        say("warning: whoever reaches this machine can use the model: set GPT2_API_KEY, or leave out --host");
    }
    let loaded = Loaded::load(&args.model, Packing::AtOnce, verbosity)?;
    loaded.generation_defaults(false, verbosity)?;
    let pipeline = Arc::new(loaded.into_pipeline());
    let metrics = Arc::new(Metrics::new());
    let (jobs, batch) = batch::start(Arc::clone(&pipeline), args.batch_size, Arc::clone(&metrics))?;
    let server = Arc::new(Server {
        names: names(args.model.model(), &pipeline.name),
        pipeline,
        created: now(),
        jobs,
        metrics,
        key,
        is_quiet: verbosity.quiet,
        is_local,
        timeout: Duration::from_secs(args.timeout),
        bodies: Bodies::new(),
        queue: args.queue,
        taken: Arc::default(),
        next: AtomicU64::new(rand_seed() << 32),
    });
    let ready = || {
        if !verbosity.quiet {
            say(format_args!("serving {} at http://{address}", server.names[0]));
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build()?;
    runtime.block_on(http::serve(listener, routes::router(&server), &server, ready))?;
    // With the last sender, the batch ends.
    drop(runtime);
    drop(server);
    batch.join().map_err(|_| anyhow::anyhow!("the batch has ended"))
}

/// Whether only this machine can reach the address.
fn is_local(address: IpAddr) -> bool {
    address.is_loopback()
}

/// The names that a model answers to: as it was asked for, its full name, and the last part of it.
fn names(asked: &str, full: &str) -> Vec<String> {
    let last =
        |name: &str| name.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next().unwrap_or_default().to_owned();
    let mut names = vec![asked.to_owned(), full.to_owned(), last(asked), last(full)];
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| !name.is_empty() && seen.insert(name.clone()));
    names
}
