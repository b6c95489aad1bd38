//! Memory for the blocks of the cache: in large pages, for attention reads it from end to end.

use memmap2::MmapMut;

use crate::base::pages::large_pages;
use crate::error::Result;
use crate::model::paging::{BlockId, BlockMemory};

/// Bytes that are asked for at a time, about. The system gives them as they are first written.
const SLAB: usize = 16 << 20;

/// Blocks of one size.
#[derive(Debug)]
pub struct Arena {
    block_bytes: usize,
    blocks_per_slab: usize,
    slabs: Vec<MmapMut>,
}

impl Arena {
    /// Blocks of `block_bytes`, of which one user takes at most `most`.
    pub fn new(block_bytes: usize, most: usize) -> Self {
        let blocks_per_slab = (SLAB / block_bytes.max(1)).clamp(1, most.max(1));
        Self { block_bytes, blocks_per_slab, slabs: vec![] }
    }

    /// The bytes of a block.
    pub fn get(&self, id: BlockId) -> &[u8] {
        let (slab, at) = self.place(id);
        &self.slabs[slab][at..at + self.block_bytes]
    }

    fn get_mut(&mut self, id: BlockId) -> &mut [u8] {
        let (slab, at) = self.place(id);
        &mut self.slabs[slab][at..at + self.block_bytes]
    }

    fn place(&self, id: BlockId) -> (usize, usize) {
        (id.0 / self.blocks_per_slab, id.0 % self.blocks_per_slab * self.block_bytes)
    }

    /// The bytes of several blocks, all different, in the order in which they are named.
    pub fn several_mut(&mut self, ids: impl Iterator<Item = BlockId>) -> Vec<&mut [u8]> {
        let mut all: Vec<Option<&mut [u8]>> =
            self.slabs.iter_mut().flat_map(|slab| slab.chunks_exact_mut(self.block_bytes)).map(Some).collect();
        ids.filter_map(|id| all[id.0].take()).collect()
    }
}

impl BlockMemory for Arena {
    fn grow(&mut self) -> Result<usize> {
        self.slabs.push(large_pages(self.blocks_per_slab.saturating_mul(self.block_bytes))?);
        Ok(self.blocks_per_slab)
    }

    fn copy(&mut self, from: BlockId, to: BlockId) -> Result<()> {
        let held = self.get(from).to_vec();
        self.get_mut(to).copy_from_slice(&held);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_lie_side_by_side_in_slabs() {
        let mut arena = Arena::new(4, 2);
        assert_eq!((arena.grow().unwrap(), arena.grow().unwrap()), (2, 2));
        arena.get_mut(BlockId(2)).copy_from_slice(b"abcd");
        arena.copy(BlockId(2), BlockId(1)).unwrap();
        arena.get_mut(BlockId(1))[0] = b'x';
        let mut both = arena.several_mut([BlockId(1), BlockId(2)].into_iter());
        both[1][3] = b'y';
        assert_eq!(both[0], b"xbcd");
        assert_eq!(arena.get(BlockId(2)), b"abcy");
    }
}
