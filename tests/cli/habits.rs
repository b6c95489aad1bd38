//! The command line as people use it: text that looks like flags, stdin in every spelling, ids as they are copied.

use serde_json::json;

use crate::harness::{gpt2, tiny};

fn ids(arguments: &[&str]) -> String {
    gpt2(arguments).succeeds().stdout().trim_end().to_owned()
}

/// A script with `--prompt "$X"` does not depend on what X begins with. Ids are those of GPT-2's tokenizer.
#[test]
fn what_follows_a_text_flag_is_text() {
    for (text, expected) in [
        ("- item", "12 2378"),
        ("-5 degrees", "12 20 7370"),
        ("--help", "438 16794"),
        ("-n", "12 77"),
        ("---", "6329"),
        ("--", "438"),
        ("-", "12"),
        ("--prompt", "438 16963 457"),
    ] {
        for arguments in [["--prompt", text], ["-p", text]] {
            assert_eq!(ids(&[&["tokenize", "--format", "ids"], &arguments[..]].concat()), expected, "{arguments:?}");
        }
        assert_eq!(ids(&["tokenize", "--format", "ids", &format!("--prompt={text}")]), expected, "{text}");
        if text != "-" {
            assert_eq!(ids(&["tokenize", "--format", "ids", "--", text]), expected, "{text}");
        }
    }
    let base = ["generate", "-m", "demo", "Once upon a", "-n", "4"];
    let plain = ids(&base);
    for flags in [["--stop", "---"], ["--stop", "-n"], ["--bad-words", "--sample"], ["--stop", "--help"]] {
        assert_eq!(ids(&[&base[..], &flags].concat()), plain, "{flags:?}");
    }
    let asked =
        gpt2(&["topk", "-m", "demo", "Once", "--token", "-", "--token", "--", "--format", "json"]).succeeds().json();
    let tokens = asked["positions"][0]["tokens"].as_array().unwrap();
    assert_eq!(tokens.iter().map(|token| &token["id"]).collect::<Vec<_>>(), [&json!(12), &json!(438)]);
    let found = ids(&["tokenize", "--vocab", "--format", "ids", "--grep", "-----------------$"]);
    assert!(found.split(' ').count() > 1, "{found}");
    for text in ["- item", "-5 degrees", "-- item", "-x", "--- x"] {
        for subcommand in ["generate", "tokenize", "topk", "score", "trace", "embed"] {
            let found = format!("unexpected argument '{text}' found");
            let done = gpt2(&[subcommand, text]).fails(2, &[&found, &format!("--prompt='{text}'")]);
            assert!(!done.stderr().contains("use '--"), "{}", done.stderr());
        }
    }
    gpt2(&["generate", "-m", "demo", "--prompt"]).fails(2, &["--prompt"]);
    // A flag after a flag whose value may be left out is a flag.
    assert_eq!(gpt2(&["tokenize", "--decode", "--format", "text"]).stdin("464").succeeds().stdout(), "The");
}

/// A tip is about what was meant, or there is none.
#[test]
fn an_unknown_flag_comes_with_a_tip_that_helps() {
    for (arguments, tip) in [
        (&["generate", "Once", "--stride", "3"][..], "'--stride' is a flag of gpt2 score"),
        (&["topk", "Once", "--logprobs", "x"], "'--logprobs' is a flag of gpt2 generate"),
        (&["score", "Once", "--temperature=2"], "'--temperature' is a flag of gpt2 generate and gpt2 topk"),
        (&["info", "--stride", "3"], "'--stride' is a flag of gpt2 score"),
        (&["generate", "--diversity-penalty", "-inf"], "is given as --diversity-penalty=-inf"),
        (&["generate", "--temprature", "2"], "a similar argument exists: '--temperature'"),
        (&["generate", "--max-tokens", "2"], "the flag is called --max-new-tokens"),
    ] {
        let done = gpt2(arguments).fails(2, &[tip]);
        assert_eq!(done.stderr().matches("tip:").count(), 1, "{}", done.stderr());
        assert!(!done.stderr().contains("epsilon"), "{}", done.stderr());
    }
    let none = gpt2(&["info", "--zzz"]).fails(2, &["unexpected argument '--zzz' found"]);
    assert!(!none.stderr().contains("tip:"), "{}", none.stderr());
}

