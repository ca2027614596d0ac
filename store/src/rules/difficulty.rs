//! Difficulty: ASERT that forgets debt (SPEC, DIFF-4 to DIFF-7, TIME-1).

use ruint::Uint;
use ruint::aliases::U256;

use crate::limits::{HARDER_MAX_LOG2, MEDIAN_SPAN};
use crate::params::Params;
use crate::record::Record;
use crate::rules::target::{compact, is_canonical, target};

/// DIFF-4: how far the chain runs ahead of its schedule after a share that comes `dt` seconds after its parent.
pub fn lead(params: &Params, parent_lead: u32, dt: i64) -> u32 {
    let lead = i64::from(parent_lead) + i64::from(params.interval_s) - dt;
    lead.clamp(0, i64::from(params.lead_max_s)) as u32
}

/// DIFF-5: the easiest target that the child of `parent` may have at `time`, compact.
pub fn allowed_bits(params: &Params, parent: &Record, time: u32) -> u32 {
    let dt = i64::from(time) - i64::from(parent.time);
    let eased = i64::from(parent.lead) - (dt - i64::from(params.easing_s)).max(0);
    let floor = target(params.floor_bits).unwrap_or(U256::ONE);
    compact(halved(floor, eased.max(0) as u64, u64::from(params.half_life_s)))
}

/// `floor` × 2^(−lead / half_life) by the cubic of aserti3, never above `floor`.
fn halved(floor: U256, lead: u64, half_life: u64) -> U256 {
    // −exponent in 1/65,536, rounded up: harder on rounding. exponent = −shifts + fraction/65,536.
    let negated = (lead << 16).div_ceil(half_life);
    let shifts = negated.div_ceil(1 << 16);
    let fraction = u128::from((shifts << 16) - negated);
    // 65,536 × 2^(fraction/65,536); the sum stays below 2⁶⁵ and the factor below 2¹⁷.
    let cubic = 195_766_423_245_049 * fraction + 971_821_376 * fraction.pow(2) + 5_127 * fraction.pow(3) + (1 << 47);
    let factor = 65_536 + (cubic >> 48);
    let wide: Uint<320, 5> = Uint::from(floor) * Uint::from(factor);
    let eased = wide >> (16 + shifts as usize);
    // The factor is at most 2 where at least one half is shifted away, so it fits; a target of zero does not exist.
    eased.saturating_to::<U256>().max(U256::ONE)
}

/// DIFF-6: whether a share may have these bits where `allowed` is the easiest: canonical, at most `allowed`, and not harder than a
/// sixteenth of it as far as a compact number can say.
pub fn bits_in_range(bits: u32, allowed: u32) -> bool {
    let (Some(own), Some(easiest)) = (target(bits), target(allowed)) else { return false };
    is_canonical(bits) && own <= easiest && target(hardest_bits(allowed)).is_none_or(|hardest| own >= hardest)
}

/// The hardest bits that a share may choose where `allowed` is the easiest.
pub fn hardest_bits(allowed: u32) -> u32 {
    compact(target(allowed).unwrap_or(U256::ZERO) >> HARDER_MAX_LOG2)
}

/// TIME-1: the time that a share's must exceed: the median of the times of its newest ancestors, its parent first, [`MEDIAN_SPAN`] of
/// them or as many as there are. Of an even number the later middle one.
pub fn median_time(newest: &[u32]) -> u32 {
    let mut times = newest[..newest.len().min(MEDIAN_SPAN)].to_vec();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or(0)
}

