//! How endpoints fare: one that fails is left alone for a while, then asked one thing until it answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rockpool_workers::outside::call::CallError;

use crate::limits::{ENDPOINT_PAUSE_MAX, ENDPOINT_PAUSE_MIN};

#[derive(Default)]
struct Endpoint {
    /// Orders under way.
    out: usize,
    /// How often in a row it failed.
    failures: u32,
    /// Until when it is left alone.
    until: Duration,
}

/// All that were ever asked.
#[derive(Default)]
pub(super) struct Endpoints(BTreeMap<Arc<str>, Endpoint>);

impl Endpoints {
    /// When it may be asked; `None` for as soon as something comes back from it.
    pub(super) fn from(&self, name: &str) -> Option<Duration> {
        match self.0.get(name) {
            Some(endpoint) if endpoint.failures > 0 => (endpoint.out == 0).then_some(endpoint.until),
            _ => Some(Duration::ZERO),
        }
    }

    /// Whether what it was last asked failed.
    pub(super) fn is_failing(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|endpoint| endpoint.failures > 0)
    }

    /// It is asked something.
    pub(super) fn asked(&mut self, name: &Arc<str>) {
        self.0.entry(name.clone()).or_default().out += 1;
    }

    /// Something came back from it, or did not.
    pub(super) fn came(&mut self, name: &str, now: Duration, error: Option<&CallError>) {
        let Some(endpoint) = self.0.get_mut(name) else { return };
        endpoint.out = endpoint.out.saturating_sub(1);
        let Some(error) = error.filter(|error| is_its_failure(error)) else {
            // Whoever only waited in the queue heard nothing of it.
            endpoint.failures = if matches!(error, Some(CallError::Busy { .. })) { endpoint.failures } else { 0 };
            return;
        };
        // What was asked together fails together.
        if endpoint.failures == 0 || now >= endpoint.until {
            endpoint.failures = endpoint.failures.saturating_add(1);
            let pause = ENDPOINT_PAUSE_MIN * 2u32.saturating_pow(endpoint.failures - 1).min(64);
            endpoint.until = now + pause.min(ENDPOINT_PAUSE_MAX);
        }
        let wish = match error {
            CallError::Open { left, .. } => Some(*left),
            CallError::Status { retry_after, .. } => *retry_after,
            _ => None,
        };
        // One that is down for long is still looked after.
        endpoint.until = endpoint.until.max(now + wish.unwrap_or_default().min(ENDPOINT_PAUSE_MAX));
    }
}

/// Whether others who ask the same endpoint would fare no better.
pub(super) fn is_its_failure(error: &CallError) -> bool {
    match error {
        CallError::Open { .. } | CallError::Timeout | CallError::Unreachable(_) | CallError::TooLong(_) | CallError::Garbled(_) => true,
        CallError::Status { status, .. } => matches!(status, 408 | 425 | 429) || *status >= 500 || *status < 400,
        CallError::Busy { .. } | CallError::Refused(_) | CallError::Stopped => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn one_that_fails_is_asked_one_thing_after_a_pause_that_grows() {
        let (mut all, name): (_, Arc<str>) = (Endpoints::default(), "ethereum".into());
        assert_eq!(all.from(&name), Some(s(0)));
        // Ten at once fail together: that is one failure.
        (0..10).for_each(|_| all.asked(&name));
        for _ in 0..9 {
            all.came(&name, s(100), Some(&CallError::Timeout));
            assert_eq!(all.from(&name), None, "the rest is still to come");
        }
        all.came(&name, s(100), Some(&CallError::Timeout));
        let mut now = s(100) + ENDPOINT_PAUSE_MIN;
        assert_eq!(all.from(&name), Some(now));
        let mut pauses = Vec::new();
        for _ in 0..5 {
            all.asked(&name);
            assert_eq!(all.from(&name), None, "one probe at a time");
            all.came(&name, now, Some(&CallError::Unreachable("down".into())));
            pauses.push(all.from(&name).unwrap_or_default() - now);
            now = all.from(&name).unwrap_or_default();
        }
        assert_eq!(pauses, [2 * ENDPOINT_PAUSE_MIN, 4 * ENDPOINT_PAUSE_MIN, ENDPOINT_PAUSE_MAX, ENDPOINT_PAUSE_MAX, ENDPOINT_PAUSE_MAX]);
        all.asked(&name);
        all.came(&name, now, None);
        assert_eq!(all.from(&name), Some(s(0)), "one answer, and all is well");
    }

    #[test]
    fn wishes_are_heard_within_reason_and_refusals_are_answers() {
        let (mut all, name): (_, Arc<str>) = (Endpoints::default(), "okx".into());
        let status = |status, after: u64| CallError::Status { status, said: None, retry_after: Some(s(after)) };
        for (error, until) in [
            (status(429, 100), s(1_100)),
            (status(503, 1_000_000), s(1_000) + ENDPOINT_PAUSE_MAX),
            (CallError::Open { endpoint: name.clone(), failures: 5, left: s(200) }, s(1_200)),
            (status(401, 100), s(0)),
            (CallError::Refused("no".into()), s(0)),
        ] {
            all.asked(&name);
            all.came(&name, s(1_000), Some(&error));
            assert_eq!(all.from(&name), Some(until), "{error}");
            all.asked(&name);
            all.came(&name, s(1_000), None);
        }
        // Who did not get a place knows nothing of the endpoint.
        all.asked(&name);
        all.came(&name, s(0), Some(&CallError::Timeout));
        all.asked(&name);
        all.came(&name, s(1), Some(&CallError::Busy { service: "okx", in_flight: 3, waited: s(40) }));
        assert_eq!(all.from(&name), Some(ENDPOINT_PAUSE_MIN));
    }
}
