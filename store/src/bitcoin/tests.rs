use super::*;
use crate::limits::{PERIODS_KEPT, SIDE_HEADERS_MAX};
use crate::params::params;
use crate::rules::target::hash_meets;
use bitcoin::hashes::Hash;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rockpool_net::id::ShareId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Regtest's target: two hashes a block.
const EASY: u32 = 0x207f_ffff;

/// A header on `prev`, with proof of work where the bits are easy enough to hash for; `salt` tells siblings apart.
fn header_on(prev: [u8; 32], time: u32, bits: u32, salt: u32) -> [u8; 80] {
    let mut header = [0; 80];
    header[..4].copy_from_slice(&0x2000_0000u32.to_le_bytes());
    header[4..36].copy_from_slice(&prev);
    header[36..40].copy_from_slice(&salt.to_le_bytes());
    header[68..72].copy_from_slice(&time.to_le_bytes());
    header[72..76].copy_from_slice(&bits.to_le_bytes());
    for nonce in 0u32.. {
        header[76..].copy_from_slice(&nonce.to_le_bytes());
        if hash_meets(&sha256d(&header), bits) {
            break;
        }
    }
    header
}

fn new(added: Result<Added, HeaderError>) -> Arc<Block> {
    match added.unwrap() {
        Added::New(block) => block,
        other => panic!("{other:?}"),
    }
}

fn regtest() -> Tree {
    Tree::new(params(Network::Regtest))
}

/// The rules of a network, but easy enough to be mined in a test.
fn easy(network: Network) -> &'static Params {
    let Rules { retargets, min_difficulty, bip94, .. } = *rules(network);
    let genesis = rules(Network::Regtest).genesis;
    let rules = Box::leak(Box::new(Rules { limit_bits: EASY, retargets, min_difficulty, bip94, genesis }));
    let mut params = params(Network::Regtest).clone();
    params.bitcoin = rules;
    Box::leak(Box::new(params))
}

/// A header of main or signet.
fn real(hex: &str) -> [u8; 80] {
    let header: bitcoin::block::Header = bitcoin::consensus::encode::deserialize_hex(hex).unwrap();
    bitcoin::consensus::serialize(&header).try_into().unwrap()
}

/// `count` blocks on this one, ten minutes apart.
fn grow(tree: &mut Tree, from: &Arc<Block>, count: u32, salt: u32) -> Vec<Arc<Block>> {
    let mut blocks = vec![from.clone()];
    for _ in 0..count {
        let last = blocks.last().unwrap();
        let header = header_on(last.hash, last.time() + 600, required_bits(tree.params(), last, last.time() + 600), salt);
        blocks.push(new(tree.add(&header)));
    }
    blocks.split_off(1)
}

#[test]
fn first_blocks_are_those_of_bitcoin() {
    for (network, theirs) in [
        (Network::Main, bitcoin::Network::Bitcoin),
        (Network::Testnet4, bitcoin::Network::Testnet4),
        (Network::Signet, bitcoin::Network::Signet),
        (Network::Regtest, bitcoin::Network::Regtest),
    ] {
        let block = bitcoin::constants::genesis_block(theirs);
        let own = rules(network);
        assert_eq!(own.genesis[..], bitcoin::consensus::serialize(&block.header)[..], "{network}");
        assert_eq!(sha256d(&own.genesis), block.block_hash().to_byte_array());
        let core = bitcoin::params::Params::new(theirs);
        assert_eq!(own.limit_bits, core.max_attainable_target.to_compact_lossy().to_consensus(), "{network}");
        assert_eq!((own.retargets, own.min_difficulty), (!core.no_pow_retargeting, core.allow_min_difficulty_blocks), "{network}");
        assert_eq!(own.bip94, network == Network::Testnet4);
        let tree = Tree::new(params(network));
        let root = tree.root().map(|root| (root.hash, root.height, root.work, root.median_time));
        let expected = (block.block_hash().to_byte_array(), 0, 0, block.header.time);
        assert_eq!(root, (network != Network::Main).then_some(expected));
    }
}

#[test]
fn a_chain_grows_and_its_best_branch_is_the_one_of_most_work_first_seen() {
    let mut tree = regtest();
    let root = tree.root().unwrap().clone();
    let long = grow(&mut tree, &root, 30, 0);
    assert_eq!((long[29].height, long[29].work, long[29].bits()), (30, 60, EASY));
    // The middle of the newest eleven, and of the first ones.
    assert_eq!((long[29].median_time, long[0].median_time), (long[24].time(), long[0].time()));
    let side = grow(&mut tree, &long[19], 10, 1);
    assert_eq!(side[9].work, long[29].work);
    assert_eq!(tree.best(), Some(&long[29]));
    let winner = grow(&mut tree, &side[9], 1, 1);
    assert_eq!(tree.best(), Some(&winner[0]));
    assert_eq!((tree.at_height(20), tree.at_height(21), tree.at_height(32)), (Some(&long[19]), Some(&side[0]), None));
    assert_eq!(tree.add(&long[5].header), Ok(Added::Known));
    assert_eq!(tree.add(&header_on([7; 32], 1, EASY, 0)), Ok(Added::Orphan([7; 32])));
    assert_eq!(tree.fork(&long[29].hash, &winner[0].hash), Some(&long[19]));
    let path: Vec<_> = side.iter().chain(&winner).cloned().collect();
    assert_eq!(tree.path(&long[29].hash, &winner[0].hash, 100), path);
    assert_eq!(tree.path(&long[29].hash, &winner[0].hash, 3), path[..3]);
    assert_eq!(tree.path(&winner[0].hash, &long[29].hash, 3), long[20..23]);
    tree.sanity_check().unwrap();
}

