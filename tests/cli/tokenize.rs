//! `gpt2 tokenize`.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::harness::{gpt2, id_text, tiny};

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path)
}

fn read(path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixture(path)).unwrap()).unwrap()
}

fn tokenize(arguments: &[&str]) -> crate::harness::Run {
    gpt2(&[&["tokenize"], arguments].concat())
}

fn json_of(arguments: &[&str]) -> Value {
    tokenize(&[&["--format", "json"], arguments].concat()).succeeds().json()
}

/// Every tenth golden; the library's tests cover all of them.
#[test]
fn hostile_texts_give_the_ids_of_transformers_and_round_trip() {
    for case in read("tokenizer/goldens.json")["cases"].as_array().unwrap().iter().step_by(10) {
        let (text, expected) = (case[0].as_str().unwrap(), &case[1]);
        let json = tokenize(&["--format", "json"]).stdin(text).succeeds().json();
        let tokens = json["tokens"].as_array().unwrap();
        assert_eq!(Value::from_iter(tokens.iter().map(|token| token["id"].clone())), *expected, "{text:?}");
        assert_eq!((&json["text"], &json["count"]), (&text.into(), &tokens.len().into()));
        let decoded = tokenize(&["--decode"]).stdin(id_text(expected)).succeeds();
        assert_eq!(decoded.stdout(), text);
    }
}

#[test]
fn published_examples_are_reproduced() {
    for case in read("real_gpt2.json")["tokenizer"].as_array().unwrap() {
        let mut arguments = vec![case["text"].as_str().unwrap()];
        arguments.extend((case["bos"] == true).then_some("--bos"));
        let json = json_of(&arguments);
        for key in ["id", "piece"] {
            let found = Value::from_iter(json["tokens"].as_array().unwrap().iter().map(|token| token[key].clone()));
            assert!(case.get(format!("{key}s")).is_none_or(|expected| *expected == found), "{case} {found}");
        }
    }
}

#[test]
fn the_json_has_the_keys_of_the_contract() {
    let bird = json_of(&["é 🙂"]);
    let token = |position: u32, id: u32, piece: &str, text: &str, start: u32, end: u32| json!({"position": position, "id": id, "piece": piece, "text": text, "start": start, "end": end});
    let tokens = [token(0, 2634, "Ã©", "é", 0, 2), token(1, 32485, "ĠðŁĻĤ", " 🙂", 2, 7)];
    assert_eq!(bird, json!({"text": "é 🙂", "count": 2, "tokens": tokens}));
    let incomplete = json_of(&["漢"]);
    let tokens = [
        token(0, 162, "æ", "\u{fffd}", 0, 1),
        token(1, 120, "¼", "\u{fffd}", 1, 2),
        token(2, 95, "¢", "\u{fffd}", 2, 3),
    ];
    assert_eq!(incomplete["tokens"], json!(tokens));
    let lines = tokenize(&["--format", "jsonl", "é 🙂"]).succeeds().json_lines();
    assert_eq!(lines, [bird]);
    assert_eq!(json_of(&[""]), json!({"text": "", "count": 0, "tokens": []}));
}

#[test]
fn the_table_has_position_id_piece_text_and_bytes() {
    let table = tokenize(&["The theory\n漢"]).succeeds().stdout();
    let rows: Vec<Vec<&str>> =
        table.lines().map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()).collect();
    assert_eq!(rows[0], ["position", "id", "piece", "text", "bytes"]);
    assert_eq!(rows[1], ["0", "464", "The", "\"The\"", "0..3"]);
    assert_eq!(rows[2], ["1", "4583", "Ġtheory", "\" theory\"", "3..10"]);
    assert_eq!(rows[3], ["2", "198", "Ċ", "\"\\n\"", "10..11"]);
    assert_eq!(rows[4], ["3", "162", "æ", "\"漢\" 1/3", "11..12"]);
    assert!(!table.contains('\u{1b}'), "no colour on a pipe");
}

