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
            if shape.half {
                write(key, keys, slot, PAGE_POSITIONS, to_f16);
                write(value, &mut values[2 * slot * shape.value_dim()..], 0, 1, to_f16);
            } else {
                write(key, keys, slot, PAGE_POSITIONS, |x| x.map(f32::to_le_bytes));
                write(value, &mut values[4 * slot * shape.value_dim()..], 0, 1, |x| x.map(f32::to_le_bytes));
            }
        }
    });
}

/// Numbers that are converted at a time.
const STEP: usize = 16;

/// Writes numbers to places `first`, `first + step`, ... of `out`, each of which takes `SIZE` bytes.
fn write<const SIZE: usize>(
    numbers: &[f32],
    out: &mut [u8],
    first: usize,
    step: usize,
    convert: impl Fn([f32; STEP]) -> [[u8; SIZE]; STEP],
) {
    let (places, _) = out.as_chunks_mut::<SIZE>();
    let mut places = places[first..].iter_mut().step_by(step);
    for numbers in numbers.chunks(STEP) {
        let mut held = [0.0; STEP];
        held[..numbers.len()].copy_from_slice(numbers);
        // As many places are taken as there are numbers: the other way round a place would be lost.
        for (number, place) in convert(held)[..numbers.len()].iter().zip(&mut places) {
            *place = *number;
        }
    }
}

fn to_f16(numbers: [f32; STEP]) -> [[u8; 2]; STEP] {
    let largest = f16::MAX.to_f32();
    // What is not finite stays so and is found later.
    let within = numbers.map(|x| if x.is_finite() { x.clamp(-largest, largest) } else { x });
    let mut rounded = [f16::ZERO; STEP];
    rounded.convert_from_f32_slice(&within);
    rounded.map(f16::to_le_bytes)
}
