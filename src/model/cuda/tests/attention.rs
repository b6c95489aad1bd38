//! Attention over pages.

use super::products::{Product, cached, shape};
use super::*;

/// Attention of layer 1 over pages.
struct Attend<'a> {
    shape: NetworkShape,
    q: &'a Memory,
    tokens: usize,
    table: &'a Memory,
    /// Pages that are processed in parallel.
    pages: usize,
}

const SCALE: f32 = 0.3;

impl Attend<'_> {
    fn run(&self, kernel: Kernel, queries: &[Queries], weights: Option<&Memory>) -> Vec<u8> {
        let shape = &self.shape;
        let (width, most_pages) = (shape.width, shape.most_pages());
        let partials = self.tokens * shape.heads * most_pages;
        // NaN shows what is read before it is written.
        let [partial, totals] = [partials * shape.value_dim * 4, partials * 8].map(|bytes| upload(&vec![0xff; bytes]));
        let done = upload(&vec![0; queries.len() * shape.heads * 4]);
        let y = untouched(self.tokens * shape.padded * shape.numbers.size());
        let fields = queries.iter().flat_map(|tile| {
            let Queries { first, count, position, table, weights_at, weights_stride, weights_head, past } = *tile;
            [first, count, position, table, weights_at, weights_stride, weights_head, past]
        });
        let queries_memory = words(&fields.collect::<Vec<_>>(), |field| field.to_ne_bytes());
        let arguments = AttentionArgs {
            q: self.q.address(),
            pages: self.table.address(),
            queries: queries_memory.address(),
            y: y.address(),
            partial: partial.address(),
            totals: totals.address(),
            done: done.address(),
            weights: weights.map_or(0, Memory::address),
            scale: SCALE,
            q_stride: (shape.heads * shape.key_dim) as i32,
            y_stride: shape.padded as i32,
            most_pages: most_pages as i32,
            cached: CachedArgs::new(shape, 1),
        };
        let deep = match kernel {
            Kernel::AttentionSplit => self.pages,
            _ => shape.value_dim.div_ceil(MIXED_NUMBERS),
        };
        launch(kernel, shape.numbers, [queries.len(), shape.heads, deep], 0, &arguments);
        assert!(download(&done).iter().all(|byte| *byte == 0), "counters are as they were");
        let mut rows = vec![];
        for row in download(&y).chunks(shape.padded * shape.numbers.size()) {
            let (inside, outside) = row.split_at(width * shape.numbers.size());
            assert!(outside.iter().all(|byte| *byte == UNTOUCHED), "written beyond a row");
            rows.extend_from_slice(inside);
        }
        rows
    }
}

/// New positions of rows: how many each had before, and how many are added.
type Parts = [(usize, usize)];

/// Tiles of up to `most` queries.
fn tiles(shape: &NetworkShape, parts: &Parts, most: usize) -> Vec<Queries> {
    let (mut first, mut weights_at) = (0, 0);
    let mut tiles = vec![];
    for (i, (past, len)) in parts.iter().copied().enumerate() {
        let total = past + len;
        for from in (0..len).step_by(most) {
            tiles.push(Queries {
                first: (first + from) as i32,
                count: most.min(len - from) as i32,
                position: (past + from) as i32,
                table: (i * shape.most_pages()) as i32,
                weights_at: (weights_at + from * total) as i32,
                weights_stride: total as i32,
                weights_head: (len * total) as i32,
                past: past as i32,
            });
        }
        first += len;
        weights_at += shape.heads * len * total;
    }
    tiles
}

#[test]
#[cfg_attr(feature = "cuda", ignore = "needs a GPU: --include-ignored")]
fn attention_is_right_and_the_same_bits_in_every_kernel_and_for_a_query_alone() {
    let parts = [(0, 1), (0, 7), (3, 8), (60, 9), (63, 1), (64, 1), (126, 3), (150, 33), (0, 65), (198, 5)];
    for numbers in TYPES {
        for (heads, head_dim) in [(3, 2), (2, 20), (2, 24), (1, 64), (2, 80), (1, 128), (1, 150)] {
            attention_is_right(shape(numbers, heads, head_dim, 4 * PAGE_POSITIONS + 9), &parts);
        }
        // More pages than are mixed at a time.
        let pages = 64 * PAGE_POSITIONS;
        attention_is_right(shape(numbers, 1, 5, pages + 200), &[(pages + 130, 3), (pages - 2, 9), (70, 1)]);
    }
}

