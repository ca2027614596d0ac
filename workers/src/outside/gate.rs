//! What lets the calls of a service start: its bulkhead, and the circuits of its endpoints. Pure: the time is given.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::bulkhead::{Bulkhead, Start};
use super::call::{CallError, Service};
use super::circuit::{Circuit, Health, Pass};
use crate::limits::{ACQUIRE_MAX, BITCOIND_IN_FLIGHT, CALL_TRIES, IN_FLIGHT_MAX};

/// How a service may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls under way at once.
    pub in_flight: usize,
    /// Time between two starts.
    pub delay: Duration,
    /// How long a call waits for its start; see [`Limits::acquire`].
    pub acquire: Duration,
    /// Tries of a call that may be tried again.
    pub tries: u32,
}

impl Limits {
    /// The defaults (DESIGN §10).
    pub fn of(service: Service) -> Limits {
        let (in_flight, delay) = match service {
            Service::CoinGecko => (5, 2_000),
            Service::Okx => (3, 100),
            Service::Evm => (5, 50),
            Service::Identity => (1, 1_000),
            Service::Bitcoind => (BITCOIND_IN_FLIGHT, 0),
        };
        Limits { in_flight, delay: Duration::from_millis(delay), acquire: ACQUIRE_MAX, tries: CALL_TRIES }
    }

    /// Within what the node has threads for.
    pub fn places(&self) -> usize {
        self.in_flight.clamp(1, IN_FLIGHT_MAX)
    }

    /// How long a call waits for its start: long enough for as many as may be under way to start before it, however far apart.
    pub fn acquire(&self) -> Duration {
        self.acquire.max(self.delay * (self.places() as u32 + 1))
    }
}

/// A call that waits.
#[derive(Debug)]
pub struct Waiter {
    number: u64,
    since: Duration,
    until: Duration,
}

/// Whether a call that waits may start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It has started: [`Gate::done`] must follow.
    Start(Pass),
    /// To be asked again at this time, or earlier when another call starts or ends.
    Wait(Duration),
    /// It will not start, and waits no longer.
    Never(CallError),
}

/// A service's gate.
#[derive(Debug)]
pub struct Gate {
    service: Service,
    bulkhead: Bulkhead,
    /// Of the endpoints that failed last. They are those of the configuration: few.
    circuits: BTreeMap<Arc<str>, Circuit>,
}

impl Gate {
    /// One of a service that nobody has called yet.
    pub fn new(service: Service, limits: &Limits) -> Gate {
        Gate { service, bulkhead: Bulkhead::new(limits.places(), limits.delay), circuits: BTreeMap::new() }
    }

    /// A call of an endpoint comes, and waits for so long at most.
    pub fn enter(&mut self, endpoint: &Arc<str>, acquire: Duration, now: Duration) -> Result<Waiter, CallError> {
        self.closed(endpoint, now)?;
        let busy = CallError::Busy { service: self.service.name(), in_flight: self.bulkhead.in_flight(), waited: Duration::ZERO };
        let number = self.bulkhead.enter().ok_or(busy)?;
        Ok(Waiter { number, since: now, until: now + acquire })
    }

    /// Whether it may start.
    pub fn turn(&mut self, waiter: &Waiter, endpoint: &Arc<str>, now: Duration) -> Turn {
        // It may have opened since.
        if let Err(open) = self.closed(endpoint, now) {
            self.leave(waiter);
            return Turn::Never(open);
        }
        let at = match self.bulkhead.start(waiter.number, now) {
            Start::Now => {
                let pass = self.circuits.get_mut(endpoint).map_or(Ok(Pass::Plain), |circuit| circuit.start(now));
                return Turn::Start(pass.unwrap_or(Pass::Plain));
            }
            Start::At(at) => at.min(waiter.until),
            Start::Later => waiter.until,
        };
        if now >= waiter.until {
            self.leave(waiter);
            let waited = now.saturating_sub(waiter.since);
            return Turn::Never(CallError::Busy { service: self.service.name(), in_flight: self.bulkhead.in_flight(), waited });
        }
        Turn::Wait(at)
    }

    /// A call waits no longer.
    pub fn leave(&mut self, waiter: &Waiter) {
        self.bulkhead.leave(waiter.number);
    }

