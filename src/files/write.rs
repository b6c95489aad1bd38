//! Writes files that appear whole or not at all.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::{NamedTempFile, TempPath};

use crate::error::{Error, Result};

/// Writes the file at `path` with `fill`, by way of a temporary file beside it that takes its name once everything is
/// on disk. An error leaves no new file, and an existing one unchanged; so does a signal, where the system has files
/// without a name. A link stays, and its target is written. Anything but a regular file, such as `/dev/stdout` or a named
/// pipe, is written to directly.
///
/// # Errors
/// [`Error::Io`] with the path, and the errors of `fill`.
pub fn atomically(path: &Path, fill: impl FnOnce(&mut BufWriter<&File>) -> Result<()>) -> Result<()> {
    let target = target(path).map_err(Error::io("write", path))?;
    if is_of_this_process(&target) || std::fs::metadata(&target).is_ok_and(|metadata| !metadata.is_file()) {
        // At its end, where the system's name of stdout is that of a file.
        let file = File::options().append(true).open(path).map_err(Error::io("write", path))?;
        let mut writer = BufWriter::new(&file);
        fill(&mut writer)?;
        return writer.flush().map_err(Error::io("write", path));
    }
    let folder = folder_of(&target);
    remove_abandoned(folder);
    let temporary = Temporary::create(folder).map_err(Error::io("create", path))?;
    let mut writer = BufWriter::with_capacity(1 << 20, temporary.file());
    fill(&mut writer)?;
    writer.flush().map_err(Error::io("write", path))?;
    drop(writer);
    if let Ok(replaced) = std::fs::metadata(&target) {
        // Who may read the file is its owner's choice, where the file system knows such choices.
        let _ = temporary.file().set_permissions(replaced.permissions());
    }
    temporary.file().sync_all().map_err(Error::io("write", path))?;
    temporary.persist(&target).map_err(Error::io("write", path))
}

/// Removes the file that [`atomically`] would replace, if there is one; a link stays.
///
/// # Errors
/// [`Error::Io`] with the path.
pub fn remove(path: &Path) -> Result<()> {
    let target = target(path).map_err(Error::io("write", path))?;
    if is_of_this_process(&target) || !target.is_file() {
        return Ok(());
    }
    std::fs::remove_file(&target).map_err(Error::io("write", path))
}

/// The folder in which a file of this path lies.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Where a path leads by links, the last of which may lead nowhere; one of [this process's](is_of_this_process) is not
/// followed.
fn target(path: &Path) -> io::Result<PathBuf> {
    /// As many as Linux follows.
    const MOST_LINKS: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        if is_of_this_process(&path) {
            return Ok(path);
        }
        match std::fs::read_link(&path) {
            // What is absolute replaces the folder.
            Ok(next) => path = path.parent().unwrap_or(Path::new("")).join(next),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("too many links"))
}

/// Whether it is the system's name for a file that this process has open, such as `/dev/stdout`.
fn is_of_this_process(path: &Path) -> bool {
    let streams = ["/dev/stdin", "/dev/stdout", "/dev/stderr"];
    path.starts_with("/proc") || path.starts_with("/dev/fd") || streams.iter().any(|stream| path == Path::new(stream))
}

/// A file that takes its name once it is complete.
enum Temporary {
    /// It has no name, so nothing is left of it however the process ends.
    #[cfg(target_os = "linux")]
    Unnamed(File),
    /// Locked while it is written.
    Named(NamedTempFile),
}

/// How the names of temporary files start and end.
const TEMPORARY: (&str, &str) = (".gpt2-", ".tmp");

impl Temporary {
    fn create(folder: &Path) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::{CWD, Mode, OFlags, openat};
            let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
            // Not every file system has them, and naming one needs /proc.
            if let Ok(file) = openat(CWD, folder, flags, Mode::from_raw_mode(0o666))
                && Path::new("/proc/self/fd").is_dir()
            {
                return Ok(Self::Unnamed(file.into()));
            }
        }
        // Not `tempfile_in`, whose file would be its owner's alone, and on Windows marked as one not to be backed up.
        let file = temporary_name(folder, |path| File::create_new(path))?;
        // Without a lock, another process may take a file that is written for an hour for an abandoned one.
        let _ = file.as_file().lock();
        Ok(Self::Named(file))
    }

    fn file(&self) -> &File {
        match self {
            #[cfg(target_os = "linux")]
            Self::Unnamed(file) => file,
            Self::Named(file) => file.as_file(),
        }
    }

    /// Gives the file its name, in place of a file that has it.
    fn persist(self, path: &Path) -> io::Result<()> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Unnamed(file) => {
                use rustix::fs::{AtFlags, CWD, linkat};
                use std::os::fd::AsRawFd;
                let opened = format!("/proc/self/fd/{}", file.as_raw_fd());
                let link = |name: &Path| Ok(linkat(CWD, &opened, CWD, name, AtFlags::SYMLINK_FOLLOW)?);
                match link(path) {
                    Err(error) if io::Error::kind(&error) == io::ErrorKind::AlreadyExists => {
                        rename(temporary_name(folder_of(path), link)?.into_temp_path(), path)
                    }
                    linked => linked,
                }
            }
            Self::Named(file) => {
                let (_locked, temporary) = file.into_parts();
                rename(temporary, path)
            }
        }
    }
}

