//! Direct logit attribution: what wrote a token's logit into the residual stream.
//!
//! The residual stream is a sum: embeddings, the output of every head with `c_proj`'s share of it, biases, and the MLPs.
//! With the scale of the final norm held at what it was, the norm and the output head are linear, so that a logit, or the
//! difference of two, is the sum of what each of these parts contributes:
//! `((x - mean(x)) / std * ln_f.weight) · (W_U[target] - W_U[against])` for a part `x`, where `std` is that of the whole
//! residual stream.
//!
//! Reference: TransformerLens, `ActivationCache.logit_attrs` with `apply_ln` (4.3, nothing folded or centred).

use std::fmt;

use candle_core::Tensor;

use crate::error::{Error, Result, tokens_text};
use crate::logits;
use crate::model::{Gpt2, Hook, HookPoint, Trace, select_rows, to_host};

/// What writes into the residual stream. Written as in `blocks.3.attn.head.7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Component {
    /// The embedding of the token.
    Embed,
    /// That of its position.
    PosEmbed,
    /// One head, without the bias of `c_proj`. What the values' bias adds is in it.
    Head {
        /// The layer, from 0.
        layer: usize,
        /// The head, from 0.
        head: usize,
    },
    /// The bias of attention's `c_proj`.
    AttnBias {
        /// The layer, from 0.
        layer: usize,
    },
    /// What an edit put in the place of attention's output. The layer's heads and bias then add nothing.
    Attn {
        /// The layer, from 0.
        layer: usize,
    },
    /// The MLP with its bias.
    Mlp {
        /// The layer, from 0.
        layer: usize,
    },
    /// What edits of the residual stream itself add in a layer.
    Steer {
        /// The layer, from 0.
        layer: usize,
    },
    /// The bias of the final norm.
    NormBias,
}

impl Component {
    /// The layer it is in, if it is in one.
    #[must_use]
    pub fn layer(self) -> Option<usize> {
        match self {
            Self::Head { layer, .. }
            | Self::AttnBias { layer }
            | Self::Attn { layer }
            | Self::Mlp { layer }
            | Self::Steer { layer } => Some(layer),
            Self::Embed | Self::PosEmbed | Self::NormBias => None,
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embed => write!(f, "embed"),
            Self::PosEmbed => write!(f, "pos_embed"),
            Self::Head { layer, head } => write!(f, "blocks.{layer}.attn.head.{head}"),
            Self::AttnBias { layer } => write!(f, "blocks.{layer}.attn.bias"),
            Self::Attn { layer } => write!(f, "blocks.{layer}.attn"),
            Self::Mlp { layer } => write!(f, "blocks.{layer}.mlp"),
            Self::Steer { layer } => write!(f, "steer.{layer}"),
            Self::NormBias => write!(f, "ln_f.bias"),
        }
    }
}

/// A logit, or the difference of two, and its parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Attribution {
    /// The position after which the tokens would come, from 0.
    pub position: usize,
    /// The logit of the target, minus that of the other token if there is one, as the model computes them.
    pub value: f64,
    /// What each component contributes, in the order of the network.
    pub components: Vec<(Component, f64)>,
}

impl Attribution {
    /// The sum of the components: the value, but for rounding.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.components.iter().map(|(_, value)| value).sum()
    }
}

/// Which logits to explain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tokens {
    /// The token whose logit it is about.
    pub target: u32,
    /// The token whose logit is subtracted.
    pub against: Option<u32>,
}

/// Bytes that it takes to attribute a logit of a text of which `tokens` tokens run.
#[must_use]
pub fn bytes(model: &Gpt2, tokens: usize) -> u64 {
    let (config, room) = (model.config(), model.room());
    // The last position's activations at two points of each layer, those of a layer's heads apart, and the logits.
    let numbers = (2 * config.n_layer + 2 * config.n_head + 8) * config.n_embd + config.vocab_size;
    tokens as u64 * room.position_bytes + room.cache_bytes(tokens) + (numbers * size_of::<f32>()) as u64
}

