//! The metadata of a GGUF file: typed values under dotted keys.

use std::collections::HashSet;

use super::cursor::Cursor;
use crate::base::Bytes;
use crate::error::Result;

/// The metadata of a model, in file order.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
}

/// A value with its type in the file.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the variants are GGUF's types under Rust's names")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// Many values of one type, kept as encoded: looking at a vocabulary need not create 50,000 strings.
#[derive(Debug, Clone)]
pub struct Array {
    /// The code of the type.
    kind: u32,
    len: u64,
    /// Checked when the array is made: exactly `len` values; strings are UTF-8.
    bytes: Bytes,
}

/// Codes of the types.
mod kind {
    pub const U8: u32 = 0;
    pub const I8: u32 = 1;
    pub const U16: u32 = 2;
    pub const I16: u32 = 3;
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const STRING: u32 = 8;
    pub const ARRAY: u32 = 9;
    pub const U64: u32 = 10;
    pub const I64: u32 = 11;
    pub const F64: u32 = 12;
}

impl Metadata {
    /// The value under `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Adds a value; `key` must be new.
    pub fn push(&mut self, key: impl Into<String>, value: Value) {
        self.entries.push((key.into(), value));
    }

    /// Sets the value under `key`, whether it is new or not.
    pub fn set(&mut self, key: &str, value: Value) {
        match self.entries.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = value,
            None => self.push(key, value),
        }
    }

    /// Keys and values in file order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Reads `count` entries.
    pub(super) fn read(cursor: &mut Cursor, count: u64) -> Result<Self> {
        let mut entries = Vec::new();
        let mut keys = HashSet::new();
        for _ in 0..count {
            let key = cursor.string()?;
            if !keys.insert(key) {
                return Err(cursor.file.error(format!("the key {key:?} occurs twice")));
            }
            entries.push((key.to_owned(), Value::read(cursor, key)?));
        }
        Ok(Self { entries })
    }

    /// Appends all entries to `out`, encoded as in a file.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for (key, value) in &self.entries {
            encode_string(key, out);
            out.extend(value.kind().to_le_bytes());
            value.encode(out);
        }
    }

    /// The number of entries.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

impl Value {
    fn read(cursor: &mut Cursor, key: &str) -> Result<Self> {
        Ok(match cursor.u32()? {
            kind::U8 => Self::U8(u8::from_le_bytes(cursor.array()?)),
            kind::I8 => Self::I8(i8::from_le_bytes(cursor.array()?)),
            kind::U16 => Self::U16(u16::from_le_bytes(cursor.array()?)),
            kind::I16 => Self::I16(i16::from_le_bytes(cursor.array()?)),
            kind::U32 => Self::U32(cursor.u32()?),
            kind::I32 => Self::I32(i32::from_le_bytes(cursor.array()?)),
            kind::F32 => Self::F32(f32::from_le_bytes(cursor.array()?)),
            kind::BOOL => Self::Bool(cursor.array::<1>()? != [0]),
            kind::STRING => Self::String(cursor.string()?.to_owned()),
            kind::ARRAY => Self::Array(Array::read(cursor, key)?),
            kind::U64 => Self::U64(cursor.u64()?),
            kind::I64 => Self::I64(i64::from_le_bytes(cursor.array()?)),
            kind::F64 => Self::F64(f64::from_le_bytes(cursor.array()?)),
            other => return Err(cursor.file.error(format!("the value of {key:?} has the unknown type {other}"))),
        })
    }

