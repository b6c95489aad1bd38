//! What `gpt2 compress` and `gpt2 decompress` have in common: bytes from a file or stdin, to a file or stdout, and a
//! report.

use std::fs::{File, Metadata};
use std::io::{BufReader, IsTerminal, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::Result;
use gpt2::Error;
use gpt2::compression::Totals;
use gpt2::compression::format::Header;
use gpt2::device::{Backend, DeviceChoice};
use gpt2::model::Packing;
use gpt2::pipeline::Pipeline;
use gpt2::source::OpenedModel;

use super::{Interrupted, interrupt_flag, load, progress};
use crate::cli::{Format, ModelArgs, Verbosity, is_stdin};
use crate::output::compress::CompressRecord;
use crate::output::{BytesOut, ForTerminal, Stdout, check_folder, check_stdin, is_terminal, say};

/// Where bytes come from.
pub struct Input {
    pub from: Box<dyn Read>,
    /// Its name in messages.
    pub path: PathBuf,
    /// What the system knows of their file: how many there are, who may read them.
    file: Option<Metadata>,
}

impl Input {
    /// Checks the flags for the output and opens the input: a file, or stdin, which must not be a terminal unless it is
    /// asked for.
    pub fn open(file: Option<&Path>, output: Option<&Path>, format: Format) -> Result<Self> {
        if output.is_none() && format != Format::Text {
            let problem = "--format is about the report, and stdout has the result: name a file with -o";
            return Err(Error::Usage(problem.into()).into());
        }
        check_folder(output)?;
        let input = Self::of(file)?;
        if let Some(output) = output {
            gpt2::files::check_output(output)?;
        }
        Ok(input)
    }

    fn of(file: Option<&Path>) -> Result<Self> {
        if let Some(path) = file.filter(|file| !is_stdin(file)) {
            let open = File::open(path).map_err(Error::io("read", path))?;
            gpt2::files::protect(&open);
            let file = open.metadata().ok().filter(Metadata::is_file);
            return Ok(Self { from: Box::new(BufReader::new(open)), path: path.to_owned(), file });
        }
        let path = PathBuf::from("stdin");
        check_stdin().map_err(Error::io("read", &path))?;
        let stdin = std::io::stdin().lock();
        if file.is_none() && stdin.is_terminal() {
            return Err(Error::Usage("no file: give one, or bytes on stdin".into()).into());
        }
        Ok(Self { from: Box::new(stdin), path, file: None })
    }

    /// Lets nobody read an output who may not read the input, where a file's permissions say so.
    #[cfg(unix)]
    fn restrict(&self, output: &std::fs::File) {
        use std::os::unix::fs::PermissionsExt;
        if let (Some(input), Ok(created)) = (&self.file, output.metadata()) {
            let mode = created.permissions().mode() & input.permissions().mode();
            let _ = output.set_permissions(PermissionsExt::from_mode(mode));
        }
    }
}

/// The model, on the CPU: other devices do not give the same bits everywhere.
pub fn model(args: &ModelArgs, verbosity: Verbosity) -> Result<(OpenedModel, Pipeline)> {
    let args = ModelArgs { device: Some(DeviceChoice::Cpu), ..args.clone() };
    load::set_up(&args, verbosity)?;
    let opened = load::open(&args, verbosity)?;
    let pipeline = load::pipeline(&args, &opened, Backend::Kernels, Packing::AtOnce.into(), verbosity)?;
    pipeline.tokenizer().map_err(with_tokenizer)?;
    Ok((opened, pipeline))
}

/// An error about a tokenizer with what to do about it.
pub fn with_tokenizer(fault: Error) -> Error {
    match fault {
        Error::Tokenizer(fault) => {
            Error::Tokenizer(format!("{fault}; --tokenizer takes another (`--tokenizer gpt2` is GPT-2's own)"))
        }
        fault => fault,
    }
}

/// The output and what is said about it.
pub struct Job<'a> {
    pub input: Input,
    pub output: Option<&'a Path>,
    pub is_raw: bool,
    pub format: Format,
    pub verbosity: Verbosity,
    pub direction: Direction,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Compress,
    Decompress,
}

