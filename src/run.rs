//! `rockpool run`, a node of its own, and `rockpool status`, the question how it is.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{RecvTimeoutError, bounded};
use rockpool_net::reactor::Heartbeat;
use rockpool_store::kv::Kv;
use serde_json::Value;

use crate::assemble::{self, Stopper};
use crate::config::{Config, HTTP_PORT, http_address};
use crate::exit::Failure;
use crate::http::{ask, blocks};
use crate::limits::{METER_LINE_EVERY, WATCH_EVERY};
use crate::logging;
use crate::peer::minutes;
use crate::signals::{Pulse, Signals};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Runs a node on the calling thread until a signal, or its own fault, ends it. Its addresses are told to `out`.
pub fn run(config: &Config, kv: Arc<dyn Kv>, signals: Signals, out: &mut impl Write) -> Result<(), Failure> {
    let node = patiently(|| {
        let bitcoin = assemble::bitcoin(config, &*kv)?;
        assemble::build(config, kv, bitcoin)
    })?;
    let listen = node.listen();
    let (name, memory) = (config.network, node.worst_case_bytes() >> 20);
    let data = config.datadir.display();
    say(out, &format!("rockpool {VERSION} on {name}, data in {data}, connections take at most {memory} MiB of memory"));
    for (what, addr) in [("p2p", listen.p2p), ("stratum", listen.stratum), ("http", listen.http)] {
        if let Some(addr) = addr {
            say(out, &format!("{what} {addr}"));
        }
    }
    if let (Some(stratum), Some(http)) = (listen.stratum, listen.http) {
        let here = if http.ip().is_unspecified() { SocketAddr::from(([127, 0, 0, 1], http.port())) } else { http };
        log::info!("miners connect to port {} with your Bitcoin address as user name; the dashboard is http://{here}/", stratum.port());
    }
    let _address = listen.http.map(|addr| AddressFile::write(&config.datadir, addr)).transpose()?;
    watch(signals, node.heartbeat(), node.stopper()).map_err(|error| Failure::Fault(format!("cannot start a thread: {error}")))?;
    node.run()
}

/// A large chain on a slow disk takes its time: says now and then that it is being read.
fn patiently<T>(work: impl FnOnce() -> T) -> T {
    let (working, ended) = bounded::<()>(0);
    let tell = move || {
        let mut seconds = 0;
        while ended.recv_timeout(METER_LINE_EVERY) == Err(RecvTimeoutError::Timeout) {
            seconds += METER_LINE_EVERY.as_secs();
            log::info!("starting for {seconds} s: the share chain is being read");
        }
    };
    thread::scope(|scope| {
        // Without the thread it is only quiet.
        let _ = thread::Builder::new().name("patience".into()).spawn_scoped(scope, tell);
        let done = work();
        drop(working);
        done
    })
}

