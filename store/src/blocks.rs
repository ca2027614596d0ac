//! Found Bitcoin blocks on disk: a record of each, with what became of it, and the blocks themselves while no bitcoind has taken them, so
//! that they can be handed in again after a crash.

use std::collections::VecDeque;

use rockpool_net::id::ShareId;
use rockpool_net::wire::WireError;
use rockpool_net::wire::codec::{Reader, Writer};
use rockpool_net::wire::share::Script;

use crate::bitcoin::Tree;
use crate::error::StoreError;
use crate::kv::{Family, Kv, Op};
use crate::limits::{
    BLOCK_BODIES_KEPT, BLOCK_BYTES_MAX, BLOCK_FATES_MAX, BLOCK_FINAL, BLOCK_PART_BYTES, BLOCK_STALE, BLOCK_TEXT_BYTES, BLOCKS_KEPT,
};

const RECORD: u8 = 0;
const BODY: u8 = 1;

/// What became of a found block at one bitcoind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is in the node's chain.
    Accepted,
    /// The node refused it, and why.
    Refused(String),
    /// The node could not be reached within all retries.
    Unreachable(String),
    /// It was told of it over Bitcoin's own protocol, which gives no answer to that.
    Handed,
}

/// Who found a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finder {
    /// A miner of this node: the name that it logged in with.
    Miner(String),
    /// A peer's miner: the address of the peer that told of it first.
    Peer(String),
}

/// Where a block stands among Bitcoin's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Bitcoin's headers do not reach its height yet, or are no longer kept there.
    Open,
    /// On the best chain, with so many confirmations; 1 for the best block itself.
    Best(u32),
    /// Another block stands at its height, with so many confirmations.
    Stale(u32),
}

impl Standing {
    /// What this tree says of a block.
    pub fn of(tree: &Tree, hash: &ShareId, height: u32) -> Standing {
        let Some((best, there)) = tree.best().zip(tree.at_height(height)) else { return Standing::Open };
        let confirmations = best.height.saturating_sub(height).saturating_add(1);
        if there.hash == hash.0 { Standing::Best(confirmations) } else { Standing::Stale(confirmations) }
    }

    /// Its kind, whatever the depth.
    fn kind(self) -> u8 {
        match self {
            Standing::Open => 0,
            Standing::Best(_) => 1,
            Standing::Stale(_) => 2,
        }
    }

    /// Whether nothing will change it any more: a coinbase of that depth can be spent.
    pub fn is_final(self) -> bool {
        matches!(self, Standing::Best(depth) | Standing::Stale(depth) if depth >= BLOCK_FINAL)
    }
}

/// A found block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundBlock {
    /// Its hash, which is the id of its share if it is one.
    pub hash: ShareId,
    /// Its height in Bitcoin's chain.
    pub height: u32,
    /// When it was found here or heard of, Unix seconds.
    pub time: u32,
    /// Who found it.
    pub finder: Finder,
    /// Who is paid for its share, or for all of it if it is none.
    pub script: Script,
    /// Whether it is a share of the share chain.
    pub is_share: bool,
    /// What its coinbase pays, satoshis.
    pub value: u64,
    /// Peers that this node has told of it.
    pub told: u32,
    /// Times that a peer was given its transactions.
    pub served: u32,
    /// What each bitcoind said of it last, at most [`BLOCK_FATES_MAX`].
    pub fates: Vec<(String, Fate)>,
    /// Where it was seen to stand, since it first stood there; for good if that is [`BLOCK_FINAL`] deep.
    pub seen: Option<Standing>,
    /// Bytes of the block itself that are kept; zero for none.
    pub bytes: u32,
    /// Its place among all, in the order in which they came; the log gives it.
    pub number: u32,
}

impl FoundBlock {
    /// One of which nothing more is known yet.
    pub fn new(hash: ShareId, height: u32, time: u32, finder: Finder, script: Script) -> FoundBlock {
        FoundBlock {
            hash,
            height,
            time,
            finder,
            script,
            is_share: false,
            value: 0,
            told: 0,
            served: 0,
            fates: Vec::new(),
            seen: None,
            bytes: 0,
            number: 0,
        }
    }

    /// Whether a miner of this node found it.
    pub fn is_own(&self) -> bool {
        matches!(self.finder, Finder::Miner(_))
    }

