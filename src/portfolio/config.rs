//! What the operator says of portfolios and of the services outside that they ask, checked.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use rockpool_workers::limits::IN_FLIGHT_MAX;
use rockpool_workers::outside::call::Service;
use rockpool_workers::outside::gate::Limits;

use super::chains::{CHAINS, Chain, by_name};
use crate::config::{ConfigError, Options};
use crate::http::jwks::Identity;
use crate::limits::{BITCOIND_DELAY_MAX, CURRENCIES_MAX, CURRENCY_BYTES_MAX, OUTSIDE_DELAY_MAX, OUTSIDE_TEXT_BYTES_MAX};

/// Currencies in which values are told unless the operator names others, the usual one first.
pub const CURRENCIES: [&str; 3] = ["usd", "eur", "btc"];
/// CoinGecko's API for everybody.
pub const COINGECKO: &str = "https://api.coingecko.com/api/v3";
/// OKX.
pub const OKX: &str = "https://www.okx.com";

/// What `--portfolios` and its like come to. Its `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct PortfolioConfig {
    /// Currencies of prices, CoinGecko's codes, in small letters; the first is the usual one.
    pub currencies: Vec<String>,
    /// The file of the key that secrets of accounts are sealed with. Without it no account takes a secret.
    pub key_file: Option<PathBuf>,
    /// Prices: the beginning of every URL, without a slash at its end. So are the others.
    pub coingecko: String,
    /// What CoinGecko knows the operator by.
    pub coingecko_key: Option<String>,
    /// Balances at OKX.
    pub okx: String,
    /// Where each chain is asked: all chains that are known, by id.
    pub chains: Vec<(&'static Chain, String)>,
    /// How services are asked where it is not as usual.
    pub limits: Vec<(Service, Limits)>,
    /// Whose tokens are taken beside the node's own.
    pub identity: Option<Identity>,
}

impl fmt::Debug for PortfolioConfig {
    /// An endpoint of a chain may hold a key, behind its host.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chains: Vec<_> = self.chains.iter().map(|(chain, url)| (chain.name, without_path(url))).collect();
        f.debug_struct("PortfolioConfig")
            .field("currencies", &self.currencies)
            .field("key_file", &self.key_file)
            .field("coingecko", &self.coingecko)
            .field("coingecko_key", &self.coingecko_key.as_ref().map(|_| "***"))
            .field("okx", &self.okx)
            .field("chains", &chains)
            .field("limits", &self.limits)
            .field("identity", &self.identity)
            .finish()
    }
}

impl Default for PortfolioConfig {
    fn default() -> PortfolioConfig {
        PortfolioConfig {
            currencies: CURRENCIES.map(str::to_owned).into(),
            key_file: None,
            coingecko: COINGECKO.into(),
            coingecko_key: None,
            okx: OKX.into(),
            chains: CHAINS.iter().map(|chain| (chain, chain.url.to_owned())).collect(),
            limits: Vec::new(),
            identity: None,
        }
    }
}

impl PortfolioConfig {
    /// What the options say of portfolios; `None` if they are off.
    pub fn new(options: &Options) -> Result<Option<PortfolioConfig>, ConfigError> {
        if options.portfolios != Some(true) {
            return given(options).map_or(Ok(None), |flag| Err(ConfigError::NeedsPortfolios(flag)));
        }
        checked(options).map(Some).map_err(ConfigError::Portfolios)
    }

    /// What the operator should know: services that are asked in the clear, over a network.
    pub fn warnings(&self) -> Vec<String> {
        let jwks = self.identity.as_ref().map(|identity| ("--jwt-jwks", &identity.jwks));
        let evm = self.chains.iter().map(|(_, url)| ("--evm", url));
        let all = [("--coingecko", &self.coingecko), ("--okx", &self.okx)].into_iter().chain(evm).chain(jwks);
        let clear = all.filter(|(_, url)| url.starts_with("http://") && !is_loopback(host(url)));
        clear.map(|(flag, url)| format!("{flag} {}: without https whoever is on the way reads and changes it", without_path(url))).collect()
    }
}

/// The first flag that says something of portfolios.
fn given(options: &Options) -> Option<&'static str> {
    let o = options;
    [
        ("--portfolio-key", o.portfolio_key.is_some()),
        ("--currency", !o.currency.is_empty()),
        ("--coingecko", o.coingecko.is_some()),
        ("--coingecko-key", o.coingecko_key.is_some()),
        ("--okx", o.okx.is_some()),
        ("--evm", !o.evm.is_empty()),
        ("--outside", !o.outside.is_empty()),
        ("--jwt-issuer", o.jwt_issuer.is_some()),
        ("--jwt-audience", o.jwt_audience.is_some()),
        ("--jwt-jwks", o.jwt_jwks.is_some()),
    ]
    .into_iter()
    .find_map(|(flag, given)| given.then_some(flag))
}

