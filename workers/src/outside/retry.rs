//! Whether a call that failed is tried again, and when.

use std::time::Duration;

use super::call::{Call, CallError};
use super::gate::Limits;
use crate::limits::{CALL_TIME_MAX, RETRY_AFTER_MAX, RETRY_PAUSE_MAX, RETRY_PAUSE_MIN};

/// A call's tries. Whatever they come to, the call ends at a time that is known when it begins.
#[derive(Debug)]
pub struct Tries {
    ends: Duration,
    /// Tries that are left, this one apart.
    left: u32,
    made: u32,
    /// What the last try came to.
    failed: Option<CallError>,
}

impl Tries {
    /// Those of a call that begins now.
    pub fn new(call: &Call, limits: &Limits, now: Duration) -> Tries {
        // The first has its whole time in any case: some calls of bitcoind take minutes.
        let ends = now + CALL_TIME_MAX.max(limits.acquire() + call.deadline);
        Tries { ends, left: if call.idempotent { limits.tries.max(1) - 1 } else { 0 }, made: 0, failed: None }
    }

    /// How long something may take that takes so long at most.
    pub fn within(&self, time: Duration, now: Duration) -> Duration {
        time.min(self.ends.saturating_sub(now))
    }

    /// When the call ends at the latest.
    pub fn ends(&self) -> Duration {
        self.ends
    }

    /// A try may not start, for this reason. What the call comes to: what went wrong before says more than that it is left alone for it.
    pub fn never(self, why: CallError) -> CallError {
        match why {
            CallError::Stopped => why,
            why => self.failed.unwrap_or(why),
        }
    }

    /// A try has failed. The pause before the next, if there is one: full jitter by a drawn number, or what the service wishes.
    pub fn again(&mut self, why: &CallError, drawn: u64, now: Duration) -> Option<Duration> {
        let wished = match why {
            CallError::Timeout | CallError::Unreachable(_) => None,
            CallError::Status { status: 408 | 425 | 429 | 500..=599, retry_after, .. } => *retry_after,
            _ => return None,
        };
        self.left = self.left.checked_sub(1)?;
        self.made += 1;
        let most = (RETRY_PAUSE_MIN * 2u32.saturating_pow(self.made - 1)).min(RETRY_PAUSE_MAX);
        let pause = match wished {
            // Who wishes for more is not waited for.
            Some(wished) if wished > RETRY_AFTER_MAX => return None,
            Some(wished) => wished,
            None => Duration::from_nanos(drawn % (most.as_nanos() as u64 + 1)),
        };
        self.failed = Some(why.clone());
        (now + pause < self.ends).then_some(pause)
    }
}

/// Numbers that pauses are drawn by (SplitMix64): they need to differ between nodes, not to be secret.
#[derive(Debug)]
pub struct Draw(pub u64);

impl Draw {
    /// The next.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::sync::Arc;

    use super::*;
    use crate::outside::call::{Service, What};

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn call(idempotent: bool, deadline: Duration) -> Call {
        let what = What::Http { url: "http://localhost/".into(), headers: Arc::new(|_| Vec::new()), body: None };
        Call { service: Service::Evm, endpoint: "x".into(), what, idempotent, deadline, bytes_max: 1 }
    }

    fn limits(tries: u32) -> Limits {
        Limits { tries, acquire: s(10), ..Limits::of(Service::Evm) }
    }

    fn status(status: u16, retry_after: Option<Duration>) -> CallError {
        CallError::Status { status, said: None, retry_after }
    }

    #[test]
    fn only_what_may_pass_is_tried_again_and_only_if_it_changes_nothing() {
        let tries = || Tries::new(&call(true, s(10)), &limits(3), s(0));
        for why in [CallError::Timeout, CallError::Unreachable("reset".into()), status(408, None), status(429, None), status(503, None)] {
            assert!(tries().again(&why, 5, s(1)).is_some(), "{why}");
            assert_eq!(Tries::new(&call(false, s(10)), &limits(3), s(0)).again(&why, 5, s(1)), None, "{why}");
        }
        let garbled = CallError::Garbled("x".into());
        for why in [status(400, None), status(404, None), status(301, None), garbled, CallError::TooLong(1), CallError::Stopped] {
            assert_eq!(tries().again(&why, 5, s(1)), None, "{why}");
        }
        let mut few = tries();
        assert!(few.again(&CallError::Timeout, 1, s(1)).is_some() && few.again(&CallError::Timeout, 1, s(2)).is_some());
        assert_eq!(few.again(&CallError::Timeout, 1, s(3)), None, "three tries");
        let open = CallError::Open { endpoint: "x".into(), failures: 5, left: s(30) };
        assert_eq!((tries().never(open.clone()), few.never(open.clone())), (open.clone(), CallError::Timeout));
    }

    #[test]
    fn pauses_are_drawn_up_to_twice_as_long_each_time() {
        let mut draw = Draw(1);
        for n in 0..12u32 {
            let most = (RETRY_PAUSE_MIN * 2u32.pow(n)).min(RETRY_PAUSE_MAX);
            let pauses = (0..500).map(|_| {
                let mut tries = Tries { made: n, ..Tries::new(&call(true, s(900)), &limits(20), s(0)) };
                tries.again(&CallError::Timeout, draw.draw(), s(0)).unwrap()
            });
            let pauses: Vec<_> = pauses.collect();
            assert!(pauses.iter().all(|pause| *pause <= most));
            let mean = pauses.iter().sum::<Duration>() / 500;
            assert!(mean > most * 2 / 5 && mean < most * 3 / 5, "{mean:?} of {most:?}: drawn evenly");
        }
    }

    #[test]
    fn what_a_service_wishes_is_honoured_within_bounds_and_every_call_ends() {
        let mut tries = Tries::new(&call(true, s(10)), &limits(9), s(100));
        assert_eq!(tries.again(&status(429, Some(s(3))), 7, s(101)), Some(s(3)));
        assert_eq!(tries.again(&status(429, Some(RETRY_AFTER_MAX)), 7, s(104)), Some(RETRY_AFTER_MAX));
        assert_eq!(tries.again(&status(429, Some(RETRY_AFTER_MAX + s(1))), 7, s(105)), None);
        assert_eq!(tries.within(s(10), s(101)), s(10));
        assert_eq!(tries.within(s(10), s(100) + CALL_TIME_MAX - s(2)), s(2));
        assert_eq!(tries.again(&CallError::Timeout, 0, s(100) + CALL_TIME_MAX), None, "its time is over");
        // A long call has its time, and no second one.
        let long = CALL_TIME_MAX * 3;
        let mut tries = Tries::new(&call(true, long), &limits(9), s(0));
        assert_eq!(tries.within(long, limits(9).acquire()), long);
        assert_eq!(tries.again(&CallError::Timeout, u64::MAX, long + limits(9).acquire()), None);
    }
}
