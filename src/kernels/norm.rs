//! Layer norm over the last axis.

use super::share::for_each_chunk;
use super::simd::{Kernel, Simd, dispatch};

/// Rows that one thread takes at a time.
const ROWS: usize = 16;

/// `y = (x - mean) / √(var + epsilon) * weight + bias`, row by row: `x` and `y` are (M, C), `weight` and `bias` (C).
///
/// # Panics
/// If the lengths do not fit each other.
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, y: &mut [f32]) {
    let c = weight.len();
    assert!(bias.len() == c && x.len() == y.len() && x.len().is_multiple_of(c), "lengths of a layer norm");
    for_each_chunk(4 * x.len(), y, ROWS * c, |i, y| {
        let rows = x[i * ROWS * c..].chunks_exact(c).zip(y.chunks_exact_mut(c));
        rows.for_each(|(x, y)| dispatch(NormRow { x, weight, bias, epsilon, y }));
    });
}

struct NormRow<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    epsilon: f32,
    y: &'a mut [f32],
}

impl Kernel for NormRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { x, weight, bias, epsilon, y } = self;
        let c = x.len() as f32;
        let mean = sum(simd, x, false) / c;
        for (y, x) in y.iter_mut().zip(x) {
            *y = x - mean;
        }
        let variance = sum(simd, y, true) / c;
        let scale = 1.0 / (variance + epsilon).sqrt();
        for (y, (w, b)) in y.iter_mut().zip(weight.iter().zip(bias)) {
            *y = *y * scale * w + b;
        }
    }
}

/// The sum of the row, or of its squares, over 16 running sums.
#[inline(always)]
fn sum<S: Simd>(simd: S, x: &[f32], squares: bool) -> f32 {
    let mut sum = simd.splat(0.0);
    let (whole, rest) = x.as_chunks();
    for x in whole {
        let v = simd.load(x);
        sum = if squares { simd.fma(v, v, sum) } else { simd.add(sum, v) };
    }
    if !rest.is_empty() {
        let v = simd.load_first(rest);
        sum = if squares { simd.fma(v, v, sum) } else { simd.add(sum, v) };
    }
    simd.sum(sum)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::super::test_numbers;
    use super::*;

    /// Against `candle_nn`'s layer norm, and with an offset that would swamp a one-pass variance.
    #[test]
    fn layer_norm_agrees_with_candle() {
        for (rows, c, offset) in
            [(1, 1, 0.0), (1, 5, 0.0), (3, 16, 1.0), (17, 37, -3.0), (40, 768, 0.5), (2, 1600, 10.0)]
        {
            let x: Vec<f32> = test_numbers(rows * c, 1).into_iter().map(|x| x + offset).collect();
            let (weight, bias) = (test_numbers(c, 2), test_numbers(c, 3));
            let mut y = vec![0f32; rows * c];
            layer_norm(&x, &weight, &bias, 1e-5, &mut y);
            let tensor = |v: &[f32], dims: &[usize]| {
                let wide: Vec<f64> = v.iter().map(|x| f64::from(*x)).collect();
                Tensor::from_vec(wide, dims, &Device::Cpu).unwrap()
            };
            let (weight, bias) = (tensor(&weight, &[c]), tensor(&bias, &[c]));
            let expected = candle_nn::ops::layer_norm_slow(&tensor(&x, &[rows, c]), &weight, &bias, 1e-5).unwrap();
            let expected: Vec<f64> = expected.flatten_all().unwrap().to_vec1().unwrap();
            for (y, e) in y.iter().zip(expected) {
                assert!((f64::from(*y) - e).abs() < 2e-5, "{rows}x{c}: {y} {e}");
            }
        }
    }
}
