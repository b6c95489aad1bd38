//! Models from the hub: the real client against a fake hub, in working order and with faults.

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

#[test]
fn a_download_uses_the_shared_layout_and_is_not_repeated() {
    let scene = Scene::with("base");
    scene.info(ID, &[]).succeeds();

    let link = scene.snapshot().join(WEIGHTS);
    let blob = scene.blob("base", WEIGHTS);
    let target = format!("../../blobs/{}", blob.file_name().unwrap().display());
    assert_eq!(std::fs::read_link(&link).unwrap(), Path::new(&target));
    assert_eq!(std::fs::read(&link).unwrap(), fixture("base", WEIGHTS));
    assert_eq!(std::fs::read(scene.snapshot().join("config.json")).unwrap(), fixture("base", "config.json"));
    assert_eq!(std::fs::read_to_string(scene.repository().join("refs/main")).unwrap(), COMMIT);
    assert!(scene.repository().join(".no_exist").join(COMMIT).join("tokenizer.json").is_file());
    let blobs = scene.repository().join("blobs").read_dir().unwrap().count();
    assert_eq!(blobs, 2, "config and weights, nothing else");
    assert!(!scene.hub.take_requests().is_empty());

    scene.info(ID, &[]).succeeds();
    scene.info(ID, &["--revision", COMMIT]).succeeds();
    scene.info(ID, &["--offline"]).succeeds();
    assert_eq!(scene.hub.take_requests().len(), 0, "the cache has it all");
}

#[test]
fn a_revision_is_a_branch_a_tag_or_a_commit() {
    let scene = Scene::with("base");
    const OLD: &str = "89abcdef0123456789abcdef0123456789abcdef";
    scene.hub.add_commit(ID, OLD, &["v1.0", "refs/pr/2"], files_of(&tiny("erf_inner")));
    for revision in ["v1.0", "refs/pr/2", OLD] {
        let other = scene.info(ID, &["--revision", revision]).succeeds().json();
        assert_eq!(
            other["parameters"],
            scene.info(tiny("erf_inner").to_str().unwrap(), &[]).succeeds().json()["parameters"]
        );
    }
    let main = scene.info(ID, &[]).succeeds().json();
    assert_eq!(main["parameters"], scene.info(tiny("base").to_str().unwrap(), &[]).succeeds().json()["parameters"]);
    assert_eq!(std::fs::read_to_string(scene.repository().join("refs/refs/pr/2")).unwrap(), OLD);

    scene.hub.take_requests();
    scene.info(ID, &["--revision", "v1.0"]).succeeds();
    assert_eq!(scene.hub.take_requests().len(), 0);

    scene.info(ID, &["--revision", "v2.0"]).env("HF_TOKEN", TOKEN).fails(1, &[ID, "`v2.0`", "revision"]);
    scene.info(ID, &["--revision", "../../etc"]).fails(2, &["`../../etc`", "revision"]);
    scene.info("demo", &["--revision", "v1.0"]).fails(2, &["`v1.0`", "demo"]);
}

#[test]
fn shards_and_pytorch_files_are_fetched_if_there_is_no_single_file() {
    for (checkpoint, weights) in [
        (
            "untied_f16",
            &["model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"][..],
        ),
        ("inverse", &["pytorch_model.bin"]),
    ] {
        let scene = Scene::with(checkpoint);
        let fetched = scene.info(ID, &["--tensors"]).succeeds().json();
        let local = scene.info(tiny(checkpoint).to_str().unwrap(), &["--tensors"]).succeeds().json();
        assert_eq!(fetched["tensors"], local["tensors"]);
        for name in weights {
            assert_eq!(std::fs::read(scene.snapshot().join(name)).unwrap(), fixture(checkpoint, name), "{name}");
        }
        scene.hub.take_requests();
        scene.info(ID, &[]).succeeds();
        assert_eq!(scene.hub.take_requests().len(), 0);
    }
}

#[test]
fn a_single_gguf_file_is_a_complete_model() {
    let scene = Scene::empty();
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats/gguf_user_defined/model/tiny-f32.gguf");
    scene.hub.add(ID, Files::from([("tiny.gguf".to_owned(), std::fs::read(&path).unwrap())]));
    let fetched = scene.info(ID, &["--tensors"]).succeeds().json();
    assert_eq!(fetched["tensors"], scene.info(path.to_str().unwrap(), &["--tensors"]).succeeds().json()["tensors"]);
    scene.hub.take_requests();
    scene.info(ID, &["--offline"]).succeeds();
    scene.info(ID, &[]).succeeds();
    assert_eq!(scene.hub.take_requests().len(), 0);
}

