//! `GET /metrics`: the tables of counters in Prometheus' text format.

use std::fmt::Write;

use rockpool_net::counters::CounterRow;

use crate::status::Facts;

/// All counters and the few levels that an alarm is set on.
pub fn render(facts: Facts<'_>) -> String {
    let mut text = String::with_capacity(16 << 10);
    let status = facts.status;
    for (name, help, value) in [
        ("tip_height", "Height of the confirmed tip.", u64::from(status.tip.height)),
        ("candidate_height", "Height of the candidate tip.", u64::from(status.candidate_height)),
        ("claimed_height", "Height that a peer claims and we have not, else 0.", status.claimed_height.map_or(0, u64::from)),
        ("bitcoin_height", "Height of the Bitcoin block that is built on.", status.bitcoin.map_or(0, |(_, height)| u64::from(height))),
        ("bitcoin_down", "1 while bitcoind cannot be reached.", u64::from(status.bitcoin_down.is_some())),
        ("disk_full", "1 while the disk is full.", u64::from(status.disk_full)),
        ("healthy", "1 while /health says ok.", u64::from(super::trouble(facts).is_none())),
        ("peers", "Peers whose handshake is done.", status.peers as u64),
        ("miners", "Miners that have authorised.", status.miners as u64),
        ("uptime_seconds", "Seconds since the start.", status.uptime.as_secs()),
    ] {
        row(&mut text, "rockpool", "gauge", CounterRow { name, unit: "", help, value });
    }
    // The tables hold sums and levels alike, so their type is left open.
    facts.counters.rows().into_iter().for_each(|counter| row(&mut text, "rockpool", "untyped", counter));
    facts.net.rows().into_iter().for_each(|counter| row(&mut text, "rockpool_net", "untyped", counter));
    text
}

fn row(text: &mut String, prefix: &str, kind: &str, row: CounterRow) {
    let CounterRow { name, unit, help, value } = row;
    let unit = if unit.is_empty() { String::new() } else { format!(" [{unit}]") };
    // Writing to a String does not fail.
    let _ = writeln!(text, "# HELP {prefix}_{name} {help}{unit}\n# TYPE {prefix}_{name} {kind}\n{prefix}_{name} {value}");
}