/// What does the work: bytes in, bytes out, with the output's name, and how far it has come.
type Work<'a> = dyn FnMut(&mut dyn Read, &mut dyn Write, &Path, &mut Progress<'_>) -> gpt2::Result<Option<Totals>> + 'a;
/// Bytes of the input that are done; whether to go on.
type Progress<'a> = dyn FnMut(u64) -> ControlFlow<()> + 'a;

impl Job<'_> {
    /// Does the work and reports it. Nothing is left of a file that was not completed.
    pub fn run(self, model: &str, header: &Header, work: &mut Work<'_>) -> Result<()> {
        let Self { mut input, output, is_raw, format, verbosity, direction } = self;
        let start = Instant::now();
        let interrupted = interrupt_flag()?;
        // Where the text itself appears, a bar would be drawn over it, and a report would follow it on its last line.
        let is_shown = is_terminal(output);
        let is_quiet = verbosity.quiet || is_shown;
        let len = input.file.as_ref().map(Metadata::len);
        let bar = progress::bytes(len.unwrap_or_default(), is_quiet || len.is_none())?;
        let mut progress = |bytes: u64| {
            bar.set_position(bytes);
            if interrupted.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let broken_off = || Error::Usage("interrupted".into());
        let mut totals = Totals::default();
        let written: Result<()> = match output {
            Some(path) => {
                // A file that is there keeps its own.
                #[cfg(unix)]
                let is_new = std::fs::metadata(path).is_err();
                let written = gpt2::files::atomically(path, |out| {
                    #[cfg(unix)]
                    if is_new {
                        input.restrict(out.get_ref());
                    }
                    let mut escaped;
                    let out: &mut dyn Write = if is_shown && !is_raw {
                        escaped = ForTerminal(out);
                        &mut escaped
                    } else {
                        out
                    };
                    totals = work(&mut input.from, out, path, &mut progress)?.ok_or_else(broken_off)?;
                    Ok(())
                });
                written.map_err(Into::into)
            }
            None => {
                let mut out = BytesOut::lock(is_raw);
                let done = work(&mut input.from, &mut out, Path::new("stdout"), &mut progress);
                done.and_then(|done| done.ok_or_else(broken_off)).map(|done| totals = done).map_err(Into::into)
            }
        };
        bar.finish_and_clear();
        if written.is_err() && interrupted.load(Ordering::Relaxed) {
            return Err(Interrupted.into());
        }
        written?;
        let seconds = start.elapsed().as_secs_f64();
        let record = CompressRecord {
            model: model.to_owned(),
            weights: header.weights.clone(),
            window: header.window,
            stride: header.stride,
            file: output.map(|path| path.display().to_string()).unwrap_or_default(),
            text_bytes: totals.text,
            compressed_bytes: totals.file,
            bits_per_byte: (totals.text > 0).then(|| 8.0 * totals.file as f64 / totals.text as f64),
            segments: totals.segments,
            coded_segments: totals.coded,
            tokens: totals.tokens,
            seconds,
            bytes_per_s: totals.text as f64 / seconds.max(1e-9),
        };
        if !is_quiet {
            match output {
                Some(path) => say(format_args!("wrote {}: {}", path.display(), summary(&record, direction))),
                None => say(summary(&record, direction)),
            }
        }
        if format == Format::Text {
            return Ok(());
        }
        let mut out = Stdout::lock();
        out.json(&record, format)?;
        out.finish()
    }
}

/// `compressed 152089 bytes to 42087: 2.214 bits a byte, 51.3 kB/s`.
fn summary(record: &CompressRecord, direction: Direction) -> String {
    let CompressRecord { text_bytes: text, compressed_bytes: compressed, .. } = record;
    let done = match direction {
        Direction::Compress => format!("compressed {text} bytes to {compressed}"),
        Direction::Decompress => format!("decompressed {compressed} bytes to {text}"),
    };
    match record.bits_per_byte {
        Some(bits) => {
            let (per_s, unit) = if record.bytes_per_s < 1e6 { (1e3, "kB/s") } else { (1e6, "MB/s") };
            format!("{done}: {bits:.3} bits a byte, {:.1} {unit}", record.bytes_per_s / per_s)
        }
        None => done,
    }
}
