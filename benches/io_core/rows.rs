//! What is measured. In each round all contenders take their turn, each in a fresh process with fresh connections.

use std::io;
use std::time::Duration;

use rockpool::limits::PING_EVERY;

use crate::client::{Batches, Client};
use crate::contenders::{BITCOIND, BLIND, NODE, OURS, V2, manner};
use crate::process::{Server, raise_files, unclear};
use crate::report::{Asked, Figure};
use crate::rounds::{Effort, Rounds};

/// Peers, and pings per write: each peer has one write in flight. With the goals of ours: microseconds of a message, ratio to the floor.
const PING_PONG: [(usize, usize, Option<f64>, Option<f64>); 7] = [
    (50, 100, Some(0.5), None),
    (1, 100, None, None),
    (100, 100, None, None),
    (1_000, 100, None, None),
    (1, 1, None, None),
    (100, 1, None, Some(1.25)),
    (1_000, 1, None, None),
];
/// Pings a second of the open loop, and its peers.
const LATENCY_RATE: u32 = 20_000;
const LATENCY_PEERS: usize = 100;
/// Bytes of a share's message as it usually is, and who gets it.
const SHARE_BYTES: usize = 660;
const SHARE_PEERS: usize = 1_000;
/// Peers that say nothing, and what one may take: bytes of memory, and percent of a core for all of them.
const IDLE_PEERS: usize = 1_000;
const IDLE_BYTES: f64 = 1_024.0;
const IDLE_PERCENT: f64 = 0.5;
/// What a message may cost in v2, against v1, where they come many at once; and the bytes that a silent peer may take more.
const V2_RATIO: f64 = 3.0;
const V2_BYTES: f64 = 1_024.0;
/// A crowd, and the MB that it may take. The process needs some files beside the connections.
const CROWD: usize = 10_000;
const CROWD_MB: f64 = 64.0;
const FILES_BESIDE: usize = 100;

/// A row: measures, and makes figures of this name.
type Row = fn(&Effort, &str) -> io::Result<Vec<Figure>>;
/// The rows beside ping→pong.
const ROWS: [(&str, Row); 4] =
    [("latency at 20000/s, 100 peers", latency), ("share to 1000 peers", fan_out), ("idle, 1000 peers", idle), ("10000 peers", crowd)];

/// All rows whose name holds `only`.
pub fn figures(asked: &Asked, only: &str) -> io::Result<Vec<Figure>> {
    let effort = Effort::of(asked);
    let mut figures = Vec::new();
    for (peers, batch, us, ratio) in PING_PONG {
        let name = if batch == 1 { format!("ping, {peers} peers") } else { format!("{batch} pings a write, {peers} peers") };
        if name.contains(only) {
            figures.extend(ping_pong(&effort, &name, peers, batch, (us, ratio))?);
        }
    }
    for (name, row) in ROWS.iter().filter(|(name, _)| name.contains(only)) {
        figures.extend(row(&effort, name)?);
    }
    Ok(figures)
}

/// Server time per message and messages per second; each peer has one write in flight.
fn ping_pong(effort: &Effort, name: &str, peers: usize, batch: usize, goals: (Option<f64>, Option<f64>)) -> io::Result<Vec<Figure>> {
    let (mut cpu, mut rate, mut turns) = (Rounds::default(), Rounds::default(), Turns::default());
    for round in 0..effort.rounds {
        for contender in effort.contenders(round, &[]) {
            let batches = Batches::new(batch, manner(contender).magic);
            let mut server = Server::start(contender, peers)?;
            let mut client = Client::connect(server.addr, peers, manner(contender))?;
            client.closed_loop(&batches, effort.warmup)?;
            let before = server.cpu_ns()?;
            let (answers, time) = client.closed_loop(&batches, effort.time)?;
            cpu.push(contender, (server.cpu_ns()? - before) as f64 / 1e3 / answers as f64);
            rate.push(contender, answers as f64 / time.as_secs_f64());
            turns.push(contender, &mut server)?;
        }
    }
    let mut figures = cpu.medians(name, "us/message", goals.0);
    figures.extend(cpu.ratios(name, goals.1));
    figures.extend(cpu.v2_ratio(name, (batch > 1).then_some(V2_RATIO)));
    figures.extend(rate.medians(&format!("{name}, rate"), "messages/s", None));
    figures.extend(turns.figures(name));
    Ok(figures)
}

/// From when a ping was to be sent to its answer, one at a time at a fixed rate.
fn latency(effort: &Effort, name: &str) -> io::Result<Vec<Figure>> {
    let quantiles = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];
    let mut rounds = quantiles.map(|_| Rounds::default());
    for round in 0..effort.rounds {
        for contender in effort.contenders(round, &[V2]) {
            let server = Server::start(contender, LATENCY_PEERS)?;
            let mut client = Client::connect(server.addr, LATENCY_PEERS, manner(contender))?;
            client.open_loop(LATENCY_RATE, effort.warmup)?;
            let mut took = client.open_loop(LATENCY_RATE, effort.time)?;
            took.sort();
            for (rounds, (_, quantile)) in rounds.iter_mut().zip(quantiles) {
                let at = (took.len() as f64 * quantile) as usize;
                rounds.push(contender, took[at.min(took.len() - 1)].as_secs_f64() * 1e6);
            }
        }
    }
    let named = rounds.iter().zip(quantiles);
    Ok(named.flat_map(|(rounds, (quantile, _))| rounds.medians(&format!("{name}, {quantile}"), "us", None)).collect())
}

