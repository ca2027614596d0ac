//! A bitcoind as far as the node asks it: regtest's, with a template like main's, and another one whenever this bench says so.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rockpool_net::sha256::sha256d;
use rockpool_store::params::{Network, Params, params};
use rockpool_store::rules::target::hash_meets;
use serde_json::{Value, json};

use crate::Outcome;

/// Transactions of a template.
const TXS: usize = 2_500;
/// All that there are: after a block a template holds others, and after a minute some others.
const TXS_ALL: usize = 4 * TXS;
const TURNOVER: usize = 300;
/// Bytes of the smallest and of the largest, evenly drawn: 1.4 MB in all, as main's blocks have.
const TX_BYTES: std::ops::Range<usize> = 150..970;
/// Weight of a byte, in hundredths: about half of main's bytes are witnesses.
const WEIGHT_PERCENT: usize = 250;
/// Fee of each, satoshis.
const FEE: u64 = 2_000;
const BITS: u32 = 0x207f_ffff;
/// Unix time of its first block.
const START: u32 = 1_700_000_000;

/// It, on threads of this process.
pub struct Bitcoind {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    params: &'static Params,
    /// Headers from the first block on.
    headers: Vec<[u8; 80]>,
    heights: BTreeMap<String, usize>,
    /// All transactions, as the answer spells them, and which is the first of the template.
    txs: Vec<String>,
    first: usize,
    /// Blocks, as far as it tells who asks for its state: those of the last template, so that each block is one job for each miner.
    told: usize,
    /// Counts templates.
    sequence: u64,
}

impl Bitcoind {
    /// Starts it with a block, a template, and nothing new until it is told.
    pub fn start() -> Outcome<Bitcoind> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let addr = listener.local_addr()?;
        let params = params(Network::Regtest);
        let state =
            State { params, headers: vec![params.bitcoin.genesis], heights: BTreeMap::new(), txs: txs(), first: 0, told: 0, sequence: 1 };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        shared.lock().mine();
        let all = Arc::clone(&shared);
        let serve = move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&all);
                // A call that waits for news holds up no other.
                let _ = std::thread::Builder::new().name("bitcoind".into()).spawn(move || answer(&stream, &shared));
            }
        };
        std::thread::Builder::new().name("bitcoind".into()).spawn(serve)?;
        Ok(Bitcoind { addr, shared })
    }

    /// A template on another block.
    pub fn next_block(&self) {
        self.shared.lock().mine();
        self.renew();
    }

    /// A template on the same block.
    pub fn renew(&self) {
        let mut state = self.shared.lock();
        state.sequence += 1;
        state.first = (state.first + TURNOVER) % TXS_ALL;
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Another block.
    fn mine(&mut self) {
        let number = self.headers.len() as u32;
        let mut header = [0; 80];
        header[..4].copy_from_slice(&0x2000_0000u32.to_le_bytes());
        header[4..36].copy_from_slice(&self.tip());
        header[36..68].copy_from_slice(&sha256d(&number.to_le_bytes()));
        header[68..72].copy_from_slice(&(START + 600 * number).to_le_bytes());
        header[72..76].copy_from_slice(&BITS.to_le_bytes());
        let mut nonce = 0u32;
        while !hash_meets(&sha256d(&header), BITS) {
            nonce += 1;
            header[76..].copy_from_slice(&nonce.to_le_bytes());
        }
        self.headers.push(header);
        self.first = (self.first + TXS) % TXS_ALL;
        self.heights.insert(shown(&sha256d(&header)), self.headers.len() - 1);
    }

    fn tip(&self) -> [u8; 32] {
        self.headers.last().map_or([0; 32], |header| sha256d(header))
    }

    fn template(&mut self) -> String {
        let height = self.headers.len() as u32;
        self.told = self.headers.len() - 1;
        let value = self.params.subsidy(height) + TXS as u64 * FEE;
        let time = START + 600 * height;
        let txs: Vec<&str> = (self.first..self.first + TXS).map(|place| self.txs[place % TXS_ALL].as_str()).collect();
        format!(
            r#"{{"version":536870912,"rules":["csv","!segwit","taproot"],"previousblockhash":"{}","transactions":[{}],"coinbasevalue":{value},"longpollid":"{}","mintime":{},"curtime":{time},"bits":"{BITS:08x}","height":{height},"default_witness_commitment":"6a24aa21a9ed{}"}}"#,
            shown(&self.tip()),
            txs.join(","),
            self.sequence,
            time - 600,
            "5a".repeat(32),
        )
    }

    fn block(&self, wanted: &Value, verbose: bool) -> Option<Value> {
        let height = *self.heights.get(wanted.as_str()?)?;
        let header = hex(&self.headers[height]);
        Some(if verbose { json!({"height": height, "confirmations": self.headers.len() - height}) } else { header.into() })
    }
}

