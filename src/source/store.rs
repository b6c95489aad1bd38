//! Writes into the cache: nothing gets its final name before it is complete and its checksum is right.
//!
//! Others may be able to write into the cache, too. So a link, a pipe or a device in place of one of its files is never
//! written to, nor is a folder that leads out of the cache.

use std::fs::{File, Metadata, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cache::{Cache, is_commit, matches_etag};
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
        if self.create_parent(&path).is_ok() {
            let _ = File::create_new(path);
        }
    }

    /// The path of the content with this ETag, and the path where it grows until complete.
    pub(super) fn blob(&self, etag: &str) -> (PathBuf, PathBuf) {
        (self.path(["blobs", etag]), self.path(["blobs", &format!("{etag}.incomplete")]))
    }

    /// Whether the content with this ETag is complete.
    pub(super) fn has(&self, etag: &str) -> bool {
        let blob = self.blob(etag).0;
        blob.symlink_metadata().is_ok_and(|found| found.is_file()) && matches_etag(&blob, etag).unwrap_or(false)
    }

    /// The ETag of the content that the file `name` of `commit` links to.
    pub(super) fn linked(&self, commit: &str, name: &str) -> Option<String> {
        let target = std::fs::read_link(self.file(commit, name)).ok()?;
        let etag = target.file_name()?.to_str()?.to_owned();
        (target == link_target(name, &etag)).then_some(etag)
    }

    /// Makes the content with this ETag the file `name` of `commit`.
    pub(super) fn link(&self, commit: &str, name: &str, etag: &str) -> Result<PathBuf> {
        let path = self.file(commit, name);
        let (target, blob) = (link_target(name, etag), self.blob(etag).0);
        let is_there = std::fs::read_link(&path).is_ok_and(|old| old == target) || is_copy(&path, &blob);
        if !is_there {
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
        let file = self.open_own(&path)?;
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

    /// Opens the file at `path` in the cache to write to it. Anything but a regular file of one name is replaced: what is
    /// written must not go elsewhere.
    pub(super) fn open_own(&self, path: &Path) -> Result<File> {
        self.create_parent(path)?;
        let open = || {
            if path.symlink_metadata().is_ok_and(|found| !is_own(&found)) {
                std::fs::remove_file(path)?;
            }
            let mut options = File::options();
            // To append would be too little for Windows, where such a file cannot be locked or cut.
            options.create(true).truncate(false).write(true);
            // A link may have come in between.
            #[cfg(target_os = "linux")]
            std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, rustix::fs::OFlags::NOFOLLOW.bits() as i32);
            options.open(path)
        };
        open().map_err(|e| self.cannot_write(path, &e))
    }

    /// Creates the folder of `path`, which must not lead out of the cache.
    fn create_parent<'a>(&self, path: &'a Path) -> Result<&'a Path> {
        let parent = path.parent().unwrap_or(Path::new("."));
        let repository = self.path([]);
        let is_lock = !path.starts_with(&repository);
        let base = if is_lock { self.root.join(".locks") } else { repository };
        // Where the cache and a model's folder lie is the user's choice; nobody has the locks elsewhere.
        let real = || if is_lock { Ok(self.root.canonicalize()?.join(".locks")) } else { base.canonicalize() };
        let inside = |folder: &Path| io::Result::Ok(folder.canonicalize()?.starts_with(real()?));
        let create = || {
            let existing = parent.ancestors().take_while(|folder| folder.starts_with(&base)).find(|f| f.exists());
            if existing.map_or(Ok(true), inside)? {
                std::fs::create_dir_all(parent)
            } else {
                Err(io::Error::other("a link there leads out of the cache"))
            }
        };
        create().map_err(|e| self.cannot_write(parent, &e))?;
        Ok(parent)
    }

    /// The free bytes on the disk of `path`, a file in the cache, if the system says.
    pub(super) fn free_space(&self, path: &Path) -> Option<u64> {
        #[cfg(target_os = "linux")]
        {
            let disk = rustix::fs::statvfs(path).ok()?;
            // Some file systems of networks do not know their size.
            (disk.f_blocks > 0).then(|| disk.f_bavail.saturating_mul(disk.f_frsize))
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = path;
            None
        }
    }

    /// The error when `path` in the cache cannot be written.
    pub(super) fn cannot_write(&self, path: &Path, error: &io::Error) -> Error {
        let way_out = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room, or",
            io::ErrorKind::FileTooLarge => "raise the limit on the size of files, or",
            // Ours, see above.
            io::ErrorKind::Other => "remove the link, or",
            _ => "make it writable, or",
        };
        let (path, root) = (path.display(), self.root.display());
        Error::Source(format!("cannot write {path}: {error}; {way_out} set HF_HUB_CACHE to a folder other than {root}"))
    }
}

/// Whether a file is a regular one that has no other name.
fn is_own(found: &Metadata) -> bool {
    #[cfg(unix)]
    let names = std::os::unix::fs::MetadataExt::nlink(found);
    #[cfg(not(unix))]
    let names = 1;
    found.is_file() && names == 1
}

/// What the file `name` of a commit links to.
fn link_target(name: &str, etag: &str) -> PathBuf {
    // Not joined by slashes, which Windows does not follow in links.
    let up = name.split('/').map(|_| Path::new(".."));
    [Path::new("..")].into_iter().chain(up).chain([Path::new("blobs"), Path::new(etag)]).collect()
}

/// Whether a file of a commit, which never changes, is a copy of its content: on Windows, where most users may make no links.
/// Elsewhere, another user of the cache may have put it there.
fn is_copy(path: &Path, blob: &Path) -> bool {
    let size = |path: &Path| path.symlink_metadata().ok().filter(Metadata::is_file).map(|file| file.len());
    cfg!(windows) && size(path).is_some_and(|found| size(blob) == Some(found))
}

fn symlink_or_copy(target: &Path, blob: &Path, path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    use std::os::unix::fs::symlink;
    #[cfg(windows)]
    use std::os::windows::fs::symlink_file as symlink;
    match symlink(target, path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(e),
        Ok(()) if path.symlink_metadata().is_ok() => Ok(()),
        // Some file systems have no links, Windows may not allow them, and Wine 8 only says that it made one.
        _ => std::fs::copy(blob, path).map(drop),
    }
}
