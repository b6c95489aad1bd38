//! How long a hub takes to say what there is, over all requests about a repository: one that answers each of them just in
//! time would be waited for in silence, and for many minutes.

use std::cell::Cell;
use std::pin::pin;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::Progress;
use super::api::Api;
use super::failure::Failure;
use crate::error::Error;

/// What the answers about a repository have taken.
pub(super) struct Asking<'a> {
    listener: Option<&'a dyn Fn(Progress<'_>)>,
    waited: Cell<Duration>,
    told: Cell<bool>,
}

impl<'a> Asking<'a> {
    /// How long a silence needs no explanation.
    const SILENCE: Duration = Duration::from_secs(3);
    /// Time limits that all answers may take: with the usual one, two minutes.
    const LIMITS: u32 = 12;

    /// Tells `listener` once if it takes long.
    pub(super) fn new(listener: Option<&'a dyn Fn(Progress<'_>)>) -> Self {
        Self { listener, waited: Cell::default(), told: Cell::default() }
    }

    /// Waits for the answer to a request that `api` has made.
    pub(super) async fn wait<T>(
        &self,
        api: &Api,
        answer: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let (start, before) = (Instant::now(), self.waited.get());
        let waited = || before + start.elapsed();
        let longest = api.answers.limit * Self::LIMITS;
        let mut answer = pin!(answer);
        let mut outcome = None;
        if !self.told.get() {
            outcome = timeout(Self::SILENCE.saturating_sub(before), &mut answer).await.ok();
            self.told.set(outcome.is_none());
            if let (None, Some(listener)) = (&outcome, self.listener) {
                listener(Progress::Asking { hub: &api.target.endpoint.shown, id: &api.target.id });
            }
        }
        let outcome = match outcome {
            Some(outcome) => outcome,
            None => match timeout(longest.saturating_sub(waited()), answer).await {
                Ok(outcome) => outcome,
                Err(_) => Err(Failure::Refused(Error::Hub(format!(
                    "cannot download the files of `{}`: in {} s {} has not said what they are ({} sets how long to wait); run again to resume",
                    api.target.id,
                    longest.as_secs(),
                    api.target.endpoint.shown,
                    api.answers.variable
                )))),
            },
        };
        self.waited.set(waited());
        outcome
    }
}
