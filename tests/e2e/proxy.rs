//! A line between a node and a bitcoind that can be slow, broken or lead to another one, and that counts the calls.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// What it does with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Hands them on at once.
    Pass,
    /// Waits so long before each, or until that changes.
    Slow(Duration),
    /// Knocks until bitcoind opens.
    Knock,
    /// Loses the answers of long polls, and keeps their connections open.
    LosePolls,
    /// Adds a satoshi to what a template says that its coinbase may pay.
    Overpay,
}

struct State {
    to: u16,
    manner: Manner,
    /// Methods of all calls, a batch as one; "long poll" for those.
    calls: Vec<String>,
    refused: usize,
    answers: Vec<String>,
    /// Connections to the bitcoind, so that they can be broken.
    open: Vec<TcpStream>,
}

type Shared = Arc<(Mutex<State>, Condvar)>;

/// The line. Its threads end with the test's process.
pub struct Proxy {
    port: u16,
    state: Shared,
}

impl Proxy {
    /// To the bitcoind at this port.
    pub fn start(to: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = State { to, manner: Manner::Pass, calls: Vec::new(), refused: 0, answers: Vec::new(), open: Vec::new() };
        let state: Shared = Arc::new((Mutex::new(state), Condvar::new()));
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                thread::spawn(move || serve(stream, &shared));
            }
        });
        Proxy { port, state }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn set(&self, manner: Manner) {
        self.state().manner = manner;
        self.state.1.notify_all();
    }

    /// From now on to another bitcoind; connections to the one before break.
    pub fn switch(&self, to: u16) {
        let mut state = self.state();
        state.to = to;
        state.open.drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }

    pub fn calls(&self) -> Vec<String> {
        self.state().calls.clone()
    }

    pub fn count(&self, call: &str) -> usize {
        self.state().calls.iter().filter(|made| *made == call).count()
    }

    /// Calls that found no bitcoind.
    pub fn refused(&self) -> usize {
        self.state().refused
    }

    /// Whether an answer held this.
    pub fn has_said(&self, text: &str) -> bool {
        self.state().answers.iter().any(|answer| answer.contains(text))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.0.lock().unwrap()
    }
}

/// One call, and the answer if there is one; else the caller's connection breaks.
fn serve(mut caller: TcpStream, shared: &Shared) -> Option<()> {
    let call = message(&mut caller)?;
    let name = name(&String::from_utf8_lossy(&call));
    let mut state = shared.0.lock().unwrap();
    state.calls.push(name.clone());
    if let Manner::Slow(time) = state.manner {
        state = shared.1.wait_timeout_while(state, time, |state| matches!(state.manner, Manner::Slow(_))).unwrap().0;
    }
    let mut bitcoind = loop {
        match TcpStream::connect(("127.0.0.1", state.to)) {
            Ok(bitcoind) => break bitcoind,
            Err(_) if state.manner == Manner::Knock => {
                state = shared.1.wait_timeout(state, Duration::from_millis(1)).unwrap().0;
            }
            Err(_) => {
                state.refused += 1;
                return None;
            }
        }
    };
    state.open.push(bitcoind.try_clone().ok()?);
    drop(state);
    bitcoind.write_all(&call).ok()?;
    let mut answer = message(&mut bitcoind)?;
    let mut state = shared.0.lock().unwrap();
    if state.manner == Manner::Overpay {
        overpay(&mut answer);
    }
    state.answers.push(String::from_utf8_lossy(&answer).chars().take(1_000).collect());
    if state.manner == Manner::LosePolls && name == "long poll" {
        drop(state);
        // Until the caller hangs up.
        let _ = caller.read(&mut [0]);
        return None;
    }
    drop(state);
    caller.write_all(&answer).ok()
}

/// All values here end with a zero, so that no length changes.
fn overpay(answer: &mut [u8]) {
    let field = b"\"coinbasevalue\":";
    if let Some(at) = answer.windows(field.len()).position(|window| window == field) {
        let value = &mut answer[at + field.len()..];
        let end = value.iter().position(|byte| !byte.is_ascii_digit()).unwrap();
        assert_eq!(value[end - 1], b'0');
        value[end - 1] = b'1';
    }
}

fn name(call: &str) -> String {
    let method = call.split("\"method\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
    match call {
        _ if call.contains("\"longpollid\"") => "long poll".into(),
        _ if call.contains("\"proposal\"") => "proposal".into(),
        _ => method.into(),
    }
}

/// A head and as much of a body as it says.
fn message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let (mut message, mut byte) = (Vec::new(), [0]);
    while !message.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        message.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&message).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    message.append(&mut body);
    Some(message)
}
