//! What a node hears of a real bitcoind's headers: a long chain, a reorg, stale and invalid branches; and which share is mined upon then.
//! Without RocksDB.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests of a real process, which owns a clock")]

#[path = "e2e/daemon.rs"]
#[expect(dead_code, reason = "the whole-process tests ask for more")]
mod daemon;

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};

use bitcoin::hashes::Hash;
use daemon::{ADDRESS, ADDRESS_2, Bitcoind, PATIENCE};
use rockpool_net::hub::io::Mail;
use rockpool_net::hub::tickets::Ticket;
use rockpool_net::id::{ConnId, Lane, ShareId};
use rockpool_net::reactor::Clock;
use rockpool_store::bitcoin::{Added, Block, Tree};
use rockpool_store::chain::{Chain, Offer, Source};
use rockpool_store::kv::MemKv;
use rockpool_store::params::{Network, params};
use rockpool_store::pplns::Pplns;
use rockpool_store::testing::{ShareBuilder, bitcoin_header};
use rockpool_workers::crew::{Bitcoin, Crew, CrewConfig, Post};
use rockpool_workers::jobs::{Answer, BitcoinNews, Jobs, OrganiseJob, Stages};
use rockpool_workers::limits::HEADERS_MAX;
use rockpool_workers::outside::BitcoindConfig;

type Mailbox = Arc<(Mutex<VecDeque<Answer>>, Condvar)>;

/// The stages of a node on a bitcoind, and the tree that grows from what they hear.
struct Node {
    crew: Option<Crew>,
    mailbox: Mailbox,
    tree: Tree,
    invalid: Vec<[u8; 32]>,
    /// Headers in each message.
    sizes: Vec<usize>,
    /// The confirmed height, and the share that work builds on where it is another.
    upon: (u32, Option<ShareId>),
}

impl Node {
    fn start(bitcoind: &Bitcoind) -> Node {
        let regtest = params(Network::Regtest);
        let kv = Arc::new(MemKv::new());
        let mailbox: Mailbox = Arc::default();
        let slot = mailbox.clone();
        let post: Post = Arc::new(move |mail: Vec<Mail<Answer>>| {
            slot.0.lock().unwrap().extend(mail.into_iter().map(|mail| mail.answer));
            slot.1.notify_all();
            true
        });
        let config = BitcoindConfig::new(&bitcoind.url(), None, Network::Regtest).unwrap();
        let crew = Crew::start(CrewConfig {
            params: regtest,
            clock: Clock::start(),
            cores: 1,
            kv: kv.clone(),
            chain: Chain::open(regtest, [1, 2], &*kv).unwrap(),
            pplns: Pplns::default(),
            post,
            bitcoin: Bitcoin::Nodes(vec![config]),
            upstream: None,
        });
        Node { crew: Some(crew.unwrap()), mailbox, tree: Tree::new(regtest), invalid: Vec::new(), sizes: Vec::new(), upon: (0, None) }
    }

    fn organise(&mut self, job: OrganiseJob) {
        let crew = self.crew.as_mut().unwrap();
        crew.give(&mut Jobs { organise: vec![job], ..Jobs::default() });
    }

    /// The next answer; headers grow the tree, and the organiser hears of them as in a node.
    fn hear(&mut self) -> Answer {
        let (queue, told) = &*self.mailbox;
        let (mut queue, _) = told.wait_timeout_while(queue.lock().unwrap(), PATIENCE, |queue| queue.is_empty()).unwrap();
        let answer = queue.pop_front().expect("an answer in time");
        drop(queue);
        if let Answer::Bitcoin(news) = &answer {
            self.organise(OrganiseJob::Bitcoin(news.clone()));
        }
        match &answer {
            Answer::Organised { change: Some(change), .. } => {
                self.upon = (change.confirmed_height, change.upon.as_ref().map(|upon| upon.parent));
            }
            Answer::Bitcoin(BitcoinNews::Headers(headers)) => {
                self.sizes.push(headers.len());
                headers.iter().for_each(|header| assert!(!matches!(self.tree.add(header), Err(_) | Ok(Added::Orphan(_)))));
            }
            Answer::Bitcoin(BitcoinNews::Tips(tips)) => self.invalid.clone_from(&tips.invalid),
            Answer::Bitcoin(BitcoinNews::Root { .. }) => panic!("regtest's chain is short"),
            Answer::Template(template) => {
                // Never before the headers that it builds on.
                assert_eq!(self.tree.get(&template.prev).map(|prev| prev.height), Some(template.height - 1));
            }
            _ => {}
        }
        answer
    }

    fn until(&mut self, mut wanted: impl FnMut(&Node, &Answer) -> bool) {
        loop {
            let answer = self.hear();
            if wanted(self, &answer) {
                return;
            }
        }
    }

    /// Until there is work on this block.
    fn until_on(&mut self, hash: [u8; 32]) {
        self.until(|_, answer| matches!(answer, Answer::Template(template) if template.prev == hash));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.crew.take().map(Crew::stop);
    }
}

fn hash(shown: &serde_json::Value) -> [u8; 32] {
    shown.as_str().unwrap().parse::<bitcoin::BlockHash>().unwrap().to_byte_array()
}

