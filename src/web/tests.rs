//! Requests that the stage `upstream` answers, with a stage that the test plays.

#![expect(clippy::unwrap_used, reason = "tests")]

use rockpool_workers::jobs::Answer as Word;
use serde_json::Value;

use super::*;
use crate::limits::{CURRENCY_BYTES_MAX, HISTORY_DAYS_MAX};
use crate::node::Stopping;
use crate::testing::{HTTP, Recorder, STRATUM, World};

/// A node with portfolios.
fn world() -> World<Recorder> {
    let mut world = World::recorded(&[], true);
    world.node.config.portfolios = true;
    world
}

fn send(world: &mut World<Recorder>, conn: ConnId, text: &str) {
    world.feed(conn, text.as_bytes());
    world.turns();
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
}

/// The one request that the stage has.
#[track_caller]
fn asked(world: &mut World<Recorder>) -> (ConnId, u64, Box<Request>, Ticket) {
    let mut jobs = std::mem::take(&mut world.node.stages_mut().jobs.upstream);
    jobs.retain(is_ask);
    let Some(UpstreamJob::Ask { conn, tag, request, ticket }) = jobs.pop() else { panic!("nothing is asked") };
    assert!(jobs.is_empty(), "{jobs:?}");
    (conn, tag, request, ticket)
}

fn is_ask(job: &UpstreamJob) -> bool {
    matches!(job, UpstreamJob::Ask { .. })
}

fn told(conn: ConnId, tag: u64, status: u16, body: &str) -> Word {
    Word::Told { conn, tag, status, body: body.into(), lines: Vec::new() }
}

fn said(world: &mut World<Recorder>, conn: ConnId) -> String {
    String::from_utf8(world.taken(conn)).unwrap()
}

fn out(world: &mut World<Recorder>) -> usize {
    world.hub.outlet().tickets_out()
}

