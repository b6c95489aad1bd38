//! Where cached keys and values lie: pages of 16 positions, each with a part for every layer.
//!
//! A layer's part of a page has keys (H, D, 16), so that the scores of 16 positions are one vector and need no horizontal
//! sums, and then values (H, 16, D rounded up to 16).

use memmap2::MmapRaw;

use crate::base::pages::large_pages;
use crate::error::Result;
use crate::kernels::simd::LANES;

/// Positions of a page.
pub const PAGE_POSITIONS: usize = LANES;

/// Bytes that are asked for at a time, about. The system gives them as they are first written.
const SLAB: usize = 16 << 20;

/// Names a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageId(pub usize);

/// The shape of one layer's part of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheShape {
    /// `H`.
    pub heads: usize,
    /// `D`.
    pub head_dim: usize,
    /// Whether keys and values are kept as f16, or else as f32.
    pub half: bool,
}

impl CacheShape {
    /// `C`, the width of all heads' keys.
    #[must_use]
    pub fn width(self) -> usize {
        self.heads * self.head_dim
    }

    /// Bytes of a number.
    #[must_use]
    pub fn number_bytes(self) -> usize {
        if self.half { 2 } else { 4 }
    }

    /// The width of a stored value: `D` rounded up to whole vectors.
    pub(super) fn value_dim(self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    /// Bytes of one head's keys in a page.
    pub(super) fn head_key_bytes(self) -> usize {
        self.head_dim * PAGE_POSITIONS * self.number_bytes()
    }

    /// Bytes of one head's values in a page.
    pub(super) fn head_value_bytes(self) -> usize {
        self.value_dim() * PAGE_POSITIONS * self.number_bytes()
    }

    /// Bytes that one layer takes in a page.
    #[must_use]
    pub fn layer_bytes(self) -> usize {
        self.heads * (self.head_key_bytes() + self.head_value_bytes())
    }
}

/// Pages, numbered from 0 in the order in which they came into being.
#[derive(Debug)]
pub struct CacheMemory {
    shape: CacheShape,
    layers: usize,
    /// A slab has `1 << slab_bits` pages.
    slab_bits: u32,
    slabs: Vec<MmapRaw>,
}

impl CacheMemory {
    /// No pages yet; one row takes at most `most` of them.
    #[must_use]
    pub fn new(shape: CacheShape, layers: usize, most: usize) -> Self {
        let page_bytes = layers.saturating_mul(shape.layer_bytes()).max(1);
        let slab_bits = (SLAB / page_bytes).clamp(1, most.max(1)).ilog2();
        Self { shape, layers, slab_bits, slabs: vec![] }
    }

    /// The shape of a layer's part of a page.
    #[must_use]
    pub fn shape(&self) -> CacheShape {
        self.shape
    }

    /// Bytes of a page.
    #[must_use]
    pub fn page_bytes(&self) -> usize {
        self.layers * self.shape.layer_bytes()
    }

    /// Adds pages, which hold zeros, and returns how many.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn grow(&mut self) -> Result<usize> {
        let pages = 1 << self.slab_bits;
        self.slabs.push(large_pages(self.page_bytes().saturating_mul(pages))?.into());
        Ok(pages)
    }

    /// Makes a page hold what another holds.
    ///
    /// # Panics
    /// If there is no such page.
    pub fn copy(&mut self, from: PageId, to: PageId) {
        let (from, to) = (self.page(from), self.page(to));
        // SAFETY: both have a page's bytes, and nobody else uses the memory. They may be the same.
        unsafe { std::ptr::copy(from, to, self.page_bytes()) }
    }

    /// Where a page begins, which has [`page_bytes`](Self::page_bytes).
    fn page(&self, id: PageId) -> *mut u8 {
        let slab = &self.slabs[id.0 >> self.slab_bits];
        let index = id.0 & ((1 << self.slab_bits) - 1);
        // Within the slab, which has `1 << slab_bits` pages.
        slab.as_mut_ptr().wrapping_add(index * self.page_bytes())
    }

    /// A layer's part of a page.
    ///
    /// # Panics
    /// If there is no such page or layer.
    #[inline]
    pub(super) fn layer(&self, id: PageId, layer: usize) -> &[u8] {
        assert!(layer < self.layers, "a layer of the cache");
        let len = self.shape.layer_bytes();
        // SAFETY: a page has the bytes of all layers; they are written only by functions that have `self` to themselves.
        unsafe { std::slice::from_raw_parts(self.page(id).add(layer * len), len) }
    }

    /// The keys and values of one head in a layer's part of a page.
    ///
    /// # Panics
    /// If there is no such page, layer or head.
    ///
    /// # Safety
    /// The memory is borrowed for writing, and nobody else uses this head's part of the page meanwhile.
    #[allow(clippy::mut_from_ref, reason = "several threads write parts of one memory")]
    pub(super) unsafe fn head_mut(&self, id: PageId, layer: usize, head: usize) -> (&mut [u8], &mut [u8]) {
        assert!(layer < self.layers && head < self.shape.heads, "a layer and a head of the cache");
        let (keys, values) = (self.shape.head_key_bytes(), self.shape.head_value_bytes());
        // SAFETY: a page has the bytes of all layers, and each those of all heads; the caller promises the rest.
        unsafe {
            let start = self.page(id).add(layer * self.shape.layer_bytes());
            let values_at = self.shape.heads * keys + head * values;
            (
                std::slice::from_raw_parts_mut(start.add(head * keys), keys),
                std::slice::from_raw_parts_mut(start.add(values_at), values),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_apart_and_copied_whole() {
        let shape = CacheShape { heads: 2, head_dim: 4, half: true };
        let mut memory = CacheMemory::new(shape, 3, 2);
        assert_eq!((memory.grow().unwrap(), memory.grow().unwrap()), (2, 2));
        let heads = (0..4).flat_map(|page| (0..3).flat_map(move |layer| [(page, layer, 0), (page, layer, 1)]));
        for (i, (page, layer, head)) in heads.clone().enumerate() {
            // SAFETY: nobody else uses the memory.
            let (keys, values) = unsafe { memory.head_mut(PageId(page), layer, head) };
            keys.fill(2 * i as u8);
            values.fill(2 * i as u8 + 1);
        }
        memory.copy(PageId(2), PageId(1));
        for (i, (page, layer, head)) in heads.enumerate() {
            let i = if page == 1 { i + 6 } else { i } as u8;
            let part = memory.layer(PageId(page), layer);
            let (keys, values) = part.split_at(2 * shape.head_key_bytes());
            assert!(keys.chunks(shape.head_key_bytes()).nth(head).unwrap().iter().all(|x| *x == 2 * i));
            assert!(values.chunks(shape.head_value_bytes()).nth(head).unwrap().iter().all(|x| *x == 2 * i + 1));
        }
    }

    #[test]
    #[should_panic(expected = "a layer of the cache")]
    fn a_layer_that_is_not_there_is_refused() {
        let mut memory = CacheMemory::new(CacheShape { heads: 1, head_dim: 4, half: false }, 1, 1);
        memory.grow().unwrap();
        let _ = memory.layer(PageId(0), 1);
    }
}
