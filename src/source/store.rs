//! Writes into the cache: nothing gets its final name before it is complete and its checksum is right.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cache::{Cache, is_commit};
use crate::error::{Error, Result};

impl Cache {
    /// Records which commit `revision` stands for.
    pub(super) fn set_commit(&self, revision: &str, commit: &str) -> Result<()> {
        if is_commit(revision) || self.commit(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        self.put(&self.path(["refs", revision]), |path| std::fs::write(path, commit))
    }

    /// Records that `commit` has no file called `name`. This only saves a request later, so it may fail.
    pub(super) fn mark_absent(&self, commit: &str, name: &str) {
        let path = self.path([".no_exist", commit, name]);
        if !path.exists() && self.create_parent(&path).is_ok() {
            let _ = File::create(path);
        }
    }

    /// The path of the content with this ETag, and the path where it grows until complete.
    pub(super) fn blob(&self, etag: &str) -> (PathBuf, PathBuf) {
        (self.path(["blobs", etag]), self.path(["blobs", &format!("{etag}.incomplete")]))
    }

    /// Makes the content with this ETag the file `name` of `commit`.
    pub(super) fn link(&self, commit: &str, name: &str, etag: &str) -> Result<PathBuf> {
        let path = self.file(commit, name);
        let up = "../".repeat(name.split('/').count() + 1);
        let target = PathBuf::from(format!("{up}blobs/{etag}"));
        if !std::fs::read_link(&path).is_ok_and(|old| old == target) {
            let blob = self.blob(etag).0;
            self.put(&path, |path| symlink_or_copy(&target, &blob, path))?;
        }
        Ok(path)
    }

    /// Has `make` create a file under another name, which then replaces `path` atomically.
    fn put(&self, path: &Path, make: impl FnMut(&Path) -> io::Result<()>) -> Result<()> {
        let folder = self.create_parent(path)?;
        let made = tempfile::Builder::new().prefix(".").make_in(folder, make);
        made.and_then(|made| Ok(made.persist(path)?)).map(drop).map_err(|e| self.cannot_write(path, &e))
    }

    /// Waits until no other process downloads the content with this ETag. The lock lasts as long as the returned file.
    pub(super) fn lock(&self, etag: &str, waiting: impl Fn()) -> Result<File> {
        let path = self.root.join(".locks").join(&self.folder).join(format!("{etag}.lock"));
        self.create_parent(&path)?;
        let file = File::options().create(true).append(true).open(&path);
        let file = file.map_err(|e| self.cannot_write(&path, &e))?;
        loop {
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => {
                    waiting();
                    std::thread::sleep(Duration::from_millis(100));
                }
                // A file system without locks: two downloads may then disturb each other, and the checksum will tell.
                Ok(()) | Err(TryLockError::Error(_)) => return Ok(file),
            }
        }
    }

    pub(super) fn create_parent<'a>(&self, path: &'a Path) -> Result<&'a Path> {
        let parent = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent).map_err(|e| self.cannot_write(parent, &e))?;
        Ok(parent)
    }

    /// The error when `path` in the cache cannot be written.
    pub(super) fn cannot_write(&self, path: &Path, error: &io::Error) -> Error {
        let way_out = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room, or",
            _ => "make it writable, or",
        };
        let (path, root) = (path.display(), self.root.display());
        Error::Source(format!("cannot write {path}: {error}; {way_out} set HF_HUB_CACHE to a folder other than {root}"))
    }
}

#[cfg(unix)]
fn symlink_or_copy(target: &Path, blob: &Path, path: &Path) -> io::Result<()> {
    match std::os::unix::fs::symlink(target, path) {
        // Some file systems have no links.
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => std::fs::copy(blob, path).map(drop),
        outcome => outcome,
    }
}

#[cfg(not(unix))]
fn symlink_or_copy(_: &Path, blob: &Path, path: &Path) -> io::Result<()> {
    std::fs::copy(blob, path).map(drop)
}
