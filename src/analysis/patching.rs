//! Activation patching: which activations of a clean prompt, put into the run of a corrupt one, bring its answer back.
//!
//! Each run of a sweep is the corrupt prompt's with one activation from the clean one. What it shares with the corrupt
//! run is not computed again: the positions before the patched one come from the cache, and the layers below it from the
//! recorded residual stream. Every value has the bits of a whole run.
//!
//! Source: Meng et al., "Locating and Editing Factual Associations in GPT" (2022); TransformerLens, `patching.py`
//! (`get_act_patch_resid_pre`, `_attn_out`, `_mlp_out`, `get_act_patch_attn_head_out_all_pos`).

use std::ops::Range;
use std::sync::Arc;

use candle_core::Tensor;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::{Change, Edit, Edits, Gpt2, Hook, HookPoint, KvCache, Trace, select_rows, to_host};

/// The most positions that are run at once.
const POSITIONS: usize = 512;

/// Which activations are patched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// The residual stream before each block, one position at a time.
    ResidPre,
    /// What attention adds to it, one position at a time.
    AttnOut,
    /// What the MLP adds to it, one position at a time.
    MlpOut,
    /// The values mixed by a head, at all positions.
    Heads,
}

impl Over {
    /// All.
    pub const ALL: [Self; 4] = [Self::ResidPre, Self::AttnOut, Self::MlpOut, Self::Heads];

    /// Its name: TransformerLens's without `hook_`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ResidPre => "resid_pre",
            Self::AttnOut => "attn_out",
            Self::MlpOut => "mlp_out",
            Self::Heads => "heads",
        }
    }

    /// How many runs a sweep over prompts of `tokens` tokens is.
    #[must_use]
    pub fn runs(self, config: &Config, tokens: usize) -> usize {
        config.n_layer * if self == Self::Heads { config.n_head } else { tokens }
    }

    fn hook(self) -> Hook {
        match self {
            Self::ResidPre => Hook::ResidPre,
            Self::AttnOut => Hook::AttnOut,
            Self::MlpOut => Hook::MlpOut,
            Self::Heads => Hook::Z,
        }
    }
}

/// Two prompts and the tokens that tell them apart.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The ids of the prompt that has the answer.
    pub clean: &'a [u32],
    /// As many of one that has not.
    pub corrupt: &'a [u32],
    /// The token that the clean prompt leads to.
    pub answer: u32,
    /// The token that its logit is compared with.
    pub against: u32,
}

/// What a sweep found: differences of logits, `answer` minus `against`, after the last position.
#[derive(Debug, Clone, PartialEq)]
pub struct Sweep {
    /// That of the clean run.
    pub clean: f32,
    /// That of the corrupt run.
    pub corrupt: f32,
    /// That of each patched run: layers by positions, or by heads.
    pub values: Vec<Vec<f32>>,
}

/// Bytes that a sweep over prompts of `tokens` tokens takes.
#[must_use]
pub fn bytes(model: &Gpt2, tokens: usize) -> u64 {
    let (config, room) = (model.config(), model.room());
    let numbers = 2 * config.n_layer as u64 * tokens as u64 * config.n_embd as u64;
    let together = POSITIONS.max(tokens);
    let rows = together as u64;
    let pass = rows.saturating_mul(room.position_bytes) + rows.saturating_mul(room.page_bytes);
    numbers * size_of::<f32>() as u64 + pass + rows * config.vocab_size as u64 * size_of::<f32>() as u64
}

/// Patches every layer at every position (or every head). `progress` is told how many more runs are finished.
///
/// # Errors
/// [`Error::Usage`] for prompts of unequal length, and prompts or tokens that the model cannot take; those of
/// [`Gpt2::forward`]; [`Error::Numerics`] if a logit is not finite.
pub fn sweep(model: &Gpt2, question: &Question<'_>, over: Over, progress: &mut dyn FnMut(usize)) -> Result<Sweep> {
    let config = model.config();
    let &Question { clean, corrupt, answer, against } = question;
    if clean.len() != corrupt.len() {
        let (clean, corrupt) = (clean.len(), corrupt.len());
        return Err(Error::Usage(format!("the clean prompt has {clean} tokens, the corrupt one {corrupt}")));
    }
    if let Some(id) = [answer, against].into_iter().find(|id| *id as usize >= config.vocab_size) {
        return Err(Error::Usage(format!("token id {id} is outside the vocabulary of {}", config.vocab_size)));
    }
    let layers = 0..config.n_layer;
    let points = layers.clone().map(|layer| HookPoint { layer, hook: over.hook() });
    let mut of_clean = Trace::of(points.clone());
    let x = model.forward(&[(0, clean)], &mut model.new_cache(), Some(&mut of_clean))?;
    let clean_value = differences(model, question, &x, &[clean.len() as u32 - 1])?[0];
    let residuals = layers.clone().map(|layer| HookPoint { layer, hook: Hook::ResidPre });
    let mut of_corrupt = Trace::of(points.chain(residuals));
    let mut cache = model.new_cache();
    let x = model.forward(&[(0, corrupt)], &mut cache, Some(&mut of_corrupt))?;
    let corrupt_value = differences(model, question, &x, &[corrupt.len() as u32 - 1])?[0];

    let mut patcher = Patcher { model, question, over, cache, progress };
    let mut values = vec![];
    for layer in layers {
        let take = |trace: &mut Trace, hook| match trace.take(layer, hook).pop() {
            Some(tensor) => to_host(&tensor),
            None => Err(candle_core::Error::msg("a point that was not recorded").into()),
        };
        let clean = take(&mut of_clean, over.hook())?;
        let residual = take(&mut of_corrupt, Hook::ResidPre)?;
        let corrupt = if over == Over::ResidPre { residual.clone() } else { take(&mut of_corrupt, over.hook())? };
        values.push(patcher.layer(layer, &Activations { clean, corrupt, residual }, corrupt_value)?);
    }
    Ok(Sweep { clean: clean_value, corrupt: corrupt_value, values })
}

