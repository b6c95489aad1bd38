//! `docs/json.md`: the records that the program prints, as the source declares them, and whether it prints them so.
//!
//! `GPT2_TEST_UPDATE=1` writes the page.

mod check;
mod page;
mod source;

use std::collections::BTreeSet;
use std::path::Path;
#[cfg(feature = "serve")]
use std::sync::LazyLock;

use serde_json::{Map, Value};

use self::check::check;
use self::source::{Shape, Source};
#[cfg(unix)]
use crate::harness::shell;
use crate::harness::{is_about_row, is_update};

/// A record that a subcommand prints.
struct Section {
    title: &'static str,
    record: &'static str,
    /// What prints it, without `gpt2`: each is run.
    commands: &'static [&'static str],
    /// Whether the output is an array of them.
    is_array: bool,
}

const fn section(title: &'static str, record: &'static str, commands: &'static [&'static str]) -> Section {
    Section { title, record, commands, is_array: false }
}

const SECTIONS: &[Section] = &[
    section(
        "`generate`",
        "output/generate::GenerateRecord",
        &[
            "generate -m demo \"Once upon a\" -n 3 --logprobs 2 --format json",
            "generate -m demo \"Once upon a\" -n 3 --logprobs 2 --raw-logprobs --top-k 5 --seed 1 --format json",
            "generate -m demo \"Once upon a\" --num-beams 3 --num-return-sequences 2 --format json",
            "generate -m demo \"Once upon a\" -n 9 --prompt-lookup 3 --format json",
            "generate -m demo \"Once upon a\" --choices \" time\" --choices \" house\" --format json",
        ],
    ),
    section(
        "`topk`",
        "output/topk::TopkRecord",
        &[
            "topk -m demo \"Once upon a\" --top-p 0.9 --token \" king\" --format json",
            "topk -m demo \"Once upon a\" --all --format json",
            "topk -m demo \"Once upon a\" --regex \" [a-z]+\" --format json",
        ],
    ),
    section("`topk --tree`", "output/topk::TreeRecord", &["topk -m demo \"Once upon a\" --tree 3 -k 2 --format json"]),
    section(
        "`topk --append`",
        "output/topk::StepsRecord",
        &["topk -m demo \"Once upon a\" --append 3 --token \" king\" --format json"],
    ),
    section(
        "`topk --shapes` and `trace --shapes`",
        "output/shapes::ShapesRecord",
        &[
            "topk -m demo \"Once upon a\" --shapes --format json",
            "trace -m demo --lines texts.txt --shapes --format json",
        ],
    ),
    section(
        "`score`",
        "output/score::ScoreRecord",
        &[
            "score -m demo \"Once upon a time\" --format json",
            "score -m demo \"Once upon a time\" --bos --stride 2 --window 4 --format json",
            "score -m demo \" time\" --context \"Once upon a\" --words --entropy --logprobs 2 --format json",
            "score -m demo \"Once upon a time\" --rolling --eos --format json",
        ],
    ),
    section(
        "`score --candidate`",
        "output/score/candidates::CandidatesRecord",
        &[
            "score -m demo --context \"Once upon a\" --candidate \" time\" --candidate \" tree\" --entropy --format json",
        ],
    ),
    section(
        "`trace`",
        "output/trace/records::TraceRecord",
        &[
            "trace -m demo \"Once upon a time\" --format json",
            "trace -m demo \"Once upon a time\" --hidden --repeat 2 --format json",
            "trace -m demo \"Once upon a\" --attribute \" time\" --against \" king\" --format json",
            "trace -m demo --heads --length 8 --format json",
        ],
    ),
    section(
        "`embed`",
        "output/embed::EmbedRecord",
        &[
            "embed -m demo \"Once upon a time\" --format json",
            "embed -m demo \"Once upon a time\" --layer 3 --pool none --format json",
        ],
    ),
    section(
        "`patch`",
        "output/patch::PatchRecord",
        &[
            "patch -m demo --clean \"The queen said\" --corrupt \"The king said\" --answer \" she\" --against \" he\" --format json",
        ],
    ),
    section("`tokenize`", "output/tokenize::TokenizeRecord", &["tokenize \"Once upon a time\" --format json"]),
    section(
        "`tokenize --merges`",
        "output/tokenize::MergesRecord",
        &["tokenize \"Once upon a time\" --merges --format json"],
    ),
    Section {
        is_array: true,
        ..section("`tokenize --vocab`", "output/tokenize::PieceRecord", &["tokenize --vocab --grep king --format json"])
    },
    section(
        "`info`",
        "output/info::InfoRecord",
        &["info -m demo --format json", "info -m demo --tensors --state-dict --module --format json"],
    ),
    section("`info --settings`", "output/info/settings::EffectiveSettingsRecord", &["info --settings --format json"]),
    section(
        "`bench`",
        "output/bench::BenchRecord",
        &["bench -m demo --prompt-tokens 4,8 -n 2 --repeat 1 --format json"],
    ),
    section("`convert`", "output/convert::ConvertRecord", &["convert -m demo --to f16 demo.gguf --format json"]),
    section(
        "`compress` and `decompress`",
        "output/compress::CompressRecord",
        &[
            "compress -m demo texts.txt -o texts.gpt2z --format json",
            "decompress texts.gpt2z -o again.txt --format json",
        ],
    ),
];

