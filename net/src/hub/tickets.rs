//! Tickets: the right to have one frame in the house. A frame is cut only with one, so that everything behind is bounded.

use crate::id::{ConnId, Lane};
use crate::limits::tickets;

/// The right to one frame of its lane. It comes home at the end of dispatch, or with the last answer of the job it was taken for.
#[must_use = "a ticket that does not come home is lost to its lane for ever"]
#[derive(Debug, PartialEq, Eq)]
pub struct Ticket {
    pub(crate) lane: Lane,
    pub(crate) conn: ConnId,
    pub(crate) bytes: u32,
}

impl Ticket {
    /// The lane it belongs to.
    pub fn lane(&self) -> Lane {
        self.lane
    }

    /// The connection whose frame it paid for.
    pub fn conn(&self) -> ConnId {
        self.conn
    }

    /// A ticket that no hub gave out, for tests and benches of stages.
    pub fn for_test(lane: Lane, conn: ConnId) -> Ticket {
        Ticket { lane, conn, bytes: 0 }
    }
}

/// The account of all lanes: how many tickets are out, and the bytes of their frames.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    out: [LaneAccount; Lane::ALL.len()],
}

#[derive(Debug, Default)]
struct LaneAccount {
    count: usize,
    bytes: usize,
}

impl Lanes {
    /// Whether this lane has a ticket to give.
    pub fn has(&self, lane: Lane) -> bool {
        let (count_max, bytes_max) = tickets(lane);
        let account = &self.out[lane as usize];
        account.count < count_max && account.bytes < bytes_max
    }

    /// Gives one out. The caller has asked [`Lanes::has`] before it cut the frame.
    pub fn give(&mut self, lane: Lane, conn: ConnId, bytes: usize) -> Ticket {
        // No frame comes near 4 GiB; the account is kept by what the ticket says, so it always closes.
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let account = &mut self.out[lane as usize];
        account.count += 1;
        account.bytes += bytes as usize;
        Ticket { lane, conn, bytes }
    }

    /// Takes one home. The account is left alone by tickets that it never gave out.
    pub fn home(&mut self, ticket: &Ticket) {
        let account = &mut self.out[ticket.lane as usize];
        account.count = account.count.saturating_sub(1);
        account.bytes = account.bytes.saturating_sub(ticket.bytes as usize);
    }

    /// Tickets of a lane that are out.
    pub fn out(&self, lane: Lane) -> usize {
        self.out[lane as usize].count
    }

    /// All tickets that are out.
    pub fn all_out(&self) -> usize {
        self.out.iter().map(|account| account.count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{TICKET_BYTES_BITCOIN, TICKET_BYTES_PEER, TICKETS_BITCOIN, TICKETS_HTTP};

    const CONN: ConnId = ConnId { slot: 0, generation: 1 };

    #[test]
    fn a_lane_ends_by_count_and_leaves_the_others_alone() {
        for (lane, most) in [(Lane::Http, TICKETS_HTTP), (Lane::Bitcoin, TICKETS_BITCOIN)] {
            let mut lanes = Lanes::default();
            let out: Vec<Ticket> = (0..most).map(|_| lanes.give(lane, CONN, 1)).collect();
            assert!(Lane::ALL.into_iter().all(|other| lanes.has(other) == (other != lane)), "{lane:?}");
            assert_eq!((lanes.out(lane), lanes.all_out()), (most, most));
            out.iter().for_each(|ticket| lanes.home(ticket));
            assert!(lanes.has(lane));
            assert_eq!(lanes.all_out(), 0);
        }
    }

    #[test]
    fn a_lane_ends_by_bytes() {
        for (lane, most) in [(Lane::Peer, TICKET_BYTES_PEER), (Lane::Bitcoin, TICKET_BYTES_BITCOIN)] {
            let mut lanes = Lanes::default();
            let small = lanes.give(lane, CONN, most - 1);
            assert!(lanes.has(lane));
            let large = lanes.give(lane, CONN, 1);
            assert!(!lanes.has(lane));
            lanes.home(&small);
            lanes.home(&large);
            assert!(lanes.has(lane));
            assert_eq!(lanes.out[lane as usize].bytes, 0);
        }
    }
}
