//! What the user typed: arguments to a [`Command`]. Checks the shape alone; values are judged in [`crate::config`].

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::*;

use crate::config::{ConfigError, Options};
use crate::limits::{SHARES_LISTED, SHARES_LISTED_MAX};

/// What `--help` prints.
pub const HELP: &str = "\
Rockpool: a peer-to-peer Bitcoin mining pool node for small hardware.

usage: rockpool demo [--seconds N] [--datadir DIR]
       rockpool run [options]
       rockpool status [--json] [--datadir DIR | --http ADDR]
       rockpool shares [--json] [--datadir DIR | --http ADDR] [--from HEIGHT] [--count N]
       rockpool payouts [--json] [--datadir DIR | --http ADDR]
       rockpool peers [--json] [--datadir DIR | --http ADDR] [add ADDR | ban ADDR|SUBNET | unban ADDR|SUBNET]
       rockpool check [--json] [--network NAME] [--datadir DIR]

demo: two nodes and a CPU miner on this machine, on an embedded regtest chain. Needs nothing else.
  --seconds N           end after N seconds (default: at Ctrl-C)
  --datadir DIR         keep the two nodes' data in DIR/a and DIR/b (default: a temporary directory)

run: one node.
  --network NAME        main, testnet4, signet or regtest (default main)
  --datadir DIR         where the node keeps its data (default ~/.rockpool/NAME)
  --bitcoind URL        http://user:password@host:port, repeatable; regtest goes without
  --bitcoin-peer ADDR   a Bitcoin node to hear of blocks from and to hand found ones to at first hand, repeatable
  --bitcoind-cookie F   bitcoind's .cookie file, for URLs without user and password
  --propose             have bitcoind judge each template as a block before miners get it
  --p2p ADDR            listen for other nodes here (default 0.0.0.0:9333)
  --peer ADDR           connect to this node, repeatable; port 9333 if none is given
  --stratum ADDR        listen for miners here (default 0.0.0.0:3333)
  --http ADDR           status page, API and metrics (default 127.0.0.1:9332)
  --firmware RULE       what miners of a kind hold, repeatable: WORD=OUTPUTS[,LAYOUT] for all whose user agent
                        has the WORD; OUTPUTS of a coinbase 12, 46, 144 or 360, or 1 for a solo lottery;
                        LAYOUT front (firmware that shows outputs) or tail (default)
  --solo                no share chain: a block pays all to the miner that finds it
  --standalone          no share chain: a pool of this node's own miners, paid by what each did lately
  --alone               serve miners even while no peer is connected (default on regtest)
  --max-peers N         most nodes connected at once (default 1000)
  --resync              delete the share chain first and fetch it anew
  --config FILE         TOML with the same names; flags win over it

status: how a node is, and what became of the blocks that were found.
  --json                print JSON, from a running node as it gave it
  --datadir DIR         find the node by its data directory, or read this while none runs
  --http ADDR           or by its address (default 127.0.0.1:9332)

shares: the newest shares of the confirmed chain. payouts: whom the next block would pay.
  --json                print JSON, the same from a node and from a directory
  --datadir DIR         read this data directory, or ask the node that runs on it
  --http ADDR           ask the node at this address (default 127.0.0.1:9332)
  --from HEIGHT         shares: begin with this height and go down (default: the newest)
  --count N             shares: so many, at most 200 (default 20)

peers: the nodes that this one is connected to, those that left lately and why, and bans.
  --json                print JSON
  --datadir DIR         ask the node that runs on it; while none runs: its address book, anchors and bans
  --http ADDR           ask the node at this address (default 127.0.0.1:9332); it must be on this machine to change anything
  add ADDR              connect to this node now, and again whenever it is lost, until the own one stops; port 9333 if none is given
  ban ADDR|SUBNET       close its connections, let it in no more and dial it no more: 203.0.113.7, 203.0.113.0/24, 2001:db8::/32
  --seconds N           ban: for so long (default 86400, a day)
  --reason TEXT         ban: why, to remember it by
  unban ADDR|SUBNET     lift a ban, named as it was given

