//! The journal: the subscriber that tells the log what happened to peers, miners, the chain and Bitcoin's side, and counts it for
//! `/metrics`. Who publishes neither logs nor counts the same thing beside it.

use std::net::SocketAddr;

use rockpool_net::close::CloseReason;
use rockpool_net::events::{Event, Events, Subscription};
use rockpool_net::limits::EVENTS_MAX;

use crate::status::Counters;

/// The subscription, taken up once a turn.
#[derive(Debug)]
pub struct Journal {
    subscription: Option<Subscription>,
}

impl Journal {
    /// Begins with what is published from now on. Without a place among the subscribers it stays empty.
    pub fn open(events: &Events) -> Journal {
        Journal { subscription: events.subscribe(EVENTS_MAX) }
    }

    /// Takes what was published since the last time.
    pub fn write(&self, counters: &Counters) {
        while let Some(notice) = self.subscription.as_ref().and_then(Subscription::take) {
            if notice.lost > 0 {
                counters.notices_lost.add(notice.lost);
                log::warn!("so much happened at once that {} events are missing here, before number {}", notice.lost, notice.sequence);
            }
            count(&notice.event, counters);
            tell(&notice.event);
        }
    }
}

fn count(event: &Event, counters: &Counters) {
    let counter = match event {
        Event::PeerUp { .. } => &counters.peers_up,
        Event::PeerDown { .. } => &counters.peers_down,
        Event::MinerUp { .. } => &counters.miners_up,
        Event::MinerDown { .. } => &counters.miners_down,
        Event::TipChanged { .. } => &counters.tips,
        Event::BlockFound { miner: Some(_), .. } => &counters.blocks_found,
        Event::BitcoinPeerUp { .. } => &counters.bitcoin_peers_up,
        Event::BitcoinPeerDown { .. } => &counters.bitcoin_peers_down,
        Event::BitcoinBlock { .. } => &counters.bitcoin_blocks,
        Event::BitcoinDown(Some(_)) => &counters.bitcoin_outages,
        Event::DiskFull(true) => &counters.disk_outages,
        Event::ShareAccepted { .. }
        | Event::BlockFound { .. }
        | Event::BlockFate { .. }
        | Event::WorkChanged { .. }
        | Event::BitcoinDown(None)
        | Event::DiskFull(false) => return,
    };
    counter.add(1);
}

fn tell(event: &Event) {
    match event {
        Event::PeerUp { addr, outbound, .. } => log::info!("peer {addr} is up, {}", if *outbound { "dialled" } else { "accepted" }),
        Event::PeerDown { addr, why, .. } => ended("peer", *addr, why),
        Event::MinerUp { conn, addr, worker, agent, .. } => log::info!("miner {conn} at {addr} is up, worker {worker:?}, agent {agent:?}"),
        Event::MinerDown { addr, why, .. } => ended("miner", *addr, why),
        Event::TipChanged { id, height, .. } => log::debug!("the confirmed tip is {id} at height {height}"),
        Event::ShareAccepted { id, height, own } => {
            log::debug!("share {id} at height {height}, {}", if *own { "our own" } else { "a peer's" })
        }
        Event::BlockFound { hash, height, miner: Some(conn) } => log::warn!("block found: {hash} at height {height}, by miner {conn}"),
        Event::BlockFound { hash, height, miner: None } => log::warn!("block found: {hash} at height {height}, by a peer's miner"),
        Event::BlockFate { hash, fate } => log::warn!("block {hash}: {fate}"),
        Event::WorkChanged { bitcoin_height, clean } => {
            log::debug!("new work for block {bitcoin_height}{}", if *clean { ", what was before is worthless" } else { "" });
        }
        Event::BitcoinPeerUp { addr, agent, height, .. } => log::info!("Bitcoin node {addr} is up: {agent}, at height {height}"),
        Event::BitcoinPeerDown { addr, why, .. } => ended("Bitcoin node", *addr, why),
        Event::BitcoinBlock { hash, height } => log::debug!("Bitcoin's best block is {hash} at height {height}"),
        Event::BitcoinDown(Some(why)) => log::warn!("{why}; miners keep their work, and it is asked again until it answers"),
        Event::BitcoinDown(None) => log::info!("bitcoind gives work again"),
        Event::DiskFull(true) => log::error!("the disk is full: make room; shares are held back until there is some"),
        Event::DiskFull(false) => log::info!("the disk has room again"),
    }
}

/// Tells why a connection ended: faults are worth a warning, the rest is daily life.
pub fn ended(who: &str, addr: SocketAddr, why: &CloseReason) {
    if why.is_fault() {
        log::warn!("{who} {addr} dropped: {why}");
    } else {
        log::info!("{who} {addr} left: {why}");
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use rockpool_net::id::{ConnId, ShareId};

    #[test]
    fn what_happens_is_counted_once_and_what_was_missed_too() {
        let (events, counters) = (Events::default(), Counters::default());
        events.publish(Event::DiskFull(true));
        let journal = Journal::open(&events);
        let ours = Some(ConnId { slot: 1, generation: 1 });
        let found = |miner| Event::BlockFound { hash: ShareId::default(), height: 1, miner };
        [found(ours), found(None), found(ours)].into_iter().for_each(|event| events.publish(event));
        journal.write(&counters);
        journal.write(&counters);
        assert_eq!((counters.blocks_found.get(), counters.disk_outages.get(), counters.notices_lost.get()), (2, 0, 0));
        (0..EVENTS_MAX + 3).for_each(|_| events.publish(Event::BitcoinDown(Some("gone".into()))));
        journal.write(&counters);
        assert_eq!((counters.bitcoin_outages.get(), counters.notices_lost.get()), (EVENTS_MAX as u64, 3));
    }

    #[test]
    fn without_a_place_it_stays_empty_and_harms_nobody() {
        let events = Events::default();
        let all: Vec<_> = std::iter::from_fn(|| events.subscribe(1)).collect();
        let (journal, counters) = (Journal::open(&events), Counters::default());
        events.publish(Event::DiskFull(true));
        journal.write(&counters);
        assert_eq!((counters.disk_outages.get(), all[0].take().unwrap().sequence), (0, 1));
    }
}
