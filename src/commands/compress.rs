//! `gpt2 compress`: a text as a code of its tokens' probabilities.

use anyhow::Result;
use gpt2::Error;
use gpt2::compression::Codec;

use super::coding::{self, Direction, Input, Job};
use crate::cli::{CompressArgs, Verbosity};
use crate::output::is_terminal;

pub fn run(args: &CompressArgs, verbosity: Verbosity) -> Result<()> {
    let output = args.output.as_deref();
    if is_terminal(output) {
        let problem = "the result is not for a terminal: name a file with -o, or send stdout to one (> F.gpt2z)";
        return Err(Error::Usage(problem.into()).into());
    }
    let input = Input::open(args.file.as_deref(), output, args.format)?;
    let (opened, pipeline) = coding::model(&args.model, verbosity)?;
    let codec = Codec::new(&opened, &pipeline, args.model.weights(), args.window, args.stride)?;
    let path = input.path.clone();
    let job = Job { input, output, is_raw: true, format: args.format, verbosity, direction: Direction::Compress };
    job.run(&opened.name, codec.header(), &mut |from, out, to, progress| {
        codec.compress((from, &path), (out, to), progress)
    })
}
