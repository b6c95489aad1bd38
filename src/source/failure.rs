//! What the hub's refusals and silences mean to the user: which are worth a retry, and what to do about the others.

use std::time::Duration;

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::{StatusCode, Url};

use super::settings::{Endpoint, Patience};
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

/// What is requested, for messages. None of them contains a password, or an address that a server gave with a
/// redirect: such an address often carries a signature, which is as good as one.
#[derive(Debug)]
pub(super) struct Target {
    /// The hub.
    pub(super) endpoint: Endpoint,
    /// `owner/name`
    pub(super) id: String,
    /// Branch, tag or commit.
    pub(super) revision: String,
    /// Where the token that is sent along comes from.
    pub(super) token: Option<String>,
}

/// The cause of all others, which says what happened.
pub(super) fn innermost(error: &reqwest::Error) -> &dyn std::error::Error {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause
}

/// The proxy for requests to `address`, for messages: without the password that its own address may contain.
fn proxy_of(address: &Url) -> Option<String> {
    let found = Matcher::from_system().intercept(&address.as_str().parse().ok()?)?;
    let host = found.uri().authority()?.as_str().rsplit('@').next()?;
    let own = if address.scheme() == "https" { "HTTPS_PROXY" } else { "HTTP_PROXY" };
    let lower_case = [own, "ALL_PROXY"].map(str::to_lowercase);
    let mut names = [own, "ALL_PROXY"].into_iter().chain(lower_case.iter().map(String::as_str));
    let variable = names.find(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    let from = variable.unwrap_or("the system's settings");
    Some(format!("{}://{host} ({from})", found.uri().scheme_str().unwrap_or("http")))
}

impl Target {
    /// The failure for a request to `url` that got no response, or only part of one.
    pub(super) fn of_transport(&self, error: &reqwest::Error, url: &Url) -> Failure {
        // Those around it would repeat the address with a signed query.
        let cause = innermost(error);
        let server = self.server(url);
        if error.is_connect() || error.is_timeout() {
            Failure::Unreachable(format!("{server}: {cause}"))
        } else {
            Failure::Passing(format!("{server}: the answer breaks off or is no HTTP ({cause})"), None)
        }
    }

    /// The failure for a request to `url` with no response, or nothing further of one, for too long.
    pub(super) fn of_silence(&self, url: &Url, patience: Patience) -> Failure {
        let Patience { limit, variable } = patience;
        let seconds = limit.as_secs();
        let server = self.server(url);
        Failure::Unreachable(format!("{server} has been silent for {seconds} s ({variable} sets how long to wait)"))
    }

    /// The failure for a response from `url` that comes too slowly: `achieved`, such as "sent 3 bytes in 30 s".
    pub(super) fn of_slowness(&self, url: &Url, achieved: &str, patience: Patience) -> Failure {
        let variable = patience.variable;
        Failure::Unreachable(format!("{} {achieved} ({variable} sets how long to wait)", self.server(url)))
    }

    /// The server at `url` and, if there is one, the proxy on the way, which may be the one that fails.
    pub(super) fn server(&self, url: &Url) -> String {
        let Endpoint { shown, .. } = &self.endpoint;
        let mut server = if self.endpoint.is_origin_of(url) {
            shown.clone()
        } else {
            format!("{} (where {shown} redirects to)", url.origin().ascii_serialization())
        };
        if let Some(proxy) = proxy_of(url) {
            server.push_str(&format!(" through the proxy {proxy}"));
        }
        server
    }

    /// The failure that a response from `url` with this unsuccessful status stands for.
    pub(super) fn of_status(&self, status: StatusCode, url: &Url, retry_after: Option<Duration>) -> Failure {
        let Self { endpoint, id, revision, .. } = self;
        let passing = || Failure::Passing(format!("{} answered {status}", self.server(url)), retry_after);
        let message = match status {
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                let proxy = proxy_of(url).unwrap_or_else(|| "on the way to the hub".to_owned());
                return Failure::Refused(Error::Hub(format!(
                    "the proxy {proxy} refuses to pass on the request for `{id}` ({status}): put the user and the password into its address, or clear the variable"
                )));
            }
            // The hub's leave to read from another server ends after a while, and a retry gets a new one.
            status if status.is_client_error() && !endpoint.is_origin_of(url) => return passing(),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let secret = match &self.token {
                    _ if endpoint.has_login() => {
                        "make sure that the user and the password in HF_ENDPOINT are right".to_owned()
                    }
                    Some(origin) => format!("make sure that the token in {origin} may read it"),
                    None => "pass an access token in the environment variable HF_TOKEN".to_owned(),
                };
                let via = proxy_of(url).map(|proxy| format!(", or the proxy {proxy},")).unwrap_or_default();
                let page = &endpoint.shown;
                // Most often the name is wrong: without a token, the hub hides whether there is such a model.
                return Failure::Refused(Error::NotFound(format!(
                    "the hub{via} denies access to `{id}` ({status}): if the name is right, it is private or gated; accept its terms at {page}/{id} if there are any, and {secret}"
                )));
            }
            StatusCode::NOT_FOUND => {
                return Failure::Refused(Error::NotFound(format!(
                    "`{id}` with revision `{revision}` is not found on the hub {}: check the name and the revision",
                    endpoint.shown
                )));
            }
            status
                if status.is_server_error()
                    || status == StatusCode::REQUEST_TIMEOUT
                    || status == StatusCode::TOO_MANY_REQUESTS =>
            {
                return passing();
            }
            _ => format!("the hub {} answered {status} when asked for `{id}`", self.server(url)),
        };
        Failure::Refused(Error::Source(message))
    }
}
