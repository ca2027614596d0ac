//! For tests: a service outside that runs in the test's process, answers as it is told to, errs as it is told to, and counts.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use serde_json::Value;

/// A request that the service was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// GET, POST …
    pub method: String,
    /// Path and query, as they came.
    pub target: String,
    /// Header lines, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
    /// How many came before it.
    pub number: usize,
    /// When it was there, by the service's monotonic clock.
    pub at: Duration,
}

impl Asked {
    /// The path without the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A parameter of the query, as it came.
    pub fn query(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        query.split('&').filter_map(|pair| pair.split_once('=')).find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    /// A header line, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// How an answer goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The head comes so late.
    SlowHead(Duration),
    /// The body comes a byte at a time, so far apart.
    SlowBody(Duration),
    /// Half of the body, then the connection ends.
    Cut,
    /// The connection ends without a word.
    HangUp,
    /// Nothing comes for as long as the service stands.
    Hang,
    /// The body never ends.
    Endless,
    /// The answer waits for a word of the test, or for the other end to be dropped.
    Gate(Receiver<()>),
}

/// What the service answers.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The type of the body; none if empty.
    pub content_type: String,
    /// Lines beside the usual ones.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// What goes wrong.
    pub fault: Option<Fault>,
}

impl Reply {
    /// 200 with a body of JSON.
    pub fn json(body: &Value) -> Reply {
        Reply::text("application/json", &body.to_string())
    }

    /// 200 with a body of this type.
    pub fn text(content_type: &str, body: &str) -> Reply {
        Reply { status: 200, content_type: content_type.to_owned(), headers: Vec::new(), body: body.as_bytes().to_vec(), fault: None }
    }

    /// A status with a body of JSON that says no more.
    pub fn status(status: u16) -> Reply {
        Reply { status, ..Reply::json(&serde_json::json!({"error": status})) }
    }

    /// The same with a header line.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Reply {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same, going wrong.
    #[must_use]
    pub fn fault(mut self, fault: Fault) -> Reply {
        self.fault = Some(fault);
        self
    }
}

type Act = Box<dyn FnMut(&Asked) -> Reply + Send>;

#[derive(Default)]
struct Count {
    asked: Vec<Asked>,
    in_flight: usize,
    most: usize,
}

struct Shared {
    act: Mutex<Act>,
    count: Mutex<Count>,
    began: Instant,
    /// Connections are ended at once: the service is down.
    down: AtomicBool,
    over: AtomicBool,
    /// Connections that stand, by the order in which they came.
    open: Mutex<BTreeMap<usize, TcpStream>>,
    /// Disconnected when the service is dropped.
    stopped: Receiver<()>,
}

/// A service on a port of this machine, until it is dropped.
pub struct FakeService {
    addr: SocketAddr,
    shared: Arc<Shared>,
    _stop: Sender<()>,
}

impl FakeService {
    /// One that answers as the function says. The function is called by one thread at a time; what it answers is sent beside others.
    pub fn start(act: impl FnMut(&Asked) -> Reply + Send + 'static) -> FakeService {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = bounded(0);
        let shared = Arc::new(Shared {
            act: Mutex::new(Box::new(act)),
            count: Mutex::default(),
            began: clock(),
            down: AtomicBool::new(false),
            over: AtomicBool::new(false),
            open: Mutex::default(),
            stopped,
        });
        let all = Arc::clone(&shared);
        // Ends with the service.
        thread::Builder::new().spawn(move || accept(&listener, &all)).unwrap();
        FakeService { addr, shared, _stop: stop }
    }

    /// The URL of a port at which nobody listens: connections are refused.
    pub fn refused() -> String {
        let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        format!("http://{addr}")
    }

    /// Its URL, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Its host and port.
    pub fn host(&self) -> String {
        self.addr.to_string()
    }

    /// From now on it answers otherwise.
    pub fn answer(&self, act: impl FnMut(&Asked) -> Reply + Send + 'static) {
        *self.shared.act.lock().unwrap() = Box::new(act);
    }

    /// Whether it is down: connections end without a word, those that stand already too.
    pub fn set_down(&self, down: bool) {
        self.shared.down.store(down, Ordering::SeqCst);
        if down {
            self.hang_up();
        }
    }

    /// Ends all connections that stand.
    pub fn hang_up(&self) {
        for stream in std::mem::take(&mut *self.shared.open.lock().unwrap()).values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Calls that have come so far.
    pub fn calls(&self) -> usize {
        self.shared.count.lock().unwrap().asked.len()
    }

    /// The most calls that were there at once and not yet answered.
    pub fn most_in_flight(&self) -> usize {
        self.shared.count.lock().unwrap().most
    }

    /// All that was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.count.lock().unwrap().asked.clone()
    }

