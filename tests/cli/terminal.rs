//! Text that is not ours, on a terminal and elsewhere: names, tokens, prompts and what a model writes cannot drive a
//! terminal, reorder or hide other text, or break a table or a picture.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::{golden, gpt2, id_text, tiny};

/// Hides what follows, sets the title of the window, clears the screen in two ways, and turns the direction of text.
const HOSTILE: &str = "m\x1b[8m\x1b]0;x\x07\u{9b}2J\x7f\u{202e}\u{2066}\u{61c}\u{2028}\u{feff}\u{e0041}";

/// [`HOSTILE`] as it is shown.
const SHOWN: &str = r"m\u{1b}[8m\u{1b}]0;x\u{7}\u{9b}2J\u{7f}\u{202e}\u{2066}\u{61c}\u{2028}\u{feff}\u{e0041}";

/// Fails if the text has a character that could drive a terminal, change the direction of text, or hide.
#[track_caller]
fn assert_harmless(text: &str) {
    let is_harmful = |c: char| match c {
        '\n' | '\t' => false,
        '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{feff}' => true,
        '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{e0000}'..='\u{e007f}' => true,
        c => c.is_control(),
    };
    assert!(!text.contains(is_harmful), "{text:?}");
}

/// What a terminal shows, without our own codes for colours. Those of the hostile name are not among them.
#[track_caller]
fn without_colours(text: &str) -> String {
    assert!(!text.contains("\x1b[8m"), "{text:?}");
    let mut parts = text.split("\x1b[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_digit() && c != ';').filter(|end| part[*end..].starts_with('m'));
        plain.push_str(&part[end.unwrap_or_else(|| panic!("not a colour: {part:?} in {text:?}")) + 1..]);
    }
    plain
}

/// A folder with `tiny/base` under a hostile name.
fn hostile_folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join(HOSTILE);
    std::fs::create_dir(&model).unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(tiny("base").join(name), model.join(name)).unwrap();
    }
    (folder, model)
}

/// Runs on pipes, and on a terminal where there are any; returns what is shown on stdout and stderr, without colours.
#[track_caller]
fn shown(folder: &Path, code: i32, arguments: &[&str]) -> String {
    let done = gpt2(arguments).current_dir(folder).output();
    let piped = done.stdout() + &done.stderr();
    assert_eq!(done.output.status.code(), Some(code), "{arguments:?}: {piped}");
    assert_harmless(&piped);
    #[cfg(unix)]
    {
        let (found, text) = gpt2(arguments).current_dir(folder).on_terminal();
        let text = without_colours(&text);
        assert_eq!(found, Some(code), "{arguments:?}: {text}");
        assert_harmless(&text);
    }
    piped
}

