//! The hub over the network: what a repository holds, and its files, fetched into the cache.
//!
//! `hf-hub` talks to the hub: addresses, the listing of a repository, streams of bytes, redirects, and that the token
//! goes to the hub alone. What it leaves open is done here: time limits, further attempts, going on where an earlier
//! download ended, the checksum; and asking for size and checksum in the first place, which `hf-hub` 1.0.0 cannot do for
//! files that the hub keeps elsewhere (`get_file_metadata` follows the redirect and misses the hub's own headers).

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use hf_hub::repository::{HFRepository, RepoTypeModel};
use hf_hub::{HFClient, HFError};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::header::{ACCEPT_ENCODING, CONTENT_LENGTH, ETAG, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, ClientBuilder, StatusCode, Url, redirect};
use tokio::runtime::Runtime;

use super::cache::{Cache, hf_home, is_commit, matches_etag};
use super::failure::{Failure, Request};
use super::local::Place;
use crate::error::{Error, Result};

/// One commit of a repository on the hub, as a place to find a model: files are fetched into the cache when asked for.
pub(super) struct Hub<'a> {
    cache: &'a Cache,
    request: Request,
    repository: HFRepository<RepoTypeModel>,
    /// Follows no redirect to another host.
    own_host_client: Client,
    token: Option<String>,
    commit: String,
    /// The names of the repository's files.
    names: BTreeSet<String>,
    progress: bool,
    runtime: Runtime,
}

/// What the hub says about a file.
struct Metadata {
    /// The checksum by which the cache names the content.
    etag: String,
    size: u64,
}

