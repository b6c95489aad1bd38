//! GGUF: metadata (configuration and tokenizer), a list of tensors, and their aligned bytes.
//!
//! Versions 2 and 3 are read, version 3 is written. Tensors get Hugging Face's shapes; their bytes stay in the mapped
//! file. A model may be split over several files (`split`).
//!
//! Reference: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>; for GPT-2's names and keys llama.cpp's
//! `conversion/gpt2.py`.

mod config;
mod cursor;
mod metadata;
pub(crate) mod split;
mod tensors;
mod vocabulary;
mod write;

use std::path::{Path, PathBuf};

pub use metadata::{Array, Metadata, Value};
pub use vocabulary::{TokenKind, Vocabulary};
pub use write::write;

use super::Tensor;
use super::file::File;
use crate::error::{Error, Result};
use crate::inventory::TensorId;
use cursor::Cursor;

/// The architecture's name for GPT-2, with which its keys begin.
const ARCHITECTURE: &str = "gpt2";

const MAGIC: &[u8; 4] = b"GGUF";

/// The alignment of the tensors unless the metadata gives another.
const DEFAULT_ALIGNMENT: usize = 32;

/// An opened GGUF file.
#[derive(Debug, Clone)]
pub struct Gguf {
    /// The file.
    pub path: PathBuf,
    /// Configuration and tokenizer.
    pub metadata: Metadata,
    /// Its tensors with Hugging Face's shapes, in file order.
    pub tensors: Vec<Tensor>,
}

impl Gguf {
    /// Maps the file, reads its metadata and its list of tensors, and checks every range. If it is a part of a split
    /// model, the other parts are read too.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read; [`Error::Format`] if one is damaged, missing, or not a GPT-2.
    pub fn open(path: &Path) -> Result<Self> {
        Self::read(&File::open(path)?)
    }

    pub(super) fn read(file: &File) -> Result<Self> {
        split::join(Self::parse(file)?)
    }

    /// One file, which may be a part of a split model.
    pub(super) fn parse(file: &File) -> Result<Self> {
        Self::parse_as(file, ARCHITECTURE)
    }

    /// One file of this architecture, as its metadata names it.
    pub(super) fn parse_as(file: &File, architecture: &str) -> Result<Self> {
        if !file.bytes.starts_with(MAGIC) {
            return Err(file.not_a("a GGUF file"));
        }
        let mut cursor = Cursor::new(file, MAGIC.len());
        match cursor.u32()? {
            2 | 3 => {}
            version if version != 0 && version.trailing_zeros() >= 16 => {
                return Err(file.error("a big-endian GGUF file; convert it on a little-endian machine"));
            }
            version => return Err(file.error(format!("GGUF version {version}; versions 2 and 3 are supported"))),
        }
        let tensor_count = cursor.u64()?;
        let key_count = cursor.u64()?;
        let metadata = Metadata::read(&mut cursor, key_count)?;
        check_architecture(file, &metadata, architecture)?;
        let alignment = alignment(file, &metadata)?;
        let tensors = tensors::read(&mut cursor, tensor_count, alignment)?;
        Ok(Self { path: file.path.clone(), metadata, tensors })
    }

    fn tensor(&self, id: TensorId) -> Option<&Tensor> {
        let name = id.gguf_name();
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// An error about this file's metadata.
    fn error(&self, message: impl AsRef<str>) -> Error {
        Error::format(&self.path, message)
    }
}

fn check_architecture(file: &File, metadata: &Metadata, expected: &str) -> Result<()> {
    match metadata.get("general.architecture") {
        Some(Value::String(name)) if name == expected => {}
        Some(Value::String(name)) if expected != ARCHITECTURE => {
            return Err(file.error(format!("its architecture is {name:?}, not `{expected}`")));
        }
        Some(Value::String(name)) => {
            let (origin, found) = (file.path.display().to_string(), name.clone());
            return Err(Error::Architecture { origin, key: "general.architecture", found });
        }
        // Only the first part of a split model has the metadata.
        None if metadata.get("split.no").and_then(Value::as_u64).is_some_and(|place| place > 0) => {}
        _ => return Err(file.error("it has no `general.architecture`")),
    }
    Ok(())
}

/// Whether a file that starts like this is a GGUF file.
pub(crate) fn is_gguf(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

fn alignment(file: &File, metadata: &Metadata) -> Result<usize> {
    let Some(value) = metadata.get("general.alignment") else { return Ok(DEFAULT_ALIGNMENT) };
    let alignment = value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| n.is_power_of_two());
    alignment.ok_or_else(|| file.error("`general.alignment` is not a power of two"))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::super::TensorSpec;
    use super::*;
    use crate::base::DType;
    use crate::config::Config;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoint").join(name)
    }