/// Makes a file with a name that no other has, in this folder.
fn temporary_name<F>(folder: &Path, make: impl FnMut(&Path) -> io::Result<F>) -> io::Result<NamedTempFile<F>> {
    tempfile::Builder::new().prefix(TEMPORARY.0).suffix(TEMPORARY.1).make_in(folder, make).map_err(without_path)
}

/// Gives a file its final name. Unlike `TempPath::persist`, it also replaces one that is open, on Windows too.
fn rename(mut temporary: TempPath, path: &Path) -> io::Result<()> {
    std::fs::rename(&temporary, path)?;
    temporary.disable_cleanup(true);
    Ok(())
}

/// An error without the name of a temporary file, which means nothing to the user.
fn without_path(error: io::Error) -> io::Error {
    match error.to_string().split_once(" at path ") {
        Some((what, _)) => io::Error::new(error.kind(), what),
        None => error,
    }
}

/// Removes the temporary files of processes that have ended. What cannot be removed stays.
fn remove_abandoned(folder: &Path) {
    /// A file that was written to more recently may have an owner who has not locked it yet.
    const AGE: Duration = Duration::from_secs(60);
    for entry in folder.read_dir().into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_ours = name.to_str().is_some_and(|name| name.starts_with(TEMPORARY.0) && name.ends_with(TEMPORARY.1));
        let is_old = || {
            entry
                .metadata()
                .and_then(|metadata| metadata.modified())
                .is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > AGE))
        };
        let has_no_owner = || File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok());
        if is_ours && is_old() && has_no_owner() {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_whole_and_replaces_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        for text in ["first", "second"] {
            atomically(&path, |writer| {
                writer.write_all(text.as_bytes()).map_err(Error::io("write", &path))?;
                assert_ne!(std::fs::read(&path).ok().as_deref(), Some(text.as_bytes()));
                Ok(())
            })
            .unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(names(folder.path()), ["out"]);
    }

    /// So a process that is killed while it writes leaves nothing.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_has_no_name_until_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        for before in [&[][..], &["out"]] {
            atomically(&path, |_| {
                assert_eq!(names(folder.path()), before);
                Ok(())
            })
            .unwrap();
        }
    }

    #[test]
    fn files_that_killed_processes_have_left_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let create = |name: &str, age: u64| {
            let file = File::create(folder.path().join(name)).unwrap();
            file.set_modified(std::time::SystemTime::now() - Duration::from_secs(age)).unwrap();
            file
        };
        for (name, age) in [(".gpt2-a.tmp", 3600), (".gpt2-b.tmp", 0), (".other.tmp", 3600)] {
            create(name, age);
        }
        let owned = create(".gpt2-c.tmp", 3600);
        owned.lock().unwrap();
        atomically(&folder.path().join("out"), |_| Ok(())).unwrap();
        assert_eq!(names(folder.path()), [".gpt2-b.tmp", ".gpt2-c.tmp", ".other.tmp", "out"]);
    }

    #[test]
    fn an_error_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        std::fs::write(&path, "old").unwrap();
        let fail = |writer: &mut BufWriter<&File>| {
            writer.write_all(b"half").map_err(Error::io("write", &path))?;
            Err(Error::format(&path, "the disk is on fire"))
        };
        assert!(atomically(&path, fail).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(folder.path()), ["out"]);
    }

    #[test]
    fn a_folder_that_is_missing_is_an_error_with_the_path() {
        let error = atomically(Path::new("/nowhere/out"), |_| Ok(())).unwrap_err();
        assert_eq!(error.to_string(), "cannot create /nowhere/out");
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_written_to_and_stays() {
        use std::os::unix::fs::FileTypeExt;
        let path = Path::new("/dev/null");
        atomically(path, |writer| writer.write_all(b"gone").map_err(Error::io("write", path))).unwrap();
        assert!(std::fs::metadata(path).unwrap().file_type().is_char_device());
    }

    #[cfg(unix)]
    #[test]
    fn others_may_read_the_file_as_any_new_one() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (path, plain) = (folder.path().join("out"), folder.path().join("plain"));
        atomically(&path, |_| Ok(())).unwrap();
        std::fs::write(&plain, "").unwrap();
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&plain));
        // One that is replaced keeps what its owner chose.
        for chosen in [0o664, 0o600] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(chosen)).unwrap();
            atomically(&path, |_| Ok(())).unwrap();
            assert_eq!(mode(&path) & 0o777, chosen);
        }
    }
}
