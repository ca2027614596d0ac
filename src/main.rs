//! The program: arguments in, one exit code out. 0 done, 2 the user's mistake, 3 the node's own fault.

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use rockpool::cli::{self, Command, Look, help};
use rockpool::config::{self, Config, Layers};
use rockpool::demo::Demo;
use rockpool::exit::Failure;
use rockpool::inspect::{self, Place};
use rockpool::portfolio::config::PortfolioConfig;
use rockpool::signals::Signals;
use rockpool::{logging, run, secret};
use rockpool_store::error::StoreError;
use rockpool_store::kv::Kv;
use rockpool_store::params::Network;
use rockpool_store::rocks::RocksKv;
use rockpool_store::schema;

fn main() -> ExitCode {
    let ended = begin();
    logging::flush();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "rockpool: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

fn begin() -> Result<(), Failure> {
    let out = &mut io::stdout();
    match cli::parse(env::args_os().skip(1))? {
        Command::Help(None) => say(out, help::short().trim_end()),
        Command::Help(Some(verb)) => say(out, &help::of(verb)),
        Command::Completions(shell) => say(out, shell.script().trim_end()),
        Command::Version => say(out, concat!("rockpool ", env!("CARGO_PKG_VERSION"))),
        Command::Status(Look { json, datadir, http }) => match datadir.as_deref().map(|dir| (dir, open_read_only(dir))) {
            Some((dir, Ok(kv))) => inspect::at_rest(&*kv, &dir.display().to_string(), json, out)?,
            // A node has it, or there is nothing: who asks is told which.
            Some((dir, Err(StoreError::InUse(_) | StoreError::Open { .. }))) => run::status(json, Some(dir), None, out)?,
            Some((_, Err(other))) => return Err(other.into()),
            None => run::status(json, None, http.as_deref(), out)?,
        },
        Command::Shares { of, from, count } => inspect::shares(&place(&of)?, from, count, of.json, out)?,
        Command::Payouts(of) => inspect::payouts(&place(&of)?, of.json, out)?,
        Command::Miners { of, address } => inspect::miners(&place(&of)?, address.as_deref(), of.json, out)?,
        Command::Peers { of, asks } => {
            let token = || secret::of_command(of.datadir.as_deref(), env::var("ROCKPOOL_TOKEN").ok());
            inspect::peers(&place(&of)?, &asks, &token, of.json, out)?;
        }
        Command::Token { network, datadir, sub, scope, days } => {
            let network = network.as_deref().map_or(Ok(Network::Main), config::network)?;
            let dir = config::datadir(datadir, network, home().as_deref())?;
            say(out, &secret::token(&dir, &sub, scope, days)?);
        }
        Command::Check { json, network, datadir } => {
            let wanted = network.as_deref().map(config::network).transpose()?;
            let dir = config::datadir(datadir, wanted.unwrap_or(Network::Main), home().as_deref())?;
            inspect::check(open_read_only(&dir), &dir.display().to_string(), wanted, json, out)?;
        }
        Command::Run { flags, config, resync, print } => {
            let layers = Layers::new(*flags, config.as_deref(), env::vars_os())?;
            let mut config = layers.config(home().as_deref())?;
            if print {
                say(out, layers.describe(&config).trim_end());
                return Ok(());
            }
            let signals = start(logging::RUN_LEVELS)?;
            if let Some(warning) = &layers.warning {
                log::warn!("{warning}");
            }
            if resync {
                delete_chain(&config, out)?;
            }
            let kv = open(&config.datadir)?;
            config.secret = Some(secret::load(&config.datadir)?);
            run::run(&config, kv, signals, out)?;
        }
        Command::Demo { seconds, datadir, portfolios } => {
            let mut signals = start(logging::DEMO_LEVELS)?;
            let dir = DemoDir::new(datadir)?;
            let datadirs = ["a", "b"].map(|name| dir.path.join(name));
            let stores = [open(&datadirs[0])?, open(&datadirs[1])?];
            let portfolios = portfolios.then(PortfolioConfig::default);
            Demo { seconds, stores, datadirs, portfolios }.run(&mut signals, out)?;
        }
    }
    Ok(())
}

fn start(levels: &str) -> Result<Signals, Failure> {
    logging::start(levels).and_then(|()| Signals::catch()).map_err(|error| Failure::Fault(format!("cannot start: {error}")))
}

fn home() -> Option<PathBuf> {
    env::var_os("HOME").map(PathBuf::from)
}

/// Where the share chain is in a data directory.
fn chain_dir(datadir: &Path) -> PathBuf {
    datadir.join("chain")
}

/// The rows of a data directory.
fn open(datadir: &Path) -> Result<Arc<dyn Kv>, StoreError> {
    Ok(Arc::new(RocksKv::open(&chain_dir(datadir)).map_err(|error| of_user(datadir, error))?))
}

/// The same, to be read alone.
fn open_read_only(datadir: &Path) -> Result<Arc<dyn Kv>, StoreError> {
    Ok(Arc::new(RocksKv::open_read_only(&chain_dir(datadir)).map_err(|error| of_user(datadir, error))?))
}

/// Errors name the directory that the user gave.
fn of_user(datadir: &Path, error: StoreError) -> StoreError {
    let dir = datadir.display().to_string();
    match error {
        StoreError::InUse(_) => StoreError::InUse(dir),
        StoreError::Open { why, .. } => StoreError::Open { dir, why },
        StoreError::WrongFormat { found, wanted, .. } => StoreError::WrongFormat { dir, found, wanted },
        other => other,
    }
}

/// Where a question about a chain is answered. On a data directory that a node has open it is that node who answers.
fn place(of: &Look) -> Result<Place, Failure> {
    if let Some(dir) = &of.datadir {
        match open_read_only(dir) {
            Ok(kv) => return Ok(Place::Rows { kv, dir: dir.display().to_string() }),
            Err(StoreError::InUse(_)) => {}
            Err(other) => return Err(other.into()),
        }
    }
    Ok(Place::Node(run::node(of.datadir.as_deref(), of.http.as_deref())?))
}

/// `--resync`: the chain's rows go, unless they are known to be another network's. What else is kept stays, found blocks before all, unless
/// the store is too damaged to tell one from the other.
fn delete_chain(config: &Config, out: &mut impl Write) -> Result<(), Failure> {
    let (datadir, dir) = (&config.datadir, chain_dir(&config.datadir));
    if !dir.exists() {
        return Ok(());
    }
    if let Ok(kv) = open_read_only(datadir)
        && let Ok(params) = schema::network(&*kv)
        && params.network != config.network
    {
        let (found, wanted) = (params.name.into(), config.network.name().into());
        return Err(StoreError::WrongNetwork { dir: datadir.display().to_string(), found, wanted }.into());
    }
    let kept = match open(datadir) {
        Err(in_use @ StoreError::InUse(_)) => return Err(in_use.into()),
        opened => opened.and_then(|kv| schema::has_format(&*kv, "").and_then(|_| schema::forget_chain(&*kv))),
    };
    let rest = match kept {
        Ok(()) => "",
        Err(error) => {
            log::warn!("all that was kept beside the share chain is deleted with it: {error}");
            RocksKv::destroy(&dir).map_err(|error| of_user(datadir, error))?;
            ", and all that was kept beside it,"
        }
    };
    say(out, &format!("--resync: the share chain in {}{rest} is deleted and will be fetched anew", datadir.display()));
    Ok(())
}

/// Where a demo keeps its rows: a directory that was given, or one that goes with the demo.
struct DemoDir {
    path: PathBuf,
    temporary: bool,
}

impl DemoDir {
    fn new(given: Option<PathBuf>) -> Result<DemoDir, Failure> {
        if let Some(path) = given {
            return Ok(DemoDir { path, temporary: false });
        }
        // Not guessable, and not there yet: nobody else's.
        let name = getrandom::u64().map_err(|error| Failure::Fault(format!("the system gives no randomness: {error}")))?;
        let path = env::temp_dir().join(format!("rockpool-demo-{name:016x}"));
        std::fs::create_dir(&path)
            .map_err(|error| Failure::Mistake(format!("cannot make {}: {error}; give --datadir DIR", path.display())))?;
        Ok(DemoDir { path, temporary: true })
    }
}

impl Drop for DemoDir {
    fn drop(&mut self) {
        if self.temporary {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// A reader that has gone away is no reason to panic.
fn say(out: &mut impl Write, text: &str) {
    let _ = writeln!(out, "{text}");
}
