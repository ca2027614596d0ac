//! A connection of the simulated network, and what travels on it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::hub::io::{Event, Ready};
use crate::id::ConnId;
use crate::pipes::Net;

/// A connection: two ends, 0 the one that dialled.
#[derive(Debug)]
pub(super) struct Link {
    pub port: u16,
    pub ends: [End; 2],
}

#[derive(Debug)]
pub(super) struct End {
    pub host: usize,
    pub conn: Option<ConnId>,
    pub state: EndState,
    /// What is on its way to this end, in order, with the time of its arrival.
    pub transit: VecDeque<(Duration, Segment)>,
    pub transit_bytes: usize,
    /// What has arrived and is not read.
    pub incoming: VecDeque<u8>,
    /// The other side has said all.
    pub fin: bool,
    /// That there are bytes was told, and they are not drained yet.
    pub told: bool,
    /// A write took less than it was given: its writer waits to be told of room.
    pub blocked: bool,
    /// The last write took less than there was room for: there is room again when word of it comes.
    pub busy: bool,
    pub wants_writable: bool,
    /// It has said that it will write no more.
    pub finished: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndState {
    Dialling,
    Open,
    Refused,
    Reset,
    Closed,
}

#[derive(Debug)]
pub(super) enum Segment {
    Dial,
    DialEnd { refused: bool },
    Bytes(Vec<u8>),
    Room,
    Fin,
    Reset,
}

impl End {
    pub fn new(host: usize, state: EndState) -> End {
        End {
            host,
            conn: None,
            state,
            transit: VecDeque::new(),
            transit_bytes: 0,
            incoming: VecDeque::new(),
            fin: false,
            told: false,
            blocked: false,
            busy: false,
            wants_writable: false,
            finished: false,
        }
    }

    /// Bytes sent to it and not read.
    pub fn held(&self) -> usize {
        self.transit_bytes + self.incoming.len()
    }
}

impl Net {
    /// Sends a segment to an end. It arrives after the one before it.
    pub(super) fn send(&mut self, link: usize, to: usize, segment: Segment) {
        let (shortest, longest) = self.weather.delay;
        let span = (longest - shortest).as_micros() as usize + 1;
        let delay = shortest + Duration::from_micros(self.draw(span) as u64);
        let end = &mut self.links[link].ends[to];
        let after = end.transit.back().map_or(Duration::ZERO, |(at, _)| *at);
        if let Segment::Bytes(bytes) = &segment {
            end.transit_bytes += bytes.len();
        }
        end.transit.push_back(((self.now + delay).max(after), segment));
        self.schedule(link, to);
    }

    /// Makes the first segment on its way to an end arrive at its time.
    pub(super) fn schedule(&mut self, link: usize, to: usize) {
        if let Some((at, _)) = self.links[link].ends[to].transit.front() {
            self.sequence += 1;
            self.arrivals.insert(((*at).max(self.now), self.sequence, link, to));
        }
    }

    /// The first segment on its way to an end arrives, unless it came before or the way is cut.
    pub(super) fn arrive(&mut self, link: usize, to: usize) {
        let ends = &mut self.links[link].ends;
        let cut = self.cuts.contains(&(ends[1 - to].host, ends[to].host));
        let due = ends[to].transit.front().is_some_and(|(at, _)| *at <= self.now);
        if cut || !due {
            self.felt.held += u64::from(cut && due);
            return;
        }
        let Some((_, segment)) = ends[to].transit.pop_front() else { return };
        self.note(link, to, &segment);
        match segment {
            Segment::Dial => self.dial_arrives(link),
            Segment::DialEnd { refused } => {
                let end = &mut self.links[link].ends[to];
                if end.state == EndState::Dialling {
                    end.state = if refused { EndState::Refused } else { EndState::Open };
                    self.tell(link, to, Ready { writable: true, closed: refused, ..Ready::default() });
                }
            }
            Segment::Bytes(bytes) => self.bytes_arrive(link, to, bytes),
            Segment::Room => {
                self.links[link].ends[to].busy = false;
                self.tell_room(link, to);
            }
            Segment::Fin => {
                self.links[link].ends[to].fin = true;
                self.tell(link, to, Ready { readable: true, closed: true, ..Ready::default() });
            }
            Segment::Reset => self.reset_end(link, to),
        }
        self.schedule(link, to);
    }

    fn dial_arrives(&mut self, link: usize) {
        let Link { port, ends } = &self.links[link];
        let host = &mut self.hosts[ends[1].host];
        let row = host.ports.get(port).copied().filter(|_| !host.refuses);
        if let Some(row) = row {
            let (queue, told) = host.queues.entry(row).or_default();
            queue.push_back(link);
            if !std::mem::replace(told, true) {
                host.events.push(Event::Listener(row));
            }
            self.links[link].ends[1].state = EndState::Open;
        }
        self.felt.refused += u64::from(row.is_none());
        self.send(link, 0, Segment::DialEnd { refused: row.is_none() });
    }

    fn bytes_arrive(&mut self, link: usize, to: usize, bytes: Vec<u8>) {
        let end = &mut self.links[link].ends[to];
        end.transit_bytes -= bytes.len();
        match end.state {
            // Nobody is there any more: the sender is told so.
            EndState::Closed | EndState::Refused => self.send(link, 1 - to, Segment::Reset),
            EndState::Reset => {}
            EndState::Open | EndState::Dialling => {
                end.incoming.extend(bytes);
                if !std::mem::replace(&mut end.told, true) {
                    self.tell(link, to, Ready { readable: true, ..Ready::default() });
                }
            }
        }
    }

    /// Tells an end that its socket has room, if it waits to hear that and there is.
    pub(super) fn tell_room(&mut self, link: usize, to: usize) {
        let room = self.links[link].ends[1 - to].held() < self.weather.capacity;
        let end = &mut self.links[link].ends[to];
        if room && !end.busy && end.wants_writable && std::mem::take(&mut end.blocked) {
            self.tell(link, to, Ready { writable: true, ..Ready::default() });
        }
    }

    pub(super) fn tell(&mut self, link: usize, to: usize, ready: Ready) {
        let end = &self.links[link].ends[to];
        if let Some(conn) = end.conn {
            self.hosts[end.host].events.push(Event::Conn(conn, ready));
        }
    }

    pub(super) fn reset_end(&mut self, link: usize, to: usize) {
        let end = &mut self.links[link].ends[to];
        if matches!(end.state, EndState::Open | EndState::Dialling) {
            end.state = EndState::Reset;
            end.incoming.clear();
            self.tell(link, to, Ready { readable: true, writable: true, closed: true });
        }
    }

    fn note(&mut self, link: usize, to: usize, segment: &Segment) {
        let (kind, bytes): (u8, &[u8]) = match segment {
            Segment::Dial => (0, &[]),
            Segment::DialEnd { refused } => (1 + u8::from(*refused), &[]),
            Segment::Bytes(bytes) => (3, bytes),
            Segment::Room => (4, &[]),
            Segment::Fin => (5, &[]),
            Segment::Reset => (6, &[]),
        };
        let head = [self.now.as_micros() as u64, link as u64, to as u64].map(u64::to_le_bytes).concat();
        // FNV-1a: told apart is enough, nobody attacks a trace.
        for &byte in head.iter().chain([&kind]).chain(bytes) {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
