//! How outside services are asked, under a fake clock: gates and tries as the node has them, services that are drawn, and many who call.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rockpool_workers::limits::{CALL_TIME_MAX, CIRCUIT_FAILURES, CIRCUIT_MAX, CIRCUIT_MIN, WAITING_MAX};
use rockpool_workers::outside::call::{Call, CallError, Service, What};
use rockpool_workers::outside::circuit::{Health, Pass};
use rockpool_workers::outside::gate::{Gate, Limits, Turn, Waiter};
use rockpool_workers::outside::retry::Tries;

use crate::{Told, draw};

const SEEDS: u64 = 200;
const MINUTE: Duration = Duration::from_secs(60);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// How an endpoint is: answers take so long, so many in a thousand go wrong, and it is down for a while.
struct Endpoint {
    name: Arc<str>,
    latency: u64,
    wrong: u64,
    /// Each answer takes exactly so long.
    exact: Option<Duration>,
    down: (Duration, Duration),
    /// Tries while it was down, probes among them, and probes since.
    asked_down: u64,
    probes: u64,
    probes_since: u64,
    /// A probe is under way.
    probing: bool,
}

/// Where a call stands.
enum State {
    Waits(Waiter, Duration),
    Tries(Pass, Duration, Result<(), CallError>),
    Pauses(Duration),
}

struct Caller {
    id: u64,
    endpoint: usize,
    call: Call,
    tries: Tries,
    state: State,
}

/// One service and those who call it.
struct World {
    rng: ChaCha12Rng,
    now: Duration,
    limits: Limits,
    gate: Gate,
    endpoints: Vec<Endpoint>,
    callers: Vec<Caller>,
    next: u64,
    /// Of all calls; drawn if it is none.
    deadline: Option<Duration>,
    in_flight: usize,
    most: usize,
    last_start: Option<Duration>,
    /// What each call came to, with the time.
    ended: BTreeMap<u64, (Duration, Result<(), CallError>)>,
    /// How often one looked whether it may start.
    looks: u64,
    starts: u64,
}

impl World {
    fn new(seed: u64, limits: Limits, endpoints: Vec<Endpoint>) -> World {
        World {
            rng: ChaCha12Rng::seed_from_u64(seed),
            now: Duration::ZERO,
            limits,
            gate: Gate::new(Service::Evm, &limits),
            endpoints,
            callers: Vec::new(),
            next: 0,
            deadline: None,
            in_flight: 0,
            most: 0,
            last_start: None,
            ended: BTreeMap::new(),
            looks: 0,
            starts: 0,
        }
    }

    fn drawn(seed: u64) -> World {
        let mut rng = ChaCha12Rng::seed_from_u64(seed ^ 0x5eed);
        let limits = Limits {
            in_flight: 1 + draw(&mut rng, 8) as usize,
            delay: ms([0, 50, 100, 2_000][draw(&mut rng, 4) as usize]),
            acquire: ms(1_000 + draw(&mut rng, 60_000)),
            tries: 1 + draw(&mut rng, 5) as u32,
        };
        let endpoints = (0..1 + draw(&mut rng, 6)).map(|n| {
            let begins = ms(draw(&mut rng, 600_000));
            Endpoint {
                latency: 1 + draw(&mut rng, 5_000),
                wrong: [0, 20, 300, 1_000][draw(&mut rng, 4) as usize],
                down: (begins, begins + ms(draw(&mut rng, 1_200_000))),
                ..endpoint(n)
            }
        });
        World::new(seed, limits, endpoints.collect())
    }

    /// Somebody calls. Its number.
    fn call(&mut self, endpoint: usize) -> u64 {
        self.next += 1;
        let what = What::Http { url: String::new(), headers: Arc::new(|_| Vec::new()), body: None };
        let idempotent = draw(&mut self.rng, 5) > 0;
        let deadline = self.deadline.unwrap_or(ms([1_000, 10_000, 200_000][draw(&mut self.rng, 3) as usize]));
        let name = Arc::clone(&self.endpoints[endpoint].name);
        let call = Call { service: Service::Evm, endpoint: name, what, idempotent, deadline, bytes_max: 1 };
        let tries = Tries::new(&call, &self.limits, self.now);
        let caller = Caller { id: self.next, endpoint, call, tries, state: State::Pauses(self.now) };
        assert!(caller.tries.ends() <= self.now + CALL_TIME_MAX.max(self.limits.acquire() + caller.call.deadline));
        self.callers.push(caller);
        self.next
    }

