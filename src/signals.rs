//! SIGINT and SIGTERM, and the watchdog that shares their thread.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rockpool_net::reactor::Heartbeat;
use rockpool_workers::limits::TURN_MAX;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

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

    /// Catches nothing.
    #[cfg(test)]
    pub(crate) fn none() -> (Signals, UnixStream) {
        let Ok((pipe, far_end)) = UnixStream::pair() else { panic!("no pipe") };
        (Signals { pipe }, far_end)
    }

    /// Waits for a signal. Whether one came within `at_most`.
    pub fn wait(&mut self, at_most: Duration) -> bool {
        // No timeout at all is spelled zero by the system.
        let limited = self.pipe.set_read_timeout(Some(at_most.max(Duration::from_millis(1))));
        limited.is_ok() && self.pipe.read(&mut [0]).is_ok_and(|bytes| bytes > 0)
    }
}

/// A watchdog's finger on a reactor's heartbeat.
#[derive(Debug)]
pub struct Pulse {
    heartbeat: Heartbeat,
    late: bool,
}

impl Pulse {
    /// Feels this one.
    pub fn of(heartbeat: &Heartbeat) -> Pulse {
        Pulse { heartbeat: heartbeat.clone(), late: false }
    }

    /// One look, once a second. Whether the turn that runs is older than any may be.
    pub fn lost(&mut self) -> bool {
        self.look(self.heartbeat.age())
    }

    /// Twice too old: once may be a process that was stopped in the middle of a turn and continued just now.
    fn look(&mut self, age: Duration) -> bool {
        let late = age > TURN_MAX;
        std::mem::replace(&mut self.late, late) && late
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use rockpool_net::reactor::Reactor;

    use crate::limits::LEAVE_MAX;

    use super::*;

    #[test]
    fn a_turn_is_too_old_when_it_was_so_twice() {
        let mut pulse = Pulse { heartbeat: Reactor::<()>::new(&[], 1, 1).unwrap().heartbeat(), late: false };
        let s = Duration::from_secs;
        let looks = [s(0), s(10), s(11), s(0), s(60), s(1), s(11), s(12)];
        assert_eq!(looks.map(|age| pulse.look(age)), [false, false, false, false, false, false, false, true]);
        assert!(!pulse.lost(), "it waits for events");
    }

    #[test]
    fn the_end_has_its_grace_and_no_more() {
        let reactor = Reactor::<()>::new(&[], 1, 1).unwrap();
        let mut pulse = Pulse::of(&reactor.heartbeat());
        reactor.leave(LEAVE_MAX);
        assert!(!pulse.lost() && !pulse.lost());
        // A minute later, as the watchdog sees it: the age counts from the grace's end.
        let late = Duration::from_secs(60).saturating_sub(LEAVE_MAX);
        assert_eq!([pulse.look(late), pulse.look(late)], [false, true]);
    }

    #[test]
    fn a_signal_is_heard_once() {
        let mut signals = Signals::catch().unwrap();
        assert!(!signals.wait(Duration::ZERO));
        low_level::raise(SIGTERM).unwrap();
        assert!(signals.wait(Duration::from_secs(60)));
        assert!(!signals.wait(Duration::ZERO));
    }
}