fn checked(options: &Options) -> Result<PortfolioConfig, String> {
    let usual = PortfolioConfig::default();
    let url_or = |flag, given: &Option<String>, usual| given.as_ref().map_or(Ok(usual), |given| url(flag, given));
    let mut chains = usual.chains;
    let mut named = Vec::new();
    for text in &options.evm {
        let known = || CHAINS.iter().map(|chain| chain.name).collect::<Vec<_>>().join(", ");
        let (name, at) = text.split_once('=').ok_or_else(|| "--evm: give CHAIN=URL, like ethereum=http://127.0.0.1:8545".to_owned())?;
        let chain = by_name(name).ok_or_else(|| format!("--evm: {name:?} is no chain that is known: choose one of {}", known()))?;
        once("--evm", name, &mut named)?;
        let at = url("--evm", at)?;
        chains.iter_mut().filter(|(of, _)| of.id == chain.id).for_each(|(_, url)| url.clone_from(&at));
    }
    Ok(PortfolioConfig {
        currencies: currencies(&options.currency)?,
        key_file: options.portfolio_key.clone(),
        coingecko: url_or("--coingecko", &options.coingecko, usual.coingecko)?,
        coingecko_key: options.coingecko_key.as_deref().map(|key| word("--coingecko-key", key)).transpose()?,
        okx: url_or("--okx", &options.okx, usual.okx)?,
        chains,
        limits: limits(&options.outside)?,
        identity: identity(options)?,
    })
}

fn currencies(given: &[String]) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    for code in given.iter().map(|code| code.to_ascii_lowercase()) {
        if !(3..=CURRENCY_BYTES_MAX).contains(&code.len()) || !code.bytes().all(|letter| letter.is_ascii_lowercase()) {
            return Err(format!("--currency: {code:?} is no code of a currency: give one like usd, of 3 to {CURRENCY_BYTES_MAX} letters"));
        }
        once("--currency", &code, &mut all)?;
    }
    match all.len() {
        0 => Ok(CURRENCIES.map(str::to_owned).into()),
        many if many > CURRENCIES_MAX => Err(format!("--currency may be given {CURRENCIES_MAX} times")),
        _ => Ok(all),
    }
}

fn limits(given: &[String]) -> Result<Vec<(Service, Limits)>, String> {
    let (mut limits, mut named) = (Vec::new(), Vec::new());
    for text in given {
        let mistake = || {
            let names = Service::ALL.map(Service::name).join(", ");
            format!("--outside: {text:?}: give SERVICE=IN_FLIGHT,DELAY_MS, like coingecko=5,2000; services are {names}")
        };
        let (name, numbers) = text.split_once('=').ok_or_else(mistake)?;
        let (in_flight, delay) = numbers.split_once(',').ok_or_else(mistake)?;
        let service = Service::ALL.into_iter().find(|service| service.name() == name).ok_or_else(mistake)?;
        let (in_flight, delay) = (in_flight.parse().map_err(|_| mistake())?, delay.parse().map_err(|_| mistake())?);
        let delay = Duration::from_millis(delay);
        // The node's own calls go through the same bulkhead, and miners wait for what they bring.
        let delay_max = if service == Service::Bitcoind { BITCOIND_DELAY_MAX } else { OUTSIDE_DELAY_MAX };
        if !(1..=IN_FLIGHT_MAX).contains(&in_flight) || delay > delay_max {
            let most = delay_max.as_millis();
            return Err(format!("--outside: {text:?}: from 1 to {IN_FLIGHT_MAX} calls under way, at most {most} ms apart"));
        }
        once("--outside", name, &mut named)?;
        limits.push((service, Limits { in_flight, delay, ..Limits::of(service) }));
    }
    Ok(limits)
}

fn identity(options: &Options) -> Result<Option<Identity>, String> {
    match (&options.jwt_issuer, &options.jwt_audience, &options.jwt_jwks) {
        (None, None, None) => Ok(None),
        (Some(issuer), Some(audience), Some(jwks)) => {
            // Compared letter by letter with what tokens say, so nothing of it is made up here.
            url("--jwt-issuer", issuer)?;
            let (audience, jwks) = (word("--jwt-audience", audience)?, url("--jwt-jwks", jwks)?);
            Ok(Some(Identity { issuer: issuer.clone(), audience, jwks }))
        }
        _ => Err("--jwt-issuer, --jwt-audience and --jwt-jwks belong together: give all three or none".into()),
    }
}

