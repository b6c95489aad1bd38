//! Runs the binary as a user would, so that a test reads like a sentence.
//!
//! `gpt2(&["topk", "--model", "demo"]).stdin("Once").succeeds().json()`

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
#[cfg(unix)]
use std::sync::mpsc::RecvTimeoutError;
#[cfg(unix)]
use std::time::Duration;

/// The folder of a tiny checkpoint with goldens.
pub fn tiny(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny").join(name)
}

/// A run of the binary in a clean environment: no hub, no cache, no settings of the user who runs the tests.
pub struct Run {
    command: Command,
    stdin: Vec<u8>,
}

/// The binary that was built with the tests, or what `GPT2_TEST_BINARY` names instead: one of a release, or a script that
/// has an emulator run one. Its name is `gpt2`, since shells look for that.
fn binary() -> PathBuf {
    std::env::var_os("GPT2_TEST_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_gpt2").into(), PathBuf::from)
}

/// The binary with these arguments.
pub fn gpt2<S: AsRef<OsStr>>(arguments: &[S]) -> Run {
    let mut command = Command::new(binary());
    command.args(arguments);
    Run::clean(command)
}

/// A line of a shell that finds the binary as `gpt2`, in this folder.
#[cfg(unix)]
pub fn shell(line: &str, folder: &Path) -> Run {
    let mut command = Command::new("sh");
    let binary = binary();
    let folder_of_binary = binary.parent().expect("the binary is in a folder");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([folder_of_binary.to_owned()].into_iter().chain(std::env::split_paths(&path)));
    command.args(["-c", line]).current_dir(folder).env("PATH", path.expect("a list of folders"));
    Run::clean(command)
}

/// Whether tests write the files that they would compare with, `GPT2_TEST_UPDATE=1`.
pub fn is_update() -> bool {
    std::env::var_os("GPT2_TEST_UPDATE").is_some()
}

impl Run {
    fn clean(mut command: Command) -> Self {
        for (name, _) in std::env::vars_os() {
            let is_setting = |name: &str| name.starts_with("GPT2_") && name != "GPT2_SIMD";
            if name.to_str().is_some_and(|name| name.starts_with("HF_") || is_setting(name)) {
                command.env_remove(name);
            }
        }
        // Nothing is there, for the file of whoever runs the tests says what they want, and not what these do.
        command.env("XDG_CONFIG_HOME", "/nonexistent/config");
        // Nothing listens there: tests that need a hub start their own.
        command.env("HF_ENDPOINT", "http://127.0.0.1:9").env("HF_HOME", "/nonexistent/huggingface");
        Self { command, stdin: vec![] }
    }
}

/// Tools that some tests need and not every machine has.
const TOOLS: [&str; 5] = ["browser", "curl", "groff", "jq", "strace"];

/// Returns the tool if it was found. Otherwise the test must return, which counts as skipped and is reported on stderr,
/// bypassing libtest's capture. `GPT2_TEST_REQUIRE`, a comma-separated list of [`TOOLS`] or `all`, makes it a failure.
#[track_caller]
pub fn requires<T>(tool: &str, found: Option<T>) -> Option<T> {
    let required = std::env::var("GPT2_TEST_REQUIRE").unwrap_or_default();
    let required: Vec<&str> = required.split(',').filter(|name| !name.is_empty()).collect();
    for name in required.iter().chain([&tool]) {
        assert!(*name == "all" || TOOLS.contains(name), "`{name}` is not one of {TOOLS:?} or all");
    }
    if found.is_none() {
        let test = std::thread::current();
        let test = test.name().unwrap_or("a test");
        assert!(!required.iter().any(|name| ["all", tool].contains(name)), "{test} needs a tool: {tool}");
        // libtest would capture eprintln.
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: it needs a tool: {tool}");
    }
    found
}

