//! Every activation of a pass under a name, written to a file as the pass computes it: no more than a layer's are in memory.
//!
//! Names and shapes: TransformerLens 4.3, `TransformerBridge` with nothing folded, without its axis of the batch.

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::activations::check_attention;
use super::tensor_file::{Named, TensorSink};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::kernels;
use crate::model::{Gpt2, Hook, HookPoint, Recorder, with_slice};

/// Whose names activations have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Names {
    /// Our own: the residual stream, attention's probabilities, and the logits.
    #[default]
    Gpt2,
    /// Those of TransformerLens, and the logits.
    TransformerLens,
}

impl Names {
    /// All.
    pub const ALL: [Self; 2] = [Self::Gpt2, Self::TransformerLens];

    /// As flags and records spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gpt2 => "gpt2",
            Self::TransformerLens => "transformer-lens",
        }
    }
}

/// The activations that are saved, in the order of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection(Vec<Item>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Item {
    name: String,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// The tokens' embeddings, (T, C).
    Tokens,
    /// Those of their positions, (T, C).
    Positions,
    /// What a pass records.
    Point(HookPoint),
    /// Attention's scores before softmax in a layer, scaled, and -∞ where masked, (H, T, T).
    Scores(usize),
    /// A layer norm before its weight and bias, of what a pass records, (T, C).
    Normalized(HookPoint),
    /// The final norm before its weight and bias, (T, C).
    FinalNormalized,
    /// After the final norm, (T, C).
    Final,
    /// (T, V).
    Logits,
}

impl What {
    /// What has to be recorded for it.
    fn points(self) -> impl Iterator<Item = HookPoint> {
        let points = match self {
            Self::Point(point) | Self::Normalized(point) => [Some(point), None],
            Self::Scores(layer) => [Hook::Q, Hook::K].map(|hook| Some(HookPoint { layer, hook })),
            _ => [None, None],
        };
        points.into_iter().flatten()
    }

    /// Whether it follows from the end of the pass.
    fn is_last(self) -> bool {
        matches!(self, Self::FinalNormalized | Self::Final | Self::Logits)
    }

    /// Its shape for `t` tokens.
    fn shape(self, config: &Config, t: usize) -> Vec<usize> {
        let (heads, width) = (config.n_head, config.n_embd);
        match self {
            Self::Scores(_) | Self::Point(HookPoint { hook: Hook::Pattern, .. }) => vec![heads, t, t],
            Self::Point(HookPoint { hook: Hook::Q | Hook::K | Hook::V | Hook::Z, .. }) => {
                vec![t, heads, width / heads]
            }
            Self::Point(HookPoint { hook: Hook::MlpPre | Hook::MlpPost, .. }) => vec![t, config.n_inner],
            Self::Logits => vec![t, config.vocab_size],
            _ => vec![t, width],
        }
    }
}

