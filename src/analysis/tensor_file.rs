//! Files of tensors of `f32` that are written a piece at a time, so that they need not all be in memory: for NumPy if the
//! name ends in `.npz`, otherwise safetensors.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::npz;
use crate::base::DType;
use crate::checkpoint::{TensorSpec, safetensors};
use crate::error::{Error, Result};
use crate::files;

/// What takes tensors one after the other.
pub trait TensorSink {
    /// Begins a tensor; the one before must be complete.
    ///
    /// # Errors
    /// If it cannot be written.
    fn begin(&mut self, name: &str, shape: &[usize]) -> Result<()>;

    /// Takes the next numbers of the tensor, in row-major order.
    ///
    /// # Errors
    /// If they cannot be written.
    fn numbers(&mut self, numbers: &[f32]) -> Result<()>;
}

/// A tensor's name and shape.
pub type Named = (String, Vec<usize>);

/// Whether the name of a file is one of NumPy's archives.
#[must_use]
pub fn is_npz(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("npz"))
}

/// Writes `tensors`, whose numbers `fill` gives in this order. The file appears once it is complete.
///
/// # Errors
/// [`Error::Io`] if it cannot be written, [`Error::Usage`] if this process reads it, and the errors of `fill`.
pub fn write(path: &Path, tensors: &[Named], fill: impl FnOnce(&mut dyn TensorSink) -> Result<()>) -> Result<()> {
    files::check_output(path)?;
    if is_npz(path) {
        return npz::write(path, fill);
    }
    let spec = |(name, shape): &Named| TensorSpec { name: name.clone(), dtype: DType::F32, shape: shape.clone() };
    let specs: Vec<TensorSpec> = tensors.iter().map(spec).collect();
    safetensors::write_in_turn(path, &[("format", "pt")], &specs, |writer| fill(&mut Data { path, writer }))
}

/// The data of a safetensors file, which begins with all names and shapes.
struct Data<'a> {
    path: &'a Path,
    writer: &'a mut dyn Write,
}

impl TensorSink for Data<'_> {
    fn begin(&mut self, _: &str, _: &[usize]) -> Result<()> {
        Ok(())
    }

    fn numbers(&mut self, numbers: &[f32]) -> Result<()> {
        write_numbers(&mut self.writer, numbers).map_err(Error::io("write", self.path))
    }
}

/// How many numbers are converted at once.
const SOME: usize = 1 << 14;

pub(super) fn write_numbers(writer: &mut impl Write, numbers: &[f32]) -> io::Result<()> {
    for some in numbers.chunks(SOME) {
        let bytes: Vec<u8> = some.iter().flat_map(|number| number.to_le_bytes()).collect();
        writer.write_all(&bytes)?;
    }
    Ok(())
}

/// Tensors whose number is not known before the last one: they are collected on disk, in a file without a name.
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
    data: BufWriter<File>,
    tensors: Vec<Named>,
    names: HashSet<String>,
}

impl Spool {
    /// Collects tensors for a file that will be at `path`, which is not touched.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no folder for it, [`Error::Usage`] if this process reads it.
    pub fn create(path: &Path) -> Result<Self> {
        files::check_output(path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // There is no file to be made beside a device.
        let is_other = std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
        let data = if is_other { tempfile::tempfile() } else { tempfile::tempfile_in(folder) };
        let data = BufWriter::with_capacity(1 << 20, data.map_err(Error::io("create", path))?);
        Ok(Self { path: path.to_owned(), data, tensors: vec![], names: HashSet::new() })
    }

    /// How many tensors there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Drops all but the first `len` tensors.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk fails.
    pub fn truncate(&mut self, len: usize) -> Result<()> {
        for (name, _) in self.tensors.drain(len..) {
            self.names.remove(&name);
        }
        let bytes = self.tensors.iter().map(|(_, shape)| bytes(shape)).sum();
        let cut = self.data.seek(SeekFrom::Start(bytes)).and_then(|_| self.data.get_ref().set_len(bytes));
        cut.map_err(Error::io("write", &self.path))
    }

    /// Writes the file.
    ///
    /// # Errors
    /// Those of [`write()`].
    pub fn finish(self) -> Result<()> {
        let Self { path, data, tensors, .. } = self;
        let rewound = data.into_inner().map_err(io::IntoInnerError::into_error).and_then(|mut data| {
            data.rewind()?;
            Ok(data)
        });
        let mut data = BufReader::with_capacity(1 << 20, rewound.map_err(Error::io("write", &path))?);
        write(&path, &tensors, |sink| {
            for (name, shape) in &tensors {
                sink.begin(name, shape)?;
                let mut left = bytes(shape) as usize;
                while left > 0 {
                    let mut some = vec![0; left.min(SOME * size_of::<f32>())];
                    data.read_exact(&mut some).map_err(Error::io("read again what was collected for", &path))?;
                    left -= some.len();
                    let numbers: Vec<f32> = some.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
                    sink.numbers(&numbers)?;
                }
            }
            Ok(())
        })
    }
}

impl TensorSink for Spool {
    fn begin(&mut self, name: &str, shape: &[usize]) -> Result<()> {
        if name == safetensors::METADATA || !self.names.insert(name.to_owned()) {
            let why = if name == safetensors::METADATA { "has another meaning in safetensors" } else { "is taken" };
            return Err(Error::Usage(format!("the name {name:?} {why}: tensors need names of their own")));
        }
        self.tensors.push((name.to_owned(), shape.to_vec()));
        Ok(())
    }

    fn numbers(&mut self, numbers: &[f32]) -> Result<()> {
        write_numbers(&mut self.data, numbers).map_err(Error::io("write", &self.path))
    }
}

/// What a tensor of `f32` takes.
fn bytes(shape: &[usize]) -> u64 {
    (shape.iter().product::<usize>() * size_of::<f32>()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_collected_and_dropped_again() {
        let folder = tempfile::tempdir().unwrap();
        let (collected, at_once) = (folder.path().join("a.safetensors"), folder.path().join("b.safetensors"));
        let mut spool = Spool::create(&collected).unwrap();
        let add = |sink: &mut dyn TensorSink, name: &str, numbers: &[f32]| -> Result<()> {
            sink.begin(name, &[numbers.len()])?;
            numbers.iter().try_for_each(|number| sink.numbers(&[*number]))
        };
        add(&mut spool, "a", &[1.0, 2.0]).unwrap();
        add(&mut spool, "b", &[3.0]).unwrap();
        spool.truncate(1).unwrap();
        add(&mut spool, "b", &[4.0, 5.0, 6.0]).unwrap();
        assert!(add(&mut spool, "a", &[7.0]).is_err_and(|e| e.is_usage()));
        assert!(add(&mut spool, "__metadata__", &[7.0]).is_err_and(|e| e.is_usage()));
        spool.finish().unwrap();
        let tensors = [("a".to_owned(), vec![2]), ("b".to_owned(), vec![3])];
        write(&at_once, &tensors, |sink| {
            add(sink, "a", &[1.0, 2.0])?;
            add(sink, "b", &[4.0, 5.0, 6.0])
        })
        .unwrap();
        assert_eq!(std::fs::read(&collected).unwrap(), std::fs::read(&at_once).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_is_incomplete_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let fill = |sink: &mut dyn TensorSink| sink.numbers(&[1.0]);
        assert!(write(&path, &[("a".to_owned(), vec![2])], fill).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
