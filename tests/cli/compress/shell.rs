//! What a shell and a person at a terminal see.

use super::*;

#[test]
fn mistakes_are_said_before_the_work() {
    let fails = |arguments: &[&str], words: &[&str]| drop(gpt2(arguments).stdin(TEXT).fails(2, words));
    fails(&["compress", "-m", "demo", "--device", "cuda"], &["same bits", "leave out --device"]);
    fails(&["decompress", "--device", "cuda"], &["same bits", "leave out --device"]);
    fails(&["compress", "-m", "demo", "--stride", "512"], &["--stride is 512", "use 1 to 511"]);
    fails(&["compress", "-m", "demo", "--window", "513"], &["--window is 513", "allows 1 to 512"]);
    fails(&["compress", "-m", "demo", "--window", "1"], &["--window"]);
    fails(&["compress", "-m", "demo", "--format", "json"], &["--format", "-o"]);
    fails(&["compress", "-m", "demo", "-o", "-"], &["-o takes a file, not -; leave it out for stdout"]);
    fails(&["decompress", "-o", "-"], &["-o takes a file, not -; leave it out for stdout"]);
    gpt2(&["compress", "-m", "demo", "/nonexistent"]).fails(1, &["cannot read /nonexistent"]);
    gpt2(&["decompress", "/nonexistent"]).fails(1, &["cannot read /nonexistent"]);
    gpt2(&["compress", "-m", "demo", "-o", "/nonexistent/a"]).fails(1, &["no folder /nonexistent"]);
    gpt2(&["compress", "-m", tiny("base").to_str().unwrap()]).fails(1, &["tokenizer", "--tokenizer"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("same");
    std::fs::write(&path, TEXT).unwrap();
    let path = path.to_str().unwrap();
    gpt2(&["compress", "-m", "demo", path, "-o", path]).fails(2, &["is read by this run"]);
    assert_eq!(std::fs::read_to_string(path).unwrap(), TEXT);
}

#[cfg(unix)]
#[test]
fn a_terminal_gets_no_code_and_no_control_characters() {
    let (code, shown) = gpt2(&["compress", "-m", "demo"]).stdin(TEXT).on_terminal();
    assert_eq!(code, Some(2));
    assert!(shown.contains("not for a terminal"), "{shown}");
    let file = compress("\x1b[31mred\n", &[]);
    let (code, shown) = decompress(&file, &["-q"]).on_terminal();
    assert_eq!((code, &*shown), (Some(0), "\\u{1b}[31mred\n"));
    let (_, shown) = decompress(&file, &["-q", "--raw-text"]).on_terminal();
    assert_eq!(shown, "\x1b[31mred\n");
    let folder = tempfile::tempdir().unwrap();
    // As a file, the terminal is still one.
    let (code, shown) = decompress(&file, &["-o", "/dev/stdout"]).on_terminal();
    assert_eq!((code, &*shown), (Some(0), "\\u{1b}[31mred\n"));
    let (_, shown) = decompress(&file, &["-o", "/dev/stdout", "--raw-text"]).on_terminal();
    assert_eq!(shown, "\x1b[31mred\n");
    let (code, shown) = gpt2(&["compress", "-m", "demo", "-o", "/dev/stdout"]).stdin(TEXT).on_terminal();
    assert_eq!(code, Some(2));
    assert!(shown.contains("not for a terminal"), "{shown}");
    // From a file, whose length is known: no bar is drawn over the text, and no report follows it.
    let path = folder.path().join("one.gpt2z");
    std::fs::write(&path, compress("without an end of line", &[])).unwrap();
    let (code, shown) = gpt2(&["decompress", path.to_str().unwrap()]).on_terminal();
    assert_eq!((code, &*shown), (Some(0), "without an end of line"));
    let path = folder.path().join("text");
    std::fs::write(&path, book()).unwrap();
    let out = folder.path().join("text.gpt2z");
    let arguments = ["compress", "-m", "demo", path.to_str().unwrap(), "-o", out.to_str().unwrap()];
    let (code, shown) = gpt2(&arguments).on_terminal();
    assert_eq!(code, Some(0));
    let last = shown.trim_end().lines().last().unwrap();
    assert!(last.contains("compressed 9") && last.contains("bits a byte"), "{shown}");
}

#[cfg(unix)]
#[test]
fn a_closed_stdin_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    for line in ["gpt2 compress -m demo -o a.gpt2z <&-", "gpt2 decompress -o a.txt <&-"] {
        crate::harness::shell(line, folder.path()).fails(1, &["cannot read stdin", "it is closed"]);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[cfg(unix)]
#[test]
fn a_new_file_is_as_secret_as_what_it_is_made_from() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let mode = |name: &str| std::fs::metadata(path(name)).unwrap().permissions().mode() & 0o777;
    let chmod = |name: &str, mode| std::fs::set_permissions(path(name), PermissionsExt::from_mode(mode)).unwrap();
    let run = |from: &str, to: &str| match to.ends_with('z') {
        true => drop(gpt2(&["compress", "-m", "demo", &path(from), "-o", &path(to)]).succeeds()),
        false => drop(gpt2(&["decompress", &path(from), "-o", &path(to)]).succeeds()),
    };
    std::fs::write(path("text"), "a").unwrap();
    let default = mode("text");
    chmod("text", 0o600);
    run("text", "z");
    run("z", "back");
    assert_eq!((mode("z"), mode("back")), (0o600, 0o600));
    // No more than is usual here, and what is there stays as it is.
    chmod("text", 0o777);
    run("text", "other.z");
    assert_eq!(mode("other.z"), default);
    run("text", "z");
    assert_eq!(mode("z"), 0o600);
}

/// `head` closes the pipe before all is written.
#[cfg(unix)]
#[test]
fn a_reader_that_goes_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("zeros"), vec![0; 3_000_000]).unwrap();
    let line =
        "gpt2 compress -q -m demo zeros -o z.gpt2z && { gpt2 decompress -q z.gpt2z; echo $? >&2; } | head -c 3 | wc -c";
    let done = crate::harness::shell(line, folder.path()).succeeds();
    assert_eq!((done.stdout().trim(), &*done.stderr()), ("3", "0\n"));
}

