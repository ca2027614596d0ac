//! A miner who submits at a steady rate and looks how long each answer takes.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rockpool_net::wire::share::{Class, Layout};

use crate::Outcome;
use crate::figures::clock;
use crate::miner::{Miner, mine};

/// How often it submits.
pub const EVERY: Duration = Duration::from_millis(10);

/// It, with what it has mined beforehand.
pub struct Probe {
    pub stream: TcpStream,
    submits: std::vec::IntoIter<String>,
    /// The submit that is not answered, and when it was sent.
    sent: Option<Instant>,
    due: Instant,
    heard: Vec<u8>,
    /// What each answer took.
    pub took: Vec<Duration>,
}

impl Probe {
    /// Connects it, with so many submits.
    pub fn connect(addr: SocketAddr, count: usize) -> Outcome<Probe> {
        let miner = Miner::connect(addr, Class::N12, Layout::Tail, 0)?;
        let submits = mine(&[&miner.job], count as u64)?.remove(0).into_iter();
        miner.stream.set_nonblocking(true)?;
        Ok(Probe { stream: miner.stream, submits, sent: None, due: clock(), heard: Vec::new(), took: Vec::new() })
    }

    /// Submits if it is time. When it wants to be asked again.
    pub fn submit(&mut self) -> Outcome<Instant> {
        let now = clock();
        if self.sent.is_none() && now >= self.due {
            let line = self.submits.next().ok_or("too few submits were mined")?;
            self.stream.write_all(line.as_bytes())?;
            (self.sent, self.due) = (Some(now), now + EVERY);
        }
        Ok(self.due)
    }

    /// Whether it waits for an answer.
    pub fn waits(&self) -> bool {
        self.sent.is_some()
    }

    /// Takes what came.
    pub fn hear(&mut self) -> Outcome<()> {
        let mut buffer = [0; 16 << 10];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err("the server closed on the miner".into()),
                Ok(count) => self.heard.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        let now = clock();
        while let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.heard.drain(..=end).collect();
            // Notifies and difficulties come in between.
            if line.starts_with(b"{\"id\":null") {
                continue;
            }
            let accepted = line.windows(13).any(|part| part == b"\"result\":true");
            let sent = self.sent.take().filter(|_| accepted).ok_or_else(|| String::from_utf8_lossy(&line).into_owned())?;
            self.took.push(now - sent);
        }
        Ok(())
    }
}
