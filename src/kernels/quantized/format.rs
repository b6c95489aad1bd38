//! How blocks of the formats are laid out, and how they become plain bytes with a scale to each group.
//!
//! Reference: ggml's `block_q8_0`, `block_q4_K`, `block_q5_K`, `block_q6_K` and their `dequantize_row_*`.

use super::super::simd::LANES;
use super::level::Integers;
use super::panel::{BLOCK, Sink};

/// Where a block of 16 packed rows lies ([`super::packed`]).
#[derive(Clone, Copy)]
pub(super) struct Rows(pub *const u8);

impl Rows {
    /// Block `n` from here.
    ///
    /// # Safety
    /// The group has it, or ends there.
    #[inline(always)]
    pub unsafe fn skip<F: Format>(self, n: usize) -> Self {
        // SAFETY: the caller promises that the blocks are the group's.
        Self(unsafe { self.0.add(n * F::SIZE * LANES) })
    }

    /// Vectors `i..i + 4` of the block: bytes `4 * i..4 * i + 16` of each row but for the lone f16.
    ///
    /// # Safety
    /// The processor has the instructions of `S`, and the block these vectors.
    #[inline(always)]
    unsafe fn fours<S: Integers>(self, i: usize) -> [S::I; 4] {
        // SAFETY: just what the caller promises.
        unsafe {
            let at = self.0.cast::<i32>().add(i * LANES);
            [S::load_i(at), S::load_i(at.add(LANES)), S::load_i(at.add(2 * LANES)), S::load_i(at.add(3 * LANES))]
        }
    }

    /// The f16 of each row.
    ///
    /// # Safety
    /// The processor has the instructions of `S`, and the format has an f16 besides.
    #[inline(always)]
    unsafe fn halves<S: Integers, F: Format>(self) -> S::V {
        // SAFETY: just what the caller promises.
        unsafe { S::load_f16(self.0.add(F::SIZE / 4 * 4 * LANES).cast()) }
    }
}

/// A format that has a kernel.
///
/// # Safety
/// Implementations read the `SIZE / 4` vectors of a block of 16 rows, and its lone f16 only where `SIZE` leaves a rest of
/// two; they fill exactly `LEN` inputs of the sink. `unpack` may be called only where the processor has the instructions of
/// `S`, the rows have these bytes, and the sink has room for these inputs.
pub(super) unsafe trait Format {
    /// Inputs of a stored block.
    const LEN: usize;
    /// Bytes of a stored block.
    const SIZE: usize;
    /// Inputs that share a scale: 16 or 32.
    const GROUP: usize;
    /// Whether there are minima.
    const MINIMA: bool;
    /// Whether the panel's bytes are signed.
    const SIGNED: bool;
    /// By how much the panel's bytes are too large, where they are not signed.
    const OFFSET: i32;
    /// Unpacks one block of 16 rows as the inputs from `32 * block` on.
    unsafe fn unpack<S: Integers>(rows: Rows, block: usize, sink: &mut impl Sink<S>);
}

/// By how much the unpacked bytes are too large.
#[inline(always)]
pub(super) fn offset<S: Integers, F: Format>() -> i32 {
    if F::SIGNED { i32::from(S::FLIP) } else { F::OFFSET }
}

/// The product of unpacked bytes with activations.
///
/// # Safety
/// The processor has the instructions of `S`.
#[inline(always)]
pub(super) unsafe fn dot<S: Integers, F: Format>(sums: S::I, weights: S::I, x: S::I) -> S::I {
    // SAFETY: the caller promises the instructions; no pointer is given.
    unsafe { if F::SIGNED { S::dot_signed(sums, weights, x) } else { S::dot(sums, weights, x) } }
}

/// The sum of the activations of group `group`, from sums of 16.
///
/// # Safety
/// `sums` has those of the group's inputs.
#[inline(always)]
pub(super) unsafe fn group_sum<F: Format>(sums: *const i32, group: usize) -> i32 {
    // SAFETY: a group of 32 inputs has two sums, one of 16 has one; the caller promises them.
    unsafe { if F::GROUP == BLOCK { *sums.add(2 * group) + *sums.add(2 * group + 1) } else { *sums.add(group) } }
}

/// 32 bytes after an f16 scale.
pub(super) struct Q8_0;

