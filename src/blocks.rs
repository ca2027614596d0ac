//! Found blocks: what is known of each, on its way to the disk, and the newest themselves in memory, so that peers can pull them.
//!
//! A block is handed to every bitcoind before anything here happens to it. An ordered stop gives bitcoind a moment
//! (`STOP_SUBMIT_MAX`) and no more: a block that nobody has taken by then is on disk, and the next start hands it in again.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use rockpool_net::id::ShareId;
use rockpool_net::payload::Payload;
use rockpool_net::wire::bitcoin;
use rockpool_net::wire::message::{BlockBodyPart, GetBlockBody};
use rockpool_store::bitcoin::Tree;
use rockpool_store::blocks::{BlockLog, Fate, Finder, FoundBlock, Standing};
use rockpool_store::error::StoreError;
use rockpool_store::handle::StoreHandle;
use rockpool_store::kv::Family;
use rockpool_workers::jobs::{SubmitJob, WriteJob};

use crate::limits::{BLOCKS_SHOWN, BODIES_SERVED, EARLY_FATES_MAX};
use crate::peer::body::Contents;
use crate::rows::RowLine;

/// Found blocks, as the node knows them.
#[derive(Debug, Default)]
pub struct Blocks {
    log: BlockLog,
    /// Where its rows go.
    pub line: RowLine,
    /// Words of bitcoinds that overtook the word of the block itself.
    early: VecDeque<(ShareId, String, Fate)>,
    /// The newest themselves.
    bodies: VecDeque<Body>,
    /// Those that no Bitcoin node was told of yet.
    fresh: Vec<ShareId>,
}

#[derive(Debug)]
struct Body {
    hash: ShareId,
    /// Of one of our miners.
    own: bool,
    block: Arc<[u8]>,
    /// What peers ask for, once the first has asked; `None` within where the block does not decode.
    contents: Option<Option<Contents>>,
    /// The block as Bitcoin nodes are given it, while one of them has yet to read it: one for all.
    message: Weak<Payload>,
    /// Bitcoin nodes that were sent it unasked: those of the configuration, a few.
    sent: Vec<SocketAddr>,
}

impl Blocks {
    /// What is stored, and the blocks among it that no bitcoind has taken: they are to be handed in again.
    pub fn open(store: &StoreHandle, tree: &Tree) -> Result<(Blocks, Vec<SubmitJob>), StoreError> {
        let mut blocks = Blocks { log: store.block_log()?, ..Blocks::default() };
        if blocks.log.damaged() > 0 {
            log::error!("{} records of found blocks do not decode and are left out", blocks.log.damaged());
        }
        blocks.follow(tree);
        let mut again = Vec::new();
        for block in blocks.log.iter().filter(|block| block.bytes > 0 && block.wanted(tree)) {
            let Some(body) = store.block_body(block).unwrap_or_else(|error| {
                log::error!("block {} cannot be handed in again: {error}", block.hash);
                None
            }) else {
                continue;
            };
            again.push(SubmitJob { hash: block.hash, height: block.height, block: body.into(), own: block.is_own() });
        }
        for job in &again {
            log::warn!("block {} at height {} was taken by no bitcoind before the stop: it is handed in again", job.hash, job.height);
            blocks.serve(job.hash, Arc::clone(&job.block));
        }
        Ok((blocks, again))
    }

    /// A block was found, or heard of, with itself if it is at hand.
    pub fn found(&mut self, block: FoundBlock, body: Option<Arc<[u8]>>) {
        let hash = block.hash;
        self.log.add(block, None);
        if let Some(body) = body {
            self.has_body(hash, body);
        }
        let (now, later) = std::mem::take(&mut self.early).into_iter().partition::<VecDeque<_>, _>(|(of, ..)| *of == hash);
        self.early = later;
        now.into_iter().for_each(|(_, node, fate)| self.log.fate(&hash, node, fate));
    }

    /// A block itself has come.
    pub fn has_body(&mut self, hash: ShareId, body: Arc<[u8]>) {
        self.log.put_body(&hash, &body);
        self.serve(hash, body);
    }

    fn serve(&mut self, hash: ShareId, body: Arc<[u8]>) {
        if self.body(&hash).is_none() {
            let own = self.log.get(&hash).is_some_and(FoundBlock::is_own);
            if self.bodies.iter().filter(|body| body.own == own).count() == BODIES_SERVED
                && let Some(oldest) = self.bodies.iter().position(|body| body.own == own)
            {
                self.bodies.remove(oldest);
            }
            self.bodies.push_back(Body { hash, own, block: body, contents: None, message: Weak::new(), sent: Vec::new() });
            self.fresh.push(hash);
        }
    }

    /// What a bitcoind says of a block.
    pub fn fate(&mut self, hash: ShareId, node: String, fate: Fate) {
        if self.log.get(&hash).is_some() {
            return self.log.fate(&hash, node, fate);
        }
        if self.early.len() == EARLY_FATES_MAX {
            self.early.pop_front();
        }
        self.early.push_back((hash, node, fate));
    }