#[test]
fn a_request_goes_to_the_stage_whole_and_its_answer_comes_in_turn() {
    let mut world = world();
    let conn = world.connect(HTTP);
    let body = r#"{"name":"savings"}"#;
    let head = format!("Authorization: Bearer abc\r\nContent-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    let post = format!("POST /api/v1/portfolios HTTP/1.1\r\nHost: x\r\n{head}\r\n{body}");
    send(&mut world, conn, &format!("{post}{}{}", get("/health"), get("/api/v1/coins?currency=eur")));
    let (from, tag, request, ticket) = asked(&mut world);
    assert_eq!((from, request.method, &*request.path, &*request.body), (conn, Method::Post, "/api/v1/portfolios", body.as_bytes()));
    assert_eq!((request.authorization.as_deref(), request.content_type.as_deref()), (Some("Bearer abc"), Some("application/json")));
    assert!(said(&mut world, conn).is_empty(), "answers keep the order of their requests");
    let lines = vec![("Retry-After", "1".to_owned())];
    world.mail(Word::Told { conn, tag, status: 201, body: br#"{"id":2}"#.to_vec(), lines }, vec![ticket]);
    let text = said(&mut world, conn);
    assert!(text.starts_with("HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 8\r\n"), "{text}");
    assert!(text.contains("Connection: keep-alive\r\n") && text.contains("\r\nRetry-After: 1\r\n"), "{text}");
    assert!(text.contains("Cache-Control: no-store") && text.contains("\r\n\r\n{\"id\":2}HTTP/1.1 503 "), "{text}");
    // The one behind the next is with the stage by now.
    let (_, tag, request, ticket) = asked(&mut world);
    assert_eq!(&*request.path, "/api/v1/coins?currency=eur");
    world.mail(told(conn, tag, 200, "[]"), vec![ticket]);
    assert!(said(&mut world, conn).ends_with("[]") && world.is_open(conn));
    assert_eq!(out(&mut world), 0);
}

#[test]
fn head_has_no_body_and_a_last_request_ends_the_connection() {
    let mut world = world();
    let conn = world.connect(HTTP);
    send(&mut world, conn, "HEAD /api/v1/portfolios HTTP/1.1\r\nHost: x\r\n\r\n");
    let (_, tag, request, ticket) = asked(&mut world);
    assert_eq!(request.method, Method::Head);
    world.mail(told(conn, tag, 200, "12345"), vec![ticket]);
    let text = said(&mut world, conn);
    assert!(text.contains("Content-Length: 5\r\n") && text.ends_with("\r\n\r\n"), "{text}");
    send(&mut world, conn, &get("/api/v1/portfolios").replace("Host", "Connection: close\r\nHost"));
    let (_, tag, _, ticket) = asked(&mut world);
    world.mail(told(conn, tag, 200, "12345"), vec![ticket]);
    let text = said(&mut world, conn);
    assert!(text.contains("Connection: close\r\n") && text.ends_with("12345") && !world.is_open(conn), "{text}");
    assert_eq!(out(&mut world), 0);
}

#[test]
fn who_leaves_while_it_is_asked_takes_no_ticket_along() {
    let mut world = world();
    let conn = world.connect(HTTP);
    send(&mut world, conn, &get("/api/v1/portfolios").repeat(3));
    let (_, tag, _, ticket) = asked(&mut world);
    world.hang_up(conn);
    assert_eq!(out(&mut world), 1, "the stage has one");
    // The slot has another tenant.
    let next = world.connect(HTTP);
    assert_eq!(next.slot, conn.slot);
    world.mail(told(conn, tag, 200, "{}"), vec![ticket]);
    assert_eq!(out(&mut world), 0);
    assert!(said(&mut world, next).is_empty());
}

#[test]
fn a_stage_that_says_nothing_costs_the_connection_and_no_ticket() {
    let mut world = world();
    let conn = world.connect(HTTP);
    send(&mut world, conn, &get("/api/v1/portfolios"));
    let (_, tag, _, ticket) = asked(&mut world);
    world.pass(HTTP_MAX);
    assert!(!world.is_open(conn));
    assert_eq!(out(&mut world), 1);
    world.mail(told(conn, tag, 200, "{}"), vec![ticket]);
    assert_eq!(out(&mut world), 0);
}

#[test]
fn a_stop_waits_for_the_stage() {
    let mut world = world();
    let conn = world.connect(HTTP);
    send(&mut world, conn, &get("/api/v1/portfolios").repeat(2));
    let (_, tag, _, ticket) = asked(&mut world);
    world.mail(Word::Stop, Vec::new());
    assert_eq!((world.node.stopping(), world.node.finished()), (Some(&Stopping::Asked), false));
    assert_eq!(out(&mut world), 1, "what waits is not served any more");
    world.mail(told(conn, tag, 200, "{}"), vec![ticket]);
    assert!(said(&mut world, conn).ends_with("{}") && world.node.finished());
    assert_eq!(out(&mut world), 0);
    assert!(!world.node.stages_mut().jobs.upstream.iter().any(is_ask));
}

#[test]
fn an_answer_to_nothing_is_none() {
    let mut world = world();
    let (conn, miner) = (world.connect(HTTP), world.connect(STRATUM));
    world.mail(told(conn, 0, 200, "{}"), Vec::new());
    world.mail(told(miner, 0, 200, "{}"), Vec::new());
    send(&mut world, conn, &get("/api/v1/portfolios"));
    let (_, tag, _, ticket) = asked(&mut world);
    world.mail(told(conn, tag + 1, 200, "wrong"), Vec::new());
    world.mail(told(conn, tag - 1, 200, "wrong"), Vec::new());
    assert!(said(&mut world, conn).is_empty() && said(&mut world, miner).is_empty());
    world.mail(told(conn, tag, 200, "right"), vec![ticket]);
    world.mail(told(conn, tag, 200, "twice"), Vec::new());
    let text = said(&mut world, conn);
    assert!(text.ends_with("right") && text.matches("HTTP/1.1").count() == 1, "{text}");
}

#[test]
fn pages_that_may_read_are_told_so_and_refused_tokens_are_counted() {
    let mut world = world();
    world.node.pages.doors.origins.push("https://a.example".into());
    let conn = world.connect(HTTP);
    send(&mut world, conn, &get("/api/v1/portfolios").replace("Host", "Origin: https://a.example\r\nHost"));
    let (_, tag, _, ticket) = asked(&mut world);
    world.mail(told(conn, tag, 401, "{}"), vec![ticket]);
    let text = said(&mut world, conn);
    assert!(text.starts_with("HTTP/1.1 401 ") && text.contains("\r\nAccess-Control-Allow-Origin: https://a.example\r\n"), "{text}");
    assert_eq!(world.node.counters().tokens_refused.get(), 1);
    // No page of others changes anything.
    let options = "OPTIONS /api/v1/portfolios HTTP/1.1\r\nHost: x\r\nOrigin: https://a.example\r\n\r\n";
    send(&mut world, conn, options);
    let text = said(&mut world, conn);
    assert!(text.starts_with("HTTP/1.1 204 ") && text.contains("Access-Control-Allow-Methods: GET, HEAD\r\n"), "{text}");
}

#[test]
fn only_what_is_as_described_comes_to_the_stage() {
    let mut world = world();
    let conn = world.connect(HTTP);
    assert_eq!((CURRENCY_BYTES_MAX, HISTORY_DAYS_MAX), (5, 3_650), "below is one more of each");
    for (line, status, says) in [
        ("GET /api/v1/portfolios/x", 400, "portfolio is a number from 1 to 4294967295"),
        ("GET /api/v1/portfolios/0/holdings", 400, "portfolio is a number"),
        ("GET /api/v1/portfolios/4294967296", 400, "portfolio is a number"),
        ("GET /api/v1/portfolios/", 404, "nothing here"),
        ("GET /api/v1/portfolios/1/", 404, "nothing here"),
        ("GET /api/v1/portfolios/1/nothing", 404, "nothing here"),
        ("GET /api/v1/portfolios//accounts", 404, "nothing here"),
        ("DELETE /api/v1/portfolios/1/accounts/", 404, "nothing here"),
        ("DELETE /api/v1/portfolios/1/accounts/2/3", 404, "nothing here"),
        ("DELETE /api/v1/portfolios/1/accounts/x", 400, "account is a number"),
        ("DELETE /api/v1/portfolios/x/accounts/1", 400, "portfolio is a number"),
        ("DELETE /api/v1/portfolios/1/accounts", 405, "only GET, HEAD, POST is answered here"),
        ("PUT /api/v1/portfolios/1", 405, "only GET, HEAD, DELETE is answered here"),
        ("GET /api/v1/portfolios/1/accounts/2", 405, "only DELETE is answered here"),
        ("GET /api/v1/portfolios?currency=dollar", 400, "currency is text of at most 5 bytes"),
        ("GET /api/v1/portfolios/1/history?days=3651", 400, "days is a number from 1 to 3650 (days)"),
        ("GET /api/v1/services", 401, "this needs a token"),
    ] {
        send(&mut world, conn, &format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let text = said(&mut world, conn);
        let body: Value = serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {text}");
        assert!(body["error"]["message"].as_str().unwrap().contains(says), "{line}: {body}");
        assert!(!world.node.stages_mut().jobs.upstream.iter().any(is_ask), "{line}");
    }
    for line in [
        "GET /api/v1/portfolios?currency=eur",
        "POST /api/v1/portfolios",
        "GET /api/v1/portfolios/4294967295",
        "GET /api/v1/portfolios/%31",
        "DELETE /api/v1/portfolios/1",
        "GET /api/v1/portfolios/1/accounts",
        "POST /api/v1/portfolios/1/accounts",
        "DELETE /api/v1/portfolios/1/accounts/2",
        "GET /api/v1/portfolios/1/holdings?currency=btc",
        "GET /api/v1/portfolios/1/history?days=1&currency=usd",
        "GET /api/v1/coins",
    ] {
        send(&mut world, conn, &format!("{line} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"));
        let (_, tag, _, ticket) = asked(&mut world);
        world.mail(told(conn, tag, 200, "{}"), vec![ticket]);
        assert!(said(&mut world, conn).ends_with("{}"), "{line}");
    }
    // While they are off, all of them are not there.
    world.node.config.portfolios = false;
    for path in ["/api/v1/portfolios", "/api/v1/portfolios/1/holdings", "/api/v1/coins"] {
        send(&mut world, conn, &get(path));
        let text = said(&mut world, conn);
        assert!(text.starts_with("HTTP/1.1 404 ") && text.contains("portfolios are off: start the node with --portfolios"), "{text}");
    }
    assert_eq!(out(&mut world), 0);
}
