//! `gpt2 patch`: activation patching.

use std::path::Path;

use anyhow::{Result, bail};
use gpt2::Error;
use gpt2::analysis::patching::{self, Question, sweep};
use gpt2::error::tokens_text;
use gpt2::model::Packing;

use super::load::Loaded;
use super::token::token_id;
use super::{check_context, progress, require_memory};
use crate::cli::{Format, PatchArgs, Verbosity};
use crate::output::patch::PatchRecord;
use crate::output::{Stdout, check_folder, html, say_written, svg};

/// How many of its tokens an error shows of a prompt.
const SHOWN: usize = 32;

pub fn run(args: &PatchArgs, verbosity: Verbosity) -> Result<()> {
    let [clean, corrupt] = args.prompts()?;
    svg::check_theme(args.svg.as_deref(), args.theme)?;
    args.pieces.check(args.format == Format::Text)?;
    [&args.svg, &args.html].into_iter().try_for_each(|path| check_folder(path.as_deref()))?;
    let loaded = Loaded::load_with_hooks(&args.model, Packing::AtOnce, verbosity)?;
    let text = args.text();
    let clean = loaded.prompt_ids(&clean, None, &text, verbosity)?;
    let corrupt = loaded.prompt_ids(&corrupt, None, &text, verbosity)?;
    let notation = loaded.notation(args.pieces.pieces);
    if clean.len() != corrupt.len() {
        let shown = |ids: &[u32]| {
            let (first, more) = (&ids[..ids.len().min(SHOWN)], if ids.len() > SHOWN { " …" } else { "" });
            format!("{}: {}{more}", tokens_text(ids.len()), notation.tokens(first).join(" "))
        };
        bail!(Error::Usage(format!(
            "the prompts must have as many tokens; --clean has {}; --corrupt has {}",
            shown(&clean),
            shown(&corrupt)
        )));
    }
    let answer = token_id(&loaded, "--answer", &args.answer)?;
    let against = token_id(&loaded, "--against", &args.against)?;
    let question = Question { clean: &clean, corrupt: &corrupt, answer, against };
    check_context(&loaded, clean.len())?;
    let what = format!("patching {}", tokens_text(clean.len()));
    let fitting = |tokens| format!("prompts of {}", tokens_text(tokens));
    require_memory(&what, clean.len(), |tokens| patching::bytes(&loaded.model, tokens), fitting)?;

    let runs = args.over.runs(loaded.model.config(), clean.len());
    let bar = progress::bar("runs", runs as u64, verbosity.quiet)?;
    let found = sweep(&loaded.model, &question, args.over, &mut |runs| bar.inc(runs as u64))?;
    bar.finish_and_clear();
    let record = PatchRecord {
        model: loaded.name.clone(),
        over: args.over.name(),
        clean: found.clean,
        corrupt: found.corrupt,
        values: found.values,
        answer: loaded.token_text(question.answer),
        answer_id: question.answer,
        against: loaded.token_text(question.against),
        against_id: question.against,
        clean_tokens: clean.iter().map(|id| loaded.token_text(*id)).collect(),
        corrupt_tokens: corrupt.iter().map(|id| loaded.token_text(*id)).collect(),
        clean_ids: clean,
        corrupt_ids: corrupt,
        settings: loaded.record_settings([]),
    };
    let say_unless_quiet = |path: &Path, what: &str| {
        if !verbosity.quiet {
            say_written(path, what);
        }
    };
    if let Some(path) = &args.svg {
        svg::write_patch(path, &record, notation, args.theme)?;
        say_unless_quiet(path, "a picture of the patched runs");
    }
    if let Some(path) = &args.html {
        html::patch::write(path, &record, notation)?;
        say_unless_quiet(path, "a page of the patched runs");
    }
    let mut out = Stdout::lock();
    match args.format {
        // The user asked for files.
        Format::Text if args.svg.is_some() || args.html.is_some() => {}
        Format::Text => record.write_text(notation, &mut out)?,
        format => out.json(&record, format)?,
    }
    out.finish()
}
