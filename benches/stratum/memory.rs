//! What the server holds: alone, of each idle miner, and of thousands at work.

use std::time::Duration;

use rockpool_net::wire::share::{Class, Layout};

use crate::Outcome;
use crate::crowd::Crowd;
use crate::figures::{goal, info};
use crate::miner::{address, greeting, line};
use crate::node::Server;
use crate::report::{Asked, Figure};

const MB: f64 = 1e6;
const KIB: f64 = 1024.0;
/// Goals.
const ALONE_MB: f64 = 24.0;
const IDLE_KIB: f64 = 2.0;
const MINING_MB: f64 = 40.0;
/// Miners.
const MINERS: usize = 5_000;
/// Templates that idle miners are told of: more than the past jobs of a miner.
const TEMPLATES: usize = 20;
/// Silence after which all have heard of one. The node takes none that is closer.
const SILENCE: Duration = Duration::from_millis(700);
/// Submits of each miner at work.
const SUBMITS: u64 = 6;

/// All of it, of one server.
pub fn figures(asked: &Asked) -> Outcome<Vec<Figure>> {
    let count = if asked.quick { MINERS / 5 } else { MINERS };
    let server = Server::start()?;
    let memory = || server.process.memory();
    let mut crowd = Crowd::new()?;
    crowd.drain(SILENCE)?;
    let alone = memory()?;
    for _ in 0..TEMPLATES {
        server.bitcoind.next_block();
        crowd.drain(SILENCE)?;
    }
    let renewed = memory()?;
    let mut figures = vec![
        goal("RSS with a template, no miners".into(), alone.0 / MB, "MB", ALONE_MB),
        info("RSS with a template, no miners: its own".into(), alone.1 / MB, "MB"),
        goal(format!("RSS with a template, no miners, {TEMPLATES} templates later"), renewed.0 / MB, "MB", ALONE_MB),
    ];
    // A single miner's past jobs keep as many templates as all miners' do.
    let mut single = Crowd::new()?;
    single.connect(server.addr, 1, &greeting(Class::N12, Layout::Tail, 0))?;
    for _ in 0..TEMPLATES {
        server.bitcoind.renew();
        single.drain(SILENCE)?;
    }
    let renewed = memory()?;
    figures.push(info(format!("RSS with one miner, {TEMPLATES} templates later"), renewed.0 / MB, "MB"));
    crowd.connect(server.addr, count, &greeting(Class::N12, Layout::Tail, 0))?;
    crowd.at_work()?;
    crowd.drain(SILENCE)?;
    let each = |now: (f64, f64)| (now.0 - renewed.0) / KIB / count as f64;
    figures.push(goal(format!("memory per idle miner, {count} of them"), each(memory()?), "KiB", IDLE_KIB));
    for _ in 0..TEMPLATES {
        server.bitcoind.renew();
        crowd.drain(SILENCE)?;
    }
    figures.push(goal(format!("memory per idle miner, {TEMPLATES} jobs later"), each(memory()?), "KiB", IDLE_KIB));
    for _ in 0..TEMPLATES {
        server.bitcoind.renew();
        crowd.drain(SILENCE)?;
    }
    figures.push(goal(format!("memory per idle miner, {} jobs later", 2 * TEMPLATES), each(memory()?), "KiB", IDLE_KIB));
    drop((crowd, single));
    let server = Server::start()?;
    figures.extend(mining(&server, count)?);
    Ok(figures)
}

/// A fresh server with miners at work.
fn mining(server: &Server, count: usize) -> Outcome<Vec<Figure>> {
    let mut crowd = Crowd::new()?;
    crowd.connect(server.addr, count, &greeting(Class::N12, Layout::Tail, 0))?;
    crowd.at_work()?;
    crowd.jobs = Some(vec![String::new(); count]);
    server.bitcoind.renew();
    crowd.drain(SILENCE)?;
    let (user, jobs) = (address(), crowd.jobs.take().ok_or("no jobs")?);
    let time = format!("{:08x}", std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_secs());
    for number in 0..SUBMITS {
        crowd.say(|miner| line(&user, (&jobs[miner], &time), number << 32 | miner as u64, 7))?;
        crowd.drain(SILENCE)?;
    }
    let (rss, own) = server.process.memory()?;
    Ok(vec![
        goal(format!("RSS with {count} miners mining"), rss / MB, "MB", MINING_MB),
        info(format!("RSS with {count} miners mining: its own"), own / MB, "MB"),
    ])
}
