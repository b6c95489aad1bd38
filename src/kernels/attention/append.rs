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
            // Dimension by dimension, the keys of a page's positions side by side; position by position, values.
            let write = if shape.half { write_f16 } else { write_f32 };
            write(key, &mut keys[slot * shape.number_bytes()..], PAGE_POSITIONS);
            write(value, &mut values[slot * shape.value_dim() * shape.number_bytes()..], 1);
        }
    });
}

/// Writes numbers to every `step`th place of `out`, from the first on.
fn write_f32(numbers: &[f32], out: &mut [u8], step: usize) {
    let places = out.as_chunks_mut().0.iter_mut().step_by(step);
    places.zip(numbers).for_each(|(place, number)| *place = number.to_le_bytes());
}

/// Numbers that are rounded at a time.
const STEP: usize = 16;

/// The same, rounded to f16.
fn write_f16(numbers: &[f32], out: &mut [u8], step: usize) {
    let largest = f16::MAX.to_f32();
    let mut places = out.as_chunks_mut().0.iter_mut().step_by(step);
    for numbers in numbers.chunks(STEP) {
        let (mut within, mut rounded) = ([0.0; STEP], [f16::ZERO; STEP]);
        for (within, x) in within.iter_mut().zip(numbers) {
            // What is not finite stays so and is found later.
            *within = if x.is_finite() { x.clamp(-largest, largest) } else { *x };
        }
        rounded.convert_from_f32_slice(&within);
        // As many places are taken as there are numbers: the other way round a place would be lost.
        for (number, place) in rounded[..numbers.len()].iter().zip(&mut places) {
            *place = number.to_le_bytes();
        }
    }
}
