//! A repository on the hub as a place to find a model: files are downloaded into the cache on demand.
//!
//! An interrupted download is kept and resumed by the next attempt or the next run; it becomes a file of the cache once
//! it is complete and its checksum is right.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use reqwest::StatusCode;
use tokio::runtime::Runtime;

use super::Progress;
use super::api::{Answer, Api, Listing, Metadata, unusable};
use super::asking::Asking;
use super::cache::{Cache, matches_etag};
use super::failure::Failure;
use super::local::{ADAPTER_CONFIG, CONFIG, GENERATION_CONFIG, Place};
use super::retry::attempts;
use super::weights::{HPARAMS, LARGEST_INDEX, LATEST, has_extension_of_weights};
use crate::config::LARGEST_CONFIG;
use crate::error::{Error, Result};
use crate::tokenizer::LARGEST_FILE as LARGEST_TOKENIZER_FILE;

/// One commit of a repository.
pub(super) struct Hub<'a> {
    cache: &'a Cache,
    api: Api,
    asking: Asking<'a>,
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
        let asking = Asking::new(progress);
        let listing = async || asking.wait(&api, api.listing()).await;
        let listing = attempts("the list of files", false, progress, listing);
        let (commit, names) = match runtime.block_on(listing)? {
            Some(Listing { commit, names }) => (commit, Some(names)),
            None => {
                let commit = async || asking.wait(&api, commit_of_config(&api)).await;
                (runtime.block_on(attempts(CONFIG, false, progress, commit))?, None)
            }
        };
        Ok(Self { cache, api, asking, commit, names, progress, runtime })
    }

    /// The commit that the revision stands for.
    pub(super) fn commit(&self) -> &str {
        &self.commit
    }

    /// The local path of the file `name`, which is downloaded unless cached. `None` if there is no such file.
    async fn fetch(&self, name: &str) -> Result<Option<PathBuf>, Failure> {
        if !is_plain(name) {
            let problem = format!("has a file called {name:?}, a name that cannot be used");
            return Err(Error::Source(format!("{} {problem}", self.describe())).into());
        }
        if self.cache.linked(&self.commit, name).is_some_and(|etag| self.cache.has(&etag)) {
            return Ok(Some(self.cache.file(&self.commit, name)));
        }
        let metadata = async || self.asking.wait(&self.api, self.api.metadata(&self.commit, name)).await;
        let metadata = self.attempts(name, metadata).await?;
        let Some(Metadata { etag, size, .. }) = metadata else { return Ok(None) };
        if !self.cache.has(&etag) {
            let _lock = self.cache.lock(&etag, || self.tell(Progress::Waiting { name }))?;
            let outcome = if self.cache.has(&etag) { Ok(()) } else { self.download(name, &etag, size).await };
            self.tell(Progress::Ended { name });
            outcome?;
        }
        Ok(Some(self.cache.link(&self.commit, name, &etag)?))
    }

    /// Downloads the content with this ETag into the cache. If one that was resumed ends with the wrong checksum,
    /// it is tried once more from the start.
    async fn download(&self, name: &str, etag: &str, size: Option<u64>) -> Result<(), Failure> {
        let (blob, partial) = self.cache.blob(etag);
        let mut is_second = false;
        loop {
            let in_one_piece = self.complete(name, size, &partial).await?;
            if matches_etag(&partial, etag).map_err(Error::io("read", &partial))? {
                return Ok(std::fs::rename(&partial, &blob).map_err(|e| self.cache.cannot_write(&blob, &e))?);
            }
            std::fs::remove_file(&partial).map_err(|e| self.cache.cannot_write(&partial, &e))?;
            if in_one_piece || is_second {
                return Err(Failure::Refused(Error::Source(format!(
                    "{name} of `{}` does not match its checksum {etag} and was not kept: try again, or check for a proxy that alters files",
                    self.api.target.id
                ))));
            }
            is_second = true;
        }
    }

    /// Completes `partial`, however often the connection breaks, as long as each round of attempts gets on.
    /// Returns whether it all came in one piece.
    async fn complete(&self, name: &str, size: Option<u64>, partial: &Path) -> Result<bool, Failure> {
        /// Bytes that are worth another round.
        const PROGRESS: u64 = 1 << 20;
        let len = || partial.metadata().map_or(0, |metadata| metadata.len());
        let mut asks_for_rest = true;
        loop {
            let before = len();
            match self.attempts(name, async || self.append(name, size, partial, &mut asks_for_rest).await).await {
                Err(Failure::Passing(_, None) | Failure::Unreachable(_)) if len() >= before + PROGRESS => {}
                outcome => return outcome,
            }
        }
    }

    /// Appends to `partial` what it lacks of the file's `size` bytes, and makes sure that they are on disk.
    /// Returns whether that was all of it.
    ///
    /// Whatever the server answers, what is there may be right: only the checksum will tell. From a server that gives
    /// something else than the rest, we ask for the whole file and pass over its beginning.
    async fn append(
        &self,
        name: &str,
        size: Option<u64>,
        partial: &Path,
        asks_for_rest: &mut bool,
    ) -> Result<bool, Failure> {
        let cannot_write = |e| Failure::from(self.cache.cannot_write(partial, &e));
        let mut file = self.cache.open_own(partial)?;
        let mut have = file.metadata().map_err(cannot_write)?.len();
        if size.is_some_and(|size| have > size) {
            file.set_len(0).map_err(cannot_write)?;
            have = 0;
        }
        file.seek(SeekFrom::Start(have)).map_err(cannot_write)?;
        if size == Some(have) {
            return file.sync_all().map(|()| false).map_err(cannot_write);
        }
        if let Some(size) = size {
            self.check_size(name, size, have, partial)?;
        }
        let from = if *asks_for_rest { have } else { 0 };
        let (start, total, mut body) = match self.api.content(&self.commit, name, from).await? {
            Answer::Content { start, total, body } => (start, total, body),
            Answer::Useless(reason) => {
                *asks_for_rest = false;
                return Err(Failure::Passing(reason, None));
            }
        };
        let size = match (size, total) {
            (Some(size), Some(total)) if size != total => {
                let server = body.server();
                return Err(Failure::Refused(Error::Source(format!(
                    "{server} sends {total} bytes for {name} of `{}`, which should have {size}: try again, or check for a proxy that alters files",
                    self.api.target.id
                ))));
            }
            (Some(size), _) => size,
            (None, Some(total)) => {
                self.check_size(name, total, have.min(total), partial)?;
                total
            }
            // As in huggingface_hub: what has no size may have no end.
            (None, None) => {
                let server = body.server();
                let problem = format!("{server} does not say how many bytes {name} of `{}` has", self.api.target.id);
                return Err(Failure::Refused(Error::Source(format!("{problem}; is it a hub (HF_ENDPOINT)?"))));
            }
        };
        let is_all = have == 0;
        let mut known = have - start;
        let total = Some(size);
        self.tell(Progress::Received { name, bytes: have, total });
        while let Some(chunk) = body.chunk().await? {
            let new = &chunk[chunk.len().min(usize::try_from(known).unwrap_or(usize::MAX))..];
            known -= (chunk.len() - new.len()) as u64;
            have += new.len() as u64;
            if have > size {
                file.set_len(0).map_err(cannot_write)?;
                break;
            }
            file.write_all(new).map_err(cannot_write)?;
            self.tell(Progress::Received { name, bytes: have, total });
        }
        let received = have - known;
        match received.cmp(&size) {
            Ordering::Equal => file.sync_all().map(|()| is_all).map_err(cannot_write),
            Ordering::Less => Err(Failure::Passing(format!("received {received} bytes instead of {size}"), None)),
            Ordering::Greater => Err(Failure::Passing(format!("received more than its {size} bytes"), None)),
        }
    }

    /// Checks that a file of `size` bytes, of which the cache has `have`, is no larger than such a file can be, and
    /// fits on the disk.
    fn check_size(&self, name: &str, size: u64, have: u64, partial: &Path) -> Result<()> {
        let largest = largest_size(name).unwrap_or(u64::MAX);
        if size > largest {
            let place = self.describe();
            let problem = format!("has {size} bytes, more than the {largest} that such a file can have");
            return Err(Error::Source(format!("{name} of {place} {problem}")));
        }
        match self.cache.free_space(partial) {
            Some(free) if free < size - have => Err(Error::Source(format!(
                "no room for {name} of `{}`, which takes another {} bytes: {free} are free in {}; make room, or set HF_HUB_CACHE to a folder on another disk",
                self.api.target.id,
                size - have,
                self.cache.root.display()
            ))),
            _ => Ok(()),
        }
    }

    /// Tries to get `name`, and tells of every retry.
    async fn attempts<T>(&self, name: &str, attempt: impl AsyncFnMut() -> Result<T, Failure>) -> Result<T, Failure> {
        attempts(name, true, self.progress, attempt).await
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
        format!("`{}` on the hub {}", self.api.target.id, self.api.target.endpoint.shown)
    }
}

