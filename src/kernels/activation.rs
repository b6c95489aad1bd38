//! The MLP's activation functions, and the additions between kernels.
//!
//! Reference: transformers, `activations.py`.

use super::simd::{Kernel, Simd, dispatch, exp, tanh};
use crate::config::Activation;

/// `√(2/π)`.
const SQRT_2_OVER_PI: f32 = 0.797_884_6;

/// Applies the activation in place.
pub fn activate(f: Activation, x: &mut [f32]) {
    activate_slice(f, x);
}

/// Applies the activation in place, on the calling thread.
pub(super) fn activate_slice(f: Activation, x: &mut [f32]) {
    dispatch(Activate(f, x));
}

/// `y += x`, on the calling thread.
pub fn add(y: &mut [f32], x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += x;
    }
}

struct Activate<'a>(Activation, &'a mut [f32]);

impl Kernel for Activate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self(f, x) = self;
        match f {
            Activation::GeluNew => map::<S, GeluNew>(simd, x),
            Activation::Gelu => map::<S, Gelu>(simd, x),
            Activation::Gelu10 => map::<S, Gelu10>(simd, x),
            Activation::GeluFast => map::<S, GeluFast>(simd, x),
            Activation::QuickGelu => map::<S, QuickGelu>(simd, x),
            Activation::Relu => map::<S, Relu>(simd, x),
            Activation::Silu => map::<S, Silu>(simd, x),
            Activation::Tanh => map::<S, Tanh>(simd, x),
        }
    }
}

/// A function of 16 numbers. (Types, not closures: a closure would be compiled without the level's instructions.)
trait Function {
    fn apply<S: Simd>(simd: S, v: S::V) -> S::V;
}

struct GeluNew;
struct Gelu;
struct Gelu10;
struct GeluFast;
struct QuickGelu;
struct Relu;
struct Silu;
struct Tanh;

impl Function for GeluNew {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, v: S::V) -> S::V {
        let cube = simd.mul(simd.mul(v, v), v);
        let inner = simd.mul(simd.splat(SQRT_2_OVER_PI), simd.fma(simd.splat(0.044_715), cube, v));
        half_gate(simd, v, tanh(simd, inner))
    }
}

impl Function for Gelu {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, v: S::V) -> S::V {
        half_gate(simd, v, erf(simd, simd.mul(v, simd.splat(std::f32::consts::FRAC_1_SQRT_2))))
    }
}

impl Function for Gelu10 {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, v: S::V) -> S::V {
        simd.min(simd.splat(10.0), simd.max(simd.splat(-10.0), Gelu::apply(simd, v)))
    }
}

impl Function for GeluFast {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, v: S::V) -> S::V {
        let factor = simd.fma(simd.mul(simd.splat(0.044_715), v), v, simd.splat(1.0));
        half_gate(simd, v, tanh(simd, simd.mul(simd.mul(v, simd.splat(SQRT_2_OVER_PI)), factor)))
    }
}

impl Function for Relu {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, v: S::V) -> S::V {
        simd.max(simd.splat(0.0), v)
    }
}

impl Function for Silu {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, v: S::V) -> S::V {
        sigmoid_gate(simd, v, v)
    }
}

impl Function for QuickGelu {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, v: S::V) -> S::V {
        sigmoid_gate(simd, v, simd.mul(simd.splat(1.702), v))
    }
}

impl Function for Tanh {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, v: S::V) -> S::V {
        tanh(simd, v)
    }
}

/// `v·sigmoid(x)`.
#[inline(always)]
fn sigmoid_gate<S: Simd>(simd: S, v: S::V, x: S::V) -> S::V {
    simd.div(v, simd.add(simd.splat(1.0), exp(simd, simd.sub(simd.splat(0.0), x))))
}

/// `0.5 v (1 + t)`.
#[inline(always)]
fn half_gate<S: Simd>(simd: S, v: S::V, t: S::V) -> S::V {
    simd.mul(simd.mul(simd.splat(0.5), v), simd.add(t, simd.splat(1.0)))
}

