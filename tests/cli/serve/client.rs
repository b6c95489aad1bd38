//! A server of the binary, and a client that sends bytes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::gpt2;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running `gpt2 serve`, killed when it is dropped.
pub struct Server {
    pub process: Child,
    pub address: String,
    /// What it says when it is ready.
    pub greeting: String,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    head: String,
    pub body: String,
}

impl Server {
    /// Serves with these flags, on a port that is free.
    #[track_caller]
    pub fn start(flags: &[&str]) -> Self {
        Self::start_with(flags, &[])
    }

    #[track_caller]
    pub fn start_with(flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut run = gpt2(&[&["serve", "--port", "0"], flags].concat());
        for (name, value) in environment {
            run = run.env(name, value);
        }
        let mut process = run.into_command().stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let greeting = lines.find_map(|line| line.ok().filter(|line| line.contains(" at http://")));
        let greeting = greeting.expect("the server says where it is");
        let address = greeting.rsplit('/').next().unwrap_or_default().to_owned();
        // Whoever writes on must not be stopped by a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, address, greeting }
    }

    pub fn demo() -> Self {
        Self::start(&["-m", "demo"])
    }

    /// Opens a connection.
    pub fn connect(&self) -> TcpStream {
        let connection = TcpStream::connect(&self.address).unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        connection
    }

    /// Sends a request, and does not wait for the answer.
    pub fn send(&self, line: &str, headers: &[&str], body: &str) -> TcpStream {
        let mut connection = self.connect();
        let host = if headers.iter().any(|header| header.starts_with("Host:")) {
            String::new()
        } else {
            format!("Host: {}\r\n", self.address)
        };
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let length = body.len();
        let request =
            format!("{line} HTTP/1.1\r\n{host}{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}");
        connection.write_all(request.as_bytes()).unwrap();
        connection
    }

    #[track_caller]
    pub fn ask(&self, line: &str, headers: &[&str], body: &str) -> Answer {
        Answer::read(self.send(line, headers, body))
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path}"), &[], "")
    }

    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask(&format!("POST {path}"), &["Content-Type: application/json"], &body.to_string())
    }

    /// The answer to a request for completions that succeeds.
    #[track_caller]
    pub fn complete(&self, body: &Value) -> Value {
        let answer = self.post("/v1/completions", body);
        assert_eq!(answer.status, 200, "{body}: {}", answer.body);
        answer.json()
    }

    /// Asks for metrics until one of them is as wanted.
    #[track_caller]
    pub fn wait_for(&self, metric: &str, is_wanted: impl Fn(f64) -> bool) {
        let since = Instant::now();
        loop {
            let metrics = self.get("/metrics").body;
            let line = metrics.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
            if line.is_some_and(|value| is_wanted(value.parse().unwrap())) {
                return;
            }
            assert!(since.elapsed() < PATIENCE, "{metric} in\n{metrics}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for the end; returns the exit code.
    pub fn end(&mut self) -> Option<i32> {
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the server does not end");
    }

    #[cfg(unix)]
    pub fn signal(&self, signal: i32) {
        // SAFETY: sends a signal to a child that has not been waited for.
        assert_eq!(unsafe { libc::kill(self.process.id() as i32, signal) }, 0);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Answer {
    /// Reads to the end of the connection.
    #[track_caller]
    pub fn read(mut connection: TcpStream) -> Self {
        let mut bytes = vec![];
        connection.read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {text:?}"));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        let body = if is_chunked { joined(body) } else { body.to_owned() };
        Self { status, head: head.to_owned(), body }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    /// The message of an error.
    #[track_caller]
    pub fn error(&self) -> String {
        self.json()["error"]["message"].as_str().expect("a message").to_owned()
    }

    /// The parts of a stream, which has to be whole.
    #[track_caller]
    pub fn parts(&self) -> Vec<Value> {
        assert_eq!((self.status, self.header("content-type")), (200, Some("text/event-stream")));
        let events = self.body.split("\n\n").filter(|event| !event.is_empty() && !event.starts_with(':'));
        let mut data: Vec<&str> = events.map(|event| event.strip_prefix("data: ").expect("data")).collect();
        assert_eq!(data.pop(), Some("[DONE]"));
        data.into_iter().map(|data| serde_json::from_str(data).unwrap()).collect()
    }
}

/// A chunked body, joined.
fn joined(mut chunks: &str) -> String {
    let mut body = String::new();
    while let Some((length, rest)) = chunks.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        body += &rest[..length];
        chunks = &rest[length + 2..];
        if length == 0 {
            return body;
        }
    }
    panic!("the body breaks off: {body:?}");
}
