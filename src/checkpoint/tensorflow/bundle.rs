//! The messages in the index: a header, and an entry for each variable.

use super::super::file::File;
use super::wire::{Value, fields};
use crate::base::DType;
use crate::error::Result;

/// `BundleHeaderProto`, the value of the empty key.
pub(super) struct Header {
    /// The number of files with numbers.
    pub shards: u64,
}

impl Header {
    pub fn read(file: &File, message: &[u8]) -> Result<Self> {
        let fields = fields(message).ok_or_else(|| file.error("its header is damaged"))?;
        let mut header = Self { shards: 0 };
        for field in fields {
            match field {
                (1, Value::Number(shards)) => header.shards = shards,
                // `SavedTensorSlices`, of TensorFlow's first kind of checkpoint.
                (1, Value::Bytes(_)) => {
                    return Err(
                        file.error("a checkpoint from before TensorFlow 1.0; save it again with a newer TensorFlow")
                    );
                }
                (2, Value::Number(1)) => {
                    return Err(file.error("a big-endian checkpoint; save it again on a little-endian machine"));
                }
                _ => {}
            }
        }
        Ok(header)
    }
}

/// `BundleEntryProto`: where the numbers of a variable are.
pub(super) struct Entry {
    /// `None` for what is no floating-point number.
    pub dtype: Option<DType>,
    pub shape: Vec<usize>,
    /// The file that has the numbers.
    pub shard: u64,
    /// Where they begin in that file.
    pub offset: u64,
    /// Their size in bytes.
    pub size: u64,
}

impl Entry {
    /// Parses the entry of variable `name`. The shape is only read for floating-point numbers.
    pub fn read(file: &File, name: &str, message: &[u8]) -> Result<Self> {
        let damaged = || file.error(format!("the entry of variable `{name}` is damaged"));
        let mut entry = Self { dtype: None, shape: vec![], shard: 0, offset: 0, size: 0 };
        let (mut shape, mut is_sliced) = (&[][..], false);
        for field in fields(message).ok_or_else(damaged)? {
            match field {
                (1, Value::Number(code)) => entry.dtype = float(code),
                (2, Value::Bytes(message)) => shape = message,
                (3, Value::Number(shard)) => entry.shard = shard,
                (4, Value::Number(offset)) => entry.offset = offset,
                (5, Value::Number(size)) => entry.size = size,
                (7, _) => is_sliced = true,
                _ => {}
            }
        }
        if entry.dtype.is_none() {
            return Ok(entry);
        }
        if is_sliced {
            return Err(file.error(format!("variable `{name}` is stored in slices; save it without a partitioner")));
        }
        for field in fields(shape).ok_or_else(damaged)? {
            match field {
                (2, Value::Bytes(axis)) => entry.shape.push(dimension(file, name, axis)?),
                (3, Value::Number(1)) => return Err(file.error(format!("variable `{name}` has no shape"))),
                _ => {}
            }
        }
        file.check_rank(name, entry.shape.len())?;
        Ok(entry)
    }
}

/// The length of an axis (`TensorShapeProto.Dim`).
fn dimension(file: &File, name: &str, message: &[u8]) -> Result<usize> {
    let axis = fields(message).ok_or_else(|| file.error(format!("the shape of variable `{name}` is damaged")))?;
    let mut size = 0;
    for field in axis {
        if let (1, Value::Number(number)) = field {
            size = number.cast_signed();
        }
    }
    usize::try_from(size).map_err(|_| file.error(format!("variable `{name}` has a dimension {size}")))
}

/// TensorFlow's floating-point types (`types.proto`).
fn float(code: u64) -> Option<DType> {
    Some(match code {
        1 => DType::F32,
        2 => DType::F64,
        14 => DType::BF16,
        19 => DType::F16,
        _ => return None,
    })
}
