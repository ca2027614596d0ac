//! Sockets: opened, named, registered, closed.

use std::io;
use std::net::SocketAddr;

use mio::event::Source;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Registry, Token};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::hub::io::{Event, Ready};
use crate::id::ConnId;
use crate::limits::{SOCKET_SEND_BYTES, TCP_USER_TIMEOUT};
use crate::reactor::{StartError, WAKER};

/// Connections that wait in the kernel to be accepted, as servers ask; the system may have a lower limit.
const LISTEN_BACKLOG: i32 = 1_024;

/// All sockets of a reactor.
#[derive(Debug)]
pub(super) struct Sockets {
    registry: Registry,
    listeners: Vec<TcpListener>,
    addrs: Vec<SocketAddr>,
    /// By slot.
    conns: Vec<Option<(u32, TcpStream)>>,
}

impl Sockets {
    pub fn new(registry: Registry, addrs: &[SocketAddr], conns_max: usize) -> Result<Sockets, StartError> {
        let mut sockets = Sockets { registry, listeners: Vec::new(), addrs: Vec::new(), conns: Vec::new() };
        sockets.conns.resize_with(conns_max, || None);
        for &addr in addrs {
            sockets.listen(addr).map_err(|error| StartError::Listen { addr, error })?;
        }
        Ok(sockets)
    }

    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// The hub's names for what a poll has found.
    pub fn translate(&self, polled: &Events, events: &mut Vec<Event>) {
        for event in polled {
            let token = event.token();
            if token == WAKER {
                continue;
            }
            if let Some(row) = self.row(token) {
                events.push(Event::Listener(row));
            } else if let Some(Some((generation, _))) = self.conns.get(token.0) {
                let conn = ConnId { slot: token.0 as u32, generation: *generation };
                let closed = event.is_read_closed() || event.is_write_closed() || event.is_error();
                events.push(Event::Conn(conn, Ready { readable: event.is_readable(), writable: event.is_writable(), closed }));
            }
        }
    }

    pub fn accept(&mut self, listener: usize, conn: ConnId) -> io::Result<SocketAddr> {
        let (stream, addr) = self.listeners.get(listener).ok_or(io::ErrorKind::NotFound)?.accept()?;
        self.enter(conn, stream, Interest::READABLE)?;
        Ok(addr)
    }

    pub fn dial(&mut self, conn: ConnId, addr: SocketAddr) -> io::Result<()> {
        self.enter(conn, TcpStream::connect(addr)?, Interest::READABLE | Interest::WRITABLE)
    }

    pub fn dialled(&mut self, conn: ConnId) -> io::Result<()> {
        let stream = self.stream(conn)?;
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        match stream.peer_addr() {
            Ok(_) => self.interest(conn, Interest::READABLE),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Err(io::ErrorKind::WouldBlock.into()),
            Err(error) => Err(error),
        }
    }

    pub fn stream(&mut self, conn: ConnId) -> io::Result<&mut TcpStream> {
        match self.conns.get_mut(conn.slot as usize) {
            Some(Some((generation, stream))) if *generation == conn.generation => Ok(stream),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    pub fn interest(&mut self, conn: ConnId, interest: Interest) -> io::Result<()> {
        // A second handle on the registry: the stream is borrowed from the same struct.
        let registry = &self.registry;
        match self.conns.get_mut(conn.slot as usize) {
            Some(Some((_, stream))) => stream.reregister(registry, Token(conn.slot as usize), interest),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    pub fn close(&mut self, conn: ConnId) {
        if let Some(place) = self.conns.get_mut(conn.slot as usize)
            && place.as_ref().is_some_and(|(generation, _)| *generation == conn.generation)
            && let Some((_, mut stream)) = place.take()
        {
            // Dropping it closes and thereby deregisters it in any case.
            let _ = self.registry.deregister(&mut stream);
        }
    }

    fn listen(&mut self, addr: SocketAddr) -> io::Result<()> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        socket.listen(LISTEN_BACKLOG)?;
        let mut listener = TcpListener::from_std(socket.into());
        let token = Token(WAKER.0 - 1 - self.listeners.len());
        self.registry.register(&mut listener, token, Interest::READABLE)?;
        self.addrs.push(listener.local_addr()?);
        self.listeners.push(listener);
        Ok(())
    }

    fn row(&self, token: Token) -> Option<usize> {
        Some(WAKER.0 - 1 - token.0).filter(|&row| row < self.listeners.len())
    }

    /// Names and registers a stream, with its options set: without the first the kernel buffers megabytes for a peer that never reads.
    fn enter(&mut self, conn: ConnId, mut stream: TcpStream, interest: Interest) -> io::Result<()> {
        let socket = SockRef::from(&stream);
        socket.set_send_buffer_size(SOCKET_SEND_BYTES)?;
        socket.set_tcp_nodelay(true)?;
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
        let place = self.conns.get_mut(conn.slot as usize).ok_or(io::ErrorKind::OutOfMemory)?;
        self.registry.register(&mut stream, Token(conn.slot as usize), interest)?;
        *place = Some((conn.generation, stream));
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn accepted_and_dialled_sockets_have_their_limits() {
        let registry = mio::Poll::new().unwrap().registry().try_clone().unwrap();
        let mut sockets = Sockets::new(registry, &["127.0.0.1:0".parse().unwrap()], 2).unwrap();
        let [accepted, dialled] = [0, 1].map(|slot| ConnId { slot, generation: 1 });
        sockets.dial(dialled, sockets.local_addrs()[0]).unwrap();
        // On loopback the connection is there as soon as it is asked for.
        while let Err(error) = sockets.accept(0, accepted) {
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        }
        for conn in [accepted, dialled] {
            let socket = SockRef::from(&*sockets.stream(conn).unwrap());
            // Linux doubles what is asked for; a system with a lower maximum gives less.
            let send = socket.send_buffer_size().unwrap();
            assert!(send > 0 && send <= 2 * SOCKET_SEND_BYTES, "{send}");
            assert!(socket.tcp_nodelay().unwrap());
            #[cfg(target_os = "linux")]
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(TCP_USER_TIMEOUT));
        }
    }
}
