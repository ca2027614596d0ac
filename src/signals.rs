//! SIGINT and SIGTERM, and the watchdog that shares their thread.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::limits::TURN_LOOKS;

/// Signals of this process that ask it to stop. Caught from [`Signals::catch`] on; the second one ends the process at once, as if it were
/// not caught.
pub struct Signals {
    pipe: UnixStream,
}

impl Signals {
    /// Catches them.
    pub fn catch() -> io::Result<Signals> {
        let (pipe, far_end) = UnixStream::pair()?;
        let caught = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag down and raises it.
            flag::register_conditional_default(signal, caught.clone())?;
            flag::register(signal, caught.clone())?;
            low_level::pipe::register(signal, far_end.try_clone()?)?;
        }
        Ok(Signals { pipe })
    }

    /// Waits for a signal. Whether one came within `at_most`.
    pub fn wait(&mut self, at_most: Duration) -> bool {
        // No timeout at all is spelled zero by the system.
        let limited = self.pipe.set_read_timeout(Some(at_most.max(Duration::from_millis(1))));
        limited.is_ok() && self.pipe.read(&mut [0]).is_ok_and(|bytes| bytes > 0)
    }
}

/// The heart of a reactor: it beats once a turn. Clones are the same heart.
#[derive(Clone, Debug, Default)]
pub struct Heart(Arc<AtomicU64>);

impl Heart {
    /// A turn has ended.
    pub fn beat(&self) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// A watchdog's finger on a heart. Counts its own looks instead of reading a clock: a machine that slept, or a process that was stopped
/// and continued, has looked no more often than the reactor has turned.
#[derive(Debug)]
pub struct Pulse {
    heart: Heart,
    seen: u64,
    still: u32,
}

impl Pulse {
    /// Feels this heart.
    pub fn of(heart: &Heart) -> Pulse {
        Pulse { heart: heart.clone(), seen: 0, still: 0 }
    }

    /// One look, once a second. Whether the turn that runs is older than any may be.
    pub fn lost(&mut self) -> bool {
        let beats = self.heart.0.load(Relaxed);
        self.still = if beats == self.seen { self.still + 1 } else { 0 };
        self.seen = beats;
        self.still >= TURN_LOOKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_still_heart_is_lost_after_the_longest_turn_and_a_beat_saves_it() {
        let heart = Heart::default();
        let mut pulse = Pulse::of(&heart);
        for _ in 0..3 {
            heart.beat();
            assert!((0..TURN_LOOKS).all(|_| !pulse.lost()));
        }
        assert!(pulse.lost());
    }

    #[test]
    fn a_signal_is_heard_once() {
        let Ok(mut signals) = Signals::catch() else { panic!("no pipe") };
        assert!(!signals.wait(Duration::ZERO));
        assert!(low_level::raise(SIGTERM).is_ok());
        assert!(signals.wait(Duration::from_secs(60)));
        assert!(!signals.wait(Duration::ZERO));
    }
}
