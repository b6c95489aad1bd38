//! Models named by their hub id: from the cache if possible, else over the network.
//!
//! A complete snapshot in the cache is used as it is, without a request: starting is fast, works offline, and gives the
//! same model every time. The hub is asked what a branch has become only when something is missing.

use std::io::{self, Cursor};
use std::path::{Path, PathBuf};

use super::cache::{Cache, cache_folder, content_matches_etag, etag_of, matches_etag};
use super::local::{self, Found, TOKENIZER, TokenizerChoice};
use super::{OpenedModel, SHORT_NAMES, SourceOptions, adapter};
use crate::checkpoint::lora::Adapter;
use crate::error::{Error, Result};
use crate::files::SmallFile;
use crate::tokenizer::TokenizerFiles;

/// Finds and opens the model `id` (`owner/name`).
pub(super) fn open(id: &str, options: &SourceOptions<'_>, tokenizer: TokenizerChoice) -> Result<OpenedModel> {
    let revision = options.revision.as_deref().unwrap_or("main");
    if !is_revision(revision) {
        return Err(Error::Usage(format!("`{revision}` cannot be a revision: expected a branch, a tag or a commit")));
    }
    let Some(folder) = cache_folder() else { return Err(no_folder()) };
    let cache = Cache::new(folder, id);
    let tokenizer = match tokenizer {
        TokenizerChoice::Own(_) if SHORT_NAMES.iter().any(|(_, known)| *known == id) => TokenizerChoice::BuiltIn,
        choice => choice,
    };
    let cached = open_cached(&cache, id, revision, &tokenizer, options);
    if let Ok(Some(Cached { model, conclusive: true })) = cached {
        return model;
    }
    if options.offline {
        return match cached {
            Ok(Some(cached)) => cached.model,
            Ok(None) => Err(Error::Hub(format!(
                "`{id}` (revision {revision}) is not in the cache {} and cannot be fetched offline: go online once",
                cache.root.display()
            ))),
            Err(Error::Source(missing) | Error::NotFound(missing)) => {
                Err(Error::Source(format!("{missing}; it cannot be completed offline: go online once")))
            }
            Err(error) => Err(error),
        };
    }
    let makeshift = cached.ok().flatten().map(|cached| cached.model);
    fetch(&cache, id, revision, &tokenizer, options, makeshift)
}

/// Finds and opens the adapter `id` (`owner/name`), as its branch `main` has it.
pub(super) fn open_adapter(id: &str, options: &SourceOptions<'_>) -> Result<Adapter> {
    let Some(folder) = cache_folder() else { return Err(no_folder()) };
    let cache = Cache::new(folder, id);
    let cached = cache.commit("main").map(|commit| adapter::in_place(&cache.snapshot(commit)));
    match cached {
        Some(Ok(adapter)) => Ok(adapter),
        _ if options.offline => Err(Error::Hub(format!(
            "the adapter `{id}` is not in the cache {} and cannot be fetched offline: go online once",
            cache.root.display()
        ))),
        _ => fetch_adapter(&cache, id, options),
    }
}

#[cfg(feature = "hub")]
fn fetch_adapter(cache: &Cache, id: &str, options: &SourceOptions<'_>) -> Result<Adapter> {
    use super::download::Hub;
    use super::failure::Failure;

    let hub = Hub::open(cache, id, "main", options.progress).map_err(|failure| match failure {
        Failure::Refused(error) => error,
        Failure::Unreachable(reason) | Failure::Passing(reason, _) => {
            Error::Hub(format!("cannot reach the hub for the adapter `{id}`: {reason}"))
        }
    })?;
    let adapter = adapter::in_place(&hub)?;
    cache.set_commit("main", hub.commit())?;
    Ok(adapter)
}

#[cfg(not(feature = "hub"))]
fn fetch_adapter(_: &Cache, id: &str, _: &SourceOptions<'_>) -> Result<Adapter> {
    Err(Error::Hub(format!(
        "the adapter `{id}` is not in the cache, and this program was built without the feature `hub`, which downloads"
    )))
}

fn no_folder() -> Error {
    Error::Source("no folder for downloaded models: set HF_HOME or HOME".to_owned())
}

