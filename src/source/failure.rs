//! What the hub's refusals and silences mean to the user: which are worth another attempt, and what to do about the rest.

use std::time::Duration;

use reqwest::StatusCode;

use crate::error::Error;

/// Why a request failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// There is no connection or no sign of life, for this reason.
    Unreachable(String),
    /// The hub is reached and not well, or the connection broke, for this reason; the next attempt may succeed, if the
    /// hub says so after this time.
    Passing(String, Option<Duration>),
    /// The answer is no, and will be.
    Refused(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// What is asked for, to be named in messages.
#[derive(Debug)]
pub(super) struct Target {
    /// The hub's address.
    pub(super) endpoint: String,
    /// `owner/name`
    pub(super) id: String,
    /// Branch, tag or commit.
    pub(super) revision: String,
    /// Whether a token is sent along.
    pub(super) has_token: bool,
    /// How long a server may be silent.
    pub(super) timeout: Duration,
}

impl Target {
    /// The failure when a request brought no response, or only part of one.
    pub(super) fn of_transport(&self, error: &reqwest::Error) -> Failure {
        let Self { endpoint, timeout, .. } = self;
        let reason = if error.is_timeout() {
            let seconds = timeout.as_secs();
            format!("{endpoint} says nothing for {seconds} s (HF_HUB_DOWNLOAD_TIMEOUT sets how long to wait)")
        } else {
            // The innermost cause says what happened; those around it would repeat the address with a signed query.
            let mut cause: &dyn std::error::Error = error;
            while let Some(inner) = cause.source() {
                cause = inner;
            }
            format!("{endpoint}: {cause}")
        };
        if error.is_connect() || error.is_timeout() {
            Failure::Unreachable(reason)
        } else {
            Failure::Passing(reason, None)
        }
    }

    /// The failure that a response with this status, which is no success, stands for.
    pub(super) fn of_status(&self, status: StatusCode, retry_after: Option<Duration>) -> Failure {
        let Self { endpoint, id, revision, .. } = self;
        let message = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let token = if self.has_token {
                    "make sure that the token in HF_TOKEN may read it"
                } else {
                    "pass an access token in the environment variable HF_TOKEN"
                };
                format!(
                    "the hub denies access to `{id}` ({status}): if the name is right, it is private or gated; accept its terms at {endpoint}/{id} if there are any, and {token}"
                )
            }
            StatusCode::NOT_FOUND => format!(
                "`{id}` with revision `{revision}` is not found on the hub {endpoint}: check the name and the revision"
            ),
            status
                if status.is_server_error()
                    || status == StatusCode::REQUEST_TIMEOUT
                    || status == StatusCode::TOO_MANY_REQUESTS =>
            {
                return Failure::Passing(format!("{endpoint} answers {status}"), retry_after);
            }
            _ => format!("the hub {endpoint} answers {status} when asked for `{id}`"),
        };
        Failure::Refused(Error::Source(message))
    }
}
