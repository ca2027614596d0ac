//! A user's mistakes, made with the real program: exit code 2, one line on standard error that says what to do, never a panic.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rockpool_net::time::Now;
use rockpool_store::chain::{Chain, Offer, Source};
use rockpool_store::kv::{Family, Kv, Op};
use rockpool_store::params::{Network, params};
use rockpool_store::peers::Ban;
use rockpool_store::rocks::RocksKv;
use rockpool_store::schema;
use rockpool_store::testing::ShareBuilder;
use serde_json::Value;

/// Arguments that a node on regtest needs to disturb nobody.
const QUIET: [&str; 9] = ["run", "--network", "regtest", "--p2p", "127.0.0.1:0", "--stratum", "127.0.0.1:0", "--http", "127.0.0.1:0"];

fn rockpool(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rockpool")).args(args).env_remove("RUST_LOG").stdin(Stdio::null()).output().unwrap()
}

/// Runs it, expects exit code 2 and one line that contains `says`.
#[track_caller]
fn refused(args: &[&str], says: &str) {
    let out = rockpool(args);
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(2), "{args:?}: {said}");
    assert_eq!(said.matches('\n').count(), 1, "{args:?} said more than a line: {said}");
    assert!(said.starts_with("rockpool: ") && said.contains(says), "{args:?} said {said:?}, not {says:?}");
    assert!(!said.contains("panicked"), "{said}");
}

fn on<'a>(dir: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    [&QUIET[..], &["--datadir", dir.to_str().unwrap()], more].concat()
}

#[test]
fn mistakes_in_the_words_are_one_line() {
    refused(&[], "say what to do");
    refused(&["mine"], "unknown command");
    refused(&["run", "--fast"], "--fast");
    refused(&["run", "--network", "moon"], "unknown network \"moon\"");
    refused(&["run"], "network main needs a Bitcoin node: give --bitcoind");
    refused(&["run", "--network", "regtest", "--stratum", "here"], "--stratum: \"here\" is no address");
    refused(&["run", "--network", "regtest", "--peer", "1.2.3.4:99999"], "--peer: \"1.2.3.4:99999\" is no address");
    refused(&["run", "--network", "testnet4", "--bitcoind", "ftp://x"], "--bitcoind");
    refused(&["run", "--network", "regtest", "--solo", "--standalone"], "--solo and --standalone exclude each other");
    refused(&["demo", "--seconds", "long"], "--seconds");
    refused(&["status", "--http", "127.0.0.1:1"], "is it running?");
}

#[test]
fn help_and_version_are_answers() {
    for (args, says) in [
        (&["help", "run"][..], "--bitcoind-cookie"),
        (&["--help"][..], "rockpool demo"),
        (&["--version"][..], concat!("rockpool ", env!("CARGO_PKG_VERSION"))),
    ] {
        let out = rockpool(args);
        assert!(out.status.success() && out.stderr.is_empty());
        assert!(String::from_utf8(out.stdout).unwrap().contains(says));
    }
}

#[test]
fn a_reader_that_has_gone_away_is_no_panic() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_rockpool"))
        .arg("--help")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let out = child.wait_with_output().unwrap();
    assert_eq!((out.status.code(), out.stderr.len()), (Some(0), 0));
}

#[test]
fn a_configuration_file_that_cannot_be_used_is_named() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "network = \"regtest\"\nstratum = 3333").unwrap();
    let path = file.path().to_str().unwrap();
    refused(&["run", "--config", path], &format!("{path}, line 2: "));
    refused(&["run", "--config", "/no/such/file"], "cannot read /no/such/file: ");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    for flag in ["--stratum", "--http", "--p2p"] {
        let dir = tempfile::tempdir().unwrap();
        refused(&on(dir.path(), &[flag, &addr]), &format!("{flag} {addr}: "));
    }
}

