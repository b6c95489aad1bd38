//! The activations of one forward pass: hidden states and attention, kept and summarised, and any of them written to a
//! file on the way.
//!
//! The pass is the model's own ([`Gpt2::forward`]), told to keep what it computes anyway.

use std::ops::Range;

use candle_core::Tensor;
use sha2::{Digest, Sha256};

use super::saved::{Saver, Saving};
use crate::error::{Error, Result};
use crate::model::{Gpt2, Hook, HookPoint, Recorder, Trace, with_slice};

/// The activations of one text of `T` tokens.
#[derive(Debug, Default)]
pub struct Activations {
    /// The residual stream in the order of the network: after the embedding, every block, and the final norm.
    pub hidden: Vec<Hidden>,
    /// Attention of the requested layers.
    pub attention: Vec<Attention>,
}

/// A hidden state.
#[derive(Debug)]
pub struct Hidden {
    /// `embed`, `blocks.{i}.hidden` (after block i), `final` (after the final norm).
    pub name: String,
    /// The values, (T, C).
    pub tensor: Tensor,
}

/// A layer's attention probabilities.
#[derive(Debug)]
pub struct Attention {
    /// The layer, from 0.
    pub layer: usize,
    /// The weights, (H, T, T): head, query token, key token.
    pub tensor: Tensor,
}

/// A summary of a hidden state.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The shape, (T, C).
    pub shape: (usize, usize),
    /// The mean of all values.
    pub mean: f64,
    /// Their standard deviation (over n - 1, as in `torch.std`; 0 for a single value).
    pub std: f64,
    /// The first values of the first position.
    pub first: Vec<f32>,
    /// The first values of the last position.
    pub last_position: Vec<f32>,
    /// The last values of the last position.
    pub last: Vec<f32>,
    /// The norm `‖x‖₂` of each position's vector.
    pub norms: Vec<f32>,
}

/// Bytes that the activations of `tokens` tokens take, with the attention of so many layers, and what it takes to
/// summarise them, or, if they are to be `hashed`, to do that. Saving takes [more](super::saved::Selection::bytes).
#[must_use]
pub fn bytes(model: &Gpt2, tokens: usize, attention_layers: usize, hashed: bool) -> u64 {
    const NUMBER: u64 = size_of::<f32>() as u64;
    let (config, room, tokens) = (model.config(), model.room(), tokens as u64);
    let hidden = (config.n_layer as u64 + 3) * tokens * config.n_embd as u64 * NUMBER;
    let layer = config.n_head as u64 * tokens * tokens * NUMBER;
    // A layer's attention is there twice while it is recorded or summarised.
    let attention = layer * (attention_layers as u64 + u64::from(attention_layers > 0));
    let pass = tokens * room.position_bytes + room.cache_bytes(tokens as usize);
    let logits = if hashed { 2 * tokens * config.vocab_size as u64 * NUMBER } else { 0 };
    hidden + attention + pass + logits
}

impl Activations {
    /// Runs `ids` through the model in one pass, keeping the hidden states and the attention of the given layers.
    ///
    /// # Errors
    /// As [`Gpt2::forward`]; [`Error::Numerics`] if attention is no distribution, because queries or keys are not finite.
    pub fn record(model: &Gpt2, ids: &[u32], attention: Range<usize>) -> Result<Self> {
        let mut all = Self::record_all(model, &[ids], attention)?;
        all.pop().ok_or_else(|| candle_core::Error::msg("a pass without a text").into())
    }

    /// Runs several texts through the model in one pass. Each text's activations are those that
    /// [`record`](Self::record) gives, to the bit.
    ///
    /// # Errors
    /// As [`record`](Self::record), if any of the texts fails.
    pub fn record_all(model: &Gpt2, texts: &[&[u32]], attention: Range<usize>) -> Result<Vec<Self>> {
        Self::record_and_save(model, texts, attention, None)
    }