/// First and last header of a period of main, and the first of the next: the first rise of difficulty, the second, and one of 2024.
const RETARGETS: [(u32, &str, &str, &str); 3] = [
    (
        30_240,
        "01000000e6bf7fd7f7790a63786faa878d0dc7fd8f2ff365732e45862c66075100000000700d342f65c7b6834dffb615358a1897016f0448913372190cbe3d27\
         a4b53355b1512b4bffff001dbfb02519",
        "0100000049c1daab3b6536ff1b2633c3a316a6e06ec287676cdeec4ca7baae6b00000000ac10b36b8f354b3353207de15940a5edbc05bb8364af75b4b5409e78\
         23f2b48923ec3a4bffff001dbd5fa412",
        "010000004b0360d834a330ec7833e30e1f523ee05a0793361e29a73421964f980000000027b64a020af294e903feed93768705336a20090612a043f47af462a2\
         f5e5b564f8ee3a4b6ad8001dd3a43707",
    ),
    (
        32_256,
        "010000004b0360d834a330ec7833e30e1f523ee05a0793361e29a73421964f980000000027b64a020af294e903feed93768705336a20090612a043f47af462a2\
         f5e5b564f8ee3a4b6ad8001dd3a43707",
        "01000000405b203f92ee8012fffad48424cd52827504c06ca717cb7cd7aa69bc00000000a02521744962eccce06cb7187d2451f0dee624a291da2bf9c12ce786\
         d92fa673b2a94b4b6ad8001dc0a41815",
        "01000000ce53367108008b0ab65be7a308c48a042167aaea7b2a45397e04365e0000000040fbd504d61cb1a110826bca68c81d41736908dcbdb3f65154bfaf9c\
         92cf50d9c5aa4b4b28c4001dfe665c05",
    ),
    (
        864_864,
        "0000003a5f00e7df93f80524b5d0bca74ae81577d8e937ab4b9201000000000000000000e44b8cd6f5baf8ddaa1284a4a6235f5ade7015ec93e9f8c92206ff7e\
         034fe0f4cf260667cd0e0317d37b1c47",
        "00001022983c89b4d75d30477e574cfcaf078ed0e6757e4ecfd400000000000000000000af29e2d462f963e3fa4748a12ea2cc29cc8429db77e15db3903566bb\
         49e9cbc0e2e81767cd0e03176f0ce81f",
        "00c06d33abfd7611d95588541b36cf913627c5e05fc8d9ec7d7c00000000000000000000437f827366461f1e5e8253ca36ae6fb3c5bb8b023d9bfb68eafb3991\
         d7bb3e394de9176728f102177a39728a",
    ),
];

/// The last block of a period.
fn last(period: u32, height: u32, first: (u32, u32), time: u32, bits: u32) -> Block {
    let (period_time, period_bits) = first;
    assert_eq!(height, period + PERIOD_BLOCKS - 1);
    Block { period_time, period_bits, ..Block::named([1; 32], height, time, bits) }
}

#[test]
fn real_periods_end_as_they_did() {
    let main = params(Network::Main);
    for (height, first, end, next) in RETARGETS {
        let (first, end, next) = (real(first), real(end), real(next));
        // Each of them has its proof of work, so no digit is mistaken.
        let mut tree = Tree::new(main);
        assert_eq!(tree.root(), None);
        let root = tree.root_at(height, &first).unwrap().unwrap();
        for header in [&end, &next] {
            assert!(hash_meets(&sha256d(header), word(header, 72)));
        }
        assert_eq!(prev(&next), sha256d(&end));
        assert_eq!(tree.add(&next), Ok(Added::Orphan(sha256d(&end))));
        let end = last(height, height + 2_015, (root.time(), root.bits()), word(&end, 68), word(&end, 72));
        assert_eq!(required_bits(main, &end, word(&next, 68)), word(&next, 72), "height {}", height + PERIOD_BLOCKS);
        assert_eq!(period_bits_of_child(main, &end), word(&next, 72));
        assert_eq!(period_bits_of_child(main, &root), root.bits());
    }
}

#[test]
fn known_retargets_of_bitcoin_core() {
    // Bitcoin Core's own tests: the limit, and a fourth and four times, as (first time, height, time, bits, next bits).
    for (first, height, time, bits, next) in [
        (1_231_006_505, 2_015, 1_233_061_996, 0x1d00_ffff, 0x1d00_ffff),
        (1_261_130_161, 32_255, 1_262_152_739, 0x1d00_ffff, 0x1d00_d86a),
        (1_279_008_237, 68_543, 1_279_297_671, 0x1c05_a3f4, 0x1c01_68fd),
        (1_263_163_443, 46_367, 1_269_211_443, 0x1c38_7f6f, 0x1d00_e1fd),
    ] {
        let end = last(height - 2_015, height, (first, bits), time, bits);
        assert_eq!(required_bits(params(Network::Main), &end, 0), next, "height {height}");
    }
    // Signet's first two.
    for (first, height, time, bits, next) in
        [(1_598_918_400, 2_015, 1_599_332_177, 0x1e03_77ae, 503_394_215), (1_599_332_844, 4_031, 1_600_591_200, 503_394_215, 503_397_348)]
    {
        let end = last(height - 2_015, height, (first, bits), time, bits);
        assert_eq!(required_bits(params(Network::Signet), &end, 0), next, "height {height}");
    }
}

