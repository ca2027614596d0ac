//! Bodies of found blocks (SHARECHAIN §10): how one is cut into what peers ask for, and how one is pulled from them and checked.
//!
//! Whoever pulls has the share, and makes the coinbase itself from the payouts that it knows. It asks for short ids, finds what it can
//! among the transactions of its own newest template, and asks for the rest. Nothing leaves here but a block whose transactions fold to
//! the share's branch and, with their witnesses, to its witness commitment; who sends anything else loses the connection.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::consensus::encode::{VarInt, deserialize_partial, serialize};
use bitcoin::hashes::{Hash, siphash24};
use bitcoin::{Block, Transaction};
use rockpool_net::id::{ConnId, ShareId};
use rockpool_net::limits::{BODY_BYTES_MAX, BODY_PART_BYTES, BODY_PLACES_MAX, TEMPLATE_TXS_MAX};
use rockpool_net::sha256::{sha256d, tagged};
use rockpool_net::wire::message::{BlockBodyPart, GetBlockBody, TxIds};
use rockpool_net::wire::share::{Share, merkle_root};
use rockpool_workers::template::{Template, branch};

use crate::limits::{BODY_ANSWER_MAX, BODY_PEERS_MAX, BODY_PULLS_MAX, BODY_RETRY, BODY_TIME_MAX};
use crate::peer::sync::Late;

/// Bytes of a short id, as in BIP152.
const SHORT_BYTES: usize = 6;
/// Bytes without witness of a transaction that could be taken for a node of the merkle tree.
const NODE_BYTES: usize = 64;

/// BIP152's short id: SipHash-2-4 of the wtxid, cut to six bytes. Its key comes from the block's id, which nobody knows before it is mined.
fn short((k0, k1): (u64, u64), wtxid: &[u8; 32]) -> [u8; SHORT_BYTES] {
    let hash = siphash24::Hash::hash_to_u64_with_keys(k0, k1, wtxid).to_le_bytes();
    std::array::from_fn(|at| hash[at])
}

fn key(id: &ShareId) -> (u64, u64) {
    let key = tagged(b"rockpool/short", &[&id.0]);
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| key[at + byte]));
    (word(0), word(8))
}

/// Where the transactions of a block lie in it, the coinbase left out, and their short ids.
#[derive(Debug)]
pub struct Contents {
    txs: Vec<Range<usize>>,
    shorts: Vec<u8>,
}

impl Contents {
    /// Those of a block.
    pub fn of(id: &ShareId, block: &[u8]) -> Option<Contents> {
        let (decoded, _) = deserialize_partial::<Block>(block).ok()?;
        let key = key(id);
        let mut at = 80 + VarInt(decoded.txdata.len() as u64).size();
        let mut contents = Contents { txs: Vec::new(), shorts: Vec::new() };
        for (place, tx) in decoded.txdata.iter().enumerate() {
            let range = at..at + tx.total_size();
            at = range.end;
            if place > 0 {
                contents.shorts.extend(short(key, &sha256d(block.get(range.clone())?)));
                contents.txs.push(range);
            }
        }
        Some(contents)
    }

    /// The part of the stream that is asked for; `None` where there is no such.
    pub fn part(&self, block: &[u8], wanted: &GetBlockBody) -> Option<BlockBodyPart> {
        let shorts = std::iter::once(0..self.shorts.len());
        let (from, pieces): (&[u8], Vec<Range<usize>>) = if wanted.places.is_empty() {
            (&self.shorts, shorts.collect())
        } else {
            (block, wanted.places.iter().map(|place| self.txs.get(usize::from(*place)).cloned()).collect::<Option<_>>()?)
        };
        let total: usize = pieces.iter().map(Range::len).sum();
        let offset = wanted.offset as usize;
        let (mut skip, mut room, mut bytes) = (offset, total.checked_sub(offset)?.min(BODY_PART_BYTES), Vec::new());
        for piece in pieces {
            let begin = skip.min(piece.len());
            let end = (begin + room).min(piece.len());
            bytes.extend_from_slice(from.get(piece.start + begin..piece.start + end)?);
            skip -= begin;
            room -= end - begin;
        }
        Some(BlockBodyPart { id: wanted.id, offset: wanted.offset, total: total as u32, bytes })
    }
}

/// A transaction of a block that is being pulled.
#[derive(Debug)]
enum Slot {
    Missing,
    /// At this place in our template.
    Ours(u32),
    Theirs(Box<[u8]>, TxIds),
}