/// Each row's pages of two layers, in a shuffled order, filled with other numbers where the row has no positions.
struct Pages {
    shape: NetworkShape,
    rows: usize,
    numbers: Vec<f32>,
}

impl Pages {
    fn new(shape: NetworkShape, rows: usize) -> Self {
        let count = rows * shape.most_pages() * shape.page_bytes() / shape.numbers.size();
        let mut pages = Self { shape, rows, numbers: noise_of(shape.numbers, count, 9) };
        let NetworkShape { heads, head_dim, key_dim, value_dim, .. } = shape;
        for (row, head) in (0..rows).flat_map(|row| (0..heads).map(move |head| (row, head))) {
            for position in 0..shape.most_pages() * PAGE_POSITIONS {
                let key = pages.key_at(row, head, position);
                pages.numbers[key..][head_dim..key_dim].fill(0.0);
                for d in head_dim..value_dim {
                    let value = pages.value_at(row, head, position, d);
                    pages.numbers[value] = 0.0;
                }
            }
        }
        pages
    }

    /// The index of a row's page in memory.
    fn place(&self, row: usize, page: usize) -> usize {
        (row * self.shape.most_pages() + page) * 7 % (self.rows * self.shape.most_pages())
    }

    /// Where the page of a position begins.
    fn page_at(&self, row: usize, position: usize) -> usize {
        self.place(row, position / PAGE_POSITIONS) * self.shape.page_bytes() / self.shape.numbers.size()
    }

    /// Where a key of layer 1 begins.
    fn key_at(&self, row: usize, head: usize, position: usize) -> usize {
        let key = (head * PAGE_POSITIONS + position % PAGE_POSITIONS) * self.shape.key_dim;
        self.page_at(row, position) + self.shape.layer_at(1).0 + key
    }

    /// Where a number of a value of layer 1 is.
    fn value_at(&self, row: usize, head: usize, position: usize, d: usize) -> usize {
        let value = (head * self.shape.value_dim + d) * PAGE_POSITIONS + position % PAGE_POSITIONS;
        self.page_at(row, position) + self.shape.layer_at(1).1 + value
    }

    /// The pages, and the table of their addresses.
    fn upload(&self) -> (Memory, Memory) {
        let memory = upload(&bytes(self.shape.numbers, &self.numbers));
        let most_pages = self.shape.most_pages();
        let places = (0..self.rows * most_pages).map(|i| self.place(i / most_pages, i % most_pages));
        let address = |i: usize| memory.address() + (i * self.shape.page_bytes()) as u64;
        let table = words(&places.map(address).collect::<Vec<_>>(), |address| address.to_ne_bytes());
        (memory, table)
    }
}

