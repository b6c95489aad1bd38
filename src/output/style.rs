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

    pub const fn underlined(self) -> Self {
        Self(self.0.underline())
    }

    /// Black on one of the 256 colours, which must be light: readable on any terminal.
    pub const fn on_light(colour: u8) -> Self {
        let (ground, ink) = (anstyle::Ansi256Color(colour), anstyle::Ansi256Color(16));
        Self(
            anstyle::Style::new()
                .bg_color(Some(anstyle::Color::Ansi256(ground)))
                .fg_color(Some(anstyle::Color::Ansi256(ink))),
        )
    }

    /// Whether a style is being written now, and not text.
    pub(super) fn is_being_written() -> bool {
        IS_STYLE.get()
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