// Windows has no files of such names.
#[cfg(unix)]
#[test]
fn names_of_files_are_escaped_wherever_they_are_shown() {
    let (folder, model) = hostile_folder();
    let name = HOSTILE;
    let to = |extension: &str| format!("{HOSTILE}.{extension}");
    let ids = ["--ids", "1 2 3"];
    for (code, arguments) in [
        (0, &["info", "-m", name][..]),
        (0, &["info", "-m", name, "--tensors", "-vv"]),
        (0, &["bench", "-m", name, "--prompt-tokens", "4", "--max-new-tokens", "2", "-v"]),
        (0, &["convert", "-m", name, "--to", "f32", &to("gguf")]),
        (1, &["convert", "-m", name, "--to", "f32", &format!("{HOSTILE}/x/{HOSTILE}.gguf")]),
        (0, &[&["generate", "-m", name, "-n", "1", "-vv"], &ids[..]].concat()),
        (1, &["topk", "-m", name, "a"]),
        (1, &["topk", "-m", &to("absent"), "a"]),
        (1, &["topk", "-m", &format!("{HOSTILE}/{HOSTILE}"), "a"]),
        (1, &["info", "--config", name]),
        (1, &["score", "-m", "demo", "--file", &to("txt")]),
        (1, &["score", "-m", "demo", "--input", &to("jsonl")]),
        (1, &["tokenize", "--tokenizer", name, "a"]),
        (1, &["topk", "-m", "demo", "--adapter", name, "a"]),
        (1, &["trace", "-m", "demo", "a", "--save", &format!("{HOSTILE}/x/y")]),
    ] {
        assert!(shown(folder.path(), code, arguments).contains(SHOWN), "{arguments:?}");
    }
    // A damaged file of that name.
    std::fs::write(model.join("config.json"), "{\"n_embd\": \"\x1b[8m\u{202e}\"}").unwrap();
    shown(folder.path(), 1, &["info", "-m", name]);
    std::fs::write(model.join("config.json"), "{\"n_embd\": \"\\u001b[8m\\u202e\\u009b\"}").unwrap();
    assert!(shown(folder.path(), 1, &["info", "-m", name]).contains(r#"n_embd is "\u001b[8m\u202e\u009b""#));
}

#[test]
fn values_on_the_command_line_are_escaped_in_messages() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [
        &["generate", "-m", "demo", "a", "--stop", "", "--temperature", HOSTILE][..],
        &["generate", "-m", "demo", "a", "--device", HOSTILE],
        &["generate", "-m", "demo", &format!("--{HOSTILE}")],
        &["generate", "-m", "demo", "--ids", HOSTILE],
        &["tokenize", "--vocab", "--grep", &format!("({HOSTILE}")],
        &[HOSTILE],
        &["topk", HOSTILE, HOSTILE],
        &["bench", "-m", "demo", "--prompt-tokens", HOSTILE],
    ] {
        shown(folder.path(), 2, arguments);
    }
    shown(folder.path(), 2, &["topk", "-m", "demo", "a", "--token", HOSTILE]);
    shown(folder.path(), 1, &["info", "-m", HOSTILE]);
}

/// An argument that is not UTF-8 is quoted as far as it is.
#[cfg(unix)]
#[test]
fn an_unknown_argument_that_is_not_utf8_is_escaped() {
    use std::os::unix::ffi::OsStrExt;
    let argument = std::ffi::OsStr::from_bytes(b"--\x1b]0;x\x07\xff");
    for arguments in [&[argument][..], &["info".as_ref(), argument]] {
        let done = gpt2(arguments).output();
        assert_eq!(done.output.status.code(), Some(2));
        assert_harmless(&done.stderr());
    }
}

/// `tiny/base` with one more tensor of this name, which has no numbers.
fn with_tensor(folder: &Path, name: &str) {
    let bytes = std::fs::read(tiny("base").join("model.safetensors")).unwrap();
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + len]).unwrap();
    let numbers = &bytes[8 + len..];
    header[name] = json!({"dtype": "F32", "shape": [0], "data_offsets": [numbers.len(), numbers.len()]});
    let header = header.to_string();
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), numbers].concat();
    std::fs::write(folder.join("model.safetensors"), file).unwrap();
    std::fs::copy(tiny("base").join("config.json"), folder.join("config.json")).unwrap();
}

/// Names of tensors with control characters are refused; others are shown escaped, in columns of their own width.
#[test]
fn names_of_tensors_are_escaped() {
    let folder = tempfile::tempdir().unwrap();
    with_tensor(folder.path(), "a\u{202e}\u{feff}\u{2066}\u{e0041}\u{2028}\u{61c}\u{200f}");
    let table = shown(folder.path(), 0, &["info", "-m", ".", "--tensors"]);
    let (name, place) = (r"a\u{202e}\u{feff}\u{2066}\u{e0041}\u{2028}\u{61c}\u{200f}", |line: &str| line.find(" F32 "));
    let lines: Vec<&str> = table.lines().filter(|line| line.starts_with("  ") && place(line).is_some()).collect();
    assert!(lines.iter().any(|line| line.contains(name)), "{table}");
    assert!(lines.iter().all(|line| place(line) == place(lines[0])), "{table}");
    with_tensor(folder.path(), HOSTILE);
    assert!(shown(folder.path(), 1, &["info", "-m", ".", "--tensors"]).contains(SHOWN));
}

#[test]
fn metadata_of_a_gguf_file_is_escaped() {
    use gpt2::checkpoint::gguf::{self, Metadata, Value};
    let folder = tempfile::tempdir().unwrap();
    for (key, value) in [("general.architecture", HOSTILE), (HOSTILE, HOSTILE), ("general.name", HOSTILE)] {
        let mut metadata = Metadata::default();
        if key != "general.architecture" {
            metadata.push("general.architecture", Value::String("gpt2".into()));
        }
        metadata.push(key, Value::String(value.into()));
        let no_numbers = |_| Ok(std::borrow::Cow::Borrowed(&[][..]));
        gguf::write(&folder.path().join("a.gguf"), &metadata, &[], no_numbers).unwrap();
        let text = shown(folder.path(), 1, &["info", "-m", "a.gguf"]);
        assert!(key != "general.architecture" || text.contains(SHOWN), "{text}");
    }
}

