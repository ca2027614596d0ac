use super::*;
use rockpool_store::bitcoin::{Added, Tree};
use rockpool_store::params::params;
use std::ops::Range;

/// A bitcoind: its blocks, its active chain, the ends of its branches, and what it was asked.
struct Bitcoind {
    blocks: BTreeMap<Hash, Header>,
    active: Vec<Hash>,
    tips: Vec<Tip>,
    requests: usize,
}

impl Source for Bitcoind {
    type Error = &'static str;

    fn headers(&mut self, hashes: &[Hash]) -> Result<Vec<Option<Header>>, &'static str> {
        self.requests += 1;
        assert!(hashes.len() <= HEADERS_MAX);
        Ok(hashes.iter().map(|hash| self.blocks.get(hash).copied()).collect())
    }

    fn active(&mut self, hashes: &[Hash]) -> Result<Vec<Option<u32>>, &'static str> {
        self.requests += 1;
        Ok(hashes.iter().map(|hash| self.active.iter().position(|active| active == hash).map(|height| height as u32)).collect())
    }

    fn hashes(&mut self, heights: Range<u32>) -> Result<Vec<Option<Hash>>, &'static str> {
        self.requests += 1;
        assert!(heights.len() <= HEADERS_MAX);
        Ok(heights.map(|height| self.active.get(height as usize).copied()).collect())
    }

    fn tips(&mut self) -> Result<Vec<Tip>, &'static str> {
        self.requests += 1;
        if self.tips.is_empty() { Err("away") } else { Ok(self.tips.clone()) }
    }
}

fn block_on(prev: Hash, time: u32, salt: u32) -> Header {
    let mut header = [0; 80];
    header[4..36].copy_from_slice(&prev);
    header[36..40].copy_from_slice(&salt.to_le_bytes());
    header[68..72].copy_from_slice(&time.to_le_bytes());
    header[72..76].copy_from_slice(&0x207f_ffffu32.to_le_bytes());
    while sha256d(&header)[31] >= 0x7f {
        header[76] += 1;
    }
    header
}

impl Bitcoind {
    fn new() -> Bitcoind {
        let genesis = rules(Network::Regtest).genesis;
        let hash = sha256d(&genesis);
        Bitcoind { blocks: BTreeMap::from([(hash, genesis)]), active: vec![hash], tips: Vec::new(), requests: 0 }
    }

    fn tip(&self) -> (Hash, u32) {
        (*self.active.last().unwrap(), self.active.len() as u32 - 1)
    }

    /// Blocks on this one, known but not active. Their hashes.
    fn branch(&mut self, mut on: Hash, count: usize, salt: u32) -> Vec<Hash> {
        let mut hashes = Vec::new();
        for _ in 0..count {
            let time = u32::from_le_bytes(self.blocks[&on][68..72].try_into().unwrap()) + 1;
            let header = block_on(on, time, salt);
            on = sha256d(&header);
            self.blocks.insert(on, header);
            hashes.push(on);
        }
        hashes
    }

    /// The active chain from this height on becomes another, of so many blocks. The old part.
    fn mine(&mut self, above: u32, count: usize, salt: u32) -> Vec<Hash> {
        let old = self.active.split_off(above as usize + 1);
        let new = self.branch(self.active[above as usize], count, salt);
        self.active.extend(new);
        old
    }

    /// The end of the active chain.
    fn end(&self) -> Tip {
        let (hash, height) = self.tip();
        Tip { hash, height, depth: 0, status: Status::Active }
    }

    fn side(&self, hash: Hash, fork: u32, depth: u32, status: Status) -> Tip {
        Tip { hash, height: fork + depth, depth, status }
    }
}

/// A node: what it is told it keeps, and nothing may surprise it.
struct Node {
    follower: Follower,
    tree: Tree,
}

impl Node {
    fn new() -> Node {
        Node { follower: Follower::new(Network::Regtest, Vec::new()), tree: Tree::new(params(Network::Regtest)) }
    }

    fn restart(&mut self) {
        self.follower = Follower::new(Network::Regtest, self.tree.locator());
    }

    fn hear(&mut self, news: &BitcoinNews) {
        match news {
            BitcoinNews::Root { height, header } => assert!(self.tree.root_at(*height, header).is_ok()),
            BitcoinNews::Headers(headers) => {
                assert!(!headers.is_empty() && headers.len() <= HEADERS_MAX);
                headers.iter().for_each(|header| assert!(!matches!(self.tree.add(header), Err(_) | Ok(Added::Orphan(_)))));
            }
            BitcoinNews::Tips(tips) => assert!(self.tree.get(&tips.active).is_some()),
            BitcoinNews::Lost | BitcoinNews::PeersLost => panic!("nobody who follows says that"),
        }
    }

