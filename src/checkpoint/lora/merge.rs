//! Merging: the arithmetic of PEFT's `merge_and_unload`, in the number type of each weight of the base.

use half::{bf16, f16};

use super::{Adapter, Layer, Rows, Saved, names};
use crate::base::{DType, FloatType, pool};
use crate::checkpoint::{Checkpoint, STEP, Tensor};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::inventory::{Kind, Part, TensorId};

impl Adapter {
    /// Merges the adapter into the weights of `checkpoint`, whose configuration is `config`; another adapter can follow.
    /// Only the weights that it changes are copied. Weights keep their number type, except that quantised ones become
    /// f32.
    ///
    /// A tied head and embedding are one weight, so a change of one changes both, as in PEFT; after training a copy of
    /// one (`modules_to_save`), the checkpoint holds both. If the adapter brings its own embeddings,
    /// `config.vocab_size` follows their rows.
    ///
    /// # Errors
    /// [`Error::Format`], naming the tensor that does not fit the base; [`Error::Unsupported`] for a number that the
    /// type of the base cannot hold.
    pub fn merge(&self, checkpoint: &mut Checkpoint, config: &mut Config) -> Result<()> {
        let origin = checkpoint.origin().to_owned();
        self.take_saved(checkpoint, config)?;
        // The head is last, as in PEFT: it may be one with the embedding.
        for head in [false, true] {
            for rows in self.rows.iter().filter(|rows| (rows.id == TensorId::LM_HEAD) == head) {
                let id = present(checkpoint, rows.id);
                let merged = self.with_rows(rows, &origin, self.base(checkpoint, id, config)?)?;
                checkpoint.replace(id, merged);
            }
            for layer in self.layers.iter().filter(|layer| (layer.id == TensorId::LM_HEAD) == head) {
                self.change(layer, &origin, checkpoint, config)?;
            }
        }
        Ok(())
    }

    /// Changes the weight of a layer, and its bias.
    fn change(&self, layer: &Layer, origin: &str, checkpoint: &mut Checkpoint, config: &Config) -> Result<()> {
        let id = present(checkpoint, layer.id);
        // PEFT trained one change for the one weight, and saved it as the head's too, turned.
        if self.one_change && id != layer.id && self.layers.iter().any(|layer| layer.id == id) {
            return Ok(());
        }
        let merged = self.changed(layer, origin, self.base(checkpoint, id, config)?)?;
        checkpoint.replace(id, merged);
        if let Some(bias) = &layer.bias {
            let id = TensorId { kind: Kind::Bias, ..layer.id };
            let merged = self.with_bias(bias, layer.scale.factor, origin, self.base(checkpoint, id, config)?)?;
            checkpoint.replace(id, merged);
        }
        Ok(())
    }

    /// Puts whole tensors in the place of the base's.
    fn take_saved(&self, checkpoint: &mut Checkpoint, config: &mut Config) -> Result<()> {
        for Saved { id, is_copy, tensor } in &self.saved {
            let expected = id.shape(config);
            // Embedding and head may have been resized for new tokens.
            let is_resized = matches!(id.part, Part::Wte | Part::LmHead)
                && matches!(tensor.shape[..], [rows, width] if rows > 0 && width == config.n_embd);
            if tensor.shape != expected && !is_resized {
                return Err(self.misfit(tensor, &expected));
            }
            if id.layer.is_some_and(|layer| layer >= config.n_layer) {
                return Err(self.absent(*id));
            }
            if *is_copy
                && *id == TensorId::WTE
                && checkpoint.tensor(TensorId::LM_HEAD).is_none()
                && let Some(shared) = checkpoint.tensor(TensorId::WTE).cloned()
            {
                // The head keeps what the two had in common.
                checkpoint.replace(TensorId::LM_HEAD, Tensor { name: TensorId::LM_HEAD.to_string(), ..shared });
            }
            let place = if *is_copy { *id } else { present(checkpoint, *id) };
            let name = checkpoint.tensor(place).map_or(place.to_string(), |base| base.name.clone());
            let base = checkpoint.tensor(place).or_else(|| checkpoint.tensor(TensorId::WTE));
            let dtype = base.map_or(tensor.dtype, merged_type);
            let bytes = if tensor.dtype == dtype {
                tensor.bytes.clone()
            } else {
                tensor.convert(&self.origin(), dtype, false)?.into()
            };
            checkpoint.replace(place, Tensor { name, dtype, bytes, ..tensor.clone() });
        }
        let rows = |id| checkpoint.tensor(id).and_then(|tensor| tensor.shape.first().copied());
        let (embedding, head) = (rows(TensorId::WTE), rows(TensorId::LM_HEAD));
        match (embedding, head) {
            (Some(embedding), Some(head)) if embedding != head => Err(self.error(&format!(
                "with it, the embedding has {embedding} tokens and the head {head}; resize the base's as for training"
            ))),
            _ => {
                config.vocab_size = embedding.unwrap_or(config.vocab_size);
                Ok(())
            }
        }
    }

