//! What `GET /metrics` reports.

use std::sync::Arc;
use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Upper bounds of the histograms of seconds.
const SECONDS: [f64; 12] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Counts since the start.
pub struct Metrics {
    registry: Registry,
    requests: Family<Answer, Counter>,
    running: Gauge,
    prompt_tokens: Counter,
    generated_tokens: Counter,
    gone: Counter,
    seconds: Histogram,
    first_token: Histogram,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    path: &'static str,
    status: u16,
}

/// A completion in progress. It counts as a client that has gone unless it is finished.
pub struct Progress {
    metrics: Arc<Metrics>,
    since: Instant,
    has_begun: bool,
    is_over: bool,
}

impl Metrics {
    pub fn new() -> Self {
        let histogram = || Histogram::new(SECONDS);
        let mut metrics = Self {
            registry: Registry::with_prefix("gpt2"),
            requests: Family::default(),
            running: Gauge::default(),
            prompt_tokens: Counter::default(),
            generated_tokens: Counter::default(),
            gone: Counter::default(),
            seconds: histogram(),
            first_token: histogram(),
        };
        let registry = &mut metrics.registry;
        registry.register("requests", "Requests, by path and status", metrics.requests.clone());
        registry.register("prompts_running", "Prompts that run or wait", metrics.running.clone());
        registry.register("prompt_tokens", "Tokens of prompts", metrics.prompt_tokens.clone());
        registry.register("generated_tokens", "Tokens generated", metrics.generated_tokens.clone());
        registry.register("clients_gone", "Completions whose client went away", metrics.gone.clone());
        let seconds = metrics.seconds.clone();
        registry.register_with_unit("completion", "Time to complete a request", Unit::Seconds, seconds);
        let seconds = metrics.first_token.clone();
        registry.register_with_unit("first_token", "Time to a request's first token", Unit::Seconds, seconds);
        metrics
    }

    /// The text for Prometheus.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    pub fn request(&self, path: &'static str, status: u16) {
        self.requests.get_or_create(&Answer { path, status }).inc();
    }

    /// How many prompts run or wait.
    pub fn running(&self, prompts: usize) {
        self.running.set(prompts as i64);
    }

    pub fn tokens(&self, prompt: usize, generated: usize) {
        self.prompt_tokens.inc_by(prompt as u64);
        self.generated_tokens.inc_by(generated as u64);
    }
}

impl Progress {
    pub fn new(metrics: &Arc<Metrics>) -> Self {
        Self { metrics: Arc::clone(metrics), since: Instant::now(), has_begun: false, is_over: false }
    }

    /// There is something to show.
    pub fn begun(&mut self) {
        if !std::mem::replace(&mut self.has_begun, true) {
            self.metrics.first_token.observe(self.since.elapsed().as_secs_f64());
        }
    }

    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// It has its answer.
    pub fn over(&mut self) {
        self.is_over = true;
        self.metrics.seconds.observe(self.since.elapsed().as_secs_f64());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if !self.is_over {
            self.metrics.gone.inc();
        }
    }
}