check: verifies the data directory of a stopped node from scratch, and changes nothing.
  --json                print one JSON object
  --network NAME        the network that it must be of (default: whichever it is)
  --datadir DIR         the directory (default ~/.rockpool/NAME, main if there is no --network)

  -h, --help            this text
  -V, --version         the version

Exit codes: 0 done, 2 a mistake in what was asked, 3 the node's own fault. RUST_LOG sets what is logged.
";

/// What is to be done.
#[derive(Debug, PartialEq)]
pub enum Command {
    /// `--help`.
    Help,
    /// `--version`.
    Version,
    /// `demo`.
    Demo {
        /// After how many seconds it ends.
        seconds: Option<u64>,
        /// Where its data goes.
        datadir: Option<PathBuf>,
    },
    /// `run`.
    Run {
        /// The flags.
        flags: Box<Options>,
        /// `--config`.
        config: Option<PathBuf>,
        /// `--resync`. It is in no file: that would delete the chain at every start.
        resync: bool,
    },
    /// `status`.
    Status(Look),
    /// `shares`.
    Shares {
        /// Of which node.
        of: Look,
        /// The height to begin with.
        from: u32,
        /// How many.
        count: u8,
    },
    /// `payouts`.
    Payouts(Look),
    /// `peers`.
    Peers {
        /// Of which node.
        of: Look,
        /// What is wanted.
        asks: PeersAsk,
    },
    /// `check`.
    Check {
        /// Print JSON.
        json: bool,
        /// `--network`.
        network: Option<String>,
        /// `--datadir`.
        datadir: Option<PathBuf>,
    },
}

/// What is wanted of peers.
#[derive(Debug, PartialEq)]
pub enum PeersAsk {
    /// A list.
    List,
    /// To connect to one more.
    Add(String),
    /// To ban an address or a subnet.
    Ban {
        /// Whom.
        of: String,
        /// For how long.
        seconds: Option<u64>,
        /// Why.
        reason: String,
    },
    /// To lift a ban.
    Unban(String),
}

/// Whom a question goes to, and how the answer is printed.
#[derive(Debug, Default, PartialEq)]
pub struct Look {
    /// Print JSON.
    pub json: bool,
    /// The node's data directory.
    pub datadir: Option<PathBuf>,
    /// The node's HTTP address.
    pub http: Option<String>,
}

/// Reads the arguments, the program's name not among them.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, ConfigError> {
    let mut parser = lexopt::Parser::from_args(args);
    let Some(first) = parser.next().map_err(usage)? else {
        return Err(ConfigError::Usage("say what to do: demo, run, status, shares, payouts, peers or check".into()));
    };
    let command = match first {
        Short('h') | Long("help") => return Ok(Command::Help),
        Short('V') | Long("version") => return Ok(Command::Version),
        Value(name) => name,
        other => return Err(usage(other.unexpected())),
    };
    match command.to_str() {
        Some("demo") => parse_demo(&mut parser),
        Some("run") => parse_run(&mut parser),
        Some("status") => Ok(parse_look(&mut parser, |_, _| Ok(false))?.map_or(Command::Help, Command::Status)),
        Some("shares") => parse_shares(&mut parser),
        Some("payouts") => Ok(parse_look(&mut parser, |_, _| Ok(false))?.map_or(Command::Help, Command::Payouts)),
        Some("peers") => parse_peers(&mut parser),
        Some("check") => parse_check(&mut parser),
        Some("help") => Ok(Command::Help),
        _ => Err(ConfigError::Usage(format!("unknown command {command:?}: demo, run, status, shares, payouts, peers and check are known"))),
    }
}

fn parse_demo(parser: &mut lexopt::Parser) -> Result<Command, ConfigError> {
    let (mut seconds, mut datadir) = (None, None);
    while let Some(arg) = parser.next().map_err(usage)? {
        match arg {
            Short('h') | Long("help") => return Ok(Command::Help),
            Long("seconds") => seconds = Some(number(parser, "--seconds")?),
            Long("datadir") => datadir = Some(PathBuf::from(parser.value().map_err(usage)?)),
            other => return Err(usage(other.unexpected())),
        }
    }
    Ok(Command::Demo { seconds, datadir })
}

