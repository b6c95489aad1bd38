//! The tensors of a GPT-2: their names, shapes and roles. Loading, random weights, memory, export and GGUF all read
//! this one table.
//!
//! Names are Hugging Face's (transformers, `modeling_gpt2.py`); GGUF's are llama.cpp's (`gguf-py`, `constants.py`).

use std::fmt;

use crate::config::Config;

/// A part of the network that has weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Token embedding.
    Wte,
    /// Position embedding.
    Wpe,
    /// A block's norm before attention.
    Ln1,
    /// A block's norm before the MLP.
    Ln2,
    /// A block's projection to queries, keys and values.
    CAttn,
    /// A block's projection of the mixed values.
    AttnCProj,
    /// The first half of a block's MLP.
    CFc,
    /// The second half of a block's MLP.
    MlpCProj,
    /// The final norm.
    LnF,
    /// The output head.
    LmHead,
}

/// The role of a part's weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Vectors by index, (entries, C): embeddings, and the output head, which scores against each vector.
    Table,
    /// A `Conv1D`'s matrix, (in, out); (out, in) in GGUF.
    Matrix,
    /// A norm's factors, (C).
    Norm,
}

/// A part's tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `weight`
    Weight,
    /// `bias`
    Bias,
}

struct Entry {
    part: Part,
    /// Hugging Face's name; within `h.N` for parts of blocks.
    name: &'static str,
    /// GGUF's name; within `blk.N` for parts of blocks.
    gguf: &'static str,
    in_block: bool,
    role: Role,
    has_bias: bool,
}

const fn entry(part: Part, name: &'static str, gguf: &'static str, in_block: bool, role: Role) -> Entry {
    Entry { part, name, gguf, in_block, role, has_bias: !matches!(role, Role::Table) }
}

/// In the order of [`Part`].
const PARTS: [Entry; 10] = [
    entry(Part::Wte, "wte", "token_embd", false, Role::Table),
    entry(Part::Wpe, "wpe", "position_embd", false, Role::Table),
    entry(Part::Ln1, "ln_1", "attn_norm", true, Role::Norm),
    entry(Part::Ln2, "ln_2", "ffn_norm", true, Role::Norm),
    entry(Part::CAttn, "attn.c_attn", "attn_qkv", true, Role::Matrix),
    entry(Part::AttnCProj, "attn.c_proj", "attn_output", true, Role::Matrix),
    entry(Part::CFc, "mlp.c_fc", "ffn_up", true, Role::Matrix),
    entry(Part::MlpCProj, "mlp.c_proj", "ffn_down", true, Role::Matrix),
    entry(Part::LnF, "ln_f", "output_norm", false, Role::Norm),
    entry(Part::LmHead, "lm_head", "output", false, Role::Table),
];

impl Part {
    fn entry(self) -> &'static Entry {
        &PARTS[self as usize]
    }

    /// The role of its weight.
    #[must_use]
    pub fn role(self) -> Role {
        self.entry().role
    }

    /// Whether a name that GPT-2 does not have looks like a tensor of a GPT-2: it is in a block, or named like a part.
    pub(crate) fn is_in_name(name: &str) -> bool {
        let is_part = |component: &str| PARTS.iter().any(|entry| entry.name.rsplit('.').next() == Some(component));
        name.starts_with("h.") || name.split('.').any(is_part)
    }
}

/// One tensor of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TensorId {
    /// The block's index, for parts of blocks.
    pub layer: Option<usize>,
    /// The part it belongs to.
    pub part: Part,
    /// Weight or bias.
    pub kind: Kind,
}

impl TensorId {
    /// The token embedding.
    pub const WTE: Self = Self::outside(Part::Wte, Kind::Weight);
    /// The position embedding.
    pub const WPE: Self = Self::outside(Part::Wpe, Kind::Weight);
    /// The output head.
    pub const LM_HEAD: Self = Self::outside(Part::LmHead, Kind::Weight);
    /// The matrix whose type in a checkpoint stands for the matrices of all blocks.
    pub const FIRST_MATRIX: Self = Self::in_block(0, Part::CAttn, Kind::Weight);
    /// The bias whose presence stands for those of all blocks.
    pub const FIRST_QKV_BIAS: Self = Self::in_block(0, Part::CAttn, Kind::Bias);

