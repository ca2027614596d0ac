//! Hostile HTTP, on a real hub over wires in memory: what is refused, with which last word, and that nobody else is harmed.

use std::time::Duration;

use rockpool_net::id::ConnId;
use rockpool_net::limits::{FLUSH_MAX, HTTP_BODY_BYTES_MAX, HTTP_HEAD_BYTES_MAX, HTTP_HEADERS_MAX, MESSAGE_GRACE, TICKETS_HTTP};
use serde_json::Value;

use crate::limits::HTTP_MAX;
use crate::testing::{HTTP, Recorder, World};

/// An answer: its status, its head and its body.
#[derive(Debug)]
struct Said {
    status: u16,
    head: String,
    body: String,
}

impl Said {
    fn code(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap();
        assert!(body["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
        body["error"]["code"].as_str().unwrap().to_owned()
    }
}

/// The answers in these bytes, cut by their lengths; `heads` are those that are answers to HEAD.
fn answers(mut bytes: &[u8], head_only: bool) -> Vec<Said> {
    let mut said = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).map_or(0, |length| length.parse().unwrap());
        let length = if head_only { 0 } else { length };
        let body = String::from_utf8_lossy(&bytes[end..end + length]).into_owned();
        said.push(Said { status: head[9..12].parse().unwrap(), head, body });
        bytes = &bytes[end + length..];
    }
    said
}

fn world() -> World<Recorder> {
    World::recorded(&[], true)
}

/// What is said to these bytes on a connection of their own, and the connection.
fn told(world: &mut World<Recorder>, bytes: &[u8]) -> (Vec<Said>, ConnId) {
    let conn = world.connect(HTTP);
    world.feed(conn, bytes);
    world.turns();
    (answers(&world.taken(conn), bytes.starts_with(b"HEAD")), conn)
}

