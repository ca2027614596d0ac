//! The framers: the same frames or the same error however the bytes are cut.

use rockpool_net::frame::{Cut, Frame, FrameError, Framer};
use rockpool_net::limits::{HEADER_BYTES, HTTP_BODY_BYTES_MAX, HTTP_HEAD_BYTES_MAX, LINE_BYTES_MAX, UNASKED_BYTES_MAX, VERSION_BYTES_MAX};
use rockpool_net::sha256::Checksum;
use rockpool_net::wire::bitcoin;
use rockpool_net::wire::message::Command;

const MAGIC: [u8; 4] = [0xf4, 0xc4, 0xb7, 0xd4];
/// Bytes in front of the stream: the kind, and the lengths of the pieces in turn.
const HEAD: usize = 5;

/// The first byte picks the kind, the next four the lengths of the pieces; the rest is what the connection says.
pub fn frame(data: &[u8]) {
    let Some((head, rest)) = data.split_at_checked(HEAD) else { return };
    let (framer, most, sealed) = kind(head[0]);
    let stream = if sealed { seal(rest) } else { rest.to_vec() };
    let whole = cut(framer.clone(), most, &[&stream]);
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    // Looking at each byte of a long stream takes long and finds nothing that its first bytes do not.
    if stream.len() <= 4 << 10 {
        assert_eq!(cut(framer.clone(), most, &bytes), whole, "byte by byte");
    }
    assert_eq!(cut(framer, most, &pieces(&head[1..], &stream)), whole, "in pieces");
}

/// The framer, the most that it may ask for, and whether the bytes are made into messages with true headers.
fn kind(byte: u8) -> (Framer, usize, bool) {
    let http = HTTP_HEAD_BYTES_MAX + HTTP_BODY_BYTES_MAX;
    let unasked = HEADER_BYTES + UNASKED_BYTES_MAX;
    let mut ready = Framer::v1(MAGIC);
    ready.set_ready();
    let kind = byte % 10;
    match kind {
        0 | 1 => (Framer::v1(MAGIC), unasked, kind == 1),
        2 | 3 => (ready, unasked, kind == 3),
        4 => {
            ready.expect(Command::ShareHeaders);
            (ready, HEADER_BYTES + Command::ShareHeaders.cap(), true)
        }
        5 => (Framer::line(), LINE_BYTES_MAX, false),
        6 => (Framer::http(), http, false),
        7 => (Framer::Sniff, http, false),
        _ => {
            let mut node = Framer::bitcoin(MAGIC);
            if kind == 9 {
                node.set_ready();
            }
            (node, HEADER_BYTES + bitcoin::cap(Command::BtcHeaders), true)
        }
    }
}

/// A fuzzer guesses no checksum: each message is the command's number, two bytes of its length, and the payload.
fn seal(mut rest: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    while let [number, low, high, after @ ..] = rest {
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(after.len());
        let (payload, left) = after.split_at(len);
        rest = left;
        stream.extend_from_slice(&MAGIC);
        stream.extend_from_slice(&Command::ALL[usize::from(*number) % Command::ALL.len()].field());
        stream.extend_from_slice(&(len as u32).to_le_bytes());
        stream.extend_from_slice(&Checksum::default().finish(payload));
        stream.extend_from_slice(payload);
    }
    stream
}

/// The stream in pieces of these lengths, over and over: single bytes up to 127, from there kibibytes.
fn pieces<'a>(lengths: &[u8], stream: &'a [u8]) -> Vec<&'a [u8]> {
    let (mut rest, mut pieces) = (stream, Vec::new());
    let lengths = lengths.iter().map(|&byte| if byte < 128 { usize::from(byte.max(1)) } else { usize::from(byte - 127) << 10 });
    for len in lengths.cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at(len.min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// What the hub would make of these pieces: the frames, and the error at which it stops.
fn cut(mut framer: Framer, most: usize, pieces: &[&[u8]]) -> (Vec<Frame>, u32, Option<FrameError>) {
    let (mut buf, mut frames, mut unknown) = (Vec::new(), Vec::new(), 0);
    for piece in pieces {
        buf.extend_from_slice(piece);
        while !buf.is_empty() {
            let cut = framer.cut(&buf);
            unknown += framer.take_unknown();
            let used = match cut {
                Ok(Cut::Frame { frame, used }) => {
                    judge(&framer, &frame, used, frames.len());
                    frames.push(frame);
                    used
                }
                Ok(Cut::Skip(skipped)) => skipped,
                Ok(Cut::Need(bytes)) => {
                    assert!(bytes > buf.len() && bytes <= most, "{bytes} wanted with {} there, of at most {most}", buf.len());
                    break;
                }
                Err(error) => return (frames, unknown, Some(error)),
            };
            assert!(used > 0 && used <= buf.len(), "{used} used of {}", buf.len());
            buf.drain(..used);
        }
    }
    (frames, unknown, None)
}

/// A frame holds no more than it took, nor than its kind may.
fn judge(framer: &Framer, frame: &Frame, used: usize, before: usize) {
    assert!(frame.bytes() <= used && frame.cost() > 0, "{frame:?} of {used} bytes");
    match frame {
        Frame::Message { command, payload, .. } => {
            assert!(*command != Command::Unknown && payload.len() <= command.cap().max(bitcoin::cap(*command)));
            assert_eq!((framer.arriving(None), payload.len() + HEADER_BYTES), (None, used));
            assert!(*command != Command::Version || (before == 0 && payload.len() <= VERSION_BYTES_MAX), "a handshake in its place");
        }
        Frame::Line(line) => assert!(!line.is_empty() && used <= LINE_BYTES_MAX && line.trim_ascii() == &line[..]),
        Frame::BadHttp(_) => {}
        Frame::Http(request) => assert!(!request.path.is_empty() && request.body.len() <= HTTP_BODY_BYTES_MAX),
    }
}
