//! Products of activations (M, K) with a weight matrix, over the weight as it is stored: (in, out) as in Hugging Face's
//! `Conv1D`, or (out, in) as in embeddings and GGUF. Weights may be f32, f16 or bf16; sums are f32.
//!
//! Three ways through one definition. A few rows stream the weights once past the rows (decoding); many rows go through
//! register tiles over packed panels (prefill); (out, in) takes dot products. For an (in, out) weight every output is
//! the sum of blocks of 512 inputs, each the chain `((x₀w₀ + x₁w₁) + x₂w₂) + ...` in order of k, so the first two agree to
//! the bit. (One chain over all inputs would round twice as much.)

use super::activation::{activate_slice, add_slice};
use super::pool;
use super::simd::{LANES, Simd, dispatch};
use crate::checkpoint::Bytes;
use crate::config::Activation;

/// The type of a weight's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloatType {
    /// 32-bit.
    F32,
    /// 16-bit IEEE.
    F16,
    /// 16-bit, the upper half of an `F32`.
    BF16,
}

impl FloatType {
    /// Bytes of one number.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }
}

/// Which axis of a stored matrix runs along memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// (in, out): the outputs of one input lie side by side.
    InOut,
    /// (out, in): the inputs of one output lie side by side.
    OutIn,
}

/// A weight matrix where it is stored.
#[derive(Debug, Clone)]
pub struct Matrix {
    bytes: Bytes,
    dtype: FloatType,
    layout: Layout,
    inputs: usize,
    outputs: usize,
}

/// What happens to the product before it is stored.
#[derive(Debug, Clone, Copy)]
pub enum Epilogue<'a> {
    /// Nothing.
    None,
    /// An activation function.
    Activate(Activation),
    /// The residual stream (M, N) is added.
    Add(&'a [f32]),
}

impl Matrix {
    /// A matrix over `bytes`, which must hold `inputs * outputs` numbers. They need no alignment: files align nothing.
    ///
    /// # Panics
    /// If the length is wrong: loading checks it.
    #[must_use]
    pub fn new(bytes: Bytes, dtype: FloatType, layout: Layout, inputs: usize, outputs: usize) -> Self {
        assert_eq!(bytes.len(), inputs * outputs * dtype.size(), "length of a weight matrix");
        Self { bytes, dtype, layout, inputs, outputs }
    }

    /// `K`, the length of an input row.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// `N`, the length of an output row.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// The type of the stored numbers.
    #[must_use]
    pub fn dtype(&self) -> FloatType {
        self.dtype
    }

    /// Bytes that the matrix takes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Copies row `row` of the stored matrix into `out` as f32: an embedding's vector where the layout is (V, C).
    pub fn row(&self, row: usize, out: &mut [f32]) {
        let width = out.len() * self.dtype.size();
        let bytes = &self.bytes[row * width..(row + 1) * width];
        let two = |pair: &[u8]| u16::from_le_bytes([pair[0], pair[1]]);
        match self.dtype {
            FloatType::F32 => {
                for (y, x) in out.iter_mut().zip(bytes.chunks_exact(4)) {
                    *y = f32::from_le_bytes([x[0], x[1], x[2], x[3]]);
                }
            }
            FloatType::F16 => {
                for (y, x) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                    *y = half::f16::from_bits(two(x)).to_f32();
                }
            }
            FloatType::BF16 => {
                for (y, x) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                    *y = half::bf16::from_bits(two(x)).to_f32();
                }
            }
        }
    }
}

/// Rows from which panels are packed; fewer stream the weights past the rows.
const FEW_ROWS: usize = 6;

/// Outputs that one thread takes at a time in the streaming product: 4 KiB of sums, which stay in the first-level cache.
const STREAM_COLUMNS: usize = 1024;

/// Panels that are packed side by side: a task reads as many columns of the stored matrix in a run.
const PANELS: usize = 4;

/// Inputs that are summed on their own: a panel covers as many, so that those of a task stay in the second-level cache.
const PANEL_INPUTS: usize = 512;

/// Outputs that one thread takes at a time in the dot product.
const DOT_COLUMNS: usize = 256;

/// How many outputs ahead the dot product asks for weights.
const PREFETCH_ROWS: usize = 12;

/// Rows that one pass of the dot product covers, so that they stay in the second-level cache.
const DOT_ROWS: usize = 64;

