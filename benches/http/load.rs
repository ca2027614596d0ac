//! The load: HTTP clients, streams and the miner, on one thread and one epoll.

use std::borrow::Cow;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use crate::Outcome;
use crate::figures::clock;
use crate::probe::Probe;

/// What is asked for.
pub const REQUEST: &[u8] = b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n";
/// A server that is silent for so long has failed.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// Few at once, so that the miner's answer never waits for long behind others'.
const EVENTS: usize = 8;
const PROBE: u64 = u64::MAX;

/// One client.
struct Client {
    stream: TcpStream,
    request: Cow<'static, [u8]>,
    /// When its request was due, while it waits.
    asked: Instant,
    /// Bytes of the answer that are still to come; before its head, unknown.
    left: Option<usize>,
}

/// All of it.
pub struct Load {
    epoll: OwnedFd,
    clients: Vec<Client>,
    free: Vec<usize>,
    /// Bytes that each stream was sent.
    pub streamed: Vec<usize>,
    streams: Vec<TcpStream>,
    buffer: Vec<u8>,
}

/// What a run of requests took.
pub struct Took {
    /// Of each request, from when it was due.
    pub each: Vec<Duration>,
    pub all: Duration,
    /// Bytes of the last answer's body.
    pub body: usize,
}

impl Load {
    /// Nobody yet.
    pub fn new() -> Outcome<Load> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let (clients, free, streams, streamed) = Default::default();
        Ok(Load { epoll, clients, free, streams, streamed, buffer: vec![0; 64 << 10] })
    }

    /// Connects so many clients, who ask for the status.
    pub fn connect(&mut self, addr: SocketAddr, count: usize) -> Outcome<()> {
        (0..count).try_for_each(|_| self.connect_for(addr, REQUEST))
    }

    /// Connects a client who asks this again and again.
    pub fn connect_for(&mut self, addr: SocketAddr, request: impl Into<Cow<'static, [u8]>>) -> Outcome<()> {
        let number = self.clients.len();
        let stream = self.add(TcpStream::connect(addr)?, number as u64)?;
        self.clients.push(Client { stream, request: request.into(), asked: clock(), left: None });
        self.free.push(number);
        Ok(())
    }

    /// Opens a stream of events on a connection of the caller's making.
    pub fn stream(&mut self, mut stream: TcpStream) -> Outcome<()> {
        stream.write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let stream = self.add(stream, 1 << 32 | self.streams.len() as u64)?;
        self.streams.push(stream);
        self.streamed.push(0);
        Ok(())
    }

    fn add(&self, stream: TcpStream, number: u64) -> Outcome<TcpStream> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        epoll::add(&self.epoll, &stream, EventData::new_u64(number), EventFlags::IN)?;
        Ok(stream)
    }

    /// Hears the miner too while this runs.
    pub fn with<T>(&mut self, probe: &mut Probe, run: impl FnOnce(&mut Load, &mut Probe) -> Outcome<T>) -> Outcome<T> {
        epoll::add(&self.epoll, &probe.stream, EventData::new_u64(PROBE), EventFlags::IN)?;
        let ran = run(self, probe);
        epoll::delete(&self.epoll, &probe.stream)?;
        ran
    }

    /// Asks so many times: each client again as soon as it is answered, or all together so many times a second, late ones counted from when
    /// they were due.
    pub fn ask(&mut self, requests: usize, rate: Option<f64>, mut probe: Option<&mut Probe>) -> Outcome<Took> {
        let (begin, mut asked, mut took, mut body) = (clock(), 0, Vec::with_capacity(requests), 0);
        let due = |number: usize| rate.map(|rate| begin + Duration::from_secs_f64(number as f64 / rate));
        while took.len() < requests {
            let now = clock();
            while asked < requests
                && due(asked).is_none_or(|due| due <= now)
                && let Some(number) = self.free.pop()
            {
                let client = &mut self.clients[number];
                client.asked = due(asked).unwrap_or_else(clock);
                client.stream.write_all(&client.request)?;
                asked += 1;
            }
            let next = due(asked).filter(|_| asked < requests && !self.free.is_empty());
            for number in self.ready(next, probe.as_deref_mut())? {
                let client = &mut self.clients[number];
                if let Some(length) = client.hear(&mut self.buffer)? {
                    (body, client.left) = (length, None);
                    took.push(client.asked.elapsed());
                    self.free.push(number);
                }
            }
        }
        Ok(Took { each: took, all: begin.elapsed(), body })
    }

    /// Only listens, for so long.
    pub fn listen(&mut self, time: Duration, mut probe: Option<&mut Probe>) -> Outcome<()> {
        let end = clock() + time;
        while clock() < end {
            self.ready(Some(end), probe.as_deref_mut())?;
        }
        // What was submitted last is waited for.
        if let Some(probe) = probe {
            while probe.waits() {
                self.ready(None, None)?;
                probe.hear()?;
            }
        }
        Ok(())
    }

    /// Clients that were sent something; the miner and the streams are heard here.
    fn ready(&mut self, next: Option<Instant>, mut probe: Option<&mut Probe>) -> Outcome<Vec<usize>> {
        let until = match probe.as_deref_mut() {
            Some(probe) => {
                // Looked at every time, so that the answer does not wait here behind those of all clients.
                if probe.waits() {
                    probe.hear()?;
                }
                let due = probe.submit()?;
                Some(next.map_or(due, |next| if probe.waits() { next } else { next.min(due) }))
            }
            None => next,
        };
        let patience = until.map_or(SILENCE_MAX, |until| until.saturating_duration_since(clock()));
        let timeout = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: i64::from(patience.subsec_nanos()) };
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        let count = epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout))?;
        if count == 0 && patience >= SILENCE_MAX {
            return Err("the server is silent".into());
        }
        let mut ready = Vec::new();
        for event in &events {
            match event.data.u64() {
                PROBE => {
                    if let Some(probe) = probe.as_deref_mut() {
                        probe.hear()?;
                    }
                }
                number @ ..=0xffff_ffff => ready.push(number as usize),
                number => self.take(number as u32 as usize)?,
            }
        }
        Ok(ready)
    }

    /// Takes what a stream was sent.
    fn take(&mut self, number: usize) -> Outcome<()> {
        match self.streams[number].read(&mut self.buffer) {
            Ok(0) => Err("the server closed a stream".into()),
            Ok(count) => {
                self.streamed[number] += count;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Client {
    /// Takes what came. The length of the body, once all is there.
    fn hear(&mut self, buffer: &mut [u8]) -> Outcome<Option<usize>> {
        let count = self.stream.read(buffer)?;
        let (left, length) = match self.left {
            Some(left) => (left, 0),
            None => {
                // A head is small enough to come whole.
                let end = buffer[..count].windows(4).position(|part| part == b"\r\n\r\n").ok_or("no head")? + 4;
                let head = std::str::from_utf8(&buffer[..end])?;
                let length = head.split_once("Content-Length: ").and_then(|(_, rest)| rest.split("\r\n").next()).ok_or("no length")?;
                let length: usize = length.parse()?;
                if !head.starts_with("HTTP/1.1 200 ") {
                    return Err(format!("refused: {head}").into());
                }
                (end + length, length)
            }
        };
        let left = left.checked_sub(count).filter(|_| count > 0).ok_or("the server closed, or said too much")?;
        self.left = Some(left);
        Ok((left == 0).then_some(length))
    }
}
