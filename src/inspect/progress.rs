//! How far long work is, told on standard error: in place on a terminal, else by a line now and then.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::limits::{METER_LINE_EVERY, METER_TERMINAL_EVERY};
use crate::peer::minutes;

/// Tells how far work is, until it is dropped.
pub struct Meter {
    begun: Instant,
    pace: Pace,
}

/// When it is told, and how.
struct Pace {
    what: &'static str,
    terminal: bool,
    told: Option<Duration>,
}

impl Meter {
    /// Begins. `what` is counted and done: "rows checked".
    #[expect(clippy::disallowed_methods, reason = "a program of its own, which tells a person how long it will take")]
    pub fn new(what: &'static str) -> Meter {
        Meter { begun: Instant::now(), pace: Pace { what, terminal: io::stderr().is_terminal(), told: None } }
    }

    /// So much is done, of about so much.
    pub fn tell(&mut self, done: u64, of: u64) {
        if let Some(text) = self.pace.line(self.begun.elapsed(), done, of) {
            // Whoever cannot read it does not need it.
            let _ = io::stderr().write_all(text.as_bytes());
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if self.pace.terminal && self.pace.told.is_some() {
            let _ = io::stderr().write_all(b"\r\x1b[K");
        }
    }
}

impl Pace {
    /// What is to be written after so long, if it is time.
    fn line(&mut self, elapsed: Duration, done: u64, of: u64) -> Option<String> {
        let every = if self.terminal { METER_TERMINAL_EVERY } else { METER_LINE_EVERY };
        if elapsed < self.told.unwrap_or_default() + every {
            return None;
        }
        self.told = Some(elapsed);
        let left = of.saturating_sub(done);
        let seconds = elapsed.as_secs_f64() * left as f64 / done.max(1) as f64;
        let percent = 100.0 * done as f64 / of.max(1) as f64;
        let text = format!("{done} of about {of} {} ({percent:.0} %), {} left", self.what, minutes(seconds.ceil() as u64));
        Some(if self.terminal { format!("\r{text}\x1b[K") } else { format!("{text}\n") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(terminal: bool) -> Pace {
        Pace { what: "rows checked", terminal, told: None }
    }

    #[test]
    fn a_file_gets_a_line_now_and_then() {
        let mut pace = pace(false);
        assert_eq!(pace.line(METER_LINE_EVERY / 2, 1, 100), None);
        assert_eq!(pace.line(METER_LINE_EVERY, 20, 100), Some("20 of about 100 rows checked (20 %), 40 s left\n".into()));
        assert_eq!(pace.line(METER_LINE_EVERY * 3 / 2, 30, 100), None);
        let last = pace.line(METER_LINE_EVERY * 3, 1, 1_000);
        assert_eq!(last, Some("1 of about 1000 rows checked (0 %), 500 min left\n".into()));
    }

    #[test]
    fn a_terminal_gets_one_line_that_moves() {
        let mut pace = pace(true);
        assert_eq!(pace.line(Duration::ZERO, 1, 2), None, "work that is short is not worth a word");
        let said = pace.line(METER_TERMINAL_EVERY, 50, 100);
        assert!(said.is_some_and(|said| said.starts_with("\r50 of about 100 ") && said.ends_with("left\x1b[K")));
        assert_eq!(pace.line(METER_TERMINAL_EVERY, 60, 100), None);
        // Neither nothing nor too much done is divided by.
        assert!(pace.line(METER_TERMINAL_EVERY * 2, 0, 0).is_some() && pace.line(METER_TERMINAL_EVERY * 3, 9, 5).is_some());
    }
}