    /// `tiny.gguf` was written by the `gguf` package of llama.cpp.
    #[test]
    fn reads_what_the_gguf_package_writes() {
        let gguf = Gguf::open(&fixture("tiny.gguf")).unwrap();
        let expected: serde_json::Value =
            serde_json::from_slice(&std::fs::read(fixture("expected.json")).unwrap()).unwrap();
        let expected = expected["gguf"].as_object().unwrap();
        assert_eq!(gguf.tensors.len(), expected.len());
        for (tensor, (name, entry)) in gguf.tensors.iter().zip(expected) {
            assert_eq!(tensor.name, *name);
            assert_eq!(tensor.dtype.name(), entry["dtype"], "{name}");
            let mut shape = tensor.shape.clone();
            if tensor.transposed {
                shape.reverse();
            }
            assert_eq!(serde_json::json!(shape), entry["shape"], "{name}");
            assert_eq!(tensor.bytes.len(), tensor.dtype.byte_len(&shape).unwrap(), "{name}");
            let sum: u64 = tensor.bytes.iter().map(|&byte| u64::from(byte)).sum();
            assert_eq!(sum, entry["sum_of_bytes"], "{name}");
        }
        let shape = |name: &str| {
            let tensor = gguf.tensor(TensorId::named(name).unwrap()).unwrap();
            (tensor.shape.clone(), tensor.transposed)
        };
        assert_eq!(shape("h.0.attn.c_attn.weight"), (vec![256, 12], true));
        assert_eq!(shape("wte.weight"), (vec![5, 256], false));
        assert_eq!(shape("h.0.attn.c_attn.bias"), (vec![12], false));
    }

    #[test]
    fn metadata_gives_configuration_and_vocabulary() {
        let gguf = Gguf::open(&fixture("tiny.gguf")).unwrap();
        let config = Config::from_gguf(&gguf).unwrap();
        let sizes =
            [config.vocab_size, config.n_positions, config.n_embd, config.n_layer, config.n_head, config.n_inner];
        assert_eq!(sizes, [5, 8, 256, 1, 2, 32]);
        assert_eq!(config.layer_norm_epsilon, 1e-5);
        assert!(!config.tie_word_embeddings, "the file has an `output.weight`");
        assert_eq!((config.bos_token_id, config.eos_token_id), (Some(4), vec![4]));
        let vocabulary = gguf.vocabulary().unwrap();
        assert_eq!(vocabulary.tokens, ["a", "b", "ab", "Ġ", "<|endoftext|>"]);
        assert_eq!(vocabulary.merges, ["a b"]);
        assert_eq!(vocabulary.kinds[3..], [TokenKind::Normal, TokenKind::Control]);
        assert_eq!((vocabulary.bos, vocabulary.eos, vocabulary.add_bos), (Some(4), Some(4), false));
        let numbers = gguf.metadata.get("test.numbers").and_then(Value::as_array).and_then(Array::i32s);
        assert_eq!(numbers.unwrap().collect::<Vec<_>>(), [1, -2, 3]);
        assert_eq!(gguf.metadata.get("test.double"), Some(&Value::F64(0.5)));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let config = Config { vocab_size: 3, n_embd: 32, n_layer: 1, n_inner: 64, ..Config::named("gpt2").unwrap() };
        let config = Config { n_head: 4, ..config };
        let mut metadata = Metadata::from_config(&config).unwrap();
        use TokenKind::{Control, Normal, UserDefined};
        let vocabulary = Vocabulary {
            tokens: ["a", "<u>", "<e>"].map(Cow::Borrowed).to_vec(),
            kinds: vec![Normal, UserDefined, Control],
            merges: vec!["a b".into()],
            bos: Some(2),
            eos: Some(1),
            add_bos: true,
            add_eos: false,
        };
        metadata.push_vocabulary(&vocabulary);
        let spec = |name: &str, dtype, shape: &[usize]| TensorSpec { name: name.into(), dtype, shape: shape.into() };
        let specs = [
            spec("token_embd.weight", DType::Q8_0, &[3, 32]),
            spec("blk.0.attn_qkv.weight", DType::F16, &[96, 32]),
            spec("blk.0.attn_qkv.bias", DType::F32, &[96]),
        ];
        let bytes = |place: usize| vec![place as u8 + 1; specs[place].dtype.byte_len(&specs[place].shape).unwrap()];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        write(&path, &metadata, &specs, |place| Ok(Cow::Owned(bytes(place)))).unwrap();

        let gguf = Gguf::open(&path).unwrap();
        // The tokenizer's tokens start and end texts, whatever the configuration says.
        let config = Config { bos_token_id: Some(2), eos_token_id: vec![1], ..config };
        assert_eq!(Config::from_gguf(&gguf).unwrap(), config);
        assert!(gguf.metadata.iter().eq(metadata.iter()));
        assert_eq!(gguf.vocabulary().unwrap(), vocabulary);
        for (place, tensor) in gguf.tensors.iter().enumerate() {
            assert_eq!((&tensor.name, tensor.dtype), (&specs[place].name, specs[place].dtype));
            assert_eq!(*tensor.bytes, bytes(place));
            assert_eq!(tensor.bytes.as_ptr() as usize % DEFAULT_ALIGNMENT, 0);
        }
        assert_eq!(gguf.tensors[1].shape, [32, 96]);
    }

