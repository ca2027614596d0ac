//! Floods of invalid shares: what makes one.

use std::time::Duration;

use crate::limits::{INVALID_SPAN, INVALID_SUBMITS_MAX};

/// Invalid submits of one miner since its last good one. Duplicates and stale ones are none: sound firmware sends them (ESP-Miner 1587).
#[derive(Debug, Default)]
pub struct Flood {
    count: u32,
    since: Duration,
}

impl Flood {
    /// Another one. Whether it is a flood by now.
    pub fn invalid(&mut self, now: Duration) -> bool {
        if now.saturating_sub(self.since) >= INVALID_SPAN {
            (self.count, self.since) = (0, now);
        }
        self.count = self.count.saturating_add(1);
        self.is_one()
    }

    /// A good one: whoever finds shares is no flood.
    pub fn good(&mut self) {
        self.count = 0;
    }

    /// Whether it was one.
    pub fn is_one(&self) -> bool {
        self.count >= INVALID_SUBMITS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_many_in_a_row_at_once() {
        let mut flood = Flood::default();
        let now = Duration::from_secs(100);
        assert!((1..INVALID_SUBMITS_MAX).all(|_| !flood.invalid(now)));
        flood.good();
        assert!((1..INVALID_SUBMITS_MAX).all(|_| !flood.invalid(now)));
        assert!(!flood.invalid(now + INVALID_SPAN), "slow nonsense is none");
        assert!((2..INVALID_SUBMITS_MAX).all(|_| !flood.invalid(now + INVALID_SPAN)));
        assert!(flood.invalid(now + INVALID_SPAN) && flood.is_one());
    }
}
