//! Sessions that are taken up again: a device that lost its connection and subscribes with the name of its session goes on where it was,
//! with its extranonce1, its difficulty and the jobs that somebody still works on.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rockpool_net::wire::share::Script;

use crate::limits::{RESUME_MAX, RESUME_TIME};
use crate::stratum::jobs::{Board, Job};
use crate::stratum::request::EXTRANONCE1_BYTES;
use crate::stratum::seen::Seen;
use crate::stratum::vardiff::Vardiff;

/// What of a session outlives its connection.
#[derive(Debug)]
pub struct Session {
    /// Its own again.
    pub extranonce1: [u8; EXTRANONCE1_BYTES],
    /// How hard it worked.
    pub vardiff: Vardiff,
    /// Its jobs, oldest first.
    pub jobs: VecDeque<Job>,
    /// What it has submitted.
    pub seen: Seen,
}

/// A session that has ended. Its jobs keep no board, which were megabytes of template: who comes back finds those that others need too.
#[derive(Debug)]
struct Ended {
    ip: IpAddr,
    since: Duration,
    extranonce1: [u8; EXTRANONCE1_BYTES],
    vardiff: Vardiff,
    jobs: Vec<PastJob>,
    seen: Seen,
}

/// A [`Job`] without its board.
#[derive(Debug)]
struct PastJob {
    id: u64,
    board: Weak<Board>,
    script: Arc<Script>,
    bits: u32,
    difficulty: f64,
    ntime: u32,
}

/// Sessions that have ended, oldest first. One that is taken up is here no more, and every other extranonce1 is fresh: so none is ever that
/// of two connections at once.
#[derive(Debug, Default)]
pub struct Resumable {
    ended: VecDeque<Ended>,
}

impl Resumable {
    /// The connection of a session has ended. The one that ended first makes room.
    pub fn keep(&mut self, now: Duration, ip: IpAddr, session: Session) {
        self.forget(now);
        if self.ended.len() >= RESUME_MAX {
            self.ended.pop_front();
        }
        let Session { extranonce1, vardiff, jobs, seen } = session;
        let past = |Job { id, board, script, bits, difficulty, ntime }| PastJob {
            id,
            board: Arc::downgrade(&board),
            script,
            bits,
            difficulty,
            ntime,
        };
        self.ended.push_back(Ended { ip, since: now, extranonce1, vardiff, jobs: jobs.into_iter().map(past).collect(), seen });
    }

    /// The session of this name, if it is still here and the same address asks for it: names can be guessed.
    pub fn take(&mut self, now: Duration, ip: IpAddr, extranonce1: [u8; EXTRANONCE1_BYTES]) -> Option<Session> {
        self.forget(now);
        let at = self.ended.iter().position(|ended| ended.extranonce1 == extranonce1 && ended.ip == ip)?;
        let Ended { mut vardiff, jobs, seen, .. } = self.ended.remove(at)?;
        vardiff.resume(now);
        let job = |PastJob { id, board, script, bits, difficulty, ntime }| {
            Some(Job { id, board: board.upgrade()?, script, bits, difficulty, ntime })
        };
        Some(Session { extranonce1, vardiff, jobs: jobs.into_iter().filter_map(job).collect(), seen })
    }

    fn forget(&mut self, now: Duration) {
        let old = |ended: &Ended| now.saturating_sub(ended.since) >= RESUME_TIME;
        while self.ended.front().is_some_and(old) {
            self.ended.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const IP: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn session(number: u32) -> Session {
        let vardiff = Vardiff::new(Duration::ZERO, f64::from(number));
        Session { extranonce1: number.to_be_bytes(), vardiff, jobs: VecDeque::new(), seen: Seen::default() }
    }

    #[test]
    fn a_session_is_taken_up_once_by_its_own_address_and_in_time() {
        let (mut kept, now) = (Resumable::default(), Duration::from_secs(5));
        kept.keep(now, IP, session(7));
        let stranger = IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8));
        assert!(kept.take(now, stranger, 7_u32.to_be_bytes()).is_none() && kept.take(now, IP, 8_u32.to_be_bytes()).is_none());
        let taken = kept.take(now, IP, 7_u32.to_be_bytes()).map(|session| (session.extranonce1, session.vardiff.current()));
        assert_eq!(taken, Some(([0, 0, 0, 7], 7.0)));
        assert!(kept.take(now, IP, 7_u32.to_be_bytes()).is_none(), "never another's live one");
        kept.keep(now, IP, session(9));
        assert!(kept.take(now + RESUME_TIME, IP, 9_u32.to_be_bytes()).is_none(), "too late");
        assert!(kept.ended.is_empty());
    }

    #[test]
    fn sessions_that_are_kept_are_bounded() {
        let mut kept = Resumable::default();
        (0..=RESUME_MAX as u32).for_each(|number| kept.keep(Duration::ZERO, IP, session(number)));
        assert_eq!(kept.ended.len(), RESUME_MAX);
        assert!(kept.take(Duration::ZERO, IP, [0; 4]).is_none(), "the oldest is forgotten");
        assert!(kept.take(Duration::ZERO, IP, 1_u32.to_be_bytes()).is_some());
    }
}
