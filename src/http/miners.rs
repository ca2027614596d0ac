//! Own miners as the API tells of them: who mines how fast, how lucky and how often refused.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rockpool_net::id::ConnId;
use rockpool_net::time::Now;
use rockpool_net::wire::share::Script;
use rockpool_store::params::Params;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::http::error::Code;
use crate::http::json::address;
use crate::http::reply::Reply;
use crate::http::routes::Asked;
use crate::miners::rates::{Rate, WINDOWS};
use crate::miners::{Address, Figures, Miners, REASONS, WorkerId};
use crate::session::Sessions;
use crate::stratum::request::login;
use crate::turn::Turn;

/// The window by whose rate lists are sorted: fifteen minutes.
const SORTED_BY: usize = 2;

/// Hashes a second, by window.
struct Rates(Rate);

impl Serialize for Rates {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(WINDOWS.len()))?;
        for (rate, (name, _)) in self.0.iter().zip(WINDOWS) {
            map.serialize_entry(name, &rounded(*rate))?;
        }
        map.end()
    }
}

/// Rejected submits, by reason.
struct Rejected([u32; REASONS.len()]);

impl Serialize for Rejected {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(REASONS.len()))?;
        for (count, name) in self.0.iter().zip(REASONS) {
            map.serialize_entry(name, count)?;
        }
        map.end()
    }
}

/// A rate as it is told: whole hashes a second, and of what is slower three digits of them.
pub fn rounded(rate: f64) -> f64 {
    if rate >= 1_000.0 { rate.round() } else { (rate * 1_000.0).round() / 1_000.0 }
}

/// `GET /api/v1/miners`.
#[derive(Serialize)]
pub struct MinersView {
    network: &'static str,
    /// Addresses that are known.
    miners: usize,
    workers: usize,
    /// Since when is counted; null before the first has come.
    since: Option<u32>,
    totals: Totals,
    list: Vec<Miner>,
}

#[derive(Serialize)]
struct Totals {
    rates: Rates,
    accepted: u64,
    rejected: Rejected,
    shares: u32,
    blocks: u32,
    best: f64,
    best_ever: f64,
    last_share: Option<u32>,
}

/// An address.
#[derive(Serialize)]
pub struct Miner {
    address: Option<String>,
    workers: usize,
    connected: u32,
    rates: Rates,
    accepted: u64,
    rejected: Rejected,
    best: f64,
    best_ever: f64,
    last_share: Option<u32>,
    shares: u32,
    blocks: u32,
    /// Of one address alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    list_workers: Option<Vec<Worker>>,
}

#[derive(Serialize)]
struct Worker {
    name: String,
    /// What it said that it is; null while it is not connected.
    agent: Option<String>,
    connected: u32,
    /// When it was first seen.
    since: u32,
    /// What it works at; null while it has no work.
    difficulty: Option<f64>,
    rates: Rates,
    accepted: u64,
    rejected: Rejected,
    best: f64,
    best_ever: f64,
    last_share: Option<u32>,
    shares: u32,
    blocks: u32,
}

/// `GET /api/v1/sessions`.
#[derive(Serialize)]
pub struct SessionsView {
    list: Vec<Session>,
}

#[derive(Serialize)]
struct Session {
    addr: String,
    address: Option<String>,
    worker: String,
    agent: Option<String>,
    /// When its connection came to be.
    since: u32,
    difficulty: Option<f64>,
    bytes_in: u64,
    bytes_out: u64,
    /// Of its worker, on whatever connection.
    last_share: Option<u32>,
}

/// A time, or null for never.
fn time(unix: u32) -> Option<u32> {
    (unix > 0).then_some(unix)
}

fn miner(address: Option<String>, workers: usize, figures: &Figures) -> Miner {
    let tally = &figures.tally;
    Miner {
        address,
        workers,
        connected: figures.connected,
        rates: Rates(figures.rates),
        accepted: tally.accepted,
        rejected: Rejected(tally.rejected),
        best: figures.best,
        best_ever: tally.best,
        last_share: time(tally.last_share),
        shares: tally.shares,
        blocks: tally.blocks,
        list_workers: None,
    }
}