    /// Peers were told of a block.
    pub fn told(&mut self, hash: &ShareId, peers: u32) {
        if peers > 0 {
            log::info!("block {hash}: {peers} {} told of it", if peers == 1 { "peer is" } else { "peers are" });
            self.log.change(hash, |block| block.told = block.told.saturating_add(peers));
        }
    }

    /// A peer was given a block.
    pub fn served(&mut self, hash: &ShareId) {
        self.log.served(hash);
    }

    /// Bitcoin's headers have changed. What that means for found blocks is told once.
    pub fn follow(&mut self, tree: &Tree) {
        for block in self.log.follow(tree) {
            let (hash, height) = (block.hash, block.height);
            match block.seen {
                Some(seen @ Standing::Best(depth)) if seen.is_final() => {
                    log::info!("block {hash} at height {height} has {depth} confirmations: what it pays can be spent");
                }
                Some(Standing::Best(_)) => log::info!("block {hash} at height {height} is in Bitcoin's chain"),
                Some(seen @ Standing::Stale(_)) if seen.is_final() => {
                    log::info!("block {hash} at height {height} is stale for good and pays nobody");
                }
                Some(Standing::Stale(_)) => log::warn!("block {hash} at height {height} is stale: another block stands in its place"),
                Some(Standing::Open) | None => {}
            }
        }
    }

    /// All, newest first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &FoundBlock> {
        self.log.iter().rev()
    }

    /// The newest, newest last: what `status` shows.
    pub fn shown(&self) -> Vec<FoundBlock> {
        let all = self.log.iter();
        let skip = all.len().saturating_sub(BLOCKS_SHOWN);
        all.skip(skip).cloned().collect()
    }

    /// What is known of a block.
    pub fn get(&self, hash: &ShareId) -> Option<&FoundBlock> {
        self.log.get(hash)
    }

    /// A block itself, if it is one of the newest.
    pub fn body(&self, hash: &ShareId) -> Option<&Arc<[u8]>> {
        self.bodies.iter().find(|body| body.hash == *hash).map(|body| &body.block)
    }

    /// Blocks themselves that have come since this was last asked.
    pub fn take_fresh(&mut self) -> Vec<ShareId> {
        std::mem::take(&mut self.fresh)
    }

    /// Those of the newest that somebody may still have to be given.
    pub fn wanted(&self, tree: &Tree) -> Vec<ShareId> {
        let wanted = |hash: &ShareId| self.log.get(hash).is_some_and(|block| block.wanted(tree));
        self.bodies.iter().map(|body| body.hash).filter(wanted).collect()
    }

    /// The header of one of the newest, and whether one of our miners found it.
    pub fn header(&self, hash: &ShareId) -> Option<([u8; 80], bool)> {
        let body = self.bodies.iter().find(|body| body.hash == *hash)?;
        Some((*body.block.first_chunk()?, body.own))
    }

    /// One of the newest as Bitcoin nodes with this magic are given it.
    pub fn message(&mut self, hash: &ShareId, magic: [u8; 4]) -> Option<Arc<Payload>> {
        let body = self.bodies.iter_mut().find(|body| body.hash == *hash)?;
        if let Some(message) = body.message.upgrade() {
            return Some(message);
        }
        let message = bitcoin::block(magic, &body.block).ok()?;
        body.message = Arc::downgrade(&message);
        Some(message)
    }

    /// A block of one of our own miners is about to be sent to a Bitcoin node that has not asked for it. Whether it may be: once, since a
    /// node that lacks the block before hangs up on it, and would do so again and again.
    pub fn may_send(&mut self, hash: &ShareId, addr: SocketAddr) -> bool {
        let Some(body) = self.bodies.iter_mut().find(|body| body.hash == *hash && body.own) else { return false };
        let fresh = !body.sent.contains(&addr);
        if fresh {
            body.sent.push(addr);
        }
        fresh
    }

    /// The part of a block that a peer asks for, if it is one of the newest.
    pub fn part(&mut self, wanted: &GetBlockBody) -> Option<BlockBodyPart> {
        let Body { hash, block, contents, .. } = self.bodies.iter_mut().find(|body| body.hash == wanted.id)?;
        contents.get_or_insert_with(|| Contents::of(hash, block)).as_ref()?.part(block, wanted)
    }

    /// The rows that may go to the disk now, as one message: no ticket pays for them, so one is on its way at a time.
    pub fn take(&mut self) -> Vec<WriteJob> {
        if self.line.is_out() {
            return Vec::new();
        }
        self.line.give(Family::Blocks, self.log.take())
    }

    /// Whether all that is known was given to the writer.
    pub fn is_clean(&self) -> bool {
        self.log.is_clean()
    }
}

