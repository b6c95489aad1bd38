//! The products against candle in f64, and against themselves in other batches.

use candle_core::{DType, Device, Tensor};

use super::super::test_numbers;
use super::*;

fn matrix(layout: Layout, dtype: FloatType, inputs: usize, outputs: usize) -> (Matrix, Tensor) {
    let numbers = test_numbers(inputs * outputs, 7);
    // One byte too many in front: files align nothing.
    let mut bytes = vec![0u8];
    let mut rounded = Vec::with_capacity(numbers.len());
    for x in numbers {
        match dtype {
            FloatType::F32 => {
                bytes.extend(x.to_le_bytes());
                rounded.push(x);
            }
            FloatType::F16 => {
                bytes.extend(half::f16::from_f32(x).to_le_bytes());
                rounded.push(half::f16::from_f32(x).to_f32());
            }
            FloatType::BF16 => {
                bytes.extend(half::bf16::from_f32(x).to_le_bytes());
                rounded.push(half::bf16::from_f32(x).to_f32());
            }
        }
    }
    let len = bytes.len();
    let bytes = Bytes::from(bytes).slice(1..len).unwrap();
    let dims = if layout == Layout::InOut { (inputs, outputs) } else { (outputs, inputs) };
    let reference = Tensor::from_vec(rounded, dims, &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
    let reference = if layout == Layout::InOut { reference } else { reference.t().unwrap().contiguous().unwrap() };
    (Matrix::new(bytes, dtype, layout, inputs, outputs), reference)
}

/// Against candle's matmul in f64, on sizes that leave rests everywhere.
#[test]
fn products_agree_with_candle() {
    for layout in [Layout::InOut, Layout::OutIn] {
        for dtype in [FloatType::F32, FloatType::F16, FloatType::BF16] {
            for (rows, inputs, outputs) in [
                (1, 1, 1),
                (1, 7, 3),
                (2, 16, 48),
                (3, 37, 111),
                (6, 33, 65),
                (7, 40, 97),
                (13, 100, 50),
                (70, 21, 300),
            ] {
                let (w, reference) = matrix(layout, dtype, inputs, outputs);
                let x = test_numbers(rows * inputs, 1);
                let bias = test_numbers(outputs, 2);
                let y = matmul(&x, &w, Some(&bias), Epilogue::None);
                let x = Tensor::from_vec(x, (rows, inputs), &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
                let bias = Tensor::new(bias, &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
                let expected = x.matmul(&reference).unwrap().broadcast_add(&bias).unwrap();
                let expected: Vec<f64> = expected.flatten_all().unwrap().to_vec1().unwrap();
                for (y, e) in y.iter().zip(expected) {
                    assert!(
                        (f64::from(*y) - e).abs() < 1e-5 * (inputs as f64).sqrt(),
                        "{layout:?} {dtype:?} {rows}x{inputs}x{outputs}: {y} {e}"
                    );
                }
            }
        }
    }
}

/// The promise of this module: a row's product does not depend on the rows beside it.
#[test]
fn a_row_gives_the_same_bits_alone_and_in_any_batch() {
    for layout in [Layout::InOut, Layout::OutIn] {
        for dtype in [FloatType::F32, FloatType::F16, FloatType::BF16] {
            let (rows, inputs, outputs) = (67, 531, 403);
            let (w, _) = matrix(layout, dtype, inputs, outputs);
            let x = test_numbers(rows * inputs, 3);
            let residual = test_numbers(rows * outputs, 4);
            let together = matmul(&x, &w, None, Epilogue::Add(&residual));
            for batch in [1, 2, 5, 6, 7, 8, 9, 30] {
                for first in (0..rows).step_by(batch) {
                    let n = batch.min(rows - first);
                    let residual = &residual[first * outputs..(first + n) * outputs];
                    let y = matmul(&x[first * inputs..(first + n) * inputs], &w, None, Epilogue::Add(residual));
                    assert_eq!(y, together[first * outputs..(first + n) * outputs], "{layout:?} {dtype:?} {batch}");
                }
            }
        }
    }
}

/// `inputs * outputs` is 0 in 64 bits.
#[test]
#[should_panic(expected = "length of a weight matrix")]
fn a_matrix_whose_size_overflows_is_refused() {
    let _ = Matrix::new(Vec::new().into(), FloatType::F32, Layout::InOut, 1 << 32, 1 << 32);
}
