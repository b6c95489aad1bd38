//! The plan of a pass: which tokens run together, which kernel attends, which outputs are wanted, and the tables that
//! tell the kernels so.

use super::Network;
use super::arguments::Queries;
use super::cache::Cache;
use super::kernel::{Kernel, PAGE_POSITIONS, TILE_ROWS, prompt_queries};
use super::record::Record;
use super::shape::NetworkShape;
use crate::error::{Error, Result};
use crate::model::Segment;

/// New tokens of one row that are processed together, and the outputs wanted for them.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    pub row: usize,
    pub ids: &'a [u32],
    /// The number of positions before them.
    pub past: usize,
    /// The first token whose logits, most probable tokens, best token and hidden state are wanted.
    pub wanted_from: [usize; 4],
    /// The index of its segment.
    pub segment: usize,
}

/// How many positions want each kind of output. Logits are computed for the first three, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Wanted {
    pub logits: usize,
    pub top: usize,
    pub best: usize,
    pub hidden: usize,
    /// How many of the most probable tokens, for each of `top`.
    pub count: usize,
}

impl Wanted {
    /// Positions of all kinds.
    pub fn total(&self) -> usize {
        self.projected() + self.hidden
    }

    /// Positions whose logits are computed.
    pub fn projected(&self) -> usize {
        self.logits + self.top + self.best
    }

    /// Bytes for each of `top`: the sum and the tokens' ranks.
    pub fn top_bytes(&self) -> usize {
        (1 + self.count) * size_of::<u64>()
    }

    /// Bytes of best tokens, most probable tokens, logits and hidden states, in the order in which they are copied
    /// back.
    pub fn result_bytes(&self, shape: &NetworkShape) -> [usize; 4] {
        let float = size_of::<f32>();
        [
            self.best * size_of::<u64>(),
            self.top * self.top_bytes(),
            self.logits * shape.vocabulary * float,
            self.hidden * shape.width * float,
        ]
    }
}

/// Where a pass's tables are in the buffer that is sent to the GPU: offsets in bytes, which only depend on the counts.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub tokens: usize,
    pub tiles: usize,
    pub wanted: Wanted,
    /// Addresses of pages, by segment.
    pub tables: usize,
    /// For each token, the address of the page that takes its key and value.
    pub token_pages: usize,
    /// For each token, its position in that page.
    pub token_offsets: usize,
    pub ids: usize,
    /// For each token, its position in its row.
    pub positions: usize,
    pub queries: usize,
    /// Which tokens are wanted.
    pub rows: usize,
    pub bytes: usize,
}

impl Plan {
    /// For these numbers of segments and of tokens in total.
    pub fn new(segments: usize, tokens: usize, tiles: usize, wanted: Wanted, most_pages: usize) -> Self {
        let mut bytes = 0;
        let mut part = |count: usize, size: usize| {
            let at = bytes;
            bytes = (bytes + count * size).next_multiple_of(16);
            at
        };
        let tables = part(segments * most_pages, 8);
        let token_pages = part(tokens, 8);
        let queries = part(tiles, size_of::<Queries>());
        let [token_offsets, ids, positions] = [part(tokens, 4), part(tokens, 4), part(tokens, 4)];
        let rows = part(wanted.total(), 4);
        Self { tokens, tiles, wanted, tables, token_pages, token_offsets, ids, positions, queries, rows, bytes }
    }
}

