//! What the node's own miners do: how fast, how lucky, how often refused. Kept over restarts.
//!
//! | file | what |
//! |---|---|
//! | `rates` | hash rates of a worker |
//! | `charts` | points of charts |
//! | `pool` | the whole pool: its rate, luck, and what is to be expected |
//!
//! A worker is an address and a name. What is told of an address, and of all, is the sum over workers, made when it is asked for: a submit
//! only touches its own worker's counts and the totals'.

pub mod charts;
pub mod pool;
pub mod rates;

use std::collections::BTreeMap;
use std::time::Duration;

use rockpool_net::time::Now;
use rockpool_net::wire::share::Script;
use rockpool_store::figures::{Best, FigureRows, Tally, TotalsRow, WorkerRow, delete_worker};
use rockpool_store::kv::{Family, Op};
use rockpool_store::limits::{WORKER_NAME_BYTES, WORKERS_KEPT};
use rockpool_workers::jobs::{SubmitRefusal, WriteJob};

use crate::limits::{BEST_WRITE_EVERY, CHARTS_EVERY, FIGURES_EVERY, FIGURES_WRITE_EVERY, ROOM_EVERY};
use crate::miners::charts::{Charts, Seen};
use crate::miners::rates::{HASHES, Rate, Rates, SHORT, sum};
use crate::rows::RowLine;

/// Names of the reasons for which submits are rejected, in the order in which they are counted.
pub const REASONS: [&str; rockpool_store::figures::REASONS] = ["stale", "duplicate", "low", "malformed", "other"];

/// Where a reason is counted.
fn reason(refusal: SubmitRefusal) -> usize {
    match refusal {
        SubmitRefusal::Stale => 0,
        SubmitRefusal::Duplicate => 1,
        SubmitRefusal::LowDifficulty => 2,
        SubmitRefusal::BadField(_) => 3,
        SubmitRefusal::Refused(_) => 4,
    }
}

/// A worker, for who holds on to it: one that was forgotten meanwhile is nobody, as is the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkerId(pub u64);

const SERIAL_SHIFT: u32 = 32;

/// A submit that was accepted.
#[derive(Clone, Copy, Debug)]
pub struct Accepted {
    /// The difficulty that it was judged by.
    pub difficulty: f64,
    /// The difficulty that its hash has.
    pub achieved: f64,
    /// Whether it is a share of the share chain.
    pub share: bool,
}

/// What is told of a worker, of an address, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Hashes a second.
    pub rates: Rate,
    /// Counts, and the best hash ever.
    pub tally: Tally,
    /// The best hash since the start.
    pub best: f64,
    /// Connections.
    pub connected: u32,
}

impl Figures {
    /// Both together.
    pub fn add(&mut self, other: &Figures) {
        sum(&mut self.rates, &other.rates);
        let (one, two) = (&mut self.tally, &other.tally);
        one.accepted += two.accepted;
        one.rejected.iter_mut().zip(two.rejected).for_each(|(one, two)| *one = one.saturating_add(two));
        (one.shares, one.blocks) = (one.shares.saturating_add(two.shares), one.blocks.saturating_add(two.blocks));
        one.best = one.best.max(two.best);
        one.first_seen = if one.first_seen == 0 { two.first_seen } else { one.first_seen.min(two.first_seen) };
        one.last_share = one.last_share.max(two.last_share);
        self.best = self.best.max(other.best);
        self.connected += other.connected;
    }
}

/// An address.
#[derive(Clone, Debug)]
pub struct Address {
    /// What it pays to.
    pub script: Script,
    /// Workers that are known of it.
    pub workers: usize,
    /// What they do.
    pub figures: Figures,
}

/// How soon a worker's row has to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Changed {
    No,
    Later,
    Soon,
}

#[derive(Debug)]
struct Worker {
    tally: Tally,
    /// The best hash since the start.
    best: f64,
    /// From the first accepted submit on.
    rates: Option<Rates>,
    connected: u32,
    changed: Changed,
}

