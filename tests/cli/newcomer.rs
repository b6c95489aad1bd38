//! What people meet in their first hour: files that are in the way, tips, notes about what is left out or replaced.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{gpt2, tiny};

const LONG: &str = "one two three four five six seven eight nine ten ";

/// A pipe gets every token of a text of any length; a terminal gets those of a long one with a flag, and says so.
#[test]
fn a_long_score_lists_its_tokens() {
    let text = LONG.repeat(8);
    let count = gpt2(&["tokenize", "--count", &text]).succeeds().stdout().trim().parse::<usize>().unwrap();
    let table = |text: &str| text.lines().filter(|line| line.contains("  \" ") || line.contains("  \"one")).count();
    let piped = gpt2(&["score", "-m", "demo", &text]).succeeds().stdout();
    assert_eq!((count > 40, table(&piped)), (true, count), "{piped}");
    #[cfg(unix)]
    {
        let (code, shown) = gpt2(&["score", "-m", "demo", &text]).on_terminal();
        assert_eq!((code, table(&shown)), (Some(0), 0), "{shown}");
        assert!(shown.contains(&format!("{count} tokens: -v or a pipe (| less) lists each")), "{shown}");
        let (_, shown) = gpt2(&["score", "-m", "demo", &text, "-v"]).on_terminal();
        assert!(shown.matches(" tokens: -v").count() == 0 && shown.matches("\" seven\"").count() == 8, "{shown}");
        let (_, shown) = gpt2(&["score", "-m", "demo", "Once upon a time"]).on_terminal();
        assert!(!shown.contains("-v or a pipe"), "{shown}");
    }
}

/// What an interrupted run has not scored is not shown, and its record says that it was interrupted.
#[cfg(unix)]
#[test]
fn an_interrupted_score_shows_what_is_scored() {
    use std::io::{BufRead, BufReader, Read};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.txt");
    std::fs::write(&path, LONG.repeat(20_000)).unwrap();
    for format in ["text", "json"] {
        let flags = ["score", "-m", "demo", "--file", path.to_str().unwrap(), "--stride", "1", "--format", format];
        let mut command = gpt2(&[&flags[..], &["-v"]].concat()).into_command();
        command.stdin(std::process::Stdio::null());
        let command = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        // "loaded demo in ..."
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        stderr.read_line(&mut String::new()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(700));
        // SAFETY: the child runs, since it has not been waited for.
        unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
        let mut shown = String::new();
        child.stdout.take().unwrap().read_to_string(&mut shown).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130));
        if format == "json" {
            let json: Value = serde_json::from_str(&shown).unwrap();
            assert_eq!(json["interrupted"], true);
        } else {
            assert!(shown.lines().count() < 50_000, "{} lines", shown.lines().count());
        }
    }
    assert_eq!(
        gpt2(&["score", "-m", "demo", "Once upon", "--format", "json"]).succeeds().json().get("interrupted"),
        None
    );
}

/// `tokenize` uses the tokenizer of the model that the environment names, as all other subcommands do.
#[test]
fn the_environment_names_the_tokenizers_model() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizer/word_piece");
    let ids = |arguments: &[&str], model: &Path| {
        let run = gpt2(&[&["tokenize", "--format", "ids", "Once upon a time"], arguments].concat());
        run.env("GPT2_MODEL", model).succeeds().stdout()
    };
    let flag = gpt2(&["tokenize", "--format", "ids", "Once upon a time", "-m", own.to_str().unwrap()]);
    let (flag, none) = (flag.succeeds().stdout(), Path::new(""));
    assert_ne!(flag, ids(&[], none));
    assert_eq!(ids(&[], &own), flag);
    assert_eq!(ids(&["-m", "demo"], &own), ids(&[], none), "a flag goes first");
    assert_eq!(ids(&["--tokenizer", "gpt2"], &own), ids(&[], none), "a flag goes first");
    assert_eq!(ids(&[], Path::new("demo")), ids(&[], none));
}

/// What `trace --save` writes beside a model is not taken for weights.
#[test]
fn saved_activations_beside_a_model_are_no_weights() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    gpt2(&["convert", "-m", "demo", "--to", "q8_0", &at("m.gguf")]).succeeds();
    let ids = ["--ids", "464 4583 286", "-n", "4"];
    let expected = gpt2(&[&["generate", "-m", &at("m.gguf")][..], &ids].concat()).succeeds().stdout();
    for name in ["a.npz", "a.safetensors", "z.npz", "z.safetensors"] {
        gpt2(&["trace", "-m", "demo", "Once upon", "--save", &at(name)]).succeeds();
        let found = gpt2(&[&["generate", "-m", &at("")][..], &ids].concat()).succeeds().stdout();
        assert_eq!(found, expected, "{name}");
    }
    // In another folder, weights of another name beside activations.
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::copy(tiny("base").join("model.safetensors"), at("weights.safetensors")).unwrap();
    std::fs::copy(tiny("base").join("config.json"), at("config.json")).unwrap();
    let model = folder.path().to_str().unwrap();
    gpt2(&["trace", "-m", model, "--ids", "1 2 3", "--save", at("cache.safetensors").to_str().unwrap()]).succeeds();
    gpt2(&["trace", "-m", model, "--ids", "1 2 3"]).succeeds();
    // Two models stay two.
    std::fs::copy(at("weights.safetensors"), at("others.safetensors")).unwrap();
    gpt2(&["info", "-m", model]).fails(1, &["`others.safetensors` and `weights.safetensors`"]);
}

