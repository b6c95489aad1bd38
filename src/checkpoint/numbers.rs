//! The numbers of a tensor, as f32 or in another type, row by row or transposed.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::Range;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::Tensor;
use crate::base::{DType, QuantizedType, ggml, panels, pool};
use crate::error::{Error, Result};

/// Roughly how many numbers are converted in one step.
pub(crate) const STEP: usize = 1 << 16;

/// f16 converted together, as the processor can.
const HALVES: usize = 64;

/// Rows transposed together: their numbers fill a cache line.
const LINE: usize = 16;

/// Bytes copied in one step.
const COPIED: usize = 2 << 20;

impl Tensor {
    /// Writes the numbers from index `first` on, in storage order, to `out`. For quantised tensors `first` and `out`
    /// must cover whole blocks. `origin` names the checkpoint in errors.
    ///
    /// # Errors
    /// [`Error::Format`] if the tensor holds no floating-point numbers.
    pub fn read(&self, origin: &str, first: usize, out: &mut [f32]) -> Result<()> {
        fn each<const SIZE: usize>(bytes: &[u8], out: &mut [f32], f: impl Fn([u8; SIZE]) -> f32) {
            for (y, x) in out.iter_mut().zip(bytes.as_chunks().0) {
                *y = f(*x);
            }
        }
        let block = self.dtype.block_len();
        let bytes = &*self.blocks(first / block..first / block + out.len() / block);
        match self.dtype {
            DType::F32 => each(bytes, out, f32::from_le_bytes),
            DType::F16 => {
                let mut halves = [f16::ZERO; HALVES];
                for (y, x) in out.chunks_mut(HALVES).zip(bytes.as_chunks().0.chunks(HALVES)) {
                    halves.iter_mut().zip(x).for_each(|(half, bytes)| *half = f16::from_le_bytes(*bytes));
                    halves[..y.len()].convert_to_f32_slice(y);
                }
            }
            DType::BF16 => each(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
            DType::F64 => each(bytes, out, |b| f64::from_le_bytes(b) as f32),
            quantized if quantized.is_quantized() => ggml::dequantize(quantized, bytes, out)?,
            other => {
                let message = format!(
                    "tensor `{}` is stored as {other}; weights must be F32, F16, BF16, F64 or quantised as in GGUF",
                    self.name
                );
                return Err(Error::format(origin, message));
            }
        }
        Ok(())
    }

    /// The bytes of blocks, in storage order: in place, or unpacked. A packed matrix counts as stored with a quantised
    /// output's inputs or a floating-point input's outputs adjacent.
    pub(crate) fn blocks(&self, blocks: Range<usize>) -> Cow<'_, [u8]> {
        let size = self.dtype.block_bytes();
        if !self.packed {
            return Cow::Borrowed(&self.bytes[blocks.start * size..blocks.end * size]);
        }
        let (rows, columns) = self.stored_dims();
        let (inputs, outputs) = if self.dtype.is_quantized() { (columns, rows) } else { (rows, columns) };
        let mut out = vec![0; blocks.len() * size];
        panels::unpack(self.dtype, inputs, outputs, &self.bytes, blocks.start, &mut out);
        Cow::Owned(out)
    }

    /// The same tensor, not packed.
    pub(super) fn unpacked(&self) -> Self {
        let blocks = self.shape.iter().product::<usize>() / self.dtype.block_len();
        match self.packed {
            true => Self { packed: false, bytes: self.blocks(0..blocks).into_owned().into(), ..self.clone() },
            false => self.clone(),
        }
    }

    /// The bytes of a tensor of one or two axes as `dtype`; `transpose` swaps the stored axes.
    ///
    /// # Errors
    /// As for [`read`](Self::read), and [`Error::Unsupported`] for a type that the numbers do not fit.
    pub fn convert(&self, origin: &str, dtype: DType, transpose: bool) -> Result<Vec<u8>> {
        let (rows, columns) = self.stored_dims();
        let (rows, width) = if transpose { (columns, rows) } else { (rows, columns) };
        let len = dtype.byte_len(&[rows, width]).ok_or_else(|| {
            let block = dtype.block_len();
            self.unsupported(format!("has rows of {width} numbers; {dtype} stores multiples of {block}"))
        })?;
        let mut out = vec![0u8; len];
        self.write_as(origin, dtype, transpose, &mut out)?;
        Ok(out)
    }