#[test]
fn retargets_agree_with_the_bitcoin_crate() {
    let mut rng = ChaCha12Rng::seed_from_u64(3);
    for (network, theirs) in [(Network::Main, bitcoin::Network::Bitcoin), (Network::Signet, bitcoin::Network::Signet)] {
        let core = bitcoin::params::Params::new(theirs);
        for _ in 0..20_000 {
            // A target below 2²¹⁸, which both networks allow.
            let bits = compact(U256::from(rng.next_u64() | 1) << (rng.next_u32() % 154) as usize);
            let took = rng.next_u32() % (6 * PERIOD_S as u32);
            let end = last(2_016, 4_031, (1_700_000_000, bits), 1_700_000_000 + took, bits);
            let theirs = bitcoin::CompactTarget::from_next_work_required(bitcoin::CompactTarget::from_consensus(bits), took.into(), &core);
            assert_eq!(required_bits(params(network), &end, 0), theirs.to_consensus(), "{bits:08x} over {took} s");
        }
        // Times may run backwards over a period: it took no less than a fourth.
        let end = last(2_016, 4_031, (1_700_000_000, 0x1c38_7f6f), 1_600_000_000, 0x1c38_7f6f);
        let fastest = last(2_016, 4_031, (1_700_000_000, 0x1c38_7f6f), 1_700_000_000, 0x1c38_7f6f);
        assert_eq!(required_bits(params(network), &end, 0), required_bits(params(network), &fastest, 0));
    }
}

#[test]
fn mains_first_blocks_are_taken_and_forged_ones_are_not() {
    let mut tree = Tree::new(params(Network::Main));
    let genesis = rules(Network::Main).genesis;
    let first = real(
        "010000006fe28c0ab6f1b372c1a6a246ae63f74f931e8365e15a089c68d6190000000000982051fd1e4ba744bbbe680e1fee14677ba1a3c3540bf7b1cdb606e8\
         57233e0e61bc6649ffff001d01e36299",
    );
    let second = real(
        "010000004860eb18bf1b1620e37e9490fc8a427514416fd75159ab86688e9a8300000000d5fdcc541e25de1c7a5addedf24858b8bb665c9f36ef744ee42c3160\
         22c90f9bb0bc6649ffff001d08d2bd61",
    );
    assert_eq!(tree.add(&genesis), Ok(Added::Orphan([0; 32])));
    assert_eq!((tree.path(&[0; 32], &[0; 32], 9), tree.prune(9)), (vec![], vec![]));
    assert!(tree.root_at(0, &genesis).unwrap().is_some());
    new(tree.add(&first));
    let second = new(tree.add(&second));
    // Difficulty 1 is 2³² + 2¹⁶ + 1 hashes.
    assert_eq!((second.height, second.work, second.median_time), (2, 2 * 0x1_0001_0001, 1_231_469_665));
    for byte in 0..80 {
        let mut forged = first;
        forged[byte] ^= 1;
        assert!(tree.add(&forged).is_err(), "byte {byte}");
    }
    // All of these are below it, and no share builds on one.
    let root = tree.root_at(2_016, &real(RETARGETS[0].1)).unwrap().unwrap();
    assert_eq!((tree.len(), tree.best()), (1, Some(&root)));
    tree.sanity_check().unwrap();
}

#[test]
fn a_root_is_a_periods_first_block_and_bitcoins_own_where_it_is_the_first_of_all() {
    let mut tree = regtest();
    let genesis = rules(Network::Regtest).genesis;
    let header = header_on([9; 32], 1_700_000_000, EASY, 0);
    let mut weak = header;
    while hash_meets(&sha256d(&weak), EASY) {
        weak[76] = weak[76].wrapping_add(1);
    }
    let mut bits = header;
    bits[72..76].copy_from_slice(&0x2100_ffffu32.to_le_bytes());
    for (height, header, why) in [
        (2_017, &header, HeaderError::Root),
        (0, &header, HeaderError::Root),
        (2_016, &weak, HeaderError::Work),
        (2_016, &bits, HeaderError::Target),
    ] {
        assert_eq!(tree.root_at(height, header), Err(why));
    }
    assert_eq!(tree.root_at(0, &genesis), Ok(None), "it is there");
    let root = tree.root_at(4_032, &header).unwrap().unwrap();
    assert_eq!((tree.root(), tree.best(), tree.len()), (Some(&root), Some(&root), 1));
    assert_eq!((root.height, root.work, root.median_time, root.period_time), (4_032, 0, 0, 1_700_000_000));
    // Another one while nothing grows on it, and none afterwards.
    assert_eq!(tree.root_at(4_032, &header), Ok(None));
    let root = tree.root_at(2_016, &header_on([9; 32], 1_700_000_001, EASY, 0)).unwrap().unwrap();
    let above = grow(&mut tree, &root, 1, 0);
    assert_eq!(tree.root_at(2_016, &header_on([8; 32], 1, EASY, 0)), Ok(None));
    assert_eq!((tree.root(), tree.len()), (Some(&root), 2));
    // Higher than all there is: the rest is old, unless a share builds on it.
    let higher = header_on([8; 32], 1, EASY, 0);
    assert!(tree.clone().root_at(4_032, &higher).unwrap().is_some());
    tree.hold(&above[0].hash);
    assert_eq!(tree.root_at(4_032, &higher), Ok(None));
}

