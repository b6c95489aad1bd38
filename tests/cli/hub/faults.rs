//! Networks and disks that fail.

use std::fs::File;
use std::io::{BufRead, BufReader};

use super::*;

#[test]
fn an_unreachable_hub_is_reported_in_one_line_with_advice() {
    let scene = Scene::empty();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let start = Instant::now();
    let done = scene
        .info(ID, &[])
        .env("HF_ENDPOINT", format!("http://{port}"))
        .fails(1, &["cannot reach the hub", &port.to_string(), "refused", "name a folder", "gpt2 info -m demo"]);
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

/// Only the checksum tells whether it is right.
#[test]
fn a_partial_file_outlives_bad_answers() {
    const TOTAL: usize = 195_728;
    let whole = |bytes: usize| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {TOTAL}\r\nConnection: close\r\n\r\n");
        [head.as_bytes(), &fixture("base", WEIGHTS)[..bytes]].concat()
    };
    let part = |range: &str| {
        let head = format!("HTTP/1.1 206 Partial Content\r\nContent-Range: {range}\r\nContent-Length: 4\r\n\r\n");
        [head.as_bytes(), &b"oops"[..]].concat()
    };
    for bad in [
        Fault::Raw(part("bytes 7-10/195728")),
        Fault::Raw(part("bytes 100000-100002/195728")),
        Fault::Raw(whole(1000)),
        Fault::Raw(whole(99_999)),
        Fault::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\noops".to_vec()),
        Fault::Raw(b"HTTP/1.1 206 Partial Content\r\nContent-Length: 4\r\n\r\noops".to_vec()),
        Fault::Raw(b"oops".to_vec()),
        Fault::Status(416),
        Fault::Status(503),
        Fault::Status(404),
        Fault::CutAfter(0),
    ] {
        let scene = Scene::with("base");
        let partial = scene.partial("base", WEIGHTS);
        std::fs::create_dir_all(partial.parent().unwrap()).unwrap();
        std::fs::write(&partial, &fixture("base", WEIGHTS)[..100_000]).unwrap();
        scene.hub.fail(usize::MAX, "GET", WEIGHTS, bad.clone());
        scene.info(ID, &[]).fails(1, &[WEIGHTS]);
        assert_eq!(std::fs::read(&partial).unwrap(), &fixture("base", WEIGHTS)[..100_000], "{bad:?}");
        scene.hub.recover();
        scene.hub.take_requests();
        scene.info(ID, &[]).succeeds();
        let requests = scene.hub.take_requests();
        assert_eq!(downloads(&requests, WEIGHTS)[0].headers["range"], "bytes=100000-");
        assert_eq!(std::fs::read(scene.snapshot().join(WEIGHTS)).unwrap(), fixture("base", WEIGHTS));
    }
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
    scene.info(ID, &[]).fails(1, &["cannot reach the hub", "503", "gpt2 info -m demo"]);
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
fn waiting_for_another_process_is_said() {
    let scene = Scene::with("base");
    let blob = scene.blob("base", WEIGHTS);
    let locks = scene.home.path().join("hub/.locks/models--someone--tiny");
    std::fs::create_dir_all(&locks).unwrap();
    let lock = File::create(locks.join(blob.file_name().unwrap()).with_extension("lock")).unwrap();
    lock.lock().unwrap();
    let mut command = scene.info(ID, &[]).into_command();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert_eq!(line, format!("note: {WEIGHTS}: waiting for another process to download it\n"));
    drop(lock);
    assert_eq!(stderr.read_line(&mut line).unwrap(), 0, "it is said once: {line}");
    assert!(child.wait().unwrap().success());
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

/// A limit on the size of files fails a write in the middle of a download, like a full disk.
#[test]
#[cfg(target_os = "linux")]
fn a_disk_that_fills_up_is_reported_and_the_download_resumed_later() {
    let scene = Scene::with("base");
    let limited = scene.info(ID, &[]).into_command();
    let mut command = Command::new("sh");
    // 128 blocks of 512 bytes, of the 196 kB of the weights.
    command.args(["-c", "ulimit -f 128; exec \"$@\"", "sh"]);
    command.arg(limited.get_program()).args(limited.get_args());
    for (name, value) in limited.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "no retry: {stderr}");
    for word in ["cannot write", ".incomplete", "File too large", "raise the limit", "HF_HUB_CACHE"] {
        assert!(stderr.contains(word), "{stderr}");
    }
    assert!(!scene.blob("base", WEIGHTS).exists());
    assert!(!scene.snapshot().join(WEIGHTS).exists());
    scene.info(ID, &["--offline"]).fails(1, &["offline"]);
    scene.info(ID, &[]).succeeds();
    assert_eq!(std::fs::read(scene.snapshot().join(WEIGHTS)).unwrap(), fixture("base", WEIGHTS));
}

#[track_caller]
fn wait_until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "timed out");
        std::thread::sleep(Duration::from_millis(20));
    }
}
