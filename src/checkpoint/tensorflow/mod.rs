//! TensorFlow checkpoints, as OpenAI published GPT-2: `NAME.index` is a table of variables, `NAME.data-0000I-of-0000N`
//! hold their numbers.
//!
//! Reference: `tensorflow/core/util/tensor_bundle` and `tensorflow/core/protobuf/tensor_bundle.proto`. The table and
//! five fields of its messages are parsed here: crates for protocol buffers and for LevelDB's tables would be larger
//! than what they read.

mod bundle;
mod hparams;
pub(super) mod table;
mod wire;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::file::File;
use super::{Contents, Format, Tensor, names};
use crate::base::{Bytes, DType};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::files::read_at_most;
use crate::inventory::TensorId;
use bundle::{Entry, Header};
pub(super) use table::is_index;

/// OpenAI's configuration, beside the index.
const HPARAMS: &str = "hparams.json";

/// Reads a checkpoint and, if it is there, OpenAI's `hparams.json` beside it.
pub(super) fn read(index: &File) -> Result<Contents> {
    const LARGEST: u64 = 1 << 20;
    let tensors = variables(index)?;
    let path = index.path.with_file_name(HPARAMS);
    let embedding = tensors.iter().find(|tensor| names::of_openai(&tensor.name) == Some(TensorId::WTE));
    let rows = embedding.and_then(|tensor| tensor.shape.first().copied());
    let config = match path.is_file() {
        true => Some(Config::from_hparams(&read_at_most(&path, LARGEST)?, &path.display().to_string(), rows)?),
        false => None,
    };
    Ok(Contents { format: Format::TensorFlow, tensors, config })
}

/// Reads the floating-point variables of a checkpoint under their own names, in the order of the index. Variables of
/// other types, such as the count of training steps, are left out.
fn variables(index: &File) -> Result<Vec<Tensor>> {
    let mut shards: Option<Shards<'_>> = None;
    let mut tensors = Vec::new();
    table::for_each(index, |key, value| {
        let Some(shards) = &mut shards else {
            if !key.is_empty() {
                return Err(no_header(index));
            }
            shards = Some(Shards { index, count: Header::read(index, value)?.shards, files: HashMap::new() });
            return Ok(());
        };
        // The keys of a sliced variable's parts; the variable itself has an entry too.
        if key.starts_with(&[0]) {
            return Ok(());
        }
        let name = str::from_utf8(key).map_err(|_| index.error("the name of a variable is not UTF-8"))?;
        index.check_name(name)?;
        let entry = Entry::read(index, name, value)?;
        if let Some(dtype) = entry.dtype {
            let bytes = shards.bytes(name, dtype, &entry)?;
            tensors.push(Tensor {
                name: name.to_owned(),
                dtype,
                shape: entry.shape,
                transposed: false,
                packed: false,
                bytes,
            });
        }
        Ok(())
    })?;
    if shards.is_none() { Err(no_header(index)) } else { Ok(tensors) }
}

fn no_header(index: &File) -> Error {
    index.error("a table of keys and values, but not a TensorFlow checkpoint's")
}

/// The files with the numbers, each opened when a variable needs it.
struct Shards<'f> {
    index: &'f File,
    count: u64,
    files: HashMap<u64, (PathBuf, Bytes)>,
}

impl Shards<'_> {
    /// The numbers of a variable.
    fn bytes(&mut self, name: &str, dtype: DType, entry: &Entry) -> Result<Bytes> {
        let fail = |message: String| Err(self.index.error(format!("variable `{name}` {message}")));
        if dtype.byte_len(&entry.shape).map(|len| len as u64) != Some(entry.size) {
            return fail(format!("with shape {:?} and type {dtype} is listed with {} bytes", entry.shape, entry.size));
        }
        if entry.shard >= self.count {
            return fail(format!("is listed in part {} of {}", entry.shard, self.count));
        }
        if !self.files.contains_key(&entry.shard) {
            let path = find(&self.index.path, entry.shard, self.count)?;
            let bytes = Bytes::map(&path)?;
            self.files.insert(entry.shard, (path, bytes));
        }
        let (path, file) = &self.files[&entry.shard];
        let start = usize::try_from(entry.offset).ok();
        let range = start.and_then(|start| Some(start..start.checked_add(usize::try_from(entry.size).ok()?)?));
        range.and_then(|range| file.slice(range)).ok_or_else(|| {
            let (len, start, end) = (file.len(), entry.offset, u128::from(entry.offset) + u128::from(entry.size));
            let message = format!(
                "variable `{name}` is at bytes {start} to {end}, but the file has {len}; it is truncated or another model's"
            );
            Error::format(path, message)
        })
    }
}

