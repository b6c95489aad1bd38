//! Against blocks that ggml's own quantisers made (`tests/fixtures/ggml`), byte for byte, at the level in use.

use std::path::Path;

use super::*;
use crate::base::{DType, ggml, test_numbers};

const ROW: usize = 512;

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ggml").join(name)).unwrap()
}

fn numbers() -> Vec<f32> {
    fixture("numbers.f32").as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

#[test]
fn blocks_are_ggmls() {
    for (format, file) in [
        (QuantizedType::Q8_0, "q8_0.bin"),
        (QuantizedType::Q6K, "q6_k.bin"),
        (QuantizedType::Q5K, "q5_k.bin"),
        (QuantizedType::Q4K, "q4_k.bin"),
    ] {
        let (numbers, expected, dtype) = (numbers(), fixture(file), format.dtype());
        let found = quantize(format, &numbers).unwrap();
        assert_eq!(found.len(), expected.len());
        let blocks = found.chunks(dtype.block_bytes()).zip(expected.chunks(dtype.block_bytes()));
        for (i, (found, expected)) in blocks.enumerate() {
            let numbers = &numbers[i * dtype.block_len()..][..dtype.block_len()];
            let largest = numbers.iter().fold(0f32, |largest, x| largest.max(x.abs()));
            // In C it is undefined which byte a number becomes that is too large for one.
            let is_undefined =
                format == QuantizedType::Q8_0 && (0.0 < largest && largest < 1e-36 || !largest.is_finite());
            if !is_undefined {
                assert_eq!(found, expected, "{dtype}, block {i}, row {}: {numbers:?}", i * dtype.block_len() / ROW);
            }
        }
    }
}

/// What is beside a block does not matter, nor how many there are.
#[test]
fn blocks_do_not_depend_on_each_other() {
    for format in QuantizedType::ALL {
        let (numbers, dtype) = (test_numbers(5 * 256, 3), format.dtype());
        let all = quantize(format, &numbers).unwrap();
        for (numbers, block) in numbers.chunks(dtype.block_len()).zip(all.chunks(dtype.block_bytes())) {
            assert_eq!(quantize(format, numbers).unwrap(), block, "{dtype}");
        }
        assert!(quantize(format, &[]).unwrap().is_empty());
    }
}

/// The same at every level: a NaN may have any bits.
#[test]
fn nan_of_any_kind_becomes_the_same() {
    for format in QuantizedType::ALL {
        let with = |bits: u32| {
            let mut numbers = test_numbers(512, 4);
            for i in [0, 37, 300, 301] {
                numbers[i] = f32::from_bits(bits);
            }
            quantize(format, &numbers).unwrap()
        };
        let expected = with(f32::NAN.to_bits());
        for bits in [0xffc0_0000, 0x7fc0_0001, 0x7f80_0001, 0xffff_ffff] {
            assert_eq!(with(bits), expected, "{format:?}, {bits:x}");
        }
    }
}

/// Numbers come back with an error below half the step of their block.
#[test]
fn what_is_quantised_is_near_to_what_was() {
    for (format, most) in [
        (QuantizedType::Q8_0, 0.005),
        (QuantizedType::Q6K, 0.03),
        (QuantizedType::Q5K, 0.05),
        (QuantizedType::Q4K, 0.1),
    ] {
        let numbers = test_numbers(4096, 9);
        let mut found = vec![0.0; numbers.len()];
        ggml::dequantize(format.dtype(), &quantize(format, &numbers).unwrap(), &mut found).unwrap();
        assert!(numbers.iter().zip(&found).all(|(x, y)| (x - y).abs() < most), "{format:?}");
    }
}

#[test]
fn partial_blocks_are_refused() {
    for format in QuantizedType::ALL {
        assert!(quantize(format, &[0.0; 33]).is_err(), "{format:?}");
        assert!(quantize_into(format, &[0.0; 256], &mut [0; 100]).is_err(), "{format:?}");
    }
    assert_eq!(DType::Q4K.byte_len(&[512]), Some(288));
}
