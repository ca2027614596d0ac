//! `rockpool peers`: who is connected, whom the node knows, and who is banned.

use std::fmt::Write as _;
use std::io::Write;
use std::net::SocketAddr;

use rockpool_store::peers::{AddrRow, PeerRows, Subnet};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Place, begin, print, to_json, word};
use crate::cli::PeersAsk;
use crate::config;
use crate::exit::Failure;
use crate::http::ask;
use crate::http::blocks::date;
use crate::limits::PEERS_LISTED_MAX;

/// What a data directory on which no node runs tells of peers.
#[derive(Serialize)]
struct AtRest {
    running: bool,
    network: &'static str,
    anchors: Vec<String>,
    book: Vec<BookRow>,
    bans: Vec<Value>,
}

#[derive(Serialize)]
struct BookRow {
    addr: String,
    /// Who told of it.
    source: String,
    /// We have been connected to it.
    tried: bool,
    /// Unix seconds; zero for never.
    seen: u32,
    success: u32,
    attempts: u8,
}

/// A token for what needs one, made when it is needed.
pub type Token<'a> = &'a dyn Fn() -> Result<String, Failure>;

/// Lists peers, or has a running node change something about them.
pub fn peers(of: &Place, asks: &PeersAsk, token: Token<'_>, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    match (of, asks) {
        (Place::Node(addr), PeersAsk::List) => print(&running(*addr)?, json, describe, out),
        (Place::Rows { kv, dir }, PeersAsk::List) => {
            let (params, _) = begin(&**kv, dir)?;
            let rows = PeerRows::open(&**kv)?;
            let bans = rows.bans.iter().map(|ban| json!({ "of": ban.of.to_string(), "until": ban.until, "reason": ban.why }));
            let view = AtRest {
                running: false,
                network: params.name,
                anchors: rows.anchors.iter().map(SocketAddr::to_string).collect(),
                book: rows.addrs.iter().map(book_row).collect(),
                bans: bans.collect(),
            };
            print(&to_json(&view)?, json, describe_at_rest, out)
        }
        (Place::Rows { dir, .. }, _) => Err(Failure::Mistake(format!("no node runs on data directory {dir}: start it, and ask again"))),
        (Place::Node(addr), PeersAsk::Add(peer)) => {
            let peer = config::peer(peer)?;
            let said = changed(*addr, token, "POST", "/api/v1/peers", &json!({ "addr": peer.to_string() }))?;
            print(
                &said,
                json,
                |said| format!("dialling {}; it is kept as a configured peer until the node stops", word(&said["addr"])),
                out,
            )
        }
        (Place::Node(addr), PeersAsk::Ban { of, seconds, reason }) => {
            let of = subnet(of)?;
            let mut body = json!({ "addr": of.to_string(), "reason": reason });
            if let Some(seconds) = seconds {
                body["seconds"] = json!(seconds);
            }
            print(&changed(*addr, token, "POST", "/api/v1/bans", &body)?, json, describe_ban, out)
        }
        (Place::Node(addr), PeersAsk::Unban(of)) => {
            let of = subnet(of)?;
            let said = changed(*addr, token, "DELETE", &format!("/api/v1/bans/{of}"), &Value::Null)?;
            print(&said, json, |said| format!("{} is no longer banned", word(&said["of"])), out)
        }
    }
}

fn subnet(text: &str) -> Result<Subnet, Failure> {
    text.parse().map_err(|error| Failure::Mistake(format!("{text:?}: {error}")))
}

/// All pages of a node's peers, and its bans, as one answer.
fn running(addr: SocketAddr) -> Result<String, Failure> {
    let mut all = read(&super::asked(addr, "/api/v1/peers")?)?;
    let listed = |of: &Value, name: &str| of[name].as_array().map_or(0, Vec::len);
    let count = |of: &Value, name: &str| of[name].as_u64().unwrap_or(0) as usize;
    let total = count(&all, "inbound") + count(&all, "outbound");
    while listed(&all, "peers") < total {
        let mut page = read(&super::asked(addr, &format!("/api/v1/peers?offset={}", listed(&all, "peers")))?)?;
        if !join(&mut all, &mut page, "peers") {
            break;
        }
    }
    let mut bans = read(&super::asked(addr, "/api/v1/bans")?)?;
    while listed(&bans, "bans") < count(&bans, "count") {
        let mut page = read(&super::asked(addr, &format!("/api/v1/bans?offset={}&count={PEERS_LISTED_MAX}", listed(&bans, "bans")))?)?;
        if !join(&mut bans, &mut page, "bans") {
            break;
        }
    }
    all["bans"] = bans["bans"].take();
    Ok(all.to_string())
}

/// Adds a page to what there is. Whether it held anything: peers leave between two questions.
fn join(all: &mut Value, page: &mut Value, name: &str) -> bool {
    let (Value::Array(more), Value::Array(all)) = (page[name].take(), &mut all[name]) else { return false };
    let some = !more.is_empty();
    all.extend(more);
    some
}

fn read(body: &str) -> Result<Value, Failure> {
    serde_json::from_str(body).map_err(|error| Failure::Fault(format!("the answer is no JSON: {error}")))
}