/// Addresses as they were summed up when somebody asked, at most once a second: to sum up thousands of workers takes a millisecond or more.
#[derive(Debug, Default)]
pub struct Summed(Option<(u64, Vec<Address>, Figures)>);

impl Summed {
    /// All of them, by script.
    fn all(&mut self, miners: &Miners, now: Now) -> &[Address] {
        &self.made(miners, now).1
    }

    /// The second, all of them, and the totals: of one moment, so that who adds up finds the same.
    fn made(&mut self, miners: &Miners, now: Now) -> &(u64, Vec<Address>, Figures) {
        let second = now.mono.as_secs();
        let made = self.0.take().filter(|(made, ..)| *made == second);
        self.0.insert(made.unwrap_or_else(|| (second, miners.addresses(now.mono), miners.together(now.mono))))
    }

    /// One of them. It may have come since.
    fn one(&mut self, miners: &Miners, now: Now, script: &Script) -> Option<&Address> {
        let place = |all: &[Address]| all.binary_search_by(|of| of.script.cmp(script)).ok();
        if place(self.all(miners, now)).is_none() && miners.is_own(script) {
            self.0 = None;
        }
        let all = self.all(miners, now);
        all.get(place(all)?)
    }
}

/// All miners, by address.
pub fn list(asked: &Asked<'_>, summed: &mut Summed, miners: &Miners, params: &Params, now: Now) -> Reply {
    let (_, addresses, totals) = summed.made(miners, now);
    Reply::json(&all(miners, (addresses, totals), params, asked.text("sort"), asked.page()))
}

/// These addresses with their totals, sorted by this and cut to this page: how many are left out, and how many are told of.
pub fn all(
    miners: &Miners,
    (all, totals): (&[Address], &Figures),
    params: &Params,
    sort: Option<&str>,
    (offset, count): (usize, usize),
) -> MinersView {
    let mut list: Vec<&Address> = all.iter().collect();
    match sort {
        Some("best") => list.sort_by(|one, other| other.figures.tally.best.total_cmp(&one.figures.tally.best)),
        Some("name") => {}
        _ => list.sort_by(|one, other| other.figures.rates[SORTED_BY].total_cmp(&one.figures.rates[SORTED_BY])),
    }
    let shown = list.iter().skip(offset).take(count);
    MinersView {
        network: params.name,
        miners: list.len(),
        workers: miners.workers(),
        since: time(totals.tally.first_seen),
        totals: Totals {
            rates: Rates(totals.rates),
            accepted: totals.tally.accepted,
            rejected: Rejected(totals.tally.rejected),
            shares: totals.tally.shares,
            blocks: totals.tally.blocks,
            best: totals.best,
            best_ever: totals.tally.best,
            last_share: time(totals.tally.last_share),
        },
        list: shown.map(|of| miner(address(&of.script, params), of.workers, &of.figures)).collect(),
    }
}

/// What connections tell of their workers: what they are, and the difficulty they work at.
pub type Here = BTreeMap<WorkerId, (Option<String>, Option<f64>)>;

/// One address and a page of its workers.
pub fn one(
    asked: &Asked<'_>,
    summed: &mut Summed,
    (miners, sessions): (&Miners, &mut Sessions),
    params: &Params,
    now: Now,
) -> Result<Reply, Reply> {
    let text = asked.text("address").unwrap_or_default();
    let (script, name) = login(text, params.network).map_err(|why| Reply::error(Code::BadParameter, &why))?;
    if !name.is_empty() {
        return Err(Reply::error(Code::BadParameter, "give the address alone, without a worker's name"));
    }
    let of = summed.one(miners, now, &script);
    let of = of.ok_or_else(|| Reply::error(Code::NotFound, "nobody has mined for this address here"))?;
    let workers = miners.of_address(now.mono, &script, asked.page());
    let listed: BTreeSet<WorkerId> = workers.iter().map(|(id, ..)| *id).collect();
    let here: Here = sessions
        .miners_mut()
        .filter(|(_, miner)| listed.contains(&miner.worker()))
        .map(|(_, miner)| (miner.worker(), (miner.agent().map(str::to_owned), miner.difficulty())))
        .collect();
    Ok(Reply::json(&told(of, &workers, &here, params)))
}