/// One message to all others, encoded once: server time per message that came.
fn fan_out(effort: &Effort, name: &str) -> io::Result<Vec<Figure>> {
    let (mut cpu, mut turns) = (Rounds::default(), Turns::default());
    for round in 0..effort.rounds {
        for contender in effort.contenders(round, &[BLIND, NODE, BITCOIND]) {
            let mut server = Server::start(contender, SHARE_PEERS + 1)?;
            let mut client = Client::connect(server.addr, SHARE_PEERS + 1, manner(contender))?;
            client.fan_out(SHARE_BYTES, effort.shares / 10)?;
            let before = server.cpu_ns()?;
            let came = client.fan_out(SHARE_BYTES, effort.shares)?;
            cpu.push(contender, (server.cpu_ns()? - before) as f64 / 1e3 / came as f64);
            turns.push(contender, &mut server)?;
        }
    }
    let mut figures = cpu.medians(name, "us/message", None);
    figures.extend(cpu.ratios(name, Some(1.3)));
    figures.extend(turns.figures(name));
    Ok(figures)
}

/// Memory per connection that has shaken hands and says nothing, and what all of them cost: the house pings each every 30 s.
fn idle(effort: &Effort, name: &str) -> io::Result<Vec<Figure>> {
    let (mut memory, mut percent) = (Rounds::default(), Rounds::default());
    let (time, rounds) = effort.idle;
    for round in 0..rounds {
        for contender in effort.contenders(round, &[BLIND]) {
            let server = Server::start(contender, IDLE_PEERS)?;
            let before = server.memory()?;
            let mut client = Client::connect(server.addr, IDLE_PEERS, manner(contender))?;
            client.idle(Duration::from_millis(100))?;
            memory.push(contender, server.memory()?.saturating_sub(before) as f64 / IDLE_PEERS as f64);
            // The others have nothing to do. Connections of the node are pinged together, all in a while: it takes the whole of that.
            let time = match contender {
                OURS | BITCOIND => time,
                NODE if round == 0 && !effort.hasty => PING_EVERY,
                _ => continue,
            };
            let before = server.cpu_ns()?;
            client.idle(time)?;
            percent.push(contender, (server.cpu_ns()? - before) as f64 / time.as_nanos() as f64 * 100.0);
        }
    }
    let mut figures = memory.medians(&format!("{name}, memory of one"), "bytes", Some(IDLE_BYTES));
    figures.extend(memory.v2_more(&format!("{name}, memory of one"), "bytes", Some(V2_BYTES)));
    figures.extend(percent.medians(&format!("{name}, share of a core"), "%", Some(IDLE_PERCENT)));
    Ok(figures)
}

/// As many connections as the system lets us have, each served a ping.
fn crowd(effort: &Effort, _: &str) -> io::Result<Vec<Figure>> {
    let peers = CROWD.min(raise_files().saturating_sub(FILES_BESIDE));
    let (mut memory, mut turns) = (Rounds::default(), Turns::default());
    for contender in effort.contenders(0, &[BLIND, V2, "threads", BITCOIND]) {
        let mut server = Server::start(contender, peers)?;
        let mut client = Client::connect(server.addr, peers, manner(contender))?;
        let (answers, _) = client.closed_loop(&Batches::new(1, manner(contender).magic), Duration::ZERO)?;
        if answers != peers as u64 {
            return Err(io::Error::other(format!("{contender} answered {answers} of {peers} peers")));
        }
        memory.push(contender, server.memory()? as f64 / 1e6);
        turns.push(contender, &mut server)?;
    }
    // The name says how many they were.
    let mut figures = memory.medians(&format!("{peers} peers, each served, memory"), "MB", Some(CROWD_MB));
    figures.extend(turns.figures(&format!("{peers} peers")));
    Ok(figures)
}

/// Turns of ours since the server began, handshakes included: the longest of all rounds, and what 999 of 1,000 keep below. Time that other
/// work of the machine takes from a turn is in it: the longest is that work's doing where there is any.
#[derive(Default)]
struct Turns {
    longest: Rounds,
    most: Rounds,
}

impl Turns {
    fn push(&mut self, contender: &'static str, server: &mut Server) -> io::Result<()> {
        if contender == OURS {
            let stats = server.stats()?;
            for (rounds, name) in [(&mut self.longest, "longest_us"), (&mut self.most, "most_us")] {
                rounds.push(contender, stats[name].as_f64().ok_or_else(|| unclear(name))?);
            }
        }
        Ok(())
    }

    fn figures(&self, name: &str) -> impl Iterator<Item = Figure> {
        let longest = self.longest.largest(&format!("{name}, longest turn"), "us");
        let most = self.most.largest(&format!("{name}, turn p99.9 under"), "us");
        [most, longest].into_iter().flatten()
    }
}