/// `erf(x)` to a few units in the last place: an odd rational approximation on [-4, 4], beyond which it is ±1 in f32.
#[inline(always)]
fn erf<S: Simd>(simd: S, x: S::V) -> S::V {
    const NUMERATOR: [f32; 7] =
        [-2.726_142_3e-10, 2.770_681_4e-8, -2.101_024e-6, -5.692_506_6e-5, -7.349_906e-4, -2.954_6e-3, -1.609_603_3e-2];
    const DENOMINATOR: [f32; 5] = [-1.456_607_2e-5, -2.133_740_5e-4, -1.682_827e-3, -7.373_329_2e-3, -1.426_473_9e-2];
    let x = simd.min(simd.max(x, simd.splat(-4.0)), simd.splat(4.0));
    let square = simd.mul(x, x);
    let mut p = simd.splat(NUMERATOR[0]);
    for c in &NUMERATOR[1..] {
        p = simd.fma(p, square, simd.splat(*c));
    }
    let mut q = simd.splat(DENOMINATOR[0]);
    for c in &DENOMINATOR[1..] {
        q = simd.fma(q, square, simd.splat(*c));
    }
    // The ends come out a unit below 1 in the last place, which x = -100 would turn into something visible.
    let y = simd.mul(simd.div(simd.mul(x, p), q), simd.splat(1.0 + 2.0 * f32::EPSILON));
    simd.min(simd.max(y, simd.splat(-1.0)), simd.splat(1.0))
}

/// Applies the function to 16 numbers at a time.
#[inline(always)]
fn map<S: Simd, F: Function>(simd: S, x: &mut [f32]) {
    let (whole, rest) = x.as_chunks_mut();
    for x in whole {
        simd.store(x, F::apply(simd, simd.load(x)));
    }
    if !rest.is_empty() {
        let v = F::apply(simd, simd.load_first(rest));
        simd.store_first(rest, v);
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
            (Activation::Gelu10, t.gelu_erf().and_then(|y| y.clamp(-10.0, 10.0))),
            (
                Activation::QuickGelu,
                t.affine(1.702, 0.0).and_then(|y| y.silu()).and_then(|y| y.affine(1.0 / 1.702, 0.0)),
            ),
            (Activation::Tanh, t.tanh()),
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
    fn nan_stays_nan() {
        for f in [
            Activation::GeluNew,
            Activation::GeluFast,
            Activation::Gelu,
            Activation::Relu,
            Activation::Silu,
            Activation::Gelu10,
            Activation::QuickGelu,
            Activation::Tanh,
        ] {
            let mut y = [1f32; 19];
            (y[3], y[18]) = (f32::NAN, -f32::NAN);
            activate(f, &mut y);
            for (i, y) in y.iter().enumerate() {
                assert_eq!(y.is_nan(), i == 3 || i == 18, "{f:?}, number {i}: {y}");
            }
        }
    }

    #[test]
    fn extremes_stay_finite() {
        for f in [
            Activation::GeluNew,
            Activation::GeluFast,
            Activation::Gelu,
            Activation::QuickGelu,
            Activation::Relu,
            Activation::Silu,
        ] {
            let mut y = [-1e30, -1e4, -100.0, 0.0, 100.0, 1e4];
            activate(f, &mut y);
            assert!(y.iter().all(|y| y.is_finite()), "{f:?}: {y:?}");
            assert!(y[..4].iter().all(|y| y.abs() < 1e-6) && y[4] == 100.0 && y[5] == 1e4, "{f:?}: {y:?}");
        }
        for (f, expected) in [(Activation::Gelu10, [0.0, 0.0, 10.0, 10.0]), (Activation::Tanh, [-1.0, -1.0, 1.0, 1.0])]
        {
            let mut y = [-1e30, -100.0, 100.0, 1e30];
            activate(f, &mut y);
            assert_eq!(y, expected, "{f:?}");
        }
    }
}
