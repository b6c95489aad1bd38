//! The formats against candle's, the products against the numbers that the blocks stand for.

use super::super::test_numbers;
use super::*;
use crate::base::ggml;
use crate::config::Activation;
use crate::kernels::simd::LANES;

const KINDS: [QuantizedType; 4] = [QuantizedType::Q8_0, QuantizedType::Q6K, QuantizedType::Q5K, QuantizedType::Q4K];

/// A matrix of (outputs, inputs), and its numbers.
fn matrix(kind: QuantizedType, inputs: usize, outputs: usize) -> (QuantizedMatrix, Vec<f32>) {
    let bytes = ggml::quantize(kind, &test_numbers(inputs * outputs, 5)).unwrap();
    let mut numbers = vec![0.0; inputs * outputs];
    ggml::dequantize(kind.dtype(), &bytes, &mut numbers).unwrap();
    (QuantizedMatrix::new(&bytes, kind, inputs, outputs), numbers)
}

/// The product in a new vector.
fn product(x: &[f32], w: &QuantizedMatrix, bias: Option<&[f32]>, epilogue: Epilogue<'_>) -> Vec<f32> {
    let mut y = vec![f32::NAN; x.len() / w.inputs() * w.outputs()];
    matmul(x, w, bias, epilogue, &mut y);
    y
}

/// What `x` becomes in [`activations`]: the definition, in f64.
fn rounded(x: &[f32]) -> Vec<f64> {
    x.chunks(32)
        .flat_map(|chunk| {
            let largest = chunk.iter().fold(0f32, |largest, x| largest.max(x.abs()));
            let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
            chunk.iter().map(move |x| f64::from((x * inverse).round_ties_even()) * f64::from(largest / 127.0))
        })
        .collect()
}

#[test]
fn products_are_those_of_the_numbers() {
    for kind in KINDS {
        let block = kind.dtype().block_len();
        for (rows, blocks, outputs) in
            [(1, 1, 1), (1, 3, 33), (2, 1, 16), (3, 2, 31), (5, 1, 64), (7, 2, 130), (13, 1, 700), (1, 20, 40)]
        {
            let inputs = block * blocks;
            let (w, numbers) = matrix(kind, inputs, outputs);
            let x = test_numbers(rows * inputs, 1);
            let bias = test_numbers(outputs, 2);
            let y = product(&x, &w, Some(&bias), Epilogue::None);
            let x = rounded(&x);
            for (m, y) in y.chunks(outputs).enumerate() {
                for (n, y) in y.iter().enumerate() {
                    let weights = &numbers[n * inputs..(n + 1) * inputs];
                    let terms = x[m * inputs..].iter().zip(weights).map(|(x, w)| x * f64::from(*w));
                    let expected = terms.sum::<f64>() + f64::from(bias[n]);
                    assert!(
                        (f64::from(*y) - expected).abs() < 2e-6 * (inputs as f64).sqrt(),
                        "{kind:?} {rows}x{inputs}x{outputs}, {m} {n}: {y} {expected}"
                    );
                }
            }
        }
    }
}

/// The promise of the kernels: a row's product does not depend on the rows beside it.
#[test]
fn a_row_gives_the_same_bits_alone_and_in_any_batch() {
    for kind in KINDS {
        let (rows, inputs, outputs) = (45, 768, 203);
        let (w, _) = matrix(kind, inputs, outputs);
        let x = test_numbers(rows * inputs, 3);
        let residual = test_numbers(rows * outputs, 4);
        let together = product(&x, &w, None, Epilogue::Add(&residual));
        for batch in [1, 2, 3, 4, 5, 6, 7, 8, 13, 16, 17, 31] {
            for first in (0..rows).step_by(batch) {
                let n = batch.min(rows - first);
                let residual = &residual[first * outputs..(first + n) * outputs];
                let y = product(&x[first * inputs..(first + n) * inputs], &w, None, Epilogue::Add(residual));
                assert_eq!(y, together[first * outputs..(first + n) * outputs], "{kind:?} {batch}");
            }
        }
    }
}

/// A matrix unit whose products are their definition.
struct Plain {
    depth: usize,
}

