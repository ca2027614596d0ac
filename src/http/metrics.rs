//! `GET /metrics`: the tables of counters in Prometheus' text format.

use std::fmt::Write;

use rockpool_net::counters::CounterRow;
use rockpool_net::hub::io::Stage;
use rockpool_net::times::Histogram;

use crate::status::Facts;

/// All counters and the few levels that an alarm is set on.
pub fn render(facts: Facts<'_>) -> String {
    let mut text = String::with_capacity(32 << 10);
    let status = facts.status;
    for (name, help, value) in [
        ("tip_height", "Height of the confirmed tip.", u64::from(status.tip.height)),
        ("candidate_height", "Height of the candidate tip.", u64::from(status.candidate_height)),
        ("claimed_height", "Height that a peer claims and we have not, else 0.", status.claimed_height.map_or(0, u64::from)),
        ("bitcoin_height", "Height of the Bitcoin block that is built on.", status.bitcoin.map_or(0, |(_, height)| u64::from(height))),
        ("bitcoin_down", "1 while bitcoind cannot be reached.", u64::from(status.bitcoin_down.is_some())),
        ("bitcoin_peers", "Bitcoin nodes whose handshake is done.", status.bitcoin_peers.len() as u64),
        ("disk_full", "1 while the disk is full.", u64::from(status.disk_full)),
        ("healthy", "1 while /health says ok.", u64::from(super::trouble(facts).is_none())),
        ("peers", "Peers whose handshake is done.", status.peers as u64),
        ("book_new", "Addresses in the book that the node was told of.", status.book.0 as u64),
        ("book_tried", "Addresses in the book that the node has been connected to.", status.book.1 as u64),
        ("miners", "Miners that have authorised.", status.miners as u64),
        ("uptime_seconds", "Seconds since the start.", status.uptime.as_secs()),
    ] {
        row(&mut text, "rockpool", "gauge", CounterRow { name, unit: "", help, value });
    }
    // The tables hold sums and levels alike, so their type is left open.
    facts.counters.rows().into_iter().for_each(|counter| row(&mut text, "rockpool", "untyped", counter));
    facts.net.rows().into_iter().for_each(|counter| row(&mut text, "rockpool_net", "untyped", counter));
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

/// A family of histograms, each with its labels.
fn histograms(text: &mut String, name: &str, help: &str, family: &[(String, &Histogram)]) {
    let _ = writeln!(text, "# HELP rockpool_net_{name} {help}\n# TYPE rockpool_net_{name} histogram");
    for (labels, histogram) in family {
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

fn row(text: &mut String, prefix: &str, kind: &str, row: CounterRow) {
    let CounterRow { name, unit, help, value } = row;
    let unit = if unit.is_empty() { String::new() } else { format!(" [{unit}]") };
    // Writing to a String does not fail.
    let _ = writeln!(text, "# HELP {prefix}_{name} {help}{unit}\n# TYPE {prefix}_{name} {kind}\n{prefix}_{name} {value}");
}