#[test]
fn a_lone_token_looks_at_itself() {
    let one = gpt2(&["trace", "-m", "demo", "Once"]).succeeds().stdout();
    assert!(one.contains("from the only token"), "{one}");
    assert_eq!((one.matches(" S100").count(), one.contains("-0")), (12, false), "{one}");
    let two = gpt2(&["trace", "-m", "demo", "Once upon"]).succeeds().stdout();
    assert!(two.contains("on average over the tokens after the first"), "{two}");
}

/// On a full disk there is one error, ours.
#[cfg(unix)]
#[test]
fn a_file_that_does_not_fit_is_one_error() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["x.npz", "x.safetensors"] {
        // Blocks of 512 bytes; the signal would end the program.
        let line = format!("trap '' XFSZ; ulimit -f 20; exec gpt2 trace -m demo 'Once upon a time' --save {name}");
        let done = crate::harness::shell(&line, folder.path()).fails(1, &["cannot write x."]);
        let stderr = done.stderr();
        assert!(stderr.starts_with("error: ") && !stderr.contains("Zip"), "{stderr}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// The space and the first byte of the character are one token.
#[test]
fn a_page_keeps_the_space_of_a_split_character() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.html");
    let done = gpt2(&["tokenize", "a 漢 b", "--html", path.to_str().unwrap()]).succeeds();
    assert_eq!(done.stdout(), "", "the page was asked for, and not the table");
    let page = std::fs::read_to_string(&path).unwrap();
    let data = page.split_once(r#"id="data">"#).unwrap().1.split_once("</script>").unwrap().0;
    let data: Value = serde_json::from_str(data).unwrap();
    assert_eq!(data["text"]["spans"], json!([["a", 1], [" 漢", 3], [" b", 1]]));
    let table = gpt2(&["tokenize", "a 漢 b", "--html", path.to_str().unwrap(), "--format", "text"]).succeeds();
    assert_eq!(table.stdout(), gpt2(&["tokenize", "a 漢 b"]).succeeds().stdout());
}

/// Terminal, picture and page mark the same cells of the lens: those that say what the last block says.
#[test]
fn the_lens_marks_the_same_cells_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lens.svg");
    let text = "Once upon a time there was";
    let json = gpt2(&["trace", "-m", "demo", text, "--lens", "--format", "json"]).succeeds().json();
    let layers = json["lens"].as_array().unwrap();
    let says = |layer: &Value, i: usize| layer["positions"][i]["top"][0]["id"].clone();
    let (mut cells, mut runs) = (0, 0);
    for i in 0..json["ids"].as_array().unwrap().len() {
        let marked: Vec<bool> = layers.iter().map(|layer| says(layer, i) == says(layers.last().unwrap(), i)).collect();
        cells += marked.iter().filter(|is| **is).count();
        runs += marked.chunk_by(|one, next| one == next).filter(|run| run[0]).count();
    }
    gpt2(&["trace", "-m", "demo", text, "--lens", "--svg", path.to_str().unwrap()]).succeeds();
    let svg = std::fs::read_to_string(&path).unwrap();
    assert_eq!(svg.matches("class=\"mark\"").count(), runs);
    let coloured = gpt2(&["trace", "-m", "demo", text, "--lens", "--color", "always"]).succeeds().stdout();
    assert_eq!(coloured.matches("\u{1b}[32m").count(), cells);
}

/// Written files are named on stderr, and no command replaces what it reads.
#[test]
fn convert_reports_as_the_others_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.gguf");
    let file = path.to_str().unwrap();
    let done = gpt2(&["convert", "-m", "demo", "--to", "q8_0", file]).succeeds();
    assert_eq!(done.stdout(), "");
    let line = format!("wrote {file}: demo as gguf, q8_0, ");
    assert!(done.stderr().starts_with(&line) && done.stderr().ends_with(" MB\n"), "{}", done.stderr());
    assert_eq!(gpt2(&["convert", "-m", "demo", "--to", "q8_0", file, "-q"]).succeeds().stderr(), "");
    let before = std::fs::read(&path).unwrap();
    gpt2(&["convert", "-m", file, "--to", "f16", file]).fails(2, &["d.gguf is read by this run", "another file"]);
    assert!(std::fs::read(&path).unwrap() == before);
}