#[test]
fn every_network_starts_at_a_periods_first_block() {
    for network in Network::ALL {
        let (height, header) = start(network);
        let mut tree = Tree::new(params(network));
        assert_eq!(tree.locator(), [sha256d(header)]);
        assert_eq!(tree.root_at(height, header).unwrap().is_some(), network == Network::Main);
        assert_eq!((tree.root().unwrap().hash, tree.len()), (sha256d(header), 1));
    }
    let hash = ShareId(sha256d(start(Network::Main).1)).to_string();
    assert_eq!(hash, "00000000000000000002819359a9af460f342404bec23e7478512a619584083b");
}

#[test]
fn above_another_root_times_are_compared_once_eleven_blocks_are_known() {
    let mut tree = regtest();
    let mut at = tree.root_at(2_016, &header_on([9; 32], 1_700_000_000, EASY, 0)).unwrap().unwrap();
    for below in 1..=10 {
        // Each is older than the one before: nobody can tell whether that is wrong.
        at = new(tree.add(&header_on(at.hash, 1_700_000_000 - below, EASY, 0)));
        assert_eq!(at.median_time, if below < 10 { 0 } else { 1_700_000_000 - 5 });
    }
    assert_eq!(tree.add(&header_on(at.hash, 1_700_000_000 - 5, EASY, 0)), Err(HeaderError::Time));
    new(tree.add(&header_on(at.hash, 1_700_000_000 - 4, EASY, 0)));
    tree.sanity_check().unwrap();
    // From Bitcoin's own first block on there is no such gap.
    let mut tree = regtest();
    let genesis = tree.root().unwrap().clone();
    assert_eq!(tree.add(&header_on(genesis.hash, genesis.time(), EASY, 0)), Err(HeaderError::Time));
    new(tree.add(&header_on(genesis.hash, genesis.time() + 1, EASY, 0)));
}

#[test]
fn the_20_minute_boundary_on_testnet4() {
    let (limit, real) = (0x1d00_ffff, 0x1a01_0000);
    let testnet4 = params(Network::Testnet4);
    let before = Block { real_bits: real, ..Block::named([1; 32], 100_000, 1_700_000_000, limit) };
    for (after, bits) in [(0, real), (1, real), (1_200, real), (1_201, limit), (100_000, limit)] {
        assert_eq!(required_bits(testnet4, &before, 1_700_000_000 + after), bits, "{after} s");
        assert_eq!(required_bits(params(Network::Main), &before, 1_700_000_000 + after), limit, "those of the block before");
    }
    assert_eq!(required_bits(testnet4, &before, 1_699_999_000), real);
    // At the end of time nothing overflows.
    assert_eq!(required_bits(testnet4, &Block::named([1; 32], u32::MAX, u32::MAX, real), u32::MAX), real);
    assert_eq!(MIN_DIFFICULTY_AFTER_S, 1_200);
}

#[test]
fn the_20_minute_boundary_on_testnet4_is_that_of_a_shares_header_too() {
    let (limit, real) = (0x1d00_ffff, 0x1a01_0000);
    let testnet4 = params(Network::Testnet4);
    let prev = Block { real_bits: real, ..Block::named([1; 32], 100_000, 1_700_000_000, real) };
    for (after, required, other) in [(1, real, limit), (1_200, real, limit), (1_201, limit, real)] {
        let mut share = (**testnet4.genesis()).clone();
        share.bitcoin_height = prev.height + 1;
        share.header[68..72].copy_from_slice(&(1_700_000_000u32 + after).to_le_bytes());
        share.header[72..76].copy_from_slice(&u32::to_le_bytes(required));
        assert_eq!(crate::rules::bitcoin::check(testnet4, &share, &prev, 0), Ok(()), "{after} s");
        share.header[72..76].copy_from_slice(&u32::to_le_bytes(other));
        let error = crate::rules::bitcoin::check(testnet4, &share, &prev, 0).unwrap_err();
        assert!(error.reason().starts_with("BTC-7"), "{after} s: {error}");
    }
}

