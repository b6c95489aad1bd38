//! How the numbers of a tensor are stored: names and sizes of the types, and the bytes themselves.

use std::io::ErrorKind;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};

/// The type in which a tensor's numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StorageType {
    /// 32-bit IEEE floating point.
    F32,
    /// 16-bit IEEE floating point.
    F16,
    /// The upper half of an `F32`.
    BF16,
    /// 64-bit IEEE floating point.
    F64,
    /// Truth values, a byte each (causal masks).
    Bool,
    /// Bytes (causal masks).
    U8,
    /// 8-bit integers.
    I8,
    /// 16-bit integers.
    I16,
    /// 32-bit integers.
    I32,
    /// 64-bit integers.
    I64,
    /// 32 numbers as 4-bit integers with one f16 scale (GGUF).
    Q4_0,
    /// 32 numbers as 4-bit integers with an f16 scale and minimum (GGUF).
    Q4_1,
    /// 32 numbers as 5-bit integers with one f16 scale (GGUF).
    Q5_0,
    /// 32 numbers as 5-bit integers with an f16 scale and minimum (GGUF).
    Q5_1,
    /// 32 numbers as 8-bit integers with one f16 scale (GGUF).
    Q8_0,
    /// 256 numbers as 2-bit integers in 16 scaled and shifted groups (GGUF).
    Q2K,
    /// 256 numbers as 3-bit integers in 16 scaled groups (GGUF).
    Q3K,
    /// 256 numbers as 4-bit integers in 8 scaled and shifted groups (GGUF).
    Q4K,
    /// 256 numbers as 5-bit integers in 8 scaled and shifted groups (GGUF).
    Q5K,
    /// 256 numbers as 6-bit integers in 16 scaled groups (GGUF).
    Q6K,
}

impl StorageType {
    /// The name that the file formats use: safetensors' for plain numbers, ggml's for quantised ones.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::F64 => "F64",
            Self::Bool => "BOOL",
            Self::U8 => "U8",
            Self::I8 => "I8",
            Self::I16 => "I16",
            Self::I32 => "I32",
            Self::I64 => "I64",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q2K => "Q2_K",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Numbers in a block, the unit of storage: 1 unless quantised. The rows of a tensor are whole blocks.
    #[must_use]
    pub const fn block_len(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => 256,
            _ => 1,
        }
    }

    /// Bytes of a block.
    #[must_use]
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::F64 | Self::I64 => 8,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Bytes of a tensor whose rows (of the last axis of `shape`, as stored) are whole blocks; none if they are not, or
    /// if the number does not fit a `usize`.
    #[must_use]
    pub fn byte_len(self, shape: &[usize]) -> Option<usize> {
        let row = shape.last().copied().unwrap_or(1);
        if !row.is_multiple_of(self.block_len()) {
            return None;
        }
        let numbers = shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n))?;
        (numbers / self.block_len()).checked_mul(self.block_bytes())
    }
}

impl std::fmt::Display for StorageType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The bytes of a tensor: part of a mapped file, of the program itself, or of an owned buffer. Cheap to clone.
///
/// They start wherever the file has them, so they may lie unaligned for their type: the header of a safetensors file can
/// have any length, and that of the published GPT-2 has an odd one.
#[derive(Clone)]
pub struct Bytes {
    owner: Owner,
    start: usize,
    end: usize,
}

#[derive(Clone)]
enum Owner {
    Mapped(Arc<memmap2::Mmap>),
    Memory(Arc<memmap2::MmapMut>),
    Static(&'static [u8]),
    Owned(Arc<Vec<u8>>),
}

impl Bytes {
    /// Maps a regular file into memory, without reading it.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Format`] if it is empty or no file, [`Error::Unsupported`] if it does
    /// not fit the address space.
    pub(super) fn map(path: &Path) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(Error::io("read", path))?;
        if !metadata.is_file() {
            return Err(Error::format(path, "not a regular file"));
        }
        if metadata.len() == 0 {
            return Err(Error::format(path, "the file is empty; download it again"));
        }
        let file = std::fs::File::open(path).map_err(Error::io("read", path))?;
        // SAFETY: the map is only read, and as bytes, for which every value is valid. As with any mapped file, another
        // process that changes the file meanwhile can change the numbers, and one that truncates it can end this
        // process; no offset taken from the file is trusted across two reads, so memory outside the map stays unreached.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|error| match error.kind() {
            ErrorKind::OutOfMemory => Error::Unsupported(format!(
                "{}: its {} bytes do not fit into the address space of this process; raise the limit (ulimit -v)",
                path.display(),
                metadata.len()
            )),
            _ => Error::io("map", path)(error),
        })?;
        let end = map.len();
        Ok(Self { owner: Owner::Mapped(Arc::new(map)), start: 0, end })
    }

    /// Whether the bytes lie in a mapped file.
    pub(crate) fn is_mapped(&self) -> bool {
        matches!(self.owner, Owner::Mapped(_))
    }

    /// Lets go of the memory in which a mapped file's bytes were read; they are read again when they are used again.
    pub(crate) fn release(&self) {
        #[cfg(unix)]
        if let Owner::Mapped(map) = &self.owner {
            // SAFETY: the map is shared with the file and never written to, so that dropped pages hold nothing that the
            // file does not. That they could not be dropped is no failure.
            let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, self.start, self.len()) };
        }
    }

    /// The part at `range`, which counts from the start of these bytes; none if it lies outside.
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
            Owner::Mapped(map) => map,
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
