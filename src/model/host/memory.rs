//! The CPU's memory of the cache as paging wants it.

use crate::error::Result;
use crate::kernels::{CacheMemory, PageId};
use crate::model::paging::PageMemory;

impl PageMemory for CacheMemory {
    fn grow(&mut self) -> Result<usize> {
        self.grow()
    }

    fn copy(&mut self, from: PageId, to: PageId) -> Result<()> {
        self.copy(from, to);
        Ok(())
    }
}