    /// Everybody does what can be done now.
    fn settle(&mut self) {
        let mut moved = true;
        while moved {
            moved = false;
            let mut callers = std::mem::take(&mut self.callers);
            callers.retain_mut(|caller| {
                let (stays, did) = self.step(caller);
                moved |= did;
                stays
            });
            // Those who came meanwhile: nobody.
            self.callers = callers;
        }
        let [in_flight, waiting, _] = self.gate.gauges();
        assert_eq!(in_flight, self.in_flight);
        assert!(in_flight <= self.limits.places() && waiting <= WAITING_MAX);
        assert_eq!(waiting, self.callers.iter().filter(|caller| matches!(caller.state, State::Waits(..))).count(), "nobody is lost");
        self.most = self.most.max(in_flight);
    }

    /// Whether a call goes on, and whether anything has changed that others must look at.
    fn step(&mut self, caller: &mut Caller) -> (bool, bool) {
        let now = self.now;
        match &mut caller.state {
            State::Pauses(until) if *until > now => (true, false),
            State::Pauses(_) => {
                let acquire = caller.tries.within(self.limits.acquire(), now);
                match self.gate.enter(&caller.call.endpoint, acquire, now) {
                    Ok(waiter) => {
                        caller.state = State::Waits(waiter, now);
                        (true, true)
                    }
                    Err(why) => self.never(caller, why),
                }
            }
            State::Waits(waiter, until) => {
                self.looks += 1;
                match self.gate.turn(waiter, &caller.call.endpoint, now) {
                    Turn::Wait(next) => {
                        assert!(next > now, "a wait that is over when it begins is a busy loop");
                        *until = next;
                        (true, false)
                    }
                    Turn::Never(why) => self.never(caller, why),
                    Turn::Start(pass) => {
                        self.start(caller, pass);
                        (true, true)
                    }
                }
            }
            State::Tries(_, until, _) if *until > now => (true, false),
            State::Tries(pass, _, result) => {
                let (pass, result) = (*pass, std::mem::replace(result, Ok(())));
                self.gate.done(&caller.call.endpoint, pass, Health::of(&result), now);
                self.in_flight -= 1;
                let endpoint = &mut self.endpoints[caller.endpoint];
                endpoint.probing &= pass != Pass::Probe;
                let drawn = self.rng.next_u64();
                let again = result.as_ref().err().and_then(|why| caller.tries.again(why, drawn, now));
                match again {
                    Some(pause) => {
                        caller.state = State::Pauses(now + pause);
                        (true, true)
                    }
                    None => {
                        self.end(caller, result);
                        (false, true)
                    }
                }
            }
        }
    }

    fn start(&mut self, caller: &mut Caller, pass: Pass) {
        let now = self.now;
        if let Some(last) = self.last_start.replace(now) {
            assert!(now >= last + self.limits.delay, "two starts {:?} apart", now - last);
        }
        self.starts += 1;
        self.in_flight += 1;
        let endpoint = &mut self.endpoints[caller.endpoint];
        let down = endpoint.down.0 <= now && now < endpoint.down.1;
        endpoint.asked_down += u64::from(down);
        if pass == Pass::Probe {
            assert!(!endpoint.probing, "two probes at once");
            endpoint.probing = true;
            endpoint.probes += u64::from(down);
            endpoint.probes_since += u64::from(now >= endpoint.down.1);
        }
        let deadline = caller.tries.within(caller.call.deadline, now);
        let latency = endpoint.exact.unwrap_or(ms(1 + draw(&mut self.rng, endpoint.latency * 2)));
        let wrong = draw(&mut self.rng, 1_000) < endpoint.wrong;
        let (time, result) = match draw(&mut self.rng, 6) {
            _ if !down && !wrong => (latency, Ok(())),
            0 => (Duration::MAX, Err(CallError::Timeout)),
            1 => (latency, Err(CallError::Garbled("no JSON".into()))),
            2 if !down => (latency, Err(status(404, None))),
            3 => (latency, Err(status(429, Some(ms(draw(&mut self.rng, 100_000)))))),
            4 => (latency, Err(status(503, None))),
            _ => (ms(1), Err(CallError::Unreachable("refused".into()))),
        };
        let result = if time > deadline { Err(CallError::Timeout) } else { result };
        caller.state = State::Tries(pass, now + time.min(deadline), result);
    }