/// What to do next.
#[derive(Debug)]
pub enum Step {
    /// Ask this peer.
    Ask(ConnId, GetBlockBody),
    /// A block that is checked: it may be handed to bitcoind.
    Done {
        /// Its share.
        share: Box<Share>,
        /// The whole block.
        block: Vec<u8>,
    },
}

/// A block that is being pulled from one peer.
#[derive(Debug)]
struct Pull {
    id: ShareId,
    share: Box<Share>,
    /// Encoded with its witness.
    coinbase: Vec<u8>,
    template: Option<Arc<Template>>,
    from: ConnId,
    /// When the first peer was asked, when this one was, and when for the part that is to come.
    since: Duration,
    begun: Duration,
    asked: Duration,
    /// Other peers that should have it, and when they may be asked.
    others: Vec<(ConnId, Duration)>,
    /// What was asked of the peer, and the bytes of its answer so far.
    wanted: GetBlockBody,
    got: Vec<u8>,
    /// Transactions of the answer that are read already, and their bytes: each part's as it comes, so that no turn has a whole block's.
    read: (usize, usize),
    /// Bytes of transactions that this peer has sent.
    taken: usize,
    slots: Vec<Slot>,
    /// All transactions are asked for: one of ours was not the one that its short id said.
    whole: bool,
}

/// The blocks that are being pulled, at most [`BODY_PULLS_MAX`], each from one peer at a time.
#[derive(Debug, Default)]
pub struct Pulls {
    pulls: Vec<Pull>,
    /// Answers to come that nobody wants any more: they are let pass.
    late: Late,
}

impl Pulls {
    /// A peer has told of a block: it is pulled, or the peer is remembered as another that may have it. `coinbase` is the whole of it, as
    /// the share's parent dictates.
    pub fn begin(
        &mut self,
        now: Duration,
        share: &Share,
        coinbase: Vec<u8>,
        template: Option<Arc<Template>>,
        from: ConnId,
    ) -> Option<Step> {
        let id = share.id();
        if self.join(now, &id, from) {
            return None;
        }
        let wanted = GetBlockBody { id, offset: 0, places: Vec::new() };
        let share = Box::new(share.clone());
        let (others, got, slots) = (Vec::new(), Vec::new(), Vec::new());
        let mut pull = Pull {
            id,
            share,
            coinbase,
            template,
            from,
            since: now,
            begun: now,
            asked: now,
            others,
            wanted,
            got,
            read: (0, 0),
            taken: 0,
            slots,
            whole: false,
        };
        // A block of the coinbase alone nobody has to be asked for.
        if pull.share.proof.branch.is_empty() {
            return pull.check().map(|block| Step::Done { share: pull.share, block });
        }
        if self.is_full() {
            return None;
        }
        let ask = pull.ask(now);
        self.pulls.push(pull);
        Some(ask)
    }

    /// Remembers a peer as another that may have a block, if that is being pulled. Whether it is.
    pub fn join(&mut self, now: Duration, id: &ShareId, from: ConnId) -> bool {
        let Some(pull) = self.pulls.iter_mut().find(|pull| pull.id == *id) else { return false };
        if pull.from != from && pull.others.len() < BODY_PEERS_MAX && pull.others.iter().all(|(conn, _)| *conn != from) {
            pull.others.push((from, now));
        }
        true
    }

    /// Whether no more can be pulled now.
    pub fn is_full(&self) -> bool {
        self.pulls.len() >= BODY_PULLS_MAX
    }

    /// Whether one is being pulled.
    pub fn holds(&self, id: &ShareId) -> bool {
        self.pulls.iter().any(|pull| pull.id == *id)
    }