fn attention_is_right(shape: NetworkShape, parts: &Parts) {
    let NetworkShape { numbers, heads, head_dim, key_dim, .. } = shape;
    let width = heads * head_dim;
    let tokens: usize = parts.iter().map(|(_, len)| len).sum();
    // Large scores, so that pages weigh differently.
    let q: Vec<f32> = noise_of(numbers, tokens * width, 8).iter().map(|q| 4.0 * q).collect();
    let mut padded_q = spread(&q, head_dim, key_dim, 0.0);
    // Tiles are whole, but no query may depend on the padding.
    padded_q.resize((tokens + 2 * TILE_ROWS) * heads * key_dim, f32::NAN);
    let most_pages = shape.most_pages();
    let pages = Pages::new(shape, parts.len());
    let q_memory = upload(&bytes(numbers, &padded_q));
    let (_page_memory, table) = pages.upload();
    let needed = parts.iter().map(|(past, len)| (past + len).div_ceil(PAGE_POSITIONS)).max().unwrap();
    let attend = Attend { shape, q: &q_memory, tokens, table: &table, pages: needed };
    let probabilities: usize = parts.iter().map(|(past, len)| heads * len * (past + len)).sum();

    let weights = untouched(probabilities * 4);
    let y = attend.run(Kernel::AttentionSplit, &tiles(&shape, parts, 8), Some(&weights));
    let weights = download(&weights);
    for (kernel, most, pages, traced) in [
        (Kernel::AttentionSplit, 8, needed, false),
        (Kernel::AttentionSplit, 1, needed, true),
        (Kernel::AttentionSplit, 5, most_pages, true),
        (Kernel::Attention8, 8, 0, false),
        (Kernel::Attention8, 1, 0, false),
        (Kernel::AttentionPrompt, prompt_queries(numbers), 0, false),
        (Kernel::AttentionPrompt, 19, 0, false),
        (Kernel::AttentionPrompt, 1, 0, false),
    ] {
        let attend = Attend { pages, ..attend };
        let other = untouched(weights.len());
        let what = format!("{kernel:?}, {numbers:?}, {heads} x {head_dim}, {most} at a time");
        assert!(attend.run(kernel, &tiles(&shape, parts, most), traced.then_some(&other)) == y, "{what}");
        assert!(!traced || download(&other) == weights, "{what}: probabilities");
    }

    let (y, weights) = (floats(numbers, &y), floats(F32, &weights));
    let rows = parts.iter().zip(tiles(&shape, parts, usize::MAX)).enumerate();
    for (row, ((past, len), tile)) in rows {
        for (query, head) in (0..*len).flat_map(|query| (0..heads).map(move |head| (query, head))) {
            let token = tile.first as usize + query;
            let q = &q[(token * heads + head) * head_dim..][..head_dim];
            let (mut scores, mut largest) = (vec![], 0f64);
            for position in 0..=past + query {
                let key = &pages.numbers[pages.key_at(row, head, position)..][..head_dim];
                let terms = q.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k) * f64::from(SCALE));
                scores.push(terms.clone().sum::<f64>());
                largest = largest.max(terms.map(f64::abs).sum());
            }
            let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = scores.iter().map(|score| (score - most).exp()).sum();
            let p: Vec<f64> = scores.iter().map(|score| (score - most).exp() / total).collect();
            // A score is a sum of `head_dim` products, scaled, minus the largest, which is one too. That error is the
            // relative error of its exponential, and of the sum of them all; both are mixed twice, within a page and
            // across pages, over all positions.
            let part = EPSILON * (4.0 * (head_dim + 4) as f64 * largest + (2 * p.len() + 32) as f64);
            let what = || format!("{numbers:?}, {heads} x {head_dim}, row {row}, query {query}, head {head}");
            let at = tile.weights_at + head as i32 * tile.weights_head + query as i32 * tile.weights_stride;
            let (ours, later) = weights[at as usize..][..past + len].split_at(p.len());
            for (ours, p) in ours.iter().zip(&p) {
                near(F32, *ours, *p, p * part + f64::from(f32::MIN_POSITIVE), what);
            }
            assert!(later.iter().all(|x| x.to_ne_bytes() == [UNTOUCHED; 4]), "{}: written beyond", what());
            for d in 0..head_dim {
                let values = (0..p.len()).map(|at| f64::from(pages.numbers[pages.value_at(row, head, at, d)]));
                let size = |p: f64, value: f64| (p * value).abs();
                let (mut exact, mut sizes, mut all) = (0.0, 0.0, 0.0);
                for (p, value) in p.iter().zip(values) {
                    exact += p * value;
                    sizes += size(*p, value);
                    all += value.abs();
                }
                // Probabilities are stored before they are divided by a total of at least 1.
                let off = (part + unit(numbers)) * sizes + least(numbers) * all;
                near(numbers, y[token * width + head * head_dim + d], exact, off, || format!("{}, {d}", what()));
            }
        }
    }
}

/// In its queries, keys and values; pages without positions are NaN too.
#[test]
#[cfg_attr(feature = "cuda", ignore = "needs a GPU: --include-ignored")]
fn a_row_of_nan_gets_nan_and_leaves_the_other_rows_alone() {
    let parts = [(70, 3), (30, 40), (0, 9)];
    for numbers in TYPES {
        let shape = shape(numbers, 2, 20, 4 * PAGE_POSITIONS);
        let (tokens, most_pages) = (52, shape.most_pages());
        let clean = Pages::new(shape, parts.len());
        let mut pages = Pages { numbers: clean.numbers.clone(), ..clean };
        let page_numbers = shape.page_bytes() / numbers.size();
        for (row, (past, len)) in parts.into_iter().enumerate() {
            let first = if row == 1 { 0 } else { (past + len).div_ceil(PAGE_POSITIONS) };
            for page in first..most_pages {
                let at = pages.page_at(row, page * PAGE_POSITIONS);
                pages.numbers[at..][..page_numbers].fill(f32::NAN);
            }
        }
        let q_row = shape.heads * shape.key_dim;
        let mut q = spread(&noise_of(numbers, tokens * shape.width, 8), shape.head_dim, shape.key_dim, 0.0);
        q.resize((tokens + 2 * TILE_ROWS) * q_row, f32::NAN);
        let clean_q = upload(&bytes(numbers, &q));
        q[3 * q_row..][..40 * q_row].fill(f32::NAN);
        let q = upload(&bytes(numbers, &q));
        let ((_clean_memory, clean_table), (_memory, table)) = (clean.upload(), pages.upload());
        for (kernel, most) in
            [(Kernel::AttentionSplit, 8), (Kernel::Attention8, 8), (Kernel::AttentionPrompt, prompt_queries(numbers))]
        {
            let tiles = tiles(&shape, &parts, most);
            let attend = Attend { shape, q: &q, tokens, table: &table, pages: most_pages };
            let y = attend.run(kernel, &tiles, None);
            let expected = Attend { q: &clean_q, table: &clean_table, ..attend }.run(kernel, &tiles, None);
            let row_bytes = shape.width * numbers.size();
            let (before, rest) = y.split_at(3 * row_bytes);
            let (of_nan, after) = rest.split_at(40 * row_bytes);
            assert!(floats(numbers, of_nan).iter().all(|y| y.is_nan()), "{kernel:?}, {numbers:?}");
            assert!(before == &expected[..3 * row_bytes], "{kernel:?}, {numbers:?}: the row before");
            assert!(after == &expected[43 * row_bytes..], "{kernel:?}, {numbers:?}: the row after");
        }
    }
}