/// The revision's commit, which the hub gives along with a file that every model has.
async fn commit_of_config(api: &Api) -> Result<String, Failure> {
    match api.metadata(&api.target.revision, CONFIG).await? {
        Some(Metadata { commit: Some(commit), .. }) => Ok(commit),
        Some(_) => Err(Failure::Refused(Error::Source(format!(
            "{} does not say which commit of `{}` it gives; is it a hub (HF_ENDPOINT)?",
            api.target.endpoint.shown, api.target.id
        )))),
        None => Err(api.target.of_status(StatusCode::NOT_FOUND, &api.target.endpoint.address, None)),
    }
}

/// The most bytes that the file called `name` can have: as many as its reader takes. `None` for weights.
fn largest_size(name: &str) -> Option<u64> {
    match name {
        name if name.ends_with(".index.json") => Some(LARGEST_INDEX),
        CONFIG | GENERATION_CONFIG | ADAPTER_CONFIG | HPARAMS | LATEST => Some(LARGEST_CONFIG),
        name if has_extension_of_weights(name) || name.contains(".data-") => None,
        _ => Some(LARGEST_TOKENIZER_FILE),
    }
}

/// Whether a file may have this name in the cache: a path that leads down from the commit's folder on every system.
fn is_plain(name: &str) -> bool {
    /// Bytes of a name, and of a path, on common file systems.
    const LONGEST: (usize, usize) = (255, 1024);
    let part = |part: &str| !matches!(part, "" | "." | "..") && part.len() <= LONGEST.0;
    name.len() <= LONGEST.1 && !name.contains(['\\', ':', '\0']) && name.split('/').all(part)
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