    /// The base's tensor `id`, which must have the shape that `config` calls for.
    fn base<'c>(&self, checkpoint: &'c Checkpoint, id: TensorId, config: &Config) -> Result<&'c Tensor> {
        let (origin, expected) = (checkpoint.origin().to_owned(), id.shape(config));
        match checkpoint.tensor(id) {
            None => Err(self.absent(id)),
            Some(base) if base.shape != expected => {
                Err(Error::TensorShape { origin, name: base.name.clone(), expected, found: base.shape.clone() })
            }
            Some(base) => Ok(base),
        }
    }

    fn origin(&self) -> String {
        self.path.display().to_string()
    }

    fn absent(&self, id: TensorId) -> Error {
        self.error(&format!("it changes `{id}`, which the model does not have"))
    }

    /// The error for a tensor of the wrong shape.
    fn misfit(&self, tensor: &Tensor, expected: &[usize]) -> Error {
        let Tensor { name, shape, .. } = tensor;
        self.error(&format!("tensor `{name}` has shape {shape:?}, the model calls for {expected:?}"))
    }

    /// The numbers of one of the adapter's tensors, which must have this shape.
    fn numbers(&self, tensor: &Tensor, shape: &[usize]) -> Result<Vec<f32>> {
        if tensor.shape != shape {
            return Err(self.misfit(tensor, shape));
        }
        let mut numbers = vec![0f32; shape.iter().product()];
        tensor.read(&self.origin(), 0, &mut numbers)?;
        Ok(numbers)
    }

    /// A table of the base with some rows replaced.
    fn with_rows(&self, Rows { indices, tensor, .. }: &Rows, origin: &str, base: &Tensor) -> Result<Tensor> {
        let (rows, width) = base.stored_dims();
        if let Some(index) = indices.iter().find(|index| **index >= rows) {
            return Err(self.error(&format!("it trained token {index}, but the model has {rows} tokens")));
        }
        let new = self.numbers(tensor, &[indices.len(), width])?;
        let mut numbers = numbers(origin, base)?;
        for (index, row) in indices.iter().zip(new.chunks_exact(width)) {
            numbers[index * width..][..width].copy_from_slice(row);
        }
        base.with_numbers(merged_type(base), &numbers)
    }

    /// A bias of the base with the scaled bias of B added.
    fn with_bias(&self, bias: &Tensor, factor: f32, origin: &str, base: &Tensor) -> Result<Tensor> {
        let added = self.numbers(bias, &base.shape)?;
        let mut numbers = numbers(origin, base)?;
        numbers.iter_mut().zip(added).for_each(|(number, added)| *number += added * factor);
        base.with_numbers(merged_type(base), &numbers)
    }

    /// A weight of the base with a layer's change.
    fn changed(&self, layer: &Layer, origin: &str, base: &Tensor) -> Result<Tensor> {
        let Layer { id, scale, a, b, magnitude, .. } = layer;
        // Along the first axis, the head has its outputs; `Conv1D` and embeddings have their inputs there.
        let outputs_are_rows = (id.part == Part::LmHead) != base.transposed;
        let (rows, columns) = base.stored_dims();
        let (inputs, outputs) = if outputs_are_rows { (columns, rows) } else { (rows, columns) };
        let a = self.numbers(a, &[scale.rank, inputs])?;
        let b = turned(&self.numbers(b, &[outputs, scale.rank])?, scale.rank);
        let (of_rows, of_columns) = if outputs_are_rows { (b, a) } else { (a, b) };
        let magnitude = magnitude.as_ref().map(|magnitude| self.numbers(magnitude, &[outputs])).transpose()?;

        // For embeddings, PEFT rounds the change to the type of the weight before it adds the two.
        let is_rounded = names::is_embedding(*id) && magnitude.is_none();
        let round: Option<fn(f32) -> f32> = match FloatType::of(base.dtype).filter(|_| is_rounded) {
            Some(FloatType::F16) => Some(|x| f16::from_f32(x).to_f32()),
            Some(FloatType::BF16) => Some(|x| bf16::from_f32(x).to_f32()),
            _ => None,
        };

        let mut numbers = vec![0f32; rows * columns];
        let step = (STEP / columns).max(1);
        let mut parts: Vec<_> = numbers.chunks_mut(step * columns).enumerate().map(|part| (part, Ok(()))).collect();
        pool::for_each(rows * columns * scale.rank, &mut parts, |((part, numbers), outcome)| {
            let first = *part * step;
            *outcome = base.read(origin, first * columns, numbers);
            let mut sums = vec![0f64; columns];
            for (row, numbers) in (first..).zip(numbers.chunks_exact_mut(columns)) {
                sums.fill(0.0);
                for (of_row, of_columns) in of_rows.chunks_exact(rows).zip(of_columns.chunks_exact(columns)) {
                    let of_row = f64::from(of_row[row]);
                    sums.iter_mut().zip(of_columns).for_each(|(sum, of)| *sum += of_row * f64::from(*of));
                }
                // PEFT sums in f32, in an order that depends on the machine. A sum that is rounded once is closest to
                // them all.
                for (number, sum) in numbers.iter_mut().zip(&sums) {
                    let change = *sum as f32 * scale.factor;
                    *number += round.map_or(change, |round| round(change));
                }
            }
        });
        base.bytes.release();
        parts.into_iter().try_for_each(|(_, outcome)| outcome)?;
        if let Some(magnitude) = magnitude {
            set_lengths(&mut numbers, columns, outputs_are_rows, &magnitude);
        }
        base.with_numbers(merged_type(base), &numbers)
    }
}

