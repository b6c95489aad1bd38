//! The operations of a pass: layer norms, products and the search for the best tokens, each one launch or two. Which
//! kernel runs depends on the number of rows; the numbers do not.

use super::arguments::{BestArgs, Into, MatmulArgs, NormArgs, NormaliseArgs};
use super::gpu::Memory;
use super::kernel::{Kernel, NORM_WARPS, TILE_OUTPUTS, TILE_ROWS};
use super::{Linear, Matrix, Network, Norm};
use crate::base::FloatType;
use crate::error::Result;

/// From this length of a row of weights on, a product's sums take longer than its start and end.
const DEEP_ROW_BYTES: usize = 2048;

/// Up to this many rows, a product is limited by its weights.
pub const FEW_ROWS: usize = 64;

/// Thread blocks that search for the best token of a row.
const BEST_BLOCKS: u32 = 16;

const FLOAT: usize = size_of::<f32>();

impl Network {
    /// A layer norm, if there is one, and a product. `from` is the residual stream and the buffer for normed rows, or
    /// the rows' address twice; `to` is where outputs go and the numbers per row there.
    #[expect(clippy::too_many_arguments, reason = "a product has these")]
    pub fn linear(
        &self,
        rows: usize,
        linear: &Linear,
        norm: Option<&Norm>,
        from: (u64, u64),
        to: (u64, usize),
        into: Into,
        rest: MatmulArgs,
    ) -> Result<()> {
        let shape = &self.shape;
        let arguments = MatmulArgs {
            bias: linear.bias.as_ref().map_or(0, Memory::address),
            y: to.0,
            y_stride: to.1 as i32,
            into: into as i32,
            ..rest
        };
        let Some(norm) = norm else {
            return self.product(rows, &linear.weight, MatmulArgs { x: from.1, ..arguments });
        };
        let norm = norm.arguments(shape.width);
        let normed = MatmulArgs { x: from.0, norm, norm_stride: shape.padded as i32, ..arguments };
        if self.product_normed(rows, &linear.weight, normed)? {
            return Ok(());
        }
        self.normalise(rows, norm, (from.0, shape.padded), None, (from.1, shape.padded), (0, 0), true)?;
        self.product(rows, &linear.weight, MatmulArgs { x: from.1, ..arguments })
    }

    /// A layer norm and a product in one, if there are few rows; returns whether there were.
    pub fn product_normed(&self, rows: usize, weight: &Matrix, arguments: MatmulArgs) -> Result<bool> {
        let shared = TILE_ROWS * (weight.row_bytes + 16) + 2 * self.shape.padded * FLOAT;
        if rows > TILE_ROWS || shared > self.gpu.most_shared(Kernel::Matmul8Normed, self.shape.numbers) {
            return Ok(false);
        }
        let arguments = complete(rows, weight, arguments);
        let grid = [1, self.blocks_of_tiles(weight), 1];
        self.gpu.launch(Kernel::Matmul8Normed, self.shape.numbers, grid, shared, &arguments, true)?;
        Ok(true)
    }

    /// How many thread blocks share the outputs of a matrix if each starts with work of its own: two per
    /// multiprocessor.
    pub fn blocks_of_tiles(&self, weight: &Matrix) -> u32 {
        weight.outputs.div_ceil(TILE_OUTPUTS).min(2 * self.gpu.processors()) as u32
    }

    /// A product: the number of rows decides which kernel computes it, but not the result.
    pub fn product(&self, rows: usize, weight: &Matrix, arguments: MatmulArgs) -> Result<()> {
        let (numbers, processors) = (self.shape.numbers, self.gpu.processors());
        let arguments = complete(rows, weight, arguments);
        if rows > FEW_ROWS {
            // Larger tiles read less, but there must be enough for two per multiprocessor, and few inputs do not pay for
            // their start.
            let tiles = |outputs: usize| [rows.div_ceil(64), weight.outputs.div_ceil(outputs)];
            let is_deep = weight.row_bytes > DEEP_ROW_BYTES && tiles(128).iter().product::<usize>() >= 2 * processors;
            let (kernel, [across, down]) = match numbers {
                FloatType::F16 | FloatType::BF16 if is_deep => (Kernel::Matmul128x64, tiles(128)),
                _ => (Kernel::Matmul64x64, tiles(64)),
            };
            let grid = [across as u32, down as u32, 1];
            return self.gpu.launch(kernel, numbers, grid, kernel.most_shared(), &arguments, true);
        }
        let tiles = weight.outputs.div_ceil(TILE_OUTPUTS);
        // As many rows at a time as leave work for every multiprocessor, so that weights are read as few times as
        // possible.
        let keeps_busy = |tile: usize| rows > tile / 2 && rows.div_ceil(tile) * tiles >= processors;
        let deep = weight.row_bytes > DEEP_ROW_BYTES && tiles < processors;
        let (kernel, tile) = match deep {
            _ if keeps_busy(4 * TILE_ROWS) => (Kernel::Matmul32, 4 * TILE_ROWS),
            _ if keeps_busy(2 * TILE_ROWS) => (Kernel::Matmul16, 2 * TILE_ROWS),
            true => (Kernel::Matmul8Deep, TILE_ROWS),
            false => (Kernel::Matmul8, TILE_ROWS),
        };
        let grid = [rows.div_ceil(tile) as u32, tiles as u32, 1];
        self.gpu.launch(kernel, numbers, grid, 0, &arguments, true)
    }

