//! The products against candle in f64, and against themselves in other batches.

use candle_core::{DType, Device, Tensor};

use super::super::test_numbers;
use super::*;
use crate::base::{Bytes, FloatType};

const LAYOUTS: [Layout; 3] = [Layout::Panels, Layout::InOut, Layout::OutIn];

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
    if layout == Layout::Panels {
        const STEP: usize = 5;
        let mut packed = vec![0; 1 + panels::packed_bytes(dtype, inputs, outputs).unwrap()];
        let rows = bytes[1..].chunks(STEP * outputs * dtype.size());
        for (rows, part) in rows.zip(&mut panels::parts(dtype, inputs, STEP, &mut packed[1..])) {
            panels::pack(dtype, outputs, rows, part);
        }
        bytes = packed;
    }
    let len = bytes.len();
    let bytes = Bytes::from(bytes).slice(1..len).unwrap();
    let dims = if layout == Layout::OutIn { (outputs, inputs) } else { (inputs, outputs) };
    let reference = Tensor::from_vec(rounded, dims, &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
    let reference = if layout == Layout::OutIn { reference.t().unwrap().contiguous().unwrap() } else { reference };
    (Matrix::new(bytes, dtype, layout, inputs, outputs), reference)
}

/// The product in a new vector.
fn product(x: &[f32], w: &Matrix, bias: Option<&[f32]>, epilogue: Epilogue<'_>) -> Vec<f32> {
    let mut y = vec![f32::NAN; x.len() / w.inputs() * w.outputs()];
    matmul(x, w, bias, epilogue, &mut y);
    y
}

/// Against candle's matmul in f64, on sizes that leave rests everywhere.
#[test]
fn products_agree_with_candle() {
    for layout in LAYOUTS {
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
                let y = product(&x, &w, Some(&bias), Epilogue::None);
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
    for layout in LAYOUTS {
        for dtype in [FloatType::F32, FloatType::F16, FloatType::BF16] {
            let (rows, inputs, outputs) = (67, 531, 403);
            let (w, _) = matrix(layout, dtype, inputs, outputs);
            let x = test_numbers(rows * inputs, 3);
            let residual = test_numbers(rows * outputs, 4);
            let together = product(&x, &w, None, Epilogue::Add(&residual));
            for batch in [1, 2, 5, 6, 7, 8, 9, 30] {
                for first in (0..rows).step_by(batch) {
                    let n = batch.min(rows - first);
                    let residual = &residual[first * outputs..(first + n) * outputs];
                    let y = product(&x[first * inputs..(first + n) * inputs], &w, None, Epilogue::Add(residual));
                    assert_eq!(y, together[first * outputs..(first + n) * outputs], "{layout:?} {dtype:?} {batch}");
                }
            }
        }
    }
}

/// A matrix gives the same bits packed and where it lies.
#[test]
fn packing_changes_no_bit() {
    for dtype in [FloatType::F32, FloatType::F16, FloatType::BF16] {
        for (rows, inputs, outputs) in [(1, 129, 47), (1, 700, 300), (5, 128, 48), (17, 300, 145)] {
            let x = test_numbers(rows * inputs, 3);
            let [packed, stored] = [Layout::Panels, Layout::InOut]
                .map(|layout| product(&x, &matrix(layout, dtype, inputs, outputs).0, None, Epilogue::None));
            assert_eq!(packed, stored, "{dtype:?} {rows} {inputs} {outputs}");
        }
    }
}

/// `inputs * outputs` is 0 in 64 bits.
#[test]
#[should_panic(expected = "length of a weight matrix")]
fn a_matrix_whose_size_overflows_is_refused() {
    let _ = Matrix::new(Vec::new().into(), FloatType::F32, Layout::Panels, 1 << 32, 1 << 32);
}
