//! What tests of several stages share.

use std::sync::Arc;
use std::time::Duration;

use rockpool_net::hub::tickets::Ticket;
use rockpool_net::id::{ConnId, Lane, ShareId};
use rockpool_net::sha256::sha256d;
use rockpool_net::time::Now;
use rockpool_net::wire::share::{Class, Layout, Script, Share};
use rockpool_store::chain::Chain;
use rockpool_store::kv::MemKv;
use rockpool_store::params::{Network, Params, params};
use rockpool_store::rules::target::target_bytes;

use crate::embedded::EmbeddedChain;
use crate::jobs::Claim;
use crate::work::{Roll, Work, meets};

/// Unix time at which tests begin.
pub(crate) const START: u64 = 1_700_000_000;

pub(crate) fn at(ms: u64) -> Now {
    Now { mono: Duration::from_millis(ms), wall: Duration::from_secs(START) + Duration::from_millis(ms) }
}

pub(crate) fn conn(slot: u32) -> ConnId {
    ConnId { slot, generation: 1 }
}

pub(crate) fn id(n: u64) -> ShareId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    ShareId(bytes)
}

pub(crate) fn ticket(slot: u32) -> Ticket {
    Ticket::for_test(Lane::Stratum, conn(slot))
}

pub(crate) fn claim(slot: u32) -> Claim {
    Claim {
        conn: conn(slot),
        request: Arc::from(slot.to_string()),
        difficulty: 1.0,
        credited: false,
        worker: 0,
        achieved: 0.0,
        share: false,
    }
}

pub(crate) fn regtest() -> &'static Params {
    params(Network::Regtest)
}

pub(crate) fn script(n: u8) -> Script {
    Script::P2wpkh([n; 20])
}

/// The chain of an empty store.
pub(crate) fn fresh_chain() -> Chain {
    Chain::open(regtest(), [1, 2], &MemKv::new()).unwrap_or_else(|why| panic!("{why}"))
}

/// Work on a chain's confirmed tip and an embedded chain's.
pub(crate) fn work_on(chain: &Chain, bitcoin: &EmbeddedChain, now: Now, own: Script, salt: u32) -> Arc<Work> {
    work_of((Class::N46, Layout::Tail), chain, bitcoin, now, own, salt)
}

/// The same of another class or layout.
pub(crate) fn work_of(form: (Class, Layout), chain: &Chain, bitcoin: &EmbeddedChain, now: Now, own: Script, salt: u32) -> Arc<Work> {
    let (view, template) = (chain.view(), Arc::new(bitcoin.template(now.unix())));
    let work = Work::new(regtest(), template, &view.next(regtest(), now), view.payouts(), form, Some(own), salt);
    Arc::new(work.unwrap_or_else(|why| panic!("{why}")))
}

/// A submit of this work whose hash meets, or does not meet, the easiest target that a share of it may have.
pub(crate) fn roll(work: &Work, script: &Script, good: bool) -> Roll {
    let template = &work.template;
    let tries =
        (0..).map(|nonce| Roll { extranonce: *b"\x01\x02\x03\x04abcdefgh", version: template.version, ntime: template.curtime, nonce });
    let (bits, target) = (work.draft.bits, target_bytes(work.draft.bits));
    let meets = |roll: &Roll| meets(&sha256d(&work.header(regtest(), script, bits, roll)), &target);
    tries.into_iter().find(|roll| meets(roll) == good).unwrap_or_else(|| panic!("2^32 hashes of no use"))
}

/// A chain that grows by honest work, one share a second: what a peer would send us.
pub(crate) struct Grower {
    pub(crate) chain: Chain,
    bitcoin: EmbeddedChain,
    ms: u64,
}

impl Grower {
    pub(crate) fn new() -> Grower {
        Grower { chain: fresh_chain(), bitcoin: EmbeddedChain::new(regtest(), None), ms: 0 }
    }

    /// The next share, made a second after the one before. Salts tell branches apart.
    pub(crate) fn grow(&mut self, own: Script, salt: u32) -> Share {
        let work = work_on(&self.chain, &self.bitcoin, at(self.ms), own, salt);
        let share = work.share(regtest(), &own, work.draft.bits, &roll(&work, &own, true));
        let offer = self.chain.offer(at(self.ms), &share, rockpool_store::chain::Source::Peer);
        assert_eq!(offer, rockpool_store::chain::Offer::Taken);
        self.chain.confirm(1);
        self.ms += 1_000;
        share
    }
}