    /// The time by its monotonic clock.
    pub fn now(&self) -> Duration {
        self.shared.began.elapsed()
    }

    /// When each call came, by the service's monotonic clock.
    pub fn starts(&self) -> Vec<Duration> {
        self.shared.count.lock().unwrap().asked.iter().map(|asked| asked.at).collect()
    }
}

impl Drop for FakeService {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.hang_up();
        // Wakes the listener's thread.
        let _ = TcpStream::connect(self.addr);
    }
}

#[expect(clippy::disallowed_methods, reason = "the service has a clock of its own")]
fn clock() -> Instant {
    Instant::now()
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for (number, stream) in listener.incoming().flatten().enumerate() {
        if shared.over.load(Ordering::SeqCst) {
            return;
        }
        if shared.down.load(Ordering::SeqCst) {
            continue;
        }
        let _ = stream.set_nodelay(true);
        shared.open.lock().unwrap().insert(number, stream.try_clone().unwrap());
        let all = Arc::clone(shared);
        let serve = move || {
            serve(&stream, &all);
            // The other end hears of it, whoever else holds a copy.
            let _ = stream.shutdown(Shutdown::Both);
            all.open.lock().unwrap().remove(&number);
        };
        thread::Builder::new().spawn(serve).unwrap();
    }
}

/// One connection, which may bring many requests.
fn serve(mut output: &TcpStream, shared: &Shared) {
    let mut input = BufReader::new(output);
    while let Ok(Some(mut asked)) = read(&mut input) {
        if shared.down.load(Ordering::SeqCst) {
            break;
        }
        {
            let mut count = shared.count.lock().unwrap();
            (asked.number, asked.at) = (count.asked.len(), shared.began.elapsed());
            count.asked.push(asked.clone());
            count.in_flight += 1;
            count.most = count.most.max(count.in_flight);
        }
        let reply = (shared.act.lock().unwrap())(&asked);
        let goes_on = wait(&reply, shared);
        // Before its last byte: who has that may call again, and is no longer in flight.
        shared.count.lock().unwrap().in_flight -= 1;
        if !goes_on || !matches!(write(&mut output, &reply, shared), Ok(true)) {
            break;
        }
    }
}

/// Waits as long as the fault says. Whether there is an answer at all.
fn wait(reply: &Reply, shared: &Shared) -> bool {
    match &reply.fault {
        Some(Fault::HangUp) => false,
        Some(Fault::Hang) => shared.stopped.recv().is_ok(),
        Some(Fault::SlowHead(time)) => {
            let _ = shared.stopped.recv_timeout(*time);
            true
        }
        Some(Fault::Gate(gate)) => {
            let _ = gate.recv();
            true
        }
        _ => true,
    }
}

fn read(input: &mut impl BufRead) -> io::Result<Option<Asked>> {
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        input.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length").map_or(0, |(_, length)| length.parse().unwrap());
    let mut body = vec![0; length];
    input.read_exact(&mut body)?;
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok(Some(Asked { method, target, headers, body, number: 0, at: Duration::ZERO }))
}

/// Writes an answer. Whether the connection goes on.
fn write(output: &mut impl Write, reply: &Reply, shared: &Shared) -> io::Result<bool> {
    let mut head = format!("HTTP/1.1 {} X\r\n", reply.status);
    if !reply.content_type.is_empty() {
        head += &format!("content-type: {}\r\n", reply.content_type);
    }
    reply.headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    if matches!(reply.fault, Some(Fault::Endless)) {
        output.write_all(format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes())?;
        loop {
            output.write_all(b"400\r\n")?;
            output.write_all(&[b' '; 0x400])?;
            output.write_all(b"\r\n")?;
        }
    }
    head += &format!("content-length: {}\r\n\r\n", reply.body.len());
    match &reply.fault {
        Some(Fault::Cut) => {
            output.write_all(head.as_bytes())?;
            output.write_all(&reply.body[..reply.body.len() / 2])?;
            Ok(false)
        }
        Some(Fault::SlowBody(apart)) => {
            output.write_all(head.as_bytes())?;
            for byte in reply.body.chunks(1) {
                let _ = shared.stopped.recv_timeout(*apart);
                output.write_all(byte)?;
            }
            Ok(true)
        }
        _ => {
            output.write_all(&[head.as_bytes(), &reply.body].concat())?;
            Ok(true)
        }
    }
}
