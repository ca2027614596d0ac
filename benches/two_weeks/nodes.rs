//! Whole nodes: what the chain takes on the disk and in memory, how long a start takes, and a sync between two of them.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rockpool_store::params::{Network, params};
use rockpool_store::rocks::RocksKv;
use serde_json::{Value, json};

use crate::figures::{Memory, goal, info};
use crate::made::{HEIGHTS, Made};
use crate::node::{Node, until};
use crate::report::{Figure, median};
use crate::{Bench, Outcome};

/// The word on the command line that makes a process of this bench one that opens the chain and tells what that takes.
pub const INDEX_ROLE: &str = "--index-of";
const MB: f64 = 1e6;
const STARTS: usize = 5;
/// How long a node is left alone before its memory is looked at.
const IDLE: Duration = Duration::from_secs(5);
/// How often a node that syncs is asked how far it is.
const LOOK: Duration = Duration::from_millis(25);

/// Disk, memory and start of a node that has the chain.
pub fn restart(bench: &Bench) -> Outcome<Vec<Figure>> {
    let (made, dir) = (&bench.made, bench.fed()?.dir.path());
    let part = part(made);
    let (mut ready, mut cpu, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..if bench.asked.quick { 2 } else { STARTS } {
        let node = Node::start(dir, &[])?;
        ready.push(node.ready.as_secs_f64());
        cpu.push(node.cpu()?.values().sum::<Duration>().as_secs_f64());
        if node.heights()? != (made.heights, made.heights) {
            return Err(format!("the node began with heights {:?}", node.heights()?).into());
        }
        // The first one also flushes what the feeding left in the log.
        if memory.len() < 2 {
            std::thread::park_timeout(IDLE);
        }
        memory.push(node.memory()?);
        node.stop()?;
    }
    let of = |name: fn(&Memory) -> f64| median(memory[..2].iter().map(name).collect()) / MB;
    let (disk, rows) = (size(dir)?, rows(dir)?);
    Ok(vec![
        goal("disk: the data directory", disk / MB, "MB", disk_goal(part)),
        info("disk: bytes per row of a share", disk / rows.0, "bytes"),
        info("disk: bytes of a share's key and value", rows.1 / rows.0, "bytes"),
        goal("memory of an idle node after a restart", of(|memory| memory.rss), "MB", 96.0),
        info("memory of an idle node: its own", of(|memory| memory.anon), "MB"),
        info("memory of an idle node: of files", of(|memory| memory.file), "MB"),
        goal("restart to ready", median(ready.clone()), "s", 1.5),
        info("restart to ready: of that on a processor", median(cpu), "s"),
        info("restart to ready, the longest", ready.into_iter().fold(0.0, f64::max), "s"),
    ])
}

/// A node without a chain beside one that has it.
pub fn sync(bench: &Bench) -> Outcome<Vec<Figure>> {
    let made = &bench.made;
    let full = Node::start(bench.fed()?.dir.path(), &[])?;
    let dir = tempfile::tempdir()?;
    let fresh = Node::start(dir.path(), &["--peer", &full.p2p.to_string()])?;
    let mut tied = None;
    let confirmed = until("the sync", || {
        let heights = fresh.heights()?;
        if tied.is_none() && heights.0 == made.heights {
            tied = Some(fresh.age());
        }
        std::thread::park_timeout(LOOK);
        Ok((heights.1 == made.heights).then(|| fresh.age()))
    })?;
    let cpu = fresh.cpu()?.values().sum::<Duration>();
    for (who, node) in [("the new node", &fresh), ("the full node", &full)] {
        let threads = node.cpu()?.into_iter().filter(|(_, time)| time.as_millis() >= 50);
        let told: Vec<String> = threads.map(|(name, time)| format!("{name} {:.2} s", time.as_secs_f64())).collect();
        eprintln!("sync: {who} took {}", told.join(", "));
    }
    let memory = fresh.memory()?;
    fresh.stop()?;
    full.stop()?;
    let part = part(made);
    let tied = tied.map_or(confirmed, |tied| tied);
    Ok(vec![
        goal("sync of two nodes: all tied and candidate", tied.as_secs_f64(), "s", 5.0 * part),
        goal("sync of two nodes: all confirmed", confirmed.as_secs_f64(), "s", 60.0 * part),
        info("sync of two nodes: of that the new node on a processor", cpu.as_secs_f64(), "s"),
        info("sync of two nodes: memory at its end", memory.rss / MB, "MB"),
        info("sync of two nodes: memory at its most", memory.peak / MB, "MB"),
        goal("sync of two nodes: the new data directory", size(dir.path())? / MB, "MB", disk_goal(part)),
    ])
}

/// Memory of the index alone.
pub fn index(bench: &Bench) -> Outcome<Vec<Figure>> {
    let dir = bench.fed()?.dir.path();
    let out = Command::new(std::env::current_exe()?).arg(INDEX_ROLE).arg(dir).stderr(Stdio::inherit()).output()?;
    let told: Value = serde_json::from_slice(&out.stdout)?;
    let bytes = |name: &str| told[name].as_f64().unwrap_or(f64::NAN) / bench.made.shares.len() as f64;
    Ok(vec![
        info("index: bytes of own memory per share, organiser's", bytes("chain"), "bytes"),
        info("index: bytes of own memory per share, view's beside it", bytes("view"), "bytes"),
        info("index: time to open", told["open_s"].as_f64().unwrap_or(f64::NAN), "s"),
    ])
}

/// Opens the chain and its view, and tells what memory each took.
pub fn play_index(dir: &Path) -> Outcome<()> {
    let kv = RocksKv::open(&dir.join("chain"))?;
    let before = Memory::of("self")?;
    let begin = crate::figures::clock();
    let chain = rockpool_store::chain::Chain::open(params(Network::Regtest), [1, 2], &kv)?;
    let open_s = begin.elapsed().as_secs_f64();
    let opened = Memory::of("self")?;
    let view = chain.view();
    let viewed = Memory::of("self")?;
    println!("{}", json!({"chain": opened.anon - before.anon, "view": viewed.anon - opened.anon, "open_s": open_s}));
    drop((chain, view));
    Ok(())
}

/// Bytes of all files under a directory.
fn size(dir: &Path) -> io::Result<f64> {
    let mut sum = 0.0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let data = entry.metadata()?;
        sum += if data.is_dir() { size(&entry.path())? } else { data.len() as f64 };
    }
    Ok(sum)
}

/// Rows of shares, and the bytes of their keys and values.
fn rows(dir: &Path) -> Outcome<(f64, f64)> {
    let kv = RocksKv::open(&dir.join("chain"))?;
    let (mut rows, mut bytes) = (0.0, 0.0);
    rockpool_store::schema::shares(&kv, |_, _, share| {
        rows += 1.0;
        bytes += 36.0 + share.len() as f64;
        Ok(())
    })?;
    Ok((rows, bytes))
}

/// Megabytes on the disk that a part of two weeks may take: RocksDB's log is as long for a small chain.
fn disk_goal(part: f64) -> f64 {
    const LOG_MB: f64 = 16.0;
    LOG_MB + (120.0 - LOG_MB) * part
}

/// The part of two weeks that this chain is.
fn part(made: &Made) -> f64 {
    f64::from(made.heights) / f64::from(HEIGHTS)
}
