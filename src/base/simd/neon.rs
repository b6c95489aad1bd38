//! NEON, with FEAT_DotProd or without: 16 lanes in four registers, of which there are 32.

use std::arch::aarch64::*;
use std::arch::asm;
use std::convert::Infallible;

use super::{Kernel, LANES, Simd, instructions};

/// NEON, and with `DOTPROD` its products of bytes.
#[derive(Clone, Copy)]
pub struct Neon<const DOTPROD: bool>(());

/// Runs a kernel.
#[target_feature(enable = "neon")]
pub(super) fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Neon::<false>(()))
}

/// Runs a kernel, with FEAT_DotProd.
#[target_feature(enable = "neon,dotprod")]
pub(super) fn run_with_dotprod<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Neon::<true>(()))
}

/// An intrinsic on each of the four registers.
macro_rules! each {
    ($intrinsic:ident, $($v:expr),+) => {
        [$intrinsic($($v[0]),+), $intrinsic($($v[1]),+), $intrinsic($($v[2]),+), $intrinsic($($v[3]),+)]
    };
}

impl<const DOTPROD: bool> Simd for Neon<DOTPROD> {
    type V = [float32x4_t; 4];
    type I = [int32x4_t; 4];
    type Unit = Infallible;
    // 24 registers of sums, four of weights, and the inputs' lanes.
    const TILE_ROWS: usize = 6;
    const TILE_VECTORS: usize = 1;
    const DOT_TILE: (usize, usize) = (2, 2);
    // 16 registers of sums, or 8 where products need registers too.
    const QUANTIZED_TILE_ROWS: usize = if DOTPROD { 2 } else { 1 };
    const SUMS: usize = 4;
    const FLIP: u8 = 0;

    #[inline(always)]
    fn load_first(self, p: &[f32]) -> Self::V {
        let mut lanes = [0.0; LANES];
        lanes[..p.len()].copy_from_slice(p);
        self.load(&lanes)
    }
    #[inline(always)]
    fn store_first(self, p: &mut [f32], v: Self::V) {
        let lanes = self.lanes(v);
        p.copy_from_slice(&lanes[..p.len()]);
    }

