//! How blocks of the formats are laid out, and how they become plain bytes with a scale to each group.
//!
//! Reference: ggml's `block_q8_0`, `block_q4_K`, `block_q5_K`, `block_q6_K` and their `dequantize_row_*`.

use super::activations::{CHUNK, Chunk};
use super::panels::PANEL;
use crate::kernels::simd::{LANES, Simd};

/// A format that has a kernel.
pub(super) trait Format {
    /// Inputs of a block.
    const LEN: usize;
    /// Bytes of a block as it is stored.
    const SIZE: usize;
    /// Inputs that share a scale: 16 or 32.
    const GROUP: usize;
    /// Whether there are minima.
    const MINIMA: bool;
    /// Whether the unpacked bytes are signed.
    const SIGNED: bool;
    /// By how much the unpacked bytes are too large, where they are not signed.
    const OFFSET: i32;
    /// Unpacks a block of a panel, `PANEL * SIZE` bytes.
    fn unpack<S: Simd>(simd: S, block: &[u8], sink: &mut impl Sink<S>);
}

/// What takes a block's unpacked weights of 16 outputs. Groups and chunks are counted from the start of the block.
pub(super) trait Sink<S: Simd> {
    /// The weights of inputs `4 * i..4 * i + 4` of each output, a byte each.
    fn bytes(&mut self, simd: S, i: usize, v: S::I);
    /// The scales of the inputs of group `group`.
    fn scales(&mut self, simd: S, group: usize, v: S::V);
    /// The minima of the inputs of chunk `chunk`.
    fn minima(&mut self, simd: S, chunk: usize, v: S::V);
}

/// Vectors `i..i + 4` of a block: bytes `4 * i..4 * i + 16` of each output but for the lone f16.
#[inline(always)]
fn fours<S: Simd>(simd: S, block: &[u8], i: usize) -> [S::I; 4] {
    let vectors = &block.as_chunks::<4>().0.as_chunks::<LANES>().0[i..i + 4];
    [
        simd.load_fours(&vectors[0]),
        simd.load_fours(&vectors[1]),
        simd.load_fours(&vectors[2]),
        simd.load_fours(&vectors[3]),
    ]
}

/// The lone f16 of each output, which a block ends with.
#[inline(always)]
fn halves<S: Simd>(simd: S, block: &[u8]) -> S::V {
    simd.load_f16(&block[block.len() - 2 * PANEL..].as_chunks::<2>().0.as_chunks().0[0])
}

/// By how much the unpacked bytes are too large.
#[inline(always)]
pub(super) fn offset<S: Simd, F: Format>() -> i32 {
    if F::SIGNED { i32::from(S::FLIP) } else { F::OFFSET }
}

/// The product of unpacked bytes with activations.
#[inline(always)]
pub(super) fn dot<S: Simd, F: Format>(simd: S, sums: S::I, weights: S::I, x: S::I) -> S::I {
    if F::SIGNED { simd.dot_signed(sums, weights, x) } else { simd.dot(sums, weights, x) }
}

/// The sum of the activations of group `group` of some chunks.
#[inline(always)]
pub(super) fn group_sum<F: Format>(x: &[Chunk], group: usize) -> i32 {
    if F::GROUP == CHUNK { x[group].sums[0] + x[group].sums[1] } else { x[group / 2].sums[group % 2] }
}

/// 32 bytes after an f16 scale.
pub(super) struct Q8_0;

impl Format for Q8_0 {
    const LEN: usize = 32;
    const SIZE: usize = 34;
    const GROUP: usize = 32;
    const MINIMA: bool = false;
    const SIGNED: bool = true;
    const OFFSET: i32 = 0;

    #[inline(always)]
    fn unpack<S: Simd>(simd: S, block: &[u8], sink: &mut impl Sink<S>) {
        sink.scales(simd, 0, halves(simd, block));
        Self::part::<S, 0>(simd, block, sink);
        Self::part::<S, 1>(simd, block, sink);
    }
}

impl Q8_0 {
    /// Unpacks 16 numbers from `16 * PART` on. Written out, here and below: from a loop a sink could not keep its sums in
    /// registers.
    #[inline(always)]
    fn part<S: Simd, const PART: usize>(simd: S, block: &[u8], sink: &mut impl Sink<S>) {
        let at = 4 * PART;
        let flip = simd.splat_i(i32::from_ne_bytes([S::FLIP; 4]));
        let [a, b, c, d] = fours(simd, block, 4 * PART);
        sink.bytes(simd, at, simd.xor(a, flip));
        sink.bytes(simd, at + 1, simd.xor(b, flip));
        sink.bytes(simd, at + 2, simd.xor(c, flip));
        sink.bytes(simd, at + 3, simd.xor(d, flip));
    }
}

