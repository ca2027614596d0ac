//! `GET /api/v1/events`: what happens, as a stream of server-sent events (`text/event-stream` of the HTML standard).
//!
//! One subscription to the registry of notifications for all streams, taken up when a turn ends. What has come is rendered once, all of a
//! turn into one payload that every stream's outbox shares. A stream that does not read is cut, so that it holds back nobody and little
//! memory. While there is no stream there is no subscription, and nothing is rendered.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use rockpool_net::close::CloseReason;
use rockpool_net::events::{Event, Notice, Subscription};
use rockpool_net::hub::Outlet;
use rockpool_net::id::ConnId;
use rockpool_net::limits::EVENTS_MAX;
use rockpool_net::payload::Payload;
use serde_json::Value;

use crate::http::reply::Reply;
use crate::http::routes::EVENTS;
use crate::limits::{
    STREAM_BACKLOG_BYTES, STREAM_BYTES_A_SECOND, STREAM_HEARTBEAT, STREAM_PAST_BYTES, STREAM_RETRY, STREAM_STATUS_MIN, STREAM_TEXT_CHARS,
    STREAMS_MAX,
};
use crate::status::Counters;
use crate::turn::Turn;

/// The head of a stream. nginx holds nothing of it back where it is told so.
pub fn head() -> Reply {
    Reply::endless(EVENTS).with("X-Accel-Buffering", "no")
}

/// All open streams.
#[derive(Debug, Default)]
pub struct Streams {
    conns: BTreeSet<ConnId>,
    /// While there are any, if the registry has a place.
    subscription: Option<Subscription>,
    feed: Feed,
    status: Told,
}

/// The status that streams were told last.
#[derive(Debug, Default)]
struct Told {
    /// When it was looked at last whether it is another.
    looked: Option<Duration>,
    /// When it was sent.
    sent: Duration,
    /// What it was, but for the time that the node has run.
    quiet: String,
}

impl Streams {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }

    /// Whether there is room for one more.
    pub fn has_room(&self) -> bool {
        self.conns.len() < STREAMS_MAX
    }

    /// Whether a connection is a stream.
    pub fn has(&self, conn: ConnId) -> bool {
        self.conns.contains(&conn)
    }

    /// A connection becomes a stream. What it is sent first: the status, and what has come after the event that it says it saw last.
    pub fn open(&mut self, conn: ConnId, since: Option<u64>, status: &[u8], turn: &Turn<'_>) -> String {
        if self.conns.is_empty() {
            let events = turn.out.events();
            (self.subscription, self.feed) = (events.subscribe(EVENTS_MAX), Feed::from(events.sequence()));
            self.status.looked = Some(turn.now.mono);
        }
        self.conns.insert(conn);
        turn.counters.streams.set(self.conns.len() as u64);
        let (at, missed) = self.feed.since(since);
        let (retry, first) = (STREAM_RETRY.as_millis(), event(at, "status", &String::from_utf8_lossy(status)));
        format!("retry: {retry}\n\n{first}{missed}")
    }

    /// A connection has gone.
    pub fn closed(&mut self, conn: ConnId, counters: &Counters) {
        if self.conns.remove(&conn) {
            counters.streams.set(self.conns.len() as u64);
            if self.conns.is_empty() {
                *self = Streams::default();
            }
        }
    }

    /// The events that have come since this was last asked, as they are sent.
    pub fn news(&mut self, now: Duration, counters: &Counters) -> String {
        let (mut text, lost) = (String::new(), self.feed.all_lost);
        self.feed.renew(now, &mut text);
        while let Some(notice) = self.subscription.as_ref().and_then(Subscription::take) {
            self.feed.hear(&notice, &mut text);
        }
        counters.stream_lost.add(self.feed.all_lost - lost);
        text
    }

    /// Whether it is time to look for another status.
    pub fn looks(&mut self, now: Duration) -> bool {
        let due = self.status.looked.is_none_or(|looked| now >= looked + STREAM_STATUS_MIN);
        if due {
            self.status.looked = Some(now);
        }
        due
    }

    /// Whether this status, rendered without the time that the node has run, is to be sent: it is another, or a sign of life is due.
    pub fn is_other(&mut self, now: Duration, quiet: String) -> bool {
        let other = quiet != self.status.quiet || now >= self.status.sent + STREAM_HEARTBEAT;
        if other {
            (self.status.sent, self.status.quiet) = (now, quiet);
        }
        other
    }

    /// A status as it is sent.
    pub fn status_event(&self, status: &str) -> String {
        event(self.feed.last, "status", status)
    }

    /// Sends this to all. Who has not read what was sent before is cut, and nobody for what is large by itself, as a status may be.
    pub fn send(&self, text: String, out: &mut Outlet, counters: &Counters) {
        if text.is_empty() {
            return;
        }
        counters.stream_payloads.add(1);
        let payload = Arc::new(Payload::new(text.into_bytes()));
        for &conn in &self.conns {
            let before = out.unread(conn);
            let unread = before + payload.bytes().len();
            if before > 0 && unread > STREAM_BACKLOG_BYTES {
                counters.streams_cut.add(1);
                out.close(conn, CloseReason::SlowReader(unread));
            } else {
                out.send(conn, Arc::clone(&payload));
            }
        }
    }

    /// The node stops, and so do they.
    pub fn end(&mut self, out: &mut Outlet) {
        self.conns.iter().for_each(|&conn| out.close_after_flush(conn, CloseReason::Stopping));
    }
}