/// As with beams: row 1 is row 0 with its own last page, and row 2 holds the same, read separately.
#[test]
#[cfg_attr(feature = "cuda", ignore = "needs a GPU: --include-ignored")]
fn a_row_with_a_copied_block_attends_to_what_it_holds_and_leaves_the_other_row_alone() {
    for numbers in TYPES {
        let shape = shape(numbers, 3, 4, 100);
        let mut cache = GPU.with(|gpu| Cache::new(gpu, shape));
        let (len, past) = (71, 70);
        let product = Product::new(numbers, len + 1, shape.width, 3 * shape.width, false);
        let q_stride = shape.heads * shape.key_dim;
        let q = upload(&vec![0; (len + 1 + 2 * TILE_ROWS) * q_stride * numbers.size()]);
        // Appends tokens, from index `first` on, to a row.
        let read = |cache: &mut Cache, row, first: usize, len: usize, past: usize| {
            let segment = [Segment { row, first: 0, len, past }];
            cache.rows.reserve(&segment).unwrap();
            let places: Vec<usize> = (past..past + len).collect();
            let address = |at: &usize| cache.rows.memory.address(cache.rows.pages(row)[at / PAGE_POSITIONS]);
            let pages = words(&places, |at| address(at).to_ne_bytes());
            let positions = words(&places, |at| ((at % PAGE_POSITIONS) as u32).to_ne_bytes());
            let mut to = cached(&shape, 1, (&q, q_stride), &pages, &positions);
            to.y += (first * q_stride * numbers.size()) as u64;
            product.run(if len > 1 { Kernel::Matmul64x64 } else { Kernel::Matmul8 }, first, len, to);
            cache.rows.commit(&segment);
        };
        // The attention of a token's query at a position of a row.
        let attend = |cache: &Cache, row, token: usize, position: usize| {
            let table = words(cache.rows.pages(row), |id| cache.rows.memory.address(*id).to_ne_bytes());
            let attend = Attend { shape, q: &q, tokens: len + 1, table: &table, pages: 2 };
            let tile = Queries {
                first: token as i32,
                count: 1,
                position: position as i32,
                past: position as i32,
                ..Queries::default()
            };
            let row_bytes = shape.width * numbers.size();
            attend.run(Kernel::AttentionSplit, &[tile], None)[token * row_bytes..][..row_bytes].to_vec()
        };
        read(&mut cache, 0, 0, past, 0);
        let before = attend(&cache, 0, past - 1, past - 1);
        cache.rows.assign(&[(1, 0)]);
        read(&mut cache, 1, past, 1, past);
        assert_eq!(cache.rows.pages(0)[0], cache.rows.pages(1)[0]);
        assert_ne!(cache.rows.pages(0)[1], cache.rows.pages(1)[1]);
        // Row 0 continues differently.
        read(&mut cache, 0, past + 1, 1, past);
        assert_eq!(attend(&cache, 0, past - 1, past - 1), before, "{numbers:?}");
        assert_eq!(attend(&cache, 1, past - 1, past - 1), before, "{numbers:?}");
        let [other, copied] = [0, 1].map(|row| attend(&cache, row, past, past));
        read(&mut cache, 2, 0, len, 0);
        assert_eq!(copied, attend(&cache, 2, past, past), "{numbers:?}");
        assert_ne!(copied, other, "{numbers:?}: they do not hold the same");
    }
}
