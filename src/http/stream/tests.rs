#![expect(clippy::unwrap_used, reason = "tests")]

use rockpool_net::id::ShareId;
use rockpool_workers::jobs::Answer;

use super::*;
use crate::limits::{HTTP_CONNS_MAX, HTTP_MAX};
use crate::testing::{HTTP, Recorder, World};

type Node = World<Recorder>;

const ASK: &[u8] = b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n";

/// An event as a browser sees it: number, name, data.
type Seen = (u64, String, Value);

fn seen(text: &str) -> Vec<Seen> {
    let mut all = Vec::new();
    for block in text.split_terminator("\n\n").filter(|block| !block.starts_with("retry: ")) {
        let lines: Vec<_> = block.split('\n').map(|line| line.split_once(": ").unwrap()).collect();
        let [("id", number), ("event", name), ("data", data)] = lines[..] else { panic!("{block}") };
        all.push((number.parse().unwrap(), name.to_owned(), serde_json::from_str(data).unwrap()));
    }
    all
}

fn names(seen: &[Seen]) -> Vec<&str> {
    seen.iter().map(|(_, name, _)| name.as_str()).collect()
}

fn text(world: &mut Node, conn: ConnId) -> String {
    String::from_utf8(world.taken(conn)).unwrap()
}

/// What a stream was sent since this was last asked.
fn heard(world: &mut Node, conn: ConnId) -> Vec<Seen> {
    seen(&text(world, conn))
}

fn asked(world: &mut Node, request: &[u8]) -> (ConnId, String) {
    let conn = world.connect(HTTP);
    world.feed(conn, request);
    world.turns();
    (conn, text(world, conn))
}

/// A stream, and what it begins with.
fn opened(world: &mut Node, since: Option<u64>) -> (ConnId, Vec<Seen>) {
    let line = since.map_or(String::new(), |since| format!("Last-Event-ID: {since}\r\n"));
    let (conn, said) = asked(world, format!("GET /api/v1/events HTTP/1.1\r\nHost: x\r\n{line}\r\n").as_bytes());
    let (head, body) = said.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    (conn, seen(body))
}

fn counters(world: &Node) -> &Counters {
    world.node.counters()
}

fn share(height: u32) -> Event {
    Event::ShareAccepted { id: ShareId::default(), height, own: true }
}

fn block(height: u32) -> Event {
    Event::BlockFound { hash: ShareId::default(), height, miner: None }
}

/// These come about in one turn.
fn publish(world: &mut Node, events: impl IntoIterator<Item = Event>) {
    events.into_iter().for_each(|event| world.hub.outlet().publish(event));
    world.turns();
}