/// A hub's listing names files in an error, and one of them while it is fetched.
#[cfg(feature = "hub")]
#[test]
fn names_in_a_listing_are_escaped_in_errors_and_in_progress() {
    use crate::fake_hub::files_of;
    use crate::hub::Scene;
    let scene = Scene::empty();
    let mut files = files_of(&tiny("base"));
    let weights = files.remove("model.safetensors").unwrap();
    files.insert(format!("{HOSTILE}.safetensors"), weights.clone());
    scene.hub.add("someone/one", files.clone());
    files.insert(format!("{HOSTILE}2.safetensors"), weights);
    scene.hub.add("someone/two", files);
    let error = scene.run(&["info", "-m", "someone/two"]).fails(1, &[SHOWN, "several files"]).stderr();
    assert_harmless(&error);
    #[cfg(unix)]
    {
        let delay = crate::fake_hub::Fault::Delay(std::time::Duration::from_millis(600));
        scene.hub.fail(1, "GET", "safetensors", delay);
        let (code, text) = scene.run(&["info", "-m", "someone/one"]).on_terminal();
        assert!(code == Some(0) && text.contains(r"m\u{1b}[8m\u{1b}]0;x\u{7}"), "{text:?}");
        assert!(!["\x1b[8m", "\x1b]", "\u{9b}", "\u{202e}"].iter().any(|raw| text.contains(raw)), "{text:?}");
    }
    let done = scene.run(&["info", "-m", "someone/one", "-vv"]).succeeds();
    assert_harmless(&(done.stdout() + &done.stderr()));
}

/// Bytes and pieces of GPT-2's vocabulary: ESC is `ě`, BEL `ć`, 9B `Ľ`, C2 `Â`.
fn hostile_tokenizer() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let piece = |id: u32| match id {
        180 => "Â".to_owned(),
        33 => "Ľ".to_owned(),
        154 => "ě".to_owned(),
        140 => "]0;xć".to_owned(),
        // U+202E
        93 => "âĢ®".to_owned(),
        7 => "\u{202e}".to_owned(),
        id => format!("t{id}"),
    };
    let vocabulary: serde_json::Map<String, Value> = (0..211).map(|id| (piece(id), json!(id))).collect();
    std::fs::write(folder.path().join("vocab.json"), Value::Object(vocabulary).to_string()).unwrap();
    std::fs::write(folder.path().join("merges.txt"), "").unwrap();
    let path = folder.path().display().to_string();
    (folder, path)
}

/// transformers' ids in the goldens, spelled with tokens of which several make a C1 control or an escape sequence.
#[test]
fn what_a_model_writes_is_escaped_on_a_terminal_only() {
    let golden = golden("base");
    let params = json!({"no_repeat_ngram_size": 2});
    let case = golden["generate"].as_array().unwrap().iter().find(|case| case["params"] == params).unwrap();
    assert_eq!(case["sequences"][0].as_array().unwrap()[..12], [180, 180, 33, 33, 180, 154, 33, 154, 180, 140, 33, 93]);
    let (_folder, tokenizer) = hostile_tokenizer();
    let model = tiny("base").display().to_string();
    let ids = id_text(&case["ids"]);
    let arguments = ["generate", "-m", &model, "--tokenizer", &tokenizer, "--ids", &ids, "-n", "12"];
    let arguments = [&arguments[..], &["--no-repeat-ngram-size", "2", "--completion-only"]].concat();
    let raw = "\u{fffd}\u{9b}\u{fffd}\u{fffd}\x1b\u{fffd}\x1b\u{fffd}]0;x\x07\u{fffd}\u{202e}\n";
    assert_eq!(gpt2(&arguments).succeeds().stdout(), raw);
    let with_raw_text = [&arguments[..], &["--raw-text"]].concat();
    assert_eq!(gpt2(&with_raw_text).succeeds().stdout(), raw);
    let json = gpt2(&[&arguments[..], &["--format", "json"]].concat()).succeeds();
    assert_eq!(json.json()["sequences"][0]["text"], raw.trim_end());
    assert_harmless(&json.stdout());
    #[cfg(unix)]
    {
        let safe = raw.replace('\u{9b}', r"\u{9b}").replace('\x1b', r"\u{1b}").replace('\x07', r"\u{7}");
        let safe = safe.replace('\u{202e}', r"\u{202e}");
        assert_eq!(gpt2(&arguments).on_terminal(), (Some(0), safe));
        assert_eq!(gpt2(&with_raw_text).on_terminal(), (Some(0), raw.to_owned()));
        // Not streamed.
        let beams = [&arguments[..], &["--num-return-sequences", "1", "--num-beams", "2"]].concat();
        assert_harmless(&gpt2(&beams).on_terminal().1);
        let logprobs = [&arguments[..], &["--logprobs", "3"]].concat();
        assert_harmless(&without_colours(&gpt2(&logprobs).on_terminal().1));
    }
    // Views always escape.
    for view in [
        &["topk", "--all"][..],
        &["topk", "-k", "211"],
        &["topk", "--tree", "2", "-k", "2"],
        &["score"],
        &["trace", "--lens"],
        &["trace", "--attention", "--layer", "0"],
    ] {
        let ids = "180 33 154 140 93 7";
        let arguments = [view, &["-m", &model, "--tokenizer", &tokenizer, "--ids", ids]].concat();
        assert_harmless(&gpt2(&arguments).succeeds().stdout());
        #[cfg(unix)]
        assert_harmless(&without_colours(&gpt2(&arguments).on_terminal().1));
        let json = gpt2(&[&arguments[..], &["--format", "json"]].concat()).succeeds();
        assert_harmless(&json.stdout());
        json.json();
    }
    let vocabulary = gpt2(&["tokenize", "--tokenizer", &tokenizer, "--vocab"]).succeeds().stdout();
    assert_harmless(&vocabulary);
    // The columns are as wide as what is shown in them.
    let columns = |id: &str| {
        let line = vocabulary.lines().find(|line| line.trim_start().starts_with(id)).unwrap();
        line.char_indices().position(|(at, _)| line[at..].starts_with('"')).unwrap()
    };
    assert_eq!(columns("7 "), columns("93 "));
    assert_eq!(columns("7 "), columns("140 "));
}

