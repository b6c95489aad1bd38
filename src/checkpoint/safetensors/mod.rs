//! safetensors: eight bytes of header length, a JSON header, and the tensors one after the other.
//!
//! Reference: <https://github.com/huggingface/safetensors>, section Format. The `safetensors` crate's own reader gives
//! up without naming the tensor and accepts duplicate keys; this one names each fault.

mod write;

use std::collections::HashSet;
use std::fmt;

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::Tensor;
use super::file::File;
use crate::base::DType;
pub(super) use write::write_in_order;
pub use write::{write, write_in_turn};

use crate::error::Result;
use crate::json;

/// The largest header, as in the reference implementation.
const LARGEST_HEADER: u64 = 100_000_000;

/// The key under which the header holds free text.
pub(crate) const METADATA: &str = "__metadata__";

/// Whether a file that starts like this is meant to be one: after its length, the header starts with a brace. The length
/// may look like the start of another kind of file.
pub(super) fn is_safetensors(bytes: &[u8]) -> bool {
    bytes.get(8) == Some(&b'{')
}

/// Reads the tensors of a safetensors file, in the order of their bytes.
pub(super) fn read(file: &File) -> Result<Vec<Tensor>> {
    let (mut entries, data_start) = header(file)?;
    entries.sort_by_key(|(_, info)| info.data_offsets);
    let data_len = file.bytes.len() - data_start;
    let mut tensors = Vec::with_capacity(entries.len());
    let mut end_of_last = 0;
    for (name, info) in &entries {
        let (start, end) = info.data_offsets;
        check_range(file, name, info, end_of_last, data_len)?;
        end_of_last = end;
        let Some(dtype) = DType::named(&info.dtype.to_string()) else {
            return Err(file.error(format!("tensor `{name}` has dtype {}, which is not supported", info.dtype)));
        };
        let bytes = file.bytes.slice(data_start + start..data_start + end);
        tensors.push(Tensor {
            name: name.clone(),
            dtype,
            shape: info.shape.clone(),
            transposed: false,
            packed: false,
            bytes: bytes.ok_or_else(|| file.error(format!("tensor `{name}` lies outside the file")))?,
        });
    }
    if end_of_last != data_len {
        return Err(file.error(format!("the last {} bytes belong to no tensor", data_len - end_of_last)));
    }
    Ok(tensors)
}

/// The entries of the header in file order, and where the data begins.
fn header(file: &File) -> Result<(Vec<(String, TensorInfo)>, usize)> {
    let all = &*file.bytes;
    let Some((length, rest)) = all.split_first_chunk::<8>() else {
        return Err(file.not_a("a safetensors file"));
    };
    let length = u64::from_le_bytes(*length);
    if rest.first() != Some(&b'{') {
        return Err(file.not_a("a safetensors file"));
    }
    if length > LARGEST_HEADER {
        return Err(file.error(format!("its header claims {length} bytes; at most {LARGEST_HEADER} are allowed")));
    }
    let length = length as usize;
    let Some(text) = rest.get(..length) else {
        return Err(file.error(format!(
            "its header claims {length} bytes, but only {} follow; the file is truncated or damaged",
            rest.len()
        )));
    };
    let header: Header = serde_json::from_slice(text)
        .map_err(|e| file.error(format!("its header cannot be read: {}", json::fault(text, &e))))?;
    let mut names = HashSet::with_capacity(header.0.len());
    let mut entries = Vec::with_capacity(header.0.len());
    for (name, entry) in &header.0 {
        file.check_name(name)?;
        let info = info(file, name, entry)?;
        file.check_rank(name, info.shape.len())?;
        if !names.insert(name) {
            return Err(file.error(format!("tensor `{name}` is listed twice")));
        }
        entries.push((name.clone(), info));
    }
    Ok((entries, 8 + length))
}