#[test]
fn safetensors_are_preferred_and_nothing_unneeded_is_fetched() {
    let scene = Scene::empty();
    let mut files = files_of(&tiny("base"));
    for name in ["pytorch_model.bin", "tf_model.h5", "README.md", "vocab.json", "merges.txt", "tokenizer.json"] {
        files.insert(name.to_owned(), b"{}".to_vec());
    }
    scene.hub.add(ID, files.clone());
    scene.info(ID, &[]).succeeds();
    let fetched: Vec<_> = scene.snapshot().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(fetched.len(), 3, "config.json, model.safetensors and tokenizer.json, not {fetched:?}");

    // vocab.json and merges.txt are enough without a tokenizer.json; the published GPT-2 needs neither.
    files.remove("tokenizer.json");
    scene.hub.add("someone/pair", files.clone());
    scene.info("someone/pair", &[]).succeeds();
    assert!(scene.home.path().join("hub/models--someone--pair/snapshots").join(COMMIT).join("merges.txt").exists());
    scene.hub.add("openai-community/gpt2", files);
    // A folder of that name, such as a checkout, takes precedence only if it contains a model.
    let checkout = tempfile::tempdir().unwrap();
    std::fs::create_dir(checkout.path().join("gpt2")).unwrap();
    let model = scene.info("gpt2", &[]).current_dir(checkout.path()).succeeds().json();
    assert_eq!(model["model"], "openai-community/gpt2");
    assert!(
        !scene
            .home
            .path()
            .join("hub/models--openai-community--gpt2/snapshots")
            .join(COMMIT)
            .join("merges.txt")
            .exists()
    );
}

#[test]
fn a_mirror_without_listings_works() {
    for checkpoint in ["base", "untied_f16", "inverse"] {
        let scene = Scene::with(checkpoint);
        scene.hub.fail(usize::MAX, "GET", "/api/models", Fault::Status(404));
        scene.info(ID, &[]).succeeds();
        scene.info("someone/nothing", &[]).env("HF_TOKEN", TOKEN).fails(1, &["someone/nothing", "not found"]);
        scene.hub.take_requests();
        scene.info(ID, &[]).succeeds();
        assert_eq!(scene.hub.take_requests().len(), 0);
    }
}

#[test]
fn the_token_is_sent_only_to_the_hub() {
    let scene = Scene::with("base");
    scene.hub.restrict(ID, Access::Private);
    let as_variable: fn(Run, &Path) -> Run = |run, _| run.env("HF_TOKEN", format!("{TOKEN}\n"));
    let as_file: fn(Run, &Path) -> Run = |run, home| {
        std::fs::write(home.join("elsewhere"), TOKEN).unwrap();
        run.env("HF_TOKEN_PATH", home.join("elsewhere"))
    };
    let as_login: fn(Run, &Path) -> Run = |run, home| {
        std::fs::write(home.join("token"), format!("{TOKEN}\n")).unwrap();
        run
    };
    for pass in [as_variable, as_file, as_login] {
        let done = pass(scene.info(ID, &[]), scene.home.path()).succeeds();
        assert!(!(done.stderr() + &done.stdout()).contains(TOKEN));
        let requests = scene.hub.take_requests();
        assert!(requests.iter().any(|request| request.to_cdn), "the weights come from the CDN");
        for request in requests {
            let token = request.headers.get("authorization");
            let right = if request.to_cdn { None } else { Some(format!("Bearer {TOKEN}")) };
            assert_eq!(token, right.as_ref(), "{request:?}");
        }
        std::fs::remove_dir_all(scene.home.path().join("hub")).unwrap();
    }
    scene.info(ID, &[]).env("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1").fails(1, &["401", "HF_TOKEN"]);
}

