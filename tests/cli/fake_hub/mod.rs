//! A fake hub on 127.0.0.1. It answers like huggingface.co: a repository's listing under `/api/models`, files under
//! `/resolve` with the hub's headers, small ones after a redirect on the same host, large ones (Git LFS) after a redirect
//! to a second server, which plays the CDN and supports ranges. It records all requests and fails on demand.

mod fault;

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use fault::Fault;
use fault::PlannedFault;
use sha1::{Digest, Sha1};
use sha2::Sha256;

/// The token that opens private and gated repositories.
pub const TOKEN: &str = "hf_secretOfTheTests";

/// The commit of `main` unless another is named.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The files of one commit by name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Reads the files of a folder, without its goldens.
pub fn files_of(folder: &Path) -> Files {
    let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap());
    entries
        .filter(|entry| entry.file_name() != "golden.json")
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect()
}

/// Who may read a repository.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Open,
    /// Visible to everyone; reading its files needs the token.
    Gated,
    /// Requests without the token get "unauthorised".
    Private,
}

/// A received request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Whether it was sent to the CDN rather than the hub.
    pub to_cdn: bool,
    pub method: String,
    pub path: String,
    /// Headers by lower-case name.
    pub headers: HashMap<String, String>,
}

struct Repository {
    access: Access,
    /// Branches and tags.
    refs: HashMap<String, String>,
    commits: HashMap<String, Files>,
}

#[derive(Default)]
struct State {
    repositories: Mutex<HashMap<String, Repository>>,
    requests: Mutex<Vec<Request>>,
    faults: Mutex<Vec<PlannedFault>>,
}

/// The running hub.
pub struct FakeHub {
    address: SocketAddr,
    state: Arc<State>,
}

impl FakeHub {
    /// Starts the hub and its CDN on free ports.
    pub fn start() -> Self {
        let state = Arc::new(State::default());
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (hub, cdn) = (listen(), listen());
        let (address, cdn_address) = (hub.local_addr().unwrap(), cdn.local_addr().unwrap());
        serve(hub, Server { state: state.clone(), is_cdn: false, cdn: cdn_address });
        serve(cdn, Server { state: state.clone(), is_cdn: true, cdn: cdn_address });
        Self { address, state }
    }

    /// The value for `HF_ENDPOINT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a public repository with one commit, [`COMMIT`], on `main`.
    pub fn add(&self, id: &str, files: Files) {
        self.add_commit(id, COMMIT, &["main"], files);
    }

    /// Adds a commit and points these branches or tags to it.
    pub fn add_commit(&self, id: &str, commit: &str, refs: &[&str], files: Files) {
        let mut repositories = self.state.repositories.lock().unwrap();
        let repository = repositories.entry(id.to_owned()).or_insert_with(|| Repository {
            access: Access::Open,
            refs: HashMap::new(),
            commits: HashMap::new(),
        });
        repository.refs.extend(refs.iter().map(|name| ((*name).to_owned(), commit.to_owned())));
        repository.commits.insert(commit.to_owned(), files);
    }

    /// Sets who may read a repository.
    pub fn restrict(&self, id: &str, access: Access) {
        self.state.repositories.lock().unwrap().get_mut(id).unwrap().access = access;
    }

    /// Makes the next `times` requests with this method and this substring of the path fail. At the CDN, too, the path of a
    /// request for a large file contains its name.
    pub fn fail(&self, times: usize, method: &'static str, part_of_path: &str, fault: Fault) {
        let part_of_path = part_of_path.to_owned();
        self.state.faults.lock().unwrap().push(PlannedFault { method, part_of_path, times, fault });
    }

    /// Cancels all pending faults.
    pub fn recover(&self) {
        self.state.faults.lock().unwrap().clear();
    }

    /// The requests since the last call.
    pub fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.requests.lock().unwrap())
    }
}

struct Server {
    state: Arc<State>,
    is_cdn: bool,
    cdn: SocketAddr,
}

fn serve(listener: TcpListener, server: Server) {
    let server = Arc::new(server);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let server = server.clone();
            // Some tests make the client go away.
            std::thread::spawn(move || drop(server.answer(stream)));
        }
    });
}

/// An answer, before faults and ranges are applied.
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn new(status: u16) -> Self {
        Self { status, headers: vec![], body: vec![] }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Replaces a header's true value.
    fn claim(&mut self, name: &'static str, value: String) {
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, value));
    }

    fn refuse(status: u16, code: &str, message: &str) -> Self {
        let mut answer = Self::new(status).with("X-Error-Code", code).with("X-Error-Message", message);
        answer.body = format!(r#"{{"error":"{message}"}}"#).into_bytes();
        answer
    }
}