    /// Follows to the tip. The sizes of the messages.
    fn follow(&mut self, bitcoind: &mut Bitcoind) -> Vec<usize> {
        let (tip, height) = bitcoind.tip();
        let mut sizes = Vec::new();
        while let Some(news) = self.follower.next(bitcoind, tip, height).unwrap() {
            self.hear(&news);
            sizes.push(if let BitcoinNews::Headers(headers) = news { headers.len() } else { 0 });
        }
        assert_eq!(self.tree.get(&tip).map(|block| block.height), Some(height));
        assert!(self.follower.told.len() <= 4 * HEADERS_TOLD as usize && self.follower.chain.len() <= HEADERS_TOLD as usize + 1);
        sizes
    }

    fn beside(&mut self, bitcoind: &mut Bitcoind) -> Vec<BitcoinNews> {
        let news = self.follower.branches(bitcoind).unwrap();
        news.iter().for_each(|news| self.hear(news));
        news
    }
}

#[test]
fn a_fresh_node_hears_of_all_from_the_first_block_on_in_full_messages_and_then_of_each() {
    let (mut bitcoind, mut node) = (Bitcoind::new(), Node::new());
    assert!(node.follow(&mut bitcoind).is_empty(), "it has the first block");
    bitcoind.mine(0, 5_000, 0);
    assert_eq!(node.follow(&mut bitcoind), [HEADERS_MAX, HEADERS_MAX, 1_000]);
    for _ in 0..3 {
        let (_, height) = bitcoind.tip();
        bitcoind.mine(height, 1, 0);
        bitcoind.requests = 0;
        assert_eq!((node.follow(&mut bitcoind), bitcoind.requests), (vec![1], 1));
    }
    bitcoind.requests = 0;
    assert_eq!((node.follow(&mut bitcoind).len(), bitcoind.requests), (0, 0));
}

#[test]
fn a_fresh_node_begins_four_periods_below_a_long_chain() {
    let (mut bitcoind, mut node) = (Bitcoind::new(), Node::new());
    // The highest chain whose root is the first block, and one more.
    bitcoind.mine(0, (HEADERS_BELOW + PERIOD_BLOCKS) as usize - 1, 0);
    node.follow(&mut bitcoind);
    assert_eq!(node.tree.root().unwrap().height, 0);
    let (_, height) = bitcoind.tip();
    bitcoind.mine(height, 1, 0);
    let mut node = Node::new();
    assert_eq!(node.follow(&mut bitcoind), [0, HEADERS_MAX, HEADERS_MAX, HEADERS_MAX, HEADERS_MAX, 64]);
    assert_eq!(node.tree.root().unwrap().height, PERIOD_BLOCKS);
    node.tree.sanity_check().unwrap();
    // Main has no first block of its own.
    let mut main = Follower::new(Network::Main, Vec::new());
    let news = main.next(&mut bitcoind, [1; 32], 100).unwrap();
    assert_eq!(news, Some(BitcoinNews::Root { height: 0, header: rules(Network::Main).genesis }));
}

#[test]
fn a_node_that_restarts_goes_on_from_where_it_stands() {
    let (mut bitcoind, mut node) = (Bitcoind::new(), Node::new());
    bitcoind.mine(0, 3_000, 0);
    node.follow(&mut bitcoind);
    node.restart();
    bitcoind.requests = 0;
    assert_eq!((node.follow(&mut bitcoind).len(), bitcoind.requests), (0, 1));
    node.restart();
    bitcoind.mine(3_000, 4, 0);
    assert_eq!(node.follow(&mut bitcoind), [4]);
    // Its newest blocks are stale meanwhile: it is told from an older one on.
    node.restart();
    bitcoind.mine(2_990, 20, 1);
    let sizes = node.follow(&mut bitcoind);
    assert!((20..60).contains(&sizes.iter().sum::<usize>()), "{sizes:?}");
    // Another bitcoind's chain parts at the first block.
    node.restart();
    let mut other = Bitcoind::new();
    other.mine(0, 3_500, 7);
    assert_eq!(node.follow(&mut other), [HEADERS_MAX, 1_500]);
    assert_eq!(node.tree.best().unwrap().hash, other.tip().0);
}