    /// Whether a bitcoind has taken it.
    pub fn accepted(&self) -> bool {
        self.fates.iter().any(|(_, fate)| *fate == Fate::Accepted)
    }

    /// Where it stands: by what was found out for good, else by this tree, which may no longer reach down to it.
    pub fn standing(&self, tree: &Tree) -> Standing {
        match (self.seen, Standing::of(tree, &self.hash, self.height)) {
            (Some(seen), standing) if seen.is_final() || standing == Standing::Open => seen,
            (_, standing) => standing,
        }
    }

    /// Whether some bitcoind may still have to be given it: none has taken it, and Bitcoin's chain has neither passed it by nor grown far
    /// upon it. A refusal decides nothing: a bitcoind that is behind refuses what another takes. Nor does the block's own header among
    /// Bitcoin's: any peer that was told of the block can send that, and nobody has the block for it.
    pub fn wanted(&self, tree: &Tree) -> bool {
        let open = matches!(self.standing(tree), Standing::Open | Standing::Best(0..BLOCK_STALE) | Standing::Stale(0..BLOCK_STALE));
        open && !self.accepted()
    }
}

/// The records, newest last, and what of them has changed since it was last written.
#[derive(Debug, Default)]
pub struct BlockLog {
    blocks: VecDeque<FoundBlock>,
    next: u32,
    /// Rows that did not decode.
    damaged: usize,
    changes: Vec<Op>,
}

impl BlockLog {
    /// What is stored.
    pub fn open(kv: &dyn Kv) -> Result<BlockLog, StoreError> {
        let mut log = BlockLog::default();
        kv.scan(Family::Blocks, &[RECORD], &mut |key, value| {
            let Some((RECORD, number)) = key.split_first().map(|(kind, rest)| (*kind, rest)) else { return false };
            let number = number.try_into().ok().map(u32::from_be_bytes);
            // The other blocks are worth no less for it, and no new one may take its place.
            match number.and_then(|number| decode(number, value).ok()) {
                Some(block) => log.blocks.push_back(block),
                None => log.damaged += 1,
            }
            log.next = number.map_or(log.next, |number| number.wrapping_add(1));
            true
        })?;
        Ok(log)
    }

    /// Rows that did not decode.
    pub fn damaged(&self) -> usize {
        self.damaged
    }