impl Worker {
    fn figures(&self, now: Duration) -> Figures {
        let rates = self.rates.as_ref().map_or_else(Rate::default, |rates| rates.rate(now));
        Figures { rates, tally: self.tally, best: self.best, connected: self.connected }
    }
}

#[derive(Debug, Default)]
struct Slot {
    /// How many workers it has had.
    serial: u32,
    worker: Option<Box<Worker>>,
}

type Name = (Script, Box<str>);

/// All own miners.
#[derive(Debug, Default)]
pub struct Miners {
    slots: Vec<Slot>,
    free: Vec<u32>,
    names: BTreeMap<Name, u32>,
    totals: Tally,
    /// Of submits of workers that have no place.
    others: Option<Rates>,
    /// The best hash ever, and since the start.
    best: [Option<Best>; 2],
    charts: Charts,
    /// Since the charts last got what was seen.
    seen: Seen,
    /// When that was, and in which step of the finest chart.
    charted: Option<(Duration, u32)>,
    /// No time before this can be true. A machine without a clock of its own begins in 1970: charts wait until it is set, for by such a
    /// time all that they hold would be of the future, and wrong.
    pub earliest: u32,
    /// As they were when they were last summed up.
    summed: Figures,
    look: Duration,
    /// When room may be made again.
    room: Duration,
    /// The pool's rate as of the last look.
    pool: f64,
    /// Where rows go.
    pub line: RowLine,
    gone: Vec<Op>,
    /// A best hash waits to be written.
    soon: bool,
    soon_from: Duration,
    write_from: Option<Duration>,
    hurry: bool,
}

impl Miners {
    /// What was kept.
    pub fn open(rows: FigureRows, now: Now) -> Miners {
        let mut miners = Miners { gone: rows.bad, charts: Charts::open(&rows.charts), ..Miners::default() };
        (miners.totals, miners.best) = (rows.totals.tally, [rows.totals.best, None]);
        for WorkerRow { script, name, tally, rates } in rows.workers {
            let rates = Some(Rates::of(&rates, now));
            miners.insert((script, name), Worker { tally, best: 0.0, rates, connected: 0, changed: Changed::No });
        }
        miners
    }

    /// A connection mines as this worker from now on. Nobody, if there is no place for one more.
    pub fn arrive(&mut self, now: Now, script: &Script, name: &str) -> WorkerId {
        let key = (*script, cut(name).into());
        let found = self.names.get(&key).copied();
        let slot = match found {
            Some(slot) => slot,
            None if self.names.len() >= WORKERS_KEPT && !self.make_room(now) => return WorkerId::default(),
            None => {
                if self.totals.first_seen == 0 {
                    self.totals.first_seen = now.unix();
                }
                let tally = Tally { first_seen: now.unix(), ..Tally::default() };
                self.insert(key, Worker { tally, best: 0.0, rates: None, connected: 0, changed: Changed::No })
            }
        };
        let Some(slot_of) = self.slots.get_mut(slot as usize) else { return WorkerId::default() };
        if let Some(worker) = &mut slot_of.worker {
            worker.connected += 1;
        }
        WorkerId(u64::from(slot_of.serial) << SERIAL_SHIFT | u64::from(slot))
    }

    /// A connection does so no longer.
    pub fn leave(&mut self, id: WorkerId) {
        if let Some(worker) = self.get_mut(id) {
            worker.connected = worker.connected.saturating_sub(1);
        }
    }

    /// The worker of this name, if it is known.
    pub fn find(&self, script: &Script, name: &str) -> Option<WorkerId> {
        let slot = *self.names.get(&(*script, cut(name).into()))?;
        let serial = self.slots.get(slot as usize)?.serial;
        Some(WorkerId(u64::from(serial) << SERIAL_SHIFT | u64::from(slot)))
    }

    /// Whether a worker is still known.
    pub fn knows(&self, id: WorkerId) -> bool {
        self.slots.get(id.0 as u32 as usize).is_some_and(|slot| slot.worker.is_some() && u64::from(slot.serial) == id.0 >> SERIAL_SHIFT)
    }

