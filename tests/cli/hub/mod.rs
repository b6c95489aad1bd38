//! Models from the hub: the real client against a fake hub, in working order and with faults.

mod access;
mod faults;
mod forms;
#[cfg(target_os = "linux")]
mod hostile;
mod layout;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::fake_hub::{Access, COMMIT, FakeHub, Fault, Files, Request, TOKEN, etag, files_of};
use crate::harness::{Run, gpt2, requires, tiny};

/// A hub and the home directory of a user who has downloaded nothing yet.
pub struct Scene {
    pub hub: FakeHub,
    home: TempDir,
}

pub const ID: &str = "someone/tiny";
const WEIGHTS: &str = "model.safetensors";

impl Scene {
    pub fn empty() -> Self {
        Self { hub: FakeHub::start(), home: tempfile::tempdir().unwrap() }
    }

    /// With this tiny checkpoint on the hub, as [`ID`].
    pub fn with(checkpoint: &str) -> Self {
        let scene = Self::empty();
        scene.hub.add(ID, files_of(&tiny(checkpoint)));
        scene
    }

    /// Runs `gpt2 info` on this model, which finds the files and opens the weights.
    fn info(&self, model: &str, arguments: &[&str]) -> Run {
        self.run(&[&["info", "-m", model, "--format", "json"], arguments].concat())
    }

    /// Runs `gpt2` with the scene's hub and home.
    pub fn run(&self, arguments: &[&str]) -> Run {
        gpt2(arguments)
            .env("HF_ENDPOINT", self.hub.url())
            .env("HF_HOME", self.home.path())
            .env("HF_HUB_DOWNLOAD_TIMEOUT", "1")
            .env("NO_PROXY", "127.0.0.1")
    }

    fn repository(&self) -> PathBuf {
        self.home.path().join("hub/models--someone--tiny")
    }

    fn snapshot(&self) -> PathBuf {
        self.repository().join("snapshots").join(COMMIT)
    }

    /// The path in the cache of the content of a file of the tiny checkpoint.
    fn blob(&self, checkpoint: &str, name: &str) -> PathBuf {
        self.repository().join("blobs").join(etag(name, &fixture(checkpoint, name)))
    }

    fn partial(&self, checkpoint: &str, name: &str) -> PathBuf {
        self.blob(checkpoint, name).with_extension("incomplete")
    }
}

fn fixture(checkpoint: &str, name: &str) -> Vec<u8> {
    std::fs::read(tiny(checkpoint).join(name)).unwrap()
}

/// The requests for the content of this file, wherever it is served from.
fn downloads<'a>(requests: &'a [Request], name: &str) -> Vec<&'a Request> {
    let of_file = |request: &&Request| request.method == "GET" && request.path.contains(&format!("/{name}?"));
    requests.iter().filter(of_file).collect()
}