/// Prints a line at once. A reader that has gone away is no reason to stop.
fn say(out: &mut impl Write, line: &str) {
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// `DIR/http`, where the node's HTTP address stands while it runs.
struct AddressFile(PathBuf);

impl AddressFile {
    fn write(dir: &Path, addr: SocketAddr) -> Result<AddressFile, Failure> {
        let (file, new) = (dir.join("http"), dir.join("http.new"));
        // Whoever reads it sees all of it or nothing.
        let written = fs::write(&new, format!("{addr}\n")).and_then(|()| fs::rename(&new, &file));
        written.map_err(|error| Failure::Mistake(format!("cannot write {}: {error}", file.display())))?;
        Ok(AddressFile(file))
    }
}

impl Drop for AddressFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The thread that hears signals and watches the reactor. It ends with the process.
fn watch(mut signals: Signals, heartbeat: Heartbeat, stopper: Stopper) -> io::Result<()> {
    let body = move || {
        let mut pulse = Pulse::of(&heartbeat);
        let mut wanted = false;
        loop {
            crate::process::look();
            wanted |= signals.wait(WATCH_EVERY);
            if wanted && stopper.stop() {
                wanted = false;
            } else if pulse.lost() {
                die("the node stands still: a turn took over 10 s, or the end over 40 s; this is a defect, please report it");
            }
        }
    };
    thread::Builder::new().name("watch".into()).spawn(body).map(drop)
}

/// Ends the process at once, for a reactor that cannot end it any more.
#[expect(clippy::disallowed_methods, reason = "the main thread is the one that hangs")]
fn die(why: &str) -> ! {
    log::error!("{why}");
    logging::flush();
    process::exit(3);
}

/// Asks a running node how it is, and tells it as JSON or for a person.
pub fn status(json: bool, datadir: Option<&Path>, http: Option<&str>, out: &mut impl Write) -> Result<(), Failure> {
    let addr = node(datadir, http)?;
    let silent = |why: String| Failure::Mistake(format!("no Rockpool node answers at {addr} ({why}): is it running?"));
    let (code, body) = ask::get(addr, "/api/v1/status").map_err(|error| silent(error.to_string()))?;
    let status: Value = serde_json::from_str(&body).map_err(|_| silent(format!("HTTP {code}, but no status")))?;
    let text = if json { body } else { describe(&ask::plain(status)) };
    let _ = writeln!(out, "{}", text.trim_end());
    Ok(())
}

/// Where a node answers: the one that runs on this data directory, or listens at this address, or at the usual one.
pub fn node(datadir: Option<&Path>, http: Option<&str>) -> Result<SocketAddr, Failure> {
    match (datadir, http) {
        (Some(dir), _) => find(dir),
        (None, Some(addr)) => Ok(http_address(addr)?),
        (None, None) => Ok(SocketAddr::from(([127, 0, 0, 1], HTTP_PORT))),
    }
}

/// Where the node that runs on this data directory answers.
fn find(dir: &Path) -> Result<SocketAddr, Failure> {
    let file = dir.join("http");
    let text = fs::read_to_string(&file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Failure::Mistake(format!("no node runs on data directory {}", dir.display())),
        _ => Failure::Mistake(format!("cannot read {}: {error}", file.display())),
    })?;
    text.trim().parse().map_err(|_| Failure::Mistake(format!("{} holds no address", file.display())))
}

