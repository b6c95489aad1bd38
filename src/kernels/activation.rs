//! The MLP's activation functions, and the additions between kernels.
//!
//! Reference: transformers, `activations.py`.

use super::simd::{LANES, Simd, dispatch, exp, tanh};
use crate::config::Activation;

/// `√(2/π)`.
const SQRT_2_OVER_PI: f32 = 0.797_884_6;

/// Applies the activation in place.
pub fn activate(f: Activation, x: &mut [f32]) {
    activate_slice(f, x);
}

/// Applies the activation in place, on the calling thread.
pub(super) fn activate_slice(f: Activation, x: &mut [f32]) {
    // SAFETY: the kernel asks for nothing but the level's instructions.
    unsafe { activate_dispatch(f, x) }
}

/// `y += x`, on the calling thread.
pub(super) fn add_slice(y: &mut [f32], x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += x;
    }
}

dispatch! { unsafe fn activate_dispatch = activate_with(f: Activation, x: &mut [f32]) }

/// # Safety
/// The processor has the instructions of `S`; so for all functions below.
#[inline(always)]
unsafe fn activate_with<S: Simd>(f: Activation, x: &mut [f32]) {
    // SAFETY: the caller promises the instructions.
    unsafe {
        match f {
            Activation::GeluNew => map::<S, GeluNew>(x),
            Activation::Gelu => map::<S, Gelu>(x),
            Activation::GeluFast => map::<S, GeluFast>(x),
            Activation::Relu => map::<S, Relu>(x),
            Activation::Silu => map::<S, Silu>(x),
        }
    }
}

/// A function of 16 numbers. (Types, not closures: a closure would be compiled without the level's instructions.)
trait Function {
    /// # Safety
    /// The processor has the instructions of `S`.
    unsafe fn apply<S: Simd>(v: S::V) -> S::V;
}

struct GeluNew;
struct Gelu;
struct GeluFast;
struct Relu;
struct Silu;

impl Function for GeluNew {
    #[inline(always)]
    unsafe fn apply<S: Simd>(v: S::V) -> S::V {
        // SAFETY: the caller promises the instructions; no pointer is given.
        unsafe {
            let cube = S::mul(S::mul(v, v), v);
            let inner = S::mul(S::splat(SQRT_2_OVER_PI), S::fma(S::splat(0.044_715), cube, v));
            half_gate::<S>(v, tanh::<S>(inner))
        }
    }
}

impl Function for Gelu {
    #[inline(always)]
    unsafe fn apply<S: Simd>(v: S::V) -> S::V {
        // SAFETY: the caller promises the instructions; no pointer is given.
        unsafe { half_gate::<S>(v, erf::<S>(S::mul(v, S::splat(std::f32::consts::FRAC_1_SQRT_2)))) }
    }
}

impl Function for GeluFast {
    #[inline(always)]
    unsafe fn apply<S: Simd>(v: S::V) -> S::V {
        // SAFETY: the caller promises the instructions; no pointer is given.
        unsafe {
            let factor = S::fma(S::mul(S::splat(0.044_715), v), v, S::splat(1.0));
            half_gate::<S>(v, tanh::<S>(S::mul(S::mul(v, S::splat(SQRT_2_OVER_PI)), factor)))
        }
    }
}

impl Function for Relu {
    #[inline(always)]
    unsafe fn apply<S: Simd>(v: S::V) -> S::V {
        // SAFETY: the caller promises the instructions; no pointer is given.
        unsafe { S::max(v, S::splat(0.0)) }
    }
}

impl Function for Silu {
    #[inline(always)]
    unsafe fn apply<S: Simd>(v: S::V) -> S::V {
        // SAFETY: the caller promises the instructions; no pointer is given.
        unsafe { S::div(v, S::add(S::splat(1.0), exp::<S>(S::sub(S::splat(0.0), v)))) }
    }
}

