#![expect(clippy::unwrap_used, reason = "tests")]
use std::io::Write;
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

use bitcoin::hex::FromHex;
use crossbeam_channel::bounded;
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;

use super::fake::{FakeService, Fault, Reply};
use super::*;
use crate::limits::{ACQUIRE_MAX, CALL_TRIES, CIRCUIT_FAILURES, IN_FLIGHT_MAX, SAID_BYTES_MAX, SECRET_BYTES_MIN};

/// A client whose EVM calls have these limits.
fn outside(in_flight: usize, delay: Duration, tries: u32) -> Outside {
    let limits = Limits { in_flight, delay, acquire: ACQUIRE_MAX, tries };
    Outside::new(OutsideConfig { clock: Clock::start(), seed: 1, limits: vec![(Service::Evm, limits)], bitcoind: None })
}

fn plain() -> Outside {
    outside(5, Duration::ZERO, CALL_TRIES)
}

fn get(url: &str) -> Call {
    let what = What::Http { url: url.to_owned(), headers: Arc::new(|_| Vec::new()), body: None };
    let deadline = Duration::from_secs(20);
    Call { service: Service::Evm, endpoint: "chain".into(), what, idempotent: true, deadline, bytes_max: 1_000 }
}

/// Asked at once again.
fn at_once(reply: Reply) -> Reply {
    reply.header("retry-after", "0")
}

#[test]
fn what_is_asked_is_what_comes_and_headers_are_made_for_each_try() {
    let service = FakeService::start(|asked| match asked.number {
        0 => at_once(Reply::status(503)),
        _ => Reply::text("Application/Problem+JSON; charset=utf-8", &json!({"got": asked.json()}).to_string()),
    });
    let outside = plain();
    let made = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&made);
    let headers: call::Headers = Arc::new(move |wall| {
        assert!(wall > Duration::from_secs(1_700_000_000), "the time of day");
        vec![("x-try", counted.fetch_add(1, SeqCst).to_string())]
    });
    let url = format!("{}/v1/x?ids=a,b", service.url());
    let what = What::Http { url, headers, body: Some(json!([1]).to_string()) };
    let brought = outside.call(&Call { what, ..get("") }).unwrap();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&brought).unwrap(), json!({"got": [1]}));
    let asked = service.asked();
    assert_eq!([0, 1].map(|n| asked[n].header("x-try").unwrap()), ["0", "1"]);
    let fields = ["content-type", "accept", "user-agent"].map(|name| asked[0].header(name).unwrap());
    assert_eq!(fields, ["application/json", "application/json", concat!("rockpool/", env!("CARGO_PKG_VERSION"))]);
    assert_eq!((asked[0].method.as_str(), asked[0].path(), asked[0].query("ids")), ("POST", "/v1/x", Some("a,b")));
    outside.call(&get(&service.url())).unwrap();
    assert_eq!(service.asked()[2].method, "GET");
    assert!(outside.tls.get().is_none(), "no certificate was read for that");
}

