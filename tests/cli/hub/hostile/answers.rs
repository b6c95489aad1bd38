//! Hostile answers to what is asked before a download: the list of files, and what a file is.

use super::End::{Badly, Well};
use super::*;
use crate::fake_hub::files_of;
use crate::harness::tiny;

const LISTING: &str = "/api/models";

/// A response with this body and the headers that it needs.
fn page(status: &str, body: &str) -> Fault {
    raw(format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

fn listing(fault: Fault, end: End) -> Case {
    case("GET", LISTING, fault, end)
}

/// The body of a listing with these further files.
fn names(names: &[&str]) -> Fault {
    let names = ["config.json", WEIGHTS].iter().chain(names);
    let files: Vec<_> = names.map(|name| serde_json::json!({ "rfilename": name })).collect();
    page("200 OK", &serde_json::json!({ "sha": super::super::COMMIT, "siblings": files }).to_string())
}

#[test]
fn a_listing_has_limits() {
    const ENDLESS: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    const OPEN: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
    let too_long = || Badly(&["sends a list of more than 16 MiB", ID]);
    let silent = || Badly(&["cannot reach the hub", "silent for 1 s (HF_HUB_DOWNLOAD_TIMEOUT"]);
    let file = r#"{"rfilename":"a"},"#;
    let chunk = format!("{:x}\r\n{}\r\n", 1000 * file.len(), file.repeat(1000));
    check(vec![
        // Size.
        listing(endless(&format!("{ENDLESS}d\r\n{{\"siblings\":[\r\n"), chunk), too_long()),
        listing(endless(OPEN, vec![b'['; 1 << 16]), too_long()),
        listing(endless("HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n", vec![b' '; 1 << 16]), too_long()),
        listing(head("200 OK\r\nContent-Length: 18446744073709551615"), Badly(&["cannot reach the hub"])),
        listing(head("200 OK\r\nContent-Length: 99999999999"), too_long()),
        listing(endless("HTTP/1.1 200 OK\r\n", "X-Header: 1\r\n"), Badly(&["cannot reach the hub"])),
        listing(
            raw(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(1 << 20))),
            Badly(&["cannot reach the hub"]),
        ),
        listing(endless("HTTP/1.1 ", "2"), Badly(&["cannot reach the hub"])),
        listing(endless(&format!("{ENDLESS}1;"), "extension"), Badly(&["cannot reach the hub"])),
        listing(endless(&format!("{ENDLESS}1\r\n[\r\n0\r\n"), "Trailer: 1\r\n"), Badly(&["cannot reach the hub"])),
        listing(endless("", "HTTP/1.1 100 Continue\r\n\r\n"), silent()),
        // Bodies of errors are not read.
        listing(
            endless("HTTP/1.1 404 Not Found\r\nX-Error-Code: RepoNotFound\r\n\r\n", "x".repeat(1 << 16)),
            Badly(&["is not found"]),
        ),
        listing(endless("HTTP/1.1 401 Unauthorized\r\n\r\n", "x".repeat(1 << 16)), Badly(&["denies access", "401"])),
        listing(endless("HTTP/1.1 500 Error\r\n\r\n", "x".repeat(1 << 16)), Badly(&["answered 500"])),
        // Time.
        listing(
            drip(OPEN, b' '),
            Badly(&["cannot reach the hub", "sent no more than", "bytes in 3 s (HF_HUB_DOWNLOAD_TIMEOUT"]),
        ),
        listing(
            Fault::Endless { head: OPEN.into(), again: vec![b' '; 1000], pause: Duration::from_millis(200) },
            Badly(&["cannot reach the hub", "did not complete the list of files within 6 s (HF_HUB_DOWNLOAD_TIMEOUT"]),
        ),
        listing(drip("HTTP/1.1 200 OK\r\nX: ", b'y'), silent()),
        listing(drip("", b'H'), silent()),
        listing(drip("HTTP/1.1 100 Continue\r\n\r\n", b'H'), silent()),
        listing(Fault::Delay(Duration::from_secs(3)), silent()),
    ]);
}

#[test]
fn a_listing_that_is_none_is_done_without_or_refused() {
    let broken = || Badly(&["cannot reach the hub", "attempt 5 of 5"]);
    let instead: fn() -> End = || Well(&[]);
    check(vec![
        listing(page("200 OK", "<html>Welcome to this hotel</html>"), instead()),
        listing(page("200 OK", ""), instead()),
        listing(page("200 OK", r#"{"sha": "0123456789abcdef"#), instead()),
        listing(page("200 OK", &"[".repeat(1_000_000)), instead()),
        listing(page("200 OK", &format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000))), instead()),
        listing(page("200 OK", r#"{"sha": "../../../../etc", "siblings": []}"#), instead()),
        listing(page("200 OK", r#"{"siblings": [{"rfilename": "config.json"}]}"#), instead()),
        listing(page("200 OK", r#"{"sha": 7, "siblings": {}}"#), instead()),
        listing(
            page("200 OK", r#"{"sha": "0123456789abcdef0123456789abcdef01234567", "siblings": [{"rfilename": 7}]}"#),
            instead(),
        ),
        listing(page("200 OK", "\u{1f}\u{8b}\u{8}\0\0"), instead()),
        listing(head("204 No Content"), instead()),
        listing(head("999 Strange"), Badly(&["answered 999"])),
        listing(head("99 Short"), broken()),
        listing(raw(b"SSH-2.0-OpenSSH_9.6\r\n"), broken()),
        listing(raw(b"\0\xff\xfe\r\n\r\n"), broken()),
        listing(raw(b""), broken()),
        listing(head("200 OK\r\nContent-Length: 1\r\nContent-Length: 2"), broken()),
        listing(head("200 OK\r\nContent-Length: -1"), broken()),
        listing(head("200 OK\r\nContent-Length: 1000"), broken()),
        listing(raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffffff\r\n"), broken()),
        listing(raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello\r\n"), broken()),
        // Names that lead elsewhere are only names as long as nobody wants the file.
        listing(
            names(&[
                "../../../../evil",
                "/etc/passwd",
                "a\\b",
                "a\0b",
                "\u{1b}]0;title\u{7}",
                "a//b",
                "",
                ".",
                &"x".repeat(100_000),
            ]),
            instead(),
        ),
    ]);
}

/// A file of weights with a name that leads out of the cache, or fits no disk.
#[test]
fn names_that_cannot_be_used_are_refused() {
    for name in ["..\\evil.gguf", "C:evil.gguf", "a\0.gguf", &format!("{}.gguf", "x".repeat(300))] {
        let scene = Scene::with("base");
        let listing = serde_json::json!({ "sha": super::super::COMMIT, "siblings": [{ "rfilename": name }] });
        scene.hub.fail(usize::MAX, "GET", LISTING, page("200 OK", &listing.to_string()));
        let ended = bounded(&scene, scene.info(ID, &[]), name);
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        // One with a backslash is in a folder, where nobody looks.
        let words =
            if name.contains('\\') { &["is not a model"][..] } else { &["a name that cannot be used", ".gguf"] };
        for word in words {
            assert!(ended.stderr.contains(word), "{}", ended.stderr);
        }
    }
}

#[test]
fn redirects_lead_to_servers_and_to_an_end() {
    let to = |location: &str| head(&format!("302 Found\r\nContent-Length: 0\r\nLocation: {location}"));
    let nothing = || Badly(&["redirects to something that is no server"]);
    check(vec![
        listing(to("/api/models/again"), Badly(&["redirects more than 10 times", "is it a hub (HF_ENDPOINT)?"])),
        listing(to("?again"), Badly(&["redirects more than 10 times"])),
        listing(to("file:///etc/passwd"), nothing()),
        listing(to("ftp://127.0.0.1/secret"), nothing()),
        listing(to("data:application/json,{}"), nothing()),
        listing(to("javascript:alert(1)"), nothing()),
        listing(to("http://["), Badly(&["answered 302"])),
        listing(to("\u{ff}"), Badly(&["redirects more than 10 times"])),
        listing(head("302 Found"), Badly(&["answered 302"])),
        listing(
            to("http://ann:secret@127.0.0.1:9/x?X-Amz-Signature=secret&X-Amz-Credential=secret"),
            Badly(&[
                "cannot reach the hub",
                "http://127.0.0.1:9 (where http://127.0.0.1",
                "redirects to): ",
                "refused",
            ]),
        ),
        listing(to("https://127.0.0.1:9/?Signature=secret"), Badly(&["https://127.0.0.1:9 (where"])),
        case(
            "HEAD",
            "config.json",
            to("/someone/tiny/resolve/main/config.json"),
            Badly(&["redirects more than 10 times"]),
        ),
        case(
            "GET",
            "config.json",
            to("/someone/tiny/resolve/main/config.json"),
            Badly(&["redirects more than 10 times"]),
        ),
    ]);
}

#[test]
fn a_server_that_asks_to_wait_is_heard() {
    let later = |status: &str, when: &str| head(&format!("{status}\r\nContent-Length: 0\r\nRetry-After: {when}"));
    const BUSY: &str = "429 Too Many Requests";
    let refused = |words| Badly(words);
    check(vec![
        listing(
            later(BUSY, "3600"),
            refused(&["cannot reach the hub", "answered 429 Too Many Requests and asks to come back in 60 min"]),
        ),
        listing(later(BUSY, "61"), refused(&["and asks to come back in 61 s"])),
        listing(
            later("503 Service Unavailable", "99999999999999999999999"),
            refused(&["answered 503", "come back in 213503982334602 days"]),
        ),
        listing(later(BUSY, "Fri, 31 Dec 2100 23:59:59 GMT"), refused(&["and asks to come back in", "days"])),
        case("HEAD", "config.json", later(BUSY, "7200"), refused(&["cannot download config.json", "come back in 2 h"])),
        case("GET", WEIGHTS, later(BUSY, "7200"), refused(&["cannot download model.safetensors", "come back in 2 h"])),
        once(
            "GET",
            LISTING,
            later(BUSY, "1"),
            Well(&[
                "note: the list of files: http://127.0.0.1",
                "answered 429 Too Many Requests; trying again in 1 s (attempt 2 of 5)",
            ]),
        ),
        once(
            "HEAD",
            WEIGHTS,
            later(BUSY, "1"),
            Well(&["note: model.safetensors: http://127.0.0.1", "trying again in 1 s (attempt 2 of 5)"]),
        ),
        once("GET", LISTING, later(BUSY, "0"), Well(&["trying again in 0.25 s (attempt 2 of 5)"])),
        once("GET", LISTING, later(BUSY, "Sun, 06 Nov 1994 08:49:37 GMT"), Well(&["trying again in 0.25 s"])),
        once("GET", LISTING, later(BUSY, "-5"), Well(&["trying again in 0.25 s"])),
        once("GET", LISTING, later(BUSY, "soon\u{1b}[31m"), Well(&["trying again in 0.25 s"])),
        case(
            "GET",
            LISTING,
            later("500 Internal Server Error", "0"),
            Badly(&["attempt 2 of 5", "attempt 5 of 5", "answered 500"]),
        ),
    ]);
}

#[test]
fn a_quiet_run_waits_in_silence() {
    let scene = Scene::with("base");
    scene.hub.fail(1, "GET", LISTING, Fault::Status(503));
    assert_eq!(scene.info(ID, &["--quiet"]).succeeds().stderr(), "");
}

/// Each answer comes in time, but all of them together take long.
#[test]
fn slow_answers_are_noted_and_have_a_limit() {
    let after = |milliseconds| Fault::Delay(Duration::from_millis(milliseconds));
    let note = |scene: &Scene| format!("note: asking the hub at {} for {ID} ...\n", scene.hub.url());
    let scene = Scene::with("base");
    scene.hub.fail(usize::MAX, "HEAD", "", after(1200));
    let patiently = |scene: &Scene| scene.info(ID, &[]).env("HF_HUB_ETAG_TIMEOUT", "60");
    assert_eq!(patiently(&scene).succeeds().stderr(), note(&scene));
    // One answer alone: it is said before it comes.
    let scene = Scene::with("base");
    scene.hub.fail(1, "GET", LISTING, after(3500));
    assert_eq!(patiently(&scene).succeeds().stderr(), note(&scene));
    std::fs::remove_dir_all(scene.home.path().join("hub")).unwrap();
    scene.hub.fail(1, "GET", LISTING, after(3500));
    let quiet = scene.info(ID, &["--quiet"]).env("HF_HUB_ETAG_TIMEOUT", "60");
    assert_eq!(quiet.succeeds().stderr(), "");
    // Without a list, every name that a file may have is asked for: each gets its answer in the end.
    let scene = Scene::with("base");
    scene.hub.fail(usize::MAX, "GET", LISTING, page("200 OK", ""));
    for name in ["config.json", WEIGHTS, "generation_config.json", "tokenizer.json", "vocab.json"] {
        let path = format!("/resolve/{}/{name}", super::super::COMMIT);
        scene.hub.fail(4, "HEAD", &path, after(3000));
    }
    let ended = bounded(&scene, scene.info(ID, &[]), "slow answers");
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    for words in [
        &*note(&scene),
        "cannot download the files of `someone/tiny`: in 12 s http://127.0.0.1",
        "has not said what they are (HF_HUB_DOWNLOAD_TIMEOUT sets how long to wait)",
    ] {
        assert_eq!(ended.stderr.matches(words).count(), 1, "{}", ended.stderr);
    }
}

/// An index of shards that names files elsewhere, or none.
#[test]
fn the_shards_are_files_of_the_repository() {
    let scene = Scene::empty();
    let mut files = files_of(&tiny("untied_f16"));
    for (name, words) in [
        ("../../../../../../etc/passwd", "etc/passwd"),
        ("/etc/passwd", "etc/passwd"),
        ("model-00003-of-00002.safetensors", "model-00003-of-00002.safetensors"),
    ] {
        let index = serde_json::json!({ "weight_map": { "wte.weight": name } });
        files.insert("model.safetensors.index.json".to_owned(), index.to_string().into_bytes());
        scene.hub.add(ID, files.clone());
        scene.info(ID, &[]).fails(1, &["model.safetensors.index.json", words]);
        std::fs::remove_dir_all(scene.home.path().join("hub")).unwrap();
    }
}

#[test]
fn what_a_file_is_said_to_be_is_checked() {
    let etag = |etag: &str| Fault::Claim("X-Linked-Etag", format!("\"{etag}\""));
    let size = |size: &str| Fault::Claim("X-Linked-Size", size.to_owned());
    let weights = |fault, end| case("HEAD", WEIGHTS, fault, end);
    let unusable = || Badly(&["gives no usable ETag for model.safetensors"]);
    check(vec![
        weights(etag("../../../../evil"), unusable()),
        weights(etag("a/b"), unusable()),
        weights(etag("..\\..\\evil"), unusable()),
        weights(etag(".hidden"), unusable()),
        weights(etag(".."), unusable()),
        weights(etag("x.incomplete"), unusable()),
        weights(etag(&"0".repeat(10_000)), unusable()),
        weights(etag("a\u{1b}[31m"), Badly(&["cannot download"])),
        weights(head("200 OK\r\nContent-Length: 5"), unusable()),
        weights(
            size("18446744073709551615"),
            Badly(&["no room for model.safetensors", "18446744073709551615 bytes", "make room"]),
        ),
        weights(size("1000000000000000"), Badly(&["no room for model.safetensors"])),
        weights(size("10"), Badly(&["sends 195728 bytes for model.safetensors", "which should have 10"])),
        weights(size("195729"), Badly(&["sends 195728 bytes for model.safetensors", "which should have 195729"])),
        // Not a number: the server of the content says it, too.
        weights(size("-1"), Well(&[])),
        weights(size("many"), Well(&[])),
        weights(size("99999999999999999999999"), Well(&[])),
        case(
            "HEAD",
            "config.json",
            size("1000000000"),
            Badly(&["config.json of `someone/tiny`", "has 1000000000 bytes, more than the 1048576"]),
        ),
        case(
            "HEAD",
            "config.json",
            head("200 OK\r\nETag: \"a\"\r\nContent-Length: 999999999999"),
            Badly(&["more than the 1048576"]),
        ),
        case(
            "HEAD",
            "config.json",
            drip("HTTP/1.1 200 OK\r\nX: ", b'y'),
            Badly(&["cannot download config.json", "silent for 1 s", "attempt 5 of 5"]),
        ),
        case("HEAD", "config.json", Fault::Status(500), Badly(&["cannot download config.json", "500"])),
        case("HEAD", "config.json", raw(b""), Badly(&["cannot download config.json"])),
    ]);
}
