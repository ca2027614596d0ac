//! A service's gate for threads: who must wait, waits here. Its figures are read without waiting.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rockpool_net::reactor::Clock;
use rockpool_net::time::Now;

use super::call::{CallError, Service};
use super::circuit::{Health, Pass};
use super::gate::{Gate, Limits, Turn};

/// What calls come to, as gauges name it.
pub const OUTCOMES: [&str; 10] = ["ok", "busy", "open", "timeout", "unreachable", "status", "too_long", "garbled", "refused", "stopped"];

/// How calls of a service stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gauges {
    /// Which.
    pub service: Service,
    /// What holds for it.
    pub limits: Limits,
    /// Calls under way.
    pub in_flight: usize,
    /// Calls that wait for their start.
    pub waiting: usize,
    /// Endpoints that are left alone.
    pub open: usize,
    /// Calls since the start, by what they came to.
    pub calls: [(&'static str, u64); OUTCOMES.len()],
}

pub(crate) struct Door {
    pub(crate) service: Service,
    pub(crate) limits: Limits,
    clock: Clock,
    gate: Mutex<Gate>,
    moved: Condvar,
    /// In flight, waiting, open.
    figures: [AtomicUsize; 3],
    calls: [AtomicU64; OUTCOMES.len()],
    /// When each call started, where a test wants to know.
    #[cfg(test)]
    pub(crate) watched: Mutex<Option<Vec<Duration>>>,
}

/// Two are the same if the same holds for them, so that configurations can be compared.
impl PartialEq for Door {
    fn eq(&self, other: &Door) -> bool {
        (self.service, self.limits) == (other.service, other.limits)
    }
}

impl Eq for Door {}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.limits.fmt(f)
    }
}

impl Door {
    pub(crate) fn new(service: Service, limits: Limits, clock: Clock) -> Door {
        Door {
            service,
            limits,
            clock,
            gate: Mutex::new(Gate::new(service, &limits)),
            moved: Condvar::new(),
            figures: Default::default(),
            calls: Default::default(),
            #[cfg(test)]
            watched: Mutex::default(),
        }
    }

    pub(crate) fn now(&self) -> Now {
        self.clock.now()
    }

    /// Waits until a call may start, but no longer than this, and not beyond a stop.
    pub(crate) fn start<'a>(&'a self, endpoint: &'a Arc<str>, acquire: Duration, stopped: &AtomicBool) -> Result<Started<'a>, CallError> {
        let mut gate = self.lock();
        let waiter = gate.enter(endpoint, acquire, self.clock.mono())?;
        let turn = loop {
            if stopped.load(Relaxed) {
                gate.leave(&waiter);
                break Turn::Never(CallError::Stopped);
            }
            let now = self.clock.mono();
            match gate.turn(&waiter, endpoint, now) {
                Turn::Wait(until) => {
                    self.tell(&gate);
                    gate = self.wait(gate, until.saturating_sub(now));
                }
                turn => {
                    #[cfg(test)]
                    self.watch(&turn, now);
                    break turn;
                }
            }
        };
        self.tell(&gate);
        // Whoever is next looks when it may start.
        self.moved.notify_all();
        match turn {
            Turn::Start(pass) => Ok(Started { door: self, endpoint, pass, health: Health::Unknown }),
            Turn::Never(why) => Err(why),
            Turn::Wait(_) => Err(CallError::Stopped),
        }
    }

    /// Waits between two tries. Whether to go on.
    pub(crate) fn pause(&self, time: Duration, stopped: &AtomicBool) -> bool {
        let until = self.clock.mono() + time;
        let mut gate = self.lock();
        while !stopped.load(Relaxed) {
            let now = self.clock.mono();
            if now >= until {
                return true;
            }
            gate = self.wait(gate, until - now);
        }
        false
    }

    /// Wakes all who wait, since the node stops.
    pub(crate) fn wake(&self) {
        // Nobody is between looking and waiting.
        drop(self.lock());
        self.moved.notify_all();
    }

    /// A call has ended for good.
    pub(crate) fn count<T>(&self, result: &Result<T, CallError>) {
        let outcome = match result {
            Ok(_) => 0,
            Err(CallError::Busy { .. }) => 1,
            Err(CallError::Open { .. }) => 2,
            Err(CallError::Timeout) => 3,
            Err(CallError::Unreachable(_)) => 4,
            Err(CallError::Status { .. }) => 5,
            Err(CallError::TooLong(_)) => 6,
            Err(CallError::Garbled(_)) => 7,
            Err(CallError::Refused(_)) => 8,
            Err(CallError::Stopped) => 9,
        };
        self.calls[outcome].fetch_add(1, Relaxed);
    }

    pub(crate) fn gauges(&self) -> Gauges {
        let [in_flight, waiting, open] = [0, 1, 2].map(|figure| self.figures[figure].load(Relaxed));
        let mut calls = OUTCOMES.map(|outcome| (outcome, 0));
        calls.iter_mut().zip(&self.calls).for_each(|((_, count), counted)| *count = counted.load(Relaxed));
        Gauges { service: self.service, limits: self.limits, in_flight, waiting, open, calls }
    }

    #[cfg(test)]
    fn watch(&self, turn: &Turn, now: Duration) {
        if let (Turn::Start(_), Ok(mut watched)) = (turn, self.watched.lock())
            && let Some(starts) = &mut *watched
        {
            starts.push(now);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, gate: MutexGuard<'a, Gate>, time: Duration) -> MutexGuard<'a, Gate> {
        self.moved.wait_timeout(gate, time).unwrap_or_else(PoisonError::into_inner).0
    }

    fn tell(&self, gate: &Gate) {
        self.figures.iter().zip(gate.gauges()).for_each(|(figure, now)| figure.store(now, Relaxed));
    }
}

/// A try that has started. It ends when this is dropped, by a panic too.
pub(crate) struct Started<'a> {
    door: &'a Door,
    endpoint: &'a Arc<str>,
    pass: Pass,
    health: Health,
}

impl Started<'_> {
    /// What the try says of its endpoint.
    pub(crate) fn ends(mut self, health: Health) {
        self.health = health;
    }
}

impl Drop for Started<'_> {
    fn drop(&mut self) {
        let mut gate = self.door.lock();
        gate.done(self.endpoint, self.pass, self.health, self.door.clock.mono());
        self.door.tell(&gate);
        drop(gate);
        self.door.moved.notify_all();
    }
}
