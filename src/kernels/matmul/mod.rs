//! Products of activations (M, K) with a weight matrix, over the weight as it is stored: (in, out) as in Hugging Face's
//! `Conv1D`, or (out, in) as in embeddings and GGUF. Weights may be f32, f16 or bf16; sums are f32.
//!
//! Three ways through one definition. A few rows stream the weights once past the rows ([`stream`], decoding); many
//! rows go through register tiles over packed panels ([`tiles`], prefill); (out, in) takes dot products ([`dots`]). For
//! an (in, out) weight every output is the sum of blocks of 128 inputs, each the chain `((x₀w₀ + x₁w₁) + x₂w₂) + ...`
//! in order of k, so the first two agree to the bit. (One chain over all inputs would round twice as much.)

mod dots;
mod stream;
mod tiles;

use std::ops::Range;

use super::activation::{activate_slice, add_slice};
use super::pool;
use crate::checkpoint::Bytes;
use crate::config::Activation;

/// The type of a weight's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloatType {
    /// 32-bit.
    F32,
    /// 16-bit IEEE.
    F16,
    /// 16-bit, the upper half of an `F32`.
    BF16,
}

impl FloatType {
    /// Bytes of one number.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }
}

/// Which axis of a stored matrix runs along memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// (in, out): the outputs of one input lie side by side.
    InOut,
    /// (out, in): the inputs of one output lie side by side.
    OutIn,
}

/// A weight matrix where it is stored.
#[derive(Debug, Clone)]
pub struct Matrix {
    bytes: Bytes,
    dtype: FloatType,
    layout: Layout,
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
    /// A matrix over `bytes`, which must hold `inputs * outputs` numbers. They need no alignment: files align nothing.
    ///
    /// # Panics
    /// If the length is wrong: loading checks it.
    #[must_use]
    pub fn new(bytes: Bytes, dtype: FloatType, layout: Layout, inputs: usize, outputs: usize) -> Self {
        let len = inputs.checked_mul(outputs).and_then(|numbers| numbers.checked_mul(dtype.size()));
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

    /// Copies row `row` of the stored matrix into `out` as f32: an embedding's vector where the layout is (V, C).
    pub fn row(&self, row: usize, out: &mut [f32]) {
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

/// Rows from which panels are packed; fewer stream the weights past the rows.
const FEW_ROWS: usize = 6;

/// Inputs that are summed on their own: few enough that the blocks of a matrix keep some threads busy.
const BLOCK_INPUTS: usize = 128;

/// `y = epilogue(x W + bias)`: `x` is (M, K), `y` (M, N), both row-major; `bias` (N).
///
/// # Panics
/// If the lengths do not fit the matrix.
pub fn matmul(x: &[f32], w: &Matrix, bias: Option<&[f32]>, epilogue: Epilogue<'_>, y: &mut [f32]) {
    let rows = x.len() / w.inputs;
    assert_eq!(x.len(), rows * w.inputs, "length of the input");
    assert_eq!(Some(y.len()), rows.checked_mul(w.outputs), "length of the output");
    assert!(bias.is_none_or(|b| b.len() == w.outputs), "length of the bias");
    if let Epilogue::Add(r) = epilogue {
        assert_eq!(r.len(), y.len(), "length of the residual");
    }
    let job = Product { x: x.as_ptr(), y: y.as_mut_ptr(), rows, w, bias, epilogue };
    let job = &job;
    match w.layout {
        Layout::InOut if rows <= FEW_ROWS => stream::run(job),
        Layout::InOut => tiles::run(job),
        Layout::OutIn => dots::run(job),
    }
}

/// Calls `f(from, to)` for ranges of `width` that cover the `n` columns, in parallel if `work`, in multiplications, is
/// much.
fn split(job: &Product<'_>, work: usize, width: usize, f: impl Fn(usize, usize) + Sync) {
    let n = job.w.outputs;
    pool::run_costing(work, n.div_ceil(width), |i| f(i * width, n.min((i + 1) * width)));
}

/// One call of [`matmul`], whose lengths it has checked: `x` points to (`rows`, K) numbers, `y` to (`rows`, N).
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
    /// Packed panels, widened weights, or sums set aside; kept between calls so that the pages stay mapped.
    static SCRATCH: std::cell::RefCell<Vec<f32>> = const { std::cell::RefCell::new(Vec::new()) };
}

#[cfg(test)]
mod tests;
