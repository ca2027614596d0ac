//! When connections are due: one entry each, its earliest.

use std::collections::BTreeSet;
use std::time::Duration;

/// A moment of the hub's monotonic time, in nanoseconds: half the size of an optional `Duration`, and `NEVER` sorts last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Due(u64);

impl Due {
    /// Not at all.
    pub const NEVER: Due = Due(u64::MAX);

    /// At this time.
    pub fn at(mono: Duration) -> Due {
        Due(u64::try_from(mono.as_nanos()).unwrap_or(u64::MAX))
    }

    /// The time, unless it is never.
    pub fn mono(self) -> Option<Duration> {
        (self != Due::NEVER).then(|| Duration::from_nanos(self.0))
    }

    /// Later by this; never stays never.
    pub fn put_off(self, by: Duration) -> Due {
        self.mono().map_or(Due::NEVER, |mono| Due::at(mono + by))
    }

    /// Whether it has come.
    pub fn is_past(self, now: Duration) -> bool {
        self <= Due::at(now) && self != Due::NEVER
    }
}

/// All entries, by time. A connection remembers its own, so that it has one at most.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    entries: BTreeSet<(Due, u32)>,
}

impl Timers {
    /// Replaces a slot's entry.
    pub fn replace(&mut self, slot: u32, entry: &mut Due, due: Due) {
        self.remove(slot, entry);
        if due != Due::NEVER {
            self.entries.insert((due, slot));
            *entry = due;
        }
    }

    /// Drops a slot's entry.
    pub fn remove(&mut self, slot: u32, entry: &mut Due) {
        if *entry != Due::NEVER {
            self.entries.remove(&(*entry, slot));
            *entry = Due::NEVER;
        }
    }

    /// Takes out the earliest entry if it is past. Its owner has none then.
    pub fn pop_past(&mut self, now: Duration) -> Option<u32> {
        self.entries.first().filter(|(due, _)| due.is_past(now))?;
        self.entries.pop_first().map(|(_, slot)| slot)
    }

    /// The earliest entry.
    pub fn first(&self) -> Due {
        self.entries.first().map_or(Due::NEVER, |&(due, _)| due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_entry_each_and_the_earliest_first() {
        let at = |s| Due::at(Duration::from_secs(s));
        let mut timers = Timers::default();
        let (mut a, mut b) = (Due::NEVER, Due::NEVER);
        timers.replace(0, &mut a, at(9));
        timers.replace(1, &mut b, at(5));
        timers.replace(0, &mut a, at(3));
        assert_eq!((timers.first(), timers.entries.len()), (at(3), 2));
        assert_eq!(timers.pop_past(Duration::from_secs(2)), None);
        assert_eq!(timers.pop_past(Duration::from_secs(6)), Some(0));
        assert_eq!((timers.first(), b), (at(5), at(5)));
        timers.replace(1, &mut b, Due::NEVER);
        assert_eq!((timers.first(), b), (Due::NEVER, Due::NEVER));
    }

    #[test]
    fn never_is_never() {
        assert_eq!(Due::NEVER.put_off(Duration::from_secs(1)), Due::NEVER);
        assert!(!Due::NEVER.is_past(Duration::MAX));
        assert_eq!(Due::at(Duration::MAX), Due::NEVER);
    }
}
