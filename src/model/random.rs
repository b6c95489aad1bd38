//! Random weights in the shape of a configuration: speed and memory do not depend on the numbers.

use half::{bf16, f16};

use super::WeightType;
use crate::checkpoint::{Checkpoint, StorageType, Tensor};
use crate::config::Config;
use crate::error::Result;
use crate::kernels::pool;

/// The standard deviation of GPT-2's initial weights (`initializer_range`).
const DEVIATION: f32 = 0.02;

impl Checkpoint {
    /// A checkpoint of random weights for a model with this configuration, the same for the same seed; stored as `weights`
    /// will want it, and as f16 for weights that are to be quantised. Norms are 1, biases 0.
    ///
    /// # Errors
    /// None that a valid configuration could cause.
    pub fn random(config: &Config, weights: WeightType, seed: u64) -> Result<Self> {
        let dtype = match weights {
            WeightType::Stored | WeightType::F32 => StorageType::F32,
            WeightType::F16 | WeightType::Quantized(_) => StorageType::F16,
            WeightType::BF16 => StorageType::BF16,
        };
        let tensors = shapes(config).into_iter().zip(seed..).map(|((name, shape), seed)| {
            let len = shape.iter().product();
            let (dtype, bytes) = match shape.len() {
                1 => (StorageType::F32, constant(if is_norm(&name) { 1.0 } else { 0.0 }, len)),
                _ => (dtype, noise(dtype, len, seed)),
            };
            Tensor { name, dtype, shape, transposed: false, bytes: bytes.into() }
        });
        Self::new("random weights".into(), tensors.collect())
    }
}

/// Names and shapes of all tensors.
pub(crate) fn shapes(config: &Config) -> Vec<(String, Vec<usize>)> {
    let (c, v, inner) = (config.n_embd, config.vocab_size, config.n_inner);
    let mut shapes =
        vec![("wte.weight".to_owned(), vec![v, c]), ("wpe.weight".to_owned(), vec![config.n_positions, c])];
    for i in 0..config.n_layer {
        let mut push = |name: &str, shape: Vec<usize>| shapes.push((format!("h.{i}.{name}"), shape));
        for norm in ["ln_1", "ln_2"] {
            push(&format!("{norm}.weight"), vec![c]);
            push(&format!("{norm}.bias"), vec![c]);
        }
        for (name, inputs, outputs) in
            [("attn.c_attn", c, 3 * c), ("attn.c_proj", c, c), ("mlp.c_fc", c, inner), ("mlp.c_proj", inner, c)]
        {
            push(&format!("{name}.weight"), vec![inputs, outputs]);
            if config.qkv_bias || name != "attn.c_attn" {
                push(&format!("{name}.bias"), vec![outputs]);
            }
        }
    }
    shapes.extend([("ln_f.weight".to_owned(), vec![c]), ("ln_f.bias".to_owned(), vec![c])]);
    if !config.tie_word_embeddings {
        shapes.push(("lm_head.weight".to_owned(), vec![v, c]));
    }
    shapes
}

fn is_norm(name: &str) -> bool {
    name.contains("ln_") && name.ends_with("weight")
}

fn constant(x: f32, len: usize) -> Vec<u8> {
    x.to_le_bytes().repeat(len)
}

/// Numbers spread evenly around 0.
fn noise(dtype: StorageType, len: usize, seed: u64) -> Vec<u8> {
    /// Numbers that one step makes.
    const STEP: usize = 1 << 16;
    let size = dtype.block_bytes();
    let mut bytes = vec![0u8; len * size];
    let mut parts: Vec<_> = bytes.chunks_mut(STEP * size).zip(0u64..).collect();
    pool::for_each(len, &mut parts, |(part, i)| {
        let mut state = (seed << 32 | *i).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        for out in part.chunks_exact_mut(size) {
            // A multiplicative congruence (Knuth's MMIX); the upper bits are the random ones.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let uniform = (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
            let x = uniform * 3f32.sqrt() * DEVIATION;
            match dtype {
                StorageType::F16 => out.copy_from_slice(&f16::from_f32(x).to_le_bytes()),
                StorageType::BF16 => out.copy_from_slice(&bf16::from_f32(x).to_le_bytes()),
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
    use crate::kernels::quantized::QuantizedType;
    use crate::model::{Gpt2, LoadOptions};

    fn config(tied: bool) -> Config {
        let config = Config::named("gpt2").unwrap();
        Config { vocab_size: 300, n_embd: 64, n_layer: 2, n_inner: 256, n_head: 4, tie_word_embeddings: tied, ..config }
    }

    #[test]
    fn every_parameter_is_there_and_the_model_loads() {
        for tied in [true, false] {
            let config = config(tied);
            for weights in [WeightType::F32, WeightType::BF16, WeightType::Quantized(QuantizedType::Q4K)] {
                let checkpoint = Checkpoint::random(&config, weights, 1).unwrap();
                let count: usize = checkpoint.tensors.iter().map(|t| t.shape.iter().product::<usize>()).sum();
                assert_eq!(count as u64, Parameters::of(&config).total);
                assert!(Gpt2::load(config.clone(), &checkpoint, LoadOptions { weights, ..Default::default() }).is_ok());
            }
        }
    }

    #[test]
    fn numbers_have_gpt2s_deviation() {
        let bytes = noise(StorageType::F32, 200_000, 3);
        let numbers = bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
        let (sum, squares) = numbers.fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
        assert!((sum / 200_000.0).abs() < 2e-4, "{sum}");
        assert!(((squares / 200_000.0).sqrt() - 0.02).abs() < 2e-4, "{squares}");
    }
}
