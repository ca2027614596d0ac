//! The two weeks of shares: made once, then read from a file under the target directory.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rockpool_net::time::Now;
use rockpool_net::wire::share::Share;
use rockpool_store::bitcoin::{Added, Block, Tree};
use rockpool_store::params::{Network, Params, params};

use crate::Outcome;
use crate::line::{Line, mine_block};

/// Another one whenever what is made changes.
const VERSION: u32 = 2;
/// Heights of two weeks, and Bitcoin blocks that are found meanwhile.
pub const HEIGHTS: u32 = 120_960;
const BLOCKS: u32 = 2_016;
/// A tenth.
const QUICK: u32 = 10;
/// Unix time at which the chain begins.
pub const START: u32 = 1_700_000_000;
const SEED: u64 = 4;
/// A time after all shares, on a clock that stands still.
pub const LATE: Now = Now { mono: Duration::ZERO, wall: Duration::from_secs(START as u64 + 10_000_000) };

/// A chain that was made.
pub struct Made {
    pub params: &'static Params,
    /// Heights of its shares.
    pub heights: u32,
    /// Bitcoin's, ascending.
    pub headers: Vec<[u8; 80]>,
    /// Shares in the order in which a peer would send them, uncles behind their siblings and before their nephews.
    pub shares: Vec<Share>,
}

impl Made {
    /// The chain: read where it was made before.
    pub fn new(quick: bool) -> Outcome<Made> {
        let (heights, blocks) = if quick { (HEIGHTS / QUICK, BLOCKS / QUICK) } else { (HEIGHTS, BLOCKS) };
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("two_weeks-{VERSION}-{heights}"));
        if !file.exists() {
            eprintln!("making {heights} shares, once");
            write(&file, &make(heights, blocks)?)?;
        }
        read(&file, heights)
    }

    /// Shares of another chain over the same Bitcoin blocks, up to this height.
    pub fn another(&self, heights: u32, seed: u64) -> Outcome<Vec<Share>> {
        let mut tree = Tree::new(self.params);
        let mut bitcoin: Vec<Arc<Block>> = Vec::new();
        for header in &self.headers {
            let Added::New(block) = tree.add(header)? else { return Err("a Bitcoin header was refused".into()) };
            bitcoin.push(block);
        }
        let mut line = Line::new(self.params, seed);
        let mut shares = Vec::with_capacity(heights as usize * 104 / 100);
        for height in 0..heights {
            line.grow(&bitcoin[block_at(height, self.heights, bitcoin.len() as u32)], &mut shares);
        }
        Ok(shares)
    }
}

fn make(heights: u32, blocks: u32) -> Outcome<Made> {
    let params = params(Network::Regtest);
    let mut made = Made { params, heights, headers: headers(params, heights, blocks), shares: Vec::new() };
    made.shares = made.another(heights, SEED)?;
    Ok(made)
}

/// Which block is the newest at a height: they come evenly.
fn block_at(height: u32, heights: u32, blocks: u32) -> usize {
    (u64::from(height) * u64::from(blocks) / u64::from(heights)) as usize
}

fn headers(params: &Params, heights: u32, blocks: u32) -> Vec<[u8; 80]> {
    let mut prev = rockpool_net::sha256::sha256d(&params.bitcoin.genesis);
    let header = |number: u32| {
        let time = START - 600 + number * (heights / blocks) * params.interval_s;
        let header = mine_block(&prev, time, number);
        prev = rockpool_net::sha256::sha256d(&header);
        header
    };
    (0..blocks).map(header).collect()
}

fn write(file: &PathBuf, made: &Made) -> io::Result<()> {
    // A run that is cut off leaves nothing that looks whole.
    let part = file.with_extension("part");
    let mut out = BufWriter::new(File::create(&part)?);
    out.write_all(&(made.headers.len() as u32).to_le_bytes())?;
    for header in &made.headers {
        out.write_all(header)?;
    }
    for share in &made.shares {
        let bytes = share.encode();
        out.write_all(&(bytes.len() as u16).to_le_bytes())?;
        out.write_all(&bytes)?;
    }
    out.flush()?;
    fs::rename(part, file)
}

fn read(file: &PathBuf, heights: u32) -> Outcome<Made> {
    let mut input = BufReader::new(File::open(file)?);
    let mut count = [0; 4];
    input.read_exact(&mut count)?;
    let mut headers = Vec::new();
    for _ in 0..u32::from_le_bytes(count) {
        let mut header = [0; 80];
        input.read_exact(&mut header)?;
        headers.push(header);
    }
    let (mut shares, mut length) = (Vec::new(), [0; 2]);
    while input.read_exact(&mut length).is_ok() {
        let mut bytes = vec![0; usize::from(u16::from_le_bytes(length))];
        input.read_exact(&mut bytes)?;
        shares.push(Share::decode(&bytes)?);
    }
    Ok(Made { params: params(Network::Regtest), heights, headers, shares })
}