#[test]
fn the_prompt_is_echoed_as_it_is_but_on_a_terminal() {
    let prompt = "a\tb\r\n\x1b]0;x\x07\u{9b}2J\u{202e} é 👩\u{200d}💻";
    let arguments = ["generate", "-m", "demo", prompt, "-n", "1"];
    assert!(gpt2(&arguments).succeeds().stdout().starts_with(prompt));
    let interactive = ["generate", "-m", "demo", "--interactive", "-n", "1"];
    let line = prompt.replace('\n', "");
    assert!(gpt2(&interactive).stdin(format!("{line}\n")).succeeds().stdout().starts_with(&line));
    #[cfg(unix)]
    {
        let safe = "a\tb\\r\n\\u{1b}]0;x\\u{7}\\u{9b}2J\\u{202e} é 👩\u{200d}💻";
        let (code, text) = gpt2(&arguments).on_terminal();
        assert!(code == Some(0) && text.starts_with(safe), "{text:?}");
        let (_, text) = gpt2(&[&arguments[..], &["--raw-text"]].concat()).on_terminal();
        assert!(text.starts_with(prompt), "{text:?}");
        let (_, text) = gpt2(&interactive).stdin(format!("{line}\n")).on_terminal();
        assert!(without_colours(&text).starts_with(&safe.replace('\n', "")), "{text:?}");
        let (_, text) = gpt2(&[&interactive[..], &["--raw-text"]].concat()).stdin(format!("{line}\n")).on_terminal();
        assert!(text.contains(&line), "{text:?}");
    }
}

/// While it is edited, a line does not drive the terminal; the model gets all of it.
#[cfg(unix)]
#[test]
fn a_pasted_line_is_drawn_without_what_drives_the_terminal() {
    let home = tempfile::tempdir().unwrap();
    // The editor itself takes no U+009B from the keyboard, and a control character only after Ctrl-V.
    let rest = "2J\u{202e}c é 👩\u{200d}💻";
    for (keys, escaped) in [
        (format!("\x1b[200~a\x07b\u{9b}{rest}\x1b[201~\r"), "a\\u{7}b\\u{9b}2J\\u{202e}c é 👩\u{200d}💻"),
        (format!("a\x16\x07b{rest}\r"), "a\\u{7}b2J\\u{202e}c é 👩\u{200d}💻"),
    ] {
        let interactive = ["generate", "-m", "demo", "--interactive", "-n", "1"];
        let typed = gpt2(&interactive).env("XDG_STATE_HOME", home.path().to_str().unwrap()).stdin(keys);
        let (code, text) = typed.typed_on_terminal();
        assert_eq!(code, Some(0), "{text:?}");
        assert!(!text.contains(['\x07', '\u{9b}', '\u{202e}']), "{text:?}");
        assert!(text.contains("ab2Jc é") && text.contains(escaped), "{text:?}");
    }
}

