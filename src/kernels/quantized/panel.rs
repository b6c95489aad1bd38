//! Where unpacked weights go: plain bytes with a scale to each group, in a panel that many rows of activations share, or
//! whatever else takes them.

use super::super::simd::LANES;
use super::level::Integers;
use super::packed::WIDTH;

/// Inputs that a scale of the activations covers.
pub(super) const BLOCK: usize = 32;

/// Most inputs of a panel, whole blocks of every format; so it stays in the first-level cache.
pub(super) const DEPTH: usize = 512;

/// Part of the inputs of 32 outputs, made for one pass over the activations. A weight is `byte * scale - minimum`.
#[repr(align(64))]
pub(super) struct Panel {
    /// Four inputs of each output, a byte each, then the next four.
    pub bytes: [i32; DEPTH / 4 * WIDTH],
    /// The scale of each output for each group of inputs.
    pub scales: [f32; DEPTH / 16 * WIDTH],
    /// What is subtracted, for each block of 32 inputs; unused in formats without minima.
    pub minima: [f32; DEPTH / BLOCK * WIDTH],
}

impl Panel {
    pub const fn new() -> Self {
        Self { bytes: [0; DEPTH / 4 * WIDTH], scales: [0.0; DEPTH / 16 * WIDTH], minima: [0.0; DEPTH / BLOCK * WIDTH] }
    }
}

/// Where unpacked weights of 16 outputs go. Groups and blocks are counted from the start of the inputs at hand.
///
/// # Safety
/// All functions may be called only where the processor has the instructions of `S`, for inputs that the sink has room
/// for.
pub(super) trait Sink<S: Integers> {
    /// The weights of inputs `4 * i..4 * i + 4` of each output, a byte each.
    unsafe fn bytes(&mut self, i: usize, v: S::I);
    /// The scales of the inputs of group `group`.
    unsafe fn scales(&mut self, group: usize, v: S::V);
    /// The minima of the inputs of block `block`.
    unsafe fn minima(&mut self, block: usize, v: S::V);
}

/// Sixteen rows of a panel: where their bytes, scales and minima go, with [`WIDTH`] between one group and the next. Its
/// room is the panel's, [`DEPTH`] inputs, for as long as the panel lives and is not used otherwise.
pub(super) struct Half {
    bytes: *mut i32,
    scales: *mut f32,
    minima: *mut f32,
}

impl Half {
    /// The half of `panel` that begins at vector `v`, 0 or 1.
    pub fn new(panel: &mut Panel, v: usize) -> Self {
        let skip = v * LANES;
        Self {
            bytes: panel.bytes[skip..].as_mut_ptr(),
            scales: panel.scales[skip..].as_mut_ptr(),
            minima: panel.minima[skip..].as_mut_ptr(),
        }
    }
}

impl<S: Integers> Sink<S> for Half {
    #[inline(always)]
    unsafe fn bytes(&mut self, i: usize, v: S::I) {
        // SAFETY: the caller promises the instructions and `4 * i < DEPTH`; a row's half of 16 lanes is in the panel.
        unsafe { S::store_i(self.bytes.add(i * WIDTH), v) }
    }
    #[inline(always)]
    unsafe fn scales(&mut self, group: usize, v: S::V) {
        // SAFETY: as above: a panel has scales for the smallest groups, of 16 inputs.
        unsafe { S::store(self.scales.add(group * WIDTH), v) }
    }
    #[inline(always)]
    unsafe fn minima(&mut self, block: usize, v: S::V) {
        // SAFETY: as above: a panel has minima for each 32 inputs.
        unsafe { S::store(self.minima.add(block * WIDTH), v) }
    }
}