/// It is refused so, in one answer, and the connection ends.
#[track_caller]
fn refused(bytes: &[u8], status: u16, code: &str) {
    let mut world = world();
    let (said, conn) = told(&mut world, bytes);
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
    assert_eq!(said.len(), 1, "{shown}: {said:?}");
    assert_eq!((said[0].status, said[0].code().as_str()), (status, code), "{shown}: {said:?}");
    assert!(said[0].head.contains("\r\nConnection: close\r\n"), "{shown}");
    world.pass(FLUSH_MAX + Duration::from_secs(1));
    assert!(!world.is_open(conn), "{shown}");
    assert_eq!(world.hub.outlet().tickets_out(), 0);
    // The next client finds nothing changed.
    assert_eq!(told(&mut world, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").0.len(), 1);
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

#[test]
fn slow_headers_are_told_so_and_end() {
    // A byte a second, of a first request and of one after it.
    for before in ["", "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut world = world();
        let conn = world.connect(HTTP);
        world.feed(conn, before.as_bytes());
        world.turns();
        assert_eq!(answers(&world.taken(conn), false).len(), usize::from(!before.is_empty()));
        let start = world.now().mono;
        let mut said = Vec::new();
        for byte in get("/health").bytes().cycle() {
            // Never an end of the head.
            world.feed(conn, &[if byte == b'\n' { b'x' } else { byte }]);
            world.pass(Duration::from_secs(1));
            said = answers(&world.taken(conn), false);
            if !said.is_empty() {
                break;
            }
        }
        assert_eq!((said[0].status, said[0].code().as_str()), (408, "timeout"));
        let took = world.now().mono - start;
        let most = if before.is_empty() { HTTP_MAX } else { MESSAGE_GRACE };
        assert!(took >= most && took <= most + Duration::from_secs(2), "{took:?}");
        world.pass(FLUSH_MAX + Duration::from_secs(1));
        assert!(!world.is_open(conn));
    }
}

#[test]
fn a_slow_body_is_told_so_and_ends() {
    let mut world = world();
    let (said, conn) = told(&mut world, b"POST /api/v1/peers HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{");
    assert!(said.is_empty());
    world.pass(HTTP_MAX);
    let said = answers(&world.taken(conn), false);
    assert_eq!((said.len(), said[0].status), (1, 408));
}

#[test]
fn who_says_nothing_hears_nothing() {
    let mut world = world();
    let (said, conn) = told(&mut world, b"");
    world.pass(HTTP_MAX + Duration::from_secs(1));
    assert!(said.is_empty() && world.taken(conn).is_empty() && !world.is_open(conn));
    // Nor who has had his answer and stays on.
    let (said, conn) = told(&mut world, get("/health").as_bytes());
    assert_eq!(said.len(), 1);
    world.pass(HTTP_MAX + Duration::from_secs(1));
    assert!(world.taken(conn).is_empty() && !world.is_open(conn));
}

/// Browsers that ask for much and read nothing, or a byte now and then, hold up themselves and nobody else, and
/// are cut.
#[test]
fn those_who_do_not_read_leave_tickets_to_the_others() {
    let mut world = world();
    let deaf: Vec<_> = (0..2 * TICKETS_HTTP).map(|_| world.connect(HTTP)).collect();
    for conn in &deaf {
        world.clog(*conn, true);
        world.feed(*conn, get("/script.js").repeat(9).as_bytes());
        world.turns();
    }
    let out = world.hub.outlet().tickets_out();
    assert_eq!(told(&mut world, get("/health").as_bytes()).0.len(), 1, "{out} tickets are out");
    for _ in 0..3 {
        (0..29).for_each(|_| world.pass(Duration::from_secs(1)));
        deaf.iter().for_each(|conn| world.drip(*conn));
        world.turns();
    }
    assert_eq!(deaf.iter().filter(|conn| world.is_open(**conn)).count(), 0);
    assert_eq!(world.hub.outlet().tickets_out(), 0);
}

#[test]
fn huge_heads_and_bodies() {
    refused(format!("GET /health HTTP/1.1\r\nHost: x\r\na: {}", "x".repeat(HTTP_HEAD_BYTES_MAX)).as_bytes(), 431, "head_too_large");
    refused(format!("GET /{}", "a".repeat(1 << 20)).as_bytes(), 414, "uri_too_long");
    let lines = "a: b\r\n".repeat(HTTP_HEADERS_MAX);
    refused(format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n").as_bytes(), 431, "head_too_large");
    let post = |length: &str| format!("POST /api/v1/peers HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    for length in [(HTTP_BODY_BYTES_MAX + 1).to_string(), u64::MAX.to_string(), "9".repeat(100)] {
        refused(post(&length).as_bytes(), 413, "too_large");
    }
    // All of it is sent and thrown away: the answer is there all the same.
    refused(&[post("1000000").into_bytes(), vec![b'x'; 1_000_000]].concat(), 413, "too_large");
}

#[test]
fn smuggling() {
    let hidden = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    for lines in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length : 5\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "A: b\r\n Content-Length: 5\r\n",
        "A: b\r\n\tfolded\r\n",
        "A: b\nContent-Length: 5\r\n",
        "A: b\rContent-Length: 5\r\n",
        "A: \0\r\n",
        "Host: y\r\n",
        ": no name\r\n",
        "no colon\r\n",
    ] {
        refused(format!("POST / HTTP/1.1\r\nHost: x\r\n{lines}\r\n{hidden}").as_bytes(), 400, "bad_request");
    }
    for bytes in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\nHost: x\n\n",
        "GET /\r\n\r\n",
        " GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1 x\r\nHost: x\r\n\r\n",
        "GET / /x HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: x\r\n\r\n",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "CONNECT evil.example:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        "\x16\x03\x01\x02\x00",
        "{\"id\":1,\"method\":\"mining.subscribe\"}",
    ] {
        refused(format!("{bytes}{hidden}").as_bytes(), 400, "bad_request");
    }
}

#[test]
fn chunks_of_any_kind() {
    for body in ["0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n", "5;x=\"\n\r\n", "ffffffffffffffff\r\n", "-1\r\n", "zz\r\n", "5\nhello\n0\n\n", ""]
    {
        for coding in ["chunked", "Chunked", "identity, chunked", "chunked, chunked", "gzip", "\x0bchunked"] {
            let bytes = format!("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: {coding}\r\n\r\n{body}");
            let (status, code) = if coding.starts_with('\x0b') { (400, "bad_request") } else { (501, "not_implemented") };
            refused(bytes.as_bytes(), status, code);
        }
    }
}

#[test]
fn other_versions_and_expectations() {
    for version in ["2.0", "3.0", "1.2", "9.9"] {
        refused(format!("GET / HTTP/{version}\r\nHost: x\r\n\r\n").as_bytes(), 505, "bad_version");
    }
    refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "bad_version");
    // It waits for a word before it sends the rest, and has one at once.
    refused(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", 417, "expectation_failed");
}

#[test]
fn path_tricks() {
    let mut world = world();
    for path in [
        "/..",
        "/../../etc/passwd",
        "/api/v1/../status",
        "/api/v1/./status",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/api/v1/%2e%2e/status",
        "//",
        "//api/v1/status",
        "/api//v1/status",
        "/api/v1/status/",
        "/api/v1/%73tatus",
        "/api/v1/status%00",
        "/api/v1/status;x",
        "/api/v1/status#x",
        "/API/V1/STATUS",
        "/style.css/..",
        "/page/../index.html",
        "/src/http/page/index.html",
        "/\\..\\..",
        "/\u{e4}\u{f6}",
        "/%ff%fe",
        "*",
        "/api/v1/share/",
    ] {
        let (said, conn) = told(&mut world, get(path).as_bytes());
        assert_eq!((said.len(), said[0].status, said[0].code().as_str()), (1, 404, "not_found"), "{path}");
        assert!(world.is_open(conn), "{path}");
    }
    for path in [
        "/api/v1/share/../status",
        "/api/v1/share/%00",
        "/api/v1/share/%zz",
        "/api/v1/share/%e2%80",
        "/api/v1/share/%",
        "/api/v1/shares?count=%00",
        "/api/v1/shares?count=1&count=1",
        "/api/v1/shares?count",
        "/api/v1/shares?=1",
        "/api/v1/shares?count=-1",
        "/api/v1/shares?count=1e1",
        "/api/v1/shares?count=99999999999999999999999",
        "/api/v1/shares??count=1",
        "/api/v1/status?count=1",
    ] {
        let (said, _) = told(&mut world, get(path).as_bytes());
        assert_eq!((said.len(), said[0].status, said[0].code().as_str()), (1, 400, "bad_parameter"), "{path}");
    }
    // What is only written in another way is the same.
    for path in ["/api/v1/shares?count=%31", "/api/v1/shares?", "/api/v1/shares?&&count=1&", "http://LOCALHOST:80/api/v1/shares?count=1"] {
        assert_eq!(told(&mut world, get(path).as_bytes()).0[0].status, 200, "{path}");
    }
    for target in ["/\0", "/a b", "/\u{7f}", "api/v1/status", "http://", "ftp://x/", "http://user@localhost/"] {
        let (said, _) = told(&mut world, get(target).as_bytes());
        assert_eq!((said.len(), said[0].status), (1, 400), "{target}");
    }
}

#[test]
fn names_that_are_led_here() {
    let mut world = world();
    world.node.pages.doors.hosts.push("pool.example.org".into());
    let mut status = |host: &str, target: &str| {
        let (said, _) = told(&mut world, format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        assert!(said[0].status == 200 || said[0].code() == "misdirected", "{said:?}");
        said[0].status
    };
    for target in ["/", "/metrics", "/api/v1/status", "/style.css"] {
        assert_eq!((status("evil.example.org:9332", target), status("127.0.0.1:9332", target)), (421, 200), "{target}");
    }
    assert_eq!(status("pool.example.org", "/"), 200);
    assert_eq!(status("localhost", "http://evil.example.org/"), 421, "the target is what counts");
}

#[test]
fn methods() {
    let mut world = world();
    for method in ["PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW", "get"] {
        let (said, conn) = told(&mut world, format!("{method} /api/v1/status HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        assert_eq!((said[0].status, said[0].code().as_str()), (405, "method_not_allowed"), "{method}");
        assert!(said[0].head.contains("\r\nAllow: GET, HEAD\r\n") && world.is_open(conn), "{said:?}");
    }
    let (said, _) = told(&mut world, b"PUT /api/v1/bans HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(said[0].head.contains("\r\nAllow: GET, HEAD, POST\r\n"), "{said:?}");
}

#[test]
fn head_has_the_lines_of_get_and_never_a_body() {
    let mut world = world();
    for path in ["/", "/style.css", "/health", "/metrics", "/api/v1/status", "/api/v1/peers", "/nothing", "/api/v1/blocknotify"] {
        let (get, _) = told(&mut world, get(path).as_bytes());
        let (head, conn) = told(&mut world, format!("HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        assert_eq!((head.len(), &head[0].body), (1, &String::new()), "{path}");
        // Figures count these very requests.
        if path != "/metrics" {
            assert_eq!(get[0].head, head[0].head, "{path}");
        }
        world.feed(conn, b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n");
        world.turns();
        assert_eq!(answers(&world.taken(conn), false)[0].status, 404, "{path}: the next answer stands where it is looked for");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let mut world = world();
    let paths = ["/nothing", "/api/v1/status", "/api/v1/share/x", "/health", "/style.css", "/api/v1/bans"].repeat(20);
    let bytes: String = paths.iter().map(|path| get(path)).collect();
    let alone: Vec<u16> = paths.iter().map(|path| told(&mut world, get(path).as_bytes()).0[0].status).collect();
    let (said, conn) = told(&mut world, bytes.as_bytes());
    assert_eq!(said.iter().map(|said| said.status).collect::<Vec<_>>(), alone);
    assert!(world.is_open(conn));
    // What is broken ends the line, behind all that was good; what stands after it is not looked at.
    let bytes = format!("{}{}BAD\r\n\r\n{}", get("/health"), get("/nothing"), get("/api/v1/status"));
    let (said, conn) = told(&mut world, bytes.as_bytes());
    assert_eq!(said.iter().map(|said| said.status).collect::<Vec<_>>()[1..], [404, 400]);
    world.pass(FLUSH_MAX + Duration::from_secs(1));
    assert!(said.len() == 3 && !world.is_open(conn));
}

#[test]
fn connections_stay_or_close_as_asked() {
    let mut world = world();
    for (version, line, stays) in [
        ("1.1", "Host: x\r\n", true),
        ("1.1", "Host: x\r\nConnection: close\r\n", false),
        ("1.1", "Host: x\r\nConnection: foo, CLOSE\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: keep-alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let bytes = format!("GET /style.css HTTP/{version}\r\n{line}\r\n");
        let (said, conn) = told(&mut world, format!("{bytes}{bytes}").as_bytes());
        assert_eq!(said.len(), if stays { 2 } else { 1 }, "{version} {line}");
        let word = if stays { "keep-alive" } else { "close" };
        assert!(said[0].head.contains(&format!("\r\nConnection: {word}\r\n")), "{version} {line}");
        world.pass(FLUSH_MAX + Duration::from_secs(1));
        assert_eq!(world.is_open(conn), stays, "{version} {line}");
    }
}

#[test]
fn the_page_is_kept_by_its_tag_and_compressed_for_who_takes_it() {
    let mut world = world();
    let mut ask = |lines: &str| {
        let conn = world.connect(HTTP);
        world.feed(conn, format!("GET /style.css HTTP/1.1\r\nHost: x\r\n{lines}\r\n").as_bytes());
        world.turns();
        let bytes = world.taken(conn);
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        (String::from_utf8(bytes[..end].to_vec()).unwrap(), bytes[end..].to_vec())
    };
    let tag = |head: &str| head.lines().find_map(|line| line.strip_prefix("ETag: ")).unwrap().to_owned();
    let (plain, text) = ask("");
    let (zipped, bytes) = ask("Accept-Encoding: br, gzip\r\n");
    assert!(zipped.contains("\r\nContent-Encoding: gzip\r\n") && bytes.starts_with(&[0x1f, 0x8b]) && bytes.len() < text.len());
    assert!(!plain.contains("Content-Encoding") && tag(&plain) != tag(&zipped));
    let (head, body) = ask(&format!("Accept-Encoding: gzip\r\nIf-None-Match: {}\r\n", tag(&zipped)));
    assert!(head.starts_with("HTTP/1.1 304 ") && body.is_empty() && tag(&head) == tag(&zipped), "{head}");
    let (head, body) = ask(&format!("If-None-Match: {}\r\n", tag(&zipped)));
    assert!(head.starts_with("HTTP/1.1 200 ") && body == text, "of the other encoding: {head}");
}
