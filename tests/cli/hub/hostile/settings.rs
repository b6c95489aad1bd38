//! Settings that cannot be used, or must not be shown.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::*;
use crate::fake_hub::Access;

/// Neither the token nor a part of it is shown, but where it is.
#[test]
fn a_token_that_cannot_be_sent_is_named() {
    let tokens: &[(&[u8], &str)] = &[
        (b"hf_first\nsecret", "a line break"),
        (b"hf_first\r\nsecret", "a line break"),
        (b"hf_first\n\nsecret\n", "a line break"),
        (b"hf_\x1b[31msecret", "a control character"),
        (b"hf_\x7fsecret", "a control character"),
        ("hf_secrét".as_bytes(), "a character that is not ASCII"),
        (b"hf_\xff\xfesecret", "a character that is not ASCII"),
        (b"Bearer hf_secret", "a space"),
    ];
    for (token, problem) in tokens {
        let scene = Scene::with("base");
        let file = scene.home.path().join("token");
        let given = scene.info(ID, &[]).env("HF_TOKEN", OsString::from_vec(token.to_vec()));
        let ended = bounded(&scene, given, problem);
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        assert!(ended.stderr.contains(&format!("the access token in HF_TOKEN contains {problem}")), "{}", ended.stderr);

        std::fs::write(&file, token).unwrap();
        let ended = bounded(&scene, scene.info(ID, &[]), problem);
        let said = format!("the access token in {} contains {problem}", file.display());
        assert!(ended.code == Some(1) && ended.stderr.contains(&said), "{}", ended.stderr);
        std::fs::rename(&file, file.with_extension("txt")).unwrap();
        let named = scene.info(ID, &[]).env("HF_TOKEN_PATH", file.with_extension("txt"));
        let ended = bounded(&scene, named, problem);
        assert!(ended.code == Some(1) && ended.stderr.contains("token.txt contains"), "{}", ended.stderr);
        assert_eq!(scene.hub.take_requests().len(), 0, "nothing was sent");
    }
}

#[test]
fn the_file_of_a_token_is_read_with_a_limit() {
    let scene = Scene::with("base");
    let ended = bounded(&scene, scene.info(ID, &[]).env("HF_TOKEN_PATH", "/dev/zero"), "no end");
    assert!(ended.code == Some(1) && ended.stderr.contains("/dev/zero: larger than"), "{}", ended.stderr);
    let ended = bounded(&scene, scene.info(ID, &[]).env("HF_TOKEN_PATH", scene.home.path()), "a folder");
    assert!(ended.code == Some(1) && ended.stderr.contains("cannot read"), "{}", ended.stderr);
    scene.info(ID, &[]).env("HF_TOKEN_PATH", "/nowhere/token").succeeds();
    // A token alone on its lines is what editors write.
    let scene = Scene::with("base");
    scene.hub.restrict(ID, Access::Private);
    std::fs::write(scene.home.path().join("token"), format!("\u{feff}  {TOKEN} \r\n\r\n")).unwrap();
    scene.info(ID, &[]).succeeds();
}

/// The error after a denial names the token that was sent.
#[test]
fn a_token_of_no_use_is_named_by_its_place() {
    let scene = Scene::with("base");
    scene.hub.restrict(ID, Access::Private);
    let file = scene.home.path().join("token");
    std::fs::write(&file, "hf_wrong").unwrap();
    scene.info(ID, &[]).fails(1, &["401", &format!("make sure that the token in {}", file.display())]);
    scene.info(ID, &[]).env("HF_TOKEN", "hf_wrong").fails(1, &["make sure that the token in HF_TOKEN may read it"]);
}