impl Selection {
    /// Those activations of a model whose names match one of the `patterns`, in which `*` stands for any characters and `?`
    /// for one; all of them without patterns.
    ///
    /// # Errors
    /// [`Error::Usage`] for a pattern that matches none, with some names.
    pub fn new(names: Names, patterns: &[String], config: &Config) -> Result<Self> {
        let all = items(names, config.n_layer);
        let matches = |pattern: &str, item: &Item| is_match(pattern.as_bytes(), item.name.as_bytes());
        if let Some(pattern) = patterns.iter().find(|pattern| !all.iter().any(|item| matches(pattern, item))) {
            let last = format!("blocks.{}.", config.n_layer - 1);
            // One layer stands for all of them.
            let some = all.iter().filter(|item| !item.name.starts_with("blocks.") || item.name.starts_with(&last));
            let some: Vec<&str> = some.map(|item| item.name.as_str()).collect();
            let mut others = Names::ALL.into_iter().filter(|other| *other != names);
            let other = others.find(|other| items(*other, config.n_layer).iter().any(|item| matches(pattern, item)));
            let whose =
                other.map(|other| format!(" (among the names of {} there is)", other.name())).unwrap_or_default();
            let some = some.join(", ");
            return Err(Error::Usage(format!("no activation is called {pattern:?}{whose}; there are {some}")));
        }
        let is_kept = |item: &Item| patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, item));
        Ok(Self(all.into_iter().filter(is_kept).collect()))
    }

    /// How many there are for each text.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Names and shapes for `tokens` tokens.
    #[must_use]
    pub fn tensors(&self, config: &Config, tokens: usize) -> Vec<Named> {
        self.0.iter().map(|item| (item.name.clone(), item.what.shape(config, tokens))).collect()
    }

    /// Bytes of memory that saving takes beside the pass, for a text of so many tokens.
    #[must_use]
    pub fn bytes(&self, config: &Config, tokens: usize) -> u64 {
        let numbers = |what: What| what.shape(config, tokens).iter().product::<usize>() as u64;
        let mut layers: BTreeMap<usize, BTreeMap<Hook, u64>> = BTreeMap::new();
        for point in self.0.iter().flat_map(|item| item.what.points()) {
            layers.entry(point.layer).or_default().insert(point.hook, numbers(What::Point(point)));
        }
        // A layer is held; what is being recorded is there twice, and a head's scores or a norm are made of it.
        let layer = |points: &BTreeMap<Hook, u64>| {
            points.values().sum::<u64>() + points.values().max().copied().unwrap_or_default()
        };
        let held = layers.values().map(layer).max().unwrap_or_default();
        let head = self.0.iter().any(|item| matches!(item.what, What::Scores(_))).then(|| (tokens * tokens) as u64);
        let logits = (tokens.min(LOGIT_ROWS) * config.vocab_size) as u64;
        let logits = if self.has_logits() { logits } else { 0 };
        (held + head.unwrap_or_default() + logits + 2 * (tokens * config.n_embd) as u64) * size_of::<f32>() as u64
    }

    fn has_logits(&self) -> bool {
        self.0.iter().any(|item| item.what == What::Logits)
    }
}

/// All activations of so many layers.
fn items(names: Names, layers: usize) -> Vec<Item> {
    match names {
        Names::Gpt2 => ours(layers),
        Names::TransformerLens => transformer_lens(layers),
    }
}

/// Our names.
fn ours(layers: usize) -> Vec<Item> {
    let point = |name: String, layer, hook| Item { name, what: What::Point(HookPoint { layer, hook }) };
    let mut items = vec![point("embed".to_owned(), 0, Hook::ResidPre)];
    for layer in 0..layers {
        items.push(point(format!("blocks.{layer}.attention"), layer, Hook::Pattern));
        items.push(point(format!("blocks.{layer}.hidden"), layer, Hook::ResidPost));
    }
    items.push(Item { name: "final".to_owned(), what: What::Final });
    items.push(Item { name: "logits".to_owned(), what: What::Logits });
    items
}

/// The names of TransformerLens, and the logits.
fn transformer_lens(layers: usize) -> Vec<Item> {
    let item = |name: &str, what| Item { name: name.to_owned(), what };
    let mut items = vec![item("hook_embed", What::Tokens), item("hook_pos_embed", What::Positions)];
    for layer in 0..layers {
        let normalized = |norm, hook| Item {
            name: format!("blocks.{layer}.{norm}.hook_normalized"),
            what: What::Normalized(HookPoint { layer, hook }),
        };
        for hook in Hook::ALL {
            let point = HookPoint { layer, hook };
            if hook == Hook::Pattern {
                items.push(item(&format!("blocks.{layer}.attn.hook_attn_scores"), What::Scores(layer)));
            }
            items.push(item(&point.to_string(), What::Point(point)));
            match hook {
                Hook::ResidPre => items.push(normalized("ln1", hook)),
                Hook::ResidMid => items.push(normalized("ln2", hook)),
                _ => {}
            }
        }
    }
    items.push(item("ln_final.hook_normalized", What::FinalNormalized));
    items.push(item("logits", What::Logits));
    items
}