    fn never(&mut self, caller: &mut Caller, why: CallError) -> (bool, bool) {
        let tries = std::mem::replace(&mut caller.tries, Tries::new(&caller.call, &self.limits, self.now));
        let ends = tries.ends();
        let why = tries.never(why);
        assert!(self.now <= ends);
        assert!(self.ended.insert(caller.id, (self.now, Err(why))).is_none(), "told twice");
        (false, true)
    }

    fn end(&mut self, caller: &Caller, result: Result<(), CallError>) {
        assert!(self.now <= caller.tries.ends(), "a call took longer than it may");
        assert!(self.ended.insert(caller.id, (self.now, result)).is_none(), "told twice");
    }

    /// Lets time go on, to the next moment at which somebody has something to do. Whether there is one before then.
    fn pass(&mut self, until: Duration) -> bool {
        let due = self.callers.iter().map(|caller| match &caller.state {
            State::Waits(_, until) | State::Tries(_, until, _) | State::Pauses(until) => *until,
        });
        let next = due.min().filter(|due| *due <= until);
        assert!(next.is_none_or(|due| due > self.now), "time stands still");
        self.now = next.unwrap_or(until);
        self.settle();
        next.is_some()
    }

    fn pass_to(&mut self, until: Duration) {
        self.settle();
        while self.pass(until) {}
    }

    /// Until nobody waits for anything any more.
    fn rest(&mut self) {
        self.settle();
        while !self.callers.is_empty() {
            self.pass(self.now + CALL_TIME_MAX * 4);
        }
    }
}

fn endpoint(n: u64) -> Endpoint {
    let name = format!("endpoint {n}").into();
    Endpoint {
        name,
        latency: 100,
        wrong: 0,
        exact: None,
        down: (Duration::MAX, Duration::MAX),
        asked_down: 0,
        probes: 0,
        probes_since: 0,
        probing: false,
    }
}

fn status(status: u16, retry_after: Option<Duration>) -> CallError {
    CallError::Status { status, said: None, retry_after }
}

#[test]
fn whatever_services_do_no_limit_is_broken_and_every_call_ends_once_and_in_time() {
    let (mut calls, mut good, mut retried, mut busy, mut open) = (0, 0, 0, 0, 0);
    for seed in 0..SEEDS {
        let told = Told(seed);
        let mut world = World::drawn(seed);
        for _ in 0..60 {
            let then = world.now + ms(draw(&mut world.rng, 60_000));
            world.pass_to(then);
            // Mostly a few; sometimes more than may wait.
            let count = if draw(&mut world.rng, 20) == 0 { 2 * WAITING_MAX as u64 } else { draw(&mut world.rng, 12) };
            for _ in 0..count {
                let endpoint = draw(&mut world.rng, world.endpoints.len() as u64) as usize;
                world.call(endpoint);
            }
            world.settle();
        }
        world.rest();
        assert_eq!((world.in_flight, world.gate.gauges()[..2].to_vec()), (0, vec![0, 0]));
        assert_eq!(world.ended.len() as u64, world.next, "a call was lost");
        // Somebody looks only when something has changed, and there are as many as may wait.
        assert!(world.looks <= (world.next + 3 * world.starts) * (WAITING_MAX as u64 + 1));
        calls += world.next;
        let count = |of: fn(&CallError) -> bool| world.ended.values().filter(|(_, result)| result.as_ref().is_err_and(of)).count();
        good += world.ended.values().filter(|(_, result)| result.is_ok()).count();
        busy += count(|why| matches!(why, CallError::Busy { .. }));
        open += count(|why| matches!(why, CallError::Open { .. }));
        retried +=
            (world.starts + count(|why| matches!(why, CallError::Busy { .. } | CallError::Open { .. })) as u64).saturating_sub(world.next);
        std::mem::forget(told);
    }
    println!("{SEEDS} seeds: {calls} calls, {good} good, {retried} tries more, {busy} found no place, {open} an open circuit");
    assert!(good > 1_000 && retried > 1_000 && busy > 1_000 && open > 1_000);
}

