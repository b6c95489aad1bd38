//! A matrix of floating-point numbers.

use super::panels;
use crate::base::{Bytes, FloatType};
use crate::kernels::stored::{BF16, F16, F32, Stored};

/// The layout of a matrix in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// (in, out): the outputs of one input are adjacent.
    InOut,
    /// (out, in): the inputs of one output are adjacent.
    OutIn,
    /// Packed for the CPU's kernels: [`panels`] of (in, out), or those of quantised numbers.
    Panels,
}

/// A weight matrix.
#[derive(Debug, Clone)]
pub struct Matrix {
    pub(super) bytes: Bytes,
    dtype: FloatType,
    pub(super) layout: Layout,
    inputs: usize,
    outputs: usize,
}

impl Matrix {
    /// A matrix over `bytes`. They need no alignment: files align nothing.
    ///
    /// # Panics
    /// If the length is wrong: loading checks it.
    #[must_use]
    pub fn new(bytes: Bytes, dtype: FloatType, layout: Layout, inputs: usize, outputs: usize) -> Self {
        let len = match layout {
            Layout::Panels => panels::packed_bytes(dtype, inputs, outputs),
            Layout::InOut | Layout::OutIn => inputs.checked_mul(outputs).and_then(|n| n.checked_mul(dtype.size())),
        };
        assert_eq!(Some(bytes.len()), len, "length of a weight matrix");
        Self { bytes, dtype, layout, inputs, outputs }
    }

    /// `K`, the length of an input row.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// `N`, the length of an output row.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// The type of the stored numbers.
    #[must_use]
    pub fn dtype(&self) -> FloatType {
        self.dtype
    }

    /// Bytes that the matrix takes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Copies row `row` of an (out, in) matrix into `out` as f32: an embedding's vector where that is (V, C).
    ///
    /// # Panics
    /// If the matrix is not (out, in), has no such row, or the length is another.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        assert!(self.layout == Layout::OutIn && out.len() == self.inputs, "a row of a matrix in rows");
        match self.dtype {
            FloatType::F32 => self.row_as::<F32>(row, out),
            FloatType::F16 => self.row_as::<F16>(row, out),
            FloatType::BF16 => self.row_as::<BF16>(row, out),
        }
    }

    fn row_as<T: Stored>(&self, row: usize, out: &mut [f32]) {
        let numbers = &T::numbers(&self.bytes)[row * out.len()..][..out.len()];
        for (y, x) in out.iter_mut().zip(numbers) {
            *y = T::to_f32(*x);
        }
    }
}
