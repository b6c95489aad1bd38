//! `gpt2 man`: pages that look as people know them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use regex::Regex;

use crate::harness::{gpt2, requires};

/// The pages by the names of their files.
fn pages(folder: &Path) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    entries.map(|path| (name(&path), std::fs::read_to_string(&path).unwrap())).collect()
}

#[test]
fn the_program_and_each_subcommand_have_a_page_with_all_flags() {
    let folder = tempfile::tempdir().unwrap();
    let done = gpt2(&["man".as_ref(), folder.path()]).succeeds();
    let pages = pages(folder.path());
    assert_eq!(done.stderr(), format!("wrote {}: {} man pages\n", folder.path().display(), pages.len()));
    let help = gpt2(&["--help"]).succeeds().stdout();
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let listed: Vec<(&str, &str)> = listed.filter_map(|line| line.trim().split_once(' ')).collect();
    let subcommands = listed.iter().filter(|(name, _)| *name != "help");
    let mut files = vec!["gpt2.1".to_owned()];
    let escaped = |text: &str| {
        text.trim().replace('\\', "\\\\").replace('-', "\\-").replace('\'', "\\*(Aq").replace('~', "\\(ti")
    };
    let flag = Regex::new(r"(?m)^ +(?:-\w, )?(--[a-z-]+)").unwrap();
    for (name, about) in subcommands {
        let (file, about) = (format!("gpt2-{name}.1"), escaped(about));
        let (page, help) = (&pages[&file], gpt2(&[name, "--help"]).succeeds().stdout());
        assert!(page.contains(&format!(".SH NAME\ngpt2\\-{name} \\- {about}\n")), "{file}: {about}");
        assert!(page.contains(&format!("\\fBgpt2 {name}\\fR ")), "{file}");
        let flags: Vec<&str> = flag.captures_iter(&help).map(|found| found.extract::<1>().1[0]).collect();
        assert!(flags.len() >= 4, "{help}");
        for flag in flags {
            assert!(page.contains(&format!("\\fB{}\\fR", flag.replace('-', "\\-"))), "{file}: {flag}");
        }
        for entry in page.split("\n.TP\n").skip(1) {
            let words = entry.lines().nth(1).unwrap();
            assert!(!words.is_empty() && !words.starts_with('.'), "{file} does not say what this is:\n{entry}");
        }
        // A flag that another part of the help hides is not in the page, either.
        assert_eq!(page.contains("\\-\\-threads"), help.contains("--threads"), "{file}");
        let example = help.lines().skip_while(|line| *line != "Examples:").nth(1).expect("an example");
        let example = escaped(example);
        // The help may break a line that the page leaves whole.
        assert!(page.contains(&format!(".SH EXAMPLES\n.nf\n{example}")), "{file}: {example}");
        files.push(file);
    }
    files.sort();
    assert_eq!(files, pages.keys().cloned().collect::<Vec<_>>());
}

/// The documentation tells them in passing; the page has the list.
#[test]
fn the_page_has_the_exit_codes_and_the_environment_of_the_documentation() {
    let folder = tempfile::tempdir().unwrap();
    gpt2(&["man".as_ref(), folder.path()]).succeeds();
    let page = pages(folder.path()).remove("gpt2.1").unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let texts = docs.filter(|path| path.is_file()).chain([root.join("README.md")]);
    let text: String = texts.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let variable = Regex::new(r"`((?:GPT2|HF|TRANSFORMERS|NO)_[A-Z_]+)").unwrap();
    let mut names: Vec<&str> = variable.captures_iter(&text).map(|found| found.extract::<1>().1[0]).collect();
    // Those of the tests.
    names.retain(|name| !name.starts_with("GPT2_TEST_"));
    names.sort_unstable();
    names.dedup();
    assert!(names.len() >= 8, "{names:?}");
    for name in names {
        let entry = Regex::new(&format!(r"(?m)^\\fB(\w+, )*{name}(, \w+)*\\fR$")).unwrap();
        assert!(entry.is_match(&page), "{name}");
    }
    for code in [0, 1, 2, 3, 130, 143] {
        assert!(page.contains(&format!(".TP\n\\fB{code}\\fR\n")), "{code}");
    }
}

#[test]
fn pages_do_not_depend_on_the_machine() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    for (folder, level) in folders.iter().zip(["", "portable"]) {
        gpt2(&["man".as_ref(), folder.path()]).env("GPT2_SIMD", level).succeeds();
    }
    assert_eq!(pages(folders[0].path()), pages(folders[1].path()));
}

#[test]
fn groff_sets_the_pages_without_a_warning() {
    let groff = Command::new("groff").arg("--version").output().ok();
    let Some(_) = requires("groff", groff) else { return };
    let folder = tempfile::tempdir().unwrap();
    gpt2(&["man".as_ref(), folder.path()]).succeeds();
    for name in pages(folder.path()).keys() {
        // All warnings but those of lines that a terminal is too narrow for, as examples may be.
        let arguments = ["-man", "-Tutf8", "-Kutf8", "-ww", "-Wbreak", "-P-cbou"];
        let done = Command::new("groff").args(arguments).arg(folder.path().join(name)).output().unwrap();
        let (shown, warnings) = (String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap());
        assert!(done.status.success() && warnings.is_empty(), "{name}: {warnings}");
        let title = name.replace(".1", "(1)");
        assert!(shown.starts_with(&title) && shown.lines().next().unwrap().ends_with(&title), "{shown}");
        // Spaces and hyphens of its own would be wrong in a token.
        assert!(shown.lines().skip(1).all(|line| !line.ends_with('\u{2010}')), "{shown}");
        assert!(!shown.contains(['`', '\u{2018}']), "{name} shows code as it is written:\n{shown}");
    }
}

/// It may be meant as the name of a page.
#[test]
fn what_is_not_a_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    for (name, next) in [
        ("generate", "to read about gpt2 generate: gpt2 generate --help\n"),
        ("gpt2-topk", "to read about gpt2 topk: gpt2 topk --help\n"),
        ("file", "to make it: mkdir file\n"),
        ("my pages", "to make it: mkdir \"my pages\"\n"),
    ] {
        let done = gpt2(&["man", name]).current_dir(folder.path()).fails(1, &[name, "is not a folder"]);
        assert!(done.stdout().is_empty() && done.stderr().ends_with(next), "{}", done.stderr());
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
