//! ggml's quantised formats: numbers to blocks and back.
//!
//! Both directions are candle's, except the Q8_0 quantiser: the same function, compiled for the CPU at hand.
//!
//! Reference: ggml, `ggml-quants.c`.

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{CpuStorage, Device, Tensor};

use super::{DType, QuantizedType};
use crate::error::{Error, Result};

/// candle's name for a quantised format.
///
/// # Errors
/// [`Error::Unsupported`] if `dtype` is not one.
pub(crate) fn candle_type(dtype: DType) -> Result<GgmlDType> {
    Ok(match dtype {
        DType::Q4_0 => GgmlDType::Q4_0,
        DType::Q4_1 => GgmlDType::Q4_1,
        DType::Q5_0 => GgmlDType::Q5_0,
        DType::Q5_1 => GgmlDType::Q5_1,
        DType::Q8_0 => GgmlDType::Q8_0,
        DType::Q2K => GgmlDType::Q2K,
        DType::Q3K => GgmlDType::Q3K,
        DType::Q4K => GgmlDType::Q4K,
        DType::Q5K => GgmlDType::Q5K,
        DType::Q6K => GgmlDType::Q6K,
        _ => return Err(Error::Unsupported(format!("{dtype} is not a quantised format"))),
    })
}

/// Writes the numbers in `bytes` (whole blocks of a quantised format) to `out`.
///
/// # Errors
/// [`Error::Unsupported`] if `dtype` is not such a format, or if the lengths disagree.
pub fn dequantize(dtype: DType, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    let candle_type = candle_type(dtype)?;
    if dtype.byte_len(&[out.len()]) != Some(bytes.len()) {
        let (count, len) = (out.len(), bytes.len());
        return Err(Error::Unsupported(format!("{len} bytes do not hold {count} numbers stored as {dtype}")));
    }
    // candle wants its blocks, which begin with 16-bit numbers, at even addresses.
    let words: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_ne_bytes([pair[0], pair[1]])).collect();
    // SAFETY: a `u16` is two bytes without padding, and any byte is a valid `u8`.
    let (_, bytes, _) = unsafe { words.align_to::<u8>() };
    match candle_type.from_data(bytes.into()).dequantize(out.len())? {
        CpuStorage::F32(numbers) => out.copy_from_slice(&numbers),
        _ => return Err(Error::Unsupported(format!("candle does not dequantise {dtype} to f32"))),
    }
    Ok(())
}

/// Quantises `numbers`, whole blocks of them.
///
/// # Errors
/// If they are not whole blocks.
pub fn quantize(format: QuantizedType, numbers: &[f32]) -> Result<Vec<u8>> {
    if format == QuantizedType::Q8_0 {
        return quantize_q8_0(numbers);
    }
    let numbers = Tensor::from_slice(numbers, numbers.len(), &Device::Cpu)?;
    let tensor = QTensor::quantize(&numbers, candle_type(format.dtype())?)?;
    Ok(tensor.data()?.into_owned())
}

fn quantize_q8_0(numbers: &[f32]) -> Result<Vec<u8>> {
    let Some(len) = DType::Q8_0.byte_len(&[numbers.len()]) else {
        return Err(Error::Unsupported(format!("{} numbers are not whole blocks of Q8_0", numbers.len())));
    };
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn with_avx2(numbers: &[f32], blocks: &mut [u8]) {
        q8_0_blocks(numbers, blocks);
    }
    let mut blocks = vec![0; len];
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has the instructions.
        unsafe { with_avx2(numbers, &mut blocks) };
        return Ok(blocks);
    }
    q8_0_blocks(numbers, &mut blocks);
    Ok(blocks)
}

/// ggml's `quantize_row_q8_0_ref`.
#[inline(always)]
fn q8_0_blocks(numbers: &[f32], blocks: &mut [u8]) {
    for (numbers, block) in numbers.chunks_exact(32).zip(blocks.chunks_exact_mut(34)) {
        let mut largest = 0f32;
        for x in numbers {
            largest = if x.abs() > largest { x.abs() } else { largest };
        }
        let scale = largest / 127.0;
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        let (head, bytes) = block.split_at_mut(2);
        head.copy_from_slice(&half::f16::from_f32(scale).to_le_bytes());
        for (byte, x) in bytes.iter_mut().zip(numbers) {
            *byte = (x * inverse).round() as i8 as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers spread over -1..1.
    fn numbers(n: usize) -> Vec<f32> {
        (0..n as u32).map(|i| i.wrapping_mul(2_654_435_761) as i32 as f32 / i32::MAX as f32).collect()
    }

    /// Against candle's own quantiser, byte for byte, including ties and zeros.
    #[test]
    fn q8_0_is_ggmls() {
        let mut numbers = numbers(32 * 400);
        numbers[..32].fill(0.0);
        for (i, x) in numbers[32..64].iter_mut().enumerate() {
            *x = i as f32 * 0.5 - 4.0;
        }
        numbers[64] = 127.0;
        for (i, x) in numbers[65..96].iter_mut().enumerate() {
            *x = i as f32 - 15.5;
        }
        let tensor = Tensor::from_slice(&numbers, numbers.len(), &Device::Cpu).unwrap();
        let theirs = QTensor::quantize(&tensor, GgmlDType::Q8_0).unwrap();
        assert_eq!(quantize(QuantizedType::Q8_0, &numbers).unwrap(), *theirs.data().unwrap());
    }

    #[test]
    fn types_that_are_not_quantised_and_partial_blocks_are_refused() {
        let mut out = vec![7.0; 64];
        for (dtype, bytes) in [(DType::F32, 256), (DType::Q8_0, 67), (DType::Q4K, 36)] {
            assert!(dequantize(dtype, &vec![0; bytes], &mut out).is_err(), "{dtype}");
        }
        for format in QuantizedType::ALL {
            assert!(quantize(format, &out[..33]).is_err(), "{format:?}");
        }
        assert!(out.iter().all(|x| *x == 7.0));
    }
}
