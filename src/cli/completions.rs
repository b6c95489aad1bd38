//! What shells complete. The program itself answers them (`GPT2_COMPLETE`), so that they know the models in the cache.

use std::ffi::OsStr;

use clap::{Arg, ValueHint};
use clap_complete::engine::{
    ArgValueCandidates, ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter,
};
use clap_complete::env::{CompleteEnv, Shells};
use gpt2::source;

use super::command;

/// The environment variable with which a shell's script asks for completions; its value is the shell.
const VARIABLE: &str = "GPT2_COMPLETE";

/// From a file `_gpt2` in its `fpath`, zsh runs the script when it is first asked to complete, and expects completions.
const COMPLETE_AT_ONCE: &str = "if [[ ${funcstack[1]} == _gpt2 ]]; then\n    _clap_dynamic_completer_gpt2 \"$@\"\nfi\n";

/// Answers a shell and returns true, if that is who asks.
///
/// # Errors
/// If the answer cannot be written, or the shell is unknown.
pub fn answer() -> Result<bool, clap::Error> {
    let folder = std::env::current_dir().ok();
    CompleteEnv::with_factory(command).var(VARIABLE).bin("gpt2").try_complete(std::env::args_os(), folder.as_deref())
}

/// The script that makes a shell ask this program.
///
/// # Errors
/// Never: it is written to memory.
pub fn script(shell: clap_complete::Shell) -> std::io::Result<Vec<u8>> {
    let mut script = vec![];
    let program = std::env::args_os().next().unwrap_or_default();
    // A program that was called by its name will be found again; of one that was called by a path, the path counts from
    // everywhere.
    let path = std::path::absolute(&program).ok().filter(|_| std::path::Path::new(&program).components().count() > 1);
    let program = path.and_then(|path| path.to_str().map(str::to_owned)).unwrap_or_else(|| "gpt2".to_owned());
    if let Some(completer) = Shells::builtins().completer(&shell.to_string()) {
        completer.write_registration(VARIABLE, "gpt2", "gpt2", &program, &mut script)?;
    }
    if shell == clap_complete::Shell::Zsh {
        script.extend(COMPLETE_AT_ONCE.as_bytes());
    }
    Ok(script)
}

/// The argument with what it may complete to.
pub fn offered(argument: Arg) -> Arg {
    match argument.get_id().as_str() {
        "model" | "assistant_model" => argument.add(ArgValueCompleter::new(models)),
        "device" => argument.add(ArgValueCandidates::new(devices)),
        "quantize" => argument.add(ArgValueCandidates::new(|| candidates(["q8_0", "q6_k", "q4_k"]))),
        "adapter" | "tokenizer" => argument.value_hint(ValueHint::AnyPath),
        "input" | "output" | "file" | "config" | "svg" | "html" | "save" => argument.value_hint(ValueHint::FilePath),
        "positional" | "prompt" => argument.value_hint(ValueHint::Other),
        _ => argument,
    }
}

/// The demo, the published models, those in the cache, and paths.
fn models(current: &OsStr) -> Vec<CompletionCandidate> {
    let named = ["demo".to_owned()].into_iter().chain(source::PUBLISHED.map(str::to_owned));
    let cached = source::cached_models().into_iter();
    let begins = |name: &String| current.to_str().is_some_and(|current| name.starts_with(current));
    let mut names: Vec<String> = vec![];
    for name in named.chain(cached).filter(begins) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    candidates(names).into_iter().chain(PathCompleter::any().complete(current)).collect()
}

/// The devices that this build can use.
fn devices() -> Vec<CompletionCandidate> {
    let compiled_in =
        [("auto", true), ("cpu", true), ("cuda", cfg!(feature = "cuda")), ("metal", cfg!(feature = "metal"))];
    candidates(compiled_in.into_iter().filter(|(_, is_in)| *is_in).map(|(name, _)| name))
}

fn candidates(names: impl IntoIterator<Item = impl Into<std::ffi::OsString>>) -> Vec<CompletionCandidate> {
    names.into_iter().map(CompletionCandidate::new).collect()
}
