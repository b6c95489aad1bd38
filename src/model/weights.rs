//! Where weight matrices lie and as what: in the file, or in memory of the process's own, one after the other.
//!
//! The CPU's kernels want (in, out) matrices in panels. And decoding reads every weight once a token: where memory is
//! looked up in pages of 4 KiB, as in a mapped file, the looking up takes a quarter of the time, so where the system gives
//! pages of 2 MiB, all matrices are copied into them. The file's own pages are let go as they are copied and never count
//! twice.

use rustc_hash::FxHashMap;

use super::packing::{pack_floats, pack_quantized};
use crate::base::{Bytes, DType, FloatType, QuantizedType, pages::has_large_pages, pages::large_pages};
use crate::checkpoint::{Checkpoint, Tensor};
use crate::config::Config;
use crate::error::Result;
use crate::inventory::TensorId;
use crate::kernels::panels;

/// The type in which weight matrices are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightType {
    /// As they are stored: every 16-bit number is an f32 and is widened on the way into the sum; quantised weights are
    /// multiplied as integers, or are f32 if their format has no kernel.
    #[default]
    Stored,
    /// `F32`: as exact as f32; 16-bit weights stay as they are, quantised ones are widened. Else rounded to that type.
    Float(FloatType),
    /// Quantised, as far as the widths allow ([`QuantizedType::fitting`]). Position embeddings are as exact as f32.
    Quantized(QuantizedType),
}

impl WeightType {
    /// As exact as f32.
    pub const F32: Self = Self::Float(FloatType::F32);
    /// Rounded to 16-bit IEEE.
    pub const F16: Self = Self::Float(FloatType::F16);
    /// Rounded to the upper half of an f32.
    pub const BF16: Self = Self::Float(FloatType::BF16);

    /// The type of matrices on a GPU that has kernels for them; none where they stay quantised, for which there are none.
    /// `quantized` says whether the checkpoint has matrices that are.
    pub(crate) fn on_gpu(self, quantized: bool) -> Option<FloatType> {
        match self {
            Self::Quantized(_) => None,
            Self::Stored if quantized => None,
            Self::Stored => Some(FloatType::F32),
            Self::Float(float) => Some(float),
        }
    }

    /// The type of keys and values in the cache of the CPU, `stored` being the type of the
    /// [first matrix](TensorId::FIRST_MATRIX) in the checkpoint: f16 where weights are coarser than what the checkpoint stands for, or so coarse that f16 adds nothing.
    /// Half the bytes are read in half the time.
    pub(crate) fn cache_type(self, stored: Option<DType>) -> FloatType {
        match self {
            Self::Float(FloatType::F16 | FloatType::BF16) | Self::Quantized(_) => FloatType::F16,
            Self::Stored if stored.is_some_and(|stored| QuantizedType::of(stored).is_some()) => FloatType::F16,
            Self::Stored | Self::Float(FloatType::F32) => FloatType::F32,
        }
    }
}

/// How the numbers of a matrix lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// (in, out): the outputs of one input lie side by side.
    InOut,
    /// (out, in): the inputs of one output lie side by side.
    OutIn,
    /// Packed as the CPU's kernels want it.
    Panels,
}

/// The numbers of a matrix (in, out), in the type that they shall have in memory.
#[derive(Debug)]
pub(crate) struct MatrixData {
    pub bytes: Bytes,
    pub dtype: DType,
    pub layout: Layout,
    pub inputs: usize,
    pub outputs: usize,
}

/// Matrices begin at multiples of this, a cache line.
const ALIGNMENT: usize = 64;

/// What becomes of a matrix.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placement {
    /// Its type in memory.
    pub dtype: DType,
    /// How its numbers lie.
    pub layout: Layout,
    /// How they lie in the checkpoint.
    pub stored_layout: Layout,
    /// Whether its bytes are those of the file.
    pub as_stored: bool,
    /// Bytes that it takes.
    pub bytes: usize,
}