/// What Windows' programs call Unicode is named, once, and not read as bytes that are at fault.
#[test]
fn a_text_in_utf_16_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text");
    let file = path.to_str().unwrap();
    let rows = "{\"prompt\": \"a\"}\n{\"prompt\": \"b\"}\n";
    for (mark, encode) in [(&[0xFF, 0xFE], u16::to_le_bytes as fn(u16) -> [u8; 2]), (&[0xFE, 0xFF], u16::to_be_bytes)] {
        let bytes = [&mark[..], &rows.encode_utf16().flat_map(encode).collect::<Vec<u8>>()].concat();
        std::fs::write(&path, &bytes).unwrap();
        gpt2(&["tokenize", "--file", file]).fails(1, &["text is UTF-16; save it as UTF-8"]);
        for subcommand in ["generate", "score"] {
            for input in [file, "-"] {
                let done = gpt2(&[subcommand, "-m", "demo", "--input", input]).stdin(&bytes);
                let done = done.fails(2, &["is UTF-16; save it as UTF-8"]);
                assert_eq!((done.stdout(), done.stderr().lines().count()), (String::new(), 1));
            }
        }
        let session = gpt2(&["generate", "-m", "demo", "--interactive"]).stdin(&bytes).succeeds();
        assert_eq!(session.stderr(), "error: line 1: UTF-16; save it as UTF-8\n");
    }
}

#[test]
fn a_dash_is_stdin() {
    for source in [&["-"][..], &["--file", "-"], &[]] {
        let arguments = [&["tokenize", "--format", "ids"], source].concat();
        assert_eq!(gpt2(&arguments).stdin("Hello world\n").succeeds().stdout(), "15496 995 198\n", "{source:?}");
    }
    assert_eq!(
        gpt2(&["tokenize", "--decode", "--file", "-"]).stdin("[15496,\n995]\n").succeeds().stdout(),
        "Hello world"
    );
}

/// `echo` adds a line break that nobody wants continued. Only that one, and only from stdin.
#[test]
fn the_newline_of_echo_is_no_part_of_a_prompt() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("prompt.txt");
    std::fs::write(&path, "Once upon a\n").unwrap();
    let file = path.to_str().unwrap();
    for subcommand in [&["generate", "-m", "demo", "-n", "1"][..], &["topk", "-m", "demo"]] {
        let prompt = |text: &str, more: &[&str]| {
            let arguments = [subcommand, &["--format", "json"], more].concat();
            gpt2(&arguments).stdin(text).succeeds().json()["prompt_ids"].clone()
        };
        let (bare, one) = (json!([7454, 2402, 257]), json!([7454, 2402, 257, 198]));
        for text in ["Once upon a", "Once upon a\n", "Once upon a\r\n", "\u{feff}Once upon a\n"] {
            for source in [&[][..], &["-"], &["--file", "-"]] {
                assert_eq!(prompt(text, source), bare, "{text:?} {source:?}");
            }
        }
        assert_eq!(prompt("Once upon a\n\n", &[]), one);
        assert_eq!(prompt("Once upon a\n", &["--keep-newline"]), one);
        assert_eq!(prompt("", &["--file", file]), one, "a file is taken as it is");
        assert_eq!(prompt("", &["--prompt", "Once upon a\n"]), one);
    }
    let scored = gpt2(&["score", "-m", "demo", "--format", "json"]).stdin("Once upon a\n").succeeds().json();
    assert_eq!(scored["ids"], json!([7454, 2402, 257, 198]), "a text is scored as it is");
}

#[test]
fn a_byte_order_mark_is_no_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text.txt");
    std::fs::write(&path, "\u{feff}Hello world").unwrap();
    assert_eq!(ids(&["tokenize", "--format", "ids", "--file", path.to_str().unwrap()]), "15496 995");
    let done = gpt2(&["tokenize", "--format", "ids"]).stdin("\u{feff}Hello world").succeeds();
    assert_eq!(done.stdout(), "15496 995\n");
    std::fs::write(&path, b"\xEF\xBB\xBFab\xff").unwrap();
    gpt2(&["tokenize", "--file", path.to_str().unwrap()]).fails(1, &["invalid byte at offset 5"]);
    let interactive = ["generate", "-m", "demo", "--interactive", "-n", "3", "--completion-only"];
    let first = gpt2(&interactive).stdin("\u{feff}Once upon a\r\n").succeeds().stdout();
    assert_eq!(first, gpt2(&interactive).stdin("Once upon a\n").succeeds().stdout());
}

