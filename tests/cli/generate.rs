//! `gpt2 generate` on one prompt.

use serde_json::Value;

use crate::harness::{golden, gpt2, id_text, tiny};

/// The flags for a golden case's parameters.
fn flags(params: &Value) -> Vec<String> {
    let mut flags = vec![];
    for (key, value) in params.as_object().expect("params is an object") {
        let flag = format!("--{}", key.replace('_', "-"));
        match value {
            Value::Array(lists) => {
                for list in lists {
                    flags.extend([flag.clone(), id_text(list)]);
                }
            }
            Value::String(text) => flags.extend([flag, text.clone()]),
            other => flags.extend([flag, other.to_string()]),
        }
    }
    flags
}

fn arguments(checkpoint: &str, case: &Value) -> Vec<String> {
    let folder = tiny(checkpoint).display().to_string();
    let max_new_tokens = case["max_new_tokens"].to_string();
    let ids = id_text(&case["ids"]);
    let mut arguments: Vec<String> =
        ["generate", "--model", &folder, "--ids", &ids, "-n", &max_new_tokens, "--format", "json"]
            .map(Into::into)
            .into();
    arguments.extend(flags(&case["params"]));
    arguments
}

/// Every case computed by transformers, through the flags of the same names.
#[test]
fn every_golden_case_matches_token_for_token() {
    for checkpoint in ["base", "erf_inner", "inverse", "untied_f16"] {
        let golden = golden(checkpoint);
        for key in ["generate", "generate_4_49"] {
            for case in golden[key].as_array().expect("cases") {
                let json = gpt2(&arguments(checkpoint, case)).succeeds().json();
                let sequences = json["sequences"].as_array().expect("sequences");
                let ids: Vec<&Value> = sequences.iter().map(|s| &s["ids"]).collect();
                let expected: Vec<&Value> = case["sequences"].as_array().expect("sequences").iter().collect();
                assert_eq!(ids, expected, "{checkpoint}, {key}, {case}");
                for (sequence, score) in sequences.iter().zip(case["scores"].as_array().into_iter().flatten()) {
                    let (ours, theirs) = (sequence["score"].as_f64().expect("a score"), score.as_f64().unwrap());
                    // The goldens have 7 digits.
                    assert!((ours - theirs).abs() < 1e-4 + 1e-6 * theirs.abs(), "{checkpoint}: {ours} {theirs}");
                }
            }
        }
    }
}

#[test]
fn the_json_has_the_keys_of_the_contract() {
    let json = gpt2(&["generate", "-m", "demo", "Once upon a", "-n", "3", "--logprobs", "2", "--format", "json"])
        .succeeds()
        .json();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&json), ["model", "prompt", "prompt_ids", "seed", "sequences", "timings", "settings"]);
    let sequence = &json["sequences"][0];
    assert_eq!(keys(sequence), ["index", "ids", "all_ids", "text", "finish_reason", "score", "logprobs"]);
    let token = &sequence["logprobs"][0];
    assert_eq!(keys(token), ["id", "token", "logprob", "top"]);
    assert_eq!(keys(&token["top"][0]), ["id", "token", "logprob"]);
    assert_eq!(token["top"].as_array().unwrap().len(), 2);
    assert_eq!(token["id"], token["top"][0]["id"], "greedy takes the best");
    assert_eq!(keys(&json["timings"]), ["load_s", "prefill_s", "decode_s", "prompt_tokens", "generated_tokens"]);
    assert_eq!((&json["seed"], &sequence["score"]), (&Value::Null, &Value::Null));
    assert_eq!((&json["model"], &json["prompt"]), (&"demo".into(), &"Once upon a".into()));
    assert_eq!(sequence["finish_reason"], "length");
}