#[test]
fn private_gated_and_missing_models_are_distinguished_with_advice() {
    let scene = Scene::with("base");
    scene.info("someone/nothing", &[]).fails(1, &["someone/nothing", "401", "name", "HF_TOKEN"]);
    scene.info("someone/nothing", &[]).env("HF_TOKEN", TOKEN).fails(1, &["someone/nothing", "not found", "name"]);
    scene.hub.restrict(ID, Access::Gated);
    scene.info(ID, &[]).fails(1, &[ID, "terms", &format!("{}/{ID}", scene.hub.url()), "HF_TOKEN"]);
    let done = scene.info(ID, &[]).env("HF_TOKEN", "hf_wrong").fails(1, &[ID, "make sure that the token"]);
    assert!(!done.stderr().contains("hf_wrong"));
    scene.hub.fail(1, "GET", "/api/models", Fault::Status(403));
    scene.info(ID, &[]).fails(1, &[ID, "403", "HF_TOKEN"]);
    scene.info(ID, &[]).env("HF_TOKEN", TOKEN).succeeds();
}

#[test]
fn other_architectures_are_refused_before_their_weights_are_fetched() {
    let scene = Scene::empty();
    let mut files = files_of(&tiny("base"));
    files.insert("config.json".to_owned(), br#"{"model_type": "llama"}"#.to_vec());
    scene.hub.add("someone/llama", files);
    scene.info("someone/llama", &[]).fails(1, &["config.json", "llama"]);
    let kinds: &[(&[&str], &[&str])] = &[
        (&["config.json", "README.md"], &["no weights", "model.safetensors", "pytorch_model.bin", "*.gguf"]),
        (&["config.json", "tf_model.h5", "flax_model.msgpack"], &["tf_model.h5", "Keras"]),
        (&["model.safetensors"], &["config.json"]),
        (&["a.gguf", "b.gguf"], &["several files with weights", "a.gguf"]),
    ];
    for (number, (names, words)) in kinds.iter().enumerate() {
        let files = names.iter().map(|name| ((*name).to_owned(), fixture("base", "config.json"))).collect::<Files>();
        let id = format!("someone/kind{number}");
        scene.hub.add(&id, files);
        scene.info(&id, &[]).fails(1, &[&[id.as_str()], *words].concat());
    }
    assert!(scene.hub.take_requests().iter().all(|request| !request.to_cdn));
}

#[test]
fn an_unreachable_hub_is_reported_in_one_line_with_advice() {
    let scene = Scene::empty();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let start = Instant::now();
    let done = scene
        .info(ID, &[])
        .env("HF_ENDPOINT", format!("http://{port}"))
        .fails(1, &["cannot reach the hub", &port.to_string(), "refused", "--model demo", "local folder"]);
    assert_eq!(done.stderr().trim_end().lines().count(), 1, "{}", done.stderr());
    assert!(start.elapsed() < Duration::from_secs(60));
    scene.info(ID, &[]).env("HF_ENDPOINT", "http://hub.invalid").fails(1, &["cannot reach the hub", "hub.invalid"]);
    scene.info(ID, &[]).env("HF_ENDPOINT", "no address").fails(1, &["HF_ENDPOINT"]);
    scene.info(ID, &[]).env("HF_HUB_DOWNLOAD_TIMEOUT", "soon").fails(2, &["HF_HUB_DOWNLOAD_TIMEOUT", "soon"]);
}

#[test]
fn a_silent_hub_times_out() {
    let scene = Scene::with("base");
    scene.hub.fail(1, "GET", "/api/models", Fault::StallAfter(0));
    scene.info(ID, &[]).fails(1, &["cannot reach the hub", "has been silent for 1 s", "HF_HUB_DOWNLOAD_TIMEOUT"]);
}

#[test]
fn the_cache_is_used_when_the_hub_is_unreachable() {
    let scene = Scene::with("base");
    scene.info(ID, &[]).succeeds();
    // As if another program had cached the files without a tokenizer.
    std::fs::remove_dir_all(scene.repository().join(".no_exist")).unwrap();
    scene.info(ID, &[]).env("HF_ENDPOINT", "http://127.0.0.1:9").succeeds();
    scene.info(ID, &["--offline"]).succeeds();
    scene.hub.take_requests();
    scene.info(ID, &[]).succeeds();
    assert_eq!(scene.hub.take_requests().len(), 1, "only the listing, which the cache did not have");
    scene.info(ID, &[]).succeeds();
    assert_eq!(scene.hub.take_requests().len(), 0);

    std::fs::remove_file(scene.snapshot().join(WEIGHTS)).unwrap();
    scene.info(ID, &["--offline"]).fails(1, &["no weights", "offline", "online"]);
}

#[test]
fn an_interrupted_download_continues_where_it_stopped() {
    let scene = Scene::with("base");
    scene.hub.fail(1, "GET", WEIGHTS, Fault::CutAfter(100_000));
    scene.info(ID, &[]).succeeds();
    assert_eq!(std::fs::read(scene.snapshot().join(WEIGHTS)).unwrap(), fixture("base", WEIGHTS));
    let requests = scene.hub.take_requests();
    let ranges: Vec<_> = downloads(&requests, WEIGHTS).iter().map(|request| request.headers.get("range")).collect();
    assert_eq!(ranges, [None, Some(&"bytes=100000-".to_owned())]);
}

#[test]
fn a_partial_file_is_never_used_and_the_next_run_resumes_it() {
    let scene = Scene::with("base");
    scene.hub.fail(usize::MAX, "GET", WEIGHTS, Fault::CutAfter(1000));
    scene.info(ID, &[]).fails(1, &["cannot download model.safetensors", ID, "run again"]);
    assert!(!scene.snapshot().join(WEIGHTS).exists());
    assert!(!scene.blob("base", WEIGHTS).exists());
    assert_eq!(scene.partial("base", WEIGHTS).metadata().unwrap().len(), 5000, "five attempts");
    scene.info(ID, &["--offline"]).fails(1, &[]);

    scene.hub.recover();
    scene.hub.take_requests();
    scene.info(ID, &[]).succeeds();
    let requests = scene.hub.take_requests();
    assert!(downloads(&requests, WEIGHTS)[0].headers["range"].starts_with("bytes=5000-"));
    assert_eq!(std::fs::read(scene.snapshot().join(WEIGHTS)).unwrap(), fixture("base", WEIGHTS));
}

#[test]
fn a_server_without_ranges_sends_the_whole_file_again() {
    let scene = Scene::with("base");
    scene.hub.fail(1, "GET", WEIGHTS, Fault::CutAfter(1000));
    scene.hub.fail(1, "GET", WEIGHTS, Fault::IgnoreRange);
    scene.info(ID, &[]).succeeds();
    assert_eq!(std::fs::read(scene.snapshot().join(WEIGHTS)).unwrap(), fixture("base", WEIGHTS));
}

#[test]
fn a_partial_file_of_an_earlier_run_is_verified() {
    let scene = Scene::with("base");
    for left in [vec![7; 1000], vec![7; fixture("base", WEIGHTS).len()], vec![7; 1 << 20]] {
        std::fs::create_dir_all(scene.repository().join("blobs")).unwrap();
        std::fs::write(scene.partial("base", WEIGHTS), left).unwrap();
        scene.info(ID, &[]).succeeds();
        assert_eq!(std::fs::read(scene.snapshot().join(WEIGHTS)).unwrap(), fixture("base", WEIGHTS));
        std::fs::remove_dir_all(scene.home.path().join("hub")).unwrap();
    }
}

#[test]
fn a_stalled_download_continues_after_the_time_limit() {
    let scene = Scene::with("base");
    scene.hub.fail(1, "GET", WEIGHTS, Fault::StallAfter(5000));
    scene.info(ID, &[]).succeeds();
    scene.info(ID, &["--offline"]).succeeds();

    let scene = Scene::with("base");
    scene.hub.fail(usize::MAX, "GET", WEIGHTS, Fault::StallAfter(0));
    scene.info(ID, &[]).fails(1, &["cannot download model.safetensors", "has been silent for 1 s"]);
}

#[test]
fn a_failing_hub_is_retried_after_a_pause() {
    let scene = Scene::with("base");
    scene.hub.fail(2, "GET", "/api/models", Fault::Status(503));
    scene.hub.fail(1, "HEAD", "config.json", Fault::Status(500));
    scene.hub.fail(1, "GET", WEIGHTS, Fault::Status(502));
    let start = Instant::now();
    scene.info(ID, &[]).succeeds();
    let pauses = Duration::from_millis(250 + 500 + 250 + 250);
    assert!(start.elapsed() >= pauses, "there are pauses between attempts");

    let scene = Scene::with("base");
    scene.hub.fail(usize::MAX, "GET", "/api/models", Fault::Status(503));
    scene.info(ID, &[]).fails(1, &["cannot reach the hub", "503", "--model demo"]);
    assert_eq!(scene.hub.take_requests().len(), 5);
}

#[test]
fn a_killed_download_is_completed_by_the_next_run() {
    let scene = Scene::with("base");
    scene.hub.fail(1, "GET", WEIGHTS, Fault::StallAfter(150_000));
    let mut command = scene.info(ID, &[]).env("HF_HUB_DOWNLOAD_TIMEOUT", "60").into_command();
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let partial = scene.partial("base", WEIGHTS);
    wait_until(|| partial.metadata().is_ok_and(|metadata| metadata.len() == 150_000));
    child.kill().unwrap();
    child.wait().unwrap();
    scene.info(ID, &["--offline"]).fails(1, &["offline"]);

    scene.hub.take_requests();
    scene.info(ID, &[]).succeeds();
    assert_eq!(std::fs::read(scene.snapshot().join(WEIGHTS)).unwrap(), fixture("base", WEIGHTS));
    let requests = scene.hub.take_requests();
    assert!(downloads(&requests, WEIGHTS)[0].headers["range"].starts_with("bytes=150000-"));
}

#[test]
fn two_processes_download_a_model_once() {
    let scene = Scene::with("base");
    scene.hub.fail(1, "GET", WEIGHTS, Fault::Delay(Duration::from_millis(700)));
    let start = || {
        let mut command = scene.info(ID, &[]).env("HF_HUB_DOWNLOAD_TIMEOUT", "60").into_command();
        command.stdout(Stdio::null()).spawn().unwrap()
    };
    let children = [start(), start()];
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let requests = scene.hub.take_requests();
    let from_cdn = downloads(&requests, WEIGHTS).len();
    assert_eq!(from_cdn, 1);
    assert_eq!(std::fs::read(scene.snapshot().join(WEIGHTS)).unwrap(), fixture("base", WEIGHTS));
}

#[test]
fn content_with_a_wrong_checksum_is_not_kept() {
    for name in [WEIGHTS, "config.json"] {
        let scene = Scene::with("base");
        scene.hub.fail(usize::MAX, "GET", name, Fault::Alter);
        scene.info(ID, &[]).fails(1, &[name, "checksum", "not kept"]);
        assert!(!scene.snapshot().join(name).exists());
        assert!(!scene.blob("base", name).exists());
        scene.hub.recover();
        scene.info(ID, &[]).succeeds();
    }
}

#[test]
fn a_damaged_file_in_the_cache_is_detected_and_fetched_again() {
    let scene = Scene::with("base");
    for name in ["config.json", WEIGHTS] {
        scene.info(ID, &[]).succeeds();
        let blob = scene.blob("base", name);
        let whole = std::fs::read(&blob).unwrap();
        std::fs::write(&blob, &whole[..whole.len() / 2]).unwrap();
        scene.info(ID, &["--offline"]).fails(1, &[name]);
        scene.info(ID, &[]).succeeds();
        assert_eq!(std::fs::read(scene.snapshot().join(name)).unwrap(), whole);
    }

    // A file too large to compute its checksum at every start.
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo");
    let scene = Scene::empty();
    scene.hub.add(ID, files_of(&demo));
    scene.info(ID, &[]).succeeds();
    let weights = scene.snapshot().join(WEIGHTS);
    let whole = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &whole[..whole.len() - 1]).unwrap();
    scene.info(ID, &["--offline"]).fails(1, &[WEIGHTS, "damaged", "online"]);
    scene.info(ID, &[]).succeeds();
    assert!(std::fs::read(weights).unwrap() == whole);
}

