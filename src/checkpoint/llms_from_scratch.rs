//! `GPTModel` of Sebastian Raschka's book "Build a Large Language Model (From Scratch)", as its `state_dict()` names it.
//!
//! Its matrices are (out, in), queries, keys and values separate, the head is a matrix of its own, the activation is the
//! tanh form of GELU, and the number of heads is in no tensor. Reference: the book's `ch04` and `ch05`.

use std::collections::BTreeMap;

use super::names::plain;
use super::{Checkpoint, Tensor};
use crate::config::{Activation, Config};
use crate::error::{Error, Result};
use crate::inventory::{Kind, Part, TensorId};

/// The tensor that tells the form.
pub(super) const TOKEN_EMBEDDING: &str = "tok_emb.weight";

/// The width of a head unless the caller gives the number of heads: that of every published GPT-2.
const HEAD_WIDTH: usize = 64;

/// Names outside the blocks.
const OUTSIDE: [(&str, Part, Kind); 5] = [
    (TOKEN_EMBEDDING, Part::Wte, Kind::Weight),
    ("pos_emb.weight", Part::Wpe, Kind::Weight),
    ("final_norm.scale", Part::LnF, Kind::Weight),
    ("final_norm.shift", Part::LnF, Kind::Bias),
    ("out_head.weight", Part::LmHead, Kind::Weight),
];

/// Names within `trf_blocks.N.`.
const IN_BLOCK: [(&str, Part, Kind); 10] = [
    ("norm1.scale", Part::Ln1, Kind::Weight),
    ("norm1.shift", Part::Ln1, Kind::Bias),
    ("norm2.scale", Part::Ln2, Kind::Weight),
    ("norm2.shift", Part::Ln2, Kind::Bias),
    ("att.out_proj.weight", Part::AttnCProj, Kind::Weight),
    ("att.out_proj.bias", Part::AttnCProj, Kind::Bias),
    ("ff.layers.0.weight", Part::CFc, Kind::Weight),
    ("ff.layers.0.bias", Part::CFc, Kind::Bias),
    ("ff.layers.2.weight", Part::MlpCProj, Kind::Weight),
    ("ff.layers.2.bias", Part::MlpCProj, Kind::Bias),
];

/// The projections that GPT-2 has as one, in its order.
const QKV: [&str; 3] = ["att.W_query", "att.W_key", "att.W_value"];

/// The causal mask, a buffer.
const MASK: &str = "att.mask";

/// Puts the tensors in their places in `checkpoint`.
pub(super) fn identify(checkpoint: &mut Checkpoint, tensors: Vec<Tensor>) -> Result<()> {
    // By block and kind: queries, keys, values.
    let mut separate: BTreeMap<(usize, Kind), [Option<Tensor>; 3]> = BTreeMap::new();
    for mut tensor in tensors {
        let name = plain(&tensor.name);
        let id = match in_block(name) {
            Some((_, MASK)) => continue,
            Some((layer, name)) => {
                if let Some((place, kind)) = qkv(name) {
                    separate.entry((layer, kind)).or_default()[place] = Some(tensor);
                    continue;
                }
                find(&IN_BLOCK, name).map(|(part, kind)| TensorId::in_block(layer, part, kind))
            }
            None => find(&OUTSIDE, name).map(|(part, kind)| TensorId::outside(part, kind)),
        };
        match id {
            Some(id) => {
                if id.is_conv1d() {
                    tensor.shape.reverse();
                    tensor.transposed = true;
                }
                checkpoint.insert(id, tensor)?;
            }
            None if name.starts_with("trf_blocks.") => checkpoint.misfit = Some(tensor.spec()),
            None => checkpoint.unused.push(tensor.name),
        }
    }
    for ((layer, kind), parts) in separate {
        let joined = join(&checkpoint.origin, layer, parts)?;
        checkpoint.insert(TensorId::in_block(layer, Part::CAttn, kind), joined)?;
    }
    Ok(())
}

