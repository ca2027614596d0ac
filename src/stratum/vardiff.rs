//! Variable difficulty: about one accepted submit every three seconds, up as well as down, with hysteresis.

use std::time::Duration;

use crate::limits::{DIFFICULTY_MAX, DIFFICULTY_MIN};
use crate::stratum::difficulty::rounded;

/// Submits a second that are aimed at.
const RATE: f64 = 0.3;
/// Between these rates nothing changes.
const RATE_KEPT: std::ops::Range<f64> = 0.15..0.4;
/// Submits after which the rate is judged …
const SUBMITS: u32 = 72;
/// … or after this time, whichever is first.
const PERIOD: Duration = Duration::from_secs(240);
/// A burst is judged sooner: so many submits …
const BURST: u32 = 16;
/// … at so many times the rate aimed at.
const BURST_RATIO: f64 = 8.0;
/// Silence after which the difficulty falls without a submit.
const SILENCE: Duration = Duration::from_secs(30);
/// Most that one step changes, up and down. Sixteen submits say little about a rate, silence even less.
const UP: f64 = 16.0;
const DOWN: f64 = 4.0;

/// The difficulty of one miner.
#[derive(Clone, Debug)]
pub struct Vardiff {
    /// What it is given, before the share chain's own target bounds it.
    current: f64,
    /// What it never falls below: `d=` in the password.
    floor: f64,
    /// What the device cannot work below.
    least: f64,
    /// What the miner asked for last.
    suggested: Option<f64>,
    /// When the period under judgement began.
    since: Duration,
    /// Difficulty of the submits accepted in it, summed.
    sum: f64,
    /// Their count.
    submits: u32,
}

impl Vardiff {
    /// A miner of which nothing is known.
    pub fn new(now: Duration, start: f64) -> Vardiff {
        Vardiff { current: start, floor: DIFFICULTY_MIN, least: DIFFICULTY_MIN, suggested: None, since: now, sum: 0.0, submits: 0 }
    }

    /// The difficulty that the next job should have.
    pub fn current(&self) -> f64 {
        self.current
    }

    /// The miner asks to begin here. Asking for the same again changes nothing, wherever it was led meanwhile: NerdMiners do every 30 s.
    pub fn suggest(&mut self, now: Duration, difficulty: f64) {
        if self.suggested.replace(difficulty) == Some(difficulty) {
            return;
        }
        let difficulty = difficulty.max(self.floor);
        if difficulty != self.current {
            self.restart(now, difficulty);
        }
    }

    /// The owner asks never to go below this, and to begin here.
    pub fn hold(&mut self, now: Duration, difficulty: f64) {
        self.floor = difficulty.max(self.least);
        self.restart(now, self.floor);
    }

    /// The device says that it cannot work below this.
    pub fn at_least(&mut self, now: Duration, difficulty: f64) {
        (self.least, self.floor) = (difficulty, self.floor.max(difficulty));
        if self.current < self.floor {
            self.restart(now, self.floor);
        }
    }

    /// The miner was away: its silence says nothing.
    pub fn resume(&mut self, now: Duration) {
        self.restart(now, self.current);
    }

    /// The time of the next look if no submit comes.
    pub fn due(&self) -> Duration {
        self.since + if self.submits == 0 { SILENCE } else { PERIOD }
    }

    /// A submit was accepted. Whether the difficulty changed.
    pub fn accepted(&mut self, now: Duration, difficulty: f64) -> bool {
        self.sum += difficulty;
        self.submits = self.submits.saturating_add(1);
        let elapsed = now.saturating_sub(self.since);
        let burst = self.submits >= BURST && f64::from(self.submits) > RATE * BURST_RATIO * elapsed.as_secs_f64();
        (burst || self.submits >= SUBMITS || elapsed >= PERIOD) && self.judge(now, elapsed)
    }

    /// A submit came that earns nothing, yet the miner is not silent: easier work would only bring more of the same.
    pub fn not_silent(&mut self, now: Duration) {
        if self.submits == 0 {
            self.since = now;
        }
    }

    /// Time has passed. Whether the difficulty changed. `used` is what the miner works at: where the share chain's own target bounds it
    /// below ours, silence says something about that one only.
    pub fn tick(&mut self, now: Duration, used: f64) -> bool {
        let elapsed = now.saturating_sub(self.since);
        if self.submits == 0 && elapsed >= SILENCE {
            return self.change(now, self.current.min(used) / DOWN);
        }
        elapsed >= PERIOD && self.judge(now, elapsed)
    }

    fn judge(&mut self, now: Duration, elapsed: Duration) -> bool {
        let work_rate = self.sum / elapsed.as_secs_f64().max(0.001);
        if RATE_KEPT.contains(&(work_rate / self.current)) {
            self.restart(now, self.current);
            return false;
        }
        self.change(now, (work_rate / RATE).clamp(self.current / DOWN, self.current * UP))
    }

    fn change(&mut self, now: Duration, wanted: f64) -> bool {
        let before = self.current;
        self.restart(now, rounded(wanted.clamp(self.floor, DIFFICULTY_MAX)));
        self.current != before
    }

