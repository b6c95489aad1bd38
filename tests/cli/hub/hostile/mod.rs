//! Hubs, caches and settings that mean harm, or are broken as if they did. Whatever comes, the program ends after a
//! bounded time, with bounded memory and disk, with an error that says what happened or with the right files.

mod answers;
mod content;
mod planted;
mod settings;

use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{ID, Scene, WEIGHTS, fixture};
use crate::fake_hub::{Fault, TOKEN};
use crate::harness::Run;

/// How a run ends.
enum End {
    /// With the right files, and these words on stderr.
    Well(&'static [&'static str]),
    /// With exit code 1 and these words on stderr.
    Badly(&'static [&'static str]),
}

/// One fault of the hub, and what comes of it.
struct Case {
    /// The requests that fail: how many, by which method, with what in their path.
    of: (usize, &'static str, &'static str),
    fault: Fault,
    end: End,
    /// Bytes of the weights that an earlier run has left.
    left: usize,
}

/// All requests by this method with this in their path meet this fault.
fn case(method: &'static str, path: &'static str, fault: Fault, end: End) -> Case {
    Case { of: (usize::MAX, method, path), fault, end, left: 0 }
}

/// As [`case`], but only once.
fn once(method: &'static str, path: &'static str, fault: Fault, end: End) -> Case {
    Case { of: (1, method, path), fault, end, left: 0 }
}

/// These bytes as the answer.
fn raw(bytes: impl AsRef<[u8]>) -> Fault {
    Fault::Raw(bytes.as_ref().to_vec())
}

/// An answer with this status line and these headers, without a body.
fn head(text: &str) -> Fault {
    raw(format!("HTTP/1.1 {text}\r\nConnection: close\r\n\r\n"))
}

/// Beginning, and a part that is repeated as fast as it goes.
fn endless(head: &str, again: impl Into<Vec<u8>>) -> Fault {
    Fault::Endless { head: head.into(), again: again.into(), pause: Duration::ZERO }
}

/// Beginning, and a byte that follows again and again, three times a second.
fn drip(head: &str, byte: u8) -> Fault {
    Fault::Endless { head: head.into(), again: vec![byte], pause: Duration::from_millis(333) }
}

/// Runs each case with a hub and a cache of its own, many at once since most of them wait.
fn check(cases: Vec<Case>) {
    let cases = std::sync::Mutex::new(cases.into_iter().enumerate());
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                while let Some((number, case)) = { cases.lock().unwrap().next() } {
                    check_one(number, &case);
                }
            });
        }
    });
}

fn check_one(number: usize, case: &Case) {
    let scene = Scene::with("base");
    let (times, method, path) = case.of;
    scene.hub.fail(times, method, path, case.fault.clone());
    if case.left > 0 {
        std::fs::create_dir_all(scene.repository().join("blobs")).unwrap();
        std::fs::write(scene.partial("base", WEIGHTS), &fixture("base", WEIGHTS)[..case.left]).unwrap();
    }
    let name = format!("case {number}, {method} {path}, {:.200}", format!("{:?}", case.fault));
    let ended = bounded(&scene, scene.info(ID, &[]), &name);
    let (code, words) = match &case.end {
        End::Well(words) => (0, words),
        End::Badly(words) => (1, words),
    };
    assert_eq!(ended.code, Some(code), "{name}\n{}", ended.stderr);
    for word in *words {
        assert!(ended.stderr.contains(word), "`{word}` is not in\n{}\nof {name}", ended.stderr);
    }
    if code == 0 {
        assert_eq!(std::fs::read(scene.snapshot().join(WEIGHTS)).unwrap(), fixture("base", WEIGHTS), "{name}");
    }
    // Whatever has its final name is whole.
    for entry in scene.repository().join("blobs").read_dir().into_iter().flatten() {
        let path = entry.unwrap().path();
        let is_whole =
            |file: &str| path == scene.blob("base", file) && std::fs::read(&path).unwrap() == fixture("base", file);
        assert!(path.extension().is_some() || is_whole(WEIGHTS) || is_whole("config.json"), "{name}: {path:?}");
    }
}

/// The peak memory of a process, while it runs.
fn peak_megabytes(status: &str) -> u64 {
    let status = std::fs::read_to_string(status).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.map_or(0, |peak| peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10)
}

/// A run that has ended within bounds.
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs to the end, and checks what it took: time, memory and disk.
fn bounded(scene: &Scene, run: Run, name: &str) -> Ended {
    let start = Instant::now();
    let child = run.into_command().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (memory, is_done) = (format!("/proc/{}/status", child.id()), AtomicBool::new(false));
    let (output, megabytes) = std::thread::scope(|scope| {
        // Not what waiting for a process tells: that counts the memory of its parent, which had a moment as its own.
        let peak = scope.spawn(|| {
            let mut peak = 0;
            while !is_done.load(Ordering::Relaxed) {
                peak = peak.max(peak_megabytes(&memory));
                std::thread::sleep(Duration::from_millis(5));
            }
            peak
        });
        let output = child.wait_with_output().unwrap();
        is_done.store(true, Ordering::Relaxed);
        (output, peak.join().unwrap())
    });
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(start.elapsed() < Duration::from_secs(60), "{name} took {:?}\n{stderr}", start.elapsed());
    assert!(megabytes < 200, "{name} took {megabytes} MB of memory\n{stderr}");
    let disk = bytes_in(scene.home.path());
    assert!(disk < 2 << 20, "{name} left {disk} bytes\n{stderr}");
    assert!(!stderr.contains("panicked") && !stderr.contains("a fault in this program"), "{name}\n{stderr}");
    for secret in [TOKEN, "secret", "Signature"] {
        assert!(!stderr.contains(secret) && !stdout.contains(secret), "{name}\n{stderr}\n{stdout}");
    }
    assert!(!stderr.contains(|c: char| c.is_control() && c != '\n'), "{name}\n{stderr:?}");
    Ended { code: output.status.code(), stdout, stderr }
}

/// The size of all files in a folder, not counting what links lead to.
fn bytes_in(folder: &Path) -> u64 {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    let size = |path: &Path| match path.symlink_metadata() {
        Ok(found) if found.is_dir() => bytes_in(path),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.map(|entry| size(&entry.path())).sum()
}