    /// A submit was accepted. Whether its hash is the best there ever was here.
    pub fn accepted(&mut self, now: Now, id: WorkerId, submit: Accepted) -> bool {
        let (unix, hashes) = (now.unix(), submit.difficulty * HASHES);
        self.seen.hashes += hashes;
        self.seen.accepted = self.seen.accepted.saturating_add(1);
        self.totals.accept(unix, &submit);
        let Some(worker) = self.get_mut(id) else {
            count(&mut self.others, now.mono, hashes);
            return false;
        };
        count(&mut worker.rates, now.mono, hashes);
        let before = worker.tally.best;
        worker.tally.accept(unix, &submit);
        worker.best = worker.best.max(submit.achieved);
        worker.changed = worker.changed.max(if worker.tally.best > before { Changed::Soon } else { Changed::Later });
        if worker.changed == Changed::Soon {
            self.soon = true;
        }
        let beats = |best: &Option<Best>| best.as_ref().is_none_or(|best| submit.achieved > best.difficulty);
        if !self.best.iter().any(beats) {
            return false;
        }
        self.note_best(id, unix, submit.achieved)
    }

    /// Whose it is, which is looked for among all: that happens a few times in a node's life.
    fn note_best(&mut self, id: WorkerId, time: u32, difficulty: f64) -> bool {
        let Some((script, name)) = self.names.iter().find(|(_, slot)| **slot == id.0 as u32).map(|(name, _)| name.clone()) else {
            return false;
        };
        let found = Best { difficulty, time, script, name };
        let [ever, session] = &mut self.best;
        *session = Some(found.clone()).filter(|_| session.as_ref().is_none_or(|best| difficulty > best.difficulty)).or(session.take());
        let is_best = ever.as_ref().is_none_or(|best| difficulty > best.difficulty);
        if is_best {
            *ever = Some(found);
            self.soon = true;
        }
        is_best
    }

    /// A submit was rejected.
    pub fn rejected(&mut self, id: WorkerId, refusal: SubmitRefusal) {
        let reason = reason(refusal);
        self.seen.rejected = self.seen.rejected.saturating_add(1);
        let counted = |tally: &mut Tally| tally.rejected[reason] = tally.rejected[reason].saturating_add(1);
        counted(&mut self.totals);
        if let Some(worker) = self.get_mut(id) {
            counted(&mut worker.tally);
            worker.changed = worker.changed.max(Changed::Later);
        }
    }

    /// A worker has found a block.
    pub fn found_block(&mut self, id: WorkerId) {
        self.totals.blocks = self.totals.blocks.saturating_add(1);
        self.soon = true;
        if let Some(worker) = self.get_mut(id) {
            worker.tally.blocks = worker.tally.blocks.saturating_add(1);
            worker.changed = Changed::Soon;
        }
    }

    /// When a worker's last submit was accepted, Unix seconds; zero for never.
    pub fn last_share(&self, id: WorkerId) -> Option<u32> {
        let slot = self.slots.get(id.0 as u32 as usize)?;
        slot.worker.as_ref().filter(|_| u64::from(slot.serial) == id.0 >> SERIAL_SHIFT).map(|worker| worker.tally.last_share)
    }

    /// All together at this moment, but for how many are connected.
    pub fn together(&self, now: Duration) -> Figures {
        let mut rates = self.others.as_ref().map_or_else(Rate::default, |others| others.rate(now));
        let workers = self.slots.iter().filter_map(|slot| slot.worker.as_ref()?.rates.as_ref());
        workers.for_each(|worker| sum(&mut rates, &worker.rate(now)));
        let best = self.best[1].as_ref().map_or(0.0, |best| best.difficulty);
        Figures { rates, tally: self.totals, best, connected: 0 }
    }

    /// All together, as of the last look.
    pub fn totals(&self) -> &Figures {
        &self.summed
    }

    /// The pool's rate, as of the last look.
    pub fn pool_rate(&self) -> f64 {
        self.pool
    }

    /// The best hash ever, and since the start.
    pub fn best(&self) -> [Option<&Best>; 2] {
        let [ever, session] = &self.best;
        [ever.as_ref(), session.as_ref()]
    }

