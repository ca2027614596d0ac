//! How far away a peer is: the time from our `ping` to the `pong` with its nonce. Nobody can answer sooner than the line lets him.

use std::time::Duration;

/// Pings of one peer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pings {
    /// The one that is under way: its nonce, and when it left.
    out: Option<(u64, Duration)>,
    /// The newest answer's time.
    pub last: Option<Duration>,
    /// The shortest.
    pub best: Option<Duration>,
}

impl Pings {
    /// We ask, with this nonce. An answer to the one before counts no more.
    pub fn ask(&mut self, now: Duration, nonce: u64) {
        self.out = Some((nonce, now));
    }

    /// A `pong` came. Whether it is the answer that we wait for.
    pub fn on_pong(&mut self, now: Duration, nonce: u64) -> bool {
        let Some((_, asked)) = self.out.take_if(|(asked, _)| *asked == nonce) else { return false };
        let took = now.saturating_sub(asked);
        self.last = Some(took);
        self.best = Some(self.best.map_or(took, |best| best.min(took)));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_nonce_is_an_answer_and_only_once() {
        let (mut pings, ms) = (Pings::default(), Duration::from_millis);
        assert!(!pings.on_pong(ms(0), 0), "nothing was asked");
        pings.ask(ms(100), 7);
        assert!(!pings.on_pong(ms(101), 8));
        assert!(pings.on_pong(ms(150), 7) && !pings.on_pong(ms(151), 7));
        assert_eq!((pings.last, pings.best), (Some(ms(50)), Some(ms(50))));
        pings.ask(ms(200), 9);
        assert!(pings.on_pong(ms(290), 9));
        assert_eq!((pings.last, pings.best), (Some(ms(90)), Some(ms(50))));
        pings.ask(ms(300), 10);
        pings.ask(ms(400), 11);
        assert!(!pings.on_pong(ms(401), 10) && pings.on_pong(ms(420), 11));
        assert_eq!(pings.best, Some(ms(20)));
    }
}