#[test]
fn a_tree_of_testnet4_keeps_its_real_difficulty_over_easy_blocks_and_periods() {
    let params = easy(Network::Testnet4);
    let mut tree = Tree::new(params);
    let mut at = tree.root().unwrap().clone();
    // A period in no time: the next one is four times harder.
    while at.height < PERIOD_BLOCKS - 1 {
        at = new(tree.add(&header_on(at.hash, at.time() + 1, EASY, 0)));
    }
    let hard = compact(target(EASY).unwrap() >> 2);
    assert_eq!((required_bits(params, &at, 0), period_bits_of_child(params, &at)), (hard, hard));
    assert_eq!(tree.add(&header_on(at.hash, at.time() + 9_999, EASY, 0)), Err(HeaderError::Bits { found: EASY, required: hard }));
    // BIP94: the last block of the period may be ahead of those before, but the first of the next no more than ten minutes behind it.
    let parent = tree.prev(&at).unwrap().clone();
    let ahead = new(tree.add(&header_on(parent.hash, parent.time() + 1_200, EASY, 1)));
    assert_eq!(tree.add(&header_on(ahead.hash, ahead.time() - 601, hard, 0)), Err(HeaderError::Warp));
    new(tree.add(&header_on(ahead.hash, ahead.time() - WARP_MAX_S as u32, hard, 0)));
    at = new(tree.add(&header_on(at.hash, at.time() + 600, hard, 0)));
    assert_eq!((at.period_bits, at.period_time), (hard, at.time()));
    while at.height < 2 * PERIOD_BLOCKS - 1 {
        let late = new(tree.add(&header_on(at.hash, at.time() + 1_201, EASY, 0)));
        if late.height < 2 * PERIOD_BLOCKS - 1 {
            let soon = header_on(late.hash, late.time() + 1_200, EASY, 0);
            assert_eq!(tree.add(&soon), Err(HeaderError::Bits { found: EASY, required: hard }));
        }
        // The chain goes on with real blocks a while, then with easy ones to the period's end.
        at = if at.height < 3_000 { new(tree.add(&header_on(late.hash, late.time() + 1_200, hard, 0))) } else { late };
    }
    // Four times two weeks at most would be back at the limit; the base is the period's first block, not the easy last one.
    let took = u64::from(at.time() - at.period_time);
    let base = Uint::<320, 5>::from(target(hard).unwrap()) * Uint::from(took) / Uint::from(1_209_600);
    assert_eq!(at.bits(), EASY);
    assert!((1_209_600..3 * 1_209_600).contains(&took));
    assert_eq!(required_bits(params, &at, 0), compact(base.to::<U256>()));
    tree.sanity_check().unwrap();
}

#[test]
fn regtest_never_retargets() {
    let mut tree = regtest();
    let mut at = tree.root().unwrap().clone();
    while at.height < PERIOD_BLOCKS {
        at = new(tree.add(&header_on(at.hash, at.time() + 1, EASY, 0)));
    }
    assert_eq!((at.bits(), at.period_time), (EASY, at.time()));
    let hard = header_on(at.hash, at.time() + 1, 0x207f_fffe, 0);
    assert_eq!(tree.add(&hard), Err(HeaderError::Bits { found: 0x207f_fffe, required: EASY }));
}

/// Headers in the order in which they came, and Bitcoin Core's rules by walking from parent to parent.
struct Slow {
    params: &'static Params,
    headers: Vec<([u8; 32], [u8; 80])>,
    heights: Vec<u32>,
    at: BTreeMap<[u8; 32], usize>,
}

impl Slow {
    fn new(params: &'static Params) -> Slow {
        let mut slow = Slow { params, headers: Vec::new(), heights: Vec::new(), at: BTreeMap::new() };
        slow.push(params.bitcoin.genesis);
        slow
    }

    fn push(&mut self, header: [u8; 80]) {
        self.at.insert(sha256d(&header), self.headers.len());
        self.headers.push((sha256d(&header), header));
        self.heights.push(self.parent(self.heights.len()).map_or(0, |parent| self.heights[parent] + 1));
    }

    fn parent(&self, at: usize) -> Option<usize> {
        self.at.get(&self.headers[at].1[4..36]).copied()
    }

    /// The block and its ancestors.
    fn chain(&self, at: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(at), |at| self.parent(*at))
    }

    fn time(&self, at: usize) -> u32 {
        word(&self.headers[at].1, 68)
    }

    fn bits(&self, at: usize) -> u32 {
        word(&self.headers[at].1, 72)
    }

    fn height(&self, at: usize) -> u32 {
        self.heights[at]
    }

    fn work(&self, at: usize) -> u128 {
        self.chain(at).filter(|at| *at > 0).map(|at| work(self.bits(at))).sum()
    }

    fn median(&self, at: usize) -> u32 {
        let mut times: Vec<u32> = self.chain(at).take(11).map(|at| self.time(at)).collect();
        times.sort_unstable();
        times[times.len() / 2]
    }

    /// GetNextWorkRequired.
    fn required(&self, prev: usize, time: u32) -> u32 {
        let rules = self.params.bitcoin;
        if !(self.height(prev) + 1).is_multiple_of(2016) {
            if !rules.min_difficulty {
                return self.bits(prev);
            }
            if i64::from(time) > i64::from(self.time(prev)) + 600 * 2 {
                return rules.limit_bits;
            }
            let mut at = prev;
            while !self.height(at).is_multiple_of(2016) && self.bits(at) == rules.limit_bits {
                at = self.parent(at).unwrap();
            }
            return self.bits(at);
        }
        if !rules.retargets {
            return self.bits(prev);
        }
        let first = self.chain(prev).nth(2015).unwrap();
        let mut span = i64::from(self.time(prev)) - i64::from(self.time(first));
        span = span.clamp(14 * 24 * 60 * 60 / 4, 14 * 24 * 60 * 60 * 4);
        let old = target(if rules.bip94 { self.bits(first) } else { self.bits(prev) }).unwrap();
        let new = Uint::<512, 8>::from(old) * Uint::from(span as u64) / Uint::from(14 * 24 * 60 * 60);
        compact(new.min(Uint::from(target(rules.limit_bits).unwrap())).to())
    }

    /// What `add` must say of a header whose proof of work is right.
    fn judge(&self, header: &[u8; 80]) -> Result<(), HeaderError> {
        let prev = self.at[&header[4..36]];
        let (time, found) = (word(header, 68), word(header, 72));
        let required = self.required(prev, time);
        if found != required {
            return Err(HeaderError::Bits { found, required });
        }
        if time <= self.median(prev) {
            return Err(HeaderError::Time);
        }
        if self.params.bitcoin.bip94 && (self.height(prev) + 1).is_multiple_of(2016) && i64::from(time) < i64::from(self.time(prev)) - 600 {
            return Err(HeaderError::Warp);
        }
        Ok(())
    }

    /// Hashes of the branch of `to` above where it leaves that of `from`, lowest first.
    fn path(&self, from: usize, to: usize) -> Vec<[u8; 32]> {
        let below: std::collections::BTreeSet<usize> = self.chain(from).collect();
        let mut path: Vec<_> = self.chain(to).take_while(|at| !below.contains(at)).map(|at| self.headers[at].0).collect();
        path.reverse();
        path
    }
}

