//! Changes of activations while a pass computes them.

use std::ops::Range;
use std::sync::Arc;

use candle_core::Tensor;

use super::network::Segment;
use super::trace::{Hook, HookPoint, Recorder};
use crate::config::Config;
use crate::error::{Error, Result};

/// A change of the activations at one point.
#[derive(Debug, Clone)]
pub struct Edit {
    /// Where. Queries, keys, values and attention's probabilities cannot be changed.
    pub point: HookPoint,
    /// The row of the batch; all of them if `None`.
    pub row: Option<usize>,
    /// The position in its row; all of them if `None`.
    pub position: Option<usize>,
    /// Which of the point's numbers for a position; for [`Hook::Z`], head h has `h * D..(h + 1) * D`.
    pub columns: Range<usize>,
    /// What becomes of them.
    pub change: Change,
}

/// What becomes of a position's numbers, of which there are as many.
#[derive(Debug, Clone)]
pub enum Change {
    /// They are replaced by these.
    Set(Arc<[f32]>),
    /// These are added.
    Add(Arc<[f32]>),
}

/// Changes in the order in which they are made. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Edits(Arc<[Edit]>);

impl Edits {
    /// These changes of a model with this configuration.
    ///
    /// # Errors
    /// [`Error::Usage`] for a point that the model does not have or that cannot be changed, and numbers that do not fit.
    pub fn new(edits: Vec<Edit>, config: &Config) -> Result<Self> {
        for Edit { point, columns, change: Change::Set(values) | Change::Add(values), .. } in &edits {
            let width = match point.hook {
                Hook::Q | Hook::K | Hook::V | Hook::Pattern => 0,
                Hook::MlpPre | Hook::MlpPost => config.n_inner,
                _ => config.n_embd,
            };
            if point.layer >= config.n_layer || columns.end > width || columns.len() != values.len() {
                return Err(Error::Usage(format!(
                    "{point}, numbers {} to {}, cannot be changed by {} numbers",
                    columns.start,
                    columns.end,
                    values.len()
                )));
            }
        }
        Ok(Self(edits.into()))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether any is in the block of a layer.
    pub(super) fn touch(&self, layer: usize) -> bool {
        self.0.iter().any(|edit| edit.point.layer == layer)
    }

    /// Those at a point.
    pub(super) fn at(&self, layer: usize, hook: Hook) -> impl Iterator<Item = &Edit> {
        self.0.iter().filter(move |edit| edit.point == HookPoint { layer, hook })
    }

    /// Makes the changes at a point in its activations `x` (N, width), the new positions of `segments`.
    pub(super) fn apply(&self, layer: usize, hook: Hook, segments: &[Segment], x: &mut [f32]) {
        let positions: usize = segments.iter().map(|segment| segment.len).sum();
        let width = x.len() / positions.max(1);
        for edit in self.at(layer, hook) {
            let rows = segments.iter().filter(|segment| edit.row.is_none_or(|row| row == segment.row));
            for segment in rows {
                let changed = match edit.position {
                    None => 0..segment.len,
                    Some(position) if (segment.past..segment.total()).contains(&position) => {
                        let at = position - segment.past;
                        at..at + 1
                    }
                    Some(_) => continue,
                };
                for at in changed {
                    let numbers = &mut x[(segment.first + at) * width..][..width][edit.columns.clone()];
                    match &edit.change {
                        Change::Set(values) => numbers.copy_from_slice(values),
                        Change::Add(values) => numbers.iter_mut().zip(&**values).for_each(|(x, value)| *x += value),
                    }
                }
            }
        }
    }
}

/// What a pass does besides computing.
#[derive(Debug)]
pub(super) struct Hooks<'a> {
    /// What it changes.
    pub edits: &'a Edits,
    /// What records it, after the changes.
    pub trace: Option<&'a mut dyn Recorder>,
}

impl Hooks<'_> {
    /// Whether the block of a layer is looked into or changed.
    pub fn touch(&self, layer: usize) -> bool {
        Hook::ALL.into_iter().any(|hook| self.wants(layer, hook)) || self.edits.touch(layer)
    }

    /// Whether a point is recorded.
    pub fn wants(&self, layer: usize, hook: Hook) -> bool {
        self.trace.as_ref().is_some_and(|trace| trace.wants(HookPoint { layer, hook }))
    }

    /// Records a point.
    ///
    /// # Errors
    /// Those of the recorder.
    pub fn record(&mut self, layer: usize, hook: Hook, tensors: Vec<Tensor>) -> Result<()> {
        match &mut self.trace {
            Some(trace) => trace.record(HookPoint { layer, hook }, tensors),
            None => Ok(()),
        }
    }
}

/// Where a pass starts, if not at the embeddings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start<'a> {
    /// The first layer that runs.
    pub layer: usize,
    /// The residual stream before it, (N, C).
    pub residual: &'a Tensor,
}
