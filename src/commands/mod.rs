//! One file per subcommand: get the inputs, call the library, hand records to the output.

mod bench;
mod convert;
mod generate;
mod info;
mod load;
mod progress;
mod rows;
mod score;
mod shapes;
mod tokenize;
mod topk;
mod trace;

use clap::CommandFactory;

use crate::cli::{Cli, Command};
use crate::output::Stdout;

/// Ctrl-C ended the run. Everything finished by then has been written.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

impl Interrupted {
    /// The convention of shells: 128 plus the signal's number.
    pub const EXIT_CODE: u8 = 130;
}

/// Runs the subcommand. Everything that can be checked from the flags alone is checked before looking for a model.
///
/// # Errors
/// An error to show to the user, or [`Interrupted`].
pub fn run(cli: Cli) -> anyhow::Result<()> {
    let verbosity = cli.verbosity;
    match cli.command {
        Command::Generate(args) => generate::run(&args, verbosity),
        Command::Tokenize(args) => tokenize::run(&args, verbosity),
        Command::Topk(args) => topk::run(&args, verbosity),
        Command::Score(args) => score::run(&args, verbosity),
        Command::Trace(args) => trace::run(&args, verbosity),
        Command::Info(args) => info::run(&args, verbosity),
        Command::Convert(args) => convert::run(&args, verbosity),
        Command::Bench(args) => bench::run(&args, verbosity),
        Command::Completions { shell } => {
            // clap_complete panics if writing fails.
            let mut script = vec![];
            clap_complete::generate(shell, &mut Cli::command(), "gpt2", &mut script);
            Stdout::lock().text(&script)
        }
    }
}
