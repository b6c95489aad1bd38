//! llm.c's `.bin`: 256 numbers of 4 bytes, then the weights.

use fastrand::Rng;

use crate::random::{damage, few, number, one_in, pick, poison};

/// Mutates a number of the header: the magic number, version, context, vocabulary, layers, heads, width, padded vocabulary.
pub fn mutate(rng: &mut Rng, file: &[u8]) -> Vec<u8> {
    let mut bytes = file.to_vec();
    for _ in 0..few(rng) {
        let at = if one_in(rng, 10) { rng.usize(..256) } else { rng.usize(..8) } * 4;
        let field: &mut [u8] = &mut bytes[at..at + 4];
        let old = u32::from_le_bytes((&*field).try_into().expect("4 bytes"));
        let near = [old.wrapping_sub(1), old.wrapping_add(1), old / 2, old.wrapping_mul(2), old.wrapping_neg()];
        let new = if one_in(rng, 2) { number(rng) as u32 } else { pick(rng, &near) };
        field.copy_from_slice(&new.to_le_bytes());
    }
    if one_in(rng, 4) {
        bytes = file.to_vec();
        poison(rng, &mut bytes[1024..]);
    }
    match rng.u32(..8) {
        0 => damage(rng, &mut bytes),
        1 => bytes.truncate(rng.usize(..bytes.len())),
        2 => bytes.extend(vec![0; rng.usize(..5000)]),
        _ => {}
    }
    bytes
}
