//! The only wiring: store, chain, stages, hub, reactor and node become one running whole, and end in order.

use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rockpool_net::events::Events;
use rockpool_net::hub::io::Mail;
use rockpool_net::hub::{FramerKind, Hub, HubConfig, ListenerRow};
use rockpool_net::id::Lane;
use rockpool_net::limits::worst_case_bytes;
use rockpool_net::reactor::{Clock, Heartbeat, Postbox, Reactor, StartError};
use rockpool_net::sha256::tagged;
use rockpool_store::bitcoin::Tree;
use rockpool_store::chain::Chain;
use rockpool_store::handle::{ChainStoreHandle, StoreHandle};
use rockpool_store::kv::Kv;
use rockpool_store::params::params;
use rockpool_store::pplns::Pplns;
use rockpool_store::schema::{self, FORMAT};
use rockpool_workers::callers::Upstream;
use rockpool_workers::crew::{Bitcoin, Crew, CrewConfig};
use rockpool_workers::embedded::EmbeddedChain;
use rockpool_workers::jobs::Answer;
use rockpool_workers::limits::MAILBOX_SLOTS;
use rockpool_workers::outside::{Check, Outside, OutsideConfig};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{Config, Mode};
use crate::exit::Failure;
use crate::http::token::Secret;
use crate::limits::{
    FILES_BESIDE, FIRST_LINE_MAX, HANDSHAKE_MAX, HTTP_CONNS_MAX, HTTP_MAX, HTTP_PER_ADDR, LEAVE_MAX, MINERS_MAX, MINERS_PER_ADDR,
    OUTBOUND_TARGET, PEERS_CONFIGURED_MAX, PEERS_PER_ADDR, PEERS_PER_GROUP, PEERS_RESERVE,
};
use crate::node::{Node, NodeConfig, Stopping};
use crate::portfolio::Portfolios;
use crate::portfolio::config::PortfolioConfig;
use crate::secret;
use crate::status::Listen;

/// A node with everything bound, loaded and spawned, that takes its first turn when it is run.
pub struct Assembly {
    hub: Hub<Answer>,
    reactor: Reactor<Answer>,
    node: Node<Crew>,
    rng: ChaCha12Rng,
    listen: Listen,
    memory: u64,
    stopper: Stopper,
}

/// A node on a thread of its own.
pub struct Running {
    /// Where it listens.
    pub listen: Listen,
    /// For a watchdog.
    pub heartbeat: Heartbeat,
    /// What happens in it.
    pub events: Events,
    stopper: Stopper,
    thread: JoinHandle<Result<(), Failure>>,
}

/// Asks a node to stop, from any thread.
#[derive(Clone)]
pub struct Stopper(Postbox<Answer>);

impl Stopper {
    /// Asks. Whether the node will hear of it: a mailbox that is full for a moment does not take it.
    pub fn stop(&self) -> bool {
        self.0.post(vec![Mail { answer: Answer::Stop, tickets: Vec::new() }]).is_ok()
    }
}

/// Builds a node over these rows and starts it on a thread of its own. [`Bitcoin`] may be shared with other nodes of the process.
pub fn start(config: &Config, kv: Arc<dyn Kv>, bitcoin: Bitcoin) -> Result<Running, Failure> {
    let node = build(config, kv, bitcoin)?;
    let (listen, heartbeat, stopper, events) = (node.listen, node.heartbeat(), node.stopper.clone(), node.hub.events());
    let thread = thread::Builder::new().name("reactor".into()).spawn(move || node.run()).map_err(no_thread)?;
    Ok(Running { listen, heartbeat, events, stopper, thread })
}

impl Running {
    /// Asks it to stop in order. See [`Stopper::stop`].
    pub fn stop(&self) -> bool {
        self.stopper.stop()
    }

    /// Whether its thread has ended.
    pub fn ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for its end.
    pub fn join(self) -> Result<(), Failure> {
        self.thread.join().unwrap_or_else(|panic| Err(panicked(&*panic)))
    }
}

