//! What a node hears of a real bitcoind's headers: a long chain, a reorg, stale and invalid branches. Without RocksDB.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests of a real process, which owns a clock")]

#[path = "e2e/daemon.rs"]
#[expect(dead_code, reason = "the whole-process tests ask for more")]
mod daemon;

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};

use bitcoin::hashes::Hash;
use daemon::{ADDRESS, ADDRESS_2, Bitcoind, PATIENCE};
use rockpool_net::hub::io::Mail;
use rockpool_net::reactor::Clock;
use rockpool_store::bitcoin::{Added, Tree};
use rockpool_store::chain::Chain;
use rockpool_store::kv::MemKv;
use rockpool_store::params::{Network, params};
use rockpool_workers::crew::{Bitcoin, Crew, CrewConfig, Post};
use rockpool_workers::jobs::{Answer, BitcoinNews};
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
            post,
            bitcoin: Bitcoin::Nodes(vec![config]),
        });
        Node { crew: Some(crew.unwrap()), mailbox, tree: Tree::new(regtest), invalid: Vec::new(), sizes: Vec::new() }
    }

    /// The next answer; headers grow the tree.
    fn hear(&mut self) -> Answer {
        let (queue, told) = &*self.mailbox;
        let (mut queue, _) = told.wait_timeout_while(queue.lock().unwrap(), PATIENCE, |queue| queue.is_empty()).unwrap();
        let answer = queue.pop_front().expect("an answer in time");
        drop(queue);
        match &answer {
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
