//! `gpt2 generate --input`: many prompts, one result per line.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::harness::{golden, gpt2, tiny};

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

fn read(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Rows without their timings and their lines, by id.
fn by_id(mut rows: Vec<Value>) -> Vec<Value> {
    for row in &mut rows {
        let row = row.as_object_mut().unwrap();
        row.remove("timings");
        row.remove("line");
    }
    rows.sort_by_key(|row| row["id"].to_string());
    rows
}

/// Prompts of all lengths under every strategy give the same together as alone, at any batch size and thread count.
#[test]
fn a_row_depends_only_on_itself() {
    let golden = golden("base");
    let mut rows = vec![];
    for (i, case) in golden["generate"].as_array().unwrap().iter().enumerate() {
        let mut row = json!({"id": i, "prompt_ids": case["ids"], "max_new_tokens": case["max_new_tokens"]});
        row.as_object_mut().unwrap().extend(case["params"].as_object().unwrap().clone());
        rows.push(row);
    }
    for (i, length) in [1, 40, 7, 90, 16, 17].into_iter().enumerate() {
        let ids: Vec<u32> = (0..length).map(|n| (n * 37 + length) % 210).collect();
        rows.push(json!({"id": format!("drawn {i}"), "prompt_ids": ids, "temperature": 1.3, "top_k": 50, "seed": i}));
    }
    let folder = tiny("base").display().to_string();
    let run = |flags: &[&str], rows: &[Value]| {
        let arguments = [&["generate", "-m", &folder, "--input", "-", "--on-context-limit", "crop"], flags].concat();
        by_id(gpt2(&arguments).stdin(lines(rows)).succeeds().json_lines())
    };
    let together = run(&["--batch-size", "64"], &rows);
    assert_eq!(together.len(), rows.len());
    assert_eq!(together, run(&["--batch-size", "3", "--threads", "2"], &rows));
    let reversed: Vec<Value> = rows.iter().rev().cloned().collect();
    assert_eq!(together, run(&["--batch-size", "7", "--threads", "1"], &reversed));
    let alone = rows.iter().flat_map(|row| run(&[], std::slice::from_ref(row))).collect();
    assert_eq!(together, by_id(alone));
    for (row, case) in together
        .iter()
        .filter(|row| row["id"].is_u64())
        .map(|row| (row, &golden["generate"][row["id"].as_u64().unwrap() as usize]))
    {
        let ids: Vec<&Value> = row["sequences"].as_array().unwrap().iter().map(|s| &s["ids"]).collect();
        assert_eq!(ids, case["sequences"].as_array().unwrap().iter().collect::<Vec<_>>());
    }
}

#[test]
fn bad_rows_are_reported_and_skipped() {
    let input = concat!(
        "{\"id\": \"good\", \"prompt\": \"Once upon a\"}\n",
        "no json\n",
        "\n",
        "{\"id\": \"empty\"}\n",
        "{\"id\": [1, 2], \"prompt_ids\": [99999]}\n",
        "{\"id\": \"unknown\", \"prompt\": \"x\", \"temprature\": 1}\n",
        "{\"id\": \"range\", \"prompt\": \"x\", \"top_p\": 7}\n",
        "{\"prompt\": \"The king\", \"max_new_tokens\": 2}\n",
    );
    let done = gpt2(&["generate", "-m", "demo", "--input", "-", "-n", "4"]).stdin(input).fails(3, &["5 rows failed"]);
    let rows = done.json_lines();
    let row = |id: Value| {
        rows.iter().find(|row| row["id"] == id && row["line"] != 8).unwrap_or_else(|| panic!("no row {id}"))
    };
    assert_eq!(row("good".into())["sequences"][0]["ids"].as_array().unwrap().len(), 4);
    let without_id = rows.iter().find(|row| row["line"] == 8).unwrap();
    assert_eq!(without_id["sequences"][0]["ids"].as_array().unwrap().len(), 2);
    assert_eq!(without_id["id"], Value::Null);
    for (id, word) in [
        (Value::Null, "line 2"),
        ("empty".into(), "prompt_ids"),
        (json!([1, 2]), "99999"),
        ("unknown".into(), "temprature"),
        ("range".into(), "`top_p` takes a number above 0, up to 1 (off), not 7"),
    ] {
        let error = row(id.clone())["error"].as_str().unwrap_or_else(|| panic!("row {id} has no error"));
        assert!(error.contains(word) && !error.contains('\n'), "{error}");
    }
    let first = done.stdout();
    assert!(first.lines().all(|line| line.starts_with("{\"id\":")), "the id comes first");
}

/// Flags that need other flags may find them in the rows.
#[test]
fn rows_complete_the_flags() {
    let rows = [json!({"id": 1, "prompt": "Once", "num_beams": 2}), json!({"id": 2, "prompt": "Once"})];
    let flags = ["generate", "-m", "demo", "--input", "-", "-n", "2", "--length-penalty", "2"];
    let done = gpt2(&flags).stdin(lines(&rows)).fails(3, &["1 row failed"]).json_lines();
    let row = |id: u64| done.iter().find(|row| row["id"] == id).unwrap();
    assert!(row(1)["sequences"][0]["score"].is_number(), "{}", row(1));
    assert_eq!(row(2)["error"], "`length_penalty` needs `num_beams` above 1");
}

/// A real kill in the middle, an incomplete line, then a second run: every row is there once, unaffected by the kill.
#[test]
fn a_killed_run_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.jsonl"), folder.path().join("out.jsonl"));
    let rows: Vec<Value> =
        (0..60).map(|i| json!({"id": i, "prompt": format!("There were {i} kings"), "max_new_tokens": 30})).collect();
    std::fs::write(&input, lines(&rows)).unwrap();
    let (input, out) = (input.display().to_string(), output.display().to_string());
    let arguments = [
        "generate",
        "-m",
        "demo",
        "--input",
        &input,
        "--output",
        &out,
        "--batch-size",
        "4",
        "--temperature",
        "1",
        "--seed",
        "3",
    ];
    let mut child = gpt2(&arguments).into_command().stderr(Stdio::null()).spawn().unwrap();
    while std::fs::read(&output).map_or(0, |bytes| bytes.iter().filter(|b| **b == b'\n').count()) < 5 {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it could be killed");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let finished = std::fs::read_to_string(&output).unwrap().lines().count();
    assert!(finished < rows.len());
    // An incomplete line, as left by a kill in the middle of a write.
    std::fs::File::options().append(true).open(&output).unwrap().write_all(b"{\"id\": 59, \"mod").unwrap();

    gpt2(&[&arguments[..], &["--resume"]].concat()).succeeds();
    let resumed = by_id(read(&output));
    assert_eq!(resumed.len(), rows.len(), "every row once");
    gpt2(&arguments).succeeds();
    assert_eq!(resumed, by_id(read(&output)));
    let complete = std::fs::read(&output).unwrap();
    let done = gpt2(&[&arguments[..], &["--resume"]].concat()).succeeds();
    assert_eq!(std::fs::read(&output).unwrap(), complete, "nothing was left to do");
    assert_eq!(done.stderr().lines().last().unwrap(), note_of(rows.len(), &output));
}

/// What is said of an output that was complete.
fn note_of(rows: usize, output: &std::path::Path) -> String {
    format!("note: {} had the results of {rows} rows already; there were no others", output.display())
}

#[test]
fn failed_rows_are_tried_again_on_resume() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.jsonl"), folder.path().join("out.jsonl"));
    let arguments = |more: &[&str]| {
        let base = [
            "generate",
            "-m",
            "demo",
            "-n",
            "2",
            "--input",
            input.to_str().unwrap(),
            "--output",
            output.to_str().unwrap(),
        ];
        [&base[..], more].concat().into_iter().map(String::from).collect::<Vec<_>>()
    };
    std::fs::write(&input, "{\"id\": 1, \"prompt\": \"a\"}\n{\"id\": 2, \"prompt\": 5}\n").unwrap();
    gpt2(&arguments(&[])).fails(3, &["1 row failed"]);
    std::fs::write(&input, "{\"id\": 1, \"prompt\": \"a\"}\n{\"id\": 2, \"prompt\": \"b\"}\n").unwrap();
    gpt2(&arguments(&["--resume"])).succeeds();
    let ids: Vec<Value> = read(&output).into_iter().map(|row| row["id"].clone()).collect();
    assert_eq!(ids, [1, 2]);
    std::fs::write(&output, "not ours\n").unwrap();
    gpt2(&arguments(&["--resume"])).fails(1, &["out.jsonl", "line 1"]);
    assert_eq!(std::fs::read_to_string(&output).unwrap(), "not ours\n");
}

