//! What a run goes by: flags, environment variables, the config file, defaults.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Run, gpt2, tiny};

/// The folder of a user's config files, of which this is ours.
fn home(config: &str) -> TempDir {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("gpt2")).unwrap();
    std::fs::write(config_file(&home), config).unwrap();
    home
}

fn config_file(home: &TempDir) -> PathBuf {
    home.path().join("gpt2").join("config.toml")
}

fn with_config(home: &TempDir, arguments: &[&str]) -> Run {
    gpt2(arguments).env("XDG_CONFIG_HOME", home.path())
}

/// Each setting's value and where it comes from.
#[track_caller]
fn shown(run: Run) -> HashMap<String, (Value, String)> {
    let record = run.succeeds().json();
    let rows = record["settings"].as_array().unwrap().iter().map(|row| {
        let text = |key: &str| row[key].as_str().unwrap().to_owned();
        (text("name"), (row["value"].clone(), text("from")))
    });
    rows.collect()
}

const SHOW: [&str; 4] = ["info", "--settings", "--format", "json"];

#[test]
fn flags_go_before_the_environment_and_that_before_the_file() {
    let config = "model = 'of/file'\ndevice = 'cpu'\ndtype = 'bf16'\nthreads = 1\ncolor = 'always'\n";
    let home = home(config);
    for (name, of_file, variable, asked, of_variable, flag, of_flag) in [
        ("model", json!("of/file"), "GPT2_MODEL", "of/variable", json!("of/variable"), "-m demo", json!("demo")),
        ("device", json!("cpu"), "GPT2_DEVICE", "cuda", json!("cuda:0"), "--device auto", json!("auto")),
        ("dtype", json!("bf16"), "GPT2_DTYPE", "q8_0", json!("q8_0"), "--dtype f32", json!("f32")),
        ("dtype", json!("bf16"), "GPT2_DTYPE", "f16", json!("f16"), "--quantize q4_k", json!("q4_k")),
        ("threads", json!(1), "GPT2_THREADS", "2", json!(2), "--threads 3", json!(3)),
        ("color", json!("always"), "NO_COLOR", "1", json!("never"), "--color auto", json!("auto")),
        ("color", json!("always"), "CLICOLOR", "0", json!("never"), "--color=always", json!("always")),
    ] {
        let from = |run: Run| shown(run)[name].clone();
        let path = config_file(&home).display().to_string();
        assert_eq!(from(with_config(&home, &SHOW)), (of_file, path), "{name}");
        let found = from(with_config(&home, &SHOW).env(variable, asked));
        assert_eq!(found, (of_variable, variable.to_owned()), "{name}");
        let flags: Vec<&str> = SHOW.into_iter().chain(flag.split(' ')).collect();
        let long = match flag.split([' ', '=']).next() {
            Some("-m") => "--model".to_owned(),
            long => long.unwrap_or_default().to_owned(),
        };
        assert_eq!(from(with_config(&home, &flags).env(variable, asked)), (of_flag, long), "{name}");
        // An empty variable says nothing.
        assert_ne!(from(with_config(&home, &SHOW).env(variable, "")).1, variable, "{name}");
    }
}

#[test]
fn without_any_the_defaults_count() {
    let rows = shown(gpt2(&SHOW));
    for (name, value) in [("model", "gpt2"), ("device", "auto"), ("dtype", "f32"), ("color", "auto")] {
        assert_eq!(rows[name], (json!(value), "default".to_owned()), "{name}");
    }
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(rows["threads"], (json!(cores), "default".to_owned()));
    assert_eq!(rows["offline"], (json!(false), "default".to_owned()));
    let cache = Path::new("/nonexistent/huggingface").join("hub").display().to_string();
    assert_eq!(rows["cache"], (json!(cache), "HF_HOME".to_owned()));
    #[cfg(feature = "hub")]
    assert_eq!(rows["endpoint"], (json!("http://127.0.0.1:9"), "HF_ENDPOINT".to_owned()));
}