/// A tree, the slow one and a copy that follows by [`Tree::insert`].
struct Three {
    tree: Tree,
    slow: Slow,
    copy: Tree,
}

impl Three {
    fn new(params: &'static Params) -> Three {
        Three { tree: Tree::new(params), slow: Slow::new(params), copy: Tree::new(params) }
    }

    fn add(&mut self, header: [u8; 80]) -> Result<(), HeaderError> {
        match self.tree.add(&header)? {
            Added::New(block) => {
                self.slow.push(header);
                self.copy.insert(block);
            }
            other => assert_eq!(other, Added::Known),
        }
        Ok(())
    }

    /// A header at random on one of the newest blocks, mostly right, and what both say.
    fn step(&mut self, rng: &mut ChaCha12Rng) {
        let mut draw = |n: u32| rng.next_u32() % n;
        let newest = self.slow.headers.len();
        let prev = newest - 1 - (if draw(4) == 0 { draw(60) } else { draw(3) } as usize).min(newest - 1);
        let (before, median) = (self.slow.time(prev), self.slow.median(prev));
        let time = match draw(12) {
            0 => before + 1_200,
            1 => before + 1_201,
            2 => median,
            3 => median + 1,
            4 => before - 600,
            5 => before - 601,
            6 => before + 1_200 + draw(4_000),
            7 => before.saturating_sub(draw(3_000)),
            _ => before + 1 + draw(600),
        };
        let bits = match draw(10) {
            0 => EASY,
            1 => self.slow.bits(prev),
            2 => compact(target(self.slow.bits(prev)).unwrap() >> 1),
            _ => self.slow.required(prev, time),
        };
        let header = header_on(self.slow.headers[prev].0, time, bits, draw(u32::MAX));
        let expected = self.slow.judge(&header);
        assert_eq!(self.add(header), expected, "time {time} on {before}, bits {bits:08x}");
    }

    fn agree(&self, rng: &mut ChaCha12Rng) {
        let slow = &self.slow;
        let count = slow.headers.len();
        for at in count.saturating_sub(100)..count {
            let block = self.tree.get(&slow.headers[at].0).unwrap();
            assert_eq!((block.height, block.work, block.median_time), (slow.height(at), slow.work(at), slow.median(at)));
            let first = slow.chain(at).find(|at| slow.height(*at).is_multiple_of(2016)).unwrap();
            assert_eq!((block.period_bits, block.period_time), (slow.bits(first), slow.time(first)));
        }
        let pick = |rng: &mut ChaCha12Rng| count - 1 - rng.next_u32() as usize % count.min(200);
        for _ in 0..20 {
            let (from, to, most) = (pick(rng), pick(rng), rng.next_u32() as usize % 100);
            let mut expected = slow.path(from, to);
            let (from, to) = (slow.headers[from].0, slow.headers[to].0);
            assert_eq!(self.tree.is_ancestor(&to, &from), expected.is_empty());
            expected.truncate(most);
            let found: Vec<_> = self.tree.path(&from, &to, most).iter().map(|block| block.hash).collect();
            assert_eq!(found, expected);
        }
    }
}

#[test]
fn random_trees_agree_with_a_second_implementation() {
    for network in [Network::Main, Network::Testnet4, Network::Regtest] {
        for seed in 0..2 {
            let mut rng = ChaCha12Rng::seed_from_u64(seed);
            let params = easy(network);
            let mut three = Three::new(params);
            // To just below a period's end in a fast period, over it at random, the same again.
            for period in 1..=2 {
                while three.tree.best().unwrap().height < period * PERIOD_BLOCKS - 30 {
                    let at = three.tree.best().unwrap().clone();
                    let time = at.time() + if network == Network::Testnet4 && rng.next_u32().is_multiple_of(9) { 1_300 } else { 400 };
                    three.add(header_on(at.hash, time, required_bits(params, &at, time), 0)).unwrap();
                }
                while three.tree.best().unwrap().height < period * PERIOD_BLOCKS + 30 {
                    three.step(&mut rng);
                }
                three.agree(&mut rng);
            }
            let works: Vec<u128> = (0..three.slow.headers.len()).rev().take(700).map(|at| three.slow.work(at)).collect();
            let most = works.iter().max().unwrap();
            let first_seen = works.iter().rposition(|work| work == most).unwrap();
            assert_eq!(three.tree.best().unwrap().hash, three.slow.headers[three.slow.headers.len() - 1 - first_seen].0);
            assert_eq!(three.tree.len(), three.slow.headers.len());
            three.tree.sanity_check().unwrap();
            three.copy.sanity_check().unwrap();
            same(&three.tree, &three.copy);
        }
    }
}

