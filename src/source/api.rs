//! Requests to the hub: the listing of a repository, a file's metadata, and a file's content.
//!
//! Nothing that a server says is believed without a limit: answers have a largest size and a longest time, and content
//! a slowest pace.

use std::collections::BTreeSet;

use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, LOCATION, RANGE,
};
use reqwest::{Client, Method, Response, StatusCode, Url, redirect};
use serde::Deserialize;

use super::body::{Body, Part};
use super::cache::is_commit;
use super::failure::{Failure, Target, innermost};
use super::retry::retry_after;
use super::settings::{Endpoint, Patience, Token, check_proxy};
use crate::error::{Error, Result};

/// Makes requests about one repository.
pub(super) struct Api {
    pub(super) target: Target,
    client: Client,
    /// With the access token; `None` if the hub's address contains a password, which then takes its place.
    authorization: Option<HeaderValue>,
    /// For the listing and for metadata.
    pub(super) answers: Patience,
    content: Patience,
}

/// One commit of a repository.
pub(super) struct Listing {
    pub(super) commit: String,
    /// The names of the files.
    pub(super) names: BTreeSet<String>,
}

/// The hub's metadata of a file.
pub(super) struct Metadata {
    /// The checksum, by which the cache names the content.
    pub(super) etag: String,
    /// Bytes, if the hub says.
    pub(super) size: Option<u64>,
    /// The commit that the revision stands for.
    pub(super) commit: Option<String>,
}

/// A server's answer to the request for content from some byte on.
pub(super) enum Answer<'a> {
    /// Content from byte `start` on, of a file of `total` bytes.
    Content { start: u64, total: Option<u64>, body: Body<'a> },
    /// Nothing that continues what we have, for this reason.
    Useless(String),
}

/// Which redirects are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Redirects {
    All,
    /// Those to the hub itself. What it says of a file comes with the redirect to where the content is.
    ToTheHub,
}

