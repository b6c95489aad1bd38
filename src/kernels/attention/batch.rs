//! What attention covers in a pass: the new positions of each row, and the pages where the row's positions lie.

use std::ops::Range;

use super::memory::{PAGE_POSITIONS, PageId};

/// Queries that one task covers.
const TASK_QUERIES: usize = 32;

/// The new positions of the rows of a pass, one row after the other, and their page tables. Made once for all layers; its
/// buffers are kept from pass to pass.
#[derive(Debug, Default)]
pub struct Batch {
    spans: Vec<Span>,
    /// The pages of all rows.
    pages: Vec<PageId>,
    /// The pages that are written, in order.
    written: Vec<usize>,
}

/// The new positions of one row, and how much of everything belongs to the rows before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    /// The first of its positions in the batch.
    pub first: usize,
    /// `T`.
    pub len: usize,
    /// Positions that the row held before.
    pub past: usize,
    /// The first of its pages.
    pages: usize,
    /// Pages that rows before write.
    written_before: usize,
    /// Ranges of queries of rows before.
    ranges_before: usize,
    /// Attention weights of rows before, of one head.
    weights_before: usize,
}

impl Span {
    /// `S`, positions after the pass.
    pub fn total(&self) -> usize {
        self.past + self.len
    }
}

/// Queries of one row and one head that are a task for a thread.
pub(super) struct Task<'a> {
    pub span: Span,
    /// All pages of the row.
    pub pages: &'a [PageId],
    pub head: usize,
    /// Counted from the row's first new position.
    pub queries: Range<usize>,
}

impl Batch {
    /// Describes a pass: for each row the positions that it held before, the new ones, and its pages, those of the new
    /// positions included.
    ///
    /// # Panics
    /// If a row lacks pages, or if a page would be written for two rows.
    pub fn set<'a>(&mut self, rows: impl IntoIterator<Item = (usize, usize, &'a [PageId])>) {
        self.spans.clear();
        self.pages.clear();
        self.written.clear();
        let (mut first, mut ranges, mut weights) = (0, 0, 0);
        for (past, len, pages) in rows {
            let total = past + len;
            assert!(pages.len() >= total.div_ceil(PAGE_POSITIONS), "pages of a row");
            let pages = &pages[..total.div_ceil(PAGE_POSITIONS)];
            let (start, written_before) = (self.pages.len(), self.written.len());
            let (ranges_before, weights_before) = (ranges, weights);
            self.spans.push(Span { first, len, past, pages: start, written_before, ranges_before, weights_before });
            self.pages.extend(pages);
            self.written.extend(pages.iter().skip(past / PAGE_POSITIONS).map(|id| id.0));
            first += len;
            ranges += len.div_ceil(TASK_QUERIES);
            weights += len * total;
        }
        self.written.sort_unstable();
        assert!(self.written.windows(2).all(|pair| pair[0] < pair[1]), "a page is written for one row");
    }

    /// `N`, the new positions of all rows.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.spans.last().map_or(0, |span| span.first + span.len)
    }

    /// The attention weights of all rows and `heads`, (H, T, S) row after row: where each row's lie.
    pub fn weights(&self, heads: usize) -> impl Iterator<Item = Range<usize>> {
        self.spans.iter().map(move |span| {
            let start = heads * span.weights_before;
            start..start + heads * span.len * span.total()
        })
    }

    pub(super) fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// How many pages are written.
    pub(super) fn written(&self) -> usize {
        self.written.len()
    }

    /// The `i`th of the pages that are written: whose it is, the page's first position in the row, and its name. No two
    /// are the same.
    pub(super) fn written_page(&self, i: usize) -> (Span, usize, PageId) {
        let span = self.spans[self.spans.partition_point(|span| span.written_before <= i) - 1];
        let page = span.past / PAGE_POSITIONS + i - span.written_before;
        (span, page * PAGE_POSITIONS, self.pages[span.pages + page])
    }

    /// How many tasks attention has for each head.
    pub(super) fn tasks(&self) -> usize {
        self.spans.last().map_or(0, |span| span.ranges_before + span.len.div_ceil(TASK_QUERIES))
    }

    /// Task `i` of all `heads`: row after row, within a row head after head. No two cover the same query of a head.
    pub(super) fn task(&self, i: usize, heads: usize) -> Task<'_> {
        let span = self.spans[self.spans.partition_point(|span| span.ranges_before * heads <= i) - 1];
        let i = i - span.ranges_before * heads;
        let ranges = span.len.div_ceil(TASK_QUERIES);
        let (head, from) = (i / ranges, i % ranges * TASK_QUERIES);
        let pages = &self.pages[span.pages..][..span.total().div_ceil(PAGE_POSITIONS)];
        Task { span, pages, head, queries: from..span.len.min(from + TASK_QUERIES) }
    }

    /// Where the weights of a head begin, if they are kept as [`weights`](Self::weights) says.
    pub(super) fn weights_of(span: &Span, head: usize, heads: usize) -> usize {
        heads * span.weights_before + head * span.len * span.total()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(pages: &[usize]) -> Vec<PageId> {
        pages.iter().copied().map(PageId).collect()
    }

    #[test]
    fn tasks_and_pages_cover_everything_once() {
        let mut batch = Batch::default();
        let (a, b, c) = (ids(&[7, 3, 4, 5]), ids(&[7, 9]), ids(&[0, 1, 2]));
        batch.set([(16, 40, &a[..]), (31, 1, &b[..]), (0, 33, &c[..])]);
        assert_eq!(batch.positions(), 74);
        let written: Vec<_> = (0..batch.written()).map(|i| batch.written_page(i)).collect();
        let written: Vec<_> = written.iter().map(|(span, position, id)| (span.first, *position, id.0)).collect();
        let expected = [(0, 16, 3), (0, 32, 4), (0, 48, 5), (40, 16, 9), (41, 0, 0), (41, 16, 1), (41, 32, 2)];
        assert_eq!(written, expected);
        let tasks: Vec<_> = (0..2 * batch.tasks()).map(|i| batch.task(i, 2)).collect();
        let tasks: Vec<_> = tasks.iter().map(|t| (t.span.first, t.head, t.queries.clone(), t.pages.len())).collect();
        let expected = [
            (0, 0, 0..32, 4),
            (0, 0, 32..40, 4),
            (0, 1, 0..32, 4),
            (0, 1, 32..40, 4),
            (40, 0, 0..1, 2),
            (40, 1, 0..1, 2),
            (41, 0, 0..32, 3),
            (41, 0, 32..33, 3),
            (41, 1, 0..32, 3),
            (41, 1, 32..33, 3),
        ];
        assert_eq!(tasks, expected);
        let weights: Vec<_> = batch.weights(2).collect();
        assert_eq!(weights, [0..4480, 4480..4544, 4544..6722]);
    }

    /// Two threads would write the same page.
    #[test]
    #[should_panic(expected = "a page is written for one row")]
    fn rows_that_write_the_same_page_are_refused() {
        let pages = ids(&[4]);
        Batch::default().set([(3, 1, &pages[..]), (5, 1, &pages[..])]);
    }
}
