//! Tickets: the right to have one frame in the house. A frame is cut only with one, so that everything behind is bounded.

use crate::id::{ConnId, Lane};

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