/// `0.5 v (1 + t)`.
#[inline(always)]
unsafe fn half_gate<S: Simd>(v: S::V, t: S::V) -> S::V {
    // SAFETY: the caller promises the instructions; no pointer is given.
    unsafe { S::mul(S::mul(S::splat(0.5), v), S::add(t, S::splat(1.0))) }
}

/// `erf(x)` to a few units in the last place: an odd rational approximation on [-4, 4], beyond which it is ±1 in f32.
#[inline(always)]
unsafe fn erf<S: Simd>(x: S::V) -> S::V {
    const NUMERATOR: [f32; 7] =
        [-2.726_142_3e-10, 2.770_681_4e-8, -2.101_024e-6, -5.692_506_6e-5, -7.349_906e-4, -2.954_6e-3, -1.609_603_3e-2];
    const DENOMINATOR: [f32; 5] = [-1.456_607_2e-5, -2.133_740_5e-4, -1.682_827e-3, -7.373_329_2e-3, -1.426_473_9e-2];
    // SAFETY: the caller promises the instructions; no pointer is given.
    unsafe {
        let x = S::min(S::max(x, S::splat(-4.0)), S::splat(4.0));
        let square = S::mul(x, x);
        let mut p = S::splat(NUMERATOR[0]);
        for c in &NUMERATOR[1..] {
            p = S::fma(p, square, S::splat(*c));
        }
        let mut q = S::splat(DENOMINATOR[0]);
        for c in &DENOMINATOR[1..] {
            q = S::fma(q, square, S::splat(*c));
        }
        // The ends come out a unit below 1 in the last place, which x = -100 would turn into something visible.
        let y = S::mul(S::div(S::mul(x, p), q), S::splat(1.0 + 2.0 * f32::EPSILON));
        S::min(S::max(y, S::splat(-1.0)), S::splat(1.0))
    }
}

/// Applies the function to 16 numbers at a time.
#[inline(always)]
unsafe fn map<S: Simd, F: Function>(x: &mut [f32]) {
    let (len, p) = (x.len(), x.as_mut_ptr());
    let whole = len - len % LANES;
    // SAFETY: the caller promises the instructions; 16 numbers from each `i` lie before `whole`, and `len - whole < 16`
    // after.
    unsafe {
        for i in (0..whole).step_by(LANES) {
            S::store(p.add(i), F::apply::<S>(S::load(p.add(i))));
        }
        if whole < len {
            let v = F::apply::<S>(S::load_first(p.add(whole), len - whole));
            S::store_first(p.add(whole), len - whole, v);
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    /// Against candle's expressions in f64, over a range that saturates at both ends.
    #[test]
    fn activations_agree_with_candle() {
        let x: Vec<f32> = (-1203..=1203).map(|i| i as f32 * 0.01).collect();
        let wide: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
        let t = Tensor::new(wide.clone(), &Device::Cpu).unwrap();
        for (f, expected) in [
            (Activation::GeluNew, t.gelu()),
            (Activation::GeluFast, t.gelu()),
            (Activation::Gelu, t.gelu_erf()),
            (Activation::Relu, t.relu()),
            (Activation::Silu, t.silu()),
        ] {
            let expected: Vec<f64> = expected.unwrap().to_vec1().unwrap();
            let mut y = x.clone();
            activate(f, &mut y);
            for ((x, y), e) in x.iter().zip(&y).zip(expected) {
                assert!((f64::from(*y) - e).abs() < 2e-6 * (1.0 + e.abs()), "{f:?} at {x}: {y} {e}");
            }
        }
    }

    #[test]
    fn extremes_stay_finite() {
        for f in [Activation::GeluNew, Activation::GeluFast, Activation::Gelu, Activation::Relu, Activation::Silu] {
            let mut y = [-1e30, -1e4, -100.0, 0.0, 100.0, 1e4];
            activate(f, &mut y);
            assert!(y.iter().all(|y| y.is_finite()), "{f:?}: {y:?}");
            assert!(y[..4].iter().all(|y| y.abs() < 1e-6) && y[4] == 100.0 && y[5] == 1e4, "{f:?}: {y:?}");
        }
    }
}
