//! Fuzzes the built binary: damaged models, tokenizers, rows and command lines, made from valid ones by changes that know
//! their format. Whatever the input, the program answers or says in one line what is wrong. See .ci/fuzz.

mod arguments;
mod case;
mod check;
mod compressed;
mod gguf;
mod json;
mod llmc;
mod models;
mod pickle;
mod random;
mod rows;
mod safetensors;
mod seeds;
mod tensorflow;
mod tokenizer;
mod zip;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use case::Case;
use fastrand::Rng;

/// A kind of cases: its name, how many of each round are of it, and how one is made.
type Kind = (&'static str, usize, fn(&mut Rng) -> Case);

const KINDS: [Kind; 20] = [
    ("safetensors", 2, models::safetensors),
    ("sharded", 1, models::sharded),
    ("pytorch", 2, models::pytorch),
    ("pytorch-small", 2, models::pytorch_small),
    ("gguf", 2, models::gguf),
    ("gguf-split", 1, models::gguf_split),
    ("llm.c", 1, models::llmc),
    ("tensorflow", 2, models::tensorflow),
    ("nanogpt", 1, models::nanogpt),
    ("from-scratch", 1, models::from_scratch),
    ("bare", 1, models::bare),
    ("adapter", 2, models::adapter),
    ("config", 2, models::config),
    ("generation-config", 1, models::generation_config),
    ("tokenizer-json", 6, tokenizer::tokenizer_json),
    ("tokenizer-files", 2, tokenizer::files),
    ("rows", 4, rows::jsonl),
    ("stdin", 1, rows::stdin),
    ("compressed", 2, compressed::compressed),
    ("command-line", 5, arguments::command_line),
];

/// How many cases with the same fault are kept.
const KEPT: usize = 3;

const USAGE: &str =
    "usage: fuzz-gpt2 PROGRAM FOLDER SECONDS [SEED [KIND]]\n       fuzz-gpt2 PROGRAM FOLDER --again CASE";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // It is started in other folders.
    let program = |path: &str| fs::canonicalize(path).map_err(|error| io::Error::other(format!("{path}: {error}")));
    let done = match arguments.as_slice() {
        [path, folder, "--again", case] => {
            program(path).and_then(|program| again(&program, Path::new(folder), Path::new(case)))
        }
        [path, folder, seconds, rest @ ..] => {
            let seed = rest.first().map_or(Ok(fastrand::u64(..1 << 32)), |seed| seed.parse());
            match (seconds.parse(), seed) {
                (Ok(seconds), Ok(seed)) => {
                    let time = Duration::from_secs(seconds);
                    program(path)
                        .and_then(|program| fuzz(&program, Path::new(folder), time, seed, rest.get(1).copied()))
                }
                _ => Err(io::Error::other(USAGE)),
            }
        }
        _ => Err(io::Error::other(USAGE)),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// Runs a saved case again, and says what came out.
fn again(program: &Path, folder: &Path, saved: &Path) -> io::Result<bool> {
    let case = Case::load(saved)?;
    let work = folder.join("again");
    case.save(&work, program)?;
    let outcome = check::run(&case, &work, program)?;
    println!("{}\n{}", outcome.status, String::from_utf8_lossy(&outcome.stderr).trim_end());
    let fault = check::fault(&case, &outcome, &work);
    println!("{}", fault.as_deref().unwrap_or("nothing is wrong"));
    Ok(fault.is_none())
}

/// What has been found so far.
#[derive(Default)]
struct Report {
    /// By kind: the number of runs, and how many ended with each exit code.
    runs: BTreeMap<&'static str, (usize, BTreeMap<i32, usize>)>,
    faults: BTreeMap<String, (usize, Vec<PathBuf>)>,
    /// Errors that name neither file nor flag, by their shapes.
    nameless: BTreeMap<String, usize>,
}

fn fuzz(program: &Path, folder: &Path, time: Duration, seed: u64, only: Option<&str>) -> io::Result<bool> {
    let kinds: Vec<&Kind> = KINDS
        .iter()
        .filter(|(name, ..)| only.is_none_or(|only| only == *name))
        .flat_map(|kind| std::iter::repeat_n(kind, kind.1))
        .collect();
    if kinds.is_empty() {
        let names: Vec<&str> = KINDS.iter().map(|(name, ..)| *name).collect();
        return Err(io::Error::other(format!("no such kind of cases; there are: {}", names.join(", "))));
    }
    arguments::learn(program);
    println!("seed {seed}");
    let start = Instant::now();
    let next = AtomicU64::new(0);
    let report = Mutex::new(Report::default());
    let scratch = Scratch::new(folder);
    let work = |worker: usize| -> io::Result<()> {
        let place = scratch.0.join(format!("work-{worker}"));
        while start.elapsed() < time {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let (kind, _, make) = kinds[number as usize % kinds.len()];
            // Each case has a sequence of its own, so that neither the time nor the other workers matter.
            let case = make(&mut Rng::with_seed(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
            case.save(&place, program)?;
            let outcome = check::run(&case, &place, program)?;
            let fault = check::fault(&case, &outcome, &place);
            let stderr = String::from_utf8_lossy(&outcome.stderr);
            let mut report = report.lock().expect("no worker panics while it reports");
            let (runs, codes) = report.runs.entry(kind).or_default();
            *runs += 1;
            *codes.entry(outcome.status.code().unwrap_or(-1)).or_default() += 1;
            if fault.is_none() && !outcome.status.success() && !check::names_something(&case, &stderr) {
                *report.nameless.entry(check::shape(&stderr)).or_default() += 1;
            }
            if let Some(fault) = fault {
                let (count, kept) = report.faults.entry(fault).or_default();
                *count += 1;
                if kept.len() < KEPT {
                    let saved = folder.join("failures").join(format!("{kind}-{seed}-{number}"));
                    case.save(&saved, program)?;
                    fs::write(saved.join("stderr"), &outcome.stderr)?;
                    kept.push(saved);
                }
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers = thread::available_parallelism().map_or(2, usize::from);
        let work = &work;
        let workers: Vec<_> = (0..workers).map(|worker| scope.spawn(move || work(worker))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })?;
    let report = report.into_inner().expect("no worker panics while it reports");
    print(&report, start.elapsed());
    Ok(report.faults.is_empty())
}

/// Where cases run: in memory if there is a file system for it, which is nearly twice as fast.
struct Scratch(PathBuf);

impl Scratch {
    fn new(folder: &Path) -> Self {
        let memory = Path::new("/dev/shm").join(format!("fuzz-gpt2-{}", std::process::id()));
        Self(if fs::create_dir(&memory).is_ok() { memory } else { folder.join("work") })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed stays.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn print(report: &Report, time: Duration) {
    println!("{:<18} {:>7}  exit codes", "kind", "cases");
    for (kind, (runs, codes)) in &report.runs {
        let codes: Vec<String> = codes.iter().map(|(code, count)| format!("{code}: {count}")).collect();
        println!("{kind:<18} {runs:>7}  {}", codes.join(", "));
    }
    if !report.nameless.is_empty() {
        println!("errors that name neither a file nor a flag: {}, such as", report.nameless.values().sum::<usize>());
        for (shape, count) in report.nameless.iter().take(10) {
            println!("{count:>7}  {shape}");
        }
    }
    for (fault, (count, kept)) in &report.faults {
        println!("FAILED {count} times: {fault}");
        for case in kept {
            println!("        {}", case.display());
        }
    }
    let cases: usize = report.runs.values().map(|(runs, _)| runs).sum();
    let failed: usize = report.faults.values().map(|(count, _)| count).sum();
    println!("{cases} cases in {:.0} s, {failed} failed with {} faults", time.as_secs_f64(), report.faults.len());
}
