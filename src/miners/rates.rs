//! Hash rates by what miners submit: decaying averages, right from the second submit on.
//!
//! A submit of difficulty D stands for D × 2³² hashes. Each counts less the older it is, by exp(−age / window), so a sum over all of them
//! divided by the window tends to the rate of a miner that never changes. Of one that began a while ago that is too little, by the part of
//! the weights that lies before its beginning: the sum is divided by window × (1 − exp(−observed / window)) instead, all the weight there
//! can be. With this correction the mean of every window is the true rate, however short the miner has been there.

use std::time::Duration;

use rockpool_net::time::Now;
use rockpool_store::figures::{RATE_WINDOWS, RateSums};

use crate::limits::{RATE_FOLD, RATE_SETTLES_S};

/// Hashes that a submit of difficulty 1 stands for.
pub const HASHES: f64 = 4_294_967_296.0;

/// Hashes a second over the windows.
pub type Rate = [f64; RATE_WINDOWS];

/// The windows: names and seconds.
pub const WINDOWS: [(&str, f64); RATE_WINDOWS] =
    [("1m", 60.0), ("5m", 300.0), ("15m", 900.0), ("1h", 3_600.0), ("6h", 21_600.0), ("1d", 86_400.0), ("7d", 604_800.0)];

/// The window of five minutes: what is shown where there is room for one number.
pub const SHORT: usize = 1;
/// The window of an hour: what is expected follows from it.
pub const HOUR: usize = 3;
/// The window of a week: who did how much lately.
pub const WEEK: usize = 6;

/// The hash rates of one worker. Time is monotonic, so that a step of the clock changes none of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Rates {
    /// Hashes up to `at`, weighted by their age.
    sums: [f64; RATE_WINDOWS],
    /// Hashes since: they are weighted once a second and not with every submit.
    fresh: f64,
    at: Duration,
    /// Seconds of observation before `at`.
    observed: f64,
}

impl Rates {
    /// The first submit has come: it begins the observation, and what it stands for was done before.
    pub fn new(now: Duration) -> Rates {
        Rates { sums: [0.0; RATE_WINDOWS], fresh: 0.0, at: now, observed: 0.0 }
    }

    /// These many hashes were done.
    pub fn add(&mut self, now: Duration, hashes: f64) {
        if now >= self.at + RATE_FOLD {
            let age = self.age(now);
            for (sum, (_, window)) in self.sums.iter_mut().zip(WINDOWS) {
                *sum = (*sum + self.fresh) * (-age / window).exp();
            }
            (self.fresh, self.at, self.observed) = (0.0, now, self.observed + age);
        }
        self.fresh += hashes;
    }

    /// Hashes a second over each window.
    pub fn rate(&self, now: Duration) -> Rate {
        let age = self.age(now);
        let observed = (self.observed + age).max(RATE_SETTLES_S);
        let mut rates = self.sums;
        for (rate, (_, window)) in rates.iter_mut().zip(WINDOWS) {
            // 1 − exp(−x), exactly for small x too.
            *rate = (*rate + self.fresh) * (-age / window).exp() / (window * -(-observed / window).exp_m1());
        }
        rates
    }

    /// Hashes of about the last week, those of long ago counted less: how little would be lost by forgetting it.
    pub fn lately(&self, now: Duration) -> f64 {
        (self.sums[WEEK] + self.fresh) * (-self.age(now) / WINDOWS[WEEK].1).exp()
    }

    /// As it is kept on disk.
    pub fn sums(&self, now: Now) -> RateSums {
        let age = self.age(now.mono);
        let mut sums = self.sums;
        for (sum, (_, window)) in sums.iter_mut().zip(WINDOWS) {
            *sum = (*sum + self.fresh) * (-age / window).exp();
        }
        RateSums { sums, observed: self.observed + age, at: now.unix() }
    }

    /// As it was kept: the time in between was observed too, and nothing came.
    pub fn of(kept: &RateSums, now: Now) -> Rates {
        let away = f64::from(now.unix().saturating_sub(kept.at));
        let mut sums = kept.sums;
        for (sum, (_, window)) in sums.iter_mut().zip(WINDOWS) {
            *sum *= (-away / window).exp();
        }
        Rates { sums, fresh: 0.0, at: now.mono, observed: kept.observed + away }
    }

    fn age(&self, now: Duration) -> f64 {
        now.saturating_sub(self.at).as_secs_f64()
    }
}