fn same(one: &Tree, other: &Tree) {
    assert!(one.iter().eq(other.iter()));
    assert_eq!((one.root(), one.best(), one.locator()), (other.root(), other.best(), other.locator()));
}

#[test]
fn a_locator_goes_down_in_doubling_steps_to_the_root() {
    let mut tree = regtest();
    let genesis = tree.root().unwrap().clone();
    assert_eq!(tree.locator(), [genesis.hash]);
    let chain = grow(&mut tree, &genesis, 1_000, 0);
    grow(&mut tree, &chain[990], 5, 1);
    let heights: Vec<u32> = tree.locator().iter().map(|hash| tree.get(hash).unwrap().height).collect();
    assert_eq!(heights, [1000, 999, 998, 997, 996, 995, 994, 993, 992, 991, 989, 985, 977, 961, 929, 865, 737, 481, 0]);
    // From somewhere unknown the path begins with the root.
    assert_eq!(tree.path(&[7; 32], &chain[999].hash, 2), [genesis.clone(), chain[0].clone()]);
    assert_eq!(tree.path(&genesis.hash, &[7; 32], 2), []);
    assert_eq!(tree.path(&genesis.hash, &chain[999].hash, 2_000), chain);
    assert_eq!(tree.path(&chain[999].hash, &chain[5].hash, 2_000), []);
}

#[test]
fn headers_off_the_best_chain_are_bounded_and_the_oldest_go() {
    let mut tree = regtest();
    let genesis = tree.root().unwrap().clone();
    let chain = grow(&mut tree, &genesis, 20, 0);
    let mut copy = tree.clone();
    let mut add = |tree: &mut Tree, header: [u8; 80]| {
        let block = new(tree.add(&header));
        copy.insert(block.clone());
        assert_eq!(tree.pushed_out(), copy.pushed_out());
        same_len(tree, &copy);
        block
    };
    // A stale branch of old, and siblings without end.
    let old = add(&mut tree, header_on(chain[2].hash, chain[3].time(), EASY, 1));
    let old = [old.clone(), add(&mut tree, header_on(old.hash, chain[4].time(), EASY, 1))];
    for salt in 2..SIDE_HEADERS_MAX as u32 {
        add(&mut tree, header_on(chain[10].hash, chain[11].time(), EASY, salt));
        assert!(tree.pushed_out().is_empty());
    }
    assert_eq!(tree.len(), 21 + SIDE_HEADERS_MAX);
    // Leaves of the oldest branch first, one for one; then the others, never the best or the newest.
    for salt in 0..2 {
        add(&mut tree, header_on(chain[9].hash, chain[10].time(), EASY, SIDE_HEADERS_MAX as u32 + salt));
        assert_eq!(tree.pushed_out(), [old[1 - salt as usize].clone()]);
    }
    assert!(tree.get(&old[0].hash).is_none());
    let newest = add(&mut tree, header_on(chain[1].hash, chain[2].time(), EASY, 1));
    let out = tree.pushed_out()[0].clone();
    assert_eq!((out.height, tree.get(&newest.hash)), (11, Some(&newest)));
    // A branch that comes to overtake grows from below all of them.
    let mut at = newest;
    while at.height < 21 {
        at = add(&mut tree, header_on(at.hash, at.time() + 600, EASY, 1));
    }
    assert_eq!((tree.best(), tree.len()), (Some(&at), 22 + SIDE_HEADERS_MAX));
    tree.sanity_check().unwrap();
    assert_eq!(tree.get(&chain[19].hash).map(|block| block.height), Some(20), "of the old best chain the end has the most work");
}

#[test]
fn what_shares_build_on_takes_no_room_from_others() {
    let mut tree = regtest();
    let genesis = tree.root().unwrap().clone();
    let chain = grow(&mut tree, &genesis, 20, 0);
    let sibling = |salt: u32| header_on(chain[10].hash, chain[11].time(), EASY, salt);
    let siblings: Vec<_> = (1..=SIDE_HEADERS_MAX as u32).map(|salt| new(tree.add(&sibling(salt)))).collect();
    siblings[..3].iter().chain(&chain[10..]).for_each(|block| tree.hold(&block.hash));
    for salt in 1..=3 {
        new(tree.add(&sibling(SIDE_HEADERS_MAX as u32 + salt)));
        assert!(tree.pushed_out().is_empty());
    }
    new(tree.add(&sibling(SIDE_HEADERS_MAX as u32 + 4)));
    assert_eq!((tree.pushed_out().len(), tree.len()), (1, 21 + SIDE_HEADERS_MAX + 3));
    // One of them leads to a better chain, and what the old one held beside it is.
    grow(&mut tree, &siblings[0], 10, 0);
    assert!(tree.is_best(&siblings[0]) && !tree.is_best(&chain[11]));
    tree.sanity_check().unwrap();
    assert!(siblings[..3].iter().chain(&chain[10..]).all(|block| tree.get(&block.hash).is_some()));
}

