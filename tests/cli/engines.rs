//! What engines such as Spark, Ray and SLURM need of rows: a failure that is no failure of the run, parts that make a whole,
//! draws that can be repeated, ends that lose nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::harness::{gpt2, tiny};

/// Rows with and without ids, with others' columns, and some that fail.
fn rows() -> String {
    let row = |i: usize| match i % 10 {
        3 => "not json".to_owned(),
        6 => json!({"text": format!("The king {i}"), "label": i}).to_string(),
        7 => json!({"id": format!("bad {i}"), "ids": [99999]}).to_string(),
        _ => json!({"id": i, "prompt": "Once upon a time"}).to_string(),
    };
    (0..60).map(|i| row(i) + "\n").collect()
}

const DRAWN: [&str; 11] = ["generate", "-m", "demo", "-n", "3", "--temperature", "1", "--seed", "5", "--seed-by", "id"];

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

fn by_line(records: Vec<Value>, line: u64) -> Value {
    records.into_iter().find(|record| record["line"] == line).unwrap_or_else(|| panic!("no line {line}"))
}

#[test]
fn failed_rows_end_the_run_as_the_flags_say() {
    let rows = "{\"id\": 1, \"prompt\": \"Once upon\"}\n[1]\n{\"id\": 3, \"prompt\": \"The king\"}\n";
    for subcommand in ["generate", "score", "topk", "trace", "embed", "tokenize"] {
        let run = |more: &[&str]| gpt2(&[&[subcommand, "-m", "demo", "--input", "-"], more].concat()).stdin(rows);
        let count = run(&[]).fails(3, &["1 row failed"]).json_lines().len();
        let done = run(&["--keep-going"]).succeeds();
        assert_eq!((count, done.json_lines().len()), (3, 3));
        assert!(done.stderr().contains("note: 1 row failed"), "{}", done.stderr());
        let stopped = run(&["--on-row-error", "stop"]).fails(1, &["error: line 2 is an array"]).json_lines();
        assert_eq!(by_line(stopped, 2)["ok"], false);
        run(&["--on-row-error", "stop", "--keep-going"]).fails(2, &["--keep-going", "--on-row-error"]);
    }
    gpt2(&["score", "-m", "demo", "--keep-going", "Once"]).fails(2, &["--keep-going is about the rows of --input"]);
}

/// A column is there in every part of the rows, or in none.
#[test]
fn results_and_failures_have_one_schema() {
    let long = json!({"id": "long", "ids": vec![1; 98]}).to_string();
    let rows = format!("{{\"id\": 1, \"ids\": [1, 2]}}\nnot json {}\n{long}\n{{\"ids\": [9999]}}\n", "x".repeat(300));
    let folder = tiny("base").display().to_string();
    for subcommand in
        [&["generate", "-n", "1"][..], &["score"], &["topk", "--tree", "2", "-k", "2"], &["trace"], &["embed"]]
    {
        let run = gpt2(&[subcommand, &["-m", &folder, "--input", "-"]].concat()).stdin(&rows);
        let records = run.fails(3, &["3 rows failed"]).json_lines();
        let keys = |record: &Value| record.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        // The order of keys means nothing in JSON.
        let columns = |record| keys(record).into_iter().collect::<std::collections::BTreeSet<_>>();
        assert!(records.iter().all(|record| columns(record) == columns(&records[0])), "{records:?}");
        assert_eq!(keys(&records[0])[..6], ["id", "line", "file", "ok", "error", "error_kind"]);
        for (line, kind) in [(1, Value::Null), (2, "json".into()), (3, "context".into()), (4, "usage".into())] {
            let record = by_line(records.clone(), line);
            assert_eq!((&record["error_kind"], record["ok"].as_bool()), (&kind, Some(line == 1)), "{record}");
            assert_eq!(record["error"].is_null(), line == 1);
        }
        let unread = by_line(records, 2)["row"].as_str().unwrap().to_owned();
        assert!(unread.starts_with("not json x") && unread.ends_with("x...") && unread.len() < 250, "{unread}");
    }
}