/// 256 numbers of four bits: f16 scales of scales and of minima, 8 scales and 8 minima of six bits, then the numbers,
/// 64 after 64, the first 32 of them in the lower halves of 32 bytes.
pub(super) struct Q4K;

impl Format for Q4K {
    const LEN: usize = 256;
    const SIZE: usize = 144;
    const GROUP: usize = 32;
    const MINIMA: bool = true;
    const SIGNED: bool = false;
    const OFFSET: i32 = 0;

    #[inline(always)]
    fn unpack<S: Simd>(simd: S, block: &[u8], sink: &mut impl Sink<S>) {
        unpack_scales(simd, block, sink);
        Self::part::<S, 0>(simd, block, sink);
        Self::part::<S, 1>(simd, block, sink);
        Self::part::<S, 2>(simd, block, sink);
        Self::part::<S, 3>(simd, block, sink);
        Self::part::<S, 4>(simd, block, sink);
        Self::part::<S, 5>(simd, block, sink);
        Self::part::<S, 6>(simd, block, sink);
        Self::part::<S, 7>(simd, block, sink);
    }
}

impl Q4K {
    /// Unpacks bytes `16 * PART..` of the numbers.
    #[inline(always)]
    fn part<S: Simd, const PART: usize>(simd: S, block: &[u8], sink: &mut impl Sink<S>) {
        let at = 16 * (PART / 2) + 4 * (PART % 2);
        let nibble = simd.splat_i(0x0f0f_0f0f);
        let [a, b, c, d] = fours(simd, block, 4 + 4 * PART);
        sink.bytes(simd, at, simd.and(a, nibble));
        sink.bytes(simd, at + 1, simd.and(b, nibble));
        sink.bytes(simd, at + 2, simd.and(c, nibble));
        sink.bytes(simd, at + 3, simd.and(d, nibble));
        sink.bytes(simd, at + 8, simd.and(simd.shr::<4>(a), nibble));
        sink.bytes(simd, at + 9, simd.and(simd.shr::<4>(b), nibble));
        sink.bytes(simd, at + 10, simd.and(simd.shr::<4>(c), nibble));
        sink.bytes(simd, at + 11, simd.and(simd.shr::<4>(d), nibble));
    }
}

/// As [`Q4K`], with the fifth bits in 32 bytes before: bit `j` is that of a number of the block's 32 numbers `j`.
pub(super) struct Q5K;

impl Format for Q5K {
    const LEN: usize = 256;
    const SIZE: usize = 176;
    const GROUP: usize = 32;
    const MINIMA: bool = true;
    const SIGNED: bool = false;
    const OFFSET: i32 = 0;

    #[inline(always)]
    fn unpack<S: Simd>(simd: S, block: &[u8], sink: &mut impl Sink<S>) {
        unpack_scales(simd, block, sink);
        Self::part::<S, 0>(simd, block, sink);
        Self::part::<S, 1>(simd, block, sink);
    }
}

impl Q5K {
    /// Unpacks the numbers of every 32 whose fifth bits are in bytes `16 * PART..` of theirs.
    #[inline(always)]
    fn part<S: Simd, const PART: usize>(simd: S, block: &[u8], sink: &mut impl Sink<S>) {
        let mut high = fours(simd, block, 4 + 4 * PART);
        Self::pair::<S, PART, 0>(simd, block, &mut high, sink);
        Self::pair::<S, PART, 1>(simd, block, &mut high, sink);
        Self::pair::<S, PART, 2>(simd, block, &mut high, sink);
        Self::pair::<S, PART, 3>(simd, block, &mut high, sink);
    }

    /// Unpacks those of 64 numbers, whose fifth bits are the lowest two of `high`, and shifts these out.
    #[inline(always)]
    fn pair<S: Simd, const PART: usize, const PAIR: usize>(
        simd: S,
        block: &[u8],
        high: &mut [S::I; 4],
        sink: &mut impl Sink<S>,
    ) {
        let at = 16 * PAIR + 4 * PART;
        let (nibble, bit) = (simd.splat_i(0x0f0f_0f0f), simd.splat_i(0x1010_1010));
        let low = fours(simd, block, 12 + 8 * PAIR + 4 * PART);
        for i in 0..4 {
            let (low, high) = (low[i], &mut high[i]);
            sink.bytes(simd, at + i, simd.or(simd.and(low, nibble), simd.and(simd.shl::<4>(*high), bit)));
            let second = simd.and(simd.shr::<4>(low), nibble);
            sink.bytes(simd, at + 8 + i, simd.or(second, simd.and(simd.shl::<3>(*high), bit)));
            *high = simd.shr::<2>(*high);
        }
    }
}