fn same_len(one: &Tree, other: &Tree) {
    assert_eq!((one.len(), one.best().map(|best| best.hash)), (other.len(), other.best().map(|best| best.hash)));
}

#[test]
fn one_branch_alone_is_cut_where_there_is_no_room() {
    let mut tree = regtest();
    let genesis = tree.root().unwrap().clone();
    let best = grow(&mut tree, &genesis, SIDE_HEADERS_MAX as u32 + 5, 0).pop().unwrap();
    let end = grow(&mut tree, &genesis, SIDE_HEADERS_MAX as u32, 1).pop().unwrap();
    let header = header_on(end.hash, end.time() + 600, EASY, 1);
    assert_eq!(tree.add(&header), Err(HeaderError::Full));
    assert_eq!(tree.add(&header), Err(HeaderError::Full));
    assert_eq!((tree.best(), tree.len()), (Some(&best), 2 * SIDE_HEADERS_MAX + 6));
    assert!(tree.pushed_out().is_empty());
    tree.sanity_check().unwrap();
}

#[test]
fn what_is_far_below_is_forgotten_but_not_two_periods() {
    let mut tree = regtest();
    let genesis = tree.root().unwrap().clone();
    let chain = grow(&mut tree, &genesis, 5 * PERIOD_BLOCKS, 0);
    // Branches below, across and above the root to come.
    let below = grow(&mut tree, &chain[100], 10, 1);
    let across = grow(&mut tree, &chain[4_020], 30, 1);
    let beside = grow(&mut tree, &chain[4_031], 10, 1);
    let before = tree.clone();
    assert_eq!(tree.prune(PERIOD_BLOCKS - 1), []);
    let forgotten = tree.prune(2 * PERIOD_BLOCKS + 500);
    assert_eq!(forgotten.len(), 4_032 + below.len() + across.len());
    assert_eq!((tree.root(), tree.best(), tree.len()), (Some(&chain[4_031]), before.best(), before.len() - forgotten.len()));
    assert_eq!((tree.at_height(4_031), tree.at_height(4_032)), (None, Some(&chain[4_031])));
    assert!(beside.iter().all(|block| tree.get(&block.hash) == Some(block)) && tree.get(&across[29].hash).is_none());
    tree.sanity_check().unwrap();
    // It goes on as before, and times are compared still.
    let top = tree.best().unwrap().clone();
    assert_eq!(tree.add(&header_on(top.hash, top.median_time, EASY, 0)), Err(HeaderError::Time));
    assert_eq!(grow(&mut tree, &top, 1, 0)[0].work, top.work + 2);
    // Never above the period's first block two periods below the best.
    assert!(!tree.prune(u32::MAX).is_empty());
    assert_eq!(tree.root().map(|root| root.height), Some((5 - PERIODS_KEPT) * PERIOD_BLOCKS));
    assert_eq!(tree.prune(u32::MAX), []);
    tree.sanity_check().unwrap();
    // A copy that is pruned alike stays alike, whatever it was given since.
    let mut copy = before;
    copy.insert(tree.best().unwrap().clone());
    copy.prune(u32::MAX);
    same(&tree, &copy);
}

#[test]
fn a_copy_follows_roots_and_ignores_what_it_cannot_place() {
    let mut copy = regtest();
    let mut tree = regtest();
    let root = tree.root_at(2_016, &header_on([9; 32], 1_700_000_000, EASY, 0)).unwrap().unwrap();
    let chain = grow(&mut tree, &root, 3, 0);
    copy.insert(chain[1].clone());
    copy.insert(root.clone());
    copy.insert(chain[1].clone());
    copy.insert(chain[0].clone());
    copy.insert(chain[0].clone());
    assert_eq!((copy.len(), copy.root(), copy.best()), (2, Some(&root), Some(&chain[0])));
    copy.insert(Arc::new(Block::root(2_016, &header_on([8; 32], 1, EASY, 0))));
    assert_eq!(copy.len(), 2);
    chain[1..].iter().cloned().for_each(|block| copy.insert(block));
    same(&tree, &copy);
    let root = tree.root_at(4_032, &header_on([8; 32], 1, EASY, 0)).unwrap().unwrap();
    copy.insert(root);
    same(&tree, &copy);
    assert_eq!(copy.len(), 1);
}

#[test]
fn a_damaged_tree_is_found_out() {
    let mut tree = regtest();
    let genesis = tree.root().unwrap().clone();
    let chain = grow(&mut tree, &genesis, 30, 0);
    let mut torn = tree.clone();
    torn.insert(Arc::new(Block { work: 7, height: 30, ..(*grow(&mut tree, &chain[28], 1, 1)[0]).clone() }));
    assert!(torn.sanity_check().unwrap_err().contains("does not follow"));
}

#[test]
fn a_named_block_stands_for_its_period() {
    let named = Block::named([3; 32], 840_000, 1_713_571_767, 0x1703_4219);
    assert_eq!((named.hash, named.height, named.time(), named.bits()), ([3; 32], 840_000, 1_713_571_767, 0x1703_4219));
    assert_eq!((named.period_bits, named.median_time, named.work), (0x1703_4219, 0, 0));
    for network in Network::ALL {
        assert_eq!(required_bits(params(network), &named, 1_713_571_767), 0x1703_4219);
        assert_eq!(period_bits_of_child(params(network), &named), 0x1703_4219);
    }
}
