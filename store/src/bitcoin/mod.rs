//! Bitcoin's side of a share: the rules of its headers, and a tree of them.
//!
//! Only headers: proof of work, bits and times are checked, blocks are not. No clock is looked at, so that two nodes never differ.

mod tree;

pub use tree::{Added, HeaderError, Tree};

use rockpool_net::sha256::sha256d;
use ruint::Uint;
use ruint::aliases::U256;

use crate::limits::{MIN_DIFFICULTY_AFTER_S, PERIOD_BLOCKS, PERIOD_S, WARP_MAX_S};
use crate::params::{Network, Params};
use crate::rules::target::{compact, target, work};

/// What differs between Bitcoin's networks, as far as headers show it.
#[derive(Debug)]
pub struct Rules {
    /// The easiest target, compact.
    pub limit_bits: u32,
    /// Whether difficulty is set anew each period.
    pub retargets: bool,
    /// Whether a block that comes more than 20 minutes after its parent may be of the easiest target.
    pub min_difficulty: bool,
    /// Whether BIP94 is in force: a period's first block keeps the real difficulty, and its time may not step back far.
    pub bip94: bool,
    /// Header of the first block.
    pub genesis: [u8; 80],
}

/// The first block's merkle root, as hashed, on all networks but testnet4.
const GENESIS_ROOT: [u8; 32] = [
    0x3b, 0xa3, 0xed, 0xfd, 0x7a, 0x7b, 0x12, 0xb2, 0x7a, 0xc7, 0x2c, 0x3e, 0x67, 0x76, 0x8f, 0x61, 0x7f, 0xc8, 0x1b, 0xc3, 0x88, 0x8a,
    0x51, 0x32, 0x3a, 0x9f, 0xb8, 0xaa, 0x4b, 0x1e, 0x5e, 0x4a,
];
/// Height and header of the block of main, of 12 January 2025, at which a node begins that Bitcoin peers tell of headers. Its hash can be
/// looked up anywhere: 00000000000000000002819359a9af460f342404bec23e7478512a619584083b.
const CHECKPOINT: (u32, [u8; 80]) = (
    878_976,
    [
        0x00, 0x80, 0xcb, 0x2a, 0x84, 0xfa, 0x5f, 0xcd, 0xb3, 0xc4, 0x48, 0xa0, 0xdc, 0x7f, 0x38, 0xc6, 0xa7, 0xe5, 0x5f, 0x12, 0x61, 0xfc,
        0xec, 0x2f, 0x0b, 0x6d, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xa2, 0x28, 0x2f, 0x81, 0x59, 0x2e, 0x00, 0x7e,
        0x38, 0x9f, 0xa3, 0x5e, 0xd4, 0xa9, 0xf5, 0x55, 0x9c, 0x2e, 0xbf, 0x12, 0xfa, 0x76, 0xb5, 0x4f, 0x03, 0x16, 0x66, 0x8d, 0xcb, 0xa6,
        0xd9, 0x61, 0xaf, 0x1f, 0x84, 0x67, 0x61, 0x8c, 0x02, 0x17, 0x8c, 0x74, 0xd9, 0x81,
    ],
);
/// That of testnet4.
const GENESIS_ROOT_TESTNET4: [u8; 32] = [
    0x4e, 0x7b, 0x2b, 0x91, 0x28, 0xfe, 0x02, 0x91, 0xdb, 0x06, 0x93, 0xaf, 0x2a, 0xe4, 0x18, 0xb7, 0x67, 0xe6, 0x57, 0xcd, 0x40, 0x7e,
    0x80, 0xcb, 0x14, 0x34, 0x22, 0x1e, 0xae, 0xa7, 0xa0, 0x7a,
];

