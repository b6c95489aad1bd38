//! Requests to the hub: the listing of a repository, a file's metadata, and a file's content.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, ETAG, HeaderMap, HeaderValue, RANGE, RETRY_AFTER,
};
use reqwest::{Client, ClientBuilder, RequestBuilder, Response, StatusCode, Url, redirect};
use serde::Deserialize;

use super::cache::{folder_from, hf_home, is_commit};
use super::failure::{Failure, Target, proxy_of};
use crate::error::{Error, Result};

/// Makes requests about one repository.
pub(super) struct Api {
    pub(super) target: Target,
    /// For the content of files: follows every redirect, but sends no token to another host.
    content_client: Client,
    /// For metadata of files: follows no redirect to another host.
    metadata_client: Client,
    /// With the access token.
    authorization: Option<HeaderValue>,
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

impl Api {
    /// For the repository `id` (`owner/name`); messages name `revision`.
    pub(super) fn new(id: &str, revision: &str) -> Result<Self> {
        let timeout = timeout()?;
        let token = token();
        let authorization = token.map(|token| authorization(&token)).transpose()?;
        // Does nothing if the program has already chosen one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let content_client = client(timeout).build().map_err(unusable)?;
        let metadata_client = client(timeout).redirect(within_host()).build().map_err(unusable)?;
        let endpoint = endpoint()?;
        let target = Target {
            proxy: proxy_of(&endpoint),
            endpoint,
            id: id.to_owned(),
            revision: revision.to_owned(),
            has_token: authorization.is_some(),
            timeout,
        };
        Ok(Self { target, content_client, metadata_client, authorization })
    }

    /// The files of the revision; `None` from a mirror that has files but no listings.
    pub(super) async fn listing(&self) -> Result<Option<Listing>, Failure> {
        let path = ["api", "models"].into_iter().chain(self.target.id.split('/'));
        let address = self.address(path.chain(["revision", &self.target.revision]))?;
        let request = self.authorized(self.content_client.get(address));
        let mut response = request.send().await.map_err(|error| self.target.of_transport(&error))?;
        if is_unlisted(&response) {
            return Ok(None);
        }
        if !response.status().is_success() {
            return Err(self.failure(&response));
        }
        let mut json = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.target.of_transport(&error))? {
            json.extend_from_slice(&chunk);
            if json.len() > LARGEST_LISTING {
                let Target { endpoint, id, .. } = &self.target;
                let problem = format!("{endpoint} lists more files of `{id}` than a model can have");
                return Err(Failure::Refused(Error::Source(problem)));
            }
        }
        // Anything but the hub's JSON is some other server's page.
        let Ok(info) = serde_json::from_slice::<ModelInfo>(&json) else { return Ok(None) };
        let names = info.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        Ok(info.sha.filter(|commit| is_commit(commit)).map(|commit| Listing { commit, names }))
    }

    /// The metadata of the file `name`; `None` if there is no such file.
    pub(super) async fn metadata(&self, revision: &str, name: &str) -> Result<Option<Metadata>, Failure> {
        let request = self.authorized(self.metadata_client.head(self.file_address(revision, name)?));
        let response = request.send().await.map_err(|error| self.target.of_transport(&error))?;
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
                self.target.endpoint, self.target.id
            )))),
        }
    }

    /// The content of the file `name` from byte `start` on, if the server can resume there; else all of it with status
    /// 200, or nothing with status 416.
    pub(super) async fn content(&self, revision: &str, name: &str, start: u64) -> Result<Response, Failure> {
        let mut request = self.authorized(self.content_client.get(self.file_address(revision, name)?));
        if start > 0 {
            request = request.header(RANGE, format!("bytes={start}-"));
        }
        let response = request.send().await.map_err(|error| self.target.of_transport(&error))?;
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => Ok(response),
            _ => Err(self.failure(&response)),
        }
    }

    fn failure(&self, response: &Response) -> Failure {
        let seconds = response.headers().get(RETRY_AFTER).and_then(|seconds| seconds.to_str().ok()?.parse().ok());
        self.target.of_status(response.status(), seconds.map(Duration::from_secs))
    }

    fn file_address(&self, revision: &str, name: &str) -> Result<Url> {
        self.address(self.target.id.split('/').chain(["resolve", revision]).chain(name.split('/')))
    }

    /// The URL for a path of these segments; a segment, such as a revision, may contain slashes.
    fn address<'a>(&self, path: impl Iterator<Item = &'a str>) -> Result<Url> {
        let mut address = Url::parse(&self.target.endpoint).map_err(unusable)?;
        if let Ok(mut segments) = address.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        Ok(address)
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.authorization {
            Some(authorization) => request.header(AUTHORIZATION, authorization),
            None => request,
        }
    }
}