/// What was rendered, for all streams: pure.
#[derive(Debug, Default)]
struct Feed {
    /// The newest notification that was heard.
    last: u64,
    /// The newest events with their notifications' numbers, for who comes back.
    past: VecDeque<(u64, String)>,
    past_bytes: usize,
    /// The notification up to which the past is forgotten.
    forgotten: u64,
    /// When the present second began, and how many bytes of events may be told in it yet.
    second: Duration,
    left: usize,
    /// Notifications that were not told, since this was told, and in all.
    lost: u64,
    all_lost: u64,
}

impl Feed {
    /// One that begins behind this notification.
    fn from(last: u64) -> Feed {
        Feed { last, forgotten: last, left: STREAM_BYTES_A_SECOND, ..Feed::default() }
    }

    /// A second is over: there is room again, and what had none is told of.
    fn renew(&mut self, now: Duration, text: &mut String) {
        if now >= self.second + Duration::from_secs(1) {
            (self.second, self.left) = (now, STREAM_BYTES_A_SECOND);
            self.tell_lost(text);
        }
    }

    /// A notification. What comes in floods, as shares do in a sync and miners after an outage, is told as far as the second has room.
    fn hear(&mut self, notice: &Notice, text: &mut String) {
        self.lose(notice.lost);
        if let Some((name, data)) = rendered(&notice.event) {
            let event = event(notice.sequence, name, &data);
            let left = if is_rare(&notice.event) { usize::MAX } else { self.left };
            if event.len() > left || text.len() + event.len() > STREAM_PAST_BYTES {
                self.lose(1);
            } else {
                self.left = self.left.saturating_sub(event.len());
                self.tell_lost(text);
                self.keep(event, notice.sequence, text);
            }
        }
        self.last = notice.sequence;
    }

    fn lose(&mut self, events: u64) {
        self.lost += events;
        self.all_lost += events;
    }

    fn tell_lost(&mut self, text: &mut String) {
        if self.lost > 0 {
            self.keep(lost(self.last, self.lost), self.last, text);
            self.lost = 0;
        }
    }

    fn keep(&mut self, event: String, number: u64, text: &mut String) {
        text.push_str(&event);
        self.past_bytes += event.len();
        self.past.push_back((number, event));
        while self.past_bytes > STREAM_PAST_BYTES
            && let Some((number, event)) = self.past.pop_front()
        {
            self.past_bytes -= event.len();
            self.forgotten = number;
        }
    }

