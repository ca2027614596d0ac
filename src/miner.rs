//! A small CPU miner that speaks Stratum V1, for the demo and for tests. It waits where it likes: it has threads of its own.
//!
//! Each thread is a miner with a connection of its own. Its hash rate is bounded, so that the machine stays usable: it hashes a slice,
//! then listens to its socket until the next is due.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bitcoin::hex::{DisplayHex, FromHex};
use rockpool_net::limits::{BRANCH_MAX, LINE_BYTES_MAX};
use rockpool_net::sha256::{Midstate, sha256, sha256d};
use serde_json::{Value, json};

use crate::limits::{MINER_LINE_BYTES_MAX, MINER_RETRY, MINER_SLICE};
use crate::stratum::difficulty::target_of;

/// What a miner is told.
#[derive(Clone, Debug)]
pub struct MinerConfig {
    /// The Stratum server.
    pub server: SocketAddr,
    /// User name: `address[.worker]`.
    pub user: String,
    /// Threads, each with its own connection.
    pub threads: usize,
    /// Hashes a second of one thread, at most.
    pub rate: u64,
    /// The difficulty it asks for (`d=` in the password), since a CPU would wait long for a share of difficulty 1.
    pub difficulty: Option<f64>,
}

/// What a miner has done so far.
#[derive(Debug, Default)]
pub struct Tally {
    /// Hashes tried.
    pub hashes: AtomicU64,
    /// Submits that were accepted.
    pub accepted: AtomicU64,
    /// Submits that were refused.
    pub refused: AtomicU64,
}

