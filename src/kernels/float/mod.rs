//! Products of activations (M, K) with a weight matrix whose numbers are f32, f16 or bf16; sums are f32.
//!
//! Two ways, by how the weight lies in memory. (in, out), as in Hugging Face's `Conv1D`, is packed into panels
//! ([`panels`]) and multiplied in tiles ([`tiles`]): every output is the sum of parts of 128 inputs, each the
//! chain `((x₀w₀ + x₁w₁) + x₂w₂) + ...` in order of k, whatever the number of rows. (One chain over all inputs would round
//! twice as much.) For a few products panels are not worth packing: a part at a time is gathered from where the weight
//! lies, and the bits are the same. (out, in), as in embeddings and GGUF, takes dot products where it lies ([`dots`]).

mod dots;
mod matrix;
mod tiles;

use std::cell::RefCell;

pub use crate::base::panels::floats as panels;
pub use matrix::{Layout, Matrix};

use super::product::{self, Epilogue};

/// A product with a matrix of floating-point numbers.
type Product<'a> = product::Product<'a, [f32], Matrix>;

thread_local! {
    /// Widened and gathered weights; kept between calls so that the pages stay mapped.
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// `y = epilogue(x W + bias)`: `x` is (M, K), `y` (M, N), both row-major; `bias` (N).
///
/// # Panics
/// If the lengths do not fit the matrix.
pub fn matmul(x: &[f32], w: &Matrix, bias: Option<&[f32]>, epilogue: Epilogue<'_>, y: &mut [f32]) {
    let rows = product::rows_of(x, w.inputs());
    let job = &Product::new((x, w), (rows, w.outputs()), bias, epilogue, y);
    match w.layout {
        Layout::InOut | Layout::Panels => tiles::multiply(job, y),
        Layout::OutIn => dots::multiply(job, y),
    }
}

#[cfg(test)]
mod tests;
