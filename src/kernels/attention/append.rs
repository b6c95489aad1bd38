//! How the keys and values of new positions get into the cache.

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::batch::Batch;
use super::memory::{CacheMemory, PAGE_POSITIONS};
use crate::base::pool;

/// What writing a number into the cache costs, in multiplications: numbers of a key lie apart.
const WRITING: usize = 64;

/// Writes the keys and values of the new positions into layer `layer`, `qkv` being (N, 3C): queries, keys, values. Numbers
/// that are too large for f16 become the largest it has.
///
/// # Panics
/// If `qkv` has another length, or if the memory lacks the layer or a page.
pub fn append(memory: &mut CacheMemory, layer: usize, batch: &Batch, qkv: &[f32]) {
    let shape = memory.shape();
    let (c, d, heads) = (shape.width(), shape.head_dim, shape.heads);
    assert_eq!(qkv.len(), 3 * c * batch.positions(), "length of queries, keys and values");
    let memory = &*memory;
    // Heads are split over the threads as attention splits them, so that what a thread writes it has read before.
    pool::run_costing(WRITING * qkv.len(), batch.written() * heads, |i| {
        let (head, (span, start, id)) = (i % heads, batch.written_page(i / heads));
        // SAFETY: `append` has the memory to itself, and no two calls have the same head of the same page.
        let (keys, values) = unsafe { memory.head_mut(id, layer, head) };
        for position in span.past.max(start)..span.total().min(start + PAGE_POSITIONS) {
            let token = &qkv[(span.first + position - span.past) * 3 * c..][..3 * c];
            let (key, value) = (&token[c + head * d..][..d], &token[2 * c + head * d..][..d]);
            let slot = position - start;
            let values = &mut values[slot * shape.value_dim() * shape.number_bytes()..];
            if shape.half {
                write(key, value, encode_f16, slot, keys, values);
            } else {
                write(key, value, encode_f32, slot, keys, values);
            }
        }
    });
}

/// Numbers that are encoded at a time.
const STEP: usize = 64;

/// Writes a position's key to place `slot` of every dimension of a page's keys, which lie side by side, and its value to
/// the start of `values`. A number takes `N` bytes.
fn write<const N: usize>(
    key: &[f32],
    value: &[f32],
    encode: fn(&[f32], &mut [[u8; N]]),
    slot: usize,
    keys: &mut [u8],
    values: &mut [u8],
) {
    let dimensions: &mut [[[u8; N]; PAGE_POSITIONS]] = keys.as_chunks_mut().0.as_chunks_mut().0;
    let mut encoded = [[0; N]; STEP];
    for (numbers, dimensions) in key.chunks(STEP).zip(dimensions.chunks_mut(STEP)) {
        encode(numbers, &mut encoded[..numbers.len()]);
        for (dimension, number) in dimensions.iter_mut().zip(&encoded) {
            dimension[slot] = *number;
        }
    }
    encode(value, &mut values.as_chunks_mut().0[..value.len()]);
}

fn encode_f32(numbers: &[f32], out: &mut [[u8; 4]]) {
    out.iter_mut().zip(numbers).for_each(|(out, number)| *out = number.to_le_bytes());
}

fn encode_f16(numbers: &[f32], out: &mut [[u8; 2]]) {
    let largest = f16::MAX.to_f32();
    for (numbers, out) in numbers.chunks(STEP).zip(out.chunks_mut(STEP)) {
        let (mut within, mut rounded) = ([0.0; STEP], [f16::ZERO; STEP]);
        for (within, x) in within.iter_mut().zip(numbers) {
            // What is not finite stays so and is found later.
            *within = if x.is_finite() { x.clamp(-largest, largest) } else { *x };
        }
        rounded[..numbers.len()].convert_from_f32_slice(&within[..numbers.len()]);
        out.iter_mut().zip(&rounded).for_each(|(out, number)| *out = number.to_le_bytes());
    }
}
