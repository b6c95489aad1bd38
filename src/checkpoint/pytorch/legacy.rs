//! The format of `torch.save` before PyTorch 1.6: no archive, but pickles of a magic number, a protocol version, the
//! machine, the state dict and the keys of its storages; then each storage, its length before its numbers.

use std::collections::HashMap;

use super::super::Contents;
use super::super::file::File;
use super::Memory;
use super::pickle::{self, Fault, Object, Pickle, Storage, Value};
use crate::base::Bytes;
use crate::error::{Error, Result};

/// 0x1950a86a20f9469cfc6c, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

const PROTOCOL_VERSION: i64 = 1001;

/// Reads the tensors of a file without an archive.
pub(super) fn read(file: &File, memory: &mut Memory) -> Result<Contents> {
    // PROTO, perhaps FRAME, then LONG1 with the magic number.
    let start = &file.bytes[..file.bytes.len().min(32)];
    if !start.windows(MAGIC.len()).any(|window| window == MAGIC) {
        return Err(refuse(file));
    }
    let mut at = 0;
    next_pickle(file, &mut at)?;
    if next_pickle(file, &mut at)?.value != Value::Int(PROTOCOL_VERSION) {
        return Err(file.error(format!("not of PyTorch's save protocol {PROTOCOL_VERSION}")));
    }
    let machine = next_pickle(file, &mut at)?;
    if !is_little_endian(&machine) {
        return Err(file.error("its numbers are not little-endian; save it again on a little-endian machine"));
    }
    let state = next_pickle(file, &mut at)?;
    let keys = next_pickle(file, &mut at)?;
    let storages = storages(file, &state, &keys, at)?;
    super::contents(file, &state, memory, |storage, _| match storages.get(storage.key) {
        Some((known, bytes)) if *known == storage => Ok(bytes.clone()),
        _ => Err(file.error(format!("storage {:?} is missing from the file", storage.key))),
    })
}

/// The error for a file that is not an archive and does not start with the magic number. A plain pickle that would run
/// code is rejected for that.
fn refuse(file: &File) -> Error {
    match pickle::load(&file.bytes) {
        Err(fault @ Fault::Code(_)) => fault.error(file),
        _ => file.not_a("a PyTorch checkpoint"),
    }
}

fn next_pickle<'f>(file: &'f File, at: &mut usize) -> Result<Pickle<'f>> {
    let pickle = super::load_pickle(file, &file.bytes[*at..])?;
    *at += pickle.len;
    Ok(pickle)
}

fn is_little_endian(machine: &Pickle) -> bool {
    match machine.object(machine.value) {
        Some(Object::Dict(entries)) => entries.contains(&(Value::Str("little_endian"), Value::Bool(true))),
        _ => false,
    }
}

/// The storages that follow one another from `at`, in the order of `keys`. The state dict tells their lengths.
fn storages<'f>(
    file: &File,
    state: &Pickle<'f>,
    keys: &Pickle<'f>,
    mut at: usize,
) -> Result<HashMap<&'f str, (Storage<'f>, Bytes)>> {
    let Some(Object::List(keys)) = keys.object(keys.value) else {
        return Err(file.error("the list of its storages is damaged"));
    };
    let declared: HashMap<&str, Storage> = state
        .objects
        .iter()
        .filter_map(|object| match object {
            Object::Storage(storage) => Some((storage.key, *storage)),
            _ => None,
        })
        .collect();
    let mut storages = HashMap::new();
    for key in keys {
        let Value::Str(key) = *key else {
            return Err(file.error("the list of its storages is damaged"));
        };
        let Some(storage) = declared.get(key) else {
            return Err(file.error(format!("storage {key:?} belongs to no tensor")));
        };
        let start = at + size_of::<u64>();
        let count = file.bytes.get(at..start).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
        if count != Some(storage.len as u64) {
            return Err(file.error(format!(
                "storage {key:?} does not have the {} numbers of its tensors; the file is truncated or damaged",
                storage.len
            )));
        }
        let end = storage.dtype.byte_len(&[storage.len]).and_then(|len| start.checked_add(len));
        let Some((end, bytes)) = end.and_then(|end| Some((end, file.bytes.slice(start..end)?))) else {
            return Err(file.error(format!("storage {key:?} ends outside the file; it is truncated or damaged")));
        };
        at = end;
        storages.insert(key, (*storage, bytes));
    }
    Ok(storages)
}
