//! Hostile miners.

use std::net::SocketAddr;
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::Rng;
use rockpool_net::pipes::Net;
use serde_json::json;

use crate::client::Line;
use crate::draw;
use crate::miner::Miner;

/// Ways of being a nuisance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Lines that are no JSON.
    Garbage,
    /// Submits that are wrong, by the hundred.
    Wrong,
    /// The same good submit, by the hundred.
    Duplicate,
    /// Submits for jobs that never were, by the hundred.
    Stale,
    /// A line without end.
    LongLine,
    /// Asks and never reads.
    Deaf,
}

impl Kind {
    pub const ALL: [Kind; 6] = [Kind::Garbage, Kind::Wrong, Kind::Duplicate, Kind::Stale, Kind::LongLine, Kind::Deaf];
}

/// A hostile miner.
pub struct Rogue {
    pub kind: Kind,
    pub miner: Miner,
    rng: ChaCha12Rng,
    next: Duration,
    pub done: u64,
}

impl Rogue {
    pub fn new(kind: Kind, host: usize, server: SocketAddr, user: &str, mut rng: ChaCha12Rng) -> Rogue {
        let miner = Miner::new(host, server, user, crate::fork(&mut rng));
        Rogue { kind, miner, rng, next: Duration::from_secs(3), done: 0 }
    }

    /// When it does something unasked.
    pub fn due(&self) -> Duration {
        if self.next == Duration::MAX { self.next } else { self.next.min(self.miner.due()) }
    }

    /// It goes, for good.
    pub fn leave(&mut self, net: &mut Net) {
        self.miner.client.close(net);
        self.next = Duration::MAX;
    }

    /// Mines a little, so that there is something to be wrong about, and misbehaves.
    pub fn step(&mut self, net: &mut Net) {
        if self.next == Duration::MAX {
            return;
        }
        self.miner.step(net, self.kind == Kind::Duplicate && self.miner.submitted.is_none());
        self.miner.newly_acknowledged.clear();
        let now = net.now(self.miner.client.host).mono;
        if now < self.next {
            return;
        }
        self.next = now + Duration::from_millis(100 + draw(&mut self.rng, 2_000));
        if self.miner.client.line != Line::Open {
            self.miner.client.reads = true;
        } else if self.miner.client.output.is_empty() {
            self.act();
        }
        self.miner.client.send(net);
    }

    fn act(&mut self) {
        let submit = json!([self.miner.user(), "1", format!("{:016x}", self.rng.next_u64()), "60000000", "00000000"]);
        match self.kind {
            Kind::Garbage => {
                let mut junk = [0; 40];
                self.rng.fill_bytes(&mut junk);
                self.miner.client.output.extend_from_slice(&junk);
                self.miner.client.output.extend_from_slice(b"\n{\"id\":\n");
            }
            Kind::LongLine => self.miner.client.output.extend_from_slice(&[b'{'; 1_000]),
            Kind::Deaf => {
                self.miner.client.reads = false;
                for _ in 0..50 {
                    self.miner.request("mining.ping", &json!([]));
                }
            }
            Kind::Wrong => {
                let Some(mut params) = self.miner.job_to_submit() else { return };
                for _ in 0..100 {
                    params[4] = json!(format!("{:08x}", self.rng.next_u32()));
                    self.miner.request("mining.submit", &params);
                }
            }
            Kind::Duplicate => {
                let Some(params) = self.miner.submitted.clone() else { return };
                for _ in 0..100 {
                    self.miner.request("mining.submit", &params);
                }
            }
            Kind::Stale => {
                for _ in 0..100 {
                    self.miner.request("mining.submit", &submit);
                }
            }
        }
        self.done += 1;
    }
}
