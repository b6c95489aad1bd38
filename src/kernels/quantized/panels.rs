//! Panels as they are read: their layout is `base`'s.

pub use crate::base::panels::blocks::{PAIR, PANEL, pack, unpack_row};

use crate::kernels::simd::Simd;

/// How many bytes ahead weights are asked for.
const AHEAD: usize = 16 << 10;

/// What will be read some blocks later. The processor's own prefetchers fall behind where there is so much to compute
/// between one block and the next.
pub(super) struct Ahead(*const u8);

impl Ahead {
    /// Ahead of the panels that begin here.
    pub fn of(panels: &[u8]) -> Self {
        Self(panels.as_ptr().wrapping_add(AHEAD))
    }

    /// Asks for the next `n` bytes. (In a loop that compares addresses, which the compiler leaves alone: unrolled, products
    /// with Q4_K took a third longer.)
    #[inline(always)]
    pub fn prefetch<S: Simd>(&mut self, simd: S, n: usize) {
        let end = self.0.wrapping_add(n);
        let mut line = self.0;
        while line < end {
            simd.prefetch(line);
            line = line.wrapping_add(64);
        }
        self.0 = end;
    }
}
