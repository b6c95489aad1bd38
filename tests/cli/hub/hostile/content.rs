//! Hostile answers to the request for a file's content.

use super::End::{Badly, Well};
use super::*;

/// A case for a run that continues a download after 1000 bytes.
fn resumed(fault: Fault, end: End) -> Case {
    Case { left: 1000, ..case("GET", WEIGHTS, fault, end) }
}

/// The answer of a server that sends this part of the weights, with what it says of it.
fn part(content_range: &str, bytes: std::ops::Range<usize>) -> Fault {
    let body = &fixture("base", WEIGHTS)[bytes];
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nConnection: close\r\nContent-Length: {}\r\n{content_range}\r\n",
        body.len()
    );
    raw([head.as_bytes(), body].concat())
}

#[test]
fn content_has_limits() {
    const OPEN: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = || format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let more = || Badly(&["cannot download", "received more than its", "attempt 5 of 5", "run again"]);
    check(vec![
        case("GET", "config.json", endless(OPEN, vec![b' '; 1 << 16]), more()),
        case("GET", "config.json", endless(CHUNKED, chunk()), more()),
        case("GET", WEIGHTS, endless(OPEN, vec![0; 1 << 16]), more()),
        case("GET", WEIGHTS, endless(CHUNKED, chunk()), more()),
        case(
            "GET",
            "config.json",
            endless("HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n", vec![b' '; 1 << 16]),
            Badly(&["sends 1000000000000 bytes for config.json", "which should have 1053"]),
        ),
        case(
            "GET",
            WEIGHTS,
            endless("HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n", vec![0; 1 << 16]),
            Badly(&["sends 1000000000000 bytes for model.safetensors", "which should have 195728"]),
        ),
        case(
            "GET",
            "config.json",
            raw("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n<html></html"),
            Badly(&["sends 12 bytes for config.json", "check for a proxy"]),
        ),
        case("GET", "config.json", raw(OPEN), Badly(&["received 0 bytes instead of 1053"])),
        case("GET", "config.json", raw(format!("{CHUNKED}0\r\n\r\n")), Badly(&["received 0 bytes instead of 1053"])),
        case("GET", "config.json", raw(b""), Badly(&["cannot download config.json"])),
        case("GET", "config.json", head("204 No Content"), Badly(&["answered 204"])),
        case("GET", WEIGHTS, Fault::CutAfter(1), Badly(&["cannot download", "run again"])),
        case(
            "GET",
            WEIGHTS,
            drip(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 195_728), 0),
            Badly(&["sent no more than", "bytes in 3 s (HF_HUB_DOWNLOAD_TIMEOUT", "trying again", "attempt 5 of 5"]),
        ),
        once(
            "GET",
            WEIGHTS,
            drip(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 195_728), 0),
            Well(&["sent no more than", "attempt 2 of 5"]),
        ),
        case(
            "GET",
            "config.json",
            drip("HTTP/1.1 200 OK\r\nContent-Length: 1053\r\n\r\n", b' '),
            Badly(&["sent no more than"]),
        ),
        case("GET", WEIGHTS, drip("HTTP/1.1 200 OK\r\nX: ", b'y'), Badly(&["silent for 1 s"])),
    ]);
}

/// The hub describes the file, and then does not have it.
#[test]
fn a_file_that_is_gone_is_named() {
    let gone = |name| case("GET", name, Fault::Status(404), Badly(&["answered 404"]));
    let end = Badly(&["model.safetensors of `someone/tiny` is not there: http://127.0.0.1", "answered 404 Not Found"]);
    check(vec![
        Case { end, ..gone("/someone/tiny/resolve/0123456789abcdef0123456789abcdef01234567/model.safetensors") },
        Case { end: Badly(&["config.json of `someone/tiny` is not there"]), ..gone("config.json") },
        // Where the hub redirects to, its leave may have ended.
        Case { end: Badly(&["cannot download model.safetensors", "redirects to) answered 404"]), ..gone("Signature") },
    ]);
}

