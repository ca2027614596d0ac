//! What differs between networks, and the constants of consensus that do not (SPEC, NET-1).

use std::fmt;
use std::sync::{Arc, OnceLock};

use rockpool_net::id::ShareId;
use rockpool_net::sha256::tagged;
use rockpool_net::wire::share::{Class, Layout, Proof, Script, Share};

use crate::bitcoin::Block;
use crate::record::{Place, Record};

/// The network whose blocks are mined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Network {
    /// Bitcoin.
    Main,
    /// A signet whose challenge is OP_TRUE.
    Signet,
    /// The public trial network.
    Testnet4,
    /// A network of one's own.
    Regtest,
}

impl Network {
    /// All networks.
    pub const ALL: [Network; 4] = [Network::Main, Network::Signet, Network::Testnet4, Network::Regtest];

    /// Its name, as flags, rows and answers spell it.
    pub fn name(self) -> &'static str {
        match self {
            Network::Main => "main",
            Network::Signet => "signet",
            Network::Testnet4 => "testnet4",
            Network::Regtest => "regtest",
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Half-lives that a lead may span. 2¹⁵⁰ takes the easiest floor, 2²⁵⁵, to 2¹⁰⁵: never to zero, and beyond all work there is.
const LEAD_HALF_LIVES_MAX: u32 = 150;

/// The parameters of one network. SPEC has the table with their reasons.
#[derive(Clone, Debug)]
pub struct Params {
    /// Which network.
    pub network: Network,
    /// Its name.
    pub name: &'static str,
    /// First four bytes of every message between its nodes.
    pub magic: [u8; 4],
    /// The easiest target of a share, compact.
    pub floor_bits: u32,
    /// Seconds between shares that the difficulty aims at.
    pub interval_s: u32,
    /// Seconds of lead that halve the allowed target.
    pub half_life_s: u32,
    /// Seconds without a share after which the next one may be easier by the second.
    pub easing_s: u32,
    /// The most lead that a share carries, seconds.
    pub lead_max_s: u32,
    /// The least output that pays someone, satoshis.
    pub dust: u64,
    /// The fewest heights of a full window.
    pub window_min: u32,
    /// The most heights of a window: two weeks.
    pub window_max: u32,
    /// Bitcoin blocks between two halvings of the subsidy.
    pub halving: u32,
    /// Seconds that a share's time may be ahead of now before it is held.
    pub time_ahead_max_s: u32,
    /// Newest heights that are kept and served: four weeks.
    pub kept: u32,
    /// Rulesets in force: from this height on, this version; ascending, the first from 0.
    pub rulesets: &'static [(u32, u8)],
    /// The rules of this network's Bitcoin headers.
    pub bitcoin: &'static crate::bitcoin::Rules,
    genesis: Arc<Share>,
    genesis_id: ShareId,
}

/// The parameters of a network.
pub fn params(network: Network) -> &'static Params {
    static MAIN: OnceLock<Params> = OnceLock::new();
    static SIGNET: OnceLock<Params> = OnceLock::new();
    static TESTNET4: OnceLock<Params> = OnceLock::new();
    static REGTEST: OnceLock<Params> = OnceLock::new();
    let cell = match network {
        Network::Main => &MAIN,
        Network::Signet => &SIGNET,
        Network::Testnet4 => &TESTNET4,
        Network::Regtest => &REGTEST,
    };
    cell.get_or_init(|| build(network))
}

impl Params {
    /// The first share, constant (SPEC, NET-2).
    pub fn genesis(&self) -> &Arc<Share> {
        &self.genesis
    }

    /// Id of the first share, which names the chain.
    pub fn genesis_id(&self) -> ShareId {
        self.genesis_id
    }

    /// The first share as the index keeps it: no work, no demand, no score.
    pub fn genesis_record(&self) -> Record {
        let share = &self.genesis;
        let bitcoin = Block::named(share.bitcoin_prev(), share.bitcoin_height - 1, share.time, share.header_bits());
        let place =
            Place { allowed_bits: 0, best_bitcoin: None, script: Arc::new(share.script), bitcoin: Arc::new(bitcoin), uncles: Vec::new() };
        place.record(share, self.genesis_id)
    }