/// Whether all of `name` matches `pattern`.
fn is_match(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where to go on if the last star is to stand for one character more.
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(letter) if *letter == b'?' || *letter == name[n] => (p, n) = (p + 1, n + 1),
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                (p, n) = (at + 1, from + 1);
            }
        }
    }
    pattern[p..].iter().all(|letter| *letter == b'*')
}

/// How many positions' logits are held at once.
const LOGIT_ROWS: usize = 128;

/// What the activations of a pass go to.
pub struct Saving<'a> {
    /// Which.
    pub selection: &'a Selection,
    /// Where to.
    pub sink: &'a mut dyn TensorSink,
    /// For each text of the pass, what its names begin with.
    pub prefixes: &'a [&'a str],
}

/// Saves activations as a pass computes them.
pub(super) struct Saver<'a> {
    model: &'a Gpt2,
    texts: &'a [&'a [u32]],
    saving: Saving<'a>,
    /// What was recorded and is still needed.
    held: BTreeMap<HookPoint, Vec<Tensor>>,
    /// The residual stream after the last block and the final norm, once the pass is over.
    end: Option<[Tensor; 2]>,
    /// How many activations are saved.
    saved: usize,
}

impl std::fmt::Debug for Saver<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Saver").field("saved", &self.saved).finish_non_exhaustive()
    }
}

impl<'a> Saver<'a> {
    pub fn new(model: &'a Gpt2, texts: &'a [&'a [u32]], saving: Saving<'a>) -> Self {
        Self { model, texts, saving, held: BTreeMap::new(), end: None, saved: 0 }
    }

    /// Saves what is left, from the residual stream after the last block, (N, C), and after the final norm.
    pub fn finish(&mut self, x: &Tensor, normed: &Tensor) -> Result<()> {
        self.end = Some([x.clone(), normed.clone()]);
        self.save_next()?;
        match self.saved == self.saving.selection.0.len() {
            true => Ok(()),
            false => Err(candle_core::Error::msg("a pass did not record what was to be saved").into()),
        }
    }

    /// Saves all whose turn it is and that are there.
    fn save_next(&mut self) -> Result<()> {
        while let Some(Item { name, what }) = self.saving.selection.0.get(self.saved) {
            let is_there = match what.is_last() {
                true => self.end.is_some(),
                false => what.points().all(|point| self.held.contains_key(&point)),
            };
            if !is_there {
                break;
            }
            let mut first = 0;
            for text in 0..self.texts.len() {
                let ids = self.texts[text];
                let prefix = self.saving.prefixes.get(text).copied().unwrap_or_default();
                let shape = what.shape(self.model.config(), ids.len());
                self.saving.sink.begin(&format!("{prefix}{name}"), &shape)?;
                self.save(*what, text, first)?;
                first += ids.len();
            }
            self.saved += 1;
            let later = &self.saving.selection.0[self.saved..];
            self.held.retain(|held, _| later.iter().flat_map(|item| item.what.points()).any(|point| point == *held));
        }
        Ok(())
    }

    /// The numbers of a text whose positions are those of the pass from `first` on.
    fn save(&mut self, what: What, text: usize, first: usize) -> Result<()> {
        let (model, ids) = (self.model, self.texts[text]);
        let (config, held, end) = (model.config(), &self.held, self.end.as_ref());
        let sink = &mut *self.saving.sink;
        let missing = || candle_core::Error::msg("an activation that was not recorded");
        let rows = |x: Option<&Tensor>| -> Result<Tensor> {
            Ok(x.ok_or_else(missing)?.narrow(0, first, ids.len())?.contiguous()?)
        };
        let own = |point: HookPoint| rows(held.get(&point).and_then(|tensors| tensors.first()));
        let mut write = |x: &Tensor| with_slice(x, |x| sink.numbers(x))?;
        match what {
            What::Tokens => write(&model.embeddings(ids, 0)?[0]),
            What::Positions => write(&model.embeddings(ids, 0)?[1]),
            What::Point(point) if point.hook == Hook::Pattern => {
                let tensor = held.get(&point).and_then(|tensors| tensors.get(text)).ok_or_else(missing)?;
                check_attention(point.layer, tensor)?;
                write(tensor)
            }
            What::Point(point) => write(&own(point)?),
            What::Normalized(point) => normalized(&own(point)?, config.layer_norm_epsilon as f32, sink),
            What::FinalNormalized => normalized(&rows(end.map(|[x, _]| x))?, config.layer_norm_epsilon as f32, sink),
            What::Scores(layer) => {
                let [q, k] = [Hook::Q, Hook::K].map(|hook| own(HookPoint { layer, hook }));
                let mut scores = vec![0.0; ids.len() * ids.len()];
                let (q, k, scale) = (q?, k?, config.attention_scale(layer));
                with_slice(&q, |q| {
                    with_slice(&k, |k| {
                        (0..config.n_head).try_for_each(|head| {
                            let columns = head * config.head_dim()..(head + 1) * config.head_dim();
                            kernels::scores(q, k, columns, scale, &mut scores);
                            sink.numbers(&scores)
                        })
                    })
                })??
            }
            What::Final => write(&rows(end.map(|[_, normed]| normed))?),
            What::Logits => {
                let normed = rows(end.map(|[_, normed]| normed))?;
                for from in (0..ids.len()).step_by(LOGIT_ROWS) {
                    let some = normed.narrow(0, from, LOGIT_ROWS.min(ids.len() - from))?.contiguous()?;
                    write(&model.logits(&some)?)?;
                }
                Ok(())
            }
        }
    }
}

/// A layer norm of `x` (T, C) without weight and bias.
fn normalized(x: &Tensor, epsilon: f32, sink: &mut dyn TensorSink) -> Result<()> {
    let width = x.dim(1)?;
    let mut y = vec![0.0; x.elem_count()];
    with_slice(x, |x| kernels::layer_norm(x, &vec![1.0; width], &vec![0.0; width], epsilon, &mut y))?;
    sink.numbers(&y)
}

impl Recorder for Saver<'_> {
    fn wants(&self, point: HookPoint) -> bool {
        self.saving.selection.0.iter().flat_map(|item| item.what.points()).any(|wanted| wanted == point)
    }