#[test]
fn the_prompt_is_read_from_every_source() {
    let text = gpt2(&["generate", "-m", "demo", "Once upon a", "-n", "8"]).succeeds().stdout();
    assert!(text.starts_with("Once upon a time"), "{text}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prompt.txt");
    std::fs::write(&file, "Once upon a").unwrap();
    let file = file.display().to_string();
    for arguments in [vec!["--prompt", "Once upon a"], vec!["--file", &file]] {
        let arguments = [vec!["generate", "-m", "demo", "-n", "8"], arguments].concat();
        assert_eq!(gpt2(&arguments).succeeds().stdout(), text, "{arguments:?}");
    }
    assert_eq!(gpt2(&["generate", "-m", "demo", "-n", "8"]).stdin("Once upon a").succeeds().stdout(), text);
    let completion =
        gpt2(&["generate", "-m", "demo", "Once upon a", "-n", "8", "--completion-only"]).succeeds().stdout();
    assert_eq!(format!("Once upon a{completion}"), text);
    let ids = gpt2(&["generate", "-m", "demo", "--ids", "7454 2402 257", "-n", "8"]).succeeds().stdout();
    assert_eq!(ids, text);
}

#[test]
fn an_empty_prompt_starts_from_the_end_of_text_token_and_says_so() {
    let done = gpt2(&["generate", "-m", "demo", "", "-n", "3", "--format", "json"]).succeeds();
    assert_eq!(done.json()["prompt_ids"], serde_json::json!([50256]));
    assert!(done.stderr().contains("<|endoftext|>"), "{}", done.stderr());
}

/// The text is cut before the stop string, which may span tokens; the ids are complete.
#[test]
fn a_stop_string_ends_the_text() {
    let whole = gpt2(&["generate", "-m", "demo", "Once upon a", "-n", "20", "--completion-only"]).succeeds().stdout();
    let stop = &whole[7..12];
    let done =
        gpt2(&["generate", "-m", "demo", "Once upon a", "-n", "20", "--stop", stop, "--format", "json"]).succeeds();
    let sequence = &done.json()["sequences"][0];
    assert_eq!(sequence["finish_reason"], "stop");
    assert_eq!(sequence["text"], whole[..whole.find(stop).unwrap()]);
    let streamed = gpt2(&["generate", "-m", "demo", "Once upon a", "-n", "20", "--stop", stop, "--completion-only"]);
    assert_eq!(streamed.succeeds().stdout().trim_end_matches('\n'), &whole[..whole.find(stop).unwrap()]);
}

#[test]
fn the_end_of_the_context_stops_or_crops() {
    let folder = tiny("base").display().to_string();
    let ids = id_text(&Value::from((0..90).collect::<Vec<u32>>()));
    let base = ["generate", "-m", &folder, "--ids", &ids, "-n", "20", "--ignore-eos", "--format", "json"];
    let done = gpt2(&base).succeeds();
    let stopped = done.json();
    assert_eq!(stopped["sequences"][0]["finish_reason"], "context");
    let kept = stopped["sequences"][0]["ids"].as_array().unwrap().clone();
    // 96 positions: 90 for the prompt, 6 more, and one token after the last position.
    assert_eq!(kept.len(), 7);
    let cropped = gpt2(&[&base[..], &["--on-context-limit", "crop"]].concat()).succeeds().json();
    let ids = cropped["sequences"][0]["ids"].as_array().unwrap().clone();
    assert_eq!((ids.len(), &ids[..7]), (20, &kept[..]));
    let long = id_text(&Value::from(vec![1u32; 97]));
    gpt2(&["generate", "-m", &folder, "--ids", &long]).fails(2, &["97", "96", "--on-context-limit crop"]);
}