/// Finds the files on the hub and fetches those that the cache lacks; uses `makeshift` if the hub is out of reach.
#[cfg(feature = "hub")]
fn fetch(
    cache: &Cache,
    id: &str,
    revision: &str,
    tokenizer: &TokenizerChoice,
    options: &SourceOptions<'_>,
    makeshift: Option<Result<OpenedModel>>,
) -> Result<OpenedModel> {
    use super::download::Hub;
    use super::failure::Failure;

    let hub = match Hub::open(cache, id, revision, options.progress) {
        Ok(hub) => hub,
        Err(Failure::Refused(error)) => return Err(error),
        Err(Failure::Unreachable(reason) | Failure::Passing(reason, _)) => {
            return makeshift.unwrap_or_else(|| Err(Error::Hub(format!("cannot reach the hub for `{id}`: {reason}"))));
        }
    };
    let found = local::find(&hub, id, tokenizer, options)?;
    cache.set_commit(revision, hub.commit())?;
    let mut model = found.open(options)?;
    model.revision = Some(hub.commit().to_owned());
    Ok(model)
}

#[cfg(not(feature = "hub"))]
fn fetch(
    cache: &Cache,
    id: &str,
    revision: &str,
    _: &TokenizerChoice,
    _: &SourceOptions<'_>,
    makeshift: Option<Result<OpenedModel>>,
) -> Result<OpenedModel> {
    makeshift.unwrap_or_else(|| {
        Err(Error::Hub(format!(
            "`{id}` (revision {revision}) is not in the cache {}, and this program was built without the feature `hub`, which downloads models",
            cache.root.display()
        )))
    })
}

/// A model in the cache.
struct Cached {
    /// The model, or why its files, which match the hub's, cannot be opened.
    model: Result<OpenedModel>,
    /// Whether the hub has nothing to add for this commit.
    conclusive: bool,
}

/// What the cache has of a model; `None` if it does not have the revision at all.
fn open_cached(
    cache: &Cache,
    id: &str,
    revision: &str,
    tokenizer: &TokenizerChoice,
    options: &SourceOptions<'_>,
) -> Result<Option<Cached>> {
    let Some(commit) = cache.commit(revision) else { return Ok(None) };
    let snapshot = cache.snapshot(commit.clone());
    let found = local::find(&snapshot, id, tokenizer, options)?;
    let mut model = found.open(options);
    if let Some(path) = damaged(&found, model.is_ok()) {
        return Err(Error::format(path, "the cached file is damaged; go online to fetch it again"));
    }
    // Without an own tokenizer, the built-in one is a guess; it only counts if the model is known to have none.
    if let Ok(model) = &mut model {
        model.revision = Some(commit);
        if matches!(model.tokenizer, TokenizerFiles::BuiltIn) && snapshot.is_unknown(TOKENIZER) {
            model.tokenizer = TokenizerFiles::None;
        }
    }
    Ok(Some(Cached { model, conclusive: snapshot.is_conclusive() }))
}

/// The first cached file that does not match its checksum. To start fast, large files are only checked if the weights
/// cannot be opened, for example because a part is missing.
fn damaged(found: &Found, opens: bool) -> Option<PathBuf> {
    const LARGE: u64 = 4 << 20;
    let suspicious = |path: &Path| !opens || path.metadata().is_ok_and(|metadata| metadata.len() < LARGE);
    let is_damaged = |path: &Path, matches: &dyn Fn(&str) -> io::Result<bool>| {
        suspicious(path) && etag_of(path).is_some_and(|etag| matches(&etag).is_ok_and(|matches| !matches))
    };
    // Small files are read as a whole here, and not again later.
    let read = |file: &&SmallFile| {
        let content = |etag: &str| match file.stored() {
            Ok(bytes) => content_matches_etag(Cursor::new(bytes), etag),
            Err(_) => matches_etag(file.path(), etag),
        };
        is_damaged(file.path(), &content)
    };
    let mapped = |path: &&PathBuf| is_damaged(path, &|etag| matches_etag(path, etag));
    let damaged = found.small.iter().find(read).map(|file| file.path().to_owned());
    damaged.or_else(|| found.weight_files().iter().find(mapped).cloned())
}

/// Whether `revision` can be the name of a branch, a tag or a commit; such a name is also safe as a relative path.
/// Reference: `git check-ref-format`.
fn is_revision(revision: &str) -> bool {
    revision.len() <= 250
        && !revision.contains("..")
        && revision.bytes().all(|b| b.is_ascii_graphic() && !b"~^:?*[\\".contains(&b))
        && revision.split('/').all(|part| !part.is_empty() && !part.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_names_of_branches_tags_or_commits_and_nothing_else() {
        for revision in ["main", "v1.0", "refs/pr/1", "feature/x-y_z", "0123456789abcdef0123456789abcdef01234567"] {
            assert!(is_revision(revision), "{revision}");
        }
        for revision in ["", "..", "../x", "a/../b", "/etc", "a//b", "a/", ".git", "a b", "a\\b", "a\nb", "a?b", "é"] {
            assert!(!is_revision(revision), "{revision}");
        }
    }
}
