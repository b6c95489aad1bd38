//! ggml's quantised formats: numbers to blocks and back.
//!
//! Blocks become numbers by candle's functions.
//!
//! Reference: ggml, `ggml-quants.c`.

mod quantize;

use candle_core::CpuStorage;
use candle_core::quantized::GgmlDType;

pub use quantize::{quantize, quantize_into};

use super::DType;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_that_are_not_quantised_and_partial_blocks_are_refused() {
        let mut out = vec![7.0; 64];
        for (dtype, bytes) in [(DType::F32, 256), (DType::Q8_0, 67), (DType::Q4K, 36)] {
            assert!(dequantize(dtype, &vec![0; bytes], &mut out).is_err(), "{dtype}");
        }
        assert!(out.iter().all(|x| *x == 7.0));
    }
}