    /// As [`convert`](Self::convert), into `out`, which must have the length of the result. Releases the parts of a
    /// mapped file that it has read.
    ///
    /// # Errors
    /// As for [`convert`](Self::convert).
    pub(crate) fn write_as(&self, origin: &str, dtype: DType, transpose: bool, out: &mut [u8]) -> Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        if dtype == self.dtype && !transpose && self.packed {
            let size = dtype.block_bytes();
            let mut steps: Vec<_> = out.chunks_mut(COPIED / size * size).enumerate().collect();
            pool::for_each(self.bytes.len(), &mut steps, |(i, part)| {
                let first = *i * (COPIED / size);
                part.copy_from_slice(&self.blocks(first..first + part.len() / size));
            });
            return Ok(());
        }
        if dtype == self.dtype && !transpose {
            let steps = (0..).step_by(COPIED).zip(out.chunks_mut(COPIED));
            let mut steps: Vec<_> =
                steps.filter_map(|(at, part)| Some((self.bytes.slice(at..at + part.len())?, part))).collect();
            pool::for_each(self.bytes.len(), &mut steps, |(stored, part)| {
                part.copy_from_slice(stored);
                stored.release();
            });
            return Ok(());
        }
        let (rows, columns) = self.stored_dims();
        let (rows, width) = if transpose { (columns, rows) } else { (rows, columns) };
        let (step, row_len) = ((STEP / width).max(1).next_multiple_of(self.dtype.block_len()), out.len() / rows);
        let mut parts: Vec<_> = out.chunks_mut(step * row_len).enumerate().map(|part| (part, Ok(()))).collect();
        pool::for_each(rows * width, &mut parts, |((i, part), outcome)| {
            let from = *i * step;
            *outcome = self.convert_rows(origin, dtype, transpose, from..rows.min(from + step), part);
        });
        self.bytes.release();
        parts.into_iter().try_for_each(|(_, outcome)| outcome)
    }

    /// Some rows of what [`convert`](Self::convert) returns.
    pub(crate) fn convert_rows(
        &self,
        origin: &str,
        dtype: DType,
        transpose: bool,
        rows: Range<usize>,
        out: &mut [u8],
    ) -> Result<()> {
        let (stored_rows, stored_columns) = self.stored_dims();
        let width = if transpose { stored_rows } else { stored_columns };
        let len = rows.len() * width;
        // Kept between calls, so that the pages stay mapped.
        thread_local! {
            static NUMBERS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
        }
        NUMBERS.with_borrow_mut(|numbers| {
            if numbers.len() < len {
                numbers.resize(len, 0.0);
            }
            let numbers = &mut numbers[..len];
            if transpose {
                self.read_columns(origin, rows, numbers)?;
            } else {
                self.read(origin, rows.start * width, numbers)?;
            }
            match encode(dtype, numbers, out)? {
                None => Ok(()),
                Some(x) => Err(self.unsupported(format!("holds {x}, too large for {dtype}"))),
            }
        })
    }

    /// The same tensor with other numbers, given in storage order and stored as `dtype`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a type that the numbers do not fit.
    pub(super) fn with_numbers(&self, dtype: DType, numbers: &[f32]) -> Result<Self> {
        let mut bytes = vec![0u8; numbers.len() / dtype.block_len() * dtype.block_bytes()];
        match encode(dtype, numbers, &mut bytes)? {
            None => Ok(Self { dtype, packed: false, bytes: bytes.into(), ..self.clone() }),
            Some(x) => Err(self.unsupported(format!("holds {x}, too large for {dtype}"))),
        }
    }

    fn unsupported(&self, what: String) -> Error {
        Error::Unsupported(format!("tensor `{}` {what}", self.name))
    }

    /// Rows and columns as stored; one row if there is one axis.
    pub(crate) fn stored_dims(&self) -> (usize, usize) {
        let columns = self.shape.last().copied().unwrap_or(1);
        let rows = self.shape.iter().rev().skip(1).product();
        if self.transposed { (columns, rows) } else { (rows, columns) }
    }

    /// Reads columns of what is stored, as rows.
    fn read_columns(&self, origin: &str, columns: Range<usize>, out: &mut [f32]) -> Result<()> {
        let (height, width) = self.stored_dims();
        let step = columns.len();
        let mut part = vec![0f32; LINE * step];
        for first in (0..height).step_by(LINE) {
            let rows = LINE.min(height - first);
            for (row, part) in part.chunks_exact_mut(step).enumerate().take(rows) {
                self.read(origin, (first + row) * width + columns.start, part)?;
            }
            // A column's numbers lie side by side where they go to.
            for (column, out) in out.chunks_exact_mut(height).enumerate() {
                for (row, y) in out[first..first + rows].iter_mut().enumerate() {
                    *y = part[row * step + column];
                }
            }
        }
        Ok(())
    }
}