/// The 16 bytes that begin a block of [`Q4K`] and [`Q5K`].
#[inline(always)]
fn unpack_scales<S: Simd>(simd: S, block: &[u8], sink: &mut impl Sink<S>) {
    let [head, a, b, c] = fours(simd, block, 0);
    let (scale, minimum) = (simd.half_to_float(head), simd.half_to_float(simd.shr::<16>(head)));
    let (six, four, two) = (simd.splat_i(0x3f3f_3f3f), simd.splat_i(0x0f0f_0f0f), simd.splat_i(0x3030_3030));
    // The scales 4..8 and minima 4..8 have four bits in `c` and the upper two in those of `a` and `b`.
    let scales = [simd.and(a, six), simd.or(simd.and(c, four), simd.and(simd.shr::<2>(a), two))];
    let minima = [simd.and(b, six), simd.or(simd.and(simd.shr::<4>(c), four), simd.and(simd.shr::<2>(b), two))];
    for i in 0..2 {
        let (scales, minima) = (bytes_to_float(simd, scales[i]), bytes_to_float(simd, minima[i]));
        for j in 0..4 {
            sink.scales(simd, 4 * i + j, simd.mul(scale, scales[j]));
            sink.minima(simd, 4 * i + j, simd.mul(minimum, minima[j]));
        }
    }
}

/// The four bytes of each lane, without a sign.
#[inline(always)]
fn bytes_to_float<S: Simd>(simd: S, v: S::I) -> [S::V; 4] {
    let low = simd.splat_i(0xff);
    [
        simd.to_float(simd.and(v, low)),
        simd.to_float(simd.and(simd.shr::<8>(v), low)),
        simd.to_float(simd.and(simd.shr::<16>(v), low)),
        simd.to_float(simd.shr::<24>(v)),
    ]
}

/// 256 numbers of six bits, 32 too large: the lower four in 128 bytes, the upper two in 64, a scale of a byte to each
/// 16, and an f16 scale of scales. Halves of 128 numbers are packed alike: 32 after 32 in the lower halves of 64 bytes,
/// then in the upper ones; bits 0, 2, 4 and 6 of the upper ones belong to the four times 32.
pub(super) struct Q6K;

impl Format for Q6K {
    const LEN: usize = 256;
    const SIZE: usize = 210;
    const GROUP: usize = 16;
    const MINIMA: bool = false;
    const SIGNED: bool = false;
    const OFFSET: i32 = 32;

    #[inline(always)]
    fn unpack<S: Simd>(simd: S, block: &[u8], sink: &mut impl Sink<S>) {
        let scale = halves(simd, block);
        for (i, v) in fours(simd, block, 48).iter().enumerate() {
            for (j, v) in [simd.shl::<24>(*v), simd.shl::<16>(*v), simd.shl::<8>(*v), *v].iter().enumerate() {
                sink.scales(simd, 4 * i + j, simd.mul(scale, simd.to_float(simd.sar::<24>(*v))));
            }
        }
        Self::part::<S, 0>(simd, block, sink);
        Self::part::<S, 1>(simd, block, sink);
        Self::part::<S, 2>(simd, block, sink);
        Self::part::<S, 3>(simd, block, sink);
    }
}

impl Q6K {
    /// Unpacks the numbers whose upper bits are in bytes `16 * PART..` of theirs.
    #[inline(always)]
    fn part<S: Simd, const PART: usize>(simd: S, block: &[u8], sink: &mut impl Sink<S>) {
        let (side, part) = (PART / 2, PART % 2);
        let at = 32 * side + 4 * part;
        let (nibble, bits) = (simd.splat_i(0x0f0f_0f0f), simd.splat_i(0x3030_3030));
        let first = fours(simd, block, 16 * side + 4 * part);
        let second = fours(simd, block, 16 * side + 8 + 4 * part);
        let high = fours(simd, block, 32 + 8 * side + 4 * part);
        for i in 0..4 {
            let (a, b, h) = (first[i], second[i], high[i]);
            sink.bytes(simd, at + i, simd.or(simd.and(a, nibble), simd.and(simd.shl::<4>(h), bits)));
            sink.bytes(simd, at + 8 + i, simd.or(simd.and(b, nibble), simd.and(simd.shl::<2>(h), bits)));
            sink.bytes(simd, at + 16 + i, simd.or(simd.and(simd.shr::<4>(a), nibble), simd.and(h, bits)));
            sink.bytes(
                simd,
                at + 24 + i,
                simd.or(simd.and(simd.shr::<4>(b), nibble), simd.and(simd.shr::<2>(h), bits)),
            );
        }
    }
}
