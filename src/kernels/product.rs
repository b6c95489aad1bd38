//! What products have in common, whatever the weights are: `y = epilogue(x W + bias)`.

use std::ops::Range;

use super::activation::{activate_slice, add};
use super::share::Columns;
use crate::config::Activation;

/// What happens to a product before it is stored.
#[derive(Debug, Clone, Copy)]
pub enum Epilogue<'a> {
    /// Nothing.
    None,
    /// An activation function.
    Activate(Activation),
    /// The residual stream (M, N) is added.
    Add(&'a [f32]),
}

impl Epilogue<'_> {
    /// Adds the bias to `y`, which lies at `place` in the output, and does the rest.
    #[inline]
    fn finish(self, bias: Option<&[f32]>, place: Range<usize>, y: &mut [f32]) {
        if let Some(bias) = bias {
            add(y, bias);
        }
        match self {
            Self::None => {}
            Self::Activate(f) => activate_slice(f, y),
            Self::Add(residual) => add(y, &residual[place]),
        }
    }
}

/// A product of `x` (M, K), as its kernel takes it, with a weight matrix `w` of (K, N).
pub(super) struct Product<'a, X: ?Sized, W> {
    pub x: &'a X,
    pub w: &'a W,
    /// `M`.
    pub rows: usize,
    /// `N`.
    outputs: usize,
    /// (N).
    bias: Option<&'a [f32]>,
    epilogue: Epilogue<'a>,
}

impl<'a, X: ?Sized, W> Product<'a, X, W> {
    /// # Panics
    /// If `y`, the bias or the residual has another length than (M, N) wants.
    pub fn new(
        (x, w): (&'a X, &'a W),
        (rows, outputs): (usize, usize),
        bias: Option<&'a [f32]>,
        epilogue: Epilogue<'a>,
        y: &[f32],
    ) -> Self {
        assert_eq!(Some(y.len()), rows.checked_mul(outputs), "length of the output");
        assert!(bias.is_none_or(|bias| bias.len() == outputs), "length of the bias");
        if let Epilogue::Add(residual) = epilogue {
            assert_eq!(residual.len(), y.len(), "length of the residual");
        }
        Self { x, w, rows, outputs, bias, epilogue }
    }

    /// Adds the bias to columns of `x W`, and applies the epilogue.
    pub fn finish(&self, columns: &mut Columns<'_>) {
        let range = columns.range();
        let bias = self.bias.map(|bias| &bias[range.clone()]);
        for m in 0..self.rows {
            let row = m * self.outputs;
            self.epilogue.finish(bias, row + range.start..row + range.end, columns.row(m));
        }
    }
}

/// The rows of `x`, each of `inputs` numbers.
///
/// # Panics
/// If it has no whole number of them.
pub(super) fn rows_of(x: &[f32], inputs: usize) -> usize {
    assert!(inputs > 0 && x.len().is_multiple_of(inputs), "length of the input");
    x.len() / inputs
}
