//! What turns take: a histogram per stage, and the slowest turns.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::hub::io::Stage;

/// Slowest turns that are kept.
const SLOW_TURNS: usize = 64;
/// Powers of two of microseconds that a histogram tells apart: the last is everything from 8 s.
const BUCKETS: usize = 24;

/// Microseconds of each stage of one turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageTimes {
    us: [u64; Stage::ALL.len()],
}

impl StageTimes {
    /// Microseconds of one stage.
    pub fn of(&self, stage: Stage) -> u64 {
        self.us[stage as usize]
    }

    /// Microseconds of the turn, the wait for events apart.
    pub fn busy(&self) -> u64 {
        self.us.iter().sum::<u64>() - self.of(Stage::Poll)
    }

    pub(super) fn add(&mut self, stage: Stage, time: Duration) {
        self.us[stage as usize] += time.as_micros() as u64;
    }
}

/// One of the slowest turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowTurn {
    /// When it began, monotonic time.
    pub began: Duration,
    /// What its stages took.
    pub times: StageTimes,
}

/// The account of all turns.
#[derive(Debug, Default)]
pub struct Times {
    histograms: [[AtomicU64; BUCKETS]; Stage::ALL.len()],
    /// Slowest first. Taken by the reactor for a turn slower than the last of them only, and by readers for a copy.
    slow: Mutex<Vec<SlowTurn>>,
    threshold: AtomicU64,
}

impl Times {
    /// How many turns' stage took under 1, 2, 4 … microseconds, each less than the bucket before it.
    pub fn histogram(&self, stage: Stage) -> [u64; BUCKETS] {
        std::array::from_fn(|bucket| self.histograms[stage as usize][bucket].load(Relaxed))
    }

    /// The slowest turns, slowest first.
    pub fn slowest(&self) -> Vec<SlowTurn> {
        self.slow.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn record(&self, began: Duration, times: &StageTimes) {
        for stage in Stage::ALL {
            let bucket = (u64::BITS - times.of(stage).leading_zeros()) as usize;
            self.histograms[stage as usize][bucket.min(BUCKETS - 1)].fetch_add(1, Relaxed);
        }
        let busy = times.busy();
        if busy <= self.threshold.load(Relaxed) {
            return;
        }
        let mut slow = self.slow.lock().unwrap_or_else(PoisonError::into_inner);
        let place = slow.partition_point(|turn| turn.times.busy() >= busy);
        slow.insert(place, SlowTurn { began, times: *times });
        slow.truncate(SLOW_TURNS);
        if slow.len() == SLOW_TURNS {
            self.threshold.store(slow[SLOW_TURNS - 1].times.busy(), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_sorted_into_powers_of_two() {
        let times = Times::default();
        for us in [0, 1, 2, 3, 4, u64::from(u32::MAX)] {
            let mut turn = StageTimes::default();
            turn.add(Stage::Write, Duration::from_micros(us));
            times.record(Duration::ZERO, &turn);
        }
        let histogram = times.histogram(Stage::Write);
        assert_eq!((histogram[..4].to_vec(), histogram[BUCKETS - 1]), (vec![1, 1, 2, 1], 1));
        assert_eq!(times.histogram(Stage::Read)[0], 6);
    }

    #[test]
    fn the_slowest_turns_are_kept_and_waiting_is_no_slowness() {
        let times = Times::default();
        for us in 0..1_000u64 {
            let mut turn = StageTimes::default();
            // A permutation of 0..1000, so that slow turns come in no order.
            turn.add(Stage::Dispatch, Duration::from_micros(us * 617 % 1_000));
            turn.add(Stage::Poll, Duration::from_secs(9));
            times.record(Duration::from_micros(us), &turn);
        }
        let slowest: Vec<u64> = times.slowest().iter().map(|turn| turn.times.busy()).collect();
        assert_eq!(slowest, (1_000 - SLOW_TURNS as u64..1_000).rev().collect::<Vec<_>>());
    }
}
