//! Files under other names: links, and the system's names for what this process has open.

use std::os::unix::fs::symlink;
use std::path::Path;

use crate::harness::{gpt2, shell};

fn is_link(path: &Path) -> bool {
    path.symlink_metadata().unwrap().is_symlink()
}

#[test]
fn a_link_stays_and_its_target_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    std::fs::create_dir(file("far")).unwrap();
    std::fs::write(file("far/old"), "old").unwrap();
    symlink("far/old", file("one")).unwrap();
    symlink("one", file("two")).unwrap();
    symlink("far/new", file("nowhere")).unwrap();
    symlink("loop", file("loop")).unwrap();
    for name in ["two", "nowhere"] {
        let html = file(name).display().to_string();
        gpt2(&["score", "-m", "demo", "Once upon a time", "--html", &html]).succeeds();
        assert!(is_link(&file(name)), "{name}");
    }
    assert!(is_link(&file("one")));
    for target in ["far/old", "far/new"] {
        assert!(std::fs::read_to_string(file(target)).unwrap().starts_with("<!"), "{target}");
    }
    let html = file("loop").display().to_string();
    gpt2(&["score", "-m", "demo", "Once upon a time", "--html", &html]).fails(1, &["loop"]);
}

#[test]
fn the_systems_names_for_stdout_are_written_to() {
    let folder = tempfile::tempdir().unwrap();
    symlink("/proc/self/fd/1", folder.path().join("out")).unwrap();
    std::fs::write(folder.path().join("rows.jsonl"), "{\"text\": \"Once\"}\n").unwrap();
    for name in ["out", "/dev/stdout", "/dev/fd/1"] {
        let line = format!("gpt2 tokenize --input rows.jsonl --output o.jsonl -q --summary {name} >> log");
        std::fs::write(folder.path().join("log"), "before\n").unwrap();
        let _ = std::fs::remove_file(folder.path().join("o.jsonl"));
        let _ = std::fs::remove_file(folder.path().join("o.jsonl.gpt2"));
        shell(&line, folder.path()).succeeds();
        let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
        assert!(log.starts_with("before\n{") && log.contains("\"rows\""), "{name}: {log}");
    }
    assert!(is_link(&folder.path().join("out")) && is_link(Path::new("/dev/stdout")));
}

#[test]
fn a_dash_is_no_file_of_results() {
    for flag in ["--output", "--summary"] {
        gpt2(&["tokenize", "--input", "-", flag, "-"]).fails(2, &[flag, "leave it out for stdout"]);
    }
}

#[test]
fn an_input_that_cannot_be_read_is_no_whole_run() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("d")).unwrap();
    std::fs::write(folder.path().join("rows.jsonl"), "{\"text\": \"Once\"}\n").unwrap();
    for command in ["tokenize", "score -m demo", "generate -n 1 -m demo", "topk -m demo", "trace -m demo"] {
        for input in ["rows.jsonl d", "/proc/self/mem"] {
            let line = format!("gpt2 {command} --input {input} --keep-going --summary s.json --output o.jsonl");
            shell(&line, folder.path()).fails(1, &["cannot read ", input.split(' ').next_back().unwrap()]);
            assert!(!folder.path().join("s.json").exists(), "{command}");
            let _ = std::fs::remove_file(folder.path().join("o.jsonl"));
            let _ = std::fs::remove_file(folder.path().join("o.jsonl.gpt2"));
        }
    }
}
