//! The server: a whole node in a process of its own, and another process of its peers.

use std::io::{BufRead, stdin};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rockpool::assemble::{self, Running};
use rockpool::config::Config;
use rockpool::exit::Failure;
use rockpool::http::token::Secret;
use rockpool::portfolio::config::PortfolioConfig;
use rockpool_net::events::{Event, Events};
use rockpool_net::id::ShareId;
use rockpool_store::params::Network;
use rockpool_workers::crew::Bitcoin;
use rockpool_workers::outside::BitcoindConfig;

use crate::bitcoind::Bitcoind;
use crate::process::{LOAD_CORE, Process, SERVER_CORE, pin, unpin_all_but};
use crate::{Outcome, chain, portfolios};

/// The word on the command line that makes a process of this bench a node; its bitcoind and the time at which its chain begins follow.
pub const ROLE: &str = "--http-node";
/// The word that makes one two nodes connected to it; its address follows too.
pub const PEERS_ROLE: &str = "--http-peers";
/// How often a share is said to have been found: ten times as often as streams of a busy node hear of one.
pub const SHARE_EVERY: Duration = Duration::from_millis(100);
/// What it signs tokens with.
pub const SECRET: Secret = Secret([7; 32]);
/// Nodes that are connected to it.
const PEERS: usize = 2;

/// Runs a node until it is killed. Says on standard output where it listens.
pub fn play(word: &str) -> Outcome<()> {
    pin(SERVER_CORE);
    let node = start(word, Vec::new())?;
    // A reactor that is asked as much as it can answer leaves nothing of its processor to the stages. Elsewhere they have others.
    unpin_all_but("reactor")?;
    let listen = node.listen;
    let [stratum, http, p2p] = [listen.stratum, listen.http, listen.p2p].map(|addr| addr.ok_or("it does not listen"));
    println!("{} {} {}", stratum?, http?, p2p?);
    let events = node.events.clone();
    std::thread::Builder::new().spawn(move || flood(&events))?;
    let mut height = 0;
    while !node.ended() {
        height += 1;
        node.events.publish(Event::ShareAccepted { id: ShareId([height as u8; 32]), height, own: true });
        pause(SHARE_EVERY);
    }
    Err("the node has ended".into())
}

/// Whenever it is told to, it says that many blocks were found, of which streams hear whatever else goes on.
fn flood(events: &Events) {
    for _ in stdin().lock().lines() {
        (0..100).for_each(|height| events.publish(Event::BlockFound { hash: ShareId::default(), height, miner: None }));
    }
}

/// Runs its peers until they are killed.
pub fn play_peers(word: &str) -> Outcome<()> {
    pin(LOAD_CORE);
    let (addr, word) = word.split_once(' ').ok_or("no address")?;
    let peers = (0..PEERS).map(|_| start(word, vec![addr.parse()?])).collect::<Outcome<Vec<_>>>()?;
    println!("{}", peers.len());
    // The input ends with who started them.
    stdin().lock().read_line(&mut String::new())?;
    Ok(())
}

fn start(word: &str, peers: Vec<SocketAddr>) -> Outcome<Running> {
    let [bitcoind, now, on] = word.split(' ').collect::<Vec<_>>()[..] else { return Err("three words are missing".into()) };
    let portfolios = (on == "true").then(of_nobody);
    let config = Config { peers, portfolios, secret: Some(SECRET), ..Config::loopback("bench".into()) };
    let bitcoin = Bitcoin::Nodes(vec![BitcoindConfig::new(&format!("http://{bitcoind}"), None, Network::Regtest)?]);
    let fault = |failure: Failure| failure.to_string();
    let (now, rows) = (now.parse()?, Arc::new(chain::rows(now.parse()?)?));
    if config.portfolios.is_some() {
        portfolios::fill(&*rows, now)?;
    }
    Ok(assemble::start(&config, rows, bitcoin).map_err(fault)?)
}

/// Portfolios whose services are all down: nothing of the outside is measured, and nobody there is asked.
fn of_nobody() -> PortfolioConfig {
    let nowhere = || "http://127.0.0.1:1".to_owned();
    let usual = PortfolioConfig::default();
    let chains = usual.chains.into_iter().map(|(chain, _)| (chain, nowhere())).collect();
    PortfolioConfig { coingecko: nowhere(), okx: nowhere(), chains, ..usual }
}

#[expect(clippy::disallowed_methods, reason = "shares come at their time")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// A node, its peers, and the bitcoind that they mine on.
pub struct Server {
    pub process: Process,
    /// Where miners connect.
    pub stratum: SocketAddr,
    /// Where browsers do.
    pub http: SocketAddr,
    _peers: Process,
    _bitcoind: Bitcoind,
}

impl Server {
    /// Starts all.
    pub fn start() -> Outcome<Server> {
        Server::start_with(false)
    }

    /// The same, with portfolios or without.
    pub fn start_with(portfolios: bool) -> Outcome<Server> {
        let bitcoind = Bitcoind::start()?;
        let word = format!("{} {} ", bitcoind.addr, std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_secs());
        let mut process = Process::start(ROLE, &format!("{word}{portfolios}"))?;
        let line = process.line()?;
        let addrs: Vec<&str> = line.split_whitespace().collect();
        let [stratum, http, p2p] = addrs[..] else { return Err("three addresses are missing".into()) };
        let mut peers = Process::start(PEERS_ROLE, &format!("{p2p} {word}false"))?;
        peers.line()?;
        let _peers = peers;
        Ok(Server { stratum: stratum.parse()?, http: http.parse()?, process, _peers, _bitcoind: bitcoind })
    }
}