/// Bitcoin's side as configured: bitcoinds that are what they should be, or the embedded chain, which goes on where the rows end.
pub fn bitcoin(config: &Config, kv: &dyn Kv) -> Result<Bitcoin, Failure> {
    let tree = bitcoin_tree(config, kv)?;
    if config.bitcoinds.is_empty() {
        return Ok(Bitcoin::Embedded(Arc::new(EmbeddedChain::resume(params(config.network), &tree))));
    }
    for bitcoind in &config.bitcoinds {
        match bitcoind.check() {
            Ok(Check::Ready) => {}
            Ok(Check::Later(why)) => log::warn!("bitcoind at {}: {why}; waiting for it", bitcoind.host),
            Err(mistake) => return Err(Failure::Mistake(mistake.to_string())),
        }
    }
    Ok(Bitcoin::Nodes(config.bitcoinds.clone()))
}

/// Bitcoin's headers as the rows hold them. Checks the store's network.
pub fn bitcoin_tree(config: &Config, kv: &dyn Kv) -> Result<Tree, Failure> {
    let before = schema::format(kv)?;
    schema::open(kv, params(config.network), &config.datadir.display().to_string())?;
    if let Some(before) = before.filter(|before| *before != FORMAT) {
        log::info!("the data directory was of format {before} and is taken over into format {FORMAT}; older versions refuse it now");
    }
    Ok(rockpool_store::chain::bitcoin_tree(params(config.network), kv)?)
}

/// Binds, loads and spawns.
pub fn build(config: &Config, kv: Arc<dyn Kv>, bitcoin: Bitcoin) -> Result<Assembly, Failure> {
    let params = params(config.network);
    let (flags, rows): (Vec<_>, Vec<_>) = listeners(config).into_iter().map(|(flag, addr, row)| ((flag, addr), row)).unzip();
    // The user may name more while the node runs.
    let dials_max = PEERS_CONFIGURED_MAX + OUTBOUND_TARGET + 1;
    let (bitcoin_magic, bitcoin_dials_max) = (crate::bitcoin::magic(config.network), config.bitcoin_peers.len());
    let hub_config = HubConfig { magic: params.magic, listeners: rows, dials_max, bitcoin_magic, bitcoin_dials_max };
    let (reactor, listen) = bind(&flags, hub_config.conns_max())?;
    raise_file_limit(hub_config.conns_max());
    let postbox = reactor.postbox();

    schema::open(&*kv, params, &config.datadir.display().to_string())?;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| Failure::Fault(format!("the system gives no randomness: {error}")))?;
    let mut keys = fork(&seed, "maps");
    let chain = Chain::open(params, [keys.next_u64(), keys.next_u64()], &*kv)?;
    let pplns = if config.mode == Mode::Standalone { Pplns::open(&*kv)? } else { Pplns::default() };
    let credited = pplns.weights().collect();
    let handle = ChainStoreHandle::new(chain.view(), StoreHandle::new(kv.clone()));

    let cores = thread::available_parallelism().map_or(1, usize::from);
    let post = postbox.clone();
    let post = Arc::new(move |mail| post.post(mail).is_ok());
    let (clock, secret) = (reactor.clock(), config.secret.clone().map_or_else(secret::draw, Ok)?);
    let ask = |portfolios| upstream(portfolios, config, &kv, &bitcoin, &secret, (clock, keys.next_u64()));
    let upstream = config.portfolios.as_ref().map(ask).transpose()?;
    let crew = Crew::start(CrewConfig { params, clock, cores, kv, chain, pplns, post, bitcoin, upstream }).map_err(no_thread)?;
    let (peers, bitcoin_peers, inbound_max) = (config.peers.clone(), config.bitcoin_peers.clone(), config.max_peers);
    let (mode, alone, portfolios) = (config.mode, config.alone, config.portfolios.is_some());
    let node_config = NodeConfig { params, mode, peers, inbound_max, bitcoin_peers, alone, listen, secret, portfolios };
    let mut node = Node::new(node_config, handle, crew, fork(&seed, "node"));
    node.credited(credited);
    node.server.firmware.rules.clone_from(&config.firmware);
    node.pages.doors.clone_from(&config.doors);
    let memory = worst_case_bytes(&hub_config);
    let hub = Hub::new(hub_config);
    Ok(Assembly { hub, reactor, node, rng: fork(&seed, "hub"), listen, memory, stopper: Stopper(postbox) })
}

