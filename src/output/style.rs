//! Styles of text on a terminal.

use std::cell::Cell;
use std::fmt::{self, Display, Formatter};

use anstyle::AnsiColor;

thread_local! {
    /// Whether what is being formatted is a style: the one thing in formatted text that may hold escape codes.
    static IS_STYLE: Cell<bool> = const { Cell::new(false) };
}

/// A style. In what is written to a [`Stdout`](super::Stdout), `{style}` begins it and `{style:#}` ends it; anywhere else
/// its codes are text like any other.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Style(anstyle::Style);

impl Style {
    pub const fn new() -> Self {
        Self(anstyle::Style::new())
    }

    pub const fn colour(colour: AnsiColor) -> Self {
        Self(colour.on_default())
    }

    pub const fn bold(self) -> Self {
        Self(self.0.bold())
    }

    pub const fn dimmed(self) -> Self {
        Self(self.0.dimmed())
    }

    /// Whether a style is being written now, and not text.
    pub(super) fn is_being_written() -> bool {
        IS_STYLE.get()
    }
}

impl From<anstyle::Style> for Style {
    fn from(style: anstyle::Style) -> Self {
        Self(style)
    }
}

impl Display for Style {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        IS_STYLE.set(true);
        let written = self.0.fmt(f);
        IS_STYLE.set(false);
        written
    }
}