#[test]
fn ids_are_taken_in_every_common_spelling() {
    for text in ["[464, 4583]", "464,4583", "464 4583", "464\n4583\n", "[464,\n 4583]"] {
        assert_eq!(ids(&["tokenize", "--decode", text]), "The theory", "{text:?}");
        assert_eq!(ids(&["tokenize", "--format", "ids", "--ids", text]), "464 4583", "{text:?}");
    }
    let folder = tiny("base").display().to_string();
    let banned = |text: &str| {
        let arguments =
            ["generate", "-m", &folder, "--ids", "[161, 176, 26, 125, 16]", "-n", "6", "--bad-words-ids", text];
        gpt2(&[&arguments[..], &["--format", "json"]].concat()).succeeds().json()["sequences"].clone()
    };
    assert_eq!(banned("[[189, 3], [7]]"), banned("[[7], [189, 3]]"));
    gpt2(&["generate", "-m", "demo", "--ids", "[[1,2],[3]]"]).fails(2, &["--ids: a list of lists"]);
    gpt2(&["generate", "-m", "demo", "--ids", "[1, 2"]).fails(2, &["--ids: the list is open"]);
    gpt2(&["tokenize", "--decode", "[464, x]"]).fails(2, &["--decode", "`x` is not a token id"]);
}

/// An invalid line is an error of that line.
#[test]
fn an_interactive_session_goes_on_after_a_bad_line() {
    let folder = tiny("base").display().to_string();
    let long = "a ".repeat(600);
    let input = [b"Once upon a\n\xff\xfe\n", long.as_bytes(), b"\nThe king\n"].concat();
    let interactive = ["generate", "-m", "demo", "--interactive", "-n", "2"];
    let done = gpt2(&interactive).stdin(input).succeeds();
    let (stdout, stderr) = (done.stdout(), done.stderr());
    assert!(
        stdout.starts_with("Once upon a") && stdout.contains("\nThe king") && stdout.lines().count() == 2,
        "{stdout}"
    );
    assert!(stderr.contains("error: line 2: invalid UTF-8 at offset 0") && stderr.contains("512"), "{stderr}");
    let no_tokenizer = ["generate", "-m", &folder, "--interactive", "-n", "2"];
    let done = gpt2(&no_tokenizer).stdin("a\nb\n").fails(1, &["has no tokenizer", "--tokenizer"]);
    assert_eq!(done.stderr().lines().count(), 1, "{}", done.stderr());
}

/// Wherever the result goes, a text that ends because the context is full comes with a warning.
#[test]
fn a_full_context_is_said_in_every_format() {
    let folder = tiny("base").display().to_string();
    let ids = vec!["1"; 94].join(" ");
    let warning = "ends at the full context of 96 tokens; to continue, use --on-context-limit crop\n";
    for format in ["text", "json", "jsonl"] {
        let base = ["generate", "-m", &folder, "--ids", &ids, "-n", "9", "--ignore-eos", "--format", format];
        assert_eq!(gpt2(&base).succeeds().stderr(), format!("warning: the text {warning}"), "{format}");
        assert_eq!(gpt2(&[&base[..], &["-q"]].concat()).succeeds().stderr(), "");
    }
    let long = json!({"ids": vec![1; 94]}).to_string() + "\n";
    let short = json!({"ids": [1, 2], "max_new_tokens": 1}).to_string() + "\n";
    let base = ["generate", "-m", &folder, "--input", "-", "-n", "9", "--ignore-eos"];
    let batch = |rows: &[&str]| gpt2(&base).stdin(rows.concat()).succeeds().stderr();
    assert_eq!(batch(&[&short]), "");
    assert_eq!(batch(&[&long, &short]), format!("warning: the text of 1 row {warning}"));
    let several = warning.replace("ends", "end");
    assert_eq!(batch(&[&long, &short, &long]), format!("warning: the texts of 2 rows {several}"));
}

