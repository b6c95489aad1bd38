//! What the environment says about the hub: its address, the access token, and how long to wait for it.

use std::path::Path;
use std::time::Duration;

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::Url;
use reqwest::header::HeaderValue;

use super::cache::hf_home;
use crate::error::{Error, Result};
use crate::files::{read_at_most, user_paths};

/// The hub's address.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// With the user and the password that it may contain.
    pub(super) address: Url,
    /// For messages: without user, password and query.
    pub(super) shown: String,
    /// The environment variable that it comes from.
    pub(super) variable: Option<&'static str>,
}

impl Endpoint {
    /// `HF_ENDPOINT`, else Hugging Face's.
    pub(super) fn from_environment() -> Result<Self> {
        const HUGGING_FACE: &str = "https://huggingface.co";
        const VARIABLE: &str = "HF_ENDPOINT";
        let given = std::env::var_os(VARIABLE).filter(|value| !value.is_empty());
        let variable = given.is_some().then_some(VARIABLE);
        let given = given.unwrap_or_else(|| HUGGING_FACE.into());
        // It may contain a password, so it is not quoted.
        let unusable = |problem: &dyn std::fmt::Display| {
            let expected = format!("expected an address such as {HUGGING_FACE}");
            Error::Source(format!("{VARIABLE} cannot be the address of a hub ({problem}): {expected}"))
        };
        let text = given.to_str().ok_or_else(|| unusable(&"it is not UTF-8"))?;
        let address = Url::parse(text).map_err(|error| unusable(&error))?;
        if !matches!(address.scheme(), "http" | "https") {
            return Err(unusable(&"it starts neither with https:// nor with http://"));
        }
        let mut shown = address.clone();
        // Neither can fail for an address with a host.
        let _ = shown.set_username("").and_then(|()| shown.set_password(None));
        shown.set_query(None);
        shown.set_fragment(None);
        let shown = shown.as_str().trim_end_matches('/').to_owned();
        Ok(Self { address, shown, variable })
    }

    /// Whether a request to `url` goes to the hub's own server.
    pub(super) fn is_origin_of(&self, url: &Url) -> bool {
        self.address.origin() == url.origin()
    }

    /// Whether the address contains a user and a password, which are sent instead of a token.
    pub(super) fn has_login(&self) -> bool {
        !self.address.username().is_empty() || self.address.password().is_some()
    }
}

/// Checks the proxy through which requests to `address` are to go. The HTTP client passes over one that it cannot read, and
/// the request would go another way than it was told to.
///
/// # Errors
/// [`Error::Source`] with the name of the variable. Its value may contain a password, so it is not quoted.
pub(super) fn check_proxy(address: &Url) -> Result<()> {
    let own = if address.scheme() == "https" { "HTTPS_PROXY" } else { "HTTP_PROXY" };
    let names = [own, "ALL_PROXY"].into_iter().flat_map(|name| [name.to_owned(), name.to_lowercase()]);
    let mut given = names.filter_map(|name| Some((std::env::var_os(&name).filter(|value| !value.is_empty())?, name)));
    let Some((value, name)) = given.next() else { return Ok(()) };
    let no_proxy = ["NO_PROXY", "no_proxy"].into_iter().find_map(|name| std::env::var(name).ok()).unwrap_or_default();
    let proxy = |value: &str, no_proxy: String| {
        let matcher = Matcher::builder().all(value.to_owned()).no(no_proxy).build();
        matcher.intercept(&address.as_str().parse().ok()?)
    };
    let is_exempt = proxy("http://localhost", no_proxy).is_none();
    let is_usable = |value: &str| {
        let proxy = proxy(value, String::new());
        proxy.is_some_and(|proxy| Url::parse(&proxy.uri().to_string()).is_ok_and(|url| url.has_host()))
    };
    match is_exempt || value.to_str().is_some_and(is_usable) {
        true => Ok(()),
        false => Err(Error::Source(format!(
            "{name} cannot be the address of a proxy: expected one such as http://proxy.example:3128"
        ))),
    }
}

