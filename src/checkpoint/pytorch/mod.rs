//! PyTorch checkpoints (`pytorch_model.bin`, nanoGPT's `ckpt.pt`, ...): a pickle with a state dict somewhere in it, beside
//! flat buffers of numbers.
//!
//! Nothing in the file is executed: [`pickle`] builds state dicts and rejects everything else. `torch.save` writes a
//! zip archive since PyTorch 1.6 ([`archive`]) and a sequence of pickles before that ([`legacy`]). Both store raw
//! numbers, so a tensor is used in place in the mapped file. Only transposed views and compressed archives are copied.
//!
//! Reference: `torch/serialization.py`.

mod archive;
mod legacy;
mod nanogpt;
mod pickle;

use std::collections::HashSet;

use super::file::File;
use super::{Contents, Format, Tensor};
use crate::base::Bytes;
use crate::error::{Error, Result};
use pickle::{Fault, MOST_INSTRUCTIONS, Object, Pickle, Storage, TensorView, Value};

/// Keys under which training scripts put the state dict of the model.
const WRAPPERS: [&str; 4] = ["model", "state_dict", "module", "model_state_dict"];

/// How deep a state dict may be in other dicts.
const DEEPEST: usize = 8;

/// How many times the file's size may be allocated for what is compressed in it or copied from it.
const EXPANSION: usize = 16;

/// Whether a file that starts like this is meant to be one: a zip archive, unless of NumPy's arrays, or a binary pickle.
pub(super) fn is_pytorch(bytes: &[u8]) -> bool {
    (bytes.starts_with(ARCHIVE) && !is_of_numpy(bytes)) || matches!(bytes, [0x80, 2..=5, ..])
}

/// Whether the first file of a zip archive is an array, as in `.npz`.
fn is_of_numpy(bytes: &[u8]) -> bool {
    // The length of its name stands in the last part of the header before the name.
    let Some((header, rest)) = bytes.split_first_chunk::<30>() else { return false };
    let len = usize::from(u16::from_le_bytes([header[26], header[27]]));
    rest.get(..len).is_some_and(|name| name.ends_with(b".npy"))
}

const ARCHIVE: &[u8] = b"PK\x03\x04";

/// Reads a PyTorch checkpoint: the tensors in the order of its state dict.
pub(super) fn read(file: &File) -> Result<Contents> {
    let mut memory = Memory { left: file.bytes.len().saturating_mul(EXPANSION) };
    if file.bytes.starts_with(ARCHIVE) { archive::read(file, &mut memory) } else { legacy::read(file, &mut memory) }
}

/// Runs the pickle at the start of `bytes`.
fn load_pickle<'a>(file: &File, bytes: &'a [u8]) -> Result<Pickle<'a>> {
    pickle::load(bytes).map_err(|fault| fault.error(file))
}

impl Fault {
    fn error(self, file: &File) -> Error {
        file.error(match self {
            Self::Damaged => "its pickle is truncated or damaged".to_owned(),
            Self::TooLong => format!("its pickle has more than {MOST_INSTRUCTIONS} instructions; refused"),
            Self::Instruction(code) => {
                format!("its pickle has the instruction 0x{code:02x}, which no state dict needs; refused")
            }
            Self::NumberType => {
                "it has tensors of a number type that is not supported, such as float8; save them as f32, f16 or bf16".to_owned()
            }
            Self::Code(name) => {
                format!(
                    "loading it would run code: `{name}`; refused, the weights of a GPT-2 need none (save the model's state_dict(), not the model)"
                )
            }
        })
    }
}

/// How much may still be allocated for the numbers of a file: a small archive must not fill the memory.
struct Memory {
    left: usize,
}

impl Memory {
    /// Reserves `bytes` for `what`.
    fn take(&mut self, file: &File, what: &str, bytes: usize) -> Result<()> {
        let Some(left) = self.left.checked_sub(bytes) else {
            return Err(
                file.error(format!("{what} would expand to {bytes} bytes, {EXPANSION} times the file; refused"))
            );
        };
        self.left = left;
        Ok(())
    }
}

