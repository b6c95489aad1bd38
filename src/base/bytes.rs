//! Bytes, wherever they are: in a mapped file, in the process's memory, or in the program itself.

use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::error::{Error, Result};
use crate::files::protect;

/// The bytes of a tensor: part of a mapped file, of the program itself, or of an owned buffer. Cheap to clone.
///
/// They may be unaligned for their type: a safetensors header can have any length, and that of the published GPT-2 is
/// odd.
#[derive(Clone)]
pub struct Bytes {
    owner: Owner,
    start: usize,
    end: usize,
}

#[derive(Clone)]
enum Owner {
    Mapped(Arc<Mapped>),
    Memory(Arc<memmap2::MmapMut>),
    Static(&'static [u8]),
    Owned(Arc<Vec<u8>>),
}

/// A mapped file, and what it was like when it was mapped.
struct Mapped {
    map: memmap2::Mmap,
    file: File,
    path: PathBuf,
    len: u64,
    modified: Option<SystemTime>,
}

impl Bytes {
    /// Maps a regular file into memory without reading it.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Format`] if it is empty or not a regular file,
    /// [`Error::Unsupported`] if the address space has no room for it.
    pub(crate) fn map(path: &Path) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(Error::io("read", path))?;
        // Before it is opened, which would wait for the other end of a pipe.
        if !metadata.is_file() {
            return Err(Error::format(path, "not a regular file"));
        }
        if metadata.len() == 0 {
            return Err(Error::format(path, "the file is empty; download it again"));
        }
        let file = File::open(path).map_err(Error::io("read", path))?;
        protect(&file);
        // SAFETY: the map is only read, and only as bytes, for which every value is valid. As with any mapped file,
        // another process that changes the file can change the numbers, and one that truncates it can end this process
        // (with a signal; the command line turns it into an error). What shows of it is found by `check_unchanged`. No
        // offset from the file is trusted across two reads, so nothing outside the map is ever accessed.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|error| match error.kind() {
            ErrorKind::OutOfMemory => Error::Unsupported(format!(
                "{}: its {} bytes do not fit into the address space of this process; raise the limit (ulimit -v)",
                path.display(),
                metadata.len()
            )),
            _ => Error::io("map", path)(error),
        })?;
        let end = map.len();
        let (len, modified) = (metadata.len(), metadata.modified().ok());
        let mapped = Mapped { map, file, path: path.to_owned(), len, modified };
        Ok(Self { owner: Owner::Mapped(Arc::new(mapped)), start: 0, end })
    }

    /// Checks that the file has not changed since it was mapped: zeros follow where a file was cut short, and other
    /// numbers where it was written.
    ///
    /// # Errors
    /// [`Error::Format`] if it has.
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        let Owner::Mapped(mapped) = &self.owner else { return Ok(()) };
        let Mapped { file, path, len, modified, .. } = &**mapped;
        let now = file.metadata().map_err(Error::io("read", path))?;
        if now.len() == *len && now.modified().ok() == *modified {
            return Ok(());
        }
        Err(Error::format(path, "changed while it was read; run again once it is complete"))
    }

    /// Whether the bytes are in a mapped file.
    pub(crate) fn is_mapped(&self) -> bool {
        matches!(self.owner, Owner::Mapped(_))
    }

    /// Frees the memory that holds what was read of a mapped file; using the bytes again reads them again.
    pub(crate) fn release(&self) {
        #[cfg(unix)]
        if let Owner::Mapped(mapped) = &self.owner {
            // SAFETY: the map is shared with the file and never written to, so a dropped page can be read again from
            // the file. A failure only means that the memory stays in use.
            let _ = unsafe {
                mapped.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, self.start, self.len())
            };
        }
    }

    /// The part at `range`, counted from the start of these bytes; `None` if it is out of bounds.
    pub(crate) fn slice(&self, range: Range<usize>) -> Option<Self> {
        if range.start > range.end || range.end > self.len() {
            return None;
        }
        Some(Self { owner: self.owner.clone(), start: self.start + range.start, end: self.start + range.end })
    }
}

impl From<memmap2::MmapMut> for Bytes {
    fn from(memory: memmap2::MmapMut) -> Self {
        let end = memory.len();
        Self { owner: Owner::Memory(Arc::new(memory)), start: 0, end }
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        let end = bytes.len();
        Self { owner: Owner::Owned(Arc::new(bytes)), start: 0, end }
    }
}

impl From<&'static [u8]> for Bytes {
    fn from(bytes: &'static [u8]) -> Self {
        Self { owner: Owner::Static(bytes), start: 0, end: bytes.len() }
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let all: &[u8] = match &self.owner {
            Owner::Mapped(mapped) => &mapped.map,
            Owner::Memory(memory) => memory,
            Owner::Static(bytes) => bytes,
            Owner::Owned(bytes) => bytes,
        };
        &all[self.start..self.end]
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

// Windows lets nobody cut a mapped file.
#[cfg(all(test, not(windows)))]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_that_changes_under_its_map_is_noticed() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"12345678").unwrap();
        let bytes = Bytes::map(file.path()).unwrap();
        bytes.check_unchanged().unwrap();
        // Less than a page, which raises no signal.
        file.as_file().set_len(4).unwrap();
        let error = bytes.slice(0..2).unwrap().check_unchanged().unwrap_err().to_string();
        assert!(
            error.contains("changed while it was read") && error.contains(file.path().to_str().unwrap()),
            "{error}"
        );
        assert_eq!(&bytes[4..], [0; 4]);
    }
}
