//! What the user typed: arguments to a [`Command`], by the [`table`]. Checks the shape alone; values are judged in [`crate::config`].

pub mod completions;
pub mod help;
pub mod nearest;
pub mod table;

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::*;

use self::completions::Shell;
use self::nearest::hint;
use self::table::{Flag, Takes, VERBS, Verb};
use crate::config::{ConfigError, Options};
use crate::http::token::Scope;
use crate::limits::{SHARES_LISTED, SHARES_LISTED_MAX, TOKEN_DAYS, TOKEN_DAYS_MAX};

/// What is to be done.
#[derive(Debug, PartialEq)]
pub enum Command {
    /// `--help`: of a command, or of all.
    Help(Option<&'static Verb>),
    /// `--version`.
    Version,
    /// `demo`.
    Demo {
        /// After how many seconds it ends.
        seconds: Option<u64>,
        /// Where its data goes.
        datadir: Option<PathBuf>,
        /// Whether the first node keeps portfolios.
        portfolios: bool,
    },
    /// `run`.
    Run {
        /// The flags.
        flags: Box<Options>,
        /// `--config`.
        config: Option<PathBuf>,
        /// `--resync`. It is in no file: that would delete the chain at every start.
        resync: bool,
        /// `--print-config`.
        print: bool,
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
    /// `miners`.
    Miners {
        /// Of which node.
        of: Look,
        /// Of which address the workers, if not all addresses.
        address: Option<String>,
    },
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
    /// `token`.
    Token {
        /// `--network`.
        network: Option<String>,
        /// `--datadir`.
        datadir: Option<PathBuf>,
        /// Whose it is.
        sub: String,
        /// What it is good for.
        scope: Scope,
        /// For how many days.
        days: u64,
    },
    /// `completions`.
    Completions(Shell),
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

/// What was typed behind a command, by the table.
struct Typed {
    verb: &'static Verb,
    flags: Vec<(&'static Flag, OsString)>,
    words: Vec<String>,
}

/// Reads the arguments, the program's name not among them.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, ConfigError> {
    let mut parser = lexopt::Parser::from_args(args);
    let names = || VERBS.iter().map(|verb| verb.name);
    let Some(first) = parser.next().map_err(usage)? else {
        return Err(ConfigError::Usage("say what to do: rockpool demo shows it, rockpool run is a node".into()));
    };
    let name = match first {
        Short('h') | Long("help") => return Ok(Command::Help(None)),
        Short('V') | Long("version") => return Ok(Command::Version),
        Value(name) => name,
        other => return Err(usage(other.unexpected())),
    };
    let Some(verb) = name.to_str().and_then(Verb::find) else {
        return Err(ConfigError::Usage(format!("unknown command {name:?}{}", hint(&name.to_string_lossy(), names(), ""))));
    };
    let of_verb = |error| match error {
        ConfigError::Usage(what) => ConfigError::UsageOf(what, verb.name),
        other => other,
    };
    match typed(verb, &mut parser).map_err(of_verb)? {
        Some(typed) => command(&typed).map_err(of_verb),
        None => Ok(Command::Help(Some(verb))),
    }
}

/// Flags and words of a command. `None` if help is asked for.
fn typed(verb: &'static Verb, parser: &mut lexopt::Parser) -> Result<Option<Typed>, ConfigError> {
    let mut typed = Typed { verb, flags: Vec::new(), words: Vec::new() };
    while let Some(arg) = parser.next().map_err(usage)? {
        match arg {
            Short('h') | Long("help") => return Ok(None),
            Long(name) => {
                let Some(flag) = verb.flag(name) else {
                    let near = hint(name, verb.flags.iter().map(|flag| flag.name), "--");
                    return Err(ConfigError::Usage(format!("unknown option --{name}{near}").replace(char::is_control, " ")));
                };
                let value = if flag.takes == Takes::Nothing { OsString::new() } else { parser.value().map_err(usage)? };
                typed.flags.push((flag, value));
            }
            Value(word) if typed.words.len() < verb.words_max => {
                typed.words.push(word.into_string().map_err(|word| ConfigError::Usage(format!("{word:?} is not text")))?);
            }
            other => return Err(usage(other.unexpected())),
        }
    }
    Ok(Some(typed))
}

/// What a command's flags and words mean.
fn command(typed: &Typed) -> Result<Command, ConfigError> {
    Ok(match typed.verb.name {
        "demo" => Command::Demo {
            seconds: typed.number("seconds", u64::MAX)?,
            datadir: typed.path("datadir"),
            portfolios: typed.has("portfolios"),
        },
        "run" => return run(typed),
        "status" => Command::Status(typed.look()?),
        "shares" => Command::Shares {
            of: typed.look()?,
            from: typed.number("from", u32::MAX.into())?.map_or(u32::MAX, |from| from as u32),
            count: typed.number("count", SHARES_LISTED_MAX.into())?.map_or(SHARES_LISTED, |count| count as u8),
        },
        "payouts" => Command::Payouts(typed.look()?),
        "miners" => Command::Miners { of: typed.look()?, address: typed.words.first().cloned() },
        "peers" => Command::Peers { of: typed.look()?, asks: peers(typed)? },
        "check" => Command::Check { json: typed.has("json"), network: typed.text("network")?, datadir: typed.path("datadir") },
        "token" => token(typed)?,
        "completions" => Command::Completions(shell(typed)?),
        _ => match typed.words.first() {
            None => Command::Help(None),
            Some(word) => Command::Help(Some(Verb::find(word).ok_or_else(|| {
                let near = hint(word, VERBS.iter().map(|verb| verb.name), "");
                ConfigError::Usage(format!("unknown command {word:?}{near}"))
            })?)),
        },
    })
}

fn run(typed: &Typed) -> Result<Command, ConfigError> {
    let mut flags = Options::default();
    for (flag, value) in &typed.flags {
        if !flag.sample.is_empty() {
            flags.put(flag, value.clone()).map_err(|what| ConfigError::Usage(format!("--{}: {what}", flag.name)))?;
        }
    }
    Ok(Command::Run { flags: Box::new(flags), config: typed.path("config"), resync: typed.has("resync"), print: typed.has("print-config") })
}

fn peers(typed: &Typed) -> Result<PeersAsk, ConfigError> {
    let (seconds, reason) = (typed.number("seconds", u64::MAX)?, typed.text("reason")?);
    let mut words = typed.words.iter().cloned();
    let (word, about) = (words.next(), words.next());
    if word.as_deref() != Some("ban") && (seconds.is_some() || reason.is_some()) {
        return Err(ConfigError::Usage("--seconds and --reason are for peers ban".into()));
    }
    Ok(match (word.as_deref(), about) {
        (None, _) => PeersAsk::List,
        (Some("add"), Some(addr)) => PeersAsk::Add(addr),
        (Some("ban"), Some(of)) => PeersAsk::Ban { of, seconds, reason: reason.unwrap_or_default() },
        (Some("unban"), Some(of)) => PeersAsk::Unban(of),
        (Some(word @ ("add" | "ban" | "unban")), None) => return Err(ConfigError::Usage(format!("peers {word}: say whom"))),
        (Some(word), _) => return Err(ConfigError::Usage(format!("peers {word:?}: add, ban and unban are known"))),
    })
}

fn token(typed: &Typed) -> Result<Command, ConfigError> {
    let scope = typed.text("scope")?.map_or(Some(Scope::Admin), |scope| Scope::parse(&scope));
    Ok(Command::Token {
        network: typed.text("network")?,
        datadir: typed.path("datadir"),
        sub: typed.text("sub")?.unwrap_or_else(|| "admin".into()),
        scope: scope.ok_or_else(|| ConfigError::Usage("--scope is admin or user".into()))?,
        days: typed.number("days", TOKEN_DAYS_MAX)?.unwrap_or(TOKEN_DAYS),
    })
}

fn shell(typed: &Typed) -> Result<Shell, ConfigError> {
    let word = typed.words.first().map_or("", String::as_str);
    Shell::named(word).ok_or_else(|| ConfigError::Usage("say for which shell: bash, zsh or fish".into()))
}

impl Typed {
    /// The last value of a flag: who gives one twice means the last.
    fn value(&self, name: &str) -> Option<&OsString> {
        self.flags.iter().rev().find(|(flag, _)| flag.name == name).map(|(_, value)| value)
    }

    fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.value(name).map(PathBuf::from)
    }

    fn text(&self, name: &'static str) -> Result<Option<String>, ConfigError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        value.to_str().map(|text| Some(text.to_owned())).ok_or_else(|| ConfigError::Usage(format!("--{name}: {value:?} is not text")))
    }

    fn number(&self, name: &'static str, most: u64) -> Result<Option<u64>, ConfigError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match text.parse() {
            Ok(value) if value > most => Err(ConfigError::Usage(format!("--{name}: {value} is too much: at most {most}"))),
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(ConfigError::Usage(format!("--{name}: {text:?} is not a whole number"))),
        }
    }

    fn look(&self) -> Result<Look, ConfigError> {
        let look = Look { json: self.has("json"), datadir: self.path("datadir"), http: self.text("http")? };
        if look.datadir.is_some() && look.http.is_some() {
            return Err(ConfigError::Usage("give --datadir or --http, not both".into()));
        }
        Ok(look)
    }
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
        assert_eq!(parsed("--help"), Ok(Command::Help(None)));
        assert_eq!(parsed("help"), Ok(Command::Help(None)));
        for (line, verb) in [("run --p2p 1 --help", "run"), ("shares -h", "shares"), ("peers --help", "peers"), ("help check", "check")] {
            assert_eq!(parsed(line), Ok(Command::Help(Verb::find(verb))), "{line}");
        }
        assert_eq!(parsed("completions fish"), Ok(Command::Completions(Shell::Fish)));
        assert_eq!(parsed("-V"), Ok(Command::Version));
        assert_eq!(parsed("demo --seconds 30"), Ok(Command::Demo { seconds: Some(30), datadir: None, portfolios: false }));
        assert_eq!(
            parsed("demo --seconds=5 --datadir x --portfolios"),
            Ok(Command::Demo { seconds: Some(5), datadir: Some("x".into()), portfolios: true })
        );
        assert_eq!(
            parsed("status --json --http 127.0.0.1:1"),
            Ok(Command::Status(Look { json: true, datadir: None, http: Some("127.0.0.1:1".into()) }))
        );
        let of = || Look { datadir: Some("d".into()), ..Look::default() };
        assert_eq!(parsed("payouts --datadir d"), Ok(Command::Payouts(of())));
        assert_eq!(parsed("shares --datadir d"), Ok(Command::Shares { of: of(), from: u32::MAX, count: SHARES_LISTED }));
        assert_eq!(parsed("shares --from=7 --datadir d --count 200"), Ok(Command::Shares { of: of(), from: 7, count: SHARES_LISTED_MAX }));
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
        let token = |network, datadir, sub: &str, scope, days| Command::Token { network, datadir, sub: sub.into(), scope, days };
        assert_eq!(parsed("token"), Ok(token(None, None, "admin", Scope::Admin, TOKEN_DAYS)));
        assert_eq!(
            parsed("token --network regtest --datadir d --sub ann --scope user --days 3650"),
            Ok(token(Some("regtest".into()), Some("d".into()), "ann", Scope::User, TOKEN_DAYS_MAX))
        );
        assert!(parsed("token --scope root").unwrap_err().contains("admin or user"));
        assert!(parsed("token --days 3651").unwrap_err().contains("at most 3650"));
        assert_eq!(parsed("check"), Ok(Command::Check { json: false, network: None, datadir: None }));
        assert_eq!(
            parsed("check --json --network main --datadir d"),
            Ok(Command::Check { json: true, network: Some("main".into()), datadir: Some("d".into()) })
        );
        let line = "run --network regtest --datadir d --bitcoind http://a --bitcoind http://b --bitcoind-cookie c --p2p 1:1 --peer 2:2 \
                    --peer 3:3 --stratum 4:4 --http 5:5 --standalone --alone --max-peers 7 --config f --solo \
                    --bitcoin-peer 6:6 --propose --firmware a=12 --firmware b=1 --http-host h.org \
                    --http-origin https://o.org --resync --portfolios --portfolio-key k \
                    --currency chf --coingecko http://c --coingecko-key CG \
                    --okx http://o --evm bsc=http://e --outside okx=1,1 --jwt-issuer http://i --jwt-audience a --jwt-jwks http://j";
        let Command::Run { flags, config, resync: true, print: false } = parsed(line).unwrap() else { panic!("not run") };
        assert!(matches!(parsed("run --print-config").unwrap(), Command::Run { resync: false, print: true, .. }));
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
                http_host: vec!["h.org".into()],
                http_origin: vec!["https://o.org".into()],
                firmware: vec!["a=12".into(), "b=1".into()],
                solo: Some(true),
                standalone: Some(true),
                alone: Some(true),
                propose: Some(true),
                max_peers: Some(7),
                portfolios: Some(true),
                portfolio_key: Some("k".into()),
                currency: vec!["chf".into()],
                coingecko: Some("http://c".into()),
                coingecko_key: Some("CG".into()),
                okx: Some("http://o".into()),
                evm: vec!["bsc=http://e".into()],
                outside: vec!["okx=1,1".into()],
                jwt_issuer: Some("http://i".into()),
                jwt_audience: Some("a".into()),
                jwt_jwks: Some("http://j".into()),
            }
        );
    }

    #[test]
    fn every_mistake_is_one_line_that_names_it() {
        for (line, says) in [
            ("", "say what to do"),
            ("fly", "unknown command \"fly\""),
            ("stauts", "unknown command \"stauts\"; did you mean status?"),
            ("help stauts", "did you mean status?"),
            ("run --strtum 1:1", "unknown option --strtum; did you mean --stratum?"),
            ("completions", "say for which shell: bash, zsh or fish"),
            ("completions csh", "say for which shell"),
            ("run --p2p", "--p2p"),
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
            assert!(!said.contains('\n') && (said.ends_with("; see rockpool --help") || said.contains("; see rockpool help ")), "{said:?}");
        }
        let odd = parse([OsString::from("run"), OsString::from("--a\nb")]).unwrap_err().to_string();
        assert!(!odd.contains('\n'), "{odd:?}");
    }
}
