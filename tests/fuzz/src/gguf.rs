//! GGUF: typed metadata, descriptions of tensors, aligned data; in one file or several.

use fastrand::Rng;

use crate::random::{damage, few, number, one_in, pick, poison, text, word};

#[derive(Debug, Clone)]
struct Gguf {
    version: u32,
    metadata: Vec<(String, Value)>,
    tensors: Vec<Tensor>,
    data: Vec<u8>,
}

/// A metadata value: its type, and its bytes without the type.
#[derive(Debug, Clone)]
struct Value {
    kind: u32,
    bytes: Vec<u8>,
    /// As in the seed, and so readable.
    intact: bool,
}

#[derive(Debug, Clone)]
struct Tensor {
    name: String,
    shape: Vec<u64>,
    kind: u32,
    offset: u64,
}

const STRING: u32 = 8;
const ARRAY: u32 = 9;
/// Bytes of a value of each type; strings and arrays count their own.
const WIDTHS: [usize; 13] = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8];

/// The bytes still to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        taken
    }

    fn number(&mut self, width: usize) -> u64 {
        self.take(width).iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
    }

    fn string(&mut self) -> String {
        let len = self.number(8) as usize;
        String::from_utf8_lossy(self.take(len)).into_owned()
    }

    fn skip(&mut self, kind: u32) {
        match kind {
            STRING => drop(self.string()),
            ARRAY => {
                let (kind, count) = (self.number(4) as u32, self.number(8));
                (0..count).for_each(|_| self.skip(kind));
            }
            _ => drop(self.take(WIDTHS[kind as usize])),
        }
    }

    fn value(&mut self) -> Value {
        let kind = self.number(4) as u32;
        let start = self.0;
        self.skip(kind);
        Value { kind, bytes: start[..start.len() - self.0.len()].to_vec(), intact: true }
    }
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

impl Gguf {
    fn read(file: &[u8]) -> Self {
        let reader = &mut Reader(&file[4..]);
        let version = reader.number(4) as u32;
        let (tensors, metadata) = (reader.number(8), reader.number(8));
        let metadata = (0..metadata).map(|_| (reader.string(), reader.value())).collect();
        let tensor = |_| {
            let name = reader.string();
            let rank = reader.number(4);
            let shape = (0..rank).map(|_| reader.number(8)).collect();
            Tensor { name, shape, kind: reader.number(4) as u32, offset: reader.number(8) }
        };
        let tensors = (0..tensors).map(tensor).collect();
        let start = (file.len() - reader.0.len()).next_multiple_of(32);
        Self { version, metadata, tensors, data: file[start..].to_vec() }
    }