    fn restart(&mut self, now: Duration, difficulty: f64) {
        (self.current, self.since, self.sum, self.submits) = (difficulty, now, 0.0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::DIFFICULTY_START;

    /// A device of this many hashes a second, without luck, for so long. Returns the difficulty and the submits of the last 300 s.
    fn run(vardiff: &mut Vardiff, rate: f64, seconds: u64) -> (f64, u32) {
        let (mut work, mut last) = (0.0, 0);
        // In steps of 10 ms, or a fast device's first second would be one step.
        for step in 1..=seconds * 100 {
            let now = Duration::from_millis(step * 10);
            work += rate * 0.01 / 4_294_901_760.0;
            while work >= vardiff.current() {
                work -= vardiff.current();
                last += u32::from(step > seconds.saturating_sub(300) * 100);
                vardiff.accepted(now, vardiff.current());
            }
            if now >= vardiff.due() {
                vardiff.tick(now, vardiff.current());
            }
        }
        (vardiff.current(), last)
    }

    #[test]
    fn a_fast_device_is_led_up() {
        let mut vardiff = Vardiff::new(Duration::ZERO, DIFFICULTY_START);
        let (difficulty, submits) = run(&mut vardiff, 1e12, 900);
        // 1 TH/s at 0.3 a second is difficulty 776.
        assert!((580.0..1553.0).contains(&difficulty), "{difficulty}");
        assert!((45..=120).contains(&submits), "{submits}");
    }

    #[test]
    fn a_slow_device_is_led_down_in_minutes() {
        let mut vardiff = Vardiff::new(Duration::ZERO, DIFFICULTY_START);
        let (difficulty, submits) = run(&mut vardiff, 60e3, 900);
        assert!((3e-5..1e-4).contains(&difficulty), "{difficulty}");
        assert!((45..=120).contains(&submits), "{submits}");
    }

    #[test]
    fn the_floor_holds_and_a_held_difficulty_too() {
        let mut vardiff = Vardiff::new(Duration::ZERO, DIFFICULTY_START);
        assert_eq!(run(&mut vardiff, 0.0, 3600), (DIFFICULTY_MIN, 0));
        vardiff.hold(Duration::ZERO, 64.0);
        assert_eq!(run(&mut vardiff, 0.0, 3600), (64.0, 0));
        vardiff.suggest(Duration::ZERO, 1.0);
        assert_eq!(vardiff.current(), 64.0);
    }

    #[test]
    fn a_steady_rate_changes_nothing() {
        let mut vardiff = Vardiff::new(Duration::ZERO, 1000.0);
        for submit in 1..500 {
            assert!(!vardiff.accepted(Duration::from_secs(4 * submit), 1000.0));
            assert!(!vardiff.tick(Duration::from_secs(4 * submit + 1), 1000.0));
        }
        assert_eq!(vardiff.current(), 1000.0);
    }

    #[test]
    fn a_miner_that_is_not_silent_is_not_led_down_as_if_it_were() {
        let mut vardiff = Vardiff::new(Duration::ZERO, 1.0);
        let (almost, silence) = (SILENCE - Duration::from_secs(1), SILENCE);
        vardiff.not_silent(almost);
        assert!(!vardiff.tick(silence, 1.0));
        assert_eq!(vardiff.due(), almost + silence);
        assert!(vardiff.tick(almost + silence, 1.0));
        // While submits are counted, the period is theirs.
        vardiff.accepted(2 * silence, vardiff.current());
        let due = vardiff.due();
        vardiff.not_silent(3 * silence);
        assert_eq!(vardiff.due(), due);
    }

    #[test]
    fn no_device_is_led_below_what_it_can() {
        let mut vardiff = Vardiff::new(Duration::ZERO, 1.0);
        vardiff.at_least(Duration::ZERO, 2_048.0);
        assert_eq!(vardiff.current(), 2_048.0);
        vardiff.suggest(Duration::ZERO, 16.0);
        vardiff.hold(Duration::ZERO, 100.0);
        for silence in 1..20 {
            vardiff.tick(silence * SILENCE, vardiff.current());
        }
        assert_eq!(vardiff.current(), 2_048.0);
        // The owner's floor stays, whichever is said first.
        vardiff.hold(Duration::ZERO, 4_096.0);
        vardiff.at_least(Duration::ZERO, 512.0);
        assert!(!vardiff.tick(SILENCE, 4_096.0));
        assert_eq!(vardiff.current(), 4_096.0);
    }

    #[test]
    fn who_was_away_goes_on_where_it_was() {
        let mut vardiff = Vardiff::new(Duration::ZERO, 1_000.0);
        vardiff.resume(20 * SILENCE);
        assert_eq!((vardiff.current(), vardiff.due()), (1_000.0, 21 * SILENCE));
        assert!(!vardiff.tick(20 * SILENCE, 1_000.0));
    }

    #[test]
    fn the_same_suggestion_again_does_not_restart_the_period() {
        let mut vardiff = Vardiff::new(Duration::ZERO, 1.0);
        vardiff.suggest(Duration::from_secs(1), 0.000_15);
        let due = vardiff.due();
        vardiff.suggest(Duration::from_secs(20), 0.000_15);
        assert_eq!(vardiff.due(), due);
        assert!(vardiff.tick(Duration::from_secs(60), 0.000_15) && vardiff.current() < 0.000_15);
        let led = vardiff.current();
        vardiff.suggest(Duration::from_secs(61), 0.000_15);
        assert_eq!(vardiff.current(), led, "what it was led to is not undone every 30 s");
        vardiff.suggest(Duration::from_secs(62), 0.001);
        assert_eq!(vardiff.current(), 0.001);
    }
}
