//! Numbers to blocks: ggml's quantisers, bit for bit.
//!
//! The formats of 256 numbers search for the scale of each group: some twenty are tried, and that with the least error
//! stays. An error is a sum in the order of the group's numbers, so a group is as sequential as a search can be. But groups
//! do not depend on each other: sixteen are searched side by side, one in each lane of a vector, by the reference's
//! operations in the reference's order. No product and sum are fused. So the bits are the same at every level, and those of
//! the C code without contracted operations.
//!
//! Reference: ggml 0.25.3, `ggml-quants.c`, `quantize_row_*_ref`. (candle's quantisers of these formats are translations of
//! older ones, with errors that are larger by a tenth.)

mod q4_k;
mod q6_k;
#[cfg(test)]
mod tests;

use crate::base::QuantizedType;
use crate::base::simd::{LANES, Simd, dispatch};
use crate::error::{Error, Result};

/// Writes the blocks of `numbers`, whole blocks of them, to `out`. NaN becomes a number of its group.
///
/// # Errors
/// [`Error::Unsupported`] if they are not whole blocks, or if `out` has another length.
pub fn quantize_into(format: QuantizedType, numbers: &[f32], out: &mut [u8]) -> Result<()> {
    if format.dtype().byte_len(&[numbers.len()]) != Some(out.len()) {
        let (count, len, dtype) = (numbers.len(), out.len(), format.dtype());
        return Err(Error::Unsupported(format!("{count} numbers are not whole blocks of {dtype} in {len} bytes")));
    }
    match format {
        QuantizedType::Q8_0 => q8_0(numbers, out),
        QuantizedType::Q6K => dispatch(q6_k::Quantize { numbers, blocks: out }),
        QuantizedType::Q5K => dispatch(q4_k::Quantize { rule: &q4_k::FIVE_BITS, numbers, blocks: out }),
        QuantizedType::Q4K => dispatch(q4_k::Quantize { rule: &q4_k::FOUR_BITS, numbers, blocks: out }),
    }
    Ok(())
}

/// The same as a vector.
///
/// # Errors
/// As for [`quantize_into`].
pub fn quantize(format: QuantizedType, numbers: &[f32]) -> Result<Vec<u8>> {
    let mut out = vec![0; numbers.len() / format.dtype().block_len() * format.dtype().block_bytes()];
    quantize_into(format, numbers, &mut out)?;
    Ok(out)
}

fn q8_0(numbers: &[f32], blocks: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn with_avx2(numbers: &[f32], blocks: &mut [u8]) {
        q8_0_blocks(numbers, blocks);
    }
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has the instructions.
        return unsafe { with_avx2(numbers, blocks) };
    }
    q8_0_blocks(numbers, blocks);
}

/// `quantize_row_q8_0_ref`.
#[inline(always)]
fn q8_0_blocks(numbers: &[f32], blocks: &mut [u8]) {
    for (numbers, block) in numbers.as_chunks::<32>().0.iter().zip(blocks.as_chunks_mut::<34>().0) {
        let mut largest = 0f32;
        for x in numbers {
            largest = if x.abs() > largest { x.abs() } else { largest };
        }
        let scale = largest / 127.0;
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        let (head, bytes) = block.split_at_mut(2);
        head.copy_from_slice(&half::f16::from_f32(scale).to_le_bytes());
        for (byte, x) in bytes.iter_mut().zip(numbers) {
            *byte = (x * inverse).round() as i8 as u8;
        }
    }
}

/// Added to a number of up to 22 bits, it leaves the nearest whole number, of ties the even one, in the lowest bits.
const TO_WHOLE: f32 = 12_582_912.0;

/// `nearest_int`.
fn nearest(x: f32) -> i32 {
    ((x + TO_WHOLE).to_bits() & 0x7f_ffff) as i32 - 0x40_0000
}

/// `nearest_int` of each lane, then clamped. Of numbers too large for it, the same bits are left as in the reference.
#[inline(always)]
fn nearest_within<S: Simd>(simd: S, v: S::V, least: f32, most: f32) -> S::V {
    let bits = simd.bits(simd.add(v, simd.splat(TO_WHOLE)));
    // 2^23 plus those bits, which stand for a number that is 2^22 less.
    let whole = simd.or(simd.and(bits, simd.splat_i(0x7f_ffff)), simd.splat_i(0x4b00_0000));
    let whole = simd.sub(simd.of_bits(whole), simd.splat(TO_WHOLE));
    simd.max(simd.splat(least), simd.min(simd.splat(most), whole))
}

#[inline(always)]
fn abs<S: Simd>(simd: S, v: S::V) -> S::V {
    simd.of_bits(simd.and(simd.bits(v), simd.splat_i(0x7fff_ffff)))
}

/// The numbers of up to 16 groups of `N`, group after group, as vectors with a lane for each group; zeros where there are
/// fewer groups. All NaN are the same NaN, whose bits the search would show otherwise.
#[inline(always)]
fn by_group<const N: usize>(numbers: &[f32]) -> [[f32; LANES]; N] {
    let mut vectors = [[0.0; LANES]; N];
    for (lane, group) in numbers.as_chunks::<N>().0.iter().enumerate().take(LANES) {
        for (vector, x) in vectors.iter_mut().zip(group) {
            vector[lane] = if x.is_nan() { f32::NAN } else { *x };
        }
    }
    vectors
}
