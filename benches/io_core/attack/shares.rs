//! A chain of valid shares made in advance: what honest peers send, one after the other, and what hostile ones replay.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rockpool_net::id::ShareId;
use rockpool_net::payload::Payload;
use rockpool_net::time::Now;
use rockpool_net::wire::message::Message;
use rockpool_net::wire::share::Share;
use rockpool_store::chain::{Chain, Source};
use rockpool_store::kv::MemKv;
use rockpool_store::params::{Network, Params, params};
use rockpool_store::rules::target::hash_meets;
use rockpool_store::testing::ShareBuilder;

use super::Outcome;

/// Shares, each on the one before it. The same ones in every process that makes them.
pub struct Shares {
    shares: Vec<Share>,
    /// As `share` messages.
    messages: Vec<Arc<Payload>>,
    /// By the checksum of their message: what tells an incoming one without hashing it.
    by_checksum: BTreeMap<[u8; 4], usize>,
    by_id: BTreeMap<ShareId, usize>,
}

/// The network that everything here runs on.
pub fn regtest() -> &'static Params {
    params(Network::Regtest)
}

/// A message's bytes.
pub fn encoded(message: &Message) -> Outcome<Arc<Payload>> {
    Ok(message.encode(regtest().magic)?)
}

impl Shares {
    /// Mines so many. Regtest's floor is a hash or two, and shares an interval apart keep it there.
    pub fn new(count: usize) -> Outcome<Shares> {
        let mut chain = Chain::open(regtest(), [1, 2], &MemKv::new())?;
        // Long after the chain's genesis of 2011: none of its shares is ahead of its time.
        let now = Now { mono: Duration::ZERO, wall: Duration::from_secs(1_700_000_000) };
        let mut all = Shares { shares: Vec::new(), messages: Vec::new(), by_checksum: BTreeMap::new(), by_id: BTreeMap::new() };
        for index in 0..count {
            let share = ShareBuilder::new(regtest()).build(&chain, &chain.confirmed_tip().id);
            chain.offer(now, &share, Source::Peer);
            chain.confirm(1);
            let id = share.id();
            if chain.confirmed_tip().id != id {
                return Err("a share of the bench's own making is not valid".into());
            }
            let message = encoded(&Message::Share(Box::new(share.clone())))?;
            let mut checksum = [0; 4];
            checksum.copy_from_slice(&message.bytes()[20..24]);
            all.by_checksum.insert(checksum, index);
            all.by_id.insert(id, index);
            all.messages.push(message);
            all.shares.push(share);
        }
        if all.by_checksum.len() < count {
            return Err("two shares have one checksum: make another number of them".into());
        }
        Ok(all)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// A share's `share` message.
    pub fn message(&self, index: usize) -> &Arc<Payload> {
        &self.messages[index]
    }

    /// A share's id.
    pub fn id(&self, index: usize) -> ShareId {
        self.shares[index].id()
    }

    /// The share whose message has this checksum.
    pub fn of_checksum(&self, checksum: &[u8; 4]) -> Option<usize> {
        self.by_checksum.get(checksum).copied()
    }

    /// The share of this id.
    pub fn of_id(&self, id: &ShareId) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    /// The message of a share like this one, but whose hash misses its target.
    pub fn without_work(&self, index: usize, salt: u32) -> Outcome<Arc<Payload>> {
        let mut share = self.shares[index].clone();
        for nonce in salt.. {
            share.header[76..].copy_from_slice(&nonce.to_le_bytes());
            if !hash_meets(&share.id().0, share.bits) {
                break;
            }
        }
        encoded(&Message::Share(Box::new(share)))
    }
}
