//! Hostile arguments and streams: whatever the input and wherever the output goes, a failure gives one clear line and an
//! exit code, and finished results are kept.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{gpt2, tiny};

/// Every subcommand with as little work as possible.
const SUBCOMMANDS: [&[&str]; 13] = [
    &["generate", "-m", "demo", "Once", "-n", "3"],
    &["generate", "-m", "demo", "Once", "-n", "3", "--format", "json"],
    &["topk", "-m", "demo", "Once"],
    &["topk", "-m", "demo", "Once", "--tree", "2", "-k", "2"],
    &["score", "-m", "demo", "Once upon"],
    &["trace", "-m", "demo", "Once upon"],
    &["tokenize", "Once"],
    &["tokenize", "--decode", "464"],
    &["tokenize", "--vocab"],
    &["info", "-m", "demo"],
    &["completions", "bash"],
    &["help"],
    &["--version"],
];

#[test]
fn a_prompt_of_ten_megabytes_is_refused_with_advice() {
    let text = "the king ".repeat(10_000_000 / 9);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.txt");
    std::fs::write(&path, &text).unwrap();
    for (subcommand, way_out) in
        [("generate", "--on-context-limit crop"), ("topk", "shorten"), ("trace", "shorten"), ("score", "--stride")]
    {
        let words = &["2222223", "512", way_out][..];
        let done = gpt2(&[subcommand, "-m", "demo"]).stdin(&text).fails(2, words);
        assert_eq!(done.stdout(), "", "nothing is written before the prompt is known to fit");
        gpt2(&[subcommand, "-m", "demo", "--file", path.to_str().unwrap()]).fails(2, words);
    }
    let count = gpt2(&["tokenize", "--count"]).stdin(&text).succeeds().stdout();
    assert_eq!(count, "2222223\n");
    let crop = ["generate", "-m", "demo", "--on-context-limit", "crop", "-n", "2", "--completion-only"];
    assert!(gpt2(&crop).stdin(&text).succeeds().stdout().len() < 100);
    let rows = format!("{}\n{}\n", json!({"id": "long", "prompt": text}), json!({"id": "short", "prompt": "Once"}));
    let rows = gpt2(&["generate", "-m", "demo", "--input", "-", "-n", "2"]).stdin(rows).fails(3, &["1 row failed"]);
    let rows = rows.json_lines();
    assert!(rows[0]["error"].as_str().unwrap().contains("2222223"), "{}", rows[0]);
    assert_eq!(rows[1]["id"], "short");
}

/// A NUL is a byte like any other: token 188 of the published vocabulary.
#[test]
fn nul_bytes_are_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nul.txt");
    std::fs::write(&path, b"a\0b").unwrap();
    let path = path.to_str().unwrap();
    assert_eq!(gpt2(&["tokenize", "--format", "ids"]).stdin(b"a\0b").succeeds().stdout(), "64 188 65\n");
    assert_eq!(gpt2(&["tokenize", "--format", "ids", "--file", path]).succeeds().stdout(), "64 188 65\n");
    let text = gpt2(&["generate", "-m", "demo", "-n", "1", "--file", path]).succeeds().stdout();
    assert!(text.starts_with("a\0b"), "{text:?}");
    for subcommand in ["topk", "score", "trace"] {
        gpt2(&[subcommand, "-m", "demo", "--file", path]).succeeds();
    }
    let row = "{\"id\": 1, \"prompt\": \"a\\u0000b\"}\n{\"id\": 2, \"prompt\": \"a\0b\"}\n";
    let done = gpt2(&["generate", "-m", "demo", "--input", "-", "-n", "1"]).stdin(row).fails(3, &["1 row failed"]);
    let rows = done.json_lines();
    let row = |good: bool| rows.iter().find(|row| row["ok"] == good).unwrap();
    assert_eq!(row(true)["prompt_ids"], json!([64, 188, 65]));
    assert!(row(false)["error"].as_str().unwrap().contains("a control character"));
}

