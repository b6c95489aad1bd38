//! Windows over texts that are longer than the context: which tokens each window sees and which it scores, and the
//! resulting perplexity.
//!
//! Pure arithmetic over positions and log-probabilities; the network runs in [`score`](super::score).
//! References: transformers' documentation, `perplexity.md`, for the sliding window; lm-evaluation-harness 0.4.13,
//! `get_rolling_token_windows` with a context of one token, for the rolling one.

use crate::base::math;
use crate::error::{Error, Result};

/// How a text is cut into windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Windows {
    /// Not at all: one pass.
    #[default]
    Whole,
    /// The sliding window of transformers' guide.
    Sliding(Sliding),
    /// Every token is scored once, by the first window that holds it, each of which scores as many tokens as it sees.
    /// The text has a token before it that is not scored.
    Rolling {
        /// The most tokens that a window sees.
        context: usize,
    },
}

impl Windows {
    /// The windows over `len` tokens, of which the first `given` are not scored.
    pub fn over(self, len: usize, given: usize) -> impl Iterator<Item = Window> {
        let (sliding, rolling) = match self {
            Self::Sliding(sliding) => (Some(sliding), None),
            Self::Rolling { context } => (None, Some(context)),
            Self::Whole => (None, Some(len)),
        };
        let sliding = sliding.into_iter().flat_map(move |sliding| sliding.windows(len));
        sliding.chain(rolling.into_iter().flat_map(move |context| rolling_windows(context, len, given)))
    }

    /// The most tokens that a window sees, if they are not those of the whole text.
    #[must_use]
    pub fn context(self) -> Option<usize> {
        match self {
            Self::Whole => None,
            Self::Sliding(sliding) => Some(sliding.context()),
            Self::Rolling { context } => Some(context),
        }
    }

    /// The perplexity of `len` tokens of which the first `given` are not scored: the guide's with a sliding window, else
    /// `exp` of the mean loss. `logprob` gives the natural log-probability of the token at a position, if it has one;
    /// windows without count for nothing. None if nothing was scored.
    #[must_use]
    pub fn perplexity(self, len: usize, given: usize, logprob: impl Fn(usize) -> Option<f64>) -> Option<f64> {
        let windows = self.over(len, given).filter(|window| window.scored().all(|i| logprob(i).is_some()));
        if let Self::Sliding(_) = self {
            return perplexity(windows, |i| logprob(i).unwrap_or_default());
        }
        let scored: Vec<f64> = windows.flat_map(Window::scored).filter_map(&logprob).collect();
        (!scored.is_empty()).then(|| math::exp(-scored.iter().sum::<f64>() / scored.len() as f64))
    }
}

/// Windows that see at most `context` tokens: each its tokens but the last, which is only scored.
fn rolling_windows(context: usize, len: usize, given: usize) -> impl Iterator<Item = Window> {
    let first = Window { begin: 0, end: len.min(context.saturating_add(1)), targets: given.min(len) };
    let mut next = (len > 0).then_some(first);
    std::iter::from_fn(move || {
        let window = next?;
        next = (window.end < len).then(|| {
            let end = len.min(window.end + context.max(1));
            Window { begin: end - context - 1, end, targets: window.end }
        });
        Some(window)
    })
}

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
                "window",
                format!("is {context}; the model's context allows 1 to {n_positions}"),
            ));
        }
        if stride == 0 || stride > context {
            return Err(Error::parameter(
                "stride",
                format!("is {stride}; with a window of {context}, use 1 to {context}"),
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

/// The guide's perplexity, over its windows: `exp(Σ loss · weight / Σ weight)`, where `loss` is the mean over a window. `logprob` gives the
/// natural log-probability of the token at a position. None if no window has any weight.
fn perplexity(windows: impl Iterator<Item = Window>, logprob: impl Fn(usize) -> f64) -> Option<f64> {
    let (mut loss, mut total) = (0.0, 0);
    for window in windows.filter(|window| window.weight() > 0) {
        let scored = window.scored();
        let mean = -scored.clone().map(&logprob).sum::<f64>() / scored.len() as f64;
        loss += mean * window.weight() as f64;
        total += window.weight();
    }
    (total > 0).then(|| math::exp(loss / total as f64))
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
    fn other_windows_give_the_plain_perplexity() {
        let logprob = |i: usize| Some(-(i as f64));
        for windows in [Windows::Whole, Windows::Rolling { context: 2 }] {
            // Of the positions 1 to 4.
            let found = windows.perplexity(5, 1, logprob).unwrap();
            assert!((found - 2.5f64.exp()).abs() < 1e-12);
            assert_eq!(windows.perplexity(1, 1, logprob), None);
            assert_eq!(windows.perplexity(0, 0, logprob), None);
        }
        // One token scored after three given ones; the first of a text that nothing precedes.
        assert!((Windows::Whole.perplexity(4, 3, logprob).unwrap() - 3f64.exp()).abs() < 1e-12);
        assert_eq!(Windows::Whole.over(1, 0).flat_map(Window::scored).count(), 0);
    }

    /// The windows of lm-evaluation-harness as (context, continuation) lengths, with the token before the text.
    #[test]
    fn rolling_windows_match_the_harness() {
        let lengths = |len: usize, context: usize| {
            let windows = Windows::Rolling { context }.over(len + 1, 1);
            let pair = |w: Window| (w.targets - w.begin, w.end - w.targets);
            windows.map(pair).collect::<Vec<_>>()
        };
        assert_eq!(lengths(41, 16), [(1, 16), (1, 16), (8, 9)]);
        assert_eq!(lengths(16, 16), [(1, 16)]);
        assert_eq!(lengths(17, 16), [(1, 16), (16, 1)]);
        assert_eq!(lengths(15, 16), [(1, 15)]);
        assert_eq!(lengths(3, 1), [(1, 1); 3]);
        assert_eq!(lengths(23, 7), [(1, 7), (1, 7), (1, 7), (6, 2)]);
        assert_eq!(lengths(0, 7), [(1, 0)]);
    }

    #[test]
    fn strides_outside_the_context_are_refused() {
        for (context, stride) in [(0, 1), (4, 0), (4, 5), (11, 4)] {
            assert!(matches!(Sliding::new(context, stride, 10), Err(Error::Parameter { .. })), "{context} {stride}");
        }
    }
}