    /// A tensor outside the blocks.
    #[must_use]
    pub const fn outside(part: Part, kind: Kind) -> Self {
        Self { layer: None, part, kind }
    }

    /// A tensor of block `layer`.
    #[must_use]
    pub const fn in_block(layer: usize, part: Part, kind: Kind) -> Self {
        Self { layer: Some(layer), part, kind }
    }

    /// The tensor that Hugging Face calls `name`, without the prefix `transformer.`; `None` if GPT-2 has no such
    /// tensor.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::parse(name, "h.", |entry| entry.name).filter(|id| id.to_string() == name)
    }

    /// The tensor that GGUF calls `name`.
    #[must_use]
    pub fn of_gguf(name: &str) -> Option<Self> {
        Self::parse(name, "blk.", |entry| entry.gguf).filter(|id| id.gguf_name() == name)
    }

    fn parse(name: &str, blocks: &str, of: fn(&Entry) -> &'static str) -> Option<Self> {
        let (path, kind) = name.rsplit_once('.')?;
        let kind = match kind {
            "weight" => Kind::Weight,
            "bias" => Kind::Bias,
            _ => return None,
        };
        let (layer, path) = match path.strip_prefix(blocks).and_then(|rest| rest.split_once('.')) {
            Some((layer, path)) => (Some(layer.parse().ok()?), path),
            None => (None, path),
        };
        let entry = PARTS.iter().find(|entry| of(entry) == path && entry.in_block == layer.is_some())?;
        (kind == Kind::Weight || entry.has_bias).then_some(Self { layer, part: entry.part, kind })
    }

    fn write(self, blocks: &str, of: fn(&Entry) -> &'static str) -> String {
        let kind = if self.kind == Kind::Weight { "weight" } else { "bias" };
        let part = of(self.part.entry());
        match self.layer {
            Some(layer) => format!("{blocks}{layer}.{part}.{kind}"),
            None => format!("{part}.{kind}"),
        }
    }

    /// GGUF's name: `blk.0.attn_qkv.weight`.
    #[must_use]
    pub fn gguf_name(self) -> String {
        self.write("blk.", |entry| entry.gguf)
    }

    /// Whether it has two axes: the weight of a table or of a matrix.
    #[must_use]
    pub fn is_matrix(self) -> bool {
        self.kind == Kind::Weight && self.part.role() != Role::Norm
    }

    /// Whether it is the weight of a `Conv1D`: (in, out), but (out, in) in GGUF.
    #[must_use]
    pub fn is_conv1d(self) -> bool {
        self.kind == Kind::Weight && self.part.role() == Role::Matrix
    }

    /// Whether it holds a norm's factors, which start at 1.
    #[must_use]
    pub fn is_norm_weight(self) -> bool {
        self.kind == Kind::Weight && self.part.role() == Role::Norm
    }

    /// The shape in a model with this configuration.
    #[must_use]
    pub fn shape(self, config: &Config) -> Vec<usize> {
        let (c, inner) = (config.n_embd, config.n_inner);
        let [rows, columns] = match self.part {
            Part::Wte | Part::LmHead => [config.vocab_size, c],
            Part::Wpe => [config.n_positions, c],
            Part::Ln1 | Part::Ln2 | Part::LnF => return vec![c],
            Part::CAttn => [c, 3 * c],
            Part::AttnCProj => [c, c],
            Part::CFc => [c, inner],
            Part::MlpCProj => [inner, c],
        };
        if self.kind == Kind::Weight { vec![rows, columns] } else { vec![columns] }
    }
}

/// Hugging Face's name, without the prefix `transformer.`: `h.0.attn.c_attn.weight`.
impl fmt::Display for TensorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.write("h.", |entry| entry.name))
    }
}

