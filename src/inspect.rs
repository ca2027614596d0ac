//! `rockpool check`, `shares`, `payouts`, `miners` and `peers`: looked at from outside, in a data directory or through the node that runs
//! on it.

mod miners;
mod peers;
mod progress;

use std::fmt::Write as _;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use rockpool_net::id::ShareId;
use rockpool_net::wire::share::{Class, Share};
use rockpool_store::blocks::BlockLog;
use rockpool_store::chain::{Chain, bitcoin_tree};
use rockpool_store::check::{self, Report};
use rockpool_store::error::StoreError;
use rockpool_store::kv::{Family, Kv};
use rockpool_store::params::{Network, Params};
use rockpool_store::pplns::Pplns;
use rockpool_store::schema::{self, FORMAT, TipRow};
use serde::Serialize;
use serde_json::Value;

use crate::config::Mode;
use crate::exit::Failure;
use crate::http::blocks::{self, date};
use crate::http::payouts::Draw;
use crate::http::{ask, payouts, share};
use crate::limits::BLOCKS_SHOWN;
use crate::stratum::jobs::own_payouts;

pub use self::miners::miners;
pub use self::peers::peers;
use self::progress::Meter;

/// Where a chain is found.
#[derive(Clone)]
pub enum Place {
    /// A running node.
    Node(SocketAddr),
    /// The rows of a data directory on which none runs.
    Rows {
        /// The rows, only read.
        kv: Arc<dyn Kv>,
        /// The directory's name.
        dir: String,
    },
}

/// What `check` prints as JSON.
#[derive(Serialize)]
struct Checked<'a> {
    ok: bool,
    network: Option<&'static str>,
    format: u32,
    lowest: u32,
    tip: Option<TipView>,
    rows: u64,
    shares: u32,
    coinbases: u32,
    uncles: u32,
    unreached: u64,
    candidate: Option<&'a str>,
    bitcoin_headers: u64,
    faults: &'a [String],
    faults_more: u64,
}

#[derive(Serialize)]
struct TipView {
    id: String,
    height: u32,
    confirmed_id: String,
    confirmed_height: u32,
}

/// Checks the rows of a data directory and tells what is wrong. A store that opened with damage is told of in the same way.
pub fn check(
    opened: Result<Arc<dyn Kv>, StoreError>,
    dir: &str,
    wanted: Option<Network>,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let report = match opened {
        Ok(kv) => {
            let mut meter = Meter::new("rows checked");
            check::check(&*kv, [random()?, random()?], wanted, dir, &mut |done, of| meter.tell(done, of))?
        }
        Err(StoreError::Damaged(why)) => Report { faults: vec![why], ..Report::default() },
        Err(other) => return Err(other.into()),
    };
    let text = if json { to_json(&checked(&report))? } else { describe_check(&report, dir) };
    let _ = writeln!(out, "{}", text.trim_end());
    if report.ok() {
        return Ok(());
    }
    Err(Failure::Fault(format!("data directory {dir} is damaged; `rockpool run --resync` deletes its share chain and fetches it anew")))
}

/// Lists shares of the confirmed chain, the newest first: from this height down, so many.
pub fn shares(of: &Place, from: u32, count: u8, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let body = match of {
        Place::Node(addr) => asked(*addr, &format!("/api/v1/shares?from={from}&count={count}"))?,
        Place::Rows { kv, dir } => {
            let (params, tip) = begin(&**kv, dir)?;
            let lowest = schema::base(&**kv)?.map_or(0, |(height, _)| height);
            let height = tip.map_or(0, |tip| tip.confirmed_height);
            to_json(&share::shares(params, lowest, height, &listed(&**kv, tip, lowest, (from, count))?))?
        }
    };
    print(&body, json, describe_shares, out)
}

/// `rockpool status` of a data directory on which no node runs: where its chain stands and what became of its blocks.
#[derive(Serialize)]
struct AtRest {
    running: bool,
    network: &'static str,
    /// The confirmed tip.
    tip: Option<TipView>,
    /// The best Bitcoin header that is known.
    bitcoin: Option<u32>,
    /// Newest last, as a running node lists them.
    blocks: Vec<blocks::Block>,
}