    /// All, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &FoundBlock> + ExactSizeIterator {
        self.blocks.iter()
    }

    /// One by its hash.
    pub fn get(&self, hash: &ShareId) -> Option<&FoundBlock> {
        self.blocks.iter().rev().find(|block| block.hash == *hash)
    }

    /// Adds one that is not there yet, with itself if that is at hand. The oldest makes room: of our miners' one of theirs, or peers could
    /// push them out, who find blocks for nothing on a test network.
    pub fn add(&mut self, block: FoundBlock, body: Option<&[u8]>) {
        if self.get(&block.hash).is_some() {
            return;
        }
        let (hash, own) = (block.hash, block.is_own());
        self.blocks.push_back(FoundBlock { number: self.next, bytes: 0, ..block });
        self.next = self.next.wrapping_add(1);
        if self.blocks.iter().filter(|block| block.is_own() == own).count() > BLOCKS_KEPT
            && let Some(place) = self.blocks.iter().position(|block| block.is_own() == own)
            && let Some(mut oldest) = self.blocks.remove(place)
        {
            drop_body(&mut oldest, &mut self.changes);
            self.changes.push(Op::Delete(Family::Blocks, record_key(oldest.number)));
        }
        match body {
            Some(body) => self.put_body(&hash, body),
            None => self.change(&hash, |_| {}),
        }
    }

    /// Keeps the block itself; of our miners' and of peers' the newest [`BLOCK_BODIES_KEPT`] each are kept.
    pub fn put_body(&mut self, hash: &ShareId, body: &[u8]) {
        if body.is_empty() || body.len() > BLOCK_BYTES_MAX {
            return;
        }
        let Some(block) = self.blocks.iter_mut().rev().find(|block| block.hash == *hash && block.bytes == 0) else { return };
        block.bytes = body.len() as u32;
        let own = block.is_own();
        // The parts before the record that says that they are there.
        for (part, bytes) in body.chunks(BLOCK_PART_BYTES).enumerate() {
            self.changes.push(Op::Put(Family::Blocks, body_key(block.number, part as u8), bytes.to_vec()));
        }
        put(block, &mut self.changes);
        let with_body = self.blocks.iter_mut().rev().filter(|block| block.bytes > 0 && block.is_own() == own);
        for block in with_body.skip(BLOCK_BODIES_KEPT) {
            drop_body(block, &mut self.changes);
            put(block, &mut self.changes);
        }
    }

    /// Changes one. A block that a bitcoind has taken is no longer kept itself.
    pub fn change(&mut self, hash: &ShareId, how: impl FnOnce(&mut FoundBlock)) {
        let Some(block) = self.blocks.iter_mut().rev().find(|block| block.hash == *hash) else { return };
        how(block);
        if block.accepted() {
            drop_body(block, &mut self.changes);
        }
        put(block, &mut self.changes);
    }

    /// A peer was given one. It is written with what else becomes of it: whoever asks all the time has nothing written.
    pub fn served(&mut self, hash: &ShareId) {
        if let Some(block) = self.blocks.iter_mut().rev().find(|block| block.hash == *hash) {
            block.served = block.served.saturating_add(1);
        }
    }

    /// What a bitcoind says of one, in place of what it said before.
    pub fn fate(&mut self, hash: &ShareId, node: String, fate: Fate) {
        self.change(hash, |block| match block.fates.iter().position(|(told, _)| *told == node) {
            Some(place) => block.fates[place].1 = fate,
            None if block.fates.len() < BLOCK_FATES_MAX => block.fates.push((node, fate)),
            None => {}
        });
    }

    /// Bitcoin's headers have changed. Blocks that need not be handed in again are no longer kept themselves. Returns those that stand
    /// elsewhere now, and those that stand where they do for good.
    pub fn follow(&mut self, tree: &Tree) -> Vec<FoundBlock> {
        let mut news = Vec::new();
        for block in self.blocks.iter_mut().filter(|block| !block.seen.is_some_and(Standing::is_final)) {
            let standing = block.standing(tree);
            let elsewhere = block.seen.unwrap_or(Standing::Open).kind() != standing.kind();
            if elsewhere || standing.is_final() {
                block.seen = Some(standing);
                news.push(block.clone());
            }
            let kept = block.bytes > 0 && block.wanted(tree);
            let dropped = block.bytes > 0 && !kept;
            if dropped {
                drop_body(block, &mut self.changes);
            }
            if dropped || elsewhere || standing.is_final() {
                put(block, &mut self.changes);
            }
        }
        news
    }

    /// The changes since this was last asked, in their order.
    pub fn take(&mut self) -> Vec<Op> {
        std::mem::take(&mut self.changes)
    }

    /// Whether everything was taken.
    pub fn is_clean(&self) -> bool {
        self.changes.is_empty()
    }
}

/// A block itself, if all of it is stored.
pub fn body(kv: &dyn Kv, block: &FoundBlock) -> Result<Option<Vec<u8>>, StoreError> {
    let mut body = Vec::new();
    for part in 0..(block.bytes as usize).div_ceil(BLOCK_PART_BYTES) {
        let Some(bytes) = kv.get(Family::Blocks, &body_key(block.number, part as u8))? else { return Ok(None) };
        body.extend(bytes);
    }
    Ok(Some(body).filter(|body| !body.is_empty() && body.len() == block.bytes as usize))
}

fn drop_body(block: &mut FoundBlock, changes: &mut Vec<Op>) {
    let parts = (block.bytes as usize).div_ceil(BLOCK_PART_BYTES);
    // Parts that were not written yet need not be.
    let (number, before) = (block.number, changes.len());
    changes.retain(|op| !matches!(op, Op::Put(_, key, _) if is_body(key, number)));
    if changes.len() == before {
        changes.extend((0..parts).map(|part| Op::Delete(Family::Blocks, body_key(number, part as u8))));
    }
    block.bytes = 0;
}

fn is_body(key: &[u8], number: u32) -> bool {
    key.first() == Some(&BODY) && key.get(1..5) == Some(&number.to_be_bytes())
}

/// `00` ‖ number u32, big-endian.
fn record_key(number: u32) -> Vec<u8> {
    [&[RECORD], &number.to_be_bytes()[..]].concat()
}