/// Checks that a tensor's bytes start where the previous ones end, fit its shape, and end inside the data.
fn check_range(file: &File, name: &str, info: &TensorInfo, expected_start: usize, data_len: usize) -> Result<()> {
    let (start, end) = info.data_offsets;
    let fail = |message: String| Err(file.error(format!("tensor `{name}` {message}")));
    let bits = info.shape.iter().try_fold(info.dtype.bitsize(), |product, &n| product.checked_mul(n));
    let Some(bits) = bits else {
        return fail(format!("has the impossible shape {:?}", info.shape));
    };
    if start > end {
        return fail(format!("ends at byte {end}, before its start at byte {start}"));
    }
    if end > data_len {
        return fail(format!(
            "ends at byte {end} of the data, which has only {data_len}; the file is truncated or damaged"
        ));
    }
    if !bits.is_multiple_of(8) || bits / 8 != end - start {
        return fail(format!(
            "with shape {:?} and dtype {} needs {} bytes, but {} are listed",
            info.shape,
            info.dtype,
            bits.div_ceil(8),
            end - start
        ));
    }
    if start < expected_start {
        return fail(format!("starts at byte {start} of the data, inside the tensor before it"));
    }
    if start > expected_start {
        return fail(format!(
            "starts at byte {start} of the data; bytes {expected_start} to {start} belong to no tensor"
        ));
    }
    Ok(())
}

/// The header's tensors in file order, including duplicates, so that these can be rejected.
struct Header(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == METADATA {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        entries.push((name, map.next_value()?));
                    }
                }
                Ok(Header(entries))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

