//! How far a batch is, and how it ended.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal};
use std::path::Path;

use crate::commands::progress::left;
use anyhow::{Context, Result, bail};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};

/// The number of non-empty lines in a file.
fn count_lines(path: &Path) -> Result<u64> {
    let mut reader = BufReader::new(File::open(path).with_context(|| format!("cannot read {}", path.display()))?);
    let (mut count, mut before) = (0, b'\n');
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return Ok(count);
        }
        for byte in bytes {
            count += u64::from(before == b'\n' && *byte != b'\n');
            before = *byte;
        }
        let read = bytes.len();
        reader.consume(read);
    }
}

/// A progress bar for the rows, on a terminal. The total is known for a file, not for a pipe.
pub fn progress(input: Option<&Path>, quiet: bool) -> Result<ProgressBar> {
    if quiet || !std::io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let bar = match input.filter(|input| input.is_file()) {
        Some(input) => {
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} rows, {msg}{left}")?.with_key("left", left);
            ProgressBar::new(count_lines(input)?).with_style(style)
        }
        None => ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {pos} rows, {msg}")?),
    };
    show_tokens(&bar, 0);
    bar.enable_steady_tick(std::time::Duration::from_millis(200));
    Ok(bar)
}

/// Shows how many tokens are done, and how fast.
pub fn show_tokens(bar: &ProgressBar, tokens: u64) {
    let seconds = bar.elapsed().as_secs_f64();
    let speed = if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 };
    bar.set_message(format!("{} tokens, {speed:.1}/s", HumanCount(tokens)));
}

/// The outcome of a batch in which `failed` rows failed.
pub fn outcome(failed: usize) -> Result<()> {
    match failed {
        0 => Ok(()),
        1 => bail!("1 row failed; its line in the output says why"),
        failed => bail!("{failed} rows failed; their lines in the output say why"),
    }
}
