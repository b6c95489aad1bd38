//! Buffers of a pass. They grow as needed and are reused; graphs remember their addresses.

use super::gpu::{Gpu, Memory, Staging};
use super::plan::Plan;
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