#[test]
fn a_stream_begins_with_the_status_and_goes_on_with_what_happens() {
    let mut world = World::recorded(&[], true);
    publish(&mut world, [share(1)]);
    let (conn, said) = asked(&mut world, ASK);
    let (head, body) = said.split_once("\r\n\r\n").unwrap();
    for line in ["Content-Type: text/event-stream", "Cache-Control: no-store", "X-Accel-Buffering: no", "Connection: close"] {
        assert!(head.contains(line), "{head}");
    }
    assert!(!head.contains("Content-Length") && !head.contains("chunked"), "{head}");
    assert!(body.starts_with(&format!("retry: {}\n\n", STREAM_RETRY.as_millis())), "{body}");
    let [(1, status, data)] = &seen(body)[..] else { panic!("{body}") };
    assert_eq!((status.as_str(), &data["network"], &data["tip"]["height"]), ("status", &"regtest".into(), &0.into()));
    publish(&mut world, [share(2), block(3)]);
    let told = heard(&mut world, conn);
    assert_eq!(told.iter().map(|(number, ..)| *number).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(names(&told), ["share", "block"]);
    assert_eq!((&told[0].2["height"], &told[0].2["own"], &told[1].2["miner"]), (&2.into(), &true.into(), &false.into()));
    assert_eq!(world.hub.outlet().tickets_out(), 0);
    world.hang_up(conn);
    assert_eq!(counters(&world).streams.get(), 0);
}

#[test]
fn a_stream_outlives_the_deadline_of_idle_http_and_is_no_place_for_requests() {
    let mut world = World::recorded(&[], true);
    let (conn, _) = opened(&mut world, None);
    world.pass(3 * HTTP_MAX);
    assert!(world.is_open(conn));
    world.feed(conn, b"GET /api/v1/status HTTP/1.1\r\nHost: x\r\n\r\n");
    world.turns();
    assert!(!world.is_open(conn) && !text(&mut world, conn).contains("HTTP/1.1"));
    assert_eq!((world.hub.outlet().tickets_out(), counters(&world).streams.get()), (0, 0));
    // What was asked in front is answered; nothing can be behind.
    let (conn, said) = asked(&mut world, &[b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", ASK].concat());
    assert!(said.starts_with("HTTP/1.1 ") && said.contains("text/event-stream") && world.is_open(conn), "{said}");
    let (conn, _) = asked(&mut world, &[ASK, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"].concat());
    assert!(!world.is_open(conn));
    assert_eq!(world.hub.outlet().tickets_out(), 0);
}

#[test]
fn half_a_request_on_a_stream_ends_it_without_a_word() {
    let mut world = World::recorded(&[], true);
    let (conn, _) = opened(&mut world, None);
    world.feed(conn, b"GET / HTTP/1.1\r\nHo");
    world.pass(HTTP_MAX);
    assert!(!world.is_open(conn) && !text(&mut world, conn).contains("HTTP/1.1"));
}

#[test]
fn the_head_alone_is_told_and_http_1_0_is_understood() {
    let mut world = World::recorded(&[], true);
    let (conn, said) = asked(&mut world, b"HEAD /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(said.contains("text/event-stream") && said.ends_with("\r\n\r\n"), "{said}");
    assert!(!world.is_open(conn), "it said so");
    let (conn, said) = asked(&mut world, b"GET /api/v1/events HTTP/1.0\r\n\r\n");
    assert!(said.contains("event: status\n") && world.is_open(conn), "{said}");
}

#[test]
fn while_there_is_no_stream_nothing_is_subscribed_to_or_rendered() {
    let mut world = World::recorded(&[], true);
    publish(&mut world, (0..10).map(share));
    let subscribers = world.hub.events().subscribers();
    let (first, _) = opened(&mut world, None);
    let (second, _) = opened(&mut world, None);
    assert_eq!(world.hub.events().subscribers(), subscribers + 1, "one for all");
    [first, second].into_iter().for_each(|conn| world.hang_up(conn));
    assert_eq!(world.hub.events().subscribers(), subscribers);
    publish(&mut world, (0..10).map(share));
    assert_eq!((counters(&world).stream_payloads.get(), world.node.streams.feed.past.len()), (0, 0));
}

#[test]
fn what_is_told_is_encoded_once_for_all_and_no_more_streams_than_may_be_are_open() {
    let mut world = World::recorded(&[], true);
    let all: Vec<ConnId> = (0..STREAMS_MAX).map(|_| opened(&mut world, None).0).collect();
    let (conn, refused) = asked(&mut world, ASK);
    assert!(refused.starts_with("HTTP/1.1 503 ") && world.is_open(conn), "{refused}");
    assert_eq!((counters(&world).streams.get(), counters(&world).streams_refused.get()), (STREAMS_MAX as u64, 1));
    let requests = (STREAMS_MAX + 1..HTTP_CONNS_MAX).map(|_| asked(&mut world, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert!(requests.count() >= STREAMS_MAX - 1, "as many stay for requests");
    let before = counters(&world).stream_payloads.get();
    publish(&mut world, [share(1), share(2)]);
    assert_eq!(counters(&world).stream_payloads.get(), before + 1);
    for conn in &all {
        assert_eq!(names(&heard(&mut world, *conn)), ["share", "share"]);
    }
    world.hang_up(all[0]);
    opened(&mut world, None);
}

#[test]
fn who_does_not_read_is_cut_and_the_others_go_on() {
    let mut world = World::recorded(&[], true);
    let [deaf, sound] = [(); 2].map(|()| opened(&mut world, None).0);
    world.clog(deaf, true);
    let (mut told, mut rounds) = (0, 0);
    while world.is_open(deaf) {
        rounds += 1;
        // Those that are always told.
        publish(&mut world, (0..100).map(block));
        told += names(&heard(&mut world, sound)).iter().filter(|name| **name == "block").count();
        assert!(world.hub.outlet().unread(deaf) <= STREAM_BACKLOG_BYTES);
    }
    assert_eq!(told, 100 * rounds);
    assert!(rounds > 2 && world.is_open(sound));
    assert_eq!((counters(&world).streams_cut.get(), counters(&world).streams.get()), (1, 1));
    assert_eq!(world.hub.outlet().counters().closed_slow_reader.get(), 1);
}

#[test]
fn who_reads_is_never_cut_for_what_is_large() {
    let mut world = World::recorded(&[], true);
    let [deaf, sound] = [(); 2].map(|()| opened(&mut world, None).0);
    world.clog(deaf, true);
    for cut in [0, 1] {
        let large = event(1, "status", &"x".repeat(STREAM_BACKLOG_BYTES));
        let counters = world.node.counters().clone();
        world.node.streams.send(large, world.hub.outlet(), &counters);
        world.turns();
        assert_eq!((world.is_open(sound), world.is_open(deaf), counters.streams_cut.get()), (true, cut == 0, cut));
    }
}

#[test]
fn who_comes_back_is_told_what_it_missed_as_far_as_that_is_known() {
    let mut world = World::recorded(&[], true);
    let (keeper, _) = opened(&mut world, None);
    publish(&mut world, (1..=5).map(share));
    let (_, told) = opened(&mut world, Some(3));
    assert_eq!(
        told.iter().map(|(number, name, _)| (*number, name.as_str())).collect::<Vec<_>>(),
        [(3, "status"), (4, "share"), (5, "share")]
    );
    assert_eq!(names(&opened(&mut world, Some(5)).1), ["status"]);
    let other_run = opened(&mut world, Some(77)).1;
    assert_eq!((names(&other_run), other_run[0].0), (vec!["status"], 5));
    // Beyond the past that is kept.
    while world.node.streams.feed.forgotten == 0 {
        publish(&mut world, (0..100).map(block));
        heard(&mut world, keeper);
    }
    let (forgotten, last) = (world.node.streams.feed.forgotten, world.node.streams.feed.last);
    let (_, told) = opened(&mut world, Some(2));
    assert_eq!((told[0].0, &told[1]), (2, &(forgotten, "lost".to_owned(), serde_json::json!({ "events": forgotten - 2 }))));
    assert_eq!((told[2].0, told.last().unwrap().0, told.len() as u64), (forgotten + 1, last, 2 + last - forgotten));
    let past: usize = world.node.streams.feed.past.iter().map(|(_, event)| event.len()).sum();
    assert!(past <= STREAM_PAST_BYTES && past > STREAM_PAST_BYTES / 2 && past == world.node.streams.feed.past_bytes, "{past}");
}

#[test]
fn of_a_flood_the_number_is_told_and_blocks_all_the_same() {
    let mut world = World::recorded(&[], true);
    let (conn, _) = opened(&mut world, None);
    let flood = 1_000;
    publish(&mut world, (0..flood).map(share));
    let told = text(&mut world, conn);
    assert!(told.len() <= STREAM_BYTES_A_SECOND && told.len() > STREAM_BYTES_A_SECOND * 9 / 10, "{} bytes", told.len());
    let lost = u64::from(flood) - seen(&told).len() as u64;
    publish(&mut world, [block(1), share(0), share(0)]);
    let told = heard(&mut world, conn);
    assert_eq!(names(&told), ["lost", "block"]);
    assert_eq!((told[0].0, &told[0].2["events"]), (u64::from(flood), &lost.into()));
    world.pass(Duration::from_secs(1));
    publish(&mut world, [share(0)]);
    let told: Vec<_> = heard(&mut world, conn).into_iter().filter(|(_, name, _)| name != "status").collect();
    assert_eq!(names(&told), ["lost", "share"]);
    assert_eq!((&told[0].2["events"], counters(&world).stream_lost.get()), (&2.into(), lost + 2));
    assert!(told.iter().map(|(number, ..)| *number).is_sorted());
}

#[test]
fn who_reads_is_not_cut_whatever_comes_at_once() {
    let mut world = World::recorded(&[], true);
    let (conn, _) = opened(&mut world, None);
    let fate = Event::BlockFate { hash: ShareId::default(), fate: "\u{1}".repeat(10 * STREAM_TEXT_CHARS) };
    publish(&mut world, std::iter::repeat_n(fate, 1_000));
    let told = text(&mut world, conn);
    assert!(world.is_open(conn) && told.len() <= STREAM_PAST_BYTES && told.len() > STREAM_PAST_BYTES * 9 / 10, "{} bytes", told.len());
    assert_eq!(seen(&told)[0].2["fate"].as_str().unwrap().len(), STREAM_TEXT_CHARS);
    assert_eq!(counters(&world).stream_lost.get(), 1_000 - seen(&told).len() as u64);
}

#[test]
fn what_the_subscription_itself_loses_is_told_too() {
    let mut world = World::recorded(&[], true);
    let (conn, _) = opened(&mut world, None);
    publish(&mut world, (0..EVENTS_MAX as u32 + 7).map(share));
    let told = heard(&mut world, conn);
    assert_eq!((told[0].1.as_str(), &told[0].2["events"], told[1].0), ("lost", &7.into(), 8));
}

#[test]
fn the_status_comes_when_it_is_another_and_as_a_sign_of_life() {
    let mut world = World::recorded(&[], true);
    let (conn, _) = opened(&mut world, None);
    world.pass(STREAM_STATUS_MIN);
    heard(&mut world, conn);
    world.pass(STREAM_HEARTBEAT - Duration::from_secs(1));
    assert_eq!(names(&heard(&mut world, conn)), [""; 0], "nothing has changed");
    world.pass(Duration::from_secs(1));
    let told = heard(&mut world, conn);
    assert_eq!((names(&told), &told[0].2["uptime_s"]), (vec!["status"], &16.into()));
    world.mail(Answer::BitcoinDown(Some("gone".into())), Vec::new());
    assert_eq!(names(&heard(&mut world, conn)), ["trouble"], "the status is sent once a second at most");
    world.pass(STREAM_STATUS_MIN);
    let told = heard(&mut world, conn);
    assert_eq!(names(&told), ["status"]);
    assert!(told[0].2["trouble"].as_str().unwrap().contains("gone"));
}

#[test]
fn streams_end_with_the_node() {
    let mut world = World::recorded(&[], true);
    let all = [(); 3].map(|()| opened(&mut world, None).0);
    world.mail(Answer::Stop, Vec::new());
    assert!(all.into_iter().all(|conn| !world.is_open(conn)) && world.node.finished());
}

#[test]
fn every_kind_is_told_in_its_form_and_no_text_breaks_out_of_its_line() {
    let (conn, addr) = (ConnId { slot: 1, generation: 1 }, "8.8.8.8:9333".parse().unwrap());
    let id = ShareId::default();
    let evil = "a\r\ndata: {}\n\nevent: block \"\u{2028}\u{0}".to_owned();
    let why = CloseReason::Misbehaviour(evil.clone());
    let said = format!("misbehaviour: {evil}");
    let zeros = "0".repeat(64);
    for (event, name, data) in [
        (Event::TipChanged { id, height: 7, score: u128::MAX }, "tip", format!(r#"{{"id":"{zeros}","height":7,"score":{}}}"#, u128::MAX)),
        (Event::BlockFate { hash: id, fate: "accepted".into() }, "fate", format!(r#"{{"hash":"{zeros}","fate":"accepted"}}"#)),
        (Event::BitcoinBlock { hash: id, height: 2 }, "bitcoin", format!(r#"{{"height":2,"hash":"{zeros}"}}"#)),
        (Event::WorkChanged { bitcoin_height: 3, clean: true }, "work", r#"{"bitcoin_height":3,"clean":true}"#.into()),
        (Event::DiskFull(true), "trouble", r#"{"what":"disk","why":"the disk is full"}"#.into()),
        (Event::DiskFull(false), "trouble", r#"{"what":"disk","why":null}"#.into()),
        (Event::BitcoinDown(None), "trouble", r#"{"what":"bitcoin","why":null}"#.into()),
        (Event::PeerUp { conn, addr, outbound: true }, "peer", r#"{"up":true,"addr":"8.8.8.8:9333","outbound":true,"why":null}"#.into()),
    ] {
        assert_eq!(rendered(&event), Some((name, data)));
    }
    let (user, worker, agent) = (evil.clone(), evil.clone(), evil.clone());
    let up = rendered(&Event::MinerUp { conn, addr, user, worker, agent }).unwrap();
    let (worker, agent) = (evil.clone(), evil.clone());
    let down = rendered(&Event::MinerDown { conn, addr, worker, agent, why: why.clone() }).unwrap();
    for ((name, data), is_up) in [(up, true), (down, false)] {
        assert!(!data.contains(['\n', '\r']) && !data.contains("8.8.8.8"), "{data}");
        let wanted = serde_json::json!({ "up": is_up, "worker": evil, "agent": evil });
        assert_eq!((name, serde_json::from_str::<Value>(&data).unwrap()), ("miner", wanted));
    }
    let (_, data) = rendered(&Event::PeerDown { conn, addr, outbound: false, why: why.clone() }).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&data).unwrap()["why"], Value::from(said));
    assert_eq!(seen(&event(9, "peer", &data)).len(), 1);
    assert_eq!(rendered(&Event::BitcoinPeerDown { conn, addr, why }), None);
}