#[test]
fn a_part_is_only_appended_where_it_belongs() {
    const TOTAL: usize = 195_728;
    let from_the_start = |fault, words| Case { of: (1, "GET", WEIGHTS), ..resumed(fault, Well(words)) };
    check(vec![
        // None was asked for.
        case(
            "GET",
            WEIGHTS,
            part(&format!("Content-Range: bytes 0-{}/{TOTAL}\r\n", TOTAL - 1), 0..TOTAL),
            Badly(&["sent a part of the file instead of all of it", "attempt 5 of 5"]),
        ),
        case("GET", WEIGHTS, part("", 0..TOTAL), Badly(&["sent a part of the file instead of all of it"])),
        case("GET", WEIGHTS, head("416 Range Not Satisfiable\r\nContent-Length: 0"), Badly(&["answered 416"])),
        // The next attempt starts anew.
        from_the_start(
            part("Content-Range: bytes 0-195727/195728\r\n", 0..TOTAL),
            &["sent the part \"bytes 0-195727/195728\"", "from byte 1000", "attempt 2 of 5"],
        ),
        from_the_start(part("Content-Range: bytes 999-195727/195728\r\n", 999..TOTAL), &["sent the part"]),
        from_the_start(part("Content-Range: bytes 1001-195727/195728\r\n", 1001..TOTAL), &["sent the part"]),
        from_the_start(part("Content-Range: bytes 1000-195726/195728\r\n", 1000..TOTAL), &["sent the part"]),
        from_the_start(part("Content-Range: bytes 1000-999/195728\r\n", 1000..TOTAL), &["sent the part"]),
        from_the_start(part("Content-Range: bytes 1000-195728/195728\r\n", 1000..TOTAL), &["sent the part"]),
        from_the_start(part("Content-Range: bytes */195728\r\n", 1000..TOTAL), &["sent the part"]),
        from_the_start(part("Content-Range: lines 1000-195727/195728\r\n", 1000..TOTAL), &["sent the part"]),
        from_the_start(part("Content-Range: \u{1b}[31m\r\n", 1000..TOTAL), &["attempt 2 of 5"]),
        from_the_start(part("", 1000..TOTAL), &["sent a part of the file without saying which (Content-Range)"]),
        from_the_start(head("416 Range Not Satisfiable\r\nContent-Length: 0"), &["cannot send the rest of it"]),
        from_the_start(Fault::IgnoreRange, &[]),
        // These are right.
        from_the_start(part("Content-Range: bytes 1000-195727/195728\r\n", 1000..TOTAL), &[]),
        from_the_start(part("Content-Range: bytes 1000-195727/*\r\n", 1000..TOTAL), &[]),
        from_the_start(
            part("Content-Range: bytes 1000-1999/195728\r\n", 1000..2000),
            &["received 2000 bytes instead of 195728"],
        ),
        // A file of another size is another file.
        resumed(
            part("Content-Range: bytes 1000-195727/195729\r\n", 1000..TOTAL),
            Badly(&["sends 195729 bytes for model.safetensors", "which should have 195728"]),
        ),
        resumed(
            raw("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n<html></html"),
            Badly(&["sends 12 bytes for model.safetensors"]),
        ),
        Case {
            left: 1000,
            ..case(
                "GET",
                WEIGHTS,
                part("Content-Range: bytes 5-10/195728\r\n", 5..11),
                Badly(&["sent a part of the file instead of all of it"]),
            )
        },
        Case {
            of: (1, "GET", WEIGHTS),
            ..resumed(part("Content-Range: bytes 5-10/195728\r\n", 5..11), Well(&["from byte 1000"]))
        },
    ]);
}

/// A server of content that is not the hub: named as such, and asked again with a new leave.
#[test]
fn another_server_with_the_content_is_named() {
    let denied = || head("403 Forbidden\r\nContent-Length: 0");
    let scene = Scene::with("base");
    let of_cdn = "?Signature=signed";
    scene.hub.fail(1, "GET", of_cdn, denied());
    let ended = bounded(&scene, scene.info(ID, &[]), "denied once");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains(" (where http://127.0.0.1") && ended.stderr.contains("redirects to) answered 403"));

    scene.hub.fail(usize::MAX, "GET", of_cdn, denied());
    std::fs::remove_dir_all(scene.home.path().join("hub")).unwrap();
    let ended = bounded(&scene, scene.info(ID, &[]), "denied always");
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("cannot download model.safetensors"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("accept its terms"), "the hub has nothing against it: {}", ended.stderr);
}

/// Without a size, from neither the hub nor the server of the content, a file may have no end.
#[test]
fn content_without_a_size_is_refused() {
    let scene = Scene::with("base");
    scene.hub.fail(usize::MAX, "HEAD", WEIGHTS, Fault::Claim("X-Linked-Size", "many".to_owned()));
    scene.hub.fail(
        usize::MAX,
        "GET",
        WEIGHTS,
        endless("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", vec![0; 1 << 16]),
    );
    let ended = bounded(&scene, scene.info(ID, &[]), "no size");
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("does not say how many bytes model.safetensors"), "{}", ended.stderr);
}
