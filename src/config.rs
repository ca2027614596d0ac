//! What the user wants, checked. Every mistake is one line that says what to do.

mod layers;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use rockpool_net::limits::BITCOIN_PEERS_MAX;
use rockpool_store::params::Network;
use rockpool_workers::limits::BITCOINDS_MAX;
use rockpool_workers::outside::call::Service;
use rockpool_workers::outside::{BitcoindConfig, BitcoindMistake};
use thiserror::Error;

pub use self::layers::Layers;
use crate::bitcoin;
use crate::cli::table::Flag;
use crate::http::access::Doors;
use crate::http::token::Secret;
use crate::limits::{FIRMWARE_RULES_MAX, PEERS_CONFIGURED_MAX, PEERS_DEFAULT, PEERS_MAX};
use crate::portfolio::config::PortfolioConfig;
use crate::stratum::firmware::Rule;

/// Port on which nodes listen for each other (DESIGN §4).
pub const P2P_PORT: u16 = 9333;
/// Port on which miners are served.
pub const STRATUM_PORT: u16 = 3333;
/// Port of status page, API and metrics.
pub const HTTP_PORT: u16 = 9332;

/// Flags or a file's fields as they were written, unchecked. Names are the flags'.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// `--network`.
    pub network: Option<String>,
    /// `--datadir`.
    pub datadir: Option<PathBuf>,
    /// `--bitcoind`, repeatable.
    pub bitcoind: Vec<String>,
    /// `--bitcoind-cookie`.
    pub bitcoind_cookie: Option<PathBuf>,
    /// `--bitcoin-peer`, repeatable.
    pub bitcoin_peer: Vec<String>,
    /// `--p2p`.
    pub p2p: Option<String>,
    /// `--peer`, repeatable.
    pub peer: Vec<String>,
    /// `--stratum`.
    pub stratum: Option<String>,
    /// `--http`.
    pub http: Option<String>,
    /// `--http-host`, repeatable.
    pub http_host: Vec<String>,
    /// `--http-origin`, repeatable.
    pub http_origin: Vec<String>,
    /// `--firmware`, repeatable.
    pub firmware: Vec<String>,
    /// `--solo`.
    pub solo: Option<bool>,
    /// `--standalone`.
    pub standalone: Option<bool>,
    /// `--alone`.
    pub alone: Option<bool>,
    /// `--propose`.
    pub propose: Option<bool>,
    /// `--max-peers`.
    pub max_peers: Option<u64>,
    /// `--portfolios`.
    pub portfolios: Option<bool>,
    /// `--portfolio-key`.
    pub portfolio_key: Option<PathBuf>,
    /// `--currency`, repeatable.
    pub currency: Vec<String>,
    /// `--coingecko`.
    pub coingecko: Option<String>,
    /// `--coingecko-key`.
    pub coingecko_key: Option<String>,
    /// `--okx`.
    pub okx: Option<String>,
    /// `--evm`, repeatable.
    pub evm: Vec<String>,
    /// `--outside`, repeatable.
    pub outside: Vec<String>,
    /// `--jwt-issuer`.
    pub jwt_issuer: Option<String>,
    /// `--jwt-audience`.
    pub jwt_audience: Option<String>,
    /// `--jwt-jwks`.
    pub jwt_jwks: Option<String>,
}

