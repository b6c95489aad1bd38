//! Several texts at once in `topk`, `trace` and `tokenize`: rows and lines, headings, shapes.

use serde_json::{Value, json};

use crate::harness::{gpt2, tiny, without_row};

const TEXTS: [&str; 4] = ["Once upon a time", "The king", "She said: \"no\"", "Once"];

/// The views of each subcommand.
const VIEWS: [&[&str]; 9] = [
    &["topk", "-k", "3"],
    &["topk", "-k", "2", "--all", "--temperature", "0.7"],
    &["topk", "-k", "2", "--tree", "2"],
    &["topk", "-k", "2", "--append", "3"],
    &["trace"],
    &["trace", "--attention", "--lens"],
    &["trace", "--repeat", "2"],
    &["tokenize"],
    &["tokenize", "--bos"],
];

fn lines() -> String {
    TEXTS.map(|text| format!("{text}\n")).concat()
}

/// To the bit, whatever the size of the batch.
#[test]
fn each_text_gives_what_it_gives_alone() {
    for view in VIEWS {
        let run = |more: &[&str], stdin: &str| {
            gpt2(&[view, &["-m", "demo"], more].concat()).stdin(stdin).succeeds().json_lines()
        };
        let alone: Vec<Value> =
            TEXTS.iter().map(|text| without_row(run(&["--format", "jsonl", "--prompt", text], "").remove(0))).collect();
        let rows: String =
            TEXTS.iter().enumerate().map(|(i, text)| format!("{}\n", json!({"id": i, "text": text}))).collect();
        let sizes: &[&[&str]] = match view[0] {
            "tokenize" => &[&[]],
            _ => &[&[], &["--batch-size", "1"], &["--batch-size", "3"]],
        };
        for size in sizes {
            let found = run(&[&["--input", "-"], *size].concat(), &rows);
            for (i, record) in found.iter().enumerate() {
                assert_eq!((&record["id"], &record["line"]), (&json!(i), &json!(i + 1)), "in order");
            }
            assert_eq!(found.into_iter().map(without_row).collect::<Vec<_>>(), alone, "{view:?} {size:?}");
            let found = run(&[&["--lines", "-", "--format", "jsonl"], *size].concat(), &lines());
            assert_eq!((&found[1]["id"], &found[1]["line"]), (&Value::Null, &json!(2)));
            assert_eq!(found.into_iter().map(without_row).collect::<Vec<_>>(), alone, "{view:?} {size:?}");
        }
    }
}

/// For people, each text's result is what it is alone, under a heading.
#[test]
fn each_text_has_a_heading() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("texts.txt");
    std::fs::write(&file, lines().replacen('\n', "\r\n\n", 1)).unwrap();
    for view in VIEWS {
        let run = |more: &[&str]| gpt2(&[view, &["-m", "demo"], more].concat()).succeeds().stdout();
        let text = run(&["--lines", file.to_str().unwrap()]);
        let mut rest = text.as_str();
        // The first line ends as on Windows, and the second is blank.
        for (line, shown) in [(1, 0), (3, 1), (4, 2), (5, 3)] {
            let heading = format!("=== {line}: \"{}\" ===\n", TEXTS[shown]);
            let alone = run(&["--prompt", TEXTS[shown]]);
            rest = rest.strip_prefix(&heading).unwrap_or_else(|| panic!("{view:?}: {heading} is not before\n{rest}"));
            rest =
                rest.strip_prefix(alone.as_str()).unwrap_or_else(|| panic!("{view:?}: {alone}\nis not before\n{rest}"));
            rest = rest.strip_prefix('\n').unwrap_or(rest);
        }
        assert_eq!(rest, "", "{view:?}");
    }
    let ids = gpt2(&["tokenize", "--lines", "-", "--format", "ids"]).stdin("Hello world\nThe\n").succeeds().stdout();
    assert_eq!(ids, "15496 995\n464\n");
    assert_eq!(
        gpt2(&["tokenize", "--lines", "-", "--count"]).stdin("Hello world\nThe\n").succeeds().stdout(),
        "2\n1\n"
    );
}

/// A text that fails leaves the others alone.
#[test]
fn a_failed_text_is_named() {
    let folder = tiny("base").display().to_string();
    let rows = "{\"ids\": [1, 2]}\n{\"id\": \"big\", \"ids\": [1, 100000]}\n{\"ids\": []}\n{\"ids\": [3]}\n";
    for subcommand in ["topk", "trace"] {
        let done = gpt2(&[subcommand, "-m", &folder, "--input", "-"]).stdin(rows).fails(3, &["1 row failed"]);
        let records = done.json_lines();
        let failed: Vec<bool> = records.iter().map(|record| record["ok"] == false).collect();
        assert_eq!(failed, [false, true, false, false]);
        assert!(records[1]["error"].as_str().unwrap().contains("100000"), "{}", records[1]);
        let long = json!({"ids": vec![1; 97]}).to_string();
        let done = gpt2(&[subcommand, "-m", &folder, "--input", "-"]).stdin(format!("{rows}{long}\n"));
        let records = done.fails(3, &["2 rows failed"]).json_lines();
        assert!(records[4]["error"].as_str().unwrap().contains("97 tokens"), "{}", records[4]);
    }
    let done = gpt2(&["topk", "-m", "demo", "--lines", "-", "--position", "1"]).stdin("Once\nOnce upon\n");
    let done = done.fails(3, &["error: line 1: --position 1: the prompt has 1 token", "1 of the texts failed"]);
    assert!(done.stdout().starts_with("=== 2: \"Once upon\" ==="), "{}", done.stdout());
}

