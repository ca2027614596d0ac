//! What the network core counts: one table of names, units and helps, read by `/metrics` and the dashboard.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::close::CloseReason;
use crate::id::Lane;

/// One number that only grows, or a level that is set. Lock-free: one thread writes it, the table's owner; any thread may read it.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    pub fn add(&self, n: u64) {
        self.0.store(self.get().wrapping_add(n), Relaxed);
    }

    /// Sets a level.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What a row of a table tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// How much there was since the start: it only grows.
    Sum,
    /// How much there is now.
    Level,
}

impl Kind {
    /// What a table's row says of itself; nothing is said of a sum.
    pub const fn of(said: &[Kind]) -> Kind {
        match said {
            [kind, ..] => *kind,
            [] => Kind::Sum,
        }
    }
}

/// A row of a table of counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterRow {
    /// Its name, as metrics show it.
    pub name: &'static str,
    /// What it counts in: `bytes`, `seconds`, `frames` …
    pub unit: &'static str,
    /// Whether it is a sum or a level.
    pub kind: Kind,
    /// One sentence.
    pub help: &'static str,
    /// The value when the row was made.
    pub value: u64,
}

impl CounterRow {
    /// Its name by Prometheus' conventions: a base unit stands at the end, behind it `_total` if it is a sum.
    pub fn metric(&self) -> String {
        let base = matches!(self.unit, "bytes" | "seconds");
        let name = if base { self.name.trim_start_matches("bytes_") } else { self.name };
        let unit = if base && !name.ends_with(self.unit) { format!("_{}", self.unit) } else { String::new() };
        let total = if self.kind == Kind::Sum { "_total" } else { "" };
        format!("{name}{unit}{total}")
    }
}