#[test]
fn every_fault_has_its_word() {
    let service = FakeService::start(|_| Reply::json(&json!({})));
    let elsewhere = FakeService::start(|_| Reply::json(&json!({})));
    let within = Reply::status(308).header("location", "/secret");
    let moved = Reply::status(302).header("location", &format!("{}/secret", elsewhere.url()));
    let status = |status, said: &str, after| CallError::Status { status, said: Some(said.to_owned()), retry_after: after };
    let zero = Some(Duration::ZERO);
    let long = json!("x".repeat(2_000));
    let cases: Vec<(Reply, usize, CallError)> = vec![
        (at_once(Reply::status(429)), 3, status(429, r#"{"error":429}"#, zero)),
        (at_once(Reply::status(500)), 3, status(500, r#"{"error":500}"#, zero)),
        (Reply::status(429).header("retry-after", "86400"), 1, status(429, r#"{"error":429}"#, Some(Duration::from_secs(86_400)))),
        (Reply::status(404), 1, status(404, r#"{"error":404}"#, None)),
        (moved, 1, status(302, &format!("moved to {}", elsewhere.url()), None)),
        (within, 1, status(308, "moved", None)),
        (Reply::text("text/html", "{}"), 1, CallError::Garbled("content type text/html".into())),
        (Reply::text("", "{}"), 1, CallError::Garbled("no content type".into())),
        (Reply::text("application/json", "{\"a\":"), 1, CallError::Garbled("EOF while parsing a value at line 1 column 5".into())),
        (Reply::json(&long), 1, CallError::TooLong(1_000)),
        (Reply::json(&json!({})).fault(Fault::Endless), 1, CallError::TooLong(1_000)),
    ];
    for (reply, calls, why) in cases {
        let before = service.calls();
        service.answer(move |_| reply.clone());
        // A client of its own, so that no circuit opens.
        assert_eq!(plain().call(&get(&service.url())), Err(why.clone()));
        assert_eq!(service.calls() - before, calls, "{why}");
    }
    assert_eq!(elsewhere.calls(), 0, "no redirect is followed");
    // What the connection does is told in the system's words, and tried again only after a pause: one try here.
    let once = outside(1, Duration::ZERO, 1);
    for fault in [Fault::Cut, Fault::HangUp] {
        service.answer(move |_| Reply::json(&json!({"a": "long enough to be cut"})).fault(fault.clone()));
        let result = once.call(&get(&service.url()));
        assert!(matches!(result, Err(CallError::Unreachable(_))), "{result:?}");
    }
    assert!(matches!(once.call(&get(&FakeService::refused())), Err(CallError::Unreachable(_))));
    let short = Duration::from_millis(200);
    for fault in [Fault::Hang, Fault::SlowHead(short * 50), Fault::SlowBody(short)] {
        service.answer(move |_| Reply::json(&json!("a slow answer")).fault(fault.clone()));
        let call = Call { deadline: short, endpoint: format!("{short:?}").into(), ..get(&service.url()) };
        assert_eq!(once.call(&call), Err(CallError::Timeout));
    }
    assert!(matches!(once.call(&get("nonsense")), Err(CallError::Refused(_) | CallError::Unreachable(_))));
    let odd: call::Headers = Arc::new(|_| vec![("x-key", "two\nlines".into())]);
    let what = What::Http { url: service.url(), headers: odd, body: None };
    assert!(matches!(once.call(&Call { what, ..get("") }), Err(CallError::Refused(_))));
}

#[test]
fn what_changes_something_is_asked_once() {
    let service = FakeService::start(|_| at_once(Reply::status(503)));
    let outside = plain();
    let _ = outside.call(&Call { idempotent: false, ..get(&service.url()) });
    assert_eq!(service.calls(), 1);
    let _ = outside.call(&get(&service.url()));
    assert_eq!(service.calls(), 1 + CALL_TRIES as usize);
}

#[test]
fn an_endpoint_that_fails_again_and_again_is_left_alone_and_no_other_is() {
    let service = FakeService::start(|asked| if asked.path() == "/sick" { at_once(Reply::status(502)) } else { Reply::json(&json!(1)) });
    let outside = outside(5, Duration::ZERO, 1);
    let sick = Call { endpoint: "sick".into(), ..get(&format!("{}/sick", service.url())) };
    for _ in 0..CIRCUIT_FAILURES {
        assert!(matches!(outside.call(&sick), Err(CallError::Status { status: 502, .. })));
    }
    for _ in 0..100 {
        assert!(matches!(outside.call(&sick), Err(CallError::Open { failures: CIRCUIT_FAILURES, .. })));
    }
    assert_eq!(service.calls(), CIRCUIT_FAILURES as usize);
    assert_eq!(outside.call(&get(&service.url())), Ok(b"1".to_vec()));
    let gauges = outside.gauges();
    let evm = &gauges[Service::Evm as usize];
    let count = |name| evm.calls.iter().find(|(outcome, _)| *outcome == name).unwrap().1;
    assert_eq!((evm.service, evm.open, evm.in_flight, evm.waiting), (Service::Evm, 1, 0, 0));
    assert_eq!((count("ok"), count("status"), count("open")), (1, CIRCUIT_FAILURES.into(), 100));
    assert_eq!(evm.calls.iter().map(|(_, calls)| calls).sum::<u64>(), 101 + u64::from(CIRCUIT_FAILURES));
}

#[test]
fn ten_thousand_calls_from_many_threads_break_no_limit() {
    const CALLS: usize = 10_000;
    const THREADS: usize = 64;
    let (places, delay) = (7, Duration::from_micros(200));
    let service = FakeService::start(|asked| match asked.number % 50 {
        // Some fail, and are tried again; some connections end.
        7 => at_once(Reply::status(500)),
        _ => Reply::json(&json!(asked.number)).fault(Fault::SlowHead(Duration::from_millis(1))),
    });
    let outside = outside(places, delay, 9);
    let door = outside.door(Service::Evm);
    door.watched.lock().unwrap().replace(Vec::new());
    let left = AtomicUsize::new(CALLS);
    let most = AtomicUsize::new(0);
    let url = service.url();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
                    outside.call(&get(&url)).unwrap();
                    most.fetch_max(outside.gauges()[Service::Evm as usize].in_flight, SeqCst);
                }
            });
        }
    });
    let starts = door.watched.lock().unwrap().take().unwrap();
    let least = |times: &[Duration]| times.windows(2).map(|two| two[1] - two[0]).min().unwrap();
    let calls = service.calls();
    println!(
        "{calls} tries of {CALLS} calls by {THREADS} threads: {} at once at the server, {} by the client, {places} at most; \
         two starts {:?} apart at least by the client's clock as they start, {:?} by the server's, {delay:?} wanted",
        service.most_in_flight(),
        most.load(SeqCst),
        least(&starts),
        least(&service.starts()),
    );
    assert!(calls > CALLS && calls == starts.len());
    assert_eq!(service.most_in_flight(), places, "never more, and not too quiet to show it");
    assert!(most.load(SeqCst) <= places);
    assert!(least(&starts) >= delay);
    // Two calls that start apart may reach the server together, if the machine has other things to do; but at no time have more come than
    // were to start by then. The two clocks tell the same time but for where they begin.
    let (server, client) = (service.now(), door.now().mono);
    let early = service.starts().iter().zip(&starts).filter(|(came, start)| **came + client < **start + server).count();
    assert_eq!(early, 0, "came before they could");
    let gauges = outside.gauges();
    assert_eq!(gauges[Service::Evm as usize].calls[0], ("ok", CALLS as u64));
}

/// How long six chains take, of which as many are asked at once as may be.
fn six_chains(in_flight: usize, threads: usize) -> (Duration, usize) {
    let latency = Duration::from_millis(150);
    let service = FakeService::start(move |_| Reply::json(&json!("0x0")).fault(Fault::SlowHead(latency)));
    // A tenth of the latencies and of the delay that are usual.
    let outside = outside(in_flight, Duration::from_millis(5), 1);
    let clock = Clock::start();
    let left = AtomicUsize::new(6);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
                    outside.call(&get(&service.url())).unwrap();
                }
            });
        }
    });
    (clock.mono(), service.most_in_flight())
}