    /// What who has seen everything up to this event has missed, and the number that its first event is to have, so that numbers grow.
    fn since(&self, seen: Option<u64>) -> (u64, String) {
        // A number that is not reached yet was another run's.
        let Some(seen) = seen.filter(|seen| *seen <= self.last) else { return (self.last, String::new()) };
        let gap = self.forgotten.saturating_sub(seen);
        let mut text = if gap > 0 { lost(self.forgotten, gap) } else { String::new() };
        self.past.iter().filter(|(number, _)| *number > seen.max(self.forgotten)).for_each(|(_, event)| text.push_str(event));
        (seen, text)
    }
}

fn event(number: u64, name: &str, data: &str) -> String {
    format!("id: {number}\nevent: {name}\ndata: {data}\n\n")
}

fn lost(number: u64, events: u64) -> String {
    event(number, "lost", &format!(r#"{{"events":{events}}}"#))
}

/// Whether it is told whatever else goes on: nobody can bring these about at will.
fn is_rare(event: &Event) -> bool {
    matches!(
        event,
        Event::BlockFound { .. } | Event::BlockFate { .. } | Event::BitcoinBlock { .. } | Event::BitcoinDown(_) | Event::DiskFull(_)
    )
}

/// A notification's name and data; `None` for what is not told.
fn rendered(event: &Event) -> Option<(&'static str, String)> {
    // JSON has no raw line break within a text, so that none ends the line of an event.
    let text = |text: &str| Value::from(text.chars().take(STREAM_TEXT_CHARS).collect::<String>()).to_string();
    let why = |why: Option<&dyn std::fmt::Display>| why.map_or("null".to_owned(), |why| text(&why.to_string()));
    let mut data = String::new();
    let (name, written) = match event {
        Event::ShareAccepted { id, height, own } => ("share", write!(data, r#"{{"id":"{id}","height":{height},"own":{own}}}"#)),
        Event::TipChanged { id, height, score } => ("tip", write!(data, r#"{{"id":"{id}","height":{height},"score":{score}}}"#)),
        Event::BlockFound { hash, height, miner } => {
            ("block", write!(data, r#"{{"hash":"{hash}","height":{height},"miner":{}}}"#, miner.is_some()))
        }
        Event::BlockFate { hash, fate } => ("fate", write!(data, r#"{{"hash":"{hash}","fate":{}}}"#, text(fate))),
        // Where a miner is, only its owner is told.
        Event::MinerUp { worker, agent, .. } => {
            ("miner", write!(data, r#"{{"up":true,"worker":{},"agent":{}}}"#, text(worker), text(agent)))
        }
        Event::MinerDown { worker, agent, .. } => {
            ("miner", write!(data, r#"{{"up":false,"worker":{},"agent":{}}}"#, text(worker), text(agent)))
        }
        Event::PeerUp { addr, outbound, .. } => {
            ("peer", write!(data, r#"{{"up":true,"addr":"{addr}","outbound":{outbound},"why":{}}}"#, why(None)))
        }
        Event::PeerDown { addr, outbound, why: reason, .. } => {
            ("peer", write!(data, r#"{{"up":false,"addr":"{addr}","outbound":{outbound},"why":{}}}"#, why(Some(reason))))
        }
        Event::BitcoinBlock { hash, height } => ("bitcoin", write!(data, r#"{{"height":{height},"hash":"{hash}"}}"#)),
        Event::BitcoinDown(reason) => {
            let reason = reason.as_ref().map(|reason| reason as &dyn std::fmt::Display);
            ("trouble", write!(data, r#"{{"what":"bitcoin","why":{}}}"#, why(reason)))
        }
        Event::DiskFull(full) => {
            let reason: Option<&dyn std::fmt::Display> = if *full { Some(&"the disk is full") } else { None };
            ("trouble", write!(data, r#"{{"what":"disk","why":{}}}"#, why(reason)))
        }
        Event::WorkChanged { bitcoin_height, clean } => ("work", write!(data, r#"{{"bitcoin_height":{bitcoin_height},"clean":{clean}}}"#)),
        // The status tells of them.
        Event::BitcoinPeerUp { .. } | Event::BitcoinPeerDown { .. } => return None,
    };
    // Writing to a String does not fail.
    written.ok().map(|()| (name, data))
}

#[cfg(test)]
mod tests;
