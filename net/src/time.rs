//! The one notion of time that pure code knows: it is given, never read.

use std::time::Duration;

/// The moment at which something happens, handed down from the shell that owns the clock.
///
/// Timers go by `mono`, consensus rules by `wall`, so that a clock step cuts nobody and a simulation can step one alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Time since the process started. Never goes back; stands still while the machine sleeps.
    pub mono: Duration,
    /// Time since the Unix epoch, as the machine's calendar clock tells it. May step.
    pub wall: Duration,
}

impl Now {
    /// Unix time in whole seconds, as headers and shares carry it. Saturates in the year 2106.
    pub fn unix(&self) -> u32 {
        u32::try_from(self.wall.as_secs()).unwrap_or(u32::MAX)
    }
}
