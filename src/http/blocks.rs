//! Found blocks as the API tells of them, and as a person reads them.

use rockpool_store::bitcoin::Tree;
use rockpool_store::blocks::{Fate, Finder, FoundBlock, Standing};
use serde::Serialize;
use serde_json::Value;

use crate::http::json::address;
use crate::http::reply::Reply;
use crate::http::routes::Asked;
use crate::status::Facts;

/// `GET /api/v1/blocks`.
#[derive(Debug, Serialize)]
pub struct BlocksView {
    network: &'static str,
    /// Newest first.
    blocks: Vec<Block>,
}

/// A found block.
#[derive(Debug, Serialize)]
pub struct Block {
    hash: String,
    height: u32,
    /// Unix seconds.
    time: u32,
    /// `miner` or `peer`.
    found_by: &'static str,
    /// The miner's name, or the address of the peer that told of it first.
    name: String,
    /// Who is paid for its share, or for all of it if it is none.
    address: Option<String>,
    /// Whether it is a share.
    share: bool,
    value: u64,
    peers_told: u32,
    /// Times that a peer was given its transactions.
    served: u32,
    fates: Vec<BlockFate>,
    /// `open`, `in_chain` or `stale`.
    state: &'static str,
    /// Of it, or of the block in its place.
    confirmations: Option<u32>,
}

#[derive(Debug, Serialize)]
struct BlockFate {
    node: String,
    fate: &'static str,
    why: Option<String>,
}

/// A page of them.
pub fn list(asked: &Asked<'_>, facts: Facts<'_>) -> Reply {
    let (offset, count) = asked.page();
    Reply::json(&blocks(facts.chain.view.bitcoin(), facts.blocks.iter().skip(offset).take(count)))
}

/// Found blocks, newest first.
pub fn blocks<'a>(tree: &Tree, blocks: impl Iterator<Item = &'a FoundBlock>) -> BlocksView {
    BlocksView { network: tree.params().name, blocks: blocks.map(|found| block(tree, found)).collect() }
}

/// One of them.
pub fn block(tree: &Tree, block: &FoundBlock) -> Block {
    let (found_by, name) = match &block.finder {
        Finder::Miner(name) => ("miner", name.clone()),
        Finder::Peer(addr) => ("peer", addr.clone()),
    };
    let (state, confirmations) = match block.standing(tree) {
        Standing::Open => ("open", None),
        Standing::Best(depth) => ("in_chain", Some(depth)),
        Standing::Stale(depth) => ("stale", Some(depth)),
    };
    Block {
        hash: block.hash.to_string(),
        height: block.height,
        time: block.time,
        found_by,
        name,
        address: address(&block.script, tree.params()),
        share: block.is_share,
        value: block.value,
        peers_told: block.told,
        served: block.served,
        fates: block.fates.iter().map(|(node, fate)| block_fate(node, fate)).collect(),
        state,
        confirmations,
    }
}

fn block_fate(node: &str, fate: &Fate) -> BlockFate {
    let (fate, why) = match fate {
        Fate::Accepted => ("accepted", None),
        Fate::Refused(why) => ("refused", Some(why.clone())),
        Fate::Unreachable(why) => ("unreachable", Some(why.clone())),
        Fate::Handed => ("handed over", None),
    };
    BlockFate { node: node.to_owned(), fate, why }
}

/// The stories of a status' blocks, which come newest last, a few lines each and the newest first. Nothing where there are none.
pub fn newest_first(blocks: &Value) -> String {
    let blocks = blocks.as_array().map(Vec::as_slice).unwrap_or_default();
    let head = if blocks.is_empty() { "" } else { "\nfound blocks, newest first\n" };
    head.to_owned() + &blocks.iter().rev().map(|block| story(block) + "\n").collect::<String>()
}

