//! `rockpool miners`: who mines how fast, how lucky, and how often refused.

use std::io::Write;
use std::time::Duration;

use rockpool_net::time::Now;
use rockpool_store::figures::FigureRows;
use serde_json::Value;

use super::{Place, asked, begin, print, to_json, word};
use crate::exit::Failure;
use crate::http::blocks::date;
use crate::http::miners as told;
use crate::limits::PEERS_LISTED_MAX;
use crate::miners::Miners;
use crate::stratum::request::login;

/// Lists addresses, the fastest first, or the workers of one. Of a directory what was written last is told.
pub fn miners(of: &Place, address: Option<&str>, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let body = match of {
        Place::Node(addr) => asked(*addr, &address.map_or("/api/v1/miners".to_owned(), |of| format!("/api/v1/miners/{}", escaped(of))))?,
        Place::Rows { kv, dir } => {
            let (params, _) = begin(&**kv, dir)?;
            let rows = FigureRows::open(&**kv)?;
            let last = rows.workers.iter().map(|row| row.rates.at).max().unwrap_or(0);
            let now = Now { mono: Duration::ZERO, wall: Duration::from_secs(last.into()) };
            let mut miners = Miners::open(rows, now);
            miners.look(now, None, 0);
            let (page, all) = ((0, PEERS_LISTED_MAX), miners.addresses(now.mono));
            match address {
                None => to_json(&told::all(&miners, (&all, &miners.together(now.mono)), params, None, page))?,
                Some(address) => {
                    let (script, _) = login(address, params.network).map_err(Failure::Mistake)?;
                    let one = all.iter().find(|of| of.script == script);
                    let one = one.ok_or_else(|| Failure::Mistake("nobody has mined for this address here".into()))?;
                    to_json(&told::told(one, &miners.of_address(now.mono, &script, page), &told::Here::new(), params))?
                }
            }
        }
    };
    print(&body, json, if address.is_some() { describe_one } else { describe }, out)
}

/// What a user typed, in a path.
fn escaped(text: &str) -> String {
    let escaped = |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02x}") };
    text.bytes().map(escaped).collect()
}

fn describe(all: &Value) -> String {
    let empty = Vec::new();
    let list = all["list"].as_array().unwrap_or(&empty);
    let width = list.iter().map(|miner| word(&miner["address"]).len()).max().unwrap_or(0).max("all together".len());
    let mut text = row(width, &["address"], HEADS) + &row(width, &["all together"], figures(&all["totals"]));
    for miner in list {
        text += &row(width, &[word(&miner["address"])], figures(miner));
    }
    let more = all["miners"].as_u64().unwrap_or(0).saturating_sub(list.len() as u64);
    if more > 0 {
        text += &format!("and {more} more\n");
    }
    text
}

fn describe_one(one: &Value) -> String {
    let empty = Vec::new();
    let workers = one["list_workers"].as_array().unwrap_or(&empty);
    let named = |worker: &Value| if word(&worker["name"]).is_empty() { "(no name)".to_owned() } else { word(&worker["name"]).to_owned() };
    let width = workers.iter().map(|worker| named(worker).chars().count()).max().unwrap_or(0).max("all together".len());
    let mut text = format!("{}\n", word(&one["address"]));
    text += &row(width, &["worker"], HEADS);
    text += &row(width, &["all together"], figures(one));
    for worker in workers {
        text += &row(width, &[&named(worker)], figures(worker));
    }
    let more = one["workers"].as_u64().unwrap_or(0).saturating_sub(workers.len() as u64);
    if more > 0 {
        text += &format!("and {more} more\n");
    }
    text
}

const HEADS: [&str; 7] = ["15 min", "1 hour", "1 day", "accepted", "refused", "best ever", "last share, UTC"];

fn row<T: AsRef<str>>(width: usize, first: &[&str; 1], cells: [T; 7]) -> String {
    let [rate, hour, day, accepted, refused, best, last] = cells.each_ref().map(AsRef::as_ref);
    format!("{:<width$}  {rate:>9}  {hour:>9}  {day:>9}  {accepted:>9}  {refused:>8}  {best:>9}  {last}\n", first[0])
}

fn figures(of: &Value) -> [String; 7] {
    let rate = |window: &str| scaled(of["rates"][window].as_f64().unwrap_or(0.0), "H/s");
    let refused: u64 = of["rejected"].as_object().into_iter().flat_map(|reasons| reasons.values()).filter_map(Value::as_u64).sum();
    let accepted = of["accepted"].as_u64().unwrap_or(0);
    let part = if refused == 0 { "0".to_owned() } else { format!("{:.1} %", 100.0 * refused as f64 / (refused + accepted) as f64) };
    let last = of["last_share"].as_u64().map_or("-".to_owned(), date);
    [rate("15m"), rate("1h"), rate("1d"), accepted.to_string(), part, scaled(of["best_ever"].as_f64().unwrap_or(0.0), ""), last]
}

