//! Figures, and the clock that measures.

use std::time::Instant;

use crate::report::Figure;

/// A figure with a goal.
pub fn goal(name: String, value: f64, unit: &'static str, goal: f64) -> Figure {
    Figure { name, value, unit, goal: Some(goal) }
}

/// A figure without one.
pub fn info(name: String, value: f64, unit: &'static str) -> Figure {
    Figure { name, value, unit, goal: None }
}

/// This moment.
#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
pub fn clock() -> Instant {
    Instant::now()
}