#[test]
fn an_address_of_another_machine_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    // TEST-NET-1: no interface has it.
    refused(&on(dir.path(), &["--http", "192.0.2.1:9332"]), "--http 192.0.2.1:9332: ");
}

#[test]
fn a_data_directory_that_cannot_be_made_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let dir = file.path().join("data");
    refused(&on(&dir, &[]), &format!("cannot open data directory {}: ", dir.display()));
}

#[test]
fn a_data_directory_in_use_or_of_another_network_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Command::new(env!("CARGO_BIN_EXE_rockpool"))
        .args(on(dir.path(), &[]))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // It tells its addresses once everything is bound and opened.
    let mut first = [0; 4];
    std::io::Read::read_exact(&mut node.stdout.take().unwrap(), &mut first).unwrap();
    refused(&on(dir.path(), &[]), &format!("data directory {} is in use", dir.path().display()));
    node.kill().unwrap();
    node.wait().unwrap();
    // Nobody answers at this bitcoind, but the directory is looked at first.
    let args = on(dir.path(), &["--network", "testnet4", "--bitcoind", "http://u:p@127.0.0.1:1"]);
    refused(&args, "belongs to network regtest, not testnet4");
}

#[test]
fn status_finds_a_node_by_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    refused(&["status", "--datadir", path], "no node runs on data directory");
    let mut node = Command::new(env!("CARGO_BIN_EXE_rockpool"))
        .args(on(dir.path(), &[]))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = std::io::BufReader::new(node.stdout.take().unwrap());
    let http = std::io::BufRead::lines(lines).map_while(Result::ok).find_map(|line| line.strip_prefix("http ").map(str::to_owned)).unwrap();
    let by_address = rockpool(&["status", "--json", "--http", &http]);
    // The file is written right after the addresses are told, so the node has it by the time it has answered.
    let by_dir = rockpool(&["status", "--json", "--datadir", path]);
    for out in [by_address, by_dir] {
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let status: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!((&status["network"], &status["listen"]["http"]), (&"regtest".into(), &http.clone().into()));
    }
    node.kill().unwrap();
    node.wait().unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("http")).unwrap().trim(), http);
    // What is on disk is told without it.
    let at_rest = json(&["status", "--json", "--datadir", path]);
    assert_eq!(
        (&at_rest["running"], &at_rest["network"], &at_rest["blocks"]),
        (&false.into(), &"regtest".into(), &Value::Array(Vec::new()))
    );
}

/// A data directory with a chain of thirty shares, some with uncles.
fn made() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (kv, params) = (RocksKv::open(&dir.path().join("chain")).unwrap(), params(Network::Regtest));
    schema::open(&kv, params, "d").unwrap();
    let mut chain = Chain::open(params, [1, 2], &kv).unwrap();
    let late = Now { mono: Duration::ZERO, wall: Duration::from_secs(2_000_000_000) };
    let mut below = chain.tip().id;
    for height in 1..=30 {
        let (parent, mut builder) = (chain.tip().id, ShareBuilder::new(params).miner(height % 3));
        if height % 5 == 2 {
            let uncle = ShareBuilder::new(params).salt(9).build(&chain, &below);
            assert_eq!(chain.offer(late, &uncle, Source::Peer), Offer::Taken);
            builder = builder.uncles(&[uncle.id()]);
        }
        let share = builder.build(&chain, &parent);
        assert_eq!(chain.offer(late, &share, Source::Peer), Offer::Taken);
        while chain.confirm(8) > 0 {}
        below = parent;
    }
    let (_, batches) = chain.take_change().unwrap();
    batches.iter().for_each(|batch| kv.write(&batch.ops, true).unwrap());
    dir
}