    #[test]
    fn models_that_llama_cpp_would_compute_differently_are_not_written() {
        let config = Config { scale_attn_by_inverse_layer_idx: true, ..Config::named("gpt2").unwrap() };
        let error = Metadata::from_config(&config).unwrap_err().to_string();
        assert!(error.contains("inverse of the layer, which a GGUF of a GPT-2 cannot say"), "{error}");
    }

    /// The start of a file: version, number of tensors and keys, then `rest`.
    fn file(version: u32, tensors: u64, keys: u64, rest: &[u8]) -> File {
        let mut bytes = Vec::from(*MAGIC);
        bytes.extend(version.to_le_bytes());
        bytes.extend(tensors.to_le_bytes());
        bytes.extend(keys.to_le_bytes());
        bytes.extend(rest);
        File::of(bytes)
    }

    /// A file of one tensor with a given entry in the list and 64 bytes of data.
    fn with_tensor(dims: &[u64], code: u32, offset: u64) -> File {
        let mut rest = Vec::new();
        let mut metadata = Metadata::default();
        metadata.push("general.architecture", Value::String("gpt2".into()));
        metadata.encode(&mut rest);
        metadata::encode_string("token_embd.weight", &mut rest);
        rest.extend((dims.len() as u32).to_le_bytes());
        rest.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
        rest.extend(code.to_le_bytes());
        rest.extend(offset.to_le_bytes());
        rest.resize((24 + rest.len()).next_multiple_of(32) - 24 + 64, 0);
        file(3, 1, 1, &rest)
    }

    #[track_caller]
    fn refused(file: &File, expected: &str) {
        let error = Gguf::read(file).unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} does not say {expected:?}");
        assert!(!error.contains('\n'), "{error:?}");
    }

    #[test]
    fn each_fault_is_named() {
        assert!(Gguf::read(&with_tensor(&[16], 0, 0)).is_ok());
        refused(&with_tensor(&[17], 0, 0), "tensor `token_embd.weight` ends outside the file");
        refused(&with_tensor(&[8], 0, 4), "starts at 4, not a multiple of 32");
        refused(&with_tensor(&[8], 0, 1 << 63), "ends outside the file");
        refused(&with_tensor(&[u64::MAX, 2], 0, 0), "which is impossible for F32");
        refused(&with_tensor(&[33], 8, 0), "which is impossible for Q8_0");
        refused(&with_tensor(&[8], 20, 0), "ggml's type 20, which is not supported");
        refused(&with_tensor(&[], 0, 0), "0 dimensions");
        refused(&with_tensor(&[1; 5], 0, 0), "5 dimensions");
        refused(&file(1, 0, 0, &[]), "GGUF version 1");
        refused(&file(3 << 24, 0, 0, &[]), "big-endian");
        refused(&file(3, 0, 0, &[]), "no `general.architecture`");
        refused(&file(3, 0, u64::MAX, &[]), "damaged or truncated");
        refused(&file(3, 0, 1, &u64::MAX.to_le_bytes()), "damaged or truncated");
        refused(&file(3, 0, 1, b"\x01\0\0\0\0\0\0\0k\x09\0\0\0\x09\0\0\0"), "damaged or truncated");
        refused(&file(3, 0, 1, b"\x01\0\0\0\0\0\0\0k\x0d\0\0\0"), "unknown type 13");
        refused(&file(3, 0, 1, b"\x01\0\0\0\0\0\0\0\xff\x0d\0\0\0"), "not UTF-8");
        let array = [&b"\x01\0\0\0\0\0\0\0k\x09\0\0\0\x0a\0\0\0"[..], &u64::MAX.to_le_bytes()].concat();
        refused(&file(3, 0, 1, &array), "damaged or truncated");
        let nested = [&b"\x01\0\0\0\0\0\0\0k\x09\0\0\0\x09\0\0\0"[..], &[0; 64]].concat();
        refused(&file(3, 0, 1, &nested), "array of the unknown type 9");
        let other = [&b"\x14\0\0\0\0\0\0\0general.architecture\x08\0\0\0"[..], b"\x05\0\0\0\0\0\0\0llama"].concat();
        refused(&file(3, u64::MAX, 1, &other), "general.architecture is \"llama\"");
        let gpt2 = [&b"\x14\0\0\0\0\0\0\0general.architecture\x08\0\0\0"[..], b"\x04\0\0\0\0\0\0\0gpt2"].concat();
        refused(&file(3, u64::MAX, 1, &gpt2), "damaged or truncated");
    }

    #[test]
    fn truncated_files_are_refused_at_every_length() {
        let bytes = std::fs::read(fixture("tiny.gguf")).unwrap();
        // The last tensor has no padding after it: 2560 bytes of F16.
        for len in 4..bytes.len() {
            assert!(Gguf::read(&File::of(&bytes[..len])).is_err(), "cut to {len} bytes");
        }
    }
}