#[test]
fn reorgs_are_followed_however_deep() {
    let (mut bitcoind, mut node) = (Bitcoind::new(), Node::new());
    bitcoind.mine(0, 4_000, 0);
    node.follow(&mut bitcoind);
    let mut height = 4_000;
    // By walking back, by height, below what is remembered.
    for (salt, (depth, longer)) in [(1, 1), (10, 5), (BRANCH_WALK_MAX as u32 - 1, 1), (500, 3), (2_500, 2)].into_iter().enumerate() {
        bitcoind.mine(height - depth, (depth + longer) as usize, salt as u32 + 1);
        height += longer;
        let sizes = node.follow(&mut bitcoind);
        assert_eq!(node.tree.best().unwrap().hash, bitcoind.tip().0, "{depth}");
        if depth <= 500 {
            assert_eq!(sizes, [(depth + longer) as usize]);
        } else {
            assert!(sizes.iter().sum::<usize>() >= depth as usize);
        }
    }
    // Back to a lower block, as after `invalidateblock`, and on from there.
    let (_, top) = bitcoind.tip();
    bitcoind.active.truncate(top as usize - 4);
    assert!(node.follow(&mut bitcoind).is_empty());
    let (_, lower) = bitcoind.tip();
    bitcoind.mine(lower, 2, 90);
    assert_eq!(node.follow(&mut bitcoind), [2]);
    // A template on a block that is stale meanwhile.
    let stale = bitcoind.branch(bitcoind.active[lower as usize], 1, 91)[0];
    let news = node.follower.next(&mut bitcoind, stale, lower + 1).unwrap().unwrap();
    node.hear(&news);
    assert_eq!(node.follower.next(&mut bitcoind, stale, lower + 1), Ok(None));
    assert!(node.follow(&mut bitcoind).is_empty());
}

#[test]
fn headers_that_do_not_fit_together_are_not_told() {
    let mut bitcoind = Bitcoind::new();
    bitcoind.mine(0, 300, 0);
    let (tip, height) = bitcoind.tip();
    let mut follower = Follower::new(Network::Regtest, Vec::new());
    // The answer of another block, and a chain with a gap.
    let honest = bitcoind.blocks[&tip];
    bitcoind.blocks.insert(tip, rules(Network::Regtest).genesis);
    let Ok(Some(BitcoinNews::Headers(headers))) = follower.next(&mut bitcoind, tip, height) else { panic!() };
    assert_eq!(headers.len(), 299);
    assert_eq!(follower.next(&mut bitcoind, tip, height), Err(FollowError::Torn));
    bitcoind.blocks.insert(tip, honest);
    assert!(matches!(follower.next(&mut bitcoind, tip, height), Ok(Some(BitcoinNews::Headers(last))) if last == [honest]));
    assert_eq!(follower.next(&mut bitcoind, tip, height), Ok(None));
    // One whose first block is another is no bitcoind of this network, and nothing is asked for ever.
    let mut stranger = Bitcoind::new();
    stranger.mine(0, 300, 0);
    stranger.active[0] = [1; 32];
    let (tip, height) = stranger.tip();
    let mut follower = Follower::new(Network::Regtest, Vec::new());
    assert_eq!(follower.next(&mut stranger, tip, height), Err(FollowError::Torn));
}