/// The state dict that `pickle` built; `bytes_of` finds the numbers of a storage.
fn contents<'a>(
    file: &File,
    pickle: &Pickle<'a>,
    memory: &mut Memory,
    mut bytes_of: impl FnMut(Storage<'a>, &mut Memory) -> Result<Bytes>,
) -> Result<Contents> {
    let mut tensors = Vec::new();
    let Some(entries) = [2, 0].into_iter().find_map(|rank| Search::new(pickle, rank).state_dict(pickle.value, 0))
    else {
        return Err(file.error("it holds no state dict with tensors"));
    };
    for &(name, value) in entries {
        let (Value::Str(name), Some(Object::Tensor(view))) = (name, pickle.object(value)) else { continue };
        file.check_name(name)?;
        let bytes = bytes_of(view.storage, memory)?;
        tensors.push(Tensor {
            name: name.to_owned(),
            dtype: view.storage.dtype,
            shape: view.shape.clone(),
            transposed: false,
            packed: false,
            bytes: view_bytes(file, name, view, &bytes, memory)?,
        });
    }
    Ok(match nanogpt::config(file, pickle, &tensors)? {
        Some(config) => Contents { format: Format::NanoGpt, tensors, config: Some(config) },
        None => Contents { format: Format::PyTorch, tensors, config: None },
    })
}

/// The search for the state dict: what is under a known wrapper's key, else the first dict that has a tensor of at least
/// this rank.
struct Search<'p, 'a> {
    pickle: &'p Pickle<'a>,
    rank: usize,
    /// Dicts may contain each other and themselves.
    seen: HashSet<usize>,
}

impl<'p, 'a> Search<'p, 'a> {
    fn new(pickle: &'p Pickle<'a>, rank: usize) -> Self {
        Self { pickle, rank, seen: HashSet::new() }
    }