#[test]
fn draws_depend_only_on_the_seed() {
    let base = ["generate", "-m", "demo", "Once upon a", "-n", "12", "--temperature", "1.2", "--format", "json"];
    let run = |more: &[&str]| gpt2(&[&base[..], more].concat()).succeeds().json();
    let one = run(&["--seed", "7"]);
    assert_eq!(one["seed"], 7);
    assert_eq!(one["sequences"], run(&["--seed", "7", "--threads", "1"])["sequences"]);
    assert_ne!(one["sequences"], run(&["--seed", "8"])["sequences"]);
    // The first of several draws equals a single draw; a random seed is reported and can be given again.
    let many = run(&["--seed", "7", "--num-return-sequences", "3"]);
    assert_eq!(many["sequences"][0], one["sequences"][0]);
    let drawn = run(&[]);
    assert_eq!(drawn["sequences"], run(&["--seed", &drawn["seed"].to_string()])["sequences"]);
}

#[test]
fn assisted_decoding_prints_what_plain_decoding_prints() {
    let base = ["generate", "-m", "demo", "The king said to the king said to the", "-n", "40", "--format", "json"];
    let plain = gpt2(&base).succeeds().json();
    for more in [["--prompt-lookup", "2"], ["--prompt-lookup", "8"], ["--assistant-model", "demo"]] {
        let assisted = gpt2(&[&base[..], &more].concat()).succeeds().json();
        assert_eq!(assisted["sequences"], plain["sequences"], "{more:?}");
    }
}

#[test]
fn mistakes_are_usage_errors_that_name_the_flag() {
    for (flags, word) in [
        (&["--temperature", "0"][..], "--temperature"),
        (&["--temperature", "nan"], "--temperature"),
        (&["--top-p", "1.5"], "--top-p"),
        (&["--top-p", "0"], "--top-p"),
        (&["--num-beams", "0"], "--num-beams"),
        (&["--num-beams", "3", "--num-beam-groups", "2", "--diversity-penalty", "1"], "--num-beam-groups"),
        (&["--num-return-sequences", "2"], "--num-return-sequences"),
        (&["--num-beams", "2", "--num-return-sequences", "3"], "--num-return-sequences"),
        (&["--penalty-alpha", "0.6", "--top-k", "4", "--num-beams", "2"], "--penalty-alpha"),
        (&["-n", "-1"], "-1"),
        (&["--threads", "0"], "--threads"),
        (&["--device", "tpu"], "--device"),
        (&["--no-such-flag"], "--no-such-flag"),
        (&["--ids", "1 x 2"], "unexpected"),
    ] {
        let arguments = [&["generate", "-m", "demo", "--prompt", "Once"], flags].concat();
        if word == "unexpected" {
            gpt2(&["generate", "-m", "demo", "--ids", "1 x 2"]).fails(2, &["--ids", "`x`"]);
        } else {
            gpt2(&arguments).fails(2, &[word]);
        }
    }
    gpt2(&["generate", "-m", "demo", "--ids", "50257"]).fails(2, &["50257", "vocabulary"]);
    gpt2(&["generate", "-m", "demo", "Once", "--device", "cuda"])
        .fails(1, &["--device cuda", "cargo install", "--features cuda"]);
}

#[test]
fn text_that_is_not_utf8_is_refused_with_its_offset() {
    gpt2(&["generate", "-m", "demo"]).stdin(b"abc\xffdef").fails(1, &["stdin", "UTF-8", "offset 3"]);
}

#[test]
fn a_closed_pipe_is_not_a_failure() {
    let mut command = gpt2(&["generate", "-m", "demo", "Once", "-n", "200"]).into_command();
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let done = child.wait_with_output().unwrap();
    assert_eq!((done.status.code(), done.stderr.as_slice()), (Some(0), &b""[..]));
}

/// Without a terminal, each line on the pipe is a prompt.
#[test]
fn interactive_completes_prompt_after_prompt() {
    let folder = tempfile::tempdir().unwrap();
    let done = gpt2(&["generate", "-m", "demo", "--interactive", "-n", "5"])
        .env("XDG_STATE_HOME", folder.path())
        .stdin("Once upon a\nThe king\n")
        .succeeds();
    let stdout = done.stdout();
    let expected = |prompt| gpt2(&["generate", "-m", "demo", prompt, "-n", "5"]).succeeds().stdout();
    assert!(stdout.contains(&expected("Once upon a")), "{stdout}");
    assert!(stdout.contains(&expected("The king")), "{stdout}");
}

