//! Products of 8-bit activations with a quantised matrix.
//!
//! Threads take ranges of outputs. A single row is multiplied with the weights as they are unpacked; for more rows 32
//! outputs at a time are unpacked into the first-level cache, and multiplied in registers or, where the processor has a
//! unit for them and there are rows enough, in tiles. In each way an output is one chain of sums over its groups of
//! inputs, so it has the same bits whatever the batch.

use std::cell::RefCell;

use super::super::matmul::{Epilogue, check};
use super::super::simd::{LANES, Simd};
use super::activations::Activations;
use super::format::{Format, Q4K, Q5K, Q6K, Q8_0, Rows};
use super::level::{Integers, Tiles, dispatch};
use super::packed::WIDTH;
use super::panel::{BLOCK, DEPTH, Half, Panel};
use super::row::multiply_row;
use super::{QuantizedMatrix, registers, tiles};
use crate::base::{QuantizedType, pool};

/// Panels that one thread takes at a time, at most.
const PANELS: usize = 16;

/// Parts of the work for each thread, at least.
const PARTS: usize = 8;

/// How many bytes ahead weights are asked for.
const AHEAD: usize = 16 << 10;

/// `y = epilogue(x W + bias)`: `x` is (M, K), `y` (M, N), both row-major; `bias` (N).
///
/// # Panics
/// If the lengths do not fit the matrix.
pub fn matmul(x: &[f32], w: &QuantizedMatrix, bias: Option<&[f32]>, epilogue: Epilogue<'_>, y: &mut [f32]) {
    let rows = check(x, (w.inputs, w.outputs), bias, epilogue, y);
    ACTIVATIONS.with_borrow_mut(|activations| {
        activations.set(x, w.inputs);
        multiply_all(&Product { x: activations, y: y.as_mut_ptr(), rows, w, bias, epilogue });
    });
}

/// All outputs, in parallel.
fn multiply_all(job: &Product<'_>) {
    let w = job.w;
    // Parts small enough that no thread waits long for another.
    let panels = w.outputs.div_ceil(WIDTH);
    let width = panels.div_ceil(PARTS * pool::threads()).clamp(1, PANELS) * WIDTH;
    pool::run_costing(job.rows * w.inputs * w.outputs, w.outputs.div_ceil(width), |i| {
        // The scratch is fetched here: a closure inside the kernel would be compiled without its instructions.
        SCRATCH.with_borrow_mut(|scratch| {
            let (from, to) = (i * width, w.outputs.min((i + 1) * width));
            // SAFETY: the lengths were checked by `matmul` and `QuantizedMatrix::packed`, for the format that `kind`
            // names; each call gets its own columns of `y`.
            unsafe {
                match w.kind {
                    QuantizedType::Q8_0 => columns_dispatch::<Q8_0>(job, from, to, scratch),
                    QuantizedType::Q4K => columns_dispatch::<Q4K>(job, from, to, scratch),
                    QuantizedType::Q5K => columns_dispatch::<Q5K>(job, from, to, scratch),
                    QuantizedType::Q6K => columns_dispatch::<Q6K>(job, from, to, scratch),
                }
            }
        });
    });
}

thread_local! {
    static ACTIVATIONS: RefCell<Activations> = RefCell::default();
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch::new()) };
}

/// What a thread keeps between calls.
struct Scratch {
    panel: Panel,
    /// Sums that come from tiles.
    ring: tiles::Ring,
}

impl Scratch {
    const fn new() -> Self {
        Self { panel: Panel::new(), ring: tiles::EMPTY }
    }
}

/// One call of [`matmul`], whose lengths it has checked: `w` holds `outputs` packed rows of whole blocks, `x` (`rows`,
/// inputs), and `y` points to (`rows`, outputs).
pub(super) struct Product<'a> {
    pub x: &'a Activations,
    y: *mut f32,
    pub rows: usize,
    pub w: &'a QuantizedMatrix,
    bias: Option<&'a [f32]>,
    epilogue: Epilogue<'a>,
}

// SAFETY: all is only read but for `y`; whoever writes there promises that the columns are its thread's own.
unsafe impl Sync for Product<'_> {}