/// What happened to a block, in words.
fn story(block: &Value) -> String {
    let text = |name: &str| block[name].as_str().unwrap_or("-").to_owned();
    let number = |name: &str| block[name].as_u64().unwrap_or(0);
    let by = if block["found_by"] == "miner" { format!("miner {}", text("name")) } else { format!("a miner of peer {}", text("name")) };
    let share = if block["share"] == true { "a share" } else { "no share" };
    let (sats, told, served) = (number("value"), number("peers_told"), number("served"));
    let value = if sats == 0 { String::new() } else { format!(", pays {}.{:08} BTC", sats / 100_000_000, sats % 100_000_000) };
    let mut lines = vec![
        format!("{} UTC  height {}, {}", date(number("time")), number("height"), text("hash")),
        format!("    found by {by}, {share}{value}"),
    ];
    if block["share"] == true {
        lines.push(format!("    told to {told} {}, whole to {served}", if told == 1 { "peer" } else { "peers" }));
    }
    for fate in block["fates"].as_array().into_iter().flatten() {
        let why = fate["why"].as_str().map_or(String::new(), |why| format!(": {why}"));
        lines.push(format!("    bitcoind {}: {}{why}", fate["node"].as_str().unwrap_or("-"), fate["fate"].as_str().unwrap_or("-")));
    }
    if block["fates"].as_array().is_none_or(Vec::is_empty) {
        lines.push("    no bitcoind has said anything yet".to_owned());
    }
    let depth = number("confirmations");
    lines.push(match (block["state"].as_str(), depth) {
        (Some("in_chain"), 1) => "    in Bitcoin's chain, 1 confirmation".to_owned(),
        (Some("in_chain"), _) => format!("    in Bitcoin's chain, {depth} confirmations"),
        (Some("stale"), _) => format!("    stale: another block stands in its place, {depth} deep"),
        _ => "    not yet seen in Bitcoin's chain".to_owned(),
    });
    lines.join("\n")
}

/// Unix seconds as date and time of day.
pub fn date(unix: u64) -> String {
    let (days, seconds) = (unix / 86_400, unix % 86_400);
    // Years that begin in March end with the leap day: days since 1 March of year 0, in eras of 400 years.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month, year) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 }, era * 400 + year);
    let year = year + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use rockpool_net::id::ShareId;
    use rockpool_net::wire::share::Script;
    use rockpool_store::params::{Network, params};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_blocks_story_says_who_found_it_and_what_became_of_it() {
        let tree = Tree::new(params(Network::Regtest));
        let new = |finder| FoundBlock::new(ShareId([7; 32]), 5, 1_231_006_505, finder, Script::P2wpkh([1; 20]));
        let ours = FoundBlock {
            is_share: true,
            value: 5_000_000_001,
            told: 3,
            served: 1,
            fates: vec![("a:1".into(), Fate::Accepted), ("b:2".into(), Fate::Unreachable("away".into()))],
            seen: Some(Standing::Best(12)),
            ..new(Finder::Miner("alice.rig".into()))
        };
        let theirs = FoundBlock { seen: Some(Standing::Stale(2)), ..new(Finder::Peer("1.2.3.4:5".into())) };
        let view = json!(blocks(&tree, [&ours, &theirs].into_iter()));
        assert_eq!((&view["blocks"][0]["state"], &view["blocks"][0]["confirmations"]), (&json!("in_chain"), &json!(12)));
        assert_eq!(view["blocks"][0]["fates"][1], json!({"node": "b:2", "fate": "unreachable", "why": "away"}));
        let said = newest_first(&view["blocks"]);
        assert!(said.starts_with("\nfound blocks, newest first\n2009"));
        for line in [
            "2009-01-03 18:15:05 UTC  height 5, 0707",
            "    found by miner alice.rig, a share, pays 50.00000001 BTC\n",
            "    told to 3 peers, whole to 1\n",
            "    bitcoind a:1: accepted\n    bitcoind b:2: unreachable: away\n",
            "    in Bitcoin's chain, 12 confirmations\n",
            "    found by a miner of peer 1.2.3.4:5, no share\n",
            "    no bitcoind has said anything yet\n    stale: another block stands in its place, 2 deep\n",
        ] {
            assert!(said.contains(line), "{line:?} in {said}");
        }
        assert_eq!(newest_first(&json!(null)), "");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (unix, wanted) in [
            (0, "1970-01-01 00:00:00"),
            (1_231_006_505, "2009-01-03 18:15:05"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_709_251_200, "2024-03-01 00:00:00"),
            (4_107_542_399, "2100-02-28 23:59:59"),
            (4_107_542_400, "2100-03-01 00:00:00"),
            (4_294_967_295, "2106-02-07 06:28:15"),
        ] {
            assert_eq!(date(unix), wanted);
        }
    }
}
