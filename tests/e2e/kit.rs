//! What the whole-process tests share: nodes, miners, peers and a bitcoind, each a real process or a real socket.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rockpool_net::id::ShareId;
use rockpool_net::sha256::sha256d;
use serde_json::{Value, json};

pub use crate::daemon::{ADDRESS, ADDRESS_2, Bitcoind, PATIENCE, temp, until, until_in};

/// Difficulties are told rounded down to three digits: what meets one by this factor meets the share's own target too.
const ROUNDED: f64 = 1.011;

/// A `rockpool run` process.
pub struct Rockpool {
    child: Child,
    log: Arc<Mutex<String>>,
    /// Where it listens.
    pub http: SocketAddr,
    /// Where it listens.
    pub stratum: SocketAddr,
    /// Where it listens, if it has a share chain.
    pub p2p: SocketAddr,
}

impl Rockpool {
    /// Starts a node on regtest with every port free, and waits until it answers.
    pub fn start(dir: &Path, more: &[&str]) -> Rockpool {
        let _ = std::fs::remove_file(dir.join("http"));
        let chain = !more.iter().any(|flag| matches!(*flag, "--solo" | "--standalone"));
        let mut child = Command::new(env!("CARGO_BIN_EXE_rockpool"))
            .args(["run", "--network", "regtest", "--stratum", "127.0.0.1:0", "--http", "127.0.0.1:0", "--datadir"])
            .arg(dir)
            .args(if chain { &["--p2p", "127.0.0.1:0"][..] } else { &[] })
            .args(more)
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = collect(child.stderr.take().unwrap());
        let http: SocketAddr = until("the node's HTTP address", || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the node ended at start with {status}: {}", log.lock().unwrap());
            }
            std::fs::read_to_string(dir.join("http")).ok()?.trim().parse().ok()
        });
        let status = until("the node's first answer", || serde_json::from_str::<Value>(&get(http, "/api/v1/status")?.1).ok());
        let listen = |name: &str| status["listen"][name].as_str().unwrap().parse().unwrap();
        let p2p = if chain { listen("p2p") } else { SocketAddr::from(([0; 4], 0)) };
        Rockpool { child, log, http, stratum: listen("stratum"), p2p }
    }

    /// Its status as it tells it.
    pub fn status(&self) -> Value {
        serde_json::from_str(&self.get("/api/v1/status").1).unwrap()
    }

    /// Its confirmed tip, as shown, and that tip's height.
    pub fn tip(&self) -> (String, u64) {
        let status = self.status();
        (status["tip"]["id"].as_str().unwrap().to_owned(), status["tip"]["height"].as_u64().unwrap())
    }

    /// One HTTP request: status code and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        get(self.http, path).unwrap_or_else(|| panic!("no answer to GET {path}; log: {}", self.log()))
    }

    /// Whether a share is there and confirmed.
    pub fn confirmed(&self, id: ShareId) -> bool {
        let (code, body) = self.get(&format!("/api/v1/share/{id}"));
        code == 200 && serde_json::from_str::<Value>(&body).unwrap()["confirmed"] == true
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Processor time that it has used, if this system tells: Linux counts it in hundredths of a second.
    pub fn cpu(&self) -> Option<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        // Its name, in parentheses, may hold anything; the state is the third field, user and system time are the next but ten.
        let mut times = stat.rsplit_once(") ")?.1.split(' ').skip(11);
        let mut ticks = || times.next()?.parse::<u64>().ok();
        Some(Duration::from_millis(10 * (ticks()? + ticks()?)))
    }

    /// Whether its process runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// SIGTERM; returns how it ended and how long that took.
    pub fn stop(&mut self) -> (ExitStatus, Duration) {
        let start = Instant::now();
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = until("the node's end", || self.child.try_wait().unwrap());
        (status, start.elapsed())
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Rockpool {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(stderr: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let log = Arc::new(Mutex::new(String::new()));
    let into = log.clone();
    let reader = std::thread::Builder::new().name("log".into());
    reader
        .spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = into.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        })
        .unwrap();
    log
}

/// One HTTP request: status code and body; `None` if there is no whole answer.
pub fn get(http: SocketAddr, path: &str) -> Option<(u16, String)> {
    ask(http, "GET", path)
}