    /// A part of a body came. An error costs its sender the connection; whoever else may have the block is asked then.
    pub fn on_part(&mut self, now: Duration, from: ConnId, part: BlockBodyPart) -> Result<Option<Step>, &'static str> {
        let asked = |pull: &Pull| pull.from == from && pull.id == part.id;
        let Some(at) = self.pulls.iter().position(asked) else {
            return if self.late.came(from) { Ok(None) } else { Err("a body that was not asked for") };
        };
        match self.pulls[at].take(now, part) {
            Ok(Some(Step::Done { share, block })) => {
                self.pulls.remove(at);
                Ok(Some(Step::Done { share, block }))
            }
            other => other,
        }
    }

    /// A peer says that it has not got a block: it may not have it yet, and is asked again in a moment.
    pub fn on_not_found(&mut self, now: Duration, from: ConnId, id: &ShareId) -> Option<Step> {
        let at = self.pulls.iter().position(|pull| pull.from == from && pull.id == *id)?;
        let pull = &mut self.pulls[at];
        if now < pull.since + BODY_TIME_MAX && pull.others.len() < BODY_PEERS_MAX {
            pull.others.push((from, now + BODY_RETRY));
        }
        self.next(now, at)
    }

    /// A peer has left, or is being dropped.
    pub fn on_closed(&mut self, now: Duration, conn: ConnId) -> Vec<Step> {
        self.late.gone(conn);
        self.pulls.iter_mut().for_each(|pull| pull.others.retain(|(other, _)| *other != conn));
        let mut steps = Vec::new();
        while let Some(at) = self.pulls.iter().position(|pull| pull.from == conn) {
            steps.extend(self.next(now, at));
        }
        steps
    }

    /// Peers that have had their time make room for others. `arriving` tells of whom a body is coming in at this moment.
    pub fn on_time(&mut self, now: Duration, arriving: impl Fn(ConnId) -> bool) -> Vec<Step> {
        let mut steps = Vec::new();
        for at in (0..self.pulls.len()).rev() {
            let pull = &mut self.pulls[at];
            if pull.resting() {
                if pull.due() <= now {
                    steps.extend(self.next(now, at));
                }
                continue;
            }
            if now >= pull.asked + BODY_ANSWER_MAX && arriving(pull.from) {
                pull.asked = now;
            }
            if now >= pull.due() {
                self.late.expect(pull.from);
                steps.extend(self.next(now, at));
            }
        }
        steps
    }

    /// When it is to be looked at again.
    pub fn due(&self) -> Option<Duration> {
        self.pulls.iter().map(Pull::due).min()
    }

    /// The next peer is asked from the beginning; without one the block is given up, until another peer tells of it.
    fn next(&mut self, now: Duration, at: usize) -> Option<Step> {
        let pull = &mut self.pulls[at];
        let Some(place) = (0..pull.others.len()).min_by_key(|place| pull.others[*place].1) else {
            self.pulls.remove(at);
            return None;
        };
        if pull.others[place].1 > now {
            pull.rest();
            return None;
        }
        let (conn, _) = pull.others.remove(place);
        Some(pull.begin(now, conn))
    }
}

/// A connection that there is none of.
const NOBODY: ConnId = ConnId { slot: u32::MAX, generation: 0 };

impl Pull {
    fn begin(&mut self, now: Duration, from: ConnId) -> Step {
        (self.from, self.begun) = (from, now);
        self.forget();
        self.ask(now)
    }

    /// All others have to be waited for.
    fn rest(&mut self) {
        self.from = NOBODY;
        self.forget();
    }

    fn resting(&self) -> bool {
        self.from == NOBODY
    }

    fn forget(&mut self) {
        (self.got, self.read, self.slots, self.taken, self.whole) = (Vec::new(), (0, 0), Vec::new(), 0, false);
        self.wanted = GetBlockBody { id: self.id, offset: 0, places: Vec::new() };
    }

    fn due(&self) -> Duration {
        if self.resting() {
            return self.others.iter().map(|(_, at)| *at).min().unwrap_or_default();
        }
        (self.asked + BODY_ANSWER_MAX).min(self.begun + BODY_TIME_MAX)
    }

    fn ask(&mut self, now: Duration) -> Step {
        self.asked = now;
        self.wanted.offset = self.got.len() as u32;
        Step::Ask(self.from, self.wanted.clone())
    }