#[test]
fn six_chains_are_asked_beside_each_other() {
    let (one, _) = six_chains(1, 1);
    for (in_flight, most) in [(6, 6), (5, 5)] {
        let (time, at_once) = six_chains(in_flight, 6);
        println!("six chains, {in_flight} in flight: {time:?} for {one:?} one after the other, {:.3}", time.div_duration_f64(one));
        assert_eq!(at_once, most);
        assert!(time * 2 < one);
    }
}

#[test]
fn who_waits_when_the_node_stops_is_told() {
    let (_gate, closed) = bounded(0);
    let service = FakeService::start(move |_| Reply::json(&json!(1)).fault(Fault::Gate(closed.clone())));
    let outside = Arc::new(outside(1, Duration::ZERO, 1));
    let (told, results) = bounded(IN_FLIGHT_MAX);
    for _ in 0..4 {
        let (outside, told, url) = (Arc::clone(&outside), told.clone(), service.url());
        thread::Builder::new().spawn(move || told.send(outside.call(&get(&url)))).unwrap();
    }
    let gauges = || outside.gauges()[Service::Evm as usize].clone();
    while gauges().waiting < 3 || gauges().in_flight < 1 {
        thread::yield_now();
    }
    outside.stop();
    for _ in 0..3 {
        assert_eq!(results.recv().unwrap(), Err(CallError::Stopped));
    }
    assert_eq!(outside.call(&get(&service.url())), Err(CallError::Stopped));
    drop(service);
    assert!(results.recv().unwrap().is_err(), "the one under way ends by itself");
}

