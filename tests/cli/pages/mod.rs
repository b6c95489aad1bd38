//! The pages of documentation: every command in a block of type `console` runs, and prints what the page shows.
//!
//! `GPT2_TEST_UPDATE=1` writes the output into the page instead. A line `...` stands for any lines; the last digit of a
//! number may differ by one, since instruction sets round differently. What needs Python or R runs only with
//! `GPT2_TEST_SCRIPTS=1`: the scripts want numpy, pandas, safetensors and jsonlite.
//!
//! Blocks of type `sh` are not run: they build the program, or need a GPU, other engines, or a file that only readers have.

mod compare;
mod example;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use self::compare::{matches, shortened};
use self::example::{Example, examples};
use crate::fake_hub::{FakeHub, files_of};
use crate::harness::{is_update, requires, shell, tiny};
use crate::serve::Server;

/// Commands whose output no page can show: it differs from run to run, or is that of a model that only the hub has.
const NOT_SHOWN: [&str; 2] = ["gpt2 bench", "gpt2 generate \"The theory of relativity"];

/// Where pages say that a server is.
const SERVED_AT: &str = "127.0.0.1:8080";

/// What a page's commands find around them.
struct World {
    folder: tempfile::TempDir,
    cache: tempfile::TempDir,
    /// Has the demo in the place of GPT-2.
    hub: FakeHub,
    /// The server that the page has started.
    server: Option<Server>,
    /// What the page has exported.
    exports: String,
}

impl World {
    fn new(page: &str) -> Self {
        let hub = FakeHub::start();
        hub.add("openai-community/gpt2", files_of(&root().join("assets/demo")));
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(root().join("examples"), folder.path().join("examples")).unwrap();
        if page == "docs/checkpoints.md" {
            let copy = |from: PathBuf, to: &str| {
                std::fs::create_dir(folder.path().join(to)).unwrap();
                for (name, bytes) in files_of(&from) {
                    std::fs::write(folder.path().join(to).join(name), bytes).unwrap();
                }
            };
            let formats = root().join("tests/fixtures/formats");
            copy(formats.join("nanogpt_bias/model"), "out");
            copy(formats.join("lora_c_attn/adapter"), "adapter");
            copy(tiny("base"), "base");
        }
        Self { folder, cache: tempfile::tempdir().unwrap(), hub, server: None, exports: String::new() }
    }

    /// Runs a command in a shell of its own; returns what it prints.
    fn run(&mut self, command: &str, stdin: &str, shown: &[&str]) -> String {
        let command = command.replace("cargo run --release -- ", "gpt2 ");
        if command.starts_with("export ") {
            self.exports += &format!("{command}; ");
            return String::new();
        }
        if let Some(flags) = command.strip_prefix("gpt2 serve ") {
            let server = Server::start(&flags.trim_end_matches('&').split_whitespace().collect::<Vec<_>>());
            let greeting = server.greeting.replace(&server.address, SERVED_AT);
            self.server = Some(server);
            return if shown.is_empty() { String::new() } else { greeting };
        }
        let at_its_address = self.server.as_ref().map_or(command.clone(), |it| command.replace(SERVED_AT, &it.address));
        let done = shell(&format!("{}{at_its_address}", self.exports), self.folder.path())
            .env("HF_ENDPOINT", self.hub.url())
            .env("HF_HOME", self.cache.path())
            .stdin(stdin)
            .succeeds();
        // What is on stderr comes first, if the page shows it.
        let said = done.stderr();
        let is_shown = said.lines().next().is_some_and(|line| shown.contains(&line));
        if is_shown { said + &done.stdout() } else { done.stdout() }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs the examples of a page.
fn check_page(page: &str) {
    let found = |tool| std::process::Command::new(tool).arg("--version").output().ok();
    if !["curl", "jq"].into_iter().all(|tool| requires(tool, found(tool)).is_some()) {
        return;
    }
    let path = root().join(page);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let has_scripts = std::env::var_os("GPT2_TEST_SCRIPTS").is_some();
    let mut world = World::new(page);
    let (mut updated, mut from) = (String::new(), 0);
    for Example { command, stdin, shown } in examples(&lines) {
        if !has_scripts && (!stdin.is_empty() || command.starts_with("python ")) {
            continue;
        }
        let on_page = &lines[shown.clone()];
        let printed = world.run(&command, &stdin, on_page);
        if on_page.is_empty() && NOT_SHOWN.iter().any(|known| command.starts_with(known)) {
            continue;
        }
        // A page needs no empty line below what it shows.
        let printed: Vec<&str> = printed.trim_end_matches('\n').lines().collect();
        if is_update() {
            let new = shortened(on_page, &printed);
            updated += &lines[from..shown.start].iter().chain(&new).map(|line| format!("{line}\n")).collect::<String>();
            from = shown.end;
        } else {
            let (found, on_page_text) = (printed.join("\n"), on_page.join("\n"));
            assert!(matches(on_page, &printed), "{command}\nprints\n{found}\nand {page} shows\n{on_page_text}");
        }
    }
    if is_update() {
        updated.extend(lines[from..].iter().map(|line| format!("{line}\n")));
        std::fs::write(path, updated).unwrap();
    }
}

/// A test for each page, and the list of them.
macro_rules! pages {
    ($($test:ident: $page:literal,)*) => {
        const TESTED: &[&str] = &[$($page),*];
        $(
            #[test]
            fn $test() {
                check_page($page);
            }
        )*
    };
}

pages! {
    readme: "README.md",
    batches: "docs/batches.md",
    checkpoints: "docs/checkpoints.md",
    compress: "docs/compress.md",
    constraints: "docs/constraints.md",
    courses: "docs/courses.md",
    inside: "docs/inside.md",
    lesson: "docs/lesson.md",
    recipes: "docs/recipes.md",
    scale: "docs/scale.md",
    scoring: "docs/scoring.md",
    serve: "docs/serve.md",
}

#[test]
fn every_page_with_commands_has_its_test() {
    let pages = |folder: &str| {
        let entries = root().join(folder).read_dir().unwrap();
        let names = entries.map(|entry| format!("{folder}{}", entry.unwrap().file_name().to_str().unwrap()));
        names.filter(|name| name.ends_with(".md")).collect::<Vec<_>>()
    };
    let has_commands = |page: &String| std::fs::read_to_string(root().join(page)).unwrap().contains("\n```console\n");
    let found: BTreeSet<String> = [pages(""), pages("docs/")].concat().into_iter().filter(has_commands).collect();
    assert_eq!(found, TESTED.iter().map(|page| (*page).to_owned()).collect());
}

/// A link to a file, or to a heading, that is not there.
#[test]
fn links_lead_somewhere() {
    let link = regex::Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let heading = |line: &str| {
        let name = line.trim_start_matches('#').trim().to_lowercase();
        let name: String = name.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect();
        name.replace(' ', "-")
    };
    for page in TESTED.iter().chain(&[
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "docs/devices.md",
        "docs/json.md",
        "docs/speed.md",
    ]) {
        let path = root().join(page);
        let text = std::fs::read_to_string(&path).unwrap();
        for target in link.captures_iter(&text).map(|found| found.get(1).unwrap().as_str()) {
            if target.starts_with("http") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(file.exists(), "{page} links to {target}");
            if !anchor.is_empty() {
                let text = std::fs::read_to_string(file).unwrap();
                let mut headings = text.lines().filter(|line| line.starts_with('#')).map(heading);
                assert!(headings.any(|name| name == anchor), "{page} links to {target}");
            }
        }
    }
}