    /// What Bitcoin's rules grant the block of this height beside fees, satoshis (SPEC, PAY-1).
    pub fn subsidy(&self, bitcoin_height: u32) -> u64 {
        SUBSIDY_FIRST.checked_shr(bitcoin_height / self.halving).unwrap_or(0)
    }

    /// The ruleset in force at a height of the share chain (SPEC, NET-3).
    pub fn version_at(&self, height: u32) -> u8 {
        self.rulesets.iter().rev().find(|(from, _)| *from <= height).map_or(0, |(_, version)| *version)
    }
}

/// Subsidy of the first blocks, satoshis.
const SUBSIDY_FIRST: u64 = 50 * 100_000_000;

fn build(network: Network) -> Params {
    let (magic, floor_bits, dust) = match network {
        Network::Main => ([0xf1, 0xc4, 0xb7, 0xd1], 0x1b3f_ffc0, 10_000),
        Network::Testnet4 => ([0xf2, 0xc4, 0xb7, 0xd2], 0x1d3f_ffc0, 1_000),
        Network::Signet => ([0xf3, 0xc4, 0xb7, 0xd3], 0x1d3f_ffc0, 1_000),
        Network::Regtest => ([0xf4, 0xc4, 0xb7, 0xd4], 0x207f_ffff, 1_000),
    };
    // On regtest a CPU settles in seconds; share times may not run ahead of the 120 s that others take.
    let (interval_s, half_life_s, easing_s, halving) = match network {
        Network::Main | Network::Testnet4 | Network::Signet => (10, 600, 300, 210_000),
        Network::Regtest => (1, 10, 5, 150),
    };
    let genesis = genesis(network, floor_bits);
    Params {
        network,
        name: network.name(),
        magic,
        floor_bits,
        interval_s,
        half_life_s,
        easing_s,
        lead_max_s: LEAD_HALF_LIVES_MAX * half_life_s,
        dust,
        window_min: 2_160,
        window_max: 120_960,
        halving,
        time_ahead_max_s: 120,
        kept: 241_920,
        rulesets: &[(0, 1)],
        bitcoin: crate::bitcoin::rules(network),
        genesis_id: genesis.id(),
        genesis: Arc::new(genesis),
    }
}

/// A Bitcoin block that shows when the share chain was begun at the earliest: hash as it is displayed, height, time.
fn begun_after(network: Network) -> (&'static str, u32, u32) {
    match network {
        // The first block of the fifth subsidy era.
        Network::Main => ("0000000000000000000320283a032748cef8227873ff4872689bf23f1cda83a5", 840_000, 1_713_571_767),
        // The others begin at their own first blocks: nothing of value can be mined there in advance.
        Network::Testnet4 => ("00000000da84f2bafbbc53dee25a72ae507ff4914b867c565be350b0da8bf043", 0, 1_714_777_860),
        Network::Signet => ("00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6", 0, 1_598_918_400),
        Network::Regtest => ("0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206", 0, 1_296_688_602),
    }
}

fn genesis(network: Network, floor_bits: u32) -> Share {
    let (displayed, bitcoin_height, time) = begun_after(network);
    let mut prev = [0; 32];
    for (byte, pair) in prev.iter_mut().rev().zip(displayed.as_bytes().chunks(2)) {
        *byte = pair.iter().fold(0, |high, digit| high << 4 | char::from(*digit).to_digit(16).unwrap_or(0) as u8);
    }
    let mut header = [0; 80];
    header[..4].copy_from_slice(&0x2000_0000u32.to_le_bytes());
    header[4..36].copy_from_slice(&prev);
    header[36..68].copy_from_slice(&tagged(b"rockpool/genesis", &[network.name().as_bytes()]));
    header[68..72].copy_from_slice(&time.to_le_bytes());
    header[72..76].copy_from_slice(&floor_bits.to_le_bytes());
    Share {
        header,
        version: 1,
        class: Class::N12,
        layout: Layout::Tail,
        parent: ShareId([0; 32]),
        uncles: Vec::new(),
        // No window holds genesis, so that nobody is ever paid for it.
        script: Script::P2wsh([0; 32]),
        bits: floor_bits,
        time,
        height: 0,
        lead: 0,
        score: 0,
        salt: 0,
        value: 0,
        witness_commitment: [0; 32],
        bitcoin_height: bitcoin_height + 1,
        proof: Proof { prefix_len: 64, midstate: [0; 32], extranonce: [0; 12], branch: Vec::new() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::target;
    use bitcoin::hashes::Hash;

    #[test]
    fn genesis_names_blocks_that_bitcoin_has() {
        let networks = [
            (Network::Testnet4, bitcoin::Network::Testnet4),
            (Network::Signet, bitcoin::Network::Signet),
            (Network::Regtest, bitcoin::Network::Regtest),
        ];
        for (network, theirs) in networks {
            let block = bitcoin::constants::genesis_block(theirs);
            let genesis = params(network).genesis();
            assert_eq!(genesis.bitcoin_prev(), block.block_hash().to_byte_array(), "{network}");
            assert_eq!((genesis.time, genesis.header_time()), (block.header.time, block.header.time), "{network}");
        }
        let main = params(Network::Main).genesis();
        assert!(ShareId(main.bitcoin_prev()).to_string().starts_with("0000000000000000000320283a03"));
    }

    /// Whoever changes a genesis begins another network, so it must be meant.
    #[test]
    fn genesis_ids_are_these() {
        let ids = Network::ALL.map(|network| params(network).genesis_id().to_string());
        assert_eq!(
            ids,
            [
                "e679783f04257339cd6137b8e2e4564a12a54aff5553c1112c2c8ca3c6ebb987",
                "6349fe9c4edd9565db6499b409b30a4f79f8338db4f70205c76f71153dc987b9",
                "638a3f7e6b68baf5171fd447d2360b6bdfade6e2080e7db6846ec43214d43366",
                "d01c5bee06d58931169c26161e9fdf663ad6732664cc79bb804fffbb29708788",
            ]
        );
    }

    #[test]
    fn genesis_encodes_like_any_share_and_weighs_nothing() {
        for network in Network::ALL {
            let params = params(network);
            assert_eq!(Share::decode(&params.genesis().encode()).as_ref(), Ok(&**params.genesis()));
            let record = params.genesis_record();
            assert_eq!((record.id, record.height, record.lead), (params.genesis_id(), 0, 0));
            assert_eq!((record.work(), record.demand(), record.score), (0, 0, 0));
            assert!(target::is_canonical(params.floor_bits));
        }
    }

    #[test]
    fn subsidy_halves_as_bitcoin_says() {
        let main = params(Network::Main);
        for (height, subsidy) in [
            (0, 5_000_000_000),
            (209_999, 5_000_000_000),
            (210_000, 2_500_000_000),
            (840_000, 312_500_000),
            (210_000 * 32, 1),
            (210_000 * 33, 0),
        ] {
            assert_eq!(main.subsidy(height), subsidy, "height {height}");
        }
        assert_eq!(main.subsidy(u32::MAX), 0);
        let regtest = params(Network::Regtest);
        assert_eq!((regtest.subsidy(149), regtest.subsidy(150), regtest.subsidy(u32::MAX)), (5_000_000_000, 2_500_000_000, 0));
    }

    #[test]
    fn the_newest_ruleset_begun_is_in_force() {
        let now = {
            let mut now = params(Network::Main).clone();
            now.rulesets = &[(0, 1), (100, 2)];
            now
        };
        assert_eq!([0, 99, 100, u32::MAX].map(|height| now.version_at(height)), [1, 1, 2, 2]);
        assert_eq!(params(Network::Main).version_at(1), 1);
    }

    #[test]
    fn networks_do_not_talk_to_each_other() {
        let mut magics = Network::ALL.map(|network| params(network).magic).to_vec();
        magics.extend([[0xf9, 0xbe, 0xb4, 0xd9], [0x1c, 0x16, 0x3f, 0x28], [0xfa, 0xbf, 0xb5, 0xda]]);
        magics.sort_unstable();
        magics.dedup();
        assert_eq!(magics.len(), 7);
        assert_eq!(params(Network::Main).magic, 0xf1c4_b7d1u32.to_be_bytes());
    }
}