    /// The same, and what is to be saved of the pass is saved on the way.
    ///
    /// # Errors
    /// As [`record_all`](Self::record_all); those of what the activations are saved to.
    pub fn record_and_save<'a>(
        model: &'a Gpt2,
        texts: &'a [&'a [u32]],
        attention: Range<usize>,
        saving: Option<Saving<'a>>,
    ) -> Result<Vec<Self>> {
        let layers = model.config().n_layer;
        let states = std::iter::once(HookPoint { layer: 0, hook: Hook::ResidPre });
        let states = states.chain((0..layers).map(|layer| HookPoint { layer, hook: Hook::ResidPost }));
        let points = states.chain(attention.clone().map(|layer| HookPoint { layer, hook: Hook::Pattern }));
        let saver = saving.map(|saving| Saver::new(model, texts, saving));
        let mut recorders = Both { trace: Trace::of(points), saver };
        let inputs: Vec<(usize, &[u32])> = texts.iter().copied().enumerate().collect();
        let x = model.forward(&inputs, &mut model.new_cache(), Some(&mut recorders))?;
        let normed = model.final_norm(&x)?;
        let Both { mut trace, saver } = recorders;
        if let Some(mut saver) = saver {
            saver.finish(&x, &normed)?;
        }
        // The states of all texts, (N, C), in the order of the network.
        let mut states: Vec<(String, Tensor)> =
            trace.take(0, Hook::ResidPre).into_iter().map(|tensor| ("embed".to_owned(), tensor)).collect();
        for layer in 0..layers {
            let after = trace.take(layer, Hook::ResidPost).into_iter();
            states.extend(after.map(|tensor| (format!("blocks.{layer}.hidden"), tensor)));
        }
        states.push(("final".to_owned(), normed));
        let mut weights: Vec<_> =
            attention.map(|layer| (layer, trace.take(layer, Hook::Pattern).into_iter())).collect();
        let mut before = 0;
        let mut all = Vec::with_capacity(texts.len());
        for ids in texts {
            let own = |(name, tensor): &(String, Tensor)| -> Result<Hidden> {
                let tensor = match texts.len() {
                    1 => tensor.clone(),
                    _ => tensor.narrow(0, before, ids.len())?.contiguous()?,
                };
                Ok(Hidden { name: name.clone(), tensor })
            };
            let hidden = states.iter().map(own).collect::<Result<_>>()?;
            // For each layer, one for each text.
            let own = weights.iter_mut().filter_map(|(layer, of_texts)| Some((*layer, of_texts.next()?)));
            let attention: Vec<_> = own.map(|(layer, tensor)| Attention { layer, tensor }).collect();
            attention.iter().try_for_each(|attention| check_attention(attention.layer, &attention.tensor))?;
            all.push(Self { hidden, attention });
            before += ids.len();
        }
        Ok(all)
    }

    /// A hash of every number of these activations and of the logits that follow from them: SHA-256, in hexadecimal. Two
    /// runs with the same one gave the same bits.
    ///
    /// # Errors
    /// If the device fails.
    pub fn fingerprint(&self, model: &Gpt2) -> Result<String> {
        let mut hash = Sha256::new();
        let logits = self.logits(model)?;
        let hidden = self.hidden.iter().map(|state| &state.tensor);
        for tensor in hidden.chain(self.attention.iter().map(|attention| &attention.tensor)).chain([&logits]) {
            with_slice(tensor, |numbers| {
                for some in numbers.chunks(1 << 14) {
                    hash.update(some.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>());
                }
            })?;
        }
        Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The logits of every position, (T, V), from the hidden states.
    ///
    /// # Errors
    /// If the device fails.
    pub fn logits(&self, model: &Gpt2) -> Result<Tensor> {
        match self.hidden.last() {
            Some(last) => model.logits(&last.tensor),
            None => Err(candle_core::Error::msg("a pass without hidden states").into()),
        }
    }
}

/// What is kept and what is saved of the same pass.
#[derive(Debug)]
struct Both<'a> {
    trace: Trace,
    saver: Option<Saver<'a>>,
}

impl Recorder for Both<'_> {
    fn wants(&self, point: HookPoint) -> bool {
        self.trace.wants(point) || self.saver.as_ref().is_some_and(|saver| saver.wants(point))
    }

    fn record(&mut self, point: HookPoint, tensors: Vec<Tensor>) -> Result<()> {
        if self.trace.wants(point) {
            self.trace.record(point, tensors.clone())?;
        }
        match self.saver.as_mut().filter(|saver| saver.wants(point)) {
            Some(saver) => saver.record(point, tensors),
            None => Ok(()),
        }
    }
}

/// Fails unless the weights of each query of a layer, (H, T, T), are a distribution.
pub(super) fn check_attention(layer: usize, weights: &Tensor) -> Result<()> {
    /// How far a sum of rounded weights may be from 1.
    const TOLERANCE: f64 = 1e-2;
    let tokens = weights.dims().last().copied().unwrap_or(1).max(1);
    let is_distribution = |weights: &[f32]| {
        let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        (sum - 1.0).abs() < TOLERANCE && weights.iter().all(|weight| *weight >= 0.0)
    };
    let fault = with_slice(weights, |x| x.chunks_exact(tokens).position(|weights| !is_distribution(weights)))?;
    match fault {
        None => Ok(()),
        Some(row) => Err(Error::Numerics(format!(
            "the attention of layer {layer}, head {}, position {} is no distribution: what goes into it is not finite",
            row / tokens,
            row % tokens
        ))),
    }
}

impl Attention {
    /// One head's weights: for each query token, its weights on all tokens.
    ///
    /// # Errors
    /// If the layer does not have this head.
    pub fn weights(&self, head: usize) -> Result<Vec<Vec<f32>>> {
        Ok(self.tensor.get(head)?.to_vec2()?)
    }
}

impl Hidden {
    /// Summarises the state, with `n` values in each excerpt.
    ///
    /// # Errors
    /// If the state cannot be copied to main memory.
    pub fn summary(&self, n: usize) -> Result<Summary> {
        let shape = self.tensor.dims2()?;
        with_slice(&self.tensor, |x| {
            let n = n.min(shape.1);
            let count = x.len() as f64;
            let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
            let square = |x: f64| x * x;
            let squares: f64 = x.iter().map(|x| square(f64::from(*x) - mean)).sum();
            let norm = |row: &[f32]| row.iter().map(|x| square(f64::from(*x))).sum::<f64>().sqrt() as f32;
            let last = &x[x.len() - shape.1..];
            Summary {
                shape,
                mean,
                std: (squares / (count - 1.0).max(1.0)).sqrt(),
                first: x[..n].to_vec(),
                last_position: last[..n].to_vec(),
                last: last[shape.1 - n..].to_vec(),
                norms: x.chunks_exact(shape.1).map(norm).collect(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn summaries_match_torch() {
        let tensor = Tensor::new(&[[1f32, 2., 3.], [4., 5., 9.]], &Device::Cpu).unwrap();
        let summary = Hidden { name: "embed".into(), tensor }.summary(2).unwrap();
        assert_eq!((summary.shape, summary.mean), ((2, 3), 4.0));
        // torch.tensor([[1., 2, 3], [4, 5, 9]]).std() = 2.8284
        assert!((summary.std - 8f64.sqrt()).abs() < 1e-12);
        assert_eq!((summary.first, summary.last_position, summary.last), (vec![1., 2.], vec![4., 5.], vec![5., 9.]));
        assert!((summary.norms[0] - 14f32.sqrt()).abs() < 1e-6 && (summary.norms[1] - 122f32.sqrt()).abs() < 1e-6);
    }
}