/// Rates of two, taken together.
pub fn sum(one: &mut Rate, other: &Rate) {
    one.iter_mut().zip(other).for_each(|(one, other)| *one += other);
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha12Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::*;

    const DAY: f64 = 86_400.0;

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn now(seconds: f64) -> Now {
        Now { mono: at(seconds), wall: at(seconds) + Duration::from_secs(1_700_000_000) }
    }

    /// A miner whose submits come as chance has them, so many a second, each worth one.
    fn mine(rates: &mut Rates, rng: &mut ChaCha12Rng, (from, to): (f64, f64), often: f64) {
        let mut time = from;
        loop {
            let uniform = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
            time -= (1.0 - uniform).ln() / often;
            if time >= to {
                return;
            }
            rates.add(at(time), 1.0);
        }
    }

    /// Of the estimate's variance: ∫ w(age)² / (∫ w(age))², for `often` submits a second, is its square relative to the rate.
    fn deviation(window: f64, observed: f64, often: f64) -> f64 {
        let squares = window / 2.0 * (1.0 - (-2.0 * observed / window).exp());
        squares.sqrt() / (window * (1.0 - (-observed / window).exp())) / often.sqrt()
    }

    /// However short a miner has been there, every window shows its rate, as exactly as chance lets it, and in the mean over many miners
    /// far more so.
    #[test]
    fn every_window_shows_the_true_rate_from_the_beginning_on() {
        for (observed, often) in [(60.0, 1.0), (600.0, 0.3), (5_000.0, 0.3), (2.0 * DAY, 0.01), (30.0 * DAY, 0.01), (40.0, 50.0)] {
            let miners = 200u32;
            let mut mean = [0.0; RATE_WINDOWS];
            for seed in 0..miners {
                let mut rates = Rates::new(at(77.0));
                mine(&mut rates, &mut ChaCha12Rng::seed_from_u64(seed.into()), (77.0, 77.0 + observed), often);
                let shown = rates.rate(at(77.0 + observed));
                for (window, (shown, (name, seconds))) in shown.iter().zip(WINDOWS).enumerate() {
                    let bound = 6.0 * deviation(seconds, observed, often);
                    assert!((shown / often - 1.0).abs() < bound.max(0.01), "{name} after {observed} s: {shown} of {often}, ±{bound}");
                    mean[window] += shown / f64::from(miners);
                }
            }
            for (mean, (name, seconds)) in mean.iter().zip(WINDOWS) {
                // What is weighted once a second is up to a second old: half a second in a window's time.
                let bound = 5.0 * deviation(seconds, observed, often) / f64::from(miners).sqrt() + 0.6 * RATE_FOLD.as_secs_f64() / seconds;
                assert!((mean / often - 1.0).abs() < bound, "{name} after {observed} s: {mean} of {often} in the mean, ±{bound}");
            }
        }
    }

    #[test]
    fn who_has_left_is_forgotten_window_by_window() {
        let mut rates = Rates::new(at(0.0));
        mine(&mut rates, &mut ChaCha12Rng::seed_from_u64(1), (0.0, 30.0 * DAY), 0.1);
        for (index, (_, window)) in WINDOWS.into_iter().enumerate() {
            let gone = at(30.0 * DAY + 10.0 * window);
            assert!(rates.rate(gone)[index] < 0.1 * 1e-4, "ten windows later");
        }
        assert!(rates.rate(at(3_650.0 * DAY)).iter().all(|rate| *rate < 1e-9));
        assert!(rates.lately(at(365.0 * DAY)) > 0.0, "and yet more than who never did anything");
    }

    #[test]
    fn a_restart_changes_nothing() {
        let (mut through, mut rng) = (Rates::new(at(0.0)), ChaCha12Rng::seed_from_u64(2));
        mine(&mut through, &mut rng, (0.0, 1_000.0), 0.5);
        let kept = through.sums(now(1_000.0));
        // The new process' monotonic clock begins anew.
        let wall = now(1_500.0).wall;
        let again = Rates::of(&kept, Now { mono: at(3.0), wall });
        for (one, other) in through.rate(at(1_510.0)).iter().zip(again.rate(at(13.0))) {
            assert!((one / other - 1.0).abs() < 1e-9, "{one} and {other}");
        }
        // A clock that was set back meanwhile: as if no time had passed.
        let back = Rates::of(&kept, Now { mono: at(3.0), wall: now(500.0).wall });
        assert!(back.rate(at(3.0)).iter().zip(through.rate(at(1_000.0))).all(|(one, other)| (one / other - 1.0).abs() < 1e-9));
    }

    #[test]
    fn the_first_seconds_show_no_giant() {
        let mut rates = Rates::new(at(5.0));
        assert_eq!(rates.rate(at(5.0)), [0.0; RATE_WINDOWS]);
        rates.add(at(5.001), 1_000.0);
        assert!(rates.rate(at(5.001)).iter().all(|rate| *rate > 90.0 && *rate < 110.0 * RATE_SETTLES_S / 10.0), "not a million");
        let numbers = rates.rate(at(5.0 + 1e9));
        assert!(numbers.iter().all(|rate| rate.is_finite()));
    }
}