/// Tells of a data directory what `status` tells of a running node, as far as rows know it.
pub fn at_rest(kv: &dyn Kv, dir: &str, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let (params, tip) = begin(kv, dir)?;
    let (tree, log) = (bitcoin_tree(params, kv)?, BlockLog::open(kv)?);
    let skip = log.iter().len().saturating_sub(BLOCKS_SHOWN);
    let view = AtRest {
        running: false,
        network: params.name,
        tip: tip.map(tip_view),
        bitcoin: tree.best().map(|best| best.height),
        blocks: log.iter().skip(skip).map(|block| blocks::block(&tree, block)).collect(),
    };
    print(&to_json(&view)?, json, describe_at_rest, out)
}

fn describe_at_rest(status: &Value) -> String {
    let text =
        |path: &str| status.pointer(path).filter(|value| !value.is_null()).map_or("-".into(), |value| value.to_string().replace('"', ""));
    let rows = [
        ("network", text("/network")),
        ("share chain", format!("height {}, tip {}", text("/tip/confirmed_height"), text("/tip/confirmed_id"))),
        ("bitcoin", format!("height {}", text("/bitcoin"))),
        ("trouble", "no node runs on this data directory".to_owned()),
    ];
    let rows: String = rows.iter().map(|(name, text)| format!("{name:<16}{text}\n")).collect();
    rows + &blocks::newest_first(&status["blocks"])
}

/// Tells whom the next block would pay: in the largest coinbase there is.
pub fn payouts(of: &Place, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let class = Class::N360;
    let body = match of {
        Place::Node(addr) => asked(*addr, &format!("/api/v1/payouts?class={}", payouts::class(class)))?,
        Place::Rows { kv, dir } => {
            let (params, _) = begin(&**kv, dir)?;
            let chain = Chain::open(params, [random()?, random()?], &**kv)?;
            let height = payouts::next_height(chain.confirmed_tip(), chain.bitcoin());
            let own = Pplns::open(&**kv)?;
            // Nothing says how the node was started last: who has a share chain has other nodes to share with.
            let own = (chain.confirmed_tip().height == 0 && !own.is_empty()).then(|| own.weights().collect());
            let own = own.map(|own| {
                let best = chain.bitcoin().best().map_or(ShareId::default(), |best| ShareId(best.hash));
                own_payouts(best, height.saturating_sub(1), &own)
            });
            let mode = if own.is_some() { Mode::Standalone } else { Mode::Chain };
            let of = own.as_ref().unwrap_or(chain.payouts());
            let draw = Draw::new(params, of, class, height);
            to_json(&payouts::payouts(params, mode, &draw, (params.subsidy(height), height), None))?
        }
    };
    print(&body, json, describe_payouts, out)
}

/// Network and tip of rows that can be read.
fn begin(kv: &dyn Kv, dir: &str) -> Result<(&'static Params, Option<TipRow>), Failure> {
    if !schema::has_format(kv, dir)? {
        return Err(Failure::Mistake(format!("data directory {dir} holds no share chain")));
    }
    Ok((schema::network(kv)?, schema::tip(kv)?))
}

/// Shares from the confirmed tip down, those above `from` left out.
fn listed(kv: &dyn Kv, tip: Option<TipRow>, lowest: u32, (from, count): (u32, u8)) -> Result<Vec<Share>, StoreError> {
    let mut listed = Vec::new();
    let Some(tip) = tip else { return Ok(listed) };
    let (mut height, mut id) = (tip.confirmed_height, tip.confirmed_id);
    while height >= lowest.max(1) && listed.len() < usize::from(count) {
        let damaged = |why: &str| StoreError::Damaged(format!("the row of share {id} at height {height} {why}"));
        let bytes = kv.get(Family::Shares, &schema::share_key(height, &id))?.ok_or_else(|| damaged("is missing"))?;
        let share = Share::decode(&bytes).map_err(|_| damaged("does not decode"))?;
        (height, id) = (height - 1, share.parent);
        if height < from {
            listed.push(share);
        }
    }
    Ok(listed)
}