/// `01` ‖ number u32, big-endian ‖ part.
fn body_key(number: u32, part: u8) -> Vec<u8> {
    [&[BODY], &number.to_be_bytes()[..], &[part]].concat()
}

/// Its record, in place of what of it was not written yet: a disk that hangs must not fill the memory.
fn put(block: &FoundBlock, changes: &mut Vec<Op>) {
    let row = record_key(block.number);
    changes.retain(|op| !matches!(op, Op::Put(_, key, _) if *key == row));
    changes.push(Op::Put(Family::Blocks, row, encode(block)));
}

fn encode(block: &FoundBlock) -> Vec<u8> {
    let mut writer = Writer::with_capacity(256);
    writer.put(&block.hash.0);
    writer.u32(block.height);
    writer.u32(block.time);
    let (kind, name) = match &block.finder {
        Finder::Miner(name) => (0, name),
        Finder::Peer(addr) => (1, addr),
    };
    writer.u8(kind);
    put_text(&mut writer, name);
    let script = block.script.script_pubkey();
    writer.compact_size(script.len() as u64);
    writer.put(&script);
    writer.u8(u8::from(block.is_share));
    writer.u64(block.value);
    writer.u32(block.told);
    writer.u32(block.served);
    writer.u32(block.bytes);
    let seen = block.seen.unwrap_or(Standing::Open);
    let depth = match seen {
        Standing::Open => 0,
        Standing::Best(depth) | Standing::Stale(depth) => depth,
    };
    writer.u8(seen.kind());
    writer.u32(depth);
    writer.compact_size(block.fates.len() as u64);
    for (node, fate) in &block.fates {
        put_text(&mut writer, node);
        let (kind, why) = match fate {
            Fate::Accepted => (0, ""),
            Fate::Refused(why) => (1, &why[..]),
            Fate::Unreachable(why) => (2, &why[..]),
            Fate::Handed => (3, ""),
        };
        writer.u8(kind);
        put_text(&mut writer, why);
    }
    writer.into_bytes()
}

fn decode(number: u32, row: &[u8]) -> Result<FoundBlock, WireError> {
    let mut reader = Reader::new(row);
    let (hash, height, time) = (ShareId(reader.array()?), reader.u32()?, reader.u32()?);
    let finder = match (reader.u8()?, text(&mut reader)?) {
        (0, name) => Finder::Miner(name),
        (1, addr) => Finder::Peer(addr),
        _ => return Err(WireError::Bad("finder")),
    };
    let script = reader.count("bytes of a script", 34, 1)?;
    let script = script_of(reader.take(script)?).ok_or(WireError::Bad("script"))?;
    let is_share = reader.u8()? != 0;
    let (value, told, served, bytes) = (reader.u64()?, reader.u32()?, reader.u32()?, reader.u32()?);
    let seen = match (reader.u8()?, reader.u32()?) {
        (0, _) => None,
        (1, depth) => Some(Standing::Best(depth)),
        (2, depth) => Some(Standing::Stale(depth)),
        _ => return Err(WireError::Bad("place of a block")),
    };
    let mut fates = Vec::new();
    for _ in 0..reader.count("fates", BLOCK_FATES_MAX, 3)? {
        let node = text(&mut reader)?;
        let fate = match (reader.u8()?, text(&mut reader)?) {
            (0, _) => Fate::Accepted,
            (1, why) => Fate::Refused(why),
            (2, why) => Fate::Unreachable(why),
            (3, _) => Fate::Handed,
            _ => return Err(WireError::Bad("fate")),
        };
        fates.push((node, fate));
    }
    reader.finish()?;
    if bytes as usize > BLOCK_BYTES_MAX {
        return Err(WireError::Bad("bytes of a block"));
    }
    Ok(FoundBlock { hash, height, time, finder, script, is_share, value, told, served, fates, seen, bytes, number })
}

