//! Hostile peers: a process of their own, so that their work is not in the honest peers' clock. One seed, one mix.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rockpool_net::id::ShareId;
use rockpool_net::limits::{GETDATA_MAX, INV_MAX, LOCATOR_MAX, UNASKED_BYTES_MAX};
use rockpool_net::wire::message::{ChainTip, GetHeaders, Message, Start};
use serde_json::{Value, json};

use super::node::{pin, spawn};
use super::shares::{Shares, encoded, regtest};
use super::talk::{Line, handshake, hello};
use super::{OLD_SHARES, Outcome, now};

/// The word on the command line that makes a process of this bench a crowd of hostile peers.
pub const ROLE: &str = "--hostile-peers";
/// How often each of a crowd has its turn. Alone, one has its turn again at once.
const TICK: Duration = Duration::from_millis(5);
/// Bytes that each flooder of a crowd sends in its turn at most. Alone, one sends until the socket takes no more.
const TICK_BYTES: usize = 8 << 10;
/// Connections that one of a reconnect storm makes in a second, at most.
const STORM_PER_S: u32 = 50;
/// Bytes of a stream that a flooder repeats, at least.
const STREAM_BYTES: usize = 128 << 10;

/// What a hostile peer does (`net.md` §3 by number).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Claims the largest message that it may, and falls silent (10).
    Claim,
    /// Claims more than anyone may (10); comes again when it was cut.
    Overclaim,
    /// A byte of a `version` each second (11).
    SlowHello,
    /// A byte of an `inv` each second (11).
    SlowBody,
    /// `version`, and no more (11).
    Half,
    /// Asks for the most there is, and reads nothing (14, 19).
    Deaf,
    /// Asks for the most there is, and reads it (19).
    Greedy,
    /// Locators of shares that nobody has (19).
    Locators,
    /// Connects, says half a `version`, leaves, at once again (15).
    Storm,
    /// Pings, and reads the answers (17).
    Pings,
    /// Pings, and reads no answer (14, 17).
    DeafPings,
    /// `inv` of 1,000 ids that nobody has; answers no `getdata` (20).
    Invs,
    /// Messages that this version does not know (17).
    Unknown,
    /// 64 KiB with a wrong checksum (25).
    Junk,
    /// Valid shares, all old (6, 21).
    Replay,
    /// Shares without work (18).
    Workless,
    /// Says back every share it hears, ten times (6).
    Echo,
    /// Claims a far better chain, and never tells of it (20).
    Liar,
}

const ALL: [Kind; 18] = [
    Kind::Claim,
    Kind::Overclaim,
    Kind::SlowHello,
    Kind::SlowBody,
    Kind::Half,
    Kind::Deaf,
    Kind::Greedy,
    Kind::Locators,
    Kind::Storm,
    Kind::Pings,
    Kind::DeafPings,
    Kind::Invs,
    Kind::Unknown,
    Kind::Junk,
    Kind::Replay,
    Kind::Workless,
    Kind::Echo,
    Kind::Liar,
];

impl Kind {
    fn reads(self) -> bool {
        !matches!(self, Kind::Deaf | Kind::DeafPings)
    }

    fn named(name: &str) -> Option<Kind> {
        ALL.into_iter().find(|kind| format!("{kind:?}") == name)
    }
}

/// One of them.
struct Attacker {
    kind: Kind,
    line: Option<Line>,
    /// What it says at first, and then for ever.
    first: Vec<u8>,
    stream: Vec<u8>,
    /// How far it is in these.
    said: usize,
    /// When it next does something that it does not do all the time.
    due: Instant,
}

/// All of them, and what they did.
struct Mob {
    addr: SocketAddr,
    attackers: Vec<Attacker>,
    budget: usize,
    buffer: Vec<u8>,
    dials: u64,
    bytes: u64,
    cuts: u64,
}

