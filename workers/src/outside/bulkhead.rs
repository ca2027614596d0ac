//! How many calls of a service are under way, and how far apart they start. Who must wait is served in the order of coming.

use std::collections::VecDeque;
use std::time::Duration;

use crate::limits::WAITING_MAX;

/// A service's bulkhead: so many calls at once, so far apart.
#[derive(Debug)]
pub struct Bulkhead {
    places: usize,
    delay: Duration,
    in_flight: usize,
    /// The next may start.
    next_start: Duration,
    waiting: VecDeque<u64>,
    next_waiter: u64,
}

/// Whether one that waits may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It has started: [`Bulkhead::done`] must follow.
    Now,
    /// Not before this time.
    At(Duration),
    /// Not before something else starts or ends.
    Later,
}

impl Bulkhead {
    /// One with so many places, at least one, and this time between two starts.
    pub fn new(places: usize, delay: Duration) -> Bulkhead {
        Bulkhead { places: places.max(1), delay, in_flight: 0, next_start: Duration::ZERO, waiting: VecDeque::new(), next_waiter: 0 }
    }

    /// Joins those who wait; `None` if too many do.
    pub fn enter(&mut self) -> Option<u64> {
        if self.waiting.len() >= WAITING_MAX {
            return None;
        }
        self.next_waiter += 1;
        self.waiting.push_back(self.next_waiter);
        Some(self.next_waiter)
    }

    /// Whether one of them may start now, and starts it.
    pub fn start(&mut self, waiter: u64, now: Duration) -> Start {
        if self.waiting.front() != Some(&waiter) || self.in_flight >= self.places {
            return Start::Later;
        }
        if now < self.next_start {
            return Start::At(self.next_start);
        }
        self.waiting.pop_front();
        self.in_flight += 1;
        self.next_start = now + self.delay;
        Start::Now
    }

    /// One of them waits no longer.
    pub fn leave(&mut self, waiter: u64) {
        self.waiting.retain(|other| *other != waiter);
    }

    /// A call has ended.
    pub fn done(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Calls under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Calls that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn calls_start_in_their_order_apart_from_each_other_and_no_more_than_there_are_places() {
        let mut bulkhead = Bulkhead::new(2, ms(100));
        let [a, b, c, d] = [(); 4].map(|()| bulkhead.enter().unwrap());
        assert_eq!(bulkhead.start(b, ms(0)), Start::Later, "not its turn");
        assert_eq!(bulkhead.start(a, ms(0)), Start::Now);
        assert_eq!(bulkhead.start(b, ms(99)), Start::At(ms(100)));
        assert_eq!(bulkhead.start(b, ms(130)), Start::Now);
        assert_eq!((bulkhead.in_flight(), bulkhead.waiting()), (2, 2));
        assert_eq!(bulkhead.start(c, ms(500)), Start::Later, "no place");
        bulkhead.leave(c);
        bulkhead.done();
        assert_eq!(bulkhead.start(c, ms(500)), Start::Later, "it has left");
        assert_eq!(bulkhead.start(d, ms(229)), Start::At(ms(230)), "apart from the last that started");
        assert_eq!(bulkhead.start(d, ms(230)), Start::Now);
        assert_eq!((bulkhead.in_flight(), bulkhead.waiting()), (2, 0));
    }

    #[test]
    fn who_comes_when_too_many_wait_is_told_at_once() {
        let mut bulkhead = Bulkhead::new(0, ms(0));
        let first = bulkhead.enter().unwrap();
        assert_eq!(bulkhead.start(first, ms(0)), Start::Now, "there is always a place");
        let waiting: Vec<_> = (0..WAITING_MAX).map(|_| bulkhead.enter().unwrap()).collect();
        assert_eq!(bulkhead.enter(), None);
        bulkhead.leave(waiting[7]);
        assert!(bulkhead.enter().is_some());
    }
}
