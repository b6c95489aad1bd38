//! The sliding window of transformers' perplexity guide: which tokens each window scores, and the resulting perplexity.
//!
//! Pure arithmetic over positions and log-probabilities; the network runs in [`score`](super::score).
//! Reference: transformers' documentation, `perplexity.md`.

use crate::error::{Error, Result};

/// A window of `context` tokens that advances by `stride`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sliding {
    context: usize,
    stride: usize,
}

/// One window: positions `begin..end` go through the network, of which those from `targets` on are new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The first position that the window sees.
    pub begin: usize,
    /// One past the last.
    pub end: usize,
    /// The first position that no earlier window covered.
    pub targets: usize,
}

impl Sliding {
    /// A sliding window for a model that sees at most `n_positions` tokens.
    ///
    /// # Errors
    /// [`Error::Parameter`] unless `1 <= stride <= context <= n_positions`: a longer stride would leave tokens out.
    pub fn new(context: usize, stride: usize, n_positions: usize) -> Result<Self> {
        if context == 0 || context > n_positions {
            return Err(Error::parameter(
                "context",
                format!("is {context}; the model's context allows 1 to {n_positions}"),
            ));
        }
        if stride == 0 || stride > context {
            return Err(Error::parameter(
                "stride",
                format!("is {stride}; with a context of {context}, use 1 to {context}"),
            ));
        }
        Ok(Self { context, stride })
    }

    /// The number of tokens in a window.
    #[must_use]
    pub fn context(self) -> usize {
        self.context
    }

    /// The distance from one window's start to the next.
    #[must_use]
    pub fn stride(self) -> usize {
        self.stride
    }

    /// The windows over `len` tokens.
    pub fn windows(self, len: usize) -> impl Iterator<Item = Window> {
        let mut next = (len > 0).then_some(Window { begin: 0, end: self.context.min(len), targets: 0 });
        std::iter::from_fn(move || {
            let window = next?;
            let begin = window.begin + self.stride;
            let following = Window { begin, end: (begin + self.context).min(len), targets: window.end };
            next = (window.end < len).then_some(following);
            Some(window)
        })
    }
}

impl Window {
    /// One window over a whole text.
    #[must_use]
    pub fn whole(len: usize) -> Self {
        Self { begin: 0, end: len, targets: 0 }
    }

    /// The positions whose tokens the window scores: the new ones, except the window's first, which nothing precedes.
    #[must_use]
    pub fn scored(self) -> std::ops::Range<usize> {
        self.targets.max(self.begin + 1).min(self.end)..self.end
    }

    /// The weight of this window's mean in the guide's perplexity: its number of labels minus one. For the first window
    /// that is the number of tokens it scores; for the others it is one less, the guide's own approximation.
    #[must_use]
    pub fn weight(self) -> usize {
        (self.end - self.targets).saturating_sub(1)
    }
}

/// The guide's perplexity: `exp(Σ loss · weight / Σ weight)`, where `loss` is the mean over a window. `logprob` gives the
/// natural log-probability of the token at a position. None if no window has any weight.
pub fn perplexity(windows: impl Iterator<Item = Window>, logprob: impl Fn(usize) -> f64) -> Option<f64> {
    let (mut loss, mut total) = (0.0, 0);
    for window in windows.filter(|window| window.weight() > 0) {
        let scored = window.scored();
        let mean = -scored.clone().map(&logprob).sum::<f64>() / scored.len() as f64;
        loss += mean * window.weight() as f64;
        total += window.weight();
    }
    (total > 0).then(|| (loss / total as f64).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(len: usize, context: usize, stride: usize) -> Vec<(usize, usize, usize)> {
        let sliding = Sliding::new(context, stride, 1024).unwrap();
        sliding.windows(len).map(|w| (w.begin, w.end, w.targets)).collect()
    }

    #[test]
    fn windows_match_the_guides_loop() {
        assert_eq!(windows(10, 4, 2), [(0, 4, 0), (2, 6, 4), (4, 8, 6), (6, 10, 8)]);
        assert_eq!(windows(9, 4, 3), [(0, 4, 0), (3, 7, 4), (6, 9, 7)]);
        assert_eq!(windows(9, 4, 4), [(0, 4, 0), (4, 8, 4), (8, 9, 8)]);
        assert_eq!(windows(4, 4, 1), [(0, 4, 0)]);
        assert_eq!(windows(3, 8, 2), [(0, 3, 0)]);
        assert_eq!(windows(0, 8, 2), []);
    }

    #[test]
    fn every_token_except_at_the_start_of_a_window_is_scored_once() {
        for (len, context, stride) in [(100, 16, 16), (100, 16, 5), (97, 8, 1), (33, 32, 32), (1, 1, 1), (2, 1, 1)] {
            let sliding = Sliding::new(context, stride, 1024).unwrap();
            let scored: Vec<usize> = sliding.windows(len).flat_map(Window::scored).collect();
            let expected: Vec<usize> = (0..len).filter(|i| *i > 0 && (stride < context || i % stride > 0)).collect();
            assert_eq!(scored, expected, "{len} {context} {stride}");
        }
    }

    #[test]
    fn one_window_gives_the_plain_perplexity() {
        let found = perplexity([Window::whole(5)].into_iter(), |i| -(i as f64)).unwrap();
        assert!((found - 2.5f64.exp()).abs() < 1e-12);
        assert_eq!(perplexity([Window::whole(1)].into_iter(), |_| -1.0), None);
        assert_eq!(perplexity(std::iter::empty(), |_| -1.0), None);
    }

    #[test]
    fn strides_outside_the_context_are_refused() {
        for (context, stride) in [(0, 1), (4, 0), (4, 5), (11, 4)] {
            assert!(matches!(Sliding::new(context, stride, 10), Err(Error::Parameter { .. })), "{context} {stride}");
        }
    }
}
