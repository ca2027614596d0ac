//! One host's sockets as its hub sees them.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use crate::hub::io::{Event, Io, Mail, Ready};
use crate::id::ConnId;
use crate::pipes::Net;
use crate::pipes::link::{End, EndState, Link, Segment};
use crate::time::Now;

/// The system's error number for "too many open files".
const EMFILE: i32 = 24;

/// One host's sockets, clock and mailbox.
#[derive(Debug)]
pub struct Host<'a, A> {
    pub(super) net: &'a mut Net,
    pub(super) host: usize,
    pub(super) mailbox: &'a mut VecDeque<Mail<A>>,
}

impl<A> Io for Host<'_, A> {
    type Answer = A;

    fn poll(&mut self, _timeout: Duration, events: &mut Vec<Event>) -> io::Result<Now> {
        events.append(&mut self.net.hosts[self.host].events);
        Ok(self.net.now(self.host))
    }

    fn mail(&mut self) -> Option<Mail<A>> {
        self.mailbox.pop_front()
    }

    fn accept(&mut self, listener: usize, conn: ConnId) -> io::Result<SocketAddr> {
        if self.net.interrupted() {
            return Err(ErrorKind::Interrupted.into());
        }
        let host = &mut self.net.hosts[self.host];
        let (queue, told) = host.queues.entry(listener).or_default();
        if host.exhausted && !queue.is_empty() {
            self.net.felt.exhausted += 1;
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
        let Some(link) = queue.pop_front() else {
            *told = false;
            return Err(ErrorKind::WouldBlock.into());
        };
        host.conns.insert(conn, (link, 1));
        let Link { ends: [from, end], .. } = &mut self.net.links[link];
        end.conn = Some(conn);
        // A socket is told of as it stands when it is registered.
        let ready = Ready { readable: end.told || end.fin, writable: false, closed: end.fin || end.state == EndState::Reset };
        let addr = Net::addr(from.host, 40_000u16.wrapping_add(link as u16));
        if ready.readable || ready.closed {
            self.net.tell(link, 1, ready);
        }
        Ok(addr)
    }

    fn dial(&mut self, conn: ConnId, addr: SocketAddr) -> io::Result<()> {
        let there = (0..self.net.hosts.len()).find(|&host| Net::addr(host, 0).ip() == addr.ip()).ok_or(ErrorKind::HostUnreachable)?;
        let link = self.net.links.len();
        let ends = [End::new(self.host, EndState::Dialling), End::new(there, EndState::Closed)];
        self.net.links.push(Link { port: addr.port(), ends });
        self.net.links[link].ends[0].conn = Some(conn);
        self.net.hosts[self.host].conns.insert(conn, (link, 0));
        self.net.send(link, 1, Segment::Dial);
        Ok(())
    }

    fn dialled(&mut self, conn: ConnId) -> io::Result<()> {
        let (link, end) = self.net.end(self.host, conn)?;
        match self.net.links[link].ends[end].state {
            EndState::Dialling => Err(ErrorKind::WouldBlock.into()),
            EndState::Open => Ok(()),
            EndState::Refused | EndState::Closed => Err(ErrorKind::ConnectionRefused.into()),
            EndState::Reset => Err(ErrorKind::ConnectionReset.into()),
        }
    }

    fn read(&mut self, conn: ConnId, buf: &mut [u8]) -> io::Result<usize> {
        if self.net.interrupted() {
            return Err(ErrorKind::Interrupted.into());
        }
        let (link, at) = self.net.end(self.host, conn)?;
        let capacity = self.net.weather.capacity;
        let end = &mut self.net.links[link].ends[at];
        if end.state == EndState::Reset {
            return Err(ErrorKind::ConnectionReset.into());
        }
        if end.incoming.is_empty() {
            end.told = false;
            return if end.fin { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) };
        }
        let was_full = end.held() >= capacity;
        let n = end.incoming.len().min(buf.len());
        for (place, byte) in buf.iter_mut().zip(end.incoming.drain(..n)) {
            *place = byte;
        }
        // Drained: the next bytes are told of again.
        end.told = !end.incoming.is_empty();
        if was_full {
            self.net.send(link, 1 - at, Segment::Room);
        }
        Ok(n)
    }

    fn write(&mut self, conn: ConnId, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
        if self.net.interrupted() {
            return Err(ErrorKind::Interrupted.into());
        }
        let (link, at) = self.net.end(self.host, conn)?;
        let Link { ends, .. } = &mut self.net.links[link];
        if ends[at].state != EndState::Open || ends[at].finished {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let given: usize = bufs.iter().map(|buf| buf.len()).sum();
        let room = self.net.weather.capacity.saturating_sub(ends[1 - at].held());
        if room == 0 || ends[at].busy {
            ends[at].blocked = true;
            self.net.felt.full += 1;
            return Err(ErrorKind::WouldBlock.into());
        }
        let chop = self.net.weather.chop;
        let taken = given.min(room);
        let taken = if chop == usize::MAX { taken } else { taken.min(1 + self.net.draw(chop)) };
        let mut bytes = Vec::with_capacity(taken);
        for buf in bufs {
            bytes.extend_from_slice(&buf[..buf.len().min(taken - bytes.len())]);
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let piece = if chop == usize::MAX { rest.len() } else { rest.len().min(1 + self.net.draw(chop)) };
            self.net.send(link, 1 - at, Segment::Bytes(rest[..piece].to_vec()));
            rest = &rest[piece..];
        }
        if taken < given {
            self.net.felt.chopped += 1;
            self.net.links[link].ends[at].blocked = true;
            // The chop took less than there was room for: nobody will read to make more, so the news comes by itself.
            if taken < room {
                self.net.links[link].ends[at].busy = true;
                self.net.send(link, at, Segment::Room);
            }
        }
        Ok(taken)
    }

    fn want_writable(&mut self, conn: ConnId, want: bool) -> io::Result<()> {
        let (link, at) = self.net.end(self.host, conn)?;
        self.net.links[link].ends[at].wants_writable = want;
        // As a kernel does: asking tells at once if it is so already.
        self.net.tell_room(link, at);
        Ok(())
    }

    fn finish(&mut self, conn: ConnId) -> io::Result<()> {
        let (link, at) = self.net.end(self.host, conn)?;
        if !std::mem::replace(&mut self.net.links[link].ends[at].finished, true) {
            self.net.send(link, 1 - at, Segment::Fin);
        }
        Ok(())
    }

    fn close(&mut self, conn: ConnId) {
        let Some((link, at)) = self.net.hosts[self.host].conns.remove(&conn) else { return };
        let end = &mut self.net.links[link].ends[at];
        let was = std::mem::replace(&mut end.state, EndState::Closed);
        end.conn = None;
        let finished = end.finished;
        let unread = !std::mem::take(&mut end.incoming).is_empty();
        match was {
            // Closing with bytes unread is a reset, as with TCP.
            EndState::Open if unread => self.net.send(link, 1 - at, Segment::Reset),
            EndState::Open if finished => {}
            EndState::Open => self.net.send(link, 1 - at, Segment::Fin),
            EndState::Dialling => self.net.send(link, 1 - at, Segment::Reset),
            EndState::Refused | EndState::Reset | EndState::Closed => {}
        }
    }
}