    fn take(&mut self, now: Duration, part: BlockBodyPart) -> Result<Option<Step>, &'static str> {
        if part.offset != self.wanted.offset || part.offset as usize != self.got.len() {
            return Err("part of a body that was not asked for");
        }
        if self.wanted.places.is_empty() && part.total as usize >= SHORT_BYTES << self.share.proof.branch.len() {
            return Err("short ids of another block");
        }
        if self.taken + part.total as usize > BODY_BYTES_MAX {
            return Err("a body of more than a block's bytes");
        }
        self.got.extend(part.bytes);
        let all = self.got.len() == part.total as usize;
        if !self.wanted.places.is_empty() {
            self.transactions(all)?;
        }
        if !all {
            return Ok(Some(self.ask(now)));
        }
        let got = std::mem::take(&mut self.got);
        if self.wanted.places.is_empty() {
            self.shorts(&got)?;
        } else {
            self.taken += got.len();
        }
        self.go_on(now)
    }

    /// What is still missing is asked for; nothing missing, the block is checked.
    fn go_on(&mut self, now: Duration) -> Result<Option<Step>, &'static str> {
        loop {
            let missing = self.slots.iter().enumerate().filter(|(_, slot)| matches!(slot, Slot::Missing)).map(|(place, _)| place as u16);
            self.wanted.places = missing.take(BODY_PLACES_MAX).collect();
            self.read = (0, 0);
            if !self.wanted.places.is_empty() {
                return Ok(Some(self.ask(now)));
            }
            if let Some(block) = self.check() {
                return Ok(Some(Step::Done { share: self.share.clone(), block }));
            }
            if self.whole || !self.slots.iter().any(|slot| matches!(slot, Slot::Ours(_))) {
                return Err("a body that is not the block's");
            }
            // Two transactions with one short id: rare, and then the peer has done nothing wrong.
            (self.whole, self.taken) = (true, 0);
            self.slots.iter_mut().for_each(|slot| *slot = Slot::Missing);
        }
    }

    /// As many short ids as the share's branch allows; what is ours is found by them.
    fn shorts(&mut self, shorts: &[u8]) -> Result<(), &'static str> {
        let (shorts, rest) = shorts.as_chunks::<SHORT_BYTES>();
        let levels = (shorts.len() + 1).next_power_of_two().trailing_zeros() as usize;
        if !rest.is_empty() || shorts.len() > TEMPLATE_TXS_MAX || levels != self.share.proof.branch.len() {
            return Err("short ids of another block");
        }
        let (key, txs) = (key(&self.id), self.template.as_ref().map_or(&[][..], |template| &template.txs));
        let ours: BTreeMap<[u8; SHORT_BYTES], u32> = txs.iter().zip(0..).map(|(tx, place)| (short(key, &tx.ids.wtxid), place)).collect();
        self.slots = shorts.iter().map(|short| ours.get(short).map_or(Slot::Missing, |place| Slot::Ours(*place))).collect();
        Ok(())
    }

    /// The transactions that were asked for, in their order, as many as have come; with the last bytes it must be all of them.
    fn transactions(&mut self, all: bool) -> Result<(), &'static str> {
        let mut bytes = &self.got[self.read.1..];
        for place in &self.wanted.places[self.read.0..] {
            let (tx, used) = match deserialize_partial::<Transaction>(bytes) {
                Ok(read) => read,
                Err(_) if all => return Err("a transaction that does not decode"),
                // Perhaps the rest of it comes with the next part.
                Err(_) => return Ok(()),
            };
            let (tx_bytes, rest) = bytes.split_at(used);
            if tx.base_size() == NODE_BYTES {
                return Err("a transaction that could be a node of the merkle tree");
            }
            let ids = TxIds { txid: tx.compute_txid().to_byte_array(), wtxid: sha256d(tx_bytes) };
            self.slots[usize::from(*place)] = Slot::Theirs(tx_bytes.into(), ids);
            self.read = (self.read.0 + 1, self.read.1 + used);
            bytes = rest;
        }
        if bytes.is_empty() { Ok(()) } else { Err("more transactions than were asked for") }
    }

    /// The block, if its transactions are those that the share commits to.
    fn check(&self) -> Option<Vec<u8>> {
        let txs = self.slots.iter().map(|slot| match slot {
            Slot::Missing => None,
            Slot::Ours(place) => {
                let tx = self.template.as_ref()?.txs.get(*place as usize)?;
                Some((&tx.data[..], tx.ids))
            }
            Slot::Theirs(bytes, ids) => Some((&bytes[..], *ids)),
        });
        let txs: Vec<(&[u8], TxIds)> = txs.collect::<Option<_>>()?;
        // A tree's last nodes may be doubled without changing its root (CVE-2012-2459): no block holds a transaction twice.
        let different: BTreeSet<&[u8; 32]> = txs.iter().map(|(_, ids)| &ids.txid).collect();
        let witnesses = merkle_root([0; 32], &branch(txs.iter().map(|(_, ids)| ids.wtxid).collect()));
        let mut committed = [0; 64];
        committed[..32].copy_from_slice(&witnesses);
        let good = different.len() == txs.len()
            && branch(txs.iter().map(|(_, ids)| ids.txid).collect()) == self.share.proof.branch
            && sha256d(&committed) == self.share.witness_commitment;
        let count = serialize(&VarInt(txs.len() as u64 + 1));
        let parts = [&self.share.header[..], &count, &self.coinbase].into_iter().chain(txs.iter().map(|(bytes, _)| *bytes));
        let bytes: usize = parts.clone().map(<[u8]>::len).sum();
        (good && bytes <= BODY_BYTES_MAX).then(|| parts.collect::<Vec<_>>().concat())
    }
}

#[cfg(test)]
pub(crate) mod tests;
