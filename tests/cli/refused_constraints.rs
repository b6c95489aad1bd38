//! What is no constraint, or one that could not be followed: a usage error in one line that names the flag, or an error of the
//! row.

use std::fs;

use serde_json::json;

use crate::harness::{gpt2, tiny};

fn demo(more: &[&str]) -> crate::harness::Run {
    gpt2(&[&["generate", "-m", "demo"], more].concat())
}

#[test]
fn bad_constraints_are_usage_errors_that_name_the_flag() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let cases = [
        ("--regex", String::new(), "--regex is empty"),
        ("--regex", "(".into(), "--regex is not a regular expression: unclosed group (at byte 0)"),
        ("--regex", r"a\b".into(), "--regex looks at what is around a place"),
        ("--regex", "[a&&b]".into(), "--regex cannot be followed from byte 0 of the completion on"),
        ("--choices", String::new(), "--choices is an empty text"),
        ("--json-schema", "/no/such.json".into(), "--json-schema /no/such.json: cannot be read"),
        ("--json-schema", file("a", "[1"), "a: not JSON"),
        ("--json-schema", file("b", "[1]"), "--json-schema is [1], and a schema is an object or a boolean"),
        ("--json-schema", file("c", "{\"type\": \"objekt\"}"), "Invalid type: objekt"),
        ("--json-schema", file("d", "{\"uniqueItems\": true}"), "keywords that are not supported: [\"uniqueItems\"]"),
        ("--json-schema", file("e", "false"), "Unsatisfiable schema"),
        ("--json-schema", file("i", "{\"minimum\": \"a\"}"), "Expected a number for 'minimum', got \"a\""),
        ("--json-schema", file("j", "{\"pattern\": \"(\"}"), "invalid regular expression: unclosed group"),
        (
            "--json-schema",
            file("k", "{\"items\": {\"$ref\": \"#\"}, \"minItems\": 1, \"type\": \"array\"}"),
            "never ends",
        ),
        ("--regex", "a$b".into(), "--regex has `^` or `$` where the text can neither begin nor end"),
        ("--grammar", file("g", "start: x"), "line 1, column 8: unknown name: \"x\""),
        ("--grammar", file("l", "start: \"a"), "line 1, column 10: what comes here is not Lark"),
        ("--grammar", file("m", "root ::= \"a\""), "(Lark has `name: ...` for `name ::= ...`)"),
        ("--grammar", file("n", "start: /(?=x)b/"), "invalid regex \"(?=x)b\" (in regex): look-around"),
        ("--grammar", file("o", "start: <|endoftext|>"), "has a special token (<|...|>), and those are no text"),
        ("--grammar", file("p", "start[temperature=0.5]: /a+/"), "use --temperature"),
        (
            "--grammar",
            file("q", &format!("start: {}\"a\"{}", "(".repeat(201), ")".repeat(201))),
            "nested too deeply: 201",
        ),
        ("--choices", "a<|endoftext|>".into(), "--choices has \"<|endoftext|>\", a special token, which is no text"),
        ("--choices", "x".repeat(5000), "--choices has a text that takes 626 tokens with the prompt"),
        ("--grammar", file("h", ""), "--grammar is empty"),
    ];
    for (flag, value, fault) in &cases {
        let failed = demo(&["--prompt", "A", flag, value]).fails(2, &[]);
        assert!(failed.stderr().contains(fault), "{flag} {value}: {}", failed.stderr());
        assert!(failed.stderr().starts_with(&format!("error: {flag}")), "{}", failed.stderr());
        assert_eq!(failed.stderr().lines().count(), 1, "{}", failed.stderr());
        assert_eq!(failed.stdout(), "", "{flag} {value}");
    }
    let both = demo(&["--prompt", "A", "--regex", "a", "--choices", "b"]).fails(2, &[]);
    assert_eq!(both.stderr(), "error: --choices cannot be combined with --regex: leave one of them out\n");
    let model = tiny("base").to_string_lossy().into_owned();
    let without = gpt2(&["generate", "-m", &model, "--ids", "1 2", "--regex", "a"]).fails(2, &[]);
    assert!(without.stderr().contains("--regex needs a tokenizer"), "{}", without.stderr());
    // In a row it is an error of the row.
    let rows = "{\"prompt\": \"A\", \"regex\": \"(\"}\n{\"prompt\": \"A\", \"regex\": \"b\", \"choices\": [\"a\"]}\n";
    let rows =
        [rows, "{\"prompt\": \"A\", \"choices\": []}\n", "{\"prompt\": \"A\", \"json_schema\": \"[1\"}\n"].concat();
    let records = demo(&["--input", "-", "--ordered"]).stdin(rows).fails(3, &[]).json_lines();
    assert_eq!(records[2]["error"], "`choices` is [], an empty list; give at least one, or leave it out");
    assert_eq!(records[3]["error"], "`json_schema` is \"[1\", not JSON: it breaks off at column 2");
    assert_eq!(records[0]["error"], "`regex` is not a regular expression: unclosed group (at byte 0)");
    assert_eq!(records[1]["error"], "`choices` cannot be combined with `regex`: leave one of them out");
    assert!(records.iter().all(|record| record["error_kind"] == "usage"));
}