/// All numbers of a tensor of `origin`, as stored.
fn numbers(origin: &str, tensor: &Tensor) -> Result<Vec<f32>> {
    let mut numbers = vec![0f32; tensor.shape.iter().product()];
    tensor.read(origin, 0, &mut numbers)?;
    Ok(numbers)
}

/// The type of a weight after merging: its own, or f32 if it is quantised.
fn merged_type(base: &Tensor) -> DType {
    FloatType::of(base.dtype).map_or(DType::F32, FloatType::dtype)
}

/// The transpose of a matrix with `width` columns.
fn turned(matrix: &[f32], width: usize) -> Vec<f32> {
    (0..width).flat_map(|column| matrix.iter().skip(column).step_by(width)).copied().collect()
}

/// DoRA: scales the weights of each output to the given length.
fn set_lengths(numbers: &mut [f32], columns: usize, outputs_are_rows: bool, lengths: &[f32]) {
    let square = |x: &f32| f64::from(*x) * f64::from(*x);
    if outputs_are_rows {
        for (row, length) in numbers.chunks_exact_mut(columns).zip(lengths) {
            let factor = length / row.iter().map(square).sum::<f64>().sqrt() as f32;
            row.iter_mut().for_each(|x| *x *= factor);
        }
        return;
    }
    let mut sums = vec![0f64; columns];
    for row in numbers.chunks_exact(columns) {
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += square(x));
    }
    let factors: Vec<f32> = lengths.iter().zip(sums).map(|(length, sum)| length / sum.sqrt() as f32).collect();
    for row in numbers.chunks_exact_mut(columns) {
        row.iter_mut().zip(&factors).for_each(|(x, factor)| *x *= factor);
    }
}

/// The tensor that stands for `id`: the embedding for a head that is tied to it.
fn present(checkpoint: &Checkpoint, id: TensorId) -> TensorId {
    if id == TensorId::LM_HEAD && checkpoint.tensor(id).is_none() { TensorId::WTE } else { id }
}