/// Makes a struct of counters and its table from rows `name: "unit", "help";`, or `name: "unit" Level, "help";` of what goes up and down.
/// Every crate's table is made by it.
#[macro_export]
macro_rules! counters {
    ($(#[$meta:meta])* $table:ident { $($name:ident: $unit:literal $($kind:ident)?, $help:literal;)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        pub struct $table {
            $(#[doc = $help] pub $name: $crate::counters::Counter,)+
        }

        impl $table {
            /// All rows, with their values now.
            pub fn rows(&self) -> Vec<$crate::counters::CounterRow> {
                vec![$($crate::counters::CounterRow {
                    name: stringify!($name), unit: $unit, help: $help,
                    kind: $crate::counters::Kind::of(&[$($crate::counters::Kind::$kind)?]), value: self.$name.get(),
                }),+]
            }
        }
    };
}

counters! {
    /// The network core's counters.
    Counters {
        bytes_in: "bytes", "Bytes read from all connections.";
        bytes_out: "bytes", "Bytes written to all connections.";
        reads: "calls", "Read calls.";
        writes: "calls", "Write calls.";
        frames_peer: "frames", "Messages cut from peers.";
        frames_stratum: "frames", "Lines cut from miners.";
        frames_http: "frames", "HTTP requests cut.";
        frames_bitcoin: "frames", "Messages cut from Bitcoin nodes.";
        frames_unknown: "frames", "Messages of unknown commands, read over.";
        frames_dropped: "frames", "Frames whose connection had ended before their dispatch.";
        tickets_peer: "tickets" Level, "Tickets of peers that are out now.";
        tickets_stratum: "tickets" Level, "Tickets of miners that are out now.";
        tickets_http: "tickets" Level, "Tickets of HTTP that are out now.";
        tickets_bitcoin: "tickets" Level, "Tickets of Bitcoin nodes that are out now.";
        tickets_waited: "times", "A connection waited for one of its tickets to come home, or a lane for any.";
        receive_pool: "bytes" Level, "Bytes of unfinished messages in the pool now.";
        receive_waited: "times", "A connection waited for room in the pool of unfinished messages.";
        receive_cut: "connections", "Connections cut as the slowest senders while others waited for room in the pool.";
        outbox_sum: "bytes" Level, "Bytes in all outboxes now.";
        outbox_cut: "connections", "Connections cut because the sum of all outboxes was too large.";
        conns: "connections" Level, "Connections now, dials under way included.";
        accepted: "connections", "Connections accepted.";
        refused: "connections", "Connections refused for want of a slot.";
        dialled: "connections", "Dials begun.";
        accept_pauses: "times", "A listener rested because the process had no file descriptor left.";
        v2_opened: "connections", "Connections that became v2.";
        v2_failed: "connections", "Connections whose v2 handshake began and was not done.";
        v2_decoys: "packets", "Packets of v2 that said they are to be thrown away.";
        v2_waited: "times", "Exchanges of keys were left to the next turn because its budget was spent.";
        closed_remote: "connections", "Closed by the other side.";
        closed_socket: "connections", "Closed by a socket error.";
        closed_dial: "connections", "Dials that failed.";
        closed_not_v2: "connections", "Dialled for v2, which did not come about.";
        closed_bad_frame: "connections", "Closed for bytes that are no frame.";
        closed_misbehaviour: "connections", "Closed for misbehaviour.";
        closed_timeout: "connections", "Closed by a deadline.";
        closed_slow_reader: "connections", "Closed because it did not read.";
        closed_full: "connections", "Closed for want of a slot.";
        closed_done: "connections", "Closed because all was said.";
        closed_stopping: "connections", "Closed because the node stops.";
        turns: "turns", "Turns of the reactor.";
        budgets_spent: "times", "A stage left work to the next turn because its budget was spent.";
        gaps: "times", "Gaps between turns taken for sleep of the machine.";
        published: "events", "Notifications published.";
    }
}

impl Counters {
    /// Frames cut of a lane.
    pub fn frames(&self, lane: Lane) -> &Counter {
        match lane {
            Lane::Peer => &self.frames_peer,
            Lane::Stratum => &self.frames_stratum,
            Lane::Http => &self.frames_http,
            Lane::Bitcoin => &self.frames_bitcoin,
        }
    }

    /// Tickets of a lane that are out.
    pub fn tickets(&self, lane: Lane) -> &Counter {
        match lane {
            Lane::Peer => &self.tickets_peer,
            Lane::Stratum => &self.tickets_stratum,
            Lane::Http => &self.tickets_http,
            Lane::Bitcoin => &self.tickets_bitcoin,
        }
    }

    /// Connections that ended for this reason.
    pub fn closed(&self, why: &CloseReason) -> &Counter {
        match why {
            CloseReason::Remote => &self.closed_remote,
            CloseReason::Socket(_) => &self.closed_socket,
            CloseReason::Dial(_) => &self.closed_dial,
            CloseReason::NotV2(_) => &self.closed_not_v2,
            CloseReason::BadFrame(_) => &self.closed_bad_frame,
            CloseReason::Misbehaviour(_) => &self.closed_misbehaviour,
            CloseReason::Timeout(_) => &self.closed_timeout,
            CloseReason::SlowReader(_) => &self.closed_slow_reader,
            CloseReason::Full(_) => &self.closed_full,
            CloseReason::Done(_) => &self.closed_done,
            CloseReason::Stopping => &self.closed_stopping,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_name_of_its_own_and_shows_its_counter() {
        let counters = Counters::default();
        counters.bytes_in.add(3);
        counters.closed(&CloseReason::SlowReader(1)).add(1);
        let rows = counters.rows();
        let value = |name| rows.iter().find(|row| row.name == name).map(|row| row.value);
        assert_eq!(value("bytes_in"), Some(3));
        assert_eq!(value("closed_slow_reader"), Some(1));
        let names: std::collections::BTreeSet<_> = rows.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), rows.len());
        assert!(rows.iter().all(|row| row.help.ends_with('.') && !row.unit.is_empty()));
        let metric = |name| rows.iter().find(|row| row.name == name).map(CounterRow::metric).unwrap_or_default();
        let names = ["bytes_in", "receive_pool", "conns", "closed_slow_reader"].map(metric);
        assert_eq!(names, ["in_bytes_total", "receive_pool_bytes", "conns", "closed_slow_reader_total"]);
    }
}
