//! Memory for the blocks of the cache: in large pages, for attention reads it from end to end; and counted, for rows share
//! blocks.

use memmap2::MmapMut;

use crate::error::Result;
use crate::pages::large_pages;

/// Bytes that are asked for at a time, about. The system gives them as they are first written.
const SLAB: usize = 16 << 20;

/// A block of an [`Arena`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockId(usize);

/// Blocks of one size. Whoever holds a [`BlockId`] counts as one that refers to the block, and releases it when done; a
/// block that nobody refers to is given out again.
#[derive(Debug)]
pub struct Arena {
    block_bytes: usize,
    blocks_per_slab: usize,
    slabs: Vec<MmapMut>,
    /// How many refer to each block.
    references: Vec<usize>,
    free: Vec<BlockId>,
}

impl Arena {
    /// Blocks of `block_bytes`, of which one user takes at most `most`.
    pub fn new(block_bytes: usize, most: usize) -> Self {
        let blocks_per_slab = (SLAB / block_bytes.max(1)).clamp(1, most.max(1));
        Self { block_bytes, blocks_per_slab, slabs: vec![], references: vec![], free: vec![] }
    }

    /// A block that nobody else refers to. What it holds is left over from others.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn take(&mut self) -> Result<BlockId> {
        if self.free.is_empty() {
            self.slabs.push(large_pages(self.blocks_per_slab.saturating_mul(self.block_bytes))?);
            let first = self.references.len();
            self.references.resize(first + self.blocks_per_slab, 0);
            // The first is given out first.
            self.free.extend((first..self.references.len()).rev().map(BlockId));
        }
        let id = self.free.pop().expect("just filled");
        self.references[id.0] = 1;
        Ok(id)
    }

    /// One more refers to the block.
    pub fn share(&mut self, id: BlockId) {
        self.references[id.0] += 1;
    }

    /// One less refers to the block.
    pub fn release(&mut self, id: BlockId) {
        self.references[id.0] -= 1;
        if self.references[id.0] == 0 {
            self.free.push(id);
        }
    }

    /// The block itself if nobody else refers to it, or else a copy in its stead.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn own(&mut self, id: BlockId) -> Result<BlockId> {
        if self.references[id.0] == 1 {
            return Ok(id);
        }
        let copy = self.take()?;
        let held = self.get(id).to_vec();
        self.get_mut(copy).copy_from_slice(&held);
        self.release(id);
        Ok(copy)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_block_is_copied_before_it_is_written() {
        let mut arena = Arena::new(4, 3);
        let first = arena.take().unwrap();
        arena.get_mut(first).copy_from_slice(b"abcd");
        assert_eq!(arena.own(first).unwrap(), first);
        arena.share(first);
        let copy = arena.own(first).unwrap();
        assert_ne!(copy, first);
        arena.get_mut(copy)[0] = b'x';
        assert_eq!((arena.get(first), arena.get(copy)), (&b"abcd"[..], &b"xbcd"[..]));
        let mut both = arena.several_mut([copy, first].into_iter());
        both[1][3] = b'y';
        assert_eq!(both[0], b"xbcd");
        assert_eq!(arena.get(first), b"abcy");
    }

    #[test]
    fn a_block_is_given_out_again_when_the_last_has_released_it() {
        let mut arena = Arena::new(4, 2);
        let ids: Vec<BlockId> = (0..5).map(|_| arena.take().unwrap()).collect();
        assert_eq!(arena.slabs.len(), 3);
        arena.share(ids[2]);
        arena.release(ids[2]);
        assert!((0..1).all(|_| arena.take().unwrap() != ids[2]));
        arena.release(ids[2]);
        assert_eq!(arena.take().unwrap(), ids[2]);
        assert_eq!(arena.slabs.len(), 3);
    }
}
