//! What one peer may cost us: a token bucket over the dispatch cost of what it says unasked. Who is over it is not heard for a moment, and
//! its own socket tells it to wait; nobody is dropped for it.

use std::time::Duration;

use crate::limits::{PEER_COST_BURST, PEER_COST_RATE, PEER_REST};

/// The bucket of one peer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    /// When all that it has said will be paid for, at [`PEER_COST_RATE`]: the past while its bucket is full.
    paid: Duration,
    /// It is not heard until then.
    rests: Option<Duration>,
}

impl Budget {
    /// It said something of this cost ([`Command::cost`](rockpool_net::wire::message::Command::cost)).
    pub fn spend(&mut self, now: Duration, cost: u32) {
        self.paid = self.paid.max(now) + time(cost);
        let over = self.paid.saturating_sub(now + time(PEER_COST_BURST));
        if !over.is_zero() {
            self.rests = Some(now + over.max(PEER_REST));
        }
    }

    /// That was what we had asked for: it costs nothing.
    pub fn refund(&mut self, now: Duration, cost: u32) {
        self.paid = self.paid.saturating_sub(time(cost));
        if self.paid <= now + time(PEER_COST_BURST) {
            self.rests = None;
        }
    }

    /// Until when it is not heard, if it is not.
    pub fn rests(&mut self, now: Duration) -> Option<Duration> {
        self.rests.take_if(|until| *until <= now);
        self.rests
    }
}

/// How long it takes to pay for something.
fn time(cost: u32) -> Duration {
    Duration::from_secs(1) * cost / PEER_COST_RATE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_heard_at_once_and_what_goes_on_at_the_rate() {
        let (mut budget, mut now) = (Budget::default(), Duration::from_secs(1_000));
        for _ in 0..PEER_COST_BURST / 10 {
            budget.spend(now, 10);
            assert_eq!(budget.rests(now), None);
        }
        // From here on a flood is heard so much, whatever it tries.
        let (begun, mut heard) = (now, 0);
        while now < begun + Duration::from_secs(100) {
            budget.spend(now, 10);
            heard += 10;
            now = budget.rests(now).unwrap_or(now);
        }
        let most = 100 * PEER_COST_RATE;
        assert!((most * 9 / 10..=most * 11 / 10).contains(&heard), "{heard}");
        // Who falls silent has its burst again, and no more than that.
        now += Duration::from_secs(3_600);
        budget.spend(now, PEER_COST_BURST);
        assert_eq!(budget.rests(now), None);
        budget.spend(now, 1);
        assert_eq!(budget.rests(now), Some(now + PEER_REST));
        assert_eq!(budget.rests(now + PEER_REST), None, "and is heard again");
    }

    #[test]
    fn what_was_asked_for_is_free() {
        let (mut budget, now) = (Budget::default(), Duration::from_secs(5));
        for _ in 0..1_000 {
            budget.spend(now, 1_000);
            budget.refund(now, 1_000);
        }
        assert_eq!(budget.rests(now), None);
        budget.spend(now, PEER_COST_BURST);
        assert_eq!(budget.rests(now), None);
    }

    /// The costs of what an honest node says unasked are far below the rate.
    #[test]
    fn an_honest_node_is_never_near_it() {
        use rockpool_net::wire::message::Command;
        // A share every ten seconds, its `chaintip`, a `ping`, and at most so many `getheaders` a second while it syncs.
        let a_second = [(Command::Share, 1), (Command::ChainTip, 1), (Command::Ping, 1), (Command::GetData, 4), (Command::GetHeaders, 40)];
        assert!(a_second.iter().map(|(command, count)| command.cost() * count).sum::<u32>() < PEER_COST_RATE / 2);
    }
}
