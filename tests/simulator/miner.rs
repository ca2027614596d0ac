//! A miner on a host of its own: speaks Stratum over the pipes, finds a share now and then.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rockpool_net::id::ShareId;
use rockpool_net::pipes::Net;
use rockpool_net::sha256::sha256d;
use serde_json::{Value, json};

use crate::client::{Client, Line};
use crate::draw;

/// Mean time between two shares of one miner, milliseconds: two miners together keep to regtest's second.
const PACE_MS: u64 = 2_000;

/// Hashes that a miner tries in one go: where a wrong clock has made shares hard it finds none.
const HASHES_MAX: u32 = 4_096;

/// Difficulties are told rounded down to three digits: what meets one by this factor meets the share's own target too.
const ROUNDED: f64 = 1.011;

/// A miner.
pub struct Miner {
    pub client: Client,
    user: String,
    extranonce1: Vec<u8>,
    /// Told by `set_difficulty`, for the jobs that follow.
    difficulty: f64,
    /// The newest job and its difficulty.
    job: Option<(Value, f64)>,
    requests: u64,
    /// Submits that have no answer yet: request and share.
    pending: Vec<(u64, ShareId)>,
    /// Shares that the node answered `true` for.
    pub acknowledged: BTreeSet<ShareId>,
    /// Those of them that the world has not looked at yet.
    pub newly_acknowledged: Vec<ShareId>,
    /// Submits refused, with the error.
    pub refused: Vec<Value>,
    /// Parameters of its last submit.
    pub submitted: Option<Value>,
    /// When it finds its next share.
    next: Duration,
    rng: ChaCha12Rng,
}

impl Miner {
    /// A miner that has not dialled yet.
    pub fn new(host: usize, server: SocketAddr, user: &str, rng: ChaCha12Rng) -> Miner {
        Miner {
            client: Client::new(host, server),
            user: user.to_owned(),
            extranonce1: Vec::new(),
            difficulty: 1.0,
            job: None,
            requests: 0,
            pending: Vec::new(),
            acknowledged: BTreeSet::new(),
            newly_acknowledged: Vec::new(),
            refused: Vec::new(),
            submitted: None,
            next: Duration::from_secs(1),
            rng,
        }
    }

    /// When it does something unasked.
    pub fn due(&self) -> Duration {
        self.next
    }

    /// Submits without an answer.
    pub fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// Whether it has work.
    pub fn served(&self) -> bool {
        self.job.is_some()
    }

    /// Its user name.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// A submit for its newest job, whose nonce is to be filled in.
    pub fn job_to_submit(&self) -> Option<Value> {
        let (job, _) = self.job.as_ref()?;
        Some(json!([self.user, job[0], hex(&[7; 8]), job[7], "00000000"]))
    }

    /// Reads what came, and mines if it is time and `mining`.
    pub fn step(&mut self, net: &mut Net, mining: bool) {
        let now = net.now(self.client.host).mono;
        if !self.client.has_events(net) && now < self.next {
            return;
        }
        let was_open = self.client.line == Line::Open;
        if self.client.receive(net) {
            self.request("mining.subscribe", &json!(["simulated/1"]));
            let user = json!([self.user, "x"]);
            self.request("mining.authorize", &user);
        } else if was_open && self.client.line == Line::Closed {
            self.lost();
        }
        while let Some(end) = self.client.input.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.client.input.drain(..=end).collect();
            self.hear(&serde_json::from_slice(&line).unwrap());
        }
        if now >= self.next {
            self.next = now + Duration::from_millis(1 + draw(&mut self.rng, 2 * PACE_MS));
            if self.client.line != Line::Open {
                self.client.dial(net);
            } else if mining && self.job.is_some() {
                self.mine();
            }
        }
        self.client.send(net);
    }

    fn lost(&mut self) {
        self.job = None;
        self.pending.clear();
    }

    fn hear(&mut self, message: &Value) {
        match message["method"].as_str() {
            Some("mining.set_difficulty") => self.difficulty = message["params"][0].as_f64().unwrap(),
            Some("mining.notify") => self.job = Some((message["params"].clone(), self.difficulty)),
            Some(_) => {}
            None if message["id"] == 1 || self.extranonce1.is_empty() => {
                if let Some(extranonce1) = message["result"][1].as_str() {
                    self.extranonce1 = unhex(extranonce1);
                }
            }
            None => {
                let Some(at) = self.pending.iter().position(|(request, _)| message["id"] == *request) else { return };
                let (_, share) = self.pending.remove(at);
                if message["result"] == true {
                    assert!(self.acknowledged.insert(share), "one answer to one submit");
                    self.newly_acknowledged.push(share);
                } else {
                    self.refused.push(message["error"].clone());
                }
            }
        }
    }

    fn mine(&mut self) {
        let Some((job, difficulty)) = self.job.clone() else { return };
        let text = |i: usize| job[i].as_str().unwrap();
        let word = |i: usize| u32::from_str_radix(text(i), 16).unwrap();
        let extranonce2 = draw(&mut self.rng, u64::MAX).to_be_bytes();
        let coinbase = [&unhex(text(2))[..], &self.extranonce1, &extranonce2, &unhex(text(3))].concat();
        let branch = job[4].as_array().unwrap().iter().map(|hash| unhex(hash.as_str().unwrap()));
        let root = branch.fold(sha256d(&coinbase), |root, sibling| sha256d(&[&root[..], &sibling].concat()));
        let mut header = [0; 80];
        header[..4].copy_from_slice(&word(5).to_le_bytes());
        let prev: Vec<u8> = unhex(text(1)).chunks(4).flat_map(|word| word.iter().rev().copied().collect::<Vec<_>>()).collect();
        header[4..36].copy_from_slice(&prev);
        header[36..68].copy_from_slice(&root);
        header[68..72].copy_from_slice(&word(7).to_le_bytes());
        header[72..76].copy_from_slice(&word(6).to_le_bytes());
        for nonce in 0..HASHES_MAX {
            header[76..].copy_from_slice(&nonce.to_le_bytes());
            let hash = sha256d(&header);
            let value = hash.iter().rev().fold(0.0, |value, byte| value * 256.0 + f64::from(*byte));
            if 65535.0 * 2f64.powi(208) / value >= difficulty * ROUNDED {
                let params = json!([self.user, text(0), hex(&extranonce2), text(7), format!("{nonce:08x}")]);
                self.submitted = Some(params.clone());
                let request = self.request("mining.submit", &params);
                self.pending.push((request, ShareId(hash)));
                return;
            }
        }
    }

    /// Sends a request; returns its number.
    pub fn request(&mut self, method: &str, params: &Value) -> u64 {
        if method == "mining.subscribe" {
            self.extranonce1.clear();
        }
        self.requests += 1;
        let line = format!("{}\n", json!({"id": self.requests, "method": method, "params": params}));
        self.client.output.extend_from_slice(line.as_bytes());
        self.requests
    }
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
