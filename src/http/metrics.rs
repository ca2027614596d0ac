//! `GET /metrics`: the tables of counters in Prometheus' text format. Names and units follow its conventions: base units, which stand at
//! the end, sums end in `_total`; labels come from fixed sets, so that nobody can make the page longer.

use std::fmt::Write;

use rockpool_net::counters::{CounterRow, Kind};
use rockpool_net::hub::io::Stage;
use rockpool_net::id::Lane;
use rockpool_net::limits::tickets;
use rockpool_net::times::Histogram;

use crate::http::services;
use crate::limits::{HTTP_CONNS_MAX, MINERS_MAX};
use crate::status::Facts;
use crate::{logging, process};

/// Rows of tables that are one family each: how their names begin, without which label they would differ, and what the family tells.
const LABELS: &[(&str, &[&str], &str, &str)] = &[
    ("closed", &[], "reason", "Connections that ended, by reason."),
    ("frames", &["peer", "stratum", "http", "bitcoin"], "lane", "Messages, lines and requests cut, by lane."),
    ("tickets", &["peer", "stratum", "http", "bitcoin"], "lane", "Tickets that are out, by lane."),
    ("files_level", &[], "level", "Table files, by level."),
];

/// A family's head.
pub(crate) fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn gauge(text: &mut String, name: &str, help: &str, value: impl std::fmt::Display) {
    family(text, name, "gauge", help);
    let _ = writeln!(text, "{name} {value}");
}

/// All counters, and the levels that an alarm is set on or a picture is drawn of.
pub fn render(facts: Facts<'_>) -> String {
    let mut text = String::with_capacity(48 << 10);
    let status = facts.status;
    family(&mut text, "rockpool_build_info", "gauge", "The version of this node, its network, and whom its blocks pay; always 1.");
    let (version, network, mode) = (status.version, status.network, status.mode.name());
    let _ = writeln!(text, "rockpool_build_info{{version=\"{version}\",network=\"{network}\",mode=\"{mode}\"}} 1");
    for (name, help, value) in [
        ("rockpool_tip_height", "Height of the confirmed tip.", u64::from(status.tip.height)),
        ("rockpool_candidate_height", "Height of the candidate tip.", u64::from(status.candidate_height)),
        ("rockpool_claimed_height", "Height that a peer claims and we have not, else 0.", status.claimed_height.map_or(0, u64::from)),
        (
            "rockpool_bitcoin_height",
            "Height of the Bitcoin block that is built on.",
            status.bitcoin.map_or(0, |(_, height)| u64::from(height)),
        ),
        ("rockpool_bitcoin_down", "1 while bitcoind cannot be reached.", u64::from(status.bitcoin_down.is_some())),
        ("rockpool_bitcoin_peers", "Bitcoin nodes whose handshake is done.", status.bitcoin_peers.len() as u64),
        ("rockpool_disk_full", "1 while the disk is full.", u64::from(status.disk_full)),
        ("rockpool_healthy", "1 while /health says ok.", u64::from(super::trouble(facts).is_none())),
        ("rockpool_peers", "Peers whose handshake is done.", status.peers as u64),
        ("rockpool_book_new", "Addresses in the book that the node was told of.", status.book.0 as u64),
        ("rockpool_book_tried", "Addresses in the book that the node has been connected to.", status.book.1 as u64),
        ("rockpool_miners", "Miners that have authorised.", status.miners as u64),
        ("rockpool_miners_max", "Miners that may be connected at once.", MINERS_MAX as u64),
        ("rockpool_http_conns_max", "HTTP connections that there may be at once.", HTTP_CONNS_MAX as u64),
        ("rockpool_uptime_seconds", "Seconds since the start.", status.uptime.as_secs()),
    ] {
        gauge(&mut text, name, help, value);
    }
    table(&mut text, "rockpool", facts.counters.rows());
    table(&mut text, "rockpool_net", facts.net.rows());
    table(&mut text, "rockpool_store", facts.chain.store.gauges().map_or_else(Vec::new, |gauges| gauges.rows()));
    bounds(&mut text, facts);
    services::metrics(&mut text, &facts.status.services);
    family(
        &mut text,
        "rockpool_log_lines_lost_total",
        "counter",
        "Lines of the log lost: its reader was too slow, or one place said too much.",
    );
    let _ = writeln!(text, "rockpool_log_lines_lost_total {}", logging::lost());
    for figure in process::figures().into_iter().flatten() {
        family(&mut text, figure.name, figure.kind, figure.help);
        let _ = writeln!(text, "{} {}", figure.name, figure.value);
    }
    histograms(
        &mut text,
        "turn_seconds",
        "What the reactor's turns took, the wait for events apart.",
        &[(String::new(), facts.times.turns())],
    );
    let stages = Stage::ALL.map(|stage| (format!("stage=\"{}\",", stage.name()), facts.times.stage(stage)));
    histograms(&mut text, "stage_seconds", "What the stages of the reactor's turns took; poll is the wait for events.", &stages);
    text
}

