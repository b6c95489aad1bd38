//! The network on an NVIDIA GPU, with its own kernels (`kernels`), in f32, f16 or bf16.
//!
//! Residual stream, norms, biases and all sums are f32; weights, keys, values and the factors of products have the type
//! that the model is loaded as. A row gives the same bits alone and in a batch, read at once or token by token.
//!
//! Decoding is bound by launches: a pass that repeats is recorded as a graph, which costs a single launch. Kernels
//! start while the previous ones finish, and fetch their weights meanwhile.
//!
//! | file | holds |
//! |---|---|
//! | `nvidia.rs`, `emulated.rs` | memory, copies, launches: on a GPU, or on the CPU instead |
//! | `kernels`, `kernel.rs`, `arguments.rs` | the kernels, their names, their arguments |
//! | `plan.rs`, `pass.rs` | a pass: what runs together and its tables; from ids to logits |
//! | `operations.rs`, `record.rs` | the operations of a pass, and what it records for a trace |
//! | `cache.rs`, `scratch.rs` | the state of a run, and the buffers of a pass |
//! | `../cuda_shape.rs` | sizes, from which every build predicts memory use |

mod arguments;
mod cache;
#[cfg(not(feature = "cuda"))]
mod emulated;
mod kernel;
#[cfg(feature = "cuda")]
mod nvidia;
mod operations;
mod pass;
mod plan;
mod record;
mod scratch;
#[cfg(test)]
mod tests;

#[cfg(not(feature = "cuda"))]
use emulated as gpu;
#[cfg(feature = "cuda")]
use nvidia as gpu;

use candle_core::Tensor;

use super::cuda_shape as shape;
use super::edits::{Edits, Hooks, Start};
use super::loader::Loader;
use super::network::{self, KvCache, Stored};

use super::weights::{Layout, MatrixData};
use crate::base::{DType, FloatType};
use crate::error::{Error, Result};
use crate::inventory::{Part, TensorId};
use crate::language_model::{Input, Output};
use arguments::{NormArgs, PlaceArgs};
pub use cache::Cache;
pub use gpu::Gpu;
use gpu::Memory;
use kernel::{Kernel, TILE_OUTPUTS};
use shape::{NetworkShape, WIDE, matrix_bytes, padded, row_bytes, vector_bytes};

/// Outputs that a thread block of `Place` writes.
const PLACE_THREADS: usize = 256;

/// The network's weights on the GPU.
#[derive(Debug)]
pub struct Network {
    gpu: Gpu,
    shape: NetworkShape,
    activation: i32,
    pub wte: Matrix,
    pub wpe: Matrix,
    pub layers: Vec<Layer>,
    pub ln_f: Norm,
    /// `None` if the head is the token embedding.
    pub lm_head: Option<Matrix>,
}

/// A matrix (outputs, inputs), zero-padded.
#[derive(Debug)]
pub struct Matrix {
    memory: Memory,
    outputs: usize,
    row_bytes: usize,
}

/// A layer norm.
#[derive(Debug)]
pub struct Norm {
    weight: Memory,
    bias: Memory,
    epsilon: f32,
}

/// `y = x W + b`.
#[derive(Debug)]
pub struct Linear {
    pub weight: Matrix,
    pub bias: Option<Memory>,
}

/// A block of the network.
#[derive(Debug)]
pub struct Layer {
    pub ln_1: Norm,
    pub c_attn: Linear,
    pub c_proj: Linear,
    pub ln_2: Norm,
    pub c_fc: Linear,
    pub mlp_c_proj: Linear,
    pub scale: f32,
}

/// Copies weights to the GPU.
struct Builder {
    gpu: Gpu,
    numbers: FloatType,
}

impl Builder {
    /// A matrix on the GPU.
    ///
    /// # Errors
    /// If the device fails.
    fn matrix(&self, data: &MatrixData) -> Result<Matrix> {
        let stored = match data.dtype {
            DType::F32 => 0,
            DType::F16 => 1,
            DType::BF16 => 2,
            other => unreachable!("the loader widens {other}"),
        };
        let memory = self.gpu.zeros(matrix_bytes(data.outputs, data.inputs, self.numbers))?;
        let from = self.gpu.zeros(data.bytes.len())?;
        self.gpu.upload(&data.bytes, &from, 0)?;
        let arguments = PlaceArgs {
            from: from.address(),
            to: memory.address(),
            outputs: data.outputs as i32,
            inputs: data.inputs as i32,
            stride: padded(data.inputs) as i32,
            stored,
            transposed: i32::from(data.layout != Layout::OutIn),
            unused: 0,
        };
        let blocks = (data.outputs * data.inputs).div_ceil(PLACE_THREADS);
        self.gpu.launch(Kernel::Place, self.numbers, [blocks as u32, 1, 1], 0, &arguments, false)?;
        Ok(Matrix { memory, outputs: data.outputs, row_bytes: row_bytes(data.inputs, self.numbers) })
    }