/// What a node answers.
fn asked(addr: SocketAddr, path: &str) -> Result<String, Failure> {
    let silent = |why: String| Failure::Mistake(format!("no Rockpool node answers at {addr} ({why}): is it running?"));
    match ask::get(addr, path).map_err(|error| silent(error.to_string()))? {
        (200, body) => Ok(body),
        (code, said) => Err(ask::refusal(&said).map_or_else(|| silent(format!("HTTP {code}")), Failure::Mistake)),
    }
}

fn print(body: &str, json: bool, describe: fn(&Value) -> String, out: &mut impl Write) -> Result<(), Failure> {
    let value: Value = serde_json::from_str(body).map_err(|error| Failure::Fault(format!("the answer is no JSON: {error}")))?;
    let text = if json { body.into() } else { describe(&ask::plain(value)) };
    // A reader that has gone away is no reason to panic.
    let _ = writeln!(out, "{}", text.trim_end());
    Ok(())
}

fn random() -> Result<u64, Failure> {
    getrandom::u64().map_err(|error| Failure::Fault(format!("the system gives no randomness: {error}")))
}

fn to_json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| Failure::Fault(error.to_string()))
}

fn tip_view(tip: TipRow) -> TipView {
    TipView {
        id: tip.id.to_string(),
        height: tip.height,
        confirmed_id: tip.confirmed_id.to_string(),
        confirmed_height: tip.confirmed_height,
    }
}

fn checked(report: &Report) -> Checked<'_> {
    Checked {
        ok: report.ok(),
        network: report.network.map(Network::name),
        format: FORMAT,
        lowest: report.lowest,
        tip: report.tip.map(tip_view),
        rows: report.rows,
        shares: report.shares,
        coinbases: report.coinbases,
        uncles: report.uncles,
        unreached: report.unreached,
        candidate: report.candidate.as_deref(),
        bitcoin_headers: report.headers,
        faults: &report.faults,
        faults_more: report.more,
    }
}

/// A report for people.
fn describe_check(report: &Report, dir: &str) -> String {
    let network = report.network.map_or("-", Network::name);
    let top = report.lowest + report.shares;
    let tip = report.tip.map_or(0, |tip| tip.height);
    let mut text = format!("data directory  {dir}, network {network}, format {FORMAT}\n");
    let _ = writeln!(text, "share chain     begins at height {}, good up to {top} of {tip}", report.lowest);
    let _ = writeln!(text, "checked         {} coinbases rebuilt, {} uncles", report.coinbases, report.uncles);
    let _ = writeln!(text, "rows            {} shares, {} of them not reached by the chain", report.rows, report.unreached);
    let _ = writeln!(text, "                {} Bitcoin headers", report.headers);
    if let Some(why) = &report.candidate {
        let _ = writeln!(text, "note            the node will drop what is not confirmed and does not hold: {why}");
    }
    for fault in &report.faults {
        let _ = writeln!(text, "wrong           {}", fault.replace(char::is_control, " "));
    }
    if report.more > 0 {
        let _ = writeln!(text, "                and {} more", report.more);
    }
    text + if report.ok() { "ok\n" } else { "damaged\n" }
}

/// A list of shares for people.
fn describe_shares(list: &Value) -> String {
    let mut text = format!("confirmed height {} on {}\n", list["height"], word(&list["network"]));
    let (height, time, id) = ("height", "time (UTC)", "id");
    let _ = writeln!(text, "{height:>8}  {time:<19}  {:>12}  class uncles  {id:<64}  address", "difficulty");
    for share in list["shares"].as_array().into_iter().flatten() {
        let uncles = share["uncles"].as_array().map_or(0, Vec::len);
        let (time, difficulty) = (date(share["time"].as_u64().unwrap_or(0)), share["difficulty"].as_f64().unwrap_or(0.0));
        let difficulty = if difficulty < 1.0 { format!("{difficulty:.3e}") } else { format!("{difficulty:.0}") };
        let (height, class, id) = (&share["height"], word(&share["class"]), word(&share["id"]));
        let _ = writeln!(text, "{height:>8}  {time:<19}  {difficulty:>12}  {class:<5} {uncles:>6}  {id:<64}  {}", payee(share));
    }
    text
}