/// The header's entry for a tensor.
fn info(file: &File, name: &str, entry: &Value) -> Result<TensorInfo> {
    let fail = |message: String| file.error(format!("tensor {name:?} {message}"));
    let dtype = entry.get("dtype").ok_or_else(|| fail("has no `dtype`".into()))?;
    let dtype: Dtype = serde_json::from_value(dtype.clone())
        .map_err(|_| fail(format!("has the unknown dtype {}", json::shown(dtype))))?;
    let numbers = |key: &str, len: Option<usize>| {
        let list = entry.get(key).and_then(Value::as_array).filter(|list| len.is_none_or(|len| list.len() == len));
        let numbers: Option<Vec<usize>> =
            list.and_then(|list| list.iter().map(|n| n.as_u64().and_then(|n| n.try_into().ok())).collect());
        numbers.ok_or_else(|| {
            let found = entry.get(key).map_or("missing".to_owned(), json::shown);
            let what = len.map_or("a list of".to_owned(), |len| format!("a list of {len}"));
            fail(format!("has a `{key}` that is not {what} whole numbers: {found}"))
        })
    };
    let offsets = numbers("data_offsets", Some(2))?;
    Ok(TensorInfo { dtype, shape: numbers("shape", None)?, data_offsets: (offsets[0], offsets[1]) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::TensorSpec;

    /// A file with this header and `data_len` bytes of data.
    fn file(json: &str, data_len: usize) -> File {
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json.as_bytes());
        bytes.resize(bytes.len() + data_len, 0);
        File::of(bytes)
    }

    #[track_caller]
    fn refused(file: &File, expected: &str) {
        let error = read(file).unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} does not say {expected:?}");
        assert!(!error.contains('\n'), "{error:?}");
    }

    #[test]
    fn each_fault_is_named() {
        let entry = |name: &str, dtype: &str, shape: &str, start: u64, end: u64| {
            format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]}}"#)
        };
        let one = |dtype, shape, start, end| file(&format!("{{{}}}", entry("a", dtype, shape, start, end)), 8);
        let two = |second: String| file(&format!("{{{},{second}}}", entry("a", "F32", "[1]", 0, 4)), 8);
        assert_eq!(read(&one("F32", "[2]", 0, 8)).unwrap().len(), 1);
        refused(&one("F32", "[3]", 0, 8), "tensor `a` with shape [3] and dtype F32 needs 12 bytes, but 8 are listed");
        refused(&one("F32", "[4294967296,4294967296,2]", 0, 8), "tensor `a` has the impossible shape");
        refused(&one("F32", "[-2]", 0, 8), "tensor \"a\" has a `shape` that is not a list of whole numbers: [-2]");
        refused(&one("F16", "[1,1,1,1,1,1,1,1,4]", 0, 8), "9 dimensions");
        refused(&one("F32", "[3]", 0, 12), "tensor `a` ends at byte 12 of the data, which has only 8");
        refused(&one("F32", "[2]", 8, 0), "ends at byte 0, before its start");
        refused(&one("F32", "[1]", 0, 4), "the last 4 bytes belong to no tensor");
        refused(&one("F32", "[1]", 4, 8), "bytes 0 to 4 belong to no tensor");
        refused(&one("F31", "[2]", 0, 8), "tensor \"a\" has the unknown dtype \"F31\"");
        refused(&one("F3\u{7f}", "[2]", 0, 8), "tensor \"a\" has the unknown dtype \"F3\\u007f\"");
        refused(
            &file(r#"{"a":{"dtype":"F32","shape":[2]}}"#, 8),
            "`data_offsets` that is not a list of 2 whole numbers",
        );
        refused(&file(r#"{"a":[]}"#, 8), "has no `dtype`");
        refused(&one("U64", "[1]", 0, 8), "tensor `a` has dtype U64, which is not supported");
        refused(
            &two(entry("b", "F32", "[1]", 2, 6)),
            "tensor `b` starts at byte 2 of the data, inside the tensor before",
        );
        refused(&two(entry("a", "F32", "[1]", 4, 8)), "tensor `a` is listed twice");
        refused(&two(entry("\\n\\u001b[31m", "F32", "[1]", 4, 8)), "no control characters");
        refused(&two(entry("", "F32", "[1]", 4, 8)), "a tensor's name has 0 bytes");
    }

    #[test]
    fn a_header_that_cannot_be_is_refused() {
        refused(&File::of(b"123"), "not a safetensors file");
        refused(
            &File::of([&u64::MAX.to_le_bytes()[..], b"{}"].concat()),
            "its header claims 18446744073709551615 bytes",
        );
        refused(&File::of([&90_000_000u64.to_le_bytes()[..], b"{}"].concat()), "but only 2 follow");
        refused(&file("{", 0), "its header cannot be read");
        refused(&file("{\"a\":1}", 0), "tensor \"a\" has no `dtype`");
        refused(&file(&format!("{{\"a\":{}", "[".repeat(100_000)), 0), "its header cannot be read");
    }

    #[test]
    fn other_kinds_of_files_are_recognised() {
        refused(&File::of(b"version https://git-lfs.github.com/spec/v1\noid sha256:00"), "a git-lfs pointer");
        refused(&File::of(b"\n<!doctype html><html>"), "a web page");
        refused(&File::of(b"{\"error\": \"not found\"}"), "a JSON text");
        refused(&File::of(b"PK\x03\x04................"), "a zip archive");
        refused(&File::of(b"GGUF................"), "a GGUF file");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let spec = |name: &str, dtype, shape: &[usize]| TensorSpec { name: name.into(), dtype, shape: shape.into() };
        let specs = [
            spec("h.0.ln_1.bias", DType::F16, &[3]),
            spec("wte.weight", DType::F32, &[2, 2]),
            spec("scalar", DType::I64, &[]),
        ];
        let data: [&[u8]; 3] = [&[1; 6], &[2; 16], &[3; 8]];
        write(&path, &[("format", "pt")], &specs, |place| Ok(data[place].into())).unwrap();
        let tensors = read(&File::open(&path).unwrap()).unwrap();
        let found: Vec<_> = tensors.iter().map(|t| (t.name.as_str(), t.dtype, t.shape.as_slice(), &*t.bytes)).collect();
        // The widest type comes first.
        let expected = [2, 1, 0].map(|i| (specs[i].name.as_str(), specs[i].dtype, specs[i].shape.as_slice(), data[i]));
        assert_eq!(found, expected);
        // The reference implementation reads it too.
        let bytes = std::fs::read(&path).unwrap();
        let reference = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(reference.tensor("wte.weight").unwrap().data(), data[1]);
        assert_eq!(tensors[0].bytes.as_ptr() as usize % 8, 0, "the data is aligned");
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let spec = |name: &str, dtype| TensorSpec { name: name.into(), dtype, shape: vec![32] };
        let message =
            |specs: &[TensorSpec]| write(&path, &[], specs, |_| Ok(vec![0; 5].into())).unwrap_err().to_string();
        assert!(message(&[spec("a", DType::Q8_0)]).contains("safetensors has no type Q8_0"));
        assert!(message(&[spec("a", DType::F32)]).contains("needs 128 bytes, not 5"));
        assert!(message(&[spec("a", DType::U8), spec("a", DType::U8)]).contains("written twice"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