#[test]
fn an_unwritable_cache_is_reported_and_a_read_only_cache_works() {
    let scene = Scene::with("base");
    scene
        .info(ID, &[])
        .env("HF_HUB_CACHE", "/dev/null/cache")
        .fails(1, &["cannot write", "/dev/null/cache", "HF_HUB_CACHE"]);
    scene.info(ID, &[]).succeeds();
    let set_writable = |writable: bool| {
        let mode = if writable { "u+w" } else { "a-w" };
        assert!(Command::new("chmod").args(["-R", mode]).arg(scene.home.path()).status().unwrap().success());
    };
    set_writable(false);
    scene.info(ID, &[]).succeeds();
    scene.info(ID, &["--offline"]).succeeds();
    set_writable(true);
}

/// `/dev/full` fails every write, like a full disk.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_reported_and_nothing_appears_in_the_cache() {
    let scene = Scene::with("base");
    std::fs::create_dir_all(scene.repository().join("blobs")).unwrap();
    std::os::unix::fs::symlink("/dev/full", scene.partial("base", WEIGHTS)).unwrap();
    scene.info(ID, &[]).fails(1, &["cannot write", "No space left on device", "make room", "HF_HUB_CACHE"]);
    assert!(!scene.blob("base", WEIGHTS).exists());
    assert!(!scene.snapshot().join(WEIGHTS).exists());
}

