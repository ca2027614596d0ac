//! Bytes ⇄ frames. A framer is given the unfinished bytes of one connection and cuts the next frame off their front.
//!
//! The caller owns the buffer. Until [`Framer::cut`] says that bytes are used or skipped, the next call must be given the same bytes with
//! more behind them: framers remember how far they have looked, so that a message fed byte by byte costs no more than one fed whole.
//! A claimed length is judged before its body arrives and never drives an allocation here; a frame is copied out once, complete.

pub mod http;
pub mod line;
pub mod v1;

use thiserror::Error;

use crate::limits::{HTTP_COST, LINE_COST};
use crate::transport::V2Error;
use crate::wire::message::Command;

/// One complete unit of what a connection says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A peer's message; the payload's checksum held, or its packet's tag.
    Message {
        /// What it is, never [`Command::Unknown`].
        command: Command,
        /// What it carries, still encoded.
        payload: Box<[u8]>,
        /// The payload's checksum: whoever sends the same payload on need not compute it again. A v2 packet has none.
        checksum: Option<[u8; 4]>,
    },
    /// A line of text without its end and without white space around; never empty. Not looked into.
    Line(Box<[u8]>),
    /// An HTTP request with its body.
    Http(http::Request),
    /// An HTTP request that is refused: the last frame of its connection.
    BadHttp(http::Bad),
}

impl Frame {
    /// Bytes that it holds in memory, for the account of tickets.
    pub fn bytes(&self) -> usize {
        match self {
            Frame::Message { payload, .. } => payload.len(),
            Frame::Line(line) => line.len(),
            Frame::Http(request) => request.bytes(),
            Frame::BadHttp(_) => 0,
        }
    }

    /// What its dispatch costs a turn, a constant of its kind (so that a replay does not depend on time).
    pub fn cost(&self) -> u32 {
        match self {
            Frame::Message { command, .. } => command.cost(),
            Frame::Line(_) => LINE_COST,
            Frame::Http(_) | Frame::BadHttp(_) => HTTP_COST,
        }
    }
}

/// What a framer makes of the front of a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The next frame, and the bytes it took from the front.
    Frame {
        /// The frame.
        frame: Frame,
        /// Bytes to drop from the front.
        used: usize,
    },
    /// Nothing yet: go on when the buffer holds this many bytes in all, counted from its front. Always more than it holds now, never
    /// more than the largest frame of this kind.
    Need(usize),
    /// These bytes at the front (at least one) say nothing: drop them and cut again.
    Skip(usize),
}

/// Why bytes cannot be cut into frames. Always the end of the connection: where the next frame begins is not known any more.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Another network, or no peer at all.
    #[error("message starts with {0:02x?}, not with our network's magic: the sender is on another network or speaks another protocol")]
    Magic([u8; 4]),
    /// The command is not printable ASCII padded with zeros.
    #[error("malformed command {0:02x?}")]
    Command([u8; 12]),
    /// Nothing but the handshake before the handshake is done, and no handshake after it.
    #[error("{0} out of turn in the handshake")]
    OutOfTurn(Command),
    /// The header claims more than such a message may have.
    #[error("{command} of {bytes} bytes, at most {cap} are allowed")]
    TooLong {
        /// What it claims to be.
        command: Command,
        /// The claimed length of the payload.
        bytes: usize,
        /// The most allowed.
        cap: usize,
    },
    /// The header claims a large message that we did not ask for.
    #[error("{command} of {bytes} bytes that was not asked for")]
    NotAsked {
        /// What it claims to be.
        command: Command,
        /// The claimed length of the payload.
        bytes: usize,
    },
    /// The payload is not what the header's checksum says.
    #[error("{0} with a wrong checksum: the line or the sender is broken")]
    Checksum(Command),
    /// What came is no v2 as it has to be.
    #[error("v2: {0}")]
    V2(#[from] V2Error),
    /// Somebody would have the connection encrypted, where it is not.
    #[error("a TLS handshake: this port speaks plain Stratum, stratum+tcp://, not stratum+ssl://")]
    Tls,
    /// No end of line within the limit.
    #[error("line longer than {0} bytes")]
    LineTooLong(usize),
}

/// How one connection's bytes are cut.
#[derive(Clone, Debug)]
pub enum Framer {
    /// Bitcoin's P2P v1 messages, in either dialect.
    V1(v1::V1),
    /// Lines of text.
    Line(line::Lines),
    /// HTTP/1 requests.
    Http(http::Requests),
    /// Lines or HTTP: the first bytes decide, then it is one of the two for good. A TLS handshake is refused as what it is.
    Sniff,
}

impl Framer {
    /// Peers of the network with this magic.
    pub fn v1(magic: [u8; 4]) -> Framer {
        Framer::V1(v1::V1::new(magic))
    }

