//! Services outside: how the node asks them, for people and for Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write;

use rockpool_workers::outside::Gauges;
use serde_json::json;

use crate::http::metrics::family;
use crate::http::reply::Reply;

/// `/api/v1/services`.
pub fn list(services: &[Gauges]) -> Reply {
    let service = |of: &Gauges| {
        json!({
            "name": of.service.name(),
            "in_flight": of.in_flight,
            "in_flight_max": of.limits.in_flight,
            "delay_ms": of.limits.delay.as_millis() as u64,
            "waiting": of.waiting,
            "calls": of.calls.iter().copied().collect::<BTreeMap<_, _>>(),
            "open": of.open,
        })
    };
    Reply::json(&json!({ "list": services.iter().map(service).collect::<Vec<_>>() }))
}

/// A figure of a service.
type Figure = fn(&Gauges) -> usize;

/// The same on the page of metrics.
pub(crate) fn metrics(text: &mut String, services: &[Gauges]) {
    if services.is_empty() {
        return;
    }
    let calls = "rockpool_outside_calls_total";
    family(text, calls, "counter", "Calls of services outside that ended, by what they came to.");
    for of in services {
        for (outcome, count) in of.calls {
            let _ = writeln!(text, "{calls}{{service=\"{}\",outcome=\"{outcome}\"}} {count}", of.service.name());
        }
    }
    let rows: [(&str, &str, Figure); 4] = [
        ("in_flight", "Calls of services outside that are under way.", |of| of.in_flight),
        ("in_flight_max", "Calls that may be under way at once.", |of| of.limits.in_flight),
        ("waiting", "Calls that wait for their turn.", |of| of.waiting),
        ("open", "Endpoints that fail and are left alone for a while.", |of| of.open),
    ];
    for (name, help, figure) in rows {
        family(text, &format!("rockpool_outside_{name}"), "gauge", help);
        for of in services {
            let _ = writeln!(text, "rockpool_outside_{name}{{service=\"{}\"}} {}", of.service.name(), figure(of));
        }
    }
}
