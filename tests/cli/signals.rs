//! Ctrl-C and SIGTERM: what is done is kept.

use std::fs::File;
use std::io::{Read, Write};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::harness::gpt2;

/// Sends Ctrl-C once the run is at work; returns the exit code and stdout.
fn interrupted(arguments: &[&str], stdin: &str) -> (Option<i32>, String) {
    let mut command = gpt2(arguments).into_command();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    // Under -v, this is said when the model is loaded.
    let mut stderr = child.stderr.take().unwrap();
    let mut said = vec![];
    while !said.ends_with(b" s\n") {
        let mut byte = [0];
        stderr.read_exact(&mut byte).unwrap();
        said.push(byte[0]);
    }
    std::thread::sleep(std::time::Duration::from_millis(700));
    // SAFETY: sends a signal to the child that was just started and has not been waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
    let mut stdout = String::new();
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    (child.wait().unwrap().code(), stdout)
}

/// Ctrl-C keeps what is done, also of results that are written in one piece.
#[test]
fn ctrl_c_keeps_what_is_done() {
    let long =
        ["generate", "-m", "demo", "Once", "-n", "1000000", "--on-context-limit", "crop", "-v", "--format", "json"];
    let (code, stdout) = interrupted(&long, "");
    let json: Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}"));
    let sequence = &json["sequences"][0];
    assert_eq!((code, &sequence["finish_reason"]), (Some(130), &json!("interrupted")));
    let ids = sequence["ids"].as_array().unwrap();
    let whole = gpt2(&["generate", "-m", "demo", "Once", "-n", "3", "--format", "json"]).succeeds().json();
    assert_eq!(ids[..3], whole["sequences"][0]["ids"].as_array().unwrap()[..]);
    let text = "Once upon a time there was a king. ".repeat(20_000);
    let stride = ["score", "-m", "demo", "--stride", "16", "--format", "json", "-v"];
    let (code, stdout) = interrupted(&stride, &text);
    let json: Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{} bytes", stdout.len()));
    let (scored, all) = (json["scored_tokens"].as_u64().unwrap(), json["ids"].as_array().unwrap().len() as u64);
    assert!(code == Some(130) && 0 < scored && scored < all, "{code:?}: {scored} of {all}");
    assert!(json["perplexity"].as_f64().unwrap().is_finite() && json["logprobs"][all as usize - 1].is_null());
}

/// Starts a batch of many rows, sends the signal once some are finished, and then finishes it with `--resume`.
fn interrupted_batch(signal: i32) -> std::process::ExitStatus {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.jsonl"), folder.path().join("out.jsonl"));
    let mut rows = File::create(&input).unwrap();
    for i in 0..80 {
        writeln!(rows, "{}", json!({"id": i, "prompt": format!("There were {i} kings"), "max_new_tokens": 25}))
            .unwrap();
    }
    let batch = ["generate", "-m", "demo", "--input", input.to_str().unwrap(), "--output", output.to_str().unwrap()];
    let mut child = gpt2(&batch).into_command().stderr(Stdio::null()).spawn().unwrap();
    let lines = || std::fs::read_to_string(&output).unwrap_or_default();
    while lines().lines().count() < 5 {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it could be interrupted");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    // SAFETY: sends a signal to the child that was just started and has not been waited for.
    unsafe { libc::kill(child.id() as i32, signal) };
    let status = child.wait().unwrap();
    let finished = lines();
    assert!(finished.ends_with('\n') && finished.lines().count() < 80);
    assert!(finished.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "finished lines are valid");

    gpt2(&[&batch[..], &["--resume"]].concat()).succeeds();
    let all = lines();
    assert!(all.starts_with(&finished), "finished lines are kept");
    let mut ids: Vec<i64> =
        all.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_i64().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..80).collect::<Vec<_>>());
    status
}

#[test]
fn ctrl_c_in_a_batch_keeps_finished_results() {
    assert_eq!(interrupted_batch(libc::SIGINT).code(), Some(130));
}

#[test]
fn a_terminated_batch_keeps_finished_results() {
    assert_eq!(interrupted_batch(libc::SIGTERM).code(), Some(143));
}