/// The same with another method.
pub fn ask(http: SocketAddr, method: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(http).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// A job as `mining.notify` gave it.
#[derive(Clone, Debug)]
pub struct Job {
    id: String,
    prev: Vec<u8>,
    coinb1: Vec<u8>,
    coinb2: Vec<u8>,
    branch: Vec<Vec<u8>>,
    version: u32,
    bits: u32,
    time: u32,
    /// As `set_difficulty` told before it.
    difficulty: f64,
}

/// A miner's connection, on which the test decides what is sent.
pub struct Miner {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    extranonce1: Vec<u8>,
    user: String,
    difficulty: f64,
    job: Option<Job>,
    /// Parent of the Bitcoin block that was mined last: on regtest every share is a block, so jobs on it are stale.
    mined: Option<Vec<u8>>,
    next_id: u64,
    extranonce2: u64,
    /// Answers that came while another was waited for.
    answers: BTreeMap<u64, Value>,
}

/// What the node said to one submit.
#[derive(Debug)]
pub struct Submitted {
    /// Id of the share that the submit is, if it meets the share's target.
    pub id: ShareId,
    /// `true`, or the error.
    pub verdict: Result<(), Value>,
}

impl Miner {
    /// Connects, subscribes and authorises.
    pub fn connect(addr: SocketAddr, user: &str) -> Miner {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        let user = user.to_owned();
        let mut miner = Miner {
            stream,
            reader,
            extranonce1: Vec::new(),
            user,
            difficulty: 1.0,
            job: None,
            mined: None,
            next_id: 1,
            extranonce2: 0,
            answers: BTreeMap::new(),
        };
        let subscribed = miner.call("mining.subscribe", json!(["e2e/1"])).unwrap();
        miner.extranonce1 = unhex(subscribed[1].as_str().unwrap());
        assert_eq!(subscribed[2], 8, "extranonce2 is 8 bytes");
        let user = miner.user.clone();
        assert_eq!(miner.call("mining.authorize", json!([user, "x"])).unwrap(), true);
        miner
    }

    /// Sends a request and returns its id.
    pub fn send(&mut self, method: &str, params: Value) -> u64 {
        self.next_id += 1;
        let line = format!("{}\n", json!({"id": self.next_id, "method": method, "params": params}));
        self.stream.write_all(line.as_bytes()).unwrap();
        self.next_id
    }

    /// Sends a request and waits for its answer.
    pub fn call(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        let id = self.send(method, params);
        self.answer(id)
    }

    /// Waits for the answer to a request; takes in what the node sends meanwhile.
    pub fn answer(&mut self, id: u64) -> Result<Value, Value> {
        let message = loop {
            if let Some(message) = self.answers.remove(&id) {
                break message;
            }
            self.next_line();
        };
        if message["error"].is_null() { Ok(message["result"].clone()) } else { Err(message["error"].clone()) }
    }

    /// The next line, whatever it is; `set_difficulty` and `notify` take effect.
    pub fn next_line(&mut self) -> Value {
        let mut line = String::new();
        assert!(self.reader.read_line(&mut line).unwrap() > 0, "the node closed the connection");
        let message: Value = serde_json::from_str(&line).unwrap();
        match message["method"].as_str() {
            Some("mining.set_difficulty") => self.difficulty = message["params"][0].as_f64().unwrap(),
            Some("mining.notify") => self.job = Some(Job::parse(&message["params"], self.difficulty)),
            Some(_) => {}
            None => drop(message["id"].as_u64().map(|id| self.answers.insert(id, message.clone()))),
        }
        message
    }

    /// Reads on until the connection ends, well or by a reset.
    pub fn read_to_the_end(&mut self) {
        if let Err(error) = self.reader.read_to_end(&mut Vec::new()) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
    }

    /// The newest job; waits for one if there is none yet, or none since the last block was mined.
    pub fn job(&mut self) -> Job {
        // What the node said before it answers this has been heard: a new template comes a moment before the new share tip.
        assert_eq!(self.call("mining.ping", json!([])).unwrap(), "pong");
        loop {
            match &self.job {
                Some(job) if self.mined.as_ref() != Some(&job.prev) => return job.clone(),
                _ => self.next_line(),
            };
        }
    }

    /// A job on this block, as Bitcoin shows hashes, that comes after the one that is there now; it must come in this time.
    pub fn next_job_on(&mut self, parent: &str, limit: Duration) -> Job {
        let (begin, before) = (Instant::now(), self.job.as_ref().map(|job| job.id.clone()));
        let job = loop {
            match &self.job {
                Some(job) if Some(&job.id) != before.as_ref() && job.parent() == parent => break job.clone(),
                _ => {
                    let left = limit.checked_sub(begin.elapsed()).filter(|left| !left.is_zero());
                    let left = left.unwrap_or_else(|| panic!("no work on {parent} in {limit:?}"));
                    self.stream.set_read_timeout(Some(left)).unwrap();
                    self.next_line()
                }
            };
        };
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        job
    }

    /// Reads jobs until one builds on such a block; the blocks that those before it build on.
    pub fn parents_until(&mut self, enough: impl Fn(&str) -> bool) -> Vec<String> {
        let mut parents = Vec::new();
        loop {
            let is_job = self.next_line()["method"] == "mining.notify";
            match self.job.as_ref().filter(|_| is_job).map(Job::parent) {
                Some(parent) if enough(&parent) => return parents,
                parent => parents.extend(parent),
            }
        }
    }

    /// Grinds a nonce for a job: the submit's parameters and the id of the share.
    pub fn grind_for(&mut self, job: &Job) -> (Value, ShareId) {
        self.extranonce2 += 1;
        let extranonce2 = self.extranonce2.to_be_bytes();
        let mut header = job.header(&self.extranonce1, &extranonce2);
        for nonce in 0..=u32::MAX {
            header[76..].copy_from_slice(&nonce.to_le_bytes());
            let hash = sha256d(&header);
            if difficulty(&hash) >= job.difficulty * ROUNDED {
                let params = json!([self.user, job.id, hex(&extranonce2), format!("{:08x}", job.time), format!("{nonce:08x}")]);
                return (params, ShareId(hash));
            }
        }
        panic!("no nonce meets difficulty {}", job.difficulty);
    }

    /// Grinds and submits; waits for the verdict.
    pub fn mine(&mut self) -> Submitted {
        let job = self.job();
        self.mine_for(&job)
    }

    /// Grinds and submits for a given job; waits for the verdict.
    pub fn mine_for(&mut self, job: &Job) -> Submitted {
        let (params, id) = self.grind_for(job);
        let verdict = self.call("mining.submit", params).map(|result| assert_eq!(result, true));
        self.mined = Some(job.prev.clone());
        Submitted { id, verdict }
    }
}

impl Job {
    /// Hash of the Bitcoin block it builds on, as Bitcoin shows hashes.
    pub fn parent(&self) -> String {
        hex(&self.prev.iter().rev().copied().collect::<Vec<_>>())
    }

    fn parse(params: &Value, difficulty: f64) -> Job {
        let text = |i: usize| params[i].as_str().unwrap();
        let word = |i: usize| u32::from_str_radix(text(i), 16).unwrap();
        // Stratum sends the parent's hash with the bytes of each 4-byte word swapped.
        let prev = unhex(text(1)).chunks(4).flat_map(|word| word.iter().rev().copied().collect::<Vec<_>>()).collect();
        let branch = params[4].as_array().unwrap().iter().map(|hash| unhex(hash.as_str().unwrap())).collect();
        let (coinb1, coinb2) = (unhex(text(2)), unhex(text(3)));
        Job { id: text(0).to_owned(), prev, coinb1, coinb2, branch, version: word(5), bits: word(6), time: word(7), difficulty }
    }

    fn header(&self, extranonce1: &[u8], extranonce2: &[u8]) -> [u8; 80] {
        let coinbase = [&self.coinb1, extranonce1, extranonce2, &self.coinb2].concat();
        let root = self.branch.iter().fold(sha256d(&coinbase), |root, sibling| sha256d(&[&root[..], sibling].concat()));
        let mut header = [0; 80];
        header[..4].copy_from_slice(&self.version.to_le_bytes());
        header[4..36].copy_from_slice(&self.prev);
        header[36..68].copy_from_slice(&root);
        header[68..72].copy_from_slice(&self.time.to_le_bytes());
        header[72..76].copy_from_slice(&self.bits.to_le_bytes());
        header
    }
}

/// Difficulty of a hash as Stratum counts it.
fn difficulty(hash: &[u8; 32]) -> f64 {
    let value = hash.iter().rev().fold(0.0, |value, byte| value * 256.0 + f64::from(*byte));
    65535.0 * 2f64.powi(208) / value
}

/// Bytes from hex.
pub fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "odd hex: {text}");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Hex of bytes.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
