//! Positions of rows in pages: a copy of a row shares all of its pages and only pays for the one it writes to next. So
//! beams share their prompt, dropping a row frees what no other row uses, and rows of mixed lengths take no more than
//! they need. (The idea is vLLM's paged attention, arXiv 2309.06180.)
//!
//! [`PageMemory`] decides where pages are.

use super::Segment;
use crate::error::Result;
pub use crate::kernels::PageId;

/// Memory in pages of equal size, numbered from 0.
pub trait PageMemory {
    /// Adds pages, at least one, and returns how many.
    ///
    /// # Errors
    /// If there is not enough memory.
    fn grow(&mut self) -> Result<usize>;

    /// Checks that there is memory for `pages` that have never been written.
    ///
    /// # Errors
    /// If there is not.
    fn check(&self, _pages: usize) -> Result<()> {
        Ok(())
    }

    /// Copies the content of a page to another.
    ///
    /// # Errors
    /// If the device fails.
    fn copy(&mut self, from: PageId, to: PageId) -> Result<()>;

    /// Prepares a page for a new use; it may hold old data.
    ///
    /// # Errors
    /// If the device fails.
    fn renew(&mut self, _id: PageId) -> Result<()> {
        Ok(())
    }
}

/// Any number of rows; a row is created, empty, when it is first named.
#[derive(Debug)]
pub struct PagedRows<M> {
    /// Where the pages are.
    pub memory: M,
    /// Positions in a page.
    page_positions: usize,
    /// How many rows refer to each page.
    references: Vec<usize>,
    /// Those that have never been used come first.
    free: Vec<PageId>,
    /// How many pages have been used.
    used: usize,
    rows: Vec<Row>,
}

#[derive(Debug, Clone, Default)]
struct Row {
    pages: Vec<PageId>,
    len: usize,
}

impl<M: PageMemory> PagedRows<M> {
    /// No rows yet.
    pub fn new(memory: M, page_positions: usize) -> Self {
        Self { memory, page_positions, references: vec![], free: vec![], used: 0, rows: vec![] }
    }

    /// The number of positions that `row` holds.
    pub fn len(&self, row: usize) -> usize {
        self.rows.get(row).map_or(0, |row| row.len)
    }

    /// The pages of `row`, in the order of its positions.
    pub fn pages(&self, row: usize) -> &[PageId] {
        &self.rows[row].pages
    }

    /// Drops the positions of `row` from `len` on.
    pub fn truncate(&mut self, row: usize, len: usize) {
        if let Some(state) = self.rows.get_mut(row).filter(|row| row.len > len) {
            state.len = len;
            self.drop_left_overs(row);
        }
    }

    /// Makes each `to` hold what `from` held before the call; `moves` are `(to, from)`.
    pub fn assign(&mut self, moves: &[(usize, usize)]) {
        let sources: Vec<Row> =
            moves.iter().map(|(_, from)| self.rows.get(*from).cloned().unwrap_or_default()).collect();
        // Shared before anything is released, so that no page becomes free in between.
        sources.iter().flat_map(|source| &source.pages).for_each(|id| self.references[id.0] += 1);
        for ((to, _), source) in moves.iter().zip(sources) {
            self.name(*to);
            let old = std::mem::replace(&mut self.rows[*to], source);
            old.pages.into_iter().for_each(|id| self.release(id));
        }
    }

    /// Makes room for new positions that no other row shares; lengths only change with [`commit`](Self::commit).
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn reserve(&mut self, segments: &[Segment]) -> Result<()> {
        for s in segments {
            self.name(s.row);
            // Left over from a pass that failed and was not rolled back.
            self.drop_left_overs(s.row);
        }
        let fresh = self.fresh(segments);
        if fresh > 0 {
            self.memory.check(fresh)?;
        }
        for s in segments {
            if !s.past.is_multiple_of(self.page_positions)
                && let Some(last) = self.rows[s.row].pages.last().copied()
            {
                let own = self.own(last)?;
                self.rows[s.row].pages.pop();
                self.rows[s.row].pages.push(own);
            }
            while self.rows[s.row].pages.len() < s.total().div_ceil(self.page_positions) {
                let id = self.take()?;
                self.rows[s.row].pages.push(id);
                self.memory.renew(id)?;
            }
        }
        Ok(())
    }

    /// How many pages that have never been used the new positions take, at most.
    fn fresh(&self, segments: &[Segment]) -> usize {
        let needed = |s: &Segment| {
            let pages = &self.rows[s.row].pages;
            let is_shared = |id: &PageId| self.references[id.0] > 1;
            let copied = !s.past.is_multiple_of(self.page_positions) && pages.last().is_some_and(is_shared);
            s.total().div_ceil(self.page_positions) - pages.len() + usize::from(copied)
        };
        let needed: usize = segments.iter().map(needed).sum();
        let never_used = self.references.len() - self.used;
        needed.saturating_sub(self.free.len() - never_used)
    }

    /// Releases the room that was made for new positions.
    pub fn roll_back(&mut self, segments: &[Segment]) {
        for s in segments {
            self.name(s.row);
            self.drop_left_overs(s.row);
        }
    }

    /// Makes the new positions part of their rows.
    pub fn commit(&mut self, segments: &[Segment]) {
        for s in segments {
            self.rows[s.row].len = s.total();
        }
    }

    fn name(&mut self, row: usize) {
        if row >= self.rows.len() {
            self.rows.resize_with(row + 1, Row::default);
        }
    }

    /// Releases pages beyond the length of a row.
    fn drop_left_overs(&mut self, row: usize) {
        let Row { pages, len } = &mut self.rows[row];
        let needed = len.div_ceil(self.page_positions).min(pages.len());
        let left_over = pages.split_off(needed);
        left_over.into_iter().for_each(|id| self.release(id));
    }