    /// A try that started has ended.
    pub fn done(&mut self, endpoint: &Arc<str>, pass: Pass, health: Health, now: Duration) {
        self.bulkhead.done();
        match self.circuits.get_mut(endpoint) {
            Some(circuit) => circuit.done(pass, health, now),
            None if matches!(health, Health::Bad(_)) => self.circuits.entry(Arc::clone(endpoint)).or_default().done(pass, health, now),
            None => {}
        }
        // An endpoint that is well needs no entry.
        self.circuits.retain(|_, circuit| circuit.failures() > 0);
    }

    fn closed(&self, endpoint: &Arc<str>, now: Duration) -> Result<(), CallError> {
        let Some(circuit) = self.circuits.get(endpoint) else { return Ok(()) };
        let open = |left| CallError::Open { endpoint: Arc::clone(endpoint), failures: circuit.failures(), left };
        circuit.look(now).map(|_| ()).map_err(open)
    }

    /// Calls under way, calls that wait, and open circuits.
    pub fn gauges(&self) -> [usize; 3] {
        let open = self.circuits.values().filter(|circuit| circuit.is_open()).count();
        [self.bulkhead.in_flight(), self.bulkhead.waiting(), open]
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::limits::CIRCUIT_FAILURES;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_defaults_are_those_of_the_design() {
        let of = |service| (Limits::of(service).in_flight, Limits::of(service).delay.as_millis());
        assert_eq!(Service::ALL.map(of), [(5, 2_000), (3, 100), (5, 50), (1, 1_000), (4, 0)]);
        assert!(Service::ALL.map(Limits::of).iter().all(|limits| limits.acquire == ACQUIRE_MAX && limits.tries == CALL_TRIES));
        let odd = |in_flight| Limits { in_flight, ..Limits::of(Service::Okx) }.places();
        assert_eq!((odd(0), odd(1_000)), (1, IN_FLIGHT_MAX));
        let slow = Limits { delay: ms(60_000), ..Limits::of(Service::CoinGecko) };
        assert_eq!((slow.acquire(), Limits::of(Service::CoinGecko).acquire()), (ms(360_000), ACQUIRE_MAX));
    }

    #[test]
    fn who_waits_too_long_is_told_of_the_bulkhead_and_who_comes_to_a_sick_endpoint_of_the_circuit() {
        let limits = Limits { in_flight: 1, delay: ms(10), ..Limits::of(Service::Evm) };
        let mut gate = Gate::new(Service::Evm, &limits);
        let (well, sick): (Arc<str>, Arc<str>) = ("base".into(), "bsc".into());
        let first = gate.enter(&well, ms(100), ms(0)).unwrap();
        assert_eq!(gate.turn(&first, &well, ms(0)), Turn::Start(Pass::Plain));
        let second = gate.enter(&well, ms(100), ms(1)).unwrap();
        assert_eq!(gate.turn(&second, &well, ms(1)), Turn::Wait(ms(101)));
        let busy = CallError::Busy { service: "evm", in_flight: 1, waited: ms(100) };
        assert_eq!(gate.turn(&second, &well, ms(101)), Turn::Never(busy));
        assert_eq!(gate.gauges(), [1, 0, 0]);
        gate.done(&well, Pass::Plain, Health::Good, ms(101));
        for n in 0..u64::from(CIRCUIT_FAILURES) {
            let waiter = gate.enter(&sick, ms(100), ms(200 + n * 10)).unwrap();
            assert_eq!(gate.turn(&waiter, &sick, ms(200 + n * 10)), Turn::Start(Pass::Plain));
            gate.done(&sick, Pass::Plain, Health::Bad(None), ms(200 + n * 10));
        }
        assert!(matches!(gate.enter(&sick, ms(100), ms(300)), Err(CallError::Open { failures: CIRCUIT_FAILURES, .. })));
        assert_eq!(gate.gauges(), [0, 0, 1]);
        let other = gate.enter(&well, ms(100), ms(300)).unwrap();
        assert_eq!(gate.turn(&other, &well, ms(300)), Turn::Start(Pass::Plain), "the others are left alone");
        gate.done(&well, Pass::Plain, Health::Good, ms(300));
        // Two come when it may be back; one of them is the probe.
        let later = ms(60_000);
        let [one, two] = [(); 2].map(|()| gate.enter(&sick, ms(100), later).unwrap());
        assert_eq!(gate.turn(&one, &sick, later), Turn::Start(Pass::Probe));
        assert!(matches!(gate.turn(&two, &sick, later), Turn::Never(CallError::Open { .. })));
        gate.done(&sick, Pass::Probe, Health::Good, later);
        assert_eq!((gate.gauges(), gate.circuits.len()), ([0, 0, 0], 0));
    }
}
