//! Honest peers, all in one thread: one after the other sends a new share, and all others say when they have it.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rockpool_net::id::ShareId;
use rockpool_net::wire::message::Message;
use rustix::event::{Timespec, epoll};

use super::shares::{Shares, encoded, regtest};
use super::talk::{Heard, Line, handshake};
use super::{Outcome, now};

/// Events of one wait.
const EVENTS: usize = 256;
/// How long all may take to be up, and how long a share may take to everyone before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// The honest peers.
pub struct Crowd<'a> {
    shares: &'a Shares,
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    buffer: Vec<u8>,
    addr: SocketAddr,
    peers: Vec<Peer>,
    /// Peers whose socket did not take everything.
    owing: Vec<usize>,
    /// For each share that was sent: when it was to be, and by whom.
    sent: Vec<(Instant, usize)>,
    /// Latencies of all arrivals that are measured, milliseconds.
    latencies: Vec<f64>,
    /// How late our own sends were, milliseconds: what of the latencies is this process' doing.
    late: Vec<f64>,
    /// The first share that is measured.
    measured: usize,
    /// Shares that the node asked us for because it had not got them when it needed them.
    asked: usize,
}

struct Peer {
    line: Line,
    up: bool,
    gone: bool,
    has: Vec<bool>,
}

/// What a crowd saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Half of all arrivals took at most so many milliseconds.
    pub p50: f64,
    /// And 99 of 100.
    pub p99: f64,
    /// The latest of our own sends, milliseconds.
    pub late: f64,
    /// Arrivals that did not happen.
    pub lost: usize,
    /// Peers that the node cut.
    pub cut: usize,
    /// Shares that the node asked for.
    pub asked: usize,
}

impl<'a> Crowd<'a> {
    /// Nobody yet.
    pub fn new(addr: SocketAddr, shares: &'a Shares) -> Outcome<Crowd<'a>> {
        Ok(Crowd {
            shares,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS),
            buffer: vec![0; 64 << 10],
            addr,
            peers: Vec::new(),
            owing: Vec::new(),
            sent: Vec::new(),
            latencies: Vec::new(),
            late: Vec::new(),
            measured: 0,
            asked: 0,
        })
    }

    /// So many more join; returns when their handshakes are done.
    pub fn join(&mut self, count: usize) -> Outcome<()> {
        let end = now() + PATIENCE;
        let all = self.peers.len() + count;
        while self.peers.len() < all {
            let mut line = Line::dial(self.addr)?;
            let at = self.peers.len();
            epoll::add(&self.epoll, line.stream(), epoll::EventData::new_u64(at as u64), epoll::EventFlags::IN)?;
            line.say(&handshake(at as u64 + 1)?)?;
            let owes = line.owes();
            self.peers.push(Peer { line, up: false, gone: false, has: vec![false; self.shares.len()] });
            self.owing.extend(owes.then_some(at));
            self.turn(Duration::ZERO)?;
        }
        while !self.peers.iter().all(|peer| peer.up) {
            self.turn(Duration::from_millis(5))?;
            let (up, gone) = (self.peers.iter().filter(|peer| peer.up).count(), self.gone());
            if now() > end || gone > 0 {
                return Err(format!("{up} of {all} honest peers are up, {gone} were cut").into());
            }
        }
        Ok(())
    }

    /// The first peer sends the first shares as fast as the node takes them, before anyone measures.
    pub fn fill(&mut self, count: usize) -> Outcome<()> {
        for share in 0..count {
            self.send(share, 0, now())?;
            self.turn(Duration::ZERO)?;
        }
        self.measured = count;
        Ok(())
    }

    /// Serves for a while.
    pub fn rest(&mut self, time: Duration) -> Outcome<()> {
        let end = now() + time;
        while now() < end {
            self.turn(end.saturating_duration_since(now()))?;
        }
        Ok(())
    }

