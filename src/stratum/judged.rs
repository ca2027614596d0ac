//! Submits of a pool of our own on their way to the disk. Each is stored before its miner hears of it, so a disk that hangs would hold them
//! all, and with them the next block: what comes then is judged, and not credited.

use std::time::Duration;

use rockpool_net::limits::TICKETS_STRATUM;

use crate::limits::{JUDGED_OUT_MAX, JUDGED_STALL_MAX};

// What is not waited for needs tickets too.
const _: () = assert!(JUDGED_OUT_MAX < TICKETS_STRATUM);

/// Submits that are to be credited and that the stages have.
#[derive(Debug, Default)]
pub struct Judged {
    out: usize,
    /// When the first of them went out, or one was last stored.
    moved: Duration,
}

impl Judged {
    /// One goes out.
    pub fn leaves(&mut self, now: Duration) {
        if self.out == 0 {
            self.moved = now;
        }
        self.out += 1;
    }

    /// One is stored, or refused: of the disk that says nothing.
    pub fn comes_home(&mut self, now: Duration, stored: bool) {
        self.out = self.out.saturating_sub(1);
        if stored {
            self.moved = now;
        }
    }

    /// Whether those that go out now would wait with all others.
    pub fn hangs(&self, now: Duration) -> bool {
        self.out >= JUDGED_OUT_MAX || (self.out > 0 && now.saturating_sub(self.moved) >= JUDGED_STALL_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_hangs_when_none_comes_home_or_too_many_are_out() {
        let (mut judged, mut now) = (Judged::default(), Duration::from_secs(9));
        assert!(!judged.hangs(now));
        (0..JUDGED_OUT_MAX - 1).for_each(|_| judged.leaves(now));
        assert!(!judged.hangs(now));
        now += JUDGED_STALL_MAX;
        assert!(judged.hangs(now));
        judged.comes_home(now, false);
        assert!(judged.hangs(now));
        judged.comes_home(now, true);
        assert!(!judged.hangs(now), "they move");
        (0..3).for_each(|_| judged.leaves(now));
        assert!(judged.hangs(now), "too many at once");
        (0..JUDGED_OUT_MAX + 9).for_each(|_| judged.comes_home(now, false));
        assert!(!judged.hangs(now + 2 * JUDGED_STALL_MAX), "none is out");
    }
}