/// Where an option is kept, by the kind of what it takes.
pub(crate) enum Slot<'a> {
    Text(&'a mut Option<String>),
    Path(&'a mut Option<PathBuf>),
    Switch(&'a mut Option<bool>),
    Number(&'a mut Option<u64>),
    List(&'a mut Vec<String>),
}

impl Options {
    /// Where the option of this name is kept: the one place that ties names to fields.
    pub(crate) fn slot(&mut self, name: &str) -> Option<Slot<'_>> {
        Some(match name {
            "network" => Slot::Text(&mut self.network),
            "datadir" => Slot::Path(&mut self.datadir),
            "bitcoind" => Slot::List(&mut self.bitcoind),
            "bitcoind-cookie" => Slot::Path(&mut self.bitcoind_cookie),
            "bitcoin-peer" => Slot::List(&mut self.bitcoin_peer),
            "p2p" => Slot::Text(&mut self.p2p),
            "peer" => Slot::List(&mut self.peer),
            "stratum" => Slot::Text(&mut self.stratum),
            "http" => Slot::Text(&mut self.http),
            "http-host" => Slot::List(&mut self.http_host),
            "http-origin" => Slot::List(&mut self.http_origin),
            "firmware" => Slot::List(&mut self.firmware),
            "solo" => Slot::Switch(&mut self.solo),
            "standalone" => Slot::Switch(&mut self.standalone),
            "alone" => Slot::Switch(&mut self.alone),
            "propose" => Slot::Switch(&mut self.propose),
            "max-peers" => Slot::Number(&mut self.max_peers),
            "portfolios" => Slot::Switch(&mut self.portfolios),
            "portfolio-key" => Slot::Path(&mut self.portfolio_key),
            "currency" => Slot::List(&mut self.currency),
            "coingecko" => Slot::Text(&mut self.coingecko),
            "coingecko-key" => Slot::Text(&mut self.coingecko_key),
            "okx" => Slot::Text(&mut self.okx),
            "evm" => Slot::List(&mut self.evm),
            "outside" => Slot::List(&mut self.outside),
            "jwt-issuer" => Slot::Text(&mut self.jwt_issuer),
            "jwt-audience" => Slot::Text(&mut self.jwt_audience),
            "jwt-jwks" => Slot::Text(&mut self.jwt_jwks),
            _ => return None,
        })
    }

    /// Takes what a flag of the command line was given. What is wrong with it otherwise.
    pub(crate) fn put(&mut self, flag: &Flag, value: OsString) -> Result<(), String> {
        let text = |value: OsString| value.into_string().map_err(|value| format!("{value:?} is not text"));
        match self.slot(flag.name) {
            Some(Slot::Text(slot)) => *slot = Some(text(value)?),
            Some(Slot::Path(slot)) => *slot = Some(value.into()),
            Some(Slot::Switch(slot)) => *slot = Some(true),
            Some(Slot::List(slot)) => slot.push(text(value)?),
            Some(Slot::Number(slot)) => {
                let text = text(value)?;
                *slot = Some(text.parse().map_err(|_| format!("{text:?} is not a whole number"))?);
            }
            None => return Err("the table of flags has it, the configuration does not".into()),
        }
        Ok(())
    }
}

/// Whom the blocks of this node's miners pay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// All miners of the share chain.
    #[default]
    Chain,
    /// `--solo`: whoever finds one.
    Solo,
    /// `--standalone`: this node's own miners, each by what it did lately.
    Standalone,
}

impl Mode {
    /// As status and API name it.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Chain => "chain",
            Mode::Solo => "solo",
            Mode::Standalone => "standalone",
        }
    }
}

/// A checked configuration of one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The Bitcoin network and with it the share chain.
    pub network: Network,
    /// Whom its miners' blocks pay.
    pub mode: Mode,
    /// Where its data is.
    pub datadir: PathBuf,
    /// Bitcoin nodes; none on regtest means the embedded chain.
    pub bitcoinds: Vec<BitcoindConfig>,
    /// Nodes of Bitcoin's own network that it dials.
    pub bitcoin_peers: Vec<SocketAddr>,
    /// Where it listens for other nodes; `None` if it knows no others.
    pub p2p: Option<SocketAddr>,
    /// Nodes that it dials.
    pub peers: Vec<SocketAddr>,
    /// Where it listens for miners.
    pub stratum: SocketAddr,
    /// Where it answers HTTP.
    pub http: SocketAddr,
    /// Who else may come in there.
    pub doors: Doors,
    /// What the operator says of kinds of firmware.
    pub firmware: Vec<Rule>,
    /// Serve miners while no peer is there.
    pub alone: bool,
    /// Most peers at once.
    pub max_peers: usize,
    /// What it signs tokens with; drawn for this run, so that nobody has a token, if it is not read from the data directory.
    pub secret: Option<Secret>,
    /// Portfolios and the services that they ask; off unless it says so.
    pub portfolios: Option<PortfolioConfig>,
}