/// The configuration: what shapes tell, and the number of heads.
pub(super) fn config(checkpoint: &Checkpoint, n_head: Option<usize>) -> Result<Config> {
    let dims = |id: TensorId| match checkpoint.tensor(id).map(|tensor| &tensor.shape[..]) {
        Some(&[rows, columns]) => Ok((rows, columns)),
        _ => Err(Error::format(&checkpoint.origin, format!("a GPTModel without a matrix for GPT-2's `{id}`"))),
    };
    let (vocab_size, n_embd) = dims(TensorId::WTE)?;
    let (n_positions, _) = dims(TensorId::WPE)?;
    let (_, n_inner) = dims(TensorId::in_block(0, Part::CFc, Kind::Weight))?;
    let n_layer = checkpoint.tensors().filter_map(|(id, _)| id.layer).max().map_or(0, |last| last.saturating_add(1));
    let n_head = match n_head {
        Some(n_head) => n_head,
        None if n_embd.is_multiple_of(HEAD_WIDTH) => n_embd / HEAD_WIDTH,
        None => {
            return Err(Error::Usage(format!(
                "{}: a GPTModel of width {n_embd} does not say how many attention heads it has; give `n_head`",
                checkpoint.origin
            )));
        }
    };
    let json = serde_json::json!({
        "vocab_size": vocab_size, "n_positions": n_positions, "n_embd": n_embd, "n_layer": n_layer, "n_head": n_head,
        "n_inner": n_inner, "activation_function": Activation::GeluNew.name(), "tie_word_embeddings": false,
    });
    Ok(Config::from_json(json.to_string().as_bytes(), &checkpoint.origin)?.with_gpt2s_end_of_text())
}

/// The name of a tensor; of queries, keys and values, that of the queries.
pub(super) fn name(id: TensorId) -> String {
    let names = if id.layer.is_some() { &IN_BLOCK[..] } else { &OUTSIDE };
    let known = names.iter().find(|(_, part, kind)| (*part, *kind) == (id.part, id.kind)).map(|(name, ..)| *name);
    let kind = if id.kind == Kind::Weight { "weight" } else { "bias" };
    let name = known.map_or_else(|| format!("{}.{kind}", QKV[0]), str::to_owned);
    id.layer.map_or(name.clone(), |layer| format!("trf_blocks.{layer}.{name}"))
}

fn find(names: &[(&str, Part, Kind)], name: &str) -> Option<(Part, Kind)> {
    names.iter().find(|(known, ..)| *known == name).map(|(_, part, kind)| (*part, *kind))
}

/// The block's index, and the name within it.
fn in_block(name: &str) -> Option<(usize, &str)> {
    let (layer, name) = name.strip_prefix("trf_blocks.")?.split_once('.')?;
    Some((layer.parse().ok()?, name))
}

/// Which of queries (0), keys (1) and values (2) a tensor is for.
fn qkv(name: &str) -> Option<(usize, Kind)> {
    let (part, kind) = name.rsplit_once('.')?;
    let kind = match kind {
        "weight" => Kind::Weight,
        "bias" => Kind::Bias,
        _ => return None,
    };
    Some((QKV.iter().position(|known| *known == part)?, kind))
}

/// Queries, keys and values as one tensor: their outputs follow each other, as the rows of (out, in) matrices do.
fn join(origin: &str, layer: usize, parts: [Option<Tensor>; 3]) -> Result<Tensor> {
    let fail = |message: String| Err(Error::format(origin, message));
    let mut all = vec![];
    for (part, name) in parts.into_iter().zip(QKV) {
        let Some(part) = part else {
            return fail(format!("block {layer} has queries, keys or values, but no `trf_blocks.{layer}.{name}`"));
        };
        all.push(part);
    }
    let [query, others @ ..] = &all[..] else { return fail("no queries".into()) };
    if let Some(other) = others.iter().find(|other| (other.dtype, &other.shape) != (query.dtype, &query.shape)) {
        return fail(format!(
            "`{}` is {} {:?}, but `{}` is {} {:?}",
            query.name, query.dtype, query.shape, other.name, other.dtype, other.shape
        ));
    }
    let mut shape = query.shape.clone();
    let Some(outputs) = shape.first_mut() else { return fail(format!("`{}` is a single number", query.name)) };
    *outputs = outputs.saturating_mul(3);
    let transposed = shape.len() == 2;
    if transposed {
        shape.reverse();
    }
    let bytes = all.iter().flat_map(|part| part.bytes.iter().copied()).collect::<Vec<u8>>().into();
    Ok(Tensor { name: query.name.clone(), dtype: query.dtype, shape, transposed, packed: false, bytes })
}