/// What keeps portfolios, and asks services outside for them.
fn upstream(
    portfolios: &PortfolioConfig,
    config: &Config,
    kv: &Arc<dyn Kv>,
    bitcoin: &Bitcoin,
    secret: &Secret,
    (clock, seed): (Clock, u64),
) -> Result<Upstream, Failure> {
    portfolios.warnings().iter().for_each(|warning| log::warn!("{warning}"));
    let stage = Portfolios::open(portfolios, Arc::clone(kv), secret.clone(), config.network, &config.datadir)?;
    let bitcoind = match bitcoin {
        Bitcoin::Nodes(nodes) => nodes.first().cloned(),
        Bitcoin::Embedded(_) => None,
    };
    let stage = if bitcoind.is_none() { stage.without_bitcoind() } else { stage };
    let outside = Outside::new(OutsideConfig { clock, seed, limits: portfolios.limits.clone(), bitcoind });
    Ok(Upstream { stage: Box::new(stage), outside: Arc::new(outside) })
}

impl Assembly {
    /// Where it listens.
    pub fn listen(&self) -> Listen {
        self.listen
    }

    /// Bytes of memory that connections and what travels on them can come to take, at the worst.
    pub fn worst_case_bytes(&self) -> u64 {
        self.memory
    }

    /// For a watchdog.
    pub fn heartbeat(&self) -> Heartbeat {
        self.reactor.heartbeat()
    }

    /// How it is asked to stop.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Turns on the calling thread until the node is asked to stop or cannot go on, then ends it in order.
    pub fn run(mut self) -> Result<(), Failure> {
        // What a panic leaves behind is only taken apart.
        let turned = catch_unwind(AssertUnwindSafe(|| self.turns())).unwrap_or_else(|panic| Err(panicked(&*panic)));
        let Assembly { hub, reactor, node, .. } = self;
        reactor.leave(LEAVE_MAX);
        let stopping = node.stopping().cloned();
        let stopped = node.into_stages().stop();
        // The mailbox outlives the stages that post to it.
        drop((hub, reactor));
        turned?;
        match stopping {
            Some(Stopping::Died { stage, why }) => Err(Failure::Fault(format!("{stage} cannot go on: {why}"))),
            Some(Stopping::Mistake(why)) => Err(Failure::Mistake(why)),
            Some(Stopping::Asked) | None => stopped.map_err(Failure::from),
        }
    }

    fn turns(&mut self) -> Result<(), Failure> {
        while !self.node.finished() {
            let turned = self.reactor.turn(&mut self.hub, &mut self.rng, &mut self.node);
            turned.map_err(|error| Failure::Fault(format!("the reactor cannot go on: {error}")))?;
        }
        Ok(())
    }
}

