//! A file being parsed: its bytes, errors that name it, and the checks that all formats share.

use std::path::{Path, PathBuf};

use crate::base::Bytes;
use crate::error::{Error, Result};

/// The longest name of a tensor; GPT-2's have 40 characters.
const LONGEST_NAME: usize = 256;

/// The most dimensions that a tensor may have; GPT-2's weights have 2, the causal-mask buffers 4.
pub(super) const MOST_DIMENSIONS: usize = 8;

/// A file being parsed.
pub(super) struct File {
    /// Its name in errors.
    pub path: PathBuf,
    /// All of it.
    pub bytes: Bytes,
}

impl File {
    /// Maps the file at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), bytes: Bytes::map(path)? })
    }

    /// A file in memory.
    #[cfg(test)]
    pub fn of(bytes: impl Into<Vec<u8>>) -> Self {
        Self { path: "FILE".into(), bytes: bytes.into().into() }
    }

    /// An error about this file.
    pub fn error(&self, message: impl AsRef<str>) -> Error {
        Error::format(&self.path, message)
    }

    /// The error for a file that does not start like `expected` ("a safetensors file"); says what the file is instead,
    /// if we can tell.
    pub fn not_a(&self, expected: &str) -> Error {
        let start = &self.bytes[..self.bytes.len().min(512)];
        let text = start.trim_ascii_start();
        let found = if text.starts_with(b"version https://git-lfs") {
            "a git-lfs pointer; fetch the weights themselves with `git lfs pull`"
        } else if text.starts_with(b"<") {
            "a web page; download the file itself"
        } else if text.starts_with(b"{") {
            "a JSON text; download the weights themselves"
        } else if start.starts_with(b"PK\x03\x04") {
            "a zip archive"
        } else if start.starts_with(b"GGUF") {
            "a GGUF file"
        } else if start.get(8) == Some(&b'{') {
            "a safetensors file"
        } else {
            return self.error(format!("not {expected}; is it damaged or another kind of file?"));
        };
        self.error(format!("not {expected} but {found}"))
    }

    /// Rejects names that would break a terminal or a one-line message.
    pub fn check_name(&self, name: &str) -> Result<()> {
        if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
            return Err(self.error(format!(
                "a tensor's name has {} bytes; names have 1 to {LONGEST_NAME} and no control characters: {name:?}",
                name.len()
            )));
        }
        Ok(())
    }

    /// Rejects ranks that no checkpoint has.
    pub fn check_rank(&self, name: &str, rank: usize) -> Result<()> {
        if rank > MOST_DIMENSIONS {
            return Err(
                self.error(format!("tensor `{name}` has {rank} dimensions; at most {MOST_DIMENSIONS} are allowed"))
            );
        }
        Ok(())
    }
}
