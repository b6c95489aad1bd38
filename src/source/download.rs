//! A repository on the hub as a place to find a model: files are downloaded into the cache on demand.
//!
//! An interrupted download is kept and resumed by the next attempt or the next run; it becomes a file of the cache once
//! it is complete and its checksum is right.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use reqwest::StatusCode;
use tokio::runtime::Runtime;

use super::Progress;
use super::api::{Api, Listing, Metadata, unusable};
use super::cache::{Cache, etag_of, matches_etag};
use super::failure::Failure;
use super::local::{CONFIG, Place};
use crate::error::{Error, Result};

/// One commit of a repository.
pub(super) struct Hub<'a> {
    cache: &'a Cache,
    api: Api,
    commit: String,
    /// The names of its files, if the hub lists them.
    names: Option<BTreeSet<String>>,
    progress: Option<&'a dyn Fn(Progress<'_>)>,
    runtime: &'static Runtime,
}

impl<'a> Hub<'a> {
    /// Asks the hub which commit `revision` of the repository `id` is, and which files it has.
    pub(super) fn open(
        cache: &'a Cache,
        id: &str,
        revision: &str,
        progress: Option<&'a dyn Fn(Progress<'_>)>,
    ) -> Result<Self, Failure> {
        let api = Api::new(id, revision)?;
        let runtime = runtime()?;
        let listing = runtime.block_on(attempts(false, async || api.listing().await))?;
        let (commit, names) = match listing {
            Some(Listing { commit, names }) => (commit, Some(names)),
            None => (runtime.block_on(attempts(false, async || commit_of_config(&api).await))?, None),
        };
        Ok(Self { cache, api, commit, names, progress, runtime })
    }

    /// The commit that the revision stands for.
    pub(super) fn commit(&self) -> &str {
        &self.commit
    }

    /// The local path of the file `name`, which is downloaded unless cached. `None` if there is no such file.
    async fn fetch(&self, name: &str) -> Result<Option<PathBuf>, Failure> {
        let cached = self.cache.file(&self.commit, name);
        if etag_of(&cached).is_some_and(|etag| matches_etag(&cached, &etag).unwrap_or(false)) {
            return Ok(Some(cached));
        }
        let metadata = attempts(true, async || self.api.metadata(&self.commit, name).await).await?;
        let Some(Metadata { etag, size, .. }) = metadata else { return Ok(None) };
        let (blob, partial) = self.cache.blob(&etag);
        let is_complete = || blob.is_file() && matches_etag(&blob, &etag).unwrap_or(false);
        if !is_complete() {
            let _lock = self.cache.lock(&etag, || self.tell(Progress::Waiting { name }))?;
            let outcome = if is_complete() { Ok(()) } else { self.download(name, &etag, size, &partial, &blob).await };
            self.tell(Progress::Ended { name });
            outcome?;
        }
        Ok(Some(self.cache.link(&self.commit, name, &etag)?))
    }

    /// Completes `partial` and makes it the content `blob`. If a resumed download ends with the wrong checksum, it is
    /// tried once more from the start.
    async fn download(
        &self,
        name: &str,
        etag: &str,
        size: Option<u64>,
        partial: &Path,
        blob: &Path,
    ) -> Result<(), Failure> {
        self.cache.create_parent(partial)?;
        let mut is_fresh = !partial.exists();
        loop {
            attempts(true, async || self.append(name, size, partial).await).await?;
            if matches_etag(partial, etag).map_err(Error::io("read", partial))? {
                return Ok(std::fs::rename(partial, blob).map_err(|e| self.cache.cannot_write(blob, &e))?);
            }
            std::fs::remove_file(partial).map_err(|e| self.cache.cannot_write(partial, &e))?;
            if is_fresh {
                return Err(Failure::Refused(Error::Source(format!(
                    "{name} of `{}` does not match its checksum {etag} and was not kept: try again, or check for a proxy that alters files",
                    self.api.target.id
                ))));
            }
            is_fresh = true;
        }
    }

    /// Appends to `partial` what it lacks of the file's `size` bytes, and makes sure that they are on disk.
    async fn append(&self, name: &str, size: Option<u64>, partial: &Path) -> Result<(), Failure> {
        let cannot_write = |e| Failure::from(self.cache.cannot_write(partial, &e));
        let mut file = File::options().create(true).append(true).open(partial).map_err(cannot_write)?;
        let mut have = file.metadata().map_err(cannot_write)?.len();
        if size.is_some_and(|size| have > size) {
            file.set_len(0).map_err(cannot_write)?;
            have = 0;
        }
        let mut expected = size;
        if size != Some(have) {
            let mut response = self.api.content(&self.commit, name, have).await?;
            if have > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
                file.set_len(0).map_err(cannot_write)?;
                have = 0;
            }
            if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
                return Err(Failure::Passing("the server cannot send the rest of it".to_owned(), None));
            }
            expected = size.or_else(|| Some(have + response.content_length()?));
            self.tell(Progress::Received { name, bytes: have, total: expected });
            while let Some(chunk) = response.chunk().await.map_err(|error| self.api.target.of_transport(&error))? {
                have += chunk.len() as u64;
                if expected.is_some_and(|expected| have > expected) {
                    file.set_len(0).map_err(cannot_write)?;
                    break;
                }
                file.write_all(&chunk).map_err(cannot_write)?;
                self.tell(Progress::Received { name, bytes: have, total: expected });
            }
        }
        match expected {
            Some(expected) if have != expected => {
                Err(Failure::Passing(format!("received {have} bytes instead of {expected}"), None))
            }
            _ => file.sync_all().map_err(cannot_write),
        }
    }

    /// The error for a failure to fetch the file `name`.
    fn explain(&self, name: &str, failure: Failure) -> Error {
        match failure {
            Failure::Refused(error) => error,
            Failure::Unreachable(reason) | Failure::Passing(reason, _) => {
                Error::Hub(format!("cannot download {name} of `{}`: {reason}; run again to resume", self.api.target.id))
            }
        }
    }

    fn tell(&self, progress: Progress<'_>) {
        if let Some(listener) = self.progress {
            listener(progress);
        }
    }
}

