//! What is said on stderr about the processor and the weights.

use std::sync::Once;

use anyhow::Result;
use gpt2::kernels;
use gpt2::model::{Gpt2, WeightType};

use crate::cli::{ModelArgs, Verbosity};
use crate::output::say;

/// Checks `GPT2_SIMD`, and notes on stderr, once, if this processor lacks what it asks for.
pub fn level(verbosity: Verbosity) -> Result<()> {
    static NOTED: Once = Once::new();
    let Some(asked) = kernels::asked_level()? else { return Ok(()) };
    let used = kernels::level().name();
    if asked != used && !verbosity.quiet {
        NOTED
            .call_once(|| say(format_args!("note: GPT2_SIMD={asked}: using {used}, the best that this processor has")));
    }
    Ok(())
}

/// Notes on stderr if the matrices' widths do not allow the requested format.
pub fn fallback(args: &ModelArgs, model: &Gpt2, verbosity: Verbosity) {
    let WeightType::Quantized(wanted) = args.weights() else { return };
    if verbosity.quiet {
        return;
    }
    let config = model.config();
    let mut widths = vec![config.n_embd, config.n_inner];
    widths.dedup();
    for width in widths {
        let (wanted, found) = (wanted.dtype(), wanted.fitting(width));
        if found != wanted {
            let block = wanted.block_len();
            say(format_args!("note: matrices with {width} inputs are {found}: {wanted} needs a multiple of {block}"));
        }
    }
}