/// What others say, cut to [`BLOCK_TEXT_BYTES`].
fn put_text(writer: &mut Writer, text: &str) {
    let end = (0..=text.len().min(BLOCK_TEXT_BYTES)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    let text = &text[..end];
    writer.compact_size(text.len() as u64);
    writer.put(text.as_bytes());
}

fn text(reader: &mut Reader<'_>) -> Result<String, WireError> {
    let bytes = reader.count("bytes of text", BLOCK_TEXT_BYTES, 1)?;
    String::from_utf8(reader.take(bytes)?.to_vec()).map_err(|_| WireError::Bad("text"))
}

fn script_of(script: &[u8]) -> Option<Script> {
    match script {
        [0x00, 0x14, program @ ..] => program.try_into().ok().map(Script::P2wpkh),
        [0x00, 0x20, program @ ..] => program.try_into().ok().map(Script::P2wsh),
        [0x51, 0x20, program @ ..] => program.try_into().ok().map(Script::P2tr),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::kv::MemKv;
    use crate::params::{Network, params};
    use crate::testing::bitcoin_header;

    fn id(number: usize) -> ShareId {
        ShareId(rockpool_net::sha256::sha256d(&number.to_le_bytes()))
    }

    fn found(number: usize) -> FoundBlock {
        let finder = if number.is_multiple_of(2) { Finder::Miner("alice.rig".into()) } else { Finder::Peer("10.0.0.1:9333".into()) };
        let script = [Script::P2wpkh([1; 20]), Script::P2wsh([2; 32]), Script::P2tr([3; 32])][number % 3];
        let block = FoundBlock::new(id(number), number as u32, 1_700_000_000, finder, script);
        FoundBlock { is_share: number.is_multiple_of(3), value: 312_500_000 + number as u64, told: 7, served: 2, ..block }
    }

    fn store(log: &mut BlockLog, kv: &MemKv) {
        kv.write(&log.take(), true).unwrap();
        assert!(log.is_clean());
    }

    fn rows(kv: &MemKv) -> usize {
        let mut rows = 0;
        kv.scan(Family::Blocks, &[], &mut |_, _| {
            rows += 1;
            true
        })
        .unwrap();
        rows
    }

    /// What is stored is what memory holds, block by block.
    fn check(log: &BlockLog, kv: &MemKv) {
        assert!(BlockLog::open(kv).unwrap().iter().eq(log.iter()));
    }

    #[test]
    fn records_read_back_whatever_they_say() {
        let (kv, mut log) = (MemKv::new(), BlockLog::default());
        for number in 0..6 {
            log.add(found(number), None);
            log.add(found(number), None);
        }
        let long = "é".repeat(BLOCK_TEXT_BYTES);
        let fates = [Fate::Refused(long.clone()), Fate::Unreachable("away".into()), Fate::Handed, Fate::Accepted];
        for (number, fate) in fates.iter().cycle().take(BLOCK_FATES_MAX + 1).enumerate() {
            log.fate(&id(3), format!("node {number}"), fate.clone());
        }
        log.fate(&id(4), "here".into(), Fate::Unreachable("away".into()));
        log.fate(&id(4), "here".into(), Fate::Refused("stale".into()));
        log.change(&id(5), |block| block.seen = Some(Standing::Stale(100)));
        store(&mut log, &kv);
        let read = BlockLog::open(&kv).unwrap();
        assert_eq!((read.iter().len(), read.get(&id(3)).unwrap().fates.len(), rows(&kv)), (6, BLOCK_FATES_MAX, 6));
        assert_eq!(read.get(&id(4)).unwrap().fates, [("here".to_owned(), Fate::Refused("stale".into()))]);
        let [.., handed, accepted] = fates;
        assert!(read.get(&id(3)).unwrap().fates.ends_with(&[("node 10".to_owned(), handed), ("node 11".to_owned(), accepted)]));
        assert_eq!(read.get(&id(3)).unwrap().fates[0].1, Fate::Refused(long[..BLOCK_TEXT_BYTES].into()));
        assert!(log.iter().filter(|block| block.hash != id(3)).eq(read.iter().filter(|block| block.hash != id(3))));
        // A row that does not decode takes nothing from the others, and its number is given to no other block.
        for number in [2, 5] {
            kv.write(&[Op::Put(Family::Blocks, record_key(number), vec![1, 2, 3])], true).unwrap();
        }
        let mut read = BlockLog::open(&kv).unwrap();
        assert_eq!((read.iter().len(), read.damaged()), (4, 2));
        read.add(found(9), None);
        store(&mut read, &kv);
        assert_eq!((rows(&kv), BlockLog::open(&kv).unwrap().iter().map(|block| block.number).max()), (7, Some(6)));
    }

    #[test]
    fn the_newest_are_kept_and_the_newest_few_themselves() {
        let (kv, mut log) = (MemKv::new(), BlockLog::default());
        // As many of our miners' as of peers'.
        for number in 0..2 * BLOCKS_KEPT + 10 {
            log.add(found(number), Some(&[number as u8; 100]));
            store(&mut log, &kv);
        }
        assert_eq!((log.iter().len(), rows(&kv)), (2 * BLOCKS_KEPT, 2 * (BLOCKS_KEPT + BLOCK_BODIES_KEPT)));
        check(&log, &kv);
        let read = BlockLog::open(&kv).unwrap();
        for (place, block) in read.iter().rev().enumerate() {
            let body = body(&kv, block).unwrap();
            assert_eq!(body.is_some(), place < 2 * BLOCK_BODIES_KEPT);
            assert!(body.is_none_or(|body| body == vec![block.height as u8; 100]));
        }
        // It goes on behind what is stored.
        log = read;
        log.add(found(9_000), None);
        store(&mut log, &kv);
        check(&log, &kv);
        assert_eq!(log.iter().len(), 2 * BLOCKS_KEPT);
    }

    #[test]
    fn peers_blocks_push_none_of_ours_out() {
        let (kv, mut log) = (MemKv::new(), BlockLog::default());
        log.add(found(0), Some(&[7; 100]));
        for number in 0..BLOCKS_KEPT + 10 {
            log.add(found(2 * number + 1), Some(&[1; 100]));
            store(&mut log, &kv);
        }
        assert_eq!((log.iter().len(), rows(&kv)), (BLOCKS_KEPT + 1, BLOCKS_KEPT + 1 + BLOCK_BODIES_KEPT + 1));
        check(&log, &kv);
        assert_eq!(body(&kv, log.get(&id(0)).unwrap()).unwrap(), Some(vec![7; 100]));
    }

    /// Whatever is said of blocks while nothing can be written, what waits to be written is bounded.
    #[test]
    fn what_waits_for_a_disk_that_hangs_is_bounded() {
        let (kv, mut log) = (MemKv::new(), BlockLog::default());
        log.add(found(1), Some(&[7; 100]));
        store(&mut log, &kv);
        for round in 0..1_000 {
            log.served(&id(1));
            log.change(&id(1), |block| block.told = round);
            log.fate(&id(1), "here".into(), Fate::Unreachable("away".into()));
        }
        assert_eq!(log.changes.len(), 1);
        store(&mut log, &kv);
        check(&log, &kv);
        // That a peer was given it is written with the next change.
        log.served(&id(1));
        assert!(log.is_clean());
        log.change(&id(1), |_| {});
        store(&mut log, &kv);
        assert_eq!(BlockLog::open(&kv).unwrap().get(&id(1)).unwrap().served, 2 + 1_000 + 1);
    }

    #[test]
    fn a_large_block_is_stored_in_parts_and_half_of_it_is_none() {
        let (kv, mut log) = (MemKv::new(), BlockLog::default());
        let bytes: Vec<u8> = (0..BLOCK_BYTES_MAX).map(|at| (at % 251) as u8).collect();
        log.add(found(1), Some(&bytes));
        log.add(found(2), Some(&vec![0; BLOCK_BYTES_MAX + 1]));
        let ops = log.take();
        assert!(ops.iter().all(|op| matches!(op, Op::Put(_, _, value) if value.len() <= BLOCK_PART_BYTES)));
        const { assert!(2 * BLOCK_PART_BYTES < crate::limits::BATCH_BYTES_MAX) };
        // Its record comes last: until then nothing of it is there.
        let record = ops.iter().position(|op| matches!(op, Op::Put(_, key, _) if key[0] == RECORD)).unwrap();
        kv.write(&ops[..record], true).unwrap();
        assert_eq!(BlockLog::open(&kv).unwrap().iter().len(), 0);
        kv.write(&ops[record..], true).unwrap();
        assert!(body(&kv, log.get(&id(1)).unwrap()).unwrap().unwrap() == bytes);
        assert_eq!(body(&kv, log.get(&id(2)).unwrap()).unwrap(), None, "a block of more bytes is none");
        kv.write(&[Op::Delete(Family::Blocks, body_key(0, 3))], true).unwrap();
        assert_eq!(body(&kv, log.get(&id(1)).unwrap()).unwrap(), None);
    }

    #[test]
    fn a_block_that_is_taken_is_no_longer_kept_itself() {
        let (kv, mut log) = (MemKv::new(), BlockLog::default());
        log.add(found(1), Some(&[1; 50]));
        // Taken before it was ever written: its bytes need not be.
        log.fate(&id(1), "here".into(), Fate::Accepted);
        assert!(!log.changes.iter().any(|op| matches!(op, Op::Put(_, key, _) if key[0] == BODY)));
        log.add(found(2), Some(&[2; 50]));
        log.fate(&id(2), "here".into(), Fate::Unreachable("away".into()));
        log.fate(&id(2), "there".into(), Fate::Refused("prev-blk-not-found".into()));
        store(&mut log, &kv);
        assert_eq!(rows(&kv), 3);
        assert!(body(&kv, log.get(&id(2)).unwrap()).unwrap().is_some());
        log.fate(&id(2), "here".into(), Fate::Accepted);
        store(&mut log, &kv);
        assert_eq!(rows(&kv), 2);
        check(&log, &kv);
    }

    #[test]
    fn what_became_of_a_block_follows_bitcoins_headers() {
        let (kv, mut log, mut tree) = (MemKv::new(), BlockLog::default(), Tree::new(params(Network::Regtest)));
        let grow = |tree: &mut Tree| {
            let header = bitcoin_header(tree.best().unwrap(), 600);
            tree.add(&header).unwrap();
            ShareId(tree.best().unwrap().hash)
        };
        let ours = bitcoin_header(tree.best().unwrap(), 600);
        let ours = ShareId(rockpool_net::sha256::sha256d(&ours));
        for (hash, height) in [(ours, 1), (id(1), 1), (id(2), 9)] {
            log.add(FoundBlock { hash, height, ..found(1) }, Some(&[1; 50]));
        }
        let standing = |log: &BlockLog, tree: &Tree, hash| log.get(&hash).unwrap().standing(tree);
        let wanted = |log: &BlockLog, tree: &Tree| log.iter().map(|block| block.wanted(tree)).collect::<Vec<_>>();
        assert_eq!((standing(&log, &tree, ours), wanted(&log, &tree)), (Standing::Open, vec![true; 3]));
        assert_eq!(grow(&mut tree), ours);
        let told: Vec<_> = log.follow(&tree).into_iter().map(|block| (block.hash, block.seen)).collect();
        assert_eq!(told, [(ours, Some(Standing::Best(1))), (id(1), Some(Standing::Stale(1)))]);
        assert_eq!((standing(&log, &tree, ours), standing(&log, &tree, id(1))), (Standing::Best(1), Standing::Stale(1)));
        assert_eq!(wanted(&log, &tree), [true; 3], "a header alone is no word of a bitcoind");
        for _ in 2..BLOCK_STALE {
            grow(&mut tree);
        }
        log.follow(&tree);
        assert_eq!(log.iter().map(|block| block.bytes).collect::<Vec<_>>(), [50, 50, 50]);
        grow(&mut tree);
        log.follow(&tree);
        assert_eq!(log.iter().map(|block| block.bytes).collect::<Vec<_>>(), [0, 0, 50], "far in Bitcoin's chain, or passed by");
        for _ in BLOCK_STALE + 1..BLOCK_FINAL {
            grow(&mut tree);
        }
        assert_eq!(log.follow(&tree).len(), 1, "the third, which others have overtaken");
        grow(&mut tree);
        let ends: Vec<_> = log.follow(&tree).into_iter().map(|block| block.seen).collect();
        assert_eq!(ends, [Some(Standing::Best(BLOCK_FINAL)), Some(Standing::Stale(BLOCK_FINAL))]);
        store(&mut log, &kv);
        assert_eq!(log.follow(&tree).len(), 0);
        assert!(log.is_clean(), "nothing has changed");
        check(&log, &kv);
        // Headers that are no longer kept change nothing about it.
        let bare = Tree::new(params(Network::Regtest));
        assert_eq!(standing(&log, &bare, ours), Standing::Best(BLOCK_FINAL));
    }
}
