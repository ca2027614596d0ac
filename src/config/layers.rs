//! Where an option's value comes from: flags over environment variables over the file over defaults. And what is effective in the end.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::{Config, ConfigError, Options, Slot, one_line};
use crate::cli::nearest::hint;
use crate::cli::table::{Flag, Takes, keys};
use crate::limits::CONFIG_BYTES_MAX;
use crate::portfolio::config::{PortfolioConfig, without_path};

/// What every environment variable that means the node begins with.
const PREFIX: &str = "ROCKPOOL_";
/// The variable of the command line's token: no option of a node.
const TOKEN: &str = "ROCKPOOL_TOKEN";
/// The variable that names the configuration file.
const CONFIG: &str = "ROCKPOOL_CONFIG";

/// Options from all places, the nearer over the farther, and where each came from.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// What was said.
    pub options: Options,
    /// What should be told to the user, though it hinders nothing.
    pub warning: Option<String>,
    from: BTreeMap<&'static str, String>,
}

impl Layers {
    /// Puts flags over environment variables over a file. Without `--config` a variable may name the file.
    pub fn new(flags: Options, file: Option<&Path>, vars: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Layers, ConfigError> {
        let vars: Vec<_> = vars.into_iter().filter_map(ours).collect();
        let named = vars.iter().find(|(name, _)| name == CONFIG).map(|(_, file)| Path::new(file));
        let mut layers = match file.or(named) {
            Some(file) => read(file)?,
            None => Layers::default(),
        };
        let mut environment = Layers::default();
        for (name, value) in &vars {
            environment.hear(name, value.clone())?;
        }
        layers.put_over(environment);
        let from = |flag: &'static Flag| (flag.name, format!("--{}", flag.name));
        layers.put_over(Layers { options: flags, from: keys().map(from).collect(), warning: None });
        Ok(layers)
    }

    /// Takes one environment variable.
    fn hear(&mut self, name: &str, value: OsString) -> Result<(), ConfigError> {
        if name == CONFIG || name == TOKEN {
            return Ok(());
        }
        let Some(flag) = keys().find(|flag| flag.variable() == name) else {
            let known: Vec<_> = keys().map(Flag::variable).chain([CONFIG.into(), TOKEN.into()]).collect();
            let what = format!("unknown environment variable {name}{}", hint(name, known.iter().map(String::as_str), ""));
            return Err(ConfigError::UsageOf(what, "run"));
        };
        let mistake = |what: String| ConfigError::UsageOf(format!("{name}: {what}"), "run");
        if flag.takes == Takes::Nothing {
            let on = match value.to_string_lossy().to_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => true,
                "false" | "no" | "off" | "0" => false,
                other => return Err(mistake(format!("{other:?} is neither true nor false"))),
            };
            if let Some(Slot::Switch(slot)) = self.options.slot(flag.name) {
                *slot = Some(on);
            }
        } else if flag.many {
            let text = value.to_str().ok_or_else(|| mistake(format!("{value:?} is not text")))?;
            for one in split(flag, text) {
                self.options.put(flag, one.into()).map_err(mistake)?;
            }
        } else {
            self.options.put(flag, value).map_err(mistake)?;
        }
        self.from.insert(flag.name, format!("environment, {name}"));
        Ok(())
    }

    /// Puts what another says over this. A list replaces the whole list.
    fn put_over(&mut self, mut upper: Layers) {
        for flag in keys() {
            let said = match (self.options.slot(flag.name), upper.options.slot(flag.name)) {
                (Some(Slot::Text(under)), Some(Slot::Text(over))) => replace(under, over),
                (Some(Slot::Path(under)), Some(Slot::Path(over))) => replace(under, over),
                (Some(Slot::Switch(under)), Some(Slot::Switch(over))) => replace(under, over),
                (Some(Slot::Number(under)), Some(Slot::Number(over))) => replace(under, over),
                (Some(Slot::List(under)), Some(Slot::List(over))) if !over.is_empty() => {
                    *under = std::mem::take(over);
                    true
                }
                _ => false,
            };
            if let (true, Some(from)) = (said, upper.from.remove(flag.name)) {
                self.from.insert(flag.name, from);
            }
        }
    }

