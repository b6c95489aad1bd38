//! A bar for work whose end is known.

use std::io::IsTerminal;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};

/// A progress bar over `total` of something, such as tokens; hidden unless stderr is a terminal.
pub fn bar(what: &str, total: u64, quiet: bool) -> Result<ProgressBar> {
    if quiet || !std::io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let template = format!("{{bar:30}} {{human_pos}}/{{human_len}} {what}, {{speed}}, {{eta}} left");
    let style = ProgressStyle::with_template(&template)?.with_key(
        "speed",
        |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            // Writing to a string cannot fail.
            let _ = write!(out, "{:.0}/s", state.per_sec());
        },
    );
    Ok(ProgressBar::new(total).with_style(style))
}