/// The record of a block that one of our miners found, by the name of its miner.
pub fn finder(user: Option<&str>) -> Finder {
    Finder::Miner(user.unwrap_or("a miner that has left").to_owned())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use rockpool_net::wire::share::Script;
    use rockpool_store::kv::{Kv, MemKv, Op};
    use rockpool_store::limits::{BATCH_BYTES_MAX, BATCH_OPS_MAX, BLOCK_BYTES_MAX, BLOCK_STALE};
    use rockpool_store::params::{Network, params};
    use rockpool_store::testing::bitcoin_header;

    fn id(number: u8) -> ShareId {
        ShareId([number; 32])
    }

    fn found(number: u8) -> FoundBlock {
        FoundBlock::new(id(number), 1, 1_700_000_000, finder(Some("bob")), Script::P2wpkh([1; 20]))
    }

    /// Writes what may be written, as the writer would.
    fn store(blocks: &mut Blocks, kv: &MemKv) -> usize {
        let jobs = blocks.take();
        jobs.iter().for_each(|job| kv.write(&job.ops, job.sync).unwrap());
        if jobs.last().is_some_and(|job| job.ends == [Family::Blocks]) {
            blocks.line.credit();
        }
        jobs.len()
    }

    #[test]
    fn rows_go_out_in_batches_and_one_message_at_a_time() {
        let (kv, mut blocks) = (MemKv::new(), Blocks::default());
        blocks.found(found(1), Some(vec![7; BLOCK_BYTES_MAX].into()));
        let jobs = blocks.take();
        let bytes = |job: &WriteJob| job.ops.iter().map(|op| if let Op::Put(_, _, value) = op { value.len() } else { 0 }).sum::<usize>();
        assert!(jobs.len() > 3 && jobs.iter().all(|job| job.sync && bytes(job) <= BATCH_BYTES_MAX));
        assert_eq!(jobs.iter().map(|job| !job.ends.is_empty()).collect::<Vec<_>>(), [false, false, false, false, true][5 - jobs.len()..]);
        blocks.fate(id(1), "here".into(), Fate::Unreachable("away".into()));
        assert!(blocks.take().is_empty() && !blocks.is_clean(), "the first are not stored yet");
        jobs.iter().for_each(|job| kv.write(&job.ops, job.sync).unwrap());
        blocks.line.credit();
        assert_eq!((store(&mut blocks, &kv), blocks.is_clean(), store(&mut blocks, &kv)), (1, true, 0));
        for number in 0..=BATCH_OPS_MAX {
            blocks.found(FoundBlock { hash: ShareId([number as u8, 9].repeat(16).try_into().unwrap()), ..found(0) }, None);
            blocks.fate(id(1), format!("{number}"), Fate::Accepted);
        }
        let jobs = blocks.take();
        assert!(jobs.len() > 1 && jobs.iter().all(|job| job.ops.len() <= BATCH_OPS_MAX));
    }

    #[test]
    fn peers_blocks_take_no_place_of_ours() {
        let mut blocks = Blocks::default();
        blocks.found(found(1), Some(vec![1].into()));
        for number in 2..10 {
            blocks.found(FoundBlock { finder: Finder::Peer("10.0.0.1:9333".into()), ..found(number) }, Some(vec![number].into()));
        }
        let served: Vec<u8> = (0..10).filter(|number| blocks.body(&id(*number)).is_some()).collect();
        assert_eq!(served, [1, 8, 9]);
    }

    #[test]
    fn a_crash_between_the_batches_of_a_block_loses_it_and_nothing_else() {
        let tree = Tree::new(params(Network::Regtest));
        let mut blocks = Blocks::default();
        blocks.found(found(1), None);
        let first = blocks.take();
        blocks.line.credit();
        blocks.has_body(id(1), vec![7; BLOCK_BYTES_MAX].into());
        let then = blocks.take();
        for written in 0..=then.len() {
            let kv = Arc::new(MemKv::new());
            first.iter().chain(&then[..written]).for_each(|job| kv.write(&job.ops, job.sync).unwrap());
            let (blocks, again) = Blocks::open(&StoreHandle::new(kv), &tree).unwrap();
            assert_eq!((blocks.iter().count(), again.len()), (1, usize::from(written == then.len())));
            assert!(again.iter().all(|job| job.block.len() == BLOCK_BYTES_MAX && blocks.body(&job.hash).is_some()));
        }
    }

    #[test]
    fn what_bitcoins_chain_has_passed_by_is_not_handed_in_again() {
        let (kv, mut blocks, mut tree) = (Arc::new(MemKv::new()), Blocks::default(), Tree::new(params(Network::Regtest)));
        blocks.found(found(1), Some(vec![7; 100].into()));
        store(&mut blocks, &kv);
        let open = |tree: &Tree| Blocks::open(&StoreHandle::new(kv.clone()), tree).unwrap();
        for _ in 0..BLOCK_STALE {
            assert_eq!(open(&tree).1.len(), 1);
            tree.add(&bitcoin_header(tree.best().unwrap(), 600)).unwrap();
        }
        let (mut blocks, again) = open(&tree);
        assert!(again.is_empty() && store(&mut blocks, &kv) == 1);
        let mut rows = 0;
        let count = &mut |_: &[u8], _: &[u8]| {
            rows += 1;
            true
        };
        kv.scan(Family::Blocks, &[], count).unwrap();
        assert_eq!(rows, 1, "only its record is left");
    }
}
