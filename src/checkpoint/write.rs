//! Tensors as files list them, and what the writers of all formats share: checks, and writing bytes.

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;

use crate::base::DType;
use crate::error::{Error, Result};

/// A tensor in a file. A writer asks for its bytes when their turn comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// The name in the file.
    pub name: String,
    /// How the numbers are stored.
    pub dtype: DType,
    /// The shape, row-major, as stored.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// The size of the tensor in bytes.
    pub(super) fn byte_len(&self, path: &Path) -> Result<usize> {
        self.dtype.byte_len(&self.shape).ok_or_else(|| {
            let message =
                format!("tensor `{}` with shape {:?} cannot be stored as {}", self.name, self.shape, self.dtype);
            Error::format(path, message)
        })
    }
}

/// Writes the bytes of one tensor after checking their number.
pub(super) fn write_tensor(path: &Path, writer: &mut impl Write, spec: &TensorSpec, bytes: &[u8]) -> Result<()> {
    let len = spec.byte_len(path)?;
    if bytes.len() != len {
        let message = format!("tensor `{}` needs {len} bytes, not {}", spec.name, bytes.len());
        return Err(Error::format(path, message));
    }
    writer.write_all(bytes).map_err(Error::io("write", path))
}

/// Rejects two tensors with the same name.
pub(super) fn check_names(path: &Path, specs: &[TensorSpec]) -> Result<()> {
    let mut names = HashSet::new();
    match specs.iter().find(|spec| !names.insert(&spec.name)) {
        Some(spec) => Err(Error::format(path, format!("tensor `{}` cannot be written twice", spec.name))),
        None => Ok(()),
    }
}