/// A rule that needs itself whatever is chosen: its texts would never be complete.
#[test]
fn a_rule_that_never_ends_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for (grammar, fault) in [
        ("start: start \"a\"", "has a rule that never ends: \"start\" always needs \"start\" again"),
        ("start: start", "has a rule that never ends: \"start\" always needs \"start\" again"),
        ("start: \"b\" start", "has a rule that never ends: \"start\" always needs \"start\" again"),
        ("start: \"b\" x\nx: x \"c\"", "has a rule that never ends: \"x\" always needs \"x\" again"),
        ("start: \"z\" | tail\ntail: \"x\" tail | tail tail", "has a rule that never ends: \"tail\" always needs"),
        ("start: a+\na: \"x\" b\nb: \"y\" c | \"z\" c\nc: \"u\" b | b c", "never end"),
    ] {
        let file = folder.path().join("g.lark");
        fs::write(&file, grammar).unwrap();
        let failed = demo(&["--prompt", "A", "--grammar", file.to_str().unwrap()]).fails(2, &[]);
        assert!(
            failed.stderr().starts_with("error: --grammar has ") && failed.stderr().contains(fault),
            "{grammar}: {}",
            failed.stderr()
        );
        assert_eq!((failed.stderr().lines().count(), failed.stdout()), (1, String::new()));
    }
}

/// Brackets of texts, expressions and remarks are not nested.
#[test]
fn a_long_grammar_may_name_many_brackets() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("g.lark");
    let open: String = (0..300).map(|i| format!("R{i}: \"(\" | /[(\\/]/ // ((\n")).collect();
    fs::write(&file, format!("{open}# (((\nstart: R0 R1\n")).unwrap();
    let found = demo(&["--prompt", "A", "--grammar", file.to_str().unwrap(), "--completion-only"]).succeeds().stdout();
    assert_eq!(found.trim_end().len(), 2, "{found}");
}

/// With --no-special, the text of a special token is a text like any other, and its probability that of its letters.
#[test]
fn a_choice_may_be_the_letters_of_a_special_token() {
    let flags = ["--prompt", "A", "--no-special", "--choices", "<|endoftext|>", "--format", "json"];
    let found = demo(&flags).succeeds().json();
    assert_eq!(found["sequences"][0]["text"], "<|endoftext|>");
    let score =
        ["score", "-m", "demo", "--context", "A", "--no-special", "--candidate", "<|endoftext|>", "--format", "json"];
    let score = gpt2(&score).succeeds().json();
    assert_eq!(found["choices"][0]["logprob"], score["candidates"][0]["sum_logprob"]);
    let row = json!({"prompt": "A", "choices": ["b", "<|endoftext|>"]});
    let record = demo(&["--input", "-"]).stdin(format!("{row}\n")).fails(3, &[]).json_lines().remove(0);
    assert!(
        record["error"].as_str().unwrap().starts_with("`choices` has \"<|endoftext|>\", a special token"),
        "{record}"
    );
}