impl Run {
    /// Sets what the binary reads on stdin; the default is empty.
    pub fn stdin(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.stdin = bytes.as_ref().to_vec();
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs in this folder.
    pub fn current_dir(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// The command itself, for tests that start it themselves.
    pub fn into_command(self) -> Command {
        self.command
    }

    /// Runs to the end.
    #[track_caller]
    pub fn output(mut self) -> Done {
        let mut child = self
            .command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        let bytes = self.stdin;
        // A binary that does not read its input closes the pipe, which is fine.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&bytes)));
        let output = child.wait_with_output().expect("the binary ends");
        writer.join().expect("the writer ends");
        Done { call: format!("{:?}", self.command), output }
    }

    /// Runs to the end with stdout and stderr on a terminal of 24 × 100 characters. Returns the exit code and what the
    /// terminal got, with line breaks as they were written.
    #[cfg(unix)]
    #[track_caller]
    pub fn on_terminal(self) -> (Option<i32>, String) {
        self.at_terminal(false)
    }

    /// The same, and its input is typed there, with Ctrl-D at the end.
    #[cfg(unix)]
    #[track_caller]
    pub fn typed_on_terminal(self) -> (Option<i32>, String) {
        self.at_terminal(true)
    }

    #[cfg(unix)]
    #[track_caller]
    fn at_terminal(mut self, is_typed: bool) -> (Option<i32>, String) {
        use std::fs::File;
        use std::io::Read;
        use std::os::fd::FromRawFd;
        let (mut ours, mut its) = (0, 0);
        let size = libc::winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the pointers are to variables that live longer than the calls, or null where that is allowed; the
        // descriptors are new and belong to nothing else.
        let (mut ours, its) = unsafe {
            let opened =
                libc::openpty(&mut ours, &mut its, std::ptr::null_mut(), std::ptr::null_mut(), &raw const size as _);
            assert_eq!(opened, 0, "{}", std::io::Error::last_os_error());
            let mut modes = std::mem::zeroed();
            libc::tcgetattr(its, &mut modes);
            libc::cfmakeraw(&mut modes);
            libc::tcsetattr(its, libc::TCSANOW, &modes);
            (File::from_raw_fd(ours), File::from_raw_fd(its))
        };
        let other = |file: &File| file.try_clone().expect("another descriptor");
        let stdin = if is_typed { other(&its).into() } else { Stdio::piped() };
        let child = self.command.env("TERM", "xterm").env_remove("NO_COLOR").env_remove("TERM_PROGRAM");
        let child = child.stdin(stdin).stdout(other(&its)).stderr(its);
        let mut child = child.spawn().expect("the binary starts");
        // The command holds the terminal open, whose end is that of the output.
        self.command = Command::new("");
        let (bytes, mut pipe, mut keyboard) = (self.stdin, child.stdin.take(), other(&ours));
        let (ending, ended) = std::sync::mpsc::channel::<()>();
        let writer = std::thread::spawn(move || {
            if let Some(pipe) = &mut pipe {
                return drop(pipe.write_all(&bytes));
            }
            let _ = keyboard.write_all(&bytes);
            // What is typed before a line is asked for may be lost.
            while ended.recv_timeout(Duration::from_millis(50)) == Err(RecvTimeoutError::Timeout) {
                let _ = keyboard.write_all(b"\x04");
            }
        });
        let mut shown = vec![];
        // On Linux, the end is an error.
        let _ = ours.read_to_end(&mut shown);
        drop(ending);
        writer.join().expect("the writer ends");
        let code = child.wait().expect("the binary ends").code();
        (code, String::from_utf8(shown).expect("a terminal gets UTF-8"))
    }

    /// Runs and expects exit code 0.
    #[track_caller]
    pub fn succeeds(self) -> Done {
        self.output().exits(0)
    }

    /// Runs and expects this exit code and an `error:` line that contains each of the words.
    #[track_caller]
    pub fn fails(self, code: i32, words: &[&str]) -> Done {
        let done = self.output().exits(code);
        let stderr = done.stderr();
        assert!(stderr.contains("error: "), "no error line in\n{stderr}\nof {}", done.call);
        assert!(!stderr.contains("panicked"), "a panic:\n{stderr}\nof {}", done.call);
        for word in words {
            assert!(stderr.contains(word), "`{word}` is not in\n{stderr}\nof {}", done.call);
        }
        done
    }
}

/// A finished run.
pub struct Done {
    call: String,
    pub output: Output,
}

impl Done {
    #[track_caller]
    fn exits(self, code: i32) -> Self {
        let found = self.output.status.code();
        assert_eq!(found, Some(code), "exit code of {}\nstderr:\n{}", self.call, self.stderr());
        self
    }

    /// Standard output as text.
    #[track_caller]
    pub fn stdout(&self) -> String {
        String::from_utf8(self.output.stdout.clone()).expect("stdout is UTF-8")
    }

    /// Standard error as text.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// Standard output as one JSON document.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.output.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.stdout()))
    }

    /// Standard output as one JSON object a line.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<serde_json::Value> {
        self.stdout().lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    }
}

/// The goldens of a tiny checkpoint, as transformers computed them.
pub fn golden(name: &str) -> serde_json::Value {
    let text = std::fs::read(tiny(name).join("golden.json")).expect("the fixture's golden.json");
    serde_json::from_slice(&text).expect("golden.json is JSON")
}

/// What happens inside a tiny checkpoint, as hooks over transformers saw it.
pub fn inside(name: &str) -> serde_json::Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/inside").join(format!("{name}.json"));
    serde_json::from_slice(&std::fs::read(file).expect("the fixture")).expect("the fixture is JSON")
}

/// Whether a key is what a batch says about a row.
pub fn is_about_row(key: &str) -> bool {
    ["id", "line", "file", "ok", "error", "error_kind", "row", "input"].contains(&key)
}

/// A record without what a batch says about its row, and without what it leaves empty.
pub fn without_row(mut record: serde_json::Value) -> serde_json::Value {
    if let Some(record) = record.as_object_mut() {
        record.retain(|key, value| !is_about_row(key) && !value.is_null());
    }
    record
}

/// A list of ids as `--ids` takes it.
pub fn id_text(ids: &serde_json::Value) -> String {
    let ids: Vec<String> = ids.as_array().expect("a list of ids").iter().map(ToString::to_string).collect();
    ids.join(" ")
}
