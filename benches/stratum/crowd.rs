//! Thousands of miners on one thread and one epoll.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use crate::Outcome;
use crate::figures::clock;

/// What ends a job that makes all others worthless, as both servers write it.
pub const CLEAN: &[u8] = b",true]}\n";
/// A server that is silent for so long has failed.
const SILENCE_MAX: Duration = Duration::from_secs(20);
const BUFFER_BYTES: usize = 128 << 10;
const EVENTS: usize = 1_024;

/// Miners of one server.
pub struct Crowd {
    epoll: OwnedFd,
    streams: Vec<TcpStream>,
    /// The last bytes that each was sent.
    ends: Vec<Vec<u8>>,
    buffer: Vec<u8>,
    /// The id of each miner's newest job, where somebody asks for it.
    pub jobs: Option<Vec<String>>,
}

/// A round in which every miner is given clean work.
#[derive(Clone, Copy)]
pub struct Round {
    /// From the first byte that any of them is sent to the last that the last one is.
    pub first_to_last: Duration,
    /// From the moment that the round began.
    pub begin_to_last: Duration,
    /// Bytes that one of them was sent.
    pub bytes: usize,
}

impl Crowd {
    /// Nobody yet.
    pub fn new() -> io::Result<Crowd> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Crowd { epoll, streams: Vec::new(), ends: Vec::new(), buffer: vec![0; BUFFER_BYTES], jobs: None })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Connects so many more. Each says its words, if any, as soon as its connection stands.
    pub fn connect(&mut self, addr: SocketAddr, count: usize, words: &str) -> Outcome<()> {
        for _ in 0..count {
            let mut stream = TcpStream::connect(addr)?;
            stream.set_nodelay(true)?;
            stream.write_all(words.as_bytes())?;
            stream.set_nonblocking(true)?;
            epoll::add(&self.epoll, &stream, EventData::new_u64(self.streams.len() as u64), EventFlags::IN | EventFlags::ET)?;
            self.streams.push(stream);
            self.ends.push(Vec::new());
        }
        Ok(())
    }

    /// Sends a line of each.
    pub fn say(&mut self, line: impl Fn(usize) -> String) -> Outcome<()> {
        for (number, stream) in self.streams.iter_mut().enumerate() {
            stream.write_all(line(number).as_bytes())?;
        }
        Ok(())
    }

    /// Hears all miners until each was given its first work.
    pub fn at_work(&mut self) -> Outcome<()> {
        while let waiting @ 1.. = self.ends.iter().filter(|end| *end != CLEAN).count() {
            if self.hear(SILENCE_MAX)?.is_empty() {
                return Err(format!("{waiting} of {} miners wait for work in vain", self.len()).into());
            }
        }
        Ok(())
    }

    /// Waits until each miner was sent something, which `begun` brings about, and sees then that it was clean work. Nothing is read before
    /// the last has it, so that the time is the server's.
    pub fn clean_work(&mut self, begun: Instant) -> Outcome<Round> {
        let (mut waiting, mut first, mut done) = (self.len(), None, vec![false; self.len()]);
        while waiting > 0 {
            let ready = self.ready(SILENCE_MAX)?;
            if ready.is_empty() {
                return Err(format!("{waiting} of {} miners wait for work in vain", self.len()).into());
            }
            first = first.or(Some(clock()));
            waiting -= ready.iter().filter(|number| !std::mem::replace(&mut done[**number], true)).count();
        }
        let last = clock();
        let mut bytes = 0;
        for number in 0..self.len() {
            bytes = self.take(number)?;
            if self.ends[number] != CLEAN {
                return Err(format!("miner {number} was sent {bytes} bytes that are no clean work").into());
            }
        }
        Ok(Round { first_to_last: last - first.unwrap_or(last), begin_to_last: last - begun, bytes })
    }

    /// Hears until nothing more comes for so long.
    pub fn drain(&mut self, silence: Duration) -> Outcome<()> {
        while !self.hear(silence)?.is_empty() {}
        Ok(())
    }

    /// Takes what came. From how many miners.
    fn hear(&mut self, patience: Duration) -> Outcome<Vec<usize>> {
        let ready = self.ready(patience)?;
        for number in &ready {
            self.take(*number)?;
        }
        Ok(ready)
    }

    /// Miners that were sent something since they were last told of here.
    fn ready(&self, patience: Duration) -> Outcome<Vec<usize>> {
        let timeout = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: i64::from(patience.subsec_nanos()) };
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout))?;
        Ok(events.iter().map(|event| event.data.u64() as usize).collect())
    }

    /// Takes what one miner was sent. How many bytes.
    fn take(&mut self, number: usize) -> Outcome<usize> {
        let count = match self.streams[number].read(&mut self.buffer) {
            Ok(0) => return Err("the server closed".into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        if let Some(jobs) = &mut self.jobs
            && let Some((_, rest)) = String::from_utf8_lossy(&self.buffer[..count]).split_once(r#""mining.notify","params":[""#)
        {
            jobs[number] = rest.split('"').next().unwrap_or_default().to_owned();
        }
        let end = &mut self.ends[number];
        end.extend_from_slice(&self.buffer[count.saturating_sub(CLEAN.len())..count]);
        let surplus = end.len().saturating_sub(CLEAN.len());
        end.drain(..surplus);
        Ok(count)
    }
}
