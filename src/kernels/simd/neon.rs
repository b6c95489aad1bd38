//! NEON: 16 lanes in four registers, of which there are 32.

#![allow(
    unsafe_op_in_unsafe_fn,
    reason = "every body is instructions of the level's set, on the lanes that the caller gives: \
              what they ask for is what the function asks for"
)]

use std::arch::aarch64::*;
use std::arch::asm;

use super::{LANES, Simd};

/// NEON, and with `DOTPROD` its products of bytes (FEAT_DotProd), which the kernels on `f32` have no use for.
#[derive(Clone, Copy)]
pub struct Neon<const DOTPROD: bool = false>;

/// An intrinsic on each of the four registers.
macro_rules! each {
    ($intrinsic:ident, $($v:expr),+) => {
        [$intrinsic($($v[0]),+), $intrinsic($($v[1]),+), $intrinsic($($v[2]),+), $intrinsic($($v[3]),+)]
    };
}
pub(in crate::kernels) use each;

// SAFETY: all instructions are of NEON; loads and stores are of four times 4 lanes, and the first `n` alone are copied
// from and to an array of 16.
unsafe impl<const DOTPROD: bool> Simd for Neon<DOTPROD> {
    type V = [float32x4_t; 4];
    // 24 registers of sums, four of weights, and the inputs' lanes.
    const TILE_ROWS: usize = 6;
    const TILE_VECTORS: usize = 1;
    const DOT_TILE: (usize, usize) = (2, 2);
    const SUMS: usize = 4;

    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        // The intrinsic is not stable.
        asm!("prfm pldl2keep, [{}]", in(reg) p, options(nomem, nostack, preserves_flags))
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        [vdupq_n_f32(x); 4]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::V {
        [vld1q_f32(p), vld1q_f32(p.add(4)), vld1q_f32(p.add(8)), vld1q_f32(p.add(12))]
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> Self::V {
        let mut lanes = [0.0; LANES];
        std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n);
        Self::load(lanes.as_ptr())
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self::V {
        let (a, b) = (vld1q_u16(p), vld1q_u16(p.add(8)));
        [widen(vget_low_u16(a)), widen_high(a), widen(vget_low_u16(b)), widen_high(b)]
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self::V {
        let (a, b, zero) = (vld1q_u16(p), vld1q_u16(p.add(8)), vdupq_n_u16(0));
        let bits = [vzip1q_u16(zero, a), vzip2q_u16(zero, a), vzip1q_u16(zero, b), vzip2q_u16(zero, b)];
        each!(vreinterpretq_f32_u16, bits)
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::V) {
        vst1q_f32(p, v[0]);
        vst1q_f32(p.add(4), v[1]);
        vst1q_f32(p.add(8), v[2]);
        vst1q_f32(p.add(12), v[3]);
    }
    #[inline(always)]
    unsafe fn store_first(p: *mut f32, n: usize, v: Self::V) {
        let lanes = Self::lanes(v);
        std::ptr::copy_nonoverlapping(lanes.as_ptr(), p, n);
    }
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        each!(vaddq_f32, a, b)
    }
    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        each!(vsubq_f32, a, b)
    }
    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        each!(vmulq_f32, a, b)
    }
    #[inline(always)]
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
        each!(vdivq_f32, a, b)
    }
    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        each!(vmaxq_f32, a, b)
    }
    #[inline(always)]
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
        each!(vminq_f32, a, b)
    }
    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        each!(vfmaq_f32, c, a, b)
    }
    #[inline(always)]
    unsafe fn round(a: Self::V) -> Self::V {
        each!(vrndnq_f32, a)
    }
    #[inline(always)]
    unsafe fn exp2_whole(n: Self::V) -> Self::V {
        let power = |n| vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127))));
        each!(power, n)
    }
    #[inline(always)]
    unsafe fn sum(v: Self::V) -> f32 {
        let four = sum_of_registers(v);
        vaddv_f32(vadd_f32(vget_low_f32(four), vget_high_f32(four)))
    }
    #[inline(always)]
    unsafe fn sums(v: [Self::V; LANES]) -> Self::V {
        // The sums of four vectors make a register.
        let four = |i: usize| {
            let (a, b) = (sum_of_registers(v[i]), sum_of_registers(v[i + 1]));
            let (c, d) = (sum_of_registers(v[i + 2]), sum_of_registers(v[i + 3]));
            vpaddq_f32(add_halves(a, b), add_halves(c, d))
        };
        [four(0), four(4), four(8), four(12)]
    }
    #[inline(always)]
    unsafe fn largest(v: Self::V) -> f32 {
        vmaxvq_f32(vmaxq_f32(vmaxq_f32(v[0], v[1]), vmaxq_f32(v[2], v[3])))
    }
}

/// Four f16 as f32. The intrinsics for this instruction and the next are not stable in the oldest Rust that the crate
/// is for.
#[inline(always)]
pub(in crate::kernels) unsafe fn widen(halves: uint16x4_t) -> float32x4_t {
    let wide;
    asm!("fcvtl {:v}.4s, {:v}.4h", out(vreg) wide, in(vreg) halves, options(pure, nomem, nostack, preserves_flags));
    wide
}

/// The upper four f16 as f32.
#[inline(always)]
unsafe fn widen_high(halves: uint16x8_t) -> float32x4_t {
    let wide;
    asm!("fcvtl2 {:v}.4s, {:v}.8h", out(vreg) wide, in(vreg) halves, options(pure, nomem, nostack, preserves_flags));
    wide
}

/// The first two steps of a sum of 16 lanes.
#[inline(always)]
unsafe fn sum_of_registers(v: [float32x4_t; 4]) -> float32x4_t {
    vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]))
}

/// The upper half of each register added to the lower, that of `a` before that of `b`.
#[inline(always)]
unsafe fn add_halves(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    let (a, b) = (vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b));
    vaddq_f32(vreinterpretq_f32_f64(vtrn1q_f64(a, b)), vreinterpretq_f32_f64(vtrn2q_f64(a, b)))
}