/// A session in which every command is used; what it writes is what `generate` writes for the same ids.
#[test]
fn a_session_has_commands() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("story.txt");
    let once = |prompt: &str, n: &str| gpt2(&["generate", "-m", "demo", prompt, "-n", n]).succeeds().stdout();
    let (three, six) = (once("Once upon a", "3"), once("Once upon a", "6"));
    let run = |lines: &[&str]| {
        let interactive = ["generate", "-m", "demo", "--interactive", "-n", "3"];
        gpt2(&interactive).stdin(lines.join("\n") + "\n").succeeds()
    };
    let more = run(&["Once upon a", "/more", &format!("/save {}", file.display())]);
    let rest = six.strip_prefix(three.trim_end_matches('\n')).unwrap();
    assert_eq!(more.stdout(), format!("{three}{rest}"));
    assert_eq!(std::fs::read_to_string(&file).unwrap() + "\n", six);
    assert!(
        more.stderr().contains("story.txt") && more.stderr().contains("the prompt and its completion, 36 B"),
        "{}",
        more.stderr()
    );
    let undone = run(&["Once upon a", "/more", "/undo", "/undo", "/undo"]);
    assert_eq!(undone.stdout(), format!("{three}{rest}{three}"));
    assert!(undone.stderr().contains("error: there is nothing to undo yet"), "{}", undone.stderr());
    let again = run(&["Once upon a", "/retry"]);
    assert_eq!(again.stdout(), three.repeat(2));
    assert!(again.stderr().contains("nothing is drawn"), "{}", again.stderr());
    let set = run(&["/set max-new-tokens 6", "Once upon a", "/set temperature 0.8", "/set temperature -1", "/set"]);
    assert_eq!(set.stdout(), six);
    let stderr = set.stderr();
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!((lines[0], lines[1]), ("greedy, max-new-tokens 6", "sampling, temperature 0.8, max-new-tokens 6"));
    assert!(lines[2].contains("temperature") && lines[3] == lines[1], "{stderr}");
    let back = run(&["/set temperature 0.8", "/set temperature default", "/set no-such 1", "/nonsense", "/help"]);
    for words in ["greedy, max-new-tokens 3", "no parameter \"no-such\"", "no command /nonsense", "/set NAME VALUE"] {
        assert!(back.stderr().contains(words), "{words} is not in {}", back.stderr());
    }
    for (name, meant) in [("n", "max-new-tokens"), ("temp", "temperature"), ("topp", "top-p"), ("do_sample", "sample")]
    {
        let stderr = run(&[&format!("/set {name} 1")]).stderr();
        assert!(stderr.contains(&format!("/set {meant} was perhaps meant")), "{name}: {stderr}");
    }
    for quit in ["/quit", "/exit"] {
        let done = run(&[quit, "Once upon a"]);
        assert_eq!((done.stdout(), done.stderr()), (String::new(), String::new()));
    }
    for command in ["/more", "/retry", "/undo", "/save x", "/save"] {
        let stderr = run(&[command]).stderr();
        assert!(stderr.starts_with("error: ") && stderr.lines().count() == 1, "{command}: {stderr}");
    }
}

/// Between two `"""`, a text has several lines; a path is a text.
#[test]
fn a_session_takes_texts_of_several_lines() {
    let once = |prompt: &str| gpt2(&["generate", "-m", "demo", prompt, "-n", "3"]).succeeds().stdout();
    for (typed, text) in [
        ("\"\"\"Once\nupon a\"\"\"", "Once\nupon a"),
        ("\"\"\"\nOnce\n\n\nupon a\n\"\"\"", "Once\n\n\nupon a"),
        ("\"\"\"/more\"\"\"", "/more"),
        ("/usr/bin is", "/usr/bin is"),
    ] {
        let interactive = ["generate", "-m", "demo", "--interactive", "-n", "3"];
        assert_eq!(gpt2(&interactive).stdin(format!("{typed}\n")).succeeds().stdout(), once(text), "{typed}");
    }
}

