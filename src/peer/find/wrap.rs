//! v2 or v1: how an address that we know is dialled. One of these beside each address; it knows nothing of dials but how they ended.
//!
//! | what happened | the next dial |
//! |---|---|
//! | nothing yet | v2 |
//! | v2 did not come about, and never has | v1, at once |
//! | v2 did not come about, and has before | v2, after the usual pause; after [`V2_FAILURES`] in a row v1, at once |
//! | that v1 dial: up | v1 for [`V1_REMEMBERED`], then v2 |
//! | that v1 dial: ended before | v2, after the usual pause |
//!
//! So every pause has one dial at once at most, and nothing loops: an address that ends all connections is a bad one, and not one of v1.
//! Encryption for whoever agrees to it does not keep out who holds the line, and does not claim to; that one broken line is no reason to
//! speak plain to a peer who spoke v2 is all that is promised here.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use rockpool_net::close::CloseReason;
use rockpool_net::transport::Wrapping;

use crate::limits::{V1_REMEMBERED, V2_FAILURES, WRAPS_MAX};

/// What is known of how one address speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wrap {
    /// The next dial is v1, because the last was v2 in vain.
    plain: bool,
    /// v1 until then.
    until: Option<Duration>,
    /// Failures left to an address that has spoken v2.
    left: u8,
}

impl Wrap {
    /// How to dial now.
    pub fn dial(&self, now: Duration) -> Wrapping {
        if self.plain || self.until.is_some_and(|until| now < until) { Wrapping::V1 } else { Wrapping::V2 }
    }

    /// The handshake of a session is done, on a connection of this wrapping.
    pub fn up(&mut self, now: Duration, wrapping: Wrapping) {
        match wrapping {
            Wrapping::V2 => *self = Wrap { left: V2_FAILURES, ..Wrap::default() },
            Wrapping::V1 if self.plain => *self = Wrap { until: Some(now + V1_REMEMBERED), ..Wrap::default() },
            Wrapping::V1 => {}
        }
    }

    /// The dial or its connection has ended: whether to dial again at once, for v1.
    pub fn closed(&mut self, why: &CloseReason) -> bool {
        self.plain = false;
        if matches!(why, CloseReason::NotV2(_)) {
            self.left = self.left.saturating_sub(1);
            self.plain = self.left == 0;
        }
        self.plain
    }
}

/// The same for many addresses. Of most nothing is known; when of too many something is, one of them is forgotten.
#[derive(Debug, Default)]
pub struct Wraps(BTreeMap<SocketAddr, Wrap>);

impl Wraps {
    /// How to dial an address now.
    pub fn dial(&self, now: Duration, addr: SocketAddr) -> Wrapping {
        self.0.get(&addr).copied().unwrap_or_default().dial(now)
    }

    /// See [`Wrap::up`].
    pub fn up(&mut self, now: Duration, addr: SocketAddr, wrapping: Wrapping) {
        self.change(addr, |wrap| wrap.up(now, wrapping));
    }

    /// See [`Wrap::closed`].
    pub fn closed(&mut self, addr: SocketAddr, why: &CloseReason) -> bool {
        self.change(addr, |wrap| wrap.closed(why))
    }

    fn change<T>(&mut self, addr: SocketAddr, change: impl FnOnce(&mut Wrap) -> T) -> T {
        let mut wrap = self.0.remove(&addr).unwrap_or_default();
        let result = change(&mut wrap);
        if wrap != Wrap::default() {
            if self.0.len() >= WRAPS_MAX {
                self.0.pop_first();
            }
            self.0.insert(addr, wrap);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000);

    fn not_v2() -> CloseReason {
        CloseReason::NotV2("test".into())
    }

    #[test]
    fn who_never_spoke_v2_is_dialled_for_v1_once_and_so_for_a_day_if_that_is_what_it_speaks() {
        let mut wrap = Wrap::default();
        assert_eq!(wrap.dial(NOW), Wrapping::V2);
        assert!(wrap.closed(&not_v2()));
        assert_eq!(wrap.dial(NOW), Wrapping::V1);
        wrap.up(NOW, Wrapping::V1);
        for why in [CloseReason::Remote, CloseReason::Dial("nobody".into())] {
            assert!(!wrap.closed(&why));
            assert_eq!(wrap.dial(NOW + V1_REMEMBERED - Duration::from_secs(1)), Wrapping::V1);
        }
        assert_eq!(wrap.dial(NOW + V1_REMEMBERED), Wrapping::V2);
    }

    #[test]
    fn who_ends_every_connection_is_dialled_twice_in_a_pause_and_not_taken_for_v1() {
        let mut wrap = Wrap::default();
        for _ in 0..100 {
            assert_eq!(wrap.dial(NOW), Wrapping::V2);
            assert!(wrap.closed(&not_v2()), "at once");
            assert_eq!(wrap.dial(NOW), Wrapping::V1);
            assert!(!wrap.closed(&CloseReason::Remote), "after the pause");
        }
    }

    #[test]
    fn who_spoke_v2_is_not_spoken_to_in_v1_for_one_broken_line() {
        let mut wrap = Wrap::default();
        for _ in 0..3 {
            wrap.up(NOW, Wrapping::V2);
            assert!(!wrap.closed(&CloseReason::Remote));
            for _ in 1..V2_FAILURES {
                assert_eq!((wrap.closed(&not_v2()), wrap.dial(NOW)), (false, Wrapping::V2));
            }
        }
        assert_eq!((wrap.closed(&not_v2()), wrap.dial(NOW)), (true, Wrapping::V1), "it may have gone back to an older version");
    }

    #[test]
    fn of_so_many_addresses_something_is_known() {
        let addr = |n: usize| SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 9333));
        let mut wraps = Wraps::default();
        for n in 0..WRAPS_MAX + 5 {
            assert!(wraps.closed(addr(n), &not_v2()));
            assert_eq!(wraps.dial(NOW, addr(n)), Wrapping::V1);
        }
        assert_eq!(wraps.0.len(), WRAPS_MAX);
        for n in 0..WRAPS_MAX + 5 {
            wraps.closed(addr(n), &CloseReason::Remote);
        }
        assert!(wraps.0.is_empty(), "nothing is kept of whom nothing is known");
    }

    #[test]
    fn other_ends_change_nothing() {
        for why in [CloseReason::Remote, CloseReason::Dial("nobody".into()), CloseReason::BadFrame("v2".into()), CloseReason::Stopping] {
            let mut wrap = Wrap::default();
            assert!(!wrap.closed(&why));
            assert_eq!(wrap, Wrap::default());
        }
    }
}
