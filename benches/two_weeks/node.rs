//! A node in a process of its own.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rockpool::http::ask;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::Outcome;
use crate::figures::{Memory, clock};

/// Longest that this bench waits for anything.
const PATIENCE: Duration = Duration::from_secs(600);

/// `rockpool run`, ended when this is dropped.
pub struct Node {
    child: Child,
    begun: Instant,
    http: SocketAddr,
    /// From its process' start to its first answer.
    pub ready: Duration,
    /// Where peers connect.
    pub p2p: SocketAddr,
}

impl Node {
    /// Starts one on regtest with every port free, and waits until it answers.
    pub fn start(dir: &Path, more: &[&str]) -> Outcome<Node> {
        let flags = "run --network regtest --p2p 127.0.0.1:0 --stratum 127.0.0.1:0 --http 127.0.0.1:0 --datadir";
        let mut command = Command::new(env!("CARGO_BIN_EXE_rockpool"));
        command.args(flags.split(' ')).arg(dir).args(more).env("RUST_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::null());
        let begun = clock();
        let mut child = command.spawn()?;
        let http = until("the node's address", || {
            if let Some(status) = child.try_wait()? {
                return Err(format!("the node ended at start with {status}").into());
            }
            Ok(fs::read_to_string(dir.join("http")).ok().and_then(|text| text.trim().parse().ok()))
        })?;
        let status = until("the node's first answer", || Ok(ask::get(http, "/api/v1/status").ok()))?;
        let ready = begun.elapsed();
        let status: Value = serde_json::from_str(&status.1)?;
        let p2p = status["listen"]["p2p"].as_str().ok_or("no address for peers")?.parse()?;
        Ok(Node { child, begun, http, ready, p2p })
    }

    /// Heights up to which its shares are tied, and confirmed.
    pub fn heights(&self) -> Outcome<(u32, u32)> {
        let status: Value = serde_json::from_str(&ask::get(self.http, "/api/v1/status")?.1)?;
        let confirmed = status["tip"]["height"].as_u64().ok_or("no height")?;
        let tied = status.pointer("/sync/height").or(status.get("candidate_height")).and_then(Value::as_u64);
        Ok((tied.unwrap_or(confirmed).max(confirmed) as u32, confirmed as u32))
    }

    /// Time since its process was started.
    pub fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Its memory.
    pub fn memory(&self) -> Outcome<Memory> {
        Memory::of(&self.child.id().to_string())
    }

    /// What its threads took of a processor, by name.
    pub fn cpu(&self) -> Outcome<BTreeMap<String, Duration>> {
        let mut threads: BTreeMap<String, Duration> = BTreeMap::new();
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let task = task?.path();
            let read = |name: &str| fs::read_to_string(task.join(name));
            let (Ok(name), Ok(times)) = (read("comm"), read("schedstat")) else { continue };
            let nanos = times.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0);
            *threads.entry(name.trim().to_owned()).or_default() += Duration::from_nanos(nanos);
        }
        Ok(threads)
    }

    /// Stops it in order.
    pub fn stop(mut self) -> Outcome<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let status = until("the node's end", || Ok(self.child.try_wait()?))?;
        if status.success() { Ok(()) } else { Err(format!("the node ended with {status}").into()) }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks until the answer is there: real processes tell nothing unasked.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Outcome<Option<T>>) -> Outcome<T> {
    let begin = clock();
    while begin.elapsed() < PATIENCE {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    Err(format!("waited {PATIENCE:?} for {what}").into())
}
