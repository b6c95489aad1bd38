//! Models named by their id on the hub: from the cache if it has them, else over the network.
//!
//! A snapshot that is complete in the cache is used as it is, without a request: starting is fast, works offline, and
//! gives the same model every time. What a branch has become since is asked only when something is missing.

use std::path::{Path, PathBuf};

use super::cache::{Cache, cache_folder, etag_of, matches_etag};
use super::local::{self, TOKENIZER, TokenizerChoice};
use super::{ConfigSource, ModelFiles, SHORT_NAMES, SourceOptions, TokenizerFiles};
use crate::checkpoint::{Checkpoint, ShardIndex, WeightFiles};
use crate::error::{Error, Result};

/// Finds the files of the model `id` (`owner/name`).
pub(super) fn find(id: &str, options: &SourceOptions) -> Result<ModelFiles> {
    let revision = options.revision.as_deref().unwrap_or("main");
    if !is_revision(revision) {
        return Err(Error::Usage(format!("`{revision}` is no revision: expected a branch, a tag or a commit")));
    }
    let Some(folder) = cache_folder() else {
        return Err(Error::Source("no folder to keep models in: set HF_HOME, or HOME".to_owned()));
    };
    let cache = Cache::new(folder, id);
    let tokenizer = match TokenizerChoice::of(options) {
        TokenizerChoice::Own if SHORT_NAMES.iter().any(|(_, known)| *known == id) => TokenizerChoice::BuiltIn,
        choice => choice,
    };
    let cached = find_cached(&cache, id, revision, &tokenizer);
    if let Ok(Some(Cached { files, conclusive: true })) = cached {
        return Ok(files);
    }
    if options.offline {
        return match cached {
            Ok(Some(cached)) => Ok(cached.files),
            Ok(None) => Err(Error::Source(format!(
                "`{id}` (revision {revision}) is not in the cache {}, and offline it cannot be fetched: go online once, or use a local folder or `--model demo`",
                cache.root.display()
            ))),
            Err(Error::Source(missing)) => {
                Err(Error::Source(format!("{missing}; offline it cannot be completed: go online once")))
            }
            Err(error) => Err(error),
        };
    }
    let makeshift = cached.ok().flatten().map(|cached| cached.files);
    fetch(&cache, id, revision, &tokenizer, options.progress, makeshift)
}

/// Finds the files on the hub and fetches those that the cache lacks; falls back to `makeshift` if the hub is out of reach.
#[cfg(feature = "hub")]
fn fetch(
    cache: &Cache,
    id: &str,
    revision: &str,
    tokenizer: &TokenizerChoice,
    progress: bool,
    makeshift: Option<ModelFiles>,
) -> Result<ModelFiles> {
    use super::download::Hub;
    use super::failure::Failure;

    let hub = match Hub::open(cache, id, revision, progress) {
        Ok(hub) => hub,
        Err(Failure::Refused(error)) => return Err(error),
        Err(Failure::Unreachable(reason) | Failure::Passing(reason, _)) => {
            return makeshift.ok_or_else(|| {
                Error::Source(format!(
                    "cannot reach the hub for `{id}`: {reason}; without it, use `--model demo` or a local folder (`--model FOLDER`)"
                ))
            });
        }
    };
    let files = local::find(&hub, id, tokenizer)?;
    cache.set_commit(revision, hub.commit())?;
    Ok(files)
}

#[cfg(not(feature = "hub"))]
fn fetch(
    cache: &Cache,
    id: &str,
    revision: &str,
    _: &TokenizerChoice,
    _: bool,
    makeshift: Option<ModelFiles>,
) -> Result<ModelFiles> {
    makeshift.ok_or_else(|| {
        Error::Unsupported(format!(
            "`{id}` (revision {revision}) is not in the cache {}, and this program was built without the feature `hub`, which could download it: use a local folder or `--model demo`",
            cache.root.display()
        ))
    })
}

/// A model in the cache.
struct Cached {
    files: ModelFiles,
    /// Whether the hub could have nothing to add for this commit.
    conclusive: bool,
}

/// What the cache has of a model; none if it does not have the revision at all.
fn find_cached(cache: &Cache, id: &str, revision: &str, tokenizer: &TokenizerChoice) -> Result<Option<Cached>> {
    let Some(commit) = cache.commit(revision) else { return Ok(None) };
    let snapshot = cache.snapshot(commit);
    let mut files = local::find(&snapshot, id, tokenizer)?;
    if let Some(path) = damaged(&files) {
        return Err(Error::format(path, "the cached file is damaged; go online to fetch it again"));
    }
    // Without an own tokenizer the built-in one is a guess, which is good only if the model is known to have none.
    if files.tokenizer == TokenizerFiles::BuiltIn && snapshot.is_unknown(TOKENIZER) {
        files.tokenizer = TokenizerFiles::None;
    }
    Ok(Some(Cached { files, conclusive: snapshot.is_conclusive() }))
}

/// The first cached file whose content is not what its checksum says. To start fast, the checksum of a large file is
/// computed only if the weights cannot be opened, as is so when a part is missing.
fn damaged(files: &ModelFiles) -> Option<PathBuf> {
    const LARGE: u64 = 4 << 20;
    let opens = Checkpoint::open(&files.weights).is_ok();
    let suspicious = |path: &Path| !opens || path.metadata().is_ok_and(|metadata| metadata.len() < LARGE);
    let differs =
        |path: &Path| etag_of(path).is_some_and(|etag| matches_etag(path, &etag).is_ok_and(|matches| !matches));
    paths(files).into_iter().find(|path| suspicious(path) && differs(path))
}

/// The files on disk that make up a model.
fn paths(files: &ModelFiles) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    if let ConfigSource::File(path) = &files.config {
        paths.push(path.clone());
    }
    paths.extend(files.generation_config.clone());
    match &files.tokenizer {
        TokenizerFiles::TokenizerJson(path) => paths.push(path.clone()),
        TokenizerFiles::VocabAndMerges(vocab, merges) => paths.extend([vocab.clone(), merges.clone()]),
        TokenizerFiles::BuiltIn | TokenizerFiles::Gguf(_) | TokenizerFiles::None => {}
    }
    match &files.weights {
        WeightFiles::Safetensors(path) | WeightFiles::PyTorch(path) | WeightFiles::Gguf(path) => {
            paths.push(path.clone())
        }
        WeightFiles::Sharded(index) => {
            paths.push(index.clone());
            let shards = ShardIndex::read(index).into_iter().flat_map(|index| index.shards().to_vec());
            paths.extend(shards.map(|shard| index.with_file_name(shard)));
        }
        WeightFiles::Static(_) => {}
    }
    paths
}

/// Whether `revision` can be the name of a branch, a tag or a commit; such a name is safe as a relative path, too.
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