/// A running node, which is killed when it goes.
struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A node and what it said until it told where it answers.
fn node(args: &[&str]) -> (Node, Vec<String>, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_rockpool"))
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = std::io::BufReader::new(child.stdout.take().unwrap());
    let (node, mut said) = (Node(child), Vec::new());
    for line in std::io::BufRead::lines(lines).map_while(Result::ok) {
        if let Some(http) = line.strip_prefix("http ") {
            return (node, said, http.to_owned());
        }
        said.push(line);
    }
    panic!("the node has ended: {said:?}");
}

fn json(args: &[&str]) -> Value {
    let out = rockpool(args);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

#[test]
fn a_chain_is_the_same_from_its_directory_and_from_the_node_on_it() {
    let dir = made();
    let path = dir.path().to_str().unwrap();
    let ask = |by: &str, at: &str| {
        let shares = json(&["shares", "--json", "--from", "29", "--count", "25", by, at]);
        (shares, json(&["payouts", "--json", by, at]))
    };
    let (shares, payouts) = ask("--datadir", path);
    assert_eq!((&shares["height"], shares["shares"].as_array().unwrap().len()), (&30.into(), 25));
    assert_eq!((&shares["shares"][0]["height"], &payouts["height"]), (&29.into(), &30.into()));
    let checked = json(&["check", "--json", "--datadir", path, "--network", "regtest"]);
    assert_eq!((&checked["ok"], &checked["shares"], &checked["uncles"]), (&true.into(), &30.into(), &6.into()), "{checked}");
    refused(&["check", "--datadir", path, "--network", "main"], "belongs to network regtest, not main");

    let (node, _, http) = node(&on(dir.path(), &[]));
    let asked = (shares, payouts);
    // By its directory too it is the node who is asked, since it has the rows.
    for (name, whole) in [("http", ask("--http", &http)), ("datadir", ask("--datadir", path))] {
        assert_eq!(whole, asked, "{name}");
    }
    refused(&["check", "--datadir", path], &format!("data directory {path} is in use"));
    drop(node);
    // Killed as it was it has left the rows whole, and to be read.
    assert_eq!(json(&["check", "--json", "--datadir", path])["ok"], true);
    let out = rockpool(&["check", "--datadir", path]);
    let said = String::from_utf8(out.stdout).unwrap();
    assert!(said.contains("good up to 30 of 30") && said.ends_with("\nok\n") && out.stderr.is_empty(), "{said}");
    let out = rockpool(&["shares", "--datadir", path, "--count", "3"]);
    assert_eq!(String::from_utf8(out.stdout).unwrap().lines().count(), 5);
    refused(&["shares", "--datadir", &format!("{path}/none")], "there is no share chain");
    assert!(!dir.path().join("none").exists());
}

#[test]
fn a_damaged_chain_is_told_of_and_resync_begins_anew() {
    let dir = made();
    let path = dir.path().to_str().unwrap();
    let kv = RocksKv::open(&dir.path().join("chain")).unwrap();
    let mut key = Vec::new();
    kv.scan(Family::Shares, &20u32.to_be_bytes(), &mut |at, _| {
        key = at.to_vec();
        false
    })
    .unwrap();
    let ban = Ban { of: "203.0.113.0/24".parse().unwrap(), until: u32::MAX, why: "stays".into() };
    kv.write(&[Op::Delete(Family::Shares, key), ban.put()], true).unwrap();
    drop(kv);
    let out = rockpool(&["check", "--datadir", path]);
    let (told, said) = (String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap());
    assert_eq!(out.status.code(), Some(3));
    assert!(told.contains("no good row at height 20") && told.ends_with("\ndamaged\n"), "{told}");
    assert!(said.contains("--resync") && said.matches('\n').count() == 1, "{said}");
    let out = rockpool(&on(dir.path(), &[]));
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.code() == Some(3) && said.contains("--resync"), "{said}");
    // Nobody answers at this bitcoind, but another network's chain is not deleted.
    let other = ["--resync", "--network", "testnet4", "--bitcoind", "http://u:p@127.0.0.1:1"];
    refused(&on(dir.path(), &other), "belongs to network regtest, not testnet4");
    assert!(!json_of_damaged(path)["faults"].as_array().unwrap().is_empty());

    let (node, said, http) = node(&on(dir.path(), &["--resync"]));
    assert!(said[0].contains("is deleted and will be fetched anew"), "{said:?}");
    assert_eq!(json(&["status", "--json", "--http", &http])["tip"]["height"], 0);
    assert_eq!(json(&["peers", "--json", "--http", &http])["bans"][0]["reason"], "stays");
    refused(&on(dir.path(), &["--resync"]), &format!("data directory {path} is in use"));
    drop(node);
    assert_eq!(json(&["check", "--json", "--datadir", path])["rows"], 0);
}

