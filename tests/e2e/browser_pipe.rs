//! A real headless Chromium, spoken to by the DevTools protocol over two named pipes: JSON with a zero byte behind each message.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::kit::{PATIENCE, temp, until};

/// One browser with one page in it.
pub struct Browser {
    child: Child,
    to: File,
    from: Receiver<Value>,
    /// The page's session.
    page: Option<String>,
    calls: u64,
    /// What the page reported unasked: requests, its console, exceptions.
    events: Vec<Value>,
    /// Profile and pipes: deleted at last.
    _dir: TempDir,
}

/// A program by the variable that names its path, or by its name on the PATH.
fn chromium(test: &str) -> Option<PathBuf> {
    let given = std::env::var_os("CHROMIUM_EXE").filter(|path| !path.is_empty()).map(PathBuf::from);
    let on_path = || std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join("chromium")).find(|exe| exe.is_file());
    let found = given.or_else(on_path);
    if found.is_none() {
        eprintln!("SKIPPED {test}: no chromium; set CHROMIUM_EXE to its path");
    }
    found
}

impl Browser {
    /// Starts one if `CHROMIUM_EXE` or the PATH has it; else says that the test is skipped.
    pub fn start(test: &str) -> Option<Browser> {
        let exe = chromium(test)?;
        let dir = temp();
        let pipe = |name: &str| {
            let path = dir.path().join(name);
            mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
            path
        };
        let (input, output) = (pipe("in"), pipe("out"));
        let child = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<\"$PIPE_IN\" 4>\"$PIPE_OUT\""])
            .arg(exe)
            .args(["--headless", "--remote-debugging-pipe", "--no-first-run", "--disable-background-networking", "--disable-gpu"])
            // It shows our own page only, and containers have neither user namespaces nor much shared memory.
            .args(["--no-sandbox", "--disable-dev-shm-usage"])
            .arg(format!("--user-data-dir={}", dir.path().join("profile").display()))
            .arg("about:blank")
            .env("PIPE_IN", &input)
            .env("PIPE_OUT", &output)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // In the order in which the shell opens their other ends.
        let to = OpenOptions::new().write(true).open(&input).unwrap();
        let out = BufReader::new(File::open(&output).unwrap());
        let (said, from) = channel();
        std::thread::Builder::new()
            .name("chromium".into())
            .spawn(move || {
                for message in out.split(0).map_while(Result::ok) {
                    let _ = said.send(serde_json::from_slice(&message).unwrap());
                }
            })
            .unwrap();
        let mut browser = Browser { child, to, from, page: None, calls: 0, events: Vec::new(), _dir: dir };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }))["targetId"].clone();
        let session = browser.call("Target.attachToTarget", json!({ "targetId": target, "flatten": true }))["sessionId"].clone();
        browser.page = session.as_str().map(str::to_owned);
        for domain in ["Runtime", "Log", "Network", "Page"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    /// Calls a method and waits for its answer.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut message = json!({ "id": self.calls, "method": method, "params": params });
        if let Some(page) = &self.page {
            message["sessionId"] = page.as_str().into();
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let said = self.from.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("no answer to {method}: {error}"));
            if said["id"] != self.calls {
                self.events.push(said);
                continue;
            }
            assert!(said["error"].is_null(), "{method}: {}", said["error"]);
            return said["result"].clone();
        }
    }

    /// Goes to an address.
    pub fn open(&mut self, url: &str) {
        let said = self.call("Page.navigate", json!({ "url": url }));
        assert!(said["errorText"].is_null(), "{url}: {said}");
    }

    /// What an expression is in the page; a promise is waited for.
    pub fn eval(&mut self, expression: &str) -> Value {
        let said = self.call("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true, "awaitPromise": true }));
        assert!(said["exceptionDetails"].is_null(), "{expression}: {said}");
        said["result"]["value"].clone()
    }

    /// Waits until an expression is true in the page. While a page is being replaced there is none to ask.
    pub fn until(&mut self, expression: &str) {
        let asked = json!({ "expression": format!("Boolean({expression})"), "returnByValue": true });
        until(&format!("{expression} in the page"), || {
            (self.call("Runtime.evaluate", asked.clone())["result"]["value"] == true).then_some(())
        });
    }

    /// The text of what a selector finds first.
    pub fn text(&mut self, selector: &str) -> String {
        let found = self.eval(&format!("document.querySelector({}).innerText", json!(selector)));
        found.as_str().unwrap_or_default().trim().to_owned()
    }

    /// A screen of this size and these colours.
    pub fn screen(&mut self, width: u32, height: u32, scheme: &str) {
        let mobile = width < 500;
        self.call(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile }),
        );
        self.call("Emulation.setEmulatedMedia", json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] }));
    }

    /// Addresses that the page has asked for so far, data in the address itself aside.
    pub fn requests(&self) -> Vec<String> {
        let sent = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        let urls = sent.map(|event| event["params"]["request"]["url"].as_str().unwrap().to_owned());
        urls.filter(|url| !url.starts_with("data:")).collect()
    }

    /// What went wrong in the page so far: exceptions, and errors and warnings of its console, violations of its policy among them.
    pub fn complaints(&self) -> Vec<String> {
        let bad = |event: &&Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => matches!(event["params"]["type"].as_str(), Some("error" | "warning" | "assert")),
            Some("Log.entryAdded") => matches!(event["params"]["entry"]["level"].as_str(), Some("error" | "warning")),
            _ => false,
        };
        self.events.iter().filter(bad).map(|event| event["params"].to_string()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // In order, so that it writes nothing more to a profile that is being deleted: its end closes the pipe.
        let closed = self.to.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        while closed.is_ok() && self.from.recv_timeout(PATIENCE).is_ok() {}
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
