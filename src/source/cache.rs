//! The cache of downloaded models, in the layout of Python's `huggingface_hub`, so that each finds what the other has
//! downloaded:
//!
//! ```text
//! models--owner--name/refs/main                            the commit that a branch or tag stands for
//! models--owner--name/snapshots/COMMIT/model.safetensors   a link to the blob
//! models--owner--name/blobs/ETAG                           the content, named by its checksum
//! models--owner--name/.no_exist/COMMIT/tokenizer.json      empty: the commit has no such file
//! .locks/models--owner--name/ETAG.lock                     held by whoever downloads the blob
//! ```
//!
//! Reference: huggingface_hub 2.4.0, `file_download.py`.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use sha1::{Digest, Sha1};
use sha2::Sha256;

use super::local::{Folder, Place};
use crate::error::Result;
use crate::files::read_at_most;
use crate::files::user_paths::{by_environment, home};

/// The folder of downloaded models: `HF_HUB_CACHE`, else `HF_HOME/hub`, else `XDG_CACHE_HOME/huggingface/hub`, else
/// `~/.cache/huggingface/hub`. `None` if there is no home folder either.
#[must_use]
pub fn cache_folder() -> Option<PathBuf> {
    Some(cache_folder_and_variable()?.0)
}

/// The same, with the environment variable that says so, if one does.
#[must_use]
pub fn cache_folder_and_variable() -> Option<(PathBuf, Option<&'static str>)> {
    /// Each with what comes below the folder that it names.
    const VARIABLES: [(&str, &str); 4] = [
        ("HF_HUB_CACHE", ""),
        ("HUGGINGFACE_HUB_CACHE", ""),
        ("HF_HOME", "hub"),
        ("XDG_CACHE_HOME", "huggingface/hub"),
    ];
    let named = VARIABLES.into_iter().find_map(|(variable, below)| {
        let mut folder = by_environment(variable)?;
        folder.extend(Path::new(below));
        Some((folder, Some(variable)))
    });
    named.or_else(|| Some((hf_home()?.join("hub"), None)))
}

/// The folder of Hugging Face's own files: `HF_HOME`, else `huggingface` in the user's cache folder.
pub(super) fn hf_home() -> Option<PathBuf> {
    let user_cache = || by_environment("XDG_CACHE_HOME").or_else(|| Some(home()?.join(".cache")));
    by_environment("HF_HOME").or_else(|| Some(user_cache()?.join("huggingface")))
}

/// Whether `revision` is a commit and so always names the same content.
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|b| b.is_ascii_hexdigit())
}

/// What the cache has of one repository.
#[derive(Debug)]
pub(super) struct Cache {
    /// The cache of all repositories.
    pub(super) root: PathBuf,
    /// `models--owner--name`
    pub(super) folder: String,
}

impl Cache {
    pub(super) fn new(root: PathBuf, id: &str) -> Self {
        Self { root, folder: format!("models--{}", id.replace('/', "--")) }
    }

    /// The path of `parts` in the repository's folder.
    pub(super) fn path<const N: usize>(&self, parts: [&str; N]) -> PathBuf {
        let mut path = self.root.join(&self.folder);
        path.extend(parts);
        path
    }

    /// The commit that `revision` stood for when the hub was last asked.
    pub(super) fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let path = self.path(["refs", revision]);
        // Neither a link nor a pipe can be ours, and a commit is short.
        path.symlink_metadata().ok().filter(Metadata::is_file)?;
        let commit = read_at_most(&path, 100).ok()?;
        Some(str::from_utf8(&commit).ok()?.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// The path of the file `name` of `commit`, whether or not it is cached.
    pub(super) fn file(&self, commit: &str, name: &str) -> PathBuf {
        self.path(["snapshots", commit, name])
    }

    /// The cached files of `commit`.
    pub(super) fn snapshot(&self, commit: String) -> Snapshot<'_> {
        Snapshot { cache: self, commit, unknown: RefCell::default() }
    }
}

/// The ETag of the content that `path`, a file of a snapshot, links to.
pub(super) fn etag_of(path: &Path) -> Option<String> {
    std::fs::read_link(path).ok()?.file_name().and_then(OsStr::to_str).map(str::to_owned)
}

/// Whether the content of the file at `path` matches its ETag.
pub(super) fn matches_etag(path: &Path, etag: &str) -> io::Result<bool> {
    content_matches_etag(File::open(path)?, etag)
}

/// Whether `content` matches its ETag. The hub's ETags are checksums: SHA-256 for files in Git LFS or Xet, Git's SHA-1
/// (or, on a mirror, the plain one) for others. Other forms of ETag match anything.
pub(super) fn content_matches_etag(mut content: impl Read + Seek, etag: &str) -> io::Result<bool> {
    if !etag.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(true);
    }
    let is = |digest: String| digest.eq_ignore_ascii_case(etag);
    match etag.len() {
        64 => Ok(is(digest(&mut content, Sha256::new())?)),
        40 => {
            let length = content.seek(SeekFrom::End(0))?;
            let blob = Sha1::new_with_prefix(format!("blob {length}\0"));
            Ok(is(digest(&mut content, blob)?) || is(digest(&mut content, Sha1::new())?))
        }
        _ => Ok(true),
    }
}

/// The digest of `content`, in hexadecimal.
fn digest(content: &mut (impl Read + Seek), mut hash: impl Digest) -> io::Result<String> {
    let mut buffer = vec![0; 1 << 18];
    content.rewind()?;
    loop {
        match content.read(&mut buffer)? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// The files of one commit that are in the cache.
pub(super) struct Snapshot<'a> {
    cache: &'a Cache,
    commit: String,
    /// Names that were asked for, and that the cache does not know to be in the commit or not.
    unknown: RefCell<Vec<String>>,
}

impl Snapshot<'_> {
    /// Whether a file called `name` was asked for that is not cached but may exist on the hub.
    pub(super) fn is_unknown(&self, name: &str) -> bool {
        self.unknown.borrow().iter().any(|unknown| unknown == name)
    }

    /// Whether every answer so far is what the hub would have said.
    pub(super) fn is_conclusive(&self) -> bool {
        self.unknown.borrow().is_empty()
    }
}

impl Place for Snapshot<'_> {
    fn file(&self, name: &str) -> Result<Option<PathBuf>> {
        let path = self.cache.file(&self.commit, name);
        if path.is_file() {
            return Ok(Some(path));
        }
        if !self.cache.path([".no_exist", &self.commit, name]).exists() {
            self.unknown.borrow_mut().push(name.to_owned());
        }
        Ok(None)
    }

    fn names(&self) -> Result<Vec<String>> {
        let folder = self.cache.path(["snapshots", &self.commit]);
        if folder.is_dir() { Folder(folder).names() } else { Ok(vec![]) }
    }

    fn describe(&self) -> String {
        format!("the cached snapshot {}", self.cache.path(["snapshots", &self.commit]).display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_are_checksums_of_git_lfs_or_git() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "hello\n").expect("written");
        let matches = |etag: &str| matches_etag(file.path(), etag).expect("readable");
        // From `sha256sum`, `git hash-object` and `sha1sum`.
        assert!(matches("5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"));
        assert!(matches("ce013625030ba8dba906f756967f9e9ca394464a"));
        assert!(!matches("ce013625030ba8dba906f756967f9e9ca394464b"));
        assert!(!matches("5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be04"));
        assert!(matches("f572d396fae9206628714fb2ce00f72e94f2258f"));
        assert!(matches("other-kind"), "says nothing about the content");
    }
}
