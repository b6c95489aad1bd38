//! Constraints: a regular expression, choices, JSON of a schema, a grammar.

use std::fs;

use serde_json::{Value, json};

use crate::harness::gpt2;

const DEMO: [&str; 3] = ["generate", "-m", "demo"];

fn demo(more: &[&str]) -> crate::harness::Run {
    gpt2(&[&DEMO, more].concat())
}

fn text(record: &Value, sequence: usize) -> String {
    record["sequences"][sequence]["text"].as_str().unwrap().to_owned()
}

#[test]
fn the_completion_matches_and_ends_where_nothing_can_follow() {
    let found = demo(&["--prompt", "Once upon a time", "--regex", r" there was a (cat|dog)\.", "--format", "json"]);
    let found = found.succeeds().json();
    assert!([" there was a cat.", " there was a dog."].contains(&&*text(&found, 0)), "{found}");
    assert_eq!(found["sequences"][0]["finish_reason"], "stop");
    let regex = regex::Regex::new(r"^ [1-9][0-9]{2,4}(, [0-9]+){0,2}\.$").unwrap();
    for more in [
        &["--sample", "--seed", "1", "--num-return-sequences", "5"][..],
        &["--temperature", "2", "--top-k", "2", "--seed", "4"],
        &["--num-beams", "3", "--num-return-sequences", "3"],
        &["--num-beams", "4", "--num-beam-groups", "2", "--diversity-penalty", "1"],
        &["--penalty-alpha", "0.6", "--top-k", "4"],
        &["--prompt-lookup", "3"],
        &["--assistant-model", "demo"],
        &["--guidance-scale", "1.5"],
    ] {
        let base = ["--prompt", "The number is", "--regex", r" [1-9][0-9]{2,4}(, [0-9]+){0,2}\.", "--format", "json"];
        let found = demo(&[&base, more].concat()).succeeds().json();
        for (i, sequence) in found["sequences"].as_array().unwrap().iter().enumerate() {
            assert!(regex.is_match(&text(&found, i)) && sequence["finish_reason"] == "stop", "{more:?}: {sequence}");
        }
    }
    // Tokens that are half a character.
    let emoji = demo(&["--prompt", "Once", "--regex", "[😀-😎]{3}é", "--completion-only"]).succeeds().stdout();
    assert!(emoji.chars().count() == 5 && emoji.ends_with("é\n"), "{emoji:?}");
    // Ids alone are enough for the prompt.
    let ids = demo(&["--ids", "464 4583", "--regex", "[0-9]", "--format", "json"]).succeeds().json();
    assert_eq!(text(&ids, 0).len(), 1);
}

#[test]
fn what_breaks_off_is_said() {
    let base = ["--prompt", "Once", "--regex", "[a-z ]{200}", "-n", "5"];
    let done = demo(&base).succeeds();
    let warning = "warning: the text is not complete: the constraint asks for more; raise --max-new-tokens\n";
    assert_eq!(done.stderr(), warning);
    let found = demo(&[&base[..], &["--format", "json"]].concat()).succeeds();
    assert_eq!(found.json()["sequences"][0]["finish_reason"], "length");
    assert_eq!(found.stderr(), warning);
    // Complete at any length.
    assert_eq!(demo(&["--prompt", "Once", "--regex", "[a-z ]*", "-n", "5"]).succeeds().stderr(), "");
    let rows = "{\"prompt\": \"Once\"}\n".repeat(3);
    let done = demo(&["--input", "-", "--regex", "[a-z ]{200}", "-n", "5"]).stdin(rows).succeeds();
    assert!(done.stderr().contains("warning: the texts of 3 rows are not complete"), "{}", done.stderr());
}

