//! Writing `.npz`, the archive of arrays that `numpy.load` reads: a zip file with an entry `NAME.npy` for each array, stored
//! without compression as by `numpy.savez`.
//!
//! Format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>

use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use zip::write::{SimpleFileOptions, ZipWriter};
use zip::{CompressionMethod, DateTime};

use super::tensor_file::{TensorSink, write_numbers};
use crate::error::{Error, Result};
use crate::files::atomically;

/// Writes arrays of `f32` that `fill` gives. The file appears once it is complete.
pub(super) fn write(path: &Path, fill: impl FnOnce(&mut dyn TensorSink) -> Result<()>) -> Result<()> {
    let failed = |error: io::Error| Error::io("write", path)(error);
    atomically(path, |file| {
        let mut file = Failing { writer: file, fault: None, at: 0, end: 0 };
        {
            let mut arrays = Arrays { path, archive: ZipWriter::new(&mut file) };
            fill(&mut arrays)?;
            arrays.archive.finish().map_err(|error| failed(error.into()))?;
        }
        file.fault.map_or(Ok(()), |fault| Err(failed(fault)))
    })
}

/// An archive that is being written.
struct Arrays<'a, W: Write + Seek> {
    path: &'a Path,
    archive: ZipWriter<W>,
}

impl<W: Write + Seek> TensorSink for Arrays<'_, W> {
    fn begin(&mut self, name: &str, shape: &[usize]) -> Result<()> {
        let failed = |error: io::Error| Error::io("write", self.path)(error);
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            // The same activations give the same bytes.
            .last_modified_time(DateTime::default())
            .large_file(true);
        self.archive.start_file(format!("{name}.npy"), options).map_err(|error| failed(error.into()))?;
        self.archive.write_all(&header(shape)).map_err(failed)
    }

    fn numbers(&mut self, numbers: &[f32]) -> Result<()> {
        write_numbers(&mut self.archive, numbers).map_err(Error::io("write", self.path))
    }
}

/// A writer that keeps its first error for later and takes what comes after it for written: an archive that is dropped
/// unfinished tries to finish, and says on stderr if it cannot.
struct Failing<W> {
    writer: W,
    fault: Option<io::Error>,
    /// The position and the length, with what was not written.
    at: u64,
    end: u64,
}

impl<W: Write + Seek> Write for Failing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match self.fault {
            None => self.writer.write(bytes),
            Some(_) => Ok(bytes.len()),
        };
        let count = match written {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                self.fault = Some(error);
                bytes.len()
            }
            Ok(count) => count,
        };
        self.at += count as u64;
        self.end = self.end.max(self.at);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.fault.is_none() {
            self.fault = self.writer.flush().err();
        }
        Ok(())
    }
}

impl<W: Write + Seek> Seek for Failing<W> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.end.checked_add_signed(by),
        };
        self.at = target.ok_or(io::ErrorKind::InvalidInput)?;
        if self.fault.is_none() {
            self.fault = self.writer.seek(SeekFrom::Start(self.at)).err();
        }
        Ok(self.at)
    }
}

/// What comes before an array's numbers: little-endian `f32`, the last axis contiguous.
fn header(shape: &[usize]) -> Vec<u8> {
    /// Magic number, version 1.0.
    const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";
    /// The numbers begin at a multiple of this.
    const ALIGNMENT: usize = 64;
    let axes = match shape {
        [axis] => format!("{axis},"),
        axes => axes.iter().map(usize::to_string).collect::<Vec<_>>().join(", "),
    };
    let mut text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({axes}), }}");
    let before = MAGIC.len() + 2;
    let len = (before + text.len() + 1).next_multiple_of(ALIGNMENT) - before;
    text.extend(std::iter::repeat_n(' ', len - text.len() - 1));
    text.push('\n');
    [MAGIC, &(len as u16).to_le_bytes(), text.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_numpys() {
        // numpy.lib.format.write_array_header_1_0 of a (12, 5, 5) array of float32.
        let expected = b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (12, 5, 5), }";
        let found = header(&[12, 5, 5]);
        assert!(found.starts_with(expected) && found.ends_with(b" \n"));
        assert_eq!(found.len(), 128);
        assert!(header(&[7]).windows(4).any(|part| part == b"(7,)"));
    }
}