impl Network {
    /// Writes the tables of a pass and reserves its buffers; `count` is how many of the most probable tokens are
    /// wanted.
    pub fn prepare(
        &self,
        parts: &[Part<'_>],
        count: usize,
        cache: &mut Cache,
        record: Option<&Record>,
    ) -> Result<Plan> {
        let shape = &self.shape;
        let most_pages = shape.most_pages();
        let (attention, tile) = self.attention(parts, record.is_some());
        let splits = attention == Kernel::AttentionSplit;
        let tokens = parts.iter().map(|part| part.ids.len()).sum();
        let tiles = parts.iter().map(|part| part.ids.len().div_ceil(tile)).sum();
        let [logits, top, best, hidden] =
            [0, 1, 2, 3].map(|i| parts.iter().map(|part| part.ids.len() - part.wanted_from[i]).sum());
        let wanted = Wanted { logits, top, best, hidden, count: if top > 0 { count } else { 0 } };
        let plan = Plan::new(parts.len(), tokens, tiles, wanted, most_pages);
        let results = wanted.result_bytes(shape).into_iter().sum();
        // The previous pass may still be using the buffers.
        self.gpu.synchronize()?;
        cache.scratch.reserve(&plan, splits, results)?;
        let bytes = cache.scratch.plan_host.as_mut().expect("reserved").bytes_mut();
        let mut queries = Vec::with_capacity(tiles);
        let mut first = 0;
        for (i, part) in parts.iter().enumerate() {
            let pages = cache.rows.pages(part.row);
            let address = |page: usize| cache.rows.memory.address(pages[page]);
            let total = part.past + part.ids.len();
            for page in 0..total.div_ceil(PAGE_POSITIONS) {
                put(bytes, plan.tables, i * most_pages + page, address(page).to_ne_bytes());
            }
            for (j, id) in part.ids.iter().enumerate() {
                let position = part.past + j;
                put(bytes, plan.token_pages, first + j, address(position / PAGE_POSITIONS).to_ne_bytes());
                put(bytes, plan.token_offsets, first + j, ((position % PAGE_POSITIONS) as u32).to_ne_bytes());
                put(bytes, plan.ids, first + j, id.to_ne_bytes());
                put(bytes, plan.positions, first + j, (position as u32).to_ne_bytes());
            }
            for from in (0..part.ids.len()).step_by(tile) {
                let (weights_at, stride, head) = match record {
                    Some(record) => record.place(part.segment, part.past + from),
                    None => (0, 0, 0),
                };
                queries.push(Queries {
                    first: (first + from) as i32,
                    count: tile.min(part.ids.len() - from) as i32,
                    position: (part.past + from) as i32,
                    table: (i * most_pages) as i32,
                    weights_at: number(weights_at)?,
                    weights_stride: number(stride)?,
                    weights_head: number(head)?,
                    past: part.past as i32,
                });
            }
            first += part.ids.len();
        }
        for (i, tile) in queries.iter().enumerate() {
            let Queries { first, count, position, table, weights_at, weights_stride, weights_head, past } = *tile;
            let fields = [first, count, position, table, weights_at, weights_stride, weights_head, past];
            for (j, field) in fields.into_iter().enumerate() {
                put(bytes, plan.queries, i * fields.len() + j, field.to_ne_bytes());
            }
        }
        let mut row = 0;
        for kind in 0..4 {
            let mut first = 0;
            for part in parts {
                for token in part.wanted_from[kind]..part.ids.len() {
                    put(bytes, plan.rows, row, ((first + token) as u32).to_ne_bytes());
                    row += 1;
                }
                first += part.ids.len();
            }
        }
        Ok(plan)
    }

    /// Which kernel computes attention, and how many queries per tile. Pages run in parallel if
    /// processing them in order would leave processors idle, and if probabilities are wanted.
    pub fn attention(&self, parts: &[Part<'_>], traced: bool) -> (Kernel, usize) {
        if traced {
            return (Kernel::AttentionSplit, TILE_ROWS);
        }
        if parts.iter().any(|part| part.ids.len() > TILE_ROWS) {
            return (Kernel::AttentionPrompt, prompt_queries(self.shape.numbers));
        }
        let in_order = parts.len() * self.shape.heads >= 2 * self.gpu.processors();
        (if in_order { Kernel::Attention8 } else { Kernel::AttentionSplit }, TILE_ROWS)
    }
}

/// A segment in pieces of at most `most` tokens.
pub fn split<'a>(
    segment: &Segment,
    number: usize,
    ids: &'a [u32],
    wanted_from: [usize; 4],
    most: usize,
) -> impl Iterator<Item = Part<'a>> + use<'a> {
    let (row, past) = (segment.row, segment.past);
    ids.chunks(most).enumerate().map(move |(i, ids)| Part {
        row,
        ids,
        past: past + i * most,
        wanted_from: wanted_from.map(|from| from.saturating_sub(i * most).min(ids.len())),
        segment: number,
    })
}

/// Groups of parts that run together, of at most `most` tokens.
pub fn passes<'p, 'a>(parts: &'p [Part<'a>], most: usize) -> impl Iterator<Item = &'p [Part<'a>]> {
    let mut rest = parts;
    std::iter::from_fn(move || {
        let mut tokens = 0;
        let fits = |part: &&Part<'_>| {
            tokens += part.ids.len();
            tokens <= most
        };
        let (now, later) = rest.split_at(rest.iter().take_while(fits).count());
        rest = later;
        (!now.is_empty()).then_some(now)
    })
}

/// The most positions that a row has after the pass.
pub fn most_positions(parts: &[Part<'_>]) -> usize {
    parts.iter().map(|part| part.past + part.ids.len()).max().unwrap_or(0)
}

/// Writes entry `i` of the table at `offset`.
fn put<const N: usize>(bytes: &mut [u8], offset: usize, i: usize, entry: [u8; N]) {
    bytes[offset + i * N..][..N].copy_from_slice(&entry);
}

fn number(n: usize) -> Result<i32> {
    i32::try_from(n).map_err(|_| Error::Unsupported("too many tokens to record attention weights at once".into()))
}
