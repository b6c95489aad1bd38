//! The first minutes: what `gpt2` alone says, and mistakes whose messages have the command to type next.

use crate::harness::{Run, gpt2, tiny};

#[test]
fn gpt2_alone_says_what_to_try() {
    let done = gpt2::<&str>(&[]).succeeds();
    let text = done.stdout();
    assert!(text.lines().count() <= 15 && text.lines().all(|line| line.chars().count() <= 90), "{text}");
    assert_eq!(done.stderr(), "note: a text on stdin is continued with: ... | gpt2 generate\n");
    #[cfg(unix)]
    {
        let folder = tempfile::tempdir().unwrap();
        let commands = text.lines().filter_map(|line| line.strip_prefix("  ").filter(|line| line.contains("-m demo")));
        let commands: Vec<&str> = commands.collect();
        assert_eq!(commands.len(), 3, "{text}");
        for command in commands {
            assert!(!crate::harness::shell(command, folder.path()).succeeds().stdout().is_empty(), "{command}");
        }
        let (code, shown) = gpt2::<&str>(&[]).typed_on_terminal();
        assert_eq!((code, shown.replace('\r', "")), (Some(0), text));
    }
}

/// The program's page begins with the same command.
#[test]
fn the_welcome_and_the_readme_begin_alike() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let welcome = gpt2::<&str>(&[]).succeeds().stdout();
    let arguments = readme.lines().find_map(|line| line.strip_prefix("$ cargo run --release -- ")).unwrap();
    let arguments = arguments.replace("--model", "-m").replace("--prompt ", "");
    assert!(welcome.contains(&format!("  gpt2 {arguments}\n")), "{arguments}\n{welcome}");
}

/// The command at the end of the message works as it is.
#[track_caller]
fn advises(run: Run, code: i32, words: &[&str], command: &str) {
    let done = run.fails(code, words);
    let stderr = done.stderr();
    let first = stderr.lines().next().unwrap();
    assert!(first.ends_with(command), "`{command}` does not end\n{stderr}");
    #[cfg(unix)]
    {
        let folder = tempfile::tempdir().unwrap();
        crate::harness::shell(command, folder.path()).succeeds();
    }
}

#[test]
fn a_model_that_cannot_be_had_comes_with_one_that_can() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().to_str().unwrap();
    let trying = "; to try the built-in model: ";
    for (arguments, words, command) in [
        (&["generate", "-m", "nosuch", "Once upon", "-n", "2"][..], trying, "gpt2 generate -m demo \"Once upon\" -n 2"),
        (&["topk", "-m", "./nosuch", "Once", "-k", "2"], trying, "gpt2 topk -m demo Once -k 2"),
        (&["score", "-m", "nosuch.gguf", "Once upon"], trying, "gpt2 score -m demo \"Once upon\""),
        (&["-m", empty, "info"], trying, "gpt2 info -m demo"),
        (&["generate", "-m", "dmeo", "Once", "-n", "2"], "did you mean demo? ", "gpt2 generate -m demo Once -n 2"),
        (&["tokenize", "-m", "nosuch", "It's"], trying, "gpt2 tokenize -m demo \"It's\""),
    ] {
        advises(gpt2(arguments), 1, &[words], command);
    }
    let other = folder.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("config.json"), r#"{"model_type": "bert"}"#).unwrap();
    let words = &["model_type is \"bert\"; this program runs `gpt2` models", trying];
    let command = "gpt2 generate -m demo Once -n 2";
    advises(gpt2(&["generate", "-m", other.to_str().unwrap(), "Once", "-n", "2"]), 1, words, command);
    // The demo cannot be in place of what a file was compressed with.
    let file = tiny("base").join("config.json").display().to_string();
    let done = gpt2(&["decompress", "-m", "./nosuch", &file]).output();
    assert!(!done.stderr().contains("-m demo"), "{}", done.stderr());
}

/// What most people type first, without a network.
#[cfg(feature = "hub")]
#[test]
fn without_the_network_the_built_in_model_remains() {
    let words = &["cannot reach the hub for `openai-community/gpt2`: http://127.0.0.1:9", "without the network"][..];
    let command = "gpt2 generate -m demo \"The theory of relativity is\" -n 3";
    advises(gpt2(&["generate", "The theory of relativity is", "-n", "3"]), 1, words, command);
    let words = &["is not in the cache", "without the network"][..];
    advises(gpt2(&["topk", "Once", "--offline"]), 1, words, "gpt2 topk -m demo Once");
    let run = gpt2(&["topk", "-m", "owner/name", "Once"]).env("HF_HUB_OFFLINE", "1");
    advises(run, 1, words, "gpt2 topk -m demo Once");
}

#[cfg(unix)]
#[test]
fn a_command_without_a_text_shows_one_with_it() {
    for name in ["generate", "topk", "score", "trace", "embed", "tokenize"] {
        let (code, shown) = gpt2(&[name]).typed_on_terminal();
        let advice = format!("or on stdin, such as: gpt2 {name} \"Once upon a time\"\n");
        assert!(code == Some(2) && shown.ends_with(&advice), "{shown}");
    }
    let (_, shown) = gpt2(&["score", "-m", "demo"]).typed_on_terminal();
    assert!(shown.ends_with(", such as: gpt2 score -m demo \"Once upon a time\"\n"), "{shown}");
}

#[test]
fn help_is_a_subcommand_too() {
    assert_eq!(gpt2(&["help", "topk"]).succeeds().stdout(), gpt2(&["topk", "--help"]).succeeds().stdout());
    gpt2(&["help", "foo"]).fails(2, &["unrecognized subcommand 'foo'"]);
}

#[test]
fn flags_without_a_subcommand_are_a_text_to_continue() {
    gpt2(&["-m", "demo", "Once upon", "-n", "2"])
        .fails(2, &["to continue a text: gpt2 generate -m demo \"Once upon\" -n 2"]);
    gpt2(&["--prompt", "Once"]).fails(2, &["to continue a text: gpt2 generate --prompt Once"]);
}

/// A shell takes the text of several lines as the message writes it.
#[cfg(unix)]
#[test]
fn a_text_of_several_lines_comes_back_for_a_shell() {
    let folder = tempfile::tempdir().unwrap();
    let text = "It's here:\n\ta \\ and \u{1}";
    let done = gpt2(&[text]).fails(2, &["to continue a text: gpt2 generate $'"]);
    let stderr = done.stderr();
    let quoted = stderr.lines().find_map(|line| line.split_once("gpt2 generate ")).unwrap().1;
    std::fs::write(folder.path().join("line.sh"), format!("printf %s {quoted}")).unwrap();
    assert_eq!(crate::harness::shell("bash line.sh", folder.path()).succeeds().stdout(), text);
    gpt2(&[&"word\n".repeat(99)]).fails(2, &["to continue a text: gpt2 generate TEXT\n"]);
}

/// The text of a pipe cannot be repeated; that it came from one can.
#[test]
fn a_piped_text_stays_one_in_the_command_to_type() {
    gpt2(&["generate", "-m", "nosuch", "-n", "2"]).stdin("Once").fails(1, &[": ... | gpt2 generate -m demo -n 2"]);
}

#[test]
fn a_missing_assistant_is_told_from_the_model() {
    let done = gpt2(&["generate", "-m", "demo", "Once", "--assistant-model", "gtp2"])
        .fails(1, &["--assistant-model gtp2", "`gtp2` is not a model; did you mean gpt2?"]);
    assert!(!done.stderr().contains("gpt2 generate"), "{}", done.stderr());
}
