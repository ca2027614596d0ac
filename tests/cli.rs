//! A user's mistakes, made with the real program: exit code 2, one line on standard error that says what to do, never a panic.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

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
    refused(&["run", "--network", "regtest", "--solo"], "--solo is not in this version");
    refused(&["demo", "--seconds", "long"], "--seconds");
    refused(&["status", "--http", "127.0.0.1:1"], "is it running?");
}

#[test]
fn help_and_version_are_answers() {
    for (args, says) in [(["--help"], "--bitcoind-cookie"), (["--version"], concat!("rockpool ", env!("CARGO_PKG_VERSION")))] {
        let out = rockpool(&args);
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
    refused(&["status", "--datadir", path], "is it running?");
}