/// A mistake of the user: one line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// The command line's shape.
    #[error("{0}; see rockpool --help")]
    Usage(String),
    /// The shape of a command that is known: what is wrong, and the command.
    #[error("{0}; see rockpool help {1}")]
    UsageOf(String, &'static str),
    /// `--network`.
    #[error("unknown network {0:?}: choose main, testnet4, signet or regtest")]
    Network(String),
    /// An address that is none.
    #[error("{flag}: {value:?} is no address: give an IP address and a port, like {example}")]
    Address {
        /// The flag.
        flag: &'static str,
        /// What it was given.
        value: String,
        /// What would do.
        example: String,
    },
    /// `--bitcoind`.
    #[error(transparent)]
    Bitcoind(#[from] BitcoindMistake),
    /// A real network without a Bitcoin node.
    #[error(
        "network {0} needs a Bitcoin node: give --bitcoind http://user:password@host:port, or bitcoind in the configuration \
              (regtest goes without)"
    )]
    NoBitcoind(Network),
    /// A real network with Bitcoin peers only.
    #[error(
        "network {0} needs a Bitcoin node's RPC: what miners work on comes from it and not over --bitcoin-peer; \
         give --bitcoind http://user:password@host:port too"
    )]
    OnlyPeers(Network),
    /// A number out of range.
    #[error("{flag}: {value} is out of range: at least {least}, at most {most}")]
    Range {
        /// The flag.
        flag: &'static str,
        /// What it was given.
        value: u64,
        /// Least.
        least: u64,
        /// Most.
        most: u64,
    },
    /// `--http-host` or `--http-origin`.
    #[error("{0}")]
    Door(String),
    /// `--firmware`.
    #[error("--firmware: {0}")]
    Firmware(String),
    /// A flag that says something of portfolios.
    #[error("{0}")]
    Portfolios(String),
    /// The same, while they are off.
    #[error("{0} is for portfolios: give --portfolios too")]
    NeedsPortfolios(&'static str),
    /// A path that only a shell understands.
    #[error("{0}: {1:?} begins with ~, which only a shell understands: write the whole path")]
    Tilde(&'static str, PathBuf),
    /// Two that exclude each other.
    #[error("{0} and {1} exclude each other")]
    Excludes(&'static str, &'static str),
    /// `--bitcoin-peer` on regtest without `--bitcoind`.
    #[error("--bitcoin-peer on regtest needs --bitcoind too: without one a chain of this node's own stands in for Bitcoin's")]
    EmbeddedWithPeers,
    /// The configuration file cannot be read.
    #[error("cannot read {file}: {why}")]
    Unreadable {
        /// The file.
        file: String,
        /// What the system says.
        why: String,
    },
    /// The configuration file does not parse.
    #[error("{file}: {why}")]
    File {
        /// The file, with line.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// No default data directory.
    #[error("HOME is not set: give --datadir DIR")]
    NoHome,
}

impl Config {
    /// A regtest node of this machine alone: every port free, miners served at once, the embedded chain. For the demo and for tests.
    pub fn loopback(datadir: PathBuf) -> Config {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Config {
            network: Network::Regtest,
            mode: Mode::Chain,
            datadir,
            bitcoinds: Vec::new(),
            bitcoin_peers: Vec::new(),
            p2p: Some(free),
            peers: Vec::new(),
            stratum: free,
            http: free,
            doors: Doors::default(),
            firmware: Vec::new(),
            alone: true,
            max_peers: 8,
            secret: None,
            portfolios: None,
        }
    }

    /// Checks flags and, if one is named, the file under them. `home` is where the default data directory stands.
    pub fn new(flags: Options, file: Option<&Path>, home: Option<&Path>) -> Result<Config, ConfigError> {
        Layers::new(flags, file, [])?.config(home)
    }
}

impl Layers {
    /// Checks what was said. `home` is where the default data directory stands.
    pub fn config(&self, home: Option<&Path>) -> Result<Config, ConfigError> {
        check(self.options.clone(), home)
    }
}

/// Where a running node is: `--http`, checked.
pub fn http_address(value: &str) -> Result<SocketAddr, ConfigError> {
    address("--http", value, HTTP_PORT)
}

fn check(options: Options, home: Option<&Path>) -> Result<Config, ConfigError> {
    let network = network(options.network.as_deref().unwrap_or("main"))?;
    let portfolios = PortfolioConfig::new(&options)?;
    let (mode, flag) = match (options.solo == Some(true), options.standalone == Some(true)) {
        (false, false) => (Mode::Chain, ""),
        (true, false) => (Mode::Solo, "--solo"),
        (false, true) => (Mode::Standalone, "--standalone"),
        (true, true) => return Err(ConfigError::Excludes("--solo", "--standalone")),
    };
    no_tilde(&options)?;
    // Whoever has no share chain has no use for its peers.
    for (other, given) in [("--peer", !options.peer.is_empty()), ("--p2p", options.p2p.is_some())] {
        if mode != Mode::Chain && given {
            return Err(ConfigError::Excludes(flag, other));
        }
    }
    let listen = |flag, value: Option<String>, default: SocketAddr| match value {
        Some(value) => address(flag, &value, default.port()),
        None => Ok(default),
    };
    let everywhere = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
    let p2p = listen("--p2p", options.p2p, everywhere(P2P_PORT))?;
    let stratum = listen("--stratum", options.stratum, everywhere(STRATUM_PORT))?;
    let http = listen("--http", options.http, SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), HTTP_PORT))?;
    within("the number of --peer", options.peer.len() as u64, 0, PEERS_CONFIGURED_MAX as u64)?;
    let peers = options.peer.iter().map(|value| peer_address("--peer", value, P2P_PORT)).collect::<Result<Vec<_>, _>>()?;
    within("the number of --firmware", options.firmware.len() as u64, 0, FIRMWARE_RULES_MAX as u64)?;
    let firmware = options.firmware.iter().map(|rule| rule.parse().map_err(ConfigError::Firmware)).collect::<Result<Vec<_>, _>>()?;
    let doors = Doors::new(options.http_host, options.http_origin).map_err(ConfigError::Door)?;
    let max_peers = options.max_peers.unwrap_or(PEERS_DEFAULT as u64);
    within("--max-peers", max_peers, 1, PEERS_MAX as u64)?;
    within("the number of --bitcoind", options.bitcoind.len() as u64, 0, BITCOINDS_MAX as u64)?;
    let bitcoind = |url: &String| {
        let mut config = BitcoindConfig::new(url, options.bitcoind_cookie.clone(), network)?;
        config.proposals = options.propose == Some(true);
        let limits = portfolios.iter().flat_map(|portfolios| &portfolios.limits).find(|(of, _)| *of == Service::Bitcoind);
        Ok::<_, BitcoindMistake>(limits.map_or(config.clone(), |(_, limits)| config.limited(*limits)))
    };
    let bitcoinds = options.bitcoind.iter().map(bitcoind).collect::<Result<Vec<_>, _>>()?;
    within("the number of --bitcoin-peer", options.bitcoin_peer.len() as u64, 0, BITCOIN_PEERS_MAX as u64)?;
    let bitcoin_peer = |value: &String| peer_address("--bitcoin-peer", value, bitcoin::port(network));
    let bitcoin_peers = options.bitcoin_peer.iter().map(bitcoin_peer).collect::<Result<Vec<_>, _>>()?;
    match (bitcoinds.is_empty(), network) {
        (true, Network::Regtest) if !bitcoin_peers.is_empty() => return Err(ConfigError::EmbeddedWithPeers),
        (true, Network::Main | Network::Signet | Network::Testnet4) if !bitcoin_peers.is_empty() => {
            return Err(ConfigError::OnlyPeers(network));
        }
        (true, Network::Main | Network::Signet | Network::Testnet4) => return Err(ConfigError::NoBitcoind(network)),
        _ => {}
    }
    Ok(Config {
        network,
        mode,
        datadir: datadir(options.datadir, network, home)?,
        bitcoinds,
        bitcoin_peers,
        p2p: (mode == Mode::Chain).then_some(p2p),
        peers,
        stratum,
        http,
        doors,
        firmware,
        alone: mode != Mode::Chain || options.alone.unwrap_or(network == Network::Regtest),
        max_peers: max_peers as usize,
        secret: None,
        portfolios,
    })
}