/// The largest listing in bytes. GPT-2's has 5 kB.
const LARGEST_LISTING: usize = 64 << 20;

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

/// The hub's address: `HF_ENDPOINT`, else Hugging Face's.
fn endpoint() -> Result<String> {
    let endpoint = std::env::var("HF_ENDPOINT").ok().filter(|endpoint| !endpoint.is_empty());
    let endpoint = endpoint.unwrap_or_else(|| "https://huggingface.co".to_owned());
    Url::parse(&endpoint).map_err(unusable)?;
    Ok(endpoint.trim_end_matches('/').to_owned())
}

/// The header that carries an access token.
fn authorization(token: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| Error::Source("the access token (HF_TOKEN) contains characters that cannot be sent".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A client that gives up on a server after `timeout` of silence, and asks for uncompressed files: the length of a
/// compressed one would tell nothing.
fn client(timeout: Duration) -> ClientBuilder {
    let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))]);
    Client::builder()
        .user_agent(concat!("gpt2/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        .connect_timeout(timeout)
        .read_timeout(timeout)
}

/// Does not follow redirects to another host.
fn within_host() -> redirect::Policy {
    redirect::Policy::custom(|attempt| {
        const MOST: usize = 10;
        let origin = attempt.previous().last().map(Url::origin);
        let stays = origin.is_some_and(|origin| origin == attempt.url().origin());
        if stays && attempt.previous().len() <= MOST { attempt.follow() } else { attempt.stop() }
    })
}

/// An error about the hub's settings in the environment.
pub(super) fn unusable(error: impl std::fmt::Display) -> Error {
    Error::Source(format!(
        "cannot use the hub (HF_ENDPOINT, proxies and certificates come from the environment): {error}"
    ))
}

/// How long a server may be silent: `HF_HUB_DOWNLOAD_TIMEOUT` seconds, else 10.
fn timeout() -> Result<Duration> {
    let Some(value) = std::env::var_os("HF_HUB_DOWNLOAD_TIMEOUT").filter(|value| !value.is_empty()) else {
        return Ok(Duration::from_secs(10));
    };
    match value.to_str().and_then(|value| value.parse().ok()) {
        Some(seconds @ 1..) => Ok(Duration::from_secs(seconds)),
        _ => Err(Error::Usage(format!(
            "HF_HUB_DOWNLOAD_TIMEOUT is {}: expected a number of seconds, at least 1",
            value.display()
        ))),
    }
}

/// The access token: `HF_TOKEN`, else the content of the file `HF_TOKEN_PATH`, else of `token` in the folder `HF_HOME`,
/// where `hf auth login` puts it. `HF_HUB_DISABLE_IMPLICIT_TOKEN` disables them all.
fn token() -> Option<String> {
    let variable = |name| std::env::var(name).ok();
    let cleaned = |text: String| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    if variable("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_some_and(|value| !value.is_empty()) {
        return None;
    }
    let file = || folder_from("HF_TOKEN_PATH").or_else(|| Some(hf_home()?.join("token")));
    variable("HF_TOKEN").and_then(cleaned).or_else(|| cleaned(std::fs::read_to_string(file()?).ok()?))
}

/// Whether an ETag can name a file inside the cache, and nothing outside it.
fn is_blob_name(etag: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (1..=128).contains(&etag.len()) && !etag.starts_with('.') && etag.bytes().all(plain)
}