#[test]
fn a_real_bitcoinds_headers_reorgs_and_branches_are_heard_of() {
    let Some(bitcoind) = Bitcoind::start("a_real_bitcoinds_headers") else { return };
    let mine = |count: &str| bitcoind.call(&["generatetoaddress", count, ADDRESS_2]);
    let best = || hash(&bitcoind.call(&["getbestblockhash"]));
    (0..5).for_each(|_| drop(mine("1000")));
    let old = best();
    let mut node = Node::start(&bitcoind);
    node.until_on(old);
    assert_eq!(node.sizes, [HEADERS_MAX, HEADERS_MAX, 1_001]);
    assert_eq!(node.tree.best().map(|block| (block.hash, block.height)), Some((old, 5_001)));

    // Each block is there before the work on it.
    mine("1");
    node.until_on(best());
    assert_eq!(node.sizes.last(), Some(&1));
    let old = best();

    // A reorg: bitcoind goes back ten blocks and on by three; it calls the old branch invalid.
    let fork = bitcoind.call(&["getblockhash", "4993"]);
    bitcoind.call(&["invalidateblock", fork.as_str().unwrap()]);
    // To another address, or they would be the same blocks again.
    bitcoind.call(&["generatetoaddress", "3", ADDRESS]);
    let short = best();
    node.until(|node, _| node.invalid.contains(&old) && node.tree.get(&short).is_some());
    assert_eq!(node.tree.get(&short).map(|block| block.height), Some(4_995));
    node.tree.sanity_check().unwrap();

    // It takes that back; the old branch leads again, and the short one is stale. A node that starts now hears of both.
    bitcoind.call(&["reconsiderblock", fork.as_str().unwrap()]);
    mine("1");
    node.until_on(best());
    assert_eq!(node.tree.best().map(|block| (block.hash, block.height)), Some((best(), 5_003)));
    let mut fresh = Node::start(&bitcoind);
    fresh.until(|fresh, _| fresh.tree.get(&short).is_some());
    assert_eq!(fresh.tree.best().map(|block| block.hash), Some(best()));
    assert_eq!((fresh.tree.len(), fresh.sizes.last(), fresh.invalid.len()), (5_004 + 3, Some(&3), 0));
    assert!(fresh.tree.iter().eq(node.tree.iter()));
}

/// SHARECHAIN §3: a share on a block that bitcoind calls invalid, or lacks, is not mined upon; the best chain it stays.
#[test]
fn work_leaves_a_share_while_a_real_bitcoind_calls_its_block_invalid_or_lacks_it() {
    let Some(bitcoind) = Bitcoind::start("work_leaves_a_share") else { return };
    let mine = |count: &str| bitcoind.call(&["generatetoaddress", count, ADDRESS_2]);
    let best = || hash(&bitcoind.call(&["getbestblockhash"]));
    mine("5");
    let mut node = Node::start(&bitcoind);
    node.until_on(best());
    let regtest = params(Network::Regtest);
    let ticket = || Ticket::for_test(Lane::Peer, ConnId { slot: 1, generation: 1 });
    let mut peer = Chain::open(regtest, [1, 2], &MemKv::new()).unwrap();
    // The peer's next share, on this Bitcoin block, whose header goes before it.
    let mut share = |node: &mut Node, block: &Block| {
        let headers: Vec<[u8; 80]> = (1..block.height).filter_map(|height| Some(node.tree.at_height(height)?.header)).collect();
        peer.offer_blocks(&[&headers[..], &[block.header]].concat());
        let time = block.time().max(peer.tip().time) + 1;
        let build = ShareBuilder::new(regtest).bitcoin(block.hash, block.height + 1, block.bits()).time(time);
        let share = build.build(&peer, &peer.tip().id);
        let late = rockpool_net::time::Now { mono: PATIENCE, wall: std::time::Duration::from_secs(time.into()) };
        assert_eq!(peer.offer(late, &share, Source::Peer), Offer::Taken);
        peer.confirm(1);
        let id = share.id();
        node.organise(OrganiseJob::Blocks { headers: vec![block.header], own: false, ticket: ticket() });
        node.organise(OrganiseJob::Tip { share: Arc::new(share), ticket: ticket() });
        id
    };
    let block = |node: &Node| node.tree.get(&best()).unwrap().clone();

    let on = block(&node);
    let first = share(&mut node, &on);
    node.until(|node, _| node.upon == (1, None));
    let below = best();
    mine("1");
    node.until_on(best());
    let on = block(&node);
    let second = share(&mut node, &on);
    node.until(|node, _| node.upon == (2, None));

    let shown = bitcoind.call(&["getbestblockhash"]);
    bitcoind.call(&["invalidateblock", shown.as_str().unwrap()]);
    node.until(|node, _| node.upon == (2, Some(first)));
    assert_eq!(best(), below);
    bitcoind.call(&["reconsiderblock", shown.as_str().unwrap()]);
    node.until(|node, _| node.upon == (2, None));

    // A block that nobody gets to see: only its header, and a share on it.
    let header = bitcoin_header(&on, 1);
    let Ok(Added::New(withheld)) = node.tree.clone().add(&header) else { panic!("no header") };
    share(&mut node, &withheld);
    node.until(|node, _| node.upon == (3, Some(second)));
    // Others go on without it.
    mine("2");
    node.until_on(best());
    let on = block(&node);
    share(&mut node, &on);
    node.until(|node, _| node.upon == (4, None));
}