impl Server {
    fn answer(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let Some(request) = read_request(&mut reader, self.is_cdn)? else { return Ok(()) };
        self.state.requests.lock().unwrap().push(request.clone());
        let mut answer = if self.is_cdn { self.content(&request) } else { self.hub_answer(&request) };
        let fault = self.state.fault_for(&request, answer.status);
        match &fault {
            Some(Fault::Status(status)) => answer = Answer::new(*status),
            Some(Fault::Raw(bytes)) => return (&stream).write_all(bytes),
            Some(Fault::Endless { head, again, pause }) => {
                (&stream).write_all(head)?;
                loop {
                    (&stream).write_all(again)?;
                    std::thread::sleep(*pause);
                }
            }
            _ => {}
        }
        let range = request.headers.get("range").filter(|_| !matches!(fault, Some(Fault::IgnoreRange)));
        if let (200, Some(range)) = (answer.status, range) {
            apply_range(&mut answer, range);
        }
        let length = answer.body.len();
        match fault {
            Some(Fault::Delay(time)) => std::thread::sleep(time),
            Some(Fault::Alter) => answer.body[0] ^= 1,
            Some(Fault::Claim(name, ref value)) => answer.claim(name, value.clone()),
            Some(Fault::CutAfter(n) | Fault::StallAfter(n)) => answer.body.truncate(n),
            _ => {}
        }
        let mut writer = stream;
        write!(writer, "HTTP/1.1 {} Status\r\nContent-Length: {length}\r\nConnection: close\r\n", answer.status)?;
        for (name, value) in &answer.headers {
            write!(writer, "{name}: {value}\r\n")?;
        }
        writer.write_all(b"\r\n")?;
        if request.method != "HEAD" {
            writer.write_all(&answer.body)?;
        }
        if let Some(Fault::StallAfter(_)) = fault {
            // Wait until the client gives up.
            writer.set_read_timeout(Some(Duration::from_secs(30)))?;
            let _ = reader.read(&mut [0]);
        }
        Ok(())
    }

    /// The hub's answer: `/api/models/OWNER/NAME/revision/REVISION`, the same with `tree` (which Python asks for), or
    /// `/OWNER/NAME/resolve/REVISION/FILE`.
    fn hub_answer(&self, request: &Request) -> Answer {
        let path = request.path.split('?').next().unwrap();
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let (id, revision, file) = match parts[..] {
            ["api", "models", owner, name] => (format!("{owner}/{name}"), "main", None),
            ["api", "models", owner, name, "revision" | "tree", revision] => {
                (format!("{owner}/{name}"), revision, None)
            }
            ["api", "resolve-cache", "models", owner, name, revision, ref file @ ..]
            | [owner, name, "resolve", revision, ref file @ ..] => {
                (format!("{owner}/{name}"), revision, Some(file.join("/")))
            }
            _ => return Answer::refuse(404, "NotFound", "no such page"),
        };
        let has_token = request.headers.get("authorization").is_some_and(|value| *value == format!("Bearer {TOKEN}"));
        let repositories = self.state.repositories.lock().unwrap();
        let repository = match repositories.get(&id) {
            Some(repository) if has_token || repository.access != Access::Private => repository,
            // Strangers must not learn which private repositories exist.
            _ if !has_token => return Answer::refuse(401, "RepoNotFound", "Invalid username or password."),
            _ => return Answer::refuse(404, "RepoNotFound", "Repository not found"),
        };
        let revision = revision.replace("%2F", "/");
        let commit = repository.refs.get(&revision).unwrap_or(&revision);
        let Some(files) = repository.commits.get(commit) else {
            return Answer::refuse(404, "RevisionNotFound", "Invalid rev id");
        };
        if parts.get(4) == Some(&"tree") {
            let mut answer = Answer::new(200).with("Content-Type", "application/json");
            answer.body = serde_json::to_vec(&files.iter().map(tree_entry).collect::<Vec<_>>()).unwrap();
            return answer;
        }
        let Some(file) = file else {
            let siblings: Vec<_> = files.keys().map(|name| serde_json::json!({ "rfilename": name })).collect();
            let listing = serde_json::json!({ "_id": "1", "id": id, "modelId": id, "sha": commit, "siblings": siblings,
                "private": false, "gated": repository.access == Access::Gated });
            let mut answer = Answer::new(200).with("Content-Type", "application/json");
            answer.body = listing.to_string().into_bytes();
            return answer;
        };
        if repository.access == Access::Gated && !has_token {
            return Answer::refuse(401, "GatedRepo", "Access to this model is restricted.");
        }
        let Some(content) = files.get(&decoded(&file)) else {
            return Answer::refuse(404, "EntryNotFound", "Entry not found").with("X-Repo-Commit", commit);
        };
        let etag = etag(&decoded(&file), content);
        let answer = |status| Answer::new(status).with("X-Repo-Commit", commit).with("Accept-Ranges", "bytes");
        if is_lfs(&file) {
            return answer(302)
                .with("X-Linked-Size", content.len().to_string())
                .with("X-Linked-Etag", format!("\"{etag}\""))
                .with("ETag", "\"of-the-pointer\"")
                .with("Location", format!("http://{}/{etag}/{file}?Signature=signed", self.cdn));
        }
        if parts[0] != "api" {
            let location = format!("/api/resolve-cache/models/{id}/{commit}/{file}?etag=%22{etag}%22");
            return answer(307).with("Location", location);
        }
        let mut answer = answer(200).with("ETag", format!("\"{etag}\""));
        answer.body = content.clone();
        answer
    }