/// Serves one connection, which brings one request.
fn answer(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    let (mut input, mut length, mut line) = (BufReader::new(stream), 0, String::new());
    while input.read_line(&mut line)? > 2 {
        if let Some(bytes) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = bytes.trim().parse().map_err(io::Error::other)?;
        }
        line.clear();
    }
    let mut body = vec![0; length];
    input.read_exact(&mut body)?;
    let calls: Value = serde_json::from_slice(&body)?;
    let body = match calls.as_array() {
        Some(calls) => format!("[{}]", calls.iter().map(|call| reply(call, shared)).collect::<Vec<_>>().join(",")),
        None => reply(&calls, shared),
    };
    let mut stream = stream;
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn reply(call: &Value, shared: &Shared) -> String {
    let params = &call["params"];
    let mut state = shared.lock();
    let result = match call["method"].as_str().unwrap_or_default() {
        "getblockchaininfo" => {
            let blocks = state.told;
            let (time, bits) = (START + 600 * blocks as u32, format!("{BITS:08x}"));
            let info = json!({
                "chain": "regtest", "blocks": blocks, "bestblockhash": shown(&sha256d(&state.headers[blocks])), "time": time, "mediantime": time - 600,
                "bits": bits, "difficulty": 4.656_542_373_906_925e-10
            });
            Some(info.to_string())
        }
        "getblocktemplate" => {
            let known = params[0]["longpollid"].as_str().and_then(|id| id.parse().ok());
            while known == Some(state.sequence) {
                state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            Some(state.template())
        }
        "getblockheader" => state.block(&params[0], params[1] == true).map(|block| block.to_string()),
        "getblockhash" => {
            let header = params[0].as_u64().and_then(|height| state.headers.get(height as usize));
            header.map(|header| format!("\"{}\"", shown(&sha256d(header))))
        }
        "getchaintips" => Some("[]".to_owned()),
        _ => None,
    };
    match result {
        Some(result) => format!(r#"{{"result":{result},"error":null,"id":{}}}"#, call["id"]),
        None => format!(r#"{{"result":null,"error":{{"code":-5,"message":"not known here"}},"id":{}}}"#, call["id"]),
    }
}

/// Transactions of random bytes: nobody here spends anything.
fn txs() -> Vec<String> {
    let mut rng = ChaCha12Rng::seed_from_u64(5);
    let mut one = || {
        let mut data = vec![0; TX_BYTES.start + rng.next_u32() as usize % TX_BYTES.len()];
        rng.fill_bytes(&mut data);
        let wtxid = sha256d(&data);
        let (txid, weight) = (shown(&sha256d(&wtxid)), data.len() * WEIGHT_PERCENT / 100);
        format!(
            r#"{{"data":"{}","txid":"{txid}","hash":"{}","depends":[],"fee":{FEE},"sigops":4,"weight":{weight}}}"#,
            hex(&data),
            shown(&wtxid)
        )
    };
    (0..TXS_ALL).map(|_| one()).collect()
}

/// A hash as RPC shows it.
fn shown(hash: &[u8; 32]) -> String {
    let mut bytes = *hash;
    bytes.reverse();
    hex(&bytes)
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    rockpool::stratum::jobs::hex(bytes)
}