/// The rules of a network's Bitcoin, by Bitcoin Core's chain parameters.
pub fn rules(network: Network) -> &'static Rules {
    static MAIN: Rules = Rules {
        limit_bits: 0x1d00_ffff,
        retargets: true,
        min_difficulty: false,
        bip94: false,
        genesis: genesis(&GENESIS_ROOT, 1_231_006_505, 0x1d00_ffff, 2_083_236_893),
    };
    static TESTNET4: Rules = Rules {
        limit_bits: 0x1d00_ffff,
        retargets: true,
        min_difficulty: true,
        bip94: true,
        genesis: genesis(&GENESIS_ROOT_TESTNET4, 1_714_777_860, 0x1d00_ffff, 393_743_547),
    };
    static SIGNET: Rules = Rules {
        limit_bits: 0x1e03_77ae,
        retargets: true,
        min_difficulty: false,
        bip94: false,
        genesis: genesis(&GENESIS_ROOT, 1_598_918_400, 0x1e03_77ae, 52_613_770),
    };
    static REGTEST: Rules = Rules {
        limit_bits: 0x207f_ffff,
        retargets: false,
        min_difficulty: true,
        bip94: false,
        genesis: genesis(&GENESIS_ROOT, 1_296_688_602, 0x207f_ffff, 2),
    };
    match network {
        Network::Main => &MAIN,
        Network::Testnet4 => &TESTNET4,
        Network::Signet => &SIGNET,
        Network::Regtest => &REGTEST,
    }
}

/// A first block: version 1 on nothing.
const fn genesis(merkle_root: &[u8; 32], time: u32, bits: u32, nonce: u32) -> [u8; 80] {
    let mut header = [0; 80];
    header[0] = 1;
    let mut at = 0;
    while at < 32 {
        header[36 + at] = merkle_root[at];
        at += 1;
    }
    let (time, bits, nonce) = (time.to_le_bytes(), bits.to_le_bytes(), nonce.to_le_bytes());
    let mut at = 0;
    while at < 4 {
        header[68 + at] = time[at];
        header[72 + at] = bits[at];
        header[76 + at] = nonce[at];
        at += 1;
    }
    header
}

/// A Bitcoin header in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// SHA256d of the header, bytes as hashed.
    pub hash: [u8; 32],
    /// The header.
    pub header: [u8; 80],
    /// Height in Bitcoin's chain.
    pub height: u32,
    /// Work of the chain from the root up to this block; the root itself has none. Only differences mean anything: what is pruned later
    /// stays counted.
    pub work: u128,
    /// Median time of the newest 11 blocks ending with it; from Bitcoin's first block on, of as many as there are. 0 while fewer than 11
    /// are known above another root.
    pub median_time: u32,
    /// Bits of the first block of its retarget period.
    pub period_bits: u32,
    /// Time of the first block of its retarget period.
    pub period_time: u32,
    /// Bits of the newest block of its period, itself included, that is not one of minimum difficulty by the 20-minute rule; those of the
    /// period's first block if there is none.
    real_bits: u32,
}

impl Block {
    /// Hash of the block before it.
    pub fn prev(&self) -> [u8; 32] {
        prev(&self.header)
    }

    /// Its time, Unix seconds.
    pub fn time(&self) -> u32 {
        word(&self.header, 68)
    }

    /// Its bits.
    pub fn bits(&self) -> u32 {
        word(&self.header, 72)
    }

    /// A stand-in for the block that the share chain's genesis names. Nothing is known of it but these; it stands for its period's first.
    pub fn named(hash: [u8; 32], height: u32, time: u32, bits: u32) -> Block {
        let mut header = [0; 80];
        header[68..72].copy_from_slice(&time.to_le_bytes());
        header[72..76].copy_from_slice(&bits.to_le_bytes());
        Block { hash, header, height, work: 0, median_time: 0, period_bits: bits, period_time: time, real_bits: bits }
    }

    /// A block on which a tree grows: a period's first.
    fn root(height: u32, header: &[u8; 80]) -> Block {
        let (time, bits) = (word(header, 68), word(header, 72));
        let median_time = if height == 0 { time } else { 0 };
        Block {
            hash: sha256d(header),
            header: *header,
            height,
            work: 0,
            median_time,
            period_bits: bits,
            period_time: time,
            real_bits: bits,
        }
    }

