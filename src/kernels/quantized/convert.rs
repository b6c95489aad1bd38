//! Numbers into blocks, and blocks into numbers.
//!
//! ggml's formats are candle's here, but for the quantiser of Q8_0, which is the same function compiled for the
//! processor at hand.

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{CpuStorage, Device, Tensor};

use super::QuantizedType;
use crate::checkpoint::StorageType;
use crate::error::Result;
use crate::kernels::simd::{Kernel, Simd, dispatch};

/// candle's name for a quantised format.
fn candle_type(dtype: StorageType) -> Option<GgmlDType> {
    Some(match dtype {
        StorageType::Q4_0 => GgmlDType::Q4_0,
        StorageType::Q4_1 => GgmlDType::Q4_1,
        StorageType::Q5_0 => GgmlDType::Q5_0,
        StorageType::Q5_1 => GgmlDType::Q5_1,
        StorageType::Q8_0 => GgmlDType::Q8_0,
        StorageType::Q2K => GgmlDType::Q2K,
        StorageType::Q3K => GgmlDType::Q3K,
        StorageType::Q4K => GgmlDType::Q4K,
        StorageType::Q5K => GgmlDType::Q5K,
        StorageType::Q6K => GgmlDType::Q6K,
        _ => return None,
    })
}

/// Writes the numbers of `bytes`, whole blocks of a quantised format, into `out`; whether `dtype` is such a format.
///
/// # Panics
/// If the lengths do not fit each other.
pub fn dequantize(dtype: StorageType, bytes: &[u8], out: &mut [f32]) -> bool {
    let Some(kind) = candle_type(dtype) else { return false };
    assert_eq!(dtype.byte_len(&[out.len()]), Some(bytes.len()), "length of quantised numbers");
    // candle wants its blocks, which begin with 16-bit numbers, at even addresses.
    let words: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_ne_bytes([pair[0], pair[1]])).collect();
    // SAFETY: a `u16` is two bytes without padding, any of which is a `u8`.
    let (_, bytes, _) = unsafe { words.align_to::<u8>() };
    if let Ok(CpuStorage::F32(numbers)) = kind.from_data(bytes.into()).dequantize(out.len()) {
        out.copy_from_slice(&numbers);
    }
    true
}

/// The blocks of `numbers`, which are whole ones.
///
/// # Errors
/// If they are not whole blocks.
pub fn quantize(kind: QuantizedType, numbers: &[f32]) -> Result<Vec<u8>> {
    let dtype = match kind {
        QuantizedType::Q8_0 => {
            let mut blocks = vec![0; numbers.len() / 32 * 34];
            dispatch(QuantizeQ8_0 { numbers, blocks: &mut blocks });
            return Ok(blocks);
        }
        QuantizedType::Q4K => GgmlDType::Q4K,
        QuantizedType::Q5K => GgmlDType::Q5K,
        QuantizedType::Q6K => GgmlDType::Q6K,
    };
    let tensor = QTensor::quantize(&Tensor::from_slice(numbers, numbers.len(), &Device::Cpu)?, dtype)?;
    Ok(tensor.data()?.into_owned())
}

/// ggml's `quantize_row_q8_0_ref`.
struct QuantizeQ8_0<'a> {
    numbers: &'a [f32],
    blocks: &'a mut [u8],
}

impl Kernel for QuantizeQ8_0<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (numbers, block) in self.numbers.chunks_exact(32).zip(self.blocks.chunks_exact_mut(34)) {
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
}