#[test]
fn ids_are_one_line_and_count_is_a_number() {
    assert_eq!(tokenize(&["--format", "ids", "The theory"]).succeeds().stdout(), "464 4583\n");
    assert_eq!(tokenize(&["--format", "ids"]).stdin("").succeeds().stdout(), "\n");
    assert_eq!(tokenize(&["--count", "--prompt", "The theory"]).succeeds().stdout(), "2\n");
}

#[test]
fn text_is_read_from_every_source() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("text");
    std::fs::write(&file, "a\r\nb ").unwrap();
    let expected = json_of(&["a\r\nb "]);
    assert_eq!(expected["text"], "a\r\nb ");
    assert_eq!(json_of(&["--file", file.to_str().unwrap()]), expected);
    assert_eq!(json_of(&["-p", "a\r\nb "]), expected);
    assert_eq!(tokenize(&["--format", "json"]).stdin("a\r\nb ").succeeds().json(), expected);
    assert_eq!(json_of(&["--ids", "64 201 198,65\n220"]), expected);
}

#[test]
fn decoding_is_byte_exact() {
    let decoded = |ids: &str| tokenize(&["--decode", ids]).succeeds().output.stdout;
    assert_eq!(decoded("464 4583 50256"), b"The theory<|endoftext|>");
    assert_eq!(decoded("188"), b"\0");
    // ESC [ 3 1 m is text here, not a colour; half a character is printed as is.
    assert_eq!(decoded("215 58 3132 76 162 120"), b"\x1b[31m\xe6\xbc");
    assert_eq!(decoded(""), b"");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ids");
    std::fs::write(&file, "464\n4583\n").unwrap();
    assert_eq!(tokenize(&["--decode", "--file", file.to_str().unwrap()]).succeeds().stdout(), "The theory");
    assert_eq!(tokenize(&["--decode", "464", "--format", "json"]).succeeds().json(), json_of(&["The"]));
}

#[test]
fn special_tokens_can_be_added_and_turned_off() {
    let ids = |arguments: &[&str]| tokenize(&[&["--format", "ids"], arguments].concat()).succeeds().stdout();
    assert_eq!(ids(&["a<|endoftext|>"]), "64 50256\n");
    assert_eq!(ids(&["a<|endoftext|>", "--no-special"]), "64 27 91 437 1659 5239 91 29\n");
    assert_eq!(ids(&["a", "--bos"]), "50256 64\n");
    let first = &json_of(&["a", "--bos"])["tokens"][0];
    assert_eq!((&first["piece"], &first["start"], &first["end"]), (&"<|endoftext|>".into(), &0.into(), &0.into()));
}

#[test]
fn the_vocabulary_is_listed_by_id() {
    let all = tokenize(&["--vocab", "--format", "jsonl"]).succeeds().json_lines();
    assert_eq!(all.len(), 50257);
    assert!((0..).zip(&all).all(|(id, token)| token["id"] == id));
    let expected = &read("real_gpt2.json")["vocabulary"];
    for (id, piece) in expected["last"].as_object().unwrap() {
        assert_eq!(all[id.parse::<usize>().unwrap()]["piece"], *piece);
    }
    for (piece, id) in expected["some"].as_object().unwrap() {
        assert_eq!(all[id.as_u64().unwrap() as usize]["piece"], **piece);
    }
    assert_eq!(all[262], json!({"id": 262, "piece": "Ġthe", "text": " the"}));
}

#[test]
fn the_vocabulary_is_searched() {
    let found = tokenize(&["--vocab", "--grep", "^Ġrelativ"]).succeeds().stdout();
    let pieces: Vec<&str> = found.lines().map(|line| line.split_whitespace().nth(1).unwrap()).collect();
    assert_eq!(pieces, ["Ġrelative", "Ġrelatively", "Ġrelatives", "Ġrelativity"]);
    let ids = tokenize(&["--vocab", "--grep", "^Ġrelativity$", "--format", "ids"]).succeeds().stdout();
    assert_eq!(ids, "44449\n");
    assert_eq!(tokenize(&["--vocab", "--count", "--grep", "endoftext"]).succeeds().stdout(), "1\n");
    assert_eq!(tokenize(&["--vocab", "--grep", "no such piece"]).succeeds().stdout(), "");
    tokenize(&["--vocab", "--grep", "(a"]).fails(2, &["--grep", "`(a`", "unclosed group"]);
}