    /// A vector on the GPU, in f32, zero-padded.
    ///
    /// # Errors
    /// If the device fails.
    fn vector(&self, numbers: &[f32]) -> Result<Memory> {
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_ne_bytes()).collect();
        let memory = self.gpu.zeros(vector_bytes(numbers.len()))?;
        self.gpu.upload(&bytes, &memory, 0)?;
        Ok(memory)
    }

    /// A layer norm on the GPU, its vectors padded like rows.
    ///
    /// # Errors
    /// If the device fails.
    fn norm(&self, weight: &[f32], bias: &[f32], epsilon: f32) -> Result<Norm> {
        Ok(Norm { weight: self.vector(weight)?, bias: self.vector(bias)?, epsilon })
    }
}

impl Norm {
    fn arguments(&self, width: usize) -> NormArgs {
        NormArgs {
            weight: self.weight.address(),
            bias: self.bias.address(),
            epsilon: self.epsilon,
            width: width as i32,
        }
    }
}

impl Network {
    /// The network of a checkpoint. Its matrices come as f32 or as they are stored; on the GPU they become `numbers`.
    ///
    /// # Errors
    /// If the device fails, and [`Error::Unsupported`] for sizes beyond the kernels' index types.
    pub fn load(loader: &Loader<'_>, gpu: Gpu, numbers: FloatType) -> Result<Self> {
        let config = loader.config;
        let builder = Builder { gpu, numbers };
        let table = |id| builder.matrix(&loader.matrix(id)?);
        let norm = |layer, part| {
            let [weight, bias] = loader.norm(layer, part)?;
            builder.norm(&weight, &bias, config.layer_norm_epsilon as f32)
        };
        let linear = |layer, part| {
            let (weight, bias) = loader.linear(layer, part)?;
            let bias = bias.map(|bias| builder.vector(&bias)).transpose()?;
            Ok::<_, Error>(Linear { weight: builder.matrix(&weight)?, bias })
        };
        let layer = |i: usize| {
            Ok(Layer {
                ln_1: norm(Some(i), Part::Ln1)?,
                c_attn: linear(i, Part::CAttn)?,
                c_proj: linear(i, Part::AttnCProj)?,
                ln_2: norm(Some(i), Part::Ln2)?,
                c_fc: linear(i, Part::CFc)?,
                mlp_c_proj: linear(i, Part::MlpCProj)?,
                scale: config.attention_scale(i),
            })
        };
        let (wte, wpe) = (table(TensorId::WTE)?, table(TensorId::WPE)?);
        let layers = (0..config.n_layer).map(layer).collect::<Result<_>>()?;
        let ln_f = norm(None, Part::LnF)?;
        let lm_head = (!config.tie_word_embeddings).then(|| table(TensorId::LM_HEAD)).transpose()?;
        let shape = NetworkShape::new(config, numbers);
        // Offsets within a page and within the rows of a pass are 32-bit, tiles of outputs, heads and pages 16-bit.
        let widest = (3 * shape.padded).max(shape.inner).max(shape.vocabulary);
        let offsets = shape.page_bytes().max(shape.most_tokens(false) * 3 * shape.padded);
        let blocks = widest.div_ceil(TILE_OUTPUTS).max(shape.heads).max(shape.most_pages());
        if offsets > i32::MAX as usize || blocks > u16::MAX.into() {
            return Err(Error::Unsupported("the network is too large for the GPU's kernels".into()));
        }
        let gpu = builder.gpu;
        // Uploads have read their sources, but buffers of file data should be freed now.
        gpu.synchronize()?;
        let activation = kernel::activation(config.activation_function);
        Ok(Self { gpu, shape, activation, wte, wpe, layers, ln_f, lm_head })
    }

