//! Random weights for a configuration: speed and memory use do not depend on the numbers.

use half::{bf16, f16};

use super::WeightType;
use crate::base::{DType, pool};
use crate::checkpoint::{Checkpoint, Tensor};
use crate::config::Config;
use crate::error::Result;

/// The standard deviation of GPT-2's initial weights (`initializer_range`).
const DEVIATION: f32 = 0.02;

impl Checkpoint {
    /// A checkpoint of random weights for a model with this configuration, reproducible by `seed`; stored in the type
    /// of `weights`, or as f16 if they are to be quantised. Norms are 1, biases 0.
    ///
    /// # Errors
    /// None for a valid configuration.
    pub fn random(config: &Config, weights: WeightType, seed: u64) -> Result<Self> {
        let dtype = match weights {
            WeightType::Stored => DType::F32,
            WeightType::Float(float) => float.dtype(),
            WeightType::Quantized(_) => DType::F16,
        };
        let tensors = config.tensors().zip(seed..).map(|(id, seed)| {
            let shape = id.shape(config);
            let len = shape.iter().product();
            let (dtype, bytes) = if id.is_matrix() {
                (dtype, noise(dtype, len, seed))
            } else {
                (DType::F32, constant(if id.is_norm_weight() { 1.0 } else { 0.0 }, len))
            };
            (id, Tensor { name: id.to_string(), dtype, shape, transposed: false, packed: false, bytes: bytes.into() })
        });
        Self::new("random weights".into(), tensors.collect())
    }
}

fn constant(x: f32, len: usize) -> Vec<u8> {
    x.to_le_bytes().repeat(len)
}

/// Numbers spread evenly around 0.
fn noise(dtype: DType, len: usize, seed: u64) -> Vec<u8> {
    /// Numbers generated in one step.
    const STEP: usize = 1 << 16;
    let size = dtype.block_bytes();
    let mut bytes = vec![0u8; len * size];
    let mut parts: Vec<_> = bytes.chunks_mut(STEP * size).zip(0u64..).collect();
    pool::for_each(len, &mut parts, |(part, i)| {
        let mut state = (seed << 32 | *i).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        for out in part.chunks_exact_mut(size) {
            // A linear congruential generator (Knuth's MMIX); the upper bits are the random ones.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let uniform = (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
            let x = uniform * 3f32.sqrt() * DEVIATION;
            match dtype {
                DType::F16 => out.copy_from_slice(&f16::from_f32(x).to_le_bytes()),
                DType::BF16 => out.copy_from_slice(&bf16::from_f32(x).to_le_bytes()),
                _ => out.copy_from_slice(&x.to_le_bytes()),
            }
        }
    });
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::parameters::Parameters;
    use crate::base::{FloatType, QuantizedType};
    use crate::model::{Gpt2, LoadOptions};

    fn config(tied: bool) -> Config {
        let config = Config::named("gpt2").unwrap();
        Config { vocab_size: 300, n_embd: 64, n_layer: 2, n_inner: 256, n_head: 4, tie_word_embeddings: tied, ..config }
    }

    #[test]
    fn every_parameter_is_there_and_the_model_loads() {
        for tied in [true, false] {
            let config = config(tied);
            for weights in
                [WeightType::Stored, WeightType::Float(FloatType::BF16), WeightType::Quantized(QuantizedType::Q4K)]
            {
                let checkpoint = Checkpoint::random(&config, weights, 1).unwrap();
                let count: usize = checkpoint.tensors().map(|(_, t)| t.shape.iter().product::<usize>()).sum();
                assert_eq!(count as u64, Parameters::of(&config).total);
                assert!(Gpt2::load(config.clone(), &checkpoint, LoadOptions { weights, ..Default::default() }).is_ok());
            }
        }
    }

    #[test]
    fn numbers_have_gpt2s_deviation() {
        let bytes = noise(DType::F32, 200_000, 3);
        let numbers = bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
        let (sum, squares) = numbers.fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
        assert!((sum / 200_000.0).abs() < 2e-4, "{sum}");
        assert!(((squares / 200_000.0).sqrt() - 0.02).abs() < 2e-4, "{squares}");
    }
}
