//! Names of GPT-2's tensors: llama.cpp's and Hugging Face's.

/// What lies outside of the blocks: GGUF's name and Hugging Face's.
const OUTSIDE: [(&str, &str); 4] =
    [("token_embd", "wte"), ("position_embd", "wpe"), ("output_norm", "ln_f"), ("output", "lm_head")];

/// What is in `blk.N` and in `h.N`.
const IN_BLOCK: [(&str, &str); 6] = [
    ("attn_norm", "ln_1"),
    ("attn_qkv", "attn.c_attn"),
    ("attn_output", "attn.c_proj"),
    ("ffn_norm", "ln_2"),
    ("ffn_up", "mlp.c_fc"),
    ("ffn_down", "mlp.c_proj"),
];

/// Hugging Face's name for a tensor of a GGUF file: `blk.0.attn_qkv.weight` is `h.0.attn.c_attn.weight`.
pub(super) fn hugging_face_name(name: &str) -> Option<String> {
    let (layer, kind) = name.rsplit_once('.')?;
    if let Some((block, part)) = layer.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
        let (_, theirs) = IN_BLOCK.iter().find(|(ours, _)| *ours == part)?;
        return Some(format!("h.{block}.{theirs}.{kind}"));
    }
    let (_, theirs) = OUTSIDE.iter().find(|(ours, _)| *ours == layer)?;
    Some(format!("{theirs}.{kind}"))
}

/// GGUF's name for a tensor under Hugging Face's: `h.0.attn.c_attn.weight` is `blk.0.attn_qkv.weight`.
#[must_use]
pub fn gguf_name(name: &str) -> Option<String> {
    let (layer, kind) = name.rsplit_once('.')?;
    if let Some((block, part)) = layer.strip_prefix("h.").and_then(|rest| rest.split_once('.')) {
        let (ours, _) = IN_BLOCK.iter().find(|(_, theirs)| *theirs == part)?;
        return Some(format!("blk.{block}.{ours}.{kind}"));
    }
    let (ours, _) = OUTSIDE.iter().find(|(_, theirs)| *theirs == layer)?;
    Some(format!("{ours}.{kind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_there_and_back() {
        for (gguf, hugging_face) in [
            ("token_embd.weight", "wte.weight"),
            ("output_norm.bias", "ln_f.bias"),
            ("output.weight", "lm_head.weight"),
            ("blk.0.attn_qkv.weight", "h.0.attn.c_attn.weight"),
            ("blk.11.ffn_down.bias", "h.11.mlp.c_proj.bias"),
        ] {
            assert_eq!(hugging_face_name(gguf).as_deref(), Some(hugging_face));
            assert_eq!(gguf_name(hugging_face).as_deref(), Some(gguf));
        }
    }

    #[test]
    fn other_names_have_no_counterpart() {
        for name in ["", "token_embd", "blk.0.attn_q.weight", "blk.weight", "rope_freqs.weight"] {
            assert_eq!(hugging_face_name(name), None, "{name}");
        }
    }
}