/// What else runs depend on is shown beside them, without secrets.
#[test]
fn the_table_shows_each_setting_and_the_file() {
    let home = home("model = 'demo'\n");
    let run = with_config(&home, &["info", "--settings", "--offline", "--threads", "1"]);
    let run = run.env("HF_HUB_CACHE", "/a cache").env("HF_ENDPOINT", "http://ann:secret@hub.invalid/x?key=secret");
    let table = run.env("GPT2_SIMD", "portable").succeeds().stdout();
    let rows: Vec<Vec<&str>> =
        table.lines().map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()).collect();
    let path = config_file(&home).display().to_string();
    for row in [
        ["setting", "value", "from"],
        ["model", "demo", &path],
        ["dtype", "f32", "default (as stored if the file is quantised)"],
        ["threads", "1", "--threads"],
        ["offline", "yes", "--offline"],
        ["cache", "/a cache", "HF_HUB_CACHE"],
        ["simd", "portable", "GPT2_SIMD"],
    ] {
        assert!(rows.iter().any(|found| found == &row), "{row:?} is not in\n{table}");
    }
    assert!(table.ends_with(&format!("\nconfig file: {path}\n")) && !table.contains("secret"), "{table}");
    // Where a file would be counts most before there is one.
    let nothing = home.path().join("nothing");
    let none = gpt2(&["info", "--settings"]).env("XDG_CONFIG_HOME", &nothing).succeeds().stdout();
    let path = nothing.join("gpt2").join("config.toml");
    assert!(none.ends_with(&format!("config file: {}, which does not exist\n", path.display())), "{none}");
    for (flag, value) in [("HF_HUB_OFFLINE", "1"), ("TRANSFORMERS_OFFLINE", "yes")] {
        assert_eq!(shown(gpt2(&SHOW).env(flag, value))["offline"], (json!(true), flag.to_owned()));
    }
    gpt2(&["info", "--settings", "--tensors"]).fails(2, &["--settings", "--tensors"]);
}

/// `GPT2_CONFIG` names another file, or none.
#[test]
fn a_variable_names_another_file_or_none() {
    let home = home("model = 'demo'\n");
    let other = home.path().join("other.toml");
    std::fs::write(&other, "\u{feff}# of a byte order mark\r\nmodel = \"of/other\"\r\n").unwrap();
    let run = |value: &Path| with_config(&home, &SHOW).env("GPT2_CONFIG", value);
    assert_eq!(shown(run(&other))["model"], (json!("of/other"), other.display().to_string()));
    let file = run(&other).succeeds().json()["config_file"].clone();
    assert_eq!(file, json!({"path": other.display().to_string(), "from": "GPT2_CONFIG", "exists": true}));
    assert_eq!(shown(run(Path::new("")))["model"].1, "default");
    let file = run(Path::new("")).succeeds().json()["config_file"].clone();
    assert_eq!(file, json!({"path": null, "from": "GPT2_CONFIG", "exists": false}));
    let missing = home.path().join("missing.toml");
    run(&missing)
        .fails(2, &["GPT2_CONFIG names ", "missing.toml, which does not exist", "GPT2_CONFIG= for no config file"]);
    run(home.path()).fails(2, &["GPT2_CONFIG names ", "which is a folder: name the file in it"]);
}

/// In a service's file or in quotes, no shell does it.
#[cfg(unix)]
#[test]
fn the_home_folder_in_a_variable_is_found() {
    let home = home("model = 'demo'\n");
    let run = |arguments: &[&str]| gpt2(arguments).env("HOME", home.path());
    let found = shown(run(&SHOW).env("GPT2_CONFIG", "~/gpt2/config.toml"));
    assert_eq!(found["model"], (json!("demo"), config_file(&home).display().to_string()));
    let model = home.path().join("m").display().to_string();
    assert_eq!(shown(run(&SHOW).env("GPT2_MODEL", "$HOME/m"))["model"], (json!(model), "GPT2_MODEL".to_owned()));
    let expanded = "`~/m`: no such folder or file; the shell replaces ~ only where it begins a word";
    run(&["info", "--model=~/m"]).fails(1, &[expanded]);
}

/// Another person's text in a table leaves the columns where they are.
#[test]
fn a_value_cannot_break_the_table() {
    let table = gpt2(&["info", "--settings"]).env("GPT2_MODEL", "a\tb\nc").succeeds().stdout();
    let place = |line: &str, word: &str| line.find(word).unwrap_or_else(|| panic!("{word} in {table}"));
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(place(lines[0], "from"), place(lines[1], "GPT2_MODEL"), "{table}");
    assert!(lines[1].contains(r"a\tb\nc"), "{table}");
}