/// TIME-2: whether a share is held back for its time, however right it is otherwise.
pub fn too_new(params: &Params, time: u32, now_unix: u32) -> bool {
    time > now_unix.saturating_add(params.time_ahead_max_s)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::params::{Network, params};
    use crate::rules::target::work;
    use crate::rules::{child, score};
    use rand_chacha::ChaCha12Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    /// A chain of nothing but times and leads, mined at a hash rate, second by second.
    struct Mined {
        parent: Record,
        /// Seconds since the start, with their fractions.
        now: f64,
        rng: ChaCha12Rng,
    }

    impl Mined {
        fn new(lead: u32) -> Mined {
            let genesis = params(Network::Main).genesis_record();
            Mined { parent: Record { lead, time: 1_800_000_000, ..genesis }, now: 0.0, rng: ChaCha12Rng::seed_from_u64(7) }
        }

        /// Mines the next share at `rate` hashes a second; false if none is found by `end`.
        fn next(&mut self, rate: f64, end: f64) -> bool {
            let params = params(Network::Main);
            let mut wanted = -(1.0 - f64::from(self.rng.next_u32()) / 4_294_967_296.0).ln();
            while self.now < end {
                let time = 1_800_000_000 + self.now as u32;
                let step = (self.now.floor() + 1.0 - self.now).min(end - self.now).max(1e-6);
                let chance = rate / work(allowed_bits(params, &self.parent, time)) as f64;
                if wanted <= chance * step {
                    self.now += wanted / chance;
                    let derived = child(params, &self.parent, time);
                    self.parent = Record { height: derived.height, lead: derived.lead, time, ..self.parent.clone() };
                    return true;
                }
                wanted -= chance * step;
                self.now += step;
            }
            false
        }
    }

    #[test]
    fn from_1_eh_to_3_th_a_chain_recovers_within_4_hours() {
        let mut chain = Mined::new(0);
        while chain.next(1e18, 86_400.0) {}
        assert!(chain.parent.lead > 12_000, "1 EH/s have not settled: {}", chain.parent.lead);
        let left = chain.now;
        let mut newest = vec![left];
        // Recovered: the last ten shares took less than 200 s.
        while newest.len() < 11 || newest[newest.len() - 1] - newest[newest.len() - 11] >= 200.0 {
            assert!(chain.next(3e12, left + 4.0 * 3_600.0), "not recovered after {} s and {} shares", chain.now - left, newest.len());
            newest.push(chain.now);
        }
        assert!(chain.now - left < 4.0 * 3_600.0);
    }

    #[test]
    fn a_year_idle_and_then_1_ph_makes_at_most_1_100_shares_in_the_first_hour() {
        let mut chain = Mined::new(5_000);
        chain.now = 365.25 * 86_400.0;
        let end = chain.now + 3_600.0;
        let mut shares = 0;
        while chain.next(1e15, end) {
            shares += 1;
        }
        assert!((500..=1_100).contains(&shares), "{shares} shares in the first hour");
    }

    #[test]
    fn steady_hash_rate_gives_a_share_every_ten_seconds() {
        let mut chain = Mined::new(0);
        while chain.next(1e15, 20_000.0) {}
        let before = chain.parent.height;
        while chain.next(1e15, 120_000.0) {}
        let interval = 100_000.0 / f64::from(chain.parent.height - before);
        assert!((9.7..10.3).contains(&interval), "{interval} s");
    }

    #[test]
    fn the_cubic_is_a_power_of_two() {
        let floor = U256::ONE << 250;
        for (half_life, leads) in [(600, 0..7_000), (10, 0..1_500)] {
            let mut last = floor;
            for lead in leads {
                let target = halved(floor, lead, half_life);
                let exact = 2f64.powf(-(lead as f64) / half_life as f64);
                let ratio = f64::from(target) / f64::from(floor) / exact;
                assert!((ratio - 1.0).abs() < 2e-4, "lead {lead} of {half_life}: {ratio}");
                assert!(target <= last, "lead {lead} of {half_life} is easier than the one before");
                last = target;
            }
        }
        assert_eq!(halved(floor, 0, 600), floor);
        assert_eq!(halved(floor, 600, 600), floor >> 1);
        assert_eq!(halved(floor, 90_000, 600), floor >> 150);
        assert_eq!(halved(floor, u64::from(u32::MAX), 1), U256::ONE);
    }

    /// Worked out from the sentence with Python's integers.
    #[test]
    fn allowed_targets_are_these_to_the_last_bit() {
        let main = [
            (1, 0x1b3f_ecc0),
            (7, 0x1b3f_7c20),
            (299, 0x1b2d_4d72),
            (601, 0x1b1f_f660),
            (6_690, 0x1a07_35ec),
            (12_680, 0x1901_d2d8),
            (89_999, 0x0901_004a),
        ];
        let regtest = [(1, 0x2077_70bf), (3, 0x2067_f8bf), (5, 0x205a_807f), (17, 0x2027_653f), (1_499, 0x0e02_24cd)];
        let all = main.map(|vector| (Network::Main, vector)).into_iter().chain(regtest.map(|vector| (Network::Regtest, vector)));
        for (network, (lead, bits)) in all {
            let params = params(network);
            let parent = Record { lead, ..params.genesis_record() };
            assert_eq!(allowed_bits(params, &parent, parent.time), bits, "lead {lead} on {network}");
        }
    }

    #[test]
    fn allowed_targets_of_main() {
        let params = params(Network::Main);
        let at =
            |lead, dt: i64| allowed_bits(params, &Record { lead, time: 1_000_000, ..params.genesis_record() }, (1_000_000 + dt) as u32);
        assert_eq!(at(0, 10), 0x1b3f_ffc0);
        assert_eq!(at(600, 10), 0x1b1f_ffe0);
        assert_eq!(at(600, 300), 0x1b1f_ffe0);
        // Eased by the second from 300 s on; never beyond the floor.
        assert_eq!(at(1_200, 900), 0x1b1f_ffe0);
        assert_eq!(at(600, 900), 0x1b3f_ffc0);
        assert_eq!(at(600, 100_000), 0x1b3f_ffc0);
        assert!(target(at(600, 301)) > target(at(600, 300)));
        // A time before the parent's is not eased.
        assert_eq!(at(600, -5_000), 0x1b1f_ffe0);
        assert!(target(at(90_000, 0)).is_some());
    }

    #[test]
    fn lead_grows_by_the_interval_and_is_forgotten() {
        let params = params(Network::Main);
        assert_eq!(lead(params, 0, 0), 10);
        assert_eq!(lead(params, 100, 4), 106);
        assert_eq!(lead(params, 100, 400), 0);
        assert_eq!(lead(params, 100, -30), 140);
        assert_eq!(lead(params, 89_999, 0), 90_000);
        assert_eq!(lead(params, 90_000, i64::from(i32::MIN)), 90_000);
        assert_eq!(lead(params, 0, i64::from(u32::MAX)), 0);
    }

    #[test]
    fn bits_reach_from_allowed_to_a_sixteenth() {
        for allowed in [0x207f_ffff, 0x1b3f_ffc0, 0x1b04_04cb, 0x1700_8001, 0x0312_3456, 0x0101_0000] {
            let hardest = hardest_bits(allowed);
            assert!(bits_in_range(allowed, allowed));
            if target(hardest).is_some() {
                assert!(bits_in_range(hardest, allowed), "{hardest:08x} of {allowed:08x}");
                let sixteenth = target(allowed).unwrap() >> HARDER_MAX_LOG2;
                assert!(target(hardest).unwrap() <= sixteenth && work(hardest) >= work(allowed).saturating_mul(15));
                let step: U256 = target(hardest).unwrap() >> 15usize;
                let harder = compact(target(hardest).unwrap() - step.max(U256::ONE));
                assert!(!bits_in_range(harder, allowed), "{harder:08x} of {allowed:08x}");
            }
        }
        assert!(!bits_in_range(0x1b40_0000, 0x1b3f_ffc0), "easier");
        assert!(!bits_in_range(0x1c00_3fff, 0x1b3f_ffc0), "not canonical");
        assert!(!bits_in_range(0, 0x1b3f_ffc0), "no target");
    }

    #[test]
    fn a_sibling_one_percent_harder_does_not_displace() {
        let params = params(Network::Main);
        let parent = Record { lead: 5_000, score: 1 << 70, time: 1_000_000, ..params.genesis_record() };
        let derived = child(params, &parent, 1_000_010);
        let allowed = target(derived.allowed_bits).unwrap();
        let harder = compact(allowed / U256::from(101) * U256::from(100));
        assert!(bits_in_range(harder, derived.allowed_bits) && work(harder) > derived.demand);
        assert!(!score::displaces(derived.score(harder), derived.score(derived.allowed_bits)));
        // One twice as hard does.
        let twice = compact(allowed >> 1usize);
        assert!(score::displaces(derived.score(twice), derived.score(harder)));
    }

    #[test]
    fn the_median_is_of_eleven_or_of_all() {
        assert_eq!(median_time(&[]), 0);
        assert_eq!(median_time(&[5]), 5);
        assert_eq!(median_time(&[5, 9]), 9);
        assert_eq!(median_time(&[9, 5, 7]), 7);
        // The twelfth is not looked at.
        assert_eq!(median_time(&[20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 0]), 25);
    }

    #[test]
    fn a_time_is_held_only_beyond_120_seconds() {
        let params = params(Network::Main);
        assert!(!too_new(params, 1_120, 1_000) && too_new(params, 1_121, 1_000));
        assert!(!too_new(params, u32::MAX, u32::MAX - 5));
    }
}