dispatch! {
    unsafe fn columns_dispatch<F: Format> =
        columns(job: &Product<'_>, from: usize, to: usize, scratch: &mut Scratch)
}

/// The outputs `from..to` of all rows.
///
/// # Safety
/// The processor has the instructions of `S`; the matrix is stored as `F`; `from` is a multiple of [`WIDTH`];
/// `to <= N`; the columns of `y` belong to the calling thread.
#[inline(always)]
unsafe fn columns<S: Integers, F: Format>(job: &Product<'_>, from: usize, to: usize, scratch: &mut Scratch) {
    let unit = if job.rows < tiles::SIDE { None } else { S::Tiles::configure(F::GROUP) };
    // SAFETY: just what the caller promises; there are rows enough for a unit.
    unsafe { columns_with::<S, F, _>(job, from, to, scratch, unit) };
}

/// The same, in tiles where there is a `unit` for the groups of `F`, which asks for 16 rows.
///
/// # Safety
/// As for [`columns`].
#[inline(always)]
unsafe fn columns_with<S: Integers, F: Format, T: Tiles>(
    job: &Product<'_>,
    from: usize,
    to: usize,
    scratch: &mut Scratch,
    unit: Option<T>,
) {
    let Scratch { panel, ring } = scratch;
    // SAFETY: a matrix is packed in groups of 16 rows, filled up to a multiple of `WIDTH`, so that those from `column` on are
    // two groups of it. `first` is whole blocks of `F` into a row, as `DEPTH` is, and a part's blocks fit a panel.
    unsafe {
        let mut ahead = Ahead(job.w.group(from / LANES).as_ptr().wrapping_add(AHEAD));
        for column in (from..to).step_by(WIDTH) {
            let group = |v: usize| Rows(job.w.group(column / LANES + v).as_ptr());
            let halves = [group(0), group(1)];
            if job.rows == 1 {
                multiply_row::<S, F>(job, halves[0], column, &mut ahead);
                multiply_row::<S, F>(job, halves[1], column + LANES, &mut ahead);
                continue;
            }
            for first in (0..job.w.inputs).step_by(DEPTH) {
                let part = Part { column, first, blocks: DEPTH.min(job.w.inputs - first) / BLOCK };
                for (v, rows) in halves.iter().enumerate() {
                    unpack::<S, F>(rows.skip::<F>(first / F::LEN), part.blocks, Half::new(panel, v), &mut ahead);
                }
                match &unit {
                    Some(unit) => {
                        tiles::center::<S, F>(panel);
                        tiles::multiply::<S, F, T>(job, unit, panel, part, ring);
                    }
                    None => registers::multiply::<S, F>(job, panel, part),
                }
            }
        }
        for m in 0..job.rows {
            job.finish(m, from, to);
        }
    }
}

/// What a panel covers: outputs from `column` on, `32 * blocks` inputs from `first` on.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub column: usize,
    pub first: usize,
    pub blocks: usize,
}

/// Unpacks `32 * blocks` inputs, whole blocks of `F`, of 16 rows.
///
/// # Safety
/// The processor has the instructions of `S`; the rows have the bytes of these inputs, and `half` is of a living panel.
#[inline(always)]
unsafe fn unpack<S: Integers, F: Format>(rows: Rows, blocks: usize, mut half: Half, ahead: &mut Ahead) {
    let step = F::LEN / BLOCK;
    for i in 0..blocks / step {
        // SAFETY: the stored block `i` lies in the rows and its inputs in the panel: `i` counts the blocks of the
        // caller.
        unsafe {
            ahead.prefetch::<S>(LANES * F::SIZE);
            F::unpack::<S>(rows.skip::<F>(i), i * step, &mut half);
        }
    }
}

/// What will be read some blocks later. The processor's own prefetchers fall behind where there is so much to compute
/// between one block and the next.
pub(super) struct Ahead(*const u8);

impl Ahead {
    /// Asks for the next `n` bytes.
    ///
    /// # Safety
    /// The processor has the instructions of `S`.
    #[inline(always)]
    pub unsafe fn prefetch<S: Integers>(&mut self, n: usize) {
        let end = self.0.wrapping_add(n);
        let mut line = self.0;
        while line < end {
            // SAFETY: the caller promises the instructions; the address need not be valid.
            unsafe { S::prefetch(line) };
            line = line.wrapping_add(64);
        }
        self.0 = end;
    }
}

