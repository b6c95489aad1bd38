//! What the hub's refusals and silences mean to the user: which are worth a retry, and what to do about the others.

use std::time::Duration;

use reqwest::StatusCode;

use crate::error::Error;

/// Why a request failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// No connection, or no sign of life, for this reason.
    Unreachable(String),
    /// The hub answered with a temporary error, or the connection broke, for this reason; a retry may succeed, after
    /// this time if the hub gives one.
    Passing(String, Option<Duration>),
    /// The answer is no, and will stay so.
    Refused(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// What is requested, for messages.
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
    /// The failure for a request that got no response, or only part of one.
    pub(super) fn of_transport(&self, error: &reqwest::Error) -> Failure {
        let Self { endpoint, timeout, .. } = self;
        let reason = if error.is_timeout() {
            let seconds = timeout.as_secs();
            format!("{endpoint} has been silent for {seconds} s (HF_HUB_DOWNLOAD_TIMEOUT sets how long to wait)")
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

    /// The failure that a response with this unsuccessful status stands for.
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
                return Failure::Passing(format!("{endpoint} answered {status}"), retry_after);
            }
            _ => format!("the hub {endpoint} answered {status} when asked for `{id}`"),
        };
        Failure::Refused(Error::Source(message))
    }
}
