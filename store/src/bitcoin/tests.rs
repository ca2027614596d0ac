use super::*;
use crate::params::params;
use bitcoin::hashes::Hash;
use std::sync::Arc;

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
        if crate::rules::target::hash_meets(&sha256d(&header), bits) {
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
    assert_eq!((long[29].height, long[29].work, long[29].bits()), (30, 60, 0x207f_ffff));
    // The middle of the newest eleven, and of the first ones.
    assert_eq!((long[29].median_time, long[0].median_time), (long[24].time(), long[0].time()));
    let side = grow(&mut tree, &long[19], 10, 1);
    assert_eq!(side[9].work, long[29].work);
    assert_eq!(tree.best(), Some(&long[29]));
    let winner = grow(&mut tree, &side[9], 1, 1);
    assert_eq!(tree.best(), Some(&winner[0]));
    assert_eq!((tree.at_height(20), tree.at_height(21), tree.at_height(32)), (Some(&long[19]), Some(&side[0]), None));
    assert_eq!(tree.add(&long[5].header), Ok(Added::Known));
    assert_eq!(tree.add(&header_on([7; 32], 1, 0x207f_ffff, 0)), Ok(Added::Orphan([7; 32])));
    assert_eq!(tree.fork(&long[29].hash, &winner[0].hash), Some(&long[19]));
    let path: Vec<_> = side.iter().chain(&winner).cloned().collect();
    assert_eq!(tree.path(&long[29].hash, &winner[0].hash, 100), path);
    assert_eq!(tree.path(&long[29].hash, &winner[0].hash, 3), path[..3]);
    assert_eq!(tree.path(&winner[0].hash, &long[29].hash, 3), long[20..23]);
    tree.sanity_check().unwrap();
}
