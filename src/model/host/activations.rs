//! What the layers of a pass write: buffers that are allocated once and reused by every layer of every pass.

use crate::base::memory;
use crate::config::Config;
use crate::error::Result;

/// Activations of `N` positions, row by row.
#[derive(Debug)]
pub struct Activations {
    /// `C`, and the width inside the MLP.
    width: usize,
    inner_width: usize,
    /// The residual stream, (N, C).
    pub x: Vec<f32>,
    /// The residual stream after the current operation, (N, C).
    pub next_x: Vec<f32>,
    /// The output of a layer norm, (N, C).
    pub normed: Vec<f32>,
    /// Queries, keys and values side by side, (N, 3C).
    pub qkv: Vec<f32>,
    /// The values mixed by attention, (N, C).
    pub mixed: Vec<f32>,
    /// Inside the MLP, (N, inner).
    pub inner: Vec<f32>,
    /// Logits that only serve to find the best tokens, (wanted positions, V).
    pub logits: Vec<f32>,
}

impl Activations {
    /// Empty buffers.
    pub fn new(config: &Config) -> Self {
        let (width, inner_width) = (config.n_embd, config.n_inner);
        let [x, next_x, normed, qkv, mixed, inner, logits] = Default::default();
        Self { width, inner_width, x, next_x, normed, qkv, mixed, inner, logits }
    }

    /// Bytes of a position.
    pub fn position_bytes(config: &Config) -> usize {
        (7 * config.n_embd + config.n_inner) * size_of::<f32>()
    }

    /// Makes room for `n` positions.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn make_room(&mut self, n: usize) -> Result<()> {
        const WHAT: &str = "a pass over the new tokens";
        for buffer in [&mut self.x, &mut self.next_x, &mut self.normed, &mut self.mixed] {
            memory::resize(WHAT, buffer, n * self.width)?;
        }
        memory::resize(WHAT, &mut self.qkv, n * 3 * self.width)?;
        memory::resize(WHAT, &mut self.inner, n * self.inner_width)
    }

    /// Copies the residual stream of some positions to `next_x`.
    pub fn pick(&mut self, positions: impl Iterator<Item = u32>) {
        self.next_x.clear();
        for at in positions {
            self.next_x.extend_from_slice(&self.x[at as usize * self.width..][..self.width]);
        }
    }

    /// Makes the current operation's result the residual stream.
    pub fn step(&mut self) {
        std::mem::swap(&mut self.x, &mut self.next_x);
    }
}
