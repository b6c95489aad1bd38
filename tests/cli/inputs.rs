//! What a run reads, no output replaces.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{gpt2, tiny};

const ROWS: &str = "{\"ids\": [1, 2]}\n{\"ids\": [3]}\n";

/// A folder with rows, a text and a model.
fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    fs::create_dir(&model).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(tiny("base").join(name), model.join(name)).unwrap();
    }
    fs::write(folder.path().join("rows.jsonl"), ROWS).unwrap();
    fs::write(folder.path().join("text.txt"), "Once upon a time").unwrap();
    let path = folder.path().to_owned();
    (folder, path)
}

/// Runs in the folder and checks that the file stays as it was.
#[track_caller]
fn keeps(folder: &Path, file: &str, arguments: &[&str]) {
    let before = fs::read(folder.join(file)).unwrap();
    gpt2(arguments).current_dir(folder).fails(2, &[file, "is read by this run; write to another file"]);
    assert_eq!(fs::read(folder.join(file)).unwrap(), before, "{arguments:?}");
}

#[test]
fn the_model_and_the_text_are_no_output() {
    let (_guard, folder) = folder();
    let rows = ["generate", "-m", "model", "-n", "1", "--input", "rows.jsonl", "--output"];
    for file in ["model/model.safetensors", "model/config.json"] {
        keeps(&folder, file, &[&rows[..], &[file]].concat());
    }
    fs::hard_link(folder.join("model/model.safetensors"), folder.join("weights.safetensors")).unwrap();
    keeps(&folder, "weights.safetensors", &["trace", "-m", "model", "--ids", "1 2", "--save", "weights.safetensors"]);
    for name in ["text.html", "text.svg"] {
        fs::copy(folder.join("text.txt"), folder.join(name)).unwrap();
    }
    keeps(&folder, "text.html", &["score", "-m", "demo", "--file", "text.html", "--html", "text.html"]);
    keeps(&folder, "text.html", &["topk", "-m", "demo", "--file", "text.html", "--all", "--html", "text.html"]);
    keeps(&folder, "text.svg", &["trace", "-m", "demo", "--file", "text.svg", "--svg", "text.svg", "--lens"]);
}

/// What stands beside an output says what it was made with, and may be someone's file.
#[test]
fn a_file_of_the_ledgers_name_is_kept_unless_it_is_a_ledger() {
    let (_guard, folder) = folder();
    let run = |output: &str| {
        let arguments = ["generate", "-m", "model", "-n", "1", "--input", "rows.jsonl", "--output", output];
        gpt2(&arguments).current_dir(&folder)
    };
    fs::write(folder.join("a.jsonl.gpt2"), "precious").unwrap();
    run("a.jsonl").fails(2, &["a.jsonl.gpt2", "no file of this program; move it away"]);
    assert_eq!(fs::read_to_string(folder.join("a.jsonl.gpt2")).unwrap(), "precious");
    #[cfg(unix)]
    {
        fs::write(folder.join("victim"), "").unwrap();
        std::os::unix::fs::symlink("victim", folder.join("b.jsonl.gpt2")).unwrap();
        run("b.jsonl").fails(2, &["b.jsonl.gpt2", "no file of this program"]);
        assert_eq!(fs::read_to_string(folder.join("victim")).unwrap(), "");
    }
    fs::rename(folder.join("rows.jsonl"), folder.join("c.jsonl.gpt2")).unwrap();
    let arguments = ["generate", "-m", "model", "-n", "1", "--input", "c.jsonl.gpt2", "--output", "c.jsonl"];
    keeps(&folder, "c.jsonl.gpt2", &arguments);
    fs::rename(folder.join("c.jsonl.gpt2"), folder.join("rows.jsonl")).unwrap();
    // A run that was killed as it began leaves part of a line.
    fs::write(folder.join("d.jsonl.gpt2"), "{\"subcom").unwrap();
    run("d.jsonl").succeeds();
    run("d.jsonl").succeeds();
}

/// A file may have two names. On Windows nothing keeps them apart: a lock would keep readers away, too.
#[cfg(unix)]
#[test]
fn two_runs_do_not_write_one_file_under_two_names() {
    let (_guard, folder) = folder();
    fs::write(folder.join("one.jsonl"), "").unwrap();
    fs::hard_link(folder.join("one.jsonl"), folder.join("other.jsonl")).unwrap();
    let run = |output: &str| gpt2(&["generate", "-m", "model", "-n", "1", "--input", "-", "--output", output]);
    let mut first = run("one.jsonl").current_dir(&folder).into_command();
    let mut first = first.stdin(std::process::Stdio::piped()).spawn().unwrap();
    let ledger = folder.join("one.jsonl.gpt2");
    while fs::metadata(&ledger).map_or(0, |metadata| metadata.len()) == 0 {
        assert!(first.try_wait().unwrap().is_none(), "it waits for rows");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    run("other.jsonl").current_dir(&folder).stdin(ROWS).fails(1, &["another run is writing", "other.jsonl"]);
    drop(first.stdin.take());
    assert!(first.wait().unwrap().success());
}

#[test]
fn a_level_that_the_processor_lacks_is_said() {
    let run = |level: &str| gpt2(&["topk", "-m", "demo", "Once"]).env("GPT2_SIMD", level).succeeds();
    assert_eq!(run("portable").stderr(), "");
    // No processor has both.
    let notes = run("neon").stderr() + &run("amx").stderr();
    assert!(notes.contains("note: GPT2_SIMD=") && notes.contains(", the best that this processor has"), "{notes}");
}
