//! Functions of 16 numbers.

use super::Simd;

/// `e^x` to about one unit in the last place; 0 below -87.3, clamped above 88, NaN for NaN.
///
/// Cephes' `expf`: range reduction by ln 2 in two parts, then a polynomial of degree 5. (Softmax over logits has another
/// exponential, a scalar one of degree 7 with other bits.)
#[inline(always)]
pub fn exp<S: Simd>(simd: S, x: S::V) -> S::V {
    let clamped = simd.min(simd.splat(88.0), simd.max(simd.splat(-87.3), x));
    let n = simd.round(simd.mul(clamped, simd.splat(std::f32::consts::LOG2_E)));
    let r = simd.fma(n, simd.splat(-0.693_359_4), clamped);
    let r = simd.fma(n, simd.splat(2.121_944_4e-4), r);
    let mut p = simd.splat(1.987_569_2e-4);
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = simd.fma(p, r, simd.splat(c));
    }
    let p = simd.add(simd.fma(p, simd.mul(r, r), r), simd.splat(1.0));
    let e = simd.mul(p, simd.exp2_whole(n));
    // Below the clamp the answer is 0, not e^-87.3: masked scores must vanish.
    let below = simd.mul(simd.add(x, simd.splat(87.3)), simd.splat(f32::MAX));
    let below = simd.max(simd.min(below, simd.splat(0.0)), simd.splat(-1.0));
    simd.fma(e, below, e)
}

/// `tanh(x)`, from [`exp`].
#[inline(always)]
pub fn tanh<S: Simd>(simd: S, x: S::V) -> S::V {
    let one = simd.splat(1.0);
    let e = exp(simd, simd.mul(x, simd.splat(2.0)));
    simd.sub(one, simd.div(simd.splat(2.0), simd.add(e, one)))
}
