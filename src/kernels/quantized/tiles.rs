//! Many rows of activations: an unpacked part of a pair of panels goes past them in tiles of sums in registers.

use super::Part;
use super::activations::{Activations, CHUNK, Chunk};
use super::format::{Format, dot, group_sum, offset};
use super::panels::PANEL;
use super::unpacked::Unpacked;
use crate::kernels::share::Columns;
use crate::kernels::simd::{LANES, Simd};

/// Multiplies `rows` rows with a part.
#[inline(always)]
pub(super) fn multiply<S: Simd, F: Format>(
    simd: S,
    x: &Activations,
    rows: usize,
    columns: &mut Columns<'_>,
    unpacked: &Unpacked,
    part: Part,
) {
    let mut m = 0;
    while m < rows {
        // No arm takes more rows than are left.
        m += match (rows - m).min(S::QUANTIZED_TILE_ROWS) {
            6.. => tile::<S, F, 6>(simd, x, columns, unpacked, part, m),
            4.. => tile::<S, F, 4>(simd, x, columns, unpacked, part, m),
            2.. => tile::<S, F, 2>(simd, x, columns, unpacked, part, m),
            _ => tile::<S, F, 1>(simd, x, columns, unpacked, part, m),
        };
    }
}

/// Multiplies `R` rows from `m` on with a part; returns `R`. The sums over the inputs before are in the output.
#[inline(always)]
fn tile<S: Simd, F: Format, const R: usize>(
    simd: S,
    x: &Activations,
    columns: &mut Columns<'_>,
    unpacked: &Unpacked,
    part: Part,
    m: usize,
) -> usize {
    let mut rows = [&[][..]; R];
    for (r, row) in rows.iter_mut().enumerate() {
        *row = &x.row(m + r)[part.first..][..part.chunks];
    }
    let mut sums = [[simd.splat(0.0); 2]; R];
    if part.first > 0 {
        for (r, sums) in sums.iter_mut().enumerate() {
            let right = columns.load(simd, m + r, part.column + PANEL);
            *sums = [columns.load(simd, m + r, part.column), right];
        }
    }
    for (i, w) in unpacked[..part.chunks].iter().enumerate() {
        let mut x = [&NO_CHUNK; R];
        for (x, row) in x.iter_mut().zip(&rows) {
            *x = &row[i];
        }
        for group in 0..CHUNK / F::GROUP {
            let mut whole = [[simd.splat_i(0); 2]; R];
            if offset::<S, F>() != 0 {
                for (x, whole) in x.iter().zip(&mut whole) {
                    *whole = [simd.splat_i(-offset::<S, F>() * group_sum::<F>(std::slice::from_ref(x), group)); 2];
                }
            }
            for i in group * (F::GROUP / 4)..(group + 1) * (F::GROUP / 4) {
                let bytes = [simd.load_i(&w.bytes[i][0]), simd.load_i(&w.bytes[i][1])];
                for (x, whole) in x.iter().zip(&mut whole) {
                    let x = simd.splat_i(x.fours[i]);
                    *whole = [dot::<S, F>(simd, whole[0], bytes[0], x), dot::<S, F>(simd, whole[1], bytes[1], x)];
                }
            }
            let scales = [simd.load(&w.scales[group][0]), simd.load(&w.scales[group][1])];
            for (x, (sums, whole)) in x.iter().zip(sums.iter_mut().zip(&whole)) {
                let scale = simd.splat(x.scale);
                for v in 0..2 {
                    sums[v] = simd.fma(simd.to_float(whole[v]), simd.mul(scales[v], scale), sums[v]);
                }
            }
        }
        if F::MINIMA {
            let minima = [simd.load(&w.minima[0]), simd.load(&w.minima[1])];
            for (x, sums) in x.iter().zip(&mut sums) {
                let factor = simd.splat(x.total);
                *sums = [simd.fma(factor, minima[0], sums[0]), simd.fma(factor, minima[1], sums[1])];
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        columns.store(simd, m + r, part.column, sums[0]);
        columns.store(simd, m + r, part.column + LANES, sums[1]);
    }
    R
}

/// Stands where a row's chunk will.
const NO_CHUNK: Chunk = Chunk { fours: [0; CHUNK / 4], sums: [0; 2], scale: 0.0, total: 0.0 };
