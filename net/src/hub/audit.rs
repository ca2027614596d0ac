//! The hub's accounts, for tests. Sums and marks are kept as things come and go; here all is counted anew.

use std::collections::{BTreeMap, BTreeSet};

use crate::hub::Hub;
use crate::hub::backlog::Backlog;
use crate::hub::conn::{Conn, State};
use crate::id::{ConnId, Lane};
use crate::limits::{OUTBOX_HTTP_SUM_BYTES, OUTBOX_SUM_BYTES, RECEIVE_POOL_BYTES, outbox_bytes, tickets_per_conn};

impl<A> Hub<A> {
    /// Panics where a sum is not that of what is held, a limit is passed, or a connection has something to do that no stage knows of and
    /// no deadline. To be asked between turns.
    pub fn audit(&self) {
        let out = &self.out;
        let sum = |of: fn(&Conn) -> usize| out.conns.iter().map(|(_, conn)| of(conn)).sum::<usize>();
        assert_eq!(out.unsent(), sum(|conn| conn.outbox.len()), "bytes in all outboxes");
        assert_eq!(out.pool, sum(|conn| conn.received.pooled()), "bytes of the pool");
        let dialled = sum(|conn| usize::from(conn.listener.is_none() && conn.lane != Lane::Bitcoin));
        let to_bitcoin = sum(|conn| usize::from(conn.listener.is_none() && conn.lane == Lane::Bitcoin));
        assert_eq!(out.dials_now, [dialled, to_bitcoin], "connections that were dialled");
        self.listeners.audit(out.conns.iter().filter_map(|(_, conn)| Some((conn.listener?, conn.addr))));
        let unsent = out.unsent_but_blocks();
        assert!(unsent <= OUTBOX_SUM_BYTES && out.pool <= RECEIVE_POOL_BYTES, "{unsent} and {} bytes", out.pool);
        assert!(out.outbox_sums[Lane::Http as usize] <= OUTBOX_HTTP_SUM_BYTES, "bytes in outboxes of HTTP");
        for lane in Lane::ALL {
            let of_lane = || out.conns.iter().filter(|(_, conn)| conn.lane == lane);
            let unsent: usize = of_lane().map(|(_, conn)| conn.outbox.len()).sum();
            assert_eq!(out.outbox_sums[lane as usize], unsent, "bytes in outboxes of {lane:?}");
            let held: usize = of_lane().map(|(_, conn)| usize::from(conn.tickets)).sum();
            // Those who have ended may have left some behind.
            assert!(held <= out.lanes.out(lane), "{held} tickets of {lane:?} are held, {} are out", out.lanes.out(lane));
        }
        let mut inbox: BTreeMap<ConnId, u8> = BTreeMap::new();
        self.inbox.iter().for_each(|(id, ..)| *inbox.entry(*id).or_default() += 1);
        let wait = |backlog: &Backlog| backlog.iter().collect::<BTreeSet<u32>>();
        let [peer, stratum, http, bitcoin] = out.frames.each_ref().map(wait);
        let [reads, writes, rooms] = [&out.reads, &out.writes, &out.rooms].map(wait);
        for (id, conn) in out.conns.iter() {
            assert_eq!(conn.inbox, inbox.get(&id).copied().unwrap_or(0), "frames of {id} in the inbox");
            let frames = [&peer, &stratum, &http, &bitcoin][conn.lane as usize];
            self.audit_conn(id, conn, [&reads, frames, &writes, &rooms].map(|backlog| backlog.contains(&id.slot)));
        }
    }

    /// One connection, and whether it is in the backlogs to be read, cut, written to and told of room.
    fn audit_conn(&self, id: ConnId, conn: &Conn, waits: [bool; 4]) {
        // Word of room comes with a ticket beyond those for frames, one for each time it was asked for.
        assert!(
            conn.inbox <= tickets_per_conn(conn.lane) && conn.inbox <= conn.tickets,
            "{id} has {} frames, {} tickets",
            conn.inbox,
            conn.tickets
        );
        assert!(conn.outbox.len() <= outbox_bytes(conn.lane), "{} bytes for {id}", conn.outbox.len());
        let open = matches!(conn.state, State::Open | State::Flushing(_));
        let to_read = open && conn.readable && !conn.ended && !conn.paused && !conn.uncut;
        let to_cut = conn.uncut && !conn.paused && !conn.in_keys && conn.may_cut();
        let to_write = open && conn.can_write() && !conn.full;
        assert!(!conn.in_keys || self.out.keys.iter().any(|slot| slot == id.slot), "{id} waits for keys and nobody knows: {conn:?}");
        let marked = [conn.in_reads, conn.in_frames, conn.in_writes, conn.in_rooms];
        for (stage, due) in [to_read, to_cut, to_write, false].into_iter().enumerate() {
            let what = ["read", "cut", "written to", "told of room"][stage];
            assert!(marked[stage] || !due, "{id} is to be {what} and nobody knows: {conn:?}");
            assert!(waits[stage] || !marked[stage], "{id} is marked to be {what} and is in no backlog: {conn:?}");
        }
        let forgotten = conn.earliest() < conn.entry || conn.entry < self.out.timers.first();
        assert!(!forgotten, "a deadline of {id} is not among the timers: {conn:?}");
    }
}