/// A model in the file suffices for every subcommand.
#[test]
fn the_file_names_the_model_of_every_subcommand() {
    let home = home("model = 'demo'\nthreads = 1\n");
    let text = home.path().join("text.txt");
    std::fs::write(&text, "Once upon a time there was a king. ".repeat(9)).unwrap();
    for command in [
        "generate Once -n 3",
        "topk Once -k 2",
        "score --prompt Once",
        "trace Once",
        "embed Once --format json",
        "patch --clean The --corrupt A --answer id:5 --against id:6",
        "info --state-dict",
        "tokenize Once",
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        let named = [&words[..], &["-m", "demo"]].concat();
        assert_eq!(with_config(&home, &words).succeeds().stdout(), gpt2(&named).succeeds().stdout(), "{command}");
    }
    let bench = ["bench", "--prompt-tokens", "4", "-n", "2", "--repeat", "1", "--format", "json"];
    let record = with_config(&home, &bench).succeeds().json();
    assert_eq!((&record["model"], &record["threads"]), (&json!("demo"), &json!(1)));
    let at = |name: &str| home.path().join(name).display().to_string();
    with_config(&home, &["convert", "--to", "q8_0", &at("m.gguf")]).succeeds();
    with_config(&home, &["compress", &at("text.txt"), "-o", &at("text.gpt2z")]).succeeds();
    let back = with_config(&home, &["decompress", &at("text.gpt2z")]).succeeds().stdout();
    assert_eq!(back, std::fs::read_to_string(&text).unwrap());
    #[cfg(all(unix, feature = "serve"))]
    {
        let config = home.path().to_str().unwrap();
        let server = crate::serve::Server::start_with(&[], &[("XDG_CONFIG_HOME", config)]);
        assert!(server.ask("GET /v1/models", &[], "").body.contains("\"demo\""));
    }
    // A tokenizer of its own shows whose it is.
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizer/word_piece");
    std::fs::write(config_file(&home), format!("model = '{}'\n", own.display())).unwrap();
    let ids = |run: Run| run.succeeds().stdout();
    let tokenize = ["tokenize", "--format", "ids", "Once upon a time"];
    assert_eq!(
        ids(with_config(&home, &tokenize)),
        ids(gpt2(&[&tokenize[..], &["-m", own.to_str().unwrap()]].concat()))
    );
    assert_ne!(ids(with_config(&home, &tokenize)), ids(gpt2(&tokenize)));
    // `--config` alone describes a model of its own.
    let config = tiny("base").join("config.json").display().to_string();
    let record = with_config(&home, &["info", "--config", &config, "--format", "json"]).succeeds().json();
    assert_eq!((&record["model"], &record["source"]), (&json!(config), &json!("config")));
}

/// A model beside the file is found from anywhere.
#[test]
fn a_path_may_count_from_the_files_folder() {
    let home = home("model = './m'\n");
    let model = home.path().join("gpt2").join("m");
    std::fs::create_dir(&model).unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(tiny("base").join(name), model.join(name)).unwrap();
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let info = |run: Run| run.current_dir(elsewhere.path()).succeeds().json()["parameters"]["total"].clone();
    let expected = info(gpt2(&["info", "-m", tiny("base").to_str().unwrap(), "--format", "json"]));
    assert_eq!(info(with_config(&home, &["info", "--format", "json"])), expected);
    for given in ["$WHERE/gpt2/m", "${WHERE}/gpt2/m"] {
        std::fs::write(config_file(&home), format!("model = '{given}'\n")).unwrap();
        assert_eq!(info(with_config(&home, &["info", "--format", "json"]).env("WHERE", home.path())), expected);
    }
    #[cfg(unix)]
    {
        std::fs::write(config_file(&home), "model = '~/gpt2/m'\n").unwrap();
        assert_eq!(info(with_config(&home, &["info", "--format", "json"]).env("HOME", home.path())), expected);
    }
}

