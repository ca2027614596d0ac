//! The program: arguments in, one exit code out. 0 done, 2 the user's mistake, 3 the node's own fault.

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use rockpool::cli::{self, Command, HELP};
use rockpool::config::Config;
use rockpool::demo::Demo;
use rockpool::exit::Failure;
use rockpool::signals::Signals;
use rockpool::{logging, run};
use rockpool_store::error::StoreError;
use rockpool_store::kv::Kv;
use rockpool_store::rocks::RocksKv;

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
        Command::Help => say(out, HELP.trim_end()),
        Command::Version => say(out, concat!("rockpool ", env!("CARGO_PKG_VERSION"))),
        Command::Status { json, datadir, http } => run::status(json, datadir.as_deref(), http.as_deref(), out)?,
        Command::Run { flags, config } => {
            let home = env::var_os("HOME").map(PathBuf::from);
            let config = Config::new(*flags, config.as_deref(), home.as_deref())?;
            let signals = start(logging::RUN_LEVELS)?;
            let kv = open(&config.datadir)?;
            run::run(&config, kv, signals, out)?;
        }
        Command::Demo { seconds, datadir } => {
            let mut signals = start(logging::DEMO_LEVELS)?;
            let dir = DemoDir::new(datadir)?;
            let datadirs = ["a", "b"].map(|name| dir.path.join(name));
            let stores = [open(&datadirs[0])?, open(&datadirs[1])?];
            Demo { seconds, stores, datadirs }.run(&mut signals, out)?;
        }
    }
    Ok(())
}

fn start(levels: &str) -> Result<Signals, Failure> {
    logging::start(levels).and_then(|()| Signals::catch()).map_err(|error| Failure::Fault(format!("cannot start: {error}")))
}

/// The rows of a data directory. Errors name the directory that the user gave.
fn open(datadir: &Path) -> Result<Arc<dyn Kv>, Failure> {
    let dir = datadir.display().to_string();
    let kv = RocksKv::open(&datadir.join("chain")).map_err(|error| match error {
        StoreError::InUse(_) => StoreError::InUse(dir),
        StoreError::Open { why, .. } => StoreError::Open { dir, why },
        other => other,
    })?;
    Ok(Arc::new(kv))
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