/// A terminal that does not expect UTF-8 takes the byte 9B for the start of an escape sequence.
#[cfg(unix)]
#[test]
fn decoded_bytes_are_escaped_on_a_terminal() {
    // ESC [ 3 1 m, and half a character.
    let decode = ["tokenize", "--decode", "215 58 3132 76 162 120"];
    assert_eq!(gpt2(&decode).on_terminal(), (Some(0), r"\u{1b}[31m\xe6\xbc".to_owned()));
    let (_, json) = gpt2(&[&decode[..], &["--format", "json"]].concat()).on_terminal();
    assert_harmless(&json);
}

/// JSON is the same on a terminal and elsewhere, and means what it meant.
#[test]
fn json_escapes_what_drives_a_terminal() {
    let text = "\x7f\u{80}\u{9b}\u{202e}\u{2028}\u{feff}\u{e0041}\u{200d}é";
    let done = gpt2(&["tokenize", "--format", "json", text]).succeeds();
    assert_eq!(done.json()["text"], text);
    assert!(done.stdout().contains(r#""\u007f\u0080\u009b\u202e\u2028\ufeff\udb40\udc41"#), "{}", done.stdout());
    assert_harmless(&done.stdout());
    #[cfg(unix)]
    assert_eq!(gpt2(&["tokenize", "--format", "json", text]).on_terminal().1, done.stdout());
    // What a row carries along keeps its value and the digits of its numbers.
    let rows =
        format!("{{\"id\": \"{text}\", \"prompt\": \"{text}\", \"note\": [\"{text}\", 1.50]}}\n").replace('\x7f', "");
    for subcommand in ["generate", "score"] {
        let done = gpt2(&[subcommand, "-m", "demo", "--input", "-"]).stdin(&rows).succeeds();
        assert_harmless(&done.stdout());
        assert!(done.stdout().contains(r#"\ufeff\udb40\udc41"#) && done.stdout().contains("1.50"));
        assert_eq!(done.json_lines()[0]["id"], text.replace('\x7f', ""));
        assert_eq!(done.json_lines()[0]["input"]["note"][0], text.replace('\x7f', ""));
    }
}

/// XML 1.0 has no control characters at all, not even escaped; the model's name and the tokens are in every picture.
#[cfg(unix)]
#[test]
fn pictures_are_well_formed_whatever_the_names() {
    let (folder, model) = hostile_folder();
    let name = "m\x1b[8m\u{1}\u{9b}\u{202e}<&>\"'\u{ffff}";
    std::fs::rename(model, folder.path().join(name)).unwrap();
    let (_tokenizer, tokenizer) = hostile_tokenizer();
    let base = ["trace", "-m", name, "--tokenizer", &tokenizer, "--ids", "180 33 154 140 93 7 180 33"];
    for view in [
        &[][..],
        &["--lens"],
        &["--attention"],
        &["--attention", "--layer", "0"],
        &["--attention", "--layer", "0", "--head", "1"],
    ] {
        gpt2(&[&base[..], view, &["--svg", "a.svg", "--html", "a.html"]].concat())
            .current_dir(folder.path())
            .succeeds();
        let picture = std::fs::read_to_string(folder.path().join("a.svg")).unwrap();
        let xml = roxmltree::Document::parse(&picture).unwrap_or_else(|error| panic!("{view:?}: {error}"));
        let texts: Vec<&str> = xml.descendants().filter_map(|node| node.text()).collect();
        let shown = r#"m\u{1b}[8m\u{1}\u{9b}\u{202e}<&>"'\u{ffff}"#;
        assert!(texts.iter().any(|text| text.contains(shown)), "{texts:?}");
        assert_harmless(&picture);
        let page = std::fs::read_to_string(folder.path().join("a.html")).unwrap();
        assert_harmless(&page);
        assert!(page.contains(r"m\\u{1b}[8m"), "the name is shown escaped");
    }
}

/// A tree may take minutes.
#[cfg(unix)]
#[test]
fn a_tree_shows_how_far_it_is() {
    let (code, text) = gpt2(&["topk", "-m", "demo", "Once", "--tree", "9", "-k", "2"]).on_terminal();
    assert_eq!(code, Some(0));
    assert!(text.contains("/1,022 nodes, "), "{text:?}");
}
