//! Services that portfolios are collected from, a file each: functions that make calls and read answers, and do neither themselves.
//!
//! An answer is a stranger's word. What it says of something that was not asked is passed over; what cannot be so refuses all of it.

pub mod bitcoin;
pub mod coingecko;
pub mod evm;
pub mod miners;
pub mod okx;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use rockpool_workers::outside::call::{Call, CallError, Headers, Service, What};
use serde_json::Value;

use crate::limits::{OUTSIDE_ANSWER_BYTES, OUTSIDE_TRY_MAX};

/// A call over HTTP of the usual size, which changes nothing.
fn http(service: Service, endpoint: &Arc<str>, url: String, headers: Headers, body: Option<String>) -> Call {
    let what = What::Http { url, headers, body };
    Call { service, endpoint: endpoint.clone(), what, idempotent: true, deadline: OUTSIDE_TRY_MAX, bytes_max: OUTSIDE_ANSWER_BYTES }
}

/// No header lines beside the usual ones.
fn no_headers() -> Headers {
    Arc::new(|_| Vec::new())
}

fn json(bytes: &[u8]) -> Result<Value, CallError> {
    serde_json::from_slice(bytes).map_err(|error| garbled(&format!("no JSON: {error}")))
}

fn garbled(why: &str) -> CallError {
    CallError::Garbled(why.to_owned())
}

/// A text of a service, for people to read: short and in one line.
fn said(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(120).collect()
}