/// Records that are parts of several: they have sections of their own.
const SHARED: &[(&str, &str)] = &[
    ("Candidates", "output/topk::CandidateRecord"),
    ("Rows of a batch", "output/row::RowRecord"),
    ("Summary of a batch", "output/row::SummaryRecord"),
    ("Settings", "output/settings::SettingsRecord"),
];

/// Records that `gpt2 serve` answers with, which `tests/cli/serve` checks.
const SERVED: &[(&str, &str)] = &[
    ("`POST /v1/completions`", "output/openai::CompletionRecord"),
    ("`GET /v1/models`", "output/openai::ModelsRecord"),
    ("`POST /tokenize`", "output/openai::TokenizeRecord"),
    ("`POST /detokenize`", "output/openai::DetokenizeRecord"),
    ("`GET /tokenizer_info`", "output/openai::TokenizerInfoRecord"),
    ("Errors of `gpt2 serve`", "output/openai::FailureRecord"),
];

/// Checks a value against a record's declaration.
#[cfg(feature = "serve")]
#[track_caller]
pub fn check_record(value: &Value, record: &'static str) {
    static SOURCE: LazyLock<Source> = LazyLock::new(Source::read);
    check(&SOURCE, value, &[record]).unwrap_or_else(|fault| panic!("{record}: {fault} in {value}"));
}

#[test]
fn the_page_is_as_the_source() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/json.md");
    let rendered = page::render(&Source::read());
    if is_update() {
        std::fs::write(page, rendered).unwrap();
        return;
    }
    let written = std::fs::read_to_string(page).unwrap_or_default();
    let differs = written.lines().zip(rendered.lines()).find(|(old, new)| old != new);
    let advice = "run the test with GPT2_TEST_UPDATE=1";
    assert!(differs.is_none() && written.len() == rendered.len(), "docs/json.md is old: {advice}\n{differs:?}");
}

#[test]
fn every_record_is_on_the_page() {
    let source = Source::read();
    let mut reached = BTreeSet::new();
    let mut next: Vec<&str> = SECTIONS.iter().map(|section| section.record).collect();
    next.extend(SERVED.iter().chain(SHARED).map(|(_, record)| *record));
    while let Some(record) = next.pop() {
        if let (true, Shape::Record(fields)) = (reached.insert(record), &source.get(record).shape) {
            next.extend(fields.iter().filter_map(|field| page::declared_in(&field.kind)));
        }
    }
    let missing: Vec<&str> = source.outputs().filter(|record| !reached.contains(record)).collect();
    assert!(missing.is_empty(), "give each a section in `SECTIONS`, or delete it: {missing:?}");
}