#[test]
fn another_tokenizer_can_be_chosen() {
    let with = |flag: &str, path: &str, text: &str| {
        let path = fixture("tokenizer").join(path).display().to_string();
        tokenize(&["--format", "ids", flag, &path, text]).succeeds().stdout()
    };
    // The goldens are without what the file puts around a text.
    for (name, flag, path, before, after) in [
        ("byte_level", "--tokenizer", "byte_level", "", ""),
        ("byte_level", "--model", "byte_level", "", ""),
        ("byte_level_json", "--tokenizer", "byte_level_json/tokenizer.json", "0 ", ""),
        ("word_piece", "--tokenizer", "word_piece", "1 ", " 2"),
    ] {
        let case = &read(&format!("tokenizer/{name}/goldens.json"))["cases"][0];
        let expected = format!("{before}{}{after}\n", id_text(&case[1]));
        assert_eq!(with(flag, path, case[0].as_str().unwrap()), expected, "{name}");
    }
    let gguf = fixture("checkpoint/tiny.gguf").display().to_string();
    assert_eq!(tokenize(&["--format", "ids", "--model", &gguf, "ab ba"]).succeeds().stdout(), "2 3 1 0\n");
}

/// The test's environment has no hub and no cache.
#[test]
fn published_models_need_no_network() {
    for model in ["gpt2", "gpt2-xl", "distilgpt2", "demo"] {
        assert_eq!(tokenize(&["-m", model, "--count", "Hello world"]).succeeds().stdout(), "2\n");
    }
}

