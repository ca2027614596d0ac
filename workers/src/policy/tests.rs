#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::testing::regtest;
use rockpool_store::bitcoin::Added;
use rockpool_store::record::Rare;
use rockpool_store::testing::bitcoin_header;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// A policy, Bitcoin's tree, and a chain of shares; the last is the tip.
struct World {
    policy: Policy,
    tree: Tree,
    shares: Vec<Arc<Record>>,
    now: Duration,
}

impl World {
    /// Of a network where every header costs something, or of regtest, where none does.
    fn new(easy: bool) -> World {
        let mut policy = Policy::new(regtest());
        if !easy {
            policy.easiest = 0;
        }
        World { policy, tree: Tree::new(regtest()), shares: vec![Arc::new(regtest().genesis_record())], now: 1_000 * SECOND }
    }

    /// A Bitcoin block on another.
    fn block(&mut self, on: &Arc<Block>, after: u32) -> Arc<Block> {
        let Ok(Added::New(block)) = self.tree.add(&bitcoin_header(on, after)) else { panic!() };
        block
    }

    fn root(&self) -> Arc<Block> {
        self.tree.root().unwrap().clone()
    }

    /// A share on this block, on the share before it.
    fn share(&mut self, on: &Arc<Block>) -> ShareId {
        let below = self.shares.last().unwrap();
        let id = ShareId([self.shares.len() as u8; 32]);
        let (height, score) = (below.height + 1, below.score + 10);
        self.shares.push(Arc::new(Record { id, parent: below.id, height, score, bitcoin: on.clone(), ..(**below).clone() }));
        id
    }

    /// The same, and it arrives by itself.
    fn arrives(&mut self, on: &Arc<Block>) -> ShareId {
        let id = self.share(on);
        self.policy.arrived(self.shares.last().unwrap(), self.now);
        id
    }

    fn tips(&mut self, active: &Block, valid: &[&Arc<Block>], invalid: &[&Arc<Block>]) {
        let hashes = |blocks: &[&Arc<Block>]| blocks.iter().map(|block| block.hash).collect();
        let tips = Tips { active: active.hash, valid: hashes(valid), invalid: hashes(invalid) };
        self.policy.tips(self.now, &self.tree, tips);
    }

    fn upon(&mut self) -> Upon {
        let near = || self.shares.iter().rev().cloned().collect();
        self.policy.choose(self.now, &self.tree, self.shares.last().unwrap(), near)
    }
}

#[test]
fn while_bitcoind_cannot_be_reached_every_share_is_fit() {
    let mut world = World::new(false);
    let first = world.block(&world.root(), 600);
    let second = world.block(&first, 600);
    let fit = world.share(&first);
    world.share(&second);
    world.tips(&first, &[], &[]);
    assert_eq!(world.upon(), Upon::Tip);
    world.now += LACKED_MAX;
    assert_eq!(world.upon(), Upon::Other(fit));
    world.policy.lost();
    assert_eq!((world.upon(), world.policy.due(world.now)), (Upon::Tip, None));
    // It is back, and has its time to get the block.
    world.tips(&first, &[], &[]);
    assert_eq!((world.upon(), world.policy.due(world.now)), (Upon::Tip, Some(world.now + LACKED_MAX)));
}