/// The file's type of weights is for runs. Conversion has a flag for its own, and decompression goes by what the file was
/// compressed with.
#[test]
fn the_type_of_weights_counts_where_a_model_runs() {
    let home = home("model = 'demo'\ndtype = 'q8_0'\ndevice = 'cpu'\n");
    let generate = ["generate", "Once", "-n", "2", "--format", "json"];
    let settings = |run: Run| run.succeeds().json()["settings"].clone();
    assert_eq!(settings(with_config(&home, &generate))["quantization"], "q8_0");
    let flags = [&generate[..], &["--dtype", "bf16"]].concat();
    let exact = settings(with_config(&home, &flags));
    assert_eq!((&exact["dtype"], &exact["quantization"]), (&json!("bf16"), &Value::Null));
    let flags = [&generate[..], &["--quantize", "q8_0"]].concat();
    assert_eq!(settings(with_config(&home, &flags).env("GPT2_DTYPE", "f16"))["quantization"], "q8_0");
    let bench = ["bench", "--prompt-tokens", "4", "-n", "2", "--repeat", "1", "--format", "json"];
    let record = with_config(&home, &bench).succeeds().json();
    assert!(record["weights"].to_string().contains("Q8_0"), "{record}");

    let at = |name: &str| home.path().join(name);
    let path = |name: &str| at(name).display().to_string();
    with_config(&home, &["convert", "--to", "f32", &path("a.safetensors")]).succeeds();
    gpt2(&["convert", "-m", "demo", "--to", "f32", &path("b.safetensors")]).succeeds();
    assert!(std::fs::read(at("a.safetensors")).unwrap() == std::fs::read(at("b.safetensors")).unwrap());
    std::fs::write(at("text"), "Once upon a time there was a king. ".repeat(9)).unwrap();
    let compress = ["compress", &path("text"), "-o", &path("text.gpt2z"), "--format", "json"];
    assert_eq!(with_config(&home, &compress).succeeds().json()["weights"], "q8_0");
    std::fs::write(config_file(&home), "model = 'demo'\ndtype = 'bf16'\ndevice = 'cuda'\n").unwrap();
    let back = with_config(&home, &["decompress", &path("text.gpt2z")]).succeeds().stdout();
    assert_eq!(back, std::fs::read_to_string(at("text")).unwrap());
}

#[test]
fn colours_follow_the_file() {
    let home = home("color = 'always'\n");
    let topk = ["topk", "-m", "demo", "Once", "-k", "1"];
    let is_coloured = |run: Run| run.output().stdout().contains('\x1b');
    assert!(is_coloured(with_config(&home, &topk)));
    assert!(!is_coloured(with_config(&home, &topk).env("NO_COLOR", "1")));
    assert!(!is_coloured(with_config(&home, &[&topk[..], &["--color", "never"]].concat())));
    assert!(is_coloured(with_config(&home, &["--help"])), "so does the help");
    // The coloured pieces of `gpt2 tokenize` are another view, which only the flag asks for.
    assert_eq!(with_config(&home, &["tokenize", "Once"]).succeeds().stdout().lines().count(), 2);
    #[cfg(unix)]
    {
        std::fs::write(config_file(&home), "color = 'never'\n").unwrap();
        for arguments in [&topk[..], &["--help"], &["topk", "--zzz"]] {
            let (_, shown) = with_config(&home, arguments).on_terminal();
            assert!(!shown.contains('\x1b'), "{arguments:?}: {shown}");
        }
    }
}

#[test]
fn a_fault_in_the_file_is_one_line_with_its_place() {
    let home = home("");
    let file = config_file(&home);
    for (content, words) in [
        (&b"\nmodle = 'demo'\n"[..], &["config.toml, line 2: there is no key `modle`; did you mean model?"][..]),
        (b"colour = 'never'", &["line 1: there is no key `colour`; did you mean color?"]),
        (b"zzz = 1", &["line 1: there is no key `zzz`; the keys are model, device, dtype, threads and color"]),
        (b"[model]\nname = 'demo'", &["line 1: model takes a text in quotes, such as model = \"demo\""]),
        (b"threads = '2'", &["line 1: threads takes a whole number, such as threads = 4"]),
        (b"#\nthreads = 0", &["line 2: threads takes a whole number from 1 to 1024, not 0"]),
        (b"device = 'gpu'", &["line 1: device takes auto, cpu, cuda, cuda:N or metal, not gpu"]),
        (b"dtype = 'int8'", &["line 1: dtype takes f32, f16, bf16, q8_0, q6_k or q4_k, not int8"]),
        (b"dtype = 'a\\nb'", &["line 1: dtype takes", "not a\\nb"]),
        (b"dtype = \"a\\nb\\u001b\"", &["not a\\nb\\u{1b}"]),
        (b"color = 'red'", &["line 1: color takes auto, always or never, not red"]),
        (b"model = ''", &["line 1: model is empty"]),
        (b"model = demo", &["config.toml, line 1, column 9: not TOML: "]),
        (b"threads = 1\nthreads = 2", &["line 2, column 1: not TOML: "]),
        (b"# caf\xE9", &["line 1: not UTF-8; save the file as UTF-8"]),
        (b"\xFF\xFEm\0", &["UTF-16; save it as UTF-8"]),
    ] {
        std::fs::write(&file, content).unwrap();
        let done = with_config(&home, &["tokenize", "Once"]).fails(2, words);
        let stderr = done.stderr();
        assert!(stderr.lines().count() == 1 && !stderr.contains('\x1b') && done.stdout().is_empty(), "{stderr}");
        assert!(stderr.starts_with("error: ") && stderr.contains("config.toml"), "{stderr}");
    }
    std::fs::write(&file, "#".repeat(1 << 17)).unwrap();
    with_config(&home, &["tokenize", "Once"]).fails(2, &["config.toml", "larger than 65536 bytes"]);
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    with_config(&home, &["tokenize", "Once"]).fails(2, &["config.toml is a folder, and should be the config file"]);
}