/// Writes `numbers` to `out` as `dtype`. Returns the first finite number that is too large for that type.
fn encode(dtype: DType, numbers: &[f32], out: &mut [u8]) -> Result<Option<f32>> {
    fn each<const SIZE: usize>(numbers: &[f32], out: &mut [u8], f: impl Fn(f32) -> [u8; SIZE]) {
        for (y, x) in out.as_chunks_mut().0.iter_mut().zip(numbers) {
            *y = f(*x);
        }
    }
    let mut largest = f32::MAX;
    match dtype {
        DType::F32 => each(numbers, out, f32::to_le_bytes),
        DType::BF16 => each(numbers, out, |x| bf16::from_f32(x).to_le_bytes()),
        DType::F16 => {
            largest = f16::MAX.to_f32();
            let mut halves = [f16::ZERO; HALVES];
            for (out, numbers) in out.as_chunks_mut().0.chunks_mut(HALVES).zip(numbers.chunks(HALVES)) {
                halves[..numbers.len()].convert_from_f32_slice(numbers);
                out.iter_mut().zip(halves).for_each(|(bytes, half)| *bytes = half.to_le_bytes());
            }
        }
        other => {
            let kind = QuantizedType::of(other)
                .ok_or_else(|| Error::Unsupported(format!("numbers cannot be written as {other}")))?;
            // The scale of a block is an f16.
            largest = 127.0 * f16::MAX.to_f32();
            ggml::quantize_into(kind, numbers, out)?;
        }
    }
    Ok(numbers.iter().copied().find(|x| x.is_finite() && x.abs() > largest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(dtype: DType, shape: &[usize], transposed: bool, bytes: Vec<u8>) -> Tensor {
        Tensor { name: "t".into(), dtype, shape: shape.into(), transposed, packed: false, bytes: bytes.into() }
    }

    fn floats(bytes: &[u8]) -> Vec<f32> {
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    /// Large enough for several steps, with a remainder.
    #[test]
    fn transposition_goes_there_and_back() {
        let (rows, columns) = (300, 517);
        let numbers: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let stored = tensor(DType::F32, &[rows, columns], false, bytes.clone());
        let turned = stored.convert("", DType::F32, true).unwrap();
        let found = floats(&turned);
        for (row, column) in [(0, 0), (0, 516), (299, 0), (17, 400), (299, 516)] {
            assert_eq!(found[column * rows + row], numbers[row * columns + column]);
        }
        // The same shape, but stored as its transpose.
        let back = tensor(DType::F32, &[rows, columns], true, turned).convert("", DType::F32, true).unwrap();
        assert_eq!(back, bytes);
        assert_eq!(stored.convert("", DType::F32, false).unwrap(), bytes);
    }

    #[test]
    fn sixteen_bits_round_to_the_nearest() {
        let numbers = [1.0f32, -0.333_333_34, 65504.0, 1e-8];
        let t = tensor(DType::F32, &[4], false, numbers.iter().flat_map(|x| x.to_le_bytes()).collect());
        let half: Vec<u8> = numbers.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect();
        assert_eq!(t.convert("", DType::F16, false).unwrap(), half);
        let wide = tensor(DType::F16, &[4], false, half).convert("", DType::F32, false).unwrap();
        assert_eq!(floats(&wide), [1.0, -0.333_251_95, 65504.0, 0.0]);
    }

    /// A transposed, quantised tensor is read in whole blocks.
    #[test]
    fn quantised_numbers_are_widened_and_turned() {
        let numbers: Vec<f32> = (0..70 * 512).map(|i| (i % 97) as f32 - 48.0).collect();
        let bytes = ggml::quantize(QuantizedType::Q4K, &numbers).unwrap();
        let mut rounded = vec![0.0; numbers.len()];
        ggml::dequantize(DType::Q4K, &bytes, &mut rounded).unwrap();
        let t = tensor(DType::Q4K, &[512, 70], true, bytes);
        let found = floats(&t.convert("", DType::F32, true).unwrap());
        for (input, output) in [(0, 0), (511, 69), (300, 1), (255, 64)] {
            assert_eq!(found[input * 70 + output], rounded[output * 512 + input]);
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let t = tensor(DType::F32, &[1, 32], false, [1e10f32; 32].iter().flat_map(|x| x.to_le_bytes()).collect());
        let refused = |dtype| t.convert("", dtype, false).unwrap_err().to_string();
        assert!(refused(DType::F16).contains("`t` holds 10000000000, too large for F16"));
        assert!(refused(DType::Q8_0).contains("too large for Q8_0"));
        assert!(refused(DType::Q4K).contains("rows of 32 numbers; Q4_K stores multiples of 256"));
        assert!(refused(DType::I8).contains("cannot be written as I8"));
        assert!(t.convert("", DType::BF16, false).is_ok());
    }
}