#[test]
fn stale_branches_are_told_of_once_and_ends_whenever_there_are_others() {
    let (mut bitcoind, mut node) = (Bitcoind::new(), Node::new());
    bitcoind.mine(0, 2_000, 0);
    node.follow(&mut bitcoind);
    let fork = |height: u32| bitcoind.active[height as usize];
    let forks = [fork(1_990), fork(1_800), fork(1_985), fork(1_000), fork(1_995)];
    let stale = bitcoind.branch(forks[0], 3, 1);
    let long = bitcoind.branch(forks[1], BRANCH_WALK_MAX + 1, 2);
    let whole = bitcoind.branch(forks[2], BRANCH_WALK_MAX, 3);
    let old = bitcoind.branch(forks[3] /* over a week below */, 3, 4);
    let lacking = bitcoind.branch(forks[4], 2, 5);
    let end = |blocks: &[Hash]| *blocks.last().unwrap();
    bitcoind.tips = vec![
        bitcoind.end(),
        bitcoind.side(stale[2], 1_990, 3, Status::Valid),
        bitcoind.side(end(&long), 1_800, BRANCH_WALK_MAX as u32 + 1, Status::Valid),
        bitcoind.side(end(&whole), 1_985, BRANCH_WALK_MAX as u32, Status::Valid),
        bitcoind.side(old[2], 2_000 - HEADERS_TOLD - 4, 3, Status::Valid),
        bitcoind.side(lacking[1], 1_995, 2, Status::Other),
        bitcoind.side([0xbd; 32], 1_999, 1, Status::Invalid),
    ];
    let active = bitcoind.tip().0;
    let news = node.beside(&mut bitcoind);
    let [BitcoinNews::Headers(headers), BitcoinNews::Tips(tips)] = &news[..] else { panic!("{news:?}") };
    assert_eq!(headers.len(), 3 + BRANCH_WALK_MAX);
    // The highest first.
    let valid = vec![end(&whole), stale[2], end(&long)];
    assert_eq!(*tips, Tips { active, valid, invalid: vec![[0xbd; 32]] });
    assert!(stale.iter().chain(&whole).all(|hash| node.tree.get(hash).is_some()));
    assert!(long.iter().chain(&old).chain(&lacking).all(|hash| node.tree.get(hash).is_none()));
    // Once is enough.
    bitcoind.requests = 0;
    assert_eq!((node.beside(&mut bitcoind), bitcoind.requests), (vec![], 1));
    // The old branch of a reorg was told of already, but not that it is one.
    let old = bitcoind.mine(1_999, 2, 9);
    bitcoind.tips = vec![bitcoind.side(old[0], 1_999, 1, Status::Valid), bitcoind.end()];
    assert!(node.beside(&mut bitcoind).is_empty(), "it goes on before the node has heard of its block");
    node.follow(&mut bitcoind);
    let tips = Tips { active: bitcoind.tip().0, valid: vec![old[0]], invalid: vec![] };
    assert_eq!(node.beside(&mut bitcoind), [BitcoinNews::Tips(tips)]);
    bitcoind.tips.clear();
    assert_eq!(node.follower.branches(&mut bitcoind), Err("away"));
}

#[test]
fn what_is_no_longer_invalid_is_not_told_of_as_such() {
    let (mut bitcoind, mut node) = (Bitcoind::new(), Node::new());
    bitcoind.mine(0, 50, 0);
    node.follow(&mut bitcoind);
    let (tip, _) = bitcoind.tip();
    // `invalidateblock`, `reconsiderblock`.
    let popped = bitcoind.active.pop().unwrap();
    assert!(node.follow(&mut bitcoind).is_empty());
    bitcoind.tips = vec![bitcoind.end(), bitcoind.side(tip, 49, 1, Status::Invalid)];
    let below = bitcoind.tip().0;
    assert_eq!(node.beside(&mut bitcoind), [BitcoinNews::Tips(Tips { active: below, valid: vec![], invalid: vec![tip] })]);
    bitcoind.active.push(popped);
    bitcoind.tips = vec![bitcoind.end()];
    assert!(node.follow(&mut bitcoind).is_empty());
    assert_eq!(node.beside(&mut bitcoind), [BitcoinNews::Tips(Tips { active: tip, ..Tips::default() })]);
}

#[test]
fn no_more_branches_are_told_of_at_once_than_one_message_holds() {
    let (mut bitcoind, mut node) = (Bitcoind::new(), Node::new());
    bitcoind.mine(0, 200, 0);
    node.follow(&mut bitcoind);
    for salt in 1..=BRANCHES_MAX as u32 + 2 {
        let branch = bitcoind.branch(bitcoind.active[100], BRANCH_WALK_MAX, salt);
        bitcoind.tips.push(bitcoind.side(*branch.last().unwrap(), 100, BRANCH_WALK_MAX as u32, Status::Valid));
    }
    let counts: Vec<usize> = (0..3).map(|_| node.beside(&mut bitcoind).iter().map(headers).sum()).collect();
    assert_eq!(counts, [BRANCHES_MAX * BRANCH_WALK_MAX, 2 * BRANCH_WALK_MAX, 0]);
    let ends = |status| (0..3_000u32).map(move |n| (n.to_le_bytes(), status));
    let ends = ends(Status::Invalid).chain(ends(Status::Valid));
    bitcoind.tips = ends.map(|(n, status)| bitcoind.side(sha256d(&n), 199, 1, status)).collect();
    bitcoind.tips.push(bitcoind.end());
    let news = node.beside(&mut bitcoind);
    assert!(matches!(&news[..], [BitcoinNews::Tips(tips)] if tips.invalid.len() == TIPS_MAX && tips.valid.len() == TIPS_MAX));
}

fn headers(news: &BitcoinNews) -> usize {
    if let BitcoinNews::Headers(headers) = news { headers.len() } else { 0 }
}
