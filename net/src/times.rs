//! What turns take: a histogram of whole turns and of each stage, and the slowest turns with what they did.
//!
//! One thread writes, any thread reads. Waiting for events is a stage of its own and no part of a turn's time.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::hub::TurnReport;
use crate::hub::io::Stage;

/// Slowest turns that are kept.
pub const SLOW_TURNS: usize = 64;
/// Powers of two of microseconds that a histogram tells apart: the last is everything from 4 s.
pub const BUCKETS: usize = 24;

/// What each stage of one turn took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageTimes {
    nanos: [u64; Stage::ALL.len()],
}

impl StageTimes {
    /// What one stage took.
    pub fn of(&self, stage: Stage) -> Duration {
        Duration::from_nanos(self.nanos[stage as usize])
    }

    /// What the turn took, the wait for events apart.
    pub fn busy(&self) -> Duration {
        Duration::from_nanos(self.nanos.iter().sum::<u64>()).saturating_sub(self.of(Stage::Poll))
    }

    /// A stage took so long, once more.
    pub fn add(&mut self, stage: Stage, time: Duration) {
        self.nanos[stage as usize] += time.as_nanos() as u64;
    }
}

/// One of the slowest turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowTurn {
    /// When it began, monotonic time.
    pub began: Duration,
    /// What its stages took.
    pub times: StageTimes,
    /// What it did.
    pub report: TurnReport,
}

/// How often something took how long.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    nanos: AtomicU64,
}

impl Histogram {
    /// How many took under 1, 2, 4 … microseconds, each not under the bound before; the last: all others.
    pub fn buckets(&self) -> [u64; BUCKETS] {
        std::array::from_fn(|bucket| self.buckets[bucket].load(Relaxed))
    }

    /// Microseconds below which a bucket's times lie; none for the last.
    pub fn bound_us(bucket: usize) -> Option<u64> {
        (bucket + 1 < BUCKETS).then(|| 1 << bucket)
    }

    /// The sum of all times.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Relaxed))
    }

    fn record(&self, time: Duration) {
        let us = time.as_micros() as u64;
        let bucket = (u64::BITS - us.leading_zeros()) as usize;
        let bucket = &self.buckets[bucket.min(BUCKETS - 1)];
        bucket.store(bucket.load(Relaxed) + 1, Relaxed);
        self.nanos.store(self.nanos.load(Relaxed) + time.as_nanos() as u64, Relaxed);
    }
}

/// The account of all turns.
#[derive(Debug, Default)]
pub struct Times {
    turns: Histogram,
    stages: [Histogram; Stage::ALL.len()],
    /// Slowest first. Taken by the reactor for a turn slower than the last of them only, and by readers for a copy.
    slow: Mutex<Vec<SlowTurn>>,
    /// What a turn has to take to be among them, nanoseconds.
    threshold: AtomicU64,
}

impl Times {
    /// Whole turns.
    pub fn turns(&self) -> &Histogram {
        &self.turns
    }

    /// One stage of all turns.
    pub fn stage(&self, stage: Stage) -> &Histogram {
        &self.stages[stage as usize]
    }

    /// The slowest turns, slowest first.
    pub fn slowest(&self) -> Vec<SlowTurn> {
        self.slow.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A turn is over.
    pub fn record(&self, turn: SlowTurn) {
        let busy = turn.times.busy();
        self.turns.record(busy);
        for (stage, histogram) in Stage::ALL.into_iter().zip(&self.stages) {
            histogram.record(turn.times.of(stage));
        }
        if busy.as_nanos() as u64 <= self.threshold.load(Relaxed) {
            return;
        }
        let mut slow = self.slow.lock().unwrap_or_else(PoisonError::into_inner);
        let place = slow.partition_point(|other| other.times.busy() >= busy);
        slow.insert(place, turn);
        slow.truncate(SLOW_TURNS);
        if slow.len() == SLOW_TURNS {
            self.threshold.store(slow[SLOW_TURNS - 1].times.busy().as_nanos() as u64, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(stage: Stage, time: Duration) -> SlowTurn {
        let mut times = StageTimes::default();
        times.add(stage, time);
        SlowTurn { began: Duration::ZERO, times, report: TurnReport::default() }
    }

    #[test]
    fn times_are_sorted_into_powers_of_two() {
        let times = Times::default();
        for us in [0, 1, 2, 3, 4, u64::from(u32::MAX)] {
            times.record(turn(Stage::Write, Duration::from_micros(us)));
        }
        let buckets = times.stage(Stage::Write).buckets();
        assert_eq!((&buckets[..4], buckets[BUCKETS - 1]), (&[1, 1, 2, 1][..], 1));
        assert_eq!((times.turns().buckets(), times.stage(Stage::Read).buckets()[0]), (buckets, 6));
        assert_eq!(times.turns().sum(), Duration::from_micros(10 + u64::from(u32::MAX)));
        assert_eq!((Histogram::bound_us(0), Histogram::bound_us(2), Histogram::bound_us(BUCKETS - 1)), (Some(1), Some(4), None));
    }

    #[test]
    fn the_slowest_turns_are_kept_and_waiting_is_no_slowness() {
        let times = Times::default();
        for us in 0..1_000u64 {
            // A permutation of 0..1000, so that slow turns come in no order.
            let mut turn = turn(Stage::Dispatch, Duration::from_micros(us * 617 % 1_000));
            turn.times.add(Stage::Poll, Duration::from_secs(9));
            times.record(turn);
        }
        let slowest: Vec<u128> = times.slowest().iter().map(|turn| turn.times.busy().as_micros()).collect();
        assert_eq!(slowest, (1_000 - SLOW_TURNS as u128..1_000).rev().collect::<Vec<_>>());
    }
}
