//! Reads numbers and strings in sequence, never past the end of the file.

use super::super::file::File;
use crate::error::{Error, Result};

/// A position in a GGUF file.
pub(super) struct Cursor<'f> {
    pub file: &'f File,
    pub at: usize,
}

impl<'f> Cursor<'f> {
    pub fn new(file: &'f File, at: usize) -> Self {
        Self { file, at }
    }

    pub fn truncated(&self) -> Error {
        self.file.error(format!("damaged or truncated: it ends inside the value that starts at byte {}", self.at))
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: u64) -> Result<&'f [u8]> {
        let end = usize::try_from(len).ok().and_then(|len| self.at.checked_add(len));
        let taken = end.and_then(|end| self.file.bytes.get(self.at..end)).ok_or_else(|| self.truncated())?;
        self.at += taken.len();
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.file.bytes[self.at..].first_chunk().ok_or_else(|| self.truncated())?;
        self.at += N;
        Ok(*bytes)
    }

    pub fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A 64-bit length and that many bytes of UTF-8.
    pub fn string(&mut self) -> Result<&'f str> {
        let start = self.at;
        let len = self.u64()?;
        let bytes = self.take(len)?;
        str::from_utf8(bytes).map_err(|_| self.file.error(format!("the string at byte {start} is not UTF-8")))
    }
}
