//! A peer's end of a connection to the node: a socket that does not block, frames in, bytes out.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rockpool_net::limits::HEADER_BYTES;
use rockpool_net::wire::message::{Message, NetAddr, PROTOCOL_VERSION, Version};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use super::Outcome;
use super::shares::encoded;

/// A frame as it came: command, checksum, payload.
pub struct Heard<'a> {
    pub command: &'a [u8],
    pub checksum: [u8; 4],
    pub payload: &'a [u8],
}

/// One connection to the node.
pub struct Line {
    stream: TcpStream,
    /// The beginning of a frame that is not whole yet.
    input: Vec<u8>,
    /// What the socket has not taken yet.
    output: Vec<u8>,
}

impl Line {
    /// Begins to connect; the socket says by itself when it stands.
    pub fn dial(addr: SocketAddr) -> io::Result<Line> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        match rustix::net::connect(&socket, &addr) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Line { stream: TcpStream::from(socket), input: Vec::new(), output: Vec::new() })
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends, or keeps what the socket does not take.
    pub fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.output.extend_from_slice(bytes);
        self.flush()
    }

    /// Sends what was kept.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            let Some(taken) = self.write(&self.output)? else { break };
            self.output.drain(..taken);
        }
        Ok(())
    }

    /// Ends it with a reset, which leaves no port behind that waits.
    pub fn reset(&self) -> io::Result<()> {
        Ok(sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO))?)
    }

    /// Whether something waits for the socket.
    pub fn owes(&self) -> bool {
        !self.output.is_empty()
    }

    /// One write past what is kept. `None`: the socket takes nothing now.
    pub fn write(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        match (&self.stream).write(bytes) {
            Ok(taken) => Ok(Some(taken)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One read. The number of bytes; `None`: there is nothing now. The end of the stream is an error.
    pub fn read(&mut self, buffer: &mut [u8], mut on: impl FnMut(Heard<'_>)) -> io::Result<Option<usize>> {
        let count = match (&self.stream).read(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return Ok(None),
            Err(error) => return Err(error),
        };
        // Mostly whole frames come, and nothing is kept.
        if self.input.is_empty() {
            let used = cut(&buffer[..count], &mut on);
            self.input.extend_from_slice(&buffer[used..count]);
        } else {
            self.input.extend_from_slice(&buffer[..count]);
            let used = cut(&self.input, &mut on);
            self.input.drain(..used);
        }
        Ok(Some(count))
    }
}

/// Hands on the whole frames; how many bytes they are.
fn cut(bytes: &[u8], on: &mut impl FnMut(Heard<'_>)) -> usize {
    let mut used = 0;
    while let Some(header) = bytes[used..].first_chunk::<HEADER_BYTES>() {
        let length = u32::from_le_bytes([header[16], header[17], header[18], header[19]]) as usize;
        let Some(payload) = bytes[used + HEADER_BYTES..].get(..length) else { break };
        let command = header[4..16].split(|&byte| byte == 0).next().unwrap_or_default();
        on(Heard { command, checksum: [header[20], header[21], header[22], header[23]], payload });
        used += HEADER_BYTES + length;
    }
    used
}

/// The `version` of a peer with this nonce.
pub fn hello(nonce: u64) -> Outcome<Vec<u8>> {
    let nowhere = NetAddr { services: 0, addr: SocketAddr::from(([0, 0, 0, 0], 0)) };
    let version = Version {
        protocol: PROTOCOL_VERSION,
        services: 0,
        time: 0,
        receiver: nowhere,
        sender: nowhere,
        nonce,
        user_agent: "/bench/".to_owned(),
        start_height: 0,
        relay: true,
    };
    Ok(encoded(&Message::Version(version))?.bytes().to_vec())
}

/// A whole handshake in one go: the node takes `verack` before we have heard its `version`.
pub fn handshake(nonce: u64) -> Outcome<Vec<u8>> {
    Ok([&hello(nonce)?[..], encoded(&Message::Verack)?.bytes()].concat())
}