#[test]
fn shards_are_one_run() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), rows()).unwrap();
    let path = file.path().to_str().unwrap();
    for command in [&DRAWN[..], &["score", "-m", "demo"], &["tokenize"]] {
        let run = |more: &[&str]| gpt2(&[command, &["--no-timings", "--input", path], more].concat());
        let whole = run(&[]).fails(3, &["12 rows failed"]).stdout();
        assert!(!whole.contains("\"timings\""));
        let shards: String = (0..3)
            .map(|i| {
                run(&["--shard", &format!("{i}/3"), "--batch-size", "2"]
                    [..if command[0] == "tokenize" { 2 } else { 4 }])
            })
            .map(|shard| shard.output().stdout())
            .collect();
        assert_eq!(sorted(&shards), sorted(&whole));
        let task = run(&["--shard", "slurm"]).env("SLURM_ARRAY_TASK_ID", "2").env("SLURM_ARRAY_TASK_COUNT", "3");
        let lines: Vec<u64> =
            task.output().json_lines().iter().map(|record| record["line"].as_u64().unwrap() % 3).collect();
        assert_eq!(lines, [2; 20]);
    }
    let run = |shard: &str| gpt2(&["score", "-m", "demo", "--input", path, "--shard", shard]);
    run("3/3").fails(2, &["--shard takes I from 0 to 2 of 3, not 3/3"]);
    run("slurm").fails(2, &["--shard takes slurm in a task of a SLURM array", "SLURM_ARRAY_TASK_ID is not set"]);
}

/// A row's draws are its own, whatever is beside it.
#[test]
fn draws_differ_by_row_and_not_by_run() {
    let rows = rows();
    let run = |input: &str, more: &[&str]| {
        let arguments = [&DRAWN[..], &["--input", "-", "--keep-going", "-q"], more].concat();
        gpt2(&arguments).stdin(input).succeeds().json_lines()
    };
    let drawn = |records: &[Value]| -> std::collections::BTreeMap<String, Value> {
        let ok = records.iter().filter(|record| record["ok"] == true);
        ok.map(|record| (format!("{}{}", record["id"], record["prompt"]), record["sequences"].clone())).collect()
    };
    let whole = run(&rows, &[]);
    let all = drawn(&whole);
    assert_eq!(all.len(), 48);
    let texts =
        whole.iter().filter(|record| record["prompt"] == "Once upon a time").map(|r| r["sequences"].to_string());
    assert!(texts.collect::<std::collections::BTreeSet<_>>().len() > 30);
    // A partition of the rows, whose lines have other numbers.
    let part: String = rows.lines().skip(25).step_by(2).map(|line| format!("{line}\n")).collect();
    let part = drawn(&run(&part, &["--batch-size", "3"]));
    assert!(part.len() > 10 && part.iter().all(|(row, sequences)| all[row] == *sequences));
    // The seed that a record names gives the text without the batch.
    let first = by_line(whole, 1);
    let seed = first["seed"].to_string();
    let alone = ["generate", "-m", "demo", "-n", "3", "--temperature", "1", "--format", "json", "--seed", &seed];
    let alone = gpt2(&[&alone[..], &["Once upon a time"]].concat()).succeeds().json();
    assert_eq!(alone["sequences"], first["sequences"]);
    // A row's own seed stays.
    let own = run("{\"id\": 1, \"prompt\": \"Once\", \"seed\": 11}\n", &[]);
    assert_eq!(own[0]["seed"], 11);
}

#[test]
fn a_drawn_seed_is_said() {
    let run = |more: &[&str]| {
        gpt2(&[&["generate", "-m", "demo", "-n", "2", "--input", "-"], more].concat())
            .stdin("{\"prompt\": \"Once\"}\n{\"prompt\": \"The\"}\n")
            .succeeds()
    };
    let done = run(&["--sample"]);
    let seed = done.json_lines()[0]["seed"].to_string();
    let note = format!("seed: {seed}, drawn for this run; a retry needs --seed {seed} to give the same texts\n");
    assert_eq!(done.stderr(), note);
    assert_eq!(run(&["--sample", "--seed", &seed]).json_lines()[1]["sequences"], done.json_lines()[1]["sequences"]);
    assert_eq!((run(&[]).stderr(), run(&["--sample", "-q"]).stderr()), (String::new(), String::new()));
}