/// Attributes the logits of `tokens` after a position of each of the `texts`. The texts run together; each gets the
/// numbers that it would get alone.
///
/// # Errors
/// As [`Gpt2::forward`]; [`Error::Usage`] for a token outside the vocabulary or a position outside the text;
/// [`Error::Numerics`] if the logits are not finite.
pub fn attribute(model: &Gpt2, texts: &[(&[u32], usize)], tokens: Tokens) -> Result<Vec<Attribution>> {
    if let Some((ids, position)) = texts.iter().find(|(ids, position)| *position >= ids.len()) {
        return Err(Error::Usage(format!("there is no position {position} in a text of {}", tokens_text(ids.len()))));
    }
    let direction = Direction::new(model, tokens)?;
    // Of the positions before, only keys and values are wanted.
    let mut cache = model.new_cache();
    let rows = || texts.iter().enumerate();
    let before: Vec<(usize, &[u32])> = rows().map(|(row, (ids, position))| (row, &ids[..*position])).collect();
    let before: Vec<_> = before.into_iter().filter(|(_, ids)| !ids.is_empty()).collect();
    if !before.is_empty() {
        model.forward(&before, &mut cache, None)?;
    }
    let mut trace = Trace::of(points(model));
    let last: Vec<(usize, &[u32])> = rows().map(|(row, (ids, at))| (row, &ids[*at..=*at])).collect();
    let x = model.forward(&last, &mut cache, Some(&mut trace))?;
    let logits = to_host(&model.logits(&model.final_norm(&x)?)?)?;
    let places = texts.iter().map(|(ids, position)| Place { id: ids[*position], position: *position });
    let places: Vec<(Place, &Direction)> = places.map(|place| (place, &direction)).collect();
    let components = components(model, &places, &mut trace, &to_host(&x)?)?;
    let rows = logits.chunks_exact(model.config().vocab_size).zip(texts).zip(components);
    rows.map(|((logits, (_, position)), components)| {
        let logit = |id: u32| f64::from(logits[id as usize]);
        let value = logit(tokens.target) - tokens.against.map_or(0.0, logit);
        let attribution = Attribution { position: *position, value, components };
        match attribution.value.is_finite() && attribution.sum().is_finite() {
            true => Ok(attribution),
            false => Err(Error::Numerics(format!("the logits after position {position} are not finite"))),
        }
    })
    .collect()
}

/// What made each token of a text: the logit of every token after the first, at the position before it, and at the last
/// position that of the model's best token. Each with its token, in the order of the text.
///
/// # Errors
/// As [`attribute`].
pub fn attribute_each(model: &Gpt2, ids: &[u32]) -> Result<Vec<(u32, Attribution)>> {
    /// How many positions' logits are held at once.
    const LOGIT_ROWS: u32 = 64;
    let (config, tokens) = (model.config(), ids.len() as u32);
    let mut trace = Trace::of(points(model));
    let x = model.forward(&[(0, ids)], &mut model.new_cache(), Some(&mut trace))?;
    let (mut targets, mut values) = (vec![], vec![]);
    for from in (0..tokens).step_by(LOGIT_ROWS as usize) {
        let rows: Vec<u32> = (from..tokens.min(from + LOGIT_ROWS)).collect();
        let logits = to_host(&model.logits(&model.final_norm(&select_rows(&x, &rows)?)?)?)?;
        for (at, logits) in rows.iter().zip(logits.chunks_exact(config.vocab_size)) {
            let target = ids.get(*at as usize + 1).copied().unwrap_or_else(|| logits::argmax(logits) as u32);
            targets.push(target);
            values.push(f64::from(logits[target as usize]));
        }
    }
    let rows = to_host(&model.head_rows(&targets)?)?;
    let norm = model.final_norm_weights()?;
    let directions: Vec<Direction> = rows
        .chunks_exact(config.n_embd)
        .map(|row| Direction::of_head(row.iter().map(|x| f64::from(*x)), &norm))
        .collect();
    let places = ids.iter().enumerate().map(|(position, id)| Place { id: *id, position });
    let components = components(model, &places.zip(&directions).collect::<Vec<_>>(), &mut trace, &to_host(&x)?)?;
    let each = components.into_iter().zip(values).zip(targets).enumerate();
    each.map(|(position, ((components, value), target))| {
        let attribution = Attribution { position, value, components };
        match attribution.value.is_finite() && attribution.sum().is_finite() {
            true => Ok((target, attribution)),
            false => Err(Error::Numerics(format!("the logits after position {position} are not finite"))),
        }
    })
    .collect()
}

