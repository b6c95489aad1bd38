//! Interventions: heads, attention and MLPs taken out of the network, and vectors added to its residual stream.
//!
//! They become [`Edits`] of the model, which every pass then runs with: all positions, those of generated tokens, too.
//! Places and names are TransformerLens's (see [`Hook`]). A head's output is its `hook_z`, so that `c_proj`'s bias stays;
//! that of attention or an MLP is what it adds to the residual stream, bias included.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::{Change, Edit, Edits, Gpt2, Hook, HookPoint, Trace, select_rows, to_host};

/// A part of the network whose output can be taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// A head of attention, counted from 0.
    Head(usize),
    /// All of a layer's attention.
    Attention,
    /// A layer's MLP.
    Mlp,
}

/// What takes the place of a part's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Replacement {
    /// Nothing but zeros.
    #[default]
    Zero,
    /// Its mean over the prompt's positions when nothing is changed, also for tokens that are generated.
    Mean,
}

/// A part that is taken out. As text `L.H`, `L.attn` or `L.mlp`, with `=zero` or `=mean` after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ablation {
    /// The layer, counted from 0.
    pub layer: usize,
    /// What of it.
    pub part: Part,
    /// What is there instead.
    pub by: Replacement,
}

impl FromStr for Ablation {
    /// What is allowed, to follow the name of the parameter.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (place, by) = text.split_once('=').unwrap_or((text, "zero"));
        let (layer, part) = place.split_once('.').unwrap_or((place, ""));
        let number = |text: &str| text.parse::<usize>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
        let part = match part {
            "attn" => Some(Part::Attention),
            "mlp" => Some(Part::Mlp),
            head => number(head).map(Part::Head),
        };
        let by = match by {
            "zero" => Some(Replacement::Zero),
            "mean" => Some(Replacement::Mean),
            _ => None,
        };
        match (number(layer), part, by) {
            (Some(layer), Some(part), Some(by)) => Ok(Self { layer, part, by }),
            _ => Err(format!(
                "takes a head (0.1: layer 0, head 1), 0.attn or 0.mlp, with =zero or =mean after it, not {text}"
            )),
        }
    }
}

impl fmt::Display for Ablation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}={}", self.layer, self.part, self.by)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head(head) => write!(f, "{head}"),
            Self::Attention => f.write_str("attn"),
            Self::Mlp => f.write_str("mlp"),
        }
    }
}

impl fmt::Display for Replacement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zero => "zero",
            Self::Mean => "mean",
        })
    }
}

impl Part {
    /// Where its output is, and which of the numbers there.
    fn place(self, config: &Config) -> (Hook, std::ops::Range<usize>) {
        match self {
            Self::Head(head) => (Hook::Z, head * config.head_dim()..(head + 1) * config.head_dim()),
            Self::Attention => (Hook::AttnOut, 0..config.n_embd),
            Self::Mlp => (Hook::MlpOut, 0..config.n_embd),
        }
    }
}

/// A vector that is added to the residual stream after a block.
#[derive(Debug, Clone, PartialEq)]
pub struct Steering {
    /// Where it comes from, for messages.
    pub name: String,
    /// The block, counted from 0.
    pub layer: usize,
    /// The vector, (C), scaled.
    pub vector: Arc<[f32]>,
}

impl Steering {
    /// `scale` times the vector.
    ///
    /// # Errors
    /// [`Error::Parameter`] if that is not finite.
    pub fn new(name: String, layer: usize, vector: &[f32], scale: f64) -> Result<Self> {
        let scaled: Arc<[f32]> = vector.iter().map(|x| x * scale as f32).collect();
        if scaled.iter().all(|x| x.is_finite()) {
            return Ok(Self { name, layer, vector: scaled });
        }
        Err(Error::parameter("steer", format!("{name}: {scale:?} times its numbers is too large")))
    }
}

/// Changes of a network. What they are made of fits together; whether they fit a model, [`check`](Self::check) says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Interventions {
    ablations: Vec<Ablation>,
    steering: Vec<Steering>,
}

impl Interventions {
    /// These ablations and vectors.
    ///
    /// # Errors
    /// [`Error::Parameter`] if a part is to be replaced by two things.
    pub fn new(ablations: &[Ablation], steering: Vec<Steering>) -> Result<Self> {
        let mut parts: BTreeMap<(usize, Part), Replacement> = BTreeMap::new();
        let mut distinct = vec![];
        for ablation @ Ablation { layer, part, by } in ablations {
            match parts.insert((*layer, *part), *by) {
                None => distinct.push(*ablation),
                Some(other) if other == *by => {}
                Some(other) => {
                    return Err(Error::parameter(
                        "ablate",
                        format!("{layer}.{part} is both {other} and {by}: choose one"),
                    ));
                }
            }
        }
        Ok(Self { ablations: distinct, steering })
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ablations.is_empty() && self.steering.is_empty()
    }

