//! What writing a checkpoint needs in any format: a file that appears whole or not at all.

use std::collections::HashSet;
use std::fs::{File, Permissions};
use std::io::{BufWriter, Write};
use std::path::Path;

use super::storage::StorageType;
use crate::error::{Error, Result};

/// A tensor to be written; its bytes follow when their turn comes.
#[derive(Debug, Clone)]
pub struct TensorSpec {
    /// The name in the file.
    pub name: String,
    /// How the numbers are stored.
    pub dtype: StorageType,
    /// The shape, row-major, as the bytes run.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// How many bytes the tensor has.
    pub(super) fn byte_len(&self, path: &Path) -> Result<usize> {
        self.dtype.byte_len(&self.shape).ok_or_else(|| {
            let message =
                format!("tensor `{}` with shape {:?} cannot be stored as {}", self.name, self.shape, self.dtype);
            Error::format(path, message)
        })
    }
}

/// Writes the file at `path` with `fill`: into a temporary file beside it, which takes its name once all is on the disk.
/// After an error neither is left, and a file that was there before stays as it was. What is no regular file, such as
/// `/dev/stdout` or a named pipe, is written to as it stands.
///
/// # Errors
/// [`Error::Io`] with the path, and what `fill` returns.
pub fn atomically(path: &Path, fill: impl FnOnce(&mut BufWriter<&File>) -> Result<()>) -> Result<()> {
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        let file = File::options().write(true).open(path).map_err(Error::io("write", path))?;
        let mut writer = BufWriter::new(&file);
        fill(&mut writer)?;
        return writer.flush().map_err(Error::io("write", path));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".gpt2-").suffix(".tmp");
    if let Some(permissions) = default_permissions() {
        builder.permissions(permissions);
    }
    let temporary = builder.tempfile_in(folder).map_err(Error::io("create", path))?;
    let mut writer = BufWriter::with_capacity(1 << 20, temporary.as_file());
    fill(&mut writer)?;
    writer.flush().map_err(Error::io("write", path))?;
    drop(writer);
    temporary.as_file().sync_all().map_err(Error::io("write", path))?;
    temporary.persist(path).map_err(|e| Error::io("write", path)(e.error))?;
    Ok(())
}

/// What a new file may be used for by default; a temporary file would be its owner's alone.
fn default_permissions() -> Option<Permissions> {
    #[cfg(unix)]
    return Some(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    #[cfg(not(unix))]
    None
}

/// Writes the bytes of one tensor, `len` of them.
pub(super) fn write_tensor(path: &Path, writer: &mut impl Write, spec: &TensorSpec, bytes: &[u8]) -> Result<()> {
    let len = spec.byte_len(path)?;
    if bytes.len() != len {
        let message = format!("tensor `{}` needs {len} bytes, not {}", spec.name, bytes.len());
        return Err(Error::format(path, message));
    }
    writer.write_all(bytes).map_err(Error::io("write", path))
}

/// Refuses two tensors of one name.
pub(super) fn check_names(path: &Path, specs: &[TensorSpec]) -> Result<()> {
    let mut names = HashSet::new();
    match specs.iter().find(|spec| !names.insert(&spec.name)) {
        Some(spec) => Err(Error::format(path, format!("tensor `{}` cannot be written twice", spec.name))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_whole_and_replaces_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        for text in ["first", "second"] {
            atomically(&path, |writer| {
                writer.write_all(text.as_bytes()).map_err(Error::io("write", &path))?;
                assert_ne!(std::fs::read(&path).ok().as_deref(), Some(text.as_bytes()));
                Ok(())
            })
            .unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(names(folder.path()), ["out"]);
    }

    #[test]
    fn an_error_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        std::fs::write(&path, "old").unwrap();
        let fail = |writer: &mut BufWriter<&File>| {
            writer.write_all(b"half").map_err(Error::io("write", &path))?;
            Err(Error::format(&path, "the disk is on fire"))
        };
        assert!(atomically(&path, fail).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(folder.path()), ["out"]);
    }

    #[test]
    fn a_folder_that_is_missing_is_an_error_with_the_path() {
        let error = atomically(Path::new("/nowhere/out"), |_| Ok(())).unwrap_err();
        assert_eq!(error.to_string(), "cannot create /nowhere/out");
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_written_to_and_stays() {
        use std::os::unix::fs::FileTypeExt;
        let path = Path::new("/dev/null");
        atomically(path, |writer| writer.write_all(b"gone").map_err(Error::io("write", path))).unwrap();
        assert!(std::fs::metadata(path).unwrap().file_type().is_char_device());
    }

    #[cfg(unix)]
    #[test]
    fn others_may_read_the_file_as_any_new_one() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (path, plain) = (folder.path().join("out"), folder.path().join("plain"));
        atomically(&path, |_| Ok(())).unwrap();
        std::fs::write(&plain, "").unwrap();
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&plain));
    }
}
