//! The zip archive that `torch.save` writes: `NAME/data.pkl`, and each storage as raw bytes under `NAME/data/KEY`.
//!
//! Entries are looked up in the archive's directory and never extracted, so their names are harmless.

use std::collections::HashMap;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::panic::AssertUnwindSafe;

use zip::{CompressionMethod, ZipArchive};

use super::super::Contents;
use super::super::file::File;
use super::Memory;
use crate::base::Bytes;
use crate::base::foreign::guard;
use crate::error::Result;

/// Reads a zip archive.
pub(super) fn read(file: &File, memory: &mut Memory) -> Result<Contents> {
    let mut archive = Archive::open(file)?;
    let program = archive.entry("data.pkl", None, memory)?;
    if archive.has("byteorder") && *archive.entry("byteorder", None, memory)? != *b"little" {
        return Err(file.error("its numbers are not little-endian; save it again on a little-endian machine"));
    }
    let pickle = super::load_pickle(file, &program)?;
    let mut storages = HashMap::new();
    super::contents(file, &pickle, memory, |storage, memory| {
        let Some(len) = storage.dtype.byte_len(&[storage.len]) else {
            return Err(file.error(format!("storage `{}` has the impossible length {}", storage.key, storage.len)));
        };
        // Tied weights share a storage, which is unpacked only once.
        if let Some((known, bytes)) = storages.get(storage.key)
            && *known == storage
        {
            return Ok(Bytes::clone(bytes));
        }
        let bytes = archive.entry(&format!("data/{}", storage.key), Some(len), memory)?;
        storages.insert(storage.key, (storage, bytes.clone()));
        Ok(bytes)
    })
}

struct Archive<'f> {
    file: &'f File,
    zip: ZipArchive<Bounded<'f>>,
    /// `NAME/`, the start of all entries' names.
    folder: String,
}

impl<'f> Archive<'f> {
    fn open(file: &'f File) -> Result<Self> {
        let zip = guarded(file, || {
            ZipArchive::new(Bounded::new(&file.bytes)).map_err(|e| {
                file.error(format!("its zip directory cannot be read ({e}); the file is truncated or damaged"))
            })
        })?;
        let folder = zip.file_names().flatten().find_map(|name| name.strip_suffix("data.pkl").map(str::to_owned));
        let Some(folder) = folder else {
            return Err(file.error("a zip archive without `data.pkl`, so not a PyTorch checkpoint"));
        };
        Ok(Self { file, zip, folder })
    }

    fn has(&self, name: &str) -> bool {
        self.zip.index_for_name(&format!("{}{name}", self.folder)).is_some()
    }

    /// The bytes of an entry, which must be `len` if given: part of the map if stored, unpacked if compressed.
    fn entry(&mut self, name: &str, len: Option<usize>, memory: &mut Memory) -> Result<Bytes> {
        guarded(self.file, || self.unpack(name, len, memory))
    }

    fn unpack(&mut self, name: &str, len: Option<usize>, memory: &mut Memory) -> Result<Bytes> {
        let file = self.file;
        let full = format!("{}{name}", self.folder);
        let fail = |problem: &dyn std::fmt::Display| file.error(format!("archive entry {full:?}: {problem}"));
        let Some(index) = self.zip.index_for_name(&full) else {
            return Err(fail(&"missing from the archive"));
        };
        let entry = self.zip.by_index_raw(index).map_err(|e| fail(&e))?;
        let size = usize::try_from(entry.size()).map_err(|e| fail(&e))?;
        if let Some(len) = len.filter(|&len| len != size) {
            return Err(fail(&format!("has {size} bytes, but its tensors need {len}")));
        }
        if entry.encrypted() {
            return Err(fail(&"is encrypted"));
        }
        if entry.compression() == CompressionMethod::Stored {
            let start = entry.data_start().and_then(|start| usize::try_from(start).ok());
            let range = start.and_then(|start| Some(start..start.checked_add(size)?));
            return range.and_then(|range| file.bytes.slice(range)).ok_or_else(|| fail(&"lies outside the file"));
        }
        drop(entry);
        memory.take(file, &format!("archive entry {full:?}"), size)?;
        let mut unpacked = Vec::new();
        let entry = self.zip.by_index(index).map_err(|e| fail(&e))?;
        entry.take(size as u64 + 1).read_to_end(&mut unpacked).map_err(|e| fail(&e))?;
        if unpacked.len() != size {
            return Err(fail(&format!("does not unpack to its {size} bytes")));
        }
        Ok(unpacked.into())
    }
}

/// Calls the library `zip`; a panic in it becomes an error.
fn guarded<T>(file: &File, call: impl FnOnce() -> Result<T>) -> Result<T> {
    guard(AssertUnwindSafe(call)).unwrap_or_else(|_| Err(file.error("its zip archive is damaged in an unusual way")))
}

/// A file that can be read a limited number of times: `zip` tries everything that could be its directory, which takes
/// minutes on a file made for that.
struct Bounded<'f> {
    cursor: Cursor<&'f [u8]>,
    left: usize,
}

impl<'f> Bounded<'f> {
    fn new(bytes: &'f [u8]) -> Self {
        Self { cursor: Cursor::new(bytes), left: bytes.len().saturating_mul(4).saturating_add(1 << 20) }
    }
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.cursor.read(buffer)?;
        self.left = self.left.checked_sub(read).ok_or_else(|| io::Error::other("its entries contradict each other"))?;
        Ok(read)
    }
}

impl Seek for Bounded<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.cursor.seek(to)
    }
}