#[test]
fn after_ten_minutes_down_one_probe_heals() {
    let (mut most_asked, mut slowest) = (0, Duration::ZERO);
    for seed in 0..SEEDS {
        let told = Told(seed);
        let (begins, ends) = (MINUTE * 5, MINUTE * 15);
        let sick = Endpoint { down: (begins, ends), ..endpoint(0) };
        let mut world = World::new(seed, Limits { delay: ms(50), ..Limits::of(Service::Evm) }, vec![sick, endpoint(1)]);
        world.deadline = Some(ms(10_000));
        // Somebody wants something of either every five seconds.
        let mut healed = None;
        let mut well = Vec::new();
        while world.now < MINUTE * 25 {
            let (id, other) = (world.call(0), world.call(1));
            let then = world.now + ms(5_000);
            let now = world.now;
            world.pass_to(then);
            well.push(other);
            if now >= ends && healed.is_none() && world.ended.get(&id).is_some_and(|(_, result)| result.is_ok()) {
                healed = Some(now - ends);
            }
            assert!(world.callers.len() <= 12, "calls pile up: {}", world.callers.len());
        }
        world.rest();
        assert!(well.iter().all(|id| world.ended[id].1.is_ok()), "the one that is well has nothing to do with it");
        let sick = &world.endpoints[0];
        // The first failures, those that were under way or waited with them, and a probe after each pause: 30, 60, 120, 240 s.
        assert!(sick.asked_down <= u64::from(CIRCUIT_FAILURES) * 3 + sick.probes, "asked {} times while it was down", sick.asked_down);
        // Before it opens, one follows each failure that came with a wish.
        let after_pauses = (0..).take_while(|n| CIRCUIT_MIN * ((2 << n) - 1) <= ends - begins).count() as u64;
        let most = u64::from(CIRCUIT_FAILURES) - 1 + after_pauses;
        assert!(sick.probes > 0 && sick.probes <= most, "{} probes, {most} at most", sick.probes);
        assert_eq!(sick.probes_since, 1, "one probe heals");
        let healed = healed.unwrap();
        // A last probe in vain, which takes its time, a pause, and whoever calls next.
        assert!(healed <= ms(10_000) + CIRCUIT_MAX + ms(5_000), "healed {healed:?} after it was back");
        assert_eq!(world.gate.gauges(), [0, 0, 0]);
        most_asked = most_asked.max(sick.asked_down);
        slowest = slowest.max(healed);
        std::mem::forget(told);
    }
    println!("ten minutes down: asked {most_asked} times at most, healed {slowest:?} after the end at the latest");
}

#[test]
fn six_chains_take_a_fifth_of_the_time_of_one_after_the_other() {
    // As long as public nodes take at a busy hour.
    let latency = ms(1_500);
    let time = |in_flight: usize, beside: bool| {
        let chains = (0..6).map(|n| Endpoint { exact: Some(latency), ..endpoint(n) }).collect();
        let mut world = World::new(1, Limits { in_flight, ..Limits::of(Service::Evm) }, chains);
        world.deadline = Some(latency * 2);
        for chain in 0..6 {
            world.call(chain);
            if !beside {
                world.rest();
            }
        }
        world.rest();
        assert!(world.ended.values().all(|(_, result)| result.is_ok()) && world.ended.len() == 6);
        world.now
    };
    let one = time(6, false);
    let [six, five] = [6, 5].map(|in_flight| time(in_flight, true).div_duration_f64(one));
    println!("six chains beside each other: {six:.3} of the time of one after the other, {five:.3} with five in flight");
    assert!(six <= 0.2 && five < 0.36);
}