impl Config {
    /// The tensors of a model with this configuration, without a tied head.
    pub fn tensors(&self) -> impl Iterator<Item = TensorId> {
        let of = |layer: Option<usize>| {
            let entries = PARTS.iter().filter(move |entry| entry.in_block == layer.is_some());
            entries.flat_map(move |entry| {
                let kinds = if entry.has_bias { &[Kind::Weight, Kind::Bias][..] } else { &[Kind::Weight] };
                kinds.iter().map(move |kind| TensorId { layer, part: entry.part, kind: *kind })
            })
        };
        let (before, after) = of(None).partition::<Vec<_>, _>(|id| matches!(id.part, Part::Wte | Part::Wpe));
        let all = before.into_iter().chain((0..self.n_layer).flat_map(move |layer| of(Some(layer)))).chain(after);
        all.filter(|id| self.has(*id))
    }

    /// Whether a model with this configuration has this tensor.
    #[must_use]
    pub fn has(&self, id: TensorId) -> bool {
        match (id.part, id.kind) {
            _ if id.layer.is_some_and(|layer| layer >= self.n_layer) => false,
            (Part::LmHead, _) => !self.tie_word_embeddings,
            (_, Kind::Weight) => true,
            (part, Kind::Bias) => self.bias && (self.qkv_bias || part != Part::CAttn),
        }
    }
}

/// Whether a tensor is one of the causal-mask buffers that old versions of transformers saved with the weights:
/// `h.N.attn.bias`, `h.N.attn.masked_bias`. (The bias of a projection is `h.N.attn.c_attn.bias`.)
pub(crate) fn is_causal_mask(name: &str) -> bool {
    let Some((block, buffer)) = name.strip_prefix("h.").and_then(|rest| rest.split_once('.')) else {
        return false;
    };
    !block.is_empty() && block.bytes().all(|c| c.is_ascii_digit()) && matches!(buffer, "attn.bias" | "attn.masked_bias")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_parts() {
        for (place, entry) in PARTS.iter().enumerate() {
            assert_eq!(entry.part as usize, place, "{}", entry.name);
        }
    }

    #[test]
    fn names_are_those_of_both_formats() {
        for (name, gguf) in [
            ("wte.weight", "token_embd.weight"),
            ("wpe.weight", "position_embd.weight"),
            ("h.0.ln_1.weight", "blk.0.attn_norm.weight"),
            ("h.11.attn.c_attn.bias", "blk.11.attn_qkv.bias"),
            ("h.3.attn.c_proj.weight", "blk.3.attn_output.weight"),
            ("h.3.ln_2.bias", "blk.3.ffn_norm.bias"),
            ("h.47.mlp.c_fc.weight", "blk.47.ffn_up.weight"),
            ("h.0.mlp.c_proj.bias", "blk.0.ffn_down.bias"),
            ("ln_f.bias", "output_norm.bias"),
            ("lm_head.weight", "output.weight"),
        ] {
            let id = TensorId::named(name).unwrap();
            assert_eq!((id.to_string().as_str(), id.gguf_name().as_str()), (name, gguf));
            assert_eq!(TensorId::of_gguf(gguf), Some(id));
        }
        for name in [
            "h.0.attn.rotary.weight",
            "wte",
            "wte.bias",
            "h.00.ln_1.weight",
            "h.x.ln_1.weight",
            "h.0.wte.weight",
            "ln_1.weight",
            "",
        ] {
            assert_eq!(TensorId::named(name), None, "{name}");
        }
        for name in ["blk.0.ffn_gate.weight", "h.0.ln_1.weight", "blk.+1.attn_norm.weight", "rope_freqs.weight"] {
            assert_eq!(TensorId::of_gguf(name), None, "{name}");
        }
    }

    #[test]
    fn the_published_sizes_have_the_published_parameters() {
        for (name, millions) in [("gpt2", 124_439_808), ("gpt2-xl", 1_557_611_200)] {
            let config = Config::named(name).unwrap();
            let count: usize = config.tensors().map(|id| id.shape(&config).iter().product::<usize>()).sum();
            assert_eq!(count, millions, "{name}");
        }
    }

    #[test]
    fn mask_buffers_are_told_from_biases() {
        assert!(is_causal_mask("h.0.attn.bias") && is_causal_mask("h.11.attn.masked_bias"));
        for name in ["h.0.attn.c_attn.bias", "h.0.attn.c_proj.bias", "h..attn.bias", "attn.bias"] {
            assert!(!is_causal_mask(name), "{name}");
        }
    }
}
