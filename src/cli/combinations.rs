//! Flags that would be ignored in some company, or by some subcommand: refused, with the reason.

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};
use gpt2::decode::{PARAMETERS, Parameter};

use super::files;

/// Flags that mean something only beside another one, and why. In a subcommand that has none of the others, the flag is
/// another one of the same name.
const NEED: [(&str, &[&str], &str); 19] = [
    (
        "output",
        &["input", "lines"],
        "--output takes the results of rows, from --input; that of one text goes to stdout (> F)",
    ),
    ("resume", &["output"], "--resume continues the file that --output names"),
    (
        "keep",
        &["input", "save"],
        "--keep is about the rows of --input, and in gpt2 trace about the activations of --save",
    ),
    ("strict", &["input"], "--strict is about the rows of --input"),
    ("batch_size", &["input", "lines"], "--batch-size is about the rows of --input"),
    ("shard", &["input", "lines"], "--shard is about the rows of --input"),
    ("ordered", &["input", "lines"], "--ordered is about the rows of --input"),
    ("no_timings", &["input", "lines"], "--no-timings is about the rows of --input"),
    ("on_row_error", &["input", "lines"], "--on-row-error is about the rows of --input"),
    ("keep_going", &["input", "lines"], "--keep-going is about the rows of --input"),
    ("progress", &["input", "lines"], "--progress is about the rows of --input"),
    ("summary", &["input", "lines"], "--summary is about the rows of --input"),
    ("seed_by", &["input"], "--seed-by is about the rows of --input"),
    ("window", &["stride", "rolling"], "--window is about the windows of --stride or --rolling"),
    ("against", &["attribute"], "--against is compared with the token of --attribute"),
    ("position", &["attribute"], "--position says where --attribute looks"),
    ("length", &["heads"], "--length is that of the sequence of --heads"),
    ("seed", &["heads"], "--seed chooses the sequence of --heads"),
    ("word_correction", &["words"], "--word-correction is about --words"),
];

/// Flags that exclude each other, and why.
const EXCLUDE: [(&str, &str, &str); 10] = [
    ("resume", "save", "--resume continues --output, and the file of --save is written whole: leave one of them out"),
    ("token", "tree", "--token asks about one distribution, and --tree shows many: leave one of them out"),
    ("tokenizer", "model", "--tokenizer takes the place of the tokenizer of --model: leave one of them out"),
    (
        "context",
        "stride",
        "--context is the text before the one that is scored, and --stride takes none; tokens in a window are --window",
    ),
    ("context", "rolling", "--rolling starts from <|endoftext|>, without a --context: leave one of them out"),
    ("candidate", "stride", "--candidate compares short texts, and --stride scores a long one: leave one of them out"),
    (
        "candidate",
        "rolling",
        "--candidate compares short texts, and --rolling scores a long one: leave one of them out",
    ),
    ("rolling", "stride", "--rolling and --stride are two ways to score long texts: leave one of them out"),
    ("candidate", "html", "--html is the page of one text, without --candidate"),
    ("n_head", "random", "--n-head is about a checkpoint, and --random makes one: leave one of them out"),
];

/// Flags for all subcommands with a model that some have no use for. The help does not show them. Those that would mislead
/// are refused, with the reason; the others change nothing, and scripts may give them to every subcommand.
pub const UNUSED: [(&str, &str, Option<&str>); 7] = [
    ("info", "threads", None),
    ("bench", "tokenizer", None),
    ("convert", "device", Some("gpt2 convert computes on the CPU: leave out --device")),
    ("compress", "device", Some(SAME_BITS)),
    ("decompress", "device", Some(SAME_BITS)),
    ("convert", "dtype", Some("gpt2 convert takes the type from --to: leave out --dtype")),
    ("convert", "quantize", Some("gpt2 convert takes the type from --to: leave out --quantize")),
];

const SAME_BITS: &str =
    "compression takes the CPU, whose results are the same bits on every machine: leave out --device";

/// Flags that mean something alone in this subcommand, though elsewhere they are about another.
const ALONE: [(&str, &str); 2] = [("compress", "window"), ("embed", "output")];

/// What is wrong with the flags that were given, in a sentence.
pub fn fault(command: &Command, matches: &ArgMatches) -> Option<String> {
    let (name, matches) = matches.subcommand()?;
    let subcommand = command.find_subcommand(name)?;
    fault_of(name, &|flag| subcommand.get_arguments().any(|argument| argument.get_id() == flag), matches)
}

fn fault_of(subcommand: &str, has: &dyn Fn(&str) -> bool, matches: &ArgMatches) -> Option<String> {
    let given = |flag: &str| has(flag) && matches.value_source(flag) == Some(ValueSource::CommandLine);
    let needs = |(flag, others, _): &&(&str, &[&str], &str)| {
        let is_alone = ALONE.contains(&(subcommand, flag));
        given(flag) && !is_alone && others.iter().any(|other| has(other)) && !others.iter().any(|other| given(other))
    };
    if let Some((.., why)) = NEED.iter().find(needs) {
        return Some((*why).to_owned());
    }
    if subcommand == "score" && given("candidate") {
        let table = matches.get_raw("format").is_some_and(|mut values| values.any(|value| value == "tsv"));
        let token_flags = [("words", "--words"), ("logprobs", "--logprobs"), ("pieces", "--pieces")];
        if let Some((_, flag)) = token_flags.iter().find(|(id, _)| given(id)) {
            return Some(format!(
                "{flag} is about the tokens of a text, and --candidate compares whole texts: leave one out"
            ));
        }
        if table {
            return Some("--format tsv is a table of tokens or words; --candidate has text and json".to_owned());
        }
    }
    // Everywhere else, another tokenizer belongs to the model.
    let applies = |flag: &str| flag != "tokenizer" || subcommand == "tokenize";
    let excluded = EXCLUDE.iter().find(|(one, other, _)| applies(one) && given(one) && given(other));
    let misleads = |flag: &str| given(flag) && !is_cpu(flag, matches);
    let unused =
        UNUSED.iter().filter(|(name, flag, _)| *name == subcommand && misleads(flag)).find_map(|(.., why)| *why);
    if let Some(why) = excluded.map(|(.., why)| *why).or(unused) {
        return Some(why.to_owned());
    }
    let is_text =
        |flag| has(flag) && matches.get_raw(flag).is_some_and(|mut values| values.any(|value| value == "text"));
    if given("input") && given("format") && is_text("format") {
        let or = if has("lines") { ", or give the texts with --lines" } else { "" };
        return Some(format!("--input gives one JSON object a line: leave out --format text{or}"));
    }
    if given("revision") && given("config") && !given("model") && subcommand == "info" {
        return Some(
            "--revision is of a model, and --config alone needs none: leave it out, or give --model".to_owned(),
        );
    }
    let is_greedy = given("sample") && matches!(matches.try_get_one::<bool>("sample"), Ok(Some(false)));
    let samples = |parameter: &&Parameter| {
        given(parameter.name) && (parameter.samples() || parameter.name == "top_k" && !given("penalty_alpha"))
    };
    if let Some(parameter) = PARAMETERS.iter().filter(|_| is_greedy).find(samples) {
        let flag = super::flag_name(parameter.name);
        return Some(format!("--sample=false does not sample, and --{flag} does: leave one of them out"));
    }
    files::fault(subcommand, has, matches)
}

/// Whether the flag names the device that is used anyway.
fn is_cpu(flag: &str, matches: &ArgMatches) -> bool {
    use gpt2::device::DeviceChoice::{Auto, Cpu};
    flag == "device" && matches!(matches.try_get_one("device"), Ok(Some(Cpu | Auto)))
}