    /// `--print-config`: the effective configuration as a file would say it, passwords hidden, and where each value came from.
    pub fn describe(&self, config: &Config) -> String {
        let mut effective = effective(&self.options, config);
        let mut text = String::new();
        for flag in keys() {
            let value = match effective.slot(flag.name) {
                Some(Slot::Text(Some(_))) if flag.name == "coingecko-key" => quoted("***"),
                Some(Slot::Text(Some(value))) => quoted(value),
                Some(Slot::Path(Some(path))) => quoted(&path.to_string_lossy()),
                Some(Slot::Switch(Some(on))) => on.to_string(),
                Some(Slot::Number(Some(number))) => number.to_string(),
                Some(Slot::List(list)) => {
                    // The URL of a chain's endpoint may hold a key.
                    let hide = if flag.name == "evm" { without_path } else { without_password };
                    format!("[{}]", list.iter().map(|value| quoted(&hide(value))).collect::<Vec<_>>().join(", "))
                }
                _ => {
                    let _ = writeln!(text, "# {} is not set", flag.name);
                    continue;
                }
            };
            let from = self.from.get(flag.name).map_or("default", String::as_str);
            let _ = writeln!(text, "{:<60} # {from}", format!("{} = {value}", flag.name));
        }
        text
    }
}

/// A variable that means the node. An empty one says nothing, as wrappers hand on what was not set.
fn ours((name, value): (OsString, OsString)) -> Option<(String, OsString)> {
    let name = name.into_string().ok()?;
    (name.starts_with(PREFIX) && !value.is_empty()).then_some((name, value))
}