/// The file with part `shard` of the numbers: under the index's name, or the only one of its kind in the folder.
fn find(index: &Path, shard: u64, count: u64) -> Result<PathBuf> {
    let ending = format!(".data-{shard:05}-of-{count:05}");
    let name = index.file_name().unwrap_or_default().to_string_lossy();
    let expected = format!("{}{ending}", name.strip_suffix(".index").unwrap_or(&name));
    let path = index.with_file_name(&expected);
    if path.exists() {
        return Ok(path);
    }
    let folder = index.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let listing = std::fs::read_dir(folder).map_err(Error::io("read", folder))?;
    let mut found: Vec<PathBuf> = listing.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    found.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(&ending)));
    match found.as_slice() {
        [path] => Ok(path.clone()),
        [] => Err(Error::format(index, format!("its numbers are missing: `{expected}` must be in the same folder"))),
        several => {
            let message = format!("its numbers are missing: none of {} `*{ending}` has its name", several.len());
            Err(Error::format(index, format!("{message}; rename one to `{expected}`")))
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::{Checkpoint, WeightFiles, golden};
    use super::wire::tests::{bytes, number};
    use super::*;

    /// An entry of a float variable at `offset` in part `shard`.
    fn entry(dtype: u64, shape: &[u64], shard: u64, offset: u64, size: u64) -> Vec<u8> {
        let dims: Vec<u8> = shape.iter().flat_map(|n| bytes(2, &number(1, *n))).collect();
        [number(1, dtype), bytes(2, &dims), number(3, shard), number(4, offset), number(5, size)].concat()
    }

    /// A header for `shards` files of little-endian numbers.
    fn header(shards: u64) -> Vec<u8> {
        [number(1, shards), bytes(3, &number(1, 1))].concat()
    }

    /// A folder with an index of these variables and one file with the bytes 0, 1, 2, ..., 39.
    fn folder(variables: &[(&[u8], Vec<u8>)]) -> (tempfile::TempDir, File) {
        let folder = tempfile::tempdir().unwrap();
        let entries: Vec<(&[u8], Vec<u8>)> = [(&b""[..], header(1))].into_iter().chain(variables.to_vec()).collect();
        let path = folder.path().join("m.ckpt.index");
        std::fs::write(&path, table::tests::write(&entries)).unwrap();
        std::fs::write(folder.path().join("m.ckpt.data-00000-of-00001"), (0..40).collect::<Vec<u8>>()).unwrap();
        let file = File::open(&path).unwrap();
        (folder, file)
    }

    /// Whatever the index says, the variables lie in the file with the numbers or there is an error.
    pub fn read_variables(entries: &[(&[u8], Vec<u8>)]) -> Result<Vec<Tensor>> {
        variables(&folder(entries).1)
    }

    #[test]
    fn openais_checkpoint_is_read_as_tensorflow_wrote_it() {
        let index = File::open(&golden::folder("openai_tf").join("model/model.ckpt.index")).unwrap();
        assert!(is_index(&index.bytes));
        let tensors = variables(&index).unwrap();
        // Two blocks of twelve variables, two embeddings, the last norm.
        assert_eq!(tensors.len(), 28);
        let shape = |name: &str| tensors.iter().find(|tensor| tensor.name == name).unwrap().shape.clone();
        assert_eq!(shape("model/wte"), [300, 32]);
        assert_eq!(shape("model/wpe"), [40, 32]);
        assert_eq!(shape("model/h0/attn/c_attn/w"), [1, 32, 96]);
        assert_eq!(shape("model/h1/mlp/c_proj/b"), [32]);
        assert!(tensors.iter().all(|tensor| tensor.dtype == DType::F32 && tensor.bytes.is_mapped()));
    }

    /// Under the names of Hugging Face, the variables compute what OpenAI's code computes.
    #[test]
    fn openais_checkpoint_gives_what_openais_code_gives() {
        let path = golden::folder("openai_tf").join("model/model.ckpt.index");
        let mut checkpoint = Checkpoint::open(&WeightFiles::File(path)).unwrap();
        let mut config = checkpoint.config(None).unwrap().unwrap();
        assert!(checkpoint.settle(&mut config).is_empty());
        golden::check("openai_tf", config, &checkpoint);
    }

    #[test]
    fn the_numbers_are_found_under_any_name() {
        let (folder, index) = folder(&[(b"w", entry(1, &[2], 0, 8, 8))]);
        assert_eq!(*variables(&index).unwrap()[0].bytes, [8, 9, 10, 11, 12, 13, 14, 15]);
        let numbers = folder.path().join("m.ckpt.data-00000-of-00001");
        std::fs::rename(&numbers, folder.path().join("other.data-00000-of-00001")).unwrap();
        assert_eq!(variables(&index).unwrap()[0].bytes[0], 8);
        std::fs::write(folder.path().join("third.data-00000-of-00001"), "x").unwrap();
        let error = variables(&index).unwrap_err().to_string();
        assert!(error.contains("none of 2 `*.data-00000-of-00001` has its name"), "{error}");
        let alone = tempfile::tempdir().unwrap();
        let copy = alone.path().join("m.ckpt.index");
        std::fs::copy(folder.path().join("m.ckpt.index"), &copy).unwrap();
        let error = variables(&File::open(&copy).unwrap()).unwrap_err().to_string();
        assert!(error.contains("`m.ckpt.data-00000-of-00001` must be in the same folder"), "{error}");
    }

    #[test]
    fn several_files_of_numbers_are_joined() {
        let folder = tempfile::tempdir().unwrap();
        let entries: [(&[u8], Vec<u8>); 3] =
            [(b"", header(2)), (b"a", entry(14, &[1, 2], 1, 0, 4)), (b"b", entry(19, &[], 0, 2, 2))];
        let path = folder.path().join("m.index");
        std::fs::write(&path, table::tests::write(&entries)).unwrap();
        std::fs::write(folder.path().join("m.data-00000-of-00002"), [0, 1, 2, 3]).unwrap();
        std::fs::write(folder.path().join("m.data-00001-of-00002"), [4, 5, 6, 7]).unwrap();
        let tensors = variables(&File::open(&path).unwrap()).unwrap();
        let found: Vec<_> = tensors.iter().map(|t| (t.name.as_str(), t.dtype, &t.shape[..], &*t.bytes)).collect();
        assert_eq!(found, [("a", DType::BF16, &[1, 2][..], &[4, 5, 6, 7][..]), ("b", DType::F16, &[], &[2, 3])]);
    }

    #[test]
    fn variables_that_are_no_weights_are_left_out() {
        let variables: [(&[u8], Vec<u8>); 3] = [
            (b"\0\x01part", vec![]),
            (b"global_step", entry(9, &[], 0, 0, 8)),
            (b"save_counter", entry(7, &[1], 7, u64::MAX, 3)),
        ];
        assert!(read_variables(&variables).unwrap().is_empty());
    }

    #[test]
    fn each_fault_is_named() {
        let refused = |key: &[u8], value: Vec<u8>, expected: &str| {
            let error = read_variables(&[(key, value)]).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains('\n'), "{error:?} does not say {expected:?}");
        };
        refused(b"w", entry(1, &[3], 0, 32, 12), "`w` is at bytes 32 to 44, but the file has 40; it is truncated");
        refused(b"w", entry(1, &[1], 0, u64::MAX, 4), "bytes 18446744073709551615 to 18446744073709551619");
        refused(b"w", entry(1, &[3], 0, 0, 16), "`w` with shape [3] and type F32 is listed with 16 bytes");
        refused(b"w", entry(1, &[1 << 62, 1 << 62], 0, 0, 0), "is listed with 0 bytes");
        refused(b"w", entry(1, &[1], 1, 0, 4), "is listed in part 1 of 1");
        refused(b"w", entry(1, &[u64::MAX], 0, 0, 4), "`w` has a dimension -1");
        refused(b"w", entry(1, &[1; 9], 0, 0, 4), "9 dimensions");
        refused(b"w", [entry(1, &[4], 0, 0, 16), bytes(7, b"")].concat(), "`w` is stored in slices");
        refused(b"w", [number(1, 1), bytes(2, &number(3, 1))].concat(), "`w` has no shape");
        refused(b"w", vec![0xff], "the entry of variable `w` is damaged");
        refused(b"\xff", vec![], "not UTF-8");
        refused(b"a\nb", vec![], "no control characters");
    }

    #[test]
    fn other_tables_and_other_headers_are_recognised() {
        let refused = |entries: &[(&[u8], Vec<u8>)], expected: &str| {
            let error = variables(&File::of(table::tests::write(entries))).unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} does not say {expected:?}");
        };
        refused(&[], "not a TensorFlow checkpoint's");
        refused(&[(b"key", vec![])], "not a TensorFlow checkpoint's");
        refused(&[(b"", [number(1, 1), number(2, 1)].concat())], "big-endian");
        refused(&[(b"", bytes(1, b"tensors"))], "before TensorFlow 1.0");
        refused(&[(b"", vec![0xff])], "its header is damaged");
    }
}