    /// Nodes of Bitcoin's own network with this magic.
    pub fn bitcoin(magic: [u8; 4]) -> Framer {
        Framer::V1(v1::V1::bitcoin(magic))
    }

    /// Stratum's lines.
    pub fn line() -> Framer {
        Framer::Line(line::Lines::default())
    }

    /// HTTP requests.
    pub fn http() -> Framer {
        Framer::Http(http::Requests::default())
    }

    /// What the front of `buf` is. See the module for what the next call must be given.
    pub fn cut(&mut self, buf: &[u8]) -> Result<Cut, FrameError> {
        match self {
            Framer::V1(v1) => v1.cut(buf),
            Framer::Line(lines) => lines.cut(buf),
            Framer::Http(requests) => Ok(requests.cut(buf)),
            Framer::Sniff => {
                let blank = line::blank(buf);
                if blank > 0 {
                    return Ok(Cut::Skip(blank));
                }
                match buf {
                    // A record of a handshake, of any version: no text begins so.
                    [0x16] => return Ok(Cut::Need(2)),
                    [0x16, 0x03, ..] => return Err(FrameError::Tls),
                    _ => {}
                }
                match http::sniff(buf) {
                    http::Sniffed::Undecided => return Ok(Cut::Need(buf.len() + 1)),
                    http::Sniffed::Http => *self = Framer::http(),
                    http::Sniffed::Other => *self = Framer::line(),
                }
                self.cut(buf)
            }
        }
    }

    /// The session holds the handshake for done: from now on every command but the handshake's is let through. A framer that has cut
    /// `version` and `verack` has concluded so itself, since what follows may lie in the same bytes. Nothing to do for other kinds.
    pub fn set_ready(&mut self) {
        if let Framer::V1(v1) = self {
            v1.set_ready();
        }
    }

    /// We ask for an answer of this command: one of over [`UNASKED_BYTES_MAX`](crate::limits::UNASKED_BYTES_MAX) bytes is let through.
    /// Every frame of the command, large or not, uses up one asking.
    pub fn expect(&mut self, command: Command) {
        if let Framer::V1(v1) = self {
            v1.expect(command);
        }
    }

    /// The message whose header is there and whose end is not. Of a v2 packet only the length of its contents is known: `packet`.
    pub fn arriving(&self, packet: Option<usize>) -> Option<Command> {
        match (self, packet) {
            (Framer::V1(v1), None) => v1.arriving(),
            (Framer::V1(v1), Some(bytes)) => v1.arriving_packet(bytes),
            (Framer::Line(_) | Framer::Http(_) | Framer::Sniff, _) => None,
        }
    }

    /// Whether a message of this command may be that one: of a packet its end alone tells which of those that were asked for it is.
    pub fn is_arriving(&self, packet: Option<usize>, command: Command) -> bool {
        match (self, packet) {
            (Framer::V1(v1), Some(bytes)) => v1.may_be(bytes, command),
            _ => self.arriving(packet) == Some(command),
        }
    }

    /// Unknown messages skipped since this was last asked, for the counter.
    pub fn take_unknown(&mut self) -> u32 {
        match self {
            Framer::V1(v1) => v1.take_unknown(),
            Framer::Line(_) | Framer::Http(_) | Framer::Sniff => 0,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn a_tls_handshake_is_known_by_its_first_bytes() {
        let hello = [0x16, 3, 1, 2, 0, 1, 0, b'\n', b'{', b'}'];
        for at in 0..=hello.len() {
            assert_eq!(frames(&mut Framer::Sniff, &[&hello[..at], &hello[at..]]), Err(FrameError::Tls), "cut at {at}");
        }
        assert_eq!(frames(&mut Framer::Sniff, &[&[0x16], b"x\n"]), Ok(vec![Frame::Line(Box::new([0x16, b'x']))]));
    }

    /// The frames of these chunks, as the hub would cut them: what is unfinished is kept and given again with what comes next.
    pub(crate) fn frames(framer: &mut Framer, chunks: &[&[u8]]) -> Result<Vec<Frame>, FrameError> {
        let (mut buf, mut frames, mut wanted) = (Vec::new(), Vec::new(), 0);
        for chunk in chunks {
            buf.extend_from_slice(chunk);
            while buf.len() >= wanted {
                wanted = 0;
                match framer.cut(&buf)? {
                    Cut::Frame { frame, used } => {
                        assert!(used > 0 && used <= buf.len());
                        frames.push(frame);
                        buf.drain(..used);
                    }
                    Cut::Skip(skipped) => {
                        assert!(skipped > 0 && skipped <= buf.len());
                        buf.drain(..skipped);
                    }
                    Cut::Need(bytes) => {
                        assert!(bytes > buf.len(), "{bytes} wanted, {} there", buf.len());
                        wanted = bytes;
                    }
                }
            }
        }
        Ok(frames)
    }
}
