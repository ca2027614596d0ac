//! What can be broken, the clocks that go wrong, and what of it was felt.

use std::time::Duration;

use crate::id::ConnId;
use crate::pipes::link::{EndState, Segment};
use crate::pipes::{Net, WALL_START};

/// How often a fault was felt: one that is injected where nothing happens is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Felt {
    /// Pieces that did not arrive at their time because the way was cut or the host clogged.
    pub held: u64,
    /// Writes of which less was taken than given, by the chop or for want of room.
    pub chopped: u64,
    /// Writes of which nothing was taken: the pipe was full.
    pub full: u64,
    /// Calls interrupted by a signal.
    pub interrupted: u64,
    /// Dials refused.
    pub refused: u64,
    /// Accepts that failed for want of a file descriptor.
    pub exhausted: u64,
}

/// A calendar clock.
#[derive(Debug)]
pub(super) struct Clock {
    /// When it was set, and what it showed then, Unix milliseconds.
    at: Duration,
    shows: i64,
    /// Milliseconds that it gains in a minute.
    gains: i64,
    frozen: bool,
}

impl Default for Clock {
    fn default() -> Clock {
        Clock { at: Duration::ZERO, shows: true_wall(Duration::ZERO), gains: 0, frozen: false }
    }
}

impl Clock {
    /// Unix milliseconds.
    fn shows(&self, now: Duration) -> i64 {
        let passed = (now - self.at).as_millis() as i64;
        if self.frozen { self.shows } else { self.shows + passed + passed * self.gains / 60_000 }
    }

    pub fn wall(&self, now: Duration) -> Duration {
        // Between two milliseconds nothing that reads it can tell.
        Duration::from_millis(self.shows(now).max(0) as u64)
    }
}

fn true_wall(now: Duration) -> i64 {
    (WALL_START + now).as_millis() as i64
}

impl Net {
    /// Cuts or mends the way from one host to another, one way: what is sent waits, and the sender's pipe fills.
    pub fn cut(&mut self, from: usize, to: usize, cut: bool) {
        if cut {
            self.cuts.insert((from, to));
        } else if self.cuts.remove(&(from, to)) {
            for (link, end) in self.ends_on(|at, other| at == to && other == from) {
                self.schedule(link, end);
            }
        }
    }

    /// Cuts or mends both ways between two hosts.
    pub fn partition(&mut self, a: usize, b: usize, cut: bool) {
        self.cut(a, b, cut);
        self.cut(b, a, cut);
    }

    /// Clogs a host or frees it: nothing arrives there from anywhere.
    pub fn clog(&mut self, host: usize, clog: bool) {
        (0..self.hosts.len()).for_each(|other| self.cut(other, host, clog));
    }

    /// Resets all connections between two hosts. Returns how many.
    pub fn reset(&mut self, a: usize, b: usize) -> usize {
        let ends = self.ends_on(|at, other| (at, other) == (a, b) || (at, other) == (b, a));
        let live: Vec<_> = ends.into_iter().filter(|&(link, end)| self.links[link].ends[end].state == EndState::Open).collect();
        live.iter().for_each(|&(link, end)| self.reset_end(link, end));
        live.len().div_ceil(2)
    }

    /// A host's process dies: its ports are closed, its connections reset, what it was to be told is gone.
    pub fn crash(&mut self, host: usize) {
        for (_, (link, at)) in std::mem::take(&mut self.hosts[host].conns) {
            let end = &mut self.links[link].ends[at];
            (end.conn, end.state) = (None, EndState::Closed);
            self.send(link, 1 - at, Segment::Reset);
        }
        for (queue, _) in std::mem::take(&mut self.hosts[host].queues).into_values() {
            for link in queue {
                self.links[link].ends[1].state = EndState::Closed;
                self.send(link, 0, Segment::Reset);
            }
        }
        self.hosts[host].ports.clear();
        self.hosts[host].events.clear();
    }

    /// Makes a host refuse dials, or take them again.
    pub fn refuse(&mut self, host: usize, refuse: bool) {
        self.hosts[host].refuses = refuse;
    }

    /// Takes a host's file descriptors away, or gives them back: accepting fails meanwhile.
    pub fn exhaust(&mut self, host: usize, exhausted: bool) {
        self.hosts[host].exhausted = exhausted;
    }

    /// Bytes that the host has sent on this connection and the other side has not read.
    pub fn unread(&self, host: usize, conn: ConnId) -> usize {
        self.hosts[host].conns.get(&conn).map_or(0, |&(link, end)| self.links[link].ends[1 - end].held())
    }

    /// Makes one call in so many, of reads, writes and accepts, fail as if a signal had come; zero for none.
    pub fn interrupt(&mut self, one_in: usize) {
        self.interrupts = one_in;
    }

    /// Puts a host's calendar clock ahead of the true time by so many milliseconds, or behind it. It runs as it should from there.
    pub fn set_wall(&mut self, host: usize, ahead_ms: i64) {
        self.hosts[host].clock = Clock { at: self.now, shows: true_wall(self.now) + ahead_ms, gains: 0, frozen: false };
    }

    /// Makes a host's calendar clock gain so many milliseconds in each minute, or lose them.
    pub fn drift(&mut self, host: usize, ms_per_minute: i64) {
        let shows = self.hosts[host].clock.shows(self.now);
        self.hosts[host].clock = Clock { at: self.now, shows, gains: ms_per_minute, frozen: false };
    }

    /// Stops a host's calendar clock.
    pub fn freeze(&mut self, host: usize) {
        let shows = self.hosts[host].clock.shows(self.now);
        self.hosts[host].clock = Clock { at: self.now, shows, gains: 0, frozen: true };
    }

    /// Mends all ways, hosts and calls. Clocks stay as they are: each is set right when its owner pleases.
    pub fn heal(&mut self) {
        for (from, to) in self.cuts.clone() {
            self.cut(from, to, false);
        }
        self.interrupts = 0;
        self.hosts.iter_mut().for_each(|host| (host.refuses, host.exhausted) = (false, false));
    }

    /// What of all this was felt so far.
    pub fn felt(&self) -> Felt {
        self.felt
    }

    /// Whether this call is interrupted.
    pub(super) fn interrupted(&mut self) -> bool {
        let hit = self.interrupts > 0 && self.draw(self.interrupts) == 0;
        self.felt.interrupted += u64::from(hit);
        hit
    }

    fn ends_on(&self, on: impl Fn(usize, usize) -> bool) -> Vec<(usize, usize)> {
        let all = (0..self.links.len()).flat_map(|link| [(link, 0), (link, 1)]);
        all.filter(|&(link, end)| on(self.links[link].ends[end].host, self.links[link].ends[1 - end].host)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipes::Weather;

    #[test]
    fn calendar_clocks_jump_drift_and_stand_still_while_time_goes_on() {
        let mut net = Net::new(1, 2, Weather::fair());
        let off = |net: &Net| net.now(0).wall.as_millis() as i64 - true_wall(net.now(0).mono);
        net.set_wall(0, -7_000);
        net.advance(Duration::from_secs(60));
        assert_eq!(off(&net), -7_000);
        net.drift(0, 1_000);
        net.advance(Duration::from_secs(180));
        assert_eq!(off(&net), -5_000);
        net.freeze(0);
        net.advance(Duration::from_secs(200));
        assert_eq!(off(&net), -25_000);
        net.set_wall(0, 0);
        assert_eq!((off(&net), net.now(0)), (0, net.now(1)), "the other was right all the time");
    }
}