#[test]
fn several_files_are_one_input() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.jsonl"), "{\"prompt\": \"a b\"}\n{\"id\": 1, \"prompt\": \"c d\"}\n").unwrap();
    std::fs::write(folder.path().join("b.jsonl"), "{\"prompt\": \"e f\"}\n").unwrap();
    for more in [&["--input", "a.jsonl", "b.jsonl"][..], &["--input", "a.jsonl", "--input", "b.jsonl"]] {
        let done = gpt2(&[&["score", "-m", "demo"], more].concat()).current_dir(folder.path()).succeeds().json_lines();
        let places: Vec<_> = done.iter().map(|record| json!([record["file"], record["line"], record["id"]])).collect();
        assert_eq!(places, [json!(["a.jsonl", 1, null]), json!(["a.jsonl", 2, 1]), json!(["b.jsonl", 1, null])]);
    }
    // Rows without ids are told apart by their file; an interruption loses none.
    let arguments = ["score", "-m", "demo", "--input", "a.jsonl", "b.jsonl", "--output", "out.jsonl"];
    gpt2(&arguments).current_dir(folder.path()).succeeds();
    let output = folder.path().join("out.jsonl");
    let whole = std::fs::read_to_string(&output).unwrap();
    std::fs::write(&output, format!("{}\n", whole.lines().next().unwrap())).unwrap();
    gpt2(&[&arguments[..], &["--resume"]].concat()).current_dir(folder.path()).succeeds();
    assert_eq!(std::fs::read_to_string(&output).unwrap(), whole);
    std::fs::write(folder.path().join("b.jsonl"), "{\"id\": 1.0, \"prompt\": \"e f\"}\n").unwrap();
    let words = "line 2 of a.jsonl and line 1 of b.jsonl have the same id, 1.0; ids must differ";
    gpt2(&arguments).current_dir(folder.path()).fails(2, &[words]);
    gpt2(&["score", "-m", "demo", "--input", "-", "-"]).fails(2, &["stdin can be read once"]);
}

/// With far fewer held back than there are rows.
#[test]
fn an_order_is_that_of_the_input() {
    let rows: String = (0..60)
        .map(|i| {
            json!({"id": i, "prompt": "Once", "max_new_tokens": if i % 20 == 0 { 60 } else { 1 }}).to_string() + "\n"
        })
        .collect();
    let run = |more: &[&str]| {
        let arguments = ["generate", "-m", "demo", "--input", "-", "--batch-size", "2", "--no-timings"];
        gpt2(&[&arguments[..], more].concat()).stdin(&rows).succeeds().stdout()
    };
    let (as_finished, ordered) = (run(&[]), run(&["--ordered"]));
    let lines = |text: &str| -> Vec<u64> {
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["line"].as_u64().unwrap()).collect()
    };
    assert_eq!(lines(&ordered), (1..=60).collect::<Vec<_>>());
    assert_ne!(as_finished, ordered);
    assert_eq!(sorted(&as_finished), sorted(&ordered));
}

#[test]
fn a_summary_is_the_proof_of_a_whole_run() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("in.jsonl"), rows()).unwrap();
    let run = |more: &[&str]| {
        let arguments = ["score", "-m", "demo", "--input", "in.jsonl", "--summary", "run.json"];
        gpt2(&[&arguments[..], more].concat()).current_dir(folder.path())
    };
    let summary =
        || -> Value { serde_json::from_slice(&std::fs::read(folder.path().join("run.json")).unwrap()).unwrap() };
    run(&["--output", "out.jsonl"]).fails(3, &[]);
    let first = summary();
    assert_eq!((&first["rows"], &first["ok"], &first["failed"]), (&json!(60), &json!(48), &json!(12)));
    assert!(first["tokens"].as_u64() > Some(42 * 4) && first["seconds"].is_number() && first["shard"].is_null());
    run(&["--output", "out.jsonl", "--resume"]).fails(3, &[]);
    let again = summary();
    assert_eq!((&again["rows"], &again["ok"], &again["failed"]), (&first["rows"], &first["ok"], &first["failed"]));
    assert_eq!(again["fingerprint"], first["fingerprint"]);
    // One that ended early leaves none.
    run(&["--on-row-error", "stop"]).fails(1, &["line 4"]);
    assert!(!folder.path().join("run.json").exists());
    run(&["--stride", "3", "--shard", "0/2"]).fails(3, &[]);
    assert_eq!((&summary()["rows"], &summary()["shard"]), (&json!(30), &json!("0/2")));
    assert_ne!(summary()["fingerprint"], first["fingerprint"]);
    gpt2(&["score", "-m", "demo", "--input", "in.jsonl", "--summary", "in.jsonl"])
        .current_dir(folder.path())
        .fails(2, &["--summary in.jsonl is the input"]);
}

#[test]
fn a_log_gets_lines() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), rows()).unwrap();
    let run = |progress: &str| {
        let arguments = ["generate", "-m", "demo", "-n", "4", "--keep-going", "--progress", progress, "--shard", "1/2"];
        gpt2(&[&arguments[..], &["--input", file.path().to_str().unwrap()]].concat()).succeeds().stderr()
    };
    let log = run("5ms");
    let lines: Vec<&str> = log.lines().filter(|line| line.starts_with("progress: ")).collect();
    assert!(lines.len() > 2 && lines.last().unwrap().starts_with("progress: 30 of 30 rows, "), "{log}");
    assert!(lines.iter().all(|line| line.ends_with(" tokens/s, shard 1/2")), "{log}");
    assert!(run("hadoop:1h").lines().next().unwrap().starts_with("reporter:status:30 of 30 rows, "));
    gpt2(&["score", "-m", "demo", "--input", "-", "--progress", "soon"]).fails(2, &["--progress takes a time"]);
}