fn json_of_damaged(path: &str) -> Value {
    let out = rockpool(&["check", "--json", "--datadir", path]);
    assert_eq!(out.status.code(), Some(3));
    serde_json::from_slice(&out.stdout).unwrap()
}

#[test]
fn a_chain_of_another_format_is_refused_with_what_to_do() {
    let dir = made();
    let path = dir.path().to_str().unwrap();
    for (format, says) in [(schema::FORMAT_OLDEST - 1, "--resync"), (schema::FORMAT + 1, "use a newer version")] {
        let kv = RocksKv::open(&dir.path().join("chain")).unwrap();
        kv.write(&[Op::Put(Family::Meta, b"format".to_vec(), format.to_be_bytes().to_vec())], true).unwrap();
        drop(kv);
        for args in
            [vec!["check", "--datadir", path], vec!["shares", "--datadir", path], vec!["payouts", "--datadir", path], on(dir.path(), &[])]
        {
            refused(&args, &format!("data directory {path} has format {format}, this version reads {}; ", schema::FORMAT));
            refused(&args, says);
        }
    }
}

/// What an upgrade does: the new program starts on the old one's directory, keeps all of it and says so.
#[test]
fn a_directory_of_an_older_format_is_taken_over_whole() {
    let dir = made();
    let path = dir.path().to_str().unwrap();
    let before = json(&["shares", "--json", "--datadir", path]);
    for format in schema::FORMAT_OLDEST..schema::FORMAT {
        let kv = RocksKv::open(&dir.path().join("chain")).unwrap();
        kv.write(&[Op::Put(Family::Meta, b"format".to_vec(), format.to_be_bytes().to_vec())], true).unwrap();
        drop(kv);
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut node = Command::new(env!("CARGO_BIN_EXE_rockpool"))
            .args(on(dir.path(), &[]))
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.reopen().unwrap())
            .spawn()
            .unwrap();
        // It tells its addresses once everything is opened.
        std::io::Read::read_exact(&mut node.stdout.take().unwrap(), &mut [0; 4]).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_child(&node), rustix::process::Signal::TERM).unwrap();
        assert!(node.wait().unwrap().success());
        let told = fs::read_to_string(log.path()).unwrap();
        assert!(told.contains(&format!("was of format {format} and is taken over into format {}", schema::FORMAT)), "{told}");
        assert_eq!(json(&["check", "--json", "--datadir", path])["ok"], true, "format {format}");
        assert_eq!(json(&["shares", "--json", "--datadir", path]), before, "format {format}");
        let kv = RocksKv::open_read_only(&dir.path().join("chain")).unwrap();
        assert_eq!(schema::format(&kv).unwrap(), Some(schema::FORMAT));
    }
}

