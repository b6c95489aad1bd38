//! safetensors: a length of 8 bytes, a JSON header, data.

use fastrand::Rng;

use crate::json::{self, Json};
use crate::random::{damage, number, one_in, pick, poison, text};

/// Splits a valid file into its header and its data.
pub fn read(file: &[u8]) -> (Json, Vec<u8>) {
    let (len, rest) = file.split_at(8);
    let (header, data) = rest.split_at(u64::from_le_bytes(len.try_into().expect("8 bytes")) as usize);
    (Json::parse(header), data.to_vec())
}

/// Mutates the names, types, shapes and offsets of a valid file.
pub fn mutate(rng: &mut Rng, file: &[u8], words: &str) -> Vec<u8> {
    const TYPES: [&str; 11] = ["F32", "F16", "BF16", "F64", "F8_E4M3", "F4", "I64", "U8", "BOOL", "C64", "f32"];
    let (mut header, mut data) = read(file);
    // At times only values change.
    let changes = rng.usize(..4);
    for _ in 0..changes {
        let Json::Object(entries) = &mut header else { break };
        if entries.is_empty() || one_in(rng, 3) {
            header.mutate(rng, words);
            continue;
        }
        let at = rng.usize(..entries.len());
        let (name, tensor) = &mut entries[at];
        let numbers =
            |rng: &mut Rng, count| Json::Array((0..count).map(|_| Json::Raw(number(rng).to_string())).collect());
        match rng.u32(..5) {
            0 => *name = text(rng, words),
            1 => *tensor.entry("dtype") = Json::string(pick(rng, &TYPES)),
            2 => {
                let rank = pick(rng, &[0, 1, 2, 3, 9]);
                *tensor.entry("shape") = numbers(rng, rank);
            }
            3 => *tensor.entry("data_offsets") = numbers(rng, 2),
            _ => tensor.mutate(rng, words),
        }
    }
    let mut header = json::finish(rng, &header);
    header.extend(vec![b' '; header.len().next_multiple_of(8) - header.len()]);
    let len = if one_in(rng, 15) { number(rng) } else { header.len() as u64 };
    if changes == 0 {
        poison(rng, &mut data);
    }
    if one_in(rng, 8) {
        damage(rng, &mut data);
    }
    [&len.to_le_bytes(), header.as_slice(), &data].concat()
}
