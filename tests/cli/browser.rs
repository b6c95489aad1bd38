//! A headless Chromium, driven through its DevTools protocol on a pipe: it opens pages, moves the pointer as a user would,
//! and records errors inside the page. <https://chromedevtools.github.io/devtools-protocol/>

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::requires;

/// How long the browser may take to answer.
const PATIENCE: Duration = Duration::from_secs(90);

/// A running browser with one page.
pub struct Browser {
    process: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    session: Option<String>,
    calls: u64,
    /// Requests, errors and messages of the page since it was opened.
    events: Vec<Value>,
    /// The browser's profile, removed when it ends.
    _profile: tempfile::TempDir,
}

/// The browser's executable, if there is one; `CHROMIUM` overrides it.
fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("CHROMIUM") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH")?;
    let names = ["chromium", "chromium-headless-shell", "chromium-browser", "google-chrome", "google-chrome-stable"];
    std::env::split_paths(&path).flat_map(|folder| names.map(|name| folder.join(name))).find(|file| file.is_file())
}

impl Browser {
    /// Starts a browser. Without one the test is skipped, or fails: see [`requires`].
    #[track_caller]
    pub fn start() -> Option<Self> {
        let program = requires("browser", program())?;
        let profile = tempfile::tempdir().expect("a folder for the profile");
        let mut process = Command::new("sh")
            // The DevTools protocol uses file descriptors 3 and 4.
            .args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#])
            .arg(program)
            .args(
                "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --remote-debugging-pipe"
                    .split(' '),
            )
            .args("--disable-background-networking --disable-component-update --disable-sync".split(' '))
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let (to, from) = (process.stdin.take().expect("a pipe"), process.stdout.take().expect("a pipe"));
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(from).split(0) {
                let Some(message) = message.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()) else { break };
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        let mut browser =
            Self { process, to, from: receiver, session: None, calls: 0, events: vec![], _profile: profile };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attached = browser.call("Target.attachToTarget", json!({"targetId": target["targetId"], "flatten": true}));
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser.resize(1280, 900);
        Some(browser)
    }

    /// Sets the size of the screen.
    #[track_caller]
    pub fn resize(&mut self, width: u32, height: u32) {
        let screen = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", screen);
    }

    /// Presses a key, such as `ArrowDown`.
    #[track_caller]
    pub fn press(&mut self, key: &str) {
        for kind in ["keyDown", "keyUp"] {
            self.call("Input.dispatchKeyEvent", json!({"type": kind, "key": key}));
        }
    }

    /// The texts that a canvas draws.
    #[track_caller]
    pub fn drawn(&mut self, script: &str) -> Vec<String> {
        let script = format!(
            "(() => {{ const own = CanvasRenderingContext2D.prototype, draw = own.fillText, texts = []; \
             own.fillText = (text) => texts.push(text); ({script}).repaint(); own.fillText = draw; return texts; }})()"
        );
        serde_json::from_value(self.value(&script)).expect("texts")
    }

    /// Sends one command of the protocol and returns its result.
    #[track_caller]
    fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut message = json!({"id": self.calls, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.to.write_all(format!("{message}\0").as_bytes()).expect("the browser listens");
        loop {
            let answer = self.from.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no answer to {method}"));
            if answer["id"] == self.calls {
                assert!(answer.get("error").is_none(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
            self.events.push(answer);
        }
    }

    /// Opens a file in a colour scheme, `light` or `dark`, and waits until it is loaded.
    #[track_caller]
    pub fn open(&mut self, file: &Path, scheme: &str) {
        self.visit(&format!("file://{}", file.display()), scheme);
    }

    /// Opens an address in the same way.
    #[track_caller]
    pub fn visit(&mut self, url: &str, scheme: &str) {
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", media);
        self.events.clear();
        self.call("Page.navigate", json!({"url": url}));
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let event = self.from.recv_timeout(PATIENCE).expect("the page loads");
            self.events.push(event);
        }
    }

    /// The value of an expression in the page.
    #[track_caller]
    pub fn value(&mut self, expression: &str) -> Value {
        let result = self.call("Runtime.evaluate", json!({"expression": expression, "returnByValue": true}));
        assert!(result.get("exceptionDetails").is_none(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Waits until an expression in the page is true.
    #[track_caller]
    pub fn wait_for(&mut self, expression: &str) {
        let since = Instant::now();
        while self.value(expression) != true {
            if since.elapsed() > PATIENCE {
                panic!("{expression} is never true of\n{}", self.text("document.body"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The text of the element that `script` returns.
    #[track_caller]
    pub fn text(&mut self, script: &str) -> String {
        self.value(&format!("({script}).innerText")).as_str().expect("an element with text").to_owned()
    }

    /// Moves the pointer to a point of an element; `across` and `down` are fractions of its width and height.
    #[track_caller]
    pub fn hover_at(&mut self, script: &str, across: f64, down: f64) -> (f64, f64) {
        let point = format!(
            "(() => {{ const e = {script}; e.scrollIntoView({{block: 'center', inline: 'center'}}); const b = e.getBoundingClientRect(); \
             return [b.left + {across} * b.width, b.top + {down} * b.height]; }})()"
        );
        let point = self.value(&point);
        let (x, y) = (point[0].as_f64().expect("a number"), point[1].as_f64().expect("a number"));
        // From elsewhere, as a user would.
        for (x, y) in [(2.0, 2.0), (x, y)] {
            self.call("Input.dispatchMouseEvent", json!({"type": "mouseMoved", "x": x, "y": y}));
        }
        (x, y)
    }

    /// Moves the pointer over the middle of an element.
    #[track_caller]
    pub fn hover(&mut self, script: &str) {
        self.hover_at(script, 0.5, 0.5);
    }

    /// Clicks on an element.
    #[track_caller]
    pub fn click(&mut self, script: &str) {
        let (x, y) = self.hover_at(script, 0.5, 0.5);
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// The errors in the page since it was opened: exceptions, console errors, and requests for anything but the page
    /// itself and, if it came from a server, what it asks this server for.
    pub fn problems(&mut self) -> Vec<String> {
        let origin = self.value("location.origin + '/'");
        let origin = origin.as_str().filter(|origin| origin.starts_with("http:")).map(str::to_owned);
        let problem = |event: &Value| {
            let params = &event["params"];
            match event["method"].as_str()? {
                "Runtime.exceptionThrown" => Some(params["exceptionDetails"].to_string()),
                "Log.entryAdded" if params["entry"]["level"] == "error" => Some(params["entry"].to_string()),
                "Network.requestWillBeSent" => {
                    let url = params["request"]["url"].as_str()?;
                    let own = url.starts_with("file:") && params["type"] == "Document" || url.starts_with("data:");
                    let asked = origin.as_ref().is_some_and(|origin| url.starts_with(origin));
                    (!own && !asked).then(|| format!("a request for {url}"))
                }
                _ => None,
            }
        };
        self.events.iter().filter_map(problem).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