    /// The CDN's answer: `/ETAG/FILE?Signature=...`.
    fn content(&self, request: &Request) -> Answer {
        // The signature is valid for downloads only.
        let Some((path, _)) = request.path.split_once("?Signature=").filter(|_| request.method == "GET") else {
            return Answer::refuse(403, "AccessDenied", "not signed");
        };
        let wanted = path.split('/').nth(1).unwrap_or_default();
        let repositories = self.state.repositories.lock().unwrap();
        let mut files = repositories.values().flat_map(|repository| repository.commits.values()).flatten();
        match files.find(|(name, content)| is_lfs(name) && etag(name, content) == wanted) {
            Some((_, content)) => {
                let mut answer = Answer::new(200).with("ETag", "\"of-the-cdn\"").with("Accept-Ranges", "bytes");
                answer.body = content.clone();
                answer
            }
            None => Answer::refuse(404, "NoSuchKey", "no such key"),
        }
    }
}

/// A part of a URL without its `%` escapes.
fn decoded(part: &str) -> String {
    let mut parts = part.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}

fn tree_entry((name, content): (&String, &Vec<u8>)) -> serde_json::Value {
    let (etag, size) = (etag(name, content), content.len());
    let mut entry = serde_json::json!({ "type": "file", "oid": etag, "size": size, "path": name });
    if is_lfs(name) {
        entry["lfs"] = serde_json::json!({ "oid": etag, "size": size, "pointerSize": 134 });
    }
    entry
}

fn read_request(reader: &mut impl BufRead, to_cdn: bool) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(None) };
    let (method, path) = (method.to_owned(), path.to_owned());
    let mut headers = HashMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        match line.trim().split_once(':') {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
            None => return Ok(Some(Request { to_cdn, method, path, headers })),
        };
    }
}

/// Cuts the body down to `bytes=FIRST-` or `bytes=FIRST-LAST`.
fn apply_range(answer: &mut Answer, range: &str) {
    let (first, last) = range.trim_start_matches("bytes=").split_once('-').unwrap();
    let total = answer.body.len();
    let first: usize = first.parse().unwrap();
    let end = last.parse().map_or(total, |last: usize| (last + 1).min(total));
    if first >= end {
        *answer = Answer::new(416).with("Content-Range", format!("bytes */{total}"));
        return;
    }
    answer.status = 206;
    answer.body = answer.body[first..end].to_vec();
    answer.headers.push(("Content-Range", format!("bytes {first}-{}/{total}", end - 1)));
}

/// Whether the hub keeps files of this name in Git LFS.
fn is_lfs(name: &str) -> bool {
    [".safetensors", ".bin", ".gguf", ".h5"].iter().any(|ending| name.split('?').next().unwrap().ends_with(ending))
}

/// A file's ETag on the hub: its SHA-256 in Git LFS, otherwise Git's hash.
pub fn etag(name: &str, content: &[u8]) -> String {
    let hex = |digest: &[u8]| digest.iter().map(|byte| format!("{byte:02x}")).collect();
    if is_lfs(name) {
        hex(&Sha256::digest(content))
    } else {
        hex(&Sha1::new_with_prefix(format!("blob {}\0", content.len())).chain_update(content).finalize())
    }
}