/// Paths that only a shell understands: else a directory named ~ would be made somewhere.
fn no_tilde(options: &Options) -> Result<(), ConfigError> {
    let key = ("--portfolio-key", &options.portfolio_key);
    for (flag, path) in [("--datadir", &options.datadir), ("--bitcoind-cookie", &options.bitcoind_cookie), key] {
        if let Some(path) = path.as_ref().filter(|path| path.starts_with("~")) {
            return Err(ConfigError::Tilde(flag, path.clone()));
        }
    }
    Ok(())
}

/// `--datadir`, or the usual one of a network.
pub fn datadir(given: Option<PathBuf>, network: Network, home: Option<&Path>) -> Result<PathBuf, ConfigError> {
    match (given, home) {
        (Some(dir), _) => Ok(dir),
        (None, Some(home)) => Ok(home.join(".rockpool").join(network.name())),
        (None, None) => Err(ConfigError::NoHome),
    }
}

/// `--network`, checked.
pub fn network(name: &str) -> Result<Network, ConfigError> {
    Network::ALL.into_iter().find(|network| network.name() == name).ok_or_else(|| ConfigError::Network(name.into()))
}

fn within(flag: &'static str, value: u64, least: u64, most: u64) -> Result<(), ConfigError> {
    if value < least || value > most { Err(ConfigError::Range { flag, value, least, most }) } else { Ok(()) }
}