/// Has a node change something. What it refuses, and why, is the user's to mend.
fn changed(addr: SocketAddr, token: Token<'_>, method: &str, path: &str, body: &Value) -> Result<String, Failure> {
    let silent = |why: String| Failure::Mistake(format!("no Rockpool node answers at {addr} ({why}): is it running?"));
    let body = if body.is_null() { String::new() } else { body.to_string() };
    match ask::send(addr, method, path, &token()?, &body).map_err(|error| silent(error.to_string()))? {
        (200, said) => Ok(said),
        (code, said) => Err(ask::refusal(&said).map_or_else(|| silent(format!("HTTP {code}")), Failure::Mistake)),
    }
}

fn book_row(row: &AddrRow) -> BookRow {
    BookRow {
        addr: row.addr.to_string(),
        source: row.source.to_string(),
        tried: row.tried,
        seen: row.seen,
        success: row.success,
        attempts: row.attempts,
    }
}

/// What strangers say moves no cursor.
fn plain(text: &str) -> String {
    text.replace(char::is_control, " ")
}

fn time(of: &Value) -> String {
    of.as_u64().filter(|unix| *unix > 0).map_or("never".into(), date)
}

/// A number of bytes for people.
fn bytes(of: &Value) -> String {
    let mut left = of.as_u64().unwrap_or(0) as f64;
    for unit in ["B", "kB", "MB"] {
        if left < 1_000.0 {
            return if unit == "B" { format!("{left} B") } else { format!("{left:.1} {unit}") };
        }
        left /= 1_000.0;
    }
    format!("{left:.1} GB")
}

fn describe(list: &Value) -> String {
    let (network, inbound, outbound) = (word(&list["network"]), &list["inbound"], &list["outbound"]);
    let mut text = format!("network {network}: {outbound} dialled, {inbound} of at most {} that dialled us\n", list["inbound_max"]);
    let (addr, way, since, ping, height) = ("address", "way", "since (UTC)", "ping", "height");
    let _ = writeln!(text, "{addr:<24} {way:<9} {since:<19} {ping:>9} {height:>8} {:>9} {:>9}  link  agent", "in", "out");
    for peer in list["peers"].as_array().into_iter().flatten() {
        let ping = peer["ping_ms"].as_f64().map_or("-".into(), |ms| format!("{ms:.1} ms"));
        let height = peer["height"].as_u64().map_or("-".into(), |height| height.to_string());
        let (since, agent) = (time(&peer["since"]), plain(word(&peer["agent"])));
        let agent = if peer["up"] == true { agent } else { "(shaking hands)".into() };
        let (addr, way, link) = (word(&peer["addr"]), word(&peer["direction"]), word(&peer["transport"]));
        let (read, written) = (bytes(&peer["bytes_in"]), bytes(&peer["bytes_out"]));
        let _ = writeln!(text, "{addr:<24} {way:<9} {since:<19} {ping:>9} {height:>8} {read:>9} {written:>9}  {link:<4}  {agent}");
    }
    let left = list["left"].as_array().map_or(&[][..], Vec::as_slice);
    if !left.is_empty() {
        text += "\nleft lately, the newest first\n";
    }
    for left in left {
        let (addr, at, why) = (word(&left["addr"]), time(&left["at"]), plain(word(&left["why"])));
        let _ = writeln!(text, "{addr:<24} {:<9} {at}  after {} s: {why}", word(&left["direction"]), left["stayed_s"]);
    }
    text + &describe_bans(&list["bans"])
}

fn describe_bans(bans: &Value) -> String {
    let bans = bans.as_array().map_or(&[][..], Vec::as_slice);
    let mut text = String::from(if bans.is_empty() { "" } else { "\nbanned\n" });
    for ban in bans {
        let _ = writeln!(text, "{:<24} until {} UTC  {}", word(&ban["of"]), time(&ban["until"]), plain(word(&ban["reason"])));
    }
    text
}

fn describe_ban(said: &Value) -> String {
    let closed = match said["closed"].as_u64().unwrap_or(0) {
        0 => String::new(),
        1 => ", and its connection is closed".to_owned(),
        many => format!(", and {many} connections are closed"),
    };
    format!("{} is banned until {} UTC{closed}", word(&said["of"]), time(&said["until"]))
}

fn describe_at_rest(list: &Value) -> String {
    let mut text = format!("network {}: no node runs on this data directory\n", word(&list["network"]));
    for anchor in list["anchors"].as_array().into_iter().flatten() {
        let _ = writeln!(text, "{:<24} an anchor: dialled first at the next start", word(anchor));
    }
    let book = list["book"].as_array().map_or(&[][..], Vec::as_slice);
    let _ = writeln!(text, "{} addresses in the book", book.len());
    for row in book {
        let kind = if row["tried"] == true { "tried" } else { "new" };
        let (addr, source) = (word(&row["addr"]), word(&row["source"]));
        let (seen, success) = (time(&row["seen"]), time(&row["success"]));
        let _ = writeln!(text, "{addr:<24} {kind:<6} seen {seen:<19}  connected {success:<19}  told by {source}");
    }
    text + &describe_bans(&list["bans"])
}