impl Api {
    /// For the repository `id` (`owner/name`); messages name `revision`.
    pub(super) fn new(id: &str, revision: &str) -> Result<Self> {
        let (answers, content) = (Patience::for_answers()?, Patience::for_content()?);
        let endpoint = Endpoint::from_environment()?;
        check_proxy(&endpoint.address)?;
        let token = if endpoint.has_login() { None } else { Token::from_environment()? };
        let (authorization, token) = token.map(|token| (token.header, token.origin)).unzip();
        // Does nothing if the program has already chosen one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // The length of a compressed file would tell nothing.
        let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))]);
        let client = Client::builder()
            .user_agent(concat!("gpt2/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .connect_timeout(answers.limit.max(content.limit))
            .redirect(redirect::Policy::none())
            .build()
            .map_err(|error| no_client(&error))?;
        let target = Target { endpoint, id: id.to_owned(), revision: revision.to_owned(), token };
        Ok(Self { target, client, authorization, answers, content })
    }

    /// The files of the revision; `None` from a mirror that has files but no listings.
    pub(super) async fn listing(&self) -> Result<Option<Listing>, Failure> {
        let path = ["api", "models"].into_iter().chain(self.target.id.split('/'));
        let address = self.address(path.chain(["revision", &self.target.revision]));
        /// Time limits that a whole listing may take: with the usual one, a minute.
        const LIMITS: u32 = 6;
        let longest = self.answers.limit * LIMITS;
        let slow = || {
            let achieved = format!("did not complete the list of files within {} s", longest.as_secs());
            self.target.of_slowness(&address, &achieved, self.answers)
        };
        tokio::time::timeout(longest, self.read_listing(&address)).await.unwrap_or_else(|_| Err(slow()))
    }

    async fn read_listing(&self, address: &Url) -> Result<Option<Listing>, Failure> {
        let response = self.send(Method::GET, address, None, Redirects::All, self.answers).await?;
        if is_unlisted(&response) {
            return Ok(None);
        }
        if !response.status().is_success() {
            return Err(self.failure(&response));
        }
        let limit = LARGEST_LISTING >> 20;
        let (server, id) = (self.target.server(response.url()), &self.target.id);
        let too_long = format!("{server} sends a list of more than {limit} MiB for the files of `{id}`");
        if response.content_length().is_some_and(|length| length > LARGEST_LISTING) {
            return Err(Error::Source(too_long).into());
        }
        let (mut body, mut json) = (Body::new(response, self, self.answers), Vec::new());
        while let Some(chunk) = body.chunk().await? {
            json.extend_from_slice(&chunk);
            if json.len() as u64 > LARGEST_LISTING {
                return Err(Error::Source(too_long).into());
            }
        }
        // Anything but the hub's JSON is some other server's page.
        let Ok(info) = serde_json::from_slice::<ModelInfo>(&json) else { return Ok(None) };
        let names = info.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        Ok(info.sha.filter(|commit| is_commit(commit)).map(|commit| Listing { commit, names }))
    }

    /// The metadata of the file `name`; `None` if there is no such file.
    pub(super) async fn metadata(&self, revision: &str, name: &str) -> Result<Option<Metadata>, Failure> {
        let address = self.file_address(revision, name);
        let response = self.send(Method::HEAD, &address, None, Redirects::ToTheHub, self.answers).await?;
        let status = response.status();
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if !status.is_success() && !status.is_redirection() {
            return Err(self.failure(&response));
        }
        let header = |name: &str| response.headers().get(name)?.to_str().ok();
        // A redirect's length is not the file's.
        let length = || header(CONTENT_LENGTH.as_str()).filter(|_| status.is_success());
        let etag = header("x-linked-etag").or_else(|| header(ETAG.as_str()));
        match etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"')).filter(|etag| is_blob_name(etag)) {
            Some(etag) => Ok(Some(Metadata {
                etag: etag.to_owned(),
                size: header("x-linked-size").or_else(length).and_then(|size| size.parse().ok()),
                commit: header("x-repo-commit").filter(|commit| is_commit(commit)).map(str::to_owned),
            })),
            None => Err(Failure::Refused(Error::Source(format!(
                "{} gives no usable ETag for {name} of `{}`; is it a hub (HF_ENDPOINT)?",
                self.target.endpoint.shown, self.target.id
            )))),
        }
    }

    /// The content of the file `name` from byte `start` on, or all of it from a server that cannot start there.
    pub(super) async fn content(&self, revision: &str, name: &str, start: u64) -> Result<Answer<'_>, Failure> {
        let range = (start > 0).then_some(start);
        let address = self.file_address(revision, name);
        let response = self.send(Method::GET, &address, range, Redirects::All, self.content).await?;
        let (status, length) = (response.status(), response.content_length());
        let useless = |what: &str| Ok(Answer::Useless(format!("{} {what}", self.target.server(response.url()))));
        match (status, range) {
            (StatusCode::OK, _) => {
                Ok(Answer::Content { start: 0, total: length, body: Body::new(response, self, self.content) })
            }
            (StatusCode::PARTIAL_CONTENT, None) => useless("sent a part of the file instead of all of it"),
            (StatusCode::PARTIAL_CONTENT, Some(start)) => {
                let Some(part) = response.headers().get(CONTENT_RANGE) else {
                    return useless("sent a part of the file without saying which (Content-Range)");
                };
                let found = part.to_str().ok().and_then(Part::parse);
                let fits = |part: &Part| part.first == start && length.is_none_or(|length| length == part.len());
                match found.filter(fits) {
                    Some(Part { total, .. }) => {
                        Ok(Answer::Content { start, total, body: Body::new(response, self, self.content) })
                    }
                    None => {
                        useless(&format!("sent the part {part:?} of the file instead of the one from byte {start}"))
                    }
                }
            }
            (StatusCode::RANGE_NOT_SATISFIABLE, Some(_)) => useless("cannot send the rest of it"),
            (StatusCode::NOT_FOUND, _) if self.target.endpoint.is_origin_of(response.url()) => {
                let (server, id) = (self.target.server(response.url()), &self.target.id);
                Err(Failure::Refused(Error::Source(format!(
                    "{name} of `{id}` is not there: {server} describes the file, but answered {status} when asked for it; try again, or choose another revision"
                ))))
            }
            _ => Err(self.failure(&response)),
        }
    }

    /// The response to a request for `address`, after redirects. The token is sent to the hub and to no other server.
    async fn send(
        &self,
        method: Method,
        address: &Url,
        start: Option<u64>,
        redirects: Redirects,
        patience: Patience,
    ) -> Result<Response, Failure> {
        const MOST: usize = 10;
        let Target { endpoint, .. } = &self.target;
        let deadline = tokio::time::Instant::now() + patience.limit;
        let mut url = address.clone();
        for _ in 0..=MOST {
            let is_hub = endpoint.is_origin_of(&url);
            if is_hub {
                // Neither can fail for an address with a host.
                let _ = url.set_username(endpoint.address.username());
                let _ = url.set_password(endpoint.address.password());
            }
            let mut request = self.client.request(method.clone(), url.clone());
            if let Some(authorization) = self.authorization.as_ref().filter(|_| is_hub) {
                request = request.header(AUTHORIZATION, authorization);
            }
            if let Some(start) = start {
                request = request.header(RANGE, format!("bytes={start}-"));
            }
            let response = match tokio::time::timeout_at(deadline, request.send()).await {
                Err(_) => return Err(self.target.of_silence(&url, patience)),
                Ok(Err(error)) if error.is_timeout() => return Err(self.target.of_silence(&url, patience)),
                Ok(response) => response.map_err(|error| self.target.of_transport(&error, &url))?,
            };
            let Some(next) = redirect_of(&response) else { return Ok(response) };
            if redirects == Redirects::ToTheHub && !endpoint.is_origin_of(&next) {
                return Ok(response);
            }
            let refused = |why| Err(Error::Source(format!("{} redirects {why}", self.target.server(&url))).into());
            match (url.scheme(), next.scheme()) {
                ("http", "http") | (_, "https") => {}
                ("https", "http") => return refused("to a connection without encryption"),
                _ => return refused("to something that is no server"),
            }
            url = next;
        }
        let server = &endpoint.shown;
        Err(Error::Source(format!("{server} redirects more than {MOST} times; is it a hub (HF_ENDPOINT)?")).into())
    }

    fn failure(&self, response: &Response) -> Failure {
        self.target.of_status(response.status(), response.url(), retry_after(response.headers()))
    }

    fn file_address(&self, revision: &str, name: &str) -> Url {
        self.address(self.target.id.split('/').chain(["resolve", revision]).chain(name.split('/')))
    }

    /// The URL for a path of these segments; a segment, such as a revision, may contain slashes.
    fn address<'a>(&self, path: impl Iterator<Item = &'a str>) -> Url {
        let mut address = self.target.endpoint.address.clone();
        if let Ok(mut segments) = address.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        address
    }
}

