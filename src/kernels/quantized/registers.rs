//! Many rows of activations: a panel of unpacked weights is multiplied with a few of them at a time, the sums in
//! registers.

use super::format::{Format, dot, group_sum, offset};
use super::level::Integers;
use super::packed::WIDTH;
use super::panel::{BLOCK, Panel};
use super::product::{Part, Product};
use crate::kernels::simd::LANES;

/// Multiplies all rows with a panel.
///
/// # Safety
/// The processor has the instructions of `S`; `part` lies in the matrix and fits a panel; the columns of `y` belong to
/// the calling thread.
#[inline(always)]
pub(super) unsafe fn multiply<S: Integers, F: Format>(job: &Product<'_>, panel: &Panel, part: Part) {
    let mut m = 0;
    while m < job.rows {
        // SAFETY: the caller's promises; no arm takes more rows than are left.
        m += unsafe {
            match (job.rows - m).min(S::ROWS) {
                6.. => tile::<S, F, 6>(job, panel, part, m),
                4.. => tile::<S, F, 4>(job, panel, part, m),
                2.. => tile::<S, F, 2>(job, panel, part, m),
                _ => tile::<S, F, 1>(job, panel, part, m),
            }
        };
    }
}

/// Multiplies `R` rows from `m` on with a panel; returns `R`. The sums over the inputs before are in the output.
///
/// # Safety
/// As for [`multiply`]; `m + R <= rows`.
#[inline(always)]
unsafe fn tile<S: Integers, F: Format, const R: usize>(
    job: &Product<'_>,
    panel: &Panel,
    part: Part,
    m: usize,
) -> usize {
    let inputs = job.w.inputs;
    // SAFETY: the caller promises the instructions and the rows. `inputs` is whole blocks of 32, so that `x` has
    // `inputs` numbers, `inputs / 32` scales and totals, and `inputs / 16` sums a row, of which the part's are read; the panel
    // holds its weights.
    unsafe {
        let mut sums = [[S::splat(0.0); 2]; R];
        if part.first > 0 {
            for (r, sums) in sums.iter_mut().enumerate() {
                *sums = [job.load::<S>(m + r, part.column), job.load::<S>(m + r, part.column + LANES)];
            }
        }
        let x = job.x.numbers.as_ptr().add(m * inputs + part.first);
        let x_scales = job.x.scales.as_ptr().add((m * inputs + part.first) / BLOCK);
        let x_totals = job.x.totals.as_ptr().add((m * inputs + part.first) / BLOCK);
        let x_sums = job.x.sums.as_ptr().add((m * inputs + part.first) / LANES);
        for block in 0..part.blocks {
            for group in 0..BLOCK / F::GROUP {
                let group = block * (BLOCK / F::GROUP) + group;
                let mut whole = [[S::splat_i(0); 2]; R];
                if offset::<S, F>() != 0 {
                    for (r, whole) in whole.iter_mut().enumerate() {
                        let sum = group_sum::<F>(x_sums.add(r * (inputs / LANES)), group);
                        *whole = [S::splat_i(-offset::<S, F>() * sum); 2];
                    }
                }
                for i in 0..F::GROUP / 4 {
                    let i = group * (F::GROUP / 4) + i;
                    let w = panel.bytes.as_ptr().add(i * WIDTH);
                    let w = [S::load_i(w), S::load_i(w.add(LANES))];
                    for (r, whole) in whole.iter_mut().enumerate() {
                        let x = S::splat_i(x.add(r * inputs + 4 * i).cast::<i32>().read_unaligned());
                        *whole = [dot::<S, F>(whole[0], w[0], x), dot::<S, F>(whole[1], w[1], x)];
                    }
                }
                let scales = panel.scales.as_ptr().add(group * WIDTH);
                let scales = [S::load(scales), S::load(scales.add(LANES))];
                for (r, (sums, whole)) in sums.iter_mut().zip(&whole).enumerate() {
                    let scale = S::splat(*x_scales.add(r * (inputs / BLOCK) + block));
                    for v in 0..2 {
                        sums[v] = S::fma(S::to_float(whole[v]), S::mul(scales[v], scale), sums[v]);
                    }
                }
            }
            if F::MINIMA {
                let minima = panel.minima.as_ptr().add(block * WIDTH);
                let minima = [S::load(minima), S::load(minima.add(LANES))];
                for (r, sums) in sums.iter_mut().enumerate() {
                    let factor = S::splat(*x_totals.add(r * (inputs / BLOCK) + block));
                    *sums = [S::fma(factor, minima[0], sums[0]), S::fma(factor, minima[1], sums[1])];
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            job.store::<S>(m + r, part.column, sums[0]);
            job.store::<S>(m + r, part.column + LANES, sums[1]);
        }
    }
    R
}