impl<'a> Hub<'a> {
    /// Asks the hub which commit `revision` of the repository `id` is, and which files it has.
    pub(super) fn open(cache: &'a Cache, id: &str, revision: &str, progress: bool) -> Result<Self, Failure> {
        let (owner, name) = id.split_once('/').unwrap_or(("", id));
        let patience = patience()?;
        let token = token();
        let mut builder = HFClient::builder().retry_max_attempts(0);
        if let Some(token) = &token {
            builder = builder.token(token);
        }
        let client = client(patience).build().map_err(no_client)?;
        let client = builder.client(client).cache_enabled(false).build().map_err(no_client)?;
        let request = Request {
            endpoint: client.endpoint().to_owned(),
            id: id.to_owned(),
            revision: revision.to_owned(),
            has_token: token.is_some(),
            patience,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(no_client)?;
        let repository = client.model(owner, name);
        let info = runtime.block_on(attempts(false, async || {
            repository.info().revision(revision).send().await.map_err(|error| request.failure(error))
        }))?;
        let commit = info.sha.filter(|commit| is_commit(commit)).ok_or_else(|| {
            Error::Source(format!("the hub {} does not say which commit of `{id}` {revision} is", request.endpoint))
        })?;
        let names = info.siblings.unwrap_or_default().into_iter().map(|sibling| sibling.rfilename).collect();
        let own_host_client = client_of_one_host(patience)?;
        Ok(Self { cache, request, repository, own_host_client, token, commit, names, progress, runtime })
    }

    /// The commit that the revision stands for.
    pub(super) fn commit(&self) -> &str {
        &self.commit
    }

    /// The local path of the file `name`, which the repository has: in the cache already, or fetched into it now.
    async fn fetch(&self, name: &str) -> Result<PathBuf, Failure> {
        let Metadata { etag, size } = attempts(true, async || self.metadata(name).await).await?;
        let (blob, partial) = self.cache.blob(&etag);
        let is_complete = || blob.is_file() && matches_etag(&blob, &etag).unwrap_or(false);
        if !is_complete() {
            let bar = self.bar(name, size);
            let _lock = self.cache.lock(&etag, || bar.set_message(format!("{name}: another process downloads it")))?;
            bar.set_message(name.to_owned());
            if !is_complete() {
                self.download(name, &etag, size, &partial, &bar).await?;
                std::fs::rename(&partial, &blob).map_err(|e| self.cache.cannot_write(&blob, &e))?;
            }
        }
        Ok(self.cache.link(&self.commit, name, &etag)?)
    }

    /// Asks for the size and checksum of a file.
    async fn metadata(&self, name: &str) -> Result<Metadata, Failure> {
        let address = format!("{}/{}/resolve/{}", self.request.endpoint, self.request.id, self.commit);
        let mut address = Url::parse(&address).map_err(no_client)?;
        if let Ok(mut segments) = address.path_segments_mut() {
            segments.extend(name.split('/'));
        }
        let mut question = self.own_host_client.head(address);
        if let Some(token) = &self.token {
            question = question.bearer_auth(token);
        }
        let answer = question.send().await.map_err(|error| self.request.broken(&error))?;
        let status = answer.status();
        let headers = answer.headers();
        if !status.is_success() && !status.is_redirection() {
            let seconds = text(headers, RETRY_AFTER.as_str()).and_then(|seconds| seconds.parse().ok());
            return Err(self.request.answered(status, seconds.map(Duration::from_secs)));
        }
        let etag = text(headers, "x-linked-etag").or_else(|| text(headers, ETAG.as_str()));
        let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"')).filter(|etag| is_blob_name(etag));
        let size = text(headers, "x-linked-size").or_else(|| text(headers, CONTENT_LENGTH.as_str()));
        match (etag, size.and_then(|size| size.parse().ok())) {
            (Some(etag), Some(size)) => Ok(Metadata { etag: etag.to_owned(), size }),
            _ => Err(Failure::Refused(Error::Source(format!(
                "{} gives no size and checksum for {name} of `{}`; is it a hub (HF_ENDPOINT)?",
                self.request.endpoint, self.request.id
            )))),
        }
    }

    /// Makes `partial` the complete content. A download that goes on with what an earlier one left, and ends with the
    /// wrong checksum, is done once more from the start.
    async fn download(
        &self,
        name: &str,
        etag: &str,
        size: u64,
        partial: &Path,
        bar: &ProgressBar,
    ) -> Result<(), Failure> {
        self.cache.create_parent(partial)?;
        let mut is_fresh = !partial.exists();
        loop {
            attempts(true, async || self.append(name, size, partial, bar).await).await?;
            if matches_etag(partial, etag).map_err(Error::io("read", partial))? {
                return Ok(());
            }
            std::fs::remove_file(partial).map_err(|e| self.cache.cannot_write(partial, &e))?;
            if is_fresh {
                return Err(Failure::Refused(Error::Source(format!(
                    "{name} of `{}` came with other content than its checksum {etag} says, and was not kept: try again, or check for a proxy that alters files",
                    self.request.id
                ))));
            }
            is_fresh = true;
        }
    }

    /// Appends to `partial` what it lacks of the file's `size` bytes, and sees to it that they are on the disk.
    async fn append(&self, name: &str, size: u64, partial: &Path, bar: &ProgressBar) -> Result<(), Failure> {
        let cannot_write = |e| Failure::from(self.cache.cannot_write(partial, &e));
        let mut file = File::options().create(true).append(true).open(partial).map_err(cannot_write)?;
        let mut have = file.metadata().map_err(cannot_write)?.len();
        let restart = |file: &File| file.set_len(0).map_err(cannot_write);
        if have > size {
            restart(&file)?;
            have = 0;
        }
        if have < size {
            let range = (have > 0).then_some(have..size);
            let question = self.repository.download_file_stream().filename(name).revision(&self.commit);
            let (length, mut chunks) = match question.maybe_range(range).send().await {
                Err(HFError::Http { context }) if context.status == StatusCode::RANGE_NOT_SATISFIABLE => {
                    restart(&file)?;
                    return Err(Failure::Passing("it cannot send the rest of the file".to_owned(), None));
                }
                answer => answer.map_err(|error| self.request.failure(error))?,
            };
            if have > 0 && length != Some(size - have) {
                // The server does not do ranges and sends the whole.
                restart(&file)?;
                have = 0;
            }
            bar.set_position(have);
            while let Some(chunk) = chunks.next().await {
                let chunk = chunk.map_err(|error| self.request.failure(error))?;
                have += chunk.len() as u64;
                if have > size {
                    restart(&file)?;
                    break;
                }
                file.write_all(&chunk).map_err(cannot_write)?;
                bar.set_position(have);
            }
        }
        if have != size {
            return Err(Failure::Passing(format!("{have} bytes came instead of {size}"), None));
        }
        file.sync_all().map_err(cannot_write)
    }

    /// The error about the file `name` that could not be fetched.
    fn explain(&self, name: &str, failure: Failure) -> Error {
        match failure {
            Failure::Refused(error) => error,
            Failure::Unreachable(reason) | Failure::Passing(reason, _) => Error::Source(format!(
                "cannot download {name} of `{}` from {}: {reason}; run again to go on where it stopped, or use `--model demo` or a local folder",
                self.request.id, self.request.endpoint
            )),
        }
    }

    /// A progress bar for the file `name`.
    fn bar(&self, name: &str, size: u64) -> ProgressBar {
        if !self.progress {
            return ProgressBar::hidden();
        }
        let template = "{wide_msg} {bar:25} {bytes:>10} of {total_bytes:>10} {bytes_per_sec:>12} {eta:>4}";
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(size).with_style(style).with_message(name.to_owned())
    }
}

impl Place for Hub<'_> {
    fn file(&self, name: &str) -> Result<Option<PathBuf>> {
        if !self.names.contains(name) {
            self.cache.mark_absent(&self.commit, name);
            return Ok(None);
        }
        self.runtime.block_on(self.fetch(name)).map(Some).map_err(|failure| self.explain(name, failure))
    }