    fn record(&mut self, point: HookPoint, tensors: Vec<Tensor>) -> Result<()> {
        self.held.insert(point, tensors);
        self.save_next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("*", "embed", true),
            ("", "embed", false),
            ("blocks.*.attn.hook_z", "blocks.11.attn.hook_z", true),
            ("blocks.*.hook_z", "blocks.11.attn.hook_z", true),
            ("blocks.?.attn.hook_z", "blocks.11.attn.hook_z", false),
            ("blocks.?.attn.hook_?", "blocks.1.attn.hook_z", true),
            ("*hook", "hook_hook", true),
            ("*hook", "hook_hook_", false),
            ("hook_**", "hook_", true),
            ("hook_embed", "hook_embed", true),
            ("hook_embed", "hook_embe", false),
            ("a*b*c", "aXbYbZc", true),
        ] {
            assert_eq!(is_match(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn every_pattern_must_match() {
        let config = Config::named("gpt2").unwrap();
        let select = |names, patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
            Selection::new(names, &patterns, &config)
        };
        let count = |names, patterns: &[&str]| select(names, patterns).unwrap().0.len();
        assert_eq!(count(Names::Gpt2, &[]), 3 + 2 * 12);
        assert_eq!(count(Names::TransformerLens, &[]), 4 + 15 * 12);
        assert_eq!(count(Names::TransformerLens, &["blocks.*.attn.hook_z", "logits"]), 13);
        for patterns in [&["blocks.12.*"][..], &["logits", ""], &["blocks.*.attention"]] {
            let error = select(Names::TransformerLens, patterns).unwrap_err();
            assert!(error.is_usage() && error.to_string().contains("blocks.11.attn.hook_z"), "{error}");
        }
    }
}
