//! PyTorch checkpoints (`pytorch_model.bin`): a pickled state dict beside flat buffers of numbers.
//!
//! Nothing in the file is executed: [`pickle`] builds state dicts and refuses all else. `torch.save` writes a zip archive
//! since PyTorch 1.6 ([`archive`]) and a run of pickles before it ([`legacy`]); both store the numbers as they are, so a
//! tensor is used where it lies in the mapped file. Only transposed views and compressed archives are copied.
//!
//! Reference: `torch/serialization.py`.

mod archive;
mod legacy;
mod pickle;

use super::file::File;
use super::storage::Bytes;
use super::{Tensor, is_causal_mask, plain_name};
use crate::error::Result;
use pickle::{Fault, Object, Pickle, Storage, TensorView, Value};

/// Keys under which training scripts put the state dict of the model.
const WRAPPERS: [&str; 3] = ["state_dict", "model_state_dict", "model"];

/// How many times its length a file may take in memory for what is compressed or copied from it.
const EXPANSION: usize = 16;

/// Reads the tensors of a PyTorch checkpoint, in the order of its state dict.
pub(super) fn read(file: &File) -> Result<Vec<Tensor>> {
    let mut memory = Memory { left: file.bytes.len().saturating_mul(EXPANSION) };
    if file.bytes.starts_with(b"PK\x03\x04") {
        archive::read(file, &mut memory)
    } else {
        legacy::read(file, &mut memory)
    }
}

/// Runs the pickle at the start of `bytes`.
fn load_pickle<'a>(file: &File, bytes: &'a [u8]) -> Result<Pickle<'a>> {
    pickle::load(bytes).map_err(|fault| match fault {
        Fault::Damaged => file.error("its pickle is truncated or damaged"),
        Fault::Refused(message) => file.error(message),
    })
}

/// What may still be allocated for the numbers of a file: a small archive must not fill the memory.
struct Memory {
    left: usize,
}

impl Memory {
    /// Takes `bytes` for `what`.
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

/// The tensors of the state dict that `pickle` built; `bytes_of` finds the numbers of a storage.
fn tensors<'a>(
    file: &File,
    pickle: &Pickle<'a>,
    memory: &mut Memory,
    mut bytes_of: impl FnMut(Storage<'a>, &mut Memory) -> Result<Bytes>,
) -> Result<Vec<Tensor>> {
    let mut tensors = Vec::new();
    for &(name, value) in state_dict(file, pickle)? {
        let (Value::Str(name), Some(Object::Tensor(view))) = (name, pickle.object(value)) else { continue };
        file.check_name(name)?;
        let plain = plain_name(name);
        if is_causal_mask(plain) {
            continue;
        }
        let bytes = bytes_of(view.storage, memory)?;
        tensors.push(Tensor {
            name: plain.to_owned(),
            dtype: view.storage.dtype,
            shape: view.shape.clone(),
            transposed: false,
            bytes: view_bytes(file, name, view, &bytes, memory)?,
        });
    }
    Ok(tensors)
}

/// The entries of the state dict: the dict with tensors in it, at the top or under a wrapper's key.
fn state_dict<'p, 'a>(file: &File, pickle: &'p Pickle<'a>) -> Result<&'p [(Value<'a>, Value<'a>)]> {
    let mut at = pickle.value;
    // A bound, since a dict may hold itself.
    for _ in 0..=WRAPPERS.len() {
        let Some(Object::Dict(entries)) = pickle.object(at) else { break };
        if entries.iter().any(|&(_, value)| matches!(pickle.object(value), Some(Object::Tensor(_)))) {
            return Ok(entries);
        }
        let inner = entries.iter().find(|(key, _)| matches!(key, Value::Str(key) if WRAPPERS.contains(key)));
        let Some(&(_, value)) = inner else { break };
        at = value;
    }
    Err(file.error("it holds no state dict with tensors"))
}

/// The bytes of a view into `storage`: a part of it where the numbers lie in order, else a copy.
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
        // Broadcast views need more than they span; a GPT-2 has none.
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
            .ok_or_else(|| file.error(format!("tensor `{name}` lies outside of its storage")));
    }
    memory.take(file, &format!("tensor `{name}`"), needed)?;
    let mut gathered = Vec::with_capacity(needed);
    gather(&storage[start..end], &view.shape, &view.strides, size, &mut gathered);
    Ok(gathered.into())
}

/// Whether the numbers of a view lie in row-major order without gaps.
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