/// The advice is about what ended the text.
#[test]
fn what_ended_the_text_is_named() {
    let base = ["--ids", "7454", "--regex", "[a-z ]{9000}", "--completion-only"];
    let stderr = |more: &[&str]| demo(&[&base, more].concat()).succeeds().stderr();
    let unfinished = "warning: the text is not complete: the constraint asks for more";
    assert_eq!(stderr(&["--max-length", "5"]), format!("{unfinished}; raise --max-length\n"));
    assert_eq!(stderr(&["--max-time", "0"]), format!("{unfinished}; raise --max-new-tokens or --max-time\n"));
    let full = stderr(&["-n", "600"]);
    let lines: Vec<&str> = full.lines().collect();
    assert!(lines.len() == 2 && lines[0].contains("at the full context of 512 tokens"), "{full}");
    assert_eq!(lines[1], unfinished, "more tokens would not help");
}

#[test]
fn white_space_alone_is_an_expression() {
    assert_eq!(demo(&["--prompt", "Once", "--regex", " ", "--completion-only"]).succeeds().stdout(), " \n");
    let topk = ["topk", "-m", "demo", "--prompt", "Once", "-k", "3", "--regex", "\n"];
    let shown = gpt2(&topk).succeeds().stdout();
    assert!(shown.contains("\nafter --regex '\\n': renormalised over 1 token\n"), "{shown}");
}

/// A parser of Earley's kind, as Lark's: directly, mutually, behind a rule that may be empty.
#[test]
fn left_recursion_that_ends_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    for (grammar, language) in [
        ("start: start \"a\" | \"b\"", "^ba*$"),
        ("start: x\nx: y \"x\" | \"s\"\ny: x \"y\"", "^s(yx)*$"),
        ("start: empty start \"a\" | \"b\"\nempty: \"\" | \"c\"", "^c*ba*$"),
        ("start: start start | \"b\"", "^b+$"),
        ("start: empty start | \"b\"\nempty:", "^b$"),
    ] {
        let file = folder.path().join("g.lark");
        fs::write(&file, grammar).unwrap();
        let whole = regex::Regex::new(language).unwrap();
        let sample = ["--sample", "--seed", "1", "--num-return-sequences", "20", "-n", "9", "--format", "json"];
        let found = demo(&[&["--prompt", "A", "--grammar", file.to_str().unwrap()], &sample[..]].concat());
        let found = found.succeeds().json();
        for (i, sequence) in found["sequences"].as_array().unwrap().iter().enumerate() {
            let text = text(&found, i);
            assert!(sequence["finish_reason"] == "length" || whole.is_match(&text), "{grammar}: {text}");
        }
    }
}

#[test]
fn choices_have_the_probabilities_of_candidates() {
    let choices = [" time", " house", " time ago"];
    let flags = |flag: &'static str| choices.iter().flat_map(move |choice| [flag, *choice]);
    let base = ["--prompt", "Once upon a"];
    let all: Vec<&str> = base.into_iter().chain(flags("--choices")).chain(["--format", "json"]).collect();
    let found = demo(&all).succeeds().json();
    assert!(choices.contains(&&*text(&found, 0)), "one of which begins another");
    let score = ["score", "-m", "demo", "--context", "Once upon a", "--format", "json"];
    let scores = gpt2(&score.into_iter().chain(flags("--candidate")).collect::<Vec<_>>()).succeeds().json();
    for (i, choice) in choices.iter().enumerate() {
        let (ours, theirs) = (&found["choices"][i], &scores["candidates"][i]["sum_logprob"]);
        assert_eq!((&ours["text"], &ours["logprob"]), (&json!(choice), theirs));
        assert!((ours["prob"].as_f64().unwrap() - theirs.as_f64().unwrap().exp()).abs() < 1e-12);
    }
    let shown: Vec<&str> = base.into_iter().chain(flags("--choices")).collect();
    let shown = demo(&shown).succeeds().stdout();
    let lines: Vec<Vec<&str>> = shown.lines().skip(1).map(|line| line.splitn(2, '"').collect()).collect();
    assert_eq!(lines.len(), 3, "{shown}");
    for ((line, choice), score) in lines.iter().zip(choices).zip(scores["candidates"].as_array().unwrap()) {
        assert_eq!(line[1], format!("{choice}\""));
        let (columns, logprob) = (line[0].split_whitespace(), score["sum_logprob"].as_f64().unwrap());
        let columns: Vec<&str> = columns.collect();
        assert_eq!(columns, [format!("{:.3}%", logprob.exp() * 100.0), format!("{logprob:.4}")]);
    }
    // There are fewer texts than beams only if there are fewer tokens.
    let beams = ["--num-beams", "3", "--num-return-sequences", "3", "--length-penalty", "0"];
    let found = demo(&[&all[..], &beams].concat()).succeeds().json();
    let texts: Vec<String> = (0..found["sequences"].as_array().unwrap().len()).map(|i| text(&found, i)).collect();
    assert!(texts.len() == 3 && texts.iter().all(|text| choices.contains(&&**text)), "{texts:?}");
}