    /// Whether what they are depends on the prompt.
    #[must_use]
    pub fn depend_on_prompt(&self) -> bool {
        self.ablations.iter().any(|ablation| ablation.by == Replacement::Mean)
    }

    /// The ablations, each once.
    #[must_use]
    pub fn ablations(&self) -> &[Ablation] {
        &self.ablations
    }

    /// Checks that a model with this configuration has what they change, and that something is left of it.
    ///
    /// # Errors
    /// [`Error::Parameter`], naming what is wrong.
    pub fn check(&self, config: &Config) -> Result<()> {
        for ablation in &self.ablations {
            check_layer("ablate", &format!("{}.{}", ablation.layer, ablation.part), ablation.layer, config)?;
            if let Part::Head(head) = ablation.part
                && head >= config.n_head
            {
                let heads = config.n_head - 1;
                return Err(Error::parameter(
                    "ablate",
                    format!("{}.{head}: a layer has heads 0 to {heads}", ablation.layer),
                ));
            }
        }
        for Steering { name, layer, vector } in &self.steering {
            check_layer("steer", name, *layer, config)?;
            if vector.len() != config.n_embd {
                let (width, expected) = (vector.len(), config.n_embd);
                return Err(Error::parameter(
                    "steer",
                    format!("{name}: the vector has {width} numbers, and the model's residual stream {expected}"),
                ));
            }
        }
        if (0..config.n_layer).all(|layer| self.empties(layer, config.n_head)) {
            return Err(Error::parameter("ablate", "takes out every block: leave at least one head or MLP"));
        }
        Ok(())
    }

    /// Whether nothing is left of a block.
    fn empties(&self, layer: usize, heads: usize) -> bool {
        let parts: BTreeSet<Part> =
            self.ablations.iter().filter(|ablation| ablation.layer == layer).map(|ablation| ablation.part).collect();
        let no_attention = parts.contains(&Part::Attention) || (0..heads).all(|head| parts.contains(&Part::Head(head)));
        no_attention && parts.contains(&Part::Mlp)
    }

    /// The model with these changes, for texts that begin with the ids of `prompt`. These matter only to
    /// [means](Self::depend_on_prompt), which are taken in one pass of `model` as it is; of a prompt that is longer than
    /// the context they are those of its end.
    ///
    /// # Errors
    /// As [`check`](Self::check) and, if the prompt matters, [`Gpt2::forward`].
    pub fn apply(&self, model: &Gpt2, prompt: &[u32]) -> Result<Gpt2> {
        let config = model.config();
        self.check(config)?;
        let means = self.means(model, &prompt[prompt.len().saturating_sub(config.n_positions)..])?;
        let mut edits = vec![];
        for Ablation { layer, part, by } in &self.ablations {
            let (hook, columns) = part.place(config);
            let point = HookPoint { layer: *layer, hook };
            let values: Arc<[f32]> = match by {
                Replacement::Zero => vec![0.0; columns.len()].into(),
                Replacement::Mean => means.get(&point).and_then(|mean| mean.get(columns.clone())).unwrap_or(&[]).into(),
            };
            edits.push(Edit { point, row: None, position: None, columns, change: Change::Set(values) });
        }
        // A sum with 0 would be the same but for the sign of zeros.
        for Steering { layer, vector, .. } in self.steering.iter().filter(|s| s.vector.iter().any(|x| *x != 0.0)) {
            let point = HookPoint { layer: *layer, hook: Hook::ResidPost };
            let change = Change::Add(Arc::clone(vector));
            edits.push(Edit { point, row: None, position: None, columns: 0..config.n_embd, change });
        }
        Ok(model.with_edits(Edits::new(edits, config)?))
    }

    /// The means over the prompt that are needed.
    fn means(&self, model: &Gpt2, prompt: &[u32]) -> Result<BTreeMap<HookPoint, Vec<f32>>> {
        let by_mean = self.ablations.iter().filter(|ablation| ablation.by == Replacement::Mean);
        let points: BTreeSet<HookPoint> =
            by_mean.map(|it| HookPoint { layer: it.layer, hook: it.part.place(model.config()).0 }).collect();
        if points.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut trace = Trace::of(points.iter().copied());
        model.forward(&[(0, prompt)], &mut model.new_cache(), Some(&mut trace))?;
        let mean = |point: HookPoint| {
            let mut sums = vec![0f64; model.config().n_embd];
            for recorded in trace.take(point.layer, point.hook) {
                for position in to_host(&recorded)?.chunks_exact(sums.len()) {
                    sums.iter_mut().zip(position).for_each(|(sum, x)| *sum += f64::from(*x));
                }
            }
            Ok((point, sums.iter().map(|sum| (sum / prompt.len() as f64) as f32).collect()))
        };
        points.into_iter().map(mean).collect()
    }
}