    /// The output head over padded rows: (N, padded C) -> (N, V). `best` is the first row whose best token is wanted,
    /// and the zeroed address for the ranks.
    pub fn project(&self, rows: usize, x: u64, logits: u64, best: Option<(usize, u64)>) -> Result<()> {
        // The kernels for many rows do not find best tokens.
        let finds = rows <= FEW_ROWS;
        let arguments = self.to_logits(logits, best.filter(|_| finds));
        self.product(rows, self.head(), MatmulArgs { x, ..arguments })?;
        match best {
            Some((from, ranks)) if !finds => {
                self.best(rows - from, logits + (from * self.shape.vocabulary * FLOAT) as u64, ranks)
            }
            _ => Ok(()),
        }
    }

    /// The final norm and the head of the picked rows of `x`, if they are few; returns whether they were.
    pub fn project_normed(
        &self,
        rows: usize,
        norm: NormArgs,
        (x, stride): (u64, usize),
        picked: u64,
        logits: u64,
        best: Option<(usize, u64)>,
    ) -> Result<bool> {
        let arguments = self.to_logits(logits, best);
        let arguments = MatmulArgs { x, norm, norm_stride: stride as i32, picked, ..arguments };
        self.product_normed(rows, self.head(), arguments)
    }

    pub fn to_logits(&self, logits: u64, best: Option<(usize, u64)>) -> MatmulArgs {
        let (best_from, ranks) = best.unwrap_or_default();
        MatmulArgs {
            y: logits,
            y_stride: self.shape.vocabulary as i32,
            into: Into::Logits as i32,
            best: ranks,
            best_from: best_from as i32,
            ..MatmulArgs::default()
        }
    }

    /// Ranks the best token of each of `rows` rows of logits, into zeroed memory.
    pub fn best(&self, rows: usize, logits: u64, best: u64) -> Result<()> {
        let arguments = BestArgs { logits, best, vocabulary: self.shape.vocabulary as i32, unused: 0 };
        self.gpu.launch(Kernel::BestTokens, FloatType::F32, [rows as u32, BEST_BLOCKS, 1], 0, &arguments, true)
    }

    /// Layer norm. `from`, `to` and `exact` are addresses with the numbers per row there; `picked` is the address of
    /// the rows' indices.
    #[expect(clippy::too_many_arguments, reason = "two results, each with its own rows")]
    pub fn normalise(
        &self,
        rows: usize,
        norm: NormArgs,
        from: (u64, usize),
        picked: Option<u64>,
        to: (u64, usize),
        exact: (u64, usize),
        overlaps: bool,
    ) -> Result<()> {
        let arguments = NormaliseArgs {
            x: from.0,
            rows: picked.unwrap_or(0),
            y: to.0,
            exact: exact.0,
            norm,
            x_stride: from.1 as i32,
            y_stride: to.1 as i32,
            exact_stride: exact.1 as i32,
            count: rows as i32,
        };
        let grid = [rows.div_ceil(NORM_WARPS) as u32, 1, 1];
        self.gpu.launch(Kernel::Normalise, self.shape.numbers, grid, 0, &arguments, overlaps)
    }

    /// Copies rows of C numbers; `from` and `to` are addresses with the numbers per row there.
    pub fn copy_rows(&self, rows: usize, from: (u64, usize), to: (u64, usize)) -> Result<()> {
        let as_they_are = NormArgs { width: self.shape.width as i32, ..NormArgs::default() };
        self.normalise(rows, as_they_are, from, None, (0, 0), to, false)
    }
}

/// Fills in the rest of a product's arguments.
fn complete(rows: usize, weight: &Matrix, arguments: MatmulArgs) -> MatmulArgs {
    MatmulArgs {
        weight: weight.memory.address(),
        row_bytes: weight.row_bytes as i32,
        rows: rows as i32,
        outputs: weight.outputs as i32,
        ..arguments
    }
}
