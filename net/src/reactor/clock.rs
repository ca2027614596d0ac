//! The clock of the reactor's thread, and how others see whether that thread is alive.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::time::Now;

/// Reads the time. Copies tell the same monotonic time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock whose monotonic time begins now.
    #[expect(clippy::disallowed_methods, reason = "the one clock of the network core")]
    pub fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    /// The time now.
    #[expect(clippy::disallowed_methods, reason = "the one clock of the network core")]
    pub fn now(&self) -> Now {
        // A calendar before 1970 is a machine without a clock: the epoch is as good as any other wrong time.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono: self.mono(), wall }
    }

    /// The monotonic part of the time now.
    #[expect(clippy::disallowed_methods, reason = "the one clock of the network core")]
    pub fn mono(&self) -> Duration {
        Instant::now().duration_since(self.start)
    }
}

/// What the reactor shows of its current turn, to be read from the watchdog's thread.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    clock: Clock,
    /// When the turn began, in milliseconds and one more; 0 while it waits for events.
    began: Arc<AtomicU64>,
}

impl Heartbeat {
    pub(super) fn new(clock: Clock) -> Heartbeat {
        Heartbeat { clock, began: Arc::new(AtomicU64::new(0)) }
    }

    pub(super) fn begin(&self, mono: Duration) {
        self.began.store(mono.as_millis() as u64 + 1, Relaxed);
    }

    pub(super) fn rest(&self) {
        self.began.store(0, Relaxed);
    }

    pub(super) fn leave(&self, grace: Duration) {
        self.begin(self.clock.mono() + grace);
    }

    /// How old the current turn is; zero while the reactor waits for events. After the last turn: how long the end takes, its grace apart.
    pub fn age(&self) -> Duration {
        match self.began.load(Relaxed) {
            0 => Duration::ZERO,
            began => self.clock.now().mono.saturating_sub(Duration::from_millis(began)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_goes_back_and_copies_agree() {
        let clock = Clock::start();
        let copy = clock;
        let (a, b) = (clock.now(), copy.now());
        assert!(b.mono >= a.mono);
        assert!(a.unix() > 1_700_000_000);
    }

    #[test]
    fn a_heartbeat_ages_in_a_turn_only() {
        let clock = Clock { start: Clock::start().start - Duration::from_secs(60) };
        let heartbeat = Heartbeat::new(clock);
        assert_eq!(heartbeat.age(), Duration::ZERO);
        heartbeat.begin(Duration::from_secs(20));
        assert!(heartbeat.clone().age() > Duration::from_secs(30));
        heartbeat.rest();
        assert_eq!(heartbeat.age(), Duration::ZERO);
        heartbeat.leave(Duration::from_secs(30));
        assert_eq!(heartbeat.age(), Duration::ZERO, "the end has its grace");
        let later = Heartbeat { clock: Clock { start: clock.start - Duration::from_secs(50) }, ..heartbeat };
        assert!(later.age() > Duration::from_secs(19), "and is not waited for without end");
    }
}
