//! Writing GGUF, version 3.

use std::borrow::Cow;
use std::io::Write;
use std::path::Path;

use super::super::write::{TensorSpec, check_names, write_tensor};
use super::metadata::{Metadata, encode_string};
use super::{DEFAULT_ALIGNMENT, MAGIC};
use crate::error::{Error, Result};
use crate::files::atomically;

const VERSION: u32 = 3;

/// Writes a GGUF file of `metadata` and `tensors`, asking `bytes_of` for each tensor's bytes by index. Names are GGUF's
/// ([`gguf_name`](crate::inventory::TensorId::gguf_name)); block matrices have shape (out, in).
///
/// The file appears at `path` once it is complete; an error leaves nothing behind.
///
/// # Errors
/// [`Error::Io`] if it cannot be written, [`Error::Unsupported`] for a type that GGUF lacks, and the errors of
/// `bytes_of`.
pub fn write<'t>(
    path: &Path,
    metadata: &Metadata,
    tensors: &[TensorSpec],
    mut bytes_of: impl FnMut(usize) -> Result<Cow<'t, [u8]>>,
) -> Result<()> {
    let header = header(path, metadata, tensors)?;
    atomically(path, |writer| {
        let fail = || Error::io("write", path);
        writer.write_all(&header).map_err(fail())?;
        for (place, spec) in tensors.iter().enumerate() {
            let bytes = bytes_of(place)?;
            write_tensor(path, writer, spec, &bytes)?;
            let padding = bytes.len().next_multiple_of(DEFAULT_ALIGNMENT) - bytes.len();
            writer.write_all(&[0; DEFAULT_ALIGNMENT][..padding]).map_err(fail())?;
        }
        Ok(())
    })
}

/// Everything before the tensors, padded.
fn header(path: &Path, metadata: &Metadata, tensors: &[TensorSpec]) -> Result<Vec<u8>> {
    check_names(path, tensors)?;
    let mut header = Vec::from(*MAGIC);
    header.extend(VERSION.to_le_bytes());
    header.extend((tensors.len() as u64).to_le_bytes());
    header.extend((metadata.len() as u64).to_le_bytes());
    metadata.encode(&mut header);
    let mut offset = 0u64;
    for spec in tensors {
        let Some(code) = spec.dtype.ggml_code() else {
            return Err(Error::Unsupported(format!("tensor `{}`: GGUF has no type {}", spec.name, spec.dtype)));
        };
        encode_string(&spec.name, &mut header);
        header.extend((spec.shape.len() as u32).to_le_bytes());
        header.extend(spec.shape.iter().rev().flat_map(|&size| (size as u64).to_le_bytes()));
        header.extend(code.to_le_bytes());
        header.extend(offset.to_le_bytes());
        offset += spec.byte_len(path)?.next_multiple_of(DEFAULT_ALIGNMENT) as u64;
    }
    header.resize(header.len().next_multiple_of(DEFAULT_ALIGNMENT), 0);
    Ok(header)
}
