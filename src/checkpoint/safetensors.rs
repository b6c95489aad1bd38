//! safetensors: eight bytes of header length, a JSON header, and the tensors one after the other.
//!
//! Reference: <https://github.com/huggingface/safetensors>, section Format. The `safetensors` crate's own reader stops at
//! its first doubt without a tensor's name and lets a duplicate key win; here each fault is named.

use std::collections::HashSet;
use std::fmt;

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::file::File;
use super::storage::StorageType;
use super::{Tensor, is_causal_mask, plain_name};
use crate::error::Result;

/// The largest header, the reference implementation's limit.
const LARGEST_HEADER: u64 = 100_000_000;

/// The key under which the header holds free text.
const METADATA: &str = "__metadata__";

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
        let plain = plain_name(name);
        if is_causal_mask(plain) {
            continue;
        }
        let Some(dtype) = storage_type(info.dtype) else {
            return Err(file.error(format!("tensor `{name}` has dtype {}, which is not supported", info.dtype)));
        };
        let bytes = file.bytes.slice(data_start + start..data_start + end);
        tensors.push(Tensor {
            name: plain.to_owned(),
            dtype,
            shape: info.shape.clone(),
            transposed: false,
            bytes: bytes.ok_or_else(|| file.error(format!("tensor `{name}` lies outside of the file")))?,
        });
    }
    if end_of_last != data_len {
        return Err(file.error(format!("the last {} bytes belong to no tensor", data_len - end_of_last)));
    }
    Ok(tensors)
}

/// The entries of the header as written, and where the data begins.
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
    let Some(json) = rest.get(..length) else {
        return Err(file.error(format!(
            "its header claims {length} bytes, but only {} follow; the file is truncated or damaged",
            rest.len()
        )));
    };
    let header: Header =
        serde_json::from_slice(json).map_err(|e| file.error(format!("its header cannot be read: {e}")))?;
    let mut names = HashSet::with_capacity(header.0.len());
    for (name, info) in &header.0 {
        file.check_name(name)?;
        file.check_rank(name, info.shape.len())?;
        if !names.insert(name) {
            return Err(file.error(format!("tensor `{name}` is listed twice")));
        }
    }
    Ok((header.0, 8 + length))
}

/// Checks that the bytes of a tensor start where those before it ended, fit its shape, and end inside the data.
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

fn storage_type(dtype: Dtype) -> Option<StorageType> {
    Some(match dtype {
        Dtype::F32 => StorageType::F32,
        Dtype::F16 => StorageType::F16,
        Dtype::BF16 => StorageType::BF16,
        Dtype::F64 => StorageType::F64,
        Dtype::BOOL => StorageType::Bool,
        Dtype::U8 => StorageType::U8,
        Dtype::I8 => StorageType::I8,
        Dtype::I16 => StorageType::I16,
        Dtype::I32 => StorageType::I32,
        Dtype::I64 => StorageType::I64,
        _ => return None,
    })
}

/// The header's tensors in the order of the text, duplicates kept, so that they can be refused.
struct Header(Vec<(String, TensorInfo)>);

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
                        continue;
                    }
                    let info = map.next_value().map_err(|e| A::Error::custom(format_args!("tensor {name:?}: {e}")))?;
                    entries.push((name, info));
                }
                Ok(Header(entries))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}