#[test]
fn offline_opens_no_connection() {
    let scene = Scene::with("base");
    let in_vain = &["offline", ID, "cache", "--model demo"];
    scene.info(ID, &["--offline"]).fails(1, in_vain);
    for value in ["1", "ON", "yes", "True"] {
        scene.info(ID, &[]).env("HF_HUB_OFFLINE", value).fails(1, in_vain);
        scene.info(ID, &[]).env("TRANSFORMERS_OFFLINE", value).fails(1, in_vain);
    }
    assert_eq!(scene.hub.take_requests().len(), 0);
    // As in huggingface_hub, the first that is set counts.
    scene.info(ID, &[]).env("HF_HUB_OFFLINE", "0").env("TRANSFORMERS_OFFLINE", "1").succeeds();
}

/// As huggingface_hub does it: `os.path.expandvars(os.path.expanduser(path))`.
#[test]
fn the_cache_is_found_through_a_tilde_and_variables() {
    let scene = Scene::with("base");
    scene.info(ID, &[]).succeeds();
    scene.hub.take_requests();
    let home = scene.home.path();
    let (parent, name) = (home.parent().unwrap(), home.file_name().unwrap().to_str().unwrap());
    for path in [format!("~/{name}"), "$PARENT/$NAME".to_owned(), format!("${{PARENT}}/{name}")] {
        let run = scene.info(ID, &["--offline"]).env("HOME", parent).env("PARENT", parent).env("NAME", name);
        run.env("HF_HOME", &path).succeeds();
        let run = scene.info(ID, &["--offline"]).env("HOME", parent).env("PARENT", parent).env("NAME", name);
        run.env("HF_HOME", "/nonexistent").env("HF_HUB_CACHE", format!("{path}/hub")).succeeds();
    }
    assert_eq!(scene.hub.take_requests().len(), 0);
}

