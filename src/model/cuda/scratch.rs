//! Buffers of a pass. They grow to what passes need and are used again; graphs remember their addresses.

use super::arguments::Queries;
use super::gpu::{Gpu, Memory, Staging};
use super::shape::{NetworkShape, padded};
use crate::error::Result;

/// Rows are computed in whole tiles of at most this many.
const ROWS: usize = 64;

/// Bytes of what blocks leave for each other in attention; passes are split so that it stays below this.
const PARTIAL_BYTES: usize = 64 << 20;

/// The most tokens of a pass.
const MOST_TOKENS: usize = 1024;

/// Buffers of a pass.
#[derive(Debug)]
pub struct Scratch {
    gpu: Gpu,
    shape: NetworkShape,
    /// Counts the times that buffers were replaced.
    pub generation: usize,
    tokens: usize,
    tiles: usize,
    wanted: usize,
    /// The residual stream, (N, padded C) in f32.
    pub x: Option<Memory>,
    /// Normed or attended, (N, padded C).
    pub y: Option<Memory>,
    /// Queries, (N, H, padded D).
    pub q: Option<Memory>,
    /// The MLP's inner layer, (N, padded width).
    pub inner: Option<Memory>,
    /// Mixed values by block, (N, H, blocks, padded D) in f32, with largest scores and sums.
    pub partial: Option<Memory>,
    pub totals: Option<Memory>,
    /// Blocks that are done, by tile and head.
    pub done: Option<Memory>,
    /// (wanted, V) in f32.
    pub logits: Option<Memory>,
    /// (wanted) ids.
    pub best: Option<Memory>,
    /// (wanted, C) in f32.
    pub hidden: Option<Memory>,
    /// The [`Plan`], on the GPU and where it is written.
    pub plan: Option<Memory>,
    pub plan_host: Option<Staging>,
    /// What comes back.
    pub results: Option<Staging>,
}

/// The address of a buffer.
pub fn at(memory: &Option<Memory>) -> u64 {
    memory.as_ref().map_or(0, Memory::address)
}

impl Scratch {
    /// Without buffers.
    pub fn new(gpu: &Gpu, shape: NetworkShape) -> Self {
        Self {
            gpu: gpu.clone(),
            shape,
            generation: 0,
            tokens: 0,
            tiles: 0,
            wanted: 0,
            x: None,
            y: None,
            q: None,
            inner: None,
            partial: None,
            totals: None,
            done: None,
            logits: None,
            best: None,
            hidden: None,
            plan: None,
            plan_host: None,
            results: None,
        }
    }

    /// The most tokens that a pass of this network has.
    pub fn most_tokens(shape: &NetworkShape) -> usize {
        let partial = shape.heads * shape.most_blocks() * shape.value_dim * size_of::<f32>();
        (PARTIAL_BYTES / partial.max(1)).clamp(ROWS, MOST_TOKENS)
    }

    /// Makes room.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn reserve(&mut self, plan: &Plan, results: usize) -> Result<()> {
        let shape = self.shape;
        let bytes = shape.numbers.size();
        let float = size_of::<f32>();
        let (tokens, tiles, wanted) = (plan.tokens.next_multiple_of(ROWS), plan.tiles, plan.wanted_total());
        if tokens > self.tokens {
            self.generation += 1;
            // The old ones first, lest both be there.
            for memory in [&mut self.x, &mut self.y, &mut self.q, &mut self.inner, &mut self.partial, &mut self.totals]
            {
                *memory = None;
            }
            self.tokens = 0;
            let partials = tokens * shape.heads * shape.most_blocks();
            self.x = Some(self.gpu.zeros(tokens * shape.padded * float)?);
            self.y = Some(self.gpu.zeros(tokens * shape.padded * bytes)?);
            self.q = Some(self.gpu.zeros(tokens * shape.heads * shape.key_dim * bytes)?);
            self.inner = Some(self.gpu.zeros(tokens * padded(shape.inner) * bytes)?);
            self.partial = Some(self.gpu.zeros(partials * shape.value_dim * float)?);
            self.totals = Some(self.gpu.zeros(partials * 2 * float)?);
            self.tokens = tokens;
        }
        if tiles > self.tiles {
            self.generation += 1;
            self.done = Some(self.gpu.zeros(tiles.next_power_of_two() * shape.heads * float)?);
            self.tiles = tiles.next_power_of_two();
        }
        if wanted > self.wanted {
            self.generation += 1;
            let room = wanted.next_power_of_two();
            (self.logits, self.wanted) = (None, 0);
            self.logits = Some(self.gpu.zeros(room * shape.vocabulary * float)?);
            self.best = Some(self.gpu.zeros(room * float)?);
            self.hidden = Some(self.gpu.zeros(room * shape.width * float)?);
            self.wanted = room;
        }
        if self.plan.as_ref().is_none_or(|memory| memory.len() < plan.bytes) {
            self.generation += 1;
            let room = plan.bytes.next_power_of_two();
            self.plan = Some(self.gpu.zeros(room)?);
            self.plan_host = Some(self.gpu.staging(room)?);
        }
        if self.results.as_ref().is_none_or(|memory| memory.bytes().len() < results) {
            self.generation += 1;
            self.results = Some(self.gpu.staging(results.next_power_of_two())?);
        }
        Ok(())
    }
}

/// Where a pass's tables lie in the buffer that is sent to the GPU: offsets in bytes, which depend on the counts alone.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub tokens: usize,
    pub tiles: usize,
    /// Positions of which logits, best tokens and hidden states are wanted.
    pub wanted: [usize; 3],
    /// Addresses of blocks, by segment.
    pub tables: usize,
    /// Of each token, the address of the block that takes its key and value.
    pub token_blocks: usize,
    /// Of each token, its position in that block.
    pub token_offsets: usize,
    pub ids: usize,
    /// Of each token, its position in its row.
    pub positions: usize,
    pub queries: usize,
    /// Which tokens are wanted.
    pub rows: usize,
    pub bytes: usize,
}

impl Plan {
    /// For so many segments with so many tokens in all.
    pub fn new(segments: usize, tokens: usize, tiles: usize, wanted: [usize; 3], most_blocks: usize) -> Self {
        let mut bytes = 0;
        let mut part = |count: usize, size: usize| {
            let at = bytes;
            bytes = (bytes + count * size).next_multiple_of(16);
            at
        };
        let tables = part(segments * most_blocks, 8);
        let token_blocks = part(tokens, 8);
        let queries = part(tiles, size_of::<Queries>());
        let [token_offsets, ids, positions] = [part(tokens, 4), part(tokens, 4), part(tokens, 4)];
        let rows = part(wanted.iter().sum(), 4);
        Self { tokens, tiles, wanted, tables, token_blocks, token_offsets, ids, positions, queries, rows, bytes }
    }

    /// Wanted positions of all kinds.
    pub fn wanted_total(&self) -> usize {
        self.wanted.iter().sum()
    }
}