    /// The file; `lie` writes another number in one of its counts.
    fn write(&self, lie: Option<(u32, u64)>) -> Vec<u8> {
        let truth = |which, count: usize| match lie {
            Some((lying, count)) if lying == which => count,
            _ => count as u64,
        };
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(truth(0, self.tensors.len()).to_le_bytes());
        bytes.extend(truth(1, self.metadata.len()).to_le_bytes());
        for (key, value) in &self.metadata {
            bytes.extend(string(key));
            bytes.extend(value.kind.to_le_bytes());
            bytes.extend(&value.bytes);
        }
        for (at, Tensor { name, shape, kind, offset }) in self.tensors.iter().enumerate() {
            bytes.extend(string(name));
            bytes.extend((if at == 0 { truth(2, shape.len()) } else { shape.len() as u64 } as u32).to_le_bytes());
            bytes.extend(shape.iter().flat_map(|size| size.to_le_bytes()));
            bytes.extend(kind.to_le_bytes());
            bytes.extend(offset.to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(&self.data);
        bytes
    }

    fn mutate(&mut self, rng: &mut Rng, words: &str) {
        match rng.u32(..12) {
            0..6 if !self.metadata.is_empty() => self.mutate_metadata(rng, words),
            0..10 if !self.tensors.is_empty() => self.mutate_tensors(rng, words),
            10 => self.version = pick(rng, &[0, 1, 2, 3, 4, 0x0300_0000, u32::MAX]),
            _ if one_in(rng, 2) => damage(rng, &mut self.data),
            _ => poison(rng, &mut self.data),
        }
    }

    fn mutate_metadata(&mut self, rng: &mut Rng, words: &str) {
        const KEYS: &str = "\
            general.architecture general.alignment gpt2.context_length gpt2.block_count \
            gpt2.attention.head_count gpt2.attention.layer_norm_epsilon tokenizer.ggml.tokens \
            tokenizer.ggml.token_type tokenizer.ggml.merges tokenizer.ggml.add_bos_token \
            tokenizer.ggml.eos_token_id split.count";
        let at = rng.usize(..self.metadata.len());
        let other = rng.usize(..self.metadata.len());
        match rng.u32(..7) {
            0 => drop(self.metadata.remove(at)),
            1 => self.metadata.insert(other, self.metadata[at].clone()),
            2 => self.metadata[at].0 = if one_in(rng, 2) { word(rng, KEYS) } else { text(rng, words) },
            3 => {
                let value = &mut self.metadata[at].1;
                (value.kind, value.intact) = (rng.u32(..14), false);
            }
            4 => self.metadata.insert(other, (word(rng, KEYS), Value::random(rng, words))),
            5 => self.metadata[at].1.mutate(rng, words),
            _ => self.metadata[at].1 = Value::random(rng, words),
        }
    }

    fn mutate_tensors(&mut self, rng: &mut Rng, words: &str) {
        let at = rng.usize(..self.tensors.len());
        let other = rng.usize(..self.tensors.len());
        match rng.u32(..8) {
            0 => drop(self.tensors.remove(at)),
            1 => self.tensors.insert(other, self.tensors[at].clone()),
            2 => self.tensors[at].name = text(rng, words),
            3 => self.tensors[at].kind = if one_in(rng, 4) { number(rng) as u32 } else { rng.u32(..40) },
            4 => self.tensors[at].offset = number(rng),
            5 => self.tensors[at].shape = (0..rng.usize(..6)).map(|_| number(rng)).collect(),
            6 => self.tensors[at].shape.reverse(),
            _ => self.tensors[at].shape.iter_mut().for_each(|size| *size = size.wrapping_add(number(rng))),
        }
    }

    fn set(&mut self, key: &str, kind: u32, number: u64) {
        let bytes = number.to_le_bytes()[..WIDTHS[kind as usize]].to_vec();
        self.metadata.push((key.to_owned(), Value { kind, bytes, intact: true }));
    }
}

impl Value {
    fn random(rng: &mut Rng, words: &str) -> Self {
        let kind = rng.u32(..13);
        let scalar = |rng: &mut Rng, kind: u32| match kind {
            STRING | ARRAY => string(&text(rng, words)),
            _ => number(rng).to_le_bytes()[..WIDTHS[kind as usize]].to_vec(),
        };
        if kind != ARRAY {
            return Self { kind, bytes: scalar(rng, kind), intact: false };
        }
        let inner = rng.u32(..13);
        let count = rng.u64(..400);
        let claimed = if one_in(rng, 8) { number(rng) } else { count };
        let mut bytes = [&inner.to_le_bytes()[..], &claimed.to_le_bytes()].concat();
        (0..count).for_each(|_| bytes.extend(scalar(rng, inner)));
        Self { kind, bytes, intact: false }
    }

    /// Changes a number, an item of an array, or an array's type or length.
    fn mutate(&mut self, rng: &mut Rng, words: &str) {
        let reader = &mut Reader(&self.bytes);
        if self.kind != ARRAY || !self.intact {
            *self = Self::random(rng, words);
            return;
        }
        let (inner, count) = (reader.number(4) as u32, reader.number(8));
        let mut items: Vec<&[u8]> = vec![];
        for _ in 0..count {
            let start = reader.0;
            reader.skip(inner);
            items.push(&start[..start.len() - reader.0.len()]);
        }
        let new = match inner {
            STRING => string(&text(rng, words)),
            _ => number(rng).to_le_bytes()[..WIDTHS[inner as usize].max(1)].to_vec(),
        };
        let at = rng.usize(..=items.len());
        match rng.u32(..4) {
            0 => items.insert(at, &new),
            1 => items.truncate(at),
            _ if at < items.len() => items[at] = &new,
            _ => {}
        }
        let claimed = if one_in(rng, 8) { number(rng) } else { items.len() as u64 };
        let inner = if one_in(rng, 8) { rng.u32(..14) } else { inner };
        self.intact = false;
        self.bytes = [&inner.to_le_bytes()[..], &claimed.to_le_bytes(), &items.concat()].concat();
    }
}

/// Mutates a valid file.
pub fn mutate(rng: &mut Rng, file: &[u8], words: &str) -> Vec<u8> {
    let mut gguf = Gguf::read(file);
    for _ in 0..few(rng) {
        gguf.mutate(rng, words);
    }
    let mut bytes = gguf.write(one_in(rng, 10).then(|| (rng.u32(..3), number(rng))));
    if one_in(rng, 10) {
        damage(rng, &mut bytes);
    }
    bytes
}

/// Splits a valid file into two, as llama.cpp's `gguf-split` does, and mutates one or both of them.
pub fn split(rng: &mut Rng, file: &[u8], words: &str) -> [Vec<u8>; 2] {
    let whole = Gguf::read(file);
    let half = whole.tensors.len() / 2;
    let middle = whole.tensors[half].offset;
    let mut parts = [whole.clone(), whole.clone()];
    parts[0].tensors.truncate(half);
    parts[0].data.truncate(middle as usize);
    parts[1].tensors.drain(..half);
    parts[1].tensors.iter_mut().for_each(|tensor| tensor.offset -= middle);
    parts[1].data.drain(..middle as usize);
    parts[1].metadata.clear();
    for (number, part) in parts.iter_mut().enumerate() {
        part.set("split.no", 2, number as u64);
        part.set("split.count", 2, 2);
        part.set("split.tensors.count", 5, whole.tensors.len() as u64);
    }
    let damaged = rng.usize(..3);
    for (at, part) in parts.iter_mut().enumerate() {
        if damaged != at {
            let len = part.metadata.len();
            if one_in(rng, 2) {
                part.metadata[len - 1 - rng.usize(..3)].1 = Value::random(rng, words);
            } else {
                part.mutate(rng, words);
            }
        }
    }
    parts.map(|part| part.write(None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeds;

    #[test]
    fn files_come_back_as_they_were() {
        for path in ["checkpoint/tiny.gguf", "formats/gguf_user_defined/model/tiny-f32.gguf"] {
            let file = seeds::read(path);
            assert!(Gguf::read(&file).write(None) == file, "{path}");
        }
    }
}
