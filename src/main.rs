//! The binary `gpt2`: parse, run, print the error, pick the exit code.

mod cli;
mod commands;
mod output;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&error);
            ExitCode::from(exit_code(&error))
        }
    }
}

/// Prints what clap has to say: help and version on stdout, which may be full or closed, or a mistake on stderr.
fn refuse(error: &clap::Error) -> ExitCode {
    match error.print() {
        Err(failed) if !error.use_stderr() && failed.kind() != std::io::ErrorKind::BrokenPipe => {
            print_error(&anyhow::anyhow!("cannot write to stdout: {failed}"));
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
    let usage = error.chain().any(|cause| matches!(cause.downcast_ref(), Some(gpt2::Error::Usage(_))));
    if usage { 2 } else { 1 }
}

/// One line, and the causes below it.
fn print_error(error: &anyhow::Error) {
    use std::io::Write;
    let mut stderr = anstream::stderr().lock();
    let bold_red = anstyle::AnsiColor::Red.on_default().bold();
    // If stderr is gone there is nobody to tell.
    let _ = write!(stderr, "{bold_red}error:{bold_red:#} ");
    let _ = writeln!(stderr, "{}", output::causes(error).join("\n  caused by: "));
}