#[cfg(unix)]
#[test]
fn what_is_printed_is_what_is_declared() {
    let source = Source::read();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("texts.txt"), "Once upon a time\nThe king\n").unwrap();
    for section in SECTIONS {
        for command in section.commands {
            let printed = shell(&format!("gpt2 {command}"), folder.path()).succeeds().json();
            let records = match printed {
                Value::Array(records) if section.is_array => records,
                record => vec![record],
            };
            assert!(!records.is_empty(), "gpt2 {command}");
            for record in &records {
                check(&source, record, &[section.record]).unwrap_or_else(|e| panic!("gpt2 {command}: {e}"));
            }
        }
    }
}

#[cfg(unix)]
#[test]
fn rows_are_what_is_declared() {
    let source = Source::read();
    let folder = tempfile::tempdir().unwrap();
    let rows =
        "{\"id\": 1.50, \"prompt\": \"Once upon a\", \"note\": [1]}\n{\"prompt\": \"The king\"}\n{\"id\": \"bad\"}\n";
    std::fs::write(folder.path().join("rows.jsonl"), rows).unwrap();
    for (command, record) in [
        ("generate -m demo -n 2", "output/generate::GenerateRecord"),
        ("topk -m demo", "output/topk::TopkRecord"),
        ("topk -m demo --tree 2 -k 2", "output/topk::TreeRecord"),
        ("topk -m demo --append 2", "output/topk::StepsRecord"),
        ("score -m demo", "output/score::ScoreRecord"),
        ("trace -m demo", "output/trace/records::TraceRecord"),
        ("tokenize", "output/tokenize::TokenizeRecord"),
    ] {
        let done = shell(&format!("gpt2 {command} --input rows.jsonl"), folder.path()).fails(3, &["1 "]);
        let lines = done.json_lines();
        assert_eq!(lines.len(), 3, "gpt2 {command}");
        let keys = |line: &Value| line.as_object().unwrap().keys().cloned().collect::<std::collections::BTreeSet<_>>();
        for line in &lines {
            assert_eq!(keys(line), keys(&lines[0]), "gpt2 {command}");
            let (about, mut rest): (Map<String, Value>, Map<String, Value>) =
                line.as_object().unwrap().clone().into_iter().partition(|(key, _)| is_about_row(key));
            if command.starts_with("score") {
                // Those of rows with candidates.
                let others = ["candidates", "best", "best_per_token", "best_per_byte"];
                rest.retain(|key, value| !(value.is_null() && others.contains(&key.as_str())));
            }
            let check = |value: Map<String, Value>, record| check(&source, &value.into(), &[record]);
            let checked = check(about, "output/row::RowRecord").and_then(|()| match line["ok"] == true {
                true => check(rest, record),
                false if rest.values().all(Value::is_null) => Ok(()),
                false => Err("not all is null".to_owned()),
            });
            checked.unwrap_or_else(|e| panic!("gpt2 {command}: {e} in {line}"));
        }
    }
}

#[test]
fn a_check_finds_what_is_not_declared() {
    let source = Source::read();
    let convert = |record: Value| check(&source, &record, &["output/convert::ConvertRecord"]);
    let good = serde_json::json!({"model": "m", "file": "f", "bytes": 1, "format": "gguf", "dtype": "F16"});
    assert_eq!(convert(good.clone()), Ok(()));
    let changed = |change: fn(&mut serde_json::Map<String, Value>)| {
        let mut record = good.as_object().unwrap().clone();
        change(&mut record);
        convert(record.into()).unwrap_err()
    };
    assert_eq!(changed(|record| drop(record.remove("file"))), ".file is missing");
    assert_eq!(changed(|record| drop(record.insert("more".into(), 1.into()))), ".more is not declared");
    assert_eq!(changed(|record| drop(record.insert("bytes".into(), (-1).into()))), ".bytes is no integer: -1");
}