// SAFETY: of 8 vectors and an f16 all are read; 8 times four inputs are filled.
unsafe impl Format for Q8_0 {
    const LEN: usize = 32;
    const SIZE: usize = 34;
    const GROUP: usize = 32;
    const MINIMA: bool = false;
    const SIGNED: bool = true;
    const OFFSET: i32 = 0;

    #[inline(always)]
    unsafe fn unpack<S: Integers>(rows: Rows, block: usize, sink: &mut impl Sink<S>) {
        // SAFETY: the caller promises the instructions, the block and room for 32 inputs.
        unsafe {
            sink.scales(block, rows.halves::<S, Self>());
            Self::part::<S, 0>(rows, block, sink);
            Self::part::<S, 1>(rows, block, sink);
        }
    }
}

impl Q8_0 {
    /// Unpacks 16 numbers from `16 * PART` on. Written out, here and below: from a loop a sink could not keep its sums in
    /// registers.
    ///
    /// # Safety
    /// As for [`Format::unpack`]; `PART < 2`.
    #[inline(always)]
    unsafe fn part<S: Integers, const PART: usize>(rows: Rows, block: usize, sink: &mut impl Sink<S>) {
        let at = 8 * block + 4 * PART;
        // SAFETY: the caller promises the instructions; vectors up to 8 are read, and `at + 4 <= 8 * (block + 1)`.
        unsafe {
            let flip = S::splat_i(i32::from_ne_bytes([S::FLIP; 4]));
            let [a, b, c, d] = rows.fours::<S>(4 * PART);
            sink.bytes(at, S::xor(a, flip));
            sink.bytes(at + 1, S::xor(b, flip));
            sink.bytes(at + 2, S::xor(c, flip));
            sink.bytes(at + 3, S::xor(d, flip));
        }
    }
}

/// 256 numbers of four bits: f16 scales of scales and of minima, 8 scales and 8 minima of six bits, then the numbers,
/// 64 after 64, the first 32 of them in the lower halves of 32 bytes.
pub(super) struct Q4K;

// SAFETY: of 36 vectors 4 are read for scales, and 4 for each of 8 parts, which fill 32 inputs each.
unsafe impl Format for Q4K {
    const LEN: usize = 256;
    const SIZE: usize = 144;
    const GROUP: usize = 32;
    const MINIMA: bool = true;
    const SIGNED: bool = false;
    const OFFSET: i32 = 0;

    #[inline(always)]
    unsafe fn unpack<S: Integers>(rows: Rows, block: usize, sink: &mut impl Sink<S>) {
        // SAFETY: the caller promises the instructions, the block and room for 256 inputs.
        unsafe {
            unpack_scales::<S>(rows, block, sink);
            Self::part::<S, 0>(rows, block, sink);
            Self::part::<S, 1>(rows, block, sink);
            Self::part::<S, 2>(rows, block, sink);
            Self::part::<S, 3>(rows, block, sink);
            Self::part::<S, 4>(rows, block, sink);
            Self::part::<S, 5>(rows, block, sink);
            Self::part::<S, 6>(rows, block, sink);
            Self::part::<S, 7>(rows, block, sink);
        }
    }
}

impl Q4K {
    /// Unpacks bytes `16 * PART..` of the numbers.
    ///
    /// # Safety
    /// As for [`Format::unpack`]; `PART < 8`.
    #[inline(always)]
    unsafe fn part<S: Integers, const PART: usize>(rows: Rows, block: usize, sink: &mut impl Sink<S>) {
        let at = 8 * (block + PART / 2 * 2) + PART % 2 * 4;
        // SAFETY: the caller promises the instructions; vectors up to 36 are read, and `at + 12 <= 8 * (block + 8)`.
        unsafe {
            let nibble = S::splat_i(0x0f0f_0f0f);
            let [a, b, c, d] = rows.fours::<S>(4 + 4 * PART);
            sink.bytes(at, S::and(a, nibble));
            sink.bytes(at + 1, S::and(b, nibble));
            sink.bytes(at + 2, S::and(c, nibble));
            sink.bytes(at + 3, S::and(d, nibble));
            sink.bytes(at + 8, S::and(S::shr::<4>(a), nibble));
            sink.bytes(at + 9, S::and(S::shr::<4>(b), nibble));
            sink.bytes(at + 10, S::and(S::shr::<4>(c), nibble));
            sink.bytes(at + 11, S::and(S::shr::<4>(d), nibble));
        }
    }
}