#[test]
fn a_fault_in_a_variable_names_it() {
    for (variable, value, fault) in [
        ("GPT2_DEVICE", "gpu", "GPT2_DEVICE takes auto, cpu, cuda, cuda:N or metal, not gpu"),
        ("GPT2_DTYPE", "int8", "GPT2_DTYPE takes f32, f16, bf16, q8_0, q6_k or q4_k, not int8"),
        ("GPT2_THREADS", "0", "GPT2_THREADS takes a whole number from 1 to 1024, not 0"),
    ] {
        gpt2(&["topk", "-m", "demo", "Once"]).env(variable, value).fails(2, &[fault]);
    }
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        let latin = std::ffi::OsStr::from_bytes(b"caf\xE9");
        gpt2(&["topk", "Once"]).env("GPT2_MODEL", latin).fails(2, &["GPT2_MODEL is not UTF-8"]);
    }
}

/// Who asks for help may need it for the file.
#[test]
fn a_fault_does_not_stop_help() {
    let home = home("model = \n");
    for arguments in [&["--help"][..], &["-h"], &["topk", "-h"], &["--version"], &["completions", "bash"], &[]] {
        let done = with_config(&home, arguments).succeeds();
        assert!(!done.stdout().is_empty(), "{arguments:?}");
    }
    with_config(&home, &["man", home.path().to_str().unwrap()]).succeeds();
    with_config(&home, &["topk", "--zzz"]).fails(2, &["unexpected argument '--zzz' found"]);
    with_config(&home, &["info", "--settings"]).fails(2, &["config.toml, line 1"]);
}

/// Nothing in the place of the file can hold a command up, and what is there counts, even if it leads nowhere.
#[cfg(unix)]
#[test]
fn what_is_no_file_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("gpt2");
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("config.toml");
    let run = || with_config(&home, &["tokenize", "Once"]);
    assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
    run().fails(2, &["config.toml is no regular file"]);
    for target in ["config.toml", "nowhere.toml"] {
        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink(target, &file).unwrap();
        run().fails(2, &["cannot read the config file", "config.toml"]);
    }
    // As the XDG Base Directory Specification says of relative paths.
    gpt2(&["tokenize", "Once"]).current_dir(home.path()).env("XDG_CONFIG_HOME", ".").succeeds();
}

/// What one likes best in general does not stand above what a file says of itself.
#[test]
fn a_compressed_file_goes_before_the_config_file() {
    let home = home("model = 'gpt2'\n");
    let packed = home.path().join("text.gpt2z");
    let packed = packed.to_str().unwrap();
    with_config(&home, &["compress", "-m", "demo", "-o", packed]).stdin("Once upon a time").succeeds();
    assert_eq!(with_config(&home, &["decompress", packed]).succeeds().stdout(), "Once upon a time");
}

/// Nobody gave `--device` or `--model`, so the error is not about them.
#[test]
fn an_error_says_where_a_setting_comes_from() {
    let home = home("model = 'nosuch'\n");
    with_config(&home, &["info"]).fails(1, &["config.toml: `nosuch` is not a model"]);
    gpt2(&["info"])
        .env("GPT2_MODEL", "./nosuch")
        .fails(1, &["error: GPT2_MODEL: `./nosuch`: no such folder or file; to try"]);
    let done = gpt2(&["info", "-m", "nosuch"]).env("GPT2_MODEL", "demo").fails(1, &["error: `nosuch` is not a model"]);
    assert!(!done.stderr().contains("GPT2_MODEL"), "{}", done.stderr());
    if !cfg!(feature = "metal") {
        let run = gpt2(&["topk", "-m", "demo", "Once"]).env("GPT2_DEVICE", "metal");
        let done = run.fails(1, &["GPT2_DEVICE: device metal: this program was built without it"]);
        assert!(!done.stderr().contains("--device metal"), "{}", done.stderr());
    }
}
