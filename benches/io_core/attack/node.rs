//! The node under attack: a process of its own, so that its memory and its time can be told from the attackers'.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rockpool::assemble;
use rockpool::config::Config;
use rockpool::exit::Failure;
use rockpool::http::ask;
use rockpool_store::kv::MemKv;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::{Value, json};

use super::{Outcome, PEERS_MAX, now};

/// The word on the command line that makes a process of this bench a node.
pub const ROLE: &str = "--attacked-node";
/// Bytes of a unit of `/proc/PID/status`.
const KIB: f64 = 1024.0;

/// The processor of this number for the calling thread and what it starts from here on, where the machine has two. The system's own
/// list is asked, as a process that is pinned already sees but one.
pub fn pin(core: usize) {
    let cores = fs::read_to_string("/proc/cpuinfo").map_or(1, |text| text.lines().filter(|line| line.starts_with("processor")).count());
    if cores > 1 {
        let mut set = CpuSet::new();
        set.set(core);
        // Without it the figures are less steady, no more.
        let _ = sched_setaffinity(None, &set);
    }
}

/// Runs a node until standard input ends. Says on standard output where it listens and what memory it says it may come to hold.
pub fn play() -> Outcome<()> {
    pin(0);
    let config = Config { max_peers: PEERS_MAX, ..Config::loopback("bench".into()) };
    let kv = Arc::new(MemKv::new());
    let fault = |failure: Failure| failure.to_string();
    let bitcoin = assemble::bitcoin(&config, &*kv).map_err(fault)?;
    let node = assemble::build(&config, kv, bitcoin).map_err(fault)?;
    let (listen, stopper) = (node.listen(), node.stopper());
    println!("{}", json!({"p2p": listen.p2p, "http": listen.http, "worst": node.worst_case_bytes()}));
    let end = move || {
        let _ = std::io::stdin().read_line(&mut String::new());
        stopper.stop();
    };
    std::thread::Builder::new().name("end".into()).spawn(end)?;
    Ok(named("reactor", || node.run())?.map_err(fault)?)
}

/// Runs on a thread of this name, by which its processor time is told from the others'.
fn named<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> Outcome<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(name.into()).spawn_scoped(scope, work)?;
        thread.join().map_err(|_| "the node panicked".into())
    })
}

/// A node, as its parent sees it. Ends with it.
pub struct Node {
    child: Child,
    /// Its end ends the node.
    _input: ChildStdin,
    /// About when its clock began.
    begun: Instant,
    /// Where peers connect.
    pub p2p: SocketAddr,
    http: SocketAddr,
    /// What it says that connections can make it hold.
    pub worst_case_bytes: f64,
}

/// The node's turns up to a moment.
pub struct Turns {
    turns: u64,
    /// The node's age then.
    age: Duration,
    /// How long it took to say so, over HTTP.
    pub answered: Duration,
    slow: Vec<Value>,
}

impl Node {
    /// Starts one and waits until it listens.
    pub fn start() -> Outcome<Node> {
        let (child, input, mut output) = spawn(&[ROLE])?;
        let mut line = String::new();
        output.read_line(&mut line)?;
        let begun = now();
        let told: Value = serde_json::from_str(&line)?;
        let addr = |name: &str| -> Outcome<SocketAddr> { Ok(told[name].as_str().ok_or("no address")?.parse()?) };
        let worst_case_bytes = told["worst"].as_f64().ok_or("no bound")?;
        Ok(Node { p2p: addr("p2p")?, http: addr("http")?, child, _input: input, begun, worst_case_bytes })
    }

    /// Its turns so far.
    pub fn turns(&self) -> Outcome<Turns> {
        let age = now() - self.begun;
        let told: Value = serde_json::from_str(&ask::get(self.http, "/api/v1/turns")?.1)?;
        let answered = now() - self.begun - age;
        let turns = told["turns"].as_u64().ok_or("no number of turns")?;
        Ok(Turns { turns, age, answered, slow: told["slowest"].as_array().ok_or("no turns")?.clone() })
    }

    /// The height of its confirmed tip.
    pub fn height(&self) -> Outcome<u64> {
        let status: Value = serde_json::from_str(&ask::get(self.http, "/api/v1/status")?.1)?;
        Ok(status["tip"]["height"].as_u64().ok_or("no height")?)
    }

    /// Its counters.
    pub fn counters(&self) -> Outcome<BTreeMap<String, f64>> {
        let text = ask::get(self.http, "/metrics")?.1;
        let rows = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' '));
        Ok(rows.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
    }

    /// The most memory that it had so far, and what it has now, bytes.
    pub fn memory(&self) -> Outcome<(f64, f64)> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let of = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok()).map(|kib| kib * KIB)
        };
        Ok((of("VmHWM:").ok_or("no peak")?, of("VmRSS:").ok_or("no size")?))
    }

    /// Of each of its threads: seconds that it ran, and seconds that it was kept waiting for a processor by whatever else runs there.
    pub fn cpu(&self) -> Outcome<BTreeMap<String, [f64; 2]>> {
        let mut threads: BTreeMap<String, [f64; 2]> = BTreeMap::new();
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let task = task?.path();
            let read = |name: &str| fs::read_to_string(task.join(name));
            let (Ok(name), Ok(times)) = (read("comm"), read("schedstat")) else { continue };
            let seconds = times.split(' ').filter_map(|nanos| nanos.parse::<f64>().ok()).map(|nanos| nanos / 1e9);
            let of_name = threads.entry(name.trim().to_owned()).or_default();
            of_name.iter_mut().zip(seconds).for_each(|(sum, seconds)| *sum += seconds);
        }
        Ok(threads)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Turns {
    /// The longest of the turns since a moment before, and what 999 of 1,000 of them stay within, milliseconds. Only the 64 slowest are known
    /// one by one: where more than these are beyond the 999th part, the least of them stands for it, which is no less.
    pub fn since(&self, before: &Turns) -> (f64, f64) {
        let busy = |turn: &Value| turn["busy_us"].as_f64().unwrap_or(0.0) / 1_000.0;
        let slow: Vec<f64> = self.slow_since(before).map(busy).collect();
        let rank = (self.turns - before.turns) as usize / 1_000;
        let least = self.slow.last().map_or(0.0, busy);
        (slow.first().copied().unwrap_or(least), slow.get(rank).copied().unwrap_or(least))
    }

    /// The slowest turn since a moment before, stage by stage.
    pub fn slowest(&self, before: &Turns) -> String {
        self.slow_since(before).next().map_or(String::new(), Value::to_string)
    }

    /// Turns between two moments, and the seconds.
    pub fn count(&self, before: &Turns) -> (u64, f64) {
        (self.turns - before.turns, (self.age - before.age).as_secs_f64())
    }

    fn slow_since(&self, before: &Turns) -> impl Iterator<Item = &Value> {
        let from = before.age.as_secs_f64();
        self.slow.iter().filter(move |turn| turn["began_s"].as_f64() >= Some(from))
    }
}

/// This bench once more, as somebody else. It ends when its standard input does.
pub fn spawn(args: &[&str]) -> Outcome<(Child, ChildStdin, BufReader<ChildStdout>)> {
    let mut child = Command::new(std::env::current_exe()?).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let input = child.stdin.take().ok_or("no standard input")?;
    let output = child.stdout.take().ok_or("no standard output")?;
    Ok((child, input, BufReader::new(output)))
}