    instructions! {
        fn prefetch(self, p: *const u8) {
            // The intrinsic is not stable.
            asm!("prfm pldl2keep, [{}]", in(reg) p.addr(), options(nomem, nostack, preserves_flags))
        }
        fn splat(self, x: f32) -> Self::V { [vdupq_n_f32(x); 4] }
        fn load(self, p: &[f32; LANES]) -> Self::V {
            let p = p.as_ptr();
            [vld1q_f32(p), vld1q_f32(p.add(4)), vld1q_f32(p.add(8)), vld1q_f32(p.add(12))]
        }
        fn load_f32(self, p: &[[u8; 4]; LANES]) -> Self::V {
            let p = p.as_ptr().cast();
            let bytes = [vld1q_u8(p), vld1q_u8(p.add(16)), vld1q_u8(p.add(32)), vld1q_u8(p.add(48))];
            each!(vreinterpretq_f32_u8, bytes)
        }
        fn load_f16(self, p: &[[u8; 2]; LANES]) -> Self::V {
            let p = p.as_ptr().cast();
            let (a, b) = (vreinterpretq_u16_u8(vld1q_u8(p)), vreinterpretq_u16_u8(vld1q_u8(p.add(16))));
            [widen(vget_low_u16(a)), widen_high(a), widen(vget_low_u16(b)), widen_high(b)]
        }
        fn load_bf16(self, p: &[[u8; 2]; LANES]) -> Self::V {
            let p = p.as_ptr().cast();
            let (a, b) = (vreinterpretq_u16_u8(vld1q_u8(p)), vreinterpretq_u16_u8(vld1q_u8(p.add(16))));
            let zero = vdupq_n_u16(0);
            let bits = [vzip1q_u16(zero, a), vzip2q_u16(zero, a), vzip1q_u16(zero, b), vzip2q_u16(zero, b)];
            each!(vreinterpretq_f32_u16, bits)
        }
        fn store(self, p: &mut [f32; LANES], v: Self::V) {
            let p = p.as_mut_ptr();
            vst1q_f32(p, v[0]);
            vst1q_f32(p.add(4), v[1]);
            vst1q_f32(p.add(8), v[2]);
            vst1q_f32(p.add(12), v[3]);
        }
        fn add(self, a: Self::V, b: Self::V) -> Self::V { each!(vaddq_f32, a, b) }
        fn sub(self, a: Self::V, b: Self::V) -> Self::V { each!(vsubq_f32, a, b) }
        fn mul(self, a: Self::V, b: Self::V) -> Self::V { each!(vmulq_f32, a, b) }
        fn div(self, a: Self::V, b: Self::V) -> Self::V { each!(vdivq_f32, a, b) }
        fn sqrt(self, a: Self::V) -> Self::V { each!(vsqrtq_f32, a) }
        fn max(self, a: Self::V, b: Self::V) -> Self::V { each!(vmaxq_f32, a, b) }
        fn min(self, a: Self::V, b: Self::V) -> Self::V { each!(vminq_f32, a, b) }
        fn if_less(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V {
            let less = each!(vcltq_f32, a, b);
            each!(vbslq_f32, less, yes, no)
        }
        fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V { each!(vfmaq_f32, c, a, b) }
        fn round(self, a: Self::V) -> Self::V { each!(vrndnq_f32, a) }
        fn exp2_whole(self, n: Self::V) -> Self::V {
            let bias = [vdupq_n_s32(127); 4];
            let [a, b, c, d] = each!(vaddq_s32, each!(vcvtq_s32_f32, n), bias);
            let bits = [vshlq_n_s32::<23>(a), vshlq_n_s32::<23>(b), vshlq_n_s32::<23>(c), vshlq_n_s32::<23>(d)];
            each!(vreinterpretq_f32_s32, bits)
        }
        fn sum(self, v: Self::V) -> f32 {
            let four = sum_of_registers(v);
            vaddv_f32(vadd_f32(vget_low_f32(four), vget_high_f32(four)))
        }
        fn sums(self, v: [Self::V; LANES]) -> Self::V {
            let mut sums = [vdupq_n_f32(0.0); 4];
            // The sums of four vectors make a register.
            for (i, sums) in sums.iter_mut().enumerate() {
                let (a, b) = (sum_of_registers(v[4 * i]), sum_of_registers(v[4 * i + 1]));
                let (c, d) = (sum_of_registers(v[4 * i + 2]), sum_of_registers(v[4 * i + 3]));
                *sums = vpaddq_f32(add_halves(a, b), add_halves(c, d));
            }
            sums
        }
        fn largest(self, v: Self::V) -> f32 {
            vmaxvq_f32(vmaxq_f32(vmaxq_f32(v[0], v[1]), vmaxq_f32(v[2], v[3])))
        }
        fn store_bytes(self, p: &mut [i8; LANES], v: Self::V) {
            let words = each!(vqmovn_s32, each!(vcvtq_s32_f32, v));
            let (a, b) = (vcombine_s16(words[0], words[1]), vcombine_s16(words[2], words[3]));
            vst1q_s8(p.as_mut_ptr(), vcombine_s8(vqmovn_s16(a), vqmovn_s16(b)));
        }
        fn sum_whole(self, v: Self::V) -> i32 {
            let whole = each!(vcvtq_s32_f32, v);
            vaddvq_s32(vaddq_s32(vaddq_s32(whole[0], whole[1]), vaddq_s32(whole[2], whole[3])))
        }

        fn splat_i(self, x: i32) -> Self::I { [vdupq_n_s32(x); 4] }
        fn load_i(self, p: &[i32; LANES]) -> Self::I {
            let p = p.as_ptr();
            [vld1q_s32(p), vld1q_s32(p.add(4)), vld1q_s32(p.add(8)), vld1q_s32(p.add(12))]
        }
        fn load_fours(self, p: &[[u8; 4]; LANES]) -> Self::I {
            let p = p.as_ptr().cast();
            let bytes = [vld1q_u8(p), vld1q_u8(p.add(16)), vld1q_u8(p.add(32)), vld1q_u8(p.add(48))];
            each!(vreinterpretq_s32_u8, bytes)
        }
        fn store_i(self, p: &mut [i32; LANES], v: Self::I) {
            let p = p.as_mut_ptr();
            vst1q_s32(p, v[0]);
            vst1q_s32(p.add(4), v[1]);
            vst1q_s32(p.add(8), v[2]);
            vst1q_s32(p.add(12), v[3]);
        }
        fn and(self, a: Self::I, b: Self::I) -> Self::I { each!(vandq_s32, a, b) }
        fn or(self, a: Self::I, b: Self::I) -> Self::I { each!(vorrq_s32, a, b) }
        fn xor(self, a: Self::I, b: Self::I) -> Self::I { each!(veorq_s32, a, b) }
        fn shl<const N: u32>(self, a: Self::I) -> Self::I {
            let n = [vdupq_n_s32(N as i32); 4];
            each!(vshlq_s32, a, n)
        }
        fn shr<const N: u32>(self, a: Self::I) -> Self::I {
            let (bits, n) = (each!(vreinterpretq_u32_s32, a), [vdupq_n_s32(-(N as i32)); 4]);
            each!(vreinterpretq_s32_u32, each!(vshlq_u32, bits, n))
        }
        fn sar<const N: u32>(self, a: Self::I) -> Self::I {
            let n = [vdupq_n_s32(-(N as i32)); 4];
            each!(vshlq_s32, a, n)
        }
        fn dot(self, sums: Self::I, weights: Self::I, x: Self::I) -> Self::I {
            // Weights in 0..=127 are the same with and without a sign.
            self.dot_signed(sums, weights, x)
        }
        fn dot_signed(self, sums: Self::I, weights: Self::I, x: Self::I) -> Self::I {
            let (weights, x) = (each!(vreinterpretq_s8_s32, weights), each!(vreinterpretq_s8_s32, x));
            if DOTPROD { each!(add_dots, sums, weights, x) } else { each!(add_products, sums, weights, x) }
        }
        fn to_float(self, a: Self::I) -> Self::V { each!(vcvtq_f32_s32, a) }
        fn bits(self, a: Self::V) -> Self::I { each!(vreinterpretq_s32_f32, a) }
        fn of_bits(self, a: Self::I) -> Self::V { each!(vreinterpretq_f32_s32, a) }
        fn half_to_float(self, a: Self::I) -> Self::V {
            let halves = each!(vmovn_u32, each!(vreinterpretq_u32_s32, a));
            each!(widen, halves)
        }
    }
}

/// Four f16 as f32. The intrinsics for this instruction and the next are not stable in the oldest Rust that the crate
/// is for.
#[inline(always)]
fn widen(halves: uint16x4_t) -> float32x4_t {
    let wide;
    // SAFETY: NEON, which every processor of this architecture has that runs Rust's standard library.
    unsafe {
        asm!("fcvtl {:v}.4s, {:v}.4h", out(vreg) wide, in(vreg) halves, options(pure, nomem, nostack, preserves_flags));
    }
    wide
}

/// The upper four f16 as f32.
#[inline(always)]
fn widen_high(halves: uint16x8_t) -> float32x4_t {
    let wide;
    // SAFETY: as above.
    unsafe {
        asm!("fcvtl2 {:v}.4s, {:v}.8h", out(vreg) wide, in(vreg) halves, options(pure, nomem, nostack, preserves_flags));
    }
    wide
}

/// The first two steps of a sum of 16 lanes.
#[inline]
#[target_feature(enable = "neon")]
fn sum_of_registers(v: [float32x4_t; 4]) -> float32x4_t {
    vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]))
}

/// The upper half of each register added to the lower, that of `a` before that of `b`.
#[inline]
#[target_feature(enable = "neon")]
fn add_halves(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    let (a, b) = (vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b));
    vaddq_f32(vreinterpretq_f32_f64(vtrn1q_f64(a, b)), vreinterpretq_f32_f64(vtrn2q_f64(a, b)))
}

/// [`Simd::dot_signed`] of four lanes by FEAT_DotProd, whose intrinsic is not stable.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn add_dots(mut sums: int32x4_t, weights: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: the instruction is enabled.
    unsafe {
        asm!(
            "sdot {:v}.4s, {:v}.16b, {:v}.16b",
            inlateout(vreg) sums, in(vreg) weights, in(vreg) x,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

/// [`Simd::dot_signed`] of four lanes without it.
#[inline]
#[target_feature(enable = "neon")]
fn add_products(sums: int32x4_t, weights: int8x16_t, x: int8x16_t) -> int32x4_t {
    // Pairs stay within 2 * 128 * 127 and so within 16 bits.
    let low = vmull_s8(vget_low_s8(weights), vget_low_s8(x));
    vpadalq_s16(sums, vpaddq_s16(low, vmull_high_s8(weights, x)))
}