    fn kind(&self) -> u32 {
        match self {
            Self::U8(_) => kind::U8,
            Self::I8(_) => kind::I8,
            Self::U16(_) => kind::U16,
            Self::I16(_) => kind::I16,
            Self::U32(_) => kind::U32,
            Self::I32(_) => kind::I32,
            Self::F32(_) => kind::F32,
            Self::Bool(_) => kind::BOOL,
            Self::String(_) => kind::STRING,
            Self::Array(_) => kind::ARRAY,
            Self::U64(_) => kind::U64,
            Self::I64(_) => kind::I64,
            Self::F64(_) => kind::F64,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::U8(n) => out.extend(n.to_le_bytes()),
            Self::I8(n) => out.extend(n.to_le_bytes()),
            Self::U16(n) => out.extend(n.to_le_bytes()),
            Self::I16(n) => out.extend(n.to_le_bytes()),
            Self::U32(n) => out.extend(n.to_le_bytes()),
            Self::I32(n) => out.extend(n.to_le_bytes()),
            Self::F32(n) => out.extend(n.to_le_bytes()),
            Self::Bool(truth) => out.push(u8::from(*truth)),
            Self::String(text) => encode_string(text, out),
            Self::Array(array) => {
                out.extend(array.kind.to_le_bytes());
                out.extend(array.len.to_le_bytes());
                out.extend_from_slice(&array.bytes);
            }
            Self::U64(n) => out.extend(n.to_le_bytes()),
            Self::I64(n) => out.extend(n.to_le_bytes()),
            Self::F64(n) => out.extend(n.to_le_bytes()),
        }
    }

    /// The value as a number, if it is a non-negative integer.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::U8(n) => Some(n.into()),
            Self::U16(n) => Some(n.into()),
            Self::U32(n) => Some(n.into()),
            Self::U64(n) => Some(n),
            Self::I8(n) => n.try_into().ok(),
            Self::I16(n) => n.try_into().ok(),
            Self::I32(n) => n.try_into().ok(),
            Self::I64(n) => n.try_into().ok(),
            _ => None,
        }
    }

    /// The text, if it is a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The array, if it is one.
    #[must_use]
    pub fn as_array(&self) -> Option<&Array> {
        match self {
            Self::Array(array) => Some(array),
            _ => None,
        }
    }
}

impl Array {
    /// An array of strings.
    pub fn of_strings<'a>(strings: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut len, mut bytes) = (0, Vec::new());
        for text in strings {
            encode_string(text, &mut bytes);
            len += 1;
        }
        Self { kind: kind::STRING, len, bytes: bytes.into() }
    }

    /// An array of 32-bit integers.
    pub fn of_i32(numbers: impl IntoIterator<Item = i32>) -> Self {
        let bytes: Vec<u8> = numbers.into_iter().flat_map(i32::to_le_bytes).collect();
        Self { kind: kind::I32, len: bytes.len() as u64 / 4, bytes: bytes.into() }
    }

    /// The strings, if it is an array of them.
    pub fn strings(&self) -> Option<impl Iterator<Item = &str>> {
        let mut rest = (self.kind == kind::STRING).then_some(&*self.bytes)?;
        Some(std::iter::from_fn(move || {
            let (len, tail) = rest.split_first_chunk()?;
            let (text, tail) = tail.split_at_checked(u64::from_le_bytes(*len) as usize)?;
            rest = tail;
            str::from_utf8(text).ok()
        }))
    }

    /// The numbers, if it is an array of 32-bit integers.
    pub fn i32s(&self) -> Option<impl Iterator<Item = i32>> {
        let (numbers, _) = (self.kind == kind::I32).then(|| self.bytes.as_chunks())?;
        Some(numbers.iter().map(|bytes| i32::from_le_bytes(*bytes)))
    }

    fn read(cursor: &mut Cursor, key: &str) -> Result<Self> {
        let kind = cursor.u32()?;
        let len = cursor.u64()?;
        let start = cursor.at;
        let size = match kind {
            kind::U8 | kind::I8 | kind::BOOL => 1,
            kind::U16 | kind::I16 => 2,
            kind::U32 | kind::I32 | kind::F32 => 4,
            kind::U64 | kind::I64 | kind::F64 => 8,
            kind::STRING => {
                for _ in 0..len {
                    cursor.string()?;
                }
                0
            }
            other => return Err(cursor.file.error(format!("{key:?} is an array of the unknown type {other}"))),
        };
        cursor.take(len.checked_mul(size).ok_or_else(|| cursor.truncated())?)?;
        let bytes = cursor.file.bytes.slice(start..cursor.at).ok_or_else(|| cursor.truncated())?;
        Ok(Self { kind, len, bytes })
    }
}

impl PartialEq for Array {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && self.len == other.len && *self.bytes == *other.bytes
    }
}

/// Appends a string as encoded in files: a 64-bit length and its bytes.
pub(super) fn encode_string(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}