#[test]
fn invalid_utf8_is_refused_with_its_source_and_offset() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.txt");
    std::fs::write(&path, b"abc\xffdef").unwrap();
    let path = path.to_str().unwrap();
    for subcommand in
        [&["generate", "-m", "demo"][..], &["topk", "-m", "demo"], &["score", "-m", "demo"], &["tokenize"]]
    {
        gpt2(subcommand).stdin(b"abc\xffdef").fails(1, &["stdin is not UTF-8", "offset 3"]);
        gpt2(&[subcommand, &["--file", path]].concat()).fails(1, &["bad.txt is not UTF-8", "offset 3"]);
    }
    gpt2(&["tokenize", "--decode"]).stdin(b"464 \xff").fails(1, &["stdin is not UTF-8", "offset 4"]);
    let rows = b"{\"id\": 1, \"prompt\": \"a\xff\"}\n{\"id\": 2, \"prompt\": \"Once\"}\n";
    let done = gpt2(&["generate", "-m", "demo", "--input", "-", "-n", "1"]).stdin(rows).fails(3, &["1 row failed"]);
    assert!(done.stdout().contains("line 1: invalid UTF-8 at offset 22"), "{}", done.stdout());
    let interactive = ["generate", "-m", "demo", "--interactive", "-n", "1"];
    assert!(
        gpt2(&interactive).stdin(b"Once\n\xff\xfe\n").succeeds().stderr().contains("line 2: invalid UTF-8 at offset 0")
    );
}

#[cfg(unix)]
#[test]
fn an_invalid_utf8_argument_is_reported_with_its_number_and_offset() {
    use std::os::unix::ffi::OsStrExt;
    let bad = std::ffi::OsStr::from_bytes(b"abc\xffdef");
    let words = ["generate", "-m", "demo", "--prompt"].map(std::ffi::OsStr::new);
    gpt2(&[&words[..], &[bad]].concat()).fails(2, &["argument 5 is not UTF-8", "offset 3"]);
    gpt2(&[std::ffi::OsStr::new("tokenize"), bad]).fails(2, &["argument 2 is not UTF-8", "offset 3"]);
}

#[test]
fn values_out_of_range_are_usage_errors_that_name_the_flag() {
    let generate = ["generate", "-m", "demo", "Once"];
    for flag in ["-n", "--min-new-tokens", "--top-k", "--num-beams", "--no-repeat-ngram-size", "--threads", "--seed"] {
        gpt2(&[&generate[..], &[flag, "-1"]].concat()).fails(2, &[", not -1", flag]);
        gpt2(&[&generate[..], &[flag, "99999999999999999999"]].concat()).fails(2, &[flag]);
    }
    for flag in [
        "--temperature",
        "--top-p",
        "--min-p",
        "--typical-p",
        "--epsilon-cutoff",
        "--eta-cutoff",
        "--repetition-penalty",
    ] {
        for value in ["nan", "inf", "-1", "-1e300", "x"] {
            gpt2(&[&generate[..], &[flag, value]].concat()).fails(2, &[flag]);
            gpt2(&["topk", "-m", "demo", "Once", flag, value]).fails(2, &[flag]);
        }
    }
    for (flags, word) in [
        (&["-n", "0"][..], "-n takes"),
        (&["--threads", "0"], "--threads"),
        (&["--num-beams", "2", "--length-penalty", "nan"], "--length-penalty"),
        (&["--num-beams", "2", "--length-penalty", "1e300"], "--length-penalty"),
        (&["--penalty-alpha", "inf", "--top-k", "4"], "--penalty-alpha"),
        (&["--num-beams", "2", "--num-beam-groups", "2", "--diversity-penalty", "-inf"], "--diversity-penalty=-inf"),
        (&["--num-return-sequences", "99999999", "--sample"], "--num-return-sequences"),
        (&["--bad-words-ids", "50257"], "50257"),
        (&["--presence-penalty", "2.5"], "--presence-penalty takes a number from -2 to 2 (0 is off), not 2.5"),
        (&["--frequency-penalty", "-3"], "--frequency-penalty takes a number from -2 to 2 (0 is off), not -3"),
        (&["--logit-bias", "50257=1"], "--logit-bias has token id 50257, but the vocabulary ends at 50256"),
        (&["--logit-bias", "5=101"], "--logit-bias takes a number from -100 to 100, not 101 (token 5)"),
        (&["--logit-bias=-5=1"], "--logit-bias: `-5` is not a token id"),
        (&["--logit-bias", "5"], "--logit-bias: `5` is not a token and its bias, such as 50256=-100"),
        (&["--stop", ""], "--stop"),
    ] {
        gpt2(&[&generate[..], flags].concat()).fails(2, &[word]);
    }
    for subcommand in ["generate", "topk", "score", "trace"] {
        gpt2(&[subcommand, "-m", "demo", "--ids", "464 50257"]).fails(2, &["50257", "0 to 50256"]);
        gpt2(&[subcommand, "-m", "demo", "--ids", "-1"]).fails(2, &["--ids", "`-1`"]);
    }
    gpt2(&["tokenize", "--decode", "464 50257"]).fails(2, &["50257", "0 to 50256"]);
    gpt2(&["topk", "-m", "demo", "Once", "-k", "0"]).fails(2, &["-k"]);
    gpt2(&["topk", "-m", "demo", "Once", "--position", "-9223372036854775808"]).fails(2, &["--position"]);
    gpt2(&["score", "-m", "demo", "Once", "--stride", "0"]).fails(2, &["--stride"]);
    gpt2(&["trace", "-m", "demo", "Once", "--layer", "-1"]).fails(2, &["--layer takes a whole number from 0, not -1"]);
    // A text may be a negative number.
    assert_eq!(gpt2(&["tokenize", "--format", "ids", "-5"]).succeeds().stdout(), "12 20\n");
}