/// As [`Q4K`], with the fifth bits in 32 bytes before: bit `j` is that of a number of the block's 32 numbers `j`.
pub(super) struct Q5K;

// SAFETY: of 44 vectors 4 are read for scales, and in each of 2 parts 4 for fifth bits and 4 for each of 4 pairs, which
// fill 32 inputs each.
unsafe impl Format for Q5K {
    const LEN: usize = 256;
    const SIZE: usize = 176;
    const GROUP: usize = 32;
    const MINIMA: bool = true;
    const SIGNED: bool = false;
    const OFFSET: i32 = 0;

    #[inline(always)]
    unsafe fn unpack<S: Integers>(rows: Rows, block: usize, sink: &mut impl Sink<S>) {
        // SAFETY: the caller promises the instructions, the block and room for 256 inputs.
        unsafe {
            unpack_scales::<S>(rows, block, sink);
            Self::part::<S, 0>(rows, block, sink);
            Self::part::<S, 1>(rows, block, sink);
        }
    }
}

impl Q5K {
    /// Unpacks the numbers of every 32 whose fifth bits are in bytes `16 * PART..` of theirs.
    ///
    /// # Safety
    /// As for [`Format::unpack`]; `PART < 2`.
    #[inline(always)]
    unsafe fn part<S: Integers, const PART: usize>(rows: Rows, block: usize, sink: &mut impl Sink<S>) {
        // SAFETY: the caller promises the instructions and the block, of which vectors 4..12 hold the fifth bits.
        unsafe {
            let mut high = rows.fours::<S>(4 + 4 * PART);
            Self::pair::<S, PART, 0>(rows, block, &mut high, sink);
            Self::pair::<S, PART, 1>(rows, block, &mut high, sink);
            Self::pair::<S, PART, 2>(rows, block, &mut high, sink);
            Self::pair::<S, PART, 3>(rows, block, &mut high, sink);
        }
    }

    /// Unpacks those of 64 numbers, whose fifth bits are the lowest two of `high`, and shifts these out.
    ///
    /// # Safety
    /// As for [`Format::unpack`]; `PART < 2`, `PAIR < 4`.
    #[inline(always)]
    unsafe fn pair<S: Integers, const PART: usize, const PAIR: usize>(
        rows: Rows,
        block: usize,
        high: &mut [S::I; 4],
        sink: &mut impl Sink<S>,
    ) {
        let at = 8 * (block + 2 * PAIR) + 4 * PART;
        // SAFETY: the caller promises the instructions; vectors up to 44 are read, and `at + 12 <= 8 * (block + 8)`.
        unsafe {
            let (nibble, bit) = (S::splat_i(0x0f0f_0f0f), S::splat_i(0x1010_1010));
            let low = rows.fours::<S>(12 + 8 * PAIR + 4 * PART);
            for i in 0..4 {
                let (low, high) = (low[i], &mut high[i]);
                sink.bytes(at + i, S::or(S::and(low, nibble), S::and(S::shl::<4>(*high), bit)));
                let second = S::and(S::shr::<4>(low), nibble);
                sink.bytes(at + 8 + i, S::or(second, S::and(S::shl::<3>(*high), bit)));
                *high = S::shr::<2>(*high);
            }
        }
    }
}

/// The 16 bytes that begin a block of [`Q4K`] and [`Q5K`].
///
/// # Safety
/// As for [`Format::unpack`] of either.
#[inline(always)]
unsafe fn unpack_scales<S: Integers>(rows: Rows, block: usize, sink: &mut impl Sink<S>) {
    // SAFETY: the caller promises the instructions, more than 4 vectors, and room for the block's 8 groups.
    unsafe {
        let [head, a, b, c] = rows.fours::<S>(0);
        let (scale, minimum) = (S::half_to_float(head), S::half_to_float(S::shr::<16>(head)));
        let (six, four, two) = (S::splat_i(0x3f3f_3f3f), S::splat_i(0x0f0f_0f0f), S::splat_i(0x3030_3030));
        // The scales 4..8 and minima 4..8 have four bits in `c` and the upper two in those of `a` and `b`.
        let scales = [S::and(a, six), S::or(S::and(c, four), S::and(S::shr::<2>(a), two))];
        let minima = [S::and(b, six), S::or(S::and(S::shr::<4>(c), four), S::and(S::shr::<2>(b), two))];
        for i in 0..2 {
            let (scales, minima) = (bytes_to_float::<S>(scales[i]), bytes_to_float::<S>(minima[i]));
            for j in 0..4 {
                sink.scales(block + 4 * i + j, S::mul(scale, scales[j]));
                sink.minima(block + 4 * i + j, S::mul(minimum, minima[j]));
            }
        }
    }
}