/// `y = epilogue(x W + bias)`: `x` is (M, K), `y` (M, N), both row-major; `bias` (N).
///
/// # Panics
/// If the lengths do not fit the matrix.
pub fn matmul(x: &[f32], w: &Matrix, bias: Option<&[f32]>, epilogue: Epilogue<'_>, y: &mut [f32]) {
    let rows = x.len() / w.inputs;
    assert_eq!(x.len(), rows * w.inputs, "length of the input");
    assert_eq!(y.len(), rows * w.outputs, "length of the output");
    assert!(bias.is_none_or(|b| b.len() == w.outputs), "length of the bias");
    if let Epilogue::Add(r) = epilogue {
        assert_eq!(r.len(), y.len(), "length of the residual");
    }
    let job = Product { x: x.as_ptr(), y: y.as_mut_ptr(), rows, w, bias, epilogue };
    let job = &job;
    // SAFETY (all three): the lengths were checked above and by `Matrix::new`; each call gets its own columns of `y`.
    // Scratch is fetched here: a closure inside a kernel would be compiled without the level's instructions.
    match w.layout {
        Layout::InOut if rows <= FEW_ROWS => {
            // Ranges of whole vectors, and about as many as there are threads, so that none waits for another.
            let parts = w.outputs.div_ceil(STREAM_COLUMNS).next_multiple_of(pool::threads());
            let width = w.outputs.div_ceil(parts).next_multiple_of(4 * LANES);
            split(job, width, |from, to| {
                SCRATCH.with_borrow_mut(|before| unsafe { stream_dispatch(job, from, to, before) });
            });
        }
        Layout::InOut => {
            let panels = (w.outputs / (2 * pool::threads() * tile_columns())).clamp(1, PANELS);
            split(job, panels * tile_columns(), |from, to| {
                SCRATCH.with_borrow_mut(|panel| unsafe { tiles_dispatch(job, from, to, panel) });
            });
        }
        Layout::OutIn => {
            split(job, DOT_COLUMNS, |from, to| unsafe { dots_dispatch(job, from, to) });
        }
    }
}

/// Calls `f(from, to)` in parallel for ranges of `width` that cover the `n` columns.
fn split(job: &Product<'_>, width: usize, f: impl Fn(usize, usize) + Sync) {
    let n = job.w.outputs;
    let work = job.rows * job.w.inputs * n;
    pool::run_costing(work, n.div_ceil(width), |i| f(i * width, n.min((i + 1) * width)));
}

struct Product<'a> {
    x: *const f32,
    y: *mut f32,
    rows: usize,
    w: &'a Matrix,
    bias: Option<&'a [f32]>,
    epilogue: Epilogue<'a>,
}

// SAFETY: `x` and the weights are only read, and each thread writes its own columns of `y`.
unsafe impl Sync for Product<'_> {}

impl Product<'_> {
    /// Adds the bias and applies the epilogue to columns `from..to` of row `m`.
    ///
    /// # Safety
    /// The columns belong to the calling thread; `row < rows`, `to <= N`.
    unsafe fn finish(&self, m: usize, from: usize, to: usize) {
        let n = self.w.outputs;
        // SAFETY: the caller owns this range of `y`.
        let y = unsafe { std::slice::from_raw_parts_mut(self.y.add(m * n + from), to - from) };
        if let Some(bias) = self.bias {
            add_slice(y, &bias[from..to]);
        }
        match self.epilogue {
            Epilogue::None => {}
            Epilogue::Activate(f) => activate_slice(f, y),
            Epilogue::Add(r) => add_slice(y, &r[m * n + from..m * n + to]),
        }
    }
}