impl Placement {
    /// Of the matrix `id`, of which shape and storage are given, for the kernels of the CPU.
    pub fn of(id: TensorId, [rows, columns]: [usize; 2], stored: DType, transposed: bool, weights: WeightType) -> Self {
        let is_conv1d = id.is_conv1d();
        let (inputs, outputs) = if is_conv1d { (rows, columns) } else { (columns, rows) };
        let weights = match weights {
            // Position embeddings are so few, and each used alone, that none is given up to quantisation.
            WeightType::Quantized(_) if id == TensorId::WPE => WeightType::Float(FloatType::F32),
            weights => weights,
        };
        let dtype = wanted(weights, stored, inputs);
        let stored_layout = if is_conv1d && !transposed { Layout::InOut } else { Layout::OutIn };
        let (layout, bytes) = match (QuantizedType::of(dtype), FloatType::of(dtype), stored_layout) {
            (Some(kind), ..) => (Layout::Panels, kind.packed_bytes(inputs, outputs)),
            (None, Some(float), Layout::InOut) => (Layout::Panels, panels::packed_bytes(float, inputs, outputs)),
            _ => (stored_layout, dtype.byte_len(&[outputs, inputs])),
        };
        let as_stored = stored == dtype && layout == stored_layout;
        Self { dtype, layout, stored_layout, as_stored, bytes: bytes.unwrap_or(usize::MAX) }
    }

    /// The same without panels, which are for the kernels of the CPU; a matrix has `numbers`.
    fn unpacked(self, stored: DType, numbers: usize) -> Self {
        if self.layout != Layout::Panels {
            return self;
        }
        // The rows of quantised matrices run along the inputs.
        let layout = if QuantizedType::of(self.dtype).is_some() { Layout::OutIn } else { self.stored_layout };
        let bytes = self.dtype.byte_len(&[numbers]).unwrap_or(usize::MAX);
        Self { layout, as_stored: stored == self.dtype && layout == self.stored_layout, bytes, ..self }
    }

    fn of_tensor(id: TensorId, tensor: &Tensor, weights: WeightType, for_kernels: bool) -> Option<Self> {
        let dims @ [rows, columns] = <[usize; 2]>::try_from(tensor.shape.as_slice()).ok()?;
        let placement = Self::of(id, dims, tensor.dtype, tensor.transposed, weights);
        Some(if for_kernels { placement } else { placement.unpacked(tensor.dtype, rows * columns) })
    }

    /// Writes the numbers of `tensor` as it shall lie into `out`, which holds zeros.
    fn write(self, origin: &str, tensor: &Tensor, out: &mut [u8]) -> Result<()> {
        match (QuantizedType::of(self.dtype), FloatType::of(self.dtype), self.layout) {
            (Some(kind), _, Layout::Panels) => {
                pack_quantized(tensor, origin, kind, self.stored_layout == Layout::InOut, out)
            }
            (_, Some(dtype), Layout::Panels) => pack_floats(tensor, origin, dtype, out),
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
pub(super) struct Weights(FxHashMap<TensorId, (Bytes, Placement)>);

impl Weights {
    /// The matrices of a checkpoint that [fits](Checkpoint::check) `config`. For the kernels of the CPU they are packed, and
    /// copied into large pages even where they could be used in the mapped file.
    ///
    /// # Errors
    /// What converting numbers returns, and [`crate::Error::Unsupported`] if there is no memory.
    pub fn place(checkpoint: &Checkpoint, config: &Config, weights: WeightType, for_kernels: bool) -> Result<Self> {
        let copy = for_kernels && has_large_pages();
        let (mut placed, mut copied, mut total) = (FxHashMap::default(), vec![], 0);
        for id in config.tensors().filter(|id| id.is_matrix()) {
            let tensor = checkpoint.expect(id, config)?;
            let Some(placement) = Placement::of_tensor(id, tensor, weights, for_kernels) else { continue };
            if placement.as_stored && !(copy && tensor.bytes.is_mapped()) {
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
        Ok(Self(placed))
    }

    /// A matrix; none if the model has no such matrix.
    pub fn get(&self, id: TensorId) -> Option<&(Bytes, Placement)> {
        self.0.get(&id)
    }
}