    /// Whether the GPU can find everything that the inputs ask for.
    fn finds_all(&self, inputs: &[Input<'_>]) -> bool {
        self.shape.vocabulary <= kernel::TOP_VOCABULARY || inputs.iter().all(|input| input.top == 0)
    }

    fn head(&self) -> &Matrix {
        self.lm_head.as_ref().unwrap_or(&self.wte)
    }
}

impl network::Network for Network {
    fn new_cache(&self) -> Box<dyn network::Cache> {
        Box::new(Cache::new(&self.gpu, self.shape))
    }

    fn cache_bytes_per_position(&self) -> usize {
        self.shape.position_bytes()
    }

    fn stored(&self) -> Stored {
        let dtype = self.shape.numbers.dtype();
        let stored = |matrix: &Matrix| (dtype, matrix.memory.len());
        let matrices =
            self.layers.iter().flat_map(|layer| [&layer.c_attn, &layer.c_proj, &layer.c_fc, &layer.mlp_c_proj]);
        Stored {
            blocks: matrices.map(|linear| stored(&linear.weight)).collect(),
            embeddings: vec![stored(&self.wte), stored(&self.wpe)],
            head: stored(self.head()),
        }
    }

    fn forward(
        &self,
        inputs: &[(usize, &[u32])],
        cache: &mut KvCache,
        hooks: Hooks<'_>,
        start: Option<Start<'_>>,
    ) -> Result<Tensor> {
        if !hooks.edits.is_empty() || start.is_some() {
            return Err(no_hooks("change activations"));
        }
        self.residual_stream(inputs, cache.own()?, hooks.trace)
    }

    fn embeddings(&self, _: &[u32], _: usize) -> Result<[Tensor; 2]> {
        Err(no_hooks("keep the embeddings apart"))
    }

    fn attention_output(&self, _: usize, _: &Tensor) -> Result<Tensor> {
        Err(no_hooks("project attention alone"))
    }

    fn final_norm_weights(&self) -> Result<[Vec<f32>; 2]> {
        Err(no_hooks("give out the final norm"))
    }

    fn head_rows(&self, _: &[u32]) -> Result<Tensor> {
        Err(no_hooks("give out the output head"))
    }

    fn run(&self, inputs: &[Input<'_>], cache: &mut KvCache, edits: &Edits) -> Result<Output> {
        match edits.is_empty() && self.finds_all(inputs) {
            true => self.outputs(inputs, cache.own()?),
            false => self.run_from_logits(inputs, cache, edits),
        }
    }

    fn final_norm(&self, x: &Tensor) -> Result<Tensor> {
        let (rows, width) = x.dims2()?;
        let from = self.gpu.memory(x)?;
        let [padded, normed] =
            [self.shape.padded, width].map(|stride| self.gpu.zeros(rows * stride * size_of::<f32>()));
        let (padded, normed) = (padded?, normed?);
        let stride = self.shape.padded;
        self.copy_rows(rows, (from.address(), width), (padded.address(), stride))?;
        let norm = self.ln_f.arguments(width);
        self.normalise(rows, norm, (padded.address(), stride), None, (0, 0), (normed.address(), width), false)?;
        self.gpu.tensor(normed, (rows, width))
    }

    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let (rows, width) = hidden.dims2()?;
        let from = self.gpu.memory(hidden)?;
        let shape = &self.shape;
        let x = self.gpu.zeros(rows.next_multiple_of(WIDE) * shape.padded * shape.numbers.size())?;
        let as_it_is = NormArgs { width: width as i32, ..NormArgs::default() };
        self.normalise(rows, as_it_is, (from.address(), width), None, (x.address(), shape.padded), (0, 0), false)?;
        let logits = self.gpu.zeros(rows * shape.vocabulary * size_of::<f32>())?;
        self.project(rows, x.address(), logits.address(), None)?;
        self.gpu.tensor(logits, (rows, shape.vocabulary))
    }

    fn best_tokens(&self, logits: &Tensor) -> Result<Vec<Option<u32>>> {
        let rows = logits.dim(0)?;
        let from = self.gpu.memory(logits)?;
        let best = self.gpu.zeros(rows * size_of::<u64>())?;
        self.best(rows, from.address(), best.address())?;
        let mut bytes = vec![0; rows * size_of::<u64>()];
        self.gpu.download(&best, 0, &mut bytes)?;
        Ok(pass::ids(&bytes).collect())
    }
}

/// What only candle's operations do.
fn no_hooks(what: &str) -> Error {
    Error::Unsupported(format!("the kernels for NVIDIA's GPUs cannot {what}; candle's can (`LoadOptions::hooks`)"))
}