    /// The charts.
    pub fn charts(&self) -> &Charts {
        &self.charts
    }

    /// Workers that are known.
    pub fn workers(&self) -> usize {
        self.names.len()
    }

    /// All addresses, in the order of their scripts.
    pub fn addresses(&self, now: Duration) -> Vec<Address> {
        let mut addresses: Vec<Address> = Vec::new();
        for ((script, _), slot) in &self.names {
            let Some(worker) = self.slots.get(*slot as usize).and_then(|slot| slot.worker.as_ref()) else { continue };
            if addresses.last().is_none_or(|last| last.script != *script) {
                addresses.push(Address { script: *script, workers: 0, figures: Figures::default() });
            }
            if let Some(address) = addresses.last_mut() {
                address.workers += 1;
                address.figures.add(&worker.figures(now));
            }
        }
        addresses
    }

    /// The workers of an address, in the order of their names: how many are left out, and how many are told of.
    pub fn of_address(&self, now: Duration, script: &Script, (offset, count): (usize, usize)) -> Vec<(WorkerId, &str, Figures)> {
        let from = (*script, Box::<str>::default());
        let ours = self.names.range(from..).take_while(|((of, _), _)| of == script);
        let ours = ours.skip(offset).take(count).filter_map(|((_, name), index)| {
            let slot = self.slots.get(*index as usize)?;
            let id = WorkerId(u64::from(slot.serial) << SERIAL_SHIFT | u64::from(*index));
            Some((id, &**name, slot.worker.as_ref()?.figures(now)))
        });
        ours.collect()
    }

    /// Whose blocks and shares are own: scripts of all workers that are known.
    pub fn is_own(&self, script: &Script) -> bool {
        self.names.range((*script, Box::<str>::default())..).next().is_some_and(|((of, _), _)| of == script)
    }

    /// Whether it is time for a look.
    pub fn is_due(&self, now: Duration) -> bool {
        now >= self.look
    }

    /// Sums up, for those who ask and for the charts. `pool` is the pool's rate, or none where our miners are all of it.
    pub fn look(&mut self, now: Now, pool: Option<f64>, connected: usize) {
        self.look = now.mono + FIGURES_EVERY;
        self.summed = Figures { connected: u32::try_from(connected).unwrap_or(u32::MAX), ..self.together(now.mono) };
        let rates = self.summed.rates;
        self.pool = pool.unwrap_or(rates[SHORT]);
        // By the clock's steps: looks that come a little late each would leave one out now and then.
        let step = now.unix() / CHARTS_EVERY.as_secs() as u32;
        let (since, charted) = *self.charted.get_or_insert((now.mono, step));
        if step != charted {
            let seen = std::mem::take(&mut self.seen);
            // What was not looked at for a while was asleep: its time says nothing.
            let millis = now.mono.saturating_sub(since).min(2 * CHARTS_EVERY).as_millis() as u32;
            if now.unix() >= self.earliest {
                self.charts.add(now.unix(), &Seen { millis, own: rates[SHORT], pool: self.pool, miners: connected, ..seen });
            }
            self.charted = Some((now.mono, step));
        }
    }

    /// The rows that may go to the disk now, as one message.
    pub fn take(&mut self, now: Now) -> Vec<WriteJob> {
        let whole_from = *self.write_from.get_or_insert(now.mono + FIGURES_WRITE_EVERY);
        let whole = self.hurry || now.mono >= whole_from;
        let soon = self.soon && now.mono >= self.soon_from;
        if self.line.is_out() || !(whole || soon || !self.gone.is_empty()) {
            return Vec::new();
        }
        (self.hurry, self.soon, self.soon_from) = (false, false, now.mono + BEST_WRITE_EVERY);
        let mut ops = std::mem::take(&mut self.gone);
        if whole {
            self.write_from = Some(now.mono + FIGURES_WRITE_EVERY);
            ops.extend(self.charts.take());
        }
        let least = if whole { Changed::Later } else { Changed::Soon };
        for ((script, name), slot) in &self.names {
            let Some(worker) = self.slots.get_mut(*slot as usize).and_then(|slot| slot.worker.as_mut()) else { continue };
            // Who was never accepted is a stranger, and not worth a row.
            if let Some(rates) = worker.rates.as_ref().filter(|_| worker.changed >= least) {
                ops.push(WorkerRow { script: *script, name: name.clone(), tally: worker.tally, rates: rates.sums(now) }.put());
                worker.changed = Changed::No;
            }
        }
        if self.totals != Tally::default() {
            ops.push(TotalsRow { tally: self.totals, best: self.best[0].clone() }.put());
        }
        self.line.give(Family::Figures, ops)
    }