    /// Sends so many shares at fixed moments, whatever comes of those before, each by another peer; `skip` of them before it measures.
    pub fn measure(&mut self, count: usize, skip: usize, every: Duration) -> Outcome<Seen> {
        let (first, begin) = (self.sent.len(), now() + every);
        self.measured = first + skip;
        self.latencies.clear();
        for (nth, share) in (first..first + count).enumerate() {
            let due = begin + every * nth as u32;
            while now() < due {
                self.turn(due.saturating_duration_since(now()))?;
            }
            self.late.push(now().saturating_duration_since(due).as_secs_f64() * 1_000.0);
            // Neighbours in time are strangers in the node's slab.
            self.send(share, nth * 37 % self.peers.len(), due)?;
        }
        let (wanted, end) = (count * (self.peers.len() - 1), now() + PATIENCE);
        let of = |crowd: &Crowd<'_>| {
            let has = |share: usize, at: usize| crowd.peers[at].has[share] || crowd.sent[share].1 == at;
            (first..first + count).map(|share| (0..crowd.peers.len()).filter(|&at| !has(share, at)).count()).sum::<usize>()
        };
        let mut lost = wanted;
        while lost > 0 && now() < end {
            self.turn(Duration::from_millis(10))?;
            lost = of(self);
        }
        self.latencies.sort_by(f64::total_cmp);
        let part = |part: f64| self.latencies.get(((self.latencies.len() as f64 * part) as usize).saturating_sub(1)).copied();
        let (p50, p99) = (part(0.5).unwrap_or(f64::NAN), part(0.99).unwrap_or(f64::NAN));
        let late = self.late.iter().copied().fold(0.0, f64::max);
        Ok(Seen { p50, p99, late, lost, cut: self.gone(), asked: self.asked })
    }

    fn gone(&self) -> usize {
        self.peers.iter().filter(|peer| peer.gone).count()
    }

    fn send(&mut self, share: usize, by: usize, due: Instant) -> Outcome<()> {
        self.sent.push((due, by));
        let message = self.shares.message(share);
        let peer = &mut self.peers[by];
        if !peer.gone && peer.line.say(message.bytes()).is_err() {
            peer.gone = true;
        } else if peer.line.owes() {
            self.owing.push(by);
        }
        Ok(())
    }

    /// One wait and what it brought.
    fn turn(&mut self, timeout: Duration) -> Outcome<()> {
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
        self.events.clear();
        epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), Some(&timeout))?;
        for event in std::mem::take(&mut self.owing) {
            self.flush(event);
        }
        let events = std::mem::take(&mut self.events);
        for event in &events {
            self.hear(event.data.u64() as usize)?;
        }
        self.events = events;
        Ok(())
    }

    fn flush(&mut self, at: usize) {
        let peer = &mut self.peers[at];
        if !peer.gone && peer.line.flush().is_ok() && peer.line.owes() {
            self.owing.push(at);
        }
    }

    fn hear(&mut self, at: usize) -> Outcome<()> {
        let moment = now();
        let Peer { line, up, gone, has } = &mut self.peers[at];
        let mut answer = Vec::new();
        let (shares, sent, measured) = (self.shares, &self.sent, self.measured);
        let (latencies, asked) = (&mut self.latencies, &mut self.asked);
        let read = line.read(&mut self.buffer, |heard: Heard<'_>| match heard.command {
            b"chaintip" => *up = true,
            b"share" => {
                let Some(share) = shares.of_checksum(&heard.checksum).filter(|share| !has[*share]) else { return };
                has[share] = true;
                if let Some((due, _)) = sent.get(share).filter(|_| share >= measured) {
                    latencies.push(moment.saturating_duration_since(*due).as_secs_f64() * 1_000.0);
                }
            }
            b"ping" => answer.extend_from_slice(&pong(heard.payload)),
            b"getdata" => {
                let ids = heard.payload[1..].chunks_exact(32).filter_map(|id| <[u8; 32]>::try_from(id).ok()).map(ShareId);
                for id in ids {
                    match shares.of_id(&id).filter(|share| has[*share] || sent.get(*share).is_some_and(|(_, by)| *by == at)) {
                        Some(share) => answer.extend_from_slice(shares.message(share).bytes()),
                        None => answer.extend_from_slice(&absent(id)),
                    }
                    *asked += 1;
                }
            }
            _ => {}
        });
        if read.is_err() || (!answer.is_empty() && line.say(&answer).is_err()) {
            *gone = true;
            epoll::delete(&self.epoll, line.stream())?;
        } else if line.owes() {
            self.owing.push(at);
        }
        Ok(())
    }
}

fn pong(nonce: &[u8]) -> Vec<u8> {
    let nonce = nonce.try_into().map_or(0, u64::from_le_bytes);
    Message::Pong(nonce).encode(regtest().magic).map_or(Vec::new(), |payload| payload.bytes().to_vec())
}

fn absent(id: ShareId) -> Vec<u8> {
    encoded(&Message::NotFound(vec![id])).map_or(Vec::new(), |payload| payload.bytes().to_vec())
}