type Listening = (&'static str, SocketAddr, ListenerRow);

/// A row for each listener, with its flag and address.
fn listeners(config: &Config) -> Vec<Listening> {
    let p2p = config.p2p.map(|addr| {
        let row = ListenerRow {
            lane: Lane::Peer,
            framer: FramerKind::V1,
            conns_max: config.max_peers + PEERS_RESERVE,
            per_addr_max: PEERS_PER_ADDR,
            per_group_max: PEERS_PER_GROUP,
            spare_private: false,
            first_frame: HANDSHAKE_MAX,
        };
        ("--p2p", addr, row)
    });
    let stratum = ListenerRow {
        lane: Lane::Stratum,
        framer: FramerKind::LineOrHttp,
        conns_max: MINERS_MAX,
        per_addr_max: MINERS_PER_ADDR,
        // A power plant of miners may be behind one provider, and each has to show its work.
        per_group_max: MINERS_MAX,
        spare_private: true,
        first_frame: FIRST_LINE_MAX,
    };
    let http = ListenerRow {
        lane: Lane::Http,
        framer: FramerKind::Http,
        conns_max: HTTP_CONNS_MAX,
        per_addr_max: HTTP_PER_ADDR,
        per_group_max: HTTP_CONNS_MAX,
        spare_private: false,
        first_frame: HTTP_MAX,
    };
    p2p.into_iter().chain([("--stratum", config.stratum, stratum), ("--http", config.http, http)]).collect()
}

fn bind(flags: &[(&'static str, SocketAddr)], conns_max: usize) -> Result<(Reactor<Answer>, Listen), Failure> {
    let addrs: Vec<_> = flags.iter().map(|(_, addr)| *addr).collect();
    let reactor = Reactor::new(&addrs, conns_max, MAILBOX_SLOTS).map_err(|error| match error {
        StartError::Listen { addr, error } => {
            let flag = flags.iter().find(|(_, wanted)| *wanted == addr).map_or("listener", |(flag, _)| flag);
            Failure::Mistake(format!("{flag} {addr}: cannot listen there: {error}; give another address or port, or stop who has it"))
        }
        error @ StartError::Poll(_) => Failure::Fault(error.to_string()),
    })?;
    let mut listen = Listen::default();
    for ((flag, _), addr) in flags.iter().zip(reactor.local_addrs()) {
        match *flag {
            "--p2p" => listen.p2p = Some(*addr),
            "--stratum" => listen.stratum = Some(*addr),
            _ => listen.http = Some(*addr),
        }
    }
    Ok((reactor, listen))
}

/// A generator for one use, from the process' seed and the use's name.
fn fork(seed: &[u8; 32], name: &str) -> ChaCha12Rng {
    ChaCha12Rng::from_seed(tagged(b"rockpool/fork", &[seed, name.as_bytes()]))
}

/// A file descriptor for every connection that the hub has a slot for, if the system lets us.
fn raise_file_limit(conns: usize) {
    let wanted = (conns + FILES_BESIDE) as u64;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return;
    }
    let raised = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    if setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }).is_err() || raised < wanted {
        log::warn!(
            "the system allows {raised} open files, {conns} connections may want more: raise it, by LimitNOFILE in the systemd unit or \
             ulimit -n in the shell"
        );
    }
}

fn no_thread(error: io::Error) -> Failure {
    Failure::Fault(format!("cannot start a thread: {error}"))
}