/// Payouts for people.
fn describe_payouts(payouts: &Value) -> String {
    let pays = payouts["pays"].as_array().map_or(&[][..], Vec::as_slice);
    let (value, bitcoin, class) = (&payouts["value"], &payouts["bitcoin_height"], word(&payouts["class"]));
    let on = if payouts["mode"] == "chain" { "share" } else { "Bitcoin's block" };
    let mut text = format!("on {on} {} at height {}\n", word(&payouts["parent"]), payouts["height"]);
    let _ = writeln!(text, "block {bitcoin} would pay {value} satoshis to {} of {} payees (class {class})", pays.len(), payouts["payees"]);
    if let Some(note) = payouts["note"].as_str() {
        let _ = writeln!(text, "{note}");
    }
    for pay in pays {
        let weight = 100.0 * pay["weight"].as_f64().unwrap_or(0.0);
        let _ = writeln!(text, "{:>16}  {weight:>7.3} %  {}", pay["sats"], payee(pay));
    }
    text
}

fn payee(of: &Value) -> &str {
    of["address"].as_str().unwrap_or(word(&of["script"]))
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use rockpool_net::id::ShareId;
    use rockpool_net::time::Now;
    use rockpool_net::wire::share::Script;
    use rockpool_store::blocks::{Finder, FoundBlock};
    use rockpool_store::chain::{Offer, Source};
    use rockpool_store::kv::{MemKv, Op};
    use rockpool_store::params::params;
    use rockpool_store::testing::ShareBuilder;

    use super::*;

    #[test]
    fn a_directory_tells_of_its_blocks_without_a_node() {
        let (Place::Rows { kv, .. }, _) = place() else { panic!("rows") };
        let mut log = BlockLog::default();
        for number in 0..BLOCKS_SHOWN as u8 + 2 {
            let block = FoundBlock::new(ShareId([number; 32]), number.into(), 5, Finder::Miner("bob".into()), Script::P2tr([1; 32]));
            log.add(block, None);
        }
        assert!(kv.write(&log.take(), true).is_ok());
        let said = |json| {
            let mut out = Vec::new();
            assert!(at_rest(&*kv, "d", json, &mut out).is_ok());
            String::from_utf8(out).unwrap_or_default()
        };
        let told: Value = serde_json::from_str(&said(true)).unwrap_or_default();
        let heights: Vec<_> = told["blocks"].as_array().into_iter().flatten().filter_map(|block| block["height"].as_u64()).collect();
        assert_eq!(heights, (2..BLOCKS_SHOWN as u64 + 2).collect::<Vec<_>>());
        assert_eq!((&told["running"], &told["tip"]["confirmed_height"]), (&false.into(), &5.into()));
        let said = said(false);
        assert!(said.contains("share chain     height 5, tip ") && said.contains("found by miner bob"), "{said}");
    }

    /// Five shares of two miners, the fourth crediting an uncle.
    fn place() -> (Place, Vec<Share>) {
        let (kv, params) = (Arc::new(MemKv::new()), params(Network::Regtest));
        schema::open(&*kv, params, "d").unwrap();
        let mut chain = Chain::open(params, [1, 2], &*kv).unwrap();
        let late = Now { mono: std::time::Duration::ZERO, wall: std::time::Duration::from_secs(2_000_000_000) };
        let mut shares: Vec<Share> = Vec::new();
        for miner in 1..=5 {
            let mut builder = ShareBuilder::new(params).miner(miner % 2);
            if miner == 4 {
                let uncle = ShareBuilder::new(params).salt(9).build(&chain, &shares[1].id());
                assert_eq!(chain.offer(late, &uncle, Source::Peer), Offer::Taken);
                builder = builder.uncles(&[uncle.id()]);
            }
            let share = builder.build(&chain, &chain.tip().id);
            assert_eq!(chain.offer(late, &share, Source::Peer), Offer::Taken);
            while chain.confirm(8) > 0 {}
            shares.push(share);
        }
        let (_, batches) = chain.take_change().unwrap();
        batches.iter().for_each(|batch| kv.write(&batch.ops, true).unwrap());
        (Place::Rows { kv, dir: "d".into() }, shares)
    }

    fn said(what: impl FnOnce(&mut Vec<u8>) -> Result<(), Failure>) -> String {
        let mut out = Vec::new();
        what(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn rows_are_listed_from_the_newest_down() {
        let (place, made) = place();
        let list = |from, count| -> Value { serde_json::from_str(&said(|out| shares(&place, from, count, true, out))).unwrap() };
        let heights =
            |list: &Value| list["shares"].as_array().unwrap().iter().map(|share| share["height"].as_u64().unwrap()).collect::<Vec<_>>();
        let all = list(u32::MAX, 200);
        assert_eq!((heights(&all), &all["height"], &all["lowest"]), (vec![5, 4, 3, 2, 1], &5.into(), &0.into()));
        assert_eq!(all["shares"][1]["uncles"].as_array().unwrap().len(), 1);
        assert_eq!(all["shares"][4]["id"], made[0].id().to_string());
        assert_eq!((heights(&list(3, 2)), heights(&list(0, 9)), heights(&list(9, 0))), (vec![3, 2], vec![], vec![]));
        let text = said(|out| shares(&place, 4, 1, false, out));
        assert!(text.contains(&made[3].id().to_string()) && text.contains("2011-02-02 23:1") && text.contains(" N12        1 "), "{text}");
    }

    #[test]
    fn payouts_are_those_of_the_window() {
        let (place, made) = place();
        let answer: Value = serde_json::from_str(&said(|out| payouts(&place, true, out))).unwrap();
        assert_eq!((&answer["parent"], &answer["payees"]), (&made[4].id().to_string().into(), &2.into()));
        let pays = answer["pays"].as_array().unwrap();
        let sats: u64 = pays.iter().map(|pay| pay["sats"].as_u64().unwrap()).sum();
        assert_eq!(sats, answer["value"]);
        assert!((pays.iter().map(|pay| pay["weight"].as_f64().unwrap()).sum::<f64>() - 1.0).abs() < 1e-9);
        let text = said(|out| payouts(&place, false, out));
        assert!(text.contains("to 2 of 2 payees") && text.contains("bcrt1q") && text.contains(" %  "), "{text}");
    }

    #[test]
    fn a_check_ends_with_ok_or_with_what_is_wrong() {
        let (Place::Rows { kv, .. }, made) = place() else { panic!("no rows") };
        let text = said(|out| check(Ok(Arc::clone(&kv)), "d", None, false, out));
        assert!(text.contains("good up to 5 of 5") && text.contains("5 coinbases rebuilt, 1 uncles") && text.ends_with("\nok\n"), "{text}");
        kv.write(&[Op::Delete(Family::Shares, schema::share_key(2, &made[1].id()))], true).unwrap();
        for json in [false, true] {
            let mut out = Vec::new();
            let failure = check(Ok(Arc::clone(&kv)), "d", None, json, &mut out).unwrap_err();
            assert!(failure.code() == 3 && failure.to_string().contains("--resync"), "{failure}");
            let text = String::from_utf8(out).unwrap();
            assert!(text.contains("no good row at height 2"), "{text}");
            let value: Option<Value> = serde_json::from_str(&text).ok();
            assert_eq!(value.map(|value| (value["ok"].clone(), value["network"].clone())), json.then(|| (false.into(), "regtest".into())));
        }
        let torn = || Err(StoreError::Damaged("a block's checksum is wrong".into()));
        assert_eq!(check(torn(), "d", None, true, &mut Vec::new()).unwrap_err().code(), 3);
        let busy = Err(StoreError::InUse("d".into()));
        assert_eq!(check(busy, "d", None, true, &mut Vec::new()).unwrap_err().code(), 2);
    }

    #[test]
    fn a_store_without_a_chain_is_said_to_be_one() {
        let empty = Place::Rows { kv: Arc::new(MemKv::new()), dir: "d".into() };
        let failure = shares(&empty, 0, 1, false, &mut Vec::new()).unwrap_err();
        assert_eq!((failure.code(), failure.to_string()), (2, "data directory d holds no share chain".into()));
        let nobody = Place::Node("127.0.0.1:1".parse().unwrap());
        assert!(payouts(&nobody, false, &mut Vec::new()).unwrap_err().to_string().ends_with("is it running?"));
    }
}
