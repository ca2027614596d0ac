//! Found blocks on their way into Bitcoin's own network.
//!
//! The header goes first. A block of one of our own miners follows at once, unasked, since any second may cost it; one of a peer's miner is
//! given to who asks for it. Then the node is asked for what follows the block before: if it names this one, it has taken it. Who has
//! left meanwhile is told the header alone when it is back.

use std::collections::VecDeque;
use std::sync::Arc;

use rockpool_net::events::Event;
use rockpool_net::id::{ConnId, ShareId};
use rockpool_net::limits::GETDATA_MAX;
use rockpool_net::wire::bitcoin::{Item, MSG_BLOCK, MSG_WITNESS_BLOCK, Message};
use rockpool_store::blocks::Fate;

use crate::bitcoin::session::{BitcoinNode, Verdict, misbehaviour};
use crate::bitcoin::{magic, say};
use crate::limits::{BITCOIN_HANDED_MAX, BITCOIN_SENT_MAX};
use crate::turn::Turn;

/// Blocks that one node was told of, or asks for.
#[derive(Debug, Default)]
pub struct Handed {
    /// The newest that it was told of, and how often each was sent.
    told: VecDeque<(ShareId, u32)>,
    /// Blocks that it asks for and that wait for room.
    wanted: VecDeque<Item>,
}

impl BitcoinNode {
    /// Hands over a block: its header, and itself if it is of one of our miners. Whether the node was told anything.
    pub fn hand(&mut self, conn: ConnId, hash: &ShareId, turn: &mut Turn<'_>) -> bool {
        let told = self.handed.told.iter().any(|(known, _)| known == hash);
        let Some((header, _)) = turn.blocks.header(hash).filter(|_| self.ready() && !told) else { return false };
        if self.handed.told.len() == BITCOIN_HANDED_MAX {
            self.handed.told.pop_front();
        }
        self.handed.told.push_back((*hash, 0));
        say(conn, &Message::Headers(vec![header]), turn);
        if turn.blocks.may_send(hash, self.addr) {
            self.send_block(conn, hash, turn);
        }
        turn.counters.bitcoin_handed.add(1);
        self.note(hash, Fate::Handed, turn);
        self.ask_taken(conn, &header, turn);
        true
    }

    /// Hands over all blocks that may still be wanted, to a node that has just come.
    pub(super) fn hand_all(&mut self, conn: ConnId, turn: &mut Turn<'_>) {
        for hash in turn.blocks.wanted(turn.chain.view.bitcoin()) {
            self.hand(conn, &hash, turn);
        }
    }

    /// It asks for things, of which we have blocks that were found.
    pub(super) fn on_getdata(&mut self, conn: ConnId, items: Vec<Item>, turn: &mut Turn<'_>) -> Verdict {
        if self.handed.wanted.len() + items.len() > GETDATA_MAX {
            return Err(misbehaviour("more blocks asked for than there could be"));
        }
        self.handed.wanted.extend(items);
        self.on_room(conn, turn);
        Ok(())
    }

    /// Whether it was sent one of these blocks, or is being sent one.
    pub fn was_sent(&self, blocks: &[ShareId]) -> bool {
        self.handed.told.iter().any(|(told, sent)| *sent > 0 && blocks.contains(told))
    }

    /// There is room to send again.
    pub fn on_room(&mut self, conn: ConnId, turn: &mut Turn<'_>) {
        let mut missing = Vec::new();
        while turn.out.room(conn)
            && let Some(item) = self.handed.wanted.pop_front()
        {
            let hash = ShareId(item.hash);
            let is_block = matches!(item.kind, MSG_BLOCK | MSG_WITNESS_BLOCK);
            match turn.blocks.header(&hash).filter(|_| is_block) {
                Some((header, _)) if self.send_block(conn, &hash, turn) => self.ask_taken(conn, &header, turn),
                _ => missing.push(item),
            }
        }
        if !missing.is_empty() {
            say(conn, &Message::NotFound(missing), turn);
        }
        if !self.handed.wanted.is_empty() {
            turn.out.ask_room(conn);
        }
    }

    /// Sends a block itself, but not over and over. Whether it did.
    fn send_block(&mut self, conn: ConnId, hash: &ShareId, turn: &mut Turn<'_>) -> bool {
        let Some((_, sent)) = self.handed.told.iter_mut().find(|(told, sent)| told == hash && *sent < BITCOIN_SENT_MAX) else {
            return false;
        };
        let Some(payload) = turn.blocks.message(hash, magic(turn.config.params.network)) else { return false };
        *sent += 1;
        turn.out.send(conn, Arc::clone(&payload));
        true
    }

    /// Asks what follows the block before this one, which is answered behind what we sent.
    fn ask_taken(&mut self, conn: ConnId, header: &[u8; 80], turn: &mut Turn<'_>) {
        let mut before = [0; 32];
        before.copy_from_slice(&header[4..36]);
        let locator = std::iter::once(before).chain(turn.chain.view.bitcoin().locator()).collect();
        self.ask_after(conn, locator, turn);
    }

    /// It has this block in its chain: if we gave it, it has taken it.
    pub(super) fn has_block(&mut self, _: ConnId, hash: ShareId, turn: &mut Turn<'_>) {
        if self.handed.told.iter().any(|(told, _)| *told == hash) {
            self.note(&hash, Fate::Accepted, turn);
        }
    }

    /// What is known of a block at this node, in the block's story. Said once.
    fn note(&self, hash: &ShareId, fate: Fate, turn: &mut Turn<'_>) {
        let node = self.addr.to_string();
        let known = turn.blocks.get(hash).and_then(|block| block.fates.iter().find(|(of, _)| *of == node)).map(|(_, fate)| fate);
        if known == Some(&fate) {
            return;
        }
        let text = if fate == Fate::Accepted { "has it in its chain" } else { "was given it" };
        turn.out.publish(Event::BlockFate { hash: *hash, fate: format!("Bitcoin node {node} {text}") });
        turn.blocks.fate(*hash, node, fate);
    }
}