impl MatrixUnit for Plain {
    fn configure(depth: usize) -> Option<Self> {
        Some(Self { depth })
    }
    unsafe fn multiply(
        &self,
        x: *const i8,
        x_stride: usize,
        w: *const i32,
        w_stride: usize,
        sums: &mut [[i32; LANES]; LANES],
    ) {
        for (m, n) in (0..LANES).flat_map(|m| (0..LANES).map(move |n| (m, n))) {
            let product = |k: usize| {
                // SAFETY: the caller gives `depth` bytes in each row of `x`, and 64 for each four of them in `w`.
                let (x, w) =
                    unsafe { (*x.add(m * x_stride + k), *w.cast::<i8>().add(k / 4 * w_stride + 4 * n + k % 4)) };
                i32::from(x) * i32::from(w)
            };
            sums[m][n] = (0..self.depth).map(product).sum();
        }
    }
}

/// [`MultiplyColumns`] with that unit.
struct WithPlain<'a, F>(MultiplyColumns<'a, F>);

impl<F: Format> Kernel for WithPlain<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        self.0.multiply(simd, Plain::configure(F::GROUP).as_ref());
    }
}

/// Whatever multiplies: the way to a matrix unit and back is tried on every processor.
#[test]
fn a_matrix_unit_gives_the_bits_of_tiles() {
    for kind in KINDS {
        let block = kind.dtype().block_len();
        for (rows, inputs, outputs) in [(16, block, 1), (17, 3 * block, 33), (31, 768, 48), (40, 1280, 70)] {
            let (w, _) = matrix(kind, inputs, outputs);
            let x = test_numbers(rows * inputs, 6);
            let expected = product(&x, &w, None, Epilogue::None);
            let mut activations = Activations::default();
            activations.set(&x, inputs);
            let mut y = vec![f32::NAN; rows * outputs];
            let job = &Product::new((&activations, &w), (rows, outputs), None, Epilogue::None, &y);
            for_each_columns(0, &mut y, rows, outputs.next_multiple_of(PAIR), |columns| {
                let scratch = &mut Scratch { unpacked: unpacked::EMPTY, ring: unit::EMPTY };
                match kind {
                    QuantizedType::Q8_0 => dispatch(WithPlain(MultiplyColumns::<Q8_0>::new(job, columns, scratch))),
                    QuantizedType::Q4K => dispatch(WithPlain(MultiplyColumns::<Q4K>::new(job, columns, scratch))),
                    QuantizedType::Q5K => dispatch(WithPlain(MultiplyColumns::<Q5K>::new(job, columns, scratch))),
                    QuantizedType::Q6K => dispatch(WithPlain(MultiplyColumns::<Q6K>::new(job, columns, scratch))),
                }
            });
            assert_eq!(y, expected, "{kind:?} {rows}x{inputs}x{outputs}");
        }
    }
}

/// Weights of -128, which no quantiser writes but a file may hold, and the largest activations.
#[test]
fn the_extremes_of_8_bits_do_not_overflow() {
    let mut bytes = vec![];
    for _ in 0..3 {
        bytes.extend(half::f16::ONE.to_le_bytes());
        bytes.extend([0x80; 32]);
    }
    let w = QuantizedMatrix::new(&bytes, QuantizedType::Q8_0, 96, 1);
    for sign in [1.0, -1.0] {
        let y = product(&[127.0 * sign; 96], &w, None, Epilogue::None);
        assert_eq!(y, [-128.0 * 127.0 * 96.0 * sign]);
    }
}

/// Activations that are not finite stay visible: a silent zero would be a wrong answer.
#[test]
fn faults_stay_visible() {
    for kind in KINDS {
        let (w, _) = matrix(kind, 256, 3);
        for fault in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = test_numbers(512, 1);
            x[100] = fault;
            let y = product(&x, &w, None, Epilogue::None);
            assert!(y[..3].iter().all(|y| y.is_nan()), "{kind:?}: {y:?}");
            assert!(y[3..].iter().all(|y| y.is_finite()), "{kind:?}: {y:?}");
        }
    }
}

#[test]
fn activations_and_bias_come_after_the_product() {
    let (w, _) = matrix(QuantizedType::Q4K, 256, 40);
    let (x, bias) = (test_numbers(512, 1), test_numbers(40, 2));
    let plain = product(&x, &w, Some(&bias), Epilogue::None);
    let activated = product(&x, &w, Some(&bias), Epilogue::Activate(Activation::Relu));
    let expected: Vec<f32> = plain.iter().map(|y| y.max(0.0)).collect();
    assert_eq!(activated, expected);
}

#[test]
fn rows_are_those_of_the_matrix() {
    for kind in KINDS {
        let (w, numbers) = matrix(kind, 512, 5);
        let mut row = vec![0.0; 512];
        w.row(3, &mut row);
        assert_eq!(row, numbers[3 * 512..4 * 512], "{kind:?}");
    }
}
