//! The style sheet of a picture.

use crate::cli::Theme;

const FONTS: &str = "
  text { font-family: 'DejaVu Sans Mono', Menlo, Consolas, 'Liberation Mono', monospace; }
  .title { font-family: system-ui, 'DejaVu Sans', Arial, sans-serif; font-size: 20px; font-weight: 600; }
  .sub { font-family: system-ui, 'DejaVu Sans', Arial, sans-serif; font-size: 13px; }
  .cell { shape-rendering: crispEdges; } .frame, .mark { fill: none; } .mark { stroke-width: 2; }
";

const LIGHT: &str = "
  .ground { fill: #ffffff; } .ink { fill: #1a1d21; } .muted { fill: #5d6672; } .on { fill: #ffffff; }
  .cell { fill: #1d5fbf; } .shade { stop-color: #1d5fbf; }
  .against { fill: #c2500a; stop-color: #c2500a; }
  .frame { stroke: #c9ced6; } .mark { stroke: #d2691e; }
";

const DARK: &str = "
  .ground { fill: #14171b; } .ink { fill: #e8eaed; } .muted { fill: #a0a9b4; } .on { fill: #14171b; }
  .cell { fill: #6ea8ff; } .shade { stop-color: #6ea8ff; }
  .against { fill: #ff9a5c; stop-color: #ff9a5c; }
  .frame { stroke: #454c56; } .mark { stroke: #ffb27a; }
";

/// Fonts and colours.
pub fn sheet(theme: Theme) -> String {
    match theme {
        Theme::Light => format!("{FONTS}{LIGHT}"),
        Theme::Dark => format!("{FONTS}{DARK}"),
        Theme::Auto => format!("{FONTS}{LIGHT}@media (prefers-color-scheme: dark) {{{DARK}}}"),
    }
}
