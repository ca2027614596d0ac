//! Headers that our own side of Bitcoin tells of, from where the network starts.

use rockpool_net::sha256::sha256d;

use super::*;
use crate::bitcoin::{Added, Tree, rules, start};
use crate::limits::{HEADERS_BELOW, PERIOD_BLOCKS, SIDE_HEADERS_MAX};
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

/// Whatever our own side of Bitcoin and peers tell, in whatever order, however it is cut into changes and wherever the node restarts: the
/// reactor's copy is equal to the organiser's, and so is what is read from the rows.
#[test]
fn over_random_histories_of_headers_the_copy_and_the_rows_are_equal_to_the_tree() {
    for seed in 0..3 {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let mut below = |bound: u32| rng.next_u32() % bound;
        let kv = MemKv::new();
        let (mut chain, mut salt) = (open(&kv), 0);
        let mut view = chain.view();
        let (mut pruned, mut rooted, mut grown) = (0, 0, 0);
        for _ in 0..120 {
            let best = chain.bitcoin().best().unwrap().clone();
            let mut on = best.clone();
            match below(12) {
                // A run on the best block, of our own side or of a peer.
                kind @ 0..=5 => {
                    let (mut tree, mut run) = (chain.bitcoin().clone(), Vec::new());
                    for _ in 0..=below(if kind < 3 { 1_500 } else { 10 }) {
                        let header = bitcoin_header(&on, 600);
                        let Added::New(block) = tree.add(&header).unwrap() else { panic!("it is new") };
                        on = block;
                        run.push(header);
                    }
                    if kind == 5 {
                        chain.offer_blocks(&run)
                    } else {
                        chain.follow_blocks(&run)
                    };
                }
                // A branch from somewhere below, which may win.
                6..=8 => {
                    (0..below(6)).for_each(|_| on = chain.bitcoin().prev(&on).cloned().unwrap_or(on.clone()));
                    for _ in 0..=below(8) {
                        salt += 1;
                        let header = bitcoin_header(&on, 600 + salt);
                        if below(2) == 0 {
                            chain.offer_blocks(&[header])
                        } else {
                            chain.follow_blocks(&[header])
                        };
                        let Some(block) = chain.bitcoin().get(&sha256d(&header)) else { break };
                        on = block.clone();
                    }
                }
                // bitcoind says that it begins above all that is known, or what is there already.
                9 if below(3) == 0 => {
                    let height = (best.height / PERIOD_BLOCKS + 1) * PERIOD_BLOCKS;
                    salt += 1;
                    // At times it goes on exactly where the headers end.
                    let mut header = bitcoin_header(&best, 600 + salt);
                    if below(3) > 0 {
                        header[4..36].fill(salt as u8);
                        while !hash_meets(&sha256d(&header), 0x207f_ffff) {
                            header[76] = header[76].wrapping_add(1);
                        }
                    }
                    rooted += usize::from(chain.root_at(height, &header).is_some());
                }
                10 if seed % 2 == 1 && grown < 2 && chain.bitcoin().root().unwrap().height == 0 => {
                    let tip = chain.tip().id;
                    let before = chain.tip().height;
                    grow(&mut chain, tip, 1, salt, Source::Peer);
                    grown += chain.tip().height - before;
                }
                11 => {
                    chain = {
                        if let Some((change, batches)) = chain.take_change() {
                            view.apply(&change);
                            batches.iter().for_each(|batch| kv.write(&batch.ops, false).unwrap());
                        }
                        assert!(view.bitcoin().iter().eq(chain.bitcoin().iter()), "seed {seed}");
                        open(&kv)
                    };
                    assert!(
                        view.bitcoin().iter().map(|block| block.hash).eq(chain.bitcoin().iter().map(|block| block.hash)),
                        "seed {seed}"
                    );
                    view = chain.view();
                }
                _ => {}
            }
            if below(3) > 0
                && let Some((change, batches)) = chain.take_change()
            {
                chain.sanity_check().unwrap();
                let root = view.bitcoin().root().unwrap().height;
                view.apply(&change);
                batches.iter().for_each(|batch| kv.write(&batch.ops, false).unwrap());
                let (ours, theirs) = (chain.bitcoin(), view.bitcoin());
                assert!(theirs.iter().eq(ours.iter()), "seed {seed}: {} of {}", theirs.len(), ours.len());
                assert_eq!((theirs.root(), theirs.best(), theirs.locator()), (ours.root(), ours.best(), ours.locator()), "seed {seed}");
                pruned += usize::from(root < theirs.root().unwrap().height);
            }
        }
        assert!(seed % 2 == 1 || pruned + rooted > 0, "seed {seed}: nothing was forgotten");
    }
}

/// Peers that tell of a long stale branch tell the truth.
#[test]
fn a_branch_for_which_there_is_no_room_is_no_lie() {
    let mut chain = fresh();
    chain.offer_blocks(&headers(SIDE_HEADERS_MAX as u32 + 2));
    let mut beside = Tree::new(regtest());
    let other: Vec<_> = (0..SIDE_HEADERS_MAX + 1)
        .map(|_| {
            let header = bitcoin_header(beside.best().unwrap(), 601);
            beside.add(&header).unwrap();
            header
        })
        .collect();
    let blocks = chain.offer_blocks(&other);
    assert_eq!((blocks.new.len(), blocks.missing, blocks.bad), (SIDE_HEADERS_MAX, None, None));
}