/// SHARECHAIN §3: Bitcoin peers are the source where bitcoind is silent.
#[test]
fn while_bitcoind_cannot_be_reached_bitcoin_peers_say_which_blocks_there_are() {
    let mut world = World::new(false);
    let first = world.block(&world.root(), 600);
    let beside = world.block(&world.root(), 601);
    let second = world.block(&first, 600);
    let fit = world.share(&first);
    world.share(&second);
    world.policy.heard(world.now, &world.tree, &first);
    assert_eq!(world.upon(), Upon::Tip);
    assert_eq!(world.policy.due(world.now), Some(world.now + LACKED_MAX));
    world.now += LACKED_MAX;
    assert_eq!(world.upon(), Upon::Other(fit), "two minutes after it was needed no peer has told of it");
    // bitcoind's word counts while it can be reached; and what it had is there still, though they are behind.
    world.tips(&second, &[], &[]);
    assert_eq!(world.upon(), Upon::Tip);
    world.policy.lost();
    world.now += LACKED_MAX;
    assert_eq!((world.upon(), world.policy.due(world.now)), (Upon::Tip, None));
    let ahead = world.block(&second, 600);
    world.share(&ahead);
    assert_eq!((world.upon(), world.policy.due(world.now)), (Upon::Tip, Some(world.now + LACKED_MAX)), "of this nobody has told");
    world.policy.heard(world.now, &world.tree, &ahead);
    assert_eq!((world.upon(), world.policy.due(world.now)), (Upon::Tip, None));
    // A block beside the best one has no more work, so that they would not tell of it.
    world.share(&beside);
    world.now += LACKED_MAX;
    assert_eq!(world.upon(), Upon::Tip);
    // When the last of them has left, nobody knows what there is.
    let third = world.block(&ahead, 600);
    world.share(&third);
    assert_eq!(world.upon(), Upon::Tip);
    world.policy.peers_lost();
    world.now += LACKED_MAX;
    assert_eq!((world.upon(), world.policy.due(world.now)), (Upon::Tip, None));
}

#[test]
fn a_share_is_late_by_what_a_bitcoin_peer_told_first() {
    let mut world = World::new(false);
    let first = world.block(&world.root(), 600);
    let second = world.block(&first, 600);
    world.tips(&first, &[], &[]);
    let fit = world.share(&first);
    world.policy.heard(world.now, &world.tree, &second);
    world.now += LATE_AFTER + MS;
    world.arrives(&first);
    assert_eq!(world.upon(), Upon::Other(fit));
}

#[test]
fn a_share_two_blocks_ahead_of_bitcoind_is_not_mined_upon_since_no_work_on_it_could_be_valid() {
    let mut world = World::new(false);
    let first = world.block(&world.root(), 600);
    let second = world.block(&first, 600);
    let third = world.block(&second, 600);
    let fit = world.share(&second);
    world.tips(&first, &[], &[]);
    assert_eq!(world.upon(), Upon::Tip, "one block ahead");
    world.share(&third);
    assert_eq!(world.upon(), Upon::Other(fit));
    // Nor upon one behind again, on such a share.
    let behind = Record { bitcoin: second.clone(), id: ShareId([9; 32]), height: 3, ..(**world.shares.last().unwrap()).clone() };
    let rare = Rare { best_bitcoin: Some(third.clone()), ..Rare::default() };
    world.shares.push(Arc::new(Record { rare: Some(Box::new(rare)), ..behind }));
    assert_eq!(world.upon(), Upon::Other(fit));
    // It hears of the next block before it says how its branches end.
    world.policy.told(second.hash);
    assert_eq!(world.upon(), Upon::Tip);
}

#[test]
fn without_a_bitcoind_every_share_is_fit() {
    let mut world = World::new(true);
    let block = world.block(&world.root(), 600);
    world.share(&block);
    world.policy.told(world.root().hash);
    assert_eq!((world.upon(), world.policy.due(world.now)), (Upon::Tip, None));
    // Nor is anything said against one while the header of the block that is mined on is unknown.
    let unknown = Tips { active: [9; 32], valid: vec![], invalid: vec![block.hash] };
    world.policy.tips(world.now, &world.tree, unknown);
    assert_eq!(world.upon(), Upon::Tip);
}

#[test]
fn a_share_on_an_invalid_block_or_on_what_builds_on_it_is_not_mined_upon() {
    let mut world = World::new(false);
    let good = world.block(&world.root(), 600);
    let bad = [world.block(&good, 600), world.block(&good, 601)];
    let above = world.block(&bad[0], 600);
    let fit = world.share(&good);
    for (block, invalid, wanted) in [
        (&bad[0], vec![&bad[0]], Upon::Other(fit)),
        (&bad[0], vec![&bad[1], &bad[0]], Upon::Other(fit)),
        (&above, vec![&bad[0]], Upon::Other(fit)),
        // The end is named alone; its parent would be mined on if it were good.
        (&bad[0], vec![&above], Upon::Other(fit)),
        // Another branch is as good as before, as long as bitcoind has time to get it.
        (&bad[0], vec![&bad[1]], Upon::Tip),
        (&good, vec![&bad[0]], Upon::Tip),
    ] {
        world.share(block);
        world.tips(&good, &[], &invalid);
        assert_eq!(world.upon(), wanted, "at once");
        world.shares.pop();
    }
    world.share(&bad[0]);
    world.tips(&good, &[], &[&bad[0]]);
    assert_eq!(world.upon(), Upon::Other(fit));
    // It takes that back, and mines on it, or at least has nothing against it.
    world.tips(&good, &[&bad[0]], &[]);
    assert_eq!(world.upon(), Upon::Tip);
    world.tips(&good, &[], &[&bad[0]]);
    assert_eq!(world.upon(), Upon::Other(fit));
    world.tips(&bad[0], &[], &[]);
    assert_eq!(world.upon(), Upon::Tip);
}

