//! What the hub's refusals and silences mean to the user: which are worth a retry, and what to do about the others.

use std::time::Duration;

use hyper_util::client::proxy::matcher::Matcher;
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
    /// The proxy that requests go through, and the variable that names it.
    pub(super) proxy: Option<String>,
}

/// The proxy for requests to `endpoint`, for messages: without the password that its address may contain.
pub(super) fn proxy_of(endpoint: &str) -> Option<String> {
    let found = Matcher::from_system().intercept(&endpoint.parse().ok()?)?;
    let host = found.uri().authority()?.as_str().rsplit('@').next()?;
    let own = if endpoint.starts_with("https:") { "HTTPS_PROXY" } else { "HTTP_PROXY" };
    let lower_case = [own, "ALL_PROXY"].map(str::to_lowercase);
    let mut names = [own, "ALL_PROXY"].into_iter().chain(lower_case.iter().map(String::as_str));
    let variable = names.find(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    let from = variable.unwrap_or("the system's settings");
    Some(format!("{}://{host} ({from})", found.uri().scheme_str().unwrap_or("http")))
}

impl Target {
    /// The failure for a request that got no response, or only part of one.
    pub(super) fn of_transport(&self, error: &reqwest::Error) -> Failure {
        let Self { timeout, .. } = self;
        let endpoint = self.place();
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

    /// The hub's address and, if there is one, the proxy on the way, which may be the one that fails.
    fn place(&self) -> String {
        match &self.proxy {
            Some(proxy) => format!("{} through the proxy {proxy}", self.endpoint),
            None => self.endpoint.clone(),
        }
    }

    /// The failure that a response with this unsuccessful status stands for.
    pub(super) fn of_status(&self, status: StatusCode, retry_after: Option<Duration>) -> Failure {
        let Self { endpoint, id, revision, .. } = self;
        let message = match status {
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                let proxy = self.proxy.as_deref().unwrap_or("on the way to the hub");
                return Failure::Refused(Error::Hub(format!(
                    "the proxy {proxy} refuses to pass on the request for `{id}` ({status}): put the user and the password into its address, or clear the variable"
                )));
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let token = if self.has_token {
                    "make sure that the token in HF_TOKEN may read it"
                } else {
                    "pass an access token in the environment variable HF_TOKEN"
                };
                let via = self.proxy.as_ref().map(|proxy| format!(", or the proxy {proxy},")).unwrap_or_default();
                format!(
                    "the hub{via} denies access to `{id}` ({status}): if the name is right, it is private or gated; accept its terms at {endpoint}/{id} if there are any, and {token}"
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
                return Failure::Passing(format!("{} answered {status}", self.place()), retry_after);
            }
            _ => format!("the hub {} answered {status} when asked for `{id}`", self.place()),
        };
        Failure::Refused(Error::Source(message))
    }
}
