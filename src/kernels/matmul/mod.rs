//! Products of activations (M, K) with a weight matrix whose numbers are f32, f16 or bf16; sums are f32.
//!
//! Two ways, by how the weight lies in memory. (in, out), as in Hugging Face's `Conv1D`, is packed into panels when it is
//! loaded ([`panels`]) and multiplied in tiles ([`tiles`]): every output is the sum of blocks of 128 inputs, each the
//! chain `((x₀w₀ + x₁w₁) + x₂w₂) + ...` in order of k, whatever the number of rows. (One chain over all inputs would round
//! twice as much.) (out, in), as in embeddings and GGUF, takes dot products where it lies ([`dots`]).

mod dots;
pub mod panels;
mod tiles;

use std::ops::Range;

use super::activation::{activate_slice, add_slice};
use super::simd::{LANES, Simd};
use super::stored::{Stored, load_up_to, store_up_to};
use crate::base::{Bytes, FloatType};
use crate::config::Activation;

/// A weight matrix, where it is stored or in panels.
#[derive(Debug, Clone)]
pub struct Matrix {
    bytes: Bytes,
    dtype: FloatType,
    is_packed: bool,
    inputs: usize,
    outputs: usize,
}

/// What happens to the product before it is stored.
#[derive(Debug, Clone, Copy)]
pub enum Epilogue<'a> {
    /// Nothing.
    None,
    /// An activation function.
    Activate(Activation),
    /// The residual stream (M, N) is added.
    Add(&'a [f32]),
}

impl Epilogue<'_> {
    /// Adds the bias to `y`, which lies at `place` in the output, and does the rest.
    #[inline]
    pub(super) fn finish(self, bias: Option<&[f32]>, place: Range<usize>, y: &mut [f32]) {
        if let Some(bias) = bias {
            add_slice(y, bias);
        }
        match self {
            Self::None => {}
            Self::Activate(f) => activate_slice(f, y),
            Self::Add(residual) => add_slice(y, &residual[place]),
        }
    }
}

impl Matrix {
    /// A matrix over `bytes`, (in, out) in [`panels`] if `is_packed`, or else (out, in). They need no alignment: files align
    /// nothing.
    ///
    /// # Panics
    /// If the length is wrong: loading checks it.
    #[must_use]
    pub fn new(bytes: Bytes, dtype: FloatType, is_packed: bool, inputs: usize, outputs: usize) -> Self {
        let len = match is_packed {
            true => panels::packed_bytes(dtype, inputs, outputs),
            false => inputs.checked_mul(outputs).and_then(|n| n.checked_mul(dtype.size())),
        };
        assert_eq!(Some(bytes.len()), len, "length of a weight matrix");
        Self { bytes, dtype, is_packed, inputs, outputs }
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
    /// If the matrix is packed, has no such row, or the length is another.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        assert!(!self.is_packed && out.len() == self.inputs, "a row of a matrix in rows");
        let width = out.len() * self.dtype.size();
        let bytes = &self.bytes[row * width..(row + 1) * width];
        let two = |pair: &[u8]| u16::from_le_bytes([pair[0], pair[1]]);
        match self.dtype {
            FloatType::F32 => {
                for (y, x) in out.iter_mut().zip(bytes.chunks_exact(4)) {
                    *y = f32::from_le_bytes([x[0], x[1], x[2], x[3]]);
                }
            }
            FloatType::F16 => {
                for (y, x) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                    *y = half::f16::from_bits(two(x)).to_f32();
                }
            }
            FloatType::BF16 => {
                for (y, x) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                    *y = half::bf16::from_bits(two(x)).to_f32();
                }
            }
        }
    }
}

/// Inputs of a packed matrix that are summed on their own: few enough that their part of a panel stays in the first-level
/// cache.
const BLOCK_INPUTS: usize = 128;

/// `y = epilogue(x W + bias)`: `x` is (M, K), `y` (M, N), both row-major; `bias` (N).
///
/// # Panics
/// If the lengths do not fit the matrix.
pub fn matmul(x: &[f32], w: &Matrix, bias: Option<&[f32]>, epilogue: Epilogue<'_>, y: &mut [f32]) {
    let rows = check(x, (w.inputs, w.outputs), bias, epilogue, y);
    let job = &Product { x: x.as_ptr(), y: y.as_mut_ptr(), rows, w, bias, epilogue };
    if w.is_packed { tiles::run(job) } else { dots::run(job) }
}

/// The rows of a product with a matrix of (K, N).
///
/// # Panics
/// If the lengths do not fit each other.
pub(super) fn check(
    x: &[f32],
    (inputs, outputs): (usize, usize),
    bias: Option<&[f32]>,
    epilogue: Epilogue<'_>,
    y: &[f32],
) -> usize {
    let rows = x.len() / inputs;
    assert_eq!(x.len(), rows * inputs, "length of the input");
    assert_eq!(Some(y.len()), rows.checked_mul(outputs), "length of the output");
    assert!(bias.is_none_or(|bias| bias.len() == outputs), "length of the bias");
    if let Epilogue::Add(residual) = epilogue {
        assert_eq!(residual.len(), y.len(), "length of the residual");
    }
    rows
}

/// One call of [`matmul`], whose lengths it has checked: `x` points to (`rows`, K) numbers, K above 0, `y` to room for
/// (`rows`, N), which it fills.
struct Product<'a> {
    x: *const f32,
    y: *mut f32,
    rows: usize,
    w: &'a Matrix,
    bias: Option<&'a [f32]>,
    epilogue: Epilogue<'a>,
}

// SAFETY: all is only read but for `y`; whoever writes there promises that the columns are its thread's own.
unsafe impl Sync for Product<'_> {}

impl Product<'_> {
    /// Multiplications that the product takes.
    fn work(&self) -> usize {
        self.rows * self.w.inputs * self.w.outputs
    }

    /// Adds the bias and applies the epilogue to columns `from..to` of row `m`.
    ///
    /// # Safety
    /// The columns belong to the calling thread; `m < rows`, `from <= to <= N`.
    unsafe fn finish(&self, m: usize, from: usize, to: usize) {
        let n = self.w.outputs;
        // SAFETY: the caller promises that the range lies in `y` and that nobody else uses it.
        let y = unsafe { std::slice::from_raw_parts_mut(self.y.add(m * n + from), to - from) };
        let row = m * n;
        self.epilogue.finish(self.bias.map(|bias| &bias[from..to]), row + from..row + to, y);
    }
}

thread_local! {
    /// Widened weights; kept between calls so that the pages stay mapped.
    static SCRATCH: std::cell::RefCell<Vec<f32>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Copies `n` numbers into `out`, as f32.
///
/// # Safety
/// The processor has the instructions of `S`; `n` numbers can be read.
#[inline(always)]
unsafe fn widen<S: Simd, T: Stored>(numbers: *const T::Number, n: usize, out: &mut Vec<f32>) {
    if out.len() < n {
        out.resize(n, 0.0);
    }
    for i in (0..n).step_by(LANES) {
        // SAFETY: the caller promises the instructions and the `n` numbers, for which there is room now.
        unsafe { store_up_to::<S>(out.as_mut_ptr().add(i), n - i, load_up_to::<S, T>(numbers.add(i), n - i)) }
    }
}

#[cfg(test)]
mod tests;