/// A root certificate, good until 2120.
const ROOT: &str = "\
    308201213081c8a003020102020101300a06082a8648ce3d040302300f310d300b06035504030c04726f6f743020170d3230303130313030303030305a180f3231\
    3230303130313030303030305a300f310d300b06035504030c04726f6f743059301306072a8648ce3d020106082a8648ce3d03010703420004d5a29dad2ee9dd4a\
    0e22268605371ed4a30a87635e90e005dd7f7e4c957b78b0bd8317098c4770d2e0b204c7a5f28c7b85cf93f74eb29e7e0503458c5b22f199a3133011300f060355\
    1d130101ff040530030101ff300a06082a8648ce3d0403020348003045022100d9970ab3ab5149aab6498345d30c71f64419c13ddc3b64ceb5c32b86c9e1e48f02\
    2078df834e707a2339f78649a2e1eaaa34ec8e37f048b6ddb0045122c3694b1da9";
/// A certificate for localhost, signed by it.
const LEAF: &str = "\
    308201273081cda003020102020102300a06082a8648ce3d040302300f310d300b06035504030c04726f6f743020170d3230303130313030303030305a180f3231\
    3230303130313030303030305a300f310d300b06035504030c046c6561663059301306072a8648ce3d020106082a8648ce3d03010703420004b356ff1cb5a489a9\
    3ad7475b4b619a0b0f07c400556736cedaa931ebefa3e6f0fae99ad9de93573b4e7ee9ba43eac1379baed2ff350f2190714a5a3b098b3909a31830163014060355\
    1d11040d300b82096c6f63616c686f7374300a06082a8648ce3d0403020349003046022100c3923cc222b7a188b86bf92444c5c06488dba7122d0b8d7568eaf2cf\
    709df2c002210088f6737c2775fc95040fa711d51941d955157dd0d91373dc2d95119224c42660";
/// Its key: PKCS#8.
const KEY: &str = "\
    308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420cc03d1a9b67867b61989a7907201c42ec7343d9f3ea863fa7b2b2ddb5d\
    0aa577a14403420004b356ff1cb5a489a93ad7475b4b619a0b0f07c400556736cedaa931ebefa3e6f0fae99ad9de93573b4e7ee9ba43eac1379baed2ff350f2190\
    714a5a3b098b3909";

fn der(hex: &str) -> Vec<u8> {
    Vec::from_hex(hex).unwrap()
}

/// A server that answers each connection once, over TLS. Its port.
fn tls_server() -> u16 {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::Pkcs8(der(KEY).into());
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![der(LEAF).into()], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // Ends with the test's process; it waits for nobody.
    thread::Builder::new()
        .spawn(move || {
            for tcp in listener.incoming().flatten() {
                let mut stream = rustls::StreamOwned::new(rustls::ServerConnection::new(Arc::clone(&config)).unwrap(), tcp);
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                    head.push(byte[0]);
                }
                let _ = stream
                    .write_all(b"HTTP/1.1 200 X\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: 4\r\n\r\ntrue");
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        })
        .unwrap();
    port
}

