//! Clients that nobody here wrote mine against a node: para (crates.io) and cpuminer. Each is taken from a variable or the PATH; without it
//! the test says that it was skipped. `.ci/para` installs para.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::kit::{ADDRESS, Bitcoind, Rockpool, temp, until};

/// Accepted submits of a miner that was let mine.
const SUBMITS: u64 = 20;

/// A program by the variable that names its path, or by its name on the PATH.
fn program(test: &str, variable: &str, name: &str) -> Option<PathBuf> {
    let given = std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from);
    let on_path = || std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|exe| exe.is_file());
    let found = given.or_else(on_path);
    if found.is_none() {
        eprintln!("SKIPPED {test}: no {name}; set {variable} to its path");
    }
    found
}

/// A miner that mines until this is dropped.
struct Mining(Child);

impl Mining {
    fn start(command: &mut Command) -> Mining {
        Mining(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Mining {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(exe: &Path, args: &[&str]) -> String {
    let Output { status, stdout, stderr } = Command::new(exe).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&stdout).into_owned();
    assert!(status.success(), "{args:?}: {status}: {said} {}", String::from_utf8_lossy(&stderr));
    said
}

/// Submits that the node has accepted, and refused.
fn submits(node: &Rockpool) -> (u64, u64) {
    let shares = &node.status()["shares"];
    (shares["accepted"].as_u64().unwrap(), shares["rejected"].as_u64().unwrap())
}

/// One of the node's counters.
fn counter(node: &Rockpool, name: &str) -> u64 {
    let name = format!("rockpool_{name}_total ");
    let (_, metrics) = node.get("/metrics");
    metrics.lines().find_map(|line| line.strip_prefix(&name)).expect("a counter of this name").parse().unwrap()
}

/// Lets it mine for a while. On regtest every share is a block, and a processor finds many at once: those for the work of before are stale.
fn mines(node: &Rockpool, command: &mut Command) {
    let (accepted, refused) = submits(node);
    let height = node.tip().1;
    let mining = Mining::start(command);
    until("its submits to be accepted", || (submits(node).0 >= accepted + SUBMITS).then_some(()));
    drop(mining);
    until("the miner to be gone", || (node.status()["miners"] == 0).then_some(()));
    let (after, refused_after) = submits(node);
    eprintln!(
        "{} submits accepted, {} refused; of all {after}, {} with too little work",
        after - accepted,
        refused_after - refused,
        counter(node, "submits_low")
    );
    // Every share makes the next one harder here, and now and then para judges its first one of a job by the difficulty before.
    let (stale, low) = (counter(node, "submits_stale"), counter(node, "submits_low"));
    assert_eq!(stale + low, refused_after, "nothing else is refused");
    assert!(low <= after / 4, "{low} of {after} with too little work");
    assert!(node.tip().1 > height, "its shares are on the share chain");
    assert!(!node.log().contains("panicked"), "{}", node.log());
}

#[test]
fn para_pings_and_mines() {
    let Some(para) = program("para_pings_and_mines", "PARA_EXE", "para") else { return };
    let dir = temp();
    let node = Rockpool::start(dir.path(), &[]);
    let (at, user) = (node.stratum.to_string(), format!("{ADDRESS}.para"));
    // Both of its questions: mining.subscribe, and the first work after mining.authorize.
    for login in [&[][..], &["--username", &user, "--password", "x"]] {
        let said = run(&para, &[&["ping", "--count", "20", &at], login].concat());
        assert!(said.contains("20 packets transmitted, 20 received, 0.0% packet loss"), "{said}");
        eprintln!("{}", said.trim_end().lines().last().unwrap_or_default());
    }
    // One share each; the first of them rolls the version.
    for (mode, rolls) in [(&["share-found"][..], true), (&["share-found", "--disable-version-rolling"], false), (&["block-found"], true)] {
        let (accepted, refused) = submits(&node);
        let said = run(&para, &[&["miner", "--cpu-cores", "1", "--username", &user, &at, "--mode"], mode].concat());
        let shares: Value = serde_json::from_str(said.get(said.find("[\n").unwrap()..).unwrap()).unwrap();
        assert_eq!(shares[0]["username"], *user, "{said}");
        assert_eq!(shares[0].get("version_bits").is_some_and(|bits| !bits.is_null()), rolls, "{said}");
        assert!(submits(&node).0 > accepted, "{said}");
        assert_eq!(submits(&node).1, refused, "{}", node.log());
    }
    mines(&node, Command::new(&para).args(["miner", "--cpu-cores", "1", "--throttle", "20000", "--username", &user, &at]));
}

#[test]
fn cpuminer_mines() {
    let Some(minerd) = program("cpuminer_mines", "MINERD_EXE", "minerd") else { return };
    let dir = temp();
    let node = Rockpool::start(dir.path(), &[]);
    let (url, user) = (format!("stratum+tcp://{}", node.stratum), format!("{ADDRESS}.cpuminer"));
    mines(&node, Command::new(minerd).args(["-a", "sha256d", "-t", "1", "-p", "x", "-o", &url, "-u", &user]));
}

#[test]
fn a_block_of_a_foreign_miner_is_taken_by_a_real_bitcoind() {
    let name = "a_block_of_a_foreign_miner";
    let (Some(para), Some(bitcoind)) = (program(name, "PARA_EXE", "para"), Bitcoind::start(name)) else { return };
    let dir = temp();
    let node = Rockpool::start(dir.path(), &["--bitcoind", &bitcoind.url(), "--alone"]);
    until("a template", || node.status()["bitcoin"]["tip"].is_string().then_some(()));
    let height = bitcoind.height();
    run(
        &para,
        &["miner", "--cpu-cores", "1", "--mode", "block-found", "--username", &format!("{ADDRESS}.para"), &node.stratum.to_string()],
    );
    until("bitcoind to take the block", || (bitcoind.height() > height).then_some(()));
}
