//! Whether an endpoint is asked at all: after failures in a row it is left alone for a while, then one call tries whether it is back.

use std::time::Duration;

use super::call::CallError;
use crate::limits::{CIRCUIT_FAILURES, CIRCUIT_MAX, CIRCUIT_MIN, CIRCUIT_PROBE_LOOK};

/// What a try says of its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It is there.
    Good,
    /// It is not, and perhaps says when it wants to be asked again.
    Bad(Option<Duration>),
    /// Nothing: the try never got there.
    Unknown,
}

impl Health {
    /// What the outcome of a try says. A refusal is an answer: the endpoint is well, the call is wrong.
    pub fn of<T>(result: &Result<T, CallError>) -> Health {
        match result {
            Ok(_) | Err(CallError::Refused(_)) => Health::Good,
            Err(CallError::Status { status, retry_after, .. }) => match status {
                408 | 425 | 429 => Health::Bad(*retry_after),
                400..=499 => Health::Good,
                _ => Health::Bad(*retry_after),
            },
            Err(CallError::Busy { .. } | CallError::Open { .. } | CallError::Stopped) => Health::Unknown,
            Err(CallError::Timeout | CallError::Unreachable(_) | CallError::TooLong(_) | CallError::Garbled(_)) => Health::Bad(None),
        }
    }
}

/// As what a call is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// As one of many.
    Plain,
    /// As the one that tries whether the endpoint is back.
    Probe,
}

/// An endpoint's circuit.
#[derive(Debug, Default)]
pub struct Circuit {
    /// In a row.
    failures: u32,
    /// How long it was last left alone for its failures.
    pause: Duration,
    /// It is left alone until then, and until a probe succeeds.
    until: Option<Duration>,
    probing: bool,
}

impl Circuit {
    /// Whether a call may start; else when to ask again.
    pub fn look(&self, now: Duration) -> Result<Pass, Duration> {
        match self.until {
            None => Ok(Pass::Plain),
            Some(until) if now < until => Err(until - now),
            Some(_) if self.probing => Err(CIRCUIT_PROBE_LOOK),
            Some(_) => Ok(Pass::Probe),
        }
    }

    /// The same, and the call starts.
    pub fn start(&mut self, now: Duration) -> Result<Pass, Duration> {
        let pass = self.look(now)?;
        self.probing |= pass == Pass::Probe;
        Ok(pass)
    }

    /// What came of a call that was let through.
    pub fn done(&mut self, pass: Pass, health: Health, now: Duration) {
        if pass == Pass::Probe {
            self.probing = false;
        }
        match health {
            Health::Good => *self = Circuit::default(),
            Health::Unknown => {}
            Health::Bad(_) if pass == Pass::Plain && self.until.is_some() => {
                // It started before the circuit opened, and says nothing new.
                self.failures = self.failures.saturating_add(1);
            }
            Health::Bad(retry_after) => {
                self.failures = self.failures.saturating_add(1);
                let wished = retry_after.unwrap_or_default().min(CIRCUIT_MAX);
                if self.failures >= CIRCUIT_FAILURES {
                    self.pause = (self.pause * 2).clamp(CIRCUIT_MIN, CIRCUIT_MAX);
                }
                let rest = self.pause.max(wished);
                self.until = (rest > Duration::ZERO).then_some(now + rest);
            }
        }
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether it is left alone.
    pub fn is_open(&self) -> bool {
        self.until.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const BAD: Health = Health::Bad(None);

    #[test]
    fn it_opens_after_failures_in_a_row_and_one_probe_at_a_time_closes_it() {
        let mut circuit = Circuit::default();
        for _ in 0..CIRCUIT_FAILURES - 1 {
            circuit.done(Pass::Plain, BAD, s(0));
        }
        circuit.done(Pass::Plain, Health::Good, s(0));
        for n in 0..CIRCUIT_FAILURES {
            assert_eq!(circuit.start(s(1)), Ok(Pass::Plain), "{n} in a row");
            circuit.done(Pass::Plain, BAD, s(1));
        }
        assert!(circuit.is_open() && circuit.failures() == CIRCUIT_FAILURES);
        // One that started before, fails later.
        circuit.done(Pass::Plain, BAD, s(3));
        assert_eq!(circuit.look(s(11)), Err(CIRCUIT_MIN - s(10)));
        let mut now = s(1) + CIRCUIT_MIN;
        for pause in [60, 120, 240, 300, 300].map(s) {
            assert_eq!(circuit.start(now), Ok(Pass::Probe));
            assert_eq!(circuit.start(now), Err(CIRCUIT_PROBE_LOOK), "one at a time");
            circuit.done(Pass::Probe, BAD, now);
            assert_eq!(circuit.look(now), Err(pause));
            assert!(pause <= CIRCUIT_MAX);
            now += pause;
        }
        // A probe that never got there leaves the next.
        assert_eq!(circuit.start(now), Ok(Pass::Probe));
        circuit.done(Pass::Probe, Health::Unknown, now);
        assert_eq!(circuit.start(now), Ok(Pass::Probe));
        circuit.done(Pass::Probe, Health::Good, now);
        assert_eq!((circuit.is_open(), circuit.failures(), circuit.start(now)), (false, 0, Ok(Pass::Plain)));
    }

    #[test]
    fn it_is_left_alone_for_as_long_as_it_wishes_within_reason() {
        let mut circuit = Circuit::default();
        circuit.done(Pass::Plain, Health::Bad(Some(s(7))), s(1));
        assert_eq!(circuit.look(s(2)), Err(s(6)));
        assert_eq!(circuit.start(s(8)), Ok(Pass::Probe));
        circuit.done(Pass::Probe, Health::Bad(Some(s(86_400))), s(8));
        assert_eq!(circuit.look(s(8)), Err(CIRCUIT_MAX));
    }

    #[test]
    fn a_refusal_is_no_failure_of_the_endpoint() {
        let status = |status| Health::of::<()>(&Err(CallError::Status { status, said: None, retry_after: Some(s(9)) }));
        assert_eq!([400, 401, 403, 404, 422].map(status), [Health::Good; 5]);
        assert_eq!([408, 425, 429, 500, 502, 503, 504, 301].map(status), [Health::Bad(Some(s(9))); 8]);
        let of = |why| Health::of::<()>(&Err(why));
        assert_eq!((Health::of(&Ok(())), of(CallError::Refused("no".into()))), (Health::Good, Health::Good));
        assert_eq!((of(CallError::Timeout), of(CallError::TooLong(9)), of(CallError::Stopped)), (BAD, BAD, Health::Unknown));
    }
}
