//! One file per subcommand: get the inputs, call the library, hand records to the output.

mod bench;
mod coding;
mod compress;
mod convert;
mod decompress;
mod download_bar;
mod embed;
mod generate;
mod info;
mod interventions;
mod load;
mod man;
mod patch;
mod progress;
mod rows;
mod score;
#[cfg(feature = "serve")]
mod serve;
mod settings;
mod shapes;
mod stop;
mod token;
mod tokenize;
mod topk;
mod trace;
mod welcome;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use gpt2::{Error, memory};

pub use self::rows::RowsFailed;
pub use self::stop::Terminated;
pub use self::welcome::run as welcome;
use crate::cli::{Cli, Command, TextArgs, completions};
use crate::output::{Stdout, say};

/// Ctrl-C ended the run. Everything finished by then has been written.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

impl Interrupted {
    /// The convention of shells: 128 plus the signal's number.
    pub const EXIT_CODE: u8 = 130;
}

/// A flag set by Ctrl-C: the current step is finished, then generation ends. A second Ctrl-C ends the program at once.
pub fn interrupt_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    #[cfg(unix)]
    {
        use signal_hook::consts::SIGINT;
        use signal_hook::flag::{register, register_conditional_shutdown};
        // Handlers run in the order of registration. The first does nothing until the second has set the flag; from then on
        // it ends the process directly from the signal handler, where little else is safe to do.
        register_conditional_shutdown(SIGINT, Interrupted::EXIT_CODE.into(), Arc::clone(&flag))?;
        register(SIGINT, Arc::clone(&flag))?;
    }
    // Windows has no signals; those of its C library, which signal-hook takes, differ between its versions.
    #[cfg(windows)]
    ctrlc::set_handler({
        let flag = Arc::clone(&flag);
        move || {
            if flag.swap(true, std::sync::atomic::Ordering::Relaxed) {
                std::process::exit(Interrupted::EXIT_CODE.into());
            }
        }
    })?;
    Ok(flag)
}

/// Runs the subcommand. Everything that can be checked from the flags alone is checked before looking for a model.
///
/// # Errors
/// An error to show to the user, or [`Interrupted`].
pub fn run(cli: Cli) -> anyhow::Result<()> {
    let (verbosity, colour) = (cli.verbosity, cli.colour.colour);
    if let Some(file) = text_of(&cli.command).and_then(TextArgs::named_file).filter(|_| !verbosity.quiet) {
        say(format_args!("note: the text is {file:?}, not what is in the file of that name; --file {file} reads it"));
    }
    match cli.command {
        Command::Generate(args) => generate::run(&args, verbosity),
        Command::Tokenize(args) => tokenize::run(&args, colour, verbosity),
        Command::Topk(args) => topk::run(&args, verbosity),
        Command::Score(args) => score::run(&args, verbosity),
        Command::Trace(args) => trace::run(*args, verbosity),
        Command::Patch(args) => patch::run(&args, verbosity),
        Command::Embed(args) => embed::run(*args, verbosity),
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::run(&args, verbosity),
        Command::Info(args) => info::run(&args, &cli.settings, verbosity),
        Command::Convert(args) => convert::run(&args, verbosity),
        Command::Compress(args) => compress::run(&args, verbosity),
        Command::Decompress(args) => decompress::run(&args, verbosity),
        Command::Bench(args) => bench::run(&args, verbosity),
        Command::Completions { shell } => Stdout::lock().text(&completions::script(shell)?),
        Command::Man { folder } => man::run(&folder, verbosity),
    }
}

/// The text of a subcommand that takes one.
fn text_of(command: &Command) -> Option<&TextArgs> {
    match command {
        Command::Generate(args) => Some(&args.text),
        Command::Tokenize(args) => Some(&args.text),
        Command::Topk(args) => Some(&args.text),
        Command::Score(args) => Some(&args.text),
        Command::Trace(args) => Some(&args.text),
        Command::Embed(args) => Some(&args.text),
        #[cfg(feature = "serve")]
        Command::Serve(_) => None,
        Command::Info(_)
        | Command::Patch(_)
        | Command::Convert(_)
        | Command::Compress(_)
        | Command::Decompress(_)
        | Command::Bench(_)
        | Command::Completions { .. }
        | Command::Man { .. } => None,
    }
}

/// Checks that a text of so many tokens fits the context: before memory is counted, of which a longer one takes more.
///
/// # Errors
/// [`Error::Context`] if it does not.
fn check_context(model: &gpt2::pipeline::Pipeline, tokens: usize) -> Result<(), Error> {
    let context = model.model.config().n_positions;
    if tokens > context { Err(Error::Context { tokens, context }) } else { Ok(()) }
}

/// Checks that there is memory for work, called `what`, whose size depends on `value`.
///
/// # Errors
/// [`Error::OutOfMemory`], with the largest value that would fit, which `fitting` puts into words.
fn require_memory(
    what: &str,
    value: usize,
    bytes: impl Fn(usize) -> u64,
    fitting: impl Fn(usize) -> String,
) -> Result<(), Error> {
    let Err(error) = memory::require_bytes(what, bytes(value)) else { return Ok(()) };
    let (mut fits, mut not) = (0, value);
    while not - fits > 1 {
        let middle = fits + (not - fits) / 2;
        // A quarter more, for what is too small to count.
        match memory::require_bytes(what, bytes(middle).saturating_mul(5) / 4) {
            Ok(()) => fits = middle,
            Err(_) => not = middle,
        }
    }
    if fits == 0 { Err(error) } else { Err(Error::OutOfMemory(format!("{error}; {} would fit", fitting(fits)))) }
}
