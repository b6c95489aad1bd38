//! How requests and servers end before their time.

use std::io::Read;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Answer, Server, texts};

/// Work for many seconds.
const LONG: &str = "{\"prompt\": \"Once upon a\", \"n\": 128, \"max_tokens\": 500, \"ignore_eos\": true";

#[test]
fn a_client_that_goes_away_frees_its_rows() {
    let server = Server::demo();
    for end in ["}", ", \"stream\": true}", ", \"num_beams\": 128}", ", \"echo\": true, \"logprobs\": 1}"] {
        let mut connection = server.send("POST /v1/completions", &[], &format!("{LONG}{end}"));
        server.wait_for("gpt2_prompts_running", |prompts| prompts == 1.0);
        if end.contains("stream") {
            connection.read_exact(&mut [0; 1000]).unwrap();
        }
        drop(connection);
        server.wait_for("gpt2_prompts_running", |prompts| prompts == 0.0);
    }
    server.wait_for("gpt2_clients_gone_total", |clients| clients == 4.0);
    assert_eq!(
        texts(&server.complete(&json!({"prompt": "Once upon a", "temperature": 0, "max_tokens": 1}))),
        [" time"]
    );
}

#[test]
fn a_short_request_does_not_wait_for_long_ones() {
    let server = Server::demo();
    let _long = server.send("POST /v1/completions", &[], &format!("{LONG}}}"));
    server.wait_for("gpt2_prompts_running", |prompts| prompts == 1.0);
    let short = server.complete(&json!({"prompt": "Once upon a", "temperature": 0, "max_tokens": 1}));
    assert_eq!(texts(&short), [" time"]);
    server.wait_for("gpt2_prompts_running", |prompts| prompts == 1.0);
}

#[test]
fn more_than_may_wait_are_sent_away() {
    let server = Server::start(&["-m", "demo", "--queue", "2"]);
    let _long = server.send("POST /v1/completions", &[], &format!("{LONG}}}"));
    server.wait_for("gpt2_prompts_running", |prompts| prompts == 1.0);
    let full = server.post("/v1/completions", &json!({"prompt": ["a", "b"]}));
    assert_eq!((full.status, full.header("retry-after")), (429, Some("1")), "{}", full.body);
    assert_eq!(full.json()["error"]["type"], "rate_limit_error");
    server.complete(&json!({"prompt": "a"}));
}

#[test]
fn a_request_that_takes_too_long_is_ended() {
    let server = Server::start(&["-m", "demo", "--timeout", "1"]);
    let late = server.ask("POST /v1/completions", &[], &format!("{LONG}}}"));
    assert_eq!((late.status, late.header("x-should-retry")), (503, Some("false")), "{}", late.body);
    assert!(late.error().contains("--timeout"), "{}", late.body);
    let streamed = server.ask("POST /v1/completions", &[], &format!("{LONG}, \"stream\": true}}"));
    assert_eq!(streamed.status, 200);
    let last = streamed.body.trim_end().rsplit("\n\n").next().unwrap();
    assert!(last.starts_with("data: {\"error\":{\"message\":"), "{last}");
    server.wait_for("gpt2_prompts_running", |prompts| prompts == 0.0);
}

#[cfg(unix)]
#[test]
fn a_signal_lets_requests_under_way_finish() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut server = Server::demo();
        let body = json!({"prompt": "Once upon a", "n": 16, "max_tokens": 200, "seed": 1, "ignore_eos": true});
        let whole = server.complete(&body);
        let idle = server.connect();
        let connection = server.send("POST /v1/completions", &[], &body.to_string());
        server.wait_for("gpt2_prompts_running", |prompts| prompts == 1.0);
        server.signal(signal);
        assert_eq!(Answer::read(connection).json()["choices"], whole["choices"]);
        assert_eq!(server.end(), Some(0));
        drop(idle);
    }
}

#[cfg(unix)]
#[test]
fn a_second_signal_ends_at_once() {
    let mut server = Server::demo();
    let _long = server.send("POST /v1/completions", &[], &format!("{LONG}}}"));
    server.wait_for("gpt2_prompts_running", |prompts| prompts == 1.0);
    let since = Instant::now();
    server.signal(libc::SIGTERM);
    std::thread::sleep(Duration::from_millis(200));
    server.signal(libc::SIGTERM);
    assert_eq!(server.end(), Some(130));
    assert!(since.elapsed() < Duration::from_secs(5));
}