#[test]
fn an_invalid_end_says_nothing_against_what_is_below_it_and_has_no_more_work() {
    let mut world = World::new(false);
    let old = world.block(&world.root(), 600);
    let other = world.block(&world.root(), 601);
    let end = world.block(&other, 600);
    let active = world.block(&old, 600);
    world.share(&old);
    let tip = world.share(&other);
    world.tips(&active, &[&other], &[&end]);
    assert_eq!(world.upon(), Upon::Tip);
    world.share(&end);
    assert_eq!(world.upon(), Upon::Other(tip));
}

#[test]
fn a_share_on_a_block_that_bitcoind_lacks_is_mined_upon_for_two_minutes() {
    let mut world = World::new(false);
    let good = world.block(&world.root(), 600);
    let withheld = world.block(&good, 600);
    world.tips(&good, &[], &[]);
    let fit = world.share(&good);
    world.share(&withheld);
    let begun = world.now;
    assert_eq!((world.upon(), world.policy.due(world.now)), (Upon::Tip, Some(begun + LACKED_MAX)));
    // What others make meanwhile does not begin the time anew.
    world.now += 60 * SECOND;
    world.share(&good);
    assert_eq!(world.upon(), Upon::Tip);
    world.shares.pop();
    world.now = begun + LACKED_MAX - MS;
    assert_eq!((world.upon(), world.policy.due(world.now)), (Upon::Tip, Some(begun + LACKED_MAX)));
    world.now = begun + LACKED_MAX;
    assert_eq!((world.upon(), world.policy.due(world.now)), (Upon::Other(fit), None));
    // A share that has it among its ancestors, and itself builds on a good one, is as good as any.
    world.share(&good);
    assert_eq!(world.upon(), Upon::Tip);
    world.shares.pop();
    // It comes: beside the chain, or as its next block, of which the header is there first.
    assert_eq!(world.upon(), Upon::Other(fit));
    world.policy.told(withheld.hash);
    assert_eq!(world.upon(), Upon::Tip);
    world.tips(&withheld, &[], &[]);
    assert_eq!(world.upon(), Upon::Tip);
    world.tips(&good, &[&withheld], &[]);
    assert_eq!(world.upon(), Upon::Tip);
}

#[test]
fn what_bitcoind_got_and_lost_again_has_two_minutes_anew() {
    let mut world = World::new(false);
    let good = world.block(&world.root(), 600);
    let block = world.block(&good, 600);
    world.share(&good);
    world.share(&block);
    world.tips(&good, &[], &[]);
    assert_eq!(world.upon(), Upon::Tip);
    world.now += LACKED_MAX;
    world.tips(&block, &[], &[]);
    assert_eq!((world.upon(), world.policy.lacked.len()), (Upon::Tip, 0));
    world.tips(&good, &[], &[]);
    assert_eq!((world.upon(), world.policy.due(world.now)), (Upon::Tip, Some(world.now + LACKED_MAX)));
}

#[test]
fn at_the_easiest_bits_a_lacked_block_is_not_waited_for() {
    let mut world = World::new(true);
    let good = world.block(&world.root(), 600);
    let withheld = world.block(&good, 600);
    world.tips(&good, &[], &[]);
    let fit = world.share(&good);
    world.share(&withheld);
    assert_eq!((world.upon(), world.policy.due(world.now)), (Upon::Other(fit), None));
    assert!(world.policy.lacked.is_empty());
    world.tips(&withheld, &[], &[]);
    assert_eq!(world.upon(), Upon::Tip);
}

