//! Many rows: blocks of an (in, out) weight are packed into panels, which are multiplied in tiles of sums in registers.

use super::{BLOCK_INPUTS, FloatType, Matrix, Product, SCRATCH, split};
use crate::kernels::pool;
use crate::kernels::simd::{self, LANES, Simd, dispatch};
use crate::kernels::stored::{BF16, F16, F32, Stored, load_up_to, read_up_to, store_up_to};

/// Panels that are packed side by side: a task reads as many columns of the stored matrix in a run.
const PANELS: usize = 4;

/// Inputs that a panel covers, whole blocks: so many that sums are seldom fetched again, and so few that the panels of
/// a task stay in the second-level cache.
const PANEL_INPUTS: usize = 4 * BLOCK_INPUTS;

/// The product of many rows with an (in, out) weight.
pub(super) fn run(job: &Product<'_>) {
    let panels = (job.w.outputs / (2 * pool::threads() * tile_columns())).clamp(1, PANELS);
    split(job, job.work(), panels * tile_columns(), |from, to| {
        // The scratch is fetched here: a closure inside the kernel would be compiled without its instructions.
        // SAFETY: `matmul` and `Matrix::new` checked the lengths; each call gets its own columns of `y`.
        SCRATCH.with_borrow_mut(|panel| unsafe { tiles_dispatch(job, from, to, panel) });
    });
}

