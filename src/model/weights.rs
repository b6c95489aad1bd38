//! Where weight matrices are and in which type: in the mapped file, or one after the other in the process's own memory.
//!
//! The CPU's kernels want (in, out) matrices in panels. Besides, decoding reads every weight once per token, and with
//! pages of 4 KiB, as in a mapped file, address lookups take a quarter of the time. So if the system has pages of 2
//! MiB, all matrices are copied into them. The file's own pages are released as they are copied and never count twice.
//!
//! Packing and copying take as long as a few tokens. For a program that reads the weights only a few times
//! ([`Packing::Later`]), the kernels use them in the mapped file as far as they can.

use rustc_hash::FxHashMap;

use crate::base::{Bytes, DType, FloatType, QuantizedType, pages::has_large_pages, pages::large_pages};
use crate::checkpoint::packing::{pack_floats, pack_quantized};
use crate::checkpoint::{Checkpoint, Format, Tensor};
use crate::config::Config;
use crate::error::Result;
use crate::inventory::TensorId;
pub(crate) use crate::kernels::Layout;
use crate::kernels::panels;

/// The type that weight matrices have in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightType {
    /// As stored: 16-bit numbers are widened to f32 on the way into the sum; quantised weights are multiplied as
    /// integers, or widened to f32 if their format has no kernel.
    #[default]
    Stored,
    /// `F32`: as exact as f32 (16-bit weights stay as they are, quantised ones are widened). Otherwise rounded to that
    /// type.
    Float(FloatType),
    /// Quantised, as far as the widths allow ([`QuantizedType::fitting`]). Position embeddings stay as exact as f32.
    Quantized(QuantizedType),
}

impl WeightType {
    /// As exact as f32.
    pub const F32: Self = Self::Float(FloatType::F32);
    /// Rounded to 16-bit IEEE.
    pub const F16: Self = Self::Float(FloatType::F16);
    /// Rounded to the upper half of an f32.
    pub const BF16: Self = Self::Float(FloatType::BF16);

    /// The type of matrices on a GPU that has kernels for them; `None` if they stay quantised, which has no kernels.
    /// `quantized` says whether the checkpoint has quantised matrices.
    pub(crate) fn on_gpu(self, quantized: bool) -> Option<FloatType> {
        match self {
            Self::Quantized(_) => None,
            Self::Stored if quantized => None,
            Self::Stored => Some(FloatType::F32),
            Self::Float(float) => Some(float),
        }
    }

    /// The type of keys and values in the CPU's cache, given the type `stored` of the checkpoint's [first
    /// matrix](TensorId::FIRST_MATRIX). It is f16 if the weights are rounded or quantised, so that f32 would add
    /// little: half the bytes are read in half the time.
    pub(crate) fn cache_type(self, stored: Option<DType>) -> FloatType {
        match self {
            Self::Float(FloatType::F16 | FloatType::BF16) | Self::Quantized(_) => FloatType::F16,
            Self::Stored if stored.is_some_and(|stored| QuantizedType::of(stored).is_some()) => FloatType::F16,
            Self::Stored | Self::Float(FloatType::F32) => FloatType::F32,
        }
    }
}

/// When matrices are packed for the CPU's kernels. It changes no bit of what a model computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Packing {
    /// When the model is loaded: best for a program that generates.
    #[default]
    AtOnce,
    /// After a few passes: best for a program that may end before. Until then, what a mapped file holds in the right type
    /// is used there.
    Later,
}

/// What matrices are placed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// The CPU's kernels.
    Kernels(Packing),
    /// Other devices, which have no panels.
    Device,
}

/// The numbers of a matrix (in, out), in their type in memory.
#[derive(Debug)]
pub(crate) struct MatrixData {
    pub bytes: Bytes,
    pub dtype: DType,
    pub layout: Layout,
    pub inputs: usize,
    pub outputs: usize,
}

/// Matrices start at multiples of this, a cache line.
const ALIGNMENT: usize = 64;

/// How a matrix is held in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placement {
    /// Its type in memory.
    pub dtype: DType,
    /// Its layout in memory.
    pub layout: Layout,
    /// Its layout in the checkpoint, or what a packed one counts as.
    pub stored_layout: Layout,
    /// Whether it is packed in the checkpoint.
    pub is_packed: bool,
    /// Whether its bytes are the same as in the file.
    pub as_stored: bool,
    /// Its size in bytes.
    pub bytes: usize,
}

impl Placement {
    /// For the matrix `id` with this shape and storage, for the CPU's kernels; `(transposed, is_packed)` as in
    /// [`Tensor`].
    pub fn of(
        id: TensorId,
        [rows, columns]: [usize; 2],
        stored: DType,
        (transposed, is_packed): (bool, bool),
        weights: WeightType,
    ) -> Self {
        let is_conv1d = id.is_conv1d();
        let (inputs, outputs) = if is_conv1d { (rows, columns) } else { (columns, rows) };
        let weights = match weights {
            // Position embeddings are few, and each is used alone, so quantising them would save little and cost
            // accuracy.
            WeightType::Quantized(_) if id == TensorId::WPE => WeightType::Float(FloatType::F32),
            weights => weights,
        };
        let dtype = wanted(weights, stored, inputs);
        let stored_layout = if is_conv1d && !transposed { Layout::InOut } else { Layout::OutIn };
        let (layout, bytes) = match (QuantizedType::of(dtype), FloatType::of(dtype), stored_layout) {
            (Some(kind), ..) => (Layout::Panels, kind.packed_bytes(inputs, outputs)),
            // However it is stored: panels have sums of their own, and a model computes the same from any file.
            (None, Some(float), _) if is_conv1d => (Layout::Panels, panels::packed_bytes(float, inputs, outputs)),
            _ => (stored_layout, dtype.byte_len(&[outputs, inputs])),
        };
        let as_stored = stored == dtype && layout == if is_packed { Layout::Panels } else { stored_layout };
        Self { dtype, layout, stored_layout, is_packed, as_stored, bytes: bytes.unwrap_or(usize::MAX) }
    }

