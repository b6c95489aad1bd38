//! The binary `gpt2`: parse, run, print the error, pick the exit code.

// Tests compare with the platform's mathematics.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod cli;
mod commands;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod heap;
mod last_words;
mod output;

use std::panic;
use std::process::ExitCode;
#[cfg(unix)]
use std::sync::Arc;

use cli::{Settings, advice};
use commands::{Interrupted, RowsFailed, Terminated};

#[global_allocator]
static ALLOCATOR: last_words::Allocator = last_words::Allocator;

fn main() -> ExitCode {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    heap::spare_memory();
    #[cfg(unix)]
    last_words::report_cut_files();
    #[cfg(unix)]
    report_full_files();
    panic::set_hook(Box::new(|fault| output::say_error(&fault_line(fault))));
    panic::catch_unwind(run).unwrap_or(ExitCode::FAILURE)
}

fn run() -> ExitCode {
    match cli::completions::answer() {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => {}
        Err(error) => return refuse(&error),
    }
    if std::env::args_os().len() < 2 {
        return ended(commands::welcome(), "", &Settings::default());
    }
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    output::set_colour(cli.settings.colour.value.unwrap_or_default());
    let (subcommand, settings) = (cli.command.name(), cli.settings.clone());
    ended(commands::run(cli), subcommand, &settings)
}

/// The exit code of a run, whose error is printed.
fn ended(run: anyhow::Result<()>, subcommand: &str, settings: &Settings) -> ExitCode {
    match run {
        Ok(()) => ExitCode::SUCCESS,
        // `gpt2 ... | head` is not a failure.
        Err(error) if output::is_closed(&error) => ExitCode::SUCCESS,
        Err(error) if error.is::<Interrupted>() => ExitCode::from(Interrupted::EXIT_CODE),
        Err(error) if error.is::<Terminated>() => ExitCode::from(Terminated::EXIT_CODE),
        Err(error) => {
            output::say_error(&advice::of_run(&error, settings, subcommand, std::env::args_os().collect()));
            ExitCode::from(exit_code(&error))
        }
    }
}

/// A write beyond the limit on a file's size (`ulimit -f`) fails like any other. By itself, the signal ends the program.
#[cfg(unix)]
fn report_full_files() {
    // Without a handler, the write would not return.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default());
}

/// A fault of this program or of a library in it, on one line that helps to find it.
fn fault_line(fault: &panic::PanicHookInfo<'_>) -> String {
    let payload = fault.payload();
    let message = payload.downcast_ref::<&str>().copied().or_else(|| Some(payload.downcast_ref::<String>()?.as_str()));
    let message = message.unwrap_or_default();
    let place = fault.location().map(|place| format!(" ({}:{})", place.file(), place.line())).unwrap_or_default();
    format!("a fault in this program, please report it: {message:?}{place}")
}

/// Prints clap's message: help and version on stdout, which may be full or closed; usage errors on stderr.
fn refuse(error: &clap::Error) -> ExitCode {
    let printed = match error.use_stderr() {
        true => error.print(),
        false => output::check_stdout().and_then(|()| error.print()),
    };
    match printed {
        Err(failed) if !error.use_stderr() && !output::is_closed_pipe(&failed) => {
            output::say_error(&format!("cannot write to stdout: {failed}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::from(error.exit_code() as u8),
    }
}

/// 2 for a mistake on the command line, 3 if all that failed are rows, 1 for everything else.
fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<RowsFailed>() {
        return RowsFailed::EXIT_CODE;
    }
    let usage = error.chain().filter_map(|cause| cause.downcast_ref()).any(gpt2::Error::is_usage);
    if usage { 2 } else { 1 }
}