#[test]
fn topk_says_how_much_was_removed() {
    let topk = |more: &[&str]| {
        let base = ["topk", "-m", "demo", "--prompt", "Once upon a", "-k", "50257", "--format", "json"];
        gpt2(&[&base, more].concat()).succeeds().json()["positions"][0].clone()
    };
    let (plain, found) = (topk(&[]), topk(&["--regex", " [a-h].*"]));
    let token = |next: &Value| next["token"].as_str().unwrap().to_owned();
    let starts = |token: &str| token == " " || (token.starts_with(' ') && matches!(token.as_bytes()[1], b'a'..=b'h'));
    let allowed = |token: &str| starts(token) && !token.contains('\n');
    let all = plain["next"].as_array().unwrap();
    let left: f64 = all.iter().filter(|next| allowed(&token(next))).map(|next| next["prob"].as_f64().unwrap()).sum();
    assert!((found["removed"].as_f64().unwrap() - (1.0 - left)).abs() < 1e-6, "{} {left}", found["removed"]);
    for next in found["next"].as_array().unwrap().iter().take(50) {
        assert!(allowed(&token(next)), "{next}");
        let own = all.iter().find(|own| own["id"] == next["id"]).unwrap()["prob"].as_f64().unwrap();
        assert!((next["prob"].as_f64().unwrap() - own / left).abs() < 1e-6);
    }
    assert!(plain.get("removed").is_none());
    // What is not allowed takes no place among the best.
    assert_eq!(topk(&["--regex", " [a-h].*", "--top-k", "5"])["next"].as_array().unwrap().len(), 5);
}

#[test]
fn rows_and_files_say_what_flags_say() {
    let folder = tempfile::tempdir().unwrap();
    let (schema, grammar) = (folder.path().join("s.json"), folder.path().join("g.lark"));
    let content = json!({"type": "object", "properties": {"name": {"enum": ["Tom", "Ann"]}, "age": {"type": "integer",
        "minimum": 10, "maximum": 99}}, "required": ["name", "age"], "additionalProperties": false, "x-guidance": {"whitespace_flexible": false}});
    fs::write(&schema, content.to_string()).unwrap();
    fs::write(&grammar, "start: \" a\" (\" cat\" | \" dog\")+ end\nend: \".\" | \"!\"\n").unwrap();
    let (schema, grammar) = (schema.to_str().unwrap(), grammar.to_str().unwrap());
    let rows = [
        json!({"prompt": "A", "json_schema": content}),
        json!({"prompt": "A", "json_schema": content.to_string()}),
        json!({"prompt": "A", "json_schema": schema}),
        json!({"prompt": "A", "grammar": fs::read_to_string(grammar).unwrap()}),
        json!({"prompt": "A", "grammar": grammar}),
        json!({"prompt": "A", "regex": " [0-9]{3}"}),
        json!({"prompt": "A", "choices": [" x", " y"]}),
        json!({"prompt": "A"}),
    ];
    let rows: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let done = demo(&["--input", "-", "--ordered", "--regex", " b{3}", "--top-k", "5", "--seed", "2"]).stdin(&rows);
    let records = done.succeeds().json_lines();
    let value: Value = serde_json::from_str(&text(&records[0], 0)).unwrap();
    assert!(["Tom", "Ann"].contains(&value["name"].as_str().unwrap()) && value["age"].is_u64());
    assert_eq!((text(&records[1], 0), text(&records[2], 0)), (text(&records[0], 0), text(&records[0], 0)));
    assert_eq!(text(&records[3], 0), text(&records[4], 0));
    assert!(text(&records[3], 0).starts_with(" a "));
    assert!(text(&records[5], 0)[1..].parse::<u16>().is_ok());
    assert_eq!(records[6]["choices"].as_array().unwrap().len(), 2);
    assert_eq!(text(&records[7], 0), " bbb", "that of all rows");
    // A row is the same alone, and in a batch.
    let alone =
        demo(&["--input", "-", "--ordered", "--regex", " b{3}", "--top-k", "5", "--seed", "2", "--batch-size", "1"]);
    let alone = alone.stdin(&rows).succeeds().json_lines();
    assert!(alone.iter().zip(&records).all(|(a, b)| a["sequences"] == b["sequences"]));
    for (flag, file, row) in [("--json-schema", schema, 0), ("--grammar", grammar, 3)] {
        let found = demo(&["--prompt", "A", flag, file, "--top-k", "5", "--seed", "2", "--format", "json"]);
        assert_eq!(text(&found.succeeds().json(), 0), text(&records[row], 0));
    }
}

