//! Thousands of miners: how long it takes to connect them, and from a new block to the last of them at work on it.

use std::time::Duration;

use rockpool_net::wire::share::{Class, Layout};

use crate::Outcome;
use crate::bare::{self, Bare};
use crate::crowd::{Crowd, Round};
use crate::figures::{clock, goal, info};
use crate::miner::greeting;
use crate::node::Server;
use crate::process::{Process, files, settle};
use crate::report::{Asked, Figure, median};

/// Files beside connections.
const FILES_BESIDE: usize = 100;
/// Silence after which a round is over. Templates come no closer either.
const SILENCE: Duration = Duration::from_millis(300);
/// Goals.
const CONNECTED_S: f64 = 1.0;
const RATIO: f64 = 1.3;

/// What ckpool was measured with.
pub fn five_thousand(asked: &Asked) -> Outcome<Vec<Figure>> {
    figures(asked, 5_000)
}

/// As many as a node takes.
pub fn ten_thousand(asked: &Asked) -> Outcome<Vec<Figure>> {
    figures(asked, 10_000)
}

/// Both servers have as many miners, so that neither finds other caches, and are given their turns one after the other.
fn figures(asked: &Asked, wanted: usize) -> Outcome<Vec<Figure>> {
    let count = wanted.min((files() - FILES_BESIDE) / 2);
    let server = Server::start()?;
    let mut bare = Bare::start(bare::ROLE, count)?;
    let (mut crowd, mut beside) = (Crowd::new()?, Crowd::new()?);
    let words = greeting(Class::N12, Layout::Tail, 0);
    let (before, begin) = (server.process.cpu()?, clock());
    crowd.connect(server.addr, count, &words)?;
    let connected = begin.elapsed();
    crowd.at_work()?;
    let worked = begin.elapsed();
    let cpu = server.process.cpu()?;
    let took = cpu.iter().map(|(name, time)| (name, time.saturating_sub(before.get(name).copied().unwrap_or_default())));
    let told: Vec<String> = took.filter(|(_, time)| time.as_millis() > 0).map(|(name, time)| format!("{name} {time:.0?}")).collect();
    eprintln!("{count} miners: connections stood after {connected:.0?}, all had work after {:.0?}; {}", worked, told.join(", "));
    beside.connect(bare.addr, count, "")?;
    crowd.drain(SILENCE)?;
    let (mut of_node, mut of_bare, mut cpu_ratios) = (Vec::new(), Vec::new(), Vec::new());
    let rounds = if asked.quick { 5 } else { 15 };
    for number in 0..=rounds {
        let (begin, before) = (clock(), reactor(&server.process)?);
        server.bitcoind.next_block();
        let round = crowd.clean_work(begin)?;
        crowd.drain(SILENCE)?;
        let (begin, bare_before) = (clock(), sum(&bare.process)?);
        bare.write(round.bytes)?;
        let floor = beside.clean_work(begin)?;
        settle();
        // The first round finds cold caches and sockets that were never written to.
        if number > 0 {
            let of_reactor = reactor(&server.process)?.saturating_sub(before);
            let of_loop = sum(&bare.process)?.saturating_sub(bare_before);
            cpu_ratios.push(of_reactor.as_secs_f64() / of_loop.as_secs_f64());
            let (first, whole) = (round.first_to_last, round.begin_to_last);
            eprintln!(
                "{count} miners, {} bytes each: first to last {first:.1?}, from the block on {whole:.1?}, reactor {of_reactor:.1?}; bare loop {:.1?}, on a processor {of_loop:.1?}",
                round.bytes, floor.first_to_last
            );
            of_node.push(round);
            of_bare.push(floor);
        }
    }
    let ms = |rounds: &[Round], of: fn(&Round) -> Duration| median(rounds.iter().map(|round| of(round).as_secs_f64() * 1e3).collect());
    let (first_to_last, floor) = (ms(&of_node, |round| round.first_to_last), ms(&of_bare, |round| round.first_to_last));
    let whole = ms(&of_node, |round| round.begin_to_last);
    let connect = (format!("{count} miners connected, subscribed, authorised and at work"), worked.as_secs_f64());
    let connect = if wanted == 5_000 { goal(connect.0, connect.1, "s", CONNECTED_S) } else { info(connect.0, connect.1, "s") };
    Ok(vec![
        connect,
        info(format!("clean work, first to last of {count} miners"), first_to_last, "ms"),
        info(format!("bare loop of as many writes, first to last of {count}"), floor, "ms"),
        goal(format!("clean work against the bare loop, {count} miners"), first_to_last / floor, "ratio", RATIO),
        info(format!("the same by the processor time of reactor and loop, {count} miners"), median(cpu_ratios), "ratio"),
        info(format!("from a new block at bitcoind to the last of {count} miners"), whole, "ms"),
    ])
}

/// Processor time of a process.
fn sum(process: &Process) -> Outcome<Duration> {
    Ok(process.cpu()?.values().sum())
}

/// Processor time of a node's reactor.
fn reactor(process: &Process) -> Outcome<Duration> {
    Ok(process.cpu()?.get("reactor").copied().unwrap_or_default())
}