    /// The entries of the state dict in `value`, which is `depth` dicts deep.
    fn state_dict(&mut self, value: Value<'a>, depth: usize) -> Option<&'p [(Value<'a>, Value<'a>)]> {
        let (Value::Object(place), Some(Object::Dict(entries))) = (value, self.pickle.object(value)) else {
            return None;
        };
        if depth > DEEPEST || !self.seen.insert(place) {
            return None;
        }
        for wrapper in WRAPPERS {
            let wrapped = entries.iter().find(|(key, _)| *key == Value::Str(wrapper));
            if let Some(found) = wrapped.and_then(|(_, value)| self.state_dict(*value, depth + 1)) {
                return Some(found);
            }
        }
        let is_weight =
            |value| matches!(self.pickle.object(value), Some(Object::Tensor(view)) if view.shape.len() >= self.rank);
        if entries.iter().any(|(_, value)| is_weight(*value)) {
            return Some(entries);
        }
        entries.iter().find_map(|(_, value)| self.state_dict(*value, depth + 1))
    }
}

/// The bytes of a view into `storage`: part of it if the numbers are contiguous, else a copy.
fn view_bytes(file: &File, name: &str, view: &TensorView, storage: &Bytes, memory: &mut Memory) -> Result<Bytes> {
    let size = view.storage.dtype.block_bytes();
    let range = || {
        let needed = view.storage.dtype.byte_len(&view.shape)?;
        let start = view.offset.checked_mul(size)?;
        let last = view
            .shape
            .iter()
            .zip(&view.strides)
            .try_fold(0usize, |last, (&n, &stride)| last.checked_add(n.saturating_sub(1).checked_mul(stride)?))?;
        let end = if needed == 0 { start } else { last.checked_add(1)?.checked_mul(size)?.checked_add(start)? };
        // Broadcast views need more bytes than they span; a GPT-2 has none.
        (end <= storage.len() && needed <= end - start).then_some((start, end, needed))
    };
    let Some((start, end, needed)) = range() else {
        return Err(file.error(format!(
            "tensor `{name}` with shape {:?}, strides {:?} and offset {} does not fit its storage of {} numbers",
            view.shape, view.strides, view.offset, view.storage.len
        )));
    };
    if needed == 0 || is_contiguous(view) {
        return storage
            .slice(start..start + needed)
            .ok_or_else(|| file.error(format!("tensor `{name}` lies outside its storage")));
    }
    memory.take(file, &format!("tensor `{name}`"), needed)?;
    let mut gathered = Vec::with_capacity(needed);
    gather(&storage[start..end], &view.shape, &view.strides, size, &mut gathered);
    Ok(gathered.into())
}

/// Whether the numbers of a view are in row-major order without gaps.
fn is_contiguous(view: &TensorView) -> bool {
    let mut expected = 1;
    view.shape.iter().zip(&view.strides).rev().all(|(&n, &stride)| {
        let fits = n == 1 || stride == expected;
        expected *= n;
        fits
    })
}

/// Appends the numbers of a strided view, each of `size` bytes, in row-major order.
fn gather(from: &[u8], shape: &[usize], strides: &[usize], size: usize, to: &mut Vec<u8>) {
    match (shape, strides) {
        ([n, inner_shape @ ..], [stride, inner_strides @ ..]) => {
            for i in 0..*n {
                gather(&from[i * stride * size..], inner_shape, inner_strides, size, to);
            }
        }
        _ => to.extend_from_slice(&from[..size]),
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use half::{bf16, f16};

    use super::super::names::plain;
    use super::*;
    use crate::base::DType;
    use crate::inventory::is_causal_mask;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoint").join(name)
    }

    fn read_fixture(name: &str) -> Result<Vec<Tensor>> {
        tensors(&File::open(&fixture(name))?)
    }

    fn tensors(file: &File) -> Result<Vec<Tensor>> {
        let mut tensors = read(file)?.tensors;
        tensors.retain(|tensor| !is_causal_mask(plain(&tensor.name)));
        Ok(tensors)
    }

    fn numbers(tensor: &Tensor) -> Vec<f64> {
        let items = tensor.bytes.chunks_exact(tensor.dtype.block_bytes());
        match tensor.dtype {
            DType::F32 => items.map(|b| f32::from_le_bytes(b.try_into().unwrap()).into()).collect(),
            DType::F16 => items.map(|b| f16::from_le_bytes(b.try_into().unwrap()).into()).collect(),
            DType::BF16 => items.map(|b| bf16::from_le_bytes(b.try_into().unwrap()).into()).collect(),
            DType::F64 => items.map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
            DType::I64 => items.map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect(),
            other => panic!("{other}"),
        }
    }

    /// Views, parameters, tied weights and every width, compared with what PyTorch read.
    #[test]
    fn every_variant_of_torch_save_gives_what_pytorch_gives() {
        let expected: serde_json::Value =
            serde_json::from_slice(&std::fs::read(fixture("expected.json")).unwrap()).unwrap();
        let expected = expected["state_dict"].as_object().unwrap();
        for name in ["views.bin", "views_protocol4.bin", "views_legacy.bin", "nested.bin", "compressed.bin"] {
            let tensors = read_fixture(name).unwrap();
            assert_eq!(tensors.len(), expected.len(), "{name}");
            for (tensor, (tensor_name, entry)) in tensors.iter().zip(expected) {
                assert_eq!(plain(&tensor.name), *tensor_name, "{name}");
                assert_eq!(tensor.dtype.name(), entry["dtype"], "{name} {tensor_name}");
                assert_eq!(serde_json::json!(tensor.shape), entry["shape"], "{name} {tensor_name}");
                let values = entry["values"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap());
                assert_eq!(numbers(tensor).len(), values.len(), "{name} {tensor_name}");
                for (found, expected) in numbers(tensor).into_iter().zip(values) {
                    // serde_json may be off in the last of 53 bits.
                    assert!((found - expected).abs() <= 1e-12, "{name} {tensor_name}: {found} is not {expected}");
                }
            }
        }
    }

    #[test]
    fn stored_numbers_are_used_in_place() {
        let file = File::open(&fixture("views.bin")).unwrap();
        let tensors = tensors(&file).unwrap();
        let map = file.bytes.as_ptr_range();
        let in_place =
            |name: &str| map.contains(&tensors.iter().find(|t| plain(&t.name) == name).unwrap().bytes.as_ptr());
        assert!(in_place("wte.weight") && in_place("lm_head.weight") && in_place("h.0.attn.c_attn.bias"));
        assert!(!in_place("h.0.attn.c_attn.weight"), "a transposed view is gathered");
    }

    #[track_caller]
    fn refused(tensors: Result<Vec<Tensor>>, expected: &str) {
        let error = tensors.unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} does not say {expected:?}");
        assert!(!error.contains('\n'), "{error:?}");
    }

