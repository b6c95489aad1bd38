//! Layer norm over the last axis.

use super::simd::{LANES, Simd, dispatch};
use crate::base::pool::{self, Shareable};

/// Rows that one thread takes at a time.
const ROWS: usize = 16;

/// `y = (x - mean) / √(var + epsilon) * weight + bias`, row by row: `x` and `y` are (M, C), `weight` and `bias` (C).
///
/// # Panics
/// If the lengths do not fit each other.
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, y: &mut [f32]) {
    let c = weight.len();
    assert!(bias.len() == c && x.len() == y.len() && x.len().is_multiple_of(c), "lengths of a layer norm");
    let rows = x.len() / c;
    let out = Shareable(y.as_mut_ptr());
    pool::run_costing(4 * x.len(), rows.div_ceil(ROWS), |i| {
        for row in i * ROWS..rows.min((i + 1) * ROWS) {
            // SAFETY: `y` has `rows` rows, of which each is written by one call; the kernel asks for no more than the
            // level's instructions.
            unsafe {
                let y = std::slice::from_raw_parts_mut(out.get().add(row * c), c);
                norm_dispatch(&x[row * c..(row + 1) * c], weight, bias, epsilon, y);
            }
        }
    });
}

dispatch! { unsafe fn norm_dispatch = norm_row(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, y: &mut [f32]) }

/// # Safety
/// The processor has the instructions of `S`.
#[inline(always)]
unsafe fn norm_row<S: Simd>(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, y: &mut [f32]) {
    let c = x.len() as f32;
    // SAFETY: the caller promises the instructions.
    unsafe {
        let mean = sum::<S>(x, false) / c;
        for (y, x) in y.iter_mut().zip(x) {
            *y = x - mean;
        }
        let variance = sum::<S>(y, true) / c;
        let scale = 1.0 / (variance + epsilon).sqrt();
        for (y, (w, b)) in y.iter_mut().zip(weight.iter().zip(bias)) {
            *y = *y * scale * w + b;
        }
    }
}

/// The sum of the row, or of its squares, over 16 running sums.
///
/// # Safety
/// The processor has the instructions of `S`.
#[inline(always)]
unsafe fn sum<S: Simd>(x: &[f32], squares: bool) -> f32 {
    let whole = x.len() - x.len() % LANES;
    // SAFETY: the caller promises the instructions; 16 numbers from `i` lie before `whole`, and `len - whole < 16`
    // after.
    unsafe {
        let mut sum = S::splat(0.0);
        for i in (0..x.len()).step_by(LANES) {
            let p = x.as_ptr().add(i);
            let v = if i < whole { S::load(p) } else { S::load_first(p, x.len() - whole) };
            sum = if squares { S::fma(v, v, sum) } else { S::add(sum, v) };
        }
        S::sum(sum)
    }
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