#[test]
fn results_that_are_replaced_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rows.jsonl"), "{\"id\": 1, \"text\": \"a\"}\n{\"id\": 2, \"text\": \"b\"}\n")
        .unwrap();
    let run = |more: &[&str]| {
        let flags = ["tokenize", "--input", "rows.jsonl", "--output", "out.jsonl"];
        gpt2(&[&flags[..], more].concat()).current_dir(folder.path()).succeeds().stderr()
    };
    assert!(!run(&[]).contains("replaced"));
    let again = run(&[]);
    assert!(again.contains("the results of 2 rows of an earlier run were replaced; --resume"), "{again}");
    assert!(!run(&["--resume"]).contains("replaced"));
    assert_eq!(run(&["-q"]), "");
}

/// A subcommand that does not exist, by other programs' names, misspelt, or a text.
#[test]
fn an_unknown_subcommand_comes_with_one_tip() {
    for (arguments, tip) in [
        (&["generat", "Hi"][..], "a similar subcommand exists: 'generate'"),
        (&["Score", "Hi"], "a similar subcommand exists: 'score'"),
        (&["tok", "Hi"], "a similar subcommand exists: 'tokenize'"),
        (&["comp"], "a similar subcommand exists: 'compress'"),
        (&["version"], "gpt2 --version"),
        (&["perplexity", "Hi"], "gpt2 score TEXT"),
        (&["chat"], "gpt2 generate --interactive"),
        (&["list"], "-m takes demo, gpt2"),
        (&["encode", "Hi"], "gpt2 tokenize TEXT --format ids"),
        (&["decode", "464"], "gpt2 tokenize --decode IDS"),
        (&["zzzz"], "gpt2 --help lists the subcommands; to continue a text: gpt2 generate \"zzzz\""),
        (&["Once upon a time"], "to continue a text: gpt2 generate \"Once upon a time\""),
        (&["Once", "upon", "a", "time", "-n", "3"], "to continue a text: gpt2 generate \"Once upon a time\""),
    ] {
        let done = gpt2(arguments).fails(2, &["unrecognized subcommand", tip]);
        assert_eq!(done.stderr().matches("tip:").count(), 1, "{}", done.stderr());
        assert!(!done.stderr().contains("convert"), "{}", done.stderr());
    }
}

#[test]
fn a_flag_of_other_programs_comes_with_a_tip() {
    for (arguments, tip) in [
        (&["generate", "Hi", "--greedy"][..], "decoding is greedy unless"),
        (&["generate", "Hi", "--stream"], "the text appears as it is decoded: leave it out"),
        (&["generate", "Hi", "--n_predict", "3"], "the flag is called --max-new-tokens"),
        (&["generate", "Hi", "--max_new_tokens", "3"], "the flag is called --max-new-tokens"),
        (&["generate", "Hi", "--n", "3"], "the flag is called -n"),
        (&["generate", "Hi", "-temperature", "1"], "the flag is called --temperature"),
        (&["topk", "Hi", "--k", "3"], "the flag is called -k"),
        (&["topk", "Hi", "--topk", "3"], "the flag is called --top-k"),
        (&["generate", "Hi", "--fp16"], "the flag is called --dtype f16"),
    ] {
        let done = gpt2(arguments).fails(2, &[tip]);
        assert_eq!(done.stderr().matches("tip:").count(), 1, "{}", done.stderr());
    }
    let none = gpt2(&["generate", "Hi", "--zzzz"]).fails(2, &["unexpected argument '--zzzz' found"]);
    assert!(!none.stderr().contains("tip:"), "{}", none.stderr());
}

