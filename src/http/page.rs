//! `GET /`: the essentials on one small page, for a phone too. Nothing from outside, no script.

use std::fmt::Write;
use std::time::Duration;

use crate::http::trouble;
use crate::status::Facts;

/// The page. It loads itself again every few seconds.
pub fn render(facts: Facts<'_>) -> String {
    let status = facts.status;
    let state =
        trouble(facts).map_or_else(|| "<p class=ok>Miners are served.</p>".into(), |why| format!("<p class=bad>{}</p>", escape(&why)));
    let mut rows = String::new();
    let mut row = |name: &str, value: String| {
        // Writing to a String does not fail.
        let _ = write!(rows, "<tr><th>{name}<td>{}", escape(&value));
    };
    row("Share chain", format!("height {}", status.tip.height));
    row("Tip", status.tip.id.to_string());
    if status.candidate_height > status.tip.height {
        row("Being confirmed", format!("up to height {}", status.candidate_height));
    }
    if let Some(height) = status.claimed_height {
        row("A peer claims", format!("height {height}"));
    }
    row("Bitcoin", status.bitcoin.map_or_else(|| "unknown".into(), |(tip, height)| format!("height {height}, {tip}")));
    row("Peers", status.peers.to_string());
    row("Miners", status.miners.to_string());
    row("Submits", format!("{} accepted, {} refused", status.accepted, status.rejected));
    for block in status.blocks.iter().rev() {
        row("Block found", format!("height {}, {}", block.height, block.hash));
    }
    if let Some(addr) = status.listen.stratum {
        row("Miners connect to", format!("stratum+tcp://{addr}"));
    }
    row("Running for", duration(status.uptime));
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <meta http-equiv=refresh content=5><title>Rockpool {network}</title><style>\
         body{{font:16px/1.4 system-ui,sans-serif;margin:1em auto;max-width:46em;padding:0 1em;color-scheme:light dark}}\
         th{{text-align:left;vertical-align:top;padding-right:1em;white-space:nowrap}}td{{overflow-wrap:anywhere}}\
         .ok{{color:#2a7d2a}}.bad{{color:#c02020}}</style>\
         <h1>Rockpool</h1><p>{network}, version {version}</p>{state}<table>{rows}</table>\
         <p><a href=/api/v1/status>status</a> <a href=/api/v1/payouts>payouts</a> <a href=/metrics>metrics</a></p></html>\n",
        network = escape(status.network),
        version = escape(status.version),
    )
}

/// Text that strangers may have had a hand in, made harmless.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn duration(time: Duration) -> String {
    let s = time.as_secs();
    match s {
        0..60 => format!("{s} s"),
        60..3_600 => format!("{} min", s / 60),
        3_600..86_400 => format!("{} h {} min", s / 3_600, s / 60 % 60),
        _ => format!("{} d {} h", s / 86_400, s / 3_600 % 24),
    }
}