/// An access token.
pub(super) struct Token {
    /// The value of the header that carries it.
    pub(super) header: HeaderValue,
    /// The variable or the file that it comes from.
    pub(super) origin: String,
}

impl Token {
    /// `HF_TOKEN`, else the content of the file `HF_TOKEN_PATH`, else of `token` in the folder `HF_HOME`, where
    /// `hf auth login` puts it. `HF_HUB_DISABLE_IMPLICIT_TOKEN` disables them all.
    pub(super) fn from_environment() -> Result<Option<Self>> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        if variable("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_some() {
            return Ok(None);
        }
        if let Some(text) = variable("HF_TOKEN")
            && let Some(token) = Self::new(&text.to_string_lossy(), "HF_TOKEN")?
        {
            return Ok(Some(token));
        }
        if let Some(path) = user_paths::by_environment("HF_TOKEN_PATH") {
            return Self::from_file(&path);
        }
        match hf_home().map(|home| home.join("token")) {
            // A shared folder may have someone else's token, which is not for us.
            Some(path) if std::fs::File::open(&path).is_ok() => Self::from_file(&path),
            _ => Ok(None),
        }
    }

    fn from_file(path: &Path) -> Result<Option<Self>> {
        const LARGEST: u64 = 1 << 16;
        match read_at_most(path, LARGEST) {
            Ok(bytes) => Self::new(&String::from_utf8_lossy(&bytes), &path.display().to_string()),
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The token in `text`, which comes from `origin`; `None` if there is none. White space around it is no part of it.
    fn new(text: &str, origin: &str) -> Result<Option<Self>> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let found = |what: &'static str, is: fn(char) -> bool| text.contains(is).then_some(what);
        let wrong = found("a line break", |c| matches!(c, '\n' | '\r'))
            .or_else(|| found("a control character", char::is_control))
            .or_else(|| found("a character that is not ASCII", |c| !c.is_ascii()))
            .or_else(|| found("a space", |c| c == ' '));
        let header = HeaderValue::from_str(&format!("Bearer {text}")).ok();
        match (wrong, header) {
            (None, Some(mut header)) => {
                header.set_sensitive(true);
                Ok(Some(Self { header, origin: origin.to_owned() }))
            }
            (wrong, _) => Err(Error::Source(format!(
                "the access token in {origin} contains {}, which no token does: put the token there, and nothing else",
                wrong.unwrap_or("a character that cannot be sent")
            ))),
        }
    }
}

/// How long to wait for a sign of life.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) limit: Duration,
    /// The variable that sets it.
    pub(super) variable: &'static str,
}

impl Patience {
    /// For the content of files: `HF_HUB_DOWNLOAD_TIMEOUT` seconds, else 10.
    pub(super) fn for_content() -> Result<Self> {
        const VARIABLE: &str = "HF_HUB_DOWNLOAD_TIMEOUT";
        let limit = seconds(VARIABLE)?.unwrap_or(Duration::from_secs(10));
        Ok(Self { limit, variable: VARIABLE })
    }

    /// For what is asked before: `HF_HUB_ETAG_TIMEOUT` seconds, else as long as for content.
    pub(super) fn for_answers() -> Result<Self> {
        const VARIABLE: &str = "HF_HUB_ETAG_TIMEOUT";
        match seconds(VARIABLE)? {
            Some(limit) => Ok(Self { limit, variable: VARIABLE }),
            None => Self::for_content(),
        }
    }
}

/// The time in an environment variable; `None` if it is empty.
fn seconds(variable: &str) -> Result<Option<Duration>> {
    /// More would be as good as no limit, and too much for a clock.
    const DAY: u64 = 24 * 60 * 60;
    let Some(value) = std::env::var_os(variable).filter(|value| !value.is_empty()) else { return Ok(None) };
    match value.to_str().and_then(|value| value.trim().parse().ok()) {
        Some(seconds @ 1..) => Ok(Some(Duration::from_secs(DAY.min(seconds)))),
        _ => Err(Error::Usage(format!("{variable} is {value:?}: expected a number of seconds, at least 1"))),
    }
}