    #[test]
    fn code_is_refused_by_name() {
        refused(read_fixture("evil.bin"), "would run code: `posix.system`; refused");
        refused(read_fixture("evil_legacy.bin"), "would run code: `posix.system`; refused");
        refused(tensors(&File::of(b"cos\nsystem\n(S'id'\ntR.")), "would run code: `os.system`; refused");
    }

    #[test]
    fn other_files_are_recognised() {
        refused(read_fixture("big_endian.bin"), "not little-endian");
        refused(read_fixture("expected.json"), "a JSON text");
        refused(read_fixture("tiny.gguf"), "a GGUF file");
        refused(tensors(&File::of(b"PK\x03\x04 and no more")), "zip directory cannot be read");
        refused(tensors(&File::of(b"}.")), "not a PyTorch checkpoint");
    }

    #[test]
    fn truncated_files_are_refused_at_every_length() {
        for name in ["views.bin", "views_legacy.bin"] {
            let bytes = std::fs::read(fixture(name)).unwrap();
            for len in 1..bytes.len() {
                // An archive may end in a comment, so a cut within its last bytes may go unnoticed.
                assert!(tensors(&File::of(&bytes[..len])).is_err(), "{name} cut to {len} bytes");
            }
        }
    }

    /// An archive of a state dict with one tensor of `len` floats, whose `stored` numbers are compressed zeros.
    fn archive(len: u32, stored: usize) -> File {
        use std::io::{Cursor, Write};
        let mut program = Vec::from(
            *b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\n",
        );
        program.extend(*b"X\x01\0\0\x000X\x03\0\0\0cpuJ");
        program.extend(len.to_le_bytes());
        program.extend(*b"tQK\0J");
        program.extend(len.to_le_bytes());
        program.extend(*b"\x85K\x01\x85\x89NtRs.");
        let mut zip = zip::ZipWriter::new(Cursor::new(vec![]));
        let options = zip::write::SimpleFileOptions::default();
        zip.start_file("m/data.pkl", options.compression_method(zip::CompressionMethod::Stored)).unwrap();
        zip.write_all(&program).unwrap();
        zip.start_file("m/data/0", options.compression_method(zip::CompressionMethod::Deflated)).unwrap();
        zip.write_all(&vec![0; stored]).unwrap();
        File::of(zip.finish().unwrap().into_inner())
    }

    #[test]
    fn a_zip_bomb_is_refused_before_it_is_unpacked() {
        assert_eq!(tensors(&archive(100, 400)).unwrap()[0].shape, [100]);
        refused(tensors(&archive(100, 404)), "has 404 bytes, but its tensors need 400");
        refused(
            tensors(&archive(10_000_000, 40_000_000)),
            "would expand to 40000000 bytes, 16 times the file; refused",
        );
    }

    /// Thousands of end records, each pointing to a directory elsewhere: `zip` would try them all.
    #[test]
    fn an_archive_of_contradictions_is_given_up() {
        let end = b"PK\x06\x06\0\0\0\0\0\0\0\0PK\x06\x07\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0PK\x05\x06\0\0\0\0";
        let ends = [&end[..], &[0xff; 12], &[0; 2]].concat().repeat(40_000);
        refused(tensors(&File::of([b"PK\x03\x04", &ends[..]].concat())), "contradict each other");
    }
}
