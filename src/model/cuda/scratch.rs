//! Buffers of a pass. They grow as needed and are reused; graphs remember their addresses.

use super::arguments::Queries;
use super::gpu::{Gpu, Memory, Staging};
use super::shape::{NetworkShape, PassBytes, PassRoom};
use crate::error::Result;

/// Buffers of a pass.
#[derive(Debug)]
pub struct Scratch {
    gpu: Gpu,
    shape: NetworkShape,
    /// How many times buffers were replaced.
    pub generation: usize,
    room: PassRoom,
    /// The residual stream, (N, padded C) in f32.
    pub x: Option<Memory>,
    /// Normed or attended, (N, padded C).
    pub y: Option<Memory>,
    /// Queries, (N, H, padded D).
    pub q: Option<Memory>,
    /// The MLP's inner layer, (N, padded width).
    pub inner: Option<Memory>,
    /// Mixed values by page, (N, H, pages, padded D) in f32, with largest scores and sums.
    pub partial: Option<Memory>,
    pub totals: Option<Memory>,
    /// The number of finished pages, by tile and head.
    pub done: Option<Memory>,
    /// The wanted rows, normed, (wanted, padded C).
    pub picked: Option<Memory>,
    /// (wanted, V) in f32.
    pub logits: Option<Memory>,
    /// (wanted), as ranked by `rank_of` in `kernels`.
    pub best: Option<Memory>,
    /// Sums and the most probable tokens, (wanted).
    pub top: Option<Memory>,
    /// (wanted, C) in f32.
    pub hidden: Option<Memory>,
    /// The [`Plan`], on the GPU and where it is written.
    pub plan: Option<Memory>,
    pub plan_host: Option<Staging>,
    /// What is copied back to the host.
    pub results: Option<Staging>,
}

/// The address of a buffer.
pub fn at(memory: &Option<Memory>) -> u64 {
    memory.as_ref().map_or(0, Memory::address)
}

impl Scratch {
    /// No buffers yet.
    pub fn new(gpu: &Gpu, shape: NetworkShape) -> Self {
        Self {
            gpu: gpu.clone(),
            shape,
            generation: 0,
            room: PassRoom::default(),
            x: None,
            y: None,
            q: None,
            inner: None,
            partial: None,
            totals: None,
            done: None,
            picked: None,
            logits: None,
            best: None,
            top: None,
            hidden: None,
            plan: None,
            plan_host: None,
            results: None,
        }
    }

    /// Makes room; `splits` says whether attention is split along positions.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn reserve(&mut self, plan: &Plan, splits: bool, results: usize) -> Result<()> {
        let room = PassRoom::new(plan.tokens, splits, plan.tiles, plan.wanted.projected(), plan.wanted.hidden);
        let bytes = PassBytes::new(&self.shape, room);
        if room.tokens > self.room.tokens {
            self.generation += 1;
            // The old ones are freed first, so that both never exist at once.
            for memory in [&mut self.x, &mut self.y, &mut self.q, &mut self.inner] {
                *memory = None;
            }
            self.room.tokens = 0;
            self.x = Some(self.gpu.zeros(bytes.x)?);
            self.y = Some(self.gpu.zeros(bytes.y)?);
            self.q = Some(self.gpu.zeros(bytes.q)?);
            self.inner = Some(self.gpu.zeros(bytes.inner)?);
            self.room.tokens = room.tokens;
        }
        if room.split_tokens > self.room.split_tokens {
            self.generation += 1;
            (self.partial, self.room.split_tokens) = (None, 0);
            self.partial = Some(self.gpu.zeros(bytes.partial)?);
            self.totals = Some(self.gpu.zeros(bytes.totals)?);
            self.room.split_tokens = room.split_tokens;
        }
        if room.tiles > self.room.tiles {
            self.generation += 1;
            self.done = Some(self.gpu.zeros(bytes.done)?);
            self.room.tiles = room.tiles;
        }
        if room.projected > self.room.projected {
            self.generation += 1;
            (self.logits, self.room.projected) = (None, 0);
            self.logits = Some(self.gpu.zeros(bytes.logits)?);
            self.picked = Some(self.gpu.zeros(bytes.picked)?);
            self.best = Some(self.gpu.zeros(bytes.best)?);
            self.top = Some(self.gpu.zeros(bytes.top)?);
            self.room.projected = room.projected;
        }
        if room.hidden > self.room.hidden {
            self.generation += 1;
            self.hidden = Some(self.gpu.zeros(bytes.hidden)?);
            self.room.hidden = room.hidden;
        }
        if self.plan.as_ref().is_none_or(|memory| memory.len() < plan.bytes) {
            self.generation += 1;
            let room = plan.bytes.next_power_of_two();
            let (memory, staging) = (self.gpu.zeros(room)?, self.gpu.staging(room)?);
            (self.plan, self.plan_host) = (Some(memory), Some(staging));
        }
        if self.results.as_ref().is_none_or(|memory| memory.bytes().len() < results) {
            self.generation += 1;
            self.results = Some(self.gpu.staging(results.next_power_of_two())?);
        }
        Ok(())
    }
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