    /// The child of `prev` with this header. Its median time is the caller's to set.
    fn child(rules: &Rules, prev: &Block, hash: [u8; 32], header: &[u8; 80]) -> Block {
        let (time, bits) = (word(header, 68), word(header, 72));
        let height = prev.height.saturating_add(1);
        let first = height.is_multiple_of(PERIOD_BLOCKS);
        Block {
            hash,
            header: *header,
            height,
            work: prev.work.saturating_add(work(bits)),
            median_time: 0,
            period_bits: if first { bits } else { prev.period_bits },
            period_time: if first { time } else { prev.period_time },
            real_bits: if first || bits != rules.limit_bits { bits } else { prev.real_bits },
        }
    }
}

/// Height and header of the block from which headers are followed on a network where nobody says where to begin: Bitcoin's own first, but
/// on main, where nobody wants 900,000 headers, a checkpoint. A period's first block.
pub fn start(network: Network) -> (u32, &'static [u8; 80]) {
    match network {
        Network::Main => (CHECKPOINT.0, &CHECKPOINT.1),
        Network::Testnet4 | Network::Signet | Network::Regtest => (0, &rules(network).genesis),
    }
}

/// Bits that Bitcoin demands of a child of `prev` whose header has this time.
///
/// Within a period: those of `prev`. Where the network knows minimum difficulty (testnet4, regtest): the limit if the time is more than
/// 20 minutes above that of `prev`, else those of the newest block of the period that is not of the limit, or of its first block. At a
/// period's first block: the target of the block before (under BIP94: of the first block of the period that ends) × the seconds from the
/// period's first block to its last, at least a fourth and at most four times two weeks, ÷ two weeks, at most the limit; where the network
/// does not retarget, the bits of `prev`.
pub fn required_bits(params: &Params, prev: &Block, time: u32) -> u32 {
    let rules = params.bitcoin;
    if prev.height.saturating_add(1).is_multiple_of(PERIOD_BLOCKS) {
        return retargeted(rules, prev);
    }
    if !rules.min_difficulty {
        return prev.bits();
    }
    if u64::from(time) > u64::from(prev.time()) + MIN_DIFFICULTY_AFTER_S { rules.limit_bits } else { prev.real_bits }
}

/// Bits of the first block of the retarget period of a child of `prev`: those of the period that `prev` is in, or those that Bitcoin
/// demands of the child where it begins one. There no time of the child counts.
pub fn period_bits_of_child(params: &Params, prev: &Block) -> u32 {
    if prev.height.saturating_add(1).is_multiple_of(PERIOD_BLOCKS) { retargeted(params.bitcoin, prev) } else { prev.period_bits }
}

/// Bits of the first block of a period after `last`, the last of the one before.
fn retargeted(rules: &Rules, last: &Block) -> u32 {
    if !rules.retargets {
        return last.bits();
    }
    // Times may step back, even over a whole period.
    let took = i64::from(last.time()) - i64::from(last.period_time);
    let took = took.clamp(PERIOD_S / 4, PERIOD_S * 4) as u64;
    let base = if rules.bip94 { last.period_bits } else { last.bits() };
    // A target in force is at most the limit, 2²³⁵: its product is far below 2²⁵⁶. What `named` was given may be anything.
    let base = target(base).unwrap_or(U256::ONE);
    let limit = target(rules.limit_bits).unwrap_or(U256::ONE);
    let wide: Uint<320, 5> = Uint::from(base) * Uint::from(took) / Uint::from(PERIOD_S as u64);
    compact(wide.saturating_to::<U256>().min(limit))
}

/// Whether BIP94 lets a child of `prev` have this time: the first of a period at most ten minutes before the last of the one before.
fn warps(rules: &Rules, prev: &Block, time: u32) -> bool {
    rules.bip94 && prev.height.saturating_add(1).is_multiple_of(PERIOD_BLOCKS) && i64::from(time) < i64::from(prev.time()) - WARP_MAX_S
}

/// The hash of the block before a header's.
pub(crate) fn prev(header: &[u8; 80]) -> [u8; 32] {
    let mut prev = [0; 32];
    prev.copy_from_slice(&header[4..36]);
    prev
}

fn word(header: &[u8; 80], at: usize) -> u32 {
    u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
