//! A weight matrix, whatever its numbers are.

use super::float::{self, Matrix};
use super::product::Epilogue;
use super::quantized::{self, QuantizedMatrix};
use crate::base::DType;

/// A weight matrix (in, out): `K` inputs, `N` outputs.
#[derive(Debug, Clone)]
pub enum Weight {
    /// Of floating-point numbers.
    Float(Matrix),
    /// Quantised.
    Quantized(QuantizedMatrix),
}

impl Weight {
    /// `K`, the length of an input row.
    #[must_use]
    pub fn inputs(&self) -> usize {
        match self {
            Self::Float(matrix) => matrix.inputs(),
            Self::Quantized(matrix) => matrix.inputs(),
        }
    }

    /// `N`, the length of an output row.
    #[must_use]
    pub fn outputs(&self) -> usize {
        match self {
            Self::Float(matrix) => matrix.outputs(),
            Self::Quantized(matrix) => matrix.outputs(),
        }
    }

    /// The type of the stored numbers.
    #[must_use]
    pub fn dtype(&self) -> DType {
        match self {
            Self::Float(matrix) => matrix.dtype().dtype(),
            Self::Quantized(matrix) => matrix.dtype().dtype(),
        }
    }

    /// Bytes that the matrix takes.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Float(matrix) => matrix.size(),
            Self::Quantized(matrix) => matrix.size(),
        }
    }

    /// Writes the weights of output `index` into `out` (K): an embedding's vector.
    ///
    /// # Panics
    /// If the length is another, if there is no such output, or if the matrix has floating-point numbers in panels.
    pub fn row(&self, index: usize, out: &mut [f32]) {
        match self {
            Self::Float(matrix) => matrix.row(index, out),
            Self::Quantized(matrix) => matrix.row(index, out),
        }
    }

    /// `y = epilogue(x W + bias)`: `x` is (M, K), `y` (M, N), `bias` (N). What `y` held before is lost.
    ///
    /// # Panics
    /// If a length is another.
    pub fn matmul(&self, x: &[f32], bias: Option<&[f32]>, epilogue: Epilogue<'_>, y: &mut [f32]) {
        match self {
            Self::Float(matrix) => float::matmul(x, matrix, bias, epilogue, y),
            Self::Quantized(matrix) => quantized::matmul(x, matrix, bias, epilogue, y),
        }
    }
}
