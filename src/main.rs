//! The binary `gpt2`: parse, run, print the error, pick the exit code.

mod cli;
mod commands;
mod output;

use std::process::ExitCode;

use cli::advice::{self, Spelling};
use commands::Interrupted;

fn main() -> ExitCode {
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let subcommand = cli.command.name();
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) if error.is::<Interrupted>() => ExitCode::from(Interrupted::EXIT_CODE),
        Err(error) => {
            print_error(&advice::lines(&error, subcommand, Spelling::Flags));
            ExitCode::from(exit_code(&error))
        }
    }
}

/// Prints what clap has to say: help and version on stdout, which may be full or closed, or a mistake on stderr.
fn refuse(error: &clap::Error) -> ExitCode {
    match error.print() {
        Err(failed) if !error.use_stderr() && failed.kind() != std::io::ErrorKind::BrokenPipe => {
            print_error(&[format!("cannot write to stdout: {failed}")]);
            ExitCode::FAILURE
        }
        _ => ExitCode::from(error.exit_code() as u8),
    }
}

/// The reader has seen enough (`gpt2 ... | head`): no failure.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).any(output::is_closed_pipe)
}

/// 2 for a mistake on the command line, 1 for everything else.
fn exit_code(error: &anyhow::Error) -> u8 {
    let usage = error.chain().filter_map(|cause| cause.downcast_ref()).any(gpt2::Error::is_usage);
    if usage { 2 } else { 1 }
}

/// What went wrong on one line, and the causes below it.
fn print_error(lines: &[String]) {
    use std::io::Write;
    let mut stderr = anstream::stderr().lock();
    let bold_red = anstyle::AnsiColor::Red.on_default().bold();
    // If stderr is gone there is nobody to tell.
    for (i, line) in lines.iter().enumerate() {
        let _ = match i {
            0 => writeln!(stderr, "{bold_red}error:{bold_red:#} {line}"),
            _ => writeln!(stderr, "  caused by: {line}"),
        };
    }
}