#[test]
fn over_tls_only_who_can_prove_to_be_it_is_heard() {
    let port = tls_server();
    let url = |host: &str| get(&format!("https://{host}:{port}/"));
    let trusting = outside(1, Duration::ZERO, 1);
    let _ = trusting.trust(Ok(vec![Certificate::from_der(&der(ROOT)).to_owned()]));
    assert_eq!(trusting.call(&url("localhost")), Ok(b"true".to_vec()));
    // A certificate for somebody else, and one of nobody whom the system knows.
    let doubted = |outside: &Outside, host: &str| match outside.call(&url(host)) {
        Err(CallError::Unreachable(why)) => why,
        other => panic!("{other:?}"),
    };
    let why = doubted(&trusting, "127.0.0.1");
    assert!(why.contains("not valid for name"), "{why}");
    let stranger = outside(1, Duration::ZERO, 1);
    // There were none when they were first looked for, as while the system renews them: that is not for good.
    assert!(matches!(stranger.trust(Err("there are none".into())), Err(CallError::Unreachable(_))));
    let _ = stranger.trust(Ok(vec![Certificate::from_der(&der(LEAF)).to_owned()]));
    let why = doubted(&stranger, "localhost");
    assert!(why.contains("UnknownIssuer") || why.contains("invalid peer certificate"), "{why}");
    // With the system's own certificates, or none on this machine: read at the first call, and it is none of theirs.
    let usual = outside(1, Duration::ZERO, 1);
    doubted(&usual, "localhost");
    assert_eq!(usual.tls.get().is_some(), roots().is_ok());
}

#[test]
fn a_call_that_panics_ends_neither_its_thread_nor_those_after_it() {
    let service = FakeService::start(|_| Reply::json(&json!(1)));
    let outside = outside(1, Duration::ZERO, CALL_TRIES);
    let headers: call::Headers = Arc::new(|_| panic!("a defect"));
    let what = What::Http { url: service.url(), headers, body: None };
    for _ in 0..CIRCUIT_FAILURES {
        let result = outside.call(&Call { what: what.clone(), ..get("") });
        assert!(matches!(result, Err(CallError::Garbled(_))), "{result:?}");
    }
    assert_eq!(outside.call(&get(&service.url())), Ok(b"1".to_vec()), "its place is free");
    let evm = &outside.gauges()[Service::Evm as usize];
    assert_eq!((evm.in_flight, evm.calls.iter().map(|(_, calls)| calls).sum::<u64>()), (0, u64::from(CIRCUIT_FAILURES) + 1));
}

#[test]
fn an_answer_of_bitcoind_that_is_too_long_is_told_as_such() {
    let service = FakeService::start(|_| Reply::json(&json!({"result": "x".repeat(2_000), "error": null, "id": "rockpool"})));
    let bitcoind = BitcoindConfig::new(&format!("http://u:p@{}", service.host()), None, rockpool_store::params::Network::Regtest);
    let config = OutsideConfig { clock: Clock::start(), seed: 1, limits: Vec::new(), bitcoind: Some(bitcoind.unwrap()) };
    let what = What::Rpc { method: "scantxoutset", params: json!([]) };
    let call = Call { service: Service::Bitcoind, what, ..get("") };
    assert_eq!(Outside::new(config).call(&call), Err(CallError::TooLong(1_000)));
}

#[test]
fn no_secret_is_in_what_a_service_says_of_a_failure() {
    // As many servers do with a path that they do not know, and some with a key.
    let service = FakeService::start(|asked| {
        let lines: Vec<_> = asked.headers.iter().filter(|(name, _)| name.starts_with("x-")).collect();
        Reply { status: 404, ..Reply::text("text/html", &format!("Cannot {} {} {lines:?}", asked.method, asked.target)) }
    });
    let (key, passphrase) = ("0123456789abcdef".repeat(2), "p".repeat(SECRET_BYTES_MIN));
    let url = format!("{}/v3/{key}/x?apikey={key}&of={}{key}", service.url(), "a,".repeat(REASON_BYTES_MAX));
    assert!(url.len() > REASON_BYTES_MAX && (url.len() as u64) < SAID_BYTES_MAX);
    let sent = passphrase.clone();
    let headers: call::Headers = Arc::new(move |_| vec![("x-passphrase", sent.clone())]);
    let call = |url: &str| Call { what: What::Http { url: url.to_owned(), headers: headers.clone(), body: None }, ..get("") };
    for url in [url.as_str(), &format!("{}/v3/{key}", service.url())] {
        let Err(CallError::Status { said: Some(said), .. }) = plain().call(&call(url)) else { panic!("a refusal") };
        assert!(said.starts_with("Cannot GET /v3/…") && !said.contains(&key[..8]) && !said.contains(&passphrase), "{said}");
        assert!(said.chars().count() <= REASON_BYTES_MAX);
    }
}