dispatch! { unsafe fn tiles_dispatch = tiles(job: &Product<'_>, from: usize, to: usize, panel: &mut Vec<f32>) }

/// The width of the tiled product's panels at the level in use.
fn tile_columns() -> usize {
    LANES
        * match simd::level() {
            #[cfg(target_arch = "x86_64")]
            simd::Level::Avx512 => simd::Avx512::TILE_VECTORS,
            #[cfg(target_arch = "x86_64")]
            simd::Level::Avx2 => simd::Avx2::TILE_VECTORS,
            _ => simd::Portable::TILE_VECTORS,
        }
}

/// Many rows: a block of the columns `from..to` is packed into panels as f32, then multiplied tile by tile.
///
/// # Safety
/// The processor has the instructions of `S`; `to <= N`; the columns of `y` belong to the calling thread.
#[inline(always)]
unsafe fn tiles<S: Simd>(job: &Product<'_>, from: usize, to: usize, packed: &mut Vec<f32>) {
    let panels = (to - from).div_ceil(S::TILE_VECTORS * LANES);
    let size = panels * PANEL_INPUTS.min(job.w.inputs) * S::TILE_VECTORS * LANES;
    if packed.len() < size {
        packed.resize(size, 0.0);
    }
    let mut first = 0;
    while first < job.w.inputs {
        let block = Block { from, to, first, inputs: PANEL_INPUTS.min(job.w.inputs - first) };
        // SAFETY: the caller promises the instructions and the columns; the block lies in the matrix, `packed` has room
        // for its panels, the type is that of the numbers, and no arm takes more rows than are left.
        unsafe {
            match job.w.dtype {
                FloatType::F32 => pack::<S, F32>(job.w, block, packed),
                FloatType::F16 => pack::<S, F16>(job.w, block, packed),
                FloatType::BF16 => pack::<S, BF16>(job.w, block, packed),
            }
            let mut m = 0;
            while m < job.rows {
                let left = job.rows - m;
                m += match left {
                    _ if left >= S::TILE_ROWS && S::TILE_ROWS == 8 => row_of_tiles::<S, 8>(job, packed, m, block),
                    _ if left >= S::TILE_ROWS && S::TILE_ROWS == 6 => row_of_tiles::<S, 6>(job, packed, m, block),
                    4.. => row_of_tiles::<S, 4>(job, packed, m, block),
                    2.. => row_of_tiles::<S, 2>(job, packed, m, block),
                    _ => row_of_tiles::<S, 1>(job, packed, m, block),
                };
            }
        }
        first += block.inputs;
    }
}

/// The part of a matrix that is packed and multiplied at a time: columns `from..to`, `inputs` rows from `first` on.
#[derive(Clone, Copy)]
struct Block {
    from: usize,
    to: usize,
    first: usize,
    inputs: usize,
}

/// Packs a block: panel after panel, in each the rows one after the other, 0 beyond the last column.
///
/// # Safety
/// The processor has the instructions of `S`; the matrix is stored as `T`, and the block lies in it; `packed` has room
/// for the block's panels.
#[inline(always)]
unsafe fn pack<S: Simd, T: Stored>(w: &Matrix, block: Block, packed: &mut [f32]) {
    let width = S::TILE_VECTORS * LANES;
    let mut out = packed.as_mut_ptr();
    let mut column = block.from;
    // SAFETY: the caller promises all but that no column from `to` on is read, which the loop sees to.
    unsafe {
        let source = w.bytes.as_ptr().cast::<T::Number>().add(block.first * w.outputs);
        while column < block.to {
            for row in 0..block.inputs {
                for v in 0..S::TILE_VECTORS {
                    let at = column + v * LANES;
                    let numbers = if at < block.to {
                        load_up_to::<S, T>(source.add(row * w.outputs + at), block.to - at)
                    } else {
                        S::splat(0.0)
                    };
                    S::store(out, numbers);
                    out = out.add(LANES);
                }
            }
            column += width;
        }
    }
}

/// Multiplies `R` rows from `m` on with the packed panels of a block; returns `R`.
///
/// # Safety
/// The processor has the instructions of `S`; `packed` holds the block's panels; `m + R <= rows`; the block's columns
/// of `y` belong to the calling thread.
#[inline(always)]
unsafe fn row_of_tiles<S: Simd, const R: usize>(job: &Product<'_>, packed: &[f32], m: usize, block: Block) -> usize {
    let width = S::TILE_VECTORS * LANES;
    let mut panel = packed.as_ptr();
    let mut column = block.from;
    // SAFETY: the caller's promises; there is a panel of `inputs * width` numbers for each `column` that begins one.
    unsafe {
        while column < block.to {
            match S::TILE_VECTORS {
                3 => tile::<S, R, 3>(job, panel, m, column, block),
                _ => tile::<S, R, 1>(job, panel, m, column, block),
            }
            panel = panel.add(block.inputs * width);
            column += width;
        }
        if block.first + block.inputs == job.w.inputs {
            for row in m..m + R {
                job.finish(row, block.from, block.to);
            }
        }
    }
    R
}

/// `R` rows times one panel of `V` vectors, block of inputs after block.
///
/// # Safety
/// As for [`row_of_tiles`]; `panel` points to that of the columns from `column` on.
#[inline(always)]
unsafe fn tile<S: Simd, const R: usize, const V: usize>(
    job: &Product<'_>,
    panel: *const f32,
    m: usize,
    column: usize,
    block: Block,
) {
    let (k, n) = (job.w.inputs, job.w.outputs);
    // SAFETY: the caller promises the instructions, the rows and the panel, of which `inputs` rows of `V` vectors are
    // read; no column from `to` on is read or written in `y`.
    unsafe {
        let x = job.x.add(m * k + block.first);
        let mut p = panel;
        for first in (0..block.inputs).step_by(BLOCK_INPUTS) {
            let mut sums = [[S::splat(0.0); V]; R];
            for i in first..block.inputs.min(first + BLOCK_INPUTS) {
                let mut w = [S::splat(0.0); V];
                for (v, w) in w.iter_mut().enumerate() {
                    *w = S::load(p.add(v * LANES));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let s = S::splat(*x.add(r * k + i));
                    for (sum, w) in sums.iter_mut().zip(w) {
                        *sum = S::fma(s, w, *sum);
                    }
                }
                p = p.add(V * LANES);
            }
            let is_first = block.first + first == 0;
            for (r, sums) in sums.iter().enumerate() {
                for (v, sum) in sums.iter().enumerate() {
                    let at = column + v * LANES;
                    if at < block.to {
                        let (y, width) = (job.y.add((m + r) * n + at), block.to - at);
                        let sum = if is_first { *sum } else { S::add(read_up_to::<S>(y, width), *sum) };
                        store_up_to::<S>(y, width, sum);
                    }
                }
            }
        }
    }
}