#[test]
fn where_no_share_is_fit_the_tip_is_mined_upon() {
    let mut world = World::new(true);
    let good = world.block(&world.root(), 600);
    let bad = world.block(&good, 600);
    world.tips(&good, &[], &[&bad]);
    for _ in 0..3 {
        world.share(&bad);
    }
    // On the share chain's genesis, whatever Bitcoin block it names, anybody may mine.
    assert_eq!(world.upon(), Upon::Other(regtest().genesis_id()));
    world.shares.remove(0);
    assert_eq!(world.upon(), Upon::Unfit);
    world.share(&good);
    assert_eq!(world.upon(), Upon::Tip);
}

#[test]
fn a_share_that_comes_late_on_an_old_block_must_lead_by_two() {
    let mut world = World::new(false);
    let old = world.block(&world.root(), 600);
    let new = world.block(&old, 600);
    world.tips(&old, &[], &[]);
    let fit = world.arrives(&old);
    world.tips(&new, &[], &[]);
    world.now += LATE_AFTER;
    world.arrives(&old);
    assert_eq!(world.upon(), Upon::Tip, "20 seconds are no more than 20");
    world.shares.pop();
    world.now += MS;
    world.arrives(&old);
    assert_eq!(world.upon(), Upon::Other(fit));
    // Time does not mend it; a second one does, or one on the new block.
    world.now += 1_000 * SECOND;
    assert_eq!(world.upon(), Upon::Other(fit));
    world.arrives(&new);
    assert_eq!(world.upon(), Upon::Tip);
    world.shares.pop();
    world.arrives(&old);
    assert_eq!((world.shares.last().unwrap().height, world.upon()), (1 + LATE_LEAD, Upon::Tip));
    // A sync's shares do not arrive by themselves.
    world.shares.truncate(2);
    world.share(&old);
    world.policy.late.clear();
    assert_eq!(world.upon(), Upon::Tip);
}

#[test]
fn late_is_counted_from_the_first_better_block_and_not_from_what_bitcoind_went_back_from() {
    let mut world = World::new(false);
    let mut blocks = vec![world.root()];
    for n in 0..KNOWN_KEPT + 2 {
        blocks.push(world.block(&blocks[n], 600));
        world.tips(&blocks[n + 1], &[], &[]);
        world.now += SECOND;
    }
    assert_eq!(world.policy.known.len(), KNOWN_KEPT);
    let late = |world: &mut World, n: usize| {
        let id = world.arrives(&blocks[n]);
        world.policy.late.contains(&(world.shares.last().unwrap().height, id))
    };
    let late_on = |world: &mut World, until: usize| (0..blocks.len()).all(|n| late(world, n) == (n < until));
    // Of the second block there is no memory; the third became known 16 seconds ago, each next one a second later.
    world.now += LATE_AFTER - 16 * SECOND;
    assert!(late_on(&mut world, 0));
    world.now += MS;
    assert!(late_on(&mut world, 3));
    world.now += SECOND;
    assert!(late_on(&mut world, 4));
    world.now += 1_000 * SECOND;
    assert!(late(&mut world, 9));
    // `invalidateblock`: the old block is the newest again.
    world.tips(&blocks[9], &[], &[&blocks[18]]);
    assert!(!late(&mut world, 9) && late(&mut world, 8));
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut world = World::new(false);
    let root = world.root();
    let first = world.block(&root, 600);
    world.tips(&first, &[], &[]);
    for n in 0..LACKED_KEPT as u32 + 3 {
        let block = world.block(&root, 601 + n);
        world.share(&block);
        world.now += MS;
        assert_eq!(world.upon(), Upon::Tip);
    }
    assert_eq!(world.policy.lacked.len(), LACKED_KEPT);
    world.now += LATE_AFTER;
    let mut late = (*world.shares[1]).clone();
    late.bitcoin = root;
    for height in 0..LATE_KEPT as u32 + 5 {
        late.height = height;
        world.policy.arrived(&late, world.now);
    }
    assert_eq!((world.policy.late.len(), world.policy.late.first().unwrap().0), (LATE_KEPT, 5));
}
