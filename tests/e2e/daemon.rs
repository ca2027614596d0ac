//! A real bitcoind on regtest, and how tests wait for real processes.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Longest that a test waits for anything: far above what it takes, so that a loaded machine does not fail it.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// A regtest address whose key nobody needs.
pub const ADDRESS: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
/// Another one.
pub const ADDRESS_2: &str = "bcrt1q6z64a43mjgkcq0ul2znwneq3spghrlau9slefp";

/// Asks until the answer is there; panics with `what` after [`PATIENCE`]. Real processes tell nothing unasked, so this asks every few ms.
pub fn until<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    until_in(PATIENCE, what, ask)
}

/// The same with another patience.
pub fn until_in<T>(patience: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < patience, "waited {patience:?} for: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A temporary directory.
pub fn temp() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A real bitcoind on regtest.
pub struct Bitcoind {
    child: Child,
    dir: TempDir,
    exe: PathBuf,
    port: u16,
    more: Vec<String>,
}

impl Bitcoind {
    /// Starts one if `BITCOIND_EXE` or the PATH has it; else says that the test is skipped.
    pub fn start(test: &str) -> Option<Bitcoind> {
        Bitcoind::start_with(test, &[])
    }

    /// The same with more options.
    pub fn start_with(test: &str, more: &[&str]) -> Option<Bitcoind> {
        let bitcoind = Bitcoind::begin(test, &[&["-regtest"], more].concat())?;
        // Core offers no template while the chain's tip is old ("in initial block download"): one block of today ends that.
        bitcoind.call(&["generatetoaddress", "1", ADDRESS_2]);
        Some(bitcoind)
    }

    /// One on Bitcoin's main chain, of which it has the first block only.
    pub fn start_on_main(test: &str) -> Option<Bitcoind> {
        Bitcoind::begin(test, &["-chain=main", "-connect=0"])
    }

    fn begin(test: &str, more: &[&str]) -> Option<Bitcoind> {
        let given = std::env::var_os("BITCOIND_EXE").map(PathBuf::from);
        let on_path = || std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join("bitcoind")).find(|exe| exe.is_file());
        let Some(exe) = given.or_else(on_path) else {
            eprintln!("SKIPPED {test}: no bitcoind; set BITCOIND_EXE to its path");
            return None;
        };
        let dir = temp();
        // bitcoind cannot be asked for a free port: take one from the system and hand it on.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let more: Vec<String> = more.iter().map(|&option| option.to_owned()).collect();
        let child = spawn(&exe, &dir, port, &more);
        let bitcoind = Bitcoind { child, dir, exe, port, more };
        bitcoind.until_up();
        Some(bitcoind)
    }

    /// Waits until it answers.
    pub fn until_up(&self) {
        until("bitcoind's first answer", || self.try_call(&["getblockcount"]).ok());
    }

    /// Kills it as kill -9 does: it has no time to close anything, and may have lost its newest blocks when it starts again.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops it in order, and waits until it has ended.
    pub fn stop(&mut self) {
        self.call(&["stop"]);
        until("bitcoind's end", || self.child.try_wait().unwrap());
    }

    /// Starts it again where it was, with these options besides. Does not wait until it answers.
    pub fn again(&mut self, besides: &[&str]) {
        let besides: Vec<String> = besides.iter().map(|&option| option.to_owned()).collect();
        self.child = spawn(&self.exe, &self.dir, self.port, &[&self.more[..], &besides].concat());
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its cookie file, if it was started with the option `-rpcpassword=`.
    pub fn cookie(&self) -> PathBuf {
        self.dir.path().join("regtest/.cookie")
    }

    /// Its URL with user and password.
    pub fn url(&self) -> String {
        format!("http://user:pass@127.0.0.1:{}", self.port)
    }

    /// Its URL with a wrong password.
    pub fn wrong_url(&self) -> String {
        format!("http://user:wrong@127.0.0.1:{}", self.port)
    }

    /// One RPC.
    pub fn call(&self, args: &[&str]) -> Value {
        self.try_call(args).unwrap_or_else(|error| panic!("bitcoin-cli {args:?}: {error}"))
    }

    /// The height of its chain.
    pub fn height(&self) -> u64 {
        self.call(&["getblockcount"]).as_u64().unwrap()
    }

    /// One RPC with an argument that is too long for a command line. The empty string is null.
    pub fn call_long(&self, method: &str, argument: &str) -> Value {
        let mut cli = self.cli(&["-stdin", method]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        cli.stdin.take().unwrap().write_all(argument.as_bytes()).unwrap();
        let out = cli.wait_with_output().unwrap();
        assert!(out.status.success(), "bitcoin-cli {method}");
        answer(&out.stdout)
    }

    /// One RPC, which may be refused.
    pub fn try_call(&self, args: &[&str]) -> Result<Value, String> {
        let out = self.cli(args).output().map_err(|error| error.to_string())?;
        if !out.status.success() {
            return Err(String::from_utf8_lossy(&out.stderr).into_owned());
        }
        Ok(answer(&out.stdout))
    }

    fn cli(&self, args: &[&str]) -> Command {
        let mut cli = Command::new(self.exe.with_file_name("bitcoin-cli"));
        cli.args(["-rpcuser=user", "-rpcpassword=pass"])
            .arg(format!("-rpcport={}", self.port))
            .arg(format!("-datadir={}", self.dir.path().display()))
            // Of two of a kind the last counts. It refuses what it does not know.
            .args(self.more.iter().filter(|option| *option == "-regtest" || option.starts_with("-rpcpassword=")))
            .args(args);
        cli
    }
}

fn spawn(exe: &Path, dir: &TempDir, port: u16, more: &[String]) -> Child {
    Command::new(exe)
        .args(["-server", "-listen=0", "-rpcuser=user", "-rpcpassword=pass", "-dnsseed=0", "-fixedseeds=0"])
        .arg(format!("-rpcport={port}"))
        .arg(format!("-datadir={}", dir.path().display()))
        .args(more)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", exe.display()))
}

/// What bitcoin-cli printed: JSON, or a text that stands there bare.
fn answer(stdout: &[u8]) -> Value {
    let text = String::from_utf8_lossy(stdout).trim().to_owned();
    serde_json::from_str(&text).unwrap_or(Value::String(text))
}

impl Drop for Bitcoind {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
