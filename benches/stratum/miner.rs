//! Miners as the load plays them: they shake hands, work, and submit.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use rockpool::stratum::difficulty::target_of;
use rockpool::stratum::jobs::words_reversed;
use rockpool_net::sha256::{Midstate, sha256, sha256d};
use rockpool_net::wire::share::{Class, Layout, Script, merkle_root};
use rockpool_workers::work::meets;
use serde_json::Value;

use crate::Outcome;
use crate::process::{LOAD_CORE, SERVER_CORE, pin};

/// The easiest difficulty that miners are given: submits are made by real work, 43,000 hashes each.
const DIFFICULTY: f64 = 1e-5;

/// What a miner says to be given work of this form.
pub fn greeting(class: Class, layout: Layout, number: usize) -> String {
    let layout = if layout == Layout::Tail { "tail" } else { "front" };
    format!(
        "{{\"id\":1,\"method\":\"mining.subscribe\",\"params\":[\"bench/1.0\"]}}\n\
         {{\"id\":2,\"method\":\"mining.authorize\",\"params\":[\"{}.rig{number}\",\"c={},l={layout},d=0.00001\"]}}\n",
        address(),
        class.outputs()
    )
}

/// An address that no share of the chain pays.
pub fn address() -> String {
    let script = bitcoin::ScriptBuf::from_bytes(Script::P2wpkh(*b"stratum bench miner.").script_pubkey());
    bitcoin::Address::from_script(&script, bitcoin::Network::Regtest).map(|address| address.to_string()).unwrap_or_default()
}

/// A job, as far as its miner hashes it.
pub struct Job {
    id: String,
    extranonce1: Vec<u8>,
    /// The coinbase around the extranonce.
    coinb: [Vec<u8>; 2],
    branch: Vec<[u8; 32]>,
    /// All of the header but root and nonce.
    header: [u8; 80],
    ntime: String,
    target: [u8; 32],
    user: String,
}

impl Job {
    /// That of a `mining.notify`.
    pub fn new(extranonce1: &str, notify: &Value) -> Outcome<Job> {
        let text = |at: usize| notify[at].as_str().ok_or("an odd notify");
        let word = |at: usize| -> Outcome<[u8; 4]> { Ok(u32::from_str_radix(text(at)?, 16)?.to_le_bytes()) };
        let hash = |text: &str| -> Outcome<[u8; 32]> { Ok(bytes(text)?.try_into().map_err(|_| "no hash")?) };
        let mut header = [0; 80];
        header[..4].copy_from_slice(&word(5)?);
        header[4..36].copy_from_slice(&words_reversed(&hash(text(1)?)?));
        header[68..72].copy_from_slice(&word(7)?);
        header[72..76].copy_from_slice(&word(6)?);
        let branch = notify[4].as_array().ok_or("no branch")?.iter().map(|sibling| hash(sibling.as_str().unwrap_or_default()));
        Ok(Job {
            id: text(0)?.to_owned(),
            extranonce1: bytes(extranonce1)?,
            coinb: [bytes(text(2)?)?, bytes(text(3)?)?],
            branch: branch.collect::<Outcome<_>>()?,
            header,
            ntime: text(7)?.to_owned(),
            target: target_of(DIFFICULTY),
            user: address(),
        })
    }

    /// A submit that is worth its difficulty; `number` is its extranonce2 and its id.
    pub fn mined(&self, number: u64) -> String {
        let coinbase = [&self.coinb[0][..], &self.extranonce1, &number.to_be_bytes(), &self.coinb[1]].concat();
        let mut header = self.header;
        header[36..68].copy_from_slice(&merkle_root(sha256d(&coinbase), &self.branch));
        let mut midstate = Midstate::new();
        midstate.update_blocks(&header[..64]);
        let mut nonce = 0u32;
        while !meets(&sha256(&midstate.finish(&header[64..])), &self.target) {
            nonce = nonce.wrapping_add(1);
            header[76..].copy_from_slice(&nonce.to_le_bytes());
        }
        self.submit(number, nonce)
    }

    /// A submit of a hash that nobody looked at, which meets no difficulty.
    pub fn submit(&self, number: u64, nonce: u32) -> String {
        line(&self.user, (&self.id, &self.ntime), number, nonce)
    }
}

/// A submit for the job of this id and time.
pub fn line(user: &str, (id, ntime): (&str, &str), number: u64, nonce: u32) -> String {
    format!(
        "{{\"id\":{number},\"method\":\"mining.submit\",\"params\":[\"{user}.rig\",\"{id}\",\"{number:016x}\",\"{ntime}\",\"{nonce:08x}\"]}}\n"
    )
}

/// Submits of several jobs, so many of each, mined on all processors while the server has nothing to do.
pub fn mine(jobs: &[&Job], count: u64) -> Outcome<Vec<Vec<String>>> {
    let part = |core: usize, parity: u64| -> Vec<Vec<String>> {
        pin(core);
        let numbers = || (1..=count).filter(|number| number % 2 == parity);
        jobs.iter().map(|job| numbers().map(|number| job.mined(number)).collect()).collect()
    };
    let (mut odd, even) = std::thread::scope(|scope| -> Outcome<_> {
        let other = std::thread::Builder::new().spawn_scoped(scope, || part(SERVER_CORE, 0))?;
        let own = part(LOAD_CORE, 1);
        Ok((own, other.join().map_err(|_| "a miner panicked")?))
    })?;
    odd.iter_mut().zip(even).for_each(|(odd, even)| odd.extend(even));
    Ok(odd)
}

/// A miner with its connection.
pub struct Miner {
    pub stream: TcpStream,
    lines: BufReader<TcpStream>,
    /// Its first job.
    pub job: Job,
}

impl Miner {
    /// Connects one and waits for its first job.
    pub fn connect(addr: SocketAddr, class: Class, layout: Layout, number: usize) -> Outcome<Miner> {
        let mut stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.write_all(greeting(class, layout, number).as_bytes())?;
        let mut lines = BufReader::with_capacity(64 << 10, stream.try_clone()?);
        let (mut line, mut extranonce1) = (String::new(), String::new());
        loop {
            line.clear();
            if lines.read_line(&mut line)? == 0 {
                return Err("the server closed".into());
            }
            let said: Value = serde_json::from_str(&line)?;
            if said["id"] == 1 {
                extranonce1 = said["result"][1].as_str().ok_or("an odd answer to mining.subscribe")?.to_owned();
            }
            if said["method"] == "mining.notify" {
                let job = Job::new(&extranonce1, &said["params"])?;
                return Ok(Miner { stream, lines, job });
            }
        }
    }

    /// Reads until so many submits are answered. How many were accepted.
    pub fn answers(&mut self, count: usize) -> Outcome<usize> {
        let (mut answered, mut accepted, mut line) = (0, 0, String::new());
        while answered < count {
            line.clear();
            if self.lines.read_line(&mut line)? == 0 {
                return Err("the server closed".into());
            }
            // Notifies and difficulties come in between.
            if !line.starts_with("{\"id\":null") {
                answered += 1;
                accepted += usize::from(line.contains("\"result\":true"));
            }
        }
        Ok(accepted)
    }
}

/// Bytes of hex.
fn bytes(text: &str) -> Outcome<Vec<u8>> {
    (0..text.len()).step_by(2).map(|at| Ok(u8::from_str_radix(text.get(at..at + 2).ok_or("odd hex")?, 16)?)).collect()
}

/// A form, for names of figures.
pub fn named(class: Class, layout: Layout) -> String {
    format!("{} outputs, {}", class.outputs(), if layout == Layout::Tail { "tail" } else { "front" })
}
