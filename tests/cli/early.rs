//! Mistakes in the flags are reported before the program looks for a model. Nothing listens at the hub's address, so a
//! subcommand that asks the hub first fails with a different error.

use crate::harness::gpt2;

const MODEL: [&str; 2] = ["--model", "someone/not-cached"];

#[track_caller]
fn refused(arguments: &[&str], code: i32, words: &[&str]) {
    let (subcommand, rest) = arguments.split_first().unwrap();
    let done = gpt2(&[&[*subcommand], &MODEL[..], rest].concat()).fails(code, words);
    assert_eq!(done.stderr().lines().filter(|line| line.starts_with("error: ")).count(), 1, "{}", done.stderr());
    assert!(!done.stderr().contains("someone/not-cached"), "the model was looked for:\n{}", done.stderr());
}

#[test]
fn the_hub_is_asked_if_the_flags_are_right() {
    for subcommand in ["generate", "topk", "score", "trace"] {
        gpt2(&[&[subcommand], &MODEL[..], &["Once"]].concat()).fails(1, &["someone/not-cached"]);
    }
}

#[test]
fn values_and_exclusions() {
    for (flags, words) in [
        (&["--temperature", "0"][..], &["--temperature takes a number from 1e-30, not 0"][..]),
        (&["--temperature", "-1"], &["leave it out for greedy decoding"]),
        (&["--top-p", "2"], &["--top-p takes a number above 0, up to 1 (off), not 2"]),
        (&["--epsilon-cutoff", "1"], &["--epsilon-cutoff takes a number from 0 (off), below 1, not 1"]),
        (&["--repetition-penalty", "0"], &["--repetition-penalty takes a number above 0 (1 is off), not 0"]),
        (&["--bad-words-ids", " "], &["--bad-words-ids has an empty sequence"]),
        (&["--bad-words", ""], &["--bad-words is an empty text"]),
    ] {
        refused(&[&["generate", "Once"], flags].concat(), 2, words);
        refused(&[&["topk", "Once"], flags].concat(), 2, words);
        refused(&[&["generate", "--input", "-"], flags].concat(), 2, words);
    }
    for (flags, words) in [
        (&["-n", "0"][..], &["-n takes a whole number from 1, not 0"][..]),
        (&["--num-beams", "0"], &["--num-beams takes a whole number from 1 to 1024, not 0"]),
        (&["--stop", ""], &["--stop is an empty text"]),
        (&["--length-penalty", "1"], &["--length-penalty needs --num-beams above 1"]),
        (&["--num-beams", "3", "--num-beam-groups", "2"], &["--num-beams must be a multiple of --num-beam-groups"]),
        (&["--num-return-sequences", "2"], &["--num-return-sequences above 1 needs --sample or --num-beams"]),
        (&["--penalty-alpha", "0.6"], &["--penalty-alpha needs --top-k, the number of candidates"]),
        (
            &["--num-beams", "2", "--assistant-model", "demo"],
            &["--num-beams cannot be combined with assisted decoding (--assistant-model,"],
        ),
        (&["--assistant-model", "demo", "--prompt-lookup", "2"], &["--assistant-model", "--prompt-lookup"]),
    ] {
        refused(&[&["generate", "Once"], flags].concat(), 2, words);
        refused(&[&["generate", "--interactive"], flags].concat(), 2, words);
    }
    for flags in [["--output", "x.jsonl"], ["--batch-size", "3"]] {
        for subcommand in ["generate", "score", "topk", "trace"] {
            refused(&[&[subcommand, "Once"], &flags[..]].concat(), 2, &[flags[0], "--input"]);
            refused(&[&[subcommand], &flags[..]].concat(), 2, &["--input"]);
        }
    }
    refused(&["topk", "Once", "-k", "0"], 2, &["-k takes a whole number from 1, not 0"]);
    refused(&["topk", "Once", "--tree", "9", "-k", "1000"], 2, &["--tree 9 with -k 1000"]);
    refused(&["score", "Once", "--stride", "0"], 2, &["--stride takes a whole number from 1, not 0"]);
    refused(&["score", "Once", "--stride", "9", "--window", "8"], 2, &["--stride is 9", "1 to 8"]);
    refused(&["trace", "Once", "--hidden", "--lens", "--svg", "x.svg"], 2, &["--svg draws one view"]);
    refused(&["generate", "--ids", "1 x"], 2, &["--ids: `x` is not a token id"]);
}

#[test]
fn files() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (rows, latin) = (path("rows.jsonl"), path("latin.txt"));
    std::fs::write(&rows, "{\"id\": 1, \"prompt\": \"Once\", \"text\": \"Once\"}\n").unwrap();
    std::fs::write(&latin, b"caf\xe9").unwrap();
    for subcommand in ["generate", "topk", "score", "trace"] {
        refused(&[subcommand, "--file", "/nonexistent/text"], 1, &["cannot read /nonexistent/text"]);
        refused(&[subcommand, "--file", &latin], 1, &["latin.txt is not UTF-8", "offset 3"]);
    }
    for subcommand in ["generate", "score"] {
        refused(&[subcommand, "--input", "/nonexistent/in"], 1, &["cannot read /nonexistent/in"]);
        refused(&[subcommand, "--input", &rows, "--output", &rows], 2, &["--output", "is the input"]);
        refused(&[subcommand, "--input", &rows, "--output", "/nonexistent/o"], 1, &["cannot create /nonexistent/o"]);
    }
    for arguments in [
        &["topk", "Once", "--all", "--html", "/nonexistent/x"][..],
        &["score", "Once", "--html", "/nonexistent/x"],
        &["trace", "Once", "--html", "/nonexistent/x"],
        &["trace", "Once", "--svg", "/nonexistent/x"],
        &["trace", "Once", "--save", "/nonexistent/x"],
    ] {
        refused(arguments, 1, &["cannot create /nonexistent/x"]);
    }
    // If the model cannot be loaded, earlier results survive.
    let output = path("out.jsonl");
    std::fs::write(&output, "{\"id\": 1}\n").unwrap();
    gpt2(&[&["generate"], &MODEL[..], &["--input", &rows, "--output", &output]].concat()).fails(1, &["not-cached"]);
    assert_eq!(std::fs::read_to_string(&output).unwrap(), "{\"id\": 1}\n");
}

#[test]
fn a_benchmark_of_a_known_size() {
    let flags = ["--random", "gpt2", "--prompt-tokens", "1000", "-n", "100"];
    gpt2(&[&["bench"], &flags[..]].concat()).fails(2, &["--prompt-tokens and --max-new-tokens", "1100", "1024"]);
}
