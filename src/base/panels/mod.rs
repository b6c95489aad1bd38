//! The layouts that the CPU's kernels read matrices in: outputs side by side, input by input, so that what a product reads of
//! a panel is one run of memory. They are the same at every level and on every processor, and files may hold them
//! (`checkpoint/packed.rs`).

pub mod blocks;
pub mod floats;

use super::{DType, FloatType, QuantizedType};

/// Type and shape of the array that holds a matrix of `dtype` in panels: a whole number of them comes first. None if there
/// are no panels of that type, or none for so many inputs.
#[must_use]
pub fn array(dtype: DType, inputs: usize, outputs: usize) -> Option<(DType, [usize; 3])> {
    if FloatType::of(dtype).is_some() {
        return Some((dtype, [outputs.div_ceil(floats::PANEL), inputs, floats::PANEL]));
    }
    QuantizedType::of(dtype)?;
    let panels = outputs.checked_next_multiple_of(blocks::PAIR)? / blocks::PANEL;
    let blocks = inputs.is_multiple_of(dtype.block_len()).then_some(inputs / dtype.block_len())?;
    Some((DType::U8, [panels, blocks, blocks::PANEL * dtype.block_bytes()]))
}

/// Writes blocks from `first` on, as many as `out` holds, as a matrix has them that is not packed: of a floating-point matrix
/// (in, out), whose blocks are single numbers; of a quantised one (out, in).
///
/// # Panics
/// If `packed` has another length than a matrix of that type, or fewer blocks.
pub fn unpack(dtype: DType, inputs: usize, outputs: usize, packed: &[u8], first: usize, out: &mut [u8]) {
    match (FloatType::of(dtype), QuantizedType::of(dtype)) {
        (Some(float), _) => floats::unpack(float, inputs, outputs, packed, first, out),
        (_, Some(kind)) => blocks::unpack(kind, inputs, packed, first, out),
        _ => panic!("panels of {dtype}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that tell their places apart.
    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as u8).collect()
    }

    #[test]
    fn what_is_packed_can_be_unpacked_from_anywhere() {
        for (dtype, inputs, outputs) in [
            (DType::F32, 7, 101),
            (DType::BF16, 13, 48),
            (DType::Q8_0, 96, 33),
            (DType::Q6K, 512, 5),
            (DType::Q5K, 256, 32),
            (DType::Q4K, 768, 70),
        ] {
            let shape = if dtype.is_quantized() { [outputs, inputs] } else { [inputs, outputs] };
            let plain = bytes(dtype.byte_len(&shape).unwrap());
            let (of, array) = array(dtype, inputs, outputs).unwrap();
            let mut packed = vec![0; of.byte_len(&array).unwrap()];
            if let Some(float) = FloatType::of(dtype) {
                let mut parts = floats::parts(float, inputs, inputs, &mut packed);
                floats::pack(float, outputs, &plain, &mut parts[0]);
            } else {
                let (kind, row) = (QuantizedType::of(dtype).unwrap(), plain.len() / outputs);
                let panels = plain.chunks(blocks::PANEL * row).zip(packed.chunks_mut(blocks::PANEL * row));
                panels.for_each(|(rows, panel)| blocks::pack(kind, row, rows, panel));
            }
            let size = dtype.block_bytes();
            for first in [0, 1, 5, plain.len() / size / 2] {
                for len in [1, 3, plain.len() / size - first] {
                    let mut out = vec![0; len * size];
                    unpack(dtype, inputs, outputs, &packed, first, &mut out);
                    assert_eq!(out, plain[first * size..][..len * size], "{dtype} {first} {len}");
                }
            }
        }
        assert_eq!(array(DType::Q4K, 32, 4), None);
        assert_eq!(array(DType::F64, 32, 4), None);
    }
}
