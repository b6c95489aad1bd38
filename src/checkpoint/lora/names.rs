//! The names of an adapter's tensors: `base_model.model.transformer.h.0.attn.c_attn.lora_A.weight`.

use crate::inventory::{Part, TensorId};

/// What a tensor is to its layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Piece {
    /// A, (r, inputs).
    A,
    /// B, (outputs, r).
    B,
    /// The bias of B.
    BiasOfB,
    /// DoRA's magnitudes.
    Magnitude,
    /// Rows of a table.
    Rows,
    /// A whole tensor.
    Whole,
    /// A whole tensor once more: the copy that was trained, beside [`Whole`](Self::Whole).
    Copy,
    /// A whole tensor as it was before training, beside [`Whole`](Self::Whole).
    Original,
}

/// How the names of the pieces end. Embeddings have names of their own.
const ENDINGS: [(&str, Piece); 8] = [
    (".lora_A.weight", Piece::A),
    (".lora_B.weight", Piece::B),
    (".lora_B.bias", Piece::BiasOfB),
    (".lora_embedding_A", Piece::A),
    (".lora_embedding_B", Piece::B),
    (".lora_magnitude_vector", Piece::Magnitude),
    (".lora_magnitude_vector.weight", Piece::Magnitude),
    (".token_adapter.trainable_tokens_delta", Piece::Rows),
];

/// What PEFT puts behind the name of a module around which it puts another.
const WRAPPERS: [&str; 2] = [".base_layer", ".token_adapter"];

/// What PEFT and others put before the names of a model's modules.
const PREFIXES: [&str; 4] = ["base_model.", "model.", "module.", "_orig_mod."];

/// Finds the place of the tensor `name`: the tensor of GPT-2 that it changes, the name of that tensor's module, and how.
/// `None` if it has no place in a GPT-2.
pub(super) fn place(name: &str) -> Option<(TensorId, String, Piece)> {
    let mut name = name;
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)) {
        name = rest;
    }
    let found = ENDINGS.iter().find_map(|(ending, piece)| Some((name.strip_suffix(ending)?, ending, *piece)));
    let Some((module, ending, piece)) = found else {
        let (module, kind) = name.rsplit_once('.')?;
        let (mut module, piece) = if let Some(module) = module.strip_suffix(".modules_to_save") {
            (module, Piece::Copy)
        } else if let Some(module) = module.strip_suffix(".original_module") {
            (module, Piece::Original)
        } else {
            (module, Piece::Whole)
        };
        while let Some(inner) = WRAPPERS.iter().find_map(|wrapper| module.strip_suffix(wrapper)) {
            module = inner;
        }
        return Some((tensor(module, kind)?, module.to_owned(), piece));
    };
    let id = tensor(module, "weight")?;
    let has_its_names = match piece {
        Piece::A | Piece::B => is_embedding(id) == ending.contains("embedding"),
        Piece::BiasOfB => id.is_conv1d(),
        Piece::Rows => matches!(id.part, Part::Wte | Part::LmHead),
        _ => true,
    };
    (id.is_matrix() && has_its_names).then(|| (id, module.to_owned(), piece))
}

/// Whether a layer looks up rows.
pub(super) fn is_embedding(id: TensorId) -> bool {
    matches!(id.part, Part::Wte | Part::Wpe)
}

fn tensor(module: &str, kind: &str) -> Option<TensorId> {
    let plain = module.strip_prefix("transformer.").unwrap_or(module);
    TensorId::named(&format!("{plain}.{kind}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Kind;

    #[test]
    fn each_tensor_of_an_adapter_has_its_place() {
        let attention = TensorId::in_block(3, Part::CAttn, Kind::Weight);
        for (name, id, module, piece) in [
            (
                "base_model.model.transformer.h.3.attn.c_attn.lora_A.weight",
                attention,
                "transformer.h.3.attn.c_attn",
                Piece::A,
            ),
            ("base_model.model.h.3.attn.c_attn.lora_B.weight", attention, "h.3.attn.c_attn", Piece::B),
            (
                "base_model.model.transformer.h.3.attn.c_attn.lora_B.bias",
                attention,
                "transformer.h.3.attn.c_attn",
                Piece::BiasOfB,
            ),
            (
                "_orig_mod.transformer.h.3.attn.c_attn.lora_magnitude_vector",
                attention,
                "transformer.h.3.attn.c_attn",
                Piece::Magnitude,
            ),
            ("base_model.model.transformer.wte.lora_embedding_A", TensorId::WTE, "transformer.wte", Piece::A),
            ("base_model.model.transformer.wpe.lora_embedding_B", TensorId::WPE, "transformer.wpe", Piece::B),
            ("base_model.model.lm_head.lora_A.weight", TensorId::LM_HEAD, "lm_head", Piece::A),
            ("base_model.model.lm_head.base_layer.weight", TensorId::LM_HEAD, "lm_head", Piece::Whole),
            ("base_model.model.lm_head.token_adapter.base_layer.weight", TensorId::LM_HEAD, "lm_head", Piece::Whole),
            ("base_model.model.lm_head.modules_to_save.weight", TensorId::LM_HEAD, "lm_head", Piece::Copy),
            ("base_model.model.lm_head.original_module.weight", TensorId::LM_HEAD, "lm_head", Piece::Original),
            (
                "base_model.model.transformer.wte.token_adapter.trainable_tokens_delta",
                TensorId::WTE,
                "transformer.wte",
                Piece::Rows,
            ),
            (
                "base_model.model.transformer.ln_f.bias",
                TensorId::outside(Part::LnF, Kind::Bias),
                "transformer.ln_f",
                Piece::Whole,
            ),
        ] {
            assert_eq!(place(name), Some((id, module.to_owned(), piece)), "{name}");
        }
        for name in [
            "base_model.model.transformer.h.0.attn.q_proj.lora_A.weight",
            "base_model.model.transformer.h.0.ln_1.lora_A.weight",
            "base_model.model.transformer.wte.lora_A.weight",
            "base_model.model.lm_head.lora_embedding_A",
            "base_model.model.transformer.wpe.token_adapter.trainable_tokens_delta",
            "base_model.model.score.weight",
            "base_model.model.transformer.h.0.attn.c_attn.lora_E",
            "base_model.model.transformer.h.0.attn.c_attn.lora_A.default.weight",
            "prompt_embeddings",
            "",
        ] {
            assert_eq!(place(name), None, "{name}");
        }
    }
}