/// A list in one variable: separated by spaces, or by commas where there are none. A rule for firmware has commas of its own.
fn split(flag: &Flag, text: &str) -> Vec<String> {
    let spaced = flag.name == "firmware" || text.trim().contains(char::is_whitespace);
    let parts = text.split(|letter: char| letter.is_whitespace() || (!spaced && letter == ','));
    // `a, b` is what people write too.
    let parts = parts.map(|part| if flag.name == "firmware" { part } else { part.trim_matches(',') });
    parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn replace<T>(under: &mut Option<T>, over: &mut Option<T>) -> bool {
    let some = over.is_some();
    if some {
        *under = over.take();
    }
    some
}

/// Reads a configuration file.
fn read(file: &Path) -> Result<Layers, ConfigError> {
    let name = file.display().to_string();
    let unreadable = |why: String| ConfigError::Unreadable { file: name.clone(), why };
    let opened = File::open(file).map_err(|error| unreadable(error.to_string()))?;
    let mode = opened.metadata().map_or(0, |about| about.permissions().mode());
    let mut text = String::new();
    // Whatever it is, a device without an end too.
    opened.take(CONFIG_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| unreadable(error.to_string()))?;
    if text.len() as u64 > CONFIG_BYTES_MAX {
        return Err(unreadable(format!("a configuration has at most {CONFIG_BYTES_MAX} bytes")));
    }
    let line = |at: usize| text[..at.min(text.len())].matches('\n').count() + 1;
    let mistake = |at, why: String| ConfigError::File { file: format!("{name}, line {}", line(at)), why: one_line(&why) };
    let table = DeTable::parse(&text).map_err(|error| mistake(error.span().map_or(0, |span| span.start), error.message().into()))?;
    let mut layers = Layers::default();
    for (key, value) in table.get_ref() {
        let word: &str = key.get_ref();
        let Some(flag) = keys().find(|flag| flag.name == word) else {
            let why = format!("unknown key {word:?}{}", hint(word, keys().map(|flag| flag.name), ""));
            return Err(mistake(key.span().start, format!("{why}; rockpool help run lists all")));
        };
        take(&mut layers.options, flag, value.get_ref()).map_err(|why| mistake(value.span().start, why))?;
        layers.from.insert(flag.name, format!("{name}, line {}", line(key.span().start)));
    }
    let secrets = [
        ("bitcoind's password", layers.options.bitcoind.iter().any(|url| url.contains('@'))),
        ("CoinGecko's key", layers.options.coingecko_key.is_some()),
        ("an endpoint that may be yours alone", layers.options.evm.iter().any(|url| without_path(url) != *url)),
    ];
    if let Some((what, _)) = secrets.into_iter().find(|(_, held)| *held && mode & 0o004 != 0) {
        layers.warning = Some(format!("{name} holds {what} and everybody on this machine may read it: chmod 640 {name}"));
    }
    Ok(layers)
}

/// Takes a key's value. What would do otherwise.
fn take(options: &mut Options, flag: &Flag, value: &DeValue<'_>) -> Result<(), String> {
    let wanted = match options.slot(flag.name) {
        Some(Slot::Text(slot)) => match value.as_str() {
            Some(text) => return put(slot, text.to_owned()),
            None => "text in quotes",
        },
        Some(Slot::Path(slot)) => match value.as_str() {
            Some(text) => return put(slot, text.into()),
            None => "a path in quotes",
        },
        Some(Slot::Switch(slot)) => match value.as_bool() {
            Some(on) => return put(slot, on),
            None => "true or false",
        },
        Some(Slot::Number(slot)) => {
            match value.as_integer().and_then(|number| u64::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok()) {
                Some(number) => return put(slot, number),
                None => "a whole number that is not negative",
            }
        }
        Some(Slot::List(slot)) => {
            let texts = value.as_array().and_then(|all| all.iter().map(|one| one.get_ref().as_str().map(str::to_owned)).collect());
            match texts {
                Some(texts) => {
                    *slot = texts;
                    return Ok(());
                }
                None => "a list of texts",
            }
        }
        None => return Err(format!("{} is in the table of flags, but not in the configuration", flag.name)),
    };
    Err(format!("{} takes {wanted}, like {} = {}, and not this {}", flag.name, flag.name, flag.sample, value.type_str()))
}

fn put<T>(slot: &mut Option<T>, value: T) -> Result<(), String> {
    *slot = Some(value);
    Ok(())
}

/// The options with the defaults that a checked configuration has in their places.
fn effective(options: &Options, config: &Config) -> Options {
    let listens = |addr: std::net::SocketAddr| Some(addr.to_string());
    Options {
        network: Some(config.network.name().into()),
        datadir: Some(config.datadir.clone()),
        p2p: config.p2p.and_then(listens),
        stratum: listens(config.stratum),
        http: listens(config.http),
        solo: Some(options.solo == Some(true)),
        standalone: Some(options.standalone == Some(true)),
        alone: Some(config.alone),
        propose: Some(options.propose == Some(true)),
        max_peers: Some(config.max_peers as u64),
        portfolios: Some(config.portfolios.is_some()),
        ..config.portfolios.as_ref().map_or_else(|| options.clone(), |portfolios| with_portfolios(options, portfolios))
    }
}

/// The same for those of portfolios, where they are on.
fn with_portfolios(options: &Options, config: &PortfolioConfig) -> Options {
    Options {
        currency: config.currencies.clone(),
        coingecko: Some(config.coingecko.clone()),
        okx: Some(config.okx.clone()),
        evm: config.chains.iter().map(|(chain, url)| format!("{}={url}", chain.name)).collect(),
        ..options.clone()
    }
}

/// A URL without the password in it.
fn without_password(value: &str) -> String {
    let Some((scheme, rest)) = value.split_once("://") else { return value.into() };
    let Some((who, host)) = rest.rsplit_once('@') else { return value.into() };
    let user = who.split(':').next().unwrap_or_default();
    format!("{scheme}://{user}:***@{host}")
}

/// A text as TOML writes it.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            letter if letter.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(letter));
            }
            letter => out.push(letter),
        }
    }
    out + "\""
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;

    use super::*;

    fn vars(of: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        of.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
    }

    fn file(text: &str, mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    fn says(of: &[(&str, &str)]) -> Result<Options, String> {
        Layers::new(Options::default(), None, vars(of)).map(|layers| layers.options).map_err(|error| error.to_string())
    }

    #[test]
    fn the_nearer_wins_and_is_told() {
        let text = "network = \"regtest\"\n\nstratum = \"127.0.0.1:1\"\nhttp = \"127.0.0.1:2\"\npeer = [\"1.1.1.1\"]\nmax-peers = 0x10\n";
        let file = file(text, 0o600);
        let flags = Options { stratum: Some("127.0.0.1:9".into()), ..Options::default() };
        let vars = vars(&[("ROCKPOOL_STRATUM", "127.0.0.1:7"), ("ROCKPOOL_HTTP", "127.0.0.1:8"), ("ROCKPOOL_SOLO", ""), ("PATH", "/bin")]);
        let layers = Layers::new(flags.clone(), Some(file.path()), vars.clone()).unwrap();
        let config = layers.config(Some(Path::new("/home/nobody"))).unwrap();
        assert_eq!((config.stratum.port(), config.http.port(), config.max_peers), (9, 8, 16));
        let said = layers.describe(&config);
        let name = file.path().display();
        for line in [
            format!("network = \"regtest\" # {name}, line 1"),
            "datadir = \"/home/nobody/.rockpool/regtest\" # default".into(),
            "# bitcoind-cookie is not set".into(),
            "stratum = \"127.0.0.1:9\" # --stratum".into(),
            "http = \"127.0.0.1:8\" # environment, ROCKPOOL_HTTP".into(),
            format!("peer = [\"1.1.1.1\"] # {name}, line 5"),
            "alone = true # default".into(),
        ] {
            let found = said.lines().any(|said| said.split_whitespace().collect::<Vec<_>>().join(" ") == line);
            assert!(found, "no {line:?} in\n{said}");
        }
        // What it prints is a configuration again, and the same one.
        let again = self::file(&said, 0o600);
        let printed = Layers::new(Options::default(), Some(again.path()), []).unwrap();
        assert_eq!(printed.config(None).unwrap(), config);
        // A variable may name the file.
        let named = [vars, self::vars(&[("ROCKPOOL_CONFIG", file.path().to_str().unwrap())])].concat();
        assert_eq!(Layers::new(flags, None, named).unwrap().options, layers.options);
    }

    #[test]
    fn variables_are_read_as_people_write_them() {
        let options = says(&[
            ("ROCKPOOL_BITCOIND", "http://u:p@a http://u:p,q@b:1"),
            ("ROCKPOOL_BITCOIN_PEER", "1.1.1.1,2.2.2.2"),
            ("ROCKPOOL_PEER", "3.3.3.3, 4.4.4.4"),
            ("ROCKPOOL_FIRMWARE", "bitaxe=12,front nerd=1"),
            ("ROCKPOOL_ALONE", "Yes"),
            ("ROCKPOOL_PROPOSE", "0"),
            ("ROCKPOOL_MAX_PEERS", "7"),
            ("ROCKPOOL_TOKEN", "x"),
        ]);
        let texts = |of: &[&str]| of.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let wanted = Options {
            bitcoind: texts(&["http://u:p@a", "http://u:p,q@b:1"]),
            bitcoin_peer: texts(&["1.1.1.1", "2.2.2.2"]),
            peer: texts(&["3.3.3.3", "4.4.4.4"]),
            firmware: texts(&["bitaxe=12,front", "nerd=1"]),
            alone: Some(true),
            propose: Some(false),
            max_peers: Some(7),
            ..Options::default()
        };
        assert_eq!(options, Ok(wanted));
        for (name, value, wrong) in [
            ("ROCKPOOL_STRATUN", "1", "unknown environment variable ROCKPOOL_STRATUN; did you mean ROCKPOOL_STRATUM?"),
            ("ROCKPOOL_SOLO", "maybe", "ROCKPOOL_SOLO: \"maybe\" is neither true nor false"),
            ("ROCKPOOL_MAX_PEERS", "many", "ROCKPOOL_MAX_PEERS: \"many\" is not a whole number"),
            ("ROCKPOOL_RESYNC", "1", "unknown environment variable ROCKPOOL_RESYNC"),
        ] {
            let said = says(&[(name, value)]).unwrap_err();
            assert!(said.starts_with(wrong) && said.ends_with("; see rockpool help run"), "{said:?}");
        }
    }

    #[test]
    fn a_wrong_key_or_type_is_named_with_what_would_do() {
        for (text, wrong) in [
            (
                "network = \"regtest\"\nstratun = \"x\"",
                "line 2: unknown key \"stratun\"; did you mean stratum?; rockpool help run lists all",
            ),
            ("max_peers = 3", "line 1: unknown key \"max_peers\"; did you mean max-peers?"),
            ("\nstratum = 3333", "line 2: stratum takes text in quotes, like stratum = \"0.0.0.0:3333\", and not this integer"),
            ("solo = \"yes\"", "solo takes true or false, like solo = false, and not this string"),
            ("max-peers = -4", "max-peers takes a whole number that is not negative, like max-peers = 1000"),
            ("peer = \"1.2.3.4\"", "peer takes a list of texts, like peer = [\"192.0.2.7:9333\"], and not this string"),
            ("peer = [1]", "peer takes a list of texts"),
            ("[http]\nport = 1", "http takes text in quotes"),
            ("datadir = true", "datadir takes a path in quotes"),
        ] {
            let file = file(text, 0o600);
            let said = Layers::new(Options::default(), Some(file.path()), []).unwrap_err().to_string();
            assert!(said.contains(wrong) && !said.contains('\n'), "{said:?} lacks {wrong:?}");
        }
    }

    #[test]
    fn a_password_is_hidden_and_one_that_all_may_read_is_warned_of() {
        let with = "network = \"regtest\"\nbitcoind = [\"http://rock:s@cret@127.0.0.1:18443\"]\n";
        let read = |text: &str, mode| Layers::new(Options::default(), Some(file(text, mode).path()), []).unwrap();
        assert!(read(with, 0o644).warning.unwrap().ends_with(|_| true));
        assert!(read(with, 0o640).warning.is_none() && read("bitcoind = [\"http://127.0.0.1\"]", 0o644).warning.is_none());
        let layers = read(with, 0o644);
        assert!(layers.warning.as_deref().unwrap().contains("chmod 640 "));
        let said = layers.describe(&layers.config(Some(Path::new("/h"))).unwrap());
        assert!(said.contains("[\"http://rock:***@127.0.0.1:18443\"]") && !said.contains("cret"), "{said}");
    }

    #[test]
    fn portfolios_are_printed_with_their_defaults_and_without_keys() {
        let text =
            "network = \"regtest\"\nportfolios = true\ncoingecko-key = \"CG-hush\"\nevm = [\"base=https://rpc.example.org/v3/hush\"]\n";
        let read = |text: &str, mode| Layers::new(Options::default(), Some(file(text, mode).path()), []).unwrap();
        let layers = read(text, 0o600);
        let config = layers.config(Some(Path::new("/h"))).unwrap();
        let said = layers.describe(&config);
        for line in [
            "coingecko-key = \"***\"",
            "\"base=https://rpc.example.org/***\"",
            "currency = [\"usd\", \"eur\", \"btc\"]",
            "portfolios = true",
        ] {
            assert!(said.contains(line), "no {line} in\n{said}");
        }
        assert!(!said.contains("hush") && !format!("{config:?}").contains("hush"), "{said}\n{config:?}");
        assert!(read(text, 0o644).warning.unwrap().contains("holds CoinGecko's key"));
        assert!(
            read("evm = [\"base=https://h/key\"]", 0o644).warning.is_some() && read("evm = [\"base=https://h\"]", 0o644).warning.is_none()
        );
        // What hides nothing is a configuration again, and the same one.
        let on = Options { portfolios: Some(true), network: Some("regtest".into()), ..Options::default() };
        let layers = Layers::new(on, None, []).unwrap();
        let config = layers.config(Some(Path::new("/h"))).unwrap();
        let shown = layers.describe(&config).replace("/***", "");
        let again = read(&shown, 0o600).config(None).unwrap();
        assert_eq!(again, config);
    }

    /// Every option is in the table, and every key of the table is an option: `Options` shows its fields by name.
    #[test]
    fn the_table_has_every_option() {
        let fields = format!("{:?}", Options::default());
        let fields: Vec<String> =
            fields.split([' ', '{']).filter_map(|word| word.strip_suffix(':')).map(|word| word.replace('_', "-")).collect();
        let mut known: Vec<&str> = keys().map(|flag| flag.name).collect();
        assert!(known.iter().all(|name| Options::default().slot(name).is_some()), "{known:?}");
        known.sort_unstable();
        let mut fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        fields.sort_unstable();
        assert_eq!(known, fields);
    }
}