/// `-h` at the start of a word is no request for help.
#[test]
fn a_word_that_begins_like_help_is_no_request_for_it() {
    for text in ["-hello", "-Vienna", "-qhello"] {
        for arguments in [&["tokenize", text][..], &["generate", text], &["score", text]] {
            let found = format!("unexpected argument '{text}' found");
            let done = gpt2(arguments).fails(2, &[&found, &format!("--prompt='{text}'")]);
            assert_eq!(done.stdout(), "");
        }
        assert_eq!(gpt2(&["tokenize", "--count", "--prompt", text]).succeeds().stdout().lines().count(), 1);
        assert_eq!(gpt2(&["tokenize", "--count", "--", text]).succeeds().stdout().lines().count(), 1);
    }
    for arguments in [&["-h"][..], &["tokenize", "-h"], &["tokenize", "-vh"], &["-qV"], &["tokenize", "-V"]] {
        assert!(!gpt2(arguments).succeeds().stdout().is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_session_speaks_of_its_parameters_and_files() {
    let folder = tempfile::tempdir().unwrap();
    let run = |lines: &[&str]| {
        let run = gpt2(&["generate", "-m", "demo", "--interactive", "-n", "2"]).current_dir(folder.path());
        run.stdin(lines.join("\n") + "\n").succeeds().stderr()
    };
    let wrong = run(&["/set temperature abc"]);
    assert!(wrong.starts_with("error: temperature takes a number from ") && wrong.contains(", not abc"), "{wrong}");
    let saved = run(&["Once", "/save s.txt", "/save s.txt"]);
    assert_eq!(saved.matches("wrote s.txt").count(), 2, "{saved}");
    assert_eq!(saved.matches("in place of an earlier file").count(), 1, "{saved}");
}

/// No file is written where there is none, and no name of a temporary file is shown.
#[test]
fn a_folder_that_takes_no_files_is_named_alone() {
    if !Path::new("/proc/self").is_dir() {
        return;
    }
    let done = gpt2(&["trace", "-m", "demo", "Once", "--save", "/proc/self/x.npz"]).fails(1, &["/proc/self/x.npz"]);
    assert!(!done.stderr().contains(".tmp"), "{}", done.stderr());
}

/// What cannot be written is an error, and files are no less written.
#[cfg(any(target_os = "linux", target_os = "macos"))]
#[test]
fn a_closed_stdout_is_an_error() {
    use crate::harness::shell;
    let folder = tempfile::tempdir().unwrap();
    for command in [
        "generate -m demo Once -n 2",
        "generate -m demo Once -n 2 --format json",
        "topk -m demo Once",
        "score -m demo Once",
        "tokenize Once",
        "tokenize --decode 464",
        "info -m demo",
        "--version",
        "tokenize --help",
        "completions bash",
    ] {
        shell(&format!("gpt2 {command} >&-"), folder.path()).fails(1, &["cannot write to stdout: it is closed"]);
    }
    shell("gpt2 convert -m demo --to q8_0 d.gguf >&-", folder.path()).succeeds();
    assert!(folder.path().join("d.gguf").is_file());
    shell("gpt2 tokenize Once > /dev/null", folder.path()).succeeds();
}

#[cfg(unix)]
#[test]
fn bars_fill_the_terminal() {
    // 100 columns.
    let (_, shown) = gpt2(&["topk", "-m", "demo", "Once upon a", "-k", "2"]).on_terminal();
    assert!(shown.contains(&"█".repeat(37)) && !shown.contains(&"█".repeat(38)), "{shown}");
    let piped = gpt2(&["topk", "-m", "demo", "Once upon a", "-k", "2"]).env("COLUMNS", "200").succeeds().stdout();
    assert!(piped.contains(&"█".repeat(30)) && !piped.contains(&"█".repeat(31)), "{piped}");
}

/// Ids are a text in numbers; only `--decode` asks for its words.
#[test]
fn ids_have_the_table_of_their_text() {
    let table = gpt2(&["tokenize", "The theory"]).succeeds().stdout();
    assert_eq!(gpt2(&["tokenize", "--ids", "464 4583"]).succeeds().stdout(), table);
    assert_eq!(gpt2(&["tokenize", "--ids", "464 4583", "--count"]).succeeds().stdout(), "2\n");
}

#[cfg(unix)]
#[test]
fn an_interrupted_beam_search_says_that_it_has_nothing() {
    use std::io::{BufRead, BufReader, Read};
    let flags = ["generate", "-m", "demo", "Once", "--num-beams", "200", "-n", "500", "--ignore-eos", "-v"];
    let mut command = gpt2(&flags).into_command();
    let command = command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    // "loaded demo in ..."
    stderr.read_line(&mut String::new()).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    // SAFETY: the child runs, since it has not been waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
    let mut said = String::new();
    stderr.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said}");
    assert!(said.contains("interrupted: nothing of a search over beams is settled before it ends"), "{said}");
}

/// Pages are read on phones too, which cannot hover.
#[test]
fn pages_speak_of_pointing_and_tapping() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.html");
    for command in [
        &["tokenize", "Once"][..],
        &["generate", "Once", "-n", "2", "--temperature", "0.8", "--seed", "1"],
        &["topk", "Once", "--all"],
        &["score", "Once upon"],
        &["trace", "Once"],
    ] {
        gpt2(&[command, &["-m", "demo", "--html", file.to_str().unwrap()]].concat()).succeeds();
        let page = std::fs::read_to_string(&file).unwrap();
        let (scripts, _) = page.split_once(r#"id="data">"#).unwrap();
        let words = scripts.to_lowercase();
        assert!(!words.contains("hover over") && words.contains("tap it"), "{command:?}");
        assert!(!words.contains("the model's own, before penalties"), "{command:?}");
    }
}