    /// Everything goes to the disk with the next batch: the node stops.
    pub fn hurry(&mut self) {
        self.hurry = true;
    }

    /// Whether nothing waits that is to be written before the end.
    pub fn is_clean(&self) -> bool {
        !self.hurry
    }

    fn insert(&mut self, name: Name, worker: Worker) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        if let Some(place) = self.slots.get_mut(slot as usize) {
            *place = Slot { serial: place.serial.wrapping_add(1).max(1), worker: Some(Box::new(worker)) };
            self.names.insert(name, slot);
        }
        slot
    }

    /// Forgets who did least lately, and long ago, of those who are not mining. Strangers first, whether they are connected or not, many at
    /// once, and that now and then: a thousand names cost no more than one. Who finds no place meanwhile is asked for again with its first
    /// accepted submit. Whether there is room now.
    fn make_room(&mut self, now: Now) -> bool {
        if now.mono < self.room {
            return false;
        }
        self.room = now.mono + ROOM_EVERY;
        let mut idle: Vec<(f64, u32, &Name)> = Vec::new();
        for (name, slot) in &self.names {
            let Some(worker) = self.slots.get(*slot as usize).and_then(|slot| slot.worker.as_ref()) else { continue };
            match &worker.rates {
                None => idle.push((0.0, worker.tally.first_seen, name)),
                Some(_) if worker.connected > 0 => {}
                Some(rates) => idle.push((rates.lately(now.mono).max(f64::MIN_POSITIVE), worker.tally.last_share, name)),
            }
        }
        idle.sort_unstable_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
        let strangers = idle.iter().take_while(|(lately, ..)| *lately == 0.0).count();
        let forgotten: Vec<Name> = idle.iter().take((strangers / 2).max(1)).map(|(.., name)| (*name).clone()).collect();
        for name in &forgotten {
            let Some(slot) = self.names.remove(name) else { continue };
            self.free.push(slot);
            let worker = self.slots.get_mut(slot as usize).and_then(|slot| slot.worker.take());
            // While the disk hangs no more are noted than a start finds too many and deletes.
            if worker.is_some_and(|worker| worker.rates.is_some()) && self.gone.len() < WORKERS_KEPT {
                self.gone.push(delete_worker(&name.0, &name.1));
            }
        }
        !forgotten.is_empty()
    }

    fn get_mut(&mut self, id: WorkerId) -> Option<&mut Worker> {
        let slot = self.slots.get_mut(id.0 as u32 as usize)?;
        slot.worker.as_deref_mut().filter(|_| u64::from(slot.serial) == id.0 >> SERIAL_SHIFT)
    }
}

/// What is counted of accepted submits.
trait Counts {
    fn accept(&mut self, unix: u32, submit: &Accepted);
}

impl Counts for Tally {
    fn accept(&mut self, unix: u32, submit: &Accepted) {
        self.accepted += 1;
        self.shares = self.shares.saturating_add(u32::from(submit.share));
        self.best = self.best.max(submit.achieved);
        self.last_share = unix;
    }
}

/// The first submit begins the observation.
fn count(rates: &mut Option<Rates>, now: Duration, hashes: f64) {
    match rates {
        Some(rates) => rates.add(now, hashes),
        None => *rates = Some(Rates::new(now)),
    }
}

/// What of a worker's name counts.
fn cut(name: &str) -> &str {
    let end = (0..=name.len().min(WORKER_NAME_BYTES)).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    &name[..end]
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