fn parse_run(parser: &mut lexopt::Parser) -> Result<Command, ConfigError> {
    let mut flags = Options::default();
    let (mut config, mut resync) = (None, false);
    while let Some(arg) = parser.next().map_err(usage)? {
        match arg {
            Short('h') | Long("help") => return Ok(Command::Help),
            Long("config") => config = Some(PathBuf::from(parser.value().map_err(usage)?)),
            Long("network") => flags.network = Some(text(parser, "--network")?),
            Long("datadir") => flags.datadir = Some(PathBuf::from(parser.value().map_err(usage)?)),
            Long("bitcoind") => flags.bitcoind.push(text(parser, "--bitcoind")?),
            Long("bitcoind-cookie") => flags.bitcoind_cookie = Some(PathBuf::from(parser.value().map_err(usage)?)),
            Long("bitcoin-peer") => flags.bitcoin_peer.push(text(parser, "--bitcoin-peer")?),
            Long("p2p") => flags.p2p = Some(text(parser, "--p2p")?),
            Long("peer") => flags.peer.push(text(parser, "--peer")?),
            Long("stratum") => flags.stratum = Some(text(parser, "--stratum")?),
            Long("http") => flags.http = Some(text(parser, "--http")?),
            Long("firmware") => flags.firmware.push(text(parser, "--firmware")?),
            Long("solo") => flags.solo = Some(true),
            Long("standalone") => flags.standalone = Some(true),
            Long("alone") => flags.alone = Some(true),
            Long("propose") => flags.propose = Some(true),
            Long("max-peers") => flags.max_peers = Some(number(parser, "--max-peers")?),
            Long("resync") => resync = true,
            other => return Err(usage(other.unexpected())),
        }
    }
    Ok(Command::Run { flags: Box::new(flags), config, resync })
}

/// The flags of a question, and those that `more` knows. `None` if help is asked for.
fn parse_look(
    parser: &mut lexopt::Parser,
    more: impl FnMut(&str, &mut lexopt::Parser) -> Result<bool, ConfigError>,
) -> Result<Option<Look>, ConfigError> {
    parse_words(parser, &mut Vec::new(), 0, more)
}

/// The same, with so many words at most between the flags.
fn parse_words(
    parser: &mut lexopt::Parser,
    words: &mut Vec<String>,
    most: usize,
    mut more: impl FnMut(&str, &mut lexopt::Parser) -> Result<bool, ConfigError>,
) -> Result<Option<Look>, ConfigError> {
    let mut look = Look::default();
    while let Some(arg) = parser.next().map_err(usage)? {
        match arg {
            Short('h') | Long("help") => return Ok(None),
            Long("json") => look.json = true,
            Long("datadir") => look.datadir = Some(PathBuf::from(parser.value().map_err(usage)?)),
            Long("http") => look.http = Some(text(parser, "--http")?),
            Long(name) => {
                let name = name.to_string();
                if !more(&name, parser)? {
                    return Err(usage(Long(&name).unexpected()));
                }
            }
            Value(word) if words.len() < most => {
                words.push(word.into_string().map_err(|word| ConfigError::Usage(format!("{word:?} is not text")))?);
            }
            other => return Err(usage(other.unexpected())),
        }
    }
    if look.datadir.is_some() && look.http.is_some() {
        return Err(ConfigError::Usage("give --datadir or --http, not both".into()));
    }
    Ok(Some(look))
}