#[test]
fn lines_have_an_output_that_can_be_continued() {
    let folder = tempfile::tempdir().unwrap();
    let [input, output] = ["in.txt", "out.jsonl"].map(|name| folder.path().join(name));
    let (from, to) = (input.to_str().unwrap(), output.to_str().unwrap());
    for view in VIEWS {
        std::fs::write(&input, lines()).unwrap();
        let base = [view, &["-m", "demo", "--lines", from, "--output", to]].concat();
        gpt2(&base).succeeds();
        let whole = std::fs::read_to_string(&output).unwrap();
        let two: String = whole.lines().take(2).map(|line| format!("{line}\n")).collect();
        std::fs::write(&output, format!("{two}{{\"id\":nu")).unwrap();
        gpt2(&[&base[..], &["--resume"]].concat()).succeeds();
        assert_eq!(std::fs::read_to_string(&output).unwrap(), whole);
        std::fs::write(&input, lines().replace("The king", "The old king")).unwrap();
        gpt2(&[&base[..], &["--resume"]].concat()).fails(2, &["was made with other rows: line 2 has changed since"]);
        assert_eq!(std::fs::read_to_string(&output).unwrap(), whole);
        std::fs::remove_file(&output).unwrap();
    }
    std::fs::write(&output, "").unwrap();
    let base = ["topk", "-m", "demo", "--lines", from, "--output", to];
    gpt2(&base).succeeds();
    for (more, words) in [
        (&["-k", "3"][..], "-k 10 (now 3)"),
        (&["--top-p", "0.5"], "--top-p not set (now 0.5)"),
        (&["--append", "2"], "--append not set (now 2)"),
    ] {
        gpt2(&[&base[..], &["--resume"], more].concat()).fails(2, &[words]);
    }
}

#[test]
fn what_many_texts_cannot_have_is_refused() {
    for (flags, words) in [
        (&["topk", "--input", "-", "--format", "text"][..], &["--input gives one JSON object a line", "--lines"][..]),
        (&["topk", "--lines", "-", "--output", "x", "--format", "text"], &["--output takes one JSON object a line"]),
        (&["tokenize", "--lines", "-", "--output", "x", "--format", "ids"], &["--output takes"]),
        (&["tokenize", "--lines", "-", "--output", "x", "--count"], &["--count", "--output"]),
        (&["topk", "--lines", "-", "--input", "-"], &["--lines", "--input"]),
        (&["topk", "--lines", "-", "Once"], &["cannot be used with"]),
        (&["topk", "--lines", "-", "--all", "--html", "x.html"], &["--html"]),
        (&["trace", "--lines", "-", "--svg", "x.svg"], &["--svg"]),
        (&["tokenize", "--lines", "-", "--decode", "1"], &["--decode"]),
        (&["trace", "Once", "--shapes", "--lens"], &["--shapes", "--lens"]),
        (&["topk", "Once", "--shapes", "--all"], &["--shapes", "--all"]),
    ] {
        gpt2(flags).stdin("Once\n").fails(2, words);
    }
    gpt2(&["topk", "-m", "demo", "--lines", "/nonexistent/texts"]).fails(1, &["cannot read /nonexistent/texts"]);
    gpt2(&["topk", "-m", "demo", "--lines", "-"]).stdin(b"\xFF\xFEa\0").fails(2, &["stdin is UTF-16"]);
    gpt2(&["tokenize", "--lines", "-"]).stdin(b"ok\nb\xff\n").fails(3, &["line 2: invalid UTF-8 at offset 1"]);
}

/// The shapes that transformers gives for these texts with `padding=True` and `pad_token = eos_token`.
#[test]
fn shapes_are_those_of_a_padded_batch() {
    for subcommand in ["topk", "trace"] {
        let run =
            |more: &[&str], stdin: &str| gpt2(&[&[subcommand, "-m", "demo", "--shapes"], more].concat()).stdin(stdin);
        let batch = "Every effort moves you\nEvery day holds a\n";
        let text = run(&["--lines", "-"], batch).succeeds().stdout();
        for words in ["(2, 4) ", "(2, 4, 128) ", "(2, 2, 4, 4) ", "(2, 4, 50257)\n", "2 texts of 4 tokens"] {
            assert!(text.contains(words), "{words} is not in\n{text}");
        }
        let json = run(&["--lines", "-", "--format", "json"], batch).succeeds().json();
        let expected = json!({
            "model": "demo", "texts": 2, "tokens": [4, 4], "padding": null, "pad_token_id": null,
            "shapes": {
                "ids": [2, 4], "hidden_states": [2, 4, 128], "attention": [2, 2, 4, 4], "logits": [2, 4, 50257],
            },
            "counts": {"hidden_states": 7, "attention": 6},
        });
        assert_eq!(json, expected);
        let rows = "{\"text\": \"Once upon a time\"}\n{\"ids\": [464, 5822]}\n";
        let json = run(&["--input", "-", "--format", "json"], rows).succeeds().json();
        assert_eq!((&json["tokens"], &json["padding"]), (&json!([4, 2]), &json!("right")));
        assert_eq!((&json["pad_token_id"], &json["shapes"]["ids"]), (&json!(50256), &json!([2, 4])));
        let text = run(&["--input", "-"], rows).succeeds().stdout();
        assert!(text.contains("2 to 4 tokens, padded right (\"<|endoftext|>\")"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        let single = run(&["Once upon"], "").succeeds().stdout();
        assert!(single.contains("(1, 2, 50257)") && single.contains("1 text of 2 tokens"), "{single}");
        run(&["--lines", "-"], "\n\n").fails(2, &["there is no text in the input"]);
        run(&["--input", "-"], "{\"ids\": [99999999]}\n").fails(2, &["line 1", "99999999"]);
        run(&["--lines", "-"], &"a ".repeat(600)).fails(2, &["tokens", "512"]);
    }
}