/// The first result is written while the input pipe is still open.
#[test]
fn the_first_result_does_not_wait_for_the_end_of_the_pipe() {
    let mut command = gpt2(&["generate", "-m", "demo", "--input", "-", "-n", "2"]).into_command();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    for id in 0..3 {
        writeln!(stdin, "{}", json!({"id": id, "prompt": "Once"})).unwrap();
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["id"], id);
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

/// Rows that failed in the run before, or that a killed run had not finished, are done last and stand where they belong.
#[test]
fn a_continued_run_keeps_the_order_of_its_inputs() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let rows = |name: &str| -> String {
        let row = |i: usize| match i % 7 {
            3 => "no row\n".to_owned(),
            _ => json!({"id": format!("{name}{i}"), "prompt": format!("There were {i} kings")}).to_string() + "\n",
        };
        (0..20).map(row).collect()
    };
    std::fs::write(path("b"), rows("b")).unwrap();
    std::fs::write(path("a"), rows("a")).unwrap();
    for subcommand in [&["generate", "-n", "3"][..], &["score"], &["tokenize"]] {
        let run = |output: &str, more: &[&str]| {
            let (b, a, output) = (path("b"), path("a"), path(output));
            let base =
                ["-m", "demo", "--input", &b, &a, "--ordered", "--no-timings", "--keep-going", "--output", &output];
            gpt2(&[subcommand, &base, more].concat()).succeeds();
        };
        run("whole", &[]);
        run("part", &[]);
        let part = std::fs::read_to_string(path("part")).unwrap();
        let without_some: String =
            part.lines().enumerate().filter(|(i, _)| i % 9 != 2).map(|(_, l)| l.to_owned() + "\n").collect();
        std::fs::write(path("part"), without_some).unwrap();
        run("part", &["--resume"]);
        assert_eq!(std::fs::read_to_string(path("part")).unwrap(), part, "{subcommand:?}");
        assert_eq!(std::fs::read_to_string(path("whole")).unwrap(), part, "{subcommand:?}");
    }
}