    /// A page that no row refers to.
    fn take(&mut self) -> Result<PageId> {
        if self.free.is_empty() {
            let first = self.references.len();
            let more = self.memory.grow()?;
            self.references.resize(first + more, 0);
            // Reversed, so that the first is taken first.
            self.free.extend((first..first + more).rev().map(PageId));
        }
        let id = self.free.pop().expect("just filled");
        self.used = self.used.max(id.0 + 1);
        self.references[id.0] = 1;
        Ok(id)
    }

    fn release(&mut self, id: PageId) {
        self.references[id.0] -= 1;
        if self.references[id.0] == 0 {
            self.free.push(id);
        }
    }

    /// The page itself if only one row refers to it, else a copy to replace it.
    fn own(&mut self, id: PageId) -> Result<PageId> {
        if self.references[id.0] == 1 {
            return Ok(id);
        }
        let copy = self.take()?;
        if let Err(error) = self.memory.copy(id, copy) {
            self.release(copy);
            return Err(error);
        }
        self.release(id);
        Ok(copy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages of one number each, three at a time.
    #[derive(Default)]
    struct Numbers(Vec<i32>);

    impl PageMemory for Numbers {
        fn grow(&mut self) -> Result<usize> {
            self.0.extend([0; 3]);
            Ok(3)
        }

        fn copy(&mut self, from: PageId, to: PageId) -> Result<()> {
            self.0[to.0] = self.0[from.0];
            Ok(())
        }

        fn renew(&mut self, id: PageId) -> Result<()> {
            self.0[id.0] = -1;
            Ok(())
        }
    }

    /// Appends `len` positions to `row` and writes `number` into its last page.
    fn append(rows: &mut PagedRows<Numbers>, row: usize, len: usize, number: i32) {
        let segment = Segment { row, first: 0, len, past: rows.len(row) };
        rows.reserve(&[segment]).unwrap();
        let last = *rows.pages(row).last().unwrap();
        rows.memory.0[last.0] = number;
        rows.commit(&[segment]);
    }

    fn numbers(rows: &PagedRows<Numbers>, row: usize) -> Vec<i32> {
        rows.pages(row).iter().map(|id| rows.memory.0[id.0]).collect()
    }

    #[test]
    fn a_shared_page_is_copied_before_it_is_written() {
        let mut rows = PagedRows::new(Numbers::default(), 4);
        append(&mut rows, 0, 4, 1);
        append(&mut rows, 0, 2, 2);
        rows.assign(&[(1, 0), (2, 0)]);
        assert_eq!(rows.pages(1), rows.pages(0));
        append(&mut rows, 1, 1, 3);
        assert_eq!((numbers(&rows, 0), numbers(&rows, 1), numbers(&rows, 2)), (vec![1, 2], vec![1, 3], vec![1, 2]));
        assert_eq!(rows.pages(1)[0], rows.pages(0)[0]);
        // Rows that swap share no more than before.
        rows.assign(&[(0, 1), (1, 0)]);
        assert_eq!((numbers(&rows, 0), numbers(&rows, 1)), (vec![1, 3], vec![1, 2]));
        // The only row left with a page writes in place.
        let own = rows.pages(0)[1];
        append(&mut rows, 0, 1, 4);
        assert_eq!(rows.pages(0)[1], own);
    }

    #[test]
    fn a_page_is_given_out_again_when_the_last_has_released_it() {
        let mut rows = PagedRows::new(Numbers::default(), 4);
        append(&mut rows, 0, 12, 1);
        rows.assign(&[(1, 0)]);
        let first = rows.pages(0)[2];
        rows.truncate(0, 8);
        append(&mut rows, 2, 1, 5);
        assert_ne!(rows.pages(2)[0], first);
        rows.truncate(1, 0);
        append(&mut rows, 3, 1, 6);
        assert_eq!(rows.pages(3)[0], first);
        assert_eq!(rows.memory.0.len(), 6);
    }

    #[test]
    fn only_pages_that_were_never_used_need_memory() {
        let mut rows = PagedRows::new(Numbers::default(), 4);
        let fresh = |rows: &PagedRows<Numbers>, row: usize, len: usize| {
            rows.fresh(&[Segment { row, first: 0, len, past: rows.len(row) }])
        };
        append(&mut rows, 0, 6, 1);
        assert_eq!((fresh(&rows, 0, 2), fresh(&rows, 0, 3), fresh(&rows, 0, 10)), (0, 1, 2));
        // The second row writes to a copy of the page that both share.
        rows.assign(&[(1, 0)]);
        assert_eq!((fresh(&rows, 1, 1), fresh(&rows, 1, 3)), (1, 2));
        rows.truncate(1, 0);
        rows.truncate(0, 0);
        append(&mut rows, 1, 1, 2);
        assert_eq!((fresh(&rows, 1, 3), fresh(&rows, 1, 7), fresh(&rows, 1, 8)), (0, 0, 1));
    }

    #[test]
    fn a_failed_pass_gives_back_what_it_reserved() {
        let mut rows = PagedRows::new(Numbers::default(), 4);
        append(&mut rows, 0, 3, 1);
        rows.reserve(&[Segment { row: 0, first: 0, len: 9, past: 3 }]).unwrap();
        assert_eq!((rows.len(0), rows.pages(0).len()), (3, 3));
        append(&mut rows, 0, 1, 2);
        assert_eq!((rows.len(0), rows.pages(0).len()), (4, 1));
        append(&mut rows, 0, 1, 3);
        assert_eq!(rows.memory.0.len(), 3);
    }
}
