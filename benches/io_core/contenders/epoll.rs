//! The floor: one thread, level-triggered epoll, a flat buffer per connection, and nothing else: no limits, no fairness, no timers, no
//! output that waits. Who does not take an answer at once is cut.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use crate::process::announce;
use crate::wire::answer;

const LISTENER: u64 = u64::MAX;
/// Bytes of a connection's buffer: a batch of the load fits.
const BUFFER_BYTES: usize = 8 << 10;
/// Events of one poll, as many as the house's reactor takes.
const EVENTS: usize = 1_024;

struct Conn {
    stream: TcpStream,
    buffer: Box<[u8; BUFFER_BYTES]>,
    held: usize,
}

pub fn serve(blind: bool) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    announce(listener.local_addr()?, || serde_json::Value::Null)?;
    let mut conns: Vec<Option<Conn>> = Vec::new();
    let (mut events, mut out) = (Vec::with_capacity(EVENTS), Vec::new());
    loop {
        events.clear();
        epoll::wait(&epoll, spare_capacity(&mut events), None)?;
        for event in &events {
            if event.data.u64() == LISTENER {
                let stream = listener.accept()?.0;
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                epoll::add(&epoll, &stream, EventData::new_u64(conns.len() as u64), EventFlags::IN)?;
                conns.push(Some(Conn { stream, buffer: Box::new([0; BUFFER_BYTES]), held: 0 }));
                continue;
            }
            let slot = event.data.u64() as usize;
            let mut shares = Vec::new();
            if let Some(conn) = &mut conns[slot]
                && conn.turn(blind, &mut out, &mut shares).is_err()
            {
                conns[slot] = None;
            }
            for share in shares {
                let others = conns.iter_mut().enumerate().filter(|(other, _)| *other != slot);
                for (_, place) in others {
                    place.take_if(|conn| !matches!(conn.stream.write(&share), Ok(n) if n == share.len()));
                }
            }
        }
    }
}

impl Conn {
    /// One read, one write.
    fn turn(&mut self, blind: bool, out: &mut Vec<u8>, shares: &mut Vec<Vec<u8>>) -> io::Result<()> {
        let read = self.stream.read(&mut self.buffer[self.held..])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.held += read;
        out.clear();
        let used = answer(&self.buffer[..self.held], blind, out, |share| shares.push(share))?;
        self.buffer.copy_within(used..self.held, 0);
        self.held -= used;
        if out.is_empty() || self.stream.write(out)? == out.len() { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }
}
