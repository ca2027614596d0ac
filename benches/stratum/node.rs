//! The server: a whole node in a process of its own.

use std::net::SocketAddr;
use std::sync::Arc;

use rockpool::assemble;
use rockpool::config::Config;
use rockpool::exit::Failure;
use rockpool_net::wire::share::{Class, Layout};
use rockpool_store::params::Network;
use rockpool_workers::crew::Bitcoin;
use rockpool_workers::outside::BitcoindConfig;

use crate::bitcoind::Bitcoind;
use crate::miner::Miner;
use crate::process::{Process, SERVER_CORE, pin};
use crate::{Outcome, chain};

/// The word on the command line that makes a process of this bench a node on the bitcoind whose address follows.
pub const ROLE: &str = "--stratum-node";

/// Runs a node until it is killed. Says on standard output where miners connect.
pub fn play(bitcoind: &str) -> Outcome<()> {
    pin(SERVER_CORE);
    let config = Config::loopback("bench".into());
    let fault = |failure: Failure| failure.to_string();
    let bitcoin = Bitcoin::Nodes(vec![BitcoindConfig::new(&format!("http://{bitcoind}"), None, Network::Regtest)?]);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_secs();
    let node = assemble::build(&config, Arc::new(chain::rows(now)?), bitcoin).map_err(fault)?;
    println!("{}", node.listen().stratum.ok_or("no address for miners")?);
    let run = move || node.run().map_err(fault);
    // Named, so that its time can be told from the others'.
    let thread = std::thread::Builder::new().name("reactor".into()).spawn(run)?;
    Ok(thread.join().map_err(|_| "the node panicked")??)
}

/// A node and the bitcoind that it mines on.
pub struct Server {
    pub process: Process,
    pub bitcoind: Bitcoind,
    /// Where miners connect.
    pub addr: SocketAddr,
}

impl Server {
    /// Starts both, and waits until miners are served.
    pub fn start() -> Outcome<Server> {
        let bitcoind = Bitcoind::start()?;
        let mut process = Process::start(ROLE, &bitcoind.addr.to_string())?;
        let addr = process.line()?.trim().parse()?;
        // Gone again as soon as it has work: the first template is there.
        Miner::connect(addr, Class::N12, Layout::Tail, 0)?;
        Ok(Server { process, bitcoind, addr })
    }
}
