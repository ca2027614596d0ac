//! The policy of which share is mined upon, as peers' shares and bitcoind's words bring it to a miner (SPEC, BTC).

use std::sync::Arc;
use std::time::Duration;

use rockpool_net::id::{ConnId, ShareId};
use rockpool_net::wire::message::Message;
use rockpool_net::wire::share::{Class, Layout, Share};
use rockpool_store::bitcoin::Block;
use rockpool_store::chain::{Chain, Offer, Source};
use rockpool_store::kv::MemKv;
use rockpool_store::rules::target::target_bytes;
use rockpool_store::testing::{ShareBuilder, bitcoin_header};
use rockpool_workers::embedded::EmbeddedChain;
use rockpool_workers::jobs::{Answer, BitcoinNews, Tips};
use rockpool_workers::limits::PROGRESS_MIN;
use rockpool_workers::template::Template;
use rockpool_workers::work::meets;

use crate::peer::tests::peer;
use crate::stratum::request::login;
use crate::testing::{ADDRESS, Inline, STRATUM, World, at, mined, regtest};

/// A node with a bitcoind, one miner, and a peer that makes shares.
struct House {
    world: World<Inline>,
    /// What the peer knows.
    theirs: Chain,
    peer: ConnId,
    miner: ConnId,
    extranonce: [u8; 12],
    /// Templates so far.
    sequence: u64,
    /// Submits so far.
    submits: u32,
}