/// What the residual stream after a block has at the end of one text and not at the end of another: the difference of
/// both, (C). The model should be as it is, unchanged.
///
/// # Errors
/// [`Error::Parameter`] for a layer that the model does not have; those of [`Gpt2::forward`].
pub fn difference(model: &Gpt2, layer: usize, text: &[u32], against: &[u32]) -> Result<Vec<f32>> {
    check_layer("steer_against", &format!("@{layer}"), layer, model.config())?;
    let point = HookPoint { layer, hook: Hook::ResidPost };
    let last = |ids: &[u32]| -> Result<Vec<f32>> {
        let mut trace = Trace::of([point]);
        model.forward(&[(0, ids)], &mut model.new_cache(), Some(&mut trace))?;
        let recorded = trace.take(layer, point.hook).pop();
        let recorded = recorded.ok_or_else(|| candle_core::Error::msg("a pass without its residual stream"))?;
        to_host(&select_rows(&recorded, &[ids.len() as u32 - 1])?)
    };
    Ok(last(text)?.into_iter().zip(last(against)?).map(|(one, other)| one - other).collect())
}

/// Checks that the model has a layer, which `what` is about.
fn check_layer(parameter: &'static str, what: &str, layer: usize, config: &Config) -> Result<()> {
    if layer < config.n_layer {
        return Ok(());
    }
    Err(Error::parameter(
        parameter,
        format!("{what}: there is no layer {layer}; the model has 0 to {}", config.n_layer - 1),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ablation(text: &str) -> Ablation {
        text.parse().unwrap()
    }

    fn ablate(specs: &[&str]) -> Result<Interventions> {
        Interventions::new(&specs.iter().copied().map(ablation).collect::<Vec<_>>(), vec![])
    }

    fn config() -> Config {
        Config { n_embd: 4, n_head: 2, n_layer: 2, ..Config::named("gpt2").unwrap() }
    }

    #[test]
    fn parts_are_read_and_written() {
        for (text, layer, part, by) in [
            ("0.1", 0, Part::Head(1), Replacement::Zero),
            ("10.attn=mean", 10, Part::Attention, Replacement::Mean),
            ("3.mlp=zero", 3, Part::Mlp, Replacement::Zero),
        ] {
            assert_eq!(ablation(text), Ablation { layer, part, by });
            assert_eq!(ablation(&ablation(text).to_string()), ablation(text));
        }
        let bad =
            "|0|.|0.|.0|0.1.2|a.1|-1.0|+1.0|0.+1|0.x|0.mlp=|0.mlp=Mean|0.mlp=zero=zero| 0.1|0.99999999999999999999999";
        for text in bad.split('|') {
            assert!(text.parse::<Ablation>().unwrap_err().starts_with("takes a head"), "{text}");
        }
    }

    #[track_caller]
    fn refused(found: Result<impl fmt::Debug>, expected: &str) {
        let error = found.unwrap_err();
        assert!(error.is_usage() && error.to_string().contains(expected), "{error} does not say {expected}");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let check = |specs: &[&str]| ablate(specs)?.check(&config());
        refused(check(&["2.0"]), "2.0: there is no layer 2; the model has 0 to 1");
        refused(check(&["7.mlp"]), "7.mlp: there is no layer 7");
        refused(check(&["1.2"]), "1.2: a layer has heads 0 to 1");
        refused(check(&["0.mlp", "0.mlp=mean"]), "0.mlp is both zero and mean");
        refused(check(&["0.attn", "0.mlp", "1.0", "1.1=mean", "1.mlp=mean"]), "every block");
        check(&["0.attn", "0.mlp", "1.0", "1.mlp"]).unwrap();
        check(&["0.mlp", "0.mlp=zero"]).unwrap();
        let steer = |layer, width| {
            let steering = Steering::new("v.gguf".into(), layer, &vec![1.0; width], 2.0)?;
            Interventions::new(&[], vec![steering])?.check(&config())
        };
        steer(1, 4).unwrap();
        refused(steer(2, 4), "v.gguf: there is no layer 2");
        refused(steer(1, 5), "v.gguf: the vector has 5 numbers, and the model's residual stream 4");
        refused(Steering::new("v".into(), 0, &[1e30], 1e30), "v: 1e30 times its numbers is too large");
        refused(Steering::new("v".into(), 0, &[0.0], 1e300), "too large");
    }
}
