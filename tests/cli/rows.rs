//! What rows have in common in every subcommand that takes them: keys, ids, errors, and `--resume`.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::harness::{Done, gpt2, tiny};

/// The subcommands with rows, and how little work they can do.
const SUBCOMMANDS: [&[&str]; 5] = [&["generate", "-n", "1"], &["score"], &["topk"], &["trace"], &["tokenize"]];

/// The ids of a record's text, whatever the subcommand.
fn ids(record: &Value) -> Value {
    match record["tokens"].as_array() {
        Some(tokens) if tokens[0].is_object() => tokens.iter().map(|token| token["id"].clone()).collect(),
        _ => record.get("prompt_ids").unwrap_or(&record["ids"]).clone(),
    }
}

fn run(subcommand: &[&str], more: &[&str], rows: impl AsRef<[u8]>) -> crate::harness::Run {
    gpt2(&[subcommand, &["-m", "demo", "--input", "-"], more].concat()).stdin(rows)
}

/// A folder with an input and an output.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new(input: &str) -> Self {
        let files = Self { folder: tempfile::tempdir().unwrap() };
        files.write("in.jsonl", input);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn read(&self) -> String {
        std::fs::read_to_string(self.path("out.jsonl")).unwrap()
    }

    fn records(&self) -> Vec<Value> {
        self.read().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn run(&self, more: &[&str]) -> crate::harness::Run {
        let (input, output) = (self.path("in.jsonl"), self.path("out.jsonl"));
        let base = ["--input", input.to_str().unwrap(), "--output", output.to_str().unwrap()];
        let model: &[&str] = if more.contains(&"-m") { &[] } else { &["-m", "demo"] };
        gpt2(&[&more[..1], model, &base[..], &more[1..]].concat())
    }
}