/// What a reader gets of a batch may not look whole if it is not.
#[test]
fn a_closed_reader_of_rows_is_a_failure() {
    for command in [&["generate", "-n", "1"][..], &["score"], &["tokenize"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut run = gpt2(&[command, &["-m", "demo", "--input", "-"]].concat()).into_command();
        let mut child = run.stdin(Stdio::piped()).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"{\"prompt\": \"Once upon\"}\n").unwrap();
        let done = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(1), "{stderr}");
        assert_eq!(stderr, "error: the reader of stdout has closed it before the last row\n");
    }
}

/// Sends SIGTERM once a row is answered; returns the exit code, what was written, and what was said.
#[cfg(unix)]
fn terminated(arguments: &[&str], rows: &str) -> (Option<i32>, Vec<Value>, String) {
    let mut run = gpt2(arguments).into_command();
    let mut child = run.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It stays open: the run waits for more.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(rows.as_bytes()).unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    stdout.read_line(&mut text).unwrap();
    // SAFETY: sends a signal to the child that was just started and has not been waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    stdout.read_to_string(&mut text).unwrap();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    let code = child.wait().unwrap().code();
    drop(stdin);
    (code, text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), stderr)
}

#[cfg(unix)]
#[test]
fn sigterm_finishes_the_rows_under_way() {
    let row = |i: usize, tokens: usize| format!("{}\n", json!({"id": i, "prompt": "Once", "max_new_tokens": tokens}));
    let rows: String = (0..8).map(|i| row(i, 2 + i * 20)).collect();
    let generate = ["generate", "-m", "demo", "--input", "-", "--ignore-eos", "--batch-size", "8"];
    for more in [&[][..], &["--ordered"]] {
        let (code, records, _) = terminated(&[&generate[..], more].concat(), &rows);
        assert_eq!((code, records.len()), (Some(143), 8));
    }
    // While it waits for rows, it ends at once.
    for command in [&generate[..6], &["score", "-m", "demo", "--input", "-"]] {
        let (code, records, _) = terminated(command, "{\"id\": 1, \"prompt\": \"Once upon\", \"max_new_tokens\": 1}\n");
        assert_eq!((code, records.len()), (Some(143), 1));
    }
    // A row that takes too long is given up, and the others are kept.
    let slow = json!({"id": 9, "prompt": "Once", "max_new_tokens": 400, "num_beams": 300}).to_string();
    let (code, records, stderr) =
        terminated(&[&generate[..], &["--threads", "1"]].concat(), &(row(1, 1) + &slow + "\n"));
    assert_eq!((code, records.len()), (Some(143), 1), "{stderr}");
}

/// A minus before a zero is read as another number by some, and dropped by others.
#[test]
fn no_zero_has_a_sign() {
    let rows = "{\"prompt\": \"Once\", \"kept\": -0.0}\n";
    for command in [&["score"][..], &["trace"], &["topk", "-k", "50257"]] {
        let out = gpt2(&[command, &["-m", "demo", "--input", "-"]].concat()).stdin(rows).succeeds().stdout();
        assert_eq!(out.matches("-0.0,").count() + out.matches("-0.0]").count(), 0);
        assert!(out.contains("\"kept\":-0.0}"), "what is carried along stays");
    }
}

/// While one run writes an output, another is refused and leaves it alone.
#[cfg(unix)]
#[test]
fn an_output_has_one_writer() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.jsonl");
    let arguments = ["generate", "-m", "demo", "-n", "1", "--input", "-", "--output", output.to_str().unwrap()];
    let mut first = gpt2(&arguments).into_command().stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = first.stdin.take().unwrap();
    writeln!(stdin, "{{\"id\": 1, \"prompt\": \"Once\"}}").unwrap();
    while !std::fs::read_to_string(&output).is_ok_and(|text| text.ends_with('\n')) {
        assert!(first.try_wait().unwrap().is_none());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    for more in [&[][..], &["--resume"]] {
        let second = gpt2(&[&arguments[..], more].concat()).stdin("{\"id\": 2, \"prompt\": \"a\"}\n");
        second.fails(1, &["another run is writing", "out.jsonl"]);
    }
    drop(stdin);
    assert!(first.wait().unwrap().success());
    assert_eq!(std::fs::read_to_string(&output).unwrap().lines().count(), 1);
    gpt2(&[&arguments[..], &["--resume"]].concat()).stdin("{\"id\": 2, \"prompt\": \"a\"}\n").succeeds();
    assert_eq!(std::fs::read_to_string(&output).unwrap().lines().count(), 2);
}