/// Bytes that [`attribute_each`] takes for a text of `tokens` tokens.
#[must_use]
pub fn bytes_of_each(model: &Gpt2, tokens: usize) -> u64 {
    let (config, room) = (model.config(), model.room());
    let width = config.n_embd as u64;
    // Three points of every layer, a layer's heads apart and once more as a product, and some logits.
    let numbers = tokens as u64 * width * (3 * config.n_layer as u64 + 2 * config.n_head as u64 + 8);
    let logits = 64 * config.vocab_size as u64;
    tokens as u64 * room.position_bytes + room.cache_bytes(tokens) + (numbers + logits) * size_of::<f32>() as u64
}

/// A token at its position.
struct Place {
    id: u32,
    position: usize,
}

/// Where the logits of the tokens grow: `part · along / std` is what a part of the residual stream contributes.
struct Direction {
    /// (C).
    along: Vec<f64>,
    /// What the bias of the final norm contributes.
    bias: f64,
}

impl Direction {
    fn new(model: &Gpt2, tokens: Tokens) -> Result<Self> {
        let ids: Vec<u32> = std::iter::once(tokens.target).chain(tokens.against).collect();
        let rows = to_host(&model.head_rows(&ids)?)?;
        let norm = model.final_norm_weights()?;
        let (target, against) = rows.split_at(model.config().n_embd);
        let against = against.iter().chain(std::iter::repeat(&0.0));
        Ok(Self::of_head(target.iter().zip(against).map(|(a, b)| f64::from(*a) - f64::from(*b)), &norm))
    }

    /// For this row of the head, or difference of two, behind the final norm with its weight and bias.
    fn of_head(head: impl Iterator<Item = f64>, [weight, bias]: &[Vec<f32>; 2]) -> Self {
        let head: Vec<f64> = head.collect();
        let mut along: Vec<f64> = head.iter().zip(weight).map(|(head, weight)| head * f64::from(*weight)).collect();
        // The norm takes a part's mean away. Taking it from the direction instead gives the same product.
        let mean = along.iter().sum::<f64>() / along.len() as f64;
        along.iter_mut().for_each(|x| *x -= mean);
        Self { along, bias: dot(bias, &head) }
    }

    fn of(&self, part: &[f32]) -> f64 {
        dot(part, &self.along)
    }
}

fn dot(a: &[f32], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * b).sum()
}

/// `1 / std` of a position's residual stream, as the final norm has it.
fn scale(x: &[f32], epsilon: f64) -> f64 {
    let mean = |numbers: &dyn Fn(f64) -> f64| x.iter().map(|x| numbers(f64::from(*x))).sum::<f64>() / x.len() as f64;
    let middle = mean(&|x| x);
    1.0 / (mean(&|x| (x - middle) * (x - middle)) + epsilon).sqrt()
}

/// The points to record: what is added to the residual stream, and, if edits change that itself, what becomes of it.
fn points(model: &Gpt2) -> impl Iterator<Item = HookPoint> {
    let layers = 0..model.config().n_layer;
    let is_steered = layers.clone().any(|layer| is_steered(model, layer));
    let hooks = [Hook::Z, Hook::AttnOut, Hook::MlpOut].into_iter().chain(is_steered.then_some(Hook::ResidPost));
    let hooks: Vec<Hook> = hooks.collect();
    layers.flat_map(move |layer| hooks.clone().into_iter().map(move |hook| HookPoint { layer, hook }))
}

/// Whether edits change the residual stream itself in a layer.
fn is_steered(model: &Gpt2, layer: usize) -> bool {
    [Hook::ResidPre, Hook::ResidMid, Hook::ResidPost].into_iter().any(|hook| model.is_edited(HookPoint { layer, hook }))
}