/// Nothing was scored, so there is nothing to say about a byte.
#[test]
fn one_token_has_no_bits_per_byte() {
    for text in ["Once", ""] {
        let json = gpt2(&["score", "-m", "demo", "--prompt", text, "--format", "json"]).succeeds();
        assert!(json.stdout().contains("\"sum_logprob\": 0.0"), "{}", json.stdout());
        let json = json.json();
        assert_eq!((&json["bits_per_byte"], &json["perplexity"]), (&json!(null), &json!(null)), "{json}");
        assert_eq!(json["scored_tokens"], 0);
        let text = gpt2(&["score", "-m", "demo", "--prompt", text]).succeeds().stdout();
        assert!(!text.contains("bits per byte") && !text.contains("perplexity"), "{text}");
    }
    for (arguments, why) in [
        (&["Once"][..], "the first token has no probability without --bos"),
        (&[""], "the text is empty"),
        (&["", "--bos"], "the text is empty"),
    ] {
        let stderr = gpt2(&[&["score", "-m", "demo"], arguments].concat()).succeeds().stderr();
        assert_eq!(stderr, format!("note: there is nothing to score: {why}\n"));
    }
}

#[test]
fn an_empty_prompt_starts_from_a_token_that_is_named_as_it_is() {
    let done = gpt2(&["generate", "-m", "demo", "", "-n", "1"]).succeeds();
    assert_eq!(done.stderr(), "note: the prompt is empty: starting from token \"<|endoftext|>\"\n");
    let rows = "{\"prompt\": \"Once\"}\n{\"prompt\": \"\"}\n";
    let done = gpt2(&["generate", "-m", "demo", "--input", "-", "-n", "1"]).stdin(rows).succeeds();
    assert_eq!(done.stderr(), "note: line 2: the prompt is empty: starting from token \"<|endoftext|>\"\n");
    // The start token of this model without a tokenizer.
    let folder = tiny("base").display().to_string();
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(tiny("base").join("config.json")).unwrap()).unwrap();
    let done = gpt2(&["topk", "-m", &folder, "--ids", ""]).succeeds();
    assert_eq!(done.stderr(), format!("note: the prompt is empty: starting from token #{}\n", config["bos_token_id"]));
}

#[test]
fn messages_say_what_is_allowed() {
    let demo = |subcommand: &str, flags: &[&str], words: &[&str]| {
        let done = gpt2(&[&[subcommand, "-m", "demo"][..], flags].concat()).fails(2, words);
        assert!(!done.stderr().contains("digit found"), "{}", done.stderr());
    };
    demo(
        "generate",
        &["Once", "--temperature", "inf"],
        &["--temperature takes a number from 1e-30 to 3.4e38, not inf"],
    );
    demo("generate", &["Once", "--threads", "x"], &["--threads takes a whole number from 1 to 1024, not x\n"]);
    demo(
        "generate",
        &["--input", "-", "--batch-size", "0"],
        &["--batch-size takes a whole number from 1 to 4096, not 0\n"],
    );
    demo("bench", &["-n", "0"], &["-n takes a whole number from 1, not 0\n"]);
    demo("bench", &["--prompt-tokens", "4,x"], &["--prompt-tokens takes a whole number from 1, not x\n"]);
    demo("topk", &["Once", "-k", "x"], &["-k takes a whole number from 1, not x\n"]);
    demo("score", &["Once", "--stride", "x"], &["--stride takes a whole number from 1, not x\n"]);
    demo("generate", &["Once", "--top-k", "1.5"], &["--top-k takes a whole number from 0, not 1.5\n"]);
    demo("generate", &["Once", "--seed", "18446744073709551616"], &["too large: the most is 18446744073709551615"]);
    demo("topk", &["Once", "--token", ""], &["is no token"]);
    demo("topk", &["Once", "--position", "x"], &["--position takes a whole number, not x\n"]);
    demo("topk", &["Once", "--position", "3"], &["the prompt has 1 token, 0 to 0"]);
    demo("topk", &["Once", "--html", "a.html"], &["--html", "--all"]);
    demo("trace", &["Once", "--layer", "x"], &["--layer takes a whole number from 0, not x\n"]);
    let convert = ["convert", "-m", "demo", "--to", "f16", "/nonexistent/folder/a.gguf"];
    gpt2(&convert).fails(1, &["cannot create /nonexistent/folder/a.gguf", "no folder /nonexistent/folder"]);
    gpt2(&["topk", "-m", "demo", "Once"]).env("GPT2_SIMD", "foo").fails(2, &["GPT2_SIMD is \"foo\"", "portable, avx2"]);
    gpt2(&["topk", "-m", "demo", "Once"]).env("GPT2_SIMD", "portable").succeeds();
}
