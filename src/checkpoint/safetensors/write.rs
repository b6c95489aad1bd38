//! Writing safetensors.

use std::borrow::Cow;
use std::io::{self, Write};
use std::path::Path;

use super::super::write::{TensorSpec, check_names, write_tensor};
use super::METADATA;
use crate::error::{Error, Result};
use crate::files::atomically;

/// Writes a safetensors file of `tensors` with `metadata` as free text, asking `bytes_of` for each tensor's bytes by
/// index. The widest types come first, which keeps all tensors aligned.
///
/// The file appears at `path` once it is complete; an error leaves nothing behind.
///
/// # Errors
/// [`Error::Io`] if it cannot be written, [`Error::Unsupported`] for quantised types, which safetensors lacks, and the
/// errors of `bytes_of`.
pub fn write<'t>(
    path: &Path,
    metadata: &[(&str, &str)],
    tensors: &[TensorSpec],
    bytes_of: impl FnMut(usize) -> Result<Cow<'t, [u8]>>,
) -> Result<()> {
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&place| std::cmp::Reverse(tensors[place].dtype.block_bytes()));
    write_in_order(path, metadata, tensors, &order, 8, bytes_of)
}

/// As [`write()`], the tensors in this order and the data from a multiple of `alignment` on.
pub(in crate::checkpoint) fn write_in_order<'t>(
    path: &Path,
    metadata: &[(&str, &str)],
    tensors: &[TensorSpec],
    order: &[usize],
    alignment: usize,
    mut bytes_of: impl FnMut(usize) -> Result<Cow<'t, [u8]>>,
) -> Result<()> {
    let header = header(path, metadata, tensors, order, alignment)?;
    atomically(path, |writer| {
        writer.write_all(&(header.len() as u64).to_le_bytes()).map_err(Error::io("write", path))?;
        writer.write_all(&header).map_err(Error::io("write", path))?;
        for &place in order {
            write_tensor(path, writer, &tensors[place], &bytes_of(place)?)?;
        }
        Ok(())
    })
}

/// As [`write()`], for tensors of one type whose bytes come one after the other, in any number of pieces: `fill` writes
/// them.
///
/// # Errors
/// As [`write()`], and if the bytes are too few or too many.
pub fn write_in_turn(
    path: &Path,
    metadata: &[(&str, &str)],
    tensors: &[TensorSpec],
    fill: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    let order: Vec<usize> = (0..tensors.len()).collect();
    let header = header(path, metadata, tensors, &order, 8)?;
    let expected = tensors.iter().map(|tensor| tensor.byte_len(path)).sum::<Result<usize>>()?;
    atomically(path, |writer| {
        writer.write_all(&(header.len() as u64).to_le_bytes()).map_err(Error::io("write", path))?;
        writer.write_all(&header).map_err(Error::io("write", path))?;
        let mut counted = Counted { writer, bytes: 0 };
        fill(&mut counted)?;
        match counted.bytes == expected {
            true => Ok(()),
            false => Err(Error::format(path, format!("the tensors need {expected} bytes, not {}", counted.bytes))),
        }
    })
}

/// A writer that knows how much went through it.
struct Counted<W> {
    writer: W,
    bytes: usize,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.writer.write(bytes)?;
        self.bytes += count;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// The JSON header, padded so that the data is aligned.
fn header(
    path: &Path,
    metadata: &[(&str, &str)],
    tensors: &[TensorSpec],
    order: &[usize],
    alignment: usize,
) -> Result<Vec<u8>> {
    check_names(path, tensors)?;
    let mut entries = serde_json::Map::new();
    if !metadata.is_empty() {
        entries.insert(METADATA.into(), metadata.iter().copied().collect());
    }
    let mut offset = 0;
    for &place in order {
        let TensorSpec { name, dtype, shape } = &tensors[place];
        if dtype.block_len() != 1 {
            return Err(Error::Unsupported(format!(
                "tensor `{name}`: safetensors has no type {dtype}; write GGUF instead"
            )));
        }
        let end = offset + tensors[place].byte_len(path)?;
        let entry = serde_json::json!({ "dtype": dtype.name(), "shape": shape, "data_offsets": [offset, end] });
        entries.insert(name.clone(), entry);
        offset = end;
    }
    let mut header = serde_json::Value::from(entries).to_string().into_bytes();
    // Eight bytes come before it.
    header.resize((8 + header.len()).next_multiple_of(alignment) - 8, b' ');
    Ok(header)
}