/// A peer's address: port 9333 if none is given.
pub fn peer(value: &str) -> Result<SocketAddr, ConfigError> {
    peer_address("--peer", value, P2P_PORT)
}

/// An address to dial: the port may be left out, but it is not 0.
fn peer_address(flag: &'static str, value: &str, port: u16) -> Result<SocketAddr, ConfigError> {
    let addr = address(flag, value, port)?;
    if addr.port() == 0 || addr.ip().is_unspecified() {
        return Err(bad_address(flag, value, port));
    }
    Ok(addr)
}

/// `IP:port`, `[IPv6]:port`, either without port, `:port` for every address, or `localhost`. Names are not looked up.
fn address(flag: &'static str, value: &str, port: u16) -> Result<SocketAddr, ConfigError> {
    let text = match value.strip_prefix("localhost") {
        Some(rest) => format!("127.0.0.1{rest}"),
        None if value.starts_with(':') && !value.starts_with("::") => format!("0.0.0.0{value}"),
        None => value.to_string(),
    };
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&text);
    text.parse().or_else(|_| bare.parse().map(|ip| SocketAddr::new(ip, port))).map_err(|_| bad_address(flag, value, port))
}

fn bad_address(flag: &'static str, value: &str, port: u16) -> ConfigError {
    let host = if matches!(flag, "--peer" | "--bitcoin-peer") { "192.0.2.7" } else { "0.0.0.0" };
    ConfigError::Address { flag, value: value.into(), example: format!("{host}:{port}") }
}

fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::limits::CONFIG_BYTES_MAX;

    const HOME: &str = "/home/nobody";

    fn regtest() -> Options {
        Options { network: Some("regtest".into()), ..Options::default() }
    }

    fn checked(options: Options) -> Result<Config, String> {
        Config::new(options, None, Some(Path::new(HOME))).map_err(|error| error.to_string())
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn defaults_are_those_of_the_help() {
        let config = checked(regtest()).unwrap();
        assert_eq!(config.datadir, Path::new("/home/nobody/.rockpool/regtest"));
        assert_eq!(config.p2p, Some("0.0.0.0:9333".parse().unwrap()));
        assert_eq!(config.stratum, "0.0.0.0:3333".parse().unwrap());
        assert_eq!(config.http, "127.0.0.1:9332".parse().unwrap());
        assert!(config.alone && config.bitcoinds.is_empty() && config.peers.is_empty());
        assert_eq!(config.max_peers, PEERS_DEFAULT);
        let main = checked(Options { bitcoind: vec!["http://u:p@h".into()], ..Options::default() }).unwrap();
        assert!(!main.bitcoinds[0].proposals);
        let proposing = Options { bitcoind: vec!["http://u:p@h".into()], propose: Some(true), ..Options::default() };
        assert!(checked(proposing).unwrap().bitcoinds[0].proposals);
        assert_eq!((main.network, main.alone), (Network::Main, false));
        assert_eq!(main.bitcoinds[0].host, "h:8332");
        let bitcoin_peer = vec!["1.2.3.4".into(), "[::1]:5".into()];
        let peers = checked(Options { bitcoin_peer, bitcoind: vec!["http://u:p@h".into()], ..Options::default() }).unwrap().bitcoin_peers;
        assert_eq!(peers, ["1.2.3.4:8333".parse().unwrap(), "[::1]:5".parse().unwrap()]);
    }

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, read) in [
            ("1.2.3.4:5", "1.2.3.4:5"),
            ("1.2.3.4", "1.2.3.4:9333"),
            ("localhost:7", "127.0.0.1:7"),
            ("localhost", "127.0.0.1:9333"),
            ("[::1]:7", "[::1]:7"),
            ("::1", "[::1]:9333"),
            ("[::1]", "[::1]:9333"),
        ] {
            let config = checked(Options { peer: vec![text.into()], ..regtest() }).unwrap();
            assert_eq!(config.peers, [read.parse().unwrap()], "{text}");
        }
        let config = checked(Options { stratum: Some(":4444".into()), p2p: Some("127.0.0.1:0".into()), ..regtest() }).unwrap();
        assert_eq!((config.stratum, config.p2p), ("0.0.0.0:4444".parse().unwrap(), Some("127.0.0.1:0".parse().unwrap())));
    }

    #[test]
    fn every_mistake_is_one_line_that_says_what_to_do() {
        let many = |text: &str, n: usize| vec![text.to_string(); n];
        let table = [
            (Options { network: Some("mian".into()), ..regtest() }, "unknown network \"mian\": choose main, testnet4, signet or regtest"),
            (Options::default(), "network main needs a Bitcoin node: give --bitcoind"),
            (Options { network: Some("signet".into()), ..regtest() }, "network signet needs a Bitcoin node"),
            (
                Options { p2p: Some("here".into()), ..regtest() },
                "--p2p: \"here\" is no address: give an IP address and a port, like 0.0.0.0:9333",
            ),
            (Options { stratum: Some("1.2.3.4:99999".into()), ..regtest() }, "like 0.0.0.0:3333"),
            (Options { http: Some(String::new()), ..regtest() }, "--http: \"\" is no address"),
            (Options { peer: vec!["pool.example.org:9333".into()], ..regtest() }, "--peer: \"pool.example.org:9333\" is no address"),
            (Options { peer: vec!["1.2.3.4:0".into()], ..regtest() }, "like 192.0.2.7:9333"),
            (Options { peer: vec!["0.0.0.0:1".into()], ..regtest() }, "like 192.0.2.7:9333"),
            (Options { peer: many("1.2.3.4", PEERS_CONFIGURED_MAX + 1), ..regtest() }, "the number of --peer: 65 is out of range"),
            (Options { bitcoind: many("http://u:p@h", BITCOINDS_MAX + 1), ..regtest() }, "the number of --bitcoind: 5 is out of range"),
            (Options { firmware: vec!["bitaxe".into()], ..regtest() }, "--firmware: \"bitaxe\" is no rule for firmware: give WORD="),
            (
                Options { firmware: vec!["x=12".into(); FIRMWARE_RULES_MAX + 1], ..regtest() },
                "the number of --firmware: 65 is out of range",
            ),
            (Options { datadir: Some("~/pool".into()), ..regtest() }, "--datadir: \"~/pool\" begins with ~"),
            (Options { max_peers: Some(0), ..regtest() }, "--max-peers: 0 is out of range: at least 1"),
            (Options { max_peers: Some(1 << 40), ..regtest() }, "--max-peers"),
            (Options { max_peers: Some(PEERS_MAX as u64 + 1), ..regtest() }, "--max-peers"),
            (Options { standalone: Some(true), peer: vec!["1.2.3.4".into()], ..regtest() }, "--standalone and --peer exclude each other"),
            (Options { standalone: Some(true), p2p: Some("1.2.3.4".into()), ..regtest() }, "--standalone and --p2p exclude each other"),
            (Options { solo: Some(true), p2p: Some("1.2.3.4".into()), ..regtest() }, "--solo and --p2p exclude each other"),
            (Options { solo: Some(true), standalone: Some(true), ..regtest() }, "--solo and --standalone exclude each other"),
            (Options { bitcoin_peer: vec!["1.2.3.4".into()], ..regtest() }, "--bitcoin-peer on regtest needs --bitcoind too"),
            (Options { bitcoin_peer: vec!["1.2.3.4".into()], ..Options::default() }, "network main needs a Bitcoin node's RPC"),
            (
                Options { bitcoin_peer: vec!["node.example.org".into()], ..regtest() },
                "no address: give an IP address and a port, like 192.0.2.7:18444",
            ),
            (
                Options { bitcoin_peer: many("1.2.3.4", BITCOIN_PEERS_MAX + 1), ..regtest() },
                "the number of --bitcoin-peer: 9 is out of range",
            ),
        ];
        for (options, says) in table {
            let said = checked(options).unwrap_err();
            assert!(said.contains(says) && !said.contains('\n'), "{said:?} lacks {says:?}");
        }
        for url in ["127.0.0.1:8332", "https://u:secret@h", "http://u:secret@h:port", "http://u:secret@", "http://u@h:1"] {
            let said = checked(Options { bitcoind: vec![url.into()], ..regtest() }).unwrap_err();
            assert!(said.contains("--bitcoind") && !said.contains("secret") && !said.contains('\n'), "{said:?}");
        }
        assert_eq!(Config::new(regtest(), None, None), Err(ConfigError::NoHome));
    }

    #[test]
    fn who_has_no_share_chain_has_no_peers() {
        let solo = checked(Options { solo: Some(true), alone: Some(false), ..regtest() }).unwrap();
        let standalone = checked(Options { standalone: Some(true), ..regtest() }).unwrap();
        assert_eq!((solo.mode, solo.p2p, solo.alone), (Mode::Solo, None, true));
        assert_eq!((standalone.mode, standalone.p2p, standalone.alone), (Mode::Standalone, None, true));
        assert_eq!(checked(regtest()).unwrap().mode, Mode::Chain);
        assert_eq!([Mode::Chain, Mode::Solo, Mode::Standalone].map(Mode::name), ["chain", "solo", "standalone"]);
    }

    #[test]
    fn flags_win_over_the_file() {
        let file = file(
            "network = \"regtest\"\nhttp = \"127.0.0.1:1\"\nstratum = \"127.0.0.1:2\"\npeer = [\"1.1.1.1\"]\n\
             firmware = [\"bitaxe=12,tail\"]\nmax-peers = 5\n",
        );
        let flags = Options { http: Some("127.0.0.1:9".into()), peer: vec!["2.2.2.2".into()], ..Options::default() };
        let config = Config::new(flags, Some(file.path()), Some(Path::new(HOME))).unwrap();
        assert_eq!(config.firmware, ["bitaxe=12,tail".parse().unwrap()]);
        assert_eq!(config.http.port(), 9);
        assert_eq!(config.stratum.port(), 2);
        assert_eq!(config.peers, ["2.2.2.2:9333".parse().unwrap()]);
        assert_eq!((config.network, config.max_peers), (Network::Regtest, 5));
    }

    #[test]
    fn a_bad_file_is_named_with_its_line() {
        for (text, says) in [
            ("network = \"regtest\"\nport = 3\n", "line 2: unknown key \"port\""),
            ("network = \n", "line 1: "),
            ("max-peers = -4", "line 1: "),
            ("peer = \"1.2.3.4\"", "line 1: "),
            ("\u{fffd}", "line 1: "),
        ] {
            let file = file(text);
            let said = Config::new(Options::default(), Some(file.path()), None).unwrap_err().to_string();
            assert!(said.contains(says) && said.contains(file.path().to_str().unwrap()) && !said.contains('\n'), "{said:?}");
        }
        let said = Config::new(Options::default(), Some(Path::new("/no/such")), None).unwrap_err().to_string();
        assert!(said.starts_with("cannot read /no/such: "), "{said}");
        let said = Config::new(Options::default(), Some(Path::new("/")), None).unwrap_err().to_string();
        assert!(said.starts_with("cannot read /: "), "{said}");
        let large = file(&"#".repeat(CONFIG_BYTES_MAX as usize + 1));
        let said = Config::new(Options::default(), Some(large.path()), None).unwrap_err().to_string();
        assert!(said.contains("at most 65536 bytes"), "{said}");
    }
}