/// Attacks until standard input ends. Arguments: the address, the seed, how many, and a kind or `all`.
pub fn play(args: &[String]) -> Outcome<()> {
    let [addr, seed, count, kind] = args else { return Err("address, seed, count, kind".into()) };
    pin(1);
    // What honest peers want of this processor comes first.
    let _ = rustix::process::nice(5);
    let (sender, ends) = crossbeam_channel::bounded(1);
    let input = move || {
        let _ = io::stdin().read_line(&mut String::new());
        let _ = sender.send(());
    };
    std::thread::Builder::new().spawn(input)?;
    let mut mob = Mob::new(addr.parse()?, seed.parse()?, count.parse()?, kind)?;
    println!("ready");
    let tick = if mob.attackers.len() == 1 { Duration::ZERO } else { TICK };
    let (begin, mut turns) = (now(), 0u64);
    while ends.try_recv().is_err() {
        let due = now() + tick;
        mob.turn()?;
        turns += 1;
        std::thread::park_timeout(due.saturating_duration_since(now()).max(Duration::from_micros(50)));
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!("{}", json!({"dials": mob.dials, "bytes": mob.bytes, "cuts": mob.cuts, "seconds": seconds, "turns": turns}));
    Ok(())
}

impl Mob {
    fn new(addr: SocketAddr, seed: u64, count: usize, kind: &str) -> Outcome<Mob> {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let shares = Shares::new(OLD_SHARES)?;
        let mut attackers = Vec::new();
        for at in 0..count {
            let kind = if kind == "all" { ALL[at % ALL.len()] } else { Kind::named(kind).ok_or("an unknown kind")? };
            let (first, stream) = (first(kind, &mut rng)?, stream(kind, &shares, &mut rng)?);
            let due = now() + Duration::from_millis(rng.next_u64() % 1_000);
            attackers.push(Attacker { kind, line: None, first, stream, said: 0, due });
        }
        let budget = if count == 1 { usize::MAX } else { TICK_BYTES };
        Ok(Mob { addr, attackers, budget, buffer: vec![0; 64 << 10], dials: 0, bytes: 0, cuts: 0 })
    }

    fn turn(&mut self) -> io::Result<()> {
        for at in 0..self.attackers.len() {
            let attacker = &mut self.attackers[at];
            if attacker.line.is_none() {
                if attacker.kind == Kind::Storm && now() < attacker.due {
                    continue;
                }
                // No port or no file is free: later.
                let Ok(line) = Line::dial(self.addr) else { continue };
                (attacker.line, attacker.said) = (Some(line), 0);
                attacker.due = now() + Duration::from_secs(1) / STORM_PER_S;
                self.dials += 1;
            }
            if self.act(at).is_err() {
                self.attackers[at].line = None;
                self.cuts += 1;
            }
        }
        Ok(())
    }

    /// What it does in its turn; an error once it was cut.
    fn act(&mut self, at: usize) -> io::Result<()> {
        let Attacker { kind, line, first, stream, said, due } = &mut self.attackers[at];
        let Some(open) = line else { return Ok(()) };
        // Who reads the answers sends no more in between than the node may have to keep of them.
        let mut left = if kind.reads() && *kind != Kind::Junk { self.budget.min(256 << 10) } else { self.budget };
        while left > 0 {
            let rest = if *said < first.len() { &first[*said..] } else { rest(stream, *said - first.len()) };
            let slow = matches!(kind, Kind::SlowHello) || (*kind == Kind::SlowBody && *said >= first.len());
            let most = if slow { usize::from(now() >= *due) } else { left };
            let Some(taken) = (if rest.is_empty() || most == 0 { None } else { open.write(&rest[..rest.len().min(most)])? }) else { break };
            if slow {
                *due = now() + Duration::from_secs(1);
            }
            *said += taken;
            left -= taken;
            self.bytes += taken as u64;
        }
        if *kind == Kind::Storm && *said >= first.len() {
            open.reset()?;
            *line = None;
            return Ok(());
        }
        let mut heard = Vec::new();
        // As much as a flood is answered with, and the node's own words.
        for _ in 0..if kind.reads() { 16 } else { 0 } {
            let read = open.read(&mut self.buffer, |frame| {
                if *kind == Kind::Echo && frame.command == b"share" {
                    heard.extend((0..10).map(|_| Message::share_from_bytes(regtest().magic, frame.payload)));
                }
            })?;
            if read.is_none_or(|count| count < self.buffer.len()) {
                break;
            }
        }
        for echo in &heard {
            open.say(echo.bytes())?;
            self.bytes += echo.bytes().len() as u64;
        }
        open.flush()
    }
}

/// The stream goes on for ever.
fn rest(stream: &[u8], said: usize) -> &[u8] {
    if stream.is_empty() { stream } else { &stream[said % stream.len()..] }
}

fn random_ids(count: usize, rng: &mut ChaCha12Rng) -> Vec<ShareId> {
    let mut id = || {
        let mut id = [0; 32];
        rng.fill_bytes(&mut id);
        ShareId(id)
    };
    (0..count).map(|_| id()).collect()
}

/// A header of its own making: any command, any length, no checksum that fits.
fn header(command: &[u8], length: usize) -> Vec<u8> {
    let mut field = [0; 12];
    field[..command.len()].copy_from_slice(command);
    [&regtest().magic[..], &field, &(length as u32).to_le_bytes(), &[0xbad_u16.to_le_bytes(), [0, 0]].concat()].concat()
}

/// What it says once, on every connection.
fn first(kind: Kind, rng: &mut ChaCha12Rng) -> Outcome<Vec<u8>> {
    let nonce = rng.next_u64();
    let inv = 3 + INV_MAX * 32;
    let more = match kind {
        Kind::SlowHello | Kind::Half => return hello(nonce),
        Kind::Storm => return hello(nonce).map(|hello| hello[..hello.len() / 2].to_vec()),
        Kind::Claim => [header(b"inv", inv), vec![7; 100]].concat(),
        Kind::Overclaim => header(b"share", u32::MAX as usize),
        Kind::SlowBody => header(b"inv", inv),
        Kind::Liar => {
            let genesis = regtest().genesis_id();
            let tip = random_ids(1, rng)[0];
            let claim = ChainTip { genesis, tip, height: 1_000_000, score: u128::MAX >> 1, features: 0 };
            encoded(&Message::ChainTip(claim))?.bytes().to_vec()
        }
        _ => Vec::new(),
    };
    Ok([handshake(nonce)?, more].concat())
}

/// What it says from then on, over and over.
fn stream(kind: Kind, shares: &Shares, rng: &mut ChaCha12Rng) -> Outcome<Vec<u8>> {
    let mut stream = Vec::new();
    let mut ids_next = false;
    while stream.len() < STREAM_BYTES {
        ids_next = !ids_next;
        let message = match kind {
            Kind::SlowBody => return Ok(vec![7; STREAM_BYTES]),
            Kind::Deaf | Kind::Greedy if ids_next => {
                let ids = (0..GETDATA_MAX).map(|_| shares.id(rng.next_u32() as usize % OLD_SHARES)).collect();
                encoded(&Message::GetData(ids))?
            }
            Kind::Deaf | Kind::Greedy => {
                let locator = vec![regtest().genesis_id(); LOCATOR_MAX];
                encoded(&Message::GetHeaders(GetHeaders { from: Start::Locator(locator), stop: ShareId([0; 32]) }))?
            }
            Kind::Locators => {
                let locator = random_ids(LOCATOR_MAX, rng);
                encoded(&Message::GetHeaders(GetHeaders { from: Start::Locator(locator), stop: ShareId([0; 32]) }))?
            }
            Kind::Pings | Kind::DeafPings => encoded(&Message::Ping(rng.next_u64()))?,
            Kind::Invs => encoded(&Message::Inv(random_ids(INV_MAX, rng)))?,
            Kind::Replay => Arc::clone(shares.message(rng.next_u32() as usize % OLD_SHARES)),
            Kind::Workless => shares.without_work(rng.next_u32() as usize % OLD_SHARES, rng.next_u32() >> 1)?,
            Kind::Unknown | Kind::Junk => {
                // What is not asked for and known may be 64 KiB in a `shareheaders` alone, which also costs the most until it is refused.
                let command: &[u8] = if kind == Kind::Junk { b"shareheaders" } else { b"gettemplate" };
                stream.extend(header(command, UNASKED_BYTES_MAX));
                stream.extend(std::iter::repeat_n(0x5a, UNASKED_BYTES_MAX));
                continue;
            }
            Kind::Claim | Kind::Overclaim | Kind::SlowHello | Kind::Half | Kind::Storm | Kind::Echo | Kind::Liar => return Ok(Vec::new()),
        };
        stream.extend_from_slice(message.bytes());
    }
    Ok(stream)
}

/// Hostile peers, as their parent sees them.
pub struct Hostile {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

/// What they did.
#[derive(Clone, Copy, Debug)]
pub struct Did {
    /// Turns of all of them in a second: two hundred, if this process is given the time.
    pub turns_per_s: f64,
    /// Megabytes sent in a second.
    pub mb_per_s: f64,
    /// Connections made in a second.
    pub dials_per_s: f64,
    /// Connections that the node ended, in a second.
    pub cuts_per_s: f64,
}

impl Hostile {
    /// Starts so many of a kind, or of all kinds, and waits until they begin.
    pub fn start(addr: SocketAddr, seed: u64, count: usize, kind: &str) -> Outcome<Hostile> {
        let args = [ROLE, &addr.to_string(), &seed.to_string(), &count.to_string(), kind];
        let (child, input, mut output) = spawn(&args)?;
        output.read_line(&mut String::new())?;
        Ok(Hostile { child, input: Some(input), output })
    }

    /// Ends them.
    pub fn stop(mut self) -> Outcome<Did> {
        self.input = None;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let told: Value = serde_json::from_str(&line)?;
        let number = |name: &str| told[name].as_f64().unwrap_or(f64::NAN);
        let seconds = number("seconds");
        let turns_per_s = number("turns") / seconds;
        Ok(Did {
            turns_per_s,
            mb_per_s: number("bytes") / 1e6 / seconds,
            dials_per_s: number("dials") / seconds,
            cuts_per_s: number("cuts") / seconds,
        })
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
