//! Outputs that several threads write, each its own part.

use std::marker::PhantomData;
use std::ops::Range;

use super::simd::Simd;
use crate::base::pool::{self, Shareable};

/// Calls `f(i, chunk)` on each chunk of `size` items, of which the last may have fewer, in any order, on all threads. `work`
/// is what all of it costs, in multiplications.
pub fn for_each_chunk<T: Send>(work: usize, items: &mut [T], size: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let (len, start) = (items.len(), Shareable(items.as_mut_ptr()));
    pool::run_costing(work, len.div_ceil(size), |i| {
        let (from, to) = (i * size, len.min((i + 1) * size));
        // SAFETY: chunks do not overlap, each goes to one call, and the slice outlives them.
        f(i, unsafe { std::slice::from_raw_parts_mut(start.get().add(from), to - from) });
    });
}

/// Calls `f` on each `width` columns of the rows of `y` (`rows`, N), of which the last may be fewer, in any order, on all
/// threads. `work` is what all of it costs, in multiplications.
///
/// # Panics
/// If the length is not that of so many whole rows.
pub fn for_each_columns(work: usize, y: &mut [f32], rows: usize, width: usize, f: impl Fn(Columns<'_>) + Sync) {
    let n = y.len() / rows.max(1);
    assert_eq!(y.len(), rows * n, "length of rows of columns");
    let start = Shareable(y.as_mut_ptr());
    pool::run_costing(work, n.div_ceil(width), |i| {
        let range = i * width..n.min((i + 1) * width);
        f(Columns { start: start.get(), rows, n, range, numbers: PhantomData });
    });
}

/// Some columns of all rows of an output, which one thread writes.
pub struct Columns<'a> {
    /// Of the output, (rows, n).
    start: *mut f32,
    rows: usize,
    n: usize,
    range: Range<usize>,
    numbers: PhantomData<&'a mut [f32]>,
}

impl Columns<'_> {
    /// Which columns they are.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// The columns in row `m`.
    ///
    /// # Panics
    /// If there is no such row.
    #[inline(always)]
    pub fn row(&mut self, m: usize) -> &mut [f32] {
        assert!(m < self.rows, "a row of an output");
        // SAFETY: the row is one of the output's, and its columns of the range are nobody else's: `for_each_columns` makes
        // ranges that do not overlap.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(m * self.n + self.range.start), self.range.len()) }
    }

    /// What is left of row `m` from column `column` of the output on; nothing beyond the range.
    #[inline(always)]
    fn from(&mut self, m: usize, column: usize) -> &mut [f32] {
        let skip = column - self.range.start;
        self.row(m).get_mut(skip..).unwrap_or_default()
    }

    /// Loads 16 columns of row `m` from column `column` of the output on; those beyond the range are 0.
    #[inline(always)]
    pub fn load<S: Simd>(&mut self, simd: S, m: usize, column: usize) -> S::V {
        simd.load_up_to(self.from(m, column))
    }

    /// Stores 16 columns of row `m` from column `column` of the output on, but for those beyond the range.
    #[inline(always)]
    pub fn store<S: Simd>(&mut self, simd: S, m: usize, column: usize, v: S::V) {
        simd.store_up_to(self.from(m, column), v);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_written_once() {
        let mut items = vec![0; 103];
        for_each_chunk(usize::MAX, &mut items, 10, |i, chunk| {
            assert_eq!(chunk.len(), if i == 10 { 3 } else { 10 });
            chunk.iter_mut().for_each(|item| *item += i + 1);
        });
        assert!(items.iter().enumerate().all(|(at, item)| *item == at / 10 + 1));
        let mut y = vec![0.0; 7 * 45];
        for_each_columns(usize::MAX, &mut y, 7, 16, |mut columns| {
            let range = columns.range();
            for m in 0..7 {
                assert_eq!(columns.row(m).len(), range.len());
                columns.row(m).iter_mut().zip(range.clone()).for_each(|(y, n)| *y += (100 * m + n) as f32);
            }
        });
        assert!(y.iter().enumerate().all(|(at, y)| *y == (at / 45 * 100 + at % 45) as f32));
    }
}
