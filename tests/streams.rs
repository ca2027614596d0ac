//! Event streams of a whole node over real sockets: as many as may be, one event to all of them, and their end with the node's.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rockpool::assemble;
use rockpool::config::Config;
use rockpool::limits::STREAMS_MAX;
use rockpool_net::events::Event;
use rockpool_net::id::ShareId;
use rockpool_store::kv::MemKv;

/// A node that is silent for so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

struct Reader {
    stream: TcpStream,
    text: String,
}

impl Reader {
    fn ask(addr: SocketAddr, path: &str) -> Reader {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
        Reader { stream, text: String::new() }
    }

    /// Reads until this has come. What came until its end.
    fn until(&mut self, wanted: &str) -> String {
        let mut buffer = [0; 16 << 10];
        loop {
            if let Some(at) = self.text.find(wanted) {
                let rest = self.text.split_off(at + wanted.len());
                return std::mem::replace(&mut self.text, rest);
            }
            let count = self.stream.read(&mut buffer).unwrap();
            assert!(count > 0, "the end, before {wanted:?}: {}", self.text);
            self.text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
    }

    /// Whether the other side ends it in order.
    fn ends(mut self) -> bool {
        self.stream.read_to_end(&mut Vec::new()).is_ok()
    }
}

/// One of the node's counters.
fn counter(addr: SocketAddr, name: &str) -> u64 {
    let mut reader = Reader::ask(addr, "/metrics");
    reader.until(&format!("\nrockpool_{name} "));
    reader.until("\n").trim().parse().unwrap()
}

#[test]
fn as_many_streams_as_may_be_hear_of_an_event_that_is_encoded_once_and_end_with_the_node() {
    let (config, kv) = (Config::loopback("test".into()), Arc::new(MemKv::new()));
    let bitcoin = assemble::bitcoin(&config, &*kv).unwrap();
    let node = assemble::start(&config, kv, bitcoin).unwrap();
    let http = node.listen.http.unwrap();
    let mut all: Vec<Reader> = (0..STREAMS_MAX).map(|_| Reader::ask(http, "/api/v1/events")).collect();
    for reader in &mut all {
        let head = reader.until("\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("text/event-stream"), "{head}");
        assert!(reader.until("\n\n").starts_with("retry: "));
        assert!(reader.until("\n\n").contains("event: status\n"));
    }
    let refused = Reader::ask(http, "/api/v1/events").until("}");
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("\"busy\""), "{refused}");
    assert_eq!((counter(http, "streams"), counter(http, "streams_refused_total")), (STREAMS_MAX as u64, 1));
    let before = counter(http, "stream_payloads_total");
    node.events.publish(Event::BlockFound { hash: ShareId([7; 32]), height: 3, miner: None });
    for reader in &mut all {
        reader.until("event: block\n");
        assert!(reader.until("\n\n").contains(&"07".repeat(32)));
    }
    // The status may have come in between, now and then.
    let encoded = counter(http, "stream_payloads_total") - before;
    assert!((1..STREAMS_MAX as u64 / 4).contains(&encoded), "{encoded} times");
    assert_eq!(counter(http, "streams_cut_total"), 0);
    assert!(node.stop());
    assert!(all.into_iter().all(Reader::ends));
    assert_eq!(node.join(), Ok(()));
}