#[test]
fn the_environment_and_a_file_are_heard_below_flags_and_printed() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "network = \"signet\"\nbitcoind = [\"http://rock:hush@127.0.0.1:1\"]\nmax-peers = 7").unwrap();
    let run = |name: &str, value: &str| {
        let args = ["run", "--print-config", "--datadir", "/d", "--config", file.path().to_str().unwrap()];
        Command::new(env!("CARGO_BIN_EXE_rockpool")).args(args).env(name, value).stdin(Stdio::null()).output().unwrap()
    };
    let out = run("ROCKPOOL_NETWORK", "testnet4");
    let said = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    for (key, from) in [
        ("network = \"testnet4\"", "environment, ROCKPOOL_NETWORK"),
        ("datadir = \"/d\"", "--datadir"),
        ("bitcoind = [\"http://rock:***@127.0.0.1:1\"]", ", line 2"),
        ("max-peers = 7", ", line 3"),
        ("stratum = \"0.0.0.0:3333\"", "# default"),
    ] {
        assert!(said.lines().any(|line| line.starts_with(key) && line.ends_with(from)), "no {key} of {from} in {said}");
    }
    assert!(!said.contains("hush"), "{said}");
    let out = run("ROCKPOOL_NETWROK", "testnet4");
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.code() == Some(2) && said.contains("did you mean ROCKPOOL_NETWORK?") && said.matches('\n').count() == 1, "{said}");
}

#[test]
fn peers_are_listed_named_and_banned_from_the_shell() {
    let (dir, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = dir.path().to_str().unwrap();
    refused(&["peers", "--datadir", path], "there is no share chain");
    let (node_a, _, _) = node(&on(dir.path(), &[]));
    let (_node_b, said, _) = node(&on(there.path(), &[]));
    let p2p = said.iter().find_map(|line| line.strip_prefix("p2p ")).unwrap();
    let list = || json(&["peers", "--json", "--datadir", path]);
    assert_eq!((&list()["peers"], &list()["bans"]), (&serde_json::json!([]), &serde_json::json!([])));
    let does = |args: &[&str]| {
        let out = rockpool(&[&["peers", "--datadir", path], args].concat());
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    assert!(does(&["add", p2p]).starts_with(&format!("dialling {p2p}; ")));
    while list()["peers"][0]["up"] != true {
        std::thread::yield_now();
    }
    let peer = &list()["peers"][0];
    assert_eq!((&peer["addr"], &peer["direction"], &peer["configured"]), (&p2p.into(), &"outbound".into(), &true.into()));
    assert!(does(&[]).contains(p2p));
    assert!(does(&["ban", "203.0.113.0/24", "--seconds", "3600", "--reason", "a reason"]).starts_with("203.0.113.0/24 is banned until 20"));
    assert!(does(&["ban", "127.0.0.1"]).ends_with("UTC, and its connection is closed\n"));
    let out = rockpool(&["peers", "--datadir", path, "add", p2p]);
    assert_eq!(out.status.code(), Some(2));
    refused(&["peers", "--datadir", path, "add", p2p], "127.0.0.1 is banned; lift the ban first");
    let token = rockpool(&["token", "--datadir", path, "--days", "1"]);
    assert!(token.status.success() && String::from_utf8(token.stdout).unwrap().trim_end().split('.').count() == 3);
    refused(&["token", "--datadir", "/nowhere"], "/nowhere/secret is not there");
    refused(&["peers", "--datadir", path, "add", "nobody"], "\"nobody\" is no address");
    refused(&["peers", "--datadir", path, "ban", "1.2.3.4/40"], "neither an IP address nor a subnet");
    refused(&["peers", "--datadir", path, "unban", "9.9.9.9"], "9.9.9.9 is not banned");
    assert_eq!(does(&["unban", "127.0.0.1"]), "127.0.0.1 is no longer banned\n");
    drop(node_a);
    // Killed as it was, it has the ban on disk; the directory tells, and changes nothing.
    let list = list();
    assert_eq!(
        (&list["running"], &list["bans"][0]["of"], &list["bans"][0]["reason"]),
        (&false.into(), &"203.0.113.0/24".into(), &"a reason".into())
    );
    assert!(does(&[]).contains("203.0.113.0/24"));
    refused(&["peers", "--datadir", path, "unban", "203.0.113.0/24"], "no node runs on data directory");
}