/// The four bytes of each lane, without a sign.
///
/// # Safety
/// The processor has the instructions of `S`.
#[inline(always)]
unsafe fn bytes_to_float<S: Integers>(v: S::I) -> [S::V; 4] {
    // SAFETY: the caller promises the instructions; no pointer is given.
    unsafe {
        let low = S::splat_i(0xff);
        [
            S::to_float(S::and(v, low)),
            S::to_float(S::and(S::shr::<8>(v), low)),
            S::to_float(S::and(S::shr::<16>(v), low)),
            S::to_float(S::shr::<24>(v)),
        ]
    }
}

/// 256 numbers of six bits, 32 too large: the lower four in 128 bytes, the upper two in 64, a scale of a byte to each
/// 16, and an f16 scale of scales. Halves of 128 numbers are packed alike: 32 after 32 in the lower halves of 64 bytes,
/// then in the upper ones; bits 0, 2, 4 and 6 of the upper ones belong to the four times 32.
pub(super) struct Q6K;

// SAFETY: of 52 vectors and an f16 the last four and the f16 are read for scales, and in each of 4 parts twice 4 of the
// lower bits before 32 and 4 of the upper ones after, which fill 64 inputs each.
unsafe impl Format for Q6K {
    const LEN: usize = 256;
    const SIZE: usize = 210;
    const GROUP: usize = 16;
    const MINIMA: bool = false;
    const SIGNED: bool = false;
    const OFFSET: i32 = 32;

    #[inline(always)]
    unsafe fn unpack<S: Integers>(rows: Rows, block: usize, sink: &mut impl Sink<S>) {
        // SAFETY: the caller promises the instructions, the block and room for 256 inputs, which are 16 groups.
        unsafe {
            let scale = rows.halves::<S, Self>();
            for (i, v) in rows.fours::<S>(48).iter().enumerate() {
                for (j, v) in [S::shl::<24>(*v), S::shl::<16>(*v), S::shl::<8>(*v), *v].iter().enumerate() {
                    sink.scales(2 * block + 4 * i + j, S::mul(scale, S::to_float(S::sar::<24>(*v))));
                }
            }
            Self::part::<S, 0>(rows, block, sink);
            Self::part::<S, 1>(rows, block, sink);
            Self::part::<S, 2>(rows, block, sink);
            Self::part::<S, 3>(rows, block, sink);
        }
    }
}

impl Q6K {
    /// Unpacks the numbers whose upper bits are in bytes `16 * PART..` of theirs.
    ///
    /// # Safety
    /// As for [`Format::unpack`]; `PART < 4`.
    #[inline(always)]
    unsafe fn part<S: Integers, const PART: usize>(rows: Rows, block: usize, sink: &mut impl Sink<S>) {
        let (side, part) = (PART / 2, PART % 2);
        let at = 8 * (block + 4 * side) + 4 * part;
        // SAFETY: the caller promises the instructions; vectors up to 48 are read, and `at + 28 <= 8 * (block + 8)`.
        unsafe {
            let (nibble, bits) = (S::splat_i(0x0f0f_0f0f), S::splat_i(0x3030_3030));
            let first = rows.fours::<S>(16 * side + 4 * part);
            let second = rows.fours::<S>(16 * side + 8 + 4 * part);
            let high = rows.fours::<S>(32 + 8 * side + 4 * part);
            for i in 0..4 {
                let (a, b, h) = (first[i], second[i], high[i]);
                sink.bytes(at + i, S::or(S::and(a, nibble), S::and(S::shl::<4>(h), bits)));
                sink.bytes(at + 8 + i, S::or(S::and(b, nibble), S::and(S::shl::<2>(h), bits)));
                sink.bytes(at + 16 + i, S::or(S::and(S::shr::<4>(a), nibble), S::and(h, bits)));
                sink.bytes(at + 24 + i, S::or(S::and(S::shr::<4>(b), nibble), S::and(S::shr::<2>(h), bits)));
            }
        }
    }
}