#[test]
fn one_line_says_what_was_done() {
    let done: Done = gpt2(&["compress", "-m", "demo"]).stdin(TEXT).succeeds();
    let (text, file) = (TEXT.len(), done.output.stdout.len());
    assert!(done.stderr().starts_with(&format!("compressed {text} bytes to {file}: ")), "{}", done.stderr());
    assert!(done.stderr().contains(" bits a byte, ") && done.stderr().ends_with("B/s\n"));
    let done = decompress(&done.output.stdout, &[]).succeeds();
    assert!(done.stderr().starts_with(&format!("decompressed {file} bytes to {text}: ")), "{}", done.stderr());
    assert_eq!(gpt2(&["compress", "-m", "demo", "-q"]).stdin(TEXT).succeeds().stderr(), "");
    // The file that was written is named.
    let folder = tempfile::tempdir().unwrap();
    let (there, back) = (folder.path().join("a.gpt2z"), folder.path().join("a.txt"));
    let (there, back) = (there.to_str().unwrap(), back.to_str().unwrap());
    let done = gpt2(&["compress", "-m", "demo", "-o", there]).stdin(TEXT).succeeds();
    assert!(
        done.stderr().starts_with(&format!("wrote {there}: compressed {text} bytes to {file}: ")),
        "{}",
        done.stderr()
    );
    let done = gpt2(&["decompress", there, "-o", back, "--format", "json"]).succeeds();
    assert!(done.stderr().starts_with(&format!("wrote {back}: decompressed {file} bytes")), "{}", done.stderr());
    assert_eq!(done.json()["file"], back);
}