impl House {
    fn new() -> House {
        let mut world = World::whole(&[], 1);
        world.skip(Duration::from_secs(900));
        world.settle();
        let (peer, miner) = (peer(&mut world), world.connect(STRATUM));
        world.line(miner, r#"{"id":1,"method":"mining.subscribe"}"#);
        world.line(miner, &format!(r#"{{"id":2,"method":"mining.authorize","params":["{ADDRESS}"]}}"#));
        let extranonce1 = world.lines(miner)[0]["result"][1].as_str().unwrap().to_owned();
        let mut extranonce = [0; 12];
        extranonce[..4].copy_from_slice(&u32::from_str_radix(&extranonce1, 16).unwrap().to_be_bytes());
        let theirs = Chain::open(regtest(), [1, 2], &MemKv::new()).unwrap();
        House { world, theirs, peer, miner, extranonce, sequence: 0, submits: 0 }
    }

    /// A Bitcoin block on another, as the peer knows it.
    fn block(&mut self, on: &Arc<Block>, after: u32) -> Arc<Block> {
        let hash = self.theirs.offer_blocks(&[bitcoin_header(on, after)]).new[0].0;
        Arc::clone(self.theirs.bitcoin().get(&hash).unwrap())
    }

    fn news(&mut self, news: BitcoinNews) {
        // The organiser tells what nobody asked for no more often than that.
        self.world.skip(PROGRESS_MIN);
        self.world.mail(Answer::Bitcoin(news), Vec::new());
        self.world.settle();
    }

    /// bitcoind mines on this block and has these, and calls those invalid.
    fn bitcoind(&mut self, active: &Block, valid: &[&Arc<Block>], invalid: &[&Arc<Block>]) {
        self.news(BitcoinNews::Headers(vec![active.header]));
        self.sequence += 1;
        let template = EmbeddedChain::new(regtest(), None).template(self.world.now().unix());
        let template = Template { sequence: self.sequence, prev: active.hash, height: active.height + 1, ..template };
        self.world.mail(Answer::Template(Arc::new(template)), Vec::new());
        let hashes = |blocks: &[&Arc<Block>]| blocks.iter().map(|block| block.hash).collect();
        self.news(BitcoinNews::Tips(Tips { active: active.hash, valid: hashes(valid), invalid: hashes(invalid) }));
    }

    /// The peer makes a share on its tip and on this Bitcoin block, and sends it along with the block's header.
    fn share(&mut self, block: &Block) -> ShareId {
        let time = block.time().max(self.theirs.tip().time) + 1;
        let build = ShareBuilder::new(regtest()).bitcoin(block.hash, block.height + 1, block.bits()).time(time);
        let share = build.build(&self.theirs, &self.theirs.tip().id);
        assert_eq!(self.theirs.offer(at(Duration::from_secs(900)), &share, Source::Peer), Offer::Taken);
        self.theirs.confirm(1);
        self.world.say(self.peer, &Message::BtcHeaders(vec![block.header]));
        self.world.say(self.peer, &Message::Share(Box::new(share.clone())));
        self.world.settle();
        share.id()
    }

    /// Whether the miner was given a job since this was last asked, and the share that its work builds on.
    fn job(&mut self) -> (bool, ShareId) {
        let told = self.world.lines(self.miner).iter().any(|line| line["method"] == "mining.notify");
        (told, self.world.node.chain.view.upon().parent)
    }

    /// The miner mines its newest job.
    fn mine(&mut self) -> Share {
        let script = login(ADDRESS, regtest().network).unwrap().0;
        // Work a moment old is not made anew: so this is what the miner has.
        let now = self.world.now();
        let node = &mut self.world.node;
        let form = (Class::N12, Layout::Tail);
        let board = node.server.boards.board(regtest(), &node.chain.view, form, &script, now).unwrap().unwrap();
        let share = mined(&board.work, &script, self.extranonce, |hash| meets(hash, &target_bytes(board.work.draft.bits)));
        self.submits += 1;
        let (id, job) = (100 + self.submits, node.server.boards.job_id() - 1);
        let (ntime, nonce) = (share.header_time(), share.header_nonce());
        let line =
            format!(r#"{{"id":{id},"method":"mining.submit","params":["w","{job:x}","0000000000000000","{ntime:08x}","{nonce:08x}"]}}"#);
        self.world.line(self.miner, &line);
        self.world.settle();
        let lines = self.world.lines(self.miner);
        assert!(lines.iter().any(|line| line["id"] == id && line["result"] == true), "{lines:?}");
        share
    }

    fn tip(&self) -> ShareId {
        self.world.node.chain().view.confirmed_tip().id
    }
}

#[test]
fn a_miners_job_leaves_a_share_on_a_withheld_block_and_comes_back_with_the_block() {
    let mut house = House::new();
    let root = Arc::clone(house.theirs.bitcoin().root().unwrap());
    let good = house.block(&root, 600);
    house.bitcoind(&good, &[], &[]);
    let first = house.share(&good);
    assert_eq!(house.job(), (true, first));
    let other = peer(&mut house.world);
    // On regtest no header is waited for.
    let withheld = house.block(&good, 600);
    let second = house.share(&withheld);
    assert_eq!((house.job(), house.tip()), ((true, first), second));
    // What is told to peers is the best chain all the same.
    house.world.pass(Duration::from_secs(2));
    assert!(house.world.messages(other).iter().any(|message| matches!(message, Message::ChainTip(told) if told.tip == second)));
    house.bitcoind(&withheld, &[], &[]);
    assert_eq!(house.job(), (true, second));
    // bitcoind calls it invalid meanwhile, and takes that back: no new template comes for what has no effect on its chain.
    house.bitcoind(&good, &[], &[&withheld]);
    assert_eq!(house.job(), (true, first));
    house.news(BitcoinNews::Tips(Tips { active: good.hash, valid: vec![withheld.hash], invalid: vec![] }));
    assert_eq!(house.job(), (true, second), "another share alone is worth a new job");
    house.news(BitcoinNews::Tips(Tips { active: good.hash, valid: vec![withheld.hash], invalid: vec![[7; 32]] }));
    assert_eq!(house.job(), (false, second));
}

#[test]
fn own_shares_build_on_each_other_and_overtake_the_one_that_is_not_fit() {
    let mut house = House::new();
    let root = Arc::clone(house.theirs.bitcoin().root().unwrap());
    let good = house.block(&root, 600);
    let bad = house.block(&good, 600);
    house.bitcoind(&good, &[], &[]);
    let first = house.share(&good);
    let second = house.share(&bad);
    house.bitcoind(&good, &[], &[&bad]);
    assert_eq!((house.job(), house.tip()), ((true, first), second));
    let own = house.mine();
    // It is no better than the peer's, but it is what we go on with.
    assert_eq!((own.parent, house.tip(), house.job().1), (first, second, own.id()));
    let next = house.mine();
    assert_eq!((next.parent, house.tip(), house.job().1), (own.id(), next.id(), next.id()));
    assert_eq!(house.world.hub.outlet().tickets_out(), 0);
}