/// The status for a person.
fn describe(status: &Value) -> String {
    let text = |path: &str| match status.pointer(path) {
        None | Some(Value::Null) => "-".to_string(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    };
    let rows = [
        ("network", format!("{}, version {}", text("/network"), text("/version"))),
        ("mode", if status["mode"] == "solo" { "solo: a block pays whoever finds it".into() } else { text("/mode") }),
        ("share chain", format!("height {}, tip {}", text("/tip/height"), text("/tip/id"))),
        ("under way", works(&status["progress"])),
        ("bitcoin", format!("height {}, tip {}", text("/bitcoin/height"), text("/bitcoin/tip"))),
        ("bitcoin nodes", nodes(&status["bitcoin"]["peers"])),
        ("peers", text("/peers")),
        ("miners", text("/miners")),
        ("submits", format!("{} accepted, {} refused", text("/shares/accepted"), text("/shares/rejected"))),
        ("blocks found", text("/blocks_found")),
        ("listens", format!("p2p {}, stratum {}, http {}", text("/listen/p2p"), text("/listen/stratum"), text("/listen/http"))),
        ("running for", format!("{} s", text("/uptime_s"))),
        ("trouble", text("/trouble")),
    ];
    let without_chain = status["mode"] == "solo" || status["mode"] == "standalone";
    let shown = rows.iter().filter(|(name, text)| match *name {
        "mode" => without_chain,
        "share chain" | "peers" => !without_chain,
        "trouble" => text != "-",
        "bitcoin nodes" | "under way" => !text.is_empty(),
        _ => true,
    });
    let rows: String = shown.map(|(name, text)| format!("{name:<16}{text}\n")).collect();
    rows + &blocks::newest_first(&status["blocks"])
}

/// Long work, one below the other.
fn works(works: &Value) -> String {
    let work = |work: &Value| {
        let (what, unit) = (work["what"].as_str().unwrap_or("-"), work["unit"].as_str().unwrap_or("-"));
        let left = work["seconds_left"].as_u64().map_or(String::new(), |seconds| format!(", {} left", minutes(seconds)));
        format!("{what}: {} of {} {unit}{left}", work["done"], work["of"])
    };
    let works: Vec<_> = works.as_array().into_iter().flatten().map(work).collect();
    works.join(&format!("\n{:16}", ""))
}

/// Nodes of Bitcoin's own network, one below the other.
fn nodes(nodes: &Value) -> String {
    let node = |node: &Value| {
        let text = |name: &str| node[name].as_str().unwrap_or("-").to_owned();
        let up = minutes(node["up_s"].as_u64().unwrap_or(0));
        format!("{} {}, height {}, up for {up}", text("addr"), text("agent"), node["height"].as_u64().unwrap_or(0))
    };
    let nodes: Vec<_> = nodes.as_array().into_iter().flatten().map(node).collect();
    nodes.join(&format!("\n{:16}", ""))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(datadir: Option<&Path>, http: Option<&str>) -> String {
        let failure = status(false, datadir, http, &mut Vec::new()).unwrap_err();
        assert_eq!(failure.code(), 2);
        failure.to_string()
    }

    #[test]
    fn a_node_that_is_not_there_is_one_line() {
        let dir = tempfile::tempdir().unwrap();
        assert!(asked(Some(dir.path()), None).starts_with("no node runs on data directory "));
        fs::write(dir.path().join("http"), "nonsense").unwrap();
        assert!(asked(Some(dir.path()), None).ends_with("/http holds no address"));
        // Port 1 of loopback: nobody may listen there without being root, and nobody does.
        fs::write(dir.path().join("http"), "127.0.0.1:1\n").unwrap();
        let said = asked(Some(dir.path()), None);
        assert!(said.starts_with("no Rockpool node answers at 127.0.0.1:1 (") && said.ends_with("is it running?"), "{said}");
        assert!(asked(None, Some("nowhere")).starts_with("--http: \"nowhere\" is no address"));
    }

    #[test]
    fn the_address_file_lives_as_long_as_the_node() {
        let dir = tempfile::tempdir().unwrap();
        let addr = "127.0.0.1:4711".parse().unwrap();
        let file = AddressFile::write(dir.path(), addr).unwrap();
        assert_eq!(find(dir.path()).unwrap(), addr);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        drop(file);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn people_are_told_what_matters() {
        let mut status = json!({
            "network": "regtest", "version": "0.1.0", "tip": {"id": "ab", "height": 7, "score": 1},
            "candidate_height": 7, "claimed_height": null,
            "peers": 2, "miners": 1, "shares": {"accepted": 5, "rejected": 1}, "blocks_found": 3, "bitcoin": {"tip": null, "height": null},
            "listen": {"p2p": "1.2.3.4:5", "stratum": "1.2.3.4:6", "http": null}, "uptime_s": 9, "trouble": null
        });
        let said = describe(&status);
        assert!(said.contains("share chain     height 7, tip ab\n") && said.contains("submits         5 accepted, 1 refused\n"), "{said}");
        assert!(!said.contains("trouble") && !said.contains("under way"), "{said}");
        let node = |addr: &str| json!({"addr": addr, "agent": "/Satoshi:30.0.0/", "height": 9, "up_s": 60});
        status["bitcoin"]["peers"] = json!([node("1.2.3.4:8333"), node("5.6.7.8:8333")]);
        let nodes = "bitcoin nodes   1.2.3.4:8333 /Satoshi:30.0.0/, height 9, up for 60 s\n                5.6.7.8:8333 ";
        assert!(describe(&status).contains(nodes), "{}", describe(&status));
        status["bitcoin"]["peers"] = json!([]);
        status["blocks"] = json!([{"height": 5, "found_by": "miner", "name": "bob"}, {"height": 6, "state": "stale"}]);
        let told = describe(&status);
        assert!(told.starts_with(&said) && told[said.len()..].starts_with("\nfound blocks, newest first\n"), "{told}");
        let places = ["height 6, ", "stale: ", "height 5, ", "found by miner bob"].map(|text| told.find(text));
        assert!(places.is_sorted() && places[0].is_some(), "{told}");
        let work = |what: &str, left: Value| json!({"what": what, "done": 9, "of": 12, "unit": "shares", "seconds_left": left});
        status["progress"] = json!([work("sync", 70.into()), work("rebuild", Value::Null)]);
        status["trouble"] = "no peer".into();
        let said = describe(&status);
        let works = "under way       sync: 9 of 12 shares, 70 s left\n                rebuild: 9 of 12 shares\n";
        assert!(said.contains(works) && said.contains("trouble         no peer\n"), "{said}");
    }
}