#[test]
fn ids_and_other_keys_come_back_as_written() {
    let rows = concat!(
        r#"{"id": 12345678901234567890123, "prompt": "Once", "score": 1.50, "meta": {"z": [1e400, "é"], "a": null}}"#,
        "\n",
        r#"{"text": "Once", "label": -0.0}"#,
        "\n",
        r#"{"id": {"b": 1.0}, "prompt": 5, "label": 3}"#,
        "\n",
    );
    for subcommand in SUBCOMMANDS {
        let done = run(subcommand, &[], rows).fails(3, &["1 row failed"]);
        let out = done.stdout();
        for start in [
            concat!(
                r#"{"id":12345678901234567890123,"line":1,"file":null,"ok":true,"error":null,"error_kind":null,"row":null,"#,
                r#""input":{"score":1.50,"meta":{"z": [1e400, "é"], "a": null}},"#
            ),
            concat!(
                r#"{"id":null,"line":2,"file":null,"ok":true,"error":null,"error_kind":null,"row":null,"#,
                r#""input":{"label":-0.0},"#
            ),
            concat!(
                r#"{"id":{"b": 1.0},"line":3,"file":null,"ok":false,"error":"`prompt` is 5; it takes a text","#,
                r#""error_kind":"usage","row":null,"input":{"label":3},"#
            ),
        ] {
            assert!(out.lines().any(|line| line.starts_with(start)), "{start} is not in\n{out}");
        }
        let kept = run(subcommand, &["--keep", "score,none"], rows).fails(3, &[]).stdout();
        assert!(kept.contains(r#""input":{"score":1.50},"#) && kept.contains(r#""input":null,"#), "{kept}");
        let strict = run(subcommand, &["--strict"], rows).fails(3, &["3 rows failed"]).stdout();
        assert!(strict.contains(r#"\"score\" means nothing here"#), "{strict}");
    }
    let single = gpt2(&["score", "-m", "demo", "Once upon", "--format", "json"]).succeeds().json();
    assert!(["id", "line", "ok", "input"].iter().all(|key| single.get(key).is_none()), "{single}");
}

/// Prompt and text, ids and prompt ids are the same everywhere.
#[test]
fn the_prompt_has_the_same_names_in_every_subcommand() {
    for subcommand in SUBCOMMANDS {
        let rows = ["prompt", "text", "ids", "prompt_ids"].map(|key| {
            let value = if key.ends_with("ids") { json!([7454, 2402]) } else { json!("Once upon") };
            format!("{}\n", json!({"id": key, key: value}))
        });
        for row in run(subcommand, &[], rows.concat()).succeeds().json_lines() {
            assert_eq!(ids(&row), json!([7454, 2402]), "{row}");
        }
    }
}

#[test]
fn errors_name_the_key_in_plain_words() {
    for (row, error) in [
        (r#"{"id": 1, "prompt": "x", "temperature": "hot"}"#, "`temperature` is \"hot\", not a number"),
        (r#"{"id": 1, "prompt": "x", "temprature": 1}"#, "\"temprature\" is nearly `temperature`"),
        (r#"{"id": 1, "prompt": "x", "maxNewTokens": 1}"#, "\"maxNewTokens\" is nearly `max_new_tokens`"),
        (r#"{"id": 1, "prompt": "x", "seeds": 1}"#, "\"seeds\" is nearly `seed`"),
        (r#"{"id": 1, "prompt": "x", "top_ps": 1}"#, "\"top_ps\" is nearly `top_p`"),
        (r#"{"id": 1, "prompt": "x", "stop_sequences": ["a"]}"#, "\"stop_sequences\" is another name of `stop`"),
        (
            r#"{"id": 1, "prompt": "x", "max_new_tokens": 1.5}"#,
            "`max_new_tokens` is 1.5, not a whole number of 0 or more",
        ),
        (r#"{"id": 1, "prompt": "x", "num_beams": -1e0}"#, "`num_beams` is -1e0, not a whole number"),
        (r#"{"id": 1, "prompt": "x", "seed": 18446744073709551616}"#, "`seed` is 18446744073709551616, too large"),
        (r#"{"id": 1, "prompt": "x", "max_tokens": 2}"#, "\"max_tokens\" is another name of `max_new_tokens`"),
        (r#"{"id": 1, "prompt": "x", "eos_token_id": "x"}"#, "`eos_token_id` is \"x\", neither a token id nor a list"),
        (r#"{"id": 1, "prompt_ids": [1, -1]}"#, "`prompt_ids` has -1; token ids are whole numbers"),
        (
            r#"{"id": 1, "prompt": "x", "temperature": 1e39}"#,
            "`temperature` takes a number from 1e-30 to 3.4e38, not 1e39",
        ),
        (r#"{"id": 1}"#, "the row has no text (`prompt` or `text`) and no token ids (`prompt_ids` or `ids`)"),
    ] {
        let rows = format!("{{\"prompt\": \"Once\"}}\n{row}\n");
        let done = run(SUBCOMMANDS[0], &[], rows).fails(3, &["1 row failed"]).json_lines();
        let record = done.iter().find(|row| row["line"] == 2).unwrap();
        let found = record["error"].as_str().unwrap();
        assert!(record["id"] == 1 && found.starts_with(error), "{found}");
        for word in ["invalid type", "expected", "untagged", "serde"] {
            assert!(!found.contains(word), "{found}");
        }
    }
    for (line, error) in
        [("[1]", "line 2 is an array, not an object"), ("{\"id\": 1", "line 2 is not JSON: it breaks off")]
    {
        for subcommand in SUBCOMMANDS {
            let rows = format!("{{\"prompt\": \"Once upon\"}}\n{line}\n");
            let done = run(subcommand, &[], rows).fails(3, &["1 row failed"]).json_lines();
            let record = done.iter().find(|row| row["line"] == 2).unwrap();
            assert!(record["id"].is_null() && record["error"].as_str().unwrap().starts_with(error), "{record}");
        }
    }
}

/// transformers' own names are parameters, whatever ours are; what we do not have is no key to carry along in silence.
#[test]
fn rows_take_the_names_of_transformers() {
    let folder = tiny("base").display().to_string();
    let row = |more: &str| format!("{{\"id\": 1, \"ids\": [161, 176, 26, 125, 16], \"max_new_tokens\": 3{more}}}\n");
    let batch = ["generate", "-m", &folder, "--input", "-", "--temperature", "3", "--seed", "1"];
    let done = gpt2(&batch).stdin(row(", \"do_sample\": false")).succeeds().json_lines();
    assert_eq!(done[0]["sequences"][0]["ids"], json!([33, 33, 33]), "greedy, as transformers is");
    let greedy = ["generate", "-m", &folder, "--input", "-", "-n", "9"];
    let ids = |more: &str| {
        let row = format!("{{\"ids\": [161, 176, 26, 125, 16]{more}}}\n");
        gpt2(&greedy).stdin(row).succeeds().json_lines()[0]["sequences"][0]["ids"].clone()
    };
    // transformers' `generate(eos_token_id=...)`.
    assert_eq!(ids(", \"eos_token_id\": 39"), json!([33, 33, 33, 33, 33, 33, 39]));
    assert_eq!(ids(", \"eos_token_id\": [180, -7]"), json!([33, 33, 33, 33, 33, 33, 39, 180]));
    let all = json!([33, 33, 33, 33, 33, 33, 39, 180, 39]);
    // Null is a value that is not set: the flag's counts.
    assert_eq!(ids(", \"eos_token_id\": null, \"max_new_tokens\": null"), all);
    assert_eq!(ids(", \"max_new_tokens\": 2.0, \"num_beams\": 1.0"), json!([33, 33]));
    let done = gpt2(&batch).stdin(row(", \"dola_layers\": \"low\"")).fails(3, &[]).json_lines();
    assert!(done[0]["error"].as_str().unwrap().starts_with("`dola_layers` is a parameter of transformers"), "{done:?}");
}

#[test]
fn a_file_of_another_kind_is_one_error() {
    for (text, words) in [
        ("[{\"prompt\": \"a\"},\n {\"prompt\": \"b\"}]\n", &["is one JSON array", "jq -c '.[]'"][..]),
        ("[\n  {\"prompt\": \"a\"}\n]\n", &["is one JSON array"]),
        ("{\n  \"prompt\": \"a\"\n}\n", &["an object on several lines", "jq -c ."]),
        ("id,prompt\n1,Once\n", &["is a table (CSV)"]),
    ] {
        for subcommand in SUBCOMMANDS {
            let files = Files::new(text);
            files.write("out.jsonl", "precious\n");
            let done = files.run(subcommand).fails(2, &[words, &["in.jsonl"]].concat());
            assert_eq!((done.stderr().lines().count(), files.read().as_str()), (1, "precious\n"), "{}", done.stderr());
            let done = run(subcommand, &[], text).fails(2, &[words, &["stdin"]].concat());
            assert_eq!((done.stderr().lines().count(), done.stdout().as_str()), (1, ""));
        }
    }
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_row() {
    for subcommand in SUBCOMMANDS {
        let row = "\u{feff}{\"id\": 1, \"prompt\": \"Once upon\"}\r\n{\"id\": 2, \"prompt\": \"Once upon\"}\r\n";
        assert_eq!(run(subcommand, &[], row).succeeds().json_lines().len(), 2);
    }
}

#[test]
fn repeated_ids_are_refused_before_anything_runs() {
    let rows = "{\"id\": 7, \"prompt\": \"a b\"}\n\n{\"id\": 8, \"prompt\": \"b\"}\n{\"prompt\": \"c\", \"id\": 7}\n";
    for subcommand in SUBCOMMANDS {
        let files = Files::new(rows);
        files.write("out.jsonl", "precious\n");
        files.run(subcommand).fails(2, &["in.jsonl", "lines 1 and 4 have the same id, 7"]);
        assert_eq!(files.read(), "precious\n");
        // A stream is answered before its end is known.
        let done = run(subcommand, &[], rows.replace("\"b\"", "\"b c\"")).fails(3, &["1 row failed"]).json_lines();
        let second = done.iter().find(|row| row["line"] == 4).unwrap();
        assert_eq!(
            (&second["id"], &second["error"]),
            (&json!(7), &json!("the id 7 is that of line 1; ids must differ"))
        );
        assert_eq!(done.len(), 3);
    }
    let files = Files::new("{\"id\": \"a\", \"prompt\": \"x\"}\n{\"id\": \"\\u0061\", \"prompt\": \"y\"}\n");
    files.run(&["generate"]).fails(2, &["same id"]);
    for (one, other) in [("1", "1.0"), (r#"{"a": 1, "b": 2}"#, r#"{"b":2.0,"a":1}"#)] {
        let row = |id: &str| format!("{{\"id\": {id}, \"prompt\": \"x y\"}}\n");
        Files::new(&(row(one) + &row(other))).run(&["generate"]).fails(2, &["same id"]);
        // And a result is found again however the id is written.
        let files = Files::new(&row(one));
        files.run(&["score"]).succeeds();
        let before = files.read();
        files.write("in.jsonl", &row(other));
        files.run(&["score", "--resume"]).succeeds();
        assert_eq!(files.read(), before);
    }
    let numbers = ["12345678901234567890123", "12345678901234567890124"];
    let rows = numbers.map(|id| format!("{{\"id\": {id}, \"prompt\": \"x\"}}\n"));
    Files::new(&rows.concat()).run(&["generate", "-n", "1"]).succeeds();
    // A line's number is no id.
    let files = Files::new("{\"prompt\": \"x\"}\n{\"id\": 1, \"prompt\": \"y\"}\n");
    files.run(&["generate", "-n", "1"]).succeeds();
}

/// The case of a public bug report: a kill after the second of two rows, of which one has the other's line as its id.
#[test]
fn resume_does_each_row_once_whatever_the_ids() {
    let rows = "{\"prompt\": \"Once\"}\n{\"id\": 1, \"prompt\": \"The king\"}\n{\"prompt\": \"He\"}\n";
    for subcommand in SUBCOMMANDS {
        let rows = rows.replace("\"Once\"", "\"Once upon\"").replace("\"He\"", "\"He said\"");
        let files = Files::new(&rows);
        files.run(subcommand).succeeds();
        let whole = files.records();
        for line in [1, 2, 3] {
            let kept = files.read().lines().find(|l| l.contains(&format!("\"line\":{line},"))).unwrap().to_owned();
            files.write("out.jsonl", &format!("{kept}\n{{\"id\":null,\"li"));
            files.run(&[subcommand, &["--resume"]].concat()).succeeds();
            let mut lines: Vec<u64> = files.records().iter().map(|row| row["line"].as_u64().unwrap()).collect();
            lines.sort_unstable();
            assert_eq!(lines, [1, 2, 3]);
            assert!(files.read().starts_with(&kept));
        }
        assert_eq!(files.records().len(), whole.len());
    }
}

/// Results of other rows are not mixed in: what has changed is named, and nothing is touched. New rows are run.
#[test]
fn an_output_made_with_other_rows_is_not_continued() {
    for subcommand in SUBCOMMANDS {
        let files = Files::new("{\"id\": 1, \"prompt\": \"Once upon\"}\n{\"id\": 2, \"prompt\": \"The king\"}\n");
        files.run(subcommand).succeeds();
        let before = files.read();
        files.write("in.jsonl", "{\"id\": 1, \"prompt\": \"Once there\"}\n{\"id\": 2,  \"prompt\": \"The king\"}\n");
        let resume = [subcommand, &["--resume"]].concat();
        files.run(&resume).fails(2, &["out.jsonl was made with other rows: the row 1 has changed since"]);
        assert_eq!(files.read(), before);
        files.write(
            "in.jsonl",
            "{\"id\": 3, \"prompt\": \"A wolf\"}\n{\"id\": 1, \"prompt\": \"Once upon\"}\n{\"id\": 2, \"prompt\": \"The king\"}\n",
        );
        files.run(&resume).succeeds();
        assert!(files.read().starts_with(&before));
        assert_eq!(files.records().iter().map(|row| row["id"].clone()).collect::<Vec<_>>(), [1, 2, 3]);
        // Without ids, a row that is inserted makes others of those below it.
        let files = Files::new("{\"prompt\": \"Once upon\"}\n{\"prompt\": \"The king\"}\n");
        files.run(subcommand).succeeds();
        let before = files.read();
        files.write("in.jsonl", "{\"prompt\": \"A wolf\"}\n{\"prompt\": \"Once upon\"}\n{\"prompt\": \"The king\"}\n");
        files.run(&resume).fails(2, &["out.jsonl was made with other rows: line "]);
        assert_eq!(files.read(), before);
        // On a stream, the change is noticed too late to refuse all.
        let output = files.path("out.jsonl");
        let arguments = [subcommand, &["-m", "demo", "--input", "-", "--resume", "--output", output.to_str().unwrap()]];
        gpt2(&arguments.concat()).stdin("{\"prompt\": \"A wolf\"}\n").fails(3, &["1 row failed"]);
        assert!(files.read().contains("the row has changed since its result was written"), "{}", files.read());
    }
}

#[test]
fn an_output_made_with_other_settings_is_not_continued() {
    let files = Files::new("{\"id\": 1, \"prompt\": \"Once upon\"}\n");
    files.run(&["generate", "-n", "2"]).succeeds();
    let whole = files.read();
    let refused = |arguments: &[&str], words: &[&str]| -> Done {
        let done =
            files.run(&[arguments, &["--resume"]].concat()).fails(2, &[words, &["out.jsonl was made with"]].concat());
        assert_eq!(files.read(), whole, "the output is left alone");
        done
    };
    refused(&["generate", "-n", "3"], &["--max-new-tokens 2 (now 3)"]);
    refused(&["generate", "-n", "2", "--temperature", "0.5"], &["--temperature not set (now 0.5)"]);
    refused(&["generate", "-n", "2", "--bos"], &["--bos false (now true)"]);
    refused(&["generate", "-n", "2", "--quantize", "q8_0"], &["--quantize not set (now \"q8_0\")"]);
    refused(&["generate", "-n", "2", "--keep", "a"], &["--keep"]);
    for other in ["score", "topk", "trace", "tokenize"] {
        refused(&[other], &[&format!("gpt2 generate, not gpt2 {other}")]);
    }
    let base = tiny("base").display().to_string();
    refused(&["generate", "-n", "2", "-m", &base], &["the model demo, not", "base"]);
    // GPT-2's tokenizer without its merges.
    let tokenizer = files.path("tokenizer.json");
    let bytes: serde_json::Map<String, Value> = byte_pieces().into_iter().zip((0..).map(Value::from)).collect();
    let bpe = json!({"model": {"type": "BPE", "vocab": bytes, "merges": []}, "added_tokens": [],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}, "decoder": {"type": "ByteLevel"}});
    std::fs::write(&tokenizer, bpe.to_string()).unwrap();
    let tokenizer = tokenizer.display().to_string();
    refused(&["generate", "-n", "2", "--tokenizer", &tokenizer], &["another tokenizer"]);
    files.run(&["generate", "--resume", "-n", "2", "--batch-size", "3", "--threads", "1"]).succeeds();
    files.run(&["generate", "--resume", "-n", "2", "--tokenizer", "gpt2"]).succeeds();
    assert_eq!(files.read(), whole);

    files.write("out.jsonl", "");
    files.run(&["generate", "--resume", "-n", "3"]).succeeds();
    files.write("out.jsonl.gpt2", "{\"subcommand\":}\n");
    files.run(&["generate", "--resume", "-n", "3"]).fails(2, &["out.jsonl.gpt2", "is damaged"]);
    std::fs::remove_file(files.path("out.jsonl.gpt2")).unwrap();
    files.run(&["generate", "--resume", "-n", "3"]).fails(2, &["out.jsonl.gpt2", "is missing"]);
    assert!(!files.path("out.jsonl.gpt2").exists());
}

/// The pieces of single bytes, in the order of GPT-2's vocabulary.
fn byte_pieces() -> Vec<String> {
    let plain = (33..=126).chain(161..=172).chain(174..=255);
    plain.chain(256..=323).map(|letter| char::from_u32(letter).unwrap().to_string()).collect()
}

/// Another configuration is not called other weights.
#[test]
fn another_configuration_is_named() {
    let files = Files::new("{\"id\": 1, \"ids\": [1, 2]}\n");
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(tiny("base").join(file), files.path(file)).unwrap();
    }
    let model = files.folder.path().display().to_string();
    files.run(&["score", "-m", &model]).succeeds();
    let mut config: Value = serde_json::from_slice(&std::fs::read(files.path("config.json")).unwrap()).unwrap();
    config["layer_norm_epsilon"] = json!(0.5);
    files.write("config.json", &config.to_string());
    files.run(&["score", "-m", &model, "--resume"]).fails(2, &["another configuration of the model"]);
}

/// The seed that a run has drawn is that of its continuation.
#[test]
fn a_drawn_seed_is_kept() {
    let rows: String = (0..4).map(|i| format!("{}\n", json!({"id": i, "prompt": "Once"}))).collect();
    let files = Files::new(&rows);
    files.run(&["generate", "-n", "2", "--sample"]).succeeds();
    let seed = files.records()[0]["seed"].clone();
    let first = files.read().lines().next().unwrap().to_owned();
    files.write("out.jsonl", &format!("{first}\n"));
    files.run(&["generate", "-n", "2", "--sample", "--resume"]).succeeds();
    assert!(files.records().iter().all(|row| row["seed"] == seed), "{:?}", files.records());
}