impl Place for Hub<'_> {
    fn file(&self, name: &str) -> Result<Option<PathBuf>> {
        let may_exist = self.names.as_ref().is_none_or(|names| names.contains(name));
        let found = if may_exist { self.runtime.block_on(self.fetch(name)) } else { Ok(None) };
        let found = found.map_err(|failure| self.explain(name, failure))?;
        if found.is_none() {
            self.cache.mark_absent(&self.commit, name);
        }
        Ok(found)
    }

    fn names(&self) -> Result<Vec<String>> {
        let at_top = |name: &&String| !name.contains(['/', '\\']);
        Ok(self.names.iter().flatten().filter(at_top).cloned().collect())
    }

    fn downloads(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        format!("`{}` on the hub {}", self.api.target.id, self.api.target.endpoint)
    }
}

/// The revision's commit, which the hub gives along with a file that every model has.
async fn commit_of_config(api: &Api) -> Result<String, Failure> {
    match api.metadata(&api.target.revision, CONFIG).await? {
        Some(Metadata { commit: Some(commit), .. }) => Ok(commit),
        Some(_) => Err(Failure::Refused(Error::Source(format!(
            "{} does not say which commit of `{}` it gives; is it a hub (HF_ENDPOINT)?",
            api.target.endpoint, api.target.id
        )))),
        None => Err(api.target.of_status(StatusCode::NOT_FOUND, None)),
    }
}

/// Tries until it succeeds, is refused, or has failed too often. If the hub never answered, a failed connection is
/// final: the user should learn that at once.
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

/// The async runtime for requests. It is kept until the program ends, since dropping it would wait for a name server
/// that does not answer.
fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(unusable)?;
    Ok(RUNTIME.get_or_init(|| runtime))
}