#[test]
fn log_probabilities_name_tokens() {
    let pieces = ["generate", "-m", "demo", "Once upon a", "-n", "1", "--logprobs", "1", "--pieces"];
    assert!(gpt2(&pieces).succeeds().stdout().contains("Ġtime "));
    let quoted = gpt2(&pieces[..8]).succeeds().stdout();
    assert!(quoted.contains("\" time\""), "{quoted}");
    gpt2(&["generate", "-m", "demo", "Once", "--pieces"]).fails(2, &["--pieces"]);
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_the_partial_text_and_exits_with_130() {
    use std::io::Read;
    let mut command =
        gpt2(&["generate", "-m", "demo", "Once upon a", "-n", "100000", "--on-context-limit", "crop"]).into_command();
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut text = vec![0u8; 40];
    stdout.read_exact(&mut text).unwrap();
    // SAFETY: sends a signal to the child that was just started.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
    stdout.read_to_end(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(text.starts_with(b"Once upon a time") && text.ends_with(b"\n"), "{}", String::from_utf8_lossy(&text));
}

/// A thread without a core would make the others wait.
#[test]
fn threads_are_at_most_the_cores() {
    let cores = std::thread::available_parallelism().unwrap();
    let note = format!("note: using {cores} threads, not 1024, since this process may use no more cores");
    let run =
        |arguments: &[&str]| gpt2(&[&["generate", "-m", "demo", "Once", "-n", "2"], arguments].concat()).succeeds();
    let many = run(&["--threads", "1024"]);
    assert_eq!(many.stderr().matches(&note).count(), 1, "{}", many.stderr());
    assert_eq!(many.stdout(), run(&["--threads", "1"]).stdout());
    assert_eq!(run(&["--threads", "1024", "--quiet"]).stderr(), "");
    assert_eq!(run(&["--threads", "1"]).stderr(), "");
}

/// transformers' `generate` returns prompt and completion in one list.
#[test]
fn the_joined_ids_are_those_of_the_prompt_and_the_completion() {
    let beams = ["generate", "-m", "demo", "Once upon", "-n", "3", "--num-beams", "2", "--num-return-sequences", "2"];
    let json = gpt2(&[&beams[..], &["--format", "json"]].concat()).succeeds().json();
    for sequence in json["sequences"].as_array().unwrap() {
        let ids = [&json["prompt_ids"], &sequence["ids"]].map(|ids| ids.as_array().unwrap().as_slice()).concat();
        assert_eq!(sequence["all_ids"], serde_json::Value::from(ids));
    }
    let rows =
        gpt2(&["generate", "-m", "demo", "--input", "-", "--max-length", "5"]).stdin("{\"ids\": [7454, 2402]}\n");
    let all = rows.succeeds().json_lines()[0]["sequences"][0]["all_ids"].clone();
    assert_eq!(all.as_array().unwrap().len(), 5, "--max-length counts the prompt");
}

/// The prompt is dim, the completion is not.
#[cfg(unix)]
#[test]
fn a_session_tells_the_completion_from_the_prompt() {
    let plain = gpt2(&["generate", "-m", "demo", "Once upon a", "-n", "3"]).succeeds().stdout();
    let completion = plain.strip_prefix("Once upon a").unwrap();
    let interactive = ["generate", "-m", "demo", "--interactive", "-n", "3"];
    let (_, text) = gpt2(&interactive).stdin("Once upon a\n").on_terminal();
    assert_eq!(text, format!("\x1b[2mOnce upon a\x1b[0m{completion}"));
}