/// Someone behind a proxy learns that it is the proxy that fails, and nobody learns its password.
#[test]
fn a_proxy_that_refuses_is_named() {
    use std::io::{Read, Write};
    let scene = Scene::with("base");
    let through = |address: &str, variable: &str, endpoint: &str| {
        scene.info(ID, &[]).env("NO_PROXY", "").env("HF_ENDPOINT", endpoint).env(variable, address)
    };
    let done = through("http://ann:secret@127.0.0.1:9", "HTTPS_PROXY", "https://hub.invalid")
        .fails(1, &["cannot reach the hub", "through the proxy http://127.0.0.1:9 (HTTPS_PROXY)"]);
    assert!(!done.stderr().contains("secret"), "{}", done.stderr());
    through("http://127.0.0.1:9", "http_proxy", "http://hub.invalid").fails(1, &["through the proxy", "(http_proxy)"]);

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let answer = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    let words = &["the proxy", &address, "407"][..];
    through(&address, "HTTP_PROXY", "http://hub.invalid").fails(1, words);
    through(&address, "HTTPS_PROXY", "https://hub.invalid").fails(1, &words[..2]);
}

/// The fake hub only records connections to itself; system calls show all connections.
#[test]
#[cfg(target_os = "linux")]
fn offline_opens_no_socket() {
    let strace = Command::new("strace").arg("--version").stdout(Stdio::null()).status();
    let Some(strace) = requires("strace", strace.ok()) else { return };
    assert!(strace.success());
    let scene = Scene::with("base");
    scene.info(ID, &[]).succeeds();
    for (arguments, connects) in [(&["--offline"][..], false), (&["--revision", "v0"], true)] {
        let log = scene.home.path().join("strace.log");
        let traced = scene.info(ID, arguments).into_command();
        let mut command = Command::new("strace");
        command.args(["-f", "-e", "trace=socket,connect,sendto", "-o"]).arg(&log);
        command.arg(traced.get_program()).args(traced.get_args());
        for (name, value) in traced.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        let log = std::fs::read_to_string(log).unwrap();
        assert_eq!(log.contains("socket("), connects, "{log}");
    }
}