    fn gguf_files(&self) -> Result<Vec<String>> {
        Ok(self.names.iter().filter(|name| name.ends_with(".gguf")).cloned().collect())
    }

    fn describe(&self) -> String {
        format!("`{}` on the hub {}", self.request.id, self.request.endpoint)
    }
}

/// Tries until it succeeds, is refused, or failed too often. Where the hub was never heard of, no connection is final:
/// the user should learn that at once.
async fn attempts<T>(heard_of: bool, mut attempt: impl AsyncFnMut() -> Result<T, Failure>) -> Result<T, Failure> {
    const PAUSES_MS: [u64; 4] = [250, 500, 1000, 2000];
    const LONGEST_PAUSE: Duration = Duration::from_secs(60);
    for pause in PAUSES_MS.map(Duration::from_millis) {
        match attempt().await {
            Err(Failure::Passing(_, asked)) => {
                tokio::time::sleep(asked.unwrap_or(pause).clamp(pause, LONGEST_PAUSE)).await;
            }
            Err(Failure::Unreachable(_)) if heard_of => tokio::time::sleep(pause).await,
            outcome => return outcome,
        }
    }
    attempt().await
}

/// A client that gives up on a server that says nothing for so long, and that takes files as they are: compressed, their
/// length would say nothing.
fn client(patience: Duration) -> ClientBuilder {
    let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))]);
    Client::builder()
        .user_agent(concat!("gpt2/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        .connect_timeout(patience)
        .read_timeout(patience)
}

/// A client that stops at a redirect to another host: there are the bytes of a file, but what the hub says about the file
/// stands in the redirect itself.
fn client_of_one_host(patience: Duration) -> Result<Client> {
    let policy = redirect::Policy::custom(|attempt| {
        const MOST: usize = 10;
        let origin = attempt.previous().last().map(Url::origin);
        let stays = origin.is_some_and(|origin| origin == attempt.url().origin());
        if stays && attempt.previous().len() <= MOST { attempt.follow() } else { attempt.stop() }
    });
    client(patience).redirect(policy).build().map_err(no_client)
}

fn no_client(error: impl std::fmt::Display) -> Error {
    Error::Source(format!(
        "cannot use the hub (HF_ENDPOINT, proxies and certificates come from the environment): {error}"
    ))
}

/// How long a server may say nothing: `HF_HUB_DOWNLOAD_TIMEOUT` seconds, else 10.
fn patience() -> Result<Duration> {
    let Some(value) = std::env::var_os("HF_HUB_DOWNLOAD_TIMEOUT").filter(|value| !value.is_empty()) else {
        return Ok(Duration::from_secs(10));
    };
    match value.to_str().and_then(|value| value.parse().ok()) {
        Some(seconds @ 1..) => Ok(Duration::from_secs(seconds)),
        _ => Err(Error::Usage(format!("HF_HUB_DOWNLOAD_TIMEOUT is {}: expected seconds, from 1 up", value.display()))),
    }
}

/// The access token: `HF_TOKEN`, else the content of the file `HF_TOKEN_PATH`, else of `token` in the folder `HF_HOME`,
/// where `hf auth login` leaves it. `HF_HUB_DISABLE_IMPLICIT_TOKEN` forbids them all.
fn token() -> Option<String> {
    let variable = |name| std::env::var(name).ok();
    let cleaned = |text: String| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    if variable("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_some_and(|value| !value.is_empty()) {
        return None;
    }
    let file = || variable("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| Some(hf_home()?.join("token")));
    variable("HF_TOKEN").and_then(cleaned).or_else(|| cleaned(std::fs::read_to_string(file()?).ok()?))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Whether an ETag can name a file of the cache, and nothing outside it.
fn is_blob_name(etag: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (1..=128).contains(&etag.len()) && !etag.starts_with('.') && etag.bytes().all(plain)
}