/// An error in a row is reported under the row's id.
#[test]
fn a_row_with_a_value_of_the_wrong_kind_is_reported_by_its_id() {
    let rows = [
        r#"{"id": "a", "prompt_ids": [-1]}"#,
        r#"{"id": "b", "prompt": "x", "max_new_tokens": -5}"#,
        r#"{"id": "c", "prompt": "x", "temperature": "nan"}"#,
        r#"{"id": "d", "prompt_ids": [50257]}"#,
        r#"{"id": "e", "prompt": ["x"]}"#,
        r#"[[[["#,
    ];
    let done = gpt2(&["generate", "-m", "demo", "--input", "-"]).stdin(rows.join("\n")).fails(3, &["6 rows failed"]);
    let ids: Vec<Value> = done.json_lines().into_iter().map(|row| row["id"].clone()).collect();
    assert_eq!(ids, [json!("a"), json!("b"), json!("c"), json!("d"), json!("e"), Value::Null]);
    let done =
        gpt2(&["score", "-m", "demo", "--input", "-"]).stdin(r#"{"id": 7, "text": 5}"#).fails(3, &["1 row failed"]);
    assert_eq!(done.json_lines()[0]["id"], 7);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_stdout_is_an_error_of_every_subcommand() {
    let full = || File::options().write(true).open("/dev/full").unwrap();
    for arguments in SUBCOMMANDS {
        let done = gpt2(arguments).into_command().stdout(full()).output().unwrap();
        let stderr = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(1), "{arguments:?}: {stderr}");
        assert!(
            stderr.starts_with("error: cannot write to stdout: No space left on device"),
            "{arguments:?}: {stderr}"
        );
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    // Nothing can be reported on a full stderr, but the result is written.
    let done = gpt2(&["generate", "-m", "demo", "", "-n", "2"]).into_command().stderr(full()).output().unwrap();
    assert_eq!((done.status.code(), done.stdout.is_empty()), (Some(0), false));
    let done = gpt2(&["generate", "-m", "demo", "Once", "-n", "0"]).into_command().stderr(full()).output().unwrap();
    assert_eq!(done.status.code(), Some(2));
}

#[test]
fn a_closed_stdout_ends_every_subcommand_in_silence() {
    for arguments in SUBCOMMANDS {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let done = gpt2(arguments).into_command().stdout(writer).output().unwrap();
        let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!((done.status.code(), stderr.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

/// Runs the binary in an empty folder where no file can grow beyond 64 KiB, then lists the folder on stdout. A full disk
/// makes the same calls fail, but needs a mount, which not every machine permits.
#[cfg(unix)]
fn with_small_files(input: &Path, arguments: &[&str]) -> std::process::Output {
    // The limit is in blocks of 512 bytes.
    let script = r#"ulimit -f 128 || exit 99
        "$@" > /dev/null; code=$?; ls -A; test ! -e out.jsonl || cat out.jsonl; exit $code"#;
    let folder = tempfile::tempdir().unwrap();
    let program = gpt2(arguments).into_command();
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(program.get_program()).args(program.get_args());
    command.current_dir(folder.path()).stdin(File::open(input).unwrap()).output().unwrap()
}

#[cfg(unix)]
#[test]
fn a_failed_write_leaves_no_partial_file() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.jsonl");
    let rows: String =
        (0..40).map(|i| format!("{}\n", json!({"id": i, "prompt": format!("There were {i} kings")}))).collect();
    std::fs::write(&input, rows).unwrap();
    let text = "Once upon a time there was a king who had a daughter, and she was so beautiful that";
    for arguments in [
        &["trace", "-m", "demo", text, "--save", "a.safetensors"][..],
        &["trace", "-m", "demo", text, "--html", "a.html"],
        &["trace", "-m", "demo", text, "--lens", "--svg", "a.svg"],
        &["topk", "-m", "demo", text, "--all", "-k", "500", "--html", "a.html"],
        &["score", "-m", "demo", text, "--html", "a.html"],
        &["convert", "-m", "demo", "--to", "f16", "a.gguf"],
        &["convert", "-m", "demo", "--to", "f16", "a.safetensors"],
    ] {
        let done = with_small_files(&input, arguments);
        let (stdout, stderr) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        match done.status.code() {
            // It was small enough.
            Some(0) => assert_eq!(stdout.lines().count(), 1, "{arguments:?}: {stdout}"),
            code => {
                assert_eq!((code, &*stdout), (Some(1), ""), "{arguments:?}: {stderr}");
                assert!(stderr.starts_with("error: cannot write a."), "{stderr}");
                assert!(stderr.contains("File too large"), "{stderr}");
            }
        }
    }
    let batch = ["generate", "-m", "demo", "--input", "-", "--output", "out.jsonl", "-n", "20", "--logprobs", "5"];
    let done = with_small_files(&input, &batch);
    let (stdout, stderr) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert_eq!(done.status.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with("error: cannot write out.jsonl"), "{stderr}");
    let lines: Vec<&str> = stdout.lines().skip(2).collect();
    assert!(
        stdout.starts_with("out.jsonl\nout.jsonl.gpt2\n{") && lines.len() > 1 && lines.len() < 40,
        "{}",
        lines.len()
    );
    assert!(lines.iter().all(|line| serde_json::from_str::<Value>(line).is_ok()), "no partial line is left");
}

/// A file that reached the limit on its size is continued where it ends, once the limit is raised.
#[cfg(unix)]
#[test]
fn a_batch_whose_output_grew_too_large_is_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let rows: String = (0..40).map(|i| format!("{}\n", json!({"id": i, "prompt": format!("King {i}")}))).collect();
    std::fs::write(folder.path().join("in.jsonl"), rows).unwrap();
    let results = |name: &str| -> BTreeMap<u64, Value> {
        let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let results = lines.map(|mut line| {
            line.as_object_mut().unwrap().remove("timings");
            (line["id"].as_u64().unwrap(), line)
        });
        let results: Vec<_> = results.collect();
        let count = results.len();
        let results: BTreeMap<_, _> = results.into_iter().collect();
        assert_eq!(results.len(), count, "a row is there twice");
        results
    };
    for subcommand in [&["generate", "-m", "demo", "-n", "3", "--logprobs", "5"][..], &["score", "-m", "demo"]] {
        let run = |blocks: &str, output: &str, flags: &[&str]| {
            let files = ["--input", "in.jsonl", "--output", output, "--quiet"];
            let program = gpt2(&[subcommand, &files[..], flags].concat()).into_command();
            let mut command = Command::new("sh");
            command.args(["-c", "ulimit -f $0 && exec \"$@\"", blocks]).arg(program.get_program());
            let done = command.args(program.get_args()).current_dir(folder.path()).output().unwrap();
            (done.status.code(), String::from_utf8(done.stderr).unwrap())
        };
        assert_eq!(run("unlimited", "all.jsonl", &[]), (Some(0), String::new()));
        // 4 kB.
        let (code, stderr) = run("8", "out.jsonl", &[]);
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.starts_with("error: cannot write ") && stderr.contains("File too large"), "{stderr}");
        assert!((1..40).contains(&results("out.jsonl").len()));
        assert_eq!(run("unlimited", "out.jsonl", &["--resume"]), (Some(0), String::new()));
        assert_eq!(results("out.jsonl"), results("all.jsonl"));
    }
}

#[test]
fn a_batch_destroys_no_existing_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.jsonl");
    let rows = "{\"id\": 1, \"prompt\": \"Once\", \"text\": \"Once\"}\n";
    std::fs::write(&path, rows).unwrap();
    let path_text = path.to_str().unwrap();
    for subcommand in ["generate", "score"] {
        let missing = [subcommand, "-m", "demo", "--input", "/nonexistent/in.jsonl", "--output", path_text];
        gpt2(&missing).fails(1, &["cannot read /nonexistent/in.jsonl"]);
        for resume in [&[][..], &["--resume"]] {
            let same = [&[subcommand, "-m", "demo", "--input", path_text, "--output", path_text][..], resume].concat();
            gpt2(&same).fails(2, &["--output", "is the input"]);
            // Under another name, and as `< rows.jsonl`.
            let link = folder.path().join("link.jsonl");
            let _ = std::fs::hard_link(&path, &link);
            let other = [&[subcommand, "-m", "demo", "--input", path_text, "--output", link.to_str().unwrap()], resume];
            gpt2(&other.concat()).fails(2, &["--output", "is the input"]);
            let redirected = [&[subcommand, "-m", "demo", "--input", "-", "--output", path_text][..], resume].concat();
            let mut command = gpt2(&redirected).into_command();
            let done = command.stdin(std::fs::File::open(&path).unwrap()).output().unwrap();
            let stderr = String::from_utf8(done.stderr).unwrap();
            assert!(done.status.code() == Some(2) && stderr.contains("is the input"), "{stderr}");
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), rows);
    }
}

/// If the reader of stderr is gone, only the messages are lost.
#[test]
fn a_closed_stderr_is_not_a_failure() {
    let folder = tiny("base").display().to_string();
    for (arguments, code) in [
        (&["generate", "-m", "demo", "Once", "-n", "2", "--sample", "-v"][..], 0),
        (&["generate", "-m", "demo", "", "-n", "2"], 0),
        (&["score", "-m", "demo", "Once"], 0),
        (&["topk", "-m", &folder, "--ids", "1 2"], 0),
        (&["generate", "-m", "demo", "Once", "--top-p", "2"], 2),
        (&["generate", "--no-such-flag"], 2),
        (&["topk", "-m", "someone/not-cached", "Once"], 1),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = gpt2(arguments).into_command();
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer).status().unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}

/// No home, a dumb terminal, no terminal at all, an unwritable folder: the same result.
#[cfg(target_os = "linux")]
#[test]
fn a_poor_environment_changes_nothing() {
    for arguments in SUBCOMMANDS.iter().filter(|arguments| !arguments.contains(&"json")) {
        // The amount of free memory changes all the time.
        let lasting =
            |text: String| text.lines().filter(|line| !line.contains("available")).collect::<Vec<_>>().join("\n");
        let expected = lasting(gpt2(arguments).succeeds().stdout());
        let dumb = gpt2(arguments).env("TERM", "dumb").env("NO_COLOR", "1").succeeds();
        assert_eq!(lasting(dumb.stdout()), expected, "{arguments:?}");
        // Nobody can create a file in /proc, not even root.
        let mut bare = gpt2(arguments).current_dir(Path::new("/proc")).into_command();
        let bare = bare.env_clear().stdin(Stdio::null()).output().unwrap();
        let stderr = String::from_utf8_lossy(&bare.stderr);
        assert_eq!(bare.status.code(), Some(0), "{arguments:?}: {stderr}");
        assert_eq!(lasting(String::from_utf8(bare.stdout).unwrap()), expected, "{arguments:?}");
    }
    for flags in [&["--save", "x"][..], &["--svg", "x"], &["--html", "x"]] {
        let arguments = [&["trace", "-m", "demo", "Once"], flags].concat();
        gpt2(&arguments).current_dir(Path::new("/proc")).fails(1, &["cannot create x"]);
    }
    let interactive = ["generate", "-m", "demo", "--interactive", "-n", "2"];
    let mut bare = gpt2(&interactive).into_command();
    bare.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut bare = bare.spawn().unwrap();
    bare.stdin.take().unwrap().write_all(b"Once\n").unwrap();
    let bare = bare.wait_with_output().unwrap();
    assert!(bare.status.success() && bare.stdout.starts_with(b"Once"), "{bare:?}");
}

/// Endless input is not read forever.
#[cfg(unix)]
#[test]
fn an_endless_configuration_is_refused() {
    gpt2(&["info", "--config", "/dev/zero"]).fails(1, &["/dev/zero", "larger than"]);
}
