//! How this program reads and writes files: never without a limit, never by half.

pub mod user_paths;
mod write;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use same_file::Handle;

pub use self::write::{atomically, remove};
use crate::error::{Error, Result};

/// What some editors put before the text of a file (U+FEFF in UTF-8). It says nothing and belongs to no text.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// The content of a file of text without the byte order mark that it may begin with.
#[must_use]
pub fn without_byte_order_mark(content: &[u8]) -> &[u8] {
    content.strip_prefix(BYTE_ORDER_MARK).unwrap_or(content)
}

/// Whether a text is UTF-16, as some programs on Windows save it: it begins with U+FEFF in that encoding.
#[must_use]
pub fn is_utf16(content: &[u8]) -> bool {
    content.starts_with(b"\xFF\xFE") || content.starts_with(b"\xFE\xFF")
}

/// Reads a file that should be small, without a byte order mark: one that has more than `limit` bytes, or never ends, is
/// rejected.
///
/// # Errors
/// [`Error::Io`], or [`Error::Format`] if it is too large.
pub fn read_at_most(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = read_stored(path, limit)?;
    if bytes.starts_with(BYTE_ORDER_MARK) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(bytes)
}

fn read_stored(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(Error::io("read", path))?;
    protect(&file);
    file.take(limit + 1).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    if bytes.len() as u64 > limit {
        return Err(Error::format(path, format!("larger than {limit} bytes, the limit for such a file")));
    }
    Ok(bytes)
}

/// The files that this process reads from.
static INPUTS: Mutex<Vec<Handle>> = Mutex::new(vec![]);

/// Notes that a file is an input, which no output may replace.
pub fn protect(file: &File) {
    if let Ok(handle) = file.try_clone().and_then(Handle::from_file) {
        INPUTS.lock().unwrap_or_else(PoisonError::into_inner).push(handle);
    }
}

/// Checks that an output is none of this process's inputs, under whatever name.
///
/// # Errors
/// [`Error::Usage`] with its path.
pub fn check_output(path: &Path) -> Result<()> {
    let inputs = INPUTS.lock().unwrap_or_else(PoisonError::into_inner);
    let is_file = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    match is_file && Handle::from_path(path).is_ok_and(|output| inputs.contains(&output)) {
        true => Err(Error::Usage(format!("{} is read by this run; write to another file", path.display()))),
        false => Ok(()),
    }
}

/// A small file, such as a configuration, which is read when its content is first needed. Clones share the content.
#[derive(Debug, Clone)]
pub struct SmallFile {
    path: PathBuf,
    /// The largest size that is read, in bytes.
    limit: u64,
    content: Arc<OnceLock<Vec<u8>>>,
}

impl SmallFile {
    /// The file at `path`, of up to `limit` bytes. It is not opened yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, limit: u64) -> Self {
        Self { path: path.into(), limit, content: Arc::default() }
    }

    /// The file's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The content without a byte order mark.
    ///
    /// # Errors
    /// As [`read_at_most`]; [`Error::Format`] for a Git LFS pointer, which `git clone` leaves in place of a large file
    /// if Git LFS is not installed.
    pub fn bytes(&self) -> Result<&[u8]> {
        self.stored().map(without_byte_order_mark)
    }

    /// The content as stored, such as a checksum is about.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes).
    pub fn stored(&self) -> Result<&[u8]> {
        if let Some(content) = self.content.get() {
            return Ok(content);
        }
        let content = read_stored(&self.path, self.limit)?;
        if content.starts_with(b"version https://git-lfs.github.com/spec/") {
            let problem = "a Git LFS pointer in place of the file; run `git lfs pull` in its folder";
            return Err(Error::format(&self.path, problem));
        }
        Ok(self.content.get_or_init(|| content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_file_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("small");
        let file = SmallFile::new(&path, 5);
        assert!(file.bytes().is_err(), "not there yet");
        std::fs::write(&path, "123456").unwrap();
        assert!(file.bytes().unwrap_err().to_string().contains("larger than 5 bytes"));
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(file.bytes().unwrap(), b"12345");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(file.bytes().unwrap(), b"12345");
        std::fs::write(&path, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n").unwrap();
        assert!(SmallFile::new(&path, 100).bytes().unwrap_err().to_string().contains("git lfs pull"));
    }

    #[test]
    fn a_byte_order_mark_is_no_content() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "\u{feff}{}\u{feff}").unwrap();
        assert_eq!(read_at_most(file.path(), 100).unwrap(), "{}\u{feff}".as_bytes());
        let small = SmallFile::new(file.path(), 100);
        assert_eq!(small.bytes().unwrap(), "{}\u{feff}".as_bytes());
        assert_eq!(small.stored().unwrap(), "\u{feff}{}\u{feff}".as_bytes());
    }
}
