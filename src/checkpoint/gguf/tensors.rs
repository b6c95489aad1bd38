//! The list of tensors in a GGUF file, checked, with Hugging Face's shapes.

use std::collections::HashSet;
use std::ops::Range;

use super::super::Tensor;
use super::super::file::File;
use super::cursor::Cursor;
use crate::base::DType;
use crate::error::Result;
use crate::inventory::TensorId;

/// The most dimensions that ggml supports.
const MOST_DIMENSIONS: u32 = 4;

/// An entry of the list.
struct Entry<'f> {
    name: &'f str,
    dtype: DType,
    /// Row-major, as stored: GGUF lists the dimensions in the opposite order.
    shape: Vec<usize>,
    /// From the start of the data.
    offset: u64,
}

/// Reads the list of `count` tensors at `cursor` and finds their bytes behind it.
pub(super) fn read(cursor: &mut Cursor, count: u64, alignment: usize) -> Result<Vec<Tensor>> {
    let mut entries = Vec::new();
    let mut names = HashSet::new();
    for _ in 0..count {
        let entry = Entry::read(cursor)?;
        if !names.insert(entry.name) {
            return Err(cursor.file.error(format!("tensor `{}` is listed twice", entry.name)));
        }
        entries.push(entry);
    }
    let data_start = cursor.at.checked_next_multiple_of(alignment).ok_or_else(|| cursor.truncated())?;
    let ranges =
        entries.iter().map(|entry| entry.range(cursor.file, data_start, alignment)).collect::<Result<Vec<_>>>()?;
    check_overlaps(cursor.file, &entries, &ranges)?;
    entries.into_iter().zip(ranges).map(|(entry, range)| entry.tensor(cursor.file, range)).collect()
}

impl<'f> Entry<'f> {
    fn read(cursor: &mut Cursor<'f>) -> Result<Self> {
        let name = cursor.string()?;
        let file = cursor.file;
        file.check_name(name)?;
        let rank = cursor.u32()?;
        if !(1..=MOST_DIMENSIONS).contains(&rank) {
            return Err(
                file.error(format!("tensor `{name}` has {rank} dimensions; 1 to {MOST_DIMENSIONS} are allowed"))
            );
        }
        let mut shape = Vec::new();
        for _ in 0..rank {
            let size = cursor.u64()?;
            let size =
                usize::try_from(size).map_err(|_| file.error(format!("tensor `{name}` has a dimension {size}")))?;
            shape.push(size);
        }
        shape.reverse();
        let code = cursor.u32()?;
        let Some(dtype) = DType::of_ggml(code) else {
            return Err(file.error(format!(
                "tensor `{name}` has ggml's type {code}, which is not supported; quantise it as Q8_0, Q4_K or another of \
                 the Q family"
            )));
        };
        Ok(Self { name, dtype, shape, offset: cursor.u64()? })
    }

    /// The tensor's bytes in the file.
    fn range(&self, file: &File, data_start: usize, alignment: usize) -> Result<Range<usize>> {
        let Some(len) = self.dtype.byte_len(&self.shape) else {
            return Err(file.error(format!(
                "tensor `{}` has the shape {:?}, which is impossible for {}",
                self.name, self.shape, self.dtype
            )));
        };
        if !self.offset.is_multiple_of(alignment as u64) {
            let message = format!("tensor `{}` starts at {}, not a multiple of {alignment}", self.name, self.offset);
            return Err(file.error(message));
        }
        let start = usize::try_from(self.offset).ok().and_then(|offset| data_start.checked_add(offset));
        let range = start.and_then(|start| Some(start..start.checked_add(len)?));
        range.filter(|range| range.end <= file.bytes.len()).ok_or_else(|| {
            file.error(format!(
                "tensor `{}` ends outside the file, which has {} bytes; it is truncated or damaged",
                self.name,
                file.bytes.len()
            ))
        })
    }

    /// The tensor with Hugging Face's shape.
    fn tensor(self, file: &File, range: Range<usize>) -> Result<Tensor> {
        let (id, name) = (TensorId::of_gguf(self.name), self.name.to_owned());
        // Conv1D has (in, out); llama.cpp stores (out, in), so that products run along the rows.
        let transposed = self.shape.len() == 2 && id.is_some_and(TensorId::is_conv1d);
        let mut shape = self.shape;
        if transposed {
            shape.reverse();
        }
        let bytes =
            file.bytes.slice(range).ok_or_else(|| file.error(format!("tensor `{name}` lies outside the file")))?;
        Ok(Tensor { name, dtype: self.dtype, shape, transposed, packed: false, bytes })
    }
}

fn check_overlaps(file: &File, entries: &[Entry], ranges: &[Range<usize>]) -> Result<()> {
    let mut order: Vec<usize> = (0..ranges.len()).collect();
    order.sort_by_key(|&i| (ranges[i].start, ranges[i].end));
    for pair in order.windows(2) {
        if ranges[pair[1]].start < ranges[pair[0]].end {
            let (first, second) = (entries[pair[0]].name, entries[pair[1]].name);
            return Err(file.error(format!("the bytes of tensors `{first}` and `{second}` overlap")));
        }
    }
    Ok(())
}