impl Product<'_> {
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

    /// The sums so far of 16 outputs of row `m`; those beyond the last output are 0.
    ///
    /// # Safety
    /// The processor has the instructions of `S`; `m < rows`; the columns belong to the calling thread.
    #[inline(always)]
    pub unsafe fn load<S: Simd>(&self, m: usize, column: usize) -> S::V {
        let n = self.w.outputs;
        // SAFETY: the caller promises the instructions and the row; no column from `n` on is read.
        unsafe {
            match n.saturating_sub(column) {
                0 => S::splat(0.0),
                LANES.. => S::load(self.y.add(m * n + column)),
                left => S::load_first(self.y.add(m * n + column), left),
            }
        }
    }

    /// Keeps the sums of 16 outputs of row `m`, but for those beyond the last output.
    ///
    /// # Safety
    /// The processor has the instructions of `S`; `m < rows`; the columns belong to the calling thread.
    #[inline(always)]
    pub unsafe fn store<S: Simd>(&self, m: usize, column: usize, sums: S::V) {
        let n = self.w.outputs;
        // SAFETY: the caller promises the instructions and the row; no column from `n` on is written.
        unsafe {
            match n.saturating_sub(column) {
                0 => {}
                LANES.. => S::store(self.y.add(m * n + column), sums),
                left => S::store_first(self.y.add(m * n + column), left, sums),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{KINDS, matrix, product};
    use super::*;
    use crate::kernels::test_numbers;

    /// A unit whose products are their definition.
    struct Plain {
        depth: usize,
    }

    // SAFETY: only what the trait names is touched.
    unsafe impl Tiles for Plain {
        fn configure(depth: usize) -> Option<Self> {
            Some(Self { depth })
        }
        unsafe fn multiply(&self, x: *const i8, x_stride: usize, w: *const i32, w_stride: usize, sums: *mut i32) {
            for (m, n) in (0..16).flat_map(|m| (0..16).map(move |n| (m, n))) {
                let product = |k: usize| {
                    // SAFETY: the caller gives `depth` bytes in each row of `x`, and 64 for each four of them in `w`.
                    let (x, w) =
                        unsafe { (*x.add(m * x_stride + k), *w.cast::<i8>().add(k / 4 * w_stride + 4 * n + k % 4)) };
                    i32::from(x) * i32::from(w)
                };
                // SAFETY: the caller gives room for 16 rows of 16.
                unsafe { *sums.add(16 * m + n) = (0..self.depth).map(product).sum() };
            }
        }
    }

    dispatch! {
        unsafe fn tiled_dispatch<F: Format> = tiled(job: &Product<'_>, to: usize, scratch: &mut Scratch)
    }

    #[inline(always)]
    unsafe fn tiled<S: Integers, F: Format>(job: &Product<'_>, to: usize, scratch: &mut Scratch) {
        // SAFETY: the caller promises the same.
        unsafe { columns_with::<S, F, _>(job, 0, to, scratch, Plain::configure(F::GROUP)) };
    }

    /// However the products of tiles are made: the way there and back is tried on every processor.
    #[test]
    fn tiles_give_the_bits_of_registers() {
        for kind in KINDS {
            let block = kind.dtype().block_len();
            for (rows, inputs, outputs) in [(16, block, 1), (17, 3 * block, 33), (31, 768, 48), (40, 1280, 70)] {
                let (w, _) = matrix(kind, inputs, outputs);
                let x = test_numbers(rows * inputs, 6);
                let expected = product(&x, &w, None, Epilogue::None);
                let mut activations = Activations::default();
                activations.set(&x, inputs);
                let mut y = vec![f32::NAN; rows * outputs];
                let (bias, epilogue) = (None, Epilogue::None);
                let job = &Product { x: &activations, y: y.as_mut_ptr(), rows, w: &w, bias, epilogue };
                let scratch = &mut Scratch::new();
                // SAFETY: the lengths are those of the matrix, which is of this format; nobody else uses `y`.
                unsafe {
                    match kind {
                        QuantizedType::Q8_0 => tiled_dispatch::<Q8_0>(job, outputs, scratch),
                        QuantizedType::Q4K => tiled_dispatch::<Q4K>(job, outputs, scratch),
                        QuantizedType::Q5K => tiled_dispatch::<Q5K>(job, outputs, scratch),
                        QuantizedType::Q6K => tiled_dispatch::<Q6K>(job, outputs, scratch),
                    }
                }
                assert_eq!(y, expected, "{kind:?} {rows}x{inputs}x{outputs}");
            }
        }
    }
}
