//! Figures made of many measured times, and the clocks that measure.

use std::fs;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::report::Figure;

/// A figure with a goal.
pub fn goal(name: &str, value: f64, unit: &'static str, goal: f64) -> Figure {
    Figure { name: name.to_owned(), value, unit, goal: Some(goal) }
}

/// A figure without one.
pub fn info(name: &str, value: f64, unit: &'static str) -> Figure {
    Figure { name: name.to_owned(), value, unit, goal: None }
}

/// Times of one thing done many times.
#[derive(Default)]
pub struct Times(Vec<Duration>);

impl Times {
    /// Does it once more, and measures.
    pub fn of<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let begin = clock();
        let done = std::hint::black_box(work());
        self.0.push(begin.elapsed());
        done
    }

    /// One that was measured otherwise.
    pub fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// The time that this part of all stay within: 0.5 is the median, 1 the longest. Microseconds.
    pub fn us(&mut self, part: f64) -> f64 {
        self.0.sort_unstable();
        let at = (self.0.len() as f64 * part) as usize;
        self.0.get(at.min(self.0.len().saturating_sub(1))).map_or(0.0, |time| time.as_secs_f64() * 1e6)
    }

    /// The mean, microseconds.
    pub fn mean_us(&self) -> f64 {
        self.0.iter().sum::<Duration>().as_secs_f64() * 1e6 / self.0.len().max(1) as f64
    }
}

/// This moment.
#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
pub fn clock() -> Instant {
    Instant::now()
}

/// Time that this thread has spent on a processor.
pub fn thread_cpu() -> Outcome<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(Duration::from_nanos(text.split(' ').next().ok_or("no schedstat")?.parse()?))
}

/// Memory of a process, bytes: resident, of that its own, of that of files; the most that was ever resident.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub rss: f64,
    pub anon: f64,
    pub file: f64,
    pub peak: f64,
}

impl Memory {
    /// Of a process, or `self`.
    pub fn of(pid: &str) -> Outcome<Memory> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let bytes = |name: &str| -> Outcome<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such line in status")?;
            Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0)
        };
        Ok(Memory { rss: bytes("VmRSS:")?, anon: bytes("RssAnon:")?, file: bytes("RssFile:")?, peak: bytes("VmHWM:")? })
    }
}
