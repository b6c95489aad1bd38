//! How many parameters a configuration has, where they are, and what they cost in memory and arithmetic.

use serde::Serialize;

use crate::config::Config;

/// Parameter counts by component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Parameters {
    /// All parameters, with a tied head counted once.
    pub total: u64,
    /// All parameters, with the head as a separate matrix.
    pub untied_total: u64,
    /// `wte`, V * C.
    pub token_embedding: u64,
    /// `wpe`, n_positions * C.
    pub position_embedding: u64,
    /// One block.
    pub per_block: u64,
    /// All blocks.
    pub blocks: u64,
    /// `ln_f`.
    pub final_norm: u64,
    /// The output head's own parameters: 0 if it is the token embedding.
    pub head: u64,
    /// The attention of all blocks: `attn.c_attn` and `attn.c_proj`.
    pub attention: u64,
    /// The MLPs of all blocks: `mlp.c_fc` and `mlp.c_proj`.
    pub mlp: u64,
    /// All norms: `ln_1` and `ln_2` of every block, and `ln_f`.
    pub norm: u64,
    /// One block by layer.
    pub block: BlockParameters,
}

/// Parameters of one block by layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlockParameters {
    /// `ln_1`.
    pub ln_1: u64,
    /// `attn.c_attn`.
    pub attn_c_attn: u64,
    /// `attn.c_proj`.
    pub attn_c_proj: u64,
    /// `ln_2`.
    pub ln_2: u64,
    /// `mlp.c_fc`.
    pub mlp_c_fc: u64,
    /// `mlp.c_proj`.
    pub mlp_c_proj: u64,
    /// Its attention: `attn.c_attn` and `attn.c_proj`.
    pub attention: u64,
    /// Its MLP: `mlp.c_fc` and `mlp.c_proj`.
    pub mlp: u64,
    /// Its norms: `ln_1` and `ln_2`.
    pub norm: u64,
}

impl Parameters {
    /// Counts the parameters of a model with this configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let [c, v, inner] = [config.n_embd, config.vocab_size, config.n_inner].map(|n| n as u64);
        let bias = |outputs| if config.bias { outputs } else { 0 };
        let norm = c + bias(c);
        let attn_c_attn = 3 * c * c + if config.qkv_bias { bias(3 * c) } else { 0 };
        let attn_c_proj = c * c + bias(c);
        let mlp_c_fc = c * inner + bias(inner);
        let mlp_c_proj = inner * c + bias(c);
        let block = BlockParameters {
            ln_1: norm,
            attn_c_attn,
            attn_c_proj,
            ln_2: norm,
            mlp_c_fc,
            mlp_c_proj,
            attention: attn_c_attn + attn_c_proj,
            mlp: mlp_c_fc + mlp_c_proj,
            norm: 2 * norm,
        };
        let layers = config.n_layer as u64;
        let per_block = block.attention + block.mlp + block.norm;
        let blocks = layers * per_block;
        let (token_embedding, position_embedding) = (v * c, config.n_positions as u64 * c);
        let head = if config.tie_word_embeddings { 0 } else { v * c };
        let tied_total = token_embedding + position_embedding + blocks + norm;
        Self {
            total: tied_total + head,
            untied_total: tied_total + v * c,
            token_embedding,
            position_embedding,
            per_block,
            blocks,
            final_norm: norm,
            head,
            attention: layers * block.attention,
            mlp: layers * block.mlp,
            norm: layers * block.norm + norm,
            block,
        }
    }
}

/// What a model costs in memory and arithmetic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Costs {
    /// Bytes of all parameters at 32 bits.
    pub f32_bytes: u64,
    /// Bytes of all parameters at 16 bits (f16 or bf16).
    pub f16_bytes: u64,
    /// Bytes with matrices at 8 bits in blocks of 32 with an f16 scale (8.5 bits a weight), the rest at 32 bits.
    pub q8_0_bytes: u64,
    /// Bytes with matrices at 4 bits in blocks of 256 with scales and minima (4.5 bits a weight), the rest at 32 bits.
    pub q4_k_bytes: u64,
    /// Bytes of one position in an f32 key-value cache.
    pub kv_cache_bytes_per_token: u64,
    /// Bytes of an f32 key-value cache for a full context.
    pub kv_cache_bytes_full_context: u64,
    /// Floating-point operations to run one token through the matrices, two for each weight.
    pub flops_per_token: u64,
    /// Additional operations for each cached position (attention).
    pub flops_per_cached_position: u64,
}

impl Costs {
    /// The costs of a model with this configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let parameters = Parameters::of(config);
        let [c, v, inner, layers] =
            [config.n_embd, config.vocab_size, config.n_inner, config.n_layer].map(|n| n as u64);
        let block_matrices = layers * (4 * c * c + 2 * c * inner);
        let tables = parameters.token_embedding + parameters.position_embedding + parameters.head;
        let matrices = block_matrices + tables;
        let rest = 4 * (parameters.total - matrices);
        let kv_cache_bytes_per_token = layers * 2 * c * 4;
        Self {
            f32_bytes: 4 * parameters.total,
            f16_bytes: 2 * parameters.total,
            q8_0_bytes: matrices * 34 / 32 + rest,
            q4_k_bytes: matrices * 144 / 256 + rest,
            kv_cache_bytes_per_token,
            kv_cache_bytes_full_context: kv_cache_bytes_per_token * config.n_positions as u64,
            flops_per_token: 2 * (block_matrices + v * c),
            flops_per_cached_position: layers * 4 * c,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Published counts: `sum(p.numel() for p in model.parameters())` of the checkpoints.
    #[test]
    fn published_sizes_have_their_published_counts() {
        let total = |name| Parameters::of(&Config::named(name).unwrap()).total;
        assert_eq!(total("distilgpt2"), 81_912_576);
        assert_eq!(total("gpt2"), 124_439_808);
        assert_eq!(total("gpt2-medium"), 354_823_168);
        assert_eq!(total("gpt2-large"), 774_030_080);
        assert_eq!(total("gpt2-xl"), 1_557_611_200);
    }

    /// `sum(p.numel() for n, p in model.named_parameters() if ".attn." in n)` of the checkpoint, and likewise.
    #[test]
    fn attention_mlp_and_norms_add_up_to_the_rest() {
        let gpt2 = Parameters::of(&Config::named("gpt2").unwrap());
        assert_eq!((gpt2.attention, gpt2.mlp, gpt2.norm), (28_348_416, 56_669_184, 38_400));
        let tables = gpt2.token_embedding + gpt2.position_embedding;
        assert_eq!(tables + gpt2.attention + gpt2.mlp + gpt2.norm + gpt2.head, gpt2.total);
    }

    #[test]
    fn an_untied_head_without_qkv_bias_is_counted() {
        let config = Config { tie_word_embeddings: false, qkv_bias: false, ..Config::named("gpt2").unwrap() };
        let parameters = Parameters::of(&config);
        assert_eq!(parameters.total, 163_009_536);
        assert_eq!(parameters.untied_total, 163_009_536);
        assert_eq!(parameters.per_block, 7_085_568);
        assert_eq!(parameters.blocks, 85_026_816);
        assert_eq!(parameters.head, 38_597_376);
    }
}