#[test]
fn invalid_utf8_is_an_error_with_its_offset() {
    tokenize(&[]).stdin(b"abc\xff").fails(1, &["stdin", "offset 3"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("text");
    std::fs::write(&file, b"\xc3\xa9\xc3").unwrap();
    tokenize(&["--file", file.to_str().unwrap()]).fails(1, &["text", "offset 2"]);
    tokenize(&["--file", "/nonexistent/text"]).fails(1, &["/nonexistent/text"]);
}

#[test]
fn mistakes_are_named() {
    tokenize(&["--decode", "50257"]).fails(2, &["50257", "0 to 50256"]);
    tokenize(&["--decode", "1 x"]).fails(2, &["`x`"]);
    tokenize(&["--decode", "4294967296"]).fails(2, &["`4294967296`"]);
    tokenize(&["--ids", "99999"]).fails(2, &["99999"]);
    tokenize(&["--decode", "1", "--count"]).fails(2, &["--decode", "--count"]);
    tokenize(&["--grep", "a"]).fails(2, &["--vocab"]);
    tokenize(&["--vocab", "text"]).fails(2, &["--vocab"]);
    tokenize(&["--count", "--format", "json", "a"]).fails(2, &["--count", "--format"]);
    let no_tokenizer = tiny("base").display().to_string();
    tokenize(&["-m", &no_tokenizer, "a"]).fails(1, &["without a tokenizer", "--tokenizer"]);
    tokenize(&["--tokenizer", "/nonexistent", "a"]).fails(1, &["/nonexistent"]);
    tokenize(&["-m", "no/such", "--offline", "a"]).fails(1, &["no/such"]);
}

#[test]
fn a_closed_pipe_is_not_a_failure() {
    let mut child = tokenize(&["--vocab"]).into_command().stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 10]).unwrap();
    drop(stdout);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// The ranks and the order are those of `bpe` in OpenAI's `encoder.py` with GPT-2's `merges.txt`.
#[test]
fn merges_are_shown_step_by_step() {
    let words = read("tokenizer/merges.json");
    for word in words.as_array().unwrap() {
        let json = tokenize(&["--merges", "--format", "json", word["text"].as_str().unwrap()]).succeeds().json();
        let found = &json["words"][0];
        let pieces = |ids: &Value| {
            let ids: Vec<String> = ids.as_array().unwrap().iter().map(ToString::to_string).collect();
            let json = json_of(&["--ids", &ids.join(" ")]);
            Value::from_iter(json["tokens"].as_array().unwrap().iter().map(|token| token["piece"].clone()))
        };
        assert_eq!(found["text"], word["text"]);
        let steps = found["steps"].as_array().unwrap();
        let expected = word["steps"].as_array().unwrap();
        assert_eq!(steps.len(), expected.len(), "{word}");
        for (step, expected) in steps.iter().zip(expected) {
            assert_eq!(
                (&step["rank"], pieces(&step["pair"]), pieces(&step["ids"])),
                (&expected["rank"], expected["pair"].clone(), expected["pieces"].clone())
            );
        }
    }
    let text = tokenize(&["--merges", " theory"]).succeeds().stdout();
    assert!(text.starts_with("\" theory\"\n"), "{text}");
    assert!(text.contains("\n       2  \"h\" + \"e\"       \" t\" \"he\" \"o\" \"r\" \"y\"\n"), "{text}");
    let pieces = tokenize(&["--merges", "--pieces", " theory"]).succeeds().stdout();
    assert!(pieces.contains("Ġt he o r y"), "{pieces}");
    tokenize(&["--merges", &"a".repeat(201)]).fails(1, &["longer than 200 bytes"]);
    tokenize(&["--merges", "--format", "ids", "a"]).fails(2, &["--merges"]);
}

/// After the last merge come the tokens.
#[test]
fn merges_end_in_the_tokens() {
    for case in read("tokenizer/goldens.json")["cases"].as_array().unwrap().iter().step_by(25) {
        let done = tokenize(&["--merges", "--format", "json"]).stdin(case[0].as_str().unwrap()).output();
        if done.output.status.code() != Some(0) {
            assert!(done.stderr().contains("longer than 200 bytes"), "{}", done.stderr());
            continue;
        }
        let json = done.json();
        let words = json["words"].as_array().unwrap();
        let last = |word: &Value| match word["steps"].as_array().unwrap().last() {
            Some(step) => step["ids"].as_array().unwrap().clone(),
            None => word["bytes"].as_array().unwrap().clone(),
        };
        assert_eq!(Value::from_iter(words.iter().flat_map(last)), case[1], "{}", case[0]);
    }
}

/// Neighbours differ in colour and in whether they are underlined; without colours there are lines between them.
#[test]
fn tokens_are_pieces_of_the_text_in_colours() {
    let text = "The theory 漢\nof relativity";
    let plain = tokenize(&["--color=auto", text]).env("NO_COLOR", "1").succeeds().stdout();
    let expected = "The│ theory│ 漢×3│\\n\n│of│ relativity\n\n8 tokens, 26 characters, 3.2 a token\n";
    assert!(plain.starts_with(expected), "{plain}");
    let coloured = tokenize(&["--color", text]).env("NO_COLOR", "1").succeeds().stdout();
    assert!(!tokenize(&["--color=never", text]).succeeds().stdout().contains("8 tokens"));
    let grounds: Vec<&str> = coloured.split("\x1b[48;5;").skip(1).map(|rest| rest.split('m').next().unwrap()).collect();
    assert_eq!(grounds.len(), 6, "{coloured:?}");
    assert!(grounds.windows(2).all(|pair| pair[0] != pair[1]), "{coloured:?}");
    assert_eq!(coloured.matches("\x1b[4m").count(), 3, "every other one is underlined: {coloured:?}");
    assert!(coloured.lines().all(|line| line.matches("\x1b[48").count() <= line.matches("\x1b[0m").count()));
}