fn panicked(panic: &(dyn Any + Send)) -> Failure {
    let why = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Failure::Fault(format!("the reactor panicked, a defect: {}", why.unwrap_or("no message")))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::BTreeSet;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use rockpool_store::kv::{Cached, MemKv, Op};
    use rockpool_store::params::Network;

    use rockpool_store::error::StoreError;
    use rockpool_store::kv::Family;
    use rockpool_store::portfolios::rows::Row;
    use serde_json::Value;

    use super::*;
    use crate::http::ask;
    use crate::http::token::Scope;
    use crate::miner::{Miner, MinerConfig};
    use crate::testing::ADDRESS;

    fn config() -> Config {
        Config::loopback("test".into())
    }

    fn started(config: &Config, kv: Arc<dyn Kv>) -> Result<Running, Failure> {
        start(config, kv.clone(), bitcoin(config, &*kv)?)
    }

    /// A disk that fails from a moment on.
    #[derive(Default)]
    struct Failing {
        rows: MemKv,
        fails: AtomicBool,
    }

    impl Kv for Failing {
        fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            self.rows.get(family, key)
        }

        fn get_cached(&self, family: Family, key: &[u8]) -> Result<Cached, StoreError> {
            self.rows.get_cached(family, key)
        }

        fn scan(&self, family: Family, from: &[u8], row: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError> {
            self.rows.scan(family, from, row)
        }

        fn write(&self, ops: &[Op], sync: bool) -> Result<(), StoreError> {
            if self.fails.load(Relaxed) { Err(StoreError::Disk("torn".into())) } else { self.rows.write(ops, sync) }
        }

        fn free_space(&self) -> Result<u64, StoreError> {
            self.rows.free_space()
        }

        fn flush(&self) -> Result<(), StoreError> {
            self.rows.flush()
        }
    }

    #[test]
    fn a_node_stops_in_order_when_it_is_asked() {
        let node = started(&config(), Arc::new(MemKv::new())).unwrap();
        assert!(node.listen.p2p.is_some_and(|addr| addr.port() > 0) && !node.ended());
        assert!(node.stop());
        assert_eq!(node.join(), Ok(()));
    }

    /// A node with portfolios and a token for them.
    fn with_portfolios(kv: &Arc<MemKv>) -> (Running, String) {
        let secret = Secret([7; 32]);
        let token = secret::signed(&secret, "ann", Scope::User, 60).unwrap();
        let portfolios = Some(PortfolioConfig::of_nobody());
        let node = started(&Config { portfolios, secret: Some(secret), ..config() }, kv.clone()).unwrap();
        (node, token)
    }

    #[test]
    fn a_node_with_portfolios_answers_users_and_stops_in_order() {
        let kv = Arc::new(MemKv::new());
        let (node, token) = with_portfolios(&kv);
        let http = node.listen.http.unwrap();
        let ask = |method, path, token: &str, body| {
            let (status, body) = ask::send(http, method, path, token, body).unwrap();
            (status, serde_json::from_str::<Value>(&body).unwrap_or_default())
        };
        assert_eq!(ask("GET", "/api/v1/portfolios", "", "").0, 401);
        let (status, told) = ask("GET", "/api/v1/portfolios?currency=eur", &token, "");
        assert_eq!((status, &told["user"]["name"], &told["portfolios"][0]["name"]), (200, &"ann".into(), &"main".into()), "{told}");
        let (status, told) = ask("POST", "/api/v1/portfolios", &token, r#"{"name": "savings"}"#);
        assert_eq!((status, &told["id"]), (201, &2.into()), "{told}");
        assert_eq!(ask("DELETE", "/api/v1/portfolios/2", &token, "").1["removed"], 2);
        assert_eq!(ask("GET", "/api/v1/services", &token, "").0, 403, "a user's token is no operator's");
        let (_, metrics) = ask::get(http, "/metrics").unwrap();
        assert!(
            metrics.contains("rockpool_queue_slots{queue=\"upstream\"}") && metrics.contains("rockpool_outside_calls_total{"),
            "{metrics}"
        );
        assert!(node.stop());
        assert_eq!(node.join(), Ok(()));
        // They are there again.
        let (node, token) = with_portfolios(&kv);
        let (_, told) = ask::send(node.listen.http.unwrap(), "GET", "/api/v1/portfolios", &token, "").unwrap();
        assert_eq!(serde_json::from_str::<Value>(&told).unwrap()["portfolios"].as_array().map(Vec::len), Some(1));
        node.stop();
        node.join().unwrap();
    }

    #[test]
    fn a_thousand_first_requests_at_once_make_one_user() {
        const CONNS: usize = 500;
        let kv = Arc::new(MemKv::new());
        let (node, token) = with_portfolios(&kv);
        let http = node.listen.http.unwrap();
        let request = format!("GET /api/v1/portfolios HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n");
        let both = format!("{request}\r\n{request}Connection: close\r\n\r\n");
        let mut conns: Vec<_> = (0..CONNS).map(|_| TcpStream::connect(http).unwrap()).collect();
        conns.iter_mut().for_each(|conn| conn.write_all(both.as_bytes()).unwrap());
        let mut told = BTreeSet::new();
        for conn in &mut conns {
            let mut text = String::new();
            conn.read_to_string(&mut text).unwrap();
            let bodies: Vec<_> = text.split("HTTP/1.1 200 OK\r\n").skip(1).collect();
            assert_eq!(bodies.len(), 2, "{text}");
            for body in bodies {
                let body: Value = serde_json::from_str(body.split_once("\r\n\r\n").unwrap().1).unwrap();
                told.insert((
                    body["user"].to_string(),
                    body["portfolios"].as_array().map(Vec::len),
                    body["portfolios"][0]["since"].as_u64(),
                ));
            }
        }
        assert_eq!(told.len(), 1, "{told:?}");
        node.stop();
        node.join().unwrap();
        let mut users = Vec::new();
        let mut row = |key: &[u8], row: &[u8]| {
            users.extend(Row::decode(key, row).ok().filter(|row| matches!(row, Row::User(..))));
            true
        };
        kv.scan(Family::Portfolios, &[], &mut row).unwrap();
        assert_eq!(users.len(), 1, "{users:?}");
    }

    #[test]
    fn a_disk_that_fails_ends_the_node_as_its_own_fault() {
        let disk = Arc::new(Failing::default());
        let node = started(&config(), disk.clone()).unwrap();
        disk.fails.store(true, Relaxed);
        let server = node.listen.stratum.unwrap();
        let miner = MinerConfig { server, user: ADDRESS.into(), threads: 1, rate: 10_000, difficulty: Some(1e-5) };
        let _miner = Miner::start(&miner).unwrap();
        let failure = node.join().unwrap_err();
        assert_eq!(failure.code(), 3);
        assert!(failure.to_string().contains("writer") && failure.to_string().contains("torn"), "{failure}");
    }

    #[test]
    fn a_taken_port_is_the_users_to_mend() {
        let kv = Arc::new(MemKv::new());
        let node = started(&config(), kv.clone()).unwrap();
        let mut second = config();
        second.http = node.listen.http.unwrap();
        let failure = started(&second, Arc::new(MemKv::new())).map(drop).unwrap_err();
        assert_eq!(failure.code(), 2);
        assert!(failure.to_string().starts_with(&format!("--http {}: cannot listen there: ", second.http)), "{failure}");
        node.stop();
        assert_eq!(node.join(), Ok(()));
    }

    #[test]
    fn a_store_of_another_network_is_refused() {
        let kv = MemKv::new();
        assert_eq!(bitcoin_tree(&config(), &kv).unwrap().best().unwrap().height, 0);
        let other = Config { network: Network::Testnet4, ..config() };
        let failure = bitcoin(&other, &kv).map(drop).unwrap_err();
        assert_eq!(
            failure,
            Failure::Mistake("data directory test belongs to network regtest, not testnet4; give another --datadir".into())
        );
    }

    #[test]
    fn every_listener_has_its_caps_and_its_deadline() {
        let config = Config { max_peers: 77, ..config() };
        let rows = listeners(&config);
        let caps: Vec<_> =
            rows.iter().map(|(flag, _, row)| (*flag, row.conns_max, (row.per_addr_max, row.per_group_max), row.first_frame)).collect();
        let peers = ("--p2p", 77 + PEERS_RESERVE, (PEERS_PER_ADDR, PEERS_PER_GROUP), HANDSHAKE_MAX);
        let miners = ("--stratum", MINERS_MAX, (MINERS_PER_ADDR, MINERS_MAX), FIRST_LINE_MAX);
        assert_eq!(caps, [peers, miners, ("--http", HTTP_CONNS_MAX, (HTTP_PER_ADDR, HTTP_CONNS_MAX), HTTP_MAX)]);
        let spared: Vec<_> = rows.iter().map(|(.., row)| row.spare_private).collect();
        assert_eq!(spared, [false, true, false], "a farm is behind one address; what has no proof of work is not spared");
    }

    #[test]
    fn each_use_has_its_own_randomness() {
        let seed = [7; 32];
        assert_eq!(fork(&seed, "a").next_u64(), fork(&seed, "a").next_u64());
        assert_ne!(fork(&seed, "a").next_u64(), fork(&seed, "b").next_u64());
        assert_ne!(fork(&seed, "a").next_u64(), fork(&[8; 32], "a").next_u64());
    }
}