    /// The same without panels, which only the CPU's kernels use; the matrix has `numbers` elements.
    fn unpacked(self, stored: DType, numbers: usize) -> Self {
        if self.layout != Layout::Panels {
            return self;
        }
        // The rows of quantised matrices run along the inputs.
        let layout = if QuantizedType::of(self.dtype).is_some() { Layout::OutIn } else { self.stored_layout };
        let bytes = self.dtype.byte_len(&[numbers]).unwrap_or(usize::MAX);
        let as_stored = stored == self.dtype && layout == self.stored_layout && !self.is_packed;
        Self { layout, as_stored, bytes, ..self }
    }

    pub(super) fn of_tensor(id: TensorId, tensor: &Tensor, weights: WeightType, target: Target) -> Option<Self> {
        let dims @ [rows, columns] = <[usize; 2]>::try_from(tensor.shape.as_slice()).ok()?;
        let placement = Self::of(id, dims, tensor.dtype, (tensor.transposed, tensor.packed), weights);
        let unpacked = placement.unpacked(tensor.dtype, rows * columns);
        // The kernels read floating-point matrices (in, out) unpacked as well.
        let is_readable = unpacked.layout == Layout::InOut || unpacked.layout == placement.layout;
        Some(match target {
            Target::Device => unpacked,
            Target::Kernels(Packing::Later) if unpacked.as_stored && is_readable && tensor.bytes.is_mapped() => {
                unpacked
            }
            Target::Kernels(_) => placement,
        })
    }

    /// Writes `tensor` in this type and layout to `out`, which must be zeroed.
    fn write(self, origin: &str, tensor: &Tensor, out: &mut [u8]) -> Result<()> {
        match (QuantizedType::of(self.dtype), FloatType::of(self.dtype), self.layout) {
            (Some(kind), _, Layout::Panels) => {
                pack_quantized(tensor, origin, kind, self.stored_layout == Layout::InOut, out)
            }
            (_, Some(dtype), Layout::Panels) => {
                pack_floats(tensor, origin, dtype, self.stored_layout == Layout::OutIn, out)
            }
            _ => tensor.write_as(origin, self.dtype, self.layout != self.stored_layout, out),
        }
    }
}

/// The type in memory of a matrix with rows of `inputs` numbers.
fn wanted(weights: WeightType, stored: DType, inputs: usize) -> DType {
    match weights {
        WeightType::Stored if QuantizedType::of(stored).is_some() => stored,
        WeightType::Stored | WeightType::Float(FloatType::F32) => match stored {
            DType::F16 | DType::BF16 => stored,
            _ => DType::F32,
        },
        WeightType::Float(rounded) => rounded.dtype(),
        WeightType::Quantized(kind) => kind.fitting(inputs),
    }
}

/// The bytes of a model's matrices.
#[derive(Debug)]
pub(super) struct Weights {
    placed: FxHashMap<TensorId, (Bytes, Placement)>,
    /// Whether some stay in the mapped file although packing or copying would make the kernels faster.
    pub in_place: bool,
}

impl Weights {
    /// The matrices of a checkpoint that [fits](Checkpoint::check) `config`. For the CPU's kernels they are packed, and
    /// copied into large pages even if they could be used in the mapped file.
    ///
    /// # Errors
    /// Errors of converting numbers, and [`crate::Error::Unsupported`] if there is not enough memory.
    pub fn place(checkpoint: &Checkpoint, config: &Config, weights: WeightType, target: Target) -> Result<Self> {
        // A packed file is there for several processes, which share it where it is mapped.
        let is_shared = checkpoint.format() == Format::Packed;
        let copy = target == Target::Kernels(Packing::AtOnce) && has_large_pages() && !is_shared;
        let (mut placed, mut copied, mut total) = (FxHashMap::default(), vec![], 0);
        let mut in_place = false;
        for id in config.tensors().filter(|id| id.is_matrix()) {
            let tensor = checkpoint.expect(id, config)?;
            let Some(placement) = Placement::of_tensor(id, tensor, weights, target) else { continue };
            if placement.as_stored && !(copy && tensor.bytes.is_mapped()) {
                in_place |= target == Target::Kernels(Packing::Later) && tensor.bytes.is_mapped() && !is_shared;
                placed.insert(id, (tensor.bytes.clone(), placement));
            } else {
                copied.push((id, tensor, placement, total));
                total += placement.bytes.next_multiple_of(ALIGNMENT);
            }
        }
        if total > 0 {
            let mut memory = large_pages(total)?;
            for (_, tensor, placement, start) in &copied {
                let out = &mut memory[*start..start + placement.bytes];
                placement.write(checkpoint.origin(), tensor, out)?;
            }
            let all = Bytes::from(memory);
            for (id, _, placement, start) in copied {
                let bytes = all.slice(start..start + placement.bytes).expect("within what was allocated");
                placed.insert(id, (bytes, placement));
            }
        }
        Ok(Self { placed, in_place })
    }

    /// A matrix; `None` if the model does not have it.
    pub fn get(&self, id: TensorId) -> Option<&(Bytes, Placement)> {
        self.placed.get(&id)
    }
}
