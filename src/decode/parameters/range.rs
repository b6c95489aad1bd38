//! The values that a number may take.

use std::fmt;
use std::ops::{Bound, RangeBounds};

/// An interval and its description.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    low: Bound<f64>,
    high: Bound<f64>,
    /// The value that switches the parameter off.
    off: Option<f64>,
    /// A remark to follow the interval.
    remark: &'static str,
}

impl Range {
    /// Any number.
    pub(super) const ANY: Self = Self { low: Bound::Unbounded, high: Bound::Unbounded, off: None, remark: "" };

    /// From `low` on.
    pub(super) const fn from(low: f64) -> Self {
        Self { low: Bound::Included(low), ..Self::ANY }
    }

    /// Above `low`.
    pub(super) const fn above(low: f64) -> Self {
        Self { low: Bound::Excluded(low), ..Self::ANY }
    }

    /// Up to and including `high`.
    pub(super) const fn to(self, high: f64) -> Self {
        Self { high: Bound::Included(high), ..self }
    }

    /// Below `high`.
    pub(super) const fn below(self, high: f64) -> Self {
        Self { high: Bound::Excluded(high), ..self }
    }

    /// `off` switches the parameter off.
    pub(super) const fn off_at(self, off: f64) -> Self {
        Self { off: Some(off), ..self }
    }

    /// Adds a remark, which follows a semicolon.
    pub(super) const fn remark(self, remark: &'static str) -> Self {
        Self { remark, ..self }
    }

    /// Whether `x` is allowed: finite and in the interval, also after rounding to the `f32` used in the computation.
    #[must_use]
    pub fn contains(&self, x: f64) -> bool {
        let rounded = f64::from(x as f32);
        let above = match self.low {
            Bound::Excluded(low) => rounded > low,
            Bound::Included(_) | Bound::Unbounded => true,
        };
        rounded.is_finite() && above && (self.low, self.high).contains(&x)
    }
}

impl Range {
    /// What `x`, which is not allowed, should be: `takes a number from 1 to 8, not 9`. If `x` is too large for the range's
    /// description to show it, that names the largest number.
    pub(super) fn fault(mut self, kind: Kind, x: f64) -> String {
        if x.is_nan() || x.abs() > f64::from(f32::MAX) {
            if self.high == Bound::Unbounded {
                self.high = Bound::Included(LARGEST);
            }
            if self.low == Bound::Unbounded {
                self.low = Bound::Included(-LARGEST);
            }
        }
        self.refusal(kind, &number(x))
    }

    /// The same for a value as it was written.
    pub(super) fn refusal(mut self, kind: Kind, value: &str) -> String {
        if kind == Kind::Whole && self.low == Bound::Unbounded {
            self.low = Bound::Included(0.0);
        }
        let kind = match kind {
            Kind::Whole => "a whole number",
            Kind::Real => "a number",
        };
        let remark = if self.remark.is_empty() { String::new() } else { format!("; {}", self.remark) };
        format!("takes {kind}{self}, not {value}{remark}")
    }
}

/// The numbers that a parameter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Whole numbers of 0 or more.
    Whole,
    Real,
}

/// The largest number in `f32`, rounded down to be read.
const LARGEST: f64 = 3.4e38;

/// A number as people write it, with an exponent if it is very large or very small.
pub(in crate::decode) fn number(x: f64) -> String {
    if x != 0.0 && x.is_finite() && !(1e-4..1e15).contains(&x.abs()) { format!("{x:e}") } else { x.to_string() }
}

impl fmt::Display for Range {
    /// ` above 0, up to 1 (off)`, to follow "a number".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let off = |bound: f64| if self.off == Some(bound) { " (off)" } else { "" };
        let from = match self.low {
            Bound::Included(low) => {
                write!(f, " from {}{}", number(low), off(low))?;
                self.off != Some(low)
            }
            Bound::Excluded(low) => {
                write!(f, " above {}", number(low))?;
                false
            }
            Bound::Unbounded => true,
        };
        match self.high {
            Bound::Included(high) if from => write!(f, " to {}{}", number(high), off(high))?,
            Bound::Included(high) => write!(f, ", up to {}{}", number(high), off(high))?,
            Bound::Excluded(high) => write!(f, ", below {}", number(high))?,
            Bound::Unbounded => {}
        }
        match self.off {
            Some(off) if self.low != Bound::Included(off) && self.high != Bound::Included(off) => {
                write!(f, " ({} is off)", number(off))?;
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, Range};

    #[test]
    fn ranges_are_described_exactly() {
        use Kind::{Real, Whole};
        for (range, kind, x, words) in [
            (Range::from(1.0), Whole, 0.0, "takes a whole number from 1, not 0"),
            (Range::from(1.0).to(1024.0), Whole, 1025.0, "takes a whole number from 1 to 1024, not 1025"),
            (Range::from(-10.0).to(10.0), Real, -11.0, "takes a number from -10 to 10, not -11"),
            (Range::above(0.0).to(1.0).off_at(1.0), Real, 2.0, "takes a number above 0, up to 1 (off), not 2"),
            (Range::from(0.0).below(1.0).off_at(0.0), Real, 1.0, "takes a number from 0 (off), below 1, not 1"),
            (Range::above(0.0).off_at(1.0), Real, 0.0, "takes a number above 0 (1 is off), not 0"),
            (Range::from(1e-30).remark("or none"), Real, 0.0, "takes a number from 1e-30, not 0; or none"),
            (Range::above(0.0), Real, f64::INFINITY, "takes a number above 0, up to 3.4e38, not inf"),
        ] {
            assert_eq!(range.fault(kind, x), words);
        }
        assert_eq!(Range::ANY.refusal(Whole, "1.5"), "takes a whole number from 0, not 1.5");
        assert_eq!(Range::ANY.refusal(Real, "x"), "takes a number, not x");
    }

    #[test]
    fn values_that_f32_cannot_hold_are_outside() {
        for x in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, -1e300] {
            assert!(!Range::ANY.contains(x), "{x}");
        }
        assert!(!Range::above(0.0).contains(1e-300), "it rounds to 0");
        assert!(Range::above(0.0).contains(1e-9) && Range::ANY.contains(0.0));
    }
}
