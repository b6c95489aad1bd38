//! `gpt2` alone: the first steps.

use std::io::IsTerminal;

use anyhow::Result;

use crate::output::{Stdout, say};

const WELCOME: &str = "\
gpt2 continues texts with GPT-2, and shows what the model expects next and why.

To try it without a download, with a small model of fairy tales that is built in:
  gpt2 generate -m demo \"Once upon a time\" --temperature 0.9 --top-p 0.8 --seed 90 -n 46
  gpt2 topk -m demo \"Once upon a\"
  gpt2 trace -m demo \"Once upon a time\" --lens

With the real one, which is downloaded once (548 MB):
  gpt2 generate \"The theory of relativity is\"

To go on:
  gpt2 --help           the subcommands
  gpt2 generate -h      the flags of one; --help shows all
  gpt2 info --settings  which model, device and cache are used, and why
";

pub fn run() -> Result<()> {
    // Whoever pipes a text wants it continued.
    if !std::io::stdin().is_terminal() {
        say("note: a text on stdin is continued with: ... | gpt2 generate");
    }
    let mut out = Stdout::lock();
    out.text(WELCOME)?;
    out.finish()
}
