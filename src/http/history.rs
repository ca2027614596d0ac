//! The points of charts as the API tells of them.

use serde::Serialize;

use crate::http::miners::rounded;
use crate::http::reply::Reply;
use crate::http::routes::Asked;
use crate::miners::Miners;
use crate::miners::charts::SPANS;

/// `GET /api/v1/history`.
#[derive(Serialize)]
pub struct History {
    span: &'static str,
    step_s: u32,
    /// The time of the oldest point; null while there is none.
    from: Option<u32>,
    /// Time, own rate, the pool's rate, miners, submits accepted and rejected. Steps in which the node did not run have no point.
    points: Vec<(u32, f64, f64, f64, u32, u32)>,
}

/// The points of a chart, oldest first. They are in memory.
pub fn history(asked: &Asked<'_>, miners: &Miners) -> Reply {
    let place = SPANS.iter().position(|span| Some(span.name) == asked.text("span")).unwrap_or(0);
    let points = miners.charts().points(place);
    let points: Vec<_> = points
        .map(|point| {
            let miners = (point.miners * 100.0).round() / 100.0;
            (point.time, rounded(point.own), rounded(point.pool), miners, point.accepted, point.rejected)
        })
        .collect();
    Reply::json(&History { span: SPANS[place].name, step_s: SPANS[place].step_s, from: points.first().map(|point| point.0), points })
}