/// A layer's activations, (T, C) each.
struct Activations {
    clean: Vec<f32>,
    corrupt: Vec<f32>,
    /// The corrupt run's residual stream before the block.
    residual: Vec<f32>,
}

/// The runs of a sweep.
struct Patcher<'a> {
    model: &'a Gpt2,
    question: &'a Question<'a>,
    over: Over,
    /// Row 0 holds the corrupt prompt.
    cache: KvCache,
    progress: &'a mut dyn FnMut(usize),
}

/// A run: the positions from `start` on, with what is put into them.
struct Run {
    start: usize,
    positions: Range<usize>,
    columns: Range<usize>,
}

impl Patcher<'_> {
    /// The values of a layer; `unchanged` is that of a run in which nothing changes.
    fn layer(&mut self, layer: usize, activations: &Activations, unchanged: f32) -> Result<Vec<f32>> {
        let (tokens, width) = (self.question.corrupt.len(), self.model.config().n_embd);
        let runs: Vec<Run> = match self.over {
            Over::Heads => {
                let head = self.model.config().head_dim();
                let columns = (0..self.model.config().n_head).map(|h| h * head..(h + 1) * head);
                columns.map(|columns| Run { start: 0, positions: 0..tokens, columns }).collect()
            }
            _ => (0..tokens).map(|at| Run { start: at, positions: at..at + 1, columns: 0..width }).collect(),
        };
        let mut values = vec![unchanged; runs.len()];
        // What is the same in both prompts is left alone.
        let mut changed: Vec<(usize, Run)> = vec![];
        for (i, mut run) in runs.into_iter().enumerate() {
            let numbers = |at: usize, of: &[f32]| of[at * width..][run.columns.clone()].to_vec();
            let differs = |at: &usize| numbers(*at, &activations.clean) != numbers(*at, &activations.corrupt);
            if let Some(first) = run.positions.clone().find(differs) {
                (run.start, run.positions) = (first, first..run.positions.end);
                changed.push((i, run));
            }
        }
        (self.progress)(values.len() - changed.len());
        let mut rest = &changed[..];
        while !rest.is_empty() {
            let mut positions = 0;
            let fits = |(_, run): &&(usize, Run)| {
                positions += tokens - run.start;
                positions <= POSITIONS
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (now, later) = rest.split_at(count);
            for ((i, _), value) in now.iter().zip(self.run(layer, activations, now)?) {
                values[*i] = value;
            }
            (self.progress)(now.len());
            rest = later;
        }
        Ok(values)
    }

    /// Runs from a layer on, in one pass: row after row from 1.
    fn run(&mut self, layer: usize, activations: &Activations, runs: &[(usize, Run)]) -> Result<Vec<f32>> {
        let (corrupt, width) = (self.question.corrupt, self.model.config().n_embd);
        let (mut inputs, mut residual, mut last, mut edits) = (vec![], vec![], vec![], vec![]);
        for (row, (_, run)) in (1..).zip(runs) {
            self.cache.assign(&[(row, 0)]);
            self.cache.truncate(row, run.start);
            inputs.push((row, &corrupt[run.start..]));
            residual.extend_from_slice(&activations.residual[run.start * width..]);
            last.push((residual.len() / width - 1) as u32);
            let point = HookPoint { layer, hook: self.over.hook() };
            edits.extend(run.positions.clone().map(|position| {
                let values: Arc<[f32]> = activations.clean[position * width..][run.columns.clone()].into();
                let columns = run.columns.clone();
                Edit { point, row: Some(row), position: Some(position), columns, change: Change::Set(values) }
            }));
        }
        let edits = Edits::new(edits, self.model.config())?;
        let positions = residual.len() / width;
        let residual = Tensor::from_vec(residual, (positions, width), &candle_core::Device::Cpu)?;
        let x = self.model.forward_from((layer, &residual), &inputs, &mut self.cache, &edits)?;
        differences(self.model, self.question, &x, &last)
    }
}

/// The differences of logits after some rows of the residual stream `x` (N, C).
fn differences(model: &Gpt2, question: &Question<'_>, x: &Tensor, rows: &[u32]) -> Result<Vec<f32>> {
    let logits = to_host(&model.logits(&model.final_norm(&select_rows(x, rows)?)?)?)?;
    let difference = |logits: &[f32]| {
        let difference = logits[question.answer as usize] - logits[question.against as usize];
        let fault = || Error::Numerics("the logits of the two tokens are not finite".into());
        if difference.is_finite() { Ok(difference) } else { Err(fault()) }
    };
    logits.chunks_exact(model.config().vocab_size).map(difference).collect()
}