/// A running miner. Dropping it stops it.
pub struct Miner {
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Miner {
    /// Starts the threads. A server that is away is tried again until the miner is stopped.
    pub fn start(config: &MinerConfig) -> io::Result<Miner> {
        let mut miner = Miner { tally: Arc::default(), stop: Arc::default(), threads: Vec::new() };
        for n in 0..config.threads {
            let (config, tally, stop) = (config.clone(), miner.tally.clone(), miner.stop.clone());
            let run = move || {
                while !stop.load(Relaxed) {
                    if let Err(error) = mine(&config, &tally, &stop) {
                        log::warn!("the CPU miner lost its server: {error}");
                        thread::park_timeout(MINER_RETRY);
                    }
                }
            };
            miner.threads.push(thread::Builder::new().name(format!("miner {n}")).spawn(run)?);
        }
        Ok(miner)
    }

    /// What it has done.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Stops and waits for the threads: a slice of hashes, or a connection's timeout.
    pub fn stop(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

impl Drop for Miner {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One connection's life.
#[expect(clippy::disallowed_methods, reason = "a miner's clock is its own")]
fn mine(config: &MinerConfig, tally: &Tally, stop: &AtomicBool) -> io::Result<()> {
    let mut socket = TcpStream::connect_timeout(&config.server, MINER_RETRY)?;
    socket.set_nodelay(true)?;
    socket.set_write_timeout(Some(MINER_RETRY))?;
    let mut state = State::default();
    socket.write_all(&hello(&config.user, config.difficulty))?;
    let mut received = Vec::new();
    let slice = (config.rate as f64 * MINER_SLICE.as_secs_f64()).ceil() as u64;
    let mut due = Instant::now();
    while !stop.load(Relaxed) {
        listen(&mut socket, &mut received, due.saturating_duration_since(Instant::now()))?;
        while let Some(end) = received.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = received.drain(..=end).collect();
            state.hear(&line, tally)?;
        }
        let now = Instant::now();
        if now < due {
            continue;
        }
        // A machine that cannot keep the rate falls behind without ever catching up in a burst.
        due = (due + MINER_SLICE).max(now);
        let (tried, found) = state.search(slice);
        tally.hashes.fetch_add(tried, Relaxed);
        if let Some(line) = found.and_then(|nonce| state.submit(&config.user, nonce)) {
            socket.write_all(&line)?;
        }
    }
    Ok(())
}

/// Reads what comes within `wait`.
fn listen(socket: &mut TcpStream, received: &mut Vec<u8>, wait: Duration) -> io::Result<()> {
    // No timeout at all is spelled zero by the system.
    socket.set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
    let mut buf = [0; LINE_BYTES_MAX];
    match socket.read(&mut buf) {
        Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the server")),
        Ok(n) if received.len() + n > MINER_LINE_BYTES_MAX => Err(bad("a line too long")),
        Ok(n) => {
            received.extend_from_slice(&buf[..n]);
            Ok(())
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Ids of the requests; submits count from [`SUBMIT`].
const SUBSCRIBE: u64 = 1;
const AUTHORIZE: u64 = 2;
const SUBMIT: u64 = 10;

pub(crate) fn hello(user: &str, difficulty: Option<f64>) -> Vec<u8> {
    let password = difficulty.map_or_else(|| "x".into(), |difficulty| format!("d={difficulty}"));
    let subscribe = json!({"id": SUBSCRIBE, "method": "mining.subscribe", "params": ["rockpool-miner"]});
    let authorize = json!({"id": AUTHORIZE, "method": "mining.authorize", "params": [user, password]});
    format!("{subscribe}\n{authorize}\n").into_bytes()
}

/// What the server has told.
#[derive(Debug, Default)]
pub(crate) struct State {
    extranonce1: Vec<u8>,
    extranonce2_size: usize,
    /// Counts headers: the extranonce2 that is searched now.
    extranonce2: u64,
    pub(crate) difficulty: Option<f64>,
    job: Option<Job>,
    submits: u64,
}

/// A job as `mining.notify` gives it.
#[derive(Debug)]
struct Job {
    id: String,
    prev: [u8; 32],
    coinb1: Vec<u8>,
    coinb2: Vec<u8>,
    branch: Vec<[u8; 32]>,
    version: u32,
    bits: u32,
    ntime: u32,
    /// Difficulty announced before it.
    target: [u8; 32],
    /// The first 64 header bytes hashed, the other 12 before the nonce, and the next nonce to try.
    search: Option<(Midstate, [u8; 12], u32)>,
}

impl State {
    /// Takes one line of the server.
    pub(crate) fn hear(&mut self, line: &[u8], tally: &Tally) -> io::Result<()> {
        let message: Value = serde_json::from_slice(line).map_err(|_| bad("a line that is no JSON"))?;
        let params = &message["params"];
        match (message["method"].as_str(), message["id"].as_u64()) {
            (Some("mining.notify"), _) => self.notify(params).ok_or_else(|| bad("a malformed job"))?,
            (Some("mining.set_difficulty"), _) => self.difficulty = params[0].as_f64().filter(|difficulty| *difficulty > 0.0),
            (Some(_), _) => {}
            (None, Some(SUBSCRIBE)) => {
                let result = &message["result"];
                self.extranonce1 = result[1].as_str().and_then(|hex| Vec::from_hex(hex).ok()).ok_or_else(|| bad("no extranonce1"))?;
                let size = result[2].as_u64().filter(|size| (1..=8).contains(size)).ok_or_else(|| bad("an odd extranonce2 size"))?;
                self.extranonce2_size = size as usize;
            }
            (None, Some(AUTHORIZE)) => {
                if message["result"] != true {
                    return Err(bad(&format!("the user name was refused: {}", message["error"])));
                }
            }
            (None, Some(SUBMIT..)) => {
                let count = if message["result"] == true { &tally.accepted } else { &tally.refused };
                count.fetch_add(1, Relaxed);
            }
            (None, _) => {}
        }
        Ok(())
    }

    fn notify(&mut self, params: &Value) -> Option<()> {
        let word = |at: usize| params[at].as_str().and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let bytes = |value: &Value| value.as_str().and_then(|hex| Vec::from_hex(hex).ok());
        let mut prev = <[u8; 32]>::from_hex(params[1].as_str()?).ok()?;
        // Stratum sends the hash as eight words, each with its bytes turned round.
        prev.chunks_mut(4).for_each(<[u8]>::reverse);
        let branch = params[4].as_array()?;
        if branch.len() > BRANCH_MAX {
            return None;
        }
        self.job = Some(Job {
            id: params[0].as_str()?.to_string(),
            prev,
            coinb1: bytes(&params[2])?,
            coinb2: bytes(&params[3])?,
            branch: branch.iter().map(|hash| <[u8; 32]>::from_hex(hash.as_str()?).ok()).collect::<Option<_>>()?,
            version: word(5)?,
            bits: word(6)?,
            ntime: word(7)?,
            target: target_of(self.difficulty.unwrap_or(1.0)),
            search: None,
        });
        Some(())
    }

    /// Tries at most `count` nonces, until one meets the target: how many it tried, and that one. What follows is for the next slice, or a
    /// share chain at its easiest would be flooded.
    pub(crate) fn search(&mut self, count: u64) -> (u64, Option<u32>) {
        let Some(job) = &mut self.job else { return (0, None) };
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        if job.search.is_none_or(|(.., nonce)| nonce.checked_add(count).is_none()) {
            self.extranonce2 += 1;
            let header = job.header(&self.extranonce1, &extranonce2(self.extranonce2, self.extranonce2_size));
            let mut head = Midstate::new();
            head.update_blocks(&header[..64]);
            let mut rest = [0; 12];
            rest.copy_from_slice(&header[64..76]);
            job.search = Some((head, rest, 0));
        }
        let Some((head, rest, next)) = &mut job.search else { return (0, None) };
        let mut tail = [0; 16];
        tail[..12].copy_from_slice(rest);
        for tried in 1..=count {
            let nonce = *next;
            *next = next.wrapping_add(1);
            tail[12..].copy_from_slice(&nonce.to_le_bytes());
            let hash = sha256(&head.finish(&tail));
            if hash.iter().rev().le(job.target.iter().rev()) {
                return (tried.into(), Some(nonce));
            }
        }
        (count.into(), None)
    }

    pub(crate) fn submit(&mut self, user: &str, nonce: u32) -> Option<Vec<u8>> {
        let job = self.job.as_ref()?;
        let extranonce2 = extranonce2(self.extranonce2, self.extranonce2_size).to_lower_hex_string();
        let params = json!([user, job.id, extranonce2, format!("{:08x}", job.ntime), format!("{nonce:08x}")]);
        self.submits += 1;
        Some(format!("{}\n", json!({"id": SUBMIT + self.submits, "method": "mining.submit", "params": params})).into_bytes())
    }
}

impl Job {
    /// The 80 bytes to hash, nonce zero.
    fn header(&self, extranonce1: &[u8], extranonce2: &[u8]) -> [u8; 80] {
        let coinbase = [&self.coinb1, extranonce1, extranonce2, &self.coinb2].concat();
        let root = self.branch.iter().fold(sha256d(&coinbase), |left, right| sha256d(&[left, *right].concat()));
        let mut header = [0; 80];
        header[..4].copy_from_slice(&self.version.to_le_bytes());
        header[4..36].copy_from_slice(&self.prev);
        header[36..68].copy_from_slice(&root);
        header[68..72].copy_from_slice(&self.ntime.to_le_bytes());
        header[72..76].copy_from_slice(&self.bits.to_le_bytes());
        header
    }
}

fn extranonce2(count: u64, size: usize) -> Vec<u8> {
    count.to_le_bytes()[..size.min(8)].to_vec()
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it sent {what}"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// Block 1 of Bitcoin's main chain as a job: its coinbase cut around an extranonce, its header, its nonce.
    const COINBASE: &str = "01000000010000000000000000000000000000000000000000000000000000000000000000ffffffff0704ffff001d01\
                            04ffffffff0100f2052a0100000043410496b538e853519c726a2c91e61ec11600ae1390813a627c66fb8be7947be63c\
                            52da7589379515d4e0a604f8141781e62294721166bf621e73a82cbf2342c858eeac00000000";
    const PREV: &str = "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f";
    const NONCE: u32 = 0x9962_e301;

    /// Stratum's way with a hash: eight words, the last first.
    fn words(hash: &str) -> String {
        hash.as_bytes().chunks(8).rev().map(|word| std::str::from_utf8(word).unwrap()).collect()
    }

    fn block_one() -> State {
        let mut state = State {
            extranonce1: Vec::from_hex(&COINBASE[84..92]).unwrap(),
            extranonce2_size: 1,
            difficulty: Some(1.0),
            ..State::default()
        };
        let params = json!(["7", words(PREV), &COINBASE[..84], &COINBASE[94..], [], "00000001", "1d00ffff", "4966bc61", true]);
        state.hear(json!({"id": null, "method": "mining.notify", "params": params}).to_string().as_bytes(), &Tally::default()).unwrap();
        // The byte of the coinbase that stands where extranonce2 goes, less the one that `search` counts up.
        state.extranonce2 = u64::from(u8::from_str_radix(&COINBASE[92..94], 16).unwrap()).wrapping_sub(1);
        state
    }

    #[test]
    fn finds_the_nonce_of_block_one() {
        let mut state = block_one();
        assert_eq!(state.search(10), (10, None));
        state.job.as_mut().unwrap().search.as_mut().unwrap().2 = NONCE - 5;
        assert_eq!(state.search(10), (6, Some(NONCE)));
        let line = state.submit("user", NONCE).unwrap();
        let said: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(said["method"], "mining.submit");
        assert_eq!(said["params"], json!(["user", "7", &COINBASE[92..94], "4966bc61", "9962e301"]));
        assert_eq!(line.last(), Some(&b'\n'));
    }

    #[test]
    fn a_merkle_branch_is_folded_from_the_left() {
        let mut state = block_one();
        let job = state.job.as_mut().unwrap();
        let alone = job.header(&[1, 2, 3, 4], &[5])[36..68].to_vec();
        job.branch = vec![[7; 32], [9; 32]];
        let root = sha256d(&[sha256d(&[&alone[..], &[7; 32]].concat()), [9; 32]].concat());
        assert_eq!(job.header(&[1, 2, 3, 4], &[5])[36..68], root);
    }

    #[test]
    fn a_new_job_is_searched_at_the_new_difficulty_and_a_bad_line_is_an_error() {
        let (mut state, tally) = (block_one(), Tally::default());
        state.hear(br#"{"id":null,"method":"mining.set_difficulty","params":[0.5]}"#, &tally).unwrap();
        assert_eq!(state.job.as_ref().unwrap().target, target_of(1.0), "the job that runs keeps its difficulty");
        let params = json!(["8", words(PREV), "00", "01", ["11".repeat(32)], "20000000", "207fffff", "4966bc61", true]);
        state.hear(json!({"method": "mining.notify", "params": params}).to_string().as_bytes(), &tally).unwrap();
        assert_eq!(state.job.as_ref().unwrap().target, target_of(0.5));
        for line in
            [&b"nonsense\n"[..], br#"{"method":"mining.notify","params":[]}"#, br#"{"id":1,"result":null}"#, br#"{"id":2,"result":false}"#]
        {
            assert!(state.hear(line, &tally).is_err(), "{:?}", String::from_utf8_lossy(line));
        }
        state.hear(br#"{"id":11,"result":true,"error":null}"#, &tally).unwrap();
        state.hear(br#"{"id":12,"result":null,"error":[23,"low",null]}"#, &tally).unwrap();
        assert_eq!((tally.accepted.load(Relaxed), tally.refused.load(Relaxed)), (1, 1));
    }

    #[test]
    fn an_exhausted_header_is_followed_by_the_next_extranonce() {
        let mut state = block_one();
        state.search(1);
        let before = state.extranonce2;
        state.job.as_mut().unwrap().search.as_mut().unwrap().2 = u32::MAX - 4;
        state.search(10);
        assert_eq!(state.extranonce2, before + 1);
        assert_eq!(state.job.as_ref().unwrap().search.unwrap().2, 10);
    }

    #[test]
    fn a_server_that_never_ends_its_line_is_left() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let config = MinerConfig { server, user: "u".into(), threads: 1, rate: 1_000, difficulty: None };
        let error = thread::scope(|scope| {
            scope.spawn(|| {
                let (mut socket, _) = listener.accept().unwrap();
                let _ = socket.write_all(&vec![b'x'; MINER_LINE_BYTES_MAX + 1]);
                // Until the miner hangs up.
                let _ = io::copy(&mut socket, &mut io::sink());
            });
            mine(&config, &Tally::default(), &AtomicBool::new(false)).unwrap_err()
        });
        assert!(error.to_string().contains("a line too long"), "{error}");
    }
}