#[test]
fn a_password_in_the_hubs_address_is_sent_to_the_hub_and_shown_to_nobody() {
    let scene = Scene::with("base");
    let host = scene.hub.url().trim_start_matches("http://").to_owned();
    let address = format!("http://annabel:se%63ret@{host}/?key=secret#secret");
    let with = |address: &str, arguments: &[&str]| scene.info(ID, arguments).env("HF_ENDPOINT", address);
    let ended = bounded(&scene, with(&address, &["-vv"]).env("HF_TOKEN", TOKEN), "works");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(!ended.stdout.contains("annabel"), "{}", ended.stdout);
    for request in scene.hub.take_requests() {
        // From `printf annabel:secret | base64`.
        let expected = (!request.to_cdn).then_some("Basic YW5uYWJlbDpzZWNyZXQ=");
        assert_eq!(request.headers.get("authorization").map(String::as_str), expected, "{request:?}");
    }
    std::fs::remove_dir_all(scene.home.path().join("hub")).unwrap();

    scene.hub.restrict(ID, Access::Private);
    let closed = "http://annabel:secret@127.0.0.1:9";
    for (address, words) in [
        (
            address.as_str(),
            &["denies access", "accept its terms at http://127.0.0.1", "user and the password in HF_ENDPOINT"][..],
        ),
        (closed, &["cannot reach the hub", "http://127.0.0.1:9: ", "refused"]),
        ("http://annabel:secret@hub.invalid/", &["cannot reach the hub", "http://hub.invalid: "]),
        ("annabel:secret@127.0.0.1", &["HF_ENDPOINT cannot be the address of a hub"]),
        ("http://annabel:secret@", &["HF_ENDPOINT cannot be the address of a hub"]),
        ("http://annabel:secret@127.0.0.1:99999", &["HF_ENDPOINT cannot be the address of a hub", "port"]),
        ("ftp://annabel:secret@127.0.0.1", &["starts neither with https:// nor with http://"]),
        ("file:///secret", &["starts neither with https:// nor with http://"]),
    ] {
        for arguments in [&[][..], &["-vv"]] {
            let ended = bounded(&scene, with(address, arguments), address);
            assert_eq!(ended.code, Some(1), "{}", ended.stderr);
            assert!(!ended.stderr.contains("annabel:"), "{}", ended.stderr);
            for word in words {
                assert!(ended.stderr.contains(word), "`{word}` is not in\n{}\nof {address}", ended.stderr);
            }
        }
    }
    for fault in
        [Fault::Status(404), Fault::Status(418), Fault::Status(500), raw(b""), raw(b"HTTP/1.1 200 OK\r\n\r\n{}")]
    {
        scene.hub.recover();
        scene.hub.fail(usize::MAX, "GET", "/api/models", fault.clone());
        scene.hub.fail(usize::MAX, "HEAD", "config.json", fault);
        let ended = bounded(&scene, with(&address, &["-vv"]), "fails");
        assert!(ended.code == Some(1) && !ended.stderr.contains("annabel"), "{}", ended.stderr);
    }
}

#[test]
fn an_address_that_is_no_text_is_refused() {
    let scene = Scene::with("base");
    let address = OsString::from_vec(b"http://\xff".to_vec());
    scene.info(ID, &[]).env("HF_ENDPOINT", address).fails(1, &["HF_ENDPOINT", "it is not UTF-8"]);
}

/// As in huggingface_hub, one time limit is for what is asked before a download, and one for the download.
#[test]
fn time_limits_come_from_the_environment() {
    let scene = Scene::with("base");
    scene.hub.fail(1, "GET", "/api/models", Fault::StallAfter(0));
    let start = Instant::now();
    let run = scene.info(ID, &[]).env("HF_HUB_DOWNLOAD_TIMEOUT", "50").env("HF_HUB_ETAG_TIMEOUT", "1");
    run.fails(1, &["has been silent for 1 s (HF_HUB_ETAG_TIMEOUT sets how long to wait)"]);
    assert!(start.elapsed() < Duration::from_secs(20));
    for variable in ["HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT"] {
        for value in ["0", "-1", "1.5", "soon", "99999999999999999999999", "\u{1b}[31m"] {
            let ended = bounded(&scene, scene.info(ID, &[]).env(variable, value), value);
            assert_eq!(ended.code, Some(2), "{}", ended.stderr);
            assert!(ended.stderr.contains(&format!("{variable} is {value:?}")), "{}", ended.stderr);
        }
    }
    let longest = u64::MAX.to_string();
    scene.info(ID, &[]).env("HF_HUB_DOWNLOAD_TIMEOUT", &longest).env("HF_HUB_ETAG_TIMEOUT", longest).succeeds();
}
