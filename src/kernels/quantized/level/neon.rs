//! Products of bytes by NEON, with FEAT_DotProd or without.

#![allow(
    unsafe_op_in_unsafe_fn,
    reason = "every body is instructions of the level's set, on the lanes that the caller gives: \
              what they ask for is what the function asks for"
)]

use std::arch::aarch64::*;
use std::arch::asm;
use std::convert::Infallible;

use super::Integers;
use crate::kernels::simd::{Neon, each, widen};

// SAFETY: all instructions are of NEON, and with `DOTPROD` of FEAT_DotProd; loads and stores are of the 16 lanes or
// bytes that the trait names.
unsafe impl<const DOTPROD: bool> Integers for Neon<DOTPROD> {
    type I = [int32x4_t; 4];
    const FLIP: u8 = 0;
    // 16 registers of sums, or 8 where products need registers too.
    const ROWS: usize = if DOTPROD { 2 } else { 1 };
    type Tiles = Infallible;

    #[inline(always)]
    unsafe fn splat_i(x: i32) -> Self::I {
        [vdupq_n_s32(x); 4]
    }
    #[inline(always)]
    unsafe fn load_i(p: *const i32) -> Self::I {
        [vld1q_s32(p), vld1q_s32(p.add(4)), vld1q_s32(p.add(8)), vld1q_s32(p.add(12))]
    }
    #[inline(always)]
    unsafe fn store_i(p: *mut i32, v: Self::I) {
        vst1q_s32(p, v[0]);
        vst1q_s32(p.add(4), v[1]);
        vst1q_s32(p.add(8), v[2]);
        vst1q_s32(p.add(12), v[3]);
    }
    #[inline(always)]
    unsafe fn and(a: Self::I, b: Self::I) -> Self::I {
        each!(vandq_s32, a, b)
    }
    #[inline(always)]
    unsafe fn or(a: Self::I, b: Self::I) -> Self::I {
        each!(vorrq_s32, a, b)
    }
    #[inline(always)]
    unsafe fn xor(a: Self::I, b: Self::I) -> Self::I {
        each!(veorq_s32, a, b)
    }
    #[inline(always)]
    unsafe fn shl<const N: u32>(a: Self::I) -> Self::I {
        let n = [vdupq_n_s32(N as i32); 4];
        each!(vshlq_s32, a, n)
    }
    #[inline(always)]
    unsafe fn shr<const N: u32>(a: Self::I) -> Self::I {
        let (bits, n) = (each!(vreinterpretq_u32_s32, a), [vdupq_n_s32(-(N as i32)); 4]);
        each!(vreinterpretq_s32_u32, each!(vshlq_u32, bits, n))
    }
    #[inline(always)]
    unsafe fn sar<const N: u32>(a: Self::I) -> Self::I {
        let n = [vdupq_n_s32(-(N as i32)); 4];
        each!(vshlq_s32, a, n)
    }
    #[inline(always)]
    unsafe fn dot(sums: Self::I, weights: Self::I, x: Self::I) -> Self::I {
        // Weights in 0..=127 are the same with and without a sign.
        Self::dot_signed(sums, weights, x)
    }
    #[inline(always)]
    unsafe fn dot_signed(sums: Self::I, weights: Self::I, x: Self::I) -> Self::I {
        let (weights, x) = (each!(vreinterpretq_s8_s32, weights), each!(vreinterpretq_s8_s32, x));
        if DOTPROD { each!(add_dots, sums, weights, x) } else { each!(add_products, sums, weights, x) }
    }
    #[inline(always)]
    unsafe fn to_float(a: Self::I) -> Self::V {
        each!(vcvtq_f32_s32, a)
    }
    #[inline(always)]
    unsafe fn half_to_float(a: Self::I) -> Self::V {
        let halves = each!(vmovn_u32, each!(vreinterpretq_u32_s32, a));
        each!(widen, halves)
    }
    #[inline(always)]
    unsafe fn store_bytes(p: *mut i8, v: Self::V) {
        let words = each!(vqmovn_s32, each!(vcvtq_s32_f32, v));
        let (a, b) = (vcombine_s16(words[0], words[1]), vcombine_s16(words[2], words[3]));
        vst1q_s8(p, vcombine_s8(vqmovn_s16(a), vqmovn_s16(b)));
    }
    #[inline(always)]
    unsafe fn sum_whole(v: Self::V) -> i32 {
        let whole = each!(vcvtq_s32_f32, v);
        vaddvq_s32(vaddq_s32(vaddq_s32(whole[0], whole[1]), vaddq_s32(whole[2], whole[3])))
    }
    #[inline(always)]
    unsafe fn largest_of(v: Self::V) -> f32 {
        vmaxvq_f32(vmaxq_f32(vmaxq_f32(v[0], v[1]), vmaxq_f32(v[2], v[3])))
    }
}

/// [`Integers::dot_signed`] of four lanes by FEAT_DotProd, whose intrinsic is not stable.
#[inline(always)]
unsafe fn add_dots(mut sums: int32x4_t, weights: int8x16_t, x: int8x16_t) -> int32x4_t {
    asm!(
        "sdot {:v}.4s, {:v}.16b, {:v}.16b",
        inlateout(vreg) sums, in(vreg) weights, in(vreg) x,
        options(pure, nomem, nostack, preserves_flags)
    );
    sums
}

/// [`Integers::dot_signed`] of four lanes without it.
#[inline(always)]
unsafe fn add_products(sums: int32x4_t, weights: int8x16_t, x: int8x16_t) -> int32x4_t {
    // Pairs stay within 2 * 128 * 127 and so within 16 bits.
    let low = vmull_s8(vget_low_s8(weights), vget_low_s8(x));
    vpadalq_s16(sums, vpaddq_s16(low, vmull_high_s8(weights, x)))
}