#[test]
fn samples_of_a_schema_all_parse() {
    let schema = json!({"type": "object", "properties": {
        "name": {"type": "string", "maxLength": 12}, "tags": {"type": "array", "items": {"type": "string", "maxLength": 5},
        "maxItems": 2}, "size": {"type": "integer", "minimum": -99, "maximum": 99}, "is": {"anyOf": [{"type": "boolean"}, {"type": "null"}]}},
        "required": ["name", "tags", "is"], "additionalProperties": false, "x-guidance": {"whitespace_flexible": false}});
    let row = json!({"prompt": "A box: ", "json_schema": schema, "num_return_sequences": 300});
    let run = demo(&["--input", "-", "--sample", "--temperature", "1.5", "--seed", "7", "-n", "300"]);
    let record = run.stdin(format!("{row}\n")).succeeds().json_lines().remove(0);
    let mut whole = 0;
    for sequence in record["sequences"].as_array().unwrap() {
        if sequence["finish_reason"] == "length" {
            continue;
        }
        let value: Value = serde_json::from_str(sequence["text"].as_str().unwrap()).unwrap();
        assert!(value["name"].as_str().unwrap().chars().count() <= 12 && value["tags"].as_array().unwrap().len() <= 2);
        assert!(value["is"].is_null() || value["is"].is_boolean());
        whole += 1;
    }
    assert!(whole > 250, "{whole} of 300");
}

#[test]
fn a_session_sets_one_constraint_after_another() {
    let folder = tempfile::tempdir().unwrap();
    let (schema, grammar) = (folder.path().join("s.json"), folder.path().join("g.lark"));
    fs::write(&schema, "{\"const\": 7}").unwrap();
    fs::write(&grammar, "start: \" cat\"").unwrap();
    let (schema, grammar) = (schema.display(), grammar.display());
    let input = format!(
        "A\n/set regex [0-9]{{3}}\nA\n/set json_schema {schema}\nA\n/set json-schema nowhere.json\n/set grammar {grammar}\nA\n\
         /set grammar default\n/set regex (\nA\n"
    );
    let done = demo(&["--interactive", "--choices", " x", "-n", "4"]).stdin(input).succeeds();
    let (shown, said) = (done.stdout(), done.stderr());
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!((lines[0], lines[3], lines[4]), ("A x", "A7", "A cat"), "{shown}");
    assert!(lines[2][1..].parse::<u16>().is_ok_and(|n| n < 1000), "{shown}");
    assert!(said.contains("json-schema nowhere.json: cannot be read"), "{said}");
    assert!(said.contains("regex is not a regular expression"), "{said}");
}