/// Three digits and a prefix.
fn scaled(value: f64, unit: &str) -> String {
    let prefixes = ["", "k", "M", "G", "T", "P", "E", "Z", "Y"];
    let (mut value, mut prefix) = (value, 0);
    // What would be shown as 1000 is one of the next.
    while value >= 999.5 && prefix + 1 < prefixes.len() {
        (value, prefix) = (value / 1_000.0, prefix + 1);
    }
    let digits = if value == 0.0 || value >= 99.95 { 0 } else { usize::from(value < 9.995) + 1 };
    format!("{value:.digits$} {}{unit}", prefixes[prefix]).trim_end().to_owned()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use rockpool_net::wire::share::Script;
    use rockpool_store::kv::{Kv, MemKv};
    use rockpool_store::params::{Network, params};
    use rockpool_store::schema;

    use super::*;
    use crate::miners::Accepted;

    #[test]
    fn numbers_have_three_digits_and_a_prefix() {
        let shown = [0.0, 0.5, 12.34, 999.4, 999.6, 1_234_567.0, 9.996e12, 99.96e15, 1e30].map(|value| scaled(value, "H/s"));
        assert_eq!(shown, ["0 H/s", "0.50 H/s", "12.3 H/s", "999 H/s", "1.00 kH/s", "1.23 MH/s", "10.0 TH/s", "100 PH/s", "1000000 YH/s"]);
        assert_eq!((scaled(4.29e9, ""), scaled(12.0, "")), ("4.29 G".to_owned(), "12.0".to_owned()));
    }

    #[test]
    fn a_directory_tells_what_was_written_last() {
        let kv = Arc::new(MemKv::new());
        schema::open(&*kv, params(Network::Regtest), "d").unwrap();
        let at = |seconds: u64| Now { mono: Duration::from_secs(seconds), wall: Duration::from_secs(1_700_000_000 + seconds) };
        let mut miners = Miners::default();
        for (script, name) in [
            (Script::P2wpkh([1; 20]), "rig"),
            (Script::P2wpkh([1; 20]), "\u{1b}[2J"),
            (Script::P2wpkh([1; 20]), ""),
            (Script::P2tr([2; 32]), "slow"),
        ] {
            let id = miners.arrive(at(0), &script, name);
            let difficulty = if name == "slow" { 1.0 } else { 1_000.0 };
            for second in 0..600 {
                miners.accepted(at(second), id, Accepted { difficulty, achieved: 5e6, share: false });
            }
            miners.rejected(id, rockpool_workers::jobs::SubmitRefusal::Stale);
        }
        miners.hurry();
        miners.take(at(600)).iter().for_each(|job| kv.write(&job.ops, true).unwrap());
        let said = |address: Option<&str>, json: bool| {
            let mut out = Vec::new();
            super::miners(&Place::Rows { kv: kv.clone(), dir: "d".into() }, address, json, &mut out)
                .map(|()| String::from_utf8(out).unwrap())
        };
        let text = said(None, false).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(lines[0].starts_with("address ") && lines[1].starts_with("all together") && lines[2].starts_with("bcrt1q"), "{text}");
        assert!(lines[2].contains("12.9 TH/s"), "{text}");
        assert!(lines[2].contains("1800") && lines[2].contains("0.2 %") && lines[2].contains("5.00 M"), "{text}");
        assert!(lines[2].ends_with("2023-11-14 22:23:19") && lines[3].contains("GH/s"), "{text}");
        let all: Value = serde_json::from_str(&said(None, true).unwrap()).unwrap();
        assert_eq!((&all["miners"], &all["workers"]), (&2.into(), &4.into()));
        let address = all["list"][0]["address"].as_str().unwrap().to_owned();
        let one = said(Some(&address), false).unwrap();
        assert!(
            one.starts_with(&address)
                && !one.contains('\u{1b}')
                && one.contains("\n [2J ")
                && one.contains("\n(no name)")
                && one.contains("\nrig "),
            "{one}"
        );
        assert!(matches!(said(Some("nobody"), false), Err(Failure::Mistake(_))));
        let stranger = said(Some("bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"), false);
        assert!(matches!(stranger, Err(Failure::Mistake(why)) if why.contains("nobody")));
        assert_eq!(escaped("bc1q/../x"), "bc1q%2f%2e%2e%2fx");
    }
}