/// The largest listing in bytes. GPT-2's has 5 kB; the largest repositories have 100,000 files.
const LARGEST_LISTING: u64 = 16 << 20;

/// The parts that we use of the hub's answer about a revision of a model.
#[derive(Deserialize)]
struct ModelInfo {
    sha: Option<String>,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// Whether the response only means that there are no listings here: it is not the hub's, which gives a reason.
fn is_unlisted(response: &Response) -> bool {
    let statuses = [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_IMPLEMENTED];
    statuses.contains(&response.status()) && !response.headers().contains_key("x-error-code")
}

/// Where the response redirects to; `None` if it is no redirect, or one that leads nowhere.
fn redirect_of(response: &Response) -> Option<Url> {
    let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = response.headers().get(LOCATION).filter(|_| is_redirect)?;
    response.url().join(std::str::from_utf8(location.as_bytes()).ok()?).ok()
}

/// Why no connection can be opened at all.
fn no_client(error: &reqwest::Error) -> Error {
    let cause = innermost(error);
    Error::Hub(format!(
        "cannot open a connection to the hub ({cause}): if this system has no certificates, install them (ca-certificates), or name them in SSL_CERT_FILE"
    ))
}

/// An error about the hub's settings in the environment.
pub(super) fn unusable(error: impl std::fmt::Display) -> Error {
    Error::Source(format!(
        "cannot use the hub (HF_ENDPOINT, proxies and certificates come from the environment): {error}"
    ))
}

/// Whether an ETag can name a file inside the cache, and nothing outside it or of another use.
fn is_blob_name(etag: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (1..=128).contains(&etag.len())
        && !etag.starts_with('.')
        && !etag.ends_with(".incomplete")
        && etag.bytes().all(plain)
}