/// An address and these of its workers.
pub fn told(of: &Address, workers: &[(WorkerId, &str, Figures)], here: &Here, params: &Params) -> Miner {
    let mut told = miner(address(&of.script, params), of.workers, &of.figures);
    told.list_workers = Some(workers.iter().map(|one| worker(one, here)).collect());
    told
}

fn worker((id, name, figures): &(WorkerId, &str, Figures), here: &Here) -> Worker {
    let (agent, difficulty) = here.get(id).cloned().unwrap_or_default();
    Worker {
        name: (*name).to_owned(),
        agent,
        connected: figures.connected,
        since: figures.tally.first_seen,
        difficulty,
        rates: Rates(figures.rates),
        accepted: figures.tally.accepted,
        rejected: Rejected(figures.tally.rejected),
        best: figures.best,
        best_ever: figures.tally.best,
        last_share: time(figures.tally.last_share),
        shares: figures.tally.shares,
        blocks: figures.tally.blocks,
    }
}

/// Connections of miners that have logged in.
pub fn sessions(asked: &Asked<'_>, miners: &Miners, sessions: &mut Sessions, params: &Params, turn: &Turn<'_>) -> Reply {
    let (offset, count) = asked.page();
    let open = sessions.miners_mut().filter_map(|(conn, miner)| Some((conn, miner.script()?, &*miner)));
    let told = |(conn, script, miner): (ConnId, &Script, &crate::stratum::session::Miner)| {
        let (bytes_in, bytes_out) = turn.out.traffic(conn);
        let up: Duration = turn.now.mono.saturating_sub(miner.opened());
        Session {
            addr: miner.addr.to_string(),
            address: address(script, params),
            worker: miner.name().to_owned(),
            agent: miner.agent().map(str::to_owned),
            since: turn.now.unix().saturating_sub(up.as_secs() as u32),
            difficulty: miner.difficulty(),
            bytes_in,
            bytes_out,
            last_share: miners.last_share(miner.worker()).and_then(time),
        }
    };
    Reply::json(&SessionsView { list: open.skip(offset).take(count).map(told).collect() })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use rockpool_store::kv::MemKv;
    use rockpool_store::rules::target::target_bytes;
    use rockpool_workers::embedded::EmbeddedChain;
    use rockpool_workers::work::meets;
    use serde_json::{Value, json};
    use std::sync::Arc;

    use super::*;
    use crate::limits::{ADDRESS_BYTES_MAX, CHARTS_EVERY, FIGURES_EVERY};
    use crate::node::Stopping;
    use crate::stratum::firmware::Form;
    use crate::testing::{ADDRESS, HTTP, Inline, STRATUM, World, mined, regtest};

    fn get(world: &mut World<Inline>, path: &str) -> (u16, Value) {
        let conn = world.connect(HTTP);
        world.feed(conn, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        world.turns();
        let text = String::from_utf8(world.taken(conn)).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
        world.hang_up(conn);
        (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap_or_default())
    }

    /// A miner logs in. What it is to submit for a share.
    fn miner(world: &mut World<Inline>, user: &str) -> (ConnId, [String; 3]) {
        let conn = world.connect(STRATUM);
        world.line(conn, r#"{"id":1,"method":"mining.subscribe","params":["bitaxe/BM1370/v2.9"]}"#);
        world.line(conn, &format!(r#"{{"id":2,"method":"mining.authorize","params":["{user}"]}}"#));
        let lines = world.lines(conn);
        let id = lines.iter().rev().find(|line| line["method"] == "mining.notify").unwrap()["params"][0].clone();
        let extranonce1 = u32::from_str_radix(lines[0]["result"][1].as_str().unwrap(), 16).unwrap();
        let mut extranonce = [0; 12];
        extranonce[..4].copy_from_slice(&extranonce1.to_be_bytes());
        let script = login(user, regtest().network).unwrap().0;
        let now = world.now();
        let node = &mut world.node;
        let Form::Shares(class, layout) = node.server.firmware.form("bitaxe/BM1370/v2.9", "") else { panic!("it makes shares") };
        let form = (class, layout);
        let board = node.server.boards.board(regtest(), &node.chain.view, form, &script, now).unwrap().unwrap();
        let work = Arc::clone(&board.work);
        let share = mined(&work, &script, extranonce, |hash| meets(hash, &target_bytes(work.draft.bits)));
        (conn, [id.as_str().unwrap().to_owned(), format!("{:08x}", share.header_time()), format!("{:08x}", share.header_nonce())])
    }

    fn submit(world: &mut World<Inline>, conn: ConnId, user: &str, [job, ntime, nonce]: &[String; 3]) -> Value {
        world.line(
            conn,
            &format!(r#"{{"id":3,"method":"mining.submit","params":["{user}","{job}","0000000000000000","{ntime}","{nonce}"]}}"#),
        );
        world.settle();
        world.lines(conn).into_iter().find(|line| line["id"] == 3).unwrap()
    }

    /// From a line of a miner to what is told of it, in every mode, and again after a restart.
    #[test]
    fn a_miner_is_told_of_and_remembered() {
        let kv = Arc::new(MemKv::new());
        let mut world = World::whole_on(&kv, regtest(), &[], 1);
        let (code, none) = get(&mut world, "/api/v1/miners");
        assert_eq!((code, &none["miners"], &none["since"], &none["list"]), (200, &json!(0), &json!(null), &json!([])));
        let (_, pool) = get(&mut world, "/api/v1/pool");
        for unknown in ["pool_block_s", "own_share_s", "own_block_solo_s", "own_sats_next_block"] {
            assert_eq!(pool["expect"][unknown], json!(null), "{unknown} without any rate");
        }
        assert_eq!((&pool["pool_rate"], &pool["best"]["ever"], &pool["luck"]["since"]), (&json!(0.0), &json!(null), &json!(null)));
        world.template(&EmbeddedChain::new(regtest(), None), 1);
        let user = format!("{ADDRESS}.rig");
        let (conn, share) = miner(&mut world, &user);
        assert_eq!(submit(&mut world, conn, &user, &share)["result"], true);
        world.pass(Duration::from_secs(1));
        let (_, all) = get(&mut world, "/api/v1/miners");
        assert_eq!((&all["totals"]["accepted"], &all["totals"]["rates"]), (&json!(1), &all["list"][0]["rates"]), "of one moment");
        assert_eq!(submit(&mut world, conn, &user, &share)["error"][0], 22, "once more");
        let [job, _, nonce] = &share;
        assert_eq!(submit(&mut world, conn, &user, &[job.clone(), "no time".into(), nonce.clone()])["error"][0], 20);
        world.pass(CHARTS_EVERY + 2 * FIGURES_EVERY);

        let (_, all) = get(&mut world, "/api/v1/miners?sort=best&count=5");
        assert_eq!((&all["miners"], &all["workers"], &all["totals"]["accepted"]), (&json!(1), &json!(1), &json!(1)));
        let (code, one) = get(&mut world, &format!("/api/v1/miners/{ADDRESS}"));
        assert_eq!((code, &one["address"], &one["shares"], &one["blocks"]), (200, &json!(ADDRESS), &json!(1), &json!(1)));
        assert_eq!(one["rejected"], json!({ "stale": 0, "duplicate": 1, "low": 0, "malformed": 1, "other": 0 }));
        assert_eq!(all["list"][0]["rejected"], one["rejected"]);
        assert_eq!(one["rates"].as_object().unwrap().keys().collect::<Vec<_>>(), ["15m", "1d", "1h", "1m", "5m", "6h", "7d"]);
        let worker = &one["list_workers"][0];
        assert_eq!((&worker["name"], &worker["agent"], &worker["connected"]), (&json!("rig"), &json!("bitaxe/BM1370/v2.9"), &json!(1)));
        let best = worker["best_ever"].as_f64().unwrap();
        assert!(best > 0.0 && worker["difficulty"].as_f64().unwrap() > 0.0);
        for path in [
            format!("/api/v1/miners/{ADDRESS}.rig"),
            "/api/v1/miners/x".to_owned(),
            format!("/api/v1/miners/{}", "x".repeat(ADDRESS_BYTES_MAX + 1)),
        ] {
            assert_eq!(get(&mut world, &path).0, 400, "{path}");
        }
        let other = "bcrt1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qzf4jry";
        assert_eq!(get(&mut world, &format!("/api/v1/miners/{other}")).0, 404);

        let (_, pool) = get(&mut world, "/api/v1/pool");
        assert_eq!(
            (&pool["best"]["ever"], &pool["best"]["worker"], &pool["best"]["address"]),
            (&json!(best), &json!("rig"), &json!(ADDRESS))
        );
        assert_eq!((&pool["shares_in_window"], &pool["miners_in_window"], &pool["uncles_in_window"]), (&json!(1), &json!(1), &json!(0)));
        assert_eq!(pool["expect"]["own_sats_next_block"], json!(regtest().subsidy(1)), "all of it");
        assert_eq!(pool["luck"]["blocks"].as_array().unwrap().len(), 1);
        assert_eq!(pool["luck"]["since"], pool["luck"]["blocks"][0]["time"]);
        let (_, history) = get(&mut world, "/api/v1/history?span=1h");
        assert_eq!((&history["span"], &history["step_s"], history["points"][0].as_array().unwrap().len()), (&json!("1h"), &json!(10), 6));
        let summed: u64 = history["points"].as_array().unwrap().iter().map(|point| point[4].as_u64().unwrap()).sum();
        assert_eq!(summed, 1);
        let (_, status) = get(&mut world, "/api/v1/status");
        assert!(status["rates"]["own"].is_number() && status["rates"]["pool"].is_number());
        let (_, points) = get(&mut world, "/api/v1/history?span=30d");

        world.hang_up(conn);
        let now = world.now();
        world.node.stop(now, Stopping::Asked);
        world.settle();
        assert!(world.node.finished() && kv.unsynced() == 0);
        let mut world = World::whole_on(&kv, regtest(), &[], 2);
        world.pass(FIGURES_EVERY);
        let (_, again) = get(&mut world, &format!("/api/v1/miners/{ADDRESS}"));
        for same in ["accepted", "rejected", "best_ever", "shares", "blocks", "last_share"] {
            assert_eq!(again[same], one[same], "{same}");
        }
        assert_eq!((&again["best"], &again["connected"], &again["list_workers"][0]["agent"]), (&json!(0.0), &json!(0), &json!(null)));
        assert_eq!(get(&mut world, "/api/v1/pool").1["best"]["ever"], json!(best));
        assert_eq!(get(&mut world, "/api/v1/history?span=30d").1["points"][0][4], points["points"][0][4]);
    }

    /// However many ask, thousands of workers are summed up once a second; who has just come is found all the same.
    #[test]
    fn addresses_are_summed_up_once_a_second() {
        let (mut miners, mut summed) = (Miners::default(), Summed::default());
        let at = |millis| Now { mono: Duration::from_millis(millis), wall: Duration::from_secs(1_790_000_000) };
        let workers = |all: &[Address]| all.iter().map(|address| address.workers).collect::<Vec<_>>();
        let script = |who| Script::P2wpkh([who; 20]);
        miners.arrive(at(1_000), &script(2), "one");
        assert_eq!(workers(summed.all(&miners, at(1_000))), [1]);
        miners.arrive(at(1_100), &script(2), "two");
        assert_eq!(workers(summed.all(&miners, at(1_999))), [1], "the same second");
        assert_eq!(workers(summed.all(&miners, at(2_000))), [2]);
        assert!(summed.one(&miners, at(2_000), &script(1)).is_none());
        miners.arrive(at(2_100), &script(1), "new");
        assert_eq!(summed.one(&miners, at(2_200), &script(1)).map(|address| address.workers), Some(1));
        assert_eq!(workers(summed.all(&miners, at(2_300))), [1, 2]);
    }

    /// A proxy's workers come over one connection: each submit is counted where its name says.
    #[test]
    fn workers_of_one_connection_are_told_apart() {
        let mut world = World::whole(&[], 1);
        world.template(&EmbeddedChain::new(regtest(), None), 1);
        let (conn, share) = miner(&mut world, &format!("{ADDRESS}.one"));
        world.line(conn, &format!(r#"{{"id":9,"method":"mining.authorize","params":["{ADDRESS}_two"]}}"#));
        assert_eq!(submit(&mut world, conn, &format!("{ADDRESS}.one"), &share)["result"], true);
        submit(&mut world, conn, &format!("{ADDRESS}.two"), &share);
        submit(&mut world, conn, "whoever", &share);
        let (_, one) = get(&mut world, &format!("/api/v1/miners/{ADDRESS}"));
        let told = |at: usize| {
            let worker = &one["list_workers"][at];
            (worker["name"].clone(), worker["accepted"].clone(), worker["rejected"]["duplicate"].clone(), worker["connected"].clone())
        };
        assert_eq!(told(0), (json!("one"), json!(1), json!(0), json!(0)));
        assert_eq!(told(1), (json!("two"), json!(0), json!(2), json!(1)));
        assert_eq!((&one["workers"], &one["connected"]), (&json!(2), &json!(1)));
        let (_, rest) = get(&mut world, &format!("/api/v1/miners/{ADDRESS}?offset=1"));
        assert_eq!((&rest["workers"], rest["list_workers"].as_array().unwrap().len()), (&json!(2), 1));
    }

    /// Strangers may have pushed it out while it had done nothing yet: with its first accepted submit it is there again, and leaves once.
    #[test]
    fn who_was_forgotten_before_its_first_submit_is_known_again() {
        let mut world = World::whole(&[], 1);
        world.template(&EmbeddedChain::new(regtest(), None), 1);
        let user = format!("{ADDRESS}.rig");
        let (conn, share) = miner(&mut world, &user);
        world.node.server.miners = Miners::default();
        assert_eq!(submit(&mut world, conn, &user, &share)["result"], true);
        let known = |world: &mut World<Inline>| {
            let (_, one) = get(world, &format!("/api/v1/miners/{ADDRESS}"));
            (one["workers"].clone(), one["connected"].clone(), one["accepted"].clone())
        };
        assert_eq!(known(&mut world), (json!(1), json!(1), json!(1)));
        world.hang_up(conn);
        // Addresses are summed up once a second.
        world.pass(FIGURES_EVERY);
        assert_eq!(known(&mut world), (json!(1), json!(0), json!(1)));
    }

    #[test]
    fn rates_are_told_in_whole_hashes_and_small_ones_in_thousandths() {
        assert_eq!((rounded(1e12 / 3.0), rounded(0.123_456), rounded(0.0)), (333_333_333_333.0, 0.123, 0.0));
        assert_eq!(
            serde_json::to_string(&Rejected([1, 2, 3, 4, 5])).unwrap(),
            r#"{"stale":1,"duplicate":2,"low":3,"malformed":4,"other":5}"#
        );
    }
}