/// What each component contributes at each of the places, given what was recorded there, and the residual stream after the
/// last block, `x` (B, C).
fn components(
    model: &Gpt2,
    places: &[(Place, &Direction)],
    trace: &mut Trace,
    x: &[f32],
) -> Result<Vec<Vec<(Component, f64)>>> {
    let (config, width) = (model.config(), model.config().n_embd);
    // Up to the scale of the norm, which is that of the whole.
    let mut found: Vec<Vec<(Component, f64)>> = vec![];
    // What the residual stream has contributed so far.
    let mut before = vec![];
    for (Place { id, position }, direction) in places {
        let [token, at] = model.embeddings(&[*id], *position)?;
        let [token, at] = [direction.of(&to_host(&token)?), direction.of(&to_host(&at)?)];
        found.push(vec![(Component::Embed, token), (Component::PosEmbed, at)]);
        before.push(token + at);
    }
    for layer in 0..config.n_layer {
        let mut take = |hook| {
            let missing = || candle_core::Error::msg(format!("{} was not recorded", HookPoint { layer, hook }));
            trace.take(layer, hook).pop().ok_or_else(missing)
        };
        let heads = head_outputs(model, layer, &take(Hook::Z)?)?;
        let bias = &heads[heads.len() - width..];
        let (attn_out, mlp_out) = (to_host(&take(Hook::AttnOut)?)?, to_host(&take(Hook::MlpOut)?)?);
        let is_replaced = model.is_edited(HookPoint { layer, hook: Hook::AttnOut });
        let steered = if is_steered(model, layer) { Some(to_host(&take(Hook::ResidPost)?)?) } else { None };
        let heads = heads.chunks_exact(config.n_head * width);
        let outputs = attn_out.chunks_exact(width).zip(mlp_out.chunks_exact(width));
        for (row, ((heads, (attn_out, mlp_out)), found)) in heads.zip(outputs).zip(&mut found).enumerate() {
            let (_, direction) = &places[row];
            let of_head = |part| if is_replaced { 0.0 } else { direction.of(part) };
            let heads = heads.chunks_exact(width).enumerate();
            found.extend(heads.map(|(head, part)| (Component::Head { layer, head }, of_head(part))));
            let (attn, mlp) = (direction.of(attn_out), direction.of(mlp_out));
            found.push((Component::AttnBias { layer }, of_head(bias)));
            if is_replaced {
                found.push((Component::Attn { layer }, attn));
            }
            found.push((Component::Mlp { layer }, mlp));
            before[row] += attn + mlp;
            if let Some(after) = &steered {
                let after = direction.of(&after[row * width..][..width]);
                found.push((Component::Steer { layer }, after - before[row]));
                before[row] = after;
            }
        }
    }
    for ((found, x), (_, direction)) in found.iter_mut().zip(x.chunks_exact(width)).zip(places) {
        let scale = scale(x, config.layer_norm_epsilon);
        found.iter_mut().for_each(|(_, value)| *value *= scale);
        found.push((Component::NormBias, direction.bias));
    }
    Ok(found)
}

/// What each head adds to the residual stream, without the bias, for mixed values `z` (B, C): (B, H, C), and after it the
/// bias, (C).
fn head_outputs(model: &Gpt2, layer: usize, z: &Tensor) -> Result<Vec<f32>> {
    let (heads, width, head_width) = (model.config().n_head, model.config().n_embd, model.config().head_dim());
    let numbers = to_host(z)?;
    let rows = numbers.len() / width * heads + 1;
    // Each head alone, and then none, which leaves the bias.
    let mut alone = vec![0.0; rows * width];
    let columns = numbers.chunks_exact(head_width).enumerate();
    for ((i, numbers), row) in columns.zip(alone.chunks_exact_mut(width)) {
        row[i % heads * head_width..][..head_width].copy_from_slice(numbers);
    }
    let alone = Tensor::from_vec(alone, (rows, width), z.device())?.to_dtype(z.dtype())?;
    let mut outputs = to_host(&model.attention_output(layer, &alone)?)?;
    let (of_heads, bias) = outputs.split_at_mut((rows - 1) * width);
    for output in of_heads.chunks_exact_mut(width) {
        output.iter_mut().zip(&*bias).for_each(|(x, bias)| *x -= bias);
    }
    Ok(outputs)
}