/// Notes a name, unless it has been given before.
fn once(flag: &str, name: &str, named: &mut Vec<String>) -> Result<(), String> {
    if named.iter().any(|known| known == name) {
        return Err(format!("{flag}: {name} is given twice"));
    }
    named.push(name.to_owned());
    Ok(())
}

/// Text that may stand in a line of a header.
fn word(flag: &str, text: &str) -> Result<String, String> {
    let good = (1..=OUTSIDE_TEXT_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if good { Ok(text.to_owned()) } else { Err(format!("{flag}: give 1 to {OUTSIDE_TEXT_BYTES_MAX} letters, digits and signs of ASCII")) }
}

/// The beginning of URLs. What it was given is not repeated where it may hold a key.
fn url(flag: &str, text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let good = text.len() <= OUTSIDE_TEXT_BYTES_MAX
        && rest.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '['))
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"@?#\"<>\\^`{|}".contains(&byte));
    if good {
        return Ok(text.trim_end_matches('/').to_owned());
    }
    Err(format!("{flag}: give a URL like https://host/path, or http://host:port/path, without user, password, ? and #"))
}

/// The host of such a URL, without its port.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or_default();
    match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        Some((host, _)) => host,
        None => host.split(':').next().unwrap_or_default(),
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A URL without what stands behind its host, which may be a key.
pub fn without_path(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    match rest.split_once('/') {
        Some((host, path)) if !path.is_empty() => format!("{scheme}://{host}/***"),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
impl PortfolioConfig {
    /// Services at which nobody answers: port 1 of this machine.
    pub(crate) fn of_nobody() -> PortfolioConfig {
        let nobody = || "http://127.0.0.1:1".to_owned();
        let chains = CHAINS.iter().map(|chain| (chain, nobody())).collect();
        PortfolioConfig { coingecko: nobody(), okx: nobody(), chains, ..PortfolioConfig::default() }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::cli::table::keys;

    fn on() -> Options {
        Options { portfolios: Some(true), ..Options::default() }
    }

    fn of(options: Options) -> Result<PortfolioConfig, String> {
        PortfolioConfig::new(&options).map(Option::unwrap).map_err(|error| error.to_string())
    }

    fn texts(of: &[&str]) -> Vec<String> {
        of.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn defaults_are_those_of_the_table() {
        let default = |name: &str| keys().find(|flag| flag.name == name).unwrap().default;
        let config = of(on()).unwrap();
        assert_eq!(config, PortfolioConfig::default());
        assert_eq!((config.coingecko.as_str(), config.okx.as_str()), (default("coingecko"), default("okx")));
        assert!(config.chains.len() == CHAINS.len() && config.identity.is_none() && config.warnings().is_empty());
        for off in [None, Some(false)] {
            assert_eq!(PortfolioConfig::new(&Options { portfolios: off, ..Options::default() }), Ok(None));
        }
    }

    #[test]
    fn what_is_said_is_taken() {
        let config = of(Options {
            currency: texts(&["EUR", "sats"]),
            coingecko: Some("http://127.0.0.1:1/api/v3/".into()),
            coingecko_key: Some("CG-1".into()),
            okx: Some("http://[::1]:2".into()),
            evm: texts(&["base=http://localhost:3/v3/key"]),
            outside: texts(&["coingecko=6,60000", "bitcoind=1,100"]),
            jwt_issuer: Some("https://id.example.org/realms/home/".into()),
            jwt_audience: Some("rockpool".into()),
            jwt_jwks: Some("http://192.168.1.9/certs".into()),
            ..on()
        })
        .unwrap();
        assert_eq!(config.currencies, ["eur", "sats"]);
        assert_eq!((config.coingecko.as_str(), config.okx.as_str()), ("http://127.0.0.1:1/api/v3", "http://[::1]:2"));
        assert_eq!(config.chains[3].1, "http://localhost:3/v3/key");
        assert_eq!(config.chains[0].1, CHAINS[0].url);
        let pace = |service, in_flight, ms| (service, Limits { in_flight, delay: Duration::from_millis(ms), ..Limits::of(service) });
        assert_eq!(config.limits, [pace(Service::CoinGecko, 6, 60_000), pace(Service::Bitcoind, 1, 100)]);
        let identity = config.identity.as_ref().unwrap();
        assert_eq!(identity.issuer, "https://id.example.org/realms/home/", "letter by letter");
        // Loopback is no network; another machine of the house is.
        assert_eq!(config.warnings(), ["--jwt-jwks http://192.168.1.9/***: without https whoever is on the way reads and changes it"]);
        let shown = format!("{config:?}");
        assert!(!shown.contains("CG-1") && !shown.contains("key\"") && shown.contains("localhost:3/***"), "{shown}");
    }

    #[test]
    fn every_mistake_says_what_would_do() {
        let many: Vec<String> = ('a'..='i').map(|letter| format!("x{letter}x")).collect();
        assert_eq!(many.len(), CURRENCIES_MAX + 1);
        let long = "x".repeat(OUTSIDE_TEXT_BYTES_MAX + 1);
        let issuer = Some("https://id".to_owned());
        for (options, says) in [
            (Options { currency: texts(&["euro\u{20ac}"]), ..on() }, "--currency: \"euro€\" is no code"),
            (Options { currency: texts(&["usd", "USD"]), ..on() }, "--currency: usd is given twice"),
            (Options { currency: many, ..on() }, "--currency may be given 8 times"),
            (Options { coingecko: Some("api.coingecko.com".into()), ..on() }, "--coingecko: give a URL like https://host/path"),
            (Options { okx: Some("https://user:secret@host".into()), ..on() }, "--okx: give a URL"),
            (Options { okx: Some("https://host/?key=secret".into()), ..on() }, "--okx: give a URL"),
            (Options { okx: Some(format!("https://{long}")), ..on() }, "--okx: give a URL"),
            (Options { okx: Some("https:///x".into()), ..on() }, "--okx: give a URL"),
            (Options { coingecko_key: Some("a b".into()), ..on() }, "--coingecko-key: give 1 to 512 letters"),
            (Options { coingecko_key: Some(long), ..on() }, "--coingecko-key: give 1 to 512 letters"),
            (Options { evm: texts(&["https://host"]), ..on() }, "--evm: give CHAIN=URL"),
            (
                Options { evm: texts(&["solana=https://host"]), ..on() },
                "--evm: \"solana\" is no chain that is known: choose one of ethereum, ",
            ),
            (Options { evm: texts(&["bsc=https://a", "bsc=https://b"]), ..on() }, "--evm: bsc is given twice"),
            (Options { evm: texts(&["bsc=secret"]), ..on() }, "--evm: give a URL"),
            (Options { outside: texts(&["coingecko=5"]), ..on() }, "like coingecko=5,2000"),
            (Options { outside: texts(&["binance=5,1"]), ..on() }, "services are coingecko, okx, evm, identity, bitcoind"),
            (Options { outside: texts(&["okx=0,1"]), ..on() }, "from 1 to 16 calls under way, at most 60000 ms apart"),
            (Options { outside: vec![format!("okx={},1", IN_FLIGHT_MAX + 1)], ..on() }, "from 1 to 16 calls"),
            (Options { outside: vec![format!("okx=1,{}", OUTSIDE_DELAY_MAX.as_millis() + 1)], ..on() }, "from 1 to 16 calls"),
            (Options { outside: vec![format!("bitcoind=4,{}", BITCOIND_DELAY_MAX.as_millis() + 1)], ..on() }, "at most 100 ms apart"),
            (Options { outside: texts(&["okx=1,1", "okx=1,2"]), ..on() }, "--outside: okx is given twice"),
            (Options { jwt_issuer: issuer.clone(), ..on() }, "belong together: give all three or none"),
            (
                Options { jwt_issuer: issuer, jwt_audience: Some("a\nb".into()), jwt_jwks: Some("https://id".into()), ..on() },
                "--jwt-audience: give 1 to",
            ),
        ] {
            let said = of(options).unwrap_err();
            assert!(said.contains(says) && !said.contains("secret") && !said.contains('\n'), "{said:?} lacks {says:?}");
        }
    }

    #[test]
    fn without_portfolios_nothing_is_said_of_them() {
        for flag in keys().skip_while(|flag| flag.name != "portfolios").skip(1) {
            let mut options = Options::default();
            options.put(flag, "x".into()).unwrap();
            let said = PortfolioConfig::new(&options).unwrap_err().to_string();
            assert_eq!(said, format!("--{} is for portfolios: give --portfolios too", flag.name));
        }
    }
}