/// How full what is bounded may become.
fn bounds(text: &mut String, facts: Facts<'_>) {
    let name = "rockpool_net_tickets_max";
    family(text, name, "gauge", "Tickets that may be out at once, by lane.");
    for lane in Lane::ALL {
        let _ = writeln!(text, "{name}{{lane=\"{}\"}} {}", lane_name(lane), tickets(lane).0);
    }
    let queues = &facts.status.queues;
    if queues.is_empty() {
        return;
    }
    family(text, "rockpool_queue_depth", "gauge", "Messages that wait for a stage.");
    for queue in queues {
        let _ = writeln!(text, "rockpool_queue_depth{{queue=\"{}\"}} {}", queue.name, queue.depth);
    }
    family(text, "rockpool_queue_slots", "gauge", "Messages that a stage's queue has room for.");
    for queue in queues {
        let _ = writeln!(text, "rockpool_queue_slots{{queue=\"{}\"}} {}", queue.name, queue.slots);
    }
}

fn lane_name(lane: Lane) -> &'static str {
    match lane {
        Lane::Peer => "peer",
        Lane::Stratum => "stratum",
        Lane::Http => "http",
        Lane::Bitcoin => "bitcoin",
    }
}

/// The rows of a table. Those of one family stand together in it.
pub(crate) fn table(text: &mut String, prefix: &str, rows: Vec<CounterRow>) {
    let mut last = "";
    for row in rows {
        let kind = if row.kind == Kind::Sum { "counter" } else { "gauge" };
        match labelled(row.name) {
            Some((of, label, help, value)) => {
                let total = if row.kind == Kind::Sum { "_total" } else { "" };
                if of != last {
                    family(text, &format!("{prefix}_{of}{total}"), kind, help);
                }
                let _ = writeln!(text, "{prefix}_{of}{total}{{{label}=\"{value}\"}} {}", row.value);
                last = of;
            }
            None => {
                let name = format!("{prefix}_{}", row.metric());
                family(text, &name, kind, row.help);
                let _ = writeln!(text, "{name} {}", row.value);
                last = "";
            }
        }
    }
}

/// The family that a row is of, if it is one of several: its name, the label, what the family tells, and the label's value.
fn labelled(name: &'static str) -> Option<(&'static str, &'static str, &'static str, &'static str)> {
    LABELS.iter().find_map(|(of, values, label, help)| {
        let value = name.strip_prefix(of)?.strip_prefix('_')?;
        (values.is_empty() || values.contains(&value)).then_some((*of, *label, *help, value))
    })
}

/// A family of histograms, each with its labels.
fn histograms(text: &mut String, name: &str, help: &str, of: &[(String, &Histogram)]) {
    family(text, &format!("rockpool_net_{name}"), "histogram", help);
    for (labels, histogram) in of {
        let mut count = 0;
        for (bucket, n) in histogram.buckets().into_iter().enumerate() {
            count += n;
            let bound = Histogram::bound_us(bucket).map_or("+Inf".to_owned(), |us| format!("{}", us as f64 / 1e6));
            let _ = writeln!(text, "rockpool_net_{name}_bucket{{{labels}le=\"{bound}\"}} {count}");
        }
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.trim_end_matches(',')) };
        let sum = histogram.sum().as_secs_f64();
        let _ = writeln!(text, "rockpool_net_{name}_sum{labels} {sum}\nrockpool_net_{name}_count{labels} {count}");
    }
}

#[cfg(test)]
#[path = "tests/exposition.rs"]
pub(crate) mod exposition;