dispatch! { unsafe fn stream_dispatch = stream(job: &Product<'_>, from: usize, to: usize, before: &mut Vec<f32>) }
dispatch! { unsafe fn tiles_dispatch = tiles(job: &Product<'_>, from: usize, to: usize, panel: &mut Vec<f32>) }
dispatch! { unsafe fn dots_dispatch = dots(job: &Product<'_>, from: usize, to: usize) }

/// How a kernel reads 16 stored numbers.
trait Stored {
    type Number: Copy;
    unsafe fn load<S: Simd>(p: *const Self::Number) -> S::V;
    unsafe fn scalar(p: *const Self::Number) -> f32;
}

struct F32;
struct F16;
struct BF16;

impl Stored for F32 {
    type Number = f32;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const f32) -> S::V {
        unsafe { S::load(p) }
    }
    #[inline(always)]
    unsafe fn scalar(p: *const f32) -> f32 {
        unsafe { p.read_unaligned() }
    }
}

impl Stored for F16 {
    type Number = u16;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u16) -> S::V {
        unsafe { S::load_f16(p) }
    }
    #[inline(always)]
    unsafe fn scalar(p: *const u16) -> f32 {
        half::f16::from_bits(unsafe { p.read_unaligned() }).to_f32()
    }
}

impl Stored for BF16 {
    type Number = u16;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u16) -> S::V {
        unsafe { S::load_bf16(p) }
    }
    #[inline(always)]
    unsafe fn scalar(p: *const u16) -> f32 {
        half::bf16::from_bits(unsafe { p.read_unaligned() }).to_f32()
    }
}

/// Loads `n` numbers (up to 16); the other lanes are 0.
#[inline(always)]
unsafe fn load_up_to<S: Simd, T: Stored>(p: *const T::Number, n: usize) -> S::V {
    unsafe {
        if n >= LANES {
            return T::load::<S>(p);
        }
        let mut lanes = [0.0f32; LANES];
        for (i, lane) in lanes.iter_mut().enumerate().take(n) {
            *lane = T::scalar(p.add(i));
        }
        S::load(lanes.as_ptr())
    }
}

#[inline(always)]
unsafe fn store_up_to<S: Simd>(p: *mut f32, n: usize, v: S::V) {
    unsafe { if n >= LANES { S::store(p, v) } else { S::store_first(p, n, v) } }
}

#[inline(always)]
unsafe fn read_up_to<S: Simd>(p: *const f32, n: usize) -> S::V {
    unsafe { if n >= LANES { S::load(p) } else { S::load_first(p, n) } }
}

#[inline(always)]
unsafe fn stream<S: Simd>(job: &Product<'_>, from: usize, to: usize, before: &mut Vec<f32>) {
    unsafe {
        match job.w.dtype {
            FloatType::F32 => stream_as::<S, F32>(job, from, to, before),
            FloatType::F16 => stream_as::<S, F16>(job, from, to, before),
            FloatType::BF16 => stream_as::<S, BF16>(job, from, to, before),
        }
    }
}

/// Puts the sums so far into `before`, (rows, to - from), and starts the next block's from 0.
unsafe fn set_aside(job: &Product<'_>, from: usize, to: usize, before: &mut Vec<f32>) {
    before.clear();
    for m in 0..job.rows {
        // SAFETY: the caller owns these columns of `y`.
        let y = unsafe { std::slice::from_raw_parts_mut(job.y.add(m * job.w.outputs + from), to - from) };
        before.extend_from_slice(y);
        y.fill(0.0);
    }
}

/// Few rows: eight rows of the weight at a time stream past the sums, which stay in the first-level cache.
#[inline(always)]
unsafe fn stream_as<S: Simd, T: Stored>(job: &Product<'_>, from: usize, to: usize, before: &mut Vec<f32>) {
    const STEP: usize = 8;
    let (k, n) = (job.w.inputs, job.w.outputs);
    let w = job.w.bytes.as_ptr().cast::<T::Number>();
    unsafe {
        for m in 0..job.rows {
            std::slice::from_raw_parts_mut(job.y.add(m * n + from), to - from).fill(0.0);
        }
        let mut row = 0;
        while row < k {
            if row > 0 && row.is_multiple_of(PANEL_INPUTS) {
                set_aside(job, from, to, before);
            }
            let steps = STEP.min(k - row);
            for m in 0..job.rows {
                let x = job.x.add(m * k + row);
                let y = job.y.add(m * n);
                if steps == STEP {
                    let mut s = [S::splat(0.0); STEP];
                    for (i, s) in s.iter_mut().enumerate() {
                        *s = S::splat(*x.add(i));
                    }
                    let mut column = from;
                    while column < to {
                        let width = to - column;
                        let mut sum = read_up_to::<S>(y.add(column), width);
                        for (i, s) in s.iter().enumerate() {
                            let weights = w.add((row + i) * n + column);
                            sum = S::fma(*s, load_up_to::<S, T>(weights, width), sum);
                            // The runs of a row are too short for the processor to see them coming.
                            S::prefetch(weights.wrapping_add(STEP * n).cast());
                        }
                        store_up_to::<S>(y.add(column), width, sum);
                        column += LANES;
                    }
                } else {
                    for i in 0..steps {
                        let s = S::splat(*x.add(i));
                        let mut column = from;
                        while column < to {
                            let width = to - column;
                            let weights = load_up_to::<S, T>(w.add((row + i) * n + column), width);
                            let sum = S::fma(s, weights, read_up_to::<S>(y.add(column), width));
                            store_up_to::<S>(y.add(column), width, sum);
                            column += LANES;
                        }
                    }
                }
            }
            row += steps;
            if row > PANEL_INPUTS && (row.is_multiple_of(PANEL_INPUTS) || row == k) {
                for m in 0..job.rows {
                    let y = std::slice::from_raw_parts_mut(job.y.add(m * n + from), to - from);
                    add_slice(y, &before[m * (to - from)..][..to - from]);
                }
            }
        }
        for m in 0..job.rows {
            job.finish(m, from, to);
        }
    }
}

/// The width of the tiled product's panels at the level in use.
fn tile_columns() -> usize {
    use super::simd::{Level, Portable, level};
    LANES
        * match level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => super::simd::Avx512::TILE_VECTORS,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => super::simd::Avx2::TILE_VECTORS,
            _ => Portable::TILE_VECTORS,
        }
}

/// Many rows: a block of the columns `from..to` is packed into panels as f32, then multiplied tile by tile.
#[inline(always)]
unsafe fn tiles<S: Simd>(job: &Product<'_>, from: usize, to: usize, packed: &mut Vec<f32>) {
    let panels = (to - from).div_ceil(S::TILE_VECTORS * LANES);
    let size = panels * PANEL_INPUTS.min(job.w.inputs) * S::TILE_VECTORS * LANES;
    if packed.len() < size {
        packed.resize(size, 0.0);
    }
    let mut first = 0;
    while first < job.w.inputs {
        let block = Block { from, to, first, inputs: PANEL_INPUTS.min(job.w.inputs - first) };
        // SAFETY: as for the caller; the block lies inside the matrix.
        unsafe {
            match job.w.dtype {
                FloatType::F32 => pack::<S, F32>(job.w, block, packed),
                FloatType::F16 => pack::<S, F16>(job.w, block, packed),
                FloatType::BF16 => pack::<S, BF16>(job.w, block, packed),
            }
            let mut m = 0;
            while m < job.rows {
                let left = job.rows - m;
                m += match left {
                    _ if left >= S::TILE_ROWS && S::TILE_ROWS == 8 => row_of_tiles::<S, 8>(job, packed, m, block),
                    _ if left >= S::TILE_ROWS && S::TILE_ROWS == 6 => row_of_tiles::<S, 6>(job, packed, m, block),
                    4.. => row_of_tiles::<S, 4>(job, packed, m, block),
                    2.. => row_of_tiles::<S, 2>(job, packed, m, block),
                    _ => row_of_tiles::<S, 1>(job, packed, m, block),
                };
            }
        }
        first += block.inputs;
    }
}

/// The part of a matrix that is packed at a time: columns `from..to`, `inputs` rows from `first` on.
#[derive(Clone, Copy)]
struct Block {
    from: usize,
    to: usize,
    first: usize,
    inputs: usize,
}

thread_local! {
    /// Packed panels, or sums set aside; kept between calls so that the pages stay mapped.
    static SCRATCH: std::cell::RefCell<Vec<f32>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Packs a block: panel after panel, in each the rows one after the other, 0 beyond the last column.
#[inline(always)]
unsafe fn pack<S: Simd, T: Stored>(w: &Matrix, block: Block, packed: &mut [f32]) {
    let width = S::TILE_VECTORS * LANES;
    let mut out = packed.as_mut_ptr();
    let mut column = block.from;
    // SAFETY: the block lies inside the matrix, and `packed` has room for its panels.
    unsafe {
        let source = w.bytes.as_ptr().cast::<T::Number>().add(block.first * w.outputs);
        while column < block.to {
            for row in 0..block.inputs {
                for v in 0..S::TILE_VECTORS {
                    let at = column + v * LANES;
                    let numbers = if at < block.to {
                        load_up_to::<S, T>(source.add(row * w.outputs + at), block.to - at)
                    } else {
                        S::splat(0.0)
                    };
                    S::store(out, numbers);
                    out = out.add(LANES);
                }
            }
            column += width;
        }
    }
}

/// Multiplies `R` rows from `m` on with the packed panels of a block; returns `R`.
#[inline(always)]
unsafe fn row_of_tiles<S: Simd, const R: usize>(job: &Product<'_>, packed: &[f32], m: usize, block: Block) -> usize {
    let width = S::TILE_VECTORS * LANES;
    let mut panel = packed.as_ptr();
    let mut column = block.from;
    // SAFETY: as for the caller.
    unsafe {
        while column < block.to {
            match S::TILE_VECTORS {
                3 => tile::<S, R, 3>(job, panel, m, column, block),
                _ => tile::<S, R, 1>(job, panel, m, column, block),
            }
            panel = panel.add(block.inputs * width);
            column += width;
        }
        if block.first + block.inputs == job.w.inputs {
            for row in m..m + R {
                job.finish(row, block.from, block.to);
            }
        }
    }
    R
}

/// `R` rows times one panel of `V` vectors, summed on its own and added to the blocks before.
#[inline(always)]
unsafe fn tile<S: Simd, const R: usize, const V: usize>(
    job: &Product<'_>,
    panel: *const f32,
    m: usize,
    column: usize,
    block: Block,
) {
    let (k, n) = (job.w.inputs, job.w.outputs);
    // SAFETY: as for the caller.
    unsafe {
        let mut sums = [[S::splat(0.0); V]; R];
        let x = job.x.add(m * k + block.first);
        let mut p = panel;
        for i in 0..block.inputs {
            let mut w = [S::splat(0.0); V];
            for (v, w) in w.iter_mut().enumerate() {
                *w = S::load(p.add(v * LANES));
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let s = S::splat(*x.add(r * k + i));
                for (sum, w) in sums.iter_mut().zip(w) {
                    *sum = S::fma(s, w, *sum);
                }
            }
            p = p.add(V * LANES);
        }
        for (r, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                let at = column + v * LANES;
                if at < block.to {
                    let (y, width) = (job.y.add((m + r) * n + at), block.to - at);
                    let sum = if block.first > 0 { S::add(read_up_to::<S>(y, width), *sum) } else { *sum };
                    store_up_to::<S>(y, width, sum);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn dots<S: Simd>(job: &Product<'_>, from: usize, to: usize) {
    unsafe {
        match job.w.dtype {
            FloatType::F32 => dots_as::<S, F32>(job, from, to),
            FloatType::F16 => dots_as::<S, F16>(job, from, to),
            FloatType::BF16 => dots_as::<S, BF16>(job, from, to),
        }
    }
}

/// (out, in): every output is a dot product over 16 running sums, whatever tile it falls into.
#[inline(always)]
unsafe fn dots_as<S: Simd, T: Stored>(job: &Product<'_>, from: usize, to: usize) {
    unsafe {
        for block in (0..job.rows).step_by(DOT_ROWS) {
            let end = job.rows.min(block + DOT_ROWS);
            let mut column = from;
            while column < to {
                let mut m = block;
                // Tiles of at most 24 sums, so that they stay in registers.
                if to - column >= 6 {
                    while m + 4 <= end {
                        dot_tile::<S, T, 4, 6>(job, m, column);
                        m += 4;
                    }
                    while m < end {
                        dot_tile::<S, T, 1, 6>(job, m, column);
                        m += 1;
                    }
                    column += 6;
                } else {
                    while m < end {
                        dot_tile::<S, T, 1, 1>(job, m, column);
                        m += 1;
                    }
                    column += 1;
                }
            }
            for m in block..end {
                job.finish(m, from, to);
            }
        }
    }
}

#[inline(always)]
unsafe fn dot_tile<S: Simd, T: Stored, const R: usize, const N: usize>(job: &Product<'_>, m: usize, column: usize) {
    let (k, n) = (job.w.inputs, job.w.outputs);
    let w = job.w.bytes.as_ptr().cast::<T::Number>();
    unsafe {
        let mut sums = [[S::splat(0.0); R]; N];
        let mut i = 0;
        while i < k {
            let left = k - i;
            let mut x = [S::splat(0.0); R];
            for (r, x) in x.iter_mut().enumerate() {
                *x = read_up_to::<S>(job.x.add((m + r) * k + i), left);
            }
            for (c, sums) in sums.iter_mut().enumerate() {
                let weights = w.add((column + c) * k + i);
                if R == 1 {
                    S::prefetch(weights.wrapping_add(PREFETCH_ROWS * k).cast());
                }
                let weights = load_up_to::<S, T>(weights, left);
                for (sum, x) in sums.iter_mut().zip(x) {
                    *sum = S::fma(x, weights, *sum);
                }
            }
            i += LANES;
        }
        for (c, sums) in sums.iter().enumerate() {
            for (r, sum) in sums.iter().enumerate() {
                *job.y.add((m + r) * n + column + c) = S::sum(*sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::super::test_numbers;
    use super::*;

    fn matrix(layout: Layout, dtype: FloatType, inputs: usize, outputs: usize) -> (Matrix, Tensor) {
        let numbers = test_numbers(inputs * outputs, 7);
        // One byte too many in front: files align nothing.
        let mut bytes = vec![0u8];
        let mut rounded = Vec::with_capacity(numbers.len());
        for x in numbers {
            match dtype {
                FloatType::F32 => {
                    bytes.extend(x.to_le_bytes());
                    rounded.push(x);
                }
                FloatType::F16 => {
                    bytes.extend(half::f16::from_f32(x).to_le_bytes());
                    rounded.push(half::f16::from_f32(x).to_f32());
                }
                FloatType::BF16 => {
                    bytes.extend(half::bf16::from_f32(x).to_le_bytes());
                    rounded.push(half::bf16::from_f32(x).to_f32());
                }
            }
        }
        let len = bytes.len();
        let bytes = Bytes::from(bytes).slice(1..len).unwrap();
        let dims = if layout == Layout::InOut { (inputs, outputs) } else { (outputs, inputs) };
        let reference = Tensor::from_vec(rounded, dims, &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
        let reference = if layout == Layout::InOut { reference } else { reference.t().unwrap().contiguous().unwrap() };
        (Matrix::new(bytes, dtype, layout, inputs, outputs), reference)
    }

    /// Against candle's matmul in f64, on sizes that leave rests everywhere.
    #[test]
    fn products_agree_with_candle() {
        for layout in [Layout::InOut, Layout::OutIn] {
            for dtype in [FloatType::F32, FloatType::F16, FloatType::BF16] {
                for (rows, inputs, outputs) in [
                    (1, 1, 1),
                    (1, 7, 3),
                    (2, 16, 48),
                    (3, 37, 111),
                    (6, 33, 65),
                    (7, 40, 97),
                    (13, 100, 50),
                    (70, 21, 300),
                ] {
                    let (w, reference) = matrix(layout, dtype, inputs, outputs);
                    let x = test_numbers(rows * inputs, 1);
                    let bias = test_numbers(outputs, 2);
                    let mut y = vec![0f32; rows * outputs];
                    matmul(&x, &w, Some(&bias), Epilogue::None, &mut y);
                    let x = Tensor::from_vec(x, (rows, inputs), &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
                    let bias = Tensor::new(bias, &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
                    let expected = x.matmul(&reference).unwrap().broadcast_add(&bias).unwrap();
                    let expected: Vec<f64> = expected.flatten_all().unwrap().to_vec1().unwrap();
                    for (y, e) in y.iter().zip(expected) {
                        assert!(
                            (f64::from(*y) - e).abs() < 1e-5 * (inputs as f64).sqrt(),
                            "{layout:?} {dtype:?} {rows}x{inputs}x{outputs}: {y} {e}"
                        );
                    }
                }
            }
        }
    }

    /// The promise of this module: a row's product does not depend on the rows beside it.
    #[test]
    fn a_row_gives_the_same_bits_alone_and_in_any_batch() {
        for layout in [Layout::InOut, Layout::OutIn] {
            for dtype in [FloatType::F32, FloatType::F16, FloatType::BF16] {
                let (rows, inputs, outputs) = (67, 531, 403);
                let (w, _) = matrix(layout, dtype, inputs, outputs);
                let x = test_numbers(rows * inputs, 3);
                let residual = test_numbers(rows * outputs, 4);
                let mut together = vec![0f32; rows * outputs];
                matmul(&x, &w, None, Epilogue::Add(&residual), &mut together);
                for batch in [1, 2, 5, 6, 7, 8, 9, 30] {
                    for first in (0..rows).step_by(batch) {
                        let n = batch.min(rows - first);
                        let mut y = vec![0f32; n * outputs];
                        let residual = &residual[first * outputs..(first + n) * outputs];
                        matmul(&x[first * inputs..(first + n) * inputs], &w, None, Epilogue::Add(residual), &mut y);
                        assert_eq!(y, together[first * outputs..(first + n) * outputs], "{layout:?} {dtype:?} {batch}");
                    }
                }
            }
        }
    }
}
