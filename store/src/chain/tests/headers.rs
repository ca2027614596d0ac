//! Headers that our own side of Bitcoin tells of, from where the network starts.

use rockpool_net::sha256::sha256d;

use super::*;
use crate::bitcoin::{Tree, rules, start};
use crate::limits::{HEADERS_BELOW, PERIOD_BLOCKS};
use crate::rules::target::hash_meets;
use crate::testing::bitcoin_header;

/// More headers than are kept, from regtest's first block on.
fn headers(count: u32) -> Vec<[u8; 80]> {
    let mut tree = Tree::new(regtest());
    (0..count)
        .map(|_| {
            let header = bitcoin_header(tree.best().unwrap(), 600);
            tree.add(&header).unwrap();
            header
        })
        .collect()
}

fn heights(kv: &dyn Kv) -> Vec<u32> {
    let mut heights = Vec::new();
    schema::blocks(kv, |height, _| {
        heights.push(height);
        Ok(())
    })
    .unwrap();
    heights
}

fn write(chain: &mut Chain, kv: &dyn Kv) {
    let batches = chain.take_change().map_or_else(Vec::new, |(_, batches)| batches);
    batches.iter().for_each(|batch| kv.write(&batch.ops, false).unwrap());
}

#[test]
fn of_all_headers_told_of_the_newest_are_kept_in_memory_and_on_disk_over_a_crash_at_any_batch() {
    let count = HEADERS_BELOW + 2 * PERIOD_BLOCKS + 500;
    let (kv, headers) = (MemKv::new(), headers(count));
    let mut chain = open(&kv);
    let mut view = chain.view();
    let mut last = Vec::new();
    for some in headers.chunks(2_000) {
        let blocks = chain.follow_blocks(some);
        assert_eq!((blocks.new.len(), blocks.missing, blocks.bad), (some.len(), None, None));
        assert!(chain.bitcoin().len() as u32 <= HEADERS_BELOW + PERIOD_BLOCKS + 2_000, "{}", chain.bitcoin().len());
        let (change, batches) = chain.take_change().unwrap();
        view.apply(&change);
        last.iter().for_each(|batch: &Batch| kv.write(&batch.ops, false).unwrap());
        last = batches;
    }
    let lowest = 2 * PERIOD_BLOCKS;
    assert_eq!((chain.bitcoin().root().unwrap().height, chain.bitcoin().best().unwrap().height), (lowest, count));
    assert_eq!((view.bitcoin().root(), view.bitcoin().best()), (chain.bitcoin().root(), chain.bitcoin().best()));
    assert!(view.bitcoin().iter().eq(chain.bitcoin().iter()));
    chain.sanity_check().unwrap();
    // The last change forgets a whole period: whatever of it reached the disk, the headers that did are one chain.
    assert!(last.len() > 2);
    for written in 0..=last.len() {
        let crashed = MemKv::new();
        let row = |key: &[u8], value: &[u8]| crashed.write(&[Op::Put(Family::Bitcoin, key.to_vec(), value.to_vec())], false).is_ok();
        kv.scan(Family::Bitcoin, &[], &mut |key, value| row(key, value)).unwrap();
        last[..written].iter().for_each(|batch| crashed.write(&batch.ops, false).unwrap());
        let mut again = open(&crashed);
        again.sanity_check().unwrap();
        write(&mut again, &crashed);
        // The network's own first block has no row.
        let (first, best) = (again.bitcoin().root().unwrap().height.max(1), again.bitcoin().best().unwrap().height);
        let kept = heights(&crashed);
        let gap = kept.windows(2).find(|two| two[1] != two[0] + 1);
        assert_eq!((kept.first(), gap, kept.last()), (Some(&first), None, Some(&best)), "after {written} of {} batches", last.len());
        again.follow_blocks(&headers[lowest as usize..]);
        assert_eq!(again.bitcoin().best().unwrap().hash, chain.bitcoin().best().unwrap().hash, "after {written} batches");
    }
}

#[test]
fn what_shares_build_on_is_not_forgotten() {
    let mut chain = open(&MemKv::new());
    let headers = headers(HEADERS_BELOW + 2 * PERIOD_BLOCKS);
    let genesis = chain.tip().id;
    grow(&mut chain, genesis, 1, 0, Source::Peer);
    for some in headers.chunks(2_000) {
        chain.follow_blocks(some);
    }
    assert_eq!(chain.bitcoin().root().unwrap().height, 0);
    chain.sanity_check().unwrap();
}

#[test]
fn main_begins_at_its_checkpoint_unless_bitcoind_says_where() {
    let main = params(Network::Main);
    let (height, header) = start(Network::Main);
    let mut chain = Chain::open(main, [1, 2], &MemKv::new()).unwrap();
    assert!(chain.bitcoin().is_empty());
    assert_eq!(chain.follow_blocks(&[]).new, []);
    assert_eq!(chain.bitcoin().best().map(|best| (best.height, best.header)), Some((height, *header)));
    // Later bitcoind says that it may begin higher, and its rows are those of that root alone.
    let kv = MemKv::new();
    let mut chain = Chain::open(regtest(), [1, 2], &kv).unwrap();
    chain.follow_blocks(&self::headers(20));
    write(&mut chain, &kv);
    assert_eq!(heights(&kv).len(), 20);
    let mut root = rules(Network::Regtest).genesis;
    while sha256d(&root) == sha256d(&rules(Network::Regtest).genesis) || !hash_meets(&sha256d(&root), 0x207f_ffff) {
        root[76] = root[76].wrapping_add(1);
    }
    assert!(chain.root_at(PERIOD_BLOCKS, &root).is_some());
    write(&mut chain, &kv);
    assert_eq!(heights(&kv), [PERIOD_BLOCKS]);
    assert_eq!(open(&kv).bitcoin().best().unwrap().height, PERIOD_BLOCKS);
}