fn parse_shares(parser: &mut lexopt::Parser) -> Result<Command, ConfigError> {
    let (mut from, mut count) = (u32::MAX, SHARES_LISTED);
    let of = parse_look(parser, |name, parser| {
        match name {
            "from" => from = within("--from", number(parser, "--from")?, u32::MAX.into())? as u32,
            "count" => count = within("--count", number(parser, "--count")?, SHARES_LISTED_MAX.into())? as u8,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(of.map_or(Command::Help, |of| Command::Shares { of, from, count }))
}

fn parse_peers(parser: &mut lexopt::Parser) -> Result<Command, ConfigError> {
    let (mut words, mut seconds, mut reason) = (Vec::new(), None, None);
    let of = parse_words(parser, &mut words, 2, |name, parser| {
        match name {
            "seconds" => seconds = Some(number(parser, "--seconds")?),
            "reason" => reason = Some(text(parser, "--reason")?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let Some(of) = of else { return Ok(Command::Help) };
    let mut words = words.into_iter();
    let (word, about) = (words.next(), words.next());
    let ban = word.as_deref() == Some("ban");
    if !ban && (seconds.is_some() || reason.is_some()) {
        return Err(ConfigError::Usage("--seconds and --reason are for peers ban".into()));
    }
    let asks = match (word.as_deref(), about) {
        (None, _) => PeersAsk::List,
        (Some("add"), Some(addr)) => PeersAsk::Add(addr),
        (Some("ban"), Some(of)) => PeersAsk::Ban { of, seconds, reason: reason.unwrap_or_default() },
        (Some("unban"), Some(of)) => PeersAsk::Unban(of),
        (Some(word @ ("add" | "ban" | "unban")), None) => return Err(ConfigError::Usage(format!("peers {word}: say whom"))),
        (Some(word), _) => return Err(ConfigError::Usage(format!("peers {word:?}: add, ban and unban are known"))),
    };
    Ok(Command::Peers { of, asks })
}

fn within(flag: &'static str, value: u64, most: u64) -> Result<u64, ConfigError> {
    if value > most { Err(ConfigError::Usage(format!("{flag}: {value} is too much: at most {most}"))) } else { Ok(value) }
}

fn parse_check(parser: &mut lexopt::Parser) -> Result<Command, ConfigError> {
    let (mut json, mut network, mut datadir) = (false, None, None);
    while let Some(arg) = parser.next().map_err(usage)? {
        match arg {
            Short('h') | Long("help") => return Ok(Command::Help),
            Long("json") => json = true,
            Long("network") => network = Some(text(parser, "--network")?),
            Long("datadir") => datadir = Some(PathBuf::from(parser.value().map_err(usage)?)),
            other => return Err(usage(other.unexpected())),
        }
    }
    Ok(Command::Check { json, network, datadir })
}

fn text(parser: &mut lexopt::Parser, flag: &'static str) -> Result<String, ConfigError> {
    let value = parser.value().map_err(usage)?;
    value.into_string().map_err(|value| ConfigError::Usage(format!("{flag}: {value:?} is not text")))
}

fn number(parser: &mut lexopt::Parser, flag: &'static str) -> Result<u64, ConfigError> {
    let value = text(parser, flag)?;
    value.parse().map_err(|_| ConfigError::Usage(format!("{flag}: {value:?} is not a whole number")))
}

fn usage(error: lexopt::Error) -> ConfigError {
    // lexopt's sentences are one line but for what a hostile argument holds.
    ConfigError::Usage(error.to_string().replace(char::is_control, " "))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(OsString::from)).map_err(|error| error.to_string())
    }

    #[test]
    fn commands_and_flags_are_read() {
        assert_eq!(parsed("--help"), Ok(Command::Help));
        assert_eq!(parsed("run --p2p 1 --help"), Ok(Command::Help));
        assert_eq!(parsed("-V"), Ok(Command::Version));
        assert_eq!(parsed("demo --seconds 30"), Ok(Command::Demo { seconds: Some(30), datadir: None }));
        assert_eq!(parsed("demo --seconds=5 --datadir x"), Ok(Command::Demo { seconds: Some(5), datadir: Some("x".into()) }));
        assert_eq!(
            parsed("status --json --http 127.0.0.1:1"),
            Ok(Command::Status(Look { json: true, datadir: None, http: Some("127.0.0.1:1".into()) }))
        );
        let of = || Look { datadir: Some("d".into()), ..Look::default() };
        assert_eq!(parsed("payouts --datadir d"), Ok(Command::Payouts(of())));
        assert_eq!(parsed("shares --datadir d"), Ok(Command::Shares { of: of(), from: u32::MAX, count: SHARES_LISTED }));
        assert_eq!(parsed("shares --from=7 --datadir d --count 200"), Ok(Command::Shares { of: of(), from: 7, count: SHARES_LISTED_MAX }));
        assert_eq!(parsed("shares --help"), Ok(Command::Help));
        let asks = |line| match parsed(line).unwrap() {
            Command::Peers { asks, .. } => asks,
            other => panic!("{other:?}"),
        };
        assert_eq!(parsed("peers --datadir d"), Ok(Command::Peers { of: of(), asks: PeersAsk::List }));
        assert_eq!(asks("peers add 1.2.3.4 --json"), PeersAsk::Add("1.2.3.4".into()));
        assert_eq!(
            asks("peers --seconds 5 ban --reason=spam 1.2.3.0/24"),
            PeersAsk::Ban { of: "1.2.3.0/24".into(), seconds: Some(5), reason: "spam".into() }
        );
        assert_eq!(asks("peers ban ::1"), PeersAsk::Ban { of: "::1".into(), seconds: None, reason: String::new() });
        assert_eq!(asks("peers unban ::1"), PeersAsk::Unban("::1".into()));
        assert_eq!(parsed("peers --help"), Ok(Command::Help));
        assert_eq!(parsed("check"), Ok(Command::Check { json: false, network: None, datadir: None }));
        assert_eq!(
            parsed("check --json --network main --datadir d"),
            Ok(Command::Check { json: true, network: Some("main".into()), datadir: Some("d".into()) })
        );
        let line = "run --network regtest --datadir d --bitcoind http://a --bitcoind http://b --bitcoind-cookie c --p2p 1:1 --peer 2:2 \
                    --peer 3:3 --stratum 4:4 --http 5:5 --standalone --alone --max-peers 7 --config f --solo \
                    --bitcoin-peer 6:6 --propose --firmware a=12 --firmware b=1 --resync";
        let Command::Run { flags, config, resync: true } = parsed(line).unwrap() else { panic!("not run") };
        assert!(matches!(parsed("run").unwrap(), Command::Run { resync: false, .. }));
        assert_eq!(config, Some("f".into()));
        assert_eq!(
            *flags,
            Options {
                network: Some("regtest".into()),
                datadir: Some("d".into()),
                bitcoind: vec!["http://a".into(), "http://b".into()],
                bitcoind_cookie: Some("c".into()),
                bitcoin_peer: vec!["6:6".into()],
                p2p: Some("1:1".into()),
                peer: vec!["2:2".into(), "3:3".into()],
                stratum: Some("4:4".into()),
                http: Some("5:5".into()),
                firmware: vec!["a=12".into(), "b=1".into()],
                solo: Some(true),
                standalone: Some(true),
                alone: Some(true),
                propose: Some(true),
                max_peers: Some(7),
            }
        );
    }

    #[test]
    fn every_mistake_is_one_line_that_names_it() {
        for (line, says) in [
            ("", "say what to do"),
            ("fly", "unknown command \"fly\""),
            ("--fly", "--fly"),
            ("run --fly", "--fly"),
            ("run here", "here"),
            ("run --p2p", "--p2p"),
            ("run --alone=yes", "--alone"),
            ("run --max-peers many", "--max-peers: \"many\" is not a whole number"),
            ("demo --seconds -1", "--seconds: \"-1\" is not a whole number"),
            ("demo --network main", "--network"),
            ("status --datadir d --http 127.0.0.1:1", "not both"),
            ("status --from 1", "--from"),
            ("shares --from high", "--from: \"high\" is not a whole number"),
            ("shares --from 4294967296", "--from: 4294967296 is too much"),
            ("shares --count 201", "--count: 201 is too much: at most 200"),
            ("shares --network main", "--network"),
            ("peers add", "peers add: say whom"),
            ("peers fly 1.2.3.4", "peers \"fly\": add, ban and unban are known"),
            ("peers add 1.2.3.4 5.6.7.8", "5.6.7.8"),
            ("peers unban 1.2.3.4 --seconds 5", "--seconds and --reason are for peers ban"),
            ("peers ban 1.2.3.4 --seconds -5", "--seconds: \"-5\" is not a whole number"),
            ("check --http 127.0.0.1:1", "--http"),
        ] {
            let said = parsed(line).unwrap_err();
            assert!(said.contains(says), "{line:?} said {said:?}");
            assert!(!said.contains('\n') && said.ends_with("; see rockpool --help"), "{said:?}");
        }
        let odd = parse([OsString::from("run"), OsString::from("--a\nb")]).unwrap_err().to_string();
        assert!(!odd.contains('\n'), "{odd:?}");
    }
}