#[test]
fn the_answers_of_the_hub_are_not_trusted() {
    // Names that would escape the cache.
    let scene = Scene::with("base");
    scene.hub.fail(usize::MAX, "HEAD", WEIGHTS, Fault::ClaimEtag("../../../../evil"));
    scene.info(ID, &[]).fails(1, &[WEIGHTS, "ETag"]);
    scene.hub.recover();
    let index = br#"{"weight_map": {"wte.weight": "../../../../../../etc/passwd"}}"#;
    let mut files = files_of(&tiny("untied_f16"));
    files.insert("model.safetensors.index.json".to_owned(), index.to_vec());
    scene.hub.add("someone/outside", files.clone());
    scene.info("someone/outside", &[]).fails(1, &["model.safetensors.index.json", "etc/passwd"]);
    let index = br#"{"weight_map": {"wte.weight": "model-00003-of-00002.safetensors"}}"#;
    files.insert("model.safetensors.index.json".to_owned(), index.to_vec());
    scene.hub.add("someone/lacking", files);
    scene.info("someone/lacking", &[]).fails(1, &["model-00003-of-00002.safetensors"]);

    // A size that fits no memory and does not match the content.
    scene.hub.fail(usize::MAX, "HEAD", WEIGHTS, Fault::ClaimSize(u64::MAX));
    scene.info(ID, &[]).fails(1, &[WEIGHTS, &u64::MAX.to_string()]);
    scene.hub.recover();
    scene.hub.fail(usize::MAX, "HEAD", WEIGHTS, Fault::ClaimSize(10));
    scene.info(ID, &[]).fails(1, &[WEIGHTS]);
    assert!(!scene.blob("base", WEIGHTS).exists());
}

/// Python's `huggingface_hub` finds what was downloaded here, and vice versa. Needs that package, so it runs only on
/// demand: `PYTHON=python3 cargo test --release shared_with -- --ignored`.
#[test]
#[ignore = "needs Python with huggingface_hub; the variable PYTHON names it"]
fn the_cache_is_shared_with_huggingface_hub() {
    let python = |scene: &Scene, offline: &str, code: &str| {
        let interpreter = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let code = format!("from huggingface_hub import *\nprint({code})");
        let mut command = Command::new(interpreter);
        command.args(["-c", &code]).env("HF_ENDPOINT", scene.hub.url()).env("HF_HOME", scene.home.path());
        let output = command.env("HF_HUB_OFFLINE", offline).env("NO_PROXY", "127.0.0.1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    for checkpoint in ["base", "untied_f16", "inverse"] {
        let scene = Scene::with(checkpoint);
        scene.info(ID, &[]).succeeds();
        scene.hub.take_requests();
        for name in files_of(&tiny(checkpoint)).keys() {
            let code = format!("hf_hub_download('{ID}', '{name}')");
            let path = scene.snapshot().join(name);
            assert_eq!(python(&scene, "1", &code), path.to_str().unwrap(), "found offline");
            assert_eq!(python(&scene, "0", &code), path.to_str().unwrap());
            assert_eq!(downloads(&scene.hub.take_requests(), name).len(), 0, "Python downloads {name} again");
        }

        let scene = Scene::with(checkpoint);
        let path = python(&scene, "0", &format!("snapshot_download('{ID}')"));
        assert_eq!(path, scene.snapshot().to_str().unwrap());
        scene.hub.take_requests();
        scene.info(ID, &["--offline"]).succeeds();
        assert_eq!(scene.hub.take_requests().len(), 0);
        scene.info(ID, &[]).succeeds();
        let requests = scene.hub.take_requests();
        assert_eq!(requests.len(), 1, "only the listing, which shows that there is no tokenizer: {requests:?}");
    }
}

#[track_caller]
fn wait_until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "timed out");
        std::thread::sleep(Duration::from_millis(20));
    }
}
